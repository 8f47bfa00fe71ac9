//! What Larder remembers about the files of the tree: sizes, when they were fetched and last used, their judgement; and
//! which names do not exist.
//!
//! Owns [`Index`]. Called by `cache` (on hits and fills), `gc`, `adopt` and the status page; calls sled through
//! `database`. All of it is derived: the tree is the truth (invariant 3), and an index that is missing, damaged or of
//! another format is made anew from the tree by [`super::adopt::scan`], in the background.
//!
//! Works while it is not open yet, which it is not for the first moments of a run: reading answers `None`, changes wait
//! in memory, at most `PENDING_MAX` of them; what does not fit is found later by the scan. Changes are collected in
//! memory in any case and written by [`Index::maintain`], so the three files of a version cost one write, and a hit
//! costs none: it only enters a time in a bounded table in memory (`usage`).
//!
//! A kill loses the changes of the last minute. The index notices at the next start that it was not closed in an orderly
//! way, and a scan adds what is missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use crate::clock::UnixSeconds;
use crate::module::ModuleVersion;
use crate::resource::{ArtifactKind, Resource};

mod bucket;
mod change;
mod database;
mod entry;
mod usage;
mod write;

use change::{Change, Place, VersionChange};
use database::{BUCKETS_AT_ONCE, Class, Damage, Database, OpenError, Stop};
pub use entry::{H1, MutableEntry, NEGATIVE_BODY_BYTES_MAX, NegativeAnswer, Verdict, VersionEntry};
use usage::Usage;

/// How many changes wait in memory at most; each is at most 5 KB, mostly 150 bytes.
const PENDING_MAX: usize = 2048;

/// How many changes are written between two looks at the lock.
const WRITE_AT_ONCE: usize = 256;

/// Usage times are written every so many calls of [`Index::maintain`], or earlier when their table is half full.
const USAGE_EVERY_CALLS: u32 = 10;

/// How many upstream names are kept; entries fetched from further ones do not say from where.
const UPSTREAMS_MAX: usize = 256;

/// Everything stored, for the status page and the size limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many files.
    pub files: u64,
    /// How many bytes are in them.
    pub bytes: u64,
}

/// Why the tree has to be read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanReason {
    /// There was no index.
    Missing,
    /// The index was broken or of another format, as the text says, and has been started anew.
    Damaged(String),
    /// The last run was killed: the index may lack its newest files.
    Unclean,
    /// Changes did not fit into memory before the index was open.
    Dropped,
}

enum State {
    Opening,
    Open(Database),
    Closed,
}

/// The index of one cache directory.
pub struct Index {
    folder: PathBuf,
    state: RwLock<State>,
    pending: Mutex<BTreeMap<Place, Pending>>,
    /// One writer at a time, so that changes of one thing are written in their order.
    writing: Mutex<u32>,
    usage: Usage,
    counted: Mutex<Counted>,
    upstreams: Mutex<Vec<String>>,
    scan_reason: Mutex<Option<ScanReason>>,
    is_damaged: AtomicBool,
    /// The database could not be opened, for a reason that may pass.
    is_unusable: AtomicBool,
    /// A scan has been asked for and has not got to its end yet.
    is_incomplete: AtomicBool,
    generation: AtomicU32,
}

/// What the totals are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    /// What the records stand for; moves with them.
    records: Totals,
    /// Files that have no record: those of checksum databases.
    other: Totals,
}

struct Pending {
    change: Change,
    /// Tells whether the change is still the one that was written.
    generation: u32,
}

impl Index {
    /// Returns the index of the cache directory `root`, not open yet.
    pub fn opening(root: &Path) -> Self {
        Self {
            folder: root.join(".larder").join("index"),
            state: RwLock::new(State::Opening),
            pending: Mutex::default(),
            writing: Mutex::default(),
            usage: Usage::default(),
            counted: Mutex::default(),
            upstreams: Mutex::default(),
            scan_reason: Mutex::default(),
            is_damaged: AtomicBool::new(false),
            is_unusable: AtomicBool::new(false),
            is_incomplete: AtomicBool::new(false),
            generation: AtomicU32::new(0),
        }
    }

    /// Opens the database; for the blocking pool, once. Afterwards [`super::adopt::is_scan_due`] tells whether the tree
    /// has to be scanned. If the
    /// database cannot be used, Larder goes on without one, which is logged, and tries again at [`Index::maintain`].
    pub fn open(&self) {
        let opened = match Database::open(&self.folder) {
            Err(OpenError::Damaged(text)) => self.start_anew(text),
            other => other.map(|(database, state)| {
                let reason = if !state.existed {
                    Some(ScanReason::Missing)
                } else if state.was_clean {
                    None
                } else {
                    Some(ScanReason::Unclean)
                };
                (database, reason)
            }),
        };
        let (state, reason) = match opened {
            Ok((database, reason)) => match self.recall(&database) {
                Ok(()) => (State::Open(database), reason),
                Err(Damage(text)) => {
                    database.close();
                    self.is_damaged.store(true, Ordering::Relaxed);
                    (State::Closed, Some(ScanReason::Damaged(text)))
                }
            },
            Err(err) => {
                let text = err.text();
                if !self.is_unusable.swap(true, Ordering::Relaxed) {
                    log::warn!("the index cannot be used, usage times are not kept for now: {text}");
                }
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Closed;
                return;
            }
        };
        if let Some(reason) = reason {
            self.wish_for_scan(reason);
        }
        self.is_unusable.store(false, Ordering::Relaxed);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Says whether the database is open.
    pub fn is_open(&self) -> bool {
        matches!(*self.state.read().unwrap_or_else(PoisonError::into_inner), State::Open(_))
    }

    /// Says whether the tree has to be scanned.
    pub fn wants_scan(&self) -> bool {
        lock(&self.scan_reason).is_some()
    }

    /// Says whether the database is still being opened, so that an empty answer means nothing yet.
    pub fn is_opening(&self) -> bool {
        matches!(*self.state.read().unwrap_or_else(PoisonError::into_inner), State::Opening)
    }

    /// Returns why a scan of the tree is needed, once. Until the scan has told that it got to its end, a stop does not
    /// count as orderly, so that the next run scans again.
    pub(super) fn take_scan_reason(&self) -> Option<ScanReason> {
        lock(&self.scan_reason).take()
    }

    /// Says whether the index is open and knows the whole tree. Before that, nothing should be removed by it.
    pub fn is_whole(&self) -> bool {
        self.is_open() && !self.is_incomplete.load(Ordering::Relaxed)
    }

    /// Notes that a scan that was asked for got to its end, if nothing has asked for another one since.
    pub(super) fn scan_has_ended(&self) {
        let reason = lock(&self.scan_reason);
        self.is_incomplete.store(reason.is_some(), Ordering::Relaxed);
    }

    /// Writes what has changed; for the blocking pool, every 30 seconds. Makes a damaged database anew.
    pub fn maintain(&self) {
        if self.is_unusable.load(Ordering::Relaxed) {
            // A disk that was full or read-only at the start may have got better.
            self.open();
        }
        if self.is_damaged.swap(false, Ordering::Relaxed) {
            let before =
                std::mem::replace(&mut *self.state.write().unwrap_or_else(PoisonError::into_inner), State::Opening);
            if let State::Open(database) = before {
                database.close();
            }
            let noted = self.take_scan_reason();
            if let Err(err) = self.move_aside() {
                log::warn!("the damaged index cannot be removed: {err}");
            }
            self.open();
            if let Some(reason) = noted {
                *lock(&self.scan_reason) = Some(reason);
            }
        }
        self.write_pending();
        let calls = {
            let mut calls = lock(&self.writing);
            *calls = calls.wrapping_add(1);
            *calls
        };
        if calls.is_multiple_of(USAGE_EVERY_CALLS) || self.usage.is_half_full() {
            self.write_usage(usage::USE_GRAIN_S);
        }
        self.with_database(|database| database.forget_pages(BUCKETS_AT_ONCE));
    }

    /// Writes everything and closes the database in an orderly way; for the blocking pool, at the end of a run.
    pub fn close(&self) {
        self.write_pending();
        self.write_usage(1);
        let is_complete = self.is_whole() && lock(&self.pending).is_empty();
        let before = std::mem::replace(&mut *self.state.write().unwrap_or_else(PoisonError::into_inner), State::Closed);
        if let State::Open(database) = before {
            let stop = if is_complete { Stop::Orderly } else { Stop::NotYet };
            if let Err(Damage(text)) = database.flush(stop) {
                log::warn!("the index could not be written: {text}");
            }
            database.close();
        }
    }

    /// Notes that a file of `version` was asked for. Costs no disk access: for every hit.
    pub fn touch(&self, version: &ModuleVersion, now: UnixSeconds) {
        self.usage.touch(version, now);
    }

    /// Returns what is known of a module version.
    pub fn version(&self, version: &ModuleVersion) -> Option<VersionEntry> {
        let place = Place::of_version(version);
        let pending = lock(&self.pending).get(&place).map(|pending| pending.change.clone());
        let mut entry = match pending {
            Some(Change::Version(change)) if change.replaces => change.apply(None),
            Some(Change::Version(change)) => change.apply(self.read_version(&place)),
            Some(Change::Remove) => None,
            Some(Change::Put(_)) | None => self.read_version(&place),
        }?;
        entry.last_used = entry.last_used.max(self.usage.last_used(version));
        Some(entry)
    }

    /// Notes that a file of `version` has been stored now, from the upstream with this (redacted) name.
    pub fn note_artifact(
        &self,
        version: &ModuleVersion,
        kind: ArtifactKind,
        bytes: u64,
        upstream: &str,
        now: UnixSeconds,
    ) {
        let mut entry = VersionEntry {
            fetched: Some(now),
            last_used: now,
            upstream: self.upstream_number(upstream),
            ..VersionEntry::default()
        };
        *entry.size_mut(kind) = Some(bytes);
        self.change_version(version, VersionChange { entry, ..VersionChange::default() });
    }

    /// Notes a file of `version` found in the tree: counted as used now, unless more is known already.
    pub fn note_found(
        &self,
        version: &ModuleVersion,
        kind: ArtifactKind,
        bytes: u64,
        h1: Option<H1>,
        now: UnixSeconds,
    ) {
        let mut entry = VersionEntry { h1, ..VersionEntry::default() };
        *entry.size_mut(kind) = Some(bytes);
        self.change_version(version, VersionChange { entry, used_if_unknown: Some(now), replaces: false });
    }

    /// Notes the judgement of `version`'s files, and the zip's hash if it is known.
    pub fn note_verdict(&self, version: &ModuleVersion, verdict: Verdict, h1: Option<H1>) {
        let entry = VersionEntry { h1, verdict, ..VersionEntry::default() };
        self.change_version(version, VersionChange { entry, ..VersionChange::default() });
    }

    /// Returns when a file of `version` was last asked for since uses were last written; zero if it was not.
    pub fn recent_use(&self, version: &ModuleVersion) -> UnixSeconds {
        self.usage.last_used(version)
    }

    /// Forgets a version whose files have been removed.
    pub fn forget_version(&self, version: &ModuleVersion) {
        self.change(Place::of_version(version), Change::Remove);
    }

    /// Returns what is known of a stored answer that may change. `None` for a stored file means: stale.
    pub fn mutable(&self, resource: &Resource) -> Option<MutableEntry> {
        self.read_record(&Place::of_resource(Class::Mutable, resource)?)
            .and_then(|bytes| self.decoded(MutableEntry::decode(&bytes)))
    }

    /// Notes an answer that may change.
    pub fn note_mutable(&self, resource: &Resource, entry: &MutableEntry) {
        if let Some(place) = Place::of_resource(Class::Mutable, resource) {
            self.change(place, Change::Put(entry.encode()));
        }
    }

    /// Forgets an answer whose file has been removed.
    pub fn forget_mutable(&self, resource: &Resource) {
        if let Some(place) = Place::of_resource(Class::Mutable, resource) {
            self.change(place, Change::Remove);
        }
    }

    /// Returns the remembered answer that there is no such thing, fresh or not.
    pub fn negative(&self, resource: &Resource) -> Option<NegativeAnswer> {
        self.read_record(&Place::of_resource(Class::Negative, resource)?)
            .and_then(|bytes| self.decoded(NegativeAnswer::decode(&bytes)))
    }

    /// Remembers that there is no such thing. At most 50,000 answers are kept: each bucket drops its oldest.
    pub fn note_negative(&self, resource: &Resource, answer: &NegativeAnswer) {
        if let Some(place) = Place::of_resource(Class::Negative, resource) {
            self.change(place, Change::Put(answer.encode()));
        }
    }

    /// Forgets that there was no such thing.
    pub fn forget_negative(&self, resource: &Resource) {
        if let Some(place) = Place::of_resource(Class::Negative, resource) {
            self.change(place, Change::Remove);
        }
    }

    /// Returns how much is stored, as far as it is known.
    pub fn totals(&self) -> Totals {
        let Counted { records, other } = *lock(&self.counted);
        Totals { files: records.files + other.files, bytes: records.bytes + other.bytes }
    }

    /// Counts files that have no record of their own (those of checksum databases) in, or out.
    pub fn count_other(&self, files: i64, bytes: i64) {
        let other = &mut lock(&self.counted).other;
        other.files = other.files.saturating_add_signed(files);
        other.bytes = other.bytes.saturating_add_signed(bytes);
    }

    /// Sets the count of files that have no record of their own, as a scan of the tree has found it.
    pub fn recount_other(&self, found: Totals) {
        lock(&self.counted).other = found;
    }

    /// Returns the name of the upstream an entry's number stands for.
    pub fn upstream_name(&self, number: u16) -> Option<String> {
        lock(&self.upstreams).get(usize::from(number)).cloned()
    }

    /// Returns the number of the upstream with this (redacted) name, giving it one if it has none; `None` if there are
    /// too many, or the index is not open yet.
    pub fn upstream_number(&self, name: &str) -> Option<u16> {
        let mut upstreams = lock(&self.upstreams);
        let known = upstreams.iter().position(|known| known == name);
        let number = u16::try_from(known.unwrap_or(upstreams.len())).ok()?;
        if known.is_none() {
            if upstreams.len() >= UPSTREAMS_MAX {
                return None;
            }
            self.with_database(|database| database.write_upstream(number, name))?;
            upstreams.push(name.to_owned());
        }
        Some(number)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is whole after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod tests;
