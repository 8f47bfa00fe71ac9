//! Fuzzes module zips, whole and in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::fuzzing::zip(data));
