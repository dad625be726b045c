//! Finding frames in bytes that arrive in any fragmentation.
//!
//! [`Frames`] borrows a read buffer and is what the relay uses. [`Deframer`] owns its bytes and is for tests, tools and
//! control connections.

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    error::DecodeError,
    frame::{Frame, HEADER_LEN, Header},
};

/// Iterates over the complete frames at the front of a slice, and knows how much of it they took.
///
/// `consumed` and `rest` always split the slice at a frame border, so a run of adjacent frames can be forwarded as one slice.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    consumed: usize,
}

impl<'a> Frames<'a> {
    /// Starts at the front of `bytes`, which must be a frame border.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            consumed: 0,
        }
    }

    /// Returns the next complete frame, or `None` when what is left is a part of one (or nothing).
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadLength`] as from [`Header::peek`]; the position stays before the bad frame.
    #[expect(
        clippy::should_implement_trait,
        reason = "an Iterator over Result<Frame> would run on after an error"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Frame<'a>>, DecodeError> {
        let Some(header) = Header::peek(self.rest)? else {
            return Ok(None);
        };
        let Some((bytes, rest)) = self.rest.split_at_checked(header.frame_len()) else {
            return Ok(None);
        };
        self.rest = rest;
        self.consumed += bytes.len();
        Ok(Some(Frame {
            tag: header.tag,
            bytes,
        }))
    }

    /// Returns how many bytes the frames so far took.
    #[inline]
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// Returns the bytes after the last frame: the front of a partial frame, or nothing.
    #[inline]
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// One whole message that owns its bytes (a cheap, counted view of the deframer's buffer).
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedFrame {
    /// The first byte of the message.
    pub tag: u8,
    /// The whole frame, header included.
    pub bytes: Bytes,
}

impl OwnedFrame {
    /// Returns the frame as a borrowing one, which the decoders take.
    #[must_use]
    pub fn as_frame(&self) -> Frame<'_> {
        Frame {
            tag: self.tag,
            bytes: &self.bytes,
        }
    }

    /// Returns the bytes after the header.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.as_frame().body()
    }
}

impl std::fmt::Debug for OwnedFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_frame().fmt(f)
    }
}

/// Collects bytes until whole frames stand in them.
#[derive(Debug)]
pub struct Deframer {
    buffer: BytesMut,
    frame_bytes_limit: usize,
}

impl Deframer {
    /// Takes frames of up to `frame_bytes_limit` bytes, header included. [`limits::MAX_MESSAGE`](crate::limits::MAX_MESSAGE) takes all.
    #[must_use]
    pub fn new(frame_bytes_limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            frame_bytes_limit,
        }
    }

    /// Appends bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Gives access to the buffer, for reading from a socket straight into it. Only append.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Returns how many bytes wait for the rest of their frame (or for `next`).
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Takes the next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadLength`] and [`DecodeError::TooLarge`], both as soon as the header is there. The stream cannot
    /// be continued: a further call returns the same error.
    #[expect(
        clippy::should_implement_trait,
        reason = "an Iterator over Result<Frame> would run on after an error"
    )]
    pub fn next(&mut self) -> Result<Option<OwnedFrame>, DecodeError> {
        let Some(header) = Header::peek(&self.buffer)? else {
            return Ok(None);
        };
        let length = header.frame_len();
        if length > self.frame_bytes_limit {
            return Err(DecodeError::TooLarge {
                message: "frame",
                length,
                limit: self.frame_bytes_limit,
            });
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        Ok(Some(OwnedFrame {
            tag: header.tag,
            bytes: self.buffer.split_to(length).freeze(),
        }))
    }

    /// Takes the next `len` untagged bytes, or `None` while fewer are there. For startup packets and one-byte answers.
    pub fn take(&mut self, len: usize) -> Option<Bytes> {
        (self.buffer.len() >= len).then(|| self.buffer.copy_to_bytes(len))
    }

    /// Returns what the next frame still lacks, in bytes: a hint for the size of the next read.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadLength`] as from [`Header::peek`].
    pub fn missing(&self) -> Result<usize, DecodeError> {
        let have = self.buffer.len();
        Ok(Header::peek(&self.buffer)?
            .map_or(HEADER_LEN, Header::frame_len)
            .saturating_sub(have))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"1\0\0\0\x042\0\0\0\x04Z\0\0\0\x05IQ\0\0\0\x09se";

    #[test]
    fn frames_stop_at_the_partial_one() {
        let mut frames = Frames::new(STREAM);
        let mut tags = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            tags.push(frame.tag);
        }
        assert_eq!(tags, b"12Z");
        assert_eq!(frames.consumed(), 16);
        assert_eq!(frames.rest(), b"Q\0\0\0\x09se");
    }

    #[test]
    fn a_bad_length_leaves_the_position_before_it() {
        let mut frames = Frames::new(b"1\0\0\0\x042\0\0\0\x03");
        assert!(frames.next().unwrap().is_some());
        assert!(frames.next().is_err());
        assert_eq!(frames.consumed(), 5);
    }

    #[test]
    fn bytes_one_by_one_give_the_same_frames() {
        let mut deframer = Deframer::new(100);
        let mut seen = Vec::new();
        for byte in STREAM {
            deframer.push(&[*byte]);
            while let Some(frame) = deframer.next().unwrap() {
                seen.push(frame);
            }
        }
        let mut frames = Frames::new(STREAM);
        for owned in &seen {
            assert_eq!(owned.as_frame(), frames.next().unwrap().unwrap());
        }
        assert_eq!(seen.len(), 3);
        assert_eq!(deframer.pending(), 7);
        assert_eq!(deframer.missing(), Ok(3));
    }

    #[test]
    fn refuses_a_large_frame_before_its_body_arrives() {
        for (limit, fits) in [(10, true), (9, false)] {
            let mut deframer = Deframer::new(limit);
            deframer.push(b"Q\0\0\0\x09");
            assert_eq!(deframer.next().is_ok(), fits, "limit {limit}");
        }
    }
}
