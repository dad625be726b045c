//! NotificationResponse: a NOTIFY of some session.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// A notification, which may come at any time.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-NOTIFICATIONRESPONSE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NotificationResponse<'a> {
    /// The process ID of the session that sent it.
    pub process_id: u32,
    /// The channel.
    pub channel: &'a [u8],
    /// What it says.
    pub payload: &'a [u8],
}

redacted_debug!(NotificationResponse { process_id } hides { channel, payload });

impl<'a> NotificationResponse<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`], [`DecodeError::Truncated`] and [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("NotificationResponse", body);
        let response = Self {
            process_id: reader.u32("process ID")?,
            channel: reader.cstr("channel")?,
            payload: reader.cstr("payload")?,
        };
        reader.finish()?;
        Ok(response)
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::NOTIFICATION_RESPONSE, |w| {
            w.u32(self.process_id);
            w.cstr(self.channel);
            w.cstr(self.payload);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message};

    #[test]
    fn notification_response_holds_its_anatomy() {
        let response = NotificationResponse {
            process_id: 9,
            channel: b"ch",
            payload: b"hi",
        };
        anatomy::backend(
            Message::NotificationResponse(response),
            b"A\0\0\0\x0e\0\0\0\x09ch\0hi\0",
        );
    }
}
