//! Seeded randomness for tests: a failure prints its seed, and `SEED=` replays it.

use std::hash::{BuildHasher, RandomState};

/// A small generator (xorshift64*), the same numbers for the same seed on every machine. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Starts from a seed. Each seed gives its own sequence, 0 too.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // The generator stays at zero for ever, so a constant (the golden ratio) moves each seed away.
        let state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Self {
            state: if state == 0 { 1 } else { state },
        }
    }

    /// Starts from the environment's `SEED`, or from a random seed; says on stderr which one it is.
    ///
    /// # Panics
    ///
    /// When `SEED` is not a number: a replay with another seed would prove nothing.
    #[must_use]
    pub fn from_env() -> Self {
        let seed = from_env().unwrap_or_else(random);
        announce(seed);
        Self::new(seed)
    }

    /// Returns the seeds of so many runs: the environment's `SEED` or a random one, then others that follow from it. Each run
    /// says its own, with which it can be had alone.
    ///
    /// # Panics
    ///
    /// As [`Rng::from_env`].
    pub fn seeds_from_env(count: usize) -> impl Iterator<Item = u64> {
        let first = from_env().unwrap_or_else(random);
        let mut rng = Self::new(first);
        std::iter::once(first)
            .chain(std::iter::repeat_with(move || rng.next_u64()))
            .take(count)
            .inspect(|seed| announce(*seed))
    }

    /// Likewise, with a seed for when the environment gives none; `SEED=random` draws one then.
    ///
    /// # Panics
    ///
    /// As [`Rng::from_env`].
    #[must_use]
    pub fn from_env_or(seed: u64) -> Self {
        let seed = match std::env::var("SEED") {
            Ok(text) if text == "random" => random(),
            _ => from_env().unwrap_or(seed),
        };
        announce(seed);
        Self::new(seed)
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number in `0..limit`; 0 when the limit is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        // The bias of the remainder is below one in a million for all limits that tests use.
        let drawn = self.next_u64().checked_rem(limit).unwrap_or(0);
        usize::try_from(drawn).unwrap_or(0)
    }

    /// Returns true in `numerator` of `denominator` cases.
    pub fn chance(&mut self, numerator: usize, denominator: usize) -> bool {
        self.below(denominator) < numerator
    }

    /// Returns one of the elements, or none of an empty slice.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// Returns that many random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| self.next_u64().to_be_bytes()[0])
            .collect()
    }

    /// Starts an independent generator from this one, for a thread or a client of its own.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }
}

fn from_env() -> Option<u64> {
    let text = std::env::var("SEED").ok()?;
    Some(text.parse().expect("SEED is a number"))
}

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[expect(
    clippy::print_stderr,
    reason = "a failed test shows its output, and with it the seed"
)]
fn announce(seed: u64) {
    eprintln!("SEED={seed}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut rng = Rng::new(seed);
            [rng.next_u64(), rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert_ne!(numbers(0), [0, 0, 0]);
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::new(1);
        let mut seen = [0; 10];
        for _ in 0..10_000 {
            seen[rng.below(10)] += 1;
        }
        assert!(
            seen.iter().all(|count| (800..1200).contains(count)),
            "{seen:?}"
        );
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.pick::<u8>(&[]), None);
    }
}
