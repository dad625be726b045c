//! A frame: one tagged message as it stands in a buffer, and its five-byte header.
//!
//! A relay reads headers and nothing else, so [`Header::peek`] is the hottest function of the codec.

use std::fmt;

use crate::error::DecodeError;

/// Bytes of a header: the tag and the length field.
pub const HEADER_LEN: usize = 5;

/// Bytes of the length field, which counts itself.
const LENGTH_LEN: u32 = 4;

/// The tag and length of a message
/// (<https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first byte of the message. Frontend and backend tags collide: only the direction tells them apart.
    pub tag: u8,
    /// The length field as on the wire, in bytes: it counts itself but not the tag. From 4 to `i32::MAX`.
    pub length: u32,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` while fewer than five bytes are there.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadLength`] when the length field is below 4 or above `i32::MAX`: the peer must be dropped,
    /// since no later frame border can be found.
    #[inline]
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        // 0..=3 wrap around to the top of the range, so one comparison refuses both ends.
        if length.wrapping_sub(LENGTH_LEN) > i32::MAX.cast_unsigned() - LENGTH_LEN {
            return Err(bad_length(tag, length));
        }
        Ok(Some(Self { tag, length }))
    }

    /// Returns the size of the whole frame in bytes, tag and length field included.
    #[inline]
    #[must_use]
    pub fn frame_len(self) -> usize {
        1 + self.length as usize
    }

    /// Returns the size of the body in bytes: what follows the header.
    #[inline]
    #[must_use]
    pub fn body_len(self) -> usize {
        self.length.saturating_sub(LENGTH_LEN) as usize
    }
}

#[cold]
fn bad_length(tag: u8, length: u32) -> DecodeError {
    DecodeError::BadLength {
        tag,
        length: length.cast_signed(),
    }
}

/// One whole message in someone's buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The first byte of the message.
    pub tag: u8,
    /// The whole frame, header included: what a relay writes.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Returns the bytes after the header: what the typed views decode.
    #[inline]
    #[must_use]
    pub fn body(self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}

/// Prints tag and size only: bodies carry data and secrets, which no log may show.
impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("tag", &char::from(self.tag))
            .field("len", &self.bytes.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_five_bytes() {
        for len in 0..HEADER_LEN {
            assert_eq!(Header::peek(&b"Z\0\0\0\x05I"[..len]), Ok(None));
        }
        let header = Header::peek(b"Z\0\0\0\x05I").unwrap().unwrap();
        assert_eq!(
            (
                header.tag,
                header.length,
                header.frame_len(),
                header.body_len()
            ),
            (b'Z', 5, 6, 1)
        );
    }

    #[test]
    fn refuses_lengths_that_no_message_has() {
        for length in [0_i32, 1, 2, 3, -1, i32::MIN] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert_eq!(
                Header::peek(&bytes),
                Err(DecodeError::BadLength { tag: b'Q', length })
            );
        }
    }

    #[test]
    fn takes_the_smallest_and_the_largest_length() {
        for length in [4_u32, 0x7fff_ffff] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert_eq!(Header::peek(&bytes), Ok(Some(Header { tag: b'Q', length })));
        }
    }
}
