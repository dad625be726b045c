//! CommandComplete: the good end of a statement.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// The good end of a statement, with its command tag.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-COMMANDCOMPLETE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommandComplete<'a> {
    /// The command tag, such as `SELECT 5` or `INSERT 0 1`.
    pub tag: &'a [u8],
}

text_debug!(CommandComplete {} text { tag });

impl<'a> CommandComplete<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`] and [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("CommandComplete", body);
        let tag = reader.cstr("command tag")?;
        reader.finish()?;
        Ok(Self { tag })
    }

    /// Returns how many rows the statement returned or changed, if its tag says so: the number at the end.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        let (mut rows, mut scale) = (0u64, 1u64);
        let mut digits = 0;
        for byte in self.tag.iter().rev() {
            match byte {
                b'0'..=b'9' => {
                    rows = rows.saturating_add(u64::from(byte - b'0').saturating_mul(scale));
                    scale = scale.saturating_mul(10);
                    digits += 1;
                }
                b' ' if digits > 0 => return Some(rows),
                _ => return None,
            }
        }
        None
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::COMMAND_COMPLETE, |w| w.cstr(self.tag));
    }
}

/// Returns how many rows the body of a CommandComplete counts; 0 where its tag counts none.
#[inline]
#[must_use]
pub fn rows_of(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    CommandComplete { tag }.rows().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message};

    #[test]
    fn command_complete_holds_its_anatomy() {
        anatomy::backend(
            Message::CommandComplete(CommandComplete { tag: b"SELECT 1" }),
            b"C\0\0\0\x0dSELECT 1\0",
        );
    }

    #[test]
    fn the_row_count_is_the_number_at_the_end() {
        for (tag, rows) in [
            (&b"SELECT 5"[..], Some(5)),
            (b"INSERT 0 2", Some(2)),
            (b"COPY 18446744073709551615", Some(u64::MAX)),
            (b"MERGE 1234", Some(1234)),
            (b"5", None),
            (b"CREATE TABLE", None),
            (b"X1", None),
            (b"BEGIN", None),
            (b"", None),
        ] {
            assert_eq!(CommandComplete { tag }.rows(), rows);
        }
    }
}
