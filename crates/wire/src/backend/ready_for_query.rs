//! ReadyForQuery: the end of every batch.

use super::tag;
use crate::{error::DecodeError, reader::Reader, transaction_status::TransactionStatus};

/// The server waits for the next batch.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-READYFORQUERY>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyForQuery {
    /// Where the session stands.
    pub status: TransactionStatus,
}

impl ReadyForQuery {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadValue`] for another status, [`DecodeError::Truncated`] and [`DecodeError::Trailing`].
    #[inline]
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("ReadyForQuery", body);
        let byte = reader.u8("transaction status")?;
        let status = TransactionStatus::from_byte(byte)
            .ok_or_else(|| reader.bad_value("transaction status", i64::from(byte), 0))?;
        reader.finish()?;
        Ok(Self { status })
    }

    /// Returns the whole message, which never needs a buffer.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        [tag::READY_FOR_QUERY, 0, 0, 0, 5, self.status.as_byte()]
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message};

    #[test]
    fn ready_for_query_holds_its_anatomy() {
        for (status, byte) in [
            (TransactionStatus::Idle, b'I'),
            (TransactionStatus::InTransaction, b'T'),
            (TransactionStatus::Failed, b'E'),
        ] {
            anatomy::backend(
                Message::ReadyForQuery(ReadyForQuery { status }),
                &[b'Z', 0, 0, 0, 5, byte],
            );
        }
        assert!(matches!(
            ReadyForQuery::decode(b"X"),
            Err(DecodeError::BadValue { value: 88, .. })
        ));
    }
}
