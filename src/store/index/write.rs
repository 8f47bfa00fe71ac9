//! Reads records of the index, and writes the changes that wait.
//!
//! Owns the order: changes are looked at by readers until they are written, written bucket by bucket, and dropped only
//! if they are still the same. Called by [`super`] alone.

use std::collections::btree_map::Entry;
use std::ops::{Bound, ControlFlow};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::bucket::{self, Garbled, Records};
use super::change::{Change, Place, VersionChange};
use super::database::{BUCKETS_AT_ONCE, Class, Damage, Database, OpenError};
use super::entry::{MutableEntry, NegativeAnswer, VersionEntry};
use super::usage;
use super::{Index, PENDING_MAX, Pending, ScanReason, State, Totals, WRITE_AT_ONCE, lock};
use crate::clock::UnixSeconds;
use crate::module::ModuleVersion;
use crate::store::durable;

/// How many negative answers a bucket keeps: with 4,096 buckets fewer than 50,000 in all.
pub(super) const NEGATIVE_PER_BUCKET_MAX: usize = 12;

/// Readers wait some milliseconds for sled to forget its pages once in so many reads.
const BUCKETS_BETWEEN_READS: u32 = 1024;

impl Index {
    /// Calls `each` with every version there is an entry for, bucket by bucket, until it breaks off; waiting changes are
    /// written first. Returns whether it got to the end. Uses memory for one bucket at a time. Entries under names that
    /// are no versions are skipped.
    pub fn scan_versions(&self, mut each: impl FnMut(ModuleVersion, VersionEntry) -> ControlFlow<()>) -> bool {
        self.write_pending();
        self.write_usage();
        let mut last = None;
        loop {
            let next = self.with_database(|database| {
                database.forget_pages(BUCKETS_AT_ONCE)?;
                database.next(Class::Version, last)
            });
            let (number, bytes) = match next {
                Some(Some(found)) => found,
                Some(None) => return true,
                None => return false,
            };
            last = Some(number);
            let Some(records) = self.decoded(bucket::unpack(&bytes)) else { return false };
            for (key, value) in records {
                let version = std::str::from_utf8(&key).ok().and_then(|text| ModuleVersion::parse(text).ok());
                let Some(entry) = self.decoded(VersionEntry::decode(&value)) else { return false };
                if let Some(version) = version
                    && each(version, entry).is_break()
                {
                    return false;
                }
            }
        }
    }

    /// Sets the last use of `version` as it is, forwards or backwards: for stamps a wrong clock has made.
    pub fn restamp(&self, version: &ModuleVersion, last_used: UnixSeconds) {
        if let Some(entry) = self.version(version) {
            let change =
                VersionChange { entry: VersionEntry { last_used, ..entry }, replaces: true, used_if_unknown: None };
            self.change(Place::of_version(version), Change::Version(change));
        }
    }

    pub(super) fn change_version(&self, version: &ModuleVersion, change: VersionChange) {
        self.change(Place::of_version(version), Change::Version(change));
    }

    /// Lets a change wait to be written.
    pub(super) fn change(&self, place: Place, change: Change) {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let is_full = {
            let mut pending = lock(&self.pending);
            let count = pending.len();
            match pending.entry(place) {
                Entry::Occupied(mut waiting) => {
                    let waiting = waiting.get_mut();
                    waiting.change = std::mem::replace(&mut waiting.change, Change::Remove).then(change);
                    waiting.generation = generation;
                    return;
                }
                Entry::Vacant(free) if count < PENDING_MAX => {
                    free.insert(Pending { change, generation });
                    count + 1 == PENDING_MAX
                }
                Entry::Vacant(_) => {
                    self.wish_for_scan(ScanReason::Dropped);
                    return;
                }
            }
        };
        if is_full {
            self.write_pending();
        }
    }

    /// Writes the waiting changes, as many as there are now.
    pub(super) fn write_pending(&self) {
        let _one_writer = lock(&self.writing);
        if !self.is_open() {
            return;
        }
        let mut from = Bound::Unbounded;
        loop {
            let batch: Vec<(Place, Change, u32)> = lock(&self.pending)
                .range((from, Bound::Unbounded))
                .take(WRITE_AT_ONCE)
                .map(|(place, waiting)| (place.clone(), waiting.change.clone(), waiting.generation))
                .collect();
            let Some((last, ..)) = batch.last() else { break };
            from = Bound::Excluded(last.clone());
            if !self.write_batch(&batch) {
                return;
            }
            self.with_database(|database| database.forget_pages(BUCKETS_AT_ONCE));
            let mut pending = lock(&self.pending);
            for (place, _, generation) in &batch {
                if pending.get(place).is_some_and(|waiting| waiting.generation == *generation) {
                    pending.remove(place);
                }
            }
        }
        let counted = *lock(&self.counted);
        self.with_database(|database| database.write_counted(&counted));
    }

    /// Writes changes that are sorted by place. Returns whether that worked.
    fn write_batch(&self, batch: &[(Place, Change, u32)]) -> bool {
        batch.chunk_by(|(a, ..), (b, ..)| (a.class, a.bucket) == (b.class, b.bucket)).all(|changes| {
            let Some((Place { class, bucket: number, .. }, ..)) = changes.first() else {
                return true;
            };
            let Some(mut records) = self.read_bucket(*class, *number) else {
                return false;
            };
            let before = counted(*class, &records);
            for (place, change, _) in changes {
                match change {
                    Change::Put(bytes) => drop(records.insert(place.key.clone(), bytes.clone())),
                    Change::Remove => drop(records.remove(&place.key)),
                    Change::Version(change) => {
                        let known = records.get(&place.key).and_then(|bytes| VersionEntry::decode(bytes).ok());
                        match change.clone().apply(known) {
                            Some(entry) => drop(records.insert(place.key.clone(), entry.encode())),
                            None => drop(records.remove(&place.key)),
                        }
                    }
                }
            }
            if *class == Class::Negative {
                drop_oldest(&mut records);
            }
            let after = counted(*class, &records);
            let written = self.with_database(|database| database.write(*class, *number, bucket::pack(&records)));
            if written.is_some() {
                let totals = &mut lock(&self.counted).records;
                totals.files = (totals.files + after.files).saturating_sub(before.files);
                totals.bytes = (totals.bytes + after.bytes).saturating_sub(before.bytes);
            }
            written.is_some()
        })
    }

    /// Writes the uses that moved by an hour or more.
    pub(super) fn write_usage(&self) {
        let _one_writer = lock(&self.writing);
        if !self.is_open() {
            return;
        }
        for uses in self.usage.take().chunk_by(|(a, _), (b, _)| usage::bucket_of(*a) == usage::bucket_of(*b)) {
            let Some((first, _)) = uses.first() else { continue };
            let number = usage::bucket_of(*first);
            let Some(mut records) = self.read_bucket(Class::Version, number) else {
                return;
            };
            self.with_database(|database| database.forget_pages(BUCKETS_AT_ONCE));
            let mut has_moved = false;
            for (key, value) in &mut records {
                let text = std::str::from_utf8(key).unwrap_or_default();
                let (path, version) = text.split_once('@').unwrap_or_default();
                let mark = usage::mark_of(path, version);
                let Ok(at) = uses.binary_search_by_key(&mark, |(mark, _)| *mark) else {
                    continue;
                };
                let (Some((_, used)), Ok(mut entry)) = (uses.get(at), VersionEntry::decode(value)) else {
                    continue;
                };
                let used = UnixSeconds((*used).into());
                if used.since(entry.last_used).as_secs() >= usage::USE_GRAIN_S {
                    entry.last_used = used;
                    *value = entry.encode();
                    has_moved = true;
                }
            }
            if has_moved {
                let packed = bucket::pack(&records);
                let written = self.with_database(|database| database.write(Class::Version, number, packed));
                if written.is_none() {
                    return;
                }
            }
        }
    }

    pub(super) fn read_version(&self, place: &Place) -> Option<VersionEntry> {
        let bytes = self.read_stored(place)?;
        self.decoded(VersionEntry::decode(&bytes))
    }

    /// Returns a record's bytes, as they are or will be.
    pub(super) fn read_record(&self, place: &Place) -> Option<Vec<u8>> {
        match lock(&self.pending).get(place).map(|waiting| &waiting.change) {
            Some(Change::Put(bytes)) => return Some(bytes.clone()),
            Some(Change::Remove) => return None,
            Some(Change::Version(_)) | None => {}
        }
        self.read_stored(place)
    }

    fn read_stored(&self, place: &Place) -> Option<Vec<u8>> {
        let bytes = self.with_database(|database| {
            database.forget_pages(BUCKETS_BETWEEN_READS)?;
            database.read(place.class, place.bucket)
        })?;
        let found = self.decoded(bucket::find(&bytes, &place.key))?;
        found.map(<[u8]>::to_vec)
    }

    fn read_bucket(&self, class: Class, number: u16) -> Option<Records> {
        let bytes = self.with_database(|database| database.read(class, number))?;
        self.decoded(bucket::unpack(&bytes))
    }

    /// Returns what was decoded; garbage counts as damage.
    pub(super) fn decoded<T>(&self, result: Result<T, Garbled>) -> Option<T> {
        result.inspect_err(|Garbled| self.report(Damage("garbled record".to_owned()))).ok()
    }

    /// Works with the database if it is open; damage closes it for good.
    pub(super) fn with_database<T>(&self, work: impl FnOnce(&Database) -> Result<T, Damage>) -> Option<T> {
        if self.is_damaged.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let State::Open(database) = &*state else { return None };
        match work(database) {
            Ok(value) => Some(value),
            Err(damage) => {
                self.report(damage);
                None
            }
        }
    }

    /// Takes note of damage: nothing more is asked of the database until [`Index::maintain`] makes it anew.
    fn report(&self, Damage(text): Damage) {
        if !self.is_damaged.swap(true, Ordering::Relaxed) {
            self.wish_for_scan(ScanReason::Damaged(text));
        }
    }

    pub(super) fn wish_for_scan(&self, reason: ScanReason) {
        let mut wished = lock(&self.scan_reason);
        self.is_incomplete.store(true, Ordering::Relaxed);
        let is_weaker = reason == ScanReason::Dropped && wished.is_some();
        if !is_weaker {
            *wished = Some(reason);
        }
    }

    /// Takes over what the database keeps beside the records.
    pub(super) fn recall(&self, database: &Database) -> Result<(), Damage> {
        *lock(&self.counted) = database.counted()?;
        *lock(&self.upstreams) = database.upstreams()?;
        Ok(())
    }

    /// Makes an empty database in the place of a broken one.
    pub(super) fn start_anew(&self, text: String) -> Result<(Database, Option<ScanReason>), OpenError> {
        self.move_aside().map_err(|err| OpenError::Unavailable(format!("{text}; and it cannot be removed: {err}")))?;
        let (database, _) = Database::open(&self.folder)?;
        Ok((database, Some(ScanReason::Damaged(text))))
    }

    /// Removes the database's folder; under another name, so that half of it is never opened again.
    pub(super) fn move_aside(&self) -> std::io::Result<()> {
        let aside = self.folder.with_extension("damaged");
        durable::remove_folder(&aside)?;
        match durable::rename(&self.folder, &aside) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err),
            Ok(()) | Err(_) => {}
        }
        durable::remove_folder(&aside)
    }
}

/// Returns what the records of a bucket stand for in the totals.
fn counted(class: Class, records: &Records) -> Totals {
    let mut totals = Totals::default();
    for value in records.values() {
        let (files, bytes) = match class {
            Class::Version => VersionEntry::decode(value).map_or((0, 0), |e| (e.file_count(), e.total_bytes())),
            Class::Mutable => MutableEntry::decode(value).map_or((0, 0), |entry| (1, entry.bytes)),
            Class::Negative => (0, 0),
        };
        totals.files += files;
        totals.bytes += bytes;
    }
    totals
}

/// Keeps a bucket of negative answers within its bound.
pub(super) fn drop_oldest(records: &mut Records) {
    while records.len() > NEGATIVE_PER_BUCKET_MAX {
        let oldest = records.iter().min_by_key(|(_, value)| NegativeAnswer::fetched_of(value));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else {
            return;
        };
        records.remove(&key);
    }
}
