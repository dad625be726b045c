//! Debug output that keeps data and secrets out: bytes become their count.

use std::fmt;

/// Prints how many bytes there are instead of the bytes.
pub(crate) struct Redacted<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}
