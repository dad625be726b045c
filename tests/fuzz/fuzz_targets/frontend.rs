//! One frontend message: a tag byte and a body.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pgweir_wire::fuzzing::frontend(data));
