//! Gathered output: what goes out is named as ranges of what came in.
//!
//! The session machines fill it, the transport writes it with one system call. In the steady state no payload byte is
//! copied and nothing is allocated.

use std::ops::Range;

/// A list of bytes to write: ranges of an input buffer that somebody else holds, and bytes of its own.
///
/// Neighbours are joined. It is meant to be kept and cleared, so that its own storage is allocated once.
#[derive(Debug, Default)]
pub struct Gather {
    pieces: Vec<Piece>,
    scratch: Vec<u8>,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    source: Source,
    start: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Input,
    Scratch,
}

impl Gather {
    /// Returns an empty list; it allocates with the first piece.
    pub fn new() -> Gather {
        Gather::default()
    }

    /// Forgets the pieces and keeps the storage.
    #[inline]
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.scratch.clear();
        self.len = 0;
    }

    /// Adds a range of the input.
    #[inline]
    pub fn input(&mut self, range: Range<usize>) {
        self.add(Source::Input, range);
    }

    /// Adds bytes, copied.
    #[inline]
    pub fn scratch(&mut self, bytes: &[u8]) {
        let start = self.scratch.len();
        self.scratch.extend_from_slice(bytes);
        self.add(Source::Scratch, start..self.scratch.len());
    }

    /// Adds what `write` appends to the buffer that it is given; it must not shorten it.
    #[inline]
    pub fn scratch_mut(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.scratch.len();
        write(&mut self.scratch);
        debug_assert!(
            self.scratch.len() >= start,
            "earlier pieces live in the same buffer"
        );
        self.add(Source::Scratch, start..self.scratch.len());
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true where there is nothing to write.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes in order, where the ranges are of `input`. A range that `input` does not have yields nothing.
    #[inline]
    pub fn slices<'a>(&'a self, input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.pieces.iter().map(move |piece| {
            let source = match piece.source {
                Source::Input => input,
                Source::Scratch => self.scratch.as_slice(),
            };
            let slice = source.get(piece.start..piece.end);
            debug_assert!(
                slice.is_some(),
                "a piece outside of its buffer: {piece:?} of {}",
                source.len()
            );
            slice.unwrap_or_default()
        })
    }

    #[inline]
    fn add(&mut self, source: Source, range: Range<usize>) {
        if range.start >= range.end {
            return;
        }
        self.len += range.end - range.start;
        match self.pieces.last_mut() {
            Some(last) if last.source == source && last.end == range.start => last.end = range.end,
            _ => self.pieces.push(Piece {
                source,
                start: range.start,
                end: range.end,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_and_order_is_kept() {
        let mut gather = Gather::new();
        gather.input(0..2);
        gather.input(2..4);
        gather.scratch(b"xy");
        gather.scratch_mut(|scratch| scratch.extend_from_slice(b"z"));
        gather.input(6..6);
        gather.input(6..8);
        let slices: Vec<&[u8]> = gather.slices(b"abcdefgh").collect();
        assert_eq!(slices, [b"abcd" as &[u8], b"xyz", b"gh"]);
        assert_eq!((gather.len(), gather.is_empty()), (9, false));
        gather.clear();
        assert_eq!((gather.slices(b"").count(), gather.is_empty()), (0, true));
    }

    #[test]
    fn a_cleared_list_allocates_nothing() {
        let mut gather = Gather::new();
        let fill = |gather: &mut Gather| {
            (0..40).for_each(|place| {
                gather.input(place * 2..place * 2 + 1);
                gather.scratch(b"-");
            })
        };
        fill(&mut gather);
        let before = (gather.pieces.capacity(), gather.scratch.capacity());
        gather.clear();
        fill(&mut gather);
        assert_eq!(
            (gather.pieces.capacity(), gather.scratch.capacity()),
            before
        );
    }
}
