//! Finds the messages in one direction of a connection, whatever the pieces that it comes in.

use pgweir_wire::trace::Direction;
use pgweir_wire::{Frame, HEADER_LEN, Header, backend, frontend};

/// The longest message that is kept until it is whole. Not smaller than usual rows; not larger, as each traced connection may hold
/// two of them.
pub(super) const MESSAGE_BYTES_LIMIT: usize = 64 * 1024;

/// A message that went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// All of it.
    Whole(Frame<'a>),
    /// Its name and the length of one that is too long to be kept.
    Large(&'static str, u32),
    /// These are no messages: nothing behind it can be read.
    Lost,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Bytes that are passed over.
    skipped: usize,
    /// The beginning of a message that is not whole yet.
    partial: Vec<u8>,
    is_lost: bool,
}

impl Reader {
    /// Passes over the rest of a message whose beginning was not seen.
    pub(super) fn skip(&mut self, count: usize) {
        self.skipped = count;
    }

    /// Takes the bytes that come next.
    pub(super) fn take(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        mut show: impl FnMut(Seen<'_>),
    ) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_lost {
            let count = self.skipped.min(rest.len());
            self.skipped -= count;
            rest = rest.get(count..).unwrap_or_default();
            let wanted = match self.wanted(rest) {
                Ok(wanted) => wanted,
                Err(Unkept::Lost) => {
                    self.is_lost = true;
                    self.partial = Vec::new();
                    return show(Seen::Lost);
                }
                Err(Unkept::Large(header)) => {
                    show(Seen::Large(name(direction, header.tag), header.length));
                    // What is kept of it has been passed over.
                    let kept = std::mem::take(&mut self.partial).len();
                    self.skipped = header.frame_len() - kept;
                    continue;
                }
            };
            match rest.split_at_checked(wanted) {
                Some((whole, behind)) if self.partial.is_empty() => {
                    show_whole(whole, &mut show);
                    rest = behind;
                }
                Some((end, behind)) => {
                    self.partial.extend_from_slice(end);
                    rest = behind;
                    let is_whole = Header::peek(&self.partial).is_ok_and(|header| {
                        header.is_some_and(|h| h.frame_len() == self.partial.len())
                    });
                    if is_whole {
                        show_whole(&std::mem::take(&mut self.partial), &mut show);
                    }
                }
                None => {
                    self.partial.extend_from_slice(rest);
                    return;
                }
            }
        }
    }

    /// Returns how many more bytes make a message, or tell how many these are.
    fn wanted(&self, rest: &[u8]) -> Result<usize, Unkept> {
        let begun = match self.partial.is_empty() {
            true => rest,
            false => &self.partial,
        };
        let kept = self.partial.len();
        match Header::peek(begun) {
            Err(_) => Err(Unkept::Lost),
            Ok(None) => Ok(HEADER_LEN - kept),
            Ok(Some(header)) if header.frame_len() > MESSAGE_BYTES_LIMIT => {
                Err(Unkept::Large(header))
            }
            Ok(Some(header)) => Ok(header.frame_len() - kept),
        }
    }
}

/// Why a message is not shown as a whole.
enum Unkept {
    Lost,
    Large(Header),
}

fn show_whole(bytes: &[u8], show: &mut impl FnMut(Seen<'_>)) {
    if let Some(tag) = bytes.first() {
        show(Seen::Whole(Frame { tag: *tag, bytes }));
    }
}

fn name(direction: Direction, tag: u8) -> &'static str {
    let name = match direction {
        Direction::Frontend => frontend::tag::name(tag),
        Direction::Backend => backend::tag::name(tag),
    };
    name.unwrap_or("Unknown message")
}

#[cfg(test)]
mod tests {
    use pgweir_wire::frontend::{CopyData, Query, Sync};
    use proptest::prelude::*;

    use super::*;

    /// Returns what a reader sees of bytes that come in these pieces.
    fn seen(reader: &mut Reader, pieces: &[&[u8]]) -> Vec<String> {
        let mut list = Vec::new();
        for piece in pieces {
            reader.take(Direction::Frontend, piece, |seen| {
                list.push(match seen {
                    Seen::Whole(frame) => {
                        format!(
                            "{} {}",
                            name(Direction::Frontend, frame.tag),
                            frame.bytes.len()
                        )
                    }
                    Seen::Large(name, length) => format!("{name} of {length}"),
                    Seen::Lost => "lost".to_owned(),
                });
            });
        }
        list
    }

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        Query { sql: b"SELECT 1" }.encode(&mut bytes);
        Sync.encode(&mut bytes);
        let data = vec![b'x'; MESSAGE_BYTES_LIMIT];
        CopyData { data: &data }.encode(&mut bytes);
        Query { sql: b"" }.encode(&mut bytes);
        bytes
    }

    const EXPECTED: [&str; 4] = ["Query 14", "Sync 5", "CopyData of 65540", "Query 6"];

    #[test]
    fn the_rest_of_a_message_is_passed_over() {
        let bytes = stream();
        let mut reader = Reader::default();
        reader.skip(10);
        assert_eq!(seen(&mut reader, &[&bytes[4..]]), EXPECTED[1..]);
    }

    #[test]
    fn nothing_is_read_behind_what_is_no_message() {
        let mut reader = Reader::default();
        let pieces = [&b"Q\0\0\0\x01"[..], b"S\0\0\0\x04"];
        assert_eq!(seen(&mut reader, &pieces), ["lost"]);
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(mut cuts in proptest::collection::vec(0..66_000usize, 0..12)) {
            let bytes = stream();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            let mut at = 0;
            for cut in cuts {
                let (piece, behind) = rest.split_at((cut - at).min(rest.len()));
                at = cut;
                pieces.push(piece);
                rest = behind;
            }
            pieces.push(rest);
            prop_assert_eq!(seen(&mut Reader::default(), &pieces), EXPECTED);
        }

        #[test]
        fn never_fails_whatever_the_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100), cut in 0..100usize) {
            let (one, other) = bytes.split_at(cut.min(bytes.len()));
            let _whatever = seen(&mut Reader::default(), &[one, other]);
        }
    }
}
