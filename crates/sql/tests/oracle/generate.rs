//! Statements made from a grammar, and statements that were tampered with. The same seed makes the same statements.

use std::collections::HashMap;

use pgweir_sql::lexer::{Lexer, TokenKind};

/// A small generator (xorshift64*): the crate must not depend on the test kit, which lies on a floor above.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Starts from the environment's `SEED`, or from the default, which is fixed: a test that fails now and then for reasons
    /// of its own is of no use to whoever changes something else. The seed is printed for the replay.
    pub(crate) fn from_env(default: u64) -> Self {
        let seed = std::env::var("SEED").map_or(default, |seed| seed.parse().unwrap());
        println!("SEED={seed}");
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % limit.max(1)
    }

    pub(crate) fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// The grammar of `grammar.txt`.
#[derive(Debug)]
pub(crate) struct Grammar {
    /// The productions of each rule, as often as their weight says.
    rules: HashMap<&'static str, Vec<&'static str>>,
}

impl Grammar {
    pub(crate) fn load() -> Self {
        let mut rules: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut rule = "";
        for line in include_str!("grammar.txt").lines() {
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                rule = name;
                continue;
            }
            let productions = rules.entry(rule).or_default();
            // An empty line is a production in the first place only; elsewhere it ends the rule.
            if rule.is_empty() || line.is_empty() && !productions.is_empty() {
                continue;
            }
            let (weight, text) = line
                .split_once("* ")
                .and_then(|(weight, text)| Some((weight.parse().ok()?, text)))
                .unwrap_or((1, line));
            productions.extend(std::iter::repeat_n(text, weight));
        }
        Grammar { rules }
    }

    /// Returns a statement, laid out at random.
    pub(crate) fn statement(&self, rng: &mut Rng) -> String {
        let mut budget = 4 + rng.below(60);
        let mut text = String::new();
        self.expand("statement", rng, &mut budget, &mut text);
        lay_out(&text.replace("\\n", "\n"), rng)
    }

    fn expand(&self, rule: &str, rng: &mut Rng, budget: &mut usize, out: &mut String) {
        let productions = &self.rules[rule];
        let production = if *budget == 0 {
            productions[0]
        } else {
            productions[rng.below(productions.len())]
        };
        *budget = budget.saturating_sub(1);
        let mut rest = production;
        while let Some((before, inner)) = rest.split_once('{') {
            let (name, after) = inner.split_once('}').unwrap();
            out.push_str(before);
            self.expand(name, rng, budget, out);
            rest = after;
        }
        out.push_str(rest);
    }
}

/// What may stand wherever white space does.
const GAPS: &[&str] = &[
    "\n",
    "\t",
    "  ",
    " /* c */ ",
    "/**/",
    " -- c\n",
    " /* a /* b; */ c */ ",
    "\r\n",
    " -- DELETE FROM t;\n",
];

/// Puts other white space and comments in the place of some, and changes the letter case of some words.
fn lay_out(text: &str, rng: &mut Rng) -> String {
    if !rng.chance(4) {
        return text.to_owned();
    }
    tokens(text)
        .into_iter()
        .map(|(kind, token)| match kind {
            // A line end is left alone: strings may be joined over it.
            TokenKind::Whitespace if !token.contains('\n') && rng.chance(8) => {
                GAPS[rng.below(GAPS.len())].to_owned()
            }
            TokenKind::Word if rng.chance(8) => token.to_ascii_uppercase(),
            TokenKind::Word if rng.chance(8) => token.to_ascii_lowercase(),
            _ => token,
        })
        .collect()
}

fn tokens(text: &str) -> Vec<(TokenKind, String)> {
    Lexer::new(text.as_bytes())
        .map(|token| (token.kind, String::from_utf8_lossy(token.text).into_owned()))
        .collect()
}

/// What changes what a statement is, for the tampering; `~` stands for a space.
const PIECES: &str = r#"
    FOR~UPDATE INTO AS FROM WITH ( ) , . :: ONLY SELECT "x" 's' JOIN TABLE UPDATE OVER FILTER 1 DISTINCT ANALYZE
    E'\'' $$a$$ ; SHARE t ORDER~BY USING LATERAL IS NOT MATERIALIZED RECURSIVE [1] COLLATE => * ROWS VALUES~(1)
    ===~1 ::mydomain mydomain~'1' f_user(1) f_user(1) f_user(1) "f"(1) app.f(1) lower(1)~'x' over(1) filter(1)
    value(1) rollup(1) cube(1) materialized(1) join(1) sets(1) columns(1) first(1) by(1) second(1) zone(1) system(1)
    passing(1) escape(1) content(1) ref(1) varying(1) conflict(1) overlaps(1) insert(1) set(1) recursive(1) left(1)
    operator(1) range~'1' name~'1' path~'1' escape~'1' double~'1' ::double ::"int"
"#;

/// Tampers with a statement: tokens are dropped, doubled, exchanged, replaced by others, or their letter case is changed.
pub(crate) fn tamper(text: &str, others: &[String], rng: &mut Rng) -> String {
    let mut tokens = tokens(text);
    let pieces: Vec<String> = PIECES
        .split_whitespace()
        .map(|piece| piece.replace('~', " "))
        .collect();
    for _ in 0..=rng.below(2) {
        let solid: Vec<usize> = (0..tokens.len())
            .filter(|at| tokens[*at].0 != TokenKind::Whitespace)
            .collect();
        if solid.is_empty() {
            break;
        }
        let at = solid[rng.below(solid.len())];
        let other = solid[rng.below(solid.len())];
        let piece = (TokenKind::Word, pieces[rng.below(pieces.len())].clone());
        let space = (TokenKind::Whitespace, " ".to_owned());
        let donor = self::tokens(&others[rng.below(others.len())]);
        match rng.below(10) {
            0 => drop(tokens.remove(at)),
            1 => {
                let token = tokens[at].clone();
                tokens.splice(at..at, [token, space]);
            }
            2 => tokens.swap(at, other),
            3 => tokens[at].1 = tokens[at].1.to_ascii_uppercase(),
            4 => tokens.insert(at, (TokenKind::Comment, "/* x */".to_owned())),
            5 => drop(tokens.splice(at..at, [space.clone(), piece, space])),
            6 => tokens[at] = piece,
            7 => {
                let from = rng.below(donor.len());
                let run = donor.into_iter().skip(from).take(1 + rng.below(6));
                tokens.splice(
                    at..at,
                    std::iter::once(space.clone()).chain(run).chain([space]),
                );
            }
            // One of a kind for another is often SQL again.
            _ => {
                let kind = tokens[at].0;
                let alike: Vec<_> = donor.into_iter().filter(|token| token.0 == kind).collect();
                if let Some(token) = alike.get(rng.below(alike.len())) {
                    tokens[at] = token.clone();
                }
            }
        }
    }
    tokens.into_iter().map(|(_, text)| text).collect()
}
