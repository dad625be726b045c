//! The payloads of CopyData in a replication stream: WAL data and keepalives one way, status updates the other.

use crate::{error::DecodeError, reader::Reader, redact::Redacted, writer::Writer};

/// Seconds from the Unix epoch to PostgreSQL's, 2000-01-01 00:00:00 UTC.
pub const POSTGRES_EPOCH_UNIX_SECONDS: i64 = 946_684_800;

/// What the server sends inside CopyData.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ServerPayload<'a> {
    /// `w`: a piece of the WAL, or one message of the output plugin.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-XLOGDATA>
    XLogData {
        /// LSN where the data begins.
        start: u64,
        /// End of the WAL on the server.
        end: u64,
        /// The server's clock, in microseconds since 2000-01-01.
        sent_at: i64,
        /// The data; for the pgoutput plugin [`LogicalMessage::decode`](super::LogicalMessage::decode) reads it.
        data: &'a [u8],
    },
    /// `k`: a sign of life.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-PRIMARY-KEEPALIVE-MESSAGE>
    PrimaryKeepalive {
        /// End of the WAL on the server.
        end: u64,
        /// The server's clock, in microseconds since 2000-01-01.
        sent_at: i64,
        /// Whether the server wants a [`StandbyStatusUpdate`] now, lest it close the connection.
        reply_requested: bool,
    },
}

impl<'a> ServerPayload<'a> {
    /// Decodes the data of a CopyData.
    ///
    /// # Errors
    ///
    /// [`DecodeError::UnknownTag`], [`DecodeError::Truncated`], [`DecodeError::Trailing`], and [`DecodeError::BadValue`]
    /// for a reply byte that is neither 0 nor 1.
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        match data.first() {
            Some(b'w') => {
                let mut reader = after_tag("XLogData", data)?;
                Ok(Self::XLogData {
                    start: reader.u64("start LSN")?,
                    end: reader.u64("end LSN")?,
                    sent_at: reader.i64("clock")?,
                    data: reader.take_rest(),
                })
            }
            Some(b'k') => {
                let mut reader = after_tag("PrimaryKeepalive", data)?;
                let keepalive = Self::PrimaryKeepalive {
                    end: reader.u64("end LSN")?,
                    sent_at: reader.i64("clock")?,
                    reply_requested: flag(&mut reader)?,
                };
                reader.finish()?;
                Ok(keepalive)
            }
            Some(&tag) => Err(DecodeError::UnknownTag { tag }),
            None => Err(DecodeError::Truncated {
                message: "replication payload",
                field: "tag",
                offset: 0,
            }),
        }
    }

    /// Appends the payload to `out`; it goes into a [`CopyData`](crate::backend::CopyData).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::raw(out);
        match *self {
            Self::XLogData {
                start,
                end,
                sent_at,
                data,
            } => {
                w.u8(b'w');
                w.u64(start);
                w.u64(end);
                w.i64(sent_at);
                w.bytes(data);
            }
            Self::PrimaryKeepalive {
                end,
                sent_at,
                reply_requested,
            } => {
                w.u8(b'k');
                w.u64(end);
                w.i64(sent_at);
                w.u8(reply_requested.into());
            }
        }
    }
}

impl std::fmt::Debug for ServerPayload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::XLogData {
                start, end, data, ..
            } => f
                .debug_struct("XLogData")
                .field("start", start)
                .field("end", end)
                .field("data", &Redacted(data))
                .finish_non_exhaustive(),
            Self::PrimaryKeepalive {
                end,
                reply_requested,
                ..
            } => f
                .debug_struct("PrimaryKeepalive")
                .field("end", end)
                .field("reply_requested", reply_requested)
                .finish_non_exhaustive(),
        }
    }
}

/// `r`: how far the receiver is, sent inside CopyData.
///
/// <https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-STANDBY-STATUS-UPDATE>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyStatusUpdate {
    /// LSN after the last byte written to disk.
    pub written: u64,
    /// LSN after the last byte flushed to disk: the server may forget what is before.
    pub flushed: u64,
    /// LSN after the last byte applied.
    pub applied: u64,
    /// The receiver's clock, in microseconds since 2000-01-01.
    pub sent_at: i64,
    /// Whether the server shall answer with a keepalive now.
    pub reply_requested: bool,
}

impl StandbyStatusUpdate {
    /// Decodes the data of a CopyData.
    ///
    /// # Errors
    ///
    /// As [`ServerPayload::decode`].
    pub fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        if let Some(&tag) = data.first().filter(|tag| **tag != b'r') {
            return Err(DecodeError::UnknownTag { tag });
        }
        let mut reader = after_tag("StandbyStatusUpdate", data)?;
        let update = Self {
            written: reader.u64("written LSN")?,
            flushed: reader.u64("flushed LSN")?,
            applied: reader.u64("applied LSN")?,
            sent_at: reader.i64("clock")?,
            reply_requested: flag(&mut reader)?,
        };
        reader.finish()?;
        Ok(update)
    }

    /// Appends the payload to `out`; it goes into a [`CopyData`](crate::frontend::CopyData).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::raw(out);
        w.u8(b'r');
        w.u64(self.written);
        w.u64(self.flushed);
        w.u64(self.applied);
        w.i64(self.sent_at);
        w.u8(self.reply_requested.into());
    }
}

fn after_tag<'a>(message: &'static str, data: &'a [u8]) -> Result<Reader<'a>, DecodeError> {
    let mut reader = Reader::new(message, data);
    reader.u8("tag")?;
    Ok(reader)
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    let offset = reader.offset();
    match reader.u8("reply flag")? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(reader.bad_value("reply flag", i64::from(other), offset)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_payloads_round_trip() {
        for payload in [
            ServerPayload::XLogData {
                start: 1,
                end: 2,
                sent_at: -3,
                data: b"B...",
            },
            ServerPayload::PrimaryKeepalive {
                end: 0x16_b374_d848,
                sent_at: 4,
                reply_requested: true,
            },
        ] {
            let mut out = Vec::new();
            payload.encode(&mut out);
            assert_eq!(ServerPayload::decode(&out), Ok(payload));
            for len in 0..18 {
                assert!(
                    ServerPayload::decode(&out[..len.min(out.len() - 1)]).is_err(),
                    "{payload:?} {len}"
                );
            }
        }
        assert_eq!(
            ServerPayload::decode(b"z"),
            Err(DecodeError::UnknownTag { tag: b'z' })
        );
    }

    #[test]
    fn a_status_update_holds_its_anatomy() {
        let update = StandbyStatusUpdate {
            written: 3,
            flushed: 2,
            applied: 1,
            sent_at: 9,
            reply_requested: false,
        };
        let mut out = Vec::new();
        update.encode(&mut out);
        assert_eq!(out.len(), 34);
        assert_eq!(StandbyStatusUpdate::decode(&out), Ok(update));
        for len in 0..out.len() {
            assert!(StandbyStatusUpdate::decode(&out[..len]).is_err());
        }
        out.push(0);
        assert!(matches!(
            StandbyStatusUpdate::decode(&out),
            Err(DecodeError::Trailing { .. })
        ));
        out.truncate(33);
        out.push(2);
        assert!(matches!(
            StandbyStatusUpdate::decode(&out),
            Err(DecodeError::BadValue { value: 2, .. })
        ));
    }
}
