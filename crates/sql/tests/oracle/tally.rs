//! What became of many texts: agreement, and by kind of statement what only the tokens can read.

use std::collections::BTreeMap;

use pgweir_model::Reason;
use pgweir_sql::Shaper;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use crate::judge::{Outcome, is_cautious, judge, vouches};
use crate::names::Catalog;
use crate::tree::NoTree;

/// Counts over the statements of a kind, which is that of PostgreSQL's node.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) seen: usize,
    /// sqlparser gives no tree.
    pub(crate) rejected: usize,
    /// Of those rejected, these may use a replica, vouched for by the tokens.
    pub(crate) by_tokens: usize,
}

/// Counts over texts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) texts: usize,
    pub(crate) refused: usize,
    /// Not judged: an extension of the grammar, or a tree too deep for its encoding.
    pub(crate) skipped: usize,
    pub(crate) vouched: usize,
    pub(crate) cautious: usize,
    pub(crate) kinds: BTreeMap<String, Kind>,
    disagreements: Vec<String>,
}

impl Tally {
    pub(crate) fn take(&mut self, catalog: &Catalog, text: &str) {
        self.texts += 1;
        let (facts, classified) = match judge(catalog, text) {
            Outcome::Unread(NoTree::Refused) => return self.refused += 1,
            Outcome::Unread(NoTree::Extension | NoTree::TooDeep) => return self.skipped += 1,
            Outcome::Disagreement(report) => return self.disagreements.push(report),
            Outcome::Read(facts, classified) => (facts, classified),
        };
        self.vouched += usize::from(vouches(classified.reason));
        self.cautious += usize::from(is_cautious(&facts, &classified));
        let ([facts], [statement]) = (facts.as_slice(), classified.statements.as_slice()) else {
            return;
        };
        let kind = self.kinds.entry(facts.node.clone()).or_default();
        kind.seen += 1;
        if !is_rejected(text) {
            return;
        }
        kind.rejected += 1;
        kind.by_tokens += usize::from(vouches(statement.reason));
        // A query without a tree is vouched for by its tokens, and says so, or not at all.
        if facts.node == "SelectStmt" && statement.reason == Reason::Read {
            self.disagreements.push(format!(
                "{text}\n  sqlparser rejects what is said to be read"
            ));
        }
    }

    /// Fails with the shortest disagreements, if there are any.
    pub(crate) fn assert_agreement(mut self) -> Self {
        println!(
            "{} texts, {} refused by PostgreSQL, {} skipped, {} vouched for, {} with a common table expression taken for a table",
            self.texts, self.refused, self.skipped, self.vouched, self.cautious
        );
        println!("kind of statement: seen, rejected by sqlparser, of these read by tokens");
        for (kind, counts) in &self.kinds {
            let Kind {
                seen,
                rejected,
                by_tokens,
            } = counts;
            println!("  {kind}: {seen} {rejected} {by_tokens}");
        }
        self.disagreements.sort_by_key(String::len);
        let shown: Vec<&str> = self
            .disagreements
            .iter()
            .take(20)
            .map(String::as_str)
            .collect();
        assert!(
            shown.is_empty(),
            "{} disagreements, the shortest are:\n{}",
            self.disagreements.len(),
            shown.join("\n")
        );
        // Bugs hide behind caution if it is common.
        assert!(
            self.cautious * 500 <= self.texts,
            "{} cautious",
            self.cautious
        );
        self
    }
}

/// Whether sqlparser gives no tree of the text's shape, with the crate's own limit on recursion.
fn is_rejected(text: &str) -> bool {
    let mut shaper = Shaper::new();
    let shape = String::from_utf8_lossy(shaper.shape(text.as_bytes()).text).into_owned();
    Parser::new(&PostgreSqlDialect {})
        .with_recursion_limit(50)
        .try_with_sql(&shape)
        .and_then(|mut parser| parser.parse_statements())
        .is_err()
}
