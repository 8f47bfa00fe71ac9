//! The tree of files, which is the cache, and what is derived from it.
//!
//! Owns the cache directory: only code below this module writes files. Called by `fill` and `cache`.
//!
//! ```text
//! ROOT/github.com/!burnt!sushi/toml/@v/v1.6.0.{info,mod,zip,ziphash}   the tree, as Go's own download cache has it
//! ROOT/github.com/!burnt!sushi/toml/@v/list, …/@latest                 what changes
//! ROOT/sumdb/NAME/{supported,latest,lookup/…,tile/…}                   the checksum database's files
//! ROOT/.larder/tmp/          files being written, and partial downloads
//! ROOT/.larder/index/        sled: derived, may be deleted
//! ROOT/.larder/pins          what is never removed
//! ROOT/.larder/unverified    what could not be judged yet
//! ROOT/.larder/alarms/       what a person has to know, and the evidence for it
//! ROOT/.larder/audit/        how far the log of a checksum database was followed, and what was seen in it
//! ```
//!
//! Invariants 2 and 3 of ARCHITECTURE.md are kept here.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::{AtFlags, FlockOperation};
use rustix::io::Errno;

use crate::module::ModuleVersion;
use crate::module::zip::hash::H1;
use crate::resource::{ArtifactKind, Resource};
use crate::sumdb::name::SumdbName;
use crate::sumdb::tile::Tile;

pub mod adopt;
pub mod alarms;
mod blob;
pub mod durable;
pub mod gc;
pub mod index;
pub mod offline;
pub mod partial;
pub mod pins;
pub mod quarantine;
pub mod scrub;
pub mod seen;
pub mod sums;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod testing;
pub mod unverified;
mod walk;

use blob::Glance;
pub use blob::StoredFile;
use partial::Partial;
pub use sums::ZipSums;
pub use walk::Resources;

/// Larder's own folder; no module path begins with a dot.
const OWN: &str = ".larder";
/// Where files are written before they get their final name.
const TMP: &str = ".larder/tmp";

/// Why the disk did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no space left.
    #[error("the disk is full: {path}")]
    Full {
        /// The file being written.
        path: String,
    },
    /// Another Larder owns the cache directory.
    #[error("{path} is in use by another larder")]
    InUse {
        /// The cache directory.
        path: String,
    },
    /// Anything else.
    #[error("{path}: {source}")]
    Io {
        /// The file in question.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn at(path: &str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { path, source },
        }
    }
}

/// The cache directory, open.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    root_fd: File,
    /// Held as long as this process owns the directory; the kernel lets go of it whatever ends the process.
    _lock: File,
    next_temporary: AtomicU64,
}

impl Store {
    /// Opens the cache directory, making it if it is missing, and sweeps what an earlier run left unfinished.
    ///
    /// # Errors
    /// What keeps the directory from being used.
    pub fn open_root(root: &Path) -> Result<Self, Error> {
        let text = root.display().to_string();
        #[expect(clippy::disallowed_methods, reason = "the store makes its own root")]
        std::fs::create_dir_all(root.join(TMP)).map_err(|err| Error::at(&text, err))?;
        let root_fd = File::open(root).map_err(|err| Error::at(&text, err))?;
        let lock = File::open(root.join(OWN)).map_err(|err| Error::at(&text, err))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::InUse { path: text }),
            Err(err) => return Err(Error::at(&text, err.into())),
        }
        let store = Self { root: root.to_owned(), root_fd, _lock: lock, next_temporary: AtomicU64::new(0) };
        partial::sweep(&root.join(TMP)).map_err(|err| Error::at(TMP, err))?;
        store.prune_partials()?;
        Ok(store)
    }

    /// Returns the cache directory's path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of Larder's own files.
    pub fn own_folder(&self) -> PathBuf {
        self.root.join(OWN)
    }

    /// Opens the file of `resource`, or returns `None` if it is not stored.
    ///
    /// Names the kernel has at hand are opened on the spot; only others go to the blocking pool, so that a slow card
    /// delays the request that needs it and no other.
    ///
    /// # Errors
    /// What the system says, other than that there is no such file.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(self: &std::sync::Arc<Self>, resource: &Resource) -> Result<Option<StoredFile>, Error> {
        let path = resource.path();
        match blob::glance(self, &path) {
            Glance::Found(stored) => Ok(Some(stored)),
            Glance::Absent => Ok(None),
            Glance::NeedsDevice => {
                let store = std::sync::Arc::clone(self);
                blocking(move || blob::open(&store, &path)).await
            }
        }
    }

    /// Opens the file of `resource`, waiting for the device; for the blocking pool.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_blocking(&self, resource: &Resource) -> Result<Option<StoredFile>, Error> {
        blob::open(self, &resource.path())
    }

    /// Opens the widest stored tile at the place of `tile` that holds all of it, if there is one; for the blocking pool.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn widest_tile(&self, name: &SumdbName, tile: &Tile) -> Result<Option<StoredFile>, Error> {
        let full = tile.full();
        if let Some(stored) = self.open_blocking(&Resource::SumdbTile(name.clone(), full))? {
            return Ok(Some(stored));
        }
        let folder = self.root.join(format!("{}.p", Resource::SumdbTile(name.clone(), full).path()));
        let Ok(entries) = std::fs::read_dir(folder) else { return Ok(None) };
        let widths = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u16>().ok());
        let wider =
            widths.filter_map(|width| Tile::new(tile.level(), tile.index(), width)).filter(|wider| wider.covers(tile));
        match wider.max_by_key(Tile::width) {
            Some(wider) => self.open_blocking(&Resource::SumdbTile(name.clone(), wider)),
            None => Ok(None),
        }
    }

    /// Stores `content` as the file of `resource`, durably; for the blocking pool.
    ///
    /// # Errors
    /// `Full`, or what the system says. The tree is unchanged then.
    pub fn commit_bytes(&self, resource: &Resource, content: &[u8]) -> Result<StoredFile, Error> {
        blob::commit_bytes(self, &resource.path(), content)
    }

    /// Opens the unfinished download of `resource`, which may hold bytes of an earlier run; for the blocking pool.
    ///
    /// # Errors
    /// What the system says.
    pub fn partial(&self, resource: &Resource) -> Result<Partial, Error> {
        Partial::open(self, resource)
    }

    /// Gives a finished partial file its final name, durably, and forgets what was noted about it. What is known of its sums
    /// is noted first: a zip that has its name has the right `.ziphash` beside it, or none.
    ///
    /// # Errors
    /// What the system says; the partial stays then.
    pub fn commit_partial(&self, partial: &Partial, resource: &Resource, sums: ZipSums) -> Result<StoredFile, Error> {
        let path = resource.path();
        match sums.crc32 {
            Some(crc32) => sums::set(&partial.file, crc32),
            None => sums::clear(&partial.file),
        }
        partial.sync_data()?;
        if let Some(hash_path) = zip_hash_path(resource) {
            match sums.h1 {
                Some(h1) => blob::commit_bytes(self, &hash_path, h1.to_string().as_bytes()).map(drop)?,
                None => self.unlink(&hash_path)?,
            }
        }
        blob::rename_durably(self, &partial.data_name, &path)?;
        self.unlink(&partial.journal_name)?;
        blob::open(self, &path)?.ok_or_else(|| Error::at(&path, io::Error::from(io::ErrorKind::NotFound)))
    }

    /// Writes the `.ziphash` of a stored zip anew, durably. For the blocking pool.
    ///
    /// # Errors
    /// `Full`, or what the system says. Any earlier one stays then.
    pub fn write_zip_hash(&self, version: &ModuleVersion, h1: H1) -> Result<(), Error> {
        match zip_hash_path(&Resource::Artifact(version.clone(), ArtifactKind::Zip)) {
            Some(path) => blob::commit_bytes(self, &path, h1.to_string().as_bytes()).map(drop),
            None => Ok(()),
        }
    }

    /// Removes an unfinished download.
    ///
    /// # Errors
    /// What the system says.
    pub fn discard_partial(&self, partial: &Partial) -> Result<(), Error> {
        self.unlink(&partial.journal_name)?;
        self.unlink(&partial.data_name)
    }

    /// Removes the oldest unfinished downloads, so that only so many stay; for the blocking pool.
    ///
    /// # Errors
    /// What the system says.
    pub fn prune_partials(&self) -> Result<(), Error> {
        let pruned = partial::prune(&self.root.join(TMP), partial::PARTIALS_MAX);
        pruned.map(|_| ()).map_err(|err| Error::at(TMP, err))
    }

    /// Replaces a small file of Larder's own, by its name in [`Store::own_folder`], durably; for the blocking pool.
    ///
    /// # Errors
    /// What the system says. The file is then the old one.
    pub fn replace_own(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let own_folder = self.own_folder();
        let path = own_folder.join(name);
        let folder = path.parent().unwrap_or(&own_folder);
        durable::make_folders(folder)
            .and_then(|()| durable::replace_file(&own_folder, &path, content))
            .map_err(|err| Error::at(&format!("{OWN}/{name}"), err))
    }

    /// Reads a small file of Larder's own, if there is one; for the blocking pool.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_own(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let stored = blob::open(self, &format!("{OWN}/{name}"))?;
        stored.map(|stored| stored.read().map_err(|err| Error::at(&format!("{OWN}/{name}"), err))).transpose()
    }

    /// Gives a file of Larder's own, by its name in [`Store::own_folder`], another name, durably: `.damaged` is appended, and
    /// an earlier one of that name goes. Returns where it is now; nothing if there was none. For the blocking pool.
    ///
    /// # Errors
    /// What the system says. The file is then where it was, unless only the last step, syncing its folder, failed.
    pub fn keep_own_aside(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        let path = self.own_folder().join(name);
        let aside = self.own_folder().join(format!("{name}.damaged"));
        let moved = match durable::rename(&path, &aside) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.and_then(|()| path.parent().map_or(Ok(()), durable::sync_folder)),
        };
        moved.map(|()| Some(aside)).map_err(|err| Error::at(&path.display().to_string(), err))
    }

    /// Says whether any record of a checksum database is stored; for the blocking pool.
    pub fn has_lookups(&self, name: &SumdbName) -> bool {
        std::fs::read_dir(self.root.join(format!("sumdb/{name}/lookup")))
            .is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Removes the stored tiles that are a beginning of this one; for the blocking pool.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_narrower_tiles(&self, name: &SumdbName, tile: &Tile) -> Result<(), Error> {
        let folder = format!("{}.p", Resource::SumdbTile(name.clone(), tile.full()).path());
        let Ok(entries) = std::fs::read_dir(self.root.join(&folder)) else { return Ok(()) };
        let widths = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u16>().ok());
        for width in widths.filter(|width| *width < tile.width()) {
            self.unlink(&format!("{folder}/{width}"))?;
        }
        Ok(())
    }

    /// Removes a file of Larder's own, by its name in [`Store::own_folder`], if there is one.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_own(&self, name: &str) -> Result<(), Error> {
        self.unlink(&format!("{OWN}/{name}"))
    }

    /// Writes a file that others wait for, at a path outside the tree, so that it appears whole.
    ///
    /// # Errors
    /// What the system says.
    #[expect(clippy::disallowed_methods, reason = "the store is where files are written")]
    pub fn write_outside(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        std::fs::write(&temporary, content)?;
        std::fs::rename(&temporary, path)
    }

    fn unlink(&self, relative: &str) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.root_fd, relative, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(err) => Err(Error::at(relative, err.into())),
        }
    }

    fn temporary_name(&self) -> String {
        format!("{TMP}/{}.new", self.next_temporary.fetch_add(1, Ordering::Relaxed))
    }
}

/// Returns where the hash of a zip is stored, below the root; nothing for what is no zip.
fn zip_hash_path(resource: &Resource) -> Option<String> {
    match resource {
        Resource::Artifact(_, ArtifactKind::Zip) => Some(format!("{}hash", resource.path())),
        Resource::Artifact(_, ArtifactKind::Info | ArtifactKind::Mod)
        | Resource::List(_)
        | Resource::Latest(_)
        | Resource::Query(..)
        | Resource::SumdbSupported(_)
        | Resource::SumdbLatest(_)
        | Resource::SumdbLookup(..)
        | Resource::SumdbTile(..) => None,
    }
}

/// Takes the end off a text that is longer than `bytes_max`.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max.saturating_sub('…'.len_utf8())).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
}

/// Runs `work` where waiting for the device is allowed.
///
/// # Errors
/// Those of `work`; a panic in it becomes an error.
///
/// # Cancel safety
/// The work goes on to its end when the future is dropped.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(err) => Err(Error::at("disk task", io::Error::other(err.to_string()))),
    }
}
