//! Fuzzes module zips, whole and in pieces.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| larder_fuzz::fuzzing::zip(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 2 == 0 && size > 1 {
        // The first byte is not the zip's.
        larder_fuzz::mend::mend(&mut data[1..size]);
    }
    size
});
