//! Reads one stored file again and says whether it still holds: the medium may have changed it since it was stored.
//!
//! Owns [`check`], and [`h1_of_zip`] for zips whose stream did not tell their hash. Called by those who go over the whole
//! tree (with [`super::walk`]) on a thread that may take its time, and by whoever finishes an odd download; calls `sums`,
//! `adopt` for what a file has to look like, and `module::zip`. Invariants: memory does not grow with the size of a zip;
//! nothing is changed but sums that are missing or damaged, and those only beside content that holds otherwise; the pages
//! that are read for this alone do not push out what is served.
//!
//! | file | what has to hold |
//! | --- | --- |
//! | every one | its CRC-32 is the one in its attribute, where it has one |
//! | `.zip` | structure, the rules of `go`, the content of every entry, the h1 in `.ziphash`, where there is one |
//! | `.info`, `.mod` | the version it is for; not empty |
//! | lookup, tile, list, `@latest` and answers | length |

use std::cell::Cell;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, BufWriter, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, AtFlags, Mode, OFlags};
use rustix::io::ReadWriteFlags;

use super::adopt::{self, Broken};
use super::sums::{self, ZipHash};
use super::{Error, Store};
use crate::clock::Clock;
use crate::module::ModuleVersion;
use crate::module::zip::hash::{H1, HashError, hash, merge_runs, write_runs};
use crate::module::zip::rules::{RuleError, check_rules};
use crate::module::zip::stream::StreamHasher;
use crate::module::zip::{ReadAt, TOP_FILE_BYTES_MAX, ZipError, check_structure};
use crate::resource::{ArtifactKind, Resource};

/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// So long a pause is too short to be worth a system call.
const PAUSE_MIN: Duration = Duration::from_millis(2);

/// The longest pause between two looks whether to stop.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What a stored file has turned out to be. It holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its length in bytes.
    pub bytes: u64,
    /// The CRC-32 of its bytes.
    pub crc32: u32,
    /// Whether that is what was noted when it was stored. If not, nothing had been noted, and now it is.
    pub was_sum_known: bool,
    /// The h1 of a zip or, of a `.mod`, that of its go.mod file.
    pub h1: Option<H1>,
}

/// Why a stored file does not hold, or why that is not known.
#[derive(Debug, thiserror::Error)]
pub enum Unsound {
    /// The bytes are not those that were stored.
    #[error("its bytes have changed since it was stored: crc32 {found_crc:08x} instead of {stored_crc:08x}")]
    Decayed {
        /// What was noted when it was stored.
        stored_crc: u32,
        /// What its bytes have now.
        found_crc: u32,
    },
    /// A zip whose content is not the one its `.ziphash` is for.
    #[error("zip hash mismatch: got {found}, .ziphash says {stored}")]
    ZipHash {
        /// The hash beside it.
        stored: H1,
        /// That of the zip.
        found: H1,
    },
    /// It is not what its name says.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A zip that `go` would not unpack.
    #[error(transparent)]
    Rule(RuleError),
    /// A zip of which an entry cannot be read.
    #[error(transparent)]
    Hash(HashError),
    /// The check was told to stop; nothing is known.
    #[error("stopped")]
    Stopped,
}

impl Unsound {
    /// Says whether nothing is known of the file itself: the device, the disk's room for scratch files, or a stop is at
    /// fault. It stays where it is then.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Broken(broken) => broken.is_unreadable(),
            Self::Stopped => true,
            Self::Decayed { .. } | Self::ZipHash { .. } | Self::Rule(_) | Self::Hash(_) => false,
        }
    }
}

impl From<RuleError> for Unsound {
    fn from(err: RuleError) -> Self {
        match err {
            RuleError::Zip(err) => Self::Broken(Broken::Zip(err)),
            other => Self::Rule(other),
        }
    }
}

impl From<HashError> for Unsound {
    fn from(err: HashError) -> Self {
        match err {
            HashError::Zip(err) => Self::Broken(Broken::Zip(err)),
            other => Self::Hash(other),
        }
    }
}

impl From<io::Error> for Unsound {
    fn from(err: io::Error) -> Self {
        Self::Broken(Broken::Io(err))
    }
}

/// How fast files may be read, and whether to go on. One for all files of a run, so that what one is too fast the next one
/// waits for.
pub struct Throttle<'a> {
    bytes_a_second: u64,
    clock: &'a Clock,
    pause: &'a dyn Fn(Duration),
    is_cancelled: &'a dyn Fn() -> bool,
    /// Until when what has been read would have taken at that rate.
    paid_until: Cell<Instant>,
}

impl<'a> Throttle<'a> {
    /// Returns one that lets so many bytes a second through, 0 for all of them, and has the reader wait by `pause`.
    pub fn new(
        bytes_a_second: u64,
        clock: &'a Clock,
        pause: &'a dyn Fn(Duration),
        is_cancelled: &'a dyn Fn() -> bool,
    ) -> Self {
        Self { bytes_a_second, clock, pause, is_cancelled, paid_until: Cell::new(clock.steady()) }
    }

    /// Waits for as long as reading so many bytes should have taken. Says whether to go on.
    fn spend(&self, bytes: usize) -> bool {
        if (self.is_cancelled)() {
            return false;
        }
        if self.bytes_a_second == 0 {
            return true;
        }
        let now = self.clock.steady();
        // Time that was not used is not saved up.
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_a_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let paid_until = self.paid_until.get().max(now);
        self.paid_until.set(paid_until.checked_add(takes).unwrap_or(paid_until));
        let mut left = self.paid_until.get().duration_since(now);
        if left < PAUSE_MIN {
            return true;
        }
        while !left.is_zero() {
            if (self.is_cancelled)() {
                return false;
            }
            let pause = left.min(PAUSE_MAX);
            (self.pause)(pause);
            left -= pause;
        }
        true
    }
}

/// A file that is read no faster than allowed, by whomever.
struct Paced<'a> {
    file: &'a File,
    throttle: &'a Throttle<'a>,
    is_stopped: Cell<bool>,
}

impl ReadAt for Paced<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)?;
        if self.throttle.spend(buffer.len()) {
            return Ok(());
        }
        self.is_stopped.set(true);
        Err(io::Error::other("stopped"))
    }
}

impl Paced<'_> {
    /// Shows all bytes, piece by piece, and returns their CRC-32.
    fn read(&self, bytes: u64, mut see: impl FnMut(&[u8])) -> io::Result<u32> {
        let mut crc = crc32fast::Hasher::new();
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)];
        let mut offset = 0;
        while offset < bytes {
            let piece_bytes = usize::try_from(bytes - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let piece = &mut buffer[..piece_bytes];
            self.read_exact_at(piece, offset)?;
            crc.update(piece);
            see(piece);
            offset += piece_bytes as u64;
        }
        Ok(crc.finalize())
    }
}

/// Reads the stored file of `resource` again; nothing if there is none, or another one by the end. A sum that is missing or damaged is
/// written anew if all else holds, as for a tree that came on a USB stick. For a thread that may take its time.
///
/// # Errors
/// What does not hold, or why it is not known: see [`Unsound::is_unknown`].
pub fn check(store: &Store, resource: &Resource, throttle: &Throttle<'_>) -> Result<Option<Checked>, Unsound> {
    let path = store.root().join(resource.path());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::openat(&store.root_fd, resource.path(), flags, Mode::empty()).map(File::from) {
        Ok(file) => file,
        Err(err) => {
            let err = io::Error::from(err);
            let is_absent = matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
            return if is_absent { Ok(None) } else { Err(err.into()) };
        }
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let was_at_hand = is_at_hand(&file, metadata.len());
    let paced = Paced { file: &file, throttle, is_stopped: Cell::new(false) };
    let checked = match resource {
        Resource::Artifact(version, ArtifactKind::Zip) => check_zip(store, &path, &paced, metadata.len(), version),
        Resource::Artifact(_, ArtifactKind::Info | ArtifactKind::Mod)
        | Resource::List(_)
        | Resource::Latest(_)
        | Resource::Query(..)
        | Resource::SumdbSupported(_)
        | Resource::SumdbLatest(_)
        | Resource::SumdbLookup(..)
        | Resource::SumdbTile(..) => check_small(&paced, metadata.len(), resource),
    };
    if !was_at_hand {
        // Only a hint, and so is its failure.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    }
    match checked {
        Ok(checked) => {
            if !checked.was_sum_known {
                sums::set(&file, checked.crc32);
            }
            Ok(Some(checked))
        }
        Err(_) if paced.is_stopped.get() => Err(Unsound::Stopped),
        // Another file has taken its place meanwhile, or nothing: what was found is not about what is stored.
        Err(unsound) if !unsound.is_unknown() && !is_still_at(&metadata, &path) => {
            log::debug!("{}: {unsound}; but it has been replaced meanwhile", resource.path());
            Ok(None)
        }
        Err(unsound) => Err(unsound),
    }
}

/// Returns the h1 of a stored zip of which other bytes have changed, and whether its `.ziphash` says the same; nothing if
/// `go` could not unpack it either. For a thread that may take its time.
pub fn content_of_zip(store: &Store, version: &ModuleVersion, throttle: &Throttle<'_>) -> Option<(H1, bool)> {
    let path = store.root().join(Resource::Artifact(version.clone(), ArtifactKind::Zip).path());
    let file = File::open(&path).ok()?;
    let bytes = file.metadata().ok()?.len();
    let paced = Paced { file: &file, throttle, is_stopped: Cell::new(false) };
    check_structure(&paced, bytes, version).ok()?;
    check_rules(&paced, bytes, version).ok()?;
    let found = h1_of_zip(store, &paced, bytes, version).ok()?;
    let is_known = matches!(sums::zip_hash(&path), Ok(ZipHash::Stored(stored)) if stored == found);
    Some((found, is_known))
}

fn is_still_at(metadata: &Metadata, path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (metadata.dev(), metadata.ino()))
}

fn check_small(paced: &Paced<'_>, bytes: u64, resource: &Resource) -> Result<Checked, Unsound> {
    let is_mod = matches!(resource, Resource::Artifact(_, ArtifactKind::Mod)) && bytes <= TOP_FILE_BYTES_MAX;
    let mut go_mod = Vec::new();
    let crc32 = paced.read(bytes, |piece| {
        if is_mod {
            go_mod.extend_from_slice(piece);
        }
    })?;
    let was_sum_known = compare_sums(paced.file, crc32)?;
    adopt::check_length(resource, bytes)?;
    if let Resource::Artifact(version, ArtifactKind::Info) = resource {
        adopt::check_info(paced.file, bytes, version)?;
    }
    Ok(Checked { bytes, crc32, was_sum_known, h1: is_mod.then(|| H1::of_go_mod(&go_mod)) })
}

fn check_zip(
    store: &Store,
    path: &Path,
    paced: &Paced<'_>,
    bytes: u64,
    version: &ModuleVersion,
) -> Result<Checked, Unsound> {
    let mut hasher = StreamHasher::new(&format!("{version}/"));
    let crc32 = paced.read(bytes, |piece| {
        // What is odd is asked for at the end.
        let _ = hasher.push(piece);
    })?;
    let streamed = hasher.finish().ok();
    let was_sum_known = compare_sums(paced.file, crc32)?;
    check_structure(paced, bytes, version).map_err(Broken::from)?;
    check_rules(paced, bytes, version)?;
    let found = match streamed {
        Some(h1) => h1,
        None => h1_of_zip(store, paced, bytes, version)?,
    };
    match sums::zip_hash(path)? {
        ZipHash::Stored(stored) if stored != found => return Err(Unsound::ZipHash { stored, found }),
        ZipHash::Stored(_) | ZipHash::Absent => {}
        // The zip holds by its own sums; it is the small file that has suffered.
        ZipHash::Damaged => match store.write_zip_hash(version, found) {
            Ok(()) => log::warn!("{version}: its .ziphash was damaged and has been written anew"),
            Err(err) => log::warn!("{version}: its .ziphash is damaged and cannot be written: {err}"),
        },
    }
    Ok(Checked { bytes, crc32, was_sum_known, h1: Some(found) })
}

/// Says whether a sum was noted; it is the right one then.
fn compare_sums(file: &File, found_crc: u32) -> Result<bool, Unsound> {
    match sums::get(file) {
        Some(stored_crc) if stored_crc != found_crc => Err(Unsound::Decayed { stored_crc, found_crc }),
        stored => Ok(stored.is_some()),
    }
}

/// Says whether the file seems to be in the page cache already: those who are served from there should find it again.
fn is_at_hand(file: &File, bytes: u64) -> bool {
    [0, bytes / 2, bytes.saturating_sub(1)].into_iter().all(|offset| {
        let mut byte = [0];
        let mut buffers = [io::IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT).is_ok()
    })
}

/// Returns the h1 hash of the finished zip that the first `zip_bytes` bytes of `source` are, however many entries it has:
/// where they do not fit into memory they are sorted in scratch files of the store. For a thread that may take its time.
///
/// # Errors
/// [`HashError`]; [`ZipError::Io`] also for what the scratch files met, a full disk for example.
pub fn h1_of_zip<S: ReadAt + ?Sized>(
    store: &Store,
    source: &S,
    zip_bytes: u64,
    module: &ModuleVersion,
) -> Result<H1, HashError> {
    let prefix = format!("{module}/");
    match hash(source, zip_bytes, &prefix) {
        Err(HashError::TooManyEntries { .. }) => h1_by_runs(store, source, zip_bytes, &prefix),
        other => other,
    }
}

fn h1_by_runs<S: ReadAt + ?Sized>(store: &Store, source: &S, zip_bytes: u64, prefix: &str) -> Result<H1, HashError> {
    let in_scratch = |err: io::Error| {
        HashError::from(ZipError::Io(io::Error::new(err.kind(), format!("scratch file to sort its entries: {err}"))))
    };
    // Some hundred thousand entries each, so that 500 MiB of zip make a few dozen at most.
    let mut runs = Vec::new();
    write_runs(source, zip_bytes, prefix, |run| {
        let file = scratch(store).map_err(|err| in_scratch(io::Error::other(err)))?;
        let mut writer = BufWriter::new(file);
        run.write_to(&mut writer).and_then(|()| writer.flush()).map_err(in_scratch)?;
        let mut file = writer.into_inner().map_err(|err| in_scratch(err.into_error()))?;
        file.rewind().map_err(in_scratch)?;
        runs.push(BufReader::new(file));
        Ok::<_, HashError>(())
    })?;
    merge_runs(&mut runs, prefix)
}

/// Makes a file that has no name and goes when it is closed.
fn scratch(store: &Store) -> Result<File, Error> {
    let name = store.temporary_name();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&store.root_fd, &name, flags, Mode::from_raw_mode(0o600))
        .map_err(|err| Error::at(&name, err.into()))?;
    rustix::fs::unlinkat(&store.root_fd, &name, AtFlags::empty()).map_err(|err| Error::at(&name, err.into()))?;
    Ok(File::from(fd))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod tests;
