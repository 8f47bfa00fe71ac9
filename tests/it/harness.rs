//! What the black-box tests stand on: the stand-in upstream, the binary under test, clients and made-up trees.
//!
//! Called by the tests only. Every process started here is ended by its own id when its handle is dropped, every
//! wait has a deadline, and every file lies in a temporary folder below the build's own.

mod capture;
mod certificates;
mod client;
pub(crate) mod dns;
mod fakeclock;
mod go;
mod larder;
mod names;
mod netns;
pub(crate) mod proxies;
mod relay;
mod tmpfs;
mod tree;
mod upstream;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use capture::Capture;
pub(crate) use certificates::{Authority, Certificate};
pub(crate) use client::{Answer, client_from, connect_from, raw, read_rest, send, try_request};
pub(crate) use fakeclock::FakeClock;
pub(crate) use go::Go;
pub(crate) use larder::{Larder, Start, kill_process, run_command};
pub(crate) use names::Names;
pub(crate) use netns::{Host, Net, Process, Wire};
pub(crate) use relay::{Fault, Relay};
pub(crate) use reqwest::Method;
pub(crate) use serde_json::json;
pub(crate) use tmpfs::Tmpfs;
pub(crate) use tree::{Tree, fixture, module_zip, noise, zip_of};
pub(crate) use upstream::Upstream;

/// The database that the fixture tree has recorded; it is asked through the stand-in upstream alone.
pub(crate) const PUBLIC_DATABASE: &str = "sum.golang.org";

/// How long anything that should happen "at once" may take on a busy machine with two cores.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The zip of the fixture tree that is above the size from which parallel ranges are used.
pub(crate) const BIG_ZIP: &str = "/golang.org/x/text/@v/v0.42.0.zip";

/// A small zip of the fixture tree.
pub(crate) const SMALL_ZIP: &str = "/rsc.io/quote/@v/v1.5.2.zip";

/// Returns a new folder, removed when dropped, on the disk the build is on.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("larder-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Returns the repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Waits until `ready` answers `Some`, and fails the test with `what` when [`SOON`] has passed.
pub(crate) fn wait_for<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    wait_within(SOON, what, ready)
}

/// As [`wait_for`], with a deadline of its own.
pub(crate) fn wait_within<T>(limit: Duration, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for: {what}");
        // The one pause of the suite: between two looks, never instead of one.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns every file below `folder` with its content, by path relative to it, Larder's own `.larder` left out.
pub(crate) fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name() != Some(".larder".as_ref()) {
                    folders.push(path);
                }
            } else {
                let content = std::fs::read(&path).unwrap();
                found.push((path.strip_prefix(folder).unwrap().to_path_buf(), content));
            }
        }
    }
    found.sort();
    found
}

/// Asserts that every protocol file stored below `cache` is, byte for byte, the one of the same name in `tree`.
///
/// `.ziphash` is Go's own addition to a cache and has no counterpart in a tree.
pub(crate) fn assert_stored_is_true(cache: &Path, tree: &Path) {
    for (path, content) in files_below(cache) {
        if path.extension().is_some_and(|extension| extension == "ziphash") {
            continue;
        }
        let expected = std::fs::read(tree.join(&path));
        let expected =
            expected.unwrap_or_else(|error| panic!("{} is stored and not upstream: {error}", path.display()));
        assert!(
            content == expected,
            "{} differs: {} bytes, upstream {}",
            path.display(),
            content.len(),
            expected.len()
        );
    }
}
