//! NegotiateProtocolVersion: the server speaks an older minor version, or does not know some options.

use super::tag;
use crate::{
    error::DecodeError,
    list::{List, Text},
    reader::Reader,
    writer,
};

/// What the server can do of what the client asked for.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-NEGOTIATEPROTOCOLVERSION>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiateProtocolVersion<'a> {
    /// The newest version that the server speaks, as sent: PostgreSQL 18 sends the whole number (3.2 is 0x0003_0002).
    pub version: u32,
    /// The `_pq_.` options of the StartupMessage that the server does not know.
    pub options: List<'a, Text>,
}

impl<'a> NegotiateProtocolVersion<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadValue`] for a negative count, [`DecodeError::MissingNul`], [`DecodeError::Truncated`], [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("NegotiateProtocolVersion", body);
        let version = reader.u32("version")?;
        let offset = reader.offset();
        let count = reader.i32("option count")?;
        let count = u32::try_from(count)
            .map_err(|_| reader.bad_value("option count", i64::from(count), offset))?;
        let options = reader.list(count)?;
        reader.finish()?;
        Ok(Self { version, options })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::NEGOTIATE_PROTOCOL_VERSION, |w| {
            w.u32(self.version);
            w.list(self.options);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message, list::ListBuf};

    #[test]
    fn negotiate_protocol_version_holds_its_anatomy() {
        let options = ListBuf::<Text>::collect([&b"_pq_.a"[..], b""]).unwrap();
        let message = NegotiateProtocolVersion {
            version: 0x0003_0002,
            options: options.as_list(),
        };
        anatomy::backend(
            Message::NegotiateProtocolVersion(message),
            b"v\0\0\0\x14\0\x03\0\x02\0\0\0\x02_pq_.a\0\0",
        );
    }

    #[test]
    fn a_hostile_count_is_refused() {
        assert!(matches!(
            NegotiateProtocolVersion::decode(b"\0\0\0\0\xff\xff\xff\xff"),
            Err(DecodeError::BadValue {
                value: -1,
                offset: 4,
                ..
            })
        ));
        assert!(NegotiateProtocolVersion::decode(b"\0\0\0\0\x7f\xff\xff\xff").is_err());
    }
}
