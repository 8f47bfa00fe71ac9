//! What is stored but could not be judged yet: why, where it came from, and who has got it.
//!
//! Owns the file `ROOT/.larder/unverified`. Called by `verify`, and by the server's side for who got what; calls
//! [`super::durable`]. Invariants: an artifact is in the file before it gets its name in the tree; a cut-off last line
//! is no line; what was left out is told ([`Unverified::is_incomplete`]); nothing here is asked for a hit while nothing is unverified, and nothing a hit asks waits for the disk.
//!
//! ```text
//! {"add":{"module":"a.example/m@v1.0.0","kind":"zip","reason":"…","upstream":"https://…","since":1800000000,"served":[],"more":0}}
//! {"served":{"module":"a.example/m@v1.0.0","kind":"zip","served":[["192.0.2.7",1800000009]],"more":0}}     since the line before
//! {"removed":{"module":"a.example/m@v1.0.0","kind":"zip"}}
//! ```
//! Lines are appended; a file that is over twice as long as what is left of it needs is replaced by just that. A lost
//! removal makes one file be judged once more; a lost line of who got what is the price of few writes.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Error, durable};
use crate::clock::UnixSeconds;
use crate::module::ModuleVersion;
use crate::resource::ArtifactKind;

mod state;

/// How many artifacts may be noted. One beyond is not, and found when all is verified.
pub const RECORDS_MAX: usize = 200_000;
/// Clients noted by name for one artifact; further ones are counted.
pub const CLIENTS_MAX: usize = 32;
/// A reason, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// A file is not replaced for less than this, in bytes.
const SLACK_BYTES: u64 = 64 * 1024;

/// What is noted with an artifact when it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Why it could not be judged.
    pub reason: String,
    /// Where it came from.
    pub upstream: String,
    /// When it came.
    pub since: UnixSeconds,
}

/// What is known of an artifact that could not be judged yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Why it could not be judged.
    pub reason: String,
    /// Where it came from.
    pub upstream: String,
    /// When it came.
    pub since: UnixSeconds,
    /// The clients that got it, each with the first time.
    pub served: Vec<(IpAddr, UnixSeconds)>,
    /// How often other clients got it.
    #[serde(rename = "more")]
    pub served_more: u64,
}

/// The journal of one cache directory.
#[derive(Debug)]
pub struct Unverified {
    own_folder: PathBuf,
    /// How many records there are, for those who must not wait.
    len: AtomicUsize,
    is_incomplete: AtomicBool,
    /// Held while the disk is written to; taken before `state`.
    journal: Mutex<Journal>,
    /// Never held while the disk is written to.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct Journal {
    /// Open for appending; none if the file has to be made, or replaced, before anything is appended to it.
    file: Option<File>,
    bytes: u64,
    /// Something could not be written, so that the file says less than it should.
    is_behind: bool,
    is_full_told: bool,
}

#[derive(Debug, Default)]
struct State {
    records: HashMap<Key, Kept>,
    /// Bytes of the lines that `records` need.
    live_bytes: u64,
    /// What the file does not say yet.
    removed: Vec<Key>,
    changed: BTreeSet<Key>,
    /// The file had more than may be noted.
    is_cut: bool,
}

#[derive(Debug)]
struct Kept {
    record: Record,
    tried: UnixSeconds,
    /// How many of the clients the file knows.
    served_written: usize,
    bytes: u64,
}

type Key = (ModuleVersion, ArtifactKind);

#[derive(Serialize, Deserialize)]
struct Name {
    module: String,
    kind: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Add {
        #[serde(flatten)]
        name: Name,
        #[serde(flatten)]
        record: Record,
    },
    Served {
        #[serde(flatten)]
        name: Name,
        served: Vec<(IpAddr, UnixSeconds)>,
        more: u64,
    },
    Removed(Name),
}

impl Unverified {
    /// Reads the journal of the cache directory `root`, and replaces it if it says more than is left of it. One with lines
    /// that make no sense stays until something is written, so that a crash does not hide that it had them.
    ///
    /// # Errors
    /// What the system says about reading. A journal that could only not be replaced is logged.
    pub fn load(root: &Path) -> Result<Self, Error> {
        let unverified = Self {
            own_folder: root.join(super::OWN),
            len: AtomicUsize::new(0),
            is_incomplete: AtomicBool::new(false),
            journal: Mutex::default(),
            state: Mutex::default(),
        };
        let path = unverified.path();
        let at = |err| Error::at(&path.display().to_string(), err);
        let file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(unverified),
            other => other.map_err(at)?,
        };
        let is_tidy = unverified.replay(BufReader::new(file)).map_err(at)?;
        let mut journal = unverified.lock_journal();
        if unverified.is_incomplete() {
            journal.is_behind = true;
        } else if is_tidy {
            journal.bytes = unverified.lock().live_bytes;
            journal.file = Some(OpenOptions::new().append(true).open(&path).map_err(at)?);
        } else if let Err(err) = unverified.rewrite(&mut journal) {
            log::warn!("{}: cannot be replaced by a shorter one: {err}", path.display());
        }
        drop(journal);
        Ok(unverified)
    }

    /// Applies every line. Returns whether the journal has no line too many and none that cannot be read.
    fn replay(&self, mut journal: impl io::BufRead) -> io::Result<bool> {
        let mut state = self.lock();
        let (mut is_tidy, mut unreadable) = (true, 0_u64);
        let mut line = Vec::new();
        loop {
            line.clear();
            if journal.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.pop_if(|last| *last == b'\n').is_none() {
                // The power went while it was written; nobody was told that it had been.
                is_tidy = false;
                break;
            }
            match serde_json::from_slice::<Line>(&line) {
                Ok(parsed) if parsed.key().is_some() => is_tidy &= state.apply(parsed, line.len() as u64 + 1),
                Ok(_) | Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            self.is_incomplete.store(true, Ordering::Release);
            log::warn!(
                "{}: {unreadable} lines make no sense; what they were about is not known to be unverified",
                self.path().display()
            );
        }
        if state.is_cut {
            self.is_incomplete.store(true, Ordering::Release);
        }
        self.len.store(state.records.len(), Ordering::Release);
        Ok(is_tidy && unreadable == 0)
    }

    /// Says whether all that is stored has been judged. Costs nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many artifacts have not been judged. Costs nothing.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Says whether something may be stored that was neither judged nor noted here: the list was full, or lines of it could
    /// not be read. Stays so until [`Unverified::begin_anew`]. Costs nothing.
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete.load(Ordering::Acquire)
    }

    /// Makes the list count as complete, because all that is stored is about to be looked at; what is left out from now on
    /// makes it incomplete again.
    pub fn begin_anew(&self) {
        self.is_incomplete.store(false, Ordering::Release);
    }

    /// Says whether this artifact has not been judged.
    pub fn contains(&self, version: &ModuleVersion, kind: ArtifactKind) -> bool {
        !self.is_empty() && self.lock().records.contains_key(&(version.clone(), kind))
    }

    /// Notes an artifact, durably, before it gets its name; for the blocking pool. One that is noted already gets the new
    /// reason and upstream, and keeps who got it. Beyond [`RECORDS_MAX`] nothing is noted, but that is logged, and told by
    /// [`Unverified::is_incomplete`].
    ///
    /// # Errors
    /// What the system says; the artifact is not noted then.
    pub fn add(&self, version: &ModuleVersion, kind: ArtifactKind, entry: Entry) -> io::Result<()> {
        let key = (version.clone(), kind);
        let mut journal = self.lock_journal();
        let Entry { mut reason, mut upstream, since } = entry;
        super::cut(&mut reason, TEXT_BYTES_MAX);
        super::cut(&mut upstream, TEXT_BYTES_MAX);
        let known = self.lock().records.get(&key).map(|kept| kept.record.clone());
        if self.len() < RECORDS_MAX {
            journal.is_full_told = false;
        } else if known.is_none() {
            self.is_incomplete.store(true, Ordering::Release);
            if !std::mem::replace(&mut journal.is_full_told, true) {
                log::error!(
                    "{RECORDS_MAX} files are noted as unverified; what comes now is not: larder verify finds it"
                );
            }
            return Ok(());
        }
        if known.is_some_and(|known| known.reason == reason && known.upstream == upstream) {
            return Ok(());
        }
        if journal.file.is_none() {
            self.rewrite(&mut journal)?;
        }
        let (mut content, record) = {
            let mut state = self.lock();
            let content = state.take_unwritten();
            let known = state.records.get(&key).map(|kept| kept.record.clone());
            let new =
                Record { reason: String::new(), upstream: String::new(), since, served: Vec::new(), served_more: 0 };
            (content, Record { reason, upstream, ..known.unwrap_or(new) })
        };
        let line = encode(&Line::Add { name: name_of(&key), record: record.clone() })?;
        content.extend_from_slice(&line);
        journal.append(&content)?;
        let is_long = {
            let mut state = self.lock();
            state.insert_written(&key, record, line.len() as u64);
            self.len.store(state.records.len(), Ordering::Release);
            state.is_outgrown_by(journal.bytes)
        };
        if is_long && let Err(err) = self.rewrite(&mut journal) {
            // What was to be noted is noted; the next one tries again.
            log::warn!("{}: cannot be replaced by a shorter one: {err}", self.path().display());
        }
        Ok(())
    }

    /// Notes that a client got an artifact that has not been judged; written at the next [`Unverified::flush`].
    pub fn served(&self, version: &ModuleVersion, kind: ArtifactKind, client: IpAddr, now: UnixSeconds) {
        if self.is_empty() {
            return;
        }
        let key = (version.clone(), kind);
        let mut state = self.lock();
        let Some(Kept { record, .. }) = state.records.get_mut(&key) else { return };
        if record.served.iter().any(|(known, _)| *known == client) {
            return;
        }
        if record.served.len() < CLIENTS_MAX {
            record.served.push((client, now));
        } else {
            record.served_more += 1;
        }
        state.changed.insert(key);
    }

    /// Forgets an artifact, because it has been judged or is gone; written at the next [`Unverified::flush`]. Returns what
    /// was known of it.
    pub fn remove(&self, version: &ModuleVersion, kind: ArtifactKind) -> Option<Record> {
        if self.is_empty() {
            return None;
        }
        let key = (version.clone(), kind);
        let mut state = self.lock();
        let kept = state.records.remove(&key)?;
        state.live_bytes = state.live_bytes.saturating_sub(kept.bytes);
        state.changed.remove(&key);
        state.removed.push(key);
        self.len.store(state.records.len(), Ordering::Release);
        Some(kept.record)
    }

    /// Returns at most `max` artifacts: those first whose last try is longest ago, and of these the oldest.
    pub fn list(&self, max: usize) -> Vec<(ModuleVersion, ArtifactKind, Record)> {
        self.due(max, |_, _| true)
    }

    /// Returns at most `max` artifacts that are due, in the order of [`Unverified::list`]. `is_due` is told what is known of one
    /// and when it was last tried.
    pub fn due(
        &self,
        max: usize,
        is_due: impl Fn(&Record, UnixSeconds) -> bool,
    ) -> Vec<(ModuleVersion, ArtifactKind, Record)> {
        let state = self.lock();
        let mut due: Vec<(&Key, &Kept)> =
            state.records.iter().filter(|(_, kept)| is_due(&kept.record, kept.tried)).collect();
        if due.len() > max {
            due.select_nth_unstable_by_key(max, |(key, kept)| (kept.tried, kept.record.since, *key));
            due.truncate(max);
        }
        due.sort_unstable_by_key(|(key, kept)| (kept.tried, kept.record.since, *key));
        due.into_iter().map(|((version, kind), kept)| (version.clone(), *kind, kept.record.clone())).collect()
    }

    /// Notes that an artifact was to be judged again and could not be. A restart forgets that.
    pub fn tried(&self, version: &ModuleVersion, kind: ArtifactKind, now: UnixSeconds) {
        if let Some(kept) = self.lock().records.get_mut(&(version.clone(), kind)) {
            kept.tried = now;
        }
    }

    /// Writes what has changed since the last time; for the blocking pool.
    ///
    /// # Errors
    /// What the system says; the next call writes all of it.
    pub fn flush(&self) -> io::Result<()> {
        let mut journal = self.lock_journal();
        let content = {
            let mut state = self.lock();
            if state.removed.is_empty() && state.changed.is_empty() && !journal.is_behind {
                return Ok(());
            }
            if journal.file.is_some() { Some(state.take_unwritten()) } else { None }
        };
        let is_whole = content.is_none();
        if let Some(content) = content {
            journal.append(&content)?;
        }
        if is_whole || self.lock().is_outgrown_by(journal.bytes) {
            self.rewrite(&mut journal)?;
        }
        Ok(())
    }

    /// Replaces the file by one that has just what is left.
    fn rewrite(&self, journal: &mut Journal) -> io::Result<()> {
        let content = self.lock().compact()?;
        // Until it is known what is on the disk, nothing can be appended to it.
        (journal.file, journal.is_behind) = (None, true);
        durable::replace_file(&self.own_folder, &self.path(), &content)?;
        journal.file = Some(OpenOptions::new().append(true).open(self.path())?);
        (journal.bytes, journal.is_behind) = (content.len() as u64, false);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.own_folder.join("unverified")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    fn append(&mut self, content: &[u8]) -> io::Result<()> {
        // Taken out, so that a file that may have half a line at its end is not appended to again.
        let Some(mut file) = self.file.take() else { return Err(io::ErrorKind::NotFound.into()) };
        self.is_behind = true;
        file.write_all(content)?;
        file.sync_data()?;
        self.bytes += content.len() as u64;
        (self.file, self.is_behind) = (Some(file), false);
        Ok(())
    }
}

impl Line {
    fn key(&self) -> Option<Key> {
        match self {
            Self::Add { name, .. } | Self::Served { name, .. } | Self::Removed(name) => key_of(name),
        }
    }
}

fn encode(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

fn name_of((version, kind): &Key) -> Name {
    Name { module: version.to_string(), kind: kind.to_string() }
}

fn key_of(name: &Name) -> Option<Key> {
    let kind = ArtifactKind::ALL.into_iter().find(|kind| kind.to_string() == name.kind)?;
    Some((ModuleVersion::parse(&name.module).ok()?, kind))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make the trees they need")]

    use super::*;
    use crate::store::testing::Tree;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const PATH: &str = ".larder/unverified";

    fn version(number: usize) -> ModuleVersion {
        ModuleVersion::parse(&format!("example.com/m@v1.0.{number}")).unwrap()
    }

    fn entry(reason: &str) -> Entry {
        Entry { reason: reason.to_owned(), upstream: "https://proxy.example".to_owned(), since: NOW }
    }

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn load(tree: &Tree) -> Unverified {
        Unverified::load(tree.root()).unwrap()
    }

    fn lines(tree: &Tree) -> usize {
        std::fs::read_to_string(tree.path(PATH)).unwrap().lines().count()
    }

    /// What was added is there after a kill, without a flush; who got it and what was removed, after a flush.
    #[test]
    fn records_are_a_file() {
        let tree = Tree::new();
        let unverified = load(&tree);
        assert!(unverified.is_empty() && !tree.has(PATH));
        unverified.add(&version(1), ArtifactKind::Zip, entry("out of reach")).unwrap();
        unverified.add(&version(1), ArtifactKind::Mod, entry("out of reach")).unwrap();
        unverified.served(&version(1), ArtifactKind::Zip, client(7), NOW);
        unverified.served(&version(1), ArtifactKind::Zip, client(7), UnixSeconds(NOW.0 + 9));
        unverified.served(&version(2), ArtifactKind::Zip, client(7), NOW);
        let served = vec![(client(7), NOW)];

        let killed = load(&tree);
        assert!(killed.len() == 2 && killed.contains(&version(1), ArtifactKind::Zip));
        assert!(!killed.contains(&version(1), ArtifactKind::Info));
        assert_eq!(killed.list(1)[0].2.served, []);
        unverified.flush().unwrap();
        assert_eq!(load(&tree).remove(&version(1), ArtifactKind::Zip).unwrap().served, served);
        assert_eq!(load(&tree).len(), 2);

        let unverified = load(&tree);
        let record = unverified.remove(&version(1), ArtifactKind::Zip).unwrap();
        assert_eq!((record.reason.as_str(), record.since, record.served), ("out of reach", NOW, served));
        assert_eq!(unverified.remove(&version(1), ArtifactKind::Zip), None);
        unverified.flush().unwrap();
        let unverified = load(&tree);
        assert!(unverified.len() == 1 && !unverified.contains(&version(1), ArtifactKind::Zip));
        unverified.remove(&version(1), ArtifactKind::Mod).unwrap();
        unverified.flush().unwrap();
        assert!(load(&tree).is_empty() && lines(&tree) == 0);
    }

    /// What is added again keeps who got it, and what was removed in between does not come back.
    #[test]
    fn added_again() {
        let tree = Tree::new();
        let unverified = load(&tree);
        let zip = ArtifactKind::Zip;
        unverified.add(&version(1), zip, entry("one")).unwrap();
        unverified.add(&version(1), zip, entry("one")).unwrap();
        assert_eq!(lines(&tree), 1);
        unverified.served(&version(1), zip, client(1), NOW);
        unverified.add(&version(1), zip, Entry { since: UnixSeconds(5), ..entry("two") }).unwrap();
        unverified.served(&version(1), zip, client(2), NOW);
        unverified.flush().unwrap();
        for unverified in [&unverified, &load(&tree)] {
            let record = unverified.list(9).remove(0).2;
            assert_eq!((record.reason.as_str(), record.since), ("two", NOW));
            assert_eq!(record.served, [(client(1), NOW), (client(2), NOW)]);
        }
        let unverified = load(&tree);
        unverified.remove(&version(1), zip).unwrap();
        unverified.add(&version(1), zip, entry("three")).unwrap();
        unverified.flush().unwrap();
        assert_eq!(load(&tree).list(9)[0].2, unverified.list(9)[0].2);
        assert_eq!(load(&tree).list(9)[0].2.served, []);
    }

    /// Wherever the last line is cut off, all lines before it count and nothing is appended to half a line.
    #[test]
    fn a_torn_line_is_dropped() {
        let tree = Tree::new();
        let unverified = load(&tree);
        for number in [1, 2] {
            unverified.add(&version(number), ArtifactKind::Mod, entry("out of reach")).unwrap();
        }
        let whole = std::fs::read(tree.path(PATH)).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in first..whole.len() {
            tree.put(PATH, &whole[..end]);
            let unverified = load(&tree);
            assert_eq!(unverified.len(), 1, "cut at {end}");
            unverified.add(&version(3), ArtifactKind::Mod, entry("out of reach")).unwrap();
            assert_eq!(load(&tree).len(), 2, "cut at {end}");
        }
        tree.put(PATH, [&whole[..first], &[0; 4096]].concat());
        assert_eq!(load(&tree).len(), 1);
        assert!(!load(&tree).is_incomplete());
    }

    /// A line that makes no sense costs none of the others, but the list is not complete then, nor after a crash before
    /// anything was written.
    #[test]
    fn unreadable_lines_are_told() {
        let nameless = "{\"removed\":{\"module\":\"-\",\"kind\":\"-\"}}\n";
        for damaged in ["{\"what\":1}\n", "\u{0}\u{0}\n", nameless] {
            let tree = Tree::new();
            load(&tree).add(&version(1), ArtifactKind::Mod, entry("out of reach")).unwrap();
            let whole = std::fs::read_to_string(tree.path(PATH)).unwrap();
            tree.put(PATH, format!("{damaged}{whole}"));
            assert!(load(&tree).is_incomplete());
            let unverified = load(&tree);
            assert!(unverified.is_incomplete() && unverified.len() == 1, "{damaged}");
            unverified.add(&version(2), ArtifactKind::Mod, entry("out of reach")).unwrap();
            assert!(unverified.is_incomplete());
            unverified.begin_anew();
            assert!(!unverified.is_incomplete());
            let unverified = load(&tree);
            assert_eq!((unverified.is_incomplete(), unverified.len(), lines(&tree)), (false, 2, 2));
        }
    }

    /// So many clients are noted by name, the others counted; a flush writes only what is new.
    #[test]
    fn clients_are_bounded() {
        let tree = Tree::new();
        let unverified = load(&tree);
        unverified.add(&version(1), ArtifactKind::Zip, entry("out of reach")).unwrap();
        for number in 0..40 {
            unverified.served(&version(1), ArtifactKind::Zip, client(number), NOW);
            unverified.flush().unwrap();
        }
        assert_eq!(lines(&tree), 41);
        unverified.flush().unwrap();
        assert_eq!(lines(&tree), 41);
        let unverified = load(&tree);
        assert_eq!(lines(&tree), 1);
        let record = unverified.remove(&version(1), ArtifactKind::Zip).unwrap();
        assert_eq!((record.served.len(), record.served_more), (CLIENTS_MAX, 8));
        assert_eq!(record.served[31], (client(31), NOW));
    }

    /// Whoever waits longest comes first.
    #[test]
    fn the_order_is_fair() {
        let tree = Tree::new();
        let unverified = load(&tree);
        for number in [3, 1, 2] {
            let since = UnixSeconds(NOW.0 + number as u64);
            unverified.add(&version(number), ArtifactKind::Mod, Entry { since, ..entry("out of reach") }).unwrap();
        }
        let order = |max| -> Vec<_> { unverified.list(max).into_iter().map(|(version, ..)| version).collect() };
        assert_eq!(order(9), [1, 2, 3].map(version));
        unverified.tried(&version(1), ArtifactKind::Mod, UnixSeconds(NOW.0 + 60));
        unverified.tried(&version(9), ArtifactKind::Mod, NOW);
        assert_eq!(order(2), [2, 3].map(version));
        assert_eq!(order(9), [2, 3, 1].map(version));
    }

    /// The file does not grow with what has come and gone.
    #[test]
    fn the_journal_stays_short() {
        let tree = Tree::new();
        let unverified = load(&tree);
        let long = "x".repeat(5000);
        for number in 0..300 {
            unverified.add(&version(number), ArtifactKind::Mod, entry(&long)).unwrap();
            unverified.remove(&version(number), ArtifactKind::Mod).unwrap();
        }
        unverified.add(&version(1), ArtifactKind::Zip, entry("left")).unwrap();
        let bytes = std::fs::metadata(tree.path(PATH)).unwrap().len();
        assert!(bytes <= SLACK_BYTES + 4096, "{bytes}");
        assert_eq!(load(&tree).list(9).len(), 1);
    }

    /// A journal that cannot be written notes nothing new, and is whole once it can be again.
    #[test]
    fn a_failed_write_notes_nothing() {
        let tree = Tree::new();
        let unverified = load(&tree);
        let zip = ArtifactKind::Zip;
        unverified.add(&version(1), zip, entry("one")).unwrap();
        unverified.add(&version(2), zip, entry("two")).unwrap();
        unverified.lock_journal().file = None;
        std::fs::remove_file(tree.path(PATH)).unwrap();
        std::fs::create_dir_all(tree.path(PATH).join("taken")).unwrap();
        unverified.add(&version(3), zip, entry("three")).unwrap_err();
        unverified.remove(&version(1), zip).unwrap();
        unverified.served(&version(2), zip, client(2), NOW);
        unverified.flush().unwrap_err();
        assert_eq!(unverified.len(), 1);
        std::fs::remove_dir_all(tree.path(PATH)).unwrap();
        unverified.flush().unwrap();
        let list = load(&tree).list(9);
        assert_eq!((list.len(), &list[0].2.served[..]), (1, &[(client(2), NOW)][..]));
        unverified.add(&version(3), zip, entry("three")).unwrap();
        assert_eq!(load(&tree).len(), 2);
    }

    /// Beyond the bound nothing is noted, and no fill fails for it.
    #[test]
    fn the_number_is_bounded() {
        let tree = Tree::new();
        let unverified = load(&tree);
        unverified.add(&version(1), ArtifactKind::Zip, entry("one")).unwrap();
        unverified.len.store(RECORDS_MAX, Ordering::Release);
        assert!(!unverified.is_incomplete());
        unverified.add(&version(1), ArtifactKind::Zip, entry("two")).unwrap();
        unverified.len.store(RECORDS_MAX, Ordering::Release);
        assert!(!unverified.is_incomplete());
        unverified.add(&version(2), ArtifactKind::Zip, entry("two")).unwrap();
        assert!(unverified.is_incomplete());
        unverified.add(&version(1), ArtifactKind::Zip, entry("three")).unwrap();
        assert!(!unverified.contains(&version(2), ArtifactKind::Zip));
        assert_eq!(load(&tree).list(9)[0].2.reason, "three");
    }
}
