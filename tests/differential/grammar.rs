//! A small context-free grammar of random texts: the statements are data (`statements.txt`), this draws from them.

use std::collections::HashMap;

use pgweir_testkit::Rng;

/// Rules by name.
#[derive(Debug)]
pub(super) struct Grammar(HashMap<String, Vec<Alternative>>);

#[derive(Debug)]
struct Alternative {
    weight: usize,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Rule(String),
}

/// Deeper than any text of ours nests; a rule that contains itself without an end is found by it.
const DEPTH_LIMIT: usize = 40;

impl Grammar {
    /// Reads the rules. `variables` are names that [`Self::draw`] is given texts for.
    pub(super) fn parse(text: &str, variables: &[&str]) -> Self {
        let mut rules: HashMap<String, Vec<Alternative>> = HashMap::new();
        let mut current = String::new();
        for line in text.lines() {
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            if let Some(alternative) = line.strip_prefix("  ") {
                let rule = rules
                    .get_mut(&current)
                    .expect("a rule begins at the margin");
                rule.push(Alternative::parse(alternative));
            } else {
                current = line
                    .strip_suffix(':')
                    .expect("a rule ends with a colon")
                    .to_owned();
                let before = rules.insert(current.clone(), Vec::new());
                assert!(before.is_none(), "two rules are named {current}");
            }
        }
        let grammar = Self(rules);
        let names = grammar
            .0
            .values()
            .flatten()
            .flat_map(|alternative| &alternative.parts);
        for part in names {
            if let Part::Rule(name) = part {
                let is_known = grammar.0.contains_key(name) || variables.contains(&name.as_str());
                assert!(is_known, "no rule is named {name}");
            }
        }
        grammar
    }

    /// Draws a text of this rule.
    pub(super) fn draw(&self, rule: &str, variables: &[(&str, &str)], rng: &mut Rng) -> String {
        let mut out = String::new();
        self.append(rule, variables, rng, &mut out, 0);
        out
    }

    fn append(
        &self,
        rule: &str,
        variables: &[(&str, &str)],
        rng: &mut Rng,
        out: &mut String,
        depth: usize,
    ) {
        assert!(depth < DEPTH_LIMIT, "{rule} has no end");
        if let Some((_, value)) = variables.iter().find(|(name, _)| *name == rule) {
            return out.push_str(value);
        }
        let alternatives = self
            .0
            .get(rule)
            .unwrap_or_else(|| panic!("no rule is named {rule}"));
        let total = alternatives.iter().map(|one| one.weight).sum();
        let mut drawn = rng.below(total);
        let chosen = alternatives
            .iter()
            .find(|one| match drawn.checked_sub(one.weight) {
                Some(rest) => {
                    drawn = rest;
                    false
                }
                None => true,
            });
        for part in &chosen.expect("a rule has alternatives").parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Rule(name) => self.append(name, variables, rng, out, depth + 1),
            }
        }
    }
}

impl Alternative {
    fn parse(text: &str) -> Self {
        let weighted = text
            .split_once('*')
            .and_then(|(weight, rest)| Some((weight.parse().ok()?, rest)));
        let (weight, text) = weighted.unwrap_or((1, text));
        let mut parts = Vec::new();
        let mut rest = text.trim();
        while let Some((before, name, after)) = next_name(rest) {
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Rule(name.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Self { weight, parts }
    }
}

/// Returns what is before, in and after the first `{name}`.
fn next_name(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte == b'_' || byte.is_ascii_lowercase());
    assert!(is_name, "{{{name}}} is no rule");
    Some((before, name, after))
}

#[test]
fn a_text_is_drawn_by_weight_and_the_same_for_the_same_seed() {
    let grammar = Grammar::parse(
        "# Why.\nall:\n  9* {often}, {me}\n  rarely\noften:\n  x\n  y\n",
        &["me"],
    );
    let draw = |seed| {
        let mut rng = Rng::new(seed);
        (0..100)
            .map(|_| grammar.draw("all", &[("me", "s1")], &mut rng))
            .collect::<Vec<_>>()
    };
    let texts = draw(1);
    assert_eq!(texts, draw(1));
    let count = |wanted: &str| texts.iter().filter(|text| *text == wanted).count();
    assert_eq!(count("x, s1") + count("y, s1") + count("rarely"), 100);
    assert!(
        (1..30).contains(&count("rarely")) && count("x, s1") > 20,
        "{texts:?}"
    );
}
