//! Finds the zero byte that ends a string.
//!
//! The strings of the hot path are names of a few bytes, empty ones most of all: there a search that is made for long texts
//! costs more by being called than by searching.

/// Words of eight bytes that are looked at here; a longer string is searched in larger steps.
const WORDS: usize = 4;

/// Returns where the first zero byte of `bytes` is.
#[inline]
pub(crate) fn position(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut rest = bytes;
    let mut passed = 0;
    for _ in 0..WORDS {
        let Some((head, tail)) = rest.split_first_chunk::<8>() else {
            let found = rest.iter().position(|byte| *byte == 0);
            return found.map(|at| passed + at);
        };
        let word = u64::from_le_bytes(*head);
        // The top bit of each zero byte, and perhaps of some above the first one: a borrow only goes up.
        let zeros = word.wrapping_sub(ONES) & !word & TOPS;
        if zeros != 0 {
            return Some(passed + zeros.trailing_zeros() as usize / 8);
        }
        (rest, passed) = (tail, passed + 8);
    }
    memchr::memchr(0, rest).map(|at| passed + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_the_end_behind_long_strings(len in 0..80usize, more in 0..20usize) {
            let mut bytes = vec![7; len];
            bytes.push(0);
            bytes.resize(len + 1 + more, 0);
            prop_assert_eq!(position(&bytes), Some(len));
            prop_assert_eq!(position(&bytes[..len]), None);
        }

        #[test]
        fn finds_the_first_zero_byte_wherever_it_is(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0x80), Just(0xff), any::<u8>()], 0..50)
        ) {
            prop_assert_eq!(position(&bytes), bytes.iter().position(|byte| *byte == 0));
        }
    }
}
