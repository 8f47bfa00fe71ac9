//! Removes what has not been used for long, or what there is no room for.
//!
//! Owns [`Run`]. Called by `app` (at intervals) and by the command gc (also as a dry run); calls the index, the pins
//! and the tree. The unit is a module version: `.info`, `.mod`, `.zip` and `.ziphash` go together.
//!
//! - By age since the last use, only while the clock is trusted. A stamp that no right clock can have made (before
//!   `CLOCK_FLOOR`, or ahead of now) counts as now, and is rewritten once the clock is trusted.
//! - By total size and by free space: least recently used first, to the second for the last two hours and to the hour
//!   before, until enough is gone. When all versions that may go are gone and it is not enough, lists, query answers,
//!   lookups and tiles follow, in no order: they are small, and asked for again at the price of one request. A list
//!   also goes with the last version of its module.
//! - Never what is pinned or busy, asked again just before each removal, nor what was used since the run began.
//!
//! A crash in the middle leaves a right tree: the zip goes first, then `.ziphash`, `.mod`, `.info`, so that what
//! remains are files of a version that are right by themselves; then the entry, then empty folders. An entry that
//! outlives its files is dropped by the next run that comes to it.
//!
//! A run does nothing before the index knows the whole tree ([`Index::is_whole`]): it would take the part for all.
//!
//! Memory: two passes over the index. The first sums up the bytes by the time of their last use, which is some ten
//! thousand numbers a year, however many files there are; the second removes what lies before the time that follows
//! from it.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::durable;
use super::index::{Index, Totals, VersionEntry};
use super::pins::Pins;
use super::walk;
use crate::clock::{CLOCK_FLOOR, Clock, UnixSeconds};
use crate::module::{ModulePath, ModuleVersion};
use crate::resource::{ArtifactKind, Resource};

/// A run gives up after so many files that could not be removed.
const FAILURES_MAX: u32 = 16;

/// A stamp this far ahead of a trusted clock was made by a wrong one.
const AHEAD_MAX_S: u64 = 24 * 3600;

const HOUR_S: u64 = 3600;
/// For so long a use is known to the second; before that to the hour, which bounds what the first pass remembers.
const EXACT_S: u64 = 2 * HOUR_S;

/// When something has to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What was not used for longer goes.
    pub age_max: Option<Duration>,
    /// All files together have at most this many bytes.
    pub cache_bytes_max: Option<u64>,
    /// At least this many bytes stay free on the file system.
    pub free_bytes_min: u64,
}

/// Whether to remove or to tell only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Tells what would go.
    DryRun,
    /// Removes it.
    Remove,
}

/// Why something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was not used for long.
    Age,
    /// The cache is too large, or the disk too full.
    Room,
}

/// One version that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The version.
    pub version: ModuleVersion,
    /// The bytes of its files.
    pub bytes: u64,
    /// When it was last used.
    pub last_used: UnixSeconds,
    /// Why it goes.
    pub reason: Reason,
}

/// What a run has done, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many versions went.
    pub versions: u64,
    /// Files and bytes that went, lists and tiles included.
    pub removed: Totals,
    /// What was stored before.
    pub before: Totals,
    /// The bytes that had to go for the size and space rules.
    pub needed_bytes: u64,
    /// How many versions stayed because they are pinned or busy.
    pub kept_versions: u64,
    /// How many files could not be removed.
    pub failures: u32,
    /// Nothing was done, since the index does not know the whole tree yet.
    pub is_index_incomplete: bool,
    /// Age was not looked at, since the clock shows an impossible time.
    pub is_clock_wrong: bool,
}

/// One run over a cache directory.
pub struct Run<'a> {
    /// The cache directory.
    pub root: &'a Path,
    /// Its index.
    pub index: &'a Index,
    /// What must stay.
    pub pins: &'a Pins,
    /// The time.
    pub clock: &'a Clock,
    /// Whether a version is being fetched or must stay for another reason right now.
    pub is_busy: &'a dyn Fn(&ModuleVersion) -> bool,
    /// Whether to stop.
    pub is_cancelled: &'a dyn Fn() -> bool,
}

/// The time of a run.
#[derive(Clone, Copy)]
struct Times {
    now: UnixSeconds,
    /// The same, if it can be believed.
    trusted: Option<UnixSeconds>,
}

/// What the first pass has found out.
struct Plan {
    now: UnixSeconds,
    is_clock_right: bool,
    /// What was last used before goes by age.
    oldest: Option<UnixSeconds>,
    /// What was last used earlier goes for room.
    cutoff: u64,
    /// How much of what was used at the cutoff itself goes.
    cutoff_bytes: u64,
}

impl Run<'_> {
    /// Removes what the limits say, or only tells it; calls `each` for every version that goes. For the blocking pool.
    /// Logs one line.
    ///
    /// # Errors
    /// The free space cannot be found out. Files that cannot be removed are counted in the report.
    pub fn run(&self, limits: Limits, mode: Mode, each: &mut dyn FnMut(&Removal)) -> io::Result<Report> {
        let times = Times { now: self.clock.now(), trusted: self.clock.trusted_now() };
        self.run_at(times, limits, mode, each)
    }

    fn run_at(&self, times: Times, limits: Limits, mode: Mode, each: &mut dyn FnMut(&Removal)) -> io::Result<Report> {
        let began = self.clock.steady();
        if !self.index.is_whole() {
            log::debug!("no housekeeping before the tree has been read");
            return Ok(Report { is_index_incomplete: true, ..Report::default() });
        }
        // What waits to be written is not in the totals yet.
        self.index.maintain();
        let mut report = Report { before: self.index.totals(), ..Report::default() };
        report.needed_bytes = needed_bytes(report.before.bytes, free_bytes(self.root)?, limits);
        let mut plan = self.plan(times, limits, mode, &mut report);
        let is_done = self.remove_versions(&mut plan, mode, &mut report, each);
        if is_done && report.removed.bytes < report.needed_bytes && mode == Mode::Remove {
            self.remove_small_files(&mut report)?;
        }
        self.index.maintain();
        log_report(&report, mode, self.clock.steady().duration_since(began));
        Ok(report)
    }

    /// The first pass: sums up what could go by the time of its last use, and mends impossible stamps.
    fn plan(&self, times: Times, limits: Limits, mode: Mode, report: &mut Report) -> Plan {
        let Times { now, trusted } = times;
        report.is_clock_wrong = trusted.is_none() && limits.age_max.is_some();
        let oldest = trusted.zip(limits.age_max).map(|(now, age)| UnixSeconds(now.0.saturating_sub(age.as_secs())));
        let mut plan = Plan { now, is_clock_right: trusted.is_some(), oldest, cutoff: 0, cutoff_bytes: 0 };
        let mut by_time: BTreeMap<u64, u64> = BTreeMap::new();
        let mut aged_bytes = 0;
        self.index.scan_versions(|version, entry| {
            let last_used = plan.last_used(&entry);
            if last_used != Some(entry.last_used) && plan.is_clock_right && mode == Mode::Remove {
                self.index.restamp(&version, now);
            }
            if self.must_stay(&version) {
                report.kept_versions += 1;
            } else if plan.is_too_old(last_used) {
                aged_bytes += entry.total_bytes();
            } else {
                *by_time.entry(plan.slot_of(last_used)).or_default() += entry.total_bytes();
            }
            if (self.is_cancelled)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let mut missing = report.needed_bytes.saturating_sub(aged_bytes);
        for (slot, bytes) in by_time {
            if missing == 0 {
                break;
            }
            (plan.cutoff, plan.cutoff_bytes) = (slot, missing);
            missing = missing.saturating_sub(bytes);
        }
        plan
    }

    /// The second pass. Returns whether it has seen every version.
    fn remove_versions(
        &self,
        plan: &mut Plan,
        mode: Mode,
        report: &mut Report,
        each: &mut dyn FnMut(&Removal),
    ) -> bool {
        self.index.scan_versions(|version, entry| {
            if (self.is_cancelled)() || report.failures >= FAILURES_MAX {
                return ControlFlow::Break(());
            }
            let Some(reason) = plan.reason(&entry) else {
                return ControlFlow::Continue(());
            };
            if self.must_stay(&version) || self.index.recent_use(&version) >= plan.now {
                return ControlFlow::Continue(());
            }
            let bytes = entry.total_bytes();
            if mode == Mode::Remove
                && let Err(err) = self.remove_version(&version, reason, report)
            {
                report.failures += 1;
                log::warn!("{version}: cannot be removed: {err}");
                return ControlFlow::Continue(());
            }
            plan.spend(&entry, reason);
            report.versions += 1;
            report.removed.files += entry.file_count();
            report.removed.bytes += bytes;
            each(&Removal { version, bytes, last_used: entry.last_used, reason });
            ControlFlow::Continue(())
        })
    }

    fn must_stay(&self, version: &ModuleVersion) -> bool {
        self.pins.matches(version) || (self.is_busy)(version)
    }

    fn remove_version(&self, version: &ModuleVersion, reason: Reason, report: &mut Report) -> io::Result<()> {
        let file = |kind| self.root.join(Resource::Artifact(version.clone(), kind).path());
        let zip = file(ArtifactKind::Zip);
        durable::remove_file(&zip)?;
        // What the go command leaves beside a zip goes with it, or the folder would never be empty.
        for extension in ["ziphash", "lock"] {
            durable::remove_file(&zip.with_extension(extension))?;
        }
        durable::remove_file(&file(ArtifactKind::Mod))?;
        durable::remove_file(&file(ArtifactKind::Info))?;
        self.index.forget_version(version);
        if reason == Reason::Room {
            self.remove_lists(version.path(), report)?;
        }
        if let Some(folder) = zip.parent() {
            durable::remove_empty_folders(folder, self.root);
        }
        Ok(())
    }

    /// Removes the list and the query answers of a module of which no version is left.
    fn remove_lists(&self, path: &ModulePath, report: &mut Report) -> io::Result<()> {
        let prefix = path.escaped().as_str().to_owned();
        let folder = self.root.join(&prefix).join("@v");
        let mut answers = vec![Resource::Latest(path.clone())];
        for entry in std::fs::read_dir(&folder)? {
            let name = entry?.file_name();
            match name.to_str().map(|name| Resource::parse(&format!("{prefix}/@v/{name}"))) {
                Some(Ok(Resource::Artifact(..))) => return Ok(()),
                Some(Ok(resource)) => answers.push(resource),
                Some(Err(_)) | None => {}
            }
        }
        if self.pins.concerns(path) {
            return Ok(());
        }
        for resource in answers {
            self.remove_small_file(&resource, report)?;
        }
        Ok(())
    }

    /// The last resort: lists, query answers, lookups and tiles, until enough has gone.
    fn remove_small_files(&self, report: &mut Report) -> io::Result<()> {
        let is_done = walk::files(self.root, self.clock, self.is_cancelled, |found| {
            if report.removed.bytes >= report.needed_bytes || report.failures >= FAILURES_MAX {
                return ControlFlow::Break(());
            }
            let Ok(resource) = Resource::parse(found.relative) else {
                return ControlFlow::Continue(());
            };
            let may_go = match &resource {
                Resource::List(path) | Resource::Latest(path) | Resource::Query(path, _) => !self.pins.concerns(path),
                Resource::SumdbLookup(..) | Resource::SumdbTile(..) => true,
                // A database's newest head is never given up; the rest costs nothing.
                Resource::Artifact(..) | Resource::SumdbSupported(_) | Resource::SumdbLatest(_) => false,
            };
            if may_go {
                if let Err(err) = self.remove_small_file(&resource, report) {
                    report.failures += 1;
                    log::warn!("{}: cannot be removed: {err}", found.relative);
                }
                if let Some(folder) = found.path.parent() {
                    durable::remove_empty_folders(folder, self.root);
                }
            }
            ControlFlow::Continue(())
        })?;
        log::debug!("all small files have been looked at: {is_done}");
        Ok(())
    }

    fn remove_small_file(&self, resource: &Resource, report: &mut Report) -> io::Result<()> {
        let path: PathBuf = self.root.join(resource.path());
        let Ok(metadata) = std::fs::metadata(&path) else {
            return Ok(());
        };
        durable::remove_file(&path)?;
        let bytes = metadata.len();
        if self.index.mutable(resource).is_some() {
            self.index.forget_mutable(resource);
        } else {
            self.index.count_other(-1, -i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        report.removed.files += 1;
        report.removed.bytes += bytes;
        Ok(())
    }
}

impl Plan {
    /// Returns when a version was last used, or `None` for now.
    fn last_used(&self, entry: &VersionEntry) -> Option<UnixSeconds> {
        let is_ahead = self.is_clock_right && entry.last_used.0 > self.now.0 + AHEAD_MAX_S;
        (entry.last_used >= CLOCK_FLOOR && !is_ahead).then_some(entry.last_used)
    }

    fn is_too_old(&self, last_used: Option<UnixSeconds>) -> bool {
        self.oldest.zip(last_used).is_some_and(|(oldest, last_used)| last_used < oldest)
    }

    fn reason(&self, entry: &VersionEntry) -> Option<Reason> {
        let last_used = self.last_used(entry);
        if self.is_too_old(last_used) {
            return Some(Reason::Age);
        }
        let slot = self.slot_of(last_used);
        (slot < self.cutoff || (slot == self.cutoff && self.cutoff_bytes > 0)).then_some(Reason::Room)
    }

    /// Returns the time that counts, coarser the longer ago it is; a wrong clock does not know when now is, but it is
    /// last.
    fn slot_of(&self, last_used: Option<UnixSeconds>) -> u64 {
        match last_used {
            Some(last_used) if self.now.since(last_used).as_secs() < EXACT_S => last_used.0,
            Some(last_used) => last_used.0 - last_used.0 % HOUR_S,
            None if self.is_clock_right => self.now.0,
            None => u64::MAX,
        }
    }

    /// Takes what goes at the cutoff off what is still to go in it.
    fn spend(&mut self, entry: &VersionEntry, reason: Reason) {
        if reason == Reason::Room && self.slot_of(self.last_used(entry)) == self.cutoff {
            self.cutoff_bytes = self.cutoff_bytes.saturating_sub(entry.total_bytes());
        }
    }
}

/// Returns how many bytes have to go for the size limit and the floor of free space.
fn needed_bytes(stored_bytes: u64, free_bytes: u64, limits: Limits) -> u64 {
    let for_size = limits.cache_bytes_max.map_or(0, |max| stored_bytes.saturating_sub(max));
    for_size.max(limits.free_bytes_min.saturating_sub(free_bytes))
}

/// Returns the free bytes of the file system that `path` is on, as far as Larder may use them.
///
/// # Errors
/// What the system says.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let statistics = rustix::fs::statvfs(path)?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

fn log_report(report: &Report, mode: Mode, took: Duration) {
    let done = match mode {
        Mode::DryRun => "housekeeping would remove",
        Mode::Remove => "housekeeping removed",
    };
    let Report { versions, removed, before, needed_bytes, kept_versions, failures, is_clock_wrong, .. } = report;
    let clock = if *is_clock_wrong { "; nothing by age, the clock is not set" } else { "" };
    let line = format!(
        "{done} {versions} module versions{clock}: files={} bytes={} stored_bytes={} kept={kept_versions} ms={}",
        removed.files,
        removed.bytes,
        before.bytes.saturating_sub(if mode == Mode::Remove { removed.bytes } else { 0 }),
        took.as_millis(),
    );
    if removed.bytes < *needed_bytes || *failures > 0 {
        log::warn!("{line} failures={failures}; {needed_bytes} bytes had to go for the limits");
    } else {
        log::info!("{line}");
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod tests;
