//! The payloads of a replication stream.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pgweir_wire::fuzzing::pgoutput(data));
