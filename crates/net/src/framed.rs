//! Gathered output, written with one system call.
//!
//! A [`Gather`] lists the pieces; [`Outgoing`] writes them and keeps what the socket did not take. In the steady state
//! no payload byte is copied and nothing is allocated: a copy is made only of what a slow peer leaves behind.

use std::io::IoSlice;
use std::task::{Context, Poll, ready};

use pgweir_wire::Gather;

use crate::error::{NetError, Peer};
use crate::stream::Stream;

/// Pieces per system call. A run of relayed messages coalesces to one to three; the rest of a longer list goes with the
/// next call. Larger only costs stack (16 bytes each), smaller splits pipelines that mix kept and rewritten messages.
const SLICES: usize = 16;

/// Up to this many bytes in several pieces are copied together and sent by `send`, which is cheaper than `sendmsg` with a
/// list to unpack (measured by `cargo xtask bench`, prepared statements: their names are rewritten). Larger would copy
/// payloads that matter.
const JOINED_BYTES: usize = 512;

/// Capacity that an empty [`Outgoing`] may keep: enough for a few small replies, nothing against 10,000 idle clients.
const KEPT_BYTES: usize = 256;

/// What a connection still owes its peer: bytes that the socket did not take yet.
///
/// It has no limit of its own. The caller bounds it by not reading more while it is not empty: then it holds at most
/// what one read produced.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    /// The bytes before this are written.
    written: usize,
    /// All that were ever handed in.
    total: u64,
    /// What was given to it, where that is wanted.
    recorded: Option<Vec<u8>>,
}

impl Outgoing {
    /// Returns an empty one, which owns no memory.
    pub const fn new() -> Outgoing {
        Outgoing {
            bytes: Vec::new(),
            written: 0,
            total: 0,
            recorded: None,
        }
    }

    /// Returns how many bytes were handed in since it was made.
    #[inline]
    pub fn total(&self) -> u64 {
        self.total
    }

    #[inline]
    fn count(&mut self, len: usize) {
        self.total = self
            .total
            .wrapping_add(u64::try_from(len).unwrap_or(u64::MAX));
    }

    /// Keeps a copy of whatever it is given from now on, until [`Outgoing::take_recorded`]; or does not any more, and forgets
    /// what it has.
    #[inline]
    pub fn record(&mut self, is_recorded: bool) {
        if is_recorded != self.recorded.is_some() {
            self.recorded = is_recorded.then(Vec::new);
        }
    }

    /// Returns what it was given since the last call, as far as that was to be recorded.
    pub fn take_recorded(&mut self) -> Vec<u8> {
        self.recorded
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Returns true where everything is written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the number of bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Adds bytes without trying to write them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        if let Some(recorded) = &mut self.recorded {
            recorded.extend_from_slice(bytes);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes until nothing waits any more.
    ///
    /// # Errors
    /// [`NetError`]; the connection is of no more use.
    #[inline]
    pub fn poll_flush(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NetError>> {
        if self.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            self.poll_drain(stream, cx)
        }
    }

    /// Writes `gather` at once as far as the socket takes it, and keeps a copy of the rest. Where something waits
    /// already, all of it is added behind that.
    ///
    /// Afterwards either this is empty, or the task of `cx` is woken when the socket is writable again and must then
    /// call [`Outgoing::poll_flush`].
    ///
    /// # Errors
    /// [`NetError`]; the connection is of no more use.
    #[inline]
    pub fn send(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        input: &[u8],
        gather: &Gather,
    ) -> Result<(), NetError> {
        self.send_slices(stream, cx, gather.slices(input), gather.len())
    }

    /// [`Outgoing::send`] for bytes that lie in one piece.
    ///
    /// # Errors
    /// [`NetError`]; the connection is of no more use.
    #[inline]
    pub fn send_slice(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Result<(), NetError> {
        self.send_slices(stream, cx, std::iter::once(bytes), bytes.len())
    }

    fn send_slices<'a>(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        slices: impl Iterator<Item = &'a [u8]> + Clone,
        len: usize,
    ) -> Result<(), NetError> {
        if len == 0 {
            return Ok(());
        }
        if !self.is_empty() {
            slices.for_each(|slice| self.push(slice));
            return Ok(());
        }
        self.count(len);
        if let Some(recorded) = &mut self.recorded {
            (slices.clone()).for_each(|slice| recorded.extend_from_slice(slice));
        }
        let done = write_slices(stream, slices.clone(), len)?;
        if done == len {
            return Ok(());
        }
        self.keep(slices, done, len);
        // The poll does not expect to write; it registers the task for the moment when the socket takes more.
        match self.poll_drain(stream, cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Copies what follows the first `done` of `len` bytes.
    #[cold]
    fn keep<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>, done: usize, len: usize) {
        self.bytes.reserve_exact(len - done);
        after(slices, done).for_each(|rest| self.bytes.extend_from_slice(rest));
    }

    #[cold]
    fn poll_drain(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NetError>> {
        while let Some(rest) = self
            .bytes
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match ready!(stream.poll_write(cx, rest))? {
                0 => {
                    return Poll::Ready(Err(NetError::Closed {
                        op: "write",
                        peer: Peer::Unknown,
                    }));
                }
                count => self.written += count,
            }
        }
        self.written = 0;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes `slices`, `len` bytes in all, until they are written or the socket is full; returns how many were.
#[inline]
fn write_slices<'a>(
    stream: &mut Stream,
    slices: impl Iterator<Item = &'a [u8]> + Clone,
    len: usize,
) -> Result<usize, NetError> {
    let mut rest = slices.clone();
    if let (Some(only), None) = (rest.next(), rest.next()) {
        // The usual case: a run of replies, or of a client's messages, as they came.
        return Ok(stream.write_now(&[IoSlice::new(only)])?.unwrap_or(0));
    }
    // A small array, where that will do, as all of it is cleared first.
    match len {
        0..=128 => return write_joined::<128>(stream, slices, len),
        129..=JOINED_BYTES => return write_joined::<JOINED_BYTES>(stream, slices, len),
        _ => {}
    }
    let mut done = 0;
    while done < len {
        let mut batch = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut offered = 0;
        for (place, slice) in batch.iter_mut().zip(after(slices.clone(), done)) {
            *place = IoSlice::new(slice);
            count += 1;
            offered += slice.len();
        }
        let batch = batch.get(..count).unwrap_or_default();
        match stream.write_now(batch)? {
            None => break,
            Some(written) => {
                done += written;
                // The socket took less than it was offered: it is full, and another call would only say so.
                if written < offered {
                    break;
                }
            }
        }
    }
    Ok(done)
}

/// Writes a few small slices as one: copying them is cheaper than having the kernel gather them.
fn write_joined<'a, const CAPACITY: usize>(
    stream: &mut Stream,
    slices: impl Iterator<Item = &'a [u8]>,
    len: usize,
) -> Result<usize, NetError> {
    let mut joined = [0; CAPACITY];
    let mut free = joined.as_mut_slice();
    for slice in slices {
        let Some((place, rest)) = free.split_at_mut_checked(slice.len()) else {
            break;
        };
        place.copy_from_slice(slice);
        free = rest;
    }
    let joined = joined.get(..len).unwrap_or_default();
    Ok(stream.write_now(&[IoSlice::new(joined)])?.unwrap_or(0))
}

/// Returns what follows the first `done` bytes of `slices`.
#[inline]
fn after<'a>(
    slices: impl Iterator<Item = &'a [u8]>,
    mut done: usize,
) -> impl Iterator<Item = &'a [u8]> {
    slices.filter_map(move |slice| {
        let skipped = done.min(slice.len());
        done -= skipped;
        slice.get(skipped..).filter(|rest| !rest.is_empty())
    })
}

#[cfg(test)]
mod tests;
