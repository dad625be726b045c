//! Authentication: eleven messages under one tag, told apart by a number.

use super::tag;
use crate::{
    error::DecodeError,
    list::{Element, List},
    reader::Reader,
    writer::{self, Writer},
};

const NAME: &str = "Authentication";

/// Element: the name of a SASL mechanism.
#[derive(Debug)]
pub enum Mechanism {}

impl Element for Mechanism {
    type View<'a> = &'a [u8];
    const NAME: &'static str = "SASL mechanisms";
    const COUNT: &'static str = "mechanism count";
    const TERMINATED: bool = true;

    fn read<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
        reader.cstr("mechanism")
    }

    fn write(view: &[u8], writer: &mut Writer<'_>) {
        writer.cstr(view);
    }
}

/// A request for authentication, or its good end.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-AUTHENTICATIONOK>
/// and the messages after it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// 0: the client is authenticated.
    Ok,
    /// 2: Kerberos V5, which no supported server asks for.
    Kerberos,
    /// 3: the password in clear text.
    CleartextPassword,
    /// 5: the password, hashed with MD5.
    Md5 {
        /// The salt to hash with.
        salt: [u8; 4],
    },
    /// 7: GSSAPI.
    Gss,
    /// 8: a further message of the GSSAPI or SSPI exchange.
    GssContinue {
        /// What it says.
        data: &'a [u8],
    },
    /// 9: SSPI.
    Sspi,
    /// 10: SASL.
    Sasl {
        /// The mechanisms that the server offers, the preferred one first.
        mechanisms: List<'a, Mechanism>,
    },
    /// 11: a further message of the SASL exchange.
    SaslContinue {
        /// What it says.
        data: &'a [u8],
    },
    /// 12: the last message of the SASL exchange; [`Authentication::Ok`] follows.
    SaslFinal {
        /// What it says.
        data: &'a [u8],
    },
}

impl<'a> Authentication<'a> {
    /// The whole AuthenticationOk message.
    pub const OK_BYTES: [u8; 9] = [tag::AUTHENTICATION, 0, 0, 0, 8, 0, 0, 0, 0];

    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadValue`] for another code, [`DecodeError::MissingNul`], [`DecodeError::Truncated`], [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(NAME, body);
        let message = match reader.u32("code")? {
            0 => Self::Ok,
            2 => Self::Kerberos,
            3 => Self::CleartextPassword,
            5 => Self::Md5 {
                salt: reader.array("salt")?,
            },
            7 => Self::Gss,
            8 => Self::GssContinue {
                data: reader.take_rest(),
            },
            9 => Self::Sspi,
            10 => Self::Sasl {
                mechanisms: reader.terminated()?,
            },
            11 => Self::SaslContinue {
                data: reader.take_rest(),
            },
            12 => Self::SaslFinal {
                data: reader.take_rest(),
            },
            other => return Err(reader.bad_value("code", i64::from(other), 0)),
        };
        reader.finish()?;
        Ok(message)
    }

    /// Returns the number that tells the messages apart.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Ok => 0,
            Self::Kerberos => 2,
            Self::CleartextPassword => 3,
            Self::Md5 { .. } => 5,
            Self::Gss => 7,
            Self::GssContinue { .. } => 8,
            Self::Sspi => 9,
            Self::Sasl { .. } => 10,
            Self::SaslContinue { .. } => 11,
            Self::SaslFinal { .. } => 12,
        }
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::AUTHENTICATION, |w| {
            w.u32(self.code());
            match self {
                Self::Ok | Self::Kerberos | Self::CleartextPassword | Self::Gss | Self::Sspi => {}
                Self::Md5 { salt } => w.bytes(salt),
                Self::Sasl { mechanisms } => w.terminated(*mechanisms),
                Self::GssContinue { data }
                | Self::SaslContinue { data }
                | Self::SaslFinal { data } => w.bytes(data),
            }
        });
    }
}

/// Prints the kind only: salts and exchanges stay out of logs.
impl std::fmt::Debug for Authentication<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ok => "Ok",
            Self::Kerberos => "Kerberos",
            Self::CleartextPassword => "CleartextPassword",
            Self::Md5 { .. } => "Md5 { .. }",
            Self::Gss => "Gss",
            Self::GssContinue { .. } => "GssContinue { .. }",
            Self::Sspi => "Sspi",
            Self::Sasl { .. } => "Sasl { .. }",
            Self::SaslContinue { .. } => "SaslContinue { .. }",
            Self::SaslFinal { .. } => "SaslFinal { .. }",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message, list::ListBuf};

    #[test]
    fn every_authentication_message_holds_its_anatomy() {
        let mechanisms = ListBuf::collect([&b"SCRAM-SHA-256-PLUS"[..], b"SCRAM-SHA-256"]).unwrap();
        for (message, rest) in [
            (Authentication::Ok, &b"\0"[..]),
            (Authentication::Kerberos, b"\x02"),
            (Authentication::CleartextPassword, b"\x03"),
            (Authentication::Md5 { salt: *b"salt" }, b"\x05salt"),
            (Authentication::Gss, b"\x07"),
            (Authentication::GssContinue { data: b"gss" }, b"\x08gss"),
            (Authentication::Sspi, b"\x09"),
            (
                Authentication::Sasl {
                    mechanisms: mechanisms.as_list(),
                },
                b"\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
            ),
            (
                Authentication::SaslContinue { data: b"r=abc" },
                b"\x0br=abc",
            ),
            (Authentication::SaslFinal { data: b"v=abc" }, b"\x0cv=abc"),
        ] {
            let length = u8::try_from(rest.len() + 7).unwrap();
            let bytes = [&[b'R', 0, 0, 0, length, 0, 0, 0], rest].concat();
            anatomy::backend(Message::Authentication(message), &bytes);
        }
        let mut out = Vec::new();
        Authentication::Ok.encode(&mut out);
        assert_eq!(out, Authentication::OK_BYTES);
    }

    #[test]
    fn another_code_is_refused() {
        assert!(matches!(
            Authentication::decode(&[0, 0, 0, 4]),
            Err(DecodeError::BadValue { value: 4, .. })
        ));
    }
}
