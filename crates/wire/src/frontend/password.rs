//! The answers to authentication requests, which share the tag `p`: only the request tells what an answer is.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// Any answer to an authentication request, undecoded: a password, SASL data or GSS data.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-PASSWORDMESSAGE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password<'a> {
    /// The whole body.
    pub raw: &'a [u8],
}

redacted_debug!(Password {} hides { raw });

impl<'a> Password<'a> {
    /// Decodes the body; every body is good until it is known what was asked.
    ///
    /// # Errors
    ///
    /// None; the signature is that of all messages.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { raw: body })
    }

    /// Reads the body as the PasswordMessage that answers a cleartext or MD5 request: a zero-terminated string.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`] and [`DecodeError::Trailing`].
    pub fn password(&self) -> Result<&'a [u8], DecodeError> {
        let mut reader = Reader::new("PasswordMessage", self.raw);
        let password = reader.cstr("password")?;
        reader.finish()?;
        Ok(password)
    }

    /// Appends the message to `out`. `raw` is written as it is.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::PASSWORD, |w| w.bytes(self.raw));
    }

    /// Appends the PasswordMessage that answers a cleartext or MD5 request to `out`.
    pub fn encode_password(out: &mut Vec<u8>, password: &[u8]) {
        writer::message(out, tag::PASSWORD, |w| w.cstr(password));
    }
}

/// The choice of a SASL mechanism and the client's first message.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SASLINITIALRESPONSE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism's name.
    pub mechanism: &'a [u8],
    /// The client-first message, if the client has one.
    pub data: Option<&'a [u8]>,
}

impl std::fmt::Debug for SaslInitialResponse<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mechanism = String::from_utf8_lossy(self.mechanism);
        f.debug_struct("SaslInitialResponse")
            .field("mechanism", &mechanism)
            .finish_non_exhaustive()
    }
}

impl<'a> SaslInitialResponse<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`], [`DecodeError::Truncated`], [`DecodeError::Trailing`], [`DecodeError::BadValue`] for
    /// a negative length other than -1.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("SASLInitialResponse", body);
        let response = Self {
            mechanism: reader.cstr("mechanism")?,
            data: reader.value("response")?,
        };
        reader.finish()?;
        Ok(response)
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::PASSWORD, |w| {
            w.cstr(self.mechanism);
            w.value(self.data);
        });
    }
}

/// A further message of the SASL exchange.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SASLRESPONSE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaslResponse<'a> {
    /// The whole body: what it means is the mechanism's business.
    pub data: &'a [u8],
}

redacted_debug!(SaslResponse {} hides { data });

impl<'a> SaslResponse<'a> {
    /// Decodes the body; every body is good.
    ///
    /// # Errors
    ///
    /// None; the signature is that of all messages.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { data: body })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::PASSWORD, |w| w.bytes(self.data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, frontend::Message};

    #[test]
    fn password_holds_its_anatomy() {
        anatomy::frontend(
            Message::Password(Password { raw: b"pw\0" }),
            b"p\0\0\0\x07pw\0",
        );
        let mut out = Vec::new();
        Password::encode_password(&mut out, b"pw");
        assert_eq!(
            Password::decode(&out[5..]).unwrap().password(),
            Ok(&b"pw"[..])
        );
        assert!(Password { raw: b"pw" }.password().is_err());
        assert!(Password { raw: b"pw\0x" }.password().is_err());
    }

    #[test]
    fn sasl_responses_hold_their_anatomy() {
        for data in [None, Some(&b""[..]), Some(b"n,,n=,r=abc")] {
            let response = SaslInitialResponse {
                mechanism: b"SCRAM-SHA-256",
                data,
            };
            let mut out = Vec::new();
            response.encode(&mut out);
            assert_eq!(SaslInitialResponse::decode(&out[5..]), Ok(response));
            for len in 0..out.len() - 5 {
                assert!(SaslInitialResponse::decode(&out[5..5 + len]).is_err());
            }
            out.push(0);
            assert!(matches!(
                SaslInitialResponse::decode(&out[5..]),
                Err(DecodeError::Trailing { .. })
            ));
        }
        let mut out = Vec::new();
        SaslResponse { data: b"c=biws" }.encode(&mut out);
        assert_eq!(
            SaslResponse::decode(&out[5..]),
            Ok(SaslResponse { data: b"c=biws" })
        );
    }

    #[test]
    fn debug_output_hides_secrets() {
        assert_eq!(
            format!("{:?}", Password { raw: b"hunter2\0" }),
            "Password { raw: <8 bytes> }"
        );
        let initial = SaslInitialResponse {
            mechanism: b"M",
            data: Some(b"hunter2"),
        };
        assert_eq!(
            format!("{initial:?}"),
            "SaslInitialResponse { mechanism: \"M\", .. }"
        );
    }
}
