//! Fuzzes answers of a checksum database and data tiles.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::fuzzing::lookup(data));
