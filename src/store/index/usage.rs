//! When module versions were last used, in memory until it is worth a write.
//!
//! Owns the table of recent uses. Called by [`super::Index`]; pure. A use is one lock and one entry of twelve bytes:
//! the version's bucket and 32 bits of its hash stand for it. Two versions of one bucket share them once in four
//! billion times; one of them then looks used longer than it was.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

use super::change::{Fnv, version_bucket};
use crate::clock::UnixSeconds;
use crate::module::ModuleVersion;

/// How many versions are remembered between two writes; further ones wait for their next use after it. 1 MB at most.
const USES_MAX: usize = 32_768;

/// From time to time a use is written when it moves the stored time by this much; before a removal and at a stop, which
/// are rare, each one that moves it at all.
pub(super) const USE_GRAIN_S: u64 = 3600;

type Uses = HashMap<u64, u32, BuildHasherDefault<Mix>>;

/// The table.
#[derive(Default)]
pub(super) struct Usage {
    uses: Mutex<Uses>,
}

impl Usage {
    /// Enters a use.
    pub(super) fn touch(&self, version: &ModuleVersion, now: UnixSeconds) {
        let mark = mark_of(version.path().as_str(), version.version().as_str());
        let now = u32::try_from(now.0).unwrap_or(u32::MAX);
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = uses.get_mut(&mark) {
            *last = now.max(*last);
        } else if uses.len() < USES_MAX {
            uses.insert(mark, now);
        }
    }

    /// Returns the last use in the table, or zero.
    pub(super) fn last_used(&self, version: &ModuleVersion) -> UnixSeconds {
        let mark = mark_of(version.path().as_str(), version.version().as_str());
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        UnixSeconds(uses.get(&mark).copied().unwrap_or_default().into())
    }

    /// Says whether the table should be written soon.
    pub(super) fn is_half_full(&self) -> bool {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).len() > USES_MAX / 2
    }

    /// Takes all uses out, in the order of their buckets.
    pub(super) fn take(&self) -> Vec<(u64, u32)> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        let mut uses: Vec<(u64, u32)> = uses.into_iter().collect();
        uses.sort_unstable();
        uses
    }
}

/// Returns what stands for a version in the table: its bucket in the upper half, 32 bits of its hash in the lower.
pub(super) fn mark_of(path: &str, version: &str) -> u64 {
    let mut hasher = Fnv::default();
    hasher.write(path.as_bytes());
    hasher.write(b"@");
    hasher.write(version.as_bytes());
    let hash = hasher.finish();
    u64::from(version_bucket(path)) << 32 | ((hash ^ (hash >> 32)) & u64::from(u32::MAX))
}

/// Returns the bucket of a mark.
pub(super) fn bucket_of(mark: u64) -> u16 {
    u16::try_from(mark >> 32).unwrap_or_default()
}

/// Spreads marks, which are hashes already, over the table.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A use is remembered until it is taken, never goes back, and the table is bounded.
    #[test]
    fn uses_are_kept_and_bounded() {
        let usage = Usage::default();
        let version = ModuleVersion::parse("example.com/m@v1.0.0").unwrap();
        usage.touch(&version, UnixSeconds(70));
        usage.touch(&version, UnixSeconds(60));
        assert_eq!(usage.last_used(&version), UnixSeconds(70));
        assert_eq!(usage.take(), [(mark_of("example.com/m", "v1.0.0"), 70)]);
        assert_eq!(usage.last_used(&version), UnixSeconds(0));
        for number in 0..USES_MAX + 10 {
            let version = ModuleVersion::parse(&format!("example.com/m@v1.0.{number}")).unwrap();
            usage.touch(&version, UnixSeconds(80));
        }
        assert!(usage.is_half_full());
        assert!(usage.take().len() <= USES_MAX);
    }
}
