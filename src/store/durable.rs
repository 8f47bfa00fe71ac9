//! Replaces a small file of Larder's own so that a power cut leaves the old one or the new one, never half of either.
//!
//! Owns that one sequence: write under `.larder/tmp/`, fsync, rename, fsync the folder. Called by [`super::pins`],
//! [`super::adopt`] and [`super::quarantine`], and by `doctor` to try out whether it can be done; what is left in `tmp/` by
//! a crash is swept at the next start.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces (or makes) the file at `path` with `content`, durably. `own_folder` is `ROOT/.larder`, on the same file
/// system as `path`.
///
/// # Errors
/// What the system says. The file at `path` is then the old one, unless only the last step, syncing its folder, failed.
pub fn replace_file(own_folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let temporary_folder = own_folder.join("tmp");
    make_folders(&temporary_folder)?;
    let temporary = temporary_folder.join(format!("{:016x}.new", fastrand::u64(..)));
    write_new(&temporary, content).and_then(|()| rename(&temporary, path)).inspect_err(|_| {
        // The failure itself is reported; a temporary file that stays is swept at the next start.
        let _ = remove_file(&temporary);
    })?;
    sync_folder(folder)
}

/// Writes a file of a few bytes below the cache directory `root`, durably, and removes it again. For whoever wants to
/// know whether Larder could; nothing else of the directory is touched, whoever owns it.
///
/// # Errors
/// What the system says. Nothing stays behind.
pub fn try_out(root: &Path) -> io::Result<()> {
    // Where the service's own unfinished files lie, so that none of its readers sees it.
    let temporary_folder = root.join(".larder/tmp");
    let folder = if temporary_folder.is_dir() { temporary_folder } else { root.to_owned() };
    let path = folder.join(format!(".larder-probe-{:016x}", fastrand::u64(..)));
    let written = write_new(&path, b"larder\n").and_then(|()| sync_folder(&folder));
    let removed = remove_file(&path);
    written?;
    removed.map(|_| ())
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes what was renamed, made or removed in `folder` survive a power cut.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[expect(clippy::disallowed_methods, reason = "the store makes its own folders")]
pub(super) fn make_folders(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)
}

#[expect(clippy::disallowed_methods, reason = "the store names its own files")]
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// Removes a file; one that is not there is as good as removed. Returns whether it was there.
#[expect(clippy::disallowed_methods, reason = "the store removes its own files")]
pub(super) fn remove_file(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(err) => Err(err),
    }
}

/// Removes a folder with all that is in it; one that is not there is as good as removed.
#[expect(clippy::disallowed_methods, reason = "the store removes its own folders")]
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes `folder` if it is empty, then the ones above it, up to `root`, which stays.
///
/// A fill that is about to name its file in such a folder finds it missing and makes it again.
pub(super) fn remove_empty_folders(folder: &Path, root: &Path) {
    let is_below = |folder: &&Path| folder.starts_with(root) && *folder != root;
    for folder in folder.ancestors().take_while(is_below) {
        // The first one that is not empty ends it, which is the usual case.
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod tests {
    use super::*;

    /// The file has the new content, and nothing is left beside it.
    #[test]
    fn replaces_whole_files() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join(".larder");
        let path = own.join("pins");
        replace_file(&own, &path, b"one\n").unwrap();
        replace_file(&own, &path, b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
        assert_eq!(std::fs::read_dir(own.join("tmp")).unwrap().count(), 0);
    }

    /// Trying out leaves nothing behind, with or without Larder's own folder, and fails where nothing can be written.
    #[test]
    fn trying_out_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        try_out(root.path()).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        std::fs::create_dir_all(root.path().join(".larder/tmp")).unwrap();
        try_out(root.path()).unwrap();
        assert_eq!(std::fs::read_dir(root.path().join(".larder/tmp")).unwrap().count(), 0);
        assert_eq!(try_out(&root.path().join("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// A rename that fails leaves the old file and no temporary one.
    #[test]
    fn failure_leaves_the_old_file() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join(".larder");
        let taken = own.join("taken");
        std::fs::create_dir_all(taken.join("inside")).unwrap();
        replace_file(&own, &taken, b"text").unwrap_err();
        assert!(taken.join("inside").is_dir());
        assert_eq!(std::fs::read_dir(own.join("tmp")).unwrap().count(), 0);
    }
}
