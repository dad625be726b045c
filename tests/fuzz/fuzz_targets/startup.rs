//! The untagged first packet of a connection: what anybody may send.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pgweir_wire::fuzzing::startup(data));
