//! The two views of a text side by side: what the crate vouches for must hold in PostgreSQL's tree.
//!
//! | what the crate says | what is demanded of the tree |
//! |---|---|
//! | a replica may run the statement | it is a read; its functions, casts and operators are built in and not volatile |
//! | the tables of such a statement | all of the tree's, and nothing else but (rarely, and counted) common table expressions |
//! | the functions of such a statement | all that the tree calls; nothing else, but for syntax that the tree makes a function of |
//! | the names of a statement that might be vouched for, if the catalog knew them | all the tree's tables, functions, operators and types that are not built in |
//! | the kind of any statement | that of its node |
//! | the number of statements | the same |
//! | a data-modifying statement | is known as a write, and all the tree's tables are reported |
//!
//! Of texts that PostgreSQL refuses nothing is demanded but that the crate does not panic.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use pgweir_model::Reason;
use pgweir_sql::{Classified, StatementKind, classify};

use crate::names::{Catalog, is_harmless_syntax};
use crate::tree::{self, Facts, Name, NoTree};

/// What became of a text.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// PostgreSQL gives no tree.
    Unread(NoTree),
    /// Both read it.
    Read(Vec<Facts>, Box<Classified>),
    /// They disagree: the statement and both readings.
    Disagreement(String),
}

pub(crate) fn judge(catalog: &Catalog, text: &str) -> Outcome {
    let classified = classify(text.as_bytes());
    let facts = match tree::parse(text) {
        Ok(facts) => facts,
        Err(reason) => return Outcome::Unread(reason),
    };
    let problems = problems(catalog, &facts, &classified);
    if problems.is_empty() {
        return Outcome::Read(facts, Box::new(classified));
    }
    let mut report = format!("{text}\n  {}", problems.join("\n  "));
    for facts in &facts {
        let _ = write!(report, "\n    tree: {facts:?}");
    }
    let _ = write!(
        report,
        "\n    pgweir: {} {:?}\n      tables {:?}\n      functions {:?}",
        classified.reason,
        classified.statements,
        names(&classified.tables),
        names(&classified.functions)
    );
    Outcome::Disagreement(report)
}

/// Whether a reference to a common table expression is taken for a table. This costs caution and no more; it happens where a
/// text is beyond a reading of its tokens: `(WITH a AS (...) SELECT 1) ORDER BY (SELECT b FROM a)`.
pub(crate) fn is_cautious(facts: &[Facts], classified: &Classified) -> bool {
    let vouched = classified.statements.iter().all(|one| vouches(one.reason));
    vouched && !names(&classified.tables).is_subset(&all_tables(facts))
}

fn all_tables(facts: &[Facts]) -> BTreeSet<Name> {
    facts.iter().flat_map(|one| one.tables.clone()).collect()
}

/// Whether a statement of this reason may run on a replica.
pub(crate) fn vouches(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Read | Reason::ReadByTokens | Reason::ReadOnlyTransaction
    )
}

fn names(names: &[pgweir_sql::Name]) -> BTreeSet<Name> {
    names
        .iter()
        .map(|name| {
            (
                name.schema.as_deref().map(str::to_owned),
                name.name.to_string(),
            )
        })
        .collect()
}

fn problems(catalog: &Catalog, facts: &[Facts], classified: &Classified) -> Vec<String> {
    let mut problems = Vec::new();
    if facts.len() != classified.statements.len() {
        problems.push(format!(
            "{} statements, not {}",
            classified.statements.len(),
            facts.len()
        ));
        return problems;
    }
    let tables = names(&classified.tables);
    let functions = names(&classified.functions);
    let operators = names(&classified.names.operators);
    let types = names(&classified.names.types);
    for (facts, statement) in facts.iter().zip(&classified.statements) {
        if !is_of_kind(&facts.node, statement.kind) {
            problems.push(format!("a {:?}, not a {}", statement.kind, facts.node));
        }
        let modifies = matches!(
            facts.node.as_str(),
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt"
        );
        if modifies && statement.reason != Reason::Write {
            problems.push(format!("a {} is no write", facts.node));
        }
        let vouched = vouches(statement.reason);
        let by_catalog = vouched || statement.reason == Reason::VolatileFunction;
        if by_catalog || modifies {
            missing("table", &facts.tables, &tables, &mut problems);
        }
        if by_catalog {
            missing("function", &facts.functions, &functions, &mut problems);
        }
        if by_catalog && !facts.planned {
            missing("operator", &facts.operators, &operators, &mut problems);
            let mut unknown = facts.types.clone();
            unknown.retain(|name| !catalog.knows_type(name));
            missing("type", &unknown, &types, &mut problems);
        }
        if vouched {
            unvouched(catalog, facts, &mut problems);
        }
    }
    // Where nothing is executed, a keyword before a parenthesis may have been taken for a call, and more.
    let all_run = facts.iter().all(|one| one.node != "ExplainStmt");
    if all_run && classified.statements.iter().all(|one| vouches(one.reason)) {
        let mut of_tree = all_tables(facts);
        of_tree.extend(facts.iter().flat_map(|one| one.common.clone()));
        extra("table", &tables, &of_tree, &mut problems);
        let of_tree = facts.iter().flat_map(|one| {
            let made = one.made.iter().map(|name| (None, name.clone()));
            one.functions.iter().cloned().chain(made)
        });
        // Behind a name that is a keyword, the operator `LIKE (` looks like a call.
        let like = (None, "like".to_owned());
        let of_tree = of_tree.chain([like]).collect();
        extra("function", &functions, &of_tree, &mut problems);
    }
    problems
}

fn missing(
    what: &str,
    of_tree: &BTreeSet<Name>,
    told: &BTreeSet<Name>,
    problems: &mut Vec<String>,
) {
    for name in of_tree.difference(told) {
        problems.push(format!("the {what} {name:?} is not reported"));
    }
}

fn extra(what: &str, told: &BTreeSet<Name>, of_tree: &BTreeSet<Name>, problems: &mut Vec<String>) {
    for name in told.difference(of_tree) {
        problems.push(format!("there is no {what} {name:?}"));
    }
}

/// Names what stands in a statement that was vouched for, and should not.
fn unvouched(catalog: &Catalog, facts: &Facts, problems: &mut Vec<String>) {
    if let Some(objection) = &facts.objection {
        problems.push(format!("vouched for, but not a read: {objection}"));
    }
    // What a plain EXPLAIN or COPY contains is planned only, or a relation.
    if facts.node == "ExplainStmt" {
        return;
    }
    let mut claim = |holds: bool, what: &str, name: &dyn std::fmt::Debug| {
        if !holds {
            problems.push(format!("vouched for, with {what} {name:?}"));
        }
    };
    for name in &facts.functions {
        claim(catalog.allows_function(name), "the function", name);
    }
    for name in &facts.types {
        claim(catalog.knows_type(name), "the type", name);
    }
    for name in &facts.operators {
        claim(catalog.knows_operator(name), "the operator", name);
    }
    for name in &facts.made {
        let of_type = (None, name.clone());
        let harmless = is_harmless_syntax(name) || catalog.knows_type(&of_type);
        claim(harmless, "the syntax", name);
    }
}

/// Whether the crate's kind of a statement is that of the node.
fn is_of_kind(node: &str, kind: StatementKind) -> bool {
    use StatementKind as Kind;
    let expected: &[Kind] = match node {
        "SelectStmt" => &[Kind::Query],
        "InsertStmt" => &[Kind::Insert],
        "UpdateStmt" => &[Kind::Update],
        "DeleteStmt" => &[Kind::Delete],
        "MergeStmt" => &[Kind::Merge],
        "CopyStmt" => &[Kind::CopyTo, Kind::CopyFrom],
        "ExplainStmt" => &[Kind::Explain],
        "VariableShowStmt" => &[Kind::Show],
        "VariableSetStmt" => &[Kind::Set, Kind::SetTransaction, Kind::Reset],
        "ConstraintsSetStmt" => &[Kind::Set],
        "TransactionStmt" => &[
            Kind::Begin,
            Kind::Commit,
            Kind::Rollback,
            Kind::Savepoint,
            Kind::TwoPhase,
        ],
        "PrepareStmt" => &[Kind::Prepare],
        "ExecuteStmt" => &[Kind::Execute],
        "DeallocateStmt" => &[Kind::Deallocate],
        "DeclareCursorStmt" => &[Kind::Declare],
        "FetchStmt" => &[Kind::Fetch],
        "ClosePortalStmt" => &[Kind::Close],
        "ListenStmt" => &[Kind::Listen],
        "UnlistenStmt" => &[Kind::Unlisten],
        "NotifyStmt" => &[Kind::Notify],
        "DiscardStmt" => &[Kind::Discard],
        "CallStmt" => &[Kind::Call],
        "DoStmt" => &[Kind::Do],
        _ => &[Kind::Ddl, Kind::Utility],
    };
    expected.contains(&kind)
}
