//! What has to hold of module zips: the three ways to one hash agree, and no check panics or takes more memory than it may.
//!
//! Called by `fuzzing`; calls `module::zip`.
//!
//! ```text
//! how it is cut: 1 byte    zip        0: in one piece; else the seed of the lengths of pieces
//! ```

use larder::module::ModuleVersion;
use larder::module::zip::hash::{H1, HashError, bytes_max, hash, merge_runs, write_runs};
use larder::module::zip::rules::check_rules;
use larder::module::zip::stream::StreamHasher;
use larder::module::zip::{ZipError, check_structure};

/// The module whose zips these are; the prefix is tried as well as none.
const MODULE: &str = "example.com/m@v1.0.0";

/// Zips: what the stream hashes, the finished file hashes to the same, and so do sorted runs.
pub fn zip(data: &[u8]) {
    let Some((seed, zip)) = data.split_first() else { return };
    let module = ModuleVersion::parse(MODULE).unwrap();
    let structure = check_structure(zip, zip.len() as u64, &module);
    let rules = check_rules(zip, zip.len() as u64, &module);
    assert!(rules.is_err() || structure.is_ok() || has_flaw_beside_the_rules(&structure), "{rules:?} {structure:?}");
    let prefix = format!("{module}/");
    let of_module = check_hashes(*seed, zip, &prefix);
    // What was hashed as it came has the structure of a zip, but for a limit of its sizes.
    let is_too_large = matches!(structure, Err(ZipError::TopFileTooLarge { .. }));
    assert!(of_module.is_none() || structure.is_ok() || is_too_large, "{structure:?}");
    check_hashes(*seed, zip, "");
}

/// What go lets pass, and the structure does not.
fn has_flaw_beside_the_rules(structure: &Result<(), ZipError>) -> bool {
    matches!(structure, Err(ZipError::TrailingBytes { .. } | ZipError::LocalHeader { .. } | ZipError::Newline { .. }))
}

/// Hashes the zip each way and compares. Returns what the stream found.
fn check_hashes(seed: u8, zip: &[u8], prefix: &str) -> Option<H1> {
    let streamed = streamed(seed, zip, prefix);
    let hashed = hash(zip, zip.len() as u64, prefix);
    if let Some(streamed) = streamed {
        assert_eq!(hashed.as_ref().ok(), Some(&streamed), "{hashed:?}");
    }
    if !matches!(hashed, Err(HashError::TooManyEntries { .. })) {
        assert_eq!(merged(zip, prefix), hashed.ok());
    }
    streamed
}

fn streamed(seed: u8, zip: &[u8], prefix: &str) -> Option<H1> {
    let mut hasher = StreamHasher::new(prefix);
    let (mut rest, mut state) = (zip, u32::from(seed));
    while !rest.is_empty() {
        // A linear congruential generator; its upper bits are the good ones. Mostly short pieces, now and then a long one.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = if seed == 0 { rest.len() } else { 1 + ((state >> 8) as usize >> (state >> 28).max(8)) };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        let pushed = hasher.push(piece);
        assert!(hasher.held_bytes() <= bytes_max(hasher.entries()));
        if let Err(odd) = pushed {
            assert_eq!(hasher.push(rest), if rest.is_empty() { Ok(()) } else { Err(odd) });
            assert_eq!(hasher.finish(), Err(odd));
            return None;
        }
    }
    hasher.finish().ok()
}

fn merged(zip: &[u8], prefix: &str) -> Option<H1> {
    let mut runs = Vec::new();
    let written = write_runs(zip, zip.len() as u64, prefix, |run| {
        let mut bytes = Vec::new();
        run.write_to(&mut bytes).map_err(|error| HashError::from(ZipError::from(error)))?;
        runs.push(bytes);
        Ok::<_, HashError>(())
    });
    let mut runs: Vec<&[u8]> = runs.iter().map(Vec::as_slice).collect();
    written.and_then(|()| merge_runs(&mut runs, prefix)).ok()
}
