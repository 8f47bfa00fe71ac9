//! Fuzzes paths of requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::fuzzing::request(data));
