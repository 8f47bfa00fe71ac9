//! The pure modules of Larder and what has to hold of them, built for the fuzz targets.
//!
//! Called by each file in `targets`; `mend` helps the one for zips. The modules are compiled here by their paths, not as a
//! dependency: they need a handful of crates where Larder needs 170, so that the build is short, and the fuzzer sees no edge
//! of code that is not under test. `tests/fuzzing/mod.rs` says what has to hold; `tests/it/corpus.rs` replays the corpus in
//! every ordinary test run.

// The checks name the library as its users do.
extern crate self as larder;

#[path = "../../src/module/mod.rs"]
pub mod module;
#[path = "../../src/resource.rs"]
pub mod resource;
#[path = "../../src/sumdb/mod.rs"]
pub mod sumdb;

pub mod mend;

#[path = "../../tests/fuzzing/mod.rs"]
pub mod fuzzing;
