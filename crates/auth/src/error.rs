//! Why an exchange failed: enough for the log, and never which part of a login was wrong.

/// An exchange that failed. It is over: the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The user is unknown, has no usable password, or proved the wrong one; from a server: it said so.
    #[error("password authentication failed")]
    Rejected,
    /// The bytes are no message of the exchange.
    #[error("malformed {message}: {what}")]
    Malformed {
        /// The message, as PostgreSQL or RFC 5802 names it.
        message: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The two sides have no SASL mechanism in common.
    #[error("no SASL mechanism in common")]
    Mechanism,
    /// The peer asks for channel binding, which needs TLS.
    #[error("SCRAM channel binding is not available on this connection")]
    ChannelBinding,
    /// The server did not prove that it knows the password: it may be an impostor.
    #[error("the server did not prove that it knows the password")]
    ServerSignature,
    /// The server asks for a method that is not spoken here.
    #[error("authentication request {code} is not supported")]
    Unsupported {
        /// The code of the AuthenticationRequest message.
        code: i32,
    },
    /// The server asks for a proof that the configured credentials cannot give.
    #[error("the configured credentials cannot answer authentication request {code}")]
    Credentials {
        /// The code of the AuthenticationRequest message.
        code: i32,
    },
    /// A message of the exchange at the wrong time.
    #[error("authentication message out of order")]
    OutOfOrder,
}
