//! The pen that every encoder writes with: big-endian numbers, zero-terminated strings, and the length patched in afterwards.
//!
//! Writing cannot fail. What does not fit the protocol is cut where that is harmless (a string at its first zero byte,
//! as C does) or made visible to the peer (see [`message`]), and never shifts a frame border.

use crate::{
    frame::HEADER_LEN,
    list::{Element, List},
    nul,
};

/// Appends to one message. Made by [`message`] and [`packet`], which patch the length in.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

/// Appends a tagged message whose body `fill` writes.
///
/// A message over 2 GiB gets the length -1, which every peer refuses: the connection dies instead of going out of step.
#[inline]
pub fn message(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Writer<'_>)) {
    out.push(tag);
    packet(out, fill);
}

/// Appends an untagged packet (startup packets) whose content after the length `fill` writes.
#[inline]
pub fn packet(out: &mut Vec<u8>, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(&mut Writer { out });
    let length = wire_length(out.len() - start);
    if let Some(field) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *field = length;
    }
}

/// Appends only the head of a message whose last `rest_len` bytes follow from elsewhere, untouched.
///
/// This is how a name is rewritten without copying the payload: head and tail go out in one vectored write.
#[inline]
pub fn head(out: &mut Vec<u8>, tag: u8, rest_len: usize, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    fill(&mut Writer { out });
    let length = wire_length((out.len() - start - 1).saturating_add(rest_len));
    if let Some([_tag, field @ ..]) = out
        .get_mut(start..)
        .and_then(<[u8]>::first_chunk_mut::<HEADER_LEN>)
    {
        *field = length;
    }
}

fn wire_length(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(-1).to_be_bytes()
}

impl<'o> Writer<'o> {
    /// Writes to the end of `out`, without any framing.
    pub(crate) fn raw(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes one byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Writes an unsigned 16-bit number.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes a signed 16-bit number.
    #[inline]
    pub fn i16(&mut self, value: i16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes an unsigned 32-bit number.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes a signed 32-bit number.
    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes an unsigned 64-bit number.
    #[inline]
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes a signed 64-bit number.
    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes bytes as they are.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes a string and its terminating zero byte; a string with a zero byte inside ends there.
    #[inline]
    pub fn cstr(&mut self, string: &[u8]) {
        let end = nul::position(string).unwrap_or(string.len());
        self.bytes(string.get(..end).unwrap_or_default());
        self.u8(0);
    }

    /// Writes a value with its 32-bit length; `None` is NULL (length -1).
    #[inline]
    pub fn value(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.i32(-1),
            Some(bytes) => {
                // A value that does not fit makes the frame unsendable as well, which `message` shows.
                self.i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                self.bytes(bytes);
            }
        }
    }

    /// Writes a list with a 16-bit count in front.
    #[inline]
    pub fn counted<T: Element>(&mut self, list: List<'_, T>) {
        // Lists come from a 16-bit count or from a `ListBuf` that stops at it; the fallback is never taken.
        self.u16(u16::try_from(list.count).unwrap_or(u16::MAX));
        self.bytes(list.raw);
    }

    /// Writes a list with a 32-bit count in front.
    pub fn list<T: Element>(&mut self, list: List<'_, T>) {
        self.u32(list.count);
        self.bytes(list.raw);
    }

    /// Writes a list and the zero byte that ends it.
    #[inline]
    pub fn terminated<T: Element>(&mut self, list: List<'_, T>) {
        self.bytes(list.raw);
        self.u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_the_length_of_a_message_after_other_bytes() {
        let mut out = b"before".to_vec();
        message(&mut out, b'Q', |w| w.cstr(b"select 1"));
        assert_eq!(out, b"beforeQ\0\0\0\x0dselect 1\0");
    }

    #[test]
    fn a_head_counts_the_tail_that_follows() {
        let mut out = Vec::new();
        head(&mut out, b'P', 11, |w| w.cstr(b"s1"));
        assert_eq!(out, b"P\0\0\0\x12s1\0");
        out.clear();
        head(&mut out, b'P', usize::MAX, |_| {});
        assert_eq!(out, b"P\xff\xff\xff\xff");
    }

    #[test]
    fn a_string_ends_at_its_first_zero_byte() {
        let mut out = Vec::new();
        packet(&mut out, |w| w.cstr(b"a\0b"));
        assert_eq!(out, b"\0\0\0\x06a\0");
    }
}
