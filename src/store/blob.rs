//! Reads and writes the files of the tree.
//!
//! Owns how a file gets its final name (write under `tmp/`, fsync, rename, fsync the folder) and how a stored one is
//! opened without making other requests wait. Called by [`super::Store`] and [`super::partial`].
//!
//! Invariant 2: a file under its final name is complete and durable. New folders count: the folder above each one is
//! synced too, or a power cut could take the file with its path.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::store::{Error, Store, sums};

/// The length of a zip's end record without a comment, and how it begins.
const ZIP_END_BYTES: usize = 22;
const ZIP_END: &[u8] = b"PK\x05\x06";
/// A comment is looked for in so many bytes; behind a longer one the zip is judged again at each request.
const ZIP_COMMENT_PEEK_BYTES: usize = 1024;

/// An open file of the tree: complete and judged.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// The file, open for reading. It stays readable when its name is removed.
    pub file: Arc<File>,
    /// Its length in bytes.
    pub length: u64,
    /// When it was last changed, in nanoseconds since 1970; with the length it makes the validator.
    pub modified_ns: i128,
}

/// What looking for a file without waiting has shown.
pub(super) enum Glance {
    Found(StoredFile),
    Absent,
    /// Answering needs the device: ask again where waiting is allowed.
    NeedsDevice,
}

impl StoredFile {
    fn from_open(file: File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Ok(Some(Self { file: Arc::new(file), length: metadata.len(), modified_ns }))
    }

    /// Returns whether the file ends as a zip does, as far as that can be seen without waiting for the
    /// device. A card that lost power may give back files whose end is missing or zero.
    pub fn ends_like_a_zip(&self) -> bool {
        match self.peek_at_end::<ZIP_END_BYTES>() {
            Some(end) if end.starts_with(ZIP_END) => true,
            Some(_) => self.peek_at_end::<ZIP_COMMENT_PEEK_BYTES>().is_some_and(|end| has_end_with_comment(&end)),
            None => self.length >= ZIP_END_BYTES as u64,
        }
    }

    /// Returns the last bytes, if there are so many and they are in the page cache.
    fn peek_at_end<const BYTES: usize>(&self) -> Option<[u8; BYTES]> {
        let mut end = [0; BYTES];
        let offset = self.length.checked_sub(BYTES as u64)?;
        let mut buffers = [io::IoSliceMut::new(&mut end)];
        let read = rustix::io::preadv2(&*self.file, &mut buffers, offset, ReadWriteFlags::NOWAIT).ok()?;
        (read == BYTES).then_some(end)
    }

    /// Reads the whole content, waiting for the device; not for the threads that serve.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut content = vec![0; usize::try_from(self.length).map_err(|_| io::ErrorKind::FileTooLarge)?];
        self.file.read_exact_at(&mut content, 0)?;
        Ok(Bytes::from(content))
    }
}

/// Returns whether an end record stands here whose comment reaches exactly to the end.
fn has_end_with_comment(end: &[u8]) -> bool {
    end.windows(ZIP_END_BYTES).enumerate().any(|(at, record)| {
        let comment_bytes = record.last_chunk().map(|length| usize::from(u16::from_le_bytes(*length)));
        record.starts_with(ZIP_END) && comment_bytes == Some(end.len() - at - ZIP_END_BYTES)
    })
}

/// Opens a file by its path in the tree if that needs no input from the device.
pub(super) fn glance(store: &Store, relative: &str) -> Glance {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat2(&store.root_fd, relative, flags, Mode::empty(), ResolveFlags::CACHED) {
        Ok(fd) => match StoredFile::from_open(File::from(fd)) {
            Ok(Some(stored)) => Glance::Found(stored),
            Ok(None) => Glance::Absent,
            Err(_) => Glance::NeedsDevice,
        },
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Glance::Absent,
        Err(_) => Glance::NeedsDevice,
    }
}

/// Opens a file by its path in the tree, waiting for the device.
pub(super) fn open(store: &Store, relative: &str) -> Result<Option<StoredFile>, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(&store.root_fd, relative, flags, Mode::empty()) {
        Ok(fd) => StoredFile::from_open(File::from(fd)).map_err(|err| Error::at(relative, err)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
        Err(err) => Err(Error::at(relative, err.into())),
    }
}

/// Stores `content` under a path in the tree: complete and durable, or not at all.
pub(super) fn commit_bytes(store: &Store, relative: &str, content: &[u8]) -> Result<StoredFile, Error> {
    let temporary = store.temporary_name();
    let written = write_new(store, &temporary, content).and_then(|file| {
        sums::set(&file, crc32fast::hash(content));
        file.sync_all().map_err(|err| Error::at(relative, err))?;
        rename_durably(store, &temporary, relative)?;
        Ok(file)
    });
    let file = written.inspect_err(|_| {
        // The failure itself is reported; what is left of the temporary file is swept at the next start at the latest.
        let _ = rustix::fs::unlinkat(&store.root_fd, &temporary, rustix::fs::AtFlags::empty());
    })?;
    // Read back through a descriptor of its own: what is served from now on is what was asked to be stored.
    let stored = StoredFile::from_open(file).map_err(|err| Error::at(relative, err))?;
    match stored {
        Some(stored) if stored.length == content.len() as u64 => Ok(stored),
        Some(_) | None => {
            Err(Error::at(relative, io::Error::other("the file read back differs from what was written")))
        }
    }
}

fn write_new(store: &Store, temporary: &str, content: &[u8]) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&store.root_fd, temporary, flags, Mode::from_raw_mode(0o644))
        .map_err(|err| Error::at(temporary, err.into()))?;
    let mut file = File::from(fd);
    file.write_all(content).map_err(|err| Error::at(temporary, err))?;
    Ok(file)
}

/// Gives a synced file its final name, so that the name survives a power cut as well.
pub(super) fn rename_durably(store: &Store, from: &str, to: &str) -> Result<(), Error> {
    let folder = Path::new(to).parent().and_then(Path::to_str).unwrap_or("");
    match rustix::fs::renameat(&store.root_fd, from, &store.root_fd, to) {
        Ok(()) => {}
        Err(Errno::NOENT) => {
            make_folders(store, folder)?;
            rustix::fs::renameat(&store.root_fd, from, &store.root_fd, to).map_err(|err| Error::at(to, err.into()))?;
        }
        Err(err) => return Err(Error::at(to, err.into())),
    }
    sync_folder(store, folder)
}

/// Makes each missing folder on the way and syncs the one above it.
fn make_folders(store: &Store, folder: &str) -> Result<(), Error> {
    let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
    for end in ends {
        let path = &folder[..end];
        match rustix::fs::mkdirat(&store.root_fd, path, Mode::from_raw_mode(0o755)) {
            Ok(()) => sync_folder(store, path.rfind('/').map_or("", |at| &path[..at]))?,
            Err(Errno::EXIST) => {}
            Err(err) => return Err(Error::at(path, err.into())),
        }
    }
    Ok(())
}

fn sync_folder(store: &Store, folder: &str) -> Result<(), Error> {
    let path = if folder.is_empty() { "." } else { folder };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd =
        rustix::fs::openat(&store.root_fd, path, flags, Mode::empty()).map_err(|err| Error::at(path, err.into()))?;
    rustix::fs::fsync(fd).map_err(|err| Error::at(path, err.into()))
}

/// Reads a small text file of Larder's own, or `None` if there is none.
pub(super) fn read_text(store: &Store, relative: &str) -> Result<Option<String>, Error> {
    let Some(stored) = open(store, relative)? else { return Ok(None) };
    let mut text = String::new();
    match (&*stored.file).read_to_string(&mut text) {
        Ok(_) => Ok(Some(text)),
        Err(err) => Err(Error::at(relative, err)),
    }
}
