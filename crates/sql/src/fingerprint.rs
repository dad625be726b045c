//! A number for a shape that is the same on every machine and after every restart.
//!
//! ## Why
//! The hash of [`Shaper`] is seeded at random, so it names a shape to nobody else. A fingerprint is what a
//! person copies from a log or from `EXPLAIN ROUTE` into the configuration.
//!
//! ## Limits
//! Hint comments are no part of it: a statement keeps its fingerprint when somebody adds a hint. It is no defence against
//! somebody who wants two shapes to have one fingerprint.

use std::fmt;
use std::str::FromStr;

use crate::lexer::{Lexer, TokenKind};
use crate::shape::Shaper;

/// The fingerprint of a shape; written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// FNV-1a, 64 bits: <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>. Chosen: simple to write down, and so to keep.
const OFFSET_BASIS: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01B3;

impl Fingerprint {
    /// Returns the fingerprint of a text.
    ///
    /// # Examples
    ///
    /// ```
    /// use pgweir_sql::Fingerprint;
    ///
    /// let one = Fingerprint::of(b"SELECT * FROM users WHERE id = 17");
    /// assert_eq!(one, Fingerprint::of(b"select *  from users where id = 4711 -- other"));
    /// assert_eq!(one.to_string(), "28146a707030cb58");
    /// ```
    pub fn of(sql: &[u8]) -> Self {
        Fingerprint::of_shape(Shaper::new().shape(sql).text)
    }

    /// Returns the fingerprint of a shape's text.
    pub fn of_shape(shape: &[u8]) -> Self {
        let mut fingerprinter = Fingerprinter::default();
        for token in Lexer::new(shape) {
            fingerprinter.add(token.kind, token.text);
        }
        fingerprinter.finish()
    }
}

/// Makes the fingerprint of a shape of one token after the other.
#[derive(Debug)]
pub(crate) struct Fingerprinter {
    hash: u64,
    has_gap: bool,
    has_begun: bool,
}

impl Default for Fingerprinter {
    fn default() -> Self {
        Fingerprinter {
            hash: OFFSET_BASIS,
            has_gap: false,
            has_begun: false,
        }
    }
}

impl Fingerprinter {
    pub(crate) fn add(&mut self, kind: TokenKind, text: &[u8]) {
        // A hint is like the white space around it.
        if matches!(kind, TokenKind::Whitespace | TokenKind::Comment) {
            self.has_gap = self.has_begun;
            return;
        }
        if std::mem::take(&mut self.has_gap) {
            self.add_byte(b' ');
        }
        self.has_begun = true;
        text.iter().for_each(|byte| self.add_byte(*byte));
    }

    fn add_byte(&mut self, byte: u8) {
        self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(PRIME);
    }

    pub(crate) fn finish(self) -> Fingerprint {
        Fingerprint(self.hash)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        // `from_str_radix` takes a sign as well.
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return Err(NotAFingerprint);
        }
        u64::from_str_radix(text, 16)
            .map(Fingerprint)
            .map_err(|_| NotAFingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> String {
        Fingerprint::of(sql.as_bytes()).to_string()
    }

    #[test]
    fn is_that_of_the_shape_and_never_changes() {
        // Written down once: what stands in somebody's configuration must keep its meaning.
        assert_eq!(of(""), "cbf29ce484222325");
        assert_eq!(of("select 1"), "02fb795a1a5a98a5");
        assert_eq!(of("SELECT  2 -- x"), of("select 1"));
        assert_ne!(of("select 1"), of("select $1"));
        assert_ne!(of("a b"), of("ab"));
    }

    #[test]
    fn hints_do_not_change_it() {
        for hinted in [
            "/* pgweir: route=primary */ SELECT a FROM t",
            "SELECT /* pgweir: route=primary */ a FROM t",
            "SELECT -- pgweir: max_lag=2s\n a FROM t",
            "SELECT a FROM t -- pgweir: route=replica",
        ] {
            assert_eq!(of(hinted), of("select a from t"), "{hinted}");
        }
    }

    #[test]
    fn reads_back_what_it_prints_and_nothing_else() {
        let fingerprint = Fingerprint::of(b"select a");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for text in [
            "",
            "12",
            "+23456789abcdef0",
            "0x23456789abcdef",
            "123456789abcdefg",
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(NotAFingerprint), "{text}");
        }
    }
}
