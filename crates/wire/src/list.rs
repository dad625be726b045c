//! Lists inside messages: parameters, columns, error fields. One lazy, borrowing type for all of them.
//!
//! Decoding walks a list once to check it; iterating afterwards decodes each element where it lies and cannot fail.

use std::{fmt, iter::FusedIterator, marker::PhantomData};

use crate::{
    error::{DecodeError, EncodeError},
    limits,
    reader::Reader,
    writer::Writer,
};

/// What a list holds. Implemented by marker types, since the view of an element borrows and its kind does not.
pub trait Element {
    /// One element as it is read and written.
    type View<'a>: Copy + fmt::Debug;

    /// The element's name in errors.
    const NAME: &'static str;

    /// The name of the count before the list, in errors.
    const COUNT: &'static str;

    /// Whether lists of this kind end with a zero byte, so that no element may begin with one.
    const TERMINATED: bool = false;

    /// Takes one element.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with it.
    fn read<'a>(reader: &mut Reader<'a>) -> Result<Self::View<'a>, DecodeError>;

    /// Appends one element.
    fn write(view: Self::View<'_>, writer: &mut Writer<'_>);

    /// Moves over `count` elements, checking them.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with one of them.
    #[inline]
    fn skip(reader: &mut Reader<'_>, count: u32) -> Result<(), DecodeError> {
        for _ in 0..count {
            Self::read(reader)?;
        }
        Ok(())
    }
}

/// A list of `T` in a message.
pub struct List<'a, T> {
    pub(crate) count: u32,
    pub(crate) raw: &'a [u8],
    pub(crate) element: PhantomData<T>,
}

impl<'a, T: Element> List<'a, T> {
    /// The list without elements.
    pub const EMPTY: Self = Self {
        count: 0,
        raw: &[],
        element: PhantomData,
    };

    /// Returns how many elements there are.
    #[inline]
    #[must_use]
    pub fn len(self) -> usize {
        self.count as usize
    }

    /// Returns whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Returns the elements as they stand in the message, without count or terminator.
    #[inline]
    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Iterates over the elements, decoding each where it lies.
    #[inline]
    #[must_use]
    pub fn iter(self) -> Iter<'a, T> {
        Iter {
            reader: Reader::new(T::NAME, self.raw),
            left: self.count,
            element: PhantomData,
        }
    }

    /// Returns the element at `index`, walking over those before it.
    #[must_use]
    pub fn get(self, index: usize) -> Option<T::View<'a>> {
        self.iter().nth(index)
    }
}

impl<'a, T: Element> IntoIterator for List<'a, T> {
    type Item = T::View<'a>;
    type IntoIter = Iter<'a, T>;

    #[inline]
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<'_, T> {}

impl<T> PartialEq for List<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.raw == other.raw
    }
}

impl<T> Eq for List<'_, T> {}

/// Prints the size only: elements are data of the user, which no log may show.
impl<T: Element> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} {}, {} bytes]", self.count, T::NAME, self.raw.len())
    }
}

/// The iterator of a [`List`].
pub struct Iter<'a, T> {
    reader: Reader<'a>,
    left: u32,
    element: PhantomData<T>,
}

impl<'a, T: Element> Iterator for Iter<'a, T> {
    type Item = T::View<'a>;

    #[inline]
    fn next(&mut self) -> Option<T::View<'a>> {
        self.left = self.left.checked_sub(1)?;
        // The list was walked over when it was decoded, so this does not fail.
        T::read(&mut self.reader).ok()
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<T: Element> ExactSizeIterator for Iter<'_, T> {}
impl<T: Element> FusedIterator for Iter<'_, T> {}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// A list that is being built; [`as_list`](Self::as_list) lends it to a message for encoding. Reusable through [`clear`](Self::clear).
///
/// # Examples
///
/// ```
/// use pgweir_wire::{ListBuf, backend::DataRow, list::Value};
///
/// let columns = ListBuf::<Value>::collect([Some(&b"1"[..]), None])?;
/// let mut out = Vec::new();
/// DataRow { columns: columns.as_list() }.encode(&mut out);
/// assert_eq!(out, b"D\0\0\0\x0f\0\x02\0\0\0\x011\xff\xff\xff\xff");
/// # Ok::<(), pgweir_wire::EncodeError>(())
/// ```
pub struct ListBuf<T> {
    count: u32,
    raw: Vec<u8>,
    element: PhantomData<T>,
}

impl<T: Element> ListBuf<T> {
    /// Starts without elements.
    #[must_use]
    pub fn new() -> Self {
        Self {
            count: 0,
            raw: Vec::new(),
            element: PhantomData,
        }
    }

    /// Builds a list of all `elements`.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn collect<'v>(
        elements: impl IntoIterator<Item = T::View<'v>>,
    ) -> Result<Self, EncodeError> {
        let mut list = Self::new();
        elements
            .into_iter()
            .try_for_each(|element| list.push(element))?;
        Ok(list)
    }

    /// Appends an element.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooMany`] beyond 65,535 elements; [`EncodeError::Empty`] when a zero byte ends this kind of list and
    /// the element would begin with one. The list stays as it was.
    pub fn push(&mut self, element: T::View<'_>) -> Result<(), EncodeError> {
        if self.count as usize >= limits::MAX_LIST {
            return Err(EncodeError::TooMany {
                element: T::NAME,
                limit: limits::MAX_LIST,
            });
        }
        let before = self.raw.len();
        T::write(element, &mut Writer::raw(&mut self.raw));
        if T::TERMINATED && self.raw.get(before) == Some(&0) {
            self.raw.truncate(before);
            return Err(EncodeError::Empty { element: T::NAME });
        }
        self.count += 1;
        Ok(())
    }

    /// Removes all elements and keeps the memory.
    pub fn clear(&mut self) {
        self.count = 0;
        self.raw.clear();
    }

    /// Lends the list to a message.
    #[must_use]
    pub fn as_list(&self) -> List<'_, T> {
        List {
            count: self.count,
            raw: &self.raw,
            element: PhantomData,
        }
    }
}

impl<T: Element> Default for ListBuf<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for ListBuf<T> {
    fn clone(&self) -> Self {
        Self {
            count: self.count,
            raw: self.raw.clone(),
            element: PhantomData,
        }
    }
}

impl<T: Element> fmt::Debug for ListBuf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_list().fmt(f)
    }
}

/// Element: a format code, 0 for text and 1 for binary.
#[derive(Debug)]
pub enum Format {}

impl Element for Format {
    type View<'a> = i16;
    const NAME: &'static str = "format codes";
    const COUNT: &'static str = "format code count";

    #[inline]
    fn read<'a>(reader: &mut Reader<'a>) -> Result<i16, DecodeError> {
        reader.i16("format code")
    }

    fn write(view: i16, writer: &mut Writer<'_>) {
        writer.i16(view);
    }

    #[inline]
    fn skip(reader: &mut Reader<'_>, count: u32) -> Result<(), DecodeError> {
        reader
            .bytes(
                (count as usize).saturating_mul(size_of::<i16>()),
                "format codes",
            )
            .map(drop)
    }
}

/// Element: an object ID, of a type or a relation.
#[derive(Debug)]
pub enum Oid {}

impl Element for Oid {
    type View<'a> = u32;
    const NAME: &'static str = "object IDs";
    const COUNT: &'static str = "object ID count";

    #[inline]
    fn read<'a>(reader: &mut Reader<'a>) -> Result<u32, DecodeError> {
        reader.u32("object ID")
    }

    fn write(view: u32, writer: &mut Writer<'_>) {
        writer.u32(view);
    }

    #[inline]
    fn skip(reader: &mut Reader<'_>, count: u32) -> Result<(), DecodeError> {
        reader
            .bytes(
                (count as usize).saturating_mul(size_of::<u32>()),
                "object IDs",
            )
            .map(drop)
    }
}

/// Element: a value with its length, or NULL.
#[derive(Debug)]
pub enum Value {}

impl Element for Value {
    type View<'a> = Option<&'a [u8]>;
    const NAME: &'static str = "values";
    const COUNT: &'static str = "value count";

    #[inline]
    fn read<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
        reader.value("value")
    }

    fn write(view: Option<&[u8]>, writer: &mut Writer<'_>) {
        writer.value(view);
    }
}

/// Element: a zero-terminated string.
#[derive(Debug)]
pub enum Text {}

impl Element for Text {
    type View<'a> = &'a [u8];
    const NAME: &'static str = "strings";
    const COUNT: &'static str = "string count";

    #[inline]
    fn read<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
        reader.cstr("string")
    }

    fn write(view: &[u8], writer: &mut Writer<'_>) {
        writer.cstr(view);
    }
}

/// Element: a name and a value, both zero-terminated (startup parameters).
#[derive(Debug)]
pub enum Pair {}

impl Element for Pair {
    type View<'a> = (&'a [u8], &'a [u8]);
    const NAME: &'static str = "parameters";
    const COUNT: &'static str = "parameter count";
    const TERMINATED: bool = true;

    #[inline]
    fn read<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
        Ok((
            reader.cstr("parameter name")?,
            reader.cstr("parameter value")?,
        ))
    }

    fn write((name, value): (&[u8], &[u8]), writer: &mut Writer<'_>) {
        writer.cstr(name);
        writer.cstr(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_list_reads_back() {
        let list = ListBuf::<Value>::collect([Some(&b"a"[..]), None, Some(b"")]).unwrap();
        let read: Vec<_> = list.as_list().iter().collect();
        assert_eq!(read, [Some(&b"a"[..]), None, Some(b"")]);
        assert_eq!(list.as_list().iter().len(), 3);
        assert_eq!(list.as_list().get(1), Some(None));
        assert_eq!(list.as_list().get(3), None);
    }

    #[test]
    fn a_list_takes_65535_elements_and_no_more() {
        let mut list = ListBuf::<Format>::collect((0..limits::MAX_LIST).map(|_| 1)).unwrap();
        assert!(matches!(list.push(1), Err(EncodeError::TooMany { .. })));
        assert_eq!(list.as_list().len(), limits::MAX_LIST);
    }

    #[test]
    fn a_name_that_would_end_the_list_is_refused() {
        let mut list = ListBuf::<Pair>::new();
        assert_eq!(list.push((b"user", b"")), Ok(()));
        assert!(matches!(
            list.push((b"", b"x")),
            Err(EncodeError::Empty { .. })
        ));
        assert_eq!(list.as_list().len(), 1);
    }

    #[test]
    fn debug_output_shows_no_values() {
        let list = ListBuf::<Value>::collect([Some(&b"secret"[..])]).unwrap();
        assert_eq!(format!("{list:?}"), "[1 values, 10 bytes]");
    }
}
