//! The sled database below the index: opening, buckets in and out, and how damage shows.
//!
//! Owns the folder `ROOT/.larder/index`. Called by [`super::Index`] alone. sled reports damage as an error or as a
//! panic; both become [`Damage`] here, and the caller starts over with an empty database, since all of it can be had
//! from the tree again (invariant 3).
//!
//! ```text
//! key                            value
//! 0 'f'                          one byte, the format's number
//! 0 'c'                          there only after an orderly stop
//! 0 't'                          files: 8, bytes: 8 of records; files: 8, bytes: 8 of others (the totals)
//! 0 'u' number: 2, big endian    an upstream's redacted URL
//! class: 1, bucket: 2, big endian    a bucket of records (bucket.rs)
//! 255 number: 2, big endian      nothing (the ballast)
//! ```
//!
//! **Ballast.** sled's cache has 256 shards; a page belongs to the shard of its number modulo 256, and a shard forgets
//! pages only when it has seen 64 accesses since the last time, and never its newest page. A cache of a few thousand
//! pages therefore never forgets anything. 2,176 empty records, made first, lie eight to a page in pages of successive
//! numbers, so that every shard has a small page: reading them all nine times makes each shard forget everything else.
//! That is [`Database::forget_pages`]. Only memory depends on these inner workings of sled 0.34, nothing else.
//!
//! Measured on x86-64 with 300,000 versions: going through all entries adds 19 MB for good without ballast, 1.6 MB with
//! it. The whole program takes 1.4 MB more with 1,000,029 files than with 1,000 right after the start (8.9 against 7.5 MB),
//! and 3 MB more once it has served for a while. Four times as many buckets take 0.8 MB more, since sled keeps a table of its
//! pages in memory; fewer make each write larger.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Counted, Totals};

/// The number of the format drawn above, in `bucket.rs` and in `entry.rs`. Another number means: start over.
pub(super) const FORMAT: u8 = 1;

/// What sled may keep of the file in memory, as far as it obeys.
const CACHE_BYTES: u64 = 256 * 1024;

/// How often sled writes what is new to the device. What is lost by a kill is found again by the scan of the tree.
const FLUSH_EVERY_MS: u64 = 30_000;

/// The first byte of the ballast's keys.
const BALLAST: u8 = 255;

/// How many empty records there are: eight to a page, so that each of 256 shards gets a page, and some to spare.
const BALLAST_RECORDS: u16 = 2176;

/// How often each is read to be read 64 times in its page and once more.
const BALLAST_READS: usize = 9;

/// While many buckets are gone through, sled is made to forget after each so many; they are in at most as many pages.
pub(super) const BUCKETS_AT_ONCE: u32 = 256;

/// A database that was closed a moment ago stays locked until the last of sled's threads lets go of it.
const LOCK_TRIES: u32 = 100;
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(20);

const KEY_FORMAT: &[u8] = b"\0f";
const KEY_CLEAN: &[u8] = b"\0c";
const KEY_TOTALS: &[u8] = b"\0t";
const KEY_UPSTREAM: &[u8] = b"\0u";

/// The database cannot be used any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage(pub(super) String);

/// Why the database could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// It is broken or of another format, and has to be made anew.
    Damaged(String),
    /// The device or the permissions are in the way; its content may be fine.
    Unavailable(String),
    /// Another process has it, or a thread of sled that has not ended yet.
    Locked,
}

impl OpenError {
    /// Returns what it says.
    pub(super) fn text(self) -> String {
        match self {
            Self::Damaged(text) | Self::Unavailable(text) => text,
            Self::Locked => "another process has it open".to_owned(),
        }
    }
}

/// The kinds of records, each with buckets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Version = 1,
    Mutable = 2,
    Negative = 3,
}

impl Class {
    /// Returns how many buckets this kind has; a power of two. Changing it changes [`FORMAT`].
    pub(super) fn buckets(self) -> u16 {
        match self {
            Self::Version => 8192,
            Self::Mutable | Self::Negative => 4096,
        }
    }
}

/// An open database.
pub(super) struct Database {
    db: sled::Db,
    /// How many buckets were read or written since sled forgot its pages.
    touched: AtomicU32,
}

/// What an opened database said about itself.
pub(super) struct State {
    /// It was there before.
    pub(super) existed: bool,
    /// It was closed in an orderly way.
    pub(super) was_clean: bool,
}

impl Database {
    /// Opens the database in `folder`, making it if it is missing.
    pub(super) fn open(folder: &Path) -> Result<(Self, State), OpenError> {
        for _ in 0..LOCK_TRIES {
            let opened = catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(folder)));
            match opened.unwrap_or_else(|panic| Err(OpenError::Damaged(panic_text(panic.as_ref())))) {
                Err(OpenError::Locked) => std::thread::sleep(LOCK_RETRY_DELAY),
                opened => return opened,
            }
        }
        Err(OpenError::Locked)
    }

    fn open_unguarded(folder: &Path) -> Result<(Self, State), OpenError> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .mode(sled::Mode::LowSpace)
            .open()
            .map_err(open_error)?;
        let existed = db.was_recovered() && !db.is_empty();
        if existed {
            match db.get(KEY_FORMAT).map_err(open_error)?.as_deref() {
                Some([FORMAT]) => {}
                Some([other]) => return Err(OpenError::Damaged(format!("format {other} instead of {FORMAT}"))),
                Some(_) | None => return Err(OpenError::Damaged("no format number".to_owned())),
            }
        } else {
            for number in 0..BALLAST_RECORDS {
                db.insert(ballast_key(number), &[]).map_err(open_error)?;
            }
            // Last, so that an interrupted beginning is started over.
            db.insert(KEY_FORMAT, &[FORMAT]).map_err(open_error)?;
        }
        // From here on a kill leaves an index that may lack the newest files: it must not look orderly any more.
        let was_clean = db.remove(KEY_CLEAN).map_err(open_error)?.is_some();
        db.flush().map_err(open_error)?;
        Ok((Self { db, touched: AtomicU32::new(0) }, State { existed, was_clean }))
    }

    /// Returns a bucket's bytes, empty if there are none.
    pub(super) fn read(&self, class: Class, bucket: u16) -> Result<sled::IVec, Damage> {
        self.touched.fetch_add(1, Ordering::Relaxed);
        guarded(|| Ok(self.db.get(bucket_key(class, bucket))?.unwrap_or_default()))
    }

    /// Returns the first bucket of a class that has records, after `last` if that is given, and its bytes.
    pub(super) fn next(&self, class: Class, last: Option<u16>) -> Result<Option<(u16, sled::IVec)>, Damage> {
        self.touched.fetch_add(1, Ordering::Relaxed);
        let found = guarded(|| match last {
            Some(last) => self.db.get_gt(bucket_key(class, last)),
            None => self.db.range(bucket_key(class, 0)..).next().transpose(),
        })?;
        Ok(found.and_then(|(key, bytes)| match *key {
            [at, high, low] if at == class as u8 => Some((u16::from_be_bytes([high, low]), bytes)),
            _ => None,
        }))
    }

    /// Replaces a bucket.
    pub(super) fn write(&self, class: Class, bucket: u16, bytes: Vec<u8>) -> Result<(), Damage> {
        self.touched.fetch_add(1, Ordering::Relaxed);
        let key = bucket_key(class, bucket);
        guarded(|| if bytes.is_empty() { self.db.remove(key) } else { self.db.insert(key, bytes) }.map(drop))
    }

    /// Makes sled forget the pages it has read, once `buckets_max` buckets were read or written; takes some milliseconds
    /// of reading in memory then.
    pub(super) fn forget_pages(&self, buckets_max: u32) -> Result<(), Damage> {
        if self.touched.load(Ordering::Relaxed) < buckets_max {
            return Ok(());
        }
        self.touched.store(0, Ordering::Relaxed);
        guarded(|| {
            for _ in 0..BALLAST_READS {
                for number in 0..BALLAST_RECORDS {
                    self.db.get(ballast_key(number))?;
                }
            }
            Ok(())
        })
    }

    /// Returns the kept totals.
    pub(super) fn counted(&self) -> Result<Counted, Damage> {
        let kept = guarded(|| self.db.get(KEY_TOTALS))?.unwrap_or_default();
        let mut numbers = kept.chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || numbers.next().unwrap_or(0);
        let records = Totals { files: next(), bytes: next() };
        Ok(Counted { records, other: Totals { files: next(), bytes: next() } })
    }

    /// Keeps the totals.
    pub(super) fn write_counted(&self, Counted { records, other }: &Counted) -> Result<(), Damage> {
        let numbers = [records.files, records.bytes, other.files, other.bytes];
        let value: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        guarded(|| self.db.insert(KEY_TOTALS, value).map(drop))
    }

    /// Returns the names of the upstreams by number.
    pub(super) fn upstreams(&self) -> Result<Vec<String>, Damage> {
        guarded(|| {
            let values = self.db.scan_prefix(KEY_UPSTREAM).values();
            values.map(|name| name.map(|name| String::from_utf8_lossy(&name).into_owned())).collect()
        })
    }

    /// Keeps the name of one more upstream.
    pub(super) fn write_upstream(&self, number: u16, name: &str) -> Result<(), Damage> {
        let key = [KEY_UPSTREAM, &number.to_be_bytes()].concat();
        guarded(|| self.db.insert(key, name).map(drop))
    }

    /// Makes everything durable; with `Stop::Orderly` the next start will know that nothing is missing.
    pub(super) fn flush(&self, stop: Stop) -> Result<(), Damage> {
        guarded(|| {
            if stop == Stop::Orderly {
                self.db.insert(KEY_CLEAN, &[1])?;
            }
            self.db.flush().map(drop)
        })
    }

    /// Closes the database. sled may panic on the way out of a damaged one.
    pub(super) fn close(self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(self))) {
            log::debug!("closing the index: {}", panic_text(panic.as_ref()));
        }
    }
}

/// Whether the process is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    NotYet,
    Orderly,
}

fn bucket_key(class: Class, bucket: u16) -> [u8; 3] {
    let [high, low] = bucket.to_be_bytes();
    [class as u8, high, low]
}

fn ballast_key(number: u16) -> [u8; 3] {
    let [high, low] = number.to_be_bytes();
    [BALLAST, high, low]
}

fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, Damage> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(err)) => Err(Damage(err.to_string())),
        Err(panic) => Err(Damage(panic_text(panic.as_ref()))),
    }
}

fn open_error(err: sled::Error) -> OpenError {
    use io::ErrorKind as Kind;
    let sled::Error::Io(err) = err else { return OpenError::Damaged(err.to_string()) };
    match err.kind() {
        // sled says by the text alone that another process has the lock.
        Kind::Other if err.to_string().contains("lock") => OpenError::Locked,
        // What sled says itself about its files, and files that are not what they should be.
        Kind::Other
        | Kind::UnexpectedEof
        | Kind::InvalidData
        | Kind::InvalidInput
        | Kind::NotFound
        | Kind::IsADirectory
        | Kind::NotADirectory => OpenError::Damaged(err.to_string()),
        _ => OpenError::Unavailable(err.to_string()),
    }
}

/// Returns what a panic said, on one line.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panic without a text").lines().next().unwrap_or_default().to_owned()
}
