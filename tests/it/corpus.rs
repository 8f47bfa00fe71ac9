//! What fuzzing has found and what it began with, replayed: each file of `fuzz/corpus/` through the checks of its target.
//!
//! Calls `tests/fuzzing`. A crash that a fuzzer finds is fixed with its input in the corpus; then it stays fixed here, also
//! where there is no fuzzer.

use std::path::Path;

#[expect(unreachable_pub, reason = "the fuzz targets are crates of their own")]
#[path = "../fuzzing/mod.rs"]
mod fuzzing;

/// The corpus, all targets together, in bytes.
const CORPUS_BYTES_MAX: usize = 300_000;

/// Every input of the corpus passes the checks of its target, no target is without inputs, and all of them are small.
#[test]
fn the_corpus_of_the_fuzzers_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut corpus_bytes = 0;
    for (name, check) in fuzzing::TARGETS {
        let folder = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("corpus of {name}: {error}"));
        let mut inputs: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "the corpus of {name} is empty");
        for input in inputs {
            let data = std::fs::read(&input).unwrap();
            corpus_bytes += data.len();
            let outcome = std::panic::catch_unwind(|| check(&data));
            assert!(outcome.is_ok(), "{} does not pass", input.display());
        }
    }
    assert!(corpus_bytes <= CORPUS_BYTES_MAX, "the corpus has {corpus_bytes} bytes");
}
