//! The caller's place in a trace, as its statement brings it: `traceparent` in a sqlcommenter comment.
//!
//! ```text
//! SELECT * FROM orders /*action='list',traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/
//! ```
//!
//! The comment is that of <https://google.github.io/sqlcommenter/spec/>: `key='value'` pairs with commas between, keys and values
//! URL-encoded, quotes within escaped by a backslash. The value is that of <https://www.w3.org/TR/trace-context/#traceparent-header>.
//!
//! ## Limits
//! Only a block comment in front of a text or at its end is looked at, since tools put theirs there and a comment in the midst may
//! be anybody's. `tracestate` is not passed on.

use memchr::memmem;
use pgweir_sql::lexer::{Lexer, TokenKind};

/// The key, and what a text is searched for before anything else is done about it.
const KEY: &[u8] = b"traceparent";

/// The caller's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// Never 0.
    pub(crate) trace_id: u128,
    /// Never 0.
    pub(crate) span_id: u64,
    /// The caller records its trace.
    pub(crate) is_sampled: bool,
}

impl TraceParent {
    /// Returns what a text brings: of several comments the last that has one.
    pub(crate) fn in_sql(sql: &[u8]) -> Option<Self> {
        memmem::find(sql, KEY)?;
        let (mut in_front, mut behind) = (None, None);
        let mut has_begun = false;
        for token in Lexer::new(sql) {
            match token.kind {
                TokenKind::Whitespace => {}
                TokenKind::Comment if has_begun => behind = Self::in_comment(token.text).or(behind),
                TokenKind::Comment => in_front = Self::in_comment(token.text).or(in_front),
                TokenKind::Punct if token.text == b";" && has_begun => {}
                _ => {
                    has_begun = true;
                    behind = None;
                }
            }
        }
        behind.or(in_front)
    }

    /// Returns what a comment brings.
    fn in_comment(comment: &[u8]) -> Option<Self> {
        let inner = comment.strip_prefix(b"/*")?.strip_suffix(b"*/")?;
        let mut rest = inner.trim_ascii();
        while !rest.is_empty() {
            let (key, value, behind) = pair(rest)?;
            if key == KEY {
                return Self::parse(&decoded(value)?);
            }
            rest = behind;
        }
        None
    }

    /// Reads the value of a `traceparent`.
    fn parse(value: &[u8]) -> Option<Self> {
        let mut parts = value.split(|byte| *byte == b'-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = hex(parts.next()?, 2)?;
        // A later version may have more, which is not to be read; 255 is forbidden.
        let is_known = version != 255 && (version != 0 || parts.next().is_none());
        (is_known && trace_id != 0 && span_id != 0).then_some(TraceParent {
            trace_id,
            span_id,
            is_sampled: flags & 1 == 1,
        })
    }
}

/// Takes a `key='value'` off the front; returns it with what is behind it and its comma.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key, rest) = split_at(text, b'=')?;
    let quoted = rest.trim_ascii_start().strip_prefix(b"'")?;
    let mut is_escaped = false;
    let end = quoted.iter().position(|byte| {
        let ends = *byte == b'\'' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    })?;
    let (value, rest) = (quoted.get(..end)?, quoted.get(end + 1..)?);
    let rest = rest.trim_ascii_start();
    let behind = match rest.strip_prefix(b",") {
        Some(behind) => behind.trim_ascii_start(),
        None if rest.is_empty() => rest,
        None => return None,
    };
    Some((key.trim_ascii(), value, behind))
}

fn split_at(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(separator, text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Undoes the URL encoding of a value and the escapes in it.
fn decoded(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            let (digits, behind) = rest.split_at_checked(2)?;
            out.push(u8::try_from(any_hex(digits)?).ok()?);
            rest = behind;
        } else if *first == b'\\' {
            let (escaped, behind) = rest.split_first()?;
            out.push(*escaped);
            rest = behind;
        } else {
            out.push(*first);
        }
    }
    Some(out)
}

/// Reads `len` hexadecimal digits, which must be in lower case.
fn hex(digits: &[u8], len: usize) -> Option<u128> {
    let is_lower = digits.len() == len && !digits.iter().any(u8::is_ascii_uppercase);
    is_lower.then(|| any_hex(digits))?
}

/// Reads hexadecimal digits, at most 32.
fn any_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALUE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const PARENT: TraceParent = TraceParent {
        trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
        span_id: 0xb7ad_6b71_6920_3331,
        is_sampled: true,
    };

    #[test]
    fn finds_it_in_a_comment_at_the_end_or_in_front() {
        for sql in [
            "SELECT 1 /*traceparent='V'*/",
            "SELECT 1/*traceparent='V'*/;",
            "SELECT 1; /* traceparent='V' */ -- more",
            "/*traceparent='V'*/ SELECT 1",
            "/* pgweir: route=primary */ /*traceparent='V'*/ SELECT 1",
            "SELECT 1 /*action='%2Fpolls',db_driver='x',traceparent='V',tracestate='a%3D1'*/",
            "SELECT 1 /*action='it\\'s, is it',traceparent='V'*/",
            "SELECT 1 /* action = 'x' , traceparent = 'V' */",
            "SELECT 1 /*traceparent='V'*/ /*other='x'*/",
            "SELECT 1 /* note */ /*traceparent='V'*/",
            "/*traceparent='00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/ SELECT 1 /*traceparent='V'*/",
        ] {
            let sql = sql.replace('V', VALUE);
            assert_eq!(TraceParent::in_sql(sql.as_bytes()), Some(PARENT), "{sql}");
        }
        let encoded = VALUE.replace('-', "%2D");
        let sql = format!("SELECT 1 /*traceparent='{encoded}'*/");
        assert_eq!(TraceParent::in_sql(sql.as_bytes()), Some(PARENT));
    }

    #[test]
    fn finds_none_elsewhere() {
        for sql in [
            "SELECT 'traceparent=V'",
            "SELECT '/*traceparent=''V''*/'",
            "SELECT $$/*traceparent='V'*/$$",
            "SELECT /*traceparent='V'*/ 1",
            "SELECT 1 -- traceparent='V'",
            "SELECT 1 /*traceparent=V*/",
            "SELECT 1 /*traceparent:'V'*/",
            "SELECT 1 /*a='x' traceparent='V'*/",
            "SELECT 1 /*note, traceparent='V'*/",
            "SELECT 1 /*traceparent='V*/",
            "SELECT 1 /*traceparent='V'",
            "SELECT 1 /*xtraceparent='V'*/",
            "traceparent='V'",
            "",
        ] {
            let sql = sql.replace('V', VALUE);
            assert_eq!(TraceParent::in_sql(sql.as_bytes()), None, "{sql}");
        }
    }

    #[test]
    fn reads_the_value_as_the_standard_says() {
        let id = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        let zero_trace = "00000000000000000000000000000000";
        for (value, expected) in [
            (format!("00-{id}-00"), Some(false)),
            (format!("00-{id}-03"), Some(true)),
            (format!("00-{id}-fe"), Some(false)),
            (format!("cc-{id}-01-more"), Some(true)),
            (format!("00-{id}-01-more"), None),
            (format!("ff-{id}-01"), None),
            (format!("00-{id}-1"), None),
            (format!("00-{id}"), None),
            (format!("0-{id}-01"), None),
            (format!("00-{}-01", id.to_uppercase()), None),
            (format!("00-{zero_trace}-b7ad6b7169203331-01"), None),
            (
                "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".to_owned(),
                None,
            ),
            (
                "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01".to_owned(),
                None,
            ),
            (format!("00-{id}-+1"), None),
            (String::new(), None),
        ] {
            let parsed = TraceParent::parse(value.as_bytes());
            assert_eq!(parsed.map(|parent| parent.is_sampled), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn never_fails_whatever_the_bytes(sql in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut text = sql.clone();
            let _whatever = TraceParent::in_sql(&text);
            // Past the quick look.
            text.extend_from_slice(b"/*traceparent='");
            text.extend_from_slice(&sql);
            text.extend_from_slice(b"'*/");
            let _whatever = TraceParent::in_sql(&text);
        }

        #[test]
        fn reads_what_a_tool_has_written(
            trace_id in 1..u128::MAX,
            span_id in 1..u64::MAX,
            is_sampled: bool,
            action in "[a-z0-9%'\\\\,=/ ]{0,20}",
        ) {
            let escaped: String = action.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let flags = u8::from(is_sampled);
            let sql = format!(
                "SELECT 1 /*action='{escaped}',traceparent='00-{trace_id:032x}-{span_id:016x}-{flags:02x}'*/"
            );
            let expected = TraceParent { trace_id, span_id, is_sampled };
            prop_assert_eq!(TraceParent::in_sql(sql.as_bytes()), Some(expected));
        }
    }
}
