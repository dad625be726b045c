//! A stream of frames in pieces: fragmentation must change nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pgweir_wire::fuzzing::deframer(data));
