//! The four SCRAM messages, read as PostgreSQL reads them (`src/backend/libpq/auth-scram.c`,
//! `src/interfaces/libpq/fe-auth-scram.c`, REL_18): what they refuse is refused, what they skip is skipped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::AuthError;

/// Bytes of one SASL message that a peer may send. Copied: PostgreSQL's `PG_MAX_SASL_MESSAGE_LENGTH`.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1024;

/// What the client says of channel binding, without the comma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binding {
    /// `n`: it cannot.
    Unable,
    /// `y`: it could, and thinks that we cannot, which is so.
    Unused,
}

impl Binding {
    /// Returns the base64 of the GS2 header, which the final message must repeat.
    fn repeated(self) -> &'static [u8] {
        match self {
            Binding::Unable => b"biws",
            Binding::Unused => b"eSws",
        }
    }
}

/// client-first-message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFirst<'a> {
    pub(crate) binding: Binding,
    /// Everything after the GS2 header.
    pub(crate) bare: &'a [u8],
    pub(crate) nonce: &'a [u8],
}

/// client-final-message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFinal<'a> {
    /// Everything before `,p=`.
    pub(crate) without_proof: &'a [u8],
    pub(crate) nonce: &'a [u8],
    pub(crate) proof: [u8; 32],
}

/// server-first-message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerFirst<'a> {
    pub(crate) nonce: &'a [u8],
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
}

pub(crate) fn client_first(message: &[u8]) -> Result<ClientFirst<'_>, AuthError> {
    let malformed = malformed("client-first-message");
    check(message, &malformed)?;
    let (binding, rest) = match message {
        [b'p', b'=', ..] => return Err(AuthError::ChannelBinding),
        [b'n', b',', rest @ ..] => (Binding::Unable, rest),
        [b'y', b',', rest @ ..] => (Binding::Unused, rest),
        _ => return Err(malformed("channel binding flag")),
    };
    let Some(bare) = rest.strip_prefix(b",") else {
        return Err(malformed("an authorization identity is not supported"));
    };
    let mut attributes = Attributes { rest: bare };
    // The user name is that of the startup packet; PostgreSQL does not look at this one either.
    attributes
        .expect(b'n')
        .ok_or_else(|| malformed("user name"))?;
    let nonce = attributes.expect(b'r').ok_or_else(|| malformed("nonce"))?;
    if nonce.is_empty() || !nonce.iter().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return Err(malformed("nonce"));
    }
    while !attributes.rest.is_empty() {
        attributes.any().ok_or_else(|| malformed("extension"))?;
    }
    Ok(ClientFirst {
        binding,
        bare,
        nonce,
    })
}

pub(crate) fn client_final(message: &[u8], binding: Binding) -> Result<ClientFinal<'_>, AuthError> {
    let malformed = malformed("client-final-message");
    check(message, &malformed)?;
    let mut attributes = Attributes { rest: message };
    let repeated = attributes
        .expect(b'c')
        .ok_or_else(|| malformed("channel binding"))?;
    if repeated != binding.repeated() {
        return Err(AuthError::ChannelBinding);
    }
    let nonce = attributes.expect(b'r').ok_or_else(|| malformed("nonce"))?;
    let (without_proof, proof) = loop {
        let before = message.len() - attributes.rest.len();
        let (name, value) = attributes.any().ok_or_else(|| malformed("proof"))?;
        if name == b'p' {
            // The comma before `p=` belongs to neither part.
            break (
                message.get(..before.saturating_sub(1)).unwrap_or_default(),
                value,
            );
        }
    };
    if !attributes.rest.is_empty() {
        return Err(malformed("bytes after the proof"));
    }
    let proof = key(proof).ok_or_else(|| malformed("proof"))?;
    Ok(ClientFinal {
        without_proof,
        nonce,
        proof,
    })
}

pub(crate) fn server_first(message: &[u8]) -> Result<ServerFirst<'_>, AuthError> {
    let malformed = malformed("server-first-message");
    let mut attributes = Attributes { rest: message };
    let nonce = attributes.expect(b'r').ok_or_else(|| malformed("nonce"))?;
    let salt = attributes
        .expect(b's')
        .and_then(|salt| STANDARD.decode(salt).ok())
        .ok_or_else(|| malformed("salt"))?;
    let iterations = attributes
        .expect(b'i')
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .filter(|iterations| *iterations > 0)
        .ok_or_else(|| malformed("iteration count"))?;
    if !attributes.rest.is_empty() {
        return Err(malformed("bytes after the iteration count"));
    }
    Ok(ServerFirst {
        nonce,
        salt,
        iterations,
    })
}

/// Returns the ServerSignature of a server-final-message.
pub(crate) fn server_final(message: &[u8]) -> Result<[u8; 32], AuthError> {
    let malformed = malformed("server-final-message");
    let mut attributes = Attributes { rest: message };
    match attributes.any() {
        Some((b'e', _)) => Err(AuthError::Rejected),
        Some((b'v', value)) if attributes.rest.is_empty() => {
            key(value).ok_or_else(|| malformed("signature"))
        }
        _ => Err(malformed("signature")),
    }
}

fn malformed(message: &'static str) -> impl Fn(&'static str) -> AuthError {
    move |what| AuthError::Malformed { message, what }
}

fn check(message: &[u8], malformed: &impl Fn(&'static str) -> AuthError) -> Result<(), AuthError> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(malformed("too long"));
    }
    if message.contains(&0) {
        return Err(malformed("zero byte"));
    }
    Ok(())
}

fn key(base64: &[u8]) -> Option<[u8; 32]> {
    STANDARD.decode(base64).ok()?.try_into().ok()
}

/// A list `n=value,m=value`.
struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Returns the value of the next attribute if it has that name.
    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.any()
            .filter(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    }

    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let [name, b'=', rest @ ..] = self.rest else {
            return None;
        };
        if !name.is_ascii_alphabetic() {
            return None;
        }
        let mut parts = rest.splitn(2, |byte| *byte == b',');
        let value = parts.next()?;
        self.rest = parts.next().unwrap_or_default();
        Some((*name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_client_first() {
        let first = client_first(b"n,,n=user,r=abc").unwrap();
        assert_eq!(
            first,
            ClientFirst {
                binding: Binding::Unable,
                bare: b"n=user,r=abc",
                nonce: b"abc"
            }
        );
        let extended = client_first(b"y,,n=,r=abc,x=1").unwrap();
        assert_eq!(extended.binding, Binding::Unused);
        assert_eq!(extended.bare, b"n=,r=abc,x=1");
    }

    #[test]
    fn refuses_client_first_as_postgresql_does() {
        assert_eq!(
            client_first(b"p=tls-server-end-point,,n=,r=abc"),
            Err(AuthError::ChannelBinding)
        );
        let cases: &[&[u8]] = &[
            b"",
            b"n",
            b"n,",
            b"n,,",
            b"x,,n=,r=a",
            b"n,a=other,n=,r=a",
            b"n,,m=x,n=,r=a",
            b"n,,r=a",
            b"n,,n=",
            b"n,,n=,r=",
            b"n,,n=,r=a b",
            b"n,,n=,r=a\x7f",
            b"n,,n=,r=a,1=x",
            b"n,,n=,r=a,x",
            b"n,,n=\0,r=a",
        ];
        for case in cases {
            let result = client_first(case);
            assert!(
                matches!(result, Err(AuthError::Malformed { .. })),
                "{:?}: {result:?}",
                case.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn reads_client_final() {
        let proof = STANDARD.encode([7; 32]);
        let message = format!("c=biws,r=abc,x=1,p={proof}");
        let read = client_final(message.as_bytes(), Binding::Unable).unwrap();
        assert_eq!(
            read,
            ClientFinal {
                without_proof: b"c=biws,r=abc,x=1",
                nonce: b"abc",
                proof: [7; 32]
            }
        );
        assert_eq!(
            client_final(message.as_bytes(), Binding::Unused),
            Err(AuthError::ChannelBinding)
        );
        for bad in [
            format!("{message},x=1"),
            format!("r=abc,p={proof}"),
            format!("c=biws,p={proof}"),
            "c=biws,r=abc".to_owned(),
        ] {
            let result = client_final(bad.as_bytes(), Binding::Unable);
            assert!(
                matches!(result, Err(AuthError::Malformed { .. })),
                "{bad}: {result:?}"
            );
        }
    }

    #[test]
    fn a_message_may_be_1024_bytes_long() {
        let message = |len: usize| [b"n,,n=,r=".to_vec(), vec![b'a'; len - 8]].concat();
        assert!(client_first(&message(MAX_MESSAGE_BYTES)).is_ok());
        assert!(client_first(&message(MAX_MESSAGE_BYTES + 1)).is_err());
    }

    #[test]
    fn reads_what_a_server_says() {
        let first = server_first(b"r=abcdef,s=c2FsdA==,i=4096").unwrap();
        assert_eq!(
            first,
            ServerFirst {
                nonce: b"abcdef",
                salt: b"salt".to_vec(),
                iterations: 4096
            }
        );
        for bad in [
            "",
            "r=a",
            "r=a,s=?,i=1",
            "r=a,s=c2FsdA==,i=0",
            "r=a,s=c2FsdA==,i=-1",
            "r=a,s=c2FsdA==,i=+1",
            "r=a,s=c2FsdA==,i=1,x=1",
            "m=x,r=a,s=c2FsdA==,i=1",
        ] {
            assert!(
                matches!(
                    server_first(bad.as_bytes()),
                    Err(AuthError::Malformed { .. })
                ),
                "{bad}"
            );
        }
        assert_eq!(
            server_final(format!("v={}", STANDARD.encode([1; 32])).as_bytes()),
            Ok([1; 32])
        );
        assert_eq!(server_final(b"e=invalid-proof"), Err(AuthError::Rejected));
        for bad in ["", "v=", "v=AA==", "x=1"] {
            assert!(
                matches!(
                    server_final(bad.as_bytes()),
                    Err(AuthError::Malformed { .. })
                ),
                "{bad}"
            );
        }
    }
}
