//! The PostgreSQL protocol codec: bytes to frames, frames to typed views, and back. No I/O, no clock, no SQL.
//!
//! There are three levels, and a relay only ever needs the first:
//!
//! 1. [`Header`] and [`Frames`] find frame borders in a read buffer. Nothing is copied and nothing but five bytes is read.
//! 2. [`frontend`] and [`backend`] hold one borrowing view per message. Decoding a view checks the structure of the
//!    whole body once, so the iterators over its lists cannot fail. Views never allocate.
//! 3. [`Deframer`] and [`pgoutput`] serve tests, tools and the control plane, where owning a frame is worth a copy.
//!
//! Incomplete input is not an error (`Ok(None)`); malformed input is a [`DecodeError`] that names the message, the field
//! and the offset. A length field is never trusted before the bytes that it promises have arrived.
//!
//! # Examples
//!
//! ```
//! use pgweir_wire::{Frames, frontend};
//!
//! let mut bytes = Vec::new();
//! frontend::Query { sql: b"select 1" }.encode(&mut bytes);
//! frontend::Sync.encode(&mut bytes);
//!
//! let mut frames = Frames::new(&bytes);
//! let query = frames.next()?.expect("a whole frame");
//! assert_eq!(query.tag, frontend::tag::QUERY);
//! assert_eq!(frontend::Query::decode(query.body())?.sql, b"select 1");
//! assert_eq!(frames.next()?.map(|frame| frame.tag), Some(frontend::tag::SYNC));
//! assert!(frames.next()?.is_none());
//! assert!(frames.rest().is_empty());
//! # Ok::<(), pgweir_wire::DecodeError>(())
//! ```
#![forbid(unsafe_code)]

#[macro_use]
mod macros;
#[cfg(test)]
mod anatomy;
pub mod backend;
mod copy;
pub mod deframe;
pub mod error;
pub mod frame;
pub mod frontend;
#[doc(hidden)]
pub mod fuzzing;
pub mod gather;
pub mod limits;
pub mod list;
mod nul;
pub mod pgoutput;
pub mod reader;
mod redact;
pub mod startup;
pub mod trace;
pub mod transaction_status;
pub mod writer;

pub use deframe::{Deframer, Frames, OwnedFrame};
pub use error::{DecodeError, EncodeError};
pub use frame::{Frame, HEADER_LEN, Header};
pub use gather::Gather;
pub use list::{List, ListBuf};
pub use reader::Reader;
pub use startup::{StartupMessage, StartupPacket};
pub use transaction_status::TransactionStatus;
pub use writer::Writer;
