//! Fuzzes signed notes, tree heads and evidence of forks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::fuzzing::note(data));
