//! The cursor that every decoder reads through: the only place that cuts into message bytes, always checked.

use std::marker::PhantomData;

use crate::{
    error::DecodeError,
    limits,
    list::{Element, List},
    nul,
};

/// A cursor over one body. Errors name the message, the field and the offset.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the front of `body`; `message` is the name that errors carry.
    #[inline]
    #[must_use]
    pub fn new(message: &'static str, body: &'a [u8]) -> Self {
        Self {
            message,
            rest: body,
            len: body.len(),
        }
    }

    /// Returns how many bytes were read so far.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> usize {
        self.len - self.rest.len()
    }

    /// Returns what is not read yet, without moving.
    #[inline]
    #[must_use]
    pub fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes `N` bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.truncated(field));
        };
        self.rest = rest;
        Ok(*head)
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when fewer are left.
    #[inline]
    pub fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.truncated(field));
        };
        self.rest = rest;
        Ok(head)
    }

    /// Takes one byte.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when none is left.
    #[inline]
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(u8::from_be_bytes)
    }

    /// Takes an unsigned 16-bit number.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when fewer than two bytes are left.
    #[inline]
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// Takes a signed 16-bit number.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when fewer than two bytes are left.
    #[inline]
    pub fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        self.array(field).map(i16::from_be_bytes)
    }

    /// Takes an unsigned 32-bit number.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when fewer than four bytes are left.
    #[inline]
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Takes a signed 32-bit number.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when fewer than four bytes are left.
    #[inline]
    pub fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    /// Takes an unsigned 64-bit number.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when fewer than eight bytes are left.
    #[inline]
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// Takes a signed 64-bit number.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] when fewer than eight bytes are left.
    #[inline]
    pub fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    /// Takes a string up to its terminating zero byte, which is taken too but not returned.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`] when no zero byte follows.
    #[inline]
    pub fn cstr(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let split = nul::position(self.rest).and_then(|end| self.rest.split_at_checked(end));
        let Some((string, [_nul, rest @ ..])) = split else {
            return Err(DecodeError::MissingNul {
                message: self.message,
                field,
                offset: self.offset(),
            });
        };
        self.rest = rest;
        Ok(string)
    }

    /// Takes a value with its 32-bit length; length -1 is NULL.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadValue`] for a length below -1, [`DecodeError::Truncated`] when fewer bytes are left.
    #[inline]
    pub fn value(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        let offset = self.offset();
        match self.i32(field)? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.bytes(length, field).map(Some),
                Err(_) => Err(self.bad_value(field, i64::from(length), offset)),
            },
        }
    }

    /// Takes all that is left.
    #[inline]
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Takes a list of `count` elements after walking over them once to see that they are whole.
    ///
    /// # Errors
    ///
    /// Whatever the element's own decoder raises.
    #[inline]
    pub fn list<T: Element>(&mut self, count: u32) -> Result<List<'a, T>, DecodeError> {
        let before = self.rest;
        T::skip(self, count)?;
        Ok(self.list_since(before, count))
    }

    /// Takes a list with a 16-bit count in front.
    ///
    /// The protocol chapter calls the count an Int16, but PostgreSQL reads it unsigned (`pq_getmsgint` of two bytes): a
    /// Bind carries up to 65,535 parameters.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] and whatever the element's own decoder raises.
    #[inline]
    pub fn counted<T: Element>(&mut self) -> Result<List<'a, T>, DecodeError> {
        let count = self.u16(T::COUNT)?;
        self.list(u32::from(count))
    }

    /// Takes a list that ends with a zero byte where the next element would begin.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] without that zero byte, and whatever the element's own decoder raises.
    pub fn terminated<T: Element>(&mut self) -> Result<List<'a, T>, DecodeError> {
        let before = self.rest;
        let mut count = 0;
        loop {
            match self.rest {
                [] => return Err(self.truncated("terminator")),
                [0, rest @ ..] => {
                    let list = self.list_since(before, count);
                    self.rest = rest;
                    return Ok(list);
                }
                _ => {
                    T::read(self)?;
                    count += 1;
                }
            }
        }
    }

    /// Takes the secret of a backend key: all that is left, 4 to 256 bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadValue`] for another length.
    pub fn secret(&mut self) -> Result<&'a [u8], DecodeError> {
        let offset = self.offset();
        let secret = self.take_rest();
        if (limits::MIN_SECRET..=limits::MAX_SECRET).contains(&secret.len()) {
            return Ok(secret);
        }
        let length = i64::try_from(secret.len()).unwrap_or(i64::MAX);
        Err(self.bad_value("secret key length", length, offset))
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Trailing`] when bytes are left.
    #[inline]
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing {
            message: self.message,
            bytes: self.rest.len(),
            offset: self.offset(),
        })
    }

    /// Returns the error for `value` in `field`, which began at `offset`.
    #[cold]
    #[must_use]
    pub fn bad_value(&self, field: &'static str, value: i64, offset: usize) -> DecodeError {
        DecodeError::BadValue {
            message: self.message,
            field,
            value,
            offset,
        }
    }

    #[cold]
    fn truncated(&self, field: &'static str) -> DecodeError {
        DecodeError::Truncated {
            message: self.message,
            field,
            offset: self.offset(),
        }
    }

    fn list_since<T: Element>(&self, before: &'a [u8], count: u32) -> List<'a, T> {
        let raw = before
            .get(..before.len() - self.rest.len())
            .unwrap_or_default();
        List {
            count,
            raw,
            element: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_message_field_and_offset() {
        let mut reader = Reader::new("Bind", b"portal\0x");
        assert_eq!(reader.cstr("portal"), Ok(&b"portal"[..]));
        assert_eq!(
            reader.cstr("statement"),
            Err(DecodeError::MissingNul {
                message: "Bind",
                field: "statement",
                offset: 7
            })
        );
        assert_eq!(
            reader.u16("count"),
            Err(DecodeError::Truncated {
                message: "Bind",
                field: "count",
                offset: 7
            })
        );
        assert_eq!(
            reader.finish(),
            Err(DecodeError::Trailing {
                message: "Bind",
                bytes: 1,
                offset: 7
            })
        );
    }

    #[test]
    fn values_tell_null_from_empty_and_refuse_other_negative_lengths() {
        let value = |bytes| Reader::new("DataRow", bytes).value("value");
        assert_eq!(value(b"\xff\xff\xff\xff"), Ok(None));
        assert_eq!(value(b"\0\0\0\0"), Ok(Some(&[][..])));
        assert!(matches!(
            value(b"\xff\xff\xff\xfe"),
            Err(DecodeError::BadValue { value: -2, .. })
        ));
        assert!(matches!(
            value(b"\x7f\xff\xff\xff"),
            Err(DecodeError::Truncated { offset: 4, .. })
        ));
    }
}
