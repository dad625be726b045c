//! The untagged first packets: StartupMessage, SSLRequest, GSSENCRequest and CancelRequest.
//!
//! They come from peers that nobody has authenticated yet, so the length is bounded before anything is kept.

use crate::{
    error::DecodeError,
    limits,
    list::{List, Pair},
    reader::Reader,
    writer,
};

/// Code of an SSLRequest
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST>).
pub const SSL_REQUEST_CODE: u32 = (1234 << 16) | 5679;

/// Code of a GSSENCRequest
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-GSSENCREQUEST>).
pub const GSSENC_REQUEST_CODE: u32 = (1234 << 16) | 5680;

/// Code of a CancelRequest
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-CANCELREQUEST>).
pub const CANCEL_REQUEST_CODE: u32 = (1234 << 16) | 5678;

/// The only major protocol version in use.
pub const PROTOCOL_MAJOR: u16 = 3;

/// The newest minor protocol version that this codec knows: 3.2, of PostgreSQL 18. (3.1 was never used.)
pub const NEWEST_PROTOCOL_MINOR: u16 = 2;

/// First byte of a TLS record of type handshake. A connection that begins with it wants direct TLS: as a startup packet
/// its length would be over [`limits::MAX_STARTUP_PACKET`] by far.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// An SSLRequest as it goes over the wire.
pub const SSL_REQUEST: [u8; 8] = request(SSL_REQUEST_CODE);

/// A GSSENCRequest as it goes over the wire.
pub const GSSENC_REQUEST: [u8; 8] = request(GSSENC_REQUEST_CODE);

const fn request(code: u32) -> [u8; 8] {
    let [a, b, c, d] = code.to_be_bytes();
    [0, 0, 0, 8, a, b, c, d]
}

/// A first packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StartupPacket<'a> {
    /// SSLRequest: answered with one byte, `S` or `N`, after which the client starts TLS or sends another first packet.
    Ssl,
    /// GSSENCRequest: answered with one byte, `G` or `N`.
    Gss,
    /// CancelRequest: never answered, the connection is closed.
    Cancel {
        /// The process ID of the backend key.
        process_id: u32,
        /// The secret of the backend key, 4 to 256 bytes (4 in protocol 3.0).
        secret: &'a [u8],
    },
    /// StartupMessage of protocol 3.
    Startup(StartupMessage<'a>),
    /// A protocol that nobody speaks; the body is not looked at.
    Other {
        /// The code: major version in the upper, minor in the lower 16 bits.
        code: u32,
    },
}

impl std::fmt::Debug for StartupPacket<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ssl => f.write_str("Ssl"),
            Self::Gss => f.write_str("Gss"),
            Self::Cancel { process_id, .. } => {
                write!(f, "Cancel {{ process_id: {process_id}, .. }}")
            }
            Self::Startup(message) => message.fmt(f),
            Self::Other { code } => write!(f, "Other {{ code: {code} }}"),
        }
    }
}

impl<'a> StartupPacket<'a> {
    /// Decodes the packet at the front of `bytes` and returns it with its size; `None` while it is not whole.
    ///
    /// `limit` is the largest packet taken, in bytes, the length field included; see [`limits::MAX_STARTUP_PACKET`].
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadLength`] and [`DecodeError::TooLarge`] as soon as the length is there; what else is wrong with
    /// the packet when it is whole. The connection must be closed.
    pub fn decode(bytes: &'a [u8], limit: usize) -> Result<Option<(Self, usize)>, DecodeError> {
        let Some(length) = bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let size = usize::try_from(length).unwrap_or(0);
        if size < limits::MIN_STARTUP_PACKET {
            return Err(DecodeError::BadLength { tag: 0, length });
        }
        if size > limit {
            return Err(DecodeError::TooLarge {
                message: "startup packet",
                length: size,
                limit,
            });
        }
        let Some(body) = bytes.get(4..size) else {
            return Ok(None);
        };
        Self::decode_body(body).map(|packet| Some((packet, size)))
    }

    fn decode_body(body: &'a [u8]) -> Result<Self, DecodeError> {
        let named = |message| {
            let mut reader = Reader::new(message, body);
            reader.u32("code").map(|code| (code, reader))
        };
        let (code, _) = named("startup packet")?;
        match code {
            SSL_REQUEST_CODE => named("SSLRequest")?.1.finish().map(|()| Self::Ssl),
            GSSENC_REQUEST_CODE => named("GSSENCRequest")?.1.finish().map(|()| Self::Gss),
            CANCEL_REQUEST_CODE => {
                let (_, mut reader) = named("CancelRequest")?;
                Ok(Self::Cancel {
                    process_id: reader.u32("process ID")?,
                    secret: reader.secret()?,
                })
            }
            _ => {
                let [major_high, major_low, minor_high, minor_low] = code.to_be_bytes();
                let major = u16::from_be_bytes([major_high, major_low]);
                let minor = u16::from_be_bytes([minor_high, minor_low]);
                if major != PROTOCOL_MAJOR {
                    return Ok(Self::Other { code });
                }
                let (_, mut reader) = named("StartupMessage")?;
                let parameters = reader.terminated()?;
                reader.finish()?;
                Ok(Self::Startup(StartupMessage {
                    major,
                    minor,
                    parameters,
                }))
            }
        }
    }

    /// Appends the packet to `out`. [`StartupPacket::Other`] is written without a body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ssl => out.extend_from_slice(&SSL_REQUEST),
            Self::Gss => out.extend_from_slice(&GSSENC_REQUEST),
            Self::Cancel { process_id, secret } => encode_cancel(out, *process_id, secret),
            Self::Startup(message) => message.encode(out),
            Self::Other { code } => writer::packet(out, |w| w.u32(*code)),
        }
    }
}

/// Appends a CancelRequest to `out`.
pub fn encode_cancel(out: &mut Vec<u8>, process_id: u32, secret: &[u8]) {
    writer::packet(out, |w| {
        w.u32(CANCEL_REQUEST_CODE);
        w.u32(process_id);
        w.bytes(secret);
    });
}

/// A StartupMessage: the protocol version and the parameters of the session to be.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-STARTUPMESSAGE>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartupMessage<'a> {
    /// Major protocol version, 3.
    pub major: u16,
    /// Minor protocol version: 0 or 2; others are answered with NegotiateProtocolVersion.
    pub minor: u16,
    /// Names and values in the order sent; no name is empty.
    pub parameters: List<'a, Pair>,
}

impl<'a> StartupMessage<'a> {
    /// Returns the value of the parameter `name`. Of several, the last counts, as in PostgreSQL
    /// (`src/backend/tcop/backend_startup.c ProcessStartupPacket`).
    #[must_use]
    pub fn parameter(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.parameters
            .iter()
            .filter(|(key, _)| *key == name)
            .last()
            .map(|(_, value)| value)
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::packet(out, |w| {
            w.u16(self.major);
            w.u16(self.minor);
            w.terminated(self.parameters);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::ListBuf;

    const LIMIT: usize = limits::MAX_STARTUP_PACKET;

    /// Every packet decodes from exactly its own bytes: no prefix does, and one byte more in its length is refused.
    fn anatomy(packet: StartupPacket<'_>, expected: &[u8]) {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        assert_eq!(bytes, expected);
        assert_eq!(
            StartupPacket::decode(&bytes, LIMIT),
            Ok(Some((packet, bytes.len())))
        );
        for len in 0..bytes.len() {
            assert_eq!(StartupPacket::decode(&bytes[..len], LIMIT), Ok(None));
        }
        bytes.push(b'x');
        assert_eq!(
            StartupPacket::decode(&bytes, LIMIT),
            Ok(Some((packet, bytes.len() - 1)))
        );
        if matches!(
            packet,
            StartupPacket::Cancel { .. } | StartupPacket::Other { .. }
        ) {
            return;
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        assert!(matches!(
            StartupPacket::decode(&bytes, LIMIT),
            Err(DecodeError::Trailing { bytes: 1, .. })
        ));
    }

    #[test]
    fn every_packet_holds_its_anatomy() {
        anatomy(StartupPacket::Ssl, b"\0\0\0\x08\x04\xd2\x16\x2f");
        anatomy(StartupPacket::Gss, b"\0\0\0\x08\x04\xd2\x16\x30");
        anatomy(
            StartupPacket::Cancel {
                process_id: 7,
                secret: b"abcd",
            },
            b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd",
        );
        anatomy(
            StartupPacket::Other { code: 2 << 16 },
            b"\0\0\0\x08\0\x02\0\0",
        );
        let parameters =
            ListBuf::collect([(&b"user"[..], &b"ann"[..]), (b"options", b"")]).unwrap();
        let message = StartupMessage {
            major: 3,
            minor: 2,
            parameters: parameters.as_list(),
        };
        anatomy(
            StartupPacket::Startup(message),
            b"\0\0\0\x1b\0\x03\0\x02user\0ann\0options\0\0\0",
        );
        assert_eq!(message.parameter(b"user"), Some(&b"ann"[..]));
        assert_eq!(message.parameter(b"database"), None);
    }

    #[test]
    fn a_startup_message_without_terminator_is_refused() {
        let bytes = b"\0\0\0\x11\0\x03\0\0user\0ann\0";
        assert!(matches!(
            StartupPacket::decode(bytes, LIMIT),
            Err(DecodeError::Truncated {
                message: "StartupMessage",
                ..
            })
        ));
    }

    #[test]
    fn lengths_are_judged_before_the_body_arrives() {
        for length in [0_i32, 7, -1, i32::MIN] {
            assert_eq!(
                StartupPacket::decode(&length.to_be_bytes(), LIMIT),
                Err(DecodeError::BadLength { tag: 0, length })
            );
        }
        assert_eq!(
            StartupPacket::decode(&10_000_i32.to_be_bytes(), LIMIT),
            Ok(None)
        );
        assert!(matches!(
            StartupPacket::decode(&10_001_i32.to_be_bytes(), LIMIT),
            Err(DecodeError::TooLarge {
                length: 10_001,
                limit: LIMIT,
                ..
            })
        ));
        // The first bytes of a TLS ClientHello are no startup packet.
        assert!(StartupPacket::decode(&[TLS_HANDSHAKE, 3, 1, 2, 0], LIMIT).is_err());
    }

    #[test]
    fn cancel_secrets_have_4_to_256_bytes() {
        for (len, good) in [(0, false), (3, false), (4, true), (256, true), (257, false)] {
            let mut bytes = Vec::new();
            encode_cancel(&mut bytes, 1, &vec![7; len]);
            assert_eq!(
                StartupPacket::decode(&bytes, LIMIT).is_ok(),
                good,
                "{len} bytes"
            );
        }
    }

    #[test]
    fn debug_output_hides_the_cancel_secret() {
        let text = format!(
            "{:?}",
            StartupPacket::Cancel {
                process_id: 7,
                secret: b"abcd"
            }
        );
        assert_eq!(text, "Cancel { process_id: 7, .. }");
    }
}
