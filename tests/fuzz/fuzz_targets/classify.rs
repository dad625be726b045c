//! Classification of SQL text: total, so that no text makes it panic or disagree with itself.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|sql: &[u8]| {
    let first = pgweir_sql::classify(sql);
    let again = pgweir_sql::classify(sql);
    assert_eq!(first, again, "a classification that depends on more than the text");
});
