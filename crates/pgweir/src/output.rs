//! Text for the terminal: results to stdout, complaints to stderr.
//!
//! ## Why
//! `println!` panics when the reader has gone, as in `pgweir route ... | head -1` or when the terminal of a running demo is
//! closed. The demo must still clean up then, so what cannot be written is dropped.

use std::fmt::Display;
use std::io::Write as _;

/// Writes a line to stdout, at once.
pub(crate) fn say(text: impl Display) {
    let mut stdout = std::io::stdout().lock();
    let _reader_gone = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes a line to stderr.
pub(crate) fn complain(text: impl Display) {
    let _reader_gone = writeln!(std::io::stderr(), "{text}");
}
