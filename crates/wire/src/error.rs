//! What can be wrong with bytes, and with values that do not fit the protocol.
//!
//! Errors are small and `Copy`: raising one on hostile input costs no allocation. "More bytes are needed" is not among them.

use thiserror::Error;

/// Bytes that are not a message.
///
/// Offsets count from the first byte of the body (the byte after the length field), so that they are the same whether
/// the frame stands alone or in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The length field of a frame is below 4 or, read as a signed number, negative. The stream cannot be continued.
    #[error("invalid message length {length} for message type {:?}", char::from(*.tag))]
    BadLength {
        /// The tag byte before the length; 0 for an untagged startup packet.
        tag: u8,
        /// The length field as PostgreSQL reads it: a signed number.
        length: i32,
    },
    /// The length field is well-formed but beyond what the caller takes.
    #[error("{message}: {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        message: &'static str,
        /// Its size in bytes.
        length: usize,
        /// The most that is taken, in bytes.
        limit: usize,
    },
    /// No message of this direction has this tag.
    #[error("unknown message type {:?} (0x{tag:02x})", char::from(*.tag))]
    UnknownTag {
        /// The tag byte.
        tag: u8,
    },
    /// The body ends inside a field.
    #[error("{message}: no bytes left for {field} at offset {offset}")]
    Truncated {
        /// The message's name in the protocol chapter.
        message: &'static str,
        /// The field that is cut.
        field: &'static str,
        /// Where the field begins.
        offset: usize,
    },
    /// A string has no terminating zero byte.
    #[error("{message}: {field} at offset {offset} has no terminating zero byte")]
    MissingNul {
        /// The message's name in the protocol chapter.
        message: &'static str,
        /// The string's name.
        field: &'static str,
        /// Where the string begins.
        offset: usize,
    },
    /// Bytes are left after the last field.
    #[error("{message}: {bytes} bytes left over at offset {offset}")]
    Trailing {
        /// The message's name in the protocol chapter.
        message: &'static str,
        /// How many bytes are left.
        bytes: usize,
        /// Where they begin.
        offset: usize,
    },
    /// A field has a value that the protocol does not know.
    #[error("{message}: {value} is not a valid {field} at offset {offset}")]
    BadValue {
        /// The message's name in the protocol chapter.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// What stands there.
        value: i64,
        /// Where the field begins.
        offset: usize,
    },
}

/// A value that no message can carry. Only lists built by hand ([`ListBuf`](crate::ListBuf)) raise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The list is full: counts are 16 bits wide on the wire.
    #[error("a message carries no more than {limit} {element}")]
    TooMany {
        /// What the list holds.
        element: &'static str,
        /// The most that fit.
        limit: usize,
    },
    /// The element would begin with a zero byte and so end a zero-terminated list early.
    #[error("an empty name cannot stand in a list of {element}")]
    Empty {
        /// What the list holds.
        element: &'static str,
    },
}
