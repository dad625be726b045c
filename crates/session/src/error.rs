//! A well-formed message in the wrong place, or bytes that are no message: the peer broke the protocol.

use pgweir_wire::DecodeError;

/// Which peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The application.
    Client,
    /// PostgreSQL.
    Server,
}

impl Side {
    /// Returns the direction of its messages, in PostgreSQL's words.
    pub fn direction(self) -> &'static str {
        match self {
            Side::Client => "frontend",
            Side::Server => "backend",
        }
    }
}

/// The peer broke the protocol; its connection cannot be used any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes that are no message.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A message type that does not exist in this direction.
    #[error("invalid {} message type {tag}", side.direction())]
    UnknownTag {
        /// Who sent it.
        side: Side,
        /// The type byte.
        tag: u8,
    },
    /// A server's reply that no request owns.
    #[error("a reply of type {tag} that no request owns")]
    UnownedReply {
        /// The type byte.
        tag: u8,
    },
    /// A message longer than `max_message`.
    #[error("message of {length} bytes is longer than the limit of {limit} bytes")]
    TooLarge {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many requests in one pipeline.
    #[error("a pipeline of more than {limit} requests")]
    PipelineTooDeep {
        /// The limit.
        limit: usize,
    },
}
