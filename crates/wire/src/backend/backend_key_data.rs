//! BackendKeyData: the key that cancels a session's statements.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// A backend key.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-BACKENDKEYDATA>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BackendKeyData<'a> {
    /// The process ID.
    pub process_id: u32,
    /// The secret: 4 bytes in protocol 3.0, 4 to 256 in 3.2.
    pub secret: &'a [u8],
}

redacted_debug!(BackendKeyData { process_id } hides { secret });

impl<'a> BackendKeyData<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`], and [`DecodeError::BadValue`] for a secret that is not 4 to 256 bytes long.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("BackendKeyData", body);
        Ok(Self {
            process_id: reader.u32("process ID")?,
            secret: reader.secret()?,
        })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::BACKEND_KEY_DATA, |w| {
            w.u32(self.process_id);
            w.bytes(self.secret);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message};

    #[test]
    fn backend_key_data_holds_its_anatomy() {
        let key = BackendKeyData {
            process_id: 1,
            secret: b"abcd",
        };
        anatomy::backend(Message::BackendKeyData(key), b"K\0\0\0\x0c\0\0\0\x01abcd");
        assert_eq!(
            format!("{key:?}"),
            "BackendKeyData { process_id: 1, secret: <4 bytes> }"
        );
    }

    #[test]
    fn secrets_have_4_to_256_bytes() {
        for (len, good) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
            let body = vec![1; 4 + len];
            assert_eq!(BackendKeyData::decode(&body).is_ok(), good, "{len} bytes");
        }
    }
}
