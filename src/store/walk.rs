//! Walks the tree of the cache directory.
//!
//! Owns the walk itself: bounded memory (one open folder for each level), no symbolic links followed, half of the time
//! at most, so that requests come first on a slow card. Called by [`super::adopt`] and [`super::gc`].

use std::fs::{Metadata, ReadDir};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;

/// How deep folders are looked into; the longest module path has fewer elements that a file system can hold.
const DEPTH_MAX: usize = 128;

/// How long the walk works before it looks whether it should rest.
const WORK_AT_ONCE: Duration = Duration::from_millis(5);

/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(100);

/// A regular file of the tree.
pub(super) struct Found<'a> {
    /// Its path below the root, with slashes: what `Resource::parse` understands.
    pub(super) relative: &'a str,
    /// Its whole path.
    pub(super) path: &'a Path,
    /// Its size and times.
    pub(super) metadata: Metadata,
}

/// Calls `each` for every regular file below `root` that is not Larder's own, until it breaks off or `is_cancelled`.
/// Returns whether the walk got to its end. Folders that vanish or cannot be read are passed over, the latter with a log
/// line.
pub(super) fn files(
    root: &Path,
    clock: &Clock,
    is_cancelled: &dyn Fn() -> bool,
    mut each: impl FnMut(Found<'_>) -> ControlFlow<()>,
) -> io::Result<bool> {
    let mut folders: Vec<(ReadDir, PathBuf, String)> = vec![(std::fs::read_dir(root)?, root.to_owned(), String::new())];
    let mut began = clock.steady();
    while let Some((entries, folder, relative)) = folders.last_mut() {
        let worked = clock.steady().duration_since(began);
        if worked >= WORK_AT_ONCE {
            if is_cancelled() {
                return Ok(false);
            }
            std::thread::sleep(worked.min(REST_MAX));
            began = clock.steady();
        }
        let entry = match entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(err)) => {
                log::warn!("{}: {err}", folder.display());
                folders.pop();
                continue;
            }
            None => {
                folders.pop();
                continue;
            }
        };
        // No element of a module path begins with a dot; Larder's own folder does.
        let name = entry.file_name();
        let (Some(name), Ok(kind)) = (name.to_str().filter(|name| !name.starts_with('.')), entry.file_type()) else {
            continue;
        };
        let path = folder.join(name);
        let below = if relative.is_empty() { name.to_owned() } else { format!("{relative}/{name}") };
        if kind.is_dir() && folders.len() < DEPTH_MAX {
            match std::fs::read_dir(&path) {
                Ok(entries) => folders.push((entries, path, below)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => log::warn!("{}: {err}", path.display()),
            }
        } else if kind.is_file()
            && let Ok(metadata) = entry.metadata()
            && each(Found { relative: &below, path: &path, metadata }).is_break()
        {
            return Ok(false);
        }
    }
    Ok(!is_cancelled())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod tests {
    use super::*;

    /// All files are met but Larder's own and those behind links; breaking off and cancelling end the walk.
    #[test]
    fn meets_every_file() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a.com/m/@v", ".larder/tmp", "sumdb/x/tile/8"] {
            std::fs::create_dir_all(root.path().join(path)).unwrap();
        }
        for path in ["a.com/m/@v/list", "a.com/m/@v/.hidden", ".larder/tmp/x", "sumdb/x/tile/8/000"] {
            std::fs::write(root.path().join(path), "text").unwrap();
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        let clock = Clock::system();
        let mut met = Vec::new();
        let ended = files(root.path(), &clock, &|| false, |found| {
            assert_eq!((found.metadata.len(), found.path), (4, root.path().join(found.relative).as_path()));
            met.push(found.relative.to_owned());
            ControlFlow::Continue(())
        });
        met.sort();
        assert!(ended.unwrap());
        assert_eq!(met, ["a.com/m/@v/list", "sumdb/x/tile/8/000"]);
        assert!(!files(root.path(), &clock, &|| false, |_| ControlFlow::Break(())).unwrap());
        assert!(!files(root.path(), &clock, &|| true, |_| ControlFlow::Continue(())).unwrap());
        files(&root.path().join("absent"), &clock, &|| false, |_| ControlFlow::Continue(())).unwrap_err();
    }
}
