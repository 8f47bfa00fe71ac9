//! The alarms: what a person has to know and must not miss, with the evidence for it.
//!
//! Owns the folder `ROOT/.larder/alarms/`. Called by `verify` and by whoever finds something damaged, and by the command
//! alarms; calls [`super::durable`]. Invariants: evidence is durable before the list that names it; an open alarm that
//! latches is never dropped for room, nor by a list that cannot be read; [`Alarms::latched`] never waits for the disk;
//! whoever can raise alarms at will cannot fill the disk with them (`room`).
//!
//! ```text
//! ROOT/.larder/alarms/alarms.json            {"next":8,"alarms":[{"id":7,"kind":"fork",…}]}, replaced as a whole
//! ROOT/.larder/alarms/7-fork.txt             evidence of alarm 7, as it is; `.bin` if it is no text
//! ROOT/.larder/alarms/alarms.json.damaged    a list that could not be read
//! ```
//! Evidence whose number is not below `next` was written for an alarm that a power cut kept off the list: it becomes one
//! at the next start. Other evidence that no alarm names is of one that has been dropped.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, durable};
use crate::clock::UnixSeconds;

mod room;

/// How many alarms are kept. Only open ones that latch may be more, and they are few: beyond this, one a kind and database.
pub const ALARMS_MAX: usize = 256;
/// The evidence of one alarm, in bytes; what is longer loses its end.
pub const EVIDENCE_BYTES_MAX: usize = 4 << 20;
/// The evidence of a lie, in bytes, to which whoever raises it cuts it: an upstream can send as many as it likes.
pub const LIE_EVIDENCE_BYTES_MAX: usize = 64 << 10;
/// All evidence together, in bytes.
pub const ALL_EVIDENCE_BYTES_MAX: u64 = 16 << 20;
/// How many lies of one database may be open; what comes then counts up the newest of them.
pub const OPEN_LIES_MAX: usize = 16;
/// As [`OPEN_LIES_MAX`], for mismatches.
pub const OPEN_MISMATCHES_MAX: usize = 64;
/// One text of an alarm, in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// Details of one alarm.
const DETAILS_MAX: usize = 64;
/// An alarm that is raised again and again is written, and logged, this often.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// The name of the list.
const LIST: &str = "alarms.json";

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmKind {
    /// An upstream sent a file whose hash is not the one in the log.
    Mismatch,
    /// A file was served before it could be judged, and its hash is not the one in the log.
    LateMismatch,
    /// An answer in a database's name does not verify.
    Lie,
    /// A database has signed two histories.
    Fork,
    /// A database shows less than it has shown before.
    Rollback,
    /// What a database says does not fit what it has said.
    Inconsistent,
    /// A database's log holds two hashes for one module version.
    Duplicate,
    /// A stored file is not what was stored.
    Damaged,
}

impl AlarmKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Mismatch,
        Self::LateMismatch,
        Self::Lie,
        Self::Fork,
        Self::Rollback,
        Self::Inconsistent,
        Self::Duplicate,
        Self::Damaged,
    ];

    /// Says whether nothing new of the database is judged until a person has cleared the alarm.
    pub fn latches(self) -> bool {
        match self {
            Self::Fork | Self::Rollback | Self::Inconsistent | Self::Duplicate => true,
            Self::Mismatch | Self::LateMismatch | Self::Lie | Self::Damaged => false,
        }
    }
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mismatch => "mismatch",
            Self::LateMismatch => "late-mismatch",
            Self::Lie => "lie",
            Self::Fork => "fork",
            Self::Rollback => "rollback",
            Self::Inconsistent => "inconsistent",
            Self::Duplicate => "duplicate",
            Self::Damaged => "damaged",
        })
    }
}

/// An alarm to be raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAlarm {
    /// What has happened.
    pub kind: AlarmKind,
    /// The database it is about; one that latches without naming a database latches all.
    pub database: Option<String>,
    /// The thing it is about, like `rsc.io/quote@v1.5.2 zip`.
    pub subject: String,
    /// What has happened, in one line.
    pub text: String,
    /// More of it, as names and values.
    pub details: Vec<(String, String)>,
    /// What proves it to others.
    pub evidence: Option<Vec<u8>>,
}

/// An alarm that was raised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its number, which no other one ever has.
    pub id: u64,
    /// What has happened.
    pub kind: AlarmKind,
    /// The database it is about.
    pub database: Option<String>,
    /// The thing it is about.
    pub subject: String,
    /// What has happened, in one line.
    pub text: String,
    /// More of it, as names and values.
    pub details: Vec<(String, String)>,
    /// When it was raised for the first time.
    pub raised: UnixSeconds,
    /// When it was raised for the last time.
    pub last: UnixSeconds,
    /// How often it was raised.
    pub count: u64,
    /// When a person cleared it.
    pub cleared: Option<UnixSeconds>,
    /// The name of the file with its evidence.
    pub evidence: Option<String>,
}

impl Alarm {
    /// Says whether nobody has cleared it.
    pub fn is_open(&self) -> bool {
        self.cleared.is_none()
    }

    /// Says whether it keeps everything new of its database from being judged.
    pub fn is_latched(&self) -> bool {
        self.is_open() && self.kind.latches()
    }
}

/// The alarms of one cache directory.
#[derive(Debug)]
pub struct Alarms {
    own_folder: PathBuf,
    /// Held while the disk is written to, so that the last list written is the last one made; taken before `state`.
    writing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By number.
    kept: Vec<Kept>,
    /// Evidence that no alarm names any more; it goes once a list that does not name it is on the disk.
    unnamed: Vec<String>,
}

#[derive(Debug)]
struct Kept {
    alarm: Alarm,
    /// When a list with it was written.
    written: UnixSeconds,
    /// How long its evidence is.
    evidence_bytes: u64,
}

/// The list as it is in its file.
#[derive(Default, Serialize, Deserialize)]
struct List {
    next: u64,
    alarms: Vec<Alarm>,
}

impl Alarms {
    /// Reads the alarms of the cache directory `root`; no list means no alarms. A list that makes no sense is kept aside
    /// and becomes an alarm that latches all databases: it may have held one.
    ///
    /// # Errors
    /// What the system says.
    pub fn load(root: &Path, now: UnixSeconds) -> Result<Self, Error> {
        let alarms = Self {
            own_folder: root.join(super::OWN),
            writing: Mutex::default(),
            state: Mutex::new(State { next: 1, ..State::default() }),
        };
        let path = alarms.folder().join(LIST);
        let at = |err| Error::at(&path.display().to_string(), err);
        let content = match std::fs::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(at)?),
        };
        let list = content.as_deref().map_or_else(|| Ok(List::default()), serde_json::from_slice::<List>);
        let evidence = alarms.evidence_files().map_err(at)?;
        match list {
            Ok(list) => alarms.take_over(list, &evidence, now).map_err(at)?,
            Err(err) => {
                // First the copy, then the list in place of the damaged one: at no moment is there none.
                let aside = alarms.folder().join(format!("{LIST}.damaged"));
                let content = content.unwrap_or_default();
                durable::replace_file(&alarms.own_folder, &aside, &content).map_err(at)?;
                alarms.lock().next = evidence.iter().map(|(id, ..)| id + 1).max().unwrap_or(1).max(1);
                let text = format!("the list of alarms could not be read, so it may have held one: {err}");
                let details = vec![("kept aside as".to_owned(), aside.display().to_string())];
                alarms.raise(found(AlarmKind::Inconsistent, LIST.to_owned(), text, details), now).map_err(at)?;
            }
        }
        Ok(alarms)
    }

    /// Makes the list that was read the one that counts, and puts the evidence beside it in order.
    fn take_over(&self, list: List, evidence: &[(u64, AlarmKind, String)], now: UnixSeconds) -> io::Result<()> {
        let listed_next = list.next;
        let kept = list.alarms.into_iter().map(|alarm| {
            let name = alarm.evidence.as_ref();
            // What is not there takes no room.
            let evidence = name.and_then(|name| std::fs::metadata(self.folder().join(name)).ok());
            Kept { written: alarm.last, alarm, evidence_bytes: evidence.map_or(0, |evidence| evidence.len()) }
        });
        let mut kept: Vec<Kept> = kept.collect();
        kept.sort_by_key(|kept| kept.alarm.id);
        let next = [Some(listed_next), kept.last().map(|kept| kept.alarm.id + 1)].into_iter().flatten().max();
        let mut orphans = Vec::new();
        for (id, kind, name) in evidence {
            if kept.iter().any(|kept| kept.alarm.evidence.as_ref() == Some(name)) {
                continue;
            }
            if *id >= listed_next {
                orphans.push((*id, *kind, name));
            } else {
                durable::remove_file(&self.folder().join(name))?;
            }
        }
        let next = orphans.iter().map(|(id, ..)| id + 1).max().max(next).unwrap_or(1).max(1);
        *self.lock() = State { next, kept, unnamed: Vec::new() };
        for (_, kind, name) in orphans {
            let text = "evidence was found of an alarm that could not be written down".to_owned();
            let orphan = self.folder().join(name);
            let content = std::fs::read(&orphan)?;
            self.raise(NewAlarm { evidence: Some(content), ..found(kind, name.clone(), text, Vec::new()) }, now)?;
            durable::remove_file(&orphan)?;
        }
        Ok(())
    }

    /// Raises an alarm; for the blocking pool. What is open already, with the same kind, database, subject and text, is
    /// counted up instead, and keeps its evidence; so is the newest open one where there may be no more of its kind.
    ///
    /// # Errors
    /// What the system says. The alarm is raised all the same, until the end of this process.
    pub fn raise(&self, new: NewAlarm, now: UnixSeconds) -> io::Result<Alarm> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let new = bounded(new);
        if let Some((alarm, is_due)) = self.count_up(&new, now) {
            if is_due {
                log::error!("{} count={}", log_text(&alarm), alarm.count);
                self.write_list(now)?;
            }
            return Ok(alarm);
        }
        // It counts before it is written: nothing may be judged meanwhile, nor if the disk is full.
        let (mut alarm, evidence) = self.begin(new, now);
        log::error!("{}", log_text(&alarm));
        let evidence_bytes = evidence.as_ref().map_or(0, |evidence| evidence.len() as u64);
        let written = evidence.map_or(Ok(None), |evidence| self.write_evidence(&alarm, &evidence).map(Some));
        alarm.evidence = written.as_ref().ok().cloned().flatten();
        {
            let mut state = self.lock();
            if let Some(kept) = state.kept.iter_mut().find(|kept| kept.alarm.id == alarm.id) {
                kept.alarm.evidence.clone_from(&alarm.evidence);
                kept.evidence_bytes = if alarm.evidence.is_some() { evidence_bytes } else { 0 };
            }
            state.make_room();
            if let Some(kept) = state.kept.iter().find(|kept| kept.alarm.id == alarm.id) {
                alarm = kept.alarm.clone();
            }
        }
        self.write_list(now)?;
        written.map(|_| alarm)
    }

    fn count_up(&self, new: &NewAlarm, now: UnixSeconds) -> Option<(Alarm, bool)> {
        let mut state = self.lock();
        let is_alike = |alarm: &Alarm| alarm.is_open() && alarm.kind == new.kind && alarm.database == new.database;
        let is_same = |alarm: &Alarm| is_alike(alarm) && alarm.subject == new.subject && alarm.text == new.text;
        let same = state.kept.iter().rposition(|kept| is_same(&kept.alarm));
        let newest = || state.kept.iter().rposition(|kept| is_alike(&kept.alarm));
        let index = same.or_else(|| if state.has_too_many_like(new) { newest() } else { None })?;
        let kept = &mut state.kept[index];
        kept.alarm.count += 1;
        kept.alarm.last = now;
        // A clock that was set back must not silence it.
        let is_due = now < kept.written || now.since(kept.written) >= REPEAT_INTERVAL;
        Some((kept.alarm.clone(), is_due))
    }

    fn begin(&self, new: NewAlarm, now: UnixSeconds) -> (Alarm, Option<Vec<u8>>) {
        let mut state = self.lock();
        let alarm = Alarm {
            id: state.next,
            kind: new.kind,
            database: new.database,
            subject: new.subject,
            text: new.text,
            details: new.details,
            raised: now,
            last: now,
            count: 1,
            cleared: None,
            evidence: None,
        };
        state.next += 1;
        state.kept.push(Kept { alarm: alarm.clone(), written: now, evidence_bytes: 0 });
        (alarm, new.evidence)
    }

    /// Returns all alarms that are kept, by number.
    pub fn list(&self) -> Vec<Alarm> {
        self.lock().kept.iter().map(|kept| kept.alarm.clone()).collect()
    }

    /// Returns the alarms that nobody has cleared, by number.
    pub fn open(&self) -> Vec<Alarm> {
        let state = self.lock();
        state.kept.iter().filter(|kept| kept.alarm.is_open()).map(|kept| kept.alarm.clone()).collect()
    }

    /// Returns the oldest alarm that keeps everything new of `database` from being judged. Never waits for the disk.
    pub fn latched(&self, database: &str) -> Option<Alarm> {
        let concerns = |alarm: &Alarm| alarm.database.as_deref().is_none_or(|name| name == database);
        let state = self.lock();
        let latched = state.kept.iter().find(|kept| kept.alarm.is_latched() && concerns(&kept.alarm));
        latched.map(|kept| kept.alarm.clone())
    }

    /// Clears the open alarms with these numbers, all of them if there are no numbers, durably; for the blocking pool.
    /// Returns the numbers of those that were open.
    ///
    /// # Errors
    /// What the system says; all are as they were then.
    pub fn clear(&self, ids: &[u64], now: UnixSeconds) -> io::Result<Vec<u64>> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |alarm: &Alarm| alarm.is_open() && (ids.is_empty() || ids.contains(&alarm.id));
        let meant: Vec<u64> = self.list().iter().filter(|alarm| is_meant(alarm)).map(|alarm| alarm.id).collect();
        if meant.is_empty() {
            return Ok(meant);
        }
        let set = |alarm: &mut Alarm, cleared| {
            if meant.contains(&alarm.id) {
                alarm.cleared = cleared;
            }
        };
        // First on the disk: what is latched stays so until its end is safe.
        let mut list = self.lock().to_list();
        list.alarms.iter_mut().for_each(|alarm| set(alarm, Some(now)));
        self.write(&list)?;
        self.lock().kept.iter_mut().for_each(|kept| set(&mut kept.alarm, Some(now)));
        log::warn!("alarms cleared by a person ids={meant:?}");
        Ok(meant)
    }

    /// Returns the evidence of an alarm, if there is that alarm and it has some; for the blocking pool.
    ///
    /// # Errors
    /// What the system says.
    pub fn evidence(&self, id: u64) -> io::Result<Option<Vec<u8>>> {
        let name =
            self.lock().kept.iter().find(|kept| kept.alarm.id == id).and_then(|kept| kept.alarm.evidence.clone());
        name.map(|name| std::fs::read(self.folder().join(name))).transpose()
    }

    fn folder(&self) -> PathBuf {
        self.own_folder.join("alarms")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_evidence(&self, alarm: &Alarm, content: &[u8]) -> io::Result<String> {
        let suffix = if std::str::from_utf8(content).is_ok() { "txt" } else { "bin" };
        let name = format!("{}-{}.{suffix}", alarm.id, alarm.kind);
        durable::make_folders(&self.folder())?;
        durable::replace_file(&self.own_folder, &self.folder().join(&name), content)?;
        Ok(name)
    }

    fn write_list(&self, now: UnixSeconds) -> io::Result<()> {
        let list = self.lock().to_list();
        self.write(&list)?;
        let unnamed = {
            let mut state = self.lock();
            state.kept.iter_mut().for_each(|kept| kept.written = now);
            std::mem::take(&mut state.unnamed)
        };
        for name in unnamed {
            durable::remove_file(&self.folder().join(name))?;
        }
        Ok(())
    }

    fn write(&self, list: &List) -> io::Result<()> {
        let is_new = !self.folder().is_dir();
        durable::make_folders(&self.folder())?;
        durable::replace_file(&self.own_folder, &self.folder().join(LIST), &serde_json::to_vec_pretty(list)?)?;
        if is_new { durable::sync_folder(&self.own_folder) } else { Ok(()) }
    }

    /// Returns the number, kind and name of each file of evidence.
    fn evidence_files(&self) -> io::Result<Vec<(u64, AlarmKind, String)>> {
        let entries = match std::fs::read_dir(self.folder()) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let Some((id, rest)) = name.split_once('-') else { continue };
            let Some(kind) = rest.strip_suffix(".txt").or_else(|| rest.strip_suffix(".bin")) else { continue };
            let kind = AlarmKind::ALL.into_iter().find(|known| known.to_string() == kind);
            if let (Ok(id @ 0..1_000_000_000_000), Some(kind)) = (id.parse::<u64>(), kind) {
                files.push((id, kind, name));
            }
        }
        files.sort();
        Ok(files)
    }
}

impl State {
    fn to_list(&self) -> List {
        List { next: self.next, alarms: self.kept.iter().map(|kept| kept.alarm.clone()).collect() }
    }
}

fn found(kind: AlarmKind, subject: String, text: String, details: Vec<(String, String)>) -> NewAlarm {
    NewAlarm { kind, database: None, subject, text, details, evidence: None }
}

fn log_text(alarm: &Alarm) -> String {
    let database = alarm.database.as_deref().unwrap_or("-");
    format!("alarm id={} kind={} database={database} subject={:?}: {}", alarm.id, alarm.kind, alarm.subject, alarm.text)
}

/// Returns the alarm with texts that fit into a line, and no more of anything than is kept. Parts come from strangers.
fn bounded(mut new: NewAlarm) -> NewAlarm {
    let line = |text: &str| {
        let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        super::cut(&mut line, TEXT_BYTES_MAX);
        line
    };
    new.database = new.database.as_deref().map(line);
    new.subject = line(&new.subject);
    new.text = line(&new.text);
    new.details.truncate(DETAILS_MAX);
    for (name, value) in &mut new.details {
        (*name, *value) = (line(name), line(value));
    }
    if let Some(evidence) = &mut new.evidence {
        evidence.truncate(EVIDENCE_BYTES_MAX);
    }
    new
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make the trees they need")]

    use super::*;
    use crate::store::testing::Tree;

    const DATABASE: &str = "sumdb.larder.test";
    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn after(seconds: u64) -> UnixSeconds {
        UnixSeconds(NOW.0 + seconds)
    }

    fn new(kind: AlarmKind, subject: &str) -> NewAlarm {
        NewAlarm {
            kind,
            database: Some(DATABASE.to_owned()),
            subject: subject.to_owned(),
            text: "something is wrong".to_owned(),
            details: vec![("upstream".to_owned(), "https://proxy.example".to_owned())],
            evidence: None,
        }
    }

    fn load(tree: &Tree) -> Alarms {
        Alarms::load(tree.root(), NOW).unwrap()
    }

    fn subjects(alarms: &[Alarm]) -> Vec<&str> {
        alarms.iter().map(|alarm| alarm.subject.as_str()).collect()
    }

    /// Alarms and their evidence outlive the process, and numbers are never given twice.
    #[test]
    fn alarms_are_files() {
        let tree = Tree::new();
        let alarms = load(&tree);
        assert_eq!((alarms.list(), alarms.latched(DATABASE)), (Vec::new(), None));
        let text = Some(b"note\n\tsecond line".to_vec());
        let one = alarms.raise(NewAlarm { evidence: text.clone(), ..new(AlarmKind::Fork, "one") }, NOW).unwrap();
        let bytes = Some(vec![0xff, 0, 1]);
        let two = alarms.raise(NewAlarm { evidence: bytes.clone(), ..new(AlarmKind::Lie, "two") }, NOW).unwrap();
        assert_eq!((one.id, one.evidence.as_deref(), one.count), (1, Some("1-fork.txt"), 1));
        assert_eq!((two.id, two.evidence.as_deref()), (2, Some("2-lie.bin")));
        for alarms in [alarms, load(&tree)] {
            assert_eq!(alarms.list(), [one.clone(), two.clone()]);
            assert_eq!(alarms.open(), alarms.list());
            assert_eq!(alarms.evidence(1).unwrap(), text);
            assert_eq!(alarms.evidence(2).unwrap(), bytes);
            assert_eq!(alarms.evidence(9).unwrap(), None);
            assert_eq!(alarms.latched(DATABASE), Some(one.clone()));
            assert_eq!(alarms.latched("other.example"), None);
        }
        let alarms = load(&tree);
        assert_eq!(alarms.raise(new(AlarmKind::Damaged, "three"), NOW).unwrap().id, 3);
    }

    /// Only four kinds latch, and each is written as it is shown.
    #[test]
    fn kinds() {
        let latching: Vec<_> = AlarmKind::ALL.into_iter().filter(|kind| kind.latches()).collect();
        assert_eq!(latching, [AlarmKind::Fork, AlarmKind::Rollback, AlarmKind::Inconsistent, AlarmKind::Duplicate]);
        for kind in AlarmKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }

    /// What is raised again while it is open is counted, and written once a minute or when the clock was set back;
    /// once it is cleared it is a new alarm.
    #[test]
    fn repeated_alarms_are_counted() {
        let tree = Tree::new();
        let alarms = load(&tree);
        let count_written = |tree: &Tree| load(tree).list()[0].count;
        alarms.raise(new(AlarmKind::Mismatch, "one"), NOW).unwrap();
        for second in [1, 30, 59] {
            let again = NewAlarm { evidence: Some(b"later".to_vec()), ..new(AlarmKind::Mismatch, "one") };
            let again = alarms.raise(again, after(second)).unwrap();
            assert_eq!((again.id, again.raised, again.last, again.evidence), (1, NOW, after(second), None));
        }
        assert_eq!((alarms.list()[0].count, count_written(&tree)), (4, 1));
        alarms.raise(new(AlarmKind::Mismatch, "one"), after(60)).unwrap();
        assert_eq!(count_written(&tree), 5);
        alarms.raise(new(AlarmKind::Mismatch, "one"), UnixSeconds(5)).unwrap();
        assert_eq!(count_written(&tree), 6);
        assert_eq!(alarms.clear(&[], NOW).unwrap(), [1]);
        assert_eq!(alarms.raise(new(AlarmKind::Mismatch, "one"), NOW).unwrap().id, 2);
        let other = NewAlarm { database: None, ..new(AlarmKind::Mismatch, "one") };
        assert_eq!(alarms.raise(other, NOW).unwrap().id, 3);
    }

    /// Only a person ends a latch, and that is durable; a clearing that cannot be written has not happened.
    #[test]
    fn latches_hold_until_cleared() {
        let tree = Tree::new();
        let alarms = load(&tree);
        for (kind, subject) in [(AlarmKind::Rollback, "one"), (AlarmKind::Fork, "two"), (AlarmKind::Lie, "three")] {
            alarms.raise(new(kind, subject), NOW).unwrap();
        }
        assert_eq!(alarms.clear(&[1, 77], after(5)).unwrap(), [1]);
        assert!(alarms.clear(&[1], after(5)).unwrap().is_empty());
        let alarms = load(&tree);
        assert_eq!(alarms.list()[0].cleared, Some(after(5)));
        assert_eq!(alarms.latched(DATABASE).unwrap().id, 2);
        std::fs::remove_file(tree.path(".larder/alarms/alarms.json")).unwrap();
        std::fs::create_dir_all(tree.path(".larder/alarms/alarms.json/taken")).unwrap();
        alarms.clear(&[], NOW).unwrap_err();
        assert_eq!(alarms.latched(DATABASE).unwrap().id, 2);
        std::fs::remove_dir_all(tree.path(".larder/alarms/alarms.json")).unwrap();
        assert_eq!(alarms.clear(&[], NOW).unwrap(), [2, 3]);
        assert_eq!((load(&tree).latched(DATABASE), load(&tree).open()), (None, Vec::new()));
    }

    /// An alarm that the disk refuses counts all the same, and is written with the next one.
    #[test]
    fn a_failed_write_silences_nothing() {
        let tree = Tree::new();
        tree.put(".larder/alarms", "in the way");
        let alarms = Alarms {
            own_folder: tree.path(".larder"),
            writing: Mutex::default(),
            state: Mutex::new(State { next: 1, ..State::default() }),
        };
        alarms.raise(NewAlarm { evidence: Some(Vec::new()), ..new(AlarmKind::Fork, "one") }, NOW).unwrap_err();
        assert_eq!(alarms.latched(DATABASE).unwrap().id, 1);
        std::fs::remove_file(tree.path(".larder/alarms")).unwrap();
        alarms.raise(new(AlarmKind::Lie, "two"), NOW).unwrap();
        assert_eq!(subjects(&load(&tree).list()), ["one", "two"]);
    }

    /// A list that cannot be read is kept aside and latches every database, whatever it said.
    #[test]
    fn a_damaged_list_latches() {
        for content in [&b""[..], b"{\"next\":3,\"alarms\":[{\"id\":2,", &[0; 100]] {
            let tree = Tree::new();
            tree.put(".larder/alarms/4-lie.txt", "evidence");
            tree.put(".larder/alarms/alarms.json", content);
            for alarms in [load(&tree), load(&tree)] {
                let latched = alarms.latched("any.example").unwrap();
                assert_eq!((latched.id, latched.kind, latched.database), (5, AlarmKind::Inconsistent, None));
                assert!(latched.text.starts_with("the list of alarms could not be read"), "{}", latched.text);
                assert_eq!(alarms.list().len(), 1);
            }
            assert_eq!(std::fs::read(tree.path(".larder/alarms/alarms.json.damaged")).unwrap(), content);
        }
    }

    /// Evidence that a power cut left without its alarm becomes one; evidence of a dropped alarm goes.
    #[test]
    fn evidence_without_an_alarm() {
        let tree = Tree::new();
        load(&tree).raise(NewAlarm { evidence: Some(b"a".to_vec()), ..new(AlarmKind::Lie, "one") }, NOW).unwrap();
        tree.put(".larder/alarms/0-fork.txt", "of an alarm that was dropped");
        tree.put(".larder/alarms/2-fork.txt", "of one that was not written");
        tree.put(".larder/alarms/notes.txt", "of somebody else");
        for alarms in [load(&tree), load(&tree)] {
            assert_eq!(subjects(&alarms.list()), ["one", "2-fork.txt"]);
            assert_eq!(alarms.evidence(3).unwrap().unwrap(), b"of one that was not written");
            assert_eq!(alarms.latched(DATABASE).unwrap().evidence.as_deref(), Some("3-fork.txt"));
        }
        let has = |name: &str| tree.has(&format!(".larder/alarms/{name}"));
        assert_eq!(
            ["0-fork.txt", "1-lie.txt", "2-fork.txt", "3-fork.txt", "notes.txt"].map(has),
            [false, true, false, true, true]
        );
        // And evidence beside no list at all is evidence still.
        std::fs::remove_file(tree.path(".larder/alarms/alarms.json")).unwrap();
        assert!(load(&tree).latched(DATABASE).is_some());
    }

    /// Texts of strangers stay in their line and have an end, and so has evidence.
    #[test]
    fn texts_and_evidence_are_bounded() {
        let tree = Tree::new();
        let alarms = load(&tree);
        let mut long = new(AlarmKind::Lie, "one\ntwo\u{1b}[2J");
        long.text = "ö".repeat(5000);
        long.details = vec![("a\r".to_owned(), "b\0".repeat(5000)); 100];
        long.evidence = Some(vec![7; EVIDENCE_BYTES_MAX + 1]);
        let alarm = alarms.raise(long, NOW).unwrap();
        assert_eq!(alarm.subject, "one two [2J");
        assert!(alarm.text.len() <= TEXT_BYTES_MAX && alarm.text.ends_with("ö…"), "{}", alarm.text.len());
        assert_eq!((alarm.details.len(), alarm.details[0].0.as_str()), (DETAILS_MAX, "a "));
        assert_eq!(alarms.evidence(alarm.id).unwrap().unwrap().len(), EVIDENCE_BYTES_MAX);
    }
}
