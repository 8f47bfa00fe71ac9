//! Changes that wait to be written, and where they go.
//!
//! Owns the merging of what is newly known of a version with what was known. Called by [`super`]; pure.

use std::hash::Hasher;

use super::bucket::KEY_BYTES_MAX;
use super::database::Class;
use super::entry::{Verdict, VersionEntry};
use crate::clock::UnixSeconds;
use crate::module::ModuleVersion;
use crate::resource::Resource;

/// Where a record is kept. Ordered, so that changes of one bucket lie together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) class: Class,
    pub(super) bucket: u16,
    pub(super) key: Vec<u8>,
}

impl Place {
    /// Returns the place of a module version. All versions of a module share a bucket, where the path is written once.
    pub(super) fn of_version(version: &ModuleVersion) -> Self {
        let key = format!("{version}").into_bytes();
        Self { class: Class::Version, bucket: version_bucket(version.path().as_str()), key }
    }

    /// Returns the place of what is known of `resource`, or `None` if its path is too long to be remembered.
    pub(super) fn of_resource(class: Class, resource: &Resource) -> Option<Self> {
        let key = resource.path().into_bytes();
        let mut hasher = Fnv::default();
        hasher.write(&key);
        (key.len() <= KEY_BYTES_MAX).then(|| Self { class, bucket: hasher.bucket(class), key })
    }
}

/// Returns the bucket of a module's versions.
pub(super) fn version_bucket(module_path: &str) -> u16 {
    let mut hasher = Fnv::default();
    hasher.write(module_path.as_bytes());
    hasher.bucket(Class::Version)
}

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The record becomes these bytes.
    Put(Vec<u8>),
    /// More is known of a version.
    Version(VersionChange),
    /// The record goes.
    Remove,
}

/// What is newly known of a version; fields left at their default say nothing new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct VersionChange {
    pub(super) entry: VersionEntry,
    /// When nothing is known of its use: this.
    pub(super) used_if_unknown: Option<UnixSeconds>,
    /// What was known before has been removed.
    pub(super) replaces: bool,
}

impl Change {
    /// Returns the two changes as one, `self` being the earlier.
    pub(super) fn then(self, later: Self) -> Self {
        match (self, later) {
            (_, Self::Version(later)) if later.replaces => Self::Version(later),
            (Self::Version(earlier), Self::Version(later)) => Self::Version(VersionChange {
                entry: overlaid(earlier.entry, later.entry),
                used_if_unknown: earlier.used_if_unknown.max(later.used_if_unknown),
                replaces: earlier.replaces,
            }),
            (Self::Remove, Self::Version(later)) => Self::Version(VersionChange { replaces: true, ..later }),
            (_, later) => later,
        }
    }
}

impl VersionChange {
    /// Returns what is known after this change.
    pub(super) fn apply(self, before: Option<VersionEntry>) -> Option<VersionEntry> {
        let before = before.filter(|_| !self.replaces);
        let is_only_judged = self.entry.file_count() == 0;
        if before.is_none() && is_only_judged {
            // A judgement of files that are not there says nothing.
            return None;
        }
        let mut after = overlaid(before.unwrap_or_default(), self.entry);
        if after.last_used == UnixSeconds(0) {
            after.last_used = self.used_if_unknown.unwrap_or_default();
        }
        Some(after)
    }
}

/// Returns `before` with all that `later` knows better.
fn overlaid(before: VersionEntry, later: VersionEntry) -> VersionEntry {
    VersionEntry {
        info_bytes: later.info_bytes.or(before.info_bytes),
        mod_bytes: later.mod_bytes.or(before.mod_bytes),
        zip_bytes: later.zip_bytes.or(before.zip_bytes),
        fetched: later.fetched.or(before.fetched),
        last_used: later.last_used.max(before.last_used),
        h1: later.h1.or(before.h1),
        verdict: if later.verdict == Verdict::Unverifiable { before.verdict } else { later.verdict },
        upstream: later.upstream.or(before.upstream),
    }
}

/// FNV-1a, 64 bits: buckets on disk depend on it, so it is written out here and never changes with a toolchain.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Fnv {
    /// Returns which bucket of a class the hashed key goes to, from the upper half, which FNV mixes better.
    pub(super) fn bucket(&self, class: Class) -> u16 {
        let folded = (self.0 >> 32) ^ (self.0 >> 48);
        u16::try_from(folded & u64::from(class.buckets() - 1)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(at: u64) -> VersionEntry {
        VersionEntry { zip_bytes: Some(9), last_used: UnixSeconds(at), ..VersionEntry::default() }
    }

    /// Later knowledge wins, silence says nothing, use only moves forward, and adoption fills gaps only.
    #[test]
    fn changes_merge() {
        let judged = VersionEntry { verdict: Verdict::Verified, h1: Some([1; 32]), ..VersionEntry::default() };
        let judged = VersionChange { entry: judged, ..VersionChange::default() };
        assert_eq!(judged.clone().apply(None), None);
        let after = judged.apply(Some(used(50))).unwrap();
        assert_eq!((after.verdict, after.zip_bytes, after.last_used), (Verdict::Verified, Some(9), UnixSeconds(50)));

        let found = VersionEntry { info_bytes: Some(1), ..VersionEntry::default() };
        let found = VersionChange { entry: found, used_if_unknown: Some(UnixSeconds(99)), replaces: false };
        assert_eq!(found.clone().apply(Some(used(50))).unwrap().last_used, UnixSeconds(50));
        assert_eq!(found.clone().apply(None).unwrap().last_used, UnixSeconds(99));

        let again = Change::Remove.then(Change::Version(found));
        let Change::Version(again) = again else { panic!("{again:?}") };
        assert_eq!(again.apply(Some(used(50))).unwrap().zip_bytes, None);
    }

    /// The buckets of names that differ little are spread evenly.
    #[test]
    fn buckets_are_even() {
        let mut counts = vec![0_u32; usize::from(Class::Version.buckets())];
        for number in 0..327_680 {
            counts[usize::from(version_bucket(&format!("example.com/owner/module{number}")))] += 1;
        }
        // Forty are expected; a fair spread leaves less than one bucket in a million above 75.
        assert!(counts.iter().all(|&count| count < 90), "{:?}", counts.iter().max());
    }
}
