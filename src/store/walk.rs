//! Walks the tree of the cache directory.
//!
//! Owns the walks. [`files`] meets every file once, in no order: bounded memory (one open folder for each level), half of
//! the time at most, so that requests come first on a slow card. [`Resources`] hands out what is stored one by one, in
//! an order that never changes, so that a run which takes weeks goes on after a restart where it stopped; its memory is
//! bounded by [`NAMES_AT_ONCE`] names a level, and no folder stays open. Neither follows symbolic links. Called by
//! [`super::adopt`] and [`super::gc`], and by those who read the whole tree again.

use std::collections::BinaryHeap;
use std::fs::{Metadata, ReadDir};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Store;
use crate::clock::Clock;
use crate::resource::Resource;

/// How deep folders are looked into; the longest module path has fewer elements that a file system can hold.
const DEPTH_MAX: usize = 128;

/// How long the walk works before it looks whether it should rest.
const WORK_AT_ONCE: Duration = Duration::from_millis(5);

/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(100);

/// How many names of one folder are in memory at a time; a folder with more is read several times.
const NAMES_AT_ONCE: usize = 1024;

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

/// All stored resources, in the order of their paths, element by element.
///
/// What is stored or removed meanwhile may or may not be met; all else is met once. For a thread that may wait for the
/// device.
#[derive(Debug)]
pub struct Resources {
    root: PathBuf,
    levels: Vec<Level>,
    names_at_once: usize,
}

/// A folder on the way to where the walk stands.
#[derive(Debug)]
struct Level {
    /// Its path below the root, with a slash at its end unless it is the root.
    relative: String,
    /// The next names, the last one first, and whether they are folders.
    names: Vec<(String, bool)>,
    /// The last name that was read into `names`, if the folder has more than that.
    more_after: Option<String>,
}

impl Store {
    /// Returns what is stored, in an order that never changes, beginning after `after`, which need not be stored any more.
    pub fn resources_after(&self, after: Option<&Resource>) -> Resources {
        Resources::below(self.root(), after, NAMES_AT_ONCE)
    }
}

impl Resources {
    fn below(root: &Path, after: Option<&Resource>, names_at_once: usize) -> Self {
        let mut resources = Self { root: root.to_owned(), levels: Vec::new(), names_at_once };
        let after = after.map(Resource::path).unwrap_or_default();
        // On each level what comes after the element on the way has to be visited later, and the element itself now.
        let (mut relative, mut rest) = (String::new(), after.as_str());
        loop {
            let (element, below) = rest.split_once('/').unwrap_or((rest, ""));
            let more_after = Some(element.to_owned());
            resources.levels.push(Level { relative: relative.clone(), names: Vec::new(), more_after });
            if below.is_empty() {
                return resources;
            }
            relative = format!("{relative}{element}/");
            rest = below;
        }
    }
}

impl Iterator for Resources {
    type Item = Resource;

    fn next(&mut self) -> Option<Resource> {
        loop {
            let level = self.levels.last_mut()?;
            let Some((name, is_folder)) = level.names.pop() else {
                match level.more_after.take() {
                    Some(after) => level.read(&self.root, &after, self.names_at_once),
                    None => drop(self.levels.pop()),
                }
                continue;
            };
            let path = format!("{}{name}", level.relative);
            if !is_folder {
                // Other names are locks, hashes and leftovers of other programs.
                if let Ok(resource) = Resource::parse(&path) {
                    return Some(resource);
                }
            } else if self.levels.len() < DEPTH_MAX {
                let more_after = Some(String::new());
                self.levels.push(Level { relative: path + "/", names: Vec::new(), more_after });
            }
        }
    }
}

impl Level {
    /// Reads the next so many names after `after`.
    fn read(&mut self, root: &Path, after: &str, names_at_once: usize) {
        let folder = root.join(&self.relative);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return,
            Err(err) => {
                log::warn!("{}: {err}", folder.display());
                return;
            }
        };
        let mut smallest: BinaryHeap<(String, bool)> = BinaryHeap::new();
        let mut has_more = false;
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(err) => {
                    log::warn!("{}: {err}", folder.display());
                    break;
                }
            };
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
            // As in `files`: no element of a path begins with a dot, Larder's own folder does.
            if name.as_str() <= after || name.starts_with('.') || !(kind.is_dir() || kind.is_file()) {
                continue;
            }
            smallest.push((name, kind.is_dir()));
            if smallest.len() > names_at_once {
                smallest.pop();
                has_more = true;
            }
        }
        self.names = smallest.into_sorted_vec();
        self.more_after = self.names.last().filter(|_| has_more).map(|(name, _)| name.clone());
        self.names.reverse();
    }
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

    /// The walk in order meets every resource once, whatever is in memory at a time, and can begin after each of them, and
    /// after one that is not there.
    #[test]
    fn resources_come_in_order_from_anywhere() {
        let root = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for folder in ["a.com/@v", "a.com/m/@v", "a.com/m-x/@v", "a.com/m/v2/@v", "b.com/!m/@v"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
            let major = if folder.contains("v2") { 2 } else { 1 };
            for name in
                ["info", "mod", "zip"].iter().flat_map(|kind| (0..4).map(move |n| format!("v{major}.{n}.0.{kind}")))
            {
                paths.push(format!("{folder}/{name}"));
            }
            paths.push(format!("{folder}/list"));
        }
        std::fs::create_dir_all(root.path().join("sumdb/x/tile/8/0/000.p")).unwrap();
        std::fs::create_dir_all(root.path().join(".larder/tmp")).unwrap();
        paths.extend(["sumdb/x/latest", "sumdb/x/tile/8/0/000.p/7", "a.com/m/@latest"].map(str::to_owned));
        for path in &paths {
            std::fs::write(root.path().join(path), "text").unwrap();
        }
        for path in ["a.com/m/@v/v1.0.0.ziphash", "a.com/m/@v/v1.0.0.lock", ".larder/tmp/x", "README"] {
            std::fs::write(root.path().join(path), "text").unwrap();
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("a.com/loop")).unwrap();
        paths.sort_by(|a, b| a.split('/').cmp(b.split('/')));
        for names_at_once in [1, 2, 3, 100] {
            let walk = |after: Option<&Resource>| {
                Resources::below(root.path(), after, names_at_once).map(|resource| resource.path()).collect::<Vec<_>>()
            };
            assert_eq!(walk(None), paths);
            for (index, path) in paths.iter().enumerate() {
                let after = Resource::parse(path).unwrap();
                assert_eq!(walk(Some(&after)), paths[index + 1..], "{path}");
            }
            let absent = Resource::parse("a.com/m/@v/v1.2.5.zip").unwrap();
            let next = paths.iter().position(|path| path == "a.com/m/@v/v1.3.0.info").unwrap();
            assert_eq!(walk(Some(&absent)), paths[next..]);
            let gone = Resource::parse("a.com/mm/x/@v/v1.2.5.zip").unwrap();
            assert_eq!(walk(Some(&gone))[0], "b.com/!m/@v/list");
        }
        assert_eq!(Resources::below(&root.path().join("absent"), None, 9).count(), 0);
    }
}
