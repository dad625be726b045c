//! What a fuzzer calls: everything that reads the text of a statement.

use super::{command, rewrite, session_statement, words};

/// Reads any text as statements, commands and SQL; nothing may panic.
pub fn grammar(data: &[u8]) {
    let sql = String::from_utf8_lossy(data);
    for one in words::statements(&sql) {
        let _command = command::parse(one);
        let _statement = session_statement::parse(one);
        rewrite::with_stack(|| drop(rewrite::rewrite(one)));
    }
}
