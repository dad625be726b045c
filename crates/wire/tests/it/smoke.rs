//! The fuzz targets on a fixed diet: seeded mutations of the corpus, for a second or two, on any compiler.
//!
//! `SMOKE_SEED` and `SMOKE_ROUNDS` try more. A failure prints the seed and the input, which then belongs into the corpus.

use std::{env, panic};

use pgweir_wire::{Frames, fuzzing};

/// Every target that any bytes may enter.
pub(crate) const TARGETS: [fn(&[u8]); 5] = [
    fuzzing::startup,
    fuzzing::frontend,
    fuzzing::backend,
    fuzzing::deframer,
    fuzzing::pgoutput,
];

/// SplitMix64: small, seeded, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).expect("a small number");
        usize::try_from(self.next() % limit).expect("a small number")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// Numbers that lengths and counts go wrong at.
const INTERESTING: [[u8; 4]; 8] = [
    [0, 0, 0, 0],
    [0, 0, 0, 3],
    [0, 0, 0, 4],
    [0, 0, 0xff, 0xff],
    [0x7f, 0xff, 0xff, 0xff],
    [0x80, 0, 0, 0],
    [0xff, 0xff, 0xff, 0xfe],
    [0xff, 0xff, 0xff, 0xff],
];

fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len());
        match random.below(6) {
            0 => input.truncate(at),
            1 => input.insert(at, random.byte()),
            2 => {
                let number = INTERESTING[random.below(INTERESTING.len())];
                for (byte, new) in input.iter_mut().skip(at).zip(number) {
                    *byte = new;
                }
            }
            3 => {
                let end = at + random.below(8).min(input.len() - at);
                input.drain(at..end);
            }
            4 => {
                let piece: Vec<u8> = input[at..].iter().copied().take(16).collect();
                input.extend(piece);
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = random.byte();
                }
            }
        }
    }
}

/// What is mutated: whole files, and each frame in them as tag and body.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (_name, content) in super::corpus::files() {
        let mut frames = Frames::new(&content);
        while let Ok(Some(frame)) = frames.next() {
            let mut single = vec![frame.tag];
            single.extend_from_slice(frame.body());
            seeds.push(single);
        }
        seeds.push(content);
    }
    seeds.iter_mut().for_each(|seed| seed.truncate(4096));
    seeds.sort();
    seeds.dedup();
    seeds
}

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable)
        .ok()
        .map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn mutations_of_the_corpus_never_make_a_decoder_panic() {
    let seed = number("SMOKE_SEED", 0x7067_7765_6972);
    let rounds = number("SMOKE_ROUNDS", 200_000);
    let mut random = Random(seed);
    let seeds = seeds();
    for round in 0..rounds {
        let mut input = seeds[random.below(seeds.len())].clone();
        mutate(&mut random, &mut input);
        for target in TARGETS {
            if panic::catch_unwind(|| target(&input)).is_err() {
                panic!("SMOKE_SEED={seed} round {round}: input {input:02x?}");
            }
        }
    }
}
