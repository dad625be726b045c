//! Everything that reads the text of a statement on the console: words, commands, what is about the session, the way to SQLite.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pgweir_admin::console::fuzzing::grammar(data));
