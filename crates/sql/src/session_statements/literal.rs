//! What literals and names stand for: quotes and escapes taken away as PostgreSQL's scanner does.
//!
//! See <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>.

use std::borrow::Cow;

/// The bytes of a name that count: `NAMEDATALEN` less its terminator.
const NAME_BYTES: usize = 63;

/// Returns a name without what is beyond its limit, as `truncate_identifier` cuts it: never inside a character of UTF-8.
pub(super) fn clipped(name: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if name.len() <= NAME_BYTES {
        return name;
    }
    let end = std::str::from_utf8(&name).map_or(NAME_BYTES, |name| {
        let is_boundary = |end: &usize| name.is_char_boundary(*end);
        (0..=NAME_BYTES).rev().find(is_boundary).unwrap_or(0)
    });
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(name.get(..end).unwrap_or(name)),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Cow::Owned(name)
        }
    }
}

/// Returns a name without quotes as the server folds it.
pub(super) fn word(text: &[u8]) -> Cow<'_, [u8]> {
    clipped(if text.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    })
}

/// Returns what stands in the quotes; `None` for `""`, which is no name.
pub(super) fn quoted_name(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!inner.is_empty()).then(|| clipped(undoubled(inner, b'"')))
}

fn undoubled(inner: &[u8], quote: u8) -> Cow<'_, [u8]> {
    if memchr::memchr(quote, inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut value = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        value.push(*byte);
        if *byte == quote {
            bytes.next();
        }
    }
    Cow::Owned(value)
}

/// Returns the content of `$tag$...$tag$`.
pub(super) fn dollar_string(text: &[u8]) -> &[u8] {
    let tag = text
        .iter()
        .skip(1)
        .position(|byte| *byte == b'$')
        .map_or(0, |position| position + 2);
    text.get(tag..text.len().saturating_sub(tag)).unwrap_or(&[])
}

/// Returns the content of `'...'` or `E'...'`; `None` for the other forms, which are no plain strings.
pub(super) fn string(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let body = text.strip_suffix(b"'")?;
    if let Some(inner) = body.strip_prefix(b"'") {
        return Some(undoubled(inner, b'\''));
    }
    let inner = body
        .strip_prefix(b"e'")
        .or_else(|| body.strip_prefix(b"E'"))?;
    unescaped(inner).map(Cow::Owned)
}

/// The escapes of an `E` string.
fn unescaped(inner: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'\'' {
            rest = tail.get(1..)?;
        }
        if *first != b'\\' {
            value.push(*first);
            continue;
        }
        let (escaped, tail) = rest.split_first()?;
        rest = tail;
        match escaped {
            b'b' => value.push(8),
            b'f' => value.push(12),
            b'n' => value.push(b'\n'),
            b'r' => value.push(b'\r'),
            b't' => value.push(b'\t'),
            b'x' if tail.first().is_some_and(u8::is_ascii_hexdigit) => {
                rest = byte(tail, 16, 2, &mut value)?;
            }
            b'0'..=b'7' => {
                let digits = inner.get(inner.len() - tail.len() - 1..)?;
                rest = byte(digits, 8, 3, &mut value)?;
            }
            b'u' => rest = code_point(tail, 4, &mut value)?,
            b'U' => rest = code_point(tail, 8, &mut value)?,
            other => value.push(*other),
        }
    }
    Some(value)
}

/// Reads up to `most` digits as one byte, as the scanner does it: what does not fit is cut off. Zero ends no string, it is
/// refused.
fn byte<'a>(text: &'a [u8], radix: u32, most: usize, value: &mut Vec<u8>) -> Option<&'a [u8]> {
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
    let digits = text.iter().take(most).take_while(is_digit).count();
    let code = number(text.get(..digits)?, radix)?;
    value.push(u8::try_from(code & 0xFF).ok().filter(|byte| *byte != 0)?);
    text.get(digits..)
}

/// Reads `digits` hexadecimal digits as a character.
fn code_point<'a>(text: &'a [u8], digits: usize, value: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (code, rest) = text.split_at_checked(digits)?;
    let code = char::from_u32(number(code, 16)?).filter(|c| *c != '\0')?;
    value.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
    Some(rest)
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let all_digits = digits.iter().all(|byte| char::from(*byte).is_digit(radix));
    let digits = std::str::from_utf8(digits).ok().filter(|_| all_digits)?;
    u32::from_str_radix(digits, radix).ok()
}

/// Returns the content of `U&'...'` or `U&"..."`, whose escape character is given, if it is known.
pub(super) fn unicode(text: &[u8], quote: u8, escape: Option<u8>) -> Option<Vec<u8>> {
    let inner = text.get(3..)?.strip_suffix(&[quote])?;
    let inner = undoubled(inner, quote);
    let mut value = Vec::with_capacity(inner.len());
    let mut rest: &[u8] = &inner;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if Some(*first) != escape {
            value.push(*first);
        } else if tail.first() == Some(first) {
            value.push(*first);
            rest = tail.get(1..)?;
        } else if let Some(long) = tail.strip_prefix(b"+") {
            rest = code_point(long, 6, &mut value)?;
        } else {
            rest = code_point(tail, 4, &mut value)?;
        }
    }
    (quote == b'\'' || !value.is_empty()).then_some(value)
}

/// Returns a number as `SET` hands it to its parameter: an integer without leading zeros, anything else as it is written.
pub(super) fn numeral(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    // Only what fits is an integer to the scanner.
    match text.parse::<i32>() {
        Ok(integer) => integer.to_string(),
        Err(_) => text.into_owned(),
    }
}

/// Reads a Boolean as `parse_bool_with_len` does: any beginning that can mean only one of the words.
pub(super) fn boolean(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if begins("true", 1) || begins("yes", 1) || value == "on" || value == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || value == "0" {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_lose_their_quotes_and_escapes() {
        for (text, value) in [
            ("''", ""),
            ("'it''s'", "it's"),
            (r"'a\n'", r"a\n"),
            (
                r"E'a\n\x41\101\u00e9\U0001F600\'''\q'",
                "a\nAA\u{e9}\u{1F600}''q",
            ),
            (r"e'\xz'", "xz"),
        ] {
            assert_eq!(
                string(text.as_bytes()).as_deref(),
                Some(value.as_bytes()),
                "{text}"
            );
        }
        for text in ["b'01'", "X'1F'", "N'a'", r"E'\u12'", r"E'\0'", r"E'\ud800'"] {
            assert_eq!(string(text.as_bytes()), None, "{text}");
        }
        assert_eq!(dollar_string(b"$a$x$$y$a$"), b"x$$y");
        assert_eq!(
            unicode(b"U&'d\\0061t\\+000061''\\\\'", b'\'', Some(b'\\')).as_deref(),
            Some(&b"data'\\"[..])
        );
        assert_eq!(
            unicode(b"U&\"!0061\"", b'"', Some(b'!')).as_deref(),
            Some(&b"a"[..])
        );
        assert_eq!(unicode(b"U&\"\\00\"", b'"', Some(b'\\')), None);
    }

    #[test]
    fn names_are_folded_and_cut() {
        assert_eq!(*word(b"AbC\xC3\x89"), *b"abc\xC3\x89");
        assert_eq!(quoted_name(b"\"A\"\"b\"").as_deref(), Some(&b"A\"b"[..]));
        assert_eq!(quoted_name(b"\"\""), None);
        assert_eq!(word(&[b'a'; 64]).len(), 63);
        assert_eq!(word("\u{e9}".repeat(40).as_bytes()).len(), 62);
        assert_eq!(word(&[0x80; 70]).len(), 63);
    }

    #[test]
    fn numbers_and_booleans_are_read_as_the_server_does() {
        assert_eq!(numeral(b"007"), "7");
        assert_eq!(numeral(b"99999999999"), "99999999999");
        assert_eq!(numeral(b"1.50"), "1.50");
        for (value, expected) in [
            ("t", Some(true)),
            ("YES", Some(true)),
            ("on", Some(true)),
            ("1", Some(true)),
            ("of", Some(false)),
            ("n", Some(false)),
            ("0", Some(false)),
            ("o", None),
            ("", None),
            ("onn", None),
            ("2", None),
        ] {
            assert_eq!(boolean(value), expected, "{value}");
        }
    }
}
