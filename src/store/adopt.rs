//! Takes a tree as it is found: one filled by another proxy or by the go command, or Larder's own without its index.
//!
//! Owns [`scan`], which enters every file into the index, and the judging of single files. Called by `app` in the
//! background after listening has begun, and by `cache` before a file is served for the first time; calls `module::zip`
//! and the index.
//!
//! Files that Larder stored were complete and judged before they got their names (invariant 2). Files of another origin
//! may not be. Which of the two a tree holds is told by the stamp `ROOT/.larder/adopted`: it is written when a scan has
//! judged every file of the tree. Until then [`Adoption::check_before_serving`] judges each file that has no entry in the
//! index yet; afterwards it costs one load of a flag. (Files that somebody copies into an adopted tree are not judged;
//! removing the stamp has the whole tree judged again.)
//!
//! ```text
//! .larder/adopted       text, for people; only its being there counts
//! .larder/quarantine/   what did not hold, see [`super::quarantine`]
//! ```

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::durable;
use super::index::{H1, Index, MutableEntry, ScanReason, Totals};
use super::quarantine::set_aside;
use super::sums::{self, ZipHash};
use super::walk::{self, Found};
use crate::clock::{Clock, UnixSeconds};
use crate::module::ModuleVersion;
use crate::module::zip::{TOP_FILE_BYTES_MAX, ZipError, check_structure};
use crate::resource::{ArtifactKind, Resource};

/// The longest `.info` in bytes.
const INFO_BYTES_MAX: u64 = 1024 * 1024;

/// How many broken files are logged one by one.
const LOGGED_MAX: u64 = 20;

const STAMP_TEXT: &[u8] = b"Every file of this tree has been judged. Remove this file to have that done again.\n";

/// What is wrong with a file of the tree.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// An `.info` that is not JSON, or has no version.
    #[error("not the JSON of a version: {0}")]
    NotInfo(serde_json::Error),
    /// An `.info` of another version.
    #[error("names version {0:.64}")]
    OtherVersion(String),
    /// A file with nothing in it that cannot be empty.
    #[error("empty")]
    Empty,
    /// A file longer than such a file can be.
    #[error("too long: {bytes} bytes")]
    TooLong {
        /// Its length.
        bytes: u64,
    },
    /// A zip whose structure does not hold.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// A tile of the wrong length.
    #[error("tile of {bytes} bytes instead of {expected}")]
    Tile {
        /// Its length.
        bytes: u64,
        /// The length it should have.
        expected: u64,
    },
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Whether the tree of one cache directory has been judged.
#[derive(Debug)]
pub struct Adoption {
    root: PathBuf,
    is_complete: AtomicBool,
}

/// What a scan has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// The files entered.
    pub found: Totals,
    /// How many were broken.
    pub broken: u64,
    /// Whether it got to its end.
    pub is_complete: bool,
}

impl Broken {
    /// Says whether the device is at fault and not the file: it stays where it is.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Zip(ZipError::Io(_)))
    }
}

impl Adoption {
    /// Looks whether the tree at `root` has been judged.
    pub fn of(root: &Path) -> Self {
        let is_complete = std::fs::metadata(root.join(".larder/adopted")).is_ok();
        Self { root: root.to_owned(), is_complete: AtomicBool::new(is_complete) }
    }

    /// Says whether every file of the tree has been judged. If not, a scan is due.
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Relaxed)
    }

    /// Judges the stored file of `resource` if it has not been judged yet; for the blocking pool unless
    /// [`Adoption::is_complete`]. A broken file is moved out of the way, so that it is fetched again.
    ///
    /// # Errors
    /// What is wrong with it: it must not be served. One that is only unreadable stays where it is.
    pub fn check_before_serving(&self, index: &Index, resource: &Resource, now: UnixSeconds) -> Result<(), Broken> {
        let Resource::Artifact(version, kind) = resource else {
            return Ok(());
        };
        if self.is_complete() || index.version(version).is_some_and(|entry| entry.size(*kind).is_some()) {
            return Ok(());
        }
        self.judge_again(index, resource, now)
    }

    /// Judges the stored file of `resource`, whatever was thought of it before; for the blocking pool. A broken file is
    /// moved out of the way, so that it is fetched again.
    ///
    /// # Errors
    /// As [`Adoption::check_before_serving`].
    pub fn judge_again(&self, index: &Index, resource: &Resource, now: UnixSeconds) -> Result<(), Broken> {
        let Resource::Artifact(version, kind) = resource else {
            return Ok(());
        };
        let path = self.root.join(resource.path());
        match check_artifact(&path, version, *kind) {
            Ok(bytes) => {
                index.note_found(version, *kind, bytes, stored_h1(&path, *kind), now);
                Ok(())
            }
            Err(broken) if broken.is_unreadable() => Err(broken),
            Err(broken) => {
                log_broken(resource, &broken);
                set_aside(&self.root, resource)?;
                Err(broken)
            }
        }
    }
}

/// Says whether [`scan`] has work to do: to be asked once the index has been opened, and after each
/// [`Index::maintain`].
pub fn is_scan_due(adoption: &Adoption, index: &Index) -> bool {
    !adoption.is_complete() || index.wants_scan()
}

/// Enters every file of the tree into the index: what is not known yet counts as used now. Judges the files if the tree
/// has not been adopted, and stamps it then. Logs one line at the end. For a thread that may take its time.
///
/// # Errors
/// The root cannot be read, or the stamp cannot be written.
pub fn scan(
    adoption: &Adoption,
    index: &Index,
    clock: &Clock,
    is_cancelled: &dyn Fn() -> bool,
) -> io::Result<ScanReport> {
    let began = clock.steady();
    let reason = index.take_scan_reason();
    let root = adoption.root.as_path();
    let must_judge = !adoption.is_complete();
    let mut report = ScanReport::default();
    let mut other = Totals::default();
    report.is_complete = walk::files(root, clock, is_cancelled, |found| {
        // Names that are no resource are locks, hashes and leftovers of other programs: nothing Larder serves.
        let Ok(resource) = Resource::parse(found.relative) else {
            return ControlFlow::Continue(());
        };
        if must_judge && let Err(broken) = judge(&resource, &found) {
            report.broken += 1;
            if report.broken <= LOGGED_MAX {
                log_broken(&resource, &broken);
            }
            if !broken.is_unreadable()
                && let Err(err) = set_aside(root, &resource)
            {
                log::warn!("{}: cannot be moved out of the way: {err}", found.relative);
            }
            return ControlFlow::Continue(());
        }
        let bytes = found.metadata.len();
        report.found.files += 1;
        report.found.bytes += bytes;
        match &resource {
            Resource::Artifact(version, kind) => {
                index.note_found(version, *kind, bytes, stored_h1(found.path, *kind), clock.now());
            }
            // Fetched in 1970, that is stale: asked again before it is believed.
            Resource::List(_) | Resource::Latest(_) | Resource::Query(..) => {
                if index.mutable(&resource).is_none() {
                    index.note_mutable(&resource, &MutableEntry { bytes, ..MutableEntry::default() });
                }
            }
            Resource::SumdbSupported(_)
            | Resource::SumdbLatest(_)
            | Resource::SumdbLookup(..)
            | Resource::SumdbTile(..) => {
                other.files += 1;
                other.bytes += bytes;
            }
        }
        ControlFlow::Continue(())
    })?;
    if report.is_complete {
        index.recount_other(other);
        index.scan_has_ended();
        if must_judge {
            let own_folder = root.join(".larder");
            durable::replace_file(&own_folder, &own_folder.join("adopted"), STAMP_TEXT)?;
            adoption.is_complete.store(true, Ordering::Relaxed);
        }
    }
    log_report(&report, reason.as_ref(), must_judge, clock.steady().duration_since(began).as_millis());
    Ok(report)
}

/// Judges one file of a version by its structure. Returns its length.
///
/// # Errors
/// What is wrong with it.
pub fn check_artifact(path: &Path, version: &ModuleVersion, kind: ArtifactKind) -> Result<u64, Broken> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    match kind {
        ArtifactKind::Info => check_info(&file, bytes, version)?,
        ArtifactKind::Mod => check_length(&Resource::Artifact(version.clone(), kind), bytes)?,
        ArtifactKind::Zip => check_structure(&file, bytes, version)?,
    }
    Ok(bytes)
}

/// Judges an `.info`, read from where `file` stands.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_info(file: &File, bytes: u64, version: &ModuleVersion) -> Result<(), Broken> {
    #[derive(serde::Deserialize)]
    struct Info {
        #[serde(rename = "Version")]
        version: String,
    }
    if bytes > INFO_BYTES_MAX {
        return Err(Broken::TooLong { bytes });
    }
    let mut text = Vec::new();
    file.take(INFO_BYTES_MAX).read_to_end(&mut text)?;
    let info: Info = serde_json::from_slice(&text).map_err(Broken::NotInfo)?;
    if info.version == version.version().as_str() { Ok(()) } else { Err(Broken::OtherVersion(info.version)) }
}

fn judge(resource: &Resource, found: &Found<'_>) -> Result<(), Broken> {
    match resource {
        Resource::Artifact(version, kind) => check_artifact(found.path, version, *kind).map(drop),
        Resource::List(_)
        | Resource::Latest(_)
        | Resource::Query(..)
        | Resource::SumdbSupported(_)
        | Resource::SumdbLatest(_)
        | Resource::SumdbLookup(..)
        | Resource::SumdbTile(..) => check_length(resource, found.metadata.len()),
    }
}

/// Judges a file by its length alone: what is no file of a version, for the most part.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_length(resource: &Resource, bytes: u64) -> Result<(), Broken> {
    match resource {
        Resource::SumdbTile(_, tile) => match tile.bytes() {
            Some(expected) if expected != bytes => Err(Broken::Tile { bytes, expected }),
            Some(_) | None => Ok(()),
        },
        Resource::Artifact(_, ArtifactKind::Mod)
        | Resource::SumdbLookup(..)
        | Resource::Latest(_)
        | Resource::Query(..)
            if bytes == 0 =>
        {
            Err(Broken::Empty)
        }
        Resource::Artifact(_, ArtifactKind::Mod) if bytes > TOP_FILE_BYTES_MAX => Err(Broken::TooLong { bytes }),
        Resource::Artifact(..)
        | Resource::List(_)
        | Resource::Latest(_)
        | Resource::Query(..)
        | Resource::SumdbSupported(_)
        | Resource::SumdbLatest(_)
        | Resource::SumdbLookup(..) => Ok(()),
    }
}

/// Returns the hash that stands beside a zip in its `.ziphash`.
fn stored_h1(path: &Path, kind: ArtifactKind) -> Option<H1> {
    if kind != ArtifactKind::Zip {
        return None;
    }
    match sums::zip_hash(path).ok()? {
        ZipHash::Stored(h1) => Some(*h1.as_bytes()),
        ZipHash::Absent | ZipHash::Damaged => None,
    }
}

fn log_broken(resource: &Resource, broken: &Broken) {
    log::warn!("{}: {broken}; it goes to .larder/quarantine and will be fetched again", resource.path());
}

fn log_report(report: &ScanReport, reason: Option<&ScanReason>, has_judged: bool, ms: u128) {
    let Totals { files, bytes } = report.found;
    let done = if report.is_complete { "" } else { " (stopped before its end)" };
    let text = match reason {
        Some(ScanReason::Damaged(text)) => format!("the index was damaged ({text}) and is made anew from the tree"),
        Some(ScanReason::Missing) => "the index is made from the tree".to_owned(),
        Some(ScanReason::Unclean | ScanReason::Dropped) => "the index is completed from the tree".to_owned(),
        None => "the tree has been judged".to_owned(),
    };
    let broken = if has_judged { format!(" broken={}", report.broken) } else { String::new() };
    let line = format!("{text}{done}: files={files} bytes={bytes}{broken} ms={ms}");
    match reason {
        Some(ScanReason::Damaged(_)) => log::warn!("{line}"),
        // The first start in an empty directory is no news, nor is a kill after which everything is found.
        Some(ScanReason::Missing) | None if files == 0 => log::debug!("{line}"),
        Some(ScanReason::Unclean | ScanReason::Dropped | ScanReason::Missing) | None => log::info!("{line}"),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod tests;
