//! Properties over generated text: totality, and that shape decides.

use pgweir_sql::{PlanTable, Shaper, classify, split};
use proptest::prelude::*;

/// Pieces of SQL, separated by spaces; `~` stands for a space inside one.
const FRAGMENTS: &str = r#"SELECT FROM WHERE WITH AS INSERT INTO UPDATE DELETE FOR SHARE KEY NO DISTINCT ON
    ( ) [ ] , ; . :: * + = <=> ->> OPERATOR CAST EXPLAIN ANALYZE ROUTE COPY TO STDOUT SET LOCAL pgweir route SHOW
    BEGIN READ~ONLY COMMIT AND~CHAIN CREATE TEMP TABLE VALUES t f lower nextval "q" 's' E'\'' $$d$$ 1 1.5 $1 --~c
    /*~c~*/ /*~pgweir:~route=primary~*/ XMLTABLE COLUMNS DECLARE CURSOR WITH~HOLD JOIN ' " /* $a$ é DISCARD ALL
    RESET set_config true pg_temp U&"x""#;

fn fragment() -> impl Strategy<Value = String> {
    let fragments: Vec<String> = FRAGMENTS
        .split_whitespace()
        .map(|word| word.replace('~', " "))
        .collect();
    prop::sample::select(fragments)
}

/// Fragments whose letter case and surroundings may change without changing what they are.
fn plain_soup() -> impl Strategy<Value = String> {
    let plain = fragment().prop_filter("plain", |word| {
        !word.contains(['\'', '"', '$', '/', '-', '\u{e9}'])
    });
    prop::collection::vec(plain, 0..40).prop_map(|parts| parts.join(" "))
}

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(
        (fragment(), prop::sample::select(vec![" ", " ", "", "\n"])),
        0..40,
    )
    .prop_map(|parts| {
        parts
            .into_iter()
            .flat_map(|(word, gap)| [word, gap.to_owned()])
            .collect()
    })
}

/// Statements with a place for literals: `%` a number, `@` a string.
const TEMPLATES: &[&str] = &[
    "SELECT * FROM t WHERE a = % AND b = @",
    "SELECT set_config(@, @, true), set_config(@, @, false)",
    "EXPLAIN (ANALYZE %, VERBOSE) SELECT @",
    "EXPLAIN (ANALYZE @) DELETE FROM t",
    "INSERT INTO t VALUES (%, @), (%, @)",
    "SELECT date @, interval @ DAY, x LIKE @ ESCAPE @ LIMIT % OFFSET %",
    "SELECT substring(@ FROM % FOR %), @::text, CAST(@ AS int), ARRAY[%, %]",
    "COPY (SELECT %) TO @",
    "SELECT nextval(@); SELECT %",
    "NOTIFY c, @",
    "PREPARE TRANSACTION @",
    "VALUES (%), (-%), (%.0)",
];

fn literal(template: &str, numbers: &[u32], strings: &[String]) -> String {
    let (mut numbers, mut strings) = (numbers.iter().cycle(), strings.iter().cycle());
    let mut text = String::new();
    for c in template.chars() {
        match c {
            '%' => text += &numbers.next().unwrap_or(&0).to_string(),
            '@' => {
                text += &format!(
                    "'{}'",
                    strings
                        .next()
                        .map_or("", String::as_str)
                        .replace('\'', "''")
                )
            }
            c => text.push(c),
        }
    }
    text
}

proptest! {
    #[test]
    fn any_bytes_are_classified(text in prop::collection::vec(any::<u8>(), 0..300)) {
        classify(&text);
        prop_assert_eq!(split(&text).count(), classify(&text).statements.len());
    }

    #[test]
    fn any_soup_of_sql_is_classified_as_its_shape(text in soup()) {
        let classified = classify(text.as_bytes());
        let shape = Shaper::new().shape(text.as_bytes()).text.to_vec();
        prop_assert_eq!(&classify(&shape), &classified);
        prop_assert_eq!(split(text.as_bytes()).count(), classified.statements.len());
        let mut table = PlanTable::new(2);
        prop_assert_eq!(&table.get(text.as_bytes()).classified, &classified);
        prop_assert_eq!(&table.get(text.as_bytes()).classified, &classified);
    }

    #[test]
    fn literals_decide_nothing(
        template in prop::sample::select(TEMPLATES),
        numbers in prop::collection::vec(any::<u32>(), 4),
        strings in prop::collection::vec("[a-z';()-]{0,12}", 4),
    ) {
        let plain = literal(template, &[0], &[String::new()]);
        let text = literal(template, &numbers, &strings);
        let mut shaper = Shaper::new();
        let shape = shaper.shape(plain.as_bytes()).text.to_vec();
        prop_assert_eq!(shaper.shape(text.as_bytes()).text, shape.as_slice());
        prop_assert_eq!(classify(text.as_bytes()), classify(plain.as_bytes()));
    }

    #[test]
    fn layout_and_letter_case_decide_nothing(text in plain_soup()) {
        let other = format!("\n /* x */{}", text.to_lowercase().replace(' ', " /* y */ "));
        prop_assert_eq!(classify(other.as_bytes()), classify(text.as_bytes()));
    }
}

#[test]
fn long_chains_and_deep_nesting_end_and_are_no_writes() {
    let chain = format!("SELECT 1{}", " + 1".repeat(200_000));
    let nested = format!("SELECT {}1{}", "(".repeat(50_000), ")".repeat(50_000));
    let joins = format!("SELECT * FROM {}t{}", "(".repeat(40), ")".repeat(40));
    let unions = format!("SELECT 1{}", " UNION SELECT 1".repeat(20_000));
    let explains = "EXPLAIN ANALYZE ".repeat(50_000);
    let signs = format!("SELECT {}1", "- ".repeat(100_000));
    let brackets = "(".repeat(200_000);
    for text in [chain, nested, joins, unions, explains, signs, brackets] {
        let reason = classify(text.as_bytes()).reason;
        assert_ne!(reason, pgweir_model::Reason::Write);
    }
}

#[test]
fn what_the_parser_is_given_does_not_cost_it_exponential_time() {
    // Depths that the limits let through; each of these makes the parser try alternatives at every level.
    for depth in [6, 9, 12] {
        for (open, inner, close) in [
            ("(", "t", ")"),
            ("(SELECT * FROM ", "t", ") x"),
            ("lower(", "'a'", ")"),
            ("ARRAY[", "1", "]"),
        ] {
            let body = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            classify(format!("SELECT * FROM {body}").as_bytes());
            classify(format!("SELECT {body}").as_bytes());
            classify(format!("SELECT CASE WHEN {body} THEN {body} END").as_bytes());
        }
    }
}
