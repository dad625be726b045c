//! Why a server connection could not be made or kept.

use pgweir_auth::AuthError;
use pgweir_net::NetError;
use pgweir_wire::DecodeError;

/// A server connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket failed.
    #[error("{0}")]
    Net(#[from] NetError),
    /// The server refused with this ErrorResponse (the whole message, header included).
    #[error("the server refused: {message}")]
    Refused {
        /// The five bytes of its SQLSTATE.
        sqlstate: [u8; 5],
        /// Its message text.
        message: String,
        /// The message as it came, header included.
        response: Vec<u8>,
    },
    /// The exchange of passwords failed.
    #[error("authentication: {0}")]
    Auth(#[from] AuthError),
    /// Bytes that are no message.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A startup parameter that no message can carry.
    #[error("{0}")]
    Encode(#[from] pgweir_wire::EncodeError),
    /// A message that does not belong here.
    #[error("unexpected message of type {tag} from the server")]
    Unexpected {
        /// Its type byte.
        tag: u8,
    },
    /// It took too long.
    #[error("the server did not answer in time")]
    Timeout,
}
