//! What an audit has seen: a set on the disk that finds two records of one module version with different hashes.
//!
//! Owns `ROOT/.larder/audit/NAME/`, NAME with its slashes as `@`. Called by the audit, from the blocking pool; calls
//! [`durable`], [`run`], [`manifest`]. Invariants: the manifest is replaced in one step and names all that is true: the
//! runs, how far they reach and the caller's own state, so that both are always of the same moment; what it does not name
//! is left over from a crash and swept at the next opening. Memory has a bound that does not depend on the number of
//! records ([`MEMORY_BYTES_MAX`]). Source: O'Neil et al., "The log-structured merge-tree"; the runs are a counter of base
//! [`FAN_IN`].
//!
//! ```text
//! add   ─► in memory, up to ENTRIES_MAX
//! save  ─► sorted, a run of level 0; manifest                     ┐ 72 million records: 1.5 GB, each entry
//!          8 runs of a level ─► merged to one of the next; …      ┘ written about five times
//! settle ─► all runs read side by side, nothing written but what was found
//! ```
//!
//! Entries hold 80 bits of a module version's hash and 48 bits of its lines' hash. Both begin with a salt that nobody else
//! knows: else a database could choose two hashes for a module that look like one here, after some million attempts.
//! Two entries of one key in one set by mere chance: one in a billion, for 72 million records.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::durable;
use crate::sumdb::SumdbName;

mod manifest;
mod run;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests damage the files they read")]
mod tests;

use manifest::Manifest;
use run::{Distinct, Entry, Run, Writer};

/// How many entries are gathered before a [`Seen::save`] is due.
pub const ENTRIES_MAX: usize = 100_000;
/// How many more there may be until it is done: more than one data tile can have.
pub const ENTRIES_SPARE: usize = 50_000;
/// How many runs of a level become one of the next.
pub const FAN_IN: usize = 8;
/// How much of all runs together is in memory while they are merged.
pub const READ_BYTES: usize = 2 << 20;
/// How many conflicts are kept. One is an alarm.
pub const CONFLICTS_MAX: usize = 1000;
/// The bound of all memory a set uses, whatever it holds.
pub const MEMORY_BYTES_MAX: usize =
    (ENTRIES_MAX + ENTRIES_SPARE) * run::ENTRY_BYTES + READ_BYTES + run::WRITE_BYTES + 100 * CONFLICTS_MAX;

const SALT_BYTES: usize = 16;

/// Why the set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// The disk did not do what was asked.
    #[error(transparent)]
    Disk(#[from] super::Error),
    /// A file is not as it was written: the audit must begin anew, with [`Seen::remove`].
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: String,
    },
    /// More was added than there is room for without a save.
    #[error("{entries} entries without a save")]
    Full {
        /// How many there are.
        entries: usize,
    },
    /// A record's number has more than 40 bits.
    #[error("record {number} has too large a number")]
    Number {
        /// The number.
        number: u64,
    },
}

/// Two records of one module version with different hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The number of the first record of this module version.
    pub first: u64,
    /// The number of the one that differs.
    pub second: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records that contradict each other, at most [`CONFLICTS_MAX`]: of each module version, the first one and those that
    /// differ from it or from each other.
    pub conflicts: BTreeSet<Conflict>,
    /// How many records say again what another one said: no alarm.
    pub repetitions: u64,
}

/// The set of one database.
#[derive(Debug)]
pub struct Seen {
    own_folder: PathBuf,
    folder: PathBuf,
    bounds: Bounds,
    manifest: Manifest,
    fresh: Vec<Entry>,
}

/// Smaller ones in tests.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    entries_max: usize,
    entries_spare: usize,
    fan_in: usize,
    read_bytes: usize,
}

const BOUNDS: Bounds =
    Bounds { entries_max: ENTRIES_MAX, entries_spare: ENTRIES_SPARE, fan_in: FAN_IN, read_bytes: READ_BYTES };

impl SeenError {
    fn at(path: &Path, source: io::Error) -> Self {
        Self::Disk(super::Error::at(&path.display().to_string(), source))
    }

    fn damaged(path: &Path) -> Self {
        Self::Damaged { path: path.display().to_string() }
    }
}

impl Findings {
    fn conflict(&mut self, one: u64, other: u64) {
        if self.conflicts.len() < CONFLICTS_MAX {
            self.conflicts.insert(Conflict { first: one.min(other), second: one.max(other) });
        }
    }
}

impl Seen {
    /// Opens the set of a database, or begins one. `own_folder` is `ROOT/.larder`, whose lock the caller holds.
    ///
    /// # Errors
    /// [`SeenError::Damaged`], or what the system says.
    pub fn open(own_folder: &Path, name: &SumdbName) -> Result<Self, SeenError> {
        Self::open_with(own_folder, name, BOUNDS)
    }

    fn open_with(own_folder: &Path, name: &SumdbName, bounds: Bounds) -> Result<Self, SeenError> {
        let folder = folder_of(own_folder, name);
        durable::make_folders(&folder).map_err(|err| SeenError::at(&folder, err))?;
        let manifest = match Manifest::read(&folder)? {
            Some(manifest) => manifest,
            None => Manifest { salt: salt().map_err(|err| SeenError::at(&folder, err))?, ..Manifest::default() },
        };
        sweep(&folder, &manifest.runs).map_err(|err| SeenError::at(&folder, err))?;
        for run in &manifest.runs {
            let path = run.path(&folder);
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.len() == run.entries * run::ENTRY_BYTES as u64 => {}
                Ok(_) => return Err(SeenError::damaged(&path)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(SeenError::damaged(&path)),
                Err(err) => return Err(SeenError::at(&path, err)),
            }
        }
        // All of it at once, since a vector that grows is there twice for a moment.
        let fresh = Vec::with_capacity(bounds.entries_max + bounds.entries_spare);
        Ok(Self { own_folder: own_folder.to_owned(), folder, bounds, manifest, fresh })
    }

    /// Removes the set of a database, so that the next one begins empty.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(own_folder: &Path, name: &SumdbName) -> Result<(), SeenError> {
        let folder = folder_of(own_folder, name);
        // The manifest first: without it the runs are left over, whereas the other way round it would name what is gone.
        let removed = durable::remove_file(&folder.join(manifest::FILE)).and_then(|_| durable::remove_folder(&folder));
        removed.map_err(|err| SeenError::at(&folder, err))
    }

    /// Returns how far the saved records reach: the number of the next one to add.
    pub fn reach(&self) -> u64 {
        self.manifest.reach
    }

    /// Returns the caller's text of the last save; empty for a new set.
    pub fn state(&self) -> &str {
        &self.manifest.state
    }

    /// Adds what a record says of a module version: `lines` sorted and each once, as in `sumdb::follow`.
    ///
    /// # Errors
    /// [`SeenError::Full`] once [`Seen::is_full`] has been ignored for too long; [`SeenError::Number`].
    pub fn add(&mut self, number: u64, module_version: &str, lines: &[&str]) -> Result<(), SeenError> {
        if self.fresh.len() >= self.bounds.entries_max + self.bounds.entries_spare {
            return Err(SeenError::Full { entries: self.fresh.len() });
        }
        let mut key = Context::new(&SHA256);
        key.update(&self.manifest.salt);
        key.update(&[0]);
        key.update(module_version.as_bytes());
        let mut value = Context::new(&SHA256);
        value.update(&self.manifest.salt);
        value.update(&[1]);
        for line in lines {
            value.update(line.as_bytes());
            value.update(b"\n");
        }
        let entry = Entry::new(key.finish().as_ref(), number, value.finish().as_ref());
        self.fresh.push(entry.ok_or(SeenError::Number { number })?);
        Ok(())
    }

    /// Says whether a save is due.
    pub fn is_full(&self) -> bool {
        self.fresh.len() >= self.bounds.entries_max
    }

    /// Forgets what was added since the last save, because it turned out not to be true.
    pub fn forget_unsaved(&mut self) {
        self.fresh.clear();
    }

    /// Saves what was added, with the caller's `state`, in one step: records below `reach` are in the set from then on.
    /// Then merges what is due, unless `is_cancelled`.
    ///
    /// # Errors
    /// What the system says, or [`SeenError::Damaged`]. Either all is saved or nothing, and [`Seen::reach`] tells which.
    pub fn save(&mut self, reach: u64, state: &str, is_cancelled: &dyn Fn() -> bool) -> Result<(), SeenError> {
        let mut next = self.manifest.clone();
        if !self.fresh.is_empty() {
            self.fresh.sort_unstable();
            let run = self.write_fresh(&mut next.findings).map_err(|err| SeenError::at(&self.folder, err))?;
            next.runs.push(run);
        }
        next.next = self.manifest.next;
        next.reach = reach;
        state.clone_into(&mut next.state);
        next.write(&self.own_folder, &self.folder)?;
        self.manifest = next;
        self.fresh.clear();
        while let Some(level) = self.level_to_merge() {
            if !self.merge(level, is_cancelled)? {
                break;
            }
        }
        Ok(())
    }

    /// Compares all runs with each other and returns what was found in the whole set; nothing is found finally before.
    /// None if `is_cancelled`.
    ///
    /// # Errors
    /// What the system says, or [`SeenError::Damaged`].
    pub fn settle(&mut self, is_cancelled: &dyn Fn() -> bool) -> Result<Option<Findings>, SeenError> {
        let mut found = self.manifest.findings.clone();
        if let Some((reach, repetitions)) = self.manifest.settled
            && reach == self.manifest.reach
        {
            found.repetitions = repetitions;
            return Ok(Some(found));
        }
        let (runs, read_bytes) = (&self.manifest.runs, self.bounds.read_bytes);
        if !run::merge(runs, &self.folder, read_bytes, &mut found, is_cancelled, |_| Ok(()))? {
            return Ok(None);
        }
        let mut next = self.manifest.clone();
        // The runs stay as they are, so their repetitions will be found again when they are merged; conflicts are known
        // by their numbers.
        next.findings.conflicts.clone_from(&found.conflicts);
        next.settled = Some((next.reach, found.repetitions));
        next.write(&self.own_folder, &self.folder)?;
        self.manifest = next;
        Ok(Some(found))
    }

    /// Returns what is known so far, without comparing anything.
    pub fn findings(&self) -> &Findings {
        &self.manifest.findings
    }

    /// Returns how many entries are saved, and in how many runs.
    pub fn entries_and_runs(&self) -> (u64, usize) {
        (self.manifest.runs.iter().map(|run| run.entries).sum(), self.manifest.runs.len())
    }

    fn write_fresh(&mut self, findings: &mut Findings) -> io::Result<Run> {
        let id = self.next_id();
        let mut writer = Writer::new(&self.folder, id, 0)?;
        let mut distinct = Distinct::default();
        for entry in &self.fresh {
            if distinct.is_first(*entry, findings) {
                writer.push(entry)?;
            }
        }
        writer.finish(&self.folder)
    }

    /// Returns the lowest level that has as many runs as make one of the next.
    fn level_to_merge(&self) -> Option<u32> {
        let runs = &self.manifest.runs;
        let is_due = |level: &u32| runs.iter().filter(|run| run.level == *level).count() >= self.bounds.fan_in;
        runs.iter().map(|run| run.level).filter(is_due).min()
    }

    /// Makes one run of those of a level; false if it was cancelled.
    fn merge(&mut self, level: u32, is_cancelled: &dyn Fn() -> bool) -> Result<bool, SeenError> {
        let mut next = self.manifest.clone();
        let (old, rest): (Vec<Run>, Vec<Run>) = next.runs.iter().partition(|run| run.level == level);
        let (folder, id) = (self.folder.clone(), self.next_id());
        let mut writer = Writer::new(&folder, id, level + 1).map_err(|err| SeenError::at(&folder, err))?;
        let mut keep = |entry: &Entry| writer.push(entry).map_err(|err| SeenError::at(&folder, err));
        if !run::merge(&old, &folder, self.bounds.read_bytes, &mut next.findings, is_cancelled, &mut keep)? {
            writer.discard();
            return Ok(false);
        }
        next.runs = rest;
        next.runs.push(writer.finish(&folder).map_err(|err| SeenError::at(&folder, err))?);
        next.next = self.manifest.next;
        next.write(&self.own_folder, &self.folder)?;
        self.manifest = next;
        for run in old {
            let path = run.path(&self.folder);
            step().and_then(|()| durable::remove_file(&path)).map_err(|err| SeenError::at(&path, err))?;
        }
        Ok(true)
    }

    /// Returns an id that no run has, nor one that failed to be written.
    fn next_id(&mut self) -> u64 {
        self.manifest.next += 1;
        self.manifest.next
    }
}

fn folder_of(own_folder: &Path, name: &SumdbName) -> PathBuf {
    own_folder.join("audit").join(name.as_str().replace('/', "@"))
}

fn salt() -> io::Result<[u8; SALT_BYTES]> {
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(salt)
}

/// Removes what a crash left over: every file that the manifest does not name.
fn sweep(folder: &Path, runs: &[Run]) -> io::Result<()> {
    let named: BTreeSet<PathBuf> = runs.iter().map(|run| run.path(folder)).collect();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|extension| extension == "run" || extension == "tmp");
        if is_ours && !named.contains(&path) {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}

/// A moment in which the power may fail. In tests it does: every step of a change to the disk is followed by one.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "it fails in tests")]
fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
use tests::step;
