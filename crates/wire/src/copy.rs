//! The COPY messages that both directions share: `d` and `c` mean the same to server and client.

use crate::{error::DecodeError, writer};

/// The tag of [`CopyData`] in both directions.
const DATA: u8 = b'd';

/// The tag of [`CopyDone`] in both directions.
const DONE: u8 = b'c';

/// A piece of COPY data. Its borders mean nothing: rows may span messages.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-COPYDATA>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CopyData<'a> {
    /// The whole body.
    pub data: &'a [u8],
}

redacted_debug!(CopyData {} hides { data });

impl<'a> CopyData<'a> {
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
        writer::message(out, DATA, |w| w.bytes(self.data));
    }
}

empty_message! {
    /// The end of COPY data.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-COPYDONE>
    CopyDone, DONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend, frontend};

    #[test]
    fn copy_messages_hold_their_anatomy_in_both_directions() {
        let data = CopyData {
            data: b"1\tone\n\0",
        };
        anatomy::frontend(frontend::Message::CopyData(data), b"d\0\0\0\x0b1\tone\n\0");
        anatomy::backend(backend::Message::CopyData(data), b"d\0\0\0\x0b1\tone\n\0");
        anatomy::frontend(frontend::Message::CopyDone(CopyDone), b"c\0\0\0\x04");
        anatomy::backend(backend::Message::CopyDone(CopyDone), b"c\0\0\0\x04");
    }
}
