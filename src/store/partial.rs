//! A zip on its way in: the growing file and the journal that says which blocks of it are right.
//!
//! Called by `fill::download` on the blocking pool. Two files under `.larder/tmp/`, named by the hash of the resource:
//!
//! ```text
//! HASH.part      the bytes, each at its final offset
//! HASH.blocks    line 1:  {"format":1,"resource":"…","upstream":"…","validator":"…","length":46000000}
//!                then     INDEX CRC32                 one line for each finished block of 256 KiB
//! ```
//!
//! The journal is only appended to, so a kill costs at most the blocks under way. It is not synced with each line:
//! after a power cut it may be older or newer than the bytes, and that is why every block has a checksum. A block whose
//! bytes do not match is fetched again. Blocks are kept only with the validator they came under, so that a resumed
//! download never splices two files.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::resource::Resource;
use crate::store::{Error, Store, TMP, blob, durable};

/// The unit in which a partial download is remembered, in bytes.
pub const BLOCK_BYTES: u64 = 256 * 1024;
/// More unfinished downloads than this are not kept; the space of each is claimed in full.
pub(super) const PARTIALS_MAX: usize = 16;
/// What the names of the two files end in.
const DATA: &str = "part";
const JOURNAL: &str = "blocks";
const FORMAT: u32 = 1;

/// Which file an upstream is sending: what two answers must share to be pieces of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The upstream's name, without credentials.
    pub upstream: String,
    /// A strong validator, exactly as sent: an `ETag`, or a `Last-Modified` that is old enough.
    pub validator: Option<String>,
    /// The whole length in bytes, where the upstream tells it.
    pub length: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    resource: String,
    #[serde(flatten)]
    identity: Identity,
}

/// An unfinished download, open for reading and writing.
#[derive(Debug)]
pub struct Partial {
    /// The bytes. Readers of the download share this descriptor.
    pub file: Arc<File>,
    /// The file the blocks belong to; `None` before the first answer.
    pub identity: Option<Identity>,
    /// Which blocks are right, by index.
    pub blocks: Vec<bool>,
    journal: File,
    resource: String,
    pub(super) data_name: String,
    pub(super) journal_name: String,
}

impl Partial {
    pub(super) fn open(store: &Store, resource: &Resource) -> Result<Self, Error> {
        let resource = resource.path();
        let digest = Sha256::digest(resource.as_bytes());
        let stem =
            format!("{:032x}", digest.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte)));
        let data_name = format!("{TMP}/{stem}.{DATA}");
        let journal_name = format!("{TMP}/{stem}.{JOURNAL}");
        let open = |name: &str, more: OFlags| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | more;
            rustix::fs::openat(&store.root_fd, name, flags, Mode::from_raw_mode(0o644))
                .map(File::from)
                .map_err(|err| Error::at(name, err.into()))
        };
        // The lock keeps `prune` away; a journal it removed just before was not ours to lock.
        let journal = loop {
            let journal = open(&journal_name, OFlags::APPEND)?;
            rustix::fs::flock(&journal, FlockOperation::LockExclusive)
                .map_err(|err| Error::at(&journal_name, err.into()))?;
            if journal.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
                break journal;
            }
        };
        let kept = blob::read_text(store, &journal_name).ok().flatten().unwrap_or_default();
        let mut partial = Self {
            file: Arc::new(open(&data_name, OFlags::empty())?),
            identity: None,
            blocks: Vec::new(),
            journal,
            resource,
            data_name,
            journal_name,
        };
        partial.recall(&kept);
        Ok(partial)
    }

    /// Takes over what an earlier run noted, as far as the bytes agree with it.
    fn recall(&mut self, journal: &str) {
        let mut lines = journal.split_inclusive('\n');
        let Some(header) = lines.next().and_then(|line| serde_json::from_str::<Header>(line).ok()) else { return };
        let (Some(length), Some(_)) = (header.identity.length, &header.identity.validator) else { return };
        if header.format != FORMAT || header.resource != self.resource {
            return;
        }
        let mut blocks = vec![false; block_count(length)];
        let mut content = vec![0; usize::try_from(BLOCK_BYTES).unwrap_or_default()];
        for line in lines {
            // A last line without its newline was cut while being written.
            let Some((index, crc)) = line.strip_suffix('\n').and_then(|line| line.split_once(' ')) else { continue };
            let (Ok(index), Ok(crc)) = (index.parse::<usize>(), u32::from_str_radix(crc, 16)) else { continue };
            let Some(block) = blocks.get_mut(index) else { continue };
            let (start, end) = block_range(index, length);
            let Some(content) = usize::try_from(end - start).ok().and_then(|size| content.get_mut(..size)) else {
                continue;
            };
            *block = self.file.read_exact_at(content, start).is_ok() && crc32fast::hash(content) == crc;
        }
        self.blocks = blocks;
        self.identity = Some(header.identity);
    }

    /// Starts over with a file of another identity, or with the same one from zero. The first `seen_bytes`, which
    /// readers have been shown, stay on the disk to be compared with.
    ///
    /// # Errors
    /// `Full` when the whole length does not fit on the disk; else what the system says.
    pub fn begin(&mut self, identity: &Identity, seen_bytes: u64) -> Result<(), Error> {
        self.blocks = vec![false; identity.length.map_or(0, block_count)];
        self.identity = Some(identity.clone());
        if let Some(length) = identity.length {
            self.reserve(length.max(seen_bytes))?;
        }
        let header = Header { format: FORMAT, resource: self.resource.clone(), identity: identity.clone() };
        let mut line = serde_json::to_vec(&header).map_err(|err| Error::at(&self.journal_name, err.into()))?;
        line.push(b'\n');
        self.journal.set_len(0).map_err(|err| Error::at(&self.journal_name, err))?;
        self.journal.write_all(&line).map_err(|err| Error::at(&self.journal_name, err))
    }

    /// Claims the disk space at once, so that a disk too small is noticed before the download and not at its end.
    fn reserve(&self, length: u64) -> Result<(), Error> {
        let failed = |err: std::io::Error| Error::at(&self.data_name, err);
        self.file.set_len(length).map_err(failed)?;
        if length == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            // File systems without it just fill up as the bytes come.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(err) => Err(failed(err.into())),
        }
    }

    /// Returns a handle through which one stream writes, usable on the blocking pool.
    ///
    /// # Errors
    /// What the system says about one more descriptor.
    pub fn writer(&self) -> Result<PartialWriter, Error> {
        Ok(PartialWriter {
            file: Arc::clone(&self.file),
            journal: Arc::new(self.journal.try_clone().map_err(|err| Error::at(&self.journal_name, err))?),
            name: Arc::from(self.data_name.as_str()),
        })
    }

    /// Cuts the file to its length, once that is known at the end of a stream of unknown length.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_length(&self, length: u64) -> Result<(), Error> {
        self.file.set_len(length).map_err(|err| Error::at(&self.data_name, err))
    }

    /// Makes what is noted so far survive a power cut: the bytes first, then the journal that vouches for them.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> Result<(), Error> {
        self.sync_data()?;
        self.journal.sync_all().map_err(|err| Error::at(&self.journal_name, err))
    }

    pub(super) fn sync_data(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(|err| Error::at(&self.data_name, err))
    }
}

/// Writes the bytes of one stream.
#[derive(Clone, Debug)]
pub struct PartialWriter {
    file: Arc<File>,
    journal: Arc<File>,
    name: Arc<str>,
}

impl PartialWriter {
    /// Writes `content` at `offset`.
    ///
    /// # Errors
    /// `Full`, or what the system says.
    pub fn write_at(&self, content: &[u8], offset: u64) -> Result<(), Error> {
        self.file.write_all_at(content, offset).map_err(|err| Error::at(&self.name, err))
    }

    /// Returns whether the bytes on disk at `offset` are `content`.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_same_at(&self, content: &[u8], offset: u64) -> Result<bool, Error> {
        let mut there = vec![0; content.len()];
        self.file.read_exact_at(&mut there, offset).map_err(|err| Error::at(&self.name, err))?;
        Ok(there == content)
    }

    /// Notes that block `index` is complete, with the checksum of its bytes.
    ///
    /// # Errors
    /// `Full`, or what the system says.
    pub fn note_block(&self, index: u64, crc32: u32) -> Result<(), Error> {
        let line = format!("{index} {crc32:08x}\n");
        (&*self.journal).write_all(line.as_bytes()).map_err(|err| Error::at(&self.name, err))
    }
}

/// Returns how many blocks a file of `length` bytes has.
pub fn block_count(length: u64) -> usize {
    usize::try_from(length.div_ceil(BLOCK_BYTES)).unwrap_or(usize::MAX)
}

fn block_range(index: usize, length: u64) -> (u64, u64) {
    let start = index as u64 * BLOCK_BYTES;
    (start.min(length), (start + BLOCK_BYTES).min(length))
}

/// Removes, from the folder of temporary files, what no run can use any more: unfinished small files, and a journal without
/// its bytes or bytes without their journal. For the start, when nothing is being written.
///
/// # Errors
/// What the system says.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    let names = names_in(folder)?;
    for name in &names {
        let partner = match name.rsplit_once('.') {
            Some((stem, DATA)) => format!("{stem}.{JOURNAL}"),
            Some((stem, JOURNAL)) => format!("{stem}.{DATA}"),
            Some(_) | None => String::new(),
        };
        if !names.contains(&partner) {
            durable::remove_file(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Removes the oldest unfinished downloads beyond `keep`, but for those under way, from the folder of temporary files. Returns
/// how many bytes that has freed.
///
/// # Errors
/// What the system says.
pub fn prune(folder: &Path, keep: usize) -> io::Result<u64> {
    let mut partials = Vec::new();
    for name in names_in(folder)? {
        if let Some((stem, DATA)) = name.rsplit_once('.')
            && let Ok(metadata) = std::fs::metadata(folder.join(&name))
        {
            let blocks = metadata.blocks();
            partials.push((metadata.modified().ok(), stem.to_owned(), blocks * 512));
        }
    }
    partials.sort();
    let surplus = partials.len().saturating_sub(keep);
    let mut freed = 0;
    for (_, stem, bytes) in partials.into_iter().take(surplus) {
        let journal = folder.join(format!("{stem}.{JOURNAL}"));
        // Whoever downloads holds the lock on the journal.
        let Ok(lock) = File::open(&journal) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            durable::remove_file(&journal)?;
            durable::remove_file(&folder.join(format!("{stem}.{DATA}")))?;
            freed += bytes;
        }
    }
    Ok(freed)
}

fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let names = std::fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zip_of(name: &str) -> Resource {
        Resource::parse(&format!("example.com/{name}/@v/v1.0.0.zip")).unwrap()
    }

    fn begun(store: &Store, name: &str) -> Partial {
        let mut partial = Partial::open(store, &zip_of(name)).unwrap();
        let identity =
            Identity { upstream: "u".to_owned(), validator: Some("\"1\"".to_owned()), length: Some(3 * BLOCK_BYTES) };
        partial.begin(&identity, 0).unwrap();
        partial
    }

    /// What was noted is taken up again, but for a block whose bytes have changed and a line cut short.
    #[test]
    fn blocks_are_recalled_if_their_bytes_agree() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_root(folder.path()).unwrap();
        let partial = begun(&store, "m");
        let writer = partial.writer().unwrap();
        let block = vec![7; usize::try_from(BLOCK_BYTES).unwrap()];
        for index in 0..3 {
            writer.write_at(&block, index * BLOCK_BYTES).unwrap();
            writer.note_block(index, crc32fast::hash(&block)).unwrap();
        }
        writer.write_at(b"x", BLOCK_BYTES + 5).unwrap();
        let journal = folder.path().join(&partial.journal_name);
        drop((partial, writer));
        assert_eq!(Partial::open(&store, &zip_of("m")).unwrap().blocks, [true, false, true]);
        let journal = File::options().write(true).open(&journal).unwrap();
        journal.set_len(journal.metadata().unwrap().len() - 2).unwrap();
        assert_eq!(Partial::open(&store, &zip_of("m")).unwrap().blocks, [true, false, false]);
    }

    /// The oldest unfinished downloads are removed and their bytes counted; one under way stays.
    #[test]
    fn prune_spares_what_is_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_root(folder.path()).unwrap();
        drop(begun(&store, "idle"));
        let busy = begun(&store, "busy");
        assert!(prune(&folder.path().join(TMP), 0).unwrap() > 0);
        let left = names_in(&folder.path().join(TMP)).unwrap();
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|name| busy.data_name.contains(name) || busy.journal_name.contains(name)));
    }
}
