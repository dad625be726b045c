//! The notation of frontend messages in transcripts: one message a line.
//!
//! ```text
//! Query "select 1"
//! Parse "name" "select $1" 23 25          parameter types
//! Bind "portal" "name" "42" null x"002a" formats=0,0,1 results=1
//! Describe S "name"                        S statement, P portal
//! Close P "portal"
//! Execute "portal" 10                      at most 10 rows; all without the number
//! FunctionCall 1397 "-5" formats=0 result=0
//! CopyData "a\tb\n"     CopyDone     CopyFail "reason"
//! Sync     Flush     Terminate
//! Raw Q "a body that is no query"          any tag, any body: nothing is added
//! Bytes x"51000000"                        no header either
//! 1000 CopyData "line\n"                   a thousand of them
//! ```
//!
//! A string is `"text"` with the escapes `\n \t \r \0 \\ \"`, or `x"hex"`; `"x"*1000` repeats it.

use pgweir_wire::{frontend, frontend::tag, writer};

/// Encodes one line.
///
/// # Errors
///
/// A sentence that says what is wrong with the line.
pub fn encode(line: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let tokens = tokens(line)?;
    let mut rest = Rest(&tokens);
    let mut name = rest.word()?;
    let mut times = 1;
    if let Ok(count) = name.parse::<usize>() {
        times = count;
        name = rest.word()?;
    }
    let mut one = Vec::new();
    encode_message(name, &mut rest, &mut one)?;
    rest.end()?;
    (0..times).for_each(|_| out.extend_from_slice(&one));
    Ok(())
}

fn encode_message(name: &str, rest: &mut Rest<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    match name {
        "Query" => frontend::Query {
            sql: rest.string()?,
        }
        .encode(out),
        "Parse" => parse(rest, out)?,
        "Bind" => bind(rest, out)?,
        "Describe" => {
            let (kind, name) = target(rest)?;
            frontend::Describe { kind, name }.encode(out);
        }
        "Close" => {
            let (kind, name) = target(rest)?;
            frontend::Close { kind, name }.encode(out);
        }
        "Execute" => {
            let portal = rest.string()?;
            let max_rows = rest.number()?.unwrap_or(0);
            frontend::Execute { portal, max_rows }.encode(out);
        }
        "FunctionCall" => function_call(rest, out)?,
        "CopyData" => frontend::CopyData {
            data: rest.string()?,
        }
        .encode(out),
        "CopyDone" => frontend::CopyDone.encode(out),
        "CopyFail" => {
            let message = rest.string()?;
            frontend::CopyFail { message }.encode(out);
        }
        "Sync" => frontend::Sync.encode(out),
        "Flush" => frontend::Flush.encode(out),
        "Terminate" => frontend::Terminate.encode(out),
        "Raw" => {
            let &[tag] = rest.word()?.as_bytes() else {
                return Err("Raw takes a tag of one byte".to_owned());
            };
            let body = rest.string()?;
            writer::message(out, tag, |w| w.bytes(body));
        }
        "Bytes" => out.extend_from_slice(rest.string()?),
        other => return Err(format!("no message is named {other}")),
    }
    Ok(())
}

fn parse(rest: &mut Rest<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let (name, sql) = (rest.string()?, rest.string()?);
    let mut types = Vec::new();
    while let Some(oid) = rest.number::<u32>()? {
        types.push(oid);
    }
    let count = i16::try_from(types.len()).map_err(|error| error.to_string())?;
    writer::message(out, tag::PARSE, |w| {
        w.cstr(name);
        w.cstr(sql);
        w.i16(count);
        types.iter().for_each(|oid| w.u32(*oid));
    });
    Ok(())
}

fn bind(rest: &mut Rest<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let (portal, statement) = (rest.string()?, rest.string()?);
    let (values, formats) = (rest.values()?, rest.formats("formats")?);
    let results = rest.formats("results")?;
    writer::message(out, tag::BIND, |w| {
        w.cstr(portal);
        w.cstr(statement);
        write_formats(w, &formats);
        write_values(w, &values);
        write_formats(w, &results);
    });
    Ok(())
}

fn function_call(rest: &mut Rest<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let function = rest
        .number::<u32>()?
        .ok_or("FunctionCall takes an object id")?;
    let (values, formats) = (rest.values()?, rest.formats("formats")?);
    let result = rest.formats("result")?;
    writer::message(out, tag::FUNCTION_CALL, |w| {
        w.u32(function);
        write_formats(w, &formats);
        write_values(w, &values);
        w.i16(result.first().copied().unwrap_or(0));
    });
    Ok(())
}

fn target<'a>(rest: &mut Rest<'a>) -> Result<(frontend::Target, &'a [u8]), String> {
    let kind = match rest.word()? {
        "S" => frontend::Target::Statement,
        "P" => frontend::Target::Portal,
        other => return Err(format!("{other} is neither S nor P")),
    };
    Ok((kind, rest.string()?))
}

fn write_formats(w: &mut writer::Writer<'_>, formats: &[i16]) {
    w.u16(u16::try_from(formats.len()).unwrap_or(u16::MAX));
    formats.iter().for_each(|format| w.i16(*format));
}

fn write_values(w: &mut writer::Writer<'_>, values: &[Option<&[u8]>]) {
    w.u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
    values.iter().for_each(|value| w.value(*value));
}

enum Token {
    Word(String),
    String(Vec<u8>),
}

/// The tokens of a line that are not taken yet.
struct Rest<'a>(&'a [Token]);

impl<'a> Rest<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn word(&mut self) -> Result<&'a str, String> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            Some(Token::String(_)) => Err("a word is expected in place of a string".to_owned()),
            None => Err("a word is missing".to_owned()),
        }
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        match self.next() {
            Some(Token::String(string)) => Ok(string),
            Some(Token::Word(word)) => Err(format!("a string is expected in place of {word}")),
            None => Err("a string is missing".to_owned()),
        }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<Option<T>, String> {
        match self.0.first() {
            Some(Token::Word(word)) if !word.contains('=') => {
                let number = word
                    .parse()
                    .map_err(|_| format!("{word} is not such a number"))?;
                self.next();
                Ok(Some(number))
            }
            _ => Ok(None),
        }
    }

    fn values(&mut self) -> Result<Vec<Option<&'a [u8]>>, String> {
        let mut values = Vec::new();
        loop {
            match self.0.first() {
                Some(Token::String(_)) => values.push(Some(self.string()?)),
                Some(Token::Word(word)) if word == "null" => {
                    self.next();
                    values.push(None);
                }
                _ => return Ok(values),
            }
        }
    }

    fn formats(&mut self, key: &str) -> Result<Vec<i16>, String> {
        let Some(Token::Word(word)) = self.0.first() else {
            return Ok(Vec::new());
        };
        let Some(list) = word
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix('='))
        else {
            return Ok(Vec::new());
        };
        self.next();
        list.split(',')
            .map(|one| one.parse().map_err(|_| format!("{one} is no format")))
            .collect()
    }

    fn end(&mut self) -> Result<(), String> {
        match self.next() {
            None => Ok(()),
            Some(_) => Err("there is more on the line than the message takes".to_owned()),
        }
    }
}

fn tokens(line: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (token, after) = if let Some(quoted) = rest.strip_prefix("x\"") {
            let (text, after) = quoted.split_once('"').ok_or("the string does not end")?;
            repeated(hex(text)?, after)?
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (string, after) = quoted_string(quoted)?;
            repeated(string, after)?
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            (Token::Word(word.to_owned()), after)
        };
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

fn repeated(string: Vec<u8>, after: &str) -> Result<(Token, &str), String> {
    let Some(count) = after.strip_prefix('*') else {
        return Ok((Token::String(string), after));
    };
    let end = count
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(count.len());
    let (count, after) = count.split_at(end);
    let count = count.parse().map_err(|_| "* takes a number".to_owned())?;
    Ok((Token::String(string.repeat(count)), after))
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{text} is not hexadecimal"))?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return Err(format!("{text} has half a byte"));
    };
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Reads up to the closing quote; returns what follows it too.
fn quoted_string(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut string = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((string.into_bytes(), chars.as_str())),
            '\\' => string.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('0') => '\0',
                Some(same @ ('\\' | '"')) => same,
                other => return Err(format!("\\ is followed by {other:?}")),
            }),
            other => string.push(other),
        }
    }
    Err("the string does not end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(line: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode(line, &mut out).unwrap();
        out
    }

    #[test]
    fn messages_are_encoded() {
        assert_eq!(bytes("Query \"a\\\"b\\n\""), b"Q\0\0\0\x09a\"b\n\0");
        assert_eq!(bytes("2 Sync"), b"S\0\0\0\x04S\0\0\0\x04");
        assert_eq!(
            bytes("Parse \"s\" \"x\" 23"),
            b"P\0\0\0\x0es\0x\0\0\x01\0\0\0\x17"
        );
        assert_eq!(
            bytes("Bind \"\" \"s\" \"1\" null x\"ff\" formats=0,1 results=1"),
            b"B\0\0\0\x21\0s\0\0\x02\0\0\0\x01\0\x03\0\0\0\x011\xff\xff\xff\xff\0\0\0\x01\xff\0\x01\0\x01"
        );
        assert_eq!(bytes("Raw Z \"ab\"*2"), b"Z\0\0\0\x08abab");
        assert_eq!(bytes("Execute \"\" 5"), b"E\0\0\0\x09\0\0\0\0\x05");
        assert_eq!(bytes("Bytes x\"00 ff\""), b"\0\xff");
    }

    #[test]
    fn wrong_lines_are_named() {
        for line in [
            "Qeury \"x\"",
            "Query",
            "Query x",
            "Query \"x",
            "Describe X \"\"",
            "Sync \"more\"",
            "Bytes x\"0\"",
        ] {
            assert!(encode(line, &mut Vec::new()).is_err(), "{line}");
        }
    }
}
