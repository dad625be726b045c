//! The shape of a text: what remains when literals, white space, comments and letter case are taken out.
//!
//! `SELECT * FROM t  WHERE id = 17` and `select * from t where id = 4711` have the shape `select * from t where id = 0`.
//!
//! ## Why
//! A shape is classified once and then found by hash. For that to be sound, nothing that classification looks at may be
//! missing from it. The rule that makes it so by construction: a shape is SQL text itself, lexed to the same kinds of tokens
//! as the text that it came from, and only shapes are ever classified. So numbers become `0`, strings become the empty
//! string of their form, and the shape of a shape is itself.
//!
//! ## Limits
//! Hint comments stay, since they say where to go. Literals of `SET` stay, since they are the value that is set. Lists of
//! different length have different shapes.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::hint;
use crate::lexer::{Lexer, Token, TokenKind};

/// A text without what does not matter to its classification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape<'a> {
    /// Hash of `text`, seeded at random per [`Shaper`].
    pub hash: u64,
    /// The normalised text.
    pub text: &'a [u8],
}

/// Computes shapes; holds the buffer that they are written to.
#[derive(Debug, Default)]
pub struct Shaper {
    buffer: Vec<u8>,
    /// The text in lower case: folding all of it at once is far cheaper than folding its words one by one.
    folded: Vec<u8>,
    seed: RandomState,
}

/// A buffer above this many bytes is given back after use: one huge text must not hold memory for the life of a thread.
/// 64 KiB is far above any text that is not a bulk load (chosen).
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

impl Shaper {
    /// Returns a shaper with an empty buffer and a hash seed of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the shape of a text.
    pub fn shape(&mut self, sql: &[u8]) -> Shape<'_> {
        for buffer in [&mut self.buffer, &mut self.folded] {
            buffer.clear();
            if buffer.capacity() > BUFFER_BYTES_KEPT {
                buffer.shrink_to(BUFFER_BYTES_KEPT);
            }
        }
        self.buffer.reserve(sql.len());
        self.folded.extend_from_slice(sql);
        self.folded.make_ascii_lowercase();
        let mut writer = Writer {
            out: &mut self.buffer,
            folded: &self.folded,
            gap: Gap::None,
            verbatim: false,
            at_start: true,
        };
        let mut lexer = Lexer::new(sql);
        while let Some(token) = lexer.next_inlined() {
            writer.write(token);
        }
        Shape {
            hash: self.seed.hash_one(self.buffer.as_slice()),
            text: &self.buffer,
        }
    }
}

/// What separates the last token written from the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    None,
    Space,
    /// The last was a line comment, which would swallow the rest of the line.
    LineEnd,
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    folded: &'a [u8],
    gap: Gap,
    /// Inside a `SET`, whose literals stay.
    verbatim: bool,
    /// Before the first word of a statement.
    at_start: bool,
}

impl Writer<'_> {
    #[inline]
    fn write(&mut self, token: Token<'_>) {
        match token.kind {
            TokenKind::Whitespace => return self.widen(Gap::Space),
            TokenKind::Comment => return self.comment(token.text),
            _ => {}
        }
        self.separate();
        match token.kind {
            TokenKind::Word => self.word(token),
            TokenKind::Number if !self.verbatim => {
                self.out
                    .extend_from_slice(if token.text.first() == Some(&b'.') {
                        b".0"
                    } else {
                        b"0"
                    });
            }
            TokenKind::String if !self.verbatim => self.string(token.text),
            TokenKind::DollarString if !self.verbatim => self.out.extend_from_slice(b"$$$$"),
            TokenKind::Punct => {
                if token.text == b";" {
                    self.verbatim = false;
                    self.at_start = true;
                }
                self.out.extend_from_slice(token.text);
            }
            _ => self.out.extend_from_slice(token.text),
        }
    }

    #[inline]
    fn widen(&mut self, gap: Gap) {
        if self.gap == Gap::None && !self.out.is_empty() {
            self.gap = gap;
        }
    }

    #[inline]
    fn separate(&mut self) {
        match self.gap {
            Gap::None => return,
            Gap::Space => self.out.push(b' '),
            Gap::LineEnd => self.out.push(b'\n'),
        }
        self.gap = Gap::None;
    }

    #[inline]
    fn word(&mut self, token: Token<'_>) {
        let text = self.folded.get(token.start..token.start + token.text.len());
        let text = text.unwrap_or_default();
        if self.at_start {
            self.at_start = false;
            self.verbatim = text == b"set";
        }
        self.out.extend_from_slice(text);
    }

    /// The prefix stays: without it, two literals side by side could read as one.
    fn string(&mut self, text: &[u8]) {
        let prefix = text.iter().take_while(|byte| **byte != b'\'');
        self.out.extend(prefix.map(u8::to_ascii_lowercase));
        self.out.extend_from_slice(b"''");
    }

    fn comment(&mut self, text: &[u8]) {
        if hint::content(text).is_none() {
            return self.widen(Gap::Space);
        }
        self.separate();
        self.out.extend_from_slice(text);
        if text.starts_with(b"--") {
            self.gap = Gap::LineEnd;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(sql: &str) -> String {
        String::from_utf8_lossy(Shaper::new().shape(sql.as_bytes()).text).into_owned()
    }

    #[test]
    fn literals_case_space_and_comments_do_not_matter() {
        let expected = "select * from t where id = 0 and s = ''";
        assert_eq!(
            shape("SELECT * FROM t WHERE id = 17 AND s = 'it''s'"),
            expected
        );
        assert_eq!(
            shape("  select *\n\tfrom t -- c\nwhere id = 4_711 /* x */ and s = 'b'  "),
            expected
        );
    }

    #[test]
    fn what_decides_stays() {
        assert_eq!(
            shape("SELECT \"A\", 'x'::Text, $1, -1.5, E'\\'', $a$b$a$"),
            "select \"A\", ''::text, $1, -0, e'', $$$$"
        );
        assert_eq!(shape("SET x = 'y'; SELECT 'y'"), "set x = 'y'; select ''");
        assert_eq!(
            shape("/* pgweir: route=primary */ SELECT 1"),
            "/* pgweir: route=primary */ select 0"
        );
        assert_eq!(
            shape("SELECT -- pgweir: route=primary\n 1"),
            "select -- pgweir: route=primary\n0"
        );
        assert_eq!(shape("SELECT 'abc"), "select 'abc");
    }

    #[test]
    fn comments_never_join_what_they_separated() {
        assert_eq!(shape("a-/**/-b"), "a- -b");
        assert_eq!(shape("'a'/**/'b'"), "'' ''");
        assert_eq!(shape("a/**/b"), "a b");
    }

    #[test]
    fn a_huge_text_does_not_hold_its_buffer() {
        let mut shaper = Shaper::new();
        shaper.shape(&vec![b'a'; 1 << 20]);
        shaper.shape(b"select 1");
        assert!(shaper.buffer.capacity() <= BUFFER_BYTES_KEPT);
        assert!(shaper.folded.capacity() <= BUFFER_BYTES_KEPT);
    }

    fn kinds(text: &[u8]) -> Vec<TokenKind> {
        Lexer::new(text)
            .map(|token| token.kind)
            .filter(|kind| !matches!(kind, TokenKind::Whitespace | TokenKind::Comment))
            .collect()
    }

    proptest! {
        #[test]
        fn a_shape_has_the_tokens_of_its_text_and_is_its_own_shape(
            text in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..100),
                "[a-e0-9'\"$*/(). \n;:+xXuU&-]{0,60}".prop_map(String::into_bytes),
                "(SET|select|1|'a'|\\$\\$|\\$1|\\.5|e'|x|;| |--|/\\*|\\*/|-- pgweir:a|\n|\"){0,20}".prop_map(String::into_bytes),
            ],
        ) {
            let first = Shaper::new().shape(&text).text.to_vec();
            prop_assert_eq!(kinds(&first), kinds(&text));
            let second = Shaper::new().shape(&first).text.to_vec();
            prop_assert_eq!(String::from_utf8_lossy(&second), String::from_utf8_lossy(&first));
        }
    }
}
