//! Verification: what an upstream sent is judged by the public, append-only log before anybody gets the end of it.
//!
//! Called by `fill`, which asks for a verdict before a file gets its name, and by `cache` for what is served; calls
//! `sumdb` for every proof, `store` and `upstream`. Invariants: a file whose hash the log contradicts is never served, in
//! either mode; what cannot be judged is written down before it is stored, and judged later; the names of private modules
//! never get here, for [`Verifier::is_exempt`] is asked first.
//!
//! | file | read it for |
//! | --- | --- |
//! | this one | the verdict, and what follows from it |
//! | [`database`] | one database: asked, proved, stored, served |
//! | `ways`, `flights`, `known` | where it is asked, once for all who want it; the newest head, on the disk first |
//! | `later` | what was served without a verdict, and trees that others have filled: judged in the background |
//! | [`check`] | one stored file, judged wholly |
//! | `evidence` | what is kept of lies, forks and mismatches |

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::module::pattern::PatternList;
use crate::module::zip::hash::H1;
use crate::module::{ModulePath, ModuleVersion};
use crate::resource::{ArtifactKind, Resource};
use crate::store;
use crate::store::alarms::{AlarmKind, Alarms, NewAlarm};
use crate::store::unverified::{Entry, Unverified};
use crate::sumdb::SumdbName;
use crate::sumdb::check::ProvedRecord;
use crate::sumdb::name::LookupTarget;
use crate::upstream::{Failure, Unjudged, Why};

pub mod audit;
pub mod check;
pub mod database;
pub mod evidence;
mod flights;
mod known;
mod later;
pub mod ways;

pub use database::{Database, Looked, Parts};

/// In the mode `when-reachable` a file's last bytes wait so long for the database.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a wait in vain nobody waits for so long: the database may be one that accepts questions and never answers.
const NO_PATIENCE_FOR: Duration = Duration::from_secs(30);
/// In the mode `strict` there is nothing else to do than wait.
const PATIENCE_STRICT: Duration = Duration::from_secs(60);
/// An upstream is not asked again for a file of which it has sent a wrong one.
const DISTRUSTED_FOR: Duration = Duration::from_secs(60);
/// Wrong files remembered at a time.
const DISTRUSTED_MAX: usize = 1024;
/// Files judged before the whole tree is, remembered at a time.
const JUDGED_NOW_MAX: usize = 65_536;
/// The one module that the go command verifies whatever the patterns say: it is run.
const TOOLCHAIN: &str = "golang.org/toolchain";

/// What becomes of a file that cannot be judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is served, and judged as soon as that is possible.
    #[default]
    WhenReachable,
    /// It is refused.
    Strict,
}

/// The judgement of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The log holds a record of it with this hash.
    Verified,
    /// The configuration exempts its module, or nothing is verified at all.
    Exempt,
    /// It could not be judged, for this reason; it is judged again later.
    Unverifiable(String),
}

/// How a stored file stands, as far as that is known without reading anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be served.
    Fine,
    /// It was stored without a verdict.
    Unverified,
    /// Another program, or a run without verification, has stored it, and its turn has not come yet.
    Unknown,
    /// It is wrong, and could not be moved out of the way.
    Condemned,
}

/// A file to be judged.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The module version.
    pub module: &'a ModuleVersion,
    /// Its `.mod` or its `.zip`.
    pub kind: ArtifactKind,
    /// Its hash.
    pub h1: H1,
    /// Who sent it.
    pub upstream: &'a Arc<str>,
    /// Its bytes.
    pub bytes: Content,
}

/// The bytes of a file, for the evidence.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// On the disk, so many.
    File(Arc<File>, u64),
}

/// What is verified, and how.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What becomes of files that cannot be judged.
    pub mode: Mode,
    /// Modules that are not judged; those of private upstreams are among them.
    pub exempt: Vec<PatternList>,
    /// What, if it changes, makes every verdict of earlier runs void: the key and the patterns.
    pub fingerprint: String,
}

/// Which upstream has sent a wrong file of which resource, when, and what that was.
type Distrusted = HashMap<(Arc<str>, Resource), (Instant, Failure)>;

/// Judges files by a checksum database.
pub struct Verifier {
    config: Config,
    /// What files are judged by; nothing if verification is off.
    database: Option<Arc<Database>>,
    /// The databases that clients may ask through Larder.
    proxied: Vec<Arc<Database>>,
    parts: Parts,
    /// What was stored without a verdict.
    pub unverified: Arc<Unverified>,
    /// Whether every file of the tree has been judged, or is in the list of the unverified.
    is_tree_judged: AtomicBool,
    distrusted: Mutex<Distrusted>,
    impatient_since: Mutex<Option<Instant>>,
    /// What turned out wrong and is still there: a disk that cannot be written to must not have it served.
    condemned: Mutex<HashSet<(ModuleVersion, ArtifactKind)>>,
    /// What was judged good in this run, before the whole tree had been.
    judged_now: Mutex<HashSet<(ModuleVersion, ArtifactKind)>>,
}

impl Verifier {
    /// Makes the judge; nothing is asked yet.
    pub fn new(
        config: Config,
        database: Option<Arc<Database>>,
        proxied: Vec<Arc<Database>>,
        unverified: Arc<Unverified>,
        parts: Parts,
    ) -> Self {
        Self {
            config,
            database,
            proxied,
            parts,
            unverified,
            is_tree_judged: AtomicBool::new(false),
            distrusted: Mutex::default(),
            impatient_since: Mutex::default(),
            condemned: Mutex::default(),
            judged_now: Mutex::default(),
        }
    }

    /// Returns what files are judged by, unless verification is off.
    pub fn database(&self) -> Option<&Arc<Database>> {
        self.database.as_ref()
    }

    /// Returns the database of this name, if clients may ask it through Larder.
    pub fn proxied(&self, name: &SumdbName) -> Option<&Arc<Database>> {
        self.proxied.iter().find(|database| database.name == *name)
    }

    /// Returns all databases, the one that judges first.
    pub fn databases(&self) -> impl Iterator<Item = &Arc<Database>> {
        let is_other =
            |database: &&Arc<Database>| self.database.as_ref().is_none_or(|judge| judge.name != database.name);
        self.database.iter().chain(self.proxied.iter().filter(is_other))
    }

    /// Returns what becomes of files that cannot be judged.
    pub fn mode(&self) -> Mode {
        self.config.mode
    }

    /// Returns the alarms.
    pub fn alarms(&self) -> &Arc<Alarms> {
        &self.parts.alarms
    }

    /// Says whether a module is not to be judged, and its name not to be told to any database.
    pub fn is_exempt(&self, path: &ModulePath) -> bool {
        path.as_str() != TOOLCHAIN && self.config.exempt.iter().any(|patterns| patterns.matches(path))
    }

    /// Begins to look up what will be needed to judge a file that is on its way.
    pub fn expect(&self, module: &ModuleVersion) {
        if let (Some(database), Ok(target)) = (&self.database, target(module))
            && !self.is_exempt(module.path())
            && database.down_reason().is_none()
        {
            database.expect(&target);
        }
    }

    /// Judges a file. One that cannot be judged, in the mode that lets it pass, is written down before this returns.
    ///
    /// # Errors
    /// [`Failure::Mismatch`] if it is not what the log says; [`Failure::Unjudged`] if nobody may have it without a
    /// verdict.
    ///
    /// # Cancel safety
    /// Nothing is decided when the future is dropped.
    pub async fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Failure> {
        let Some(database) = &self.database else { return Ok(Verdict::Exempt) };
        if self.is_exempt(subject.module.path()) {
            return Ok(Verdict::Exempt);
        }
        let name = &database.name;
        if let Some(failure) = self.refuses_at_once(subject.module) {
            return Err(failure);
        }
        let failure = match self.record_in_time(database, subject.module).await {
            Ok(record) => return self.compare(subject, &record).await.map(|()| Verdict::Verified),
            Err(failure) => failure,
        };
        let (why, reason) = match failure {
            Failure::NotFound(_) => (Why::NotInLog, format!("not in the log of checksum database {name}")),
            // A lie is not an absence, and trouble of our own is not the database's.
            failure @ (Failure::Unjudged(_) | Failure::Stopped | Failure::Store(_)) => return Err(failure),
            failure => (
                Why::Unreachable,
                format!("cannot be verified: checksum database {name} is out of reach: {}", reason_of(&failure)),
            ),
        };
        if self.config.mode == Mode::Strict {
            return Err(unjudged(why, format!("{}: {reason}", subject.module)));
        }
        self.write_down(subject, &reason).await?;
        Ok(Verdict::Unverifiable(reason))
    }

    async fn record_in_time(&self, database: &Arc<Database>, module: &ModuleVersion) -> Result<ProvedRecord, Failure> {
        let patience = match self.config.mode {
            Mode::Strict => PATIENCE_STRICT,
            // Long enough for what is stored.
            Mode::WhenReachable if self.is_impatient() => PATIENCE / 20,
            Mode::WhenReachable => PATIENCE,
        };
        let answers = database.answers();
        let Ok(record) = timeout(patience, record_of(database, module)).await else {
            // One slow record is no dead database; nor does a short wait say anything that a long one had not said.
            if patience == PATIENCE && database.answers() == answers {
                self.set_impatient(Some(self.parts.clock.steady()));
            }
            return Err(no_answer(database, patience));
        };
        if database.answers() != answers {
            self.set_impatient(None);
        }
        record
    }

    fn is_impatient(&self) -> bool {
        let since = *self.impatient_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| self.parts.clock.steady().duration_since(since) < NO_PATIENCE_FOR)
    }

    fn set_impatient(&self, since: Option<Instant>) {
        *self.impatient_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// As [`Self::record_in_time`], for who is in no hurry and whose waiting says nothing to those who are.
    async fn record_unhurried(&self, module: &ModuleVersion) -> Result<ProvedRecord, Failure> {
        let Some(database) = &self.database else { return Err(Failure::Stopped) };
        let record = timeout(PATIENCE_STRICT, record_of(database, module)).await;
        record.unwrap_or_else(|_| Err(no_answer(database, PATIENCE_STRICT)))
    }

    /// Says why a file need not be fetched at all: it could not be judged, and would be refused.
    pub fn refuses_at_once(&self, module: &ModuleVersion) -> Option<Failure> {
        let database = self.database.as_ref().filter(|_| self.config.mode == Mode::Strict)?;
        if self.is_exempt(module.path()) {
            return None;
        }
        let name = &database.name;
        let alarm = self.parts.alarms.latched(name.as_str())?;
        let (id, kind) = (alarm.id, alarm.kind);
        let text = format!(
            "{module}: checksum database {name}: alarm {id} ({kind}): nothing new is judged; see larder alarms"
        );
        Some(unjudged(Why::Alarm, text))
    }

    /// Compares a file with its record.
    async fn compare(&self, subject: &Subject<'_>, record: &ProvedRecord) -> Result<(), Failure> {
        let Some(text) = mismatch(subject.module, subject.kind, subject.h1, record) else { return Ok(()) };
        let mut alarm = self.mismatch_alarm(AlarmKind::Mismatch, subject.module, subject.kind, text.clone());
        alarm.details.push(("sent by".to_owned(), subject.upstream.to_string()));
        let bytes = subject.bytes.clone();
        let sha256 = store::blocking(move || Ok(bytes.sha256())).await;
        alarm.details.push(("SHA-256 of the bytes".to_owned(), sha256.unwrap_or_default()));
        evidence::raise(&self.parts.alarms, &self.parts.clock, alarm).await;
        let failure = Failure::Mismatch { upstream: Arc::clone(subject.upstream), text: Arc::from(text) };
        let resource = Resource::Artifact(subject.module.clone(), subject.kind);
        self.distrust(subject.upstream, resource, failure.clone());
        Err(failure)
    }

    fn mismatch_alarm(
        &self,
        kind: AlarmKind,
        module: &ModuleVersion,
        artifact: ArtifactKind,
        text: String,
    ) -> NewAlarm {
        let database = self.database.as_ref().map(|database| database.name.to_string());
        NewAlarm { kind, database, subject: format!("{module} {artifact}"), text, details: Vec::new(), evidence: None }
    }

    async fn write_down(&self, subject: &Subject<'_>, reason: &str) -> Result<(), Failure> {
        log::warn!("unverified {} kind={} reason={reason}", subject.module, subject.kind);
        let (unverified, module, kind) = (Arc::clone(&self.unverified), subject.module.clone(), subject.kind);
        let entry =
            Entry { reason: reason.to_owned(), upstream: subject.upstream.to_string(), since: self.parts.clock.now() };
        let written = store::blocking(move || {
            unverified.add(&module, kind, entry).map_err(|err| store::Error::at("list of the unverified", err))
        });
        Ok(written.await?)
    }

    /// Returns why an upstream is not to be asked for a file: it has sent a wrong one just now.
    pub fn distrusted(&self, upstream: &Arc<str>, resource: &Resource) -> Option<Failure> {
        let mut distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        if distrusted.is_empty() {
            return None;
        }
        let now = self.parts.clock.steady();
        distrusted.retain(|_, (since, _)| now.duration_since(*since) < DISTRUSTED_FOR);
        distrusted.get(&(Arc::clone(upstream), resource.clone())).map(|(_, failure)| failure.clone())
    }

    fn distrust(&self, upstream: &Arc<str>, resource: Resource, failure: Failure) {
        let mut distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        if distrusted.len() < DISTRUSTED_MAX {
            distrusted.insert((Arc::clone(upstream), resource), (self.parts.clock.steady(), failure));
        }
    }

    /// Says how a stored file stands; costs nothing as long as everything has been judged.
    pub fn standing(&self, module: &ModuleVersion, kind: ArtifactKind) -> Standing {
        if self.database.is_none() || kind == ArtifactKind::Info {
            return Standing::Fine;
        }
        let contains = |set: &Mutex<HashSet<(ModuleVersion, ArtifactKind)>>| {
            let set = set.lock().unwrap_or_else(PoisonError::into_inner);
            !set.is_empty() && set.contains(&(module.clone(), kind))
        };
        if contains(&self.condemned) {
            return Standing::Condemned;
        }
        if !self.unverified.is_empty() && self.unverified.contains(module, kind) {
            return Standing::Unverified;
        }
        let is_unknown = self.config.mode == Mode::Strict && !self.is_tree_judged.load(Ordering::Relaxed);
        if is_unknown && !contains(&self.judged_now) { Standing::Unknown } else { Standing::Fine }
    }

    /// Remembers that a stored file was judged good, as long as that counts for anything.
    fn note_judged(&self, module: &ModuleVersion, kind: ArtifactKind) {
        if self.config.mode == Mode::Strict && !self.is_tree_judged.load(Ordering::Relaxed) {
            let mut judged = self.judged_now.lock().unwrap_or_else(PoisonError::into_inner);
            if judged.len() < JUDGED_NOW_MAX {
                judged.insert((module.clone(), kind));
            }
        }
    }
}

impl Content {
    fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        match self {
            Self::Bytes(bytes) => hasher.update(bytes),
            Self::File(file, length) => {
                let mut buffer = vec![0; 256 * 1024];
                let mut offset = 0;
                while offset < *length {
                    let wanted = buffer.len().min(usize::try_from(*length - offset).unwrap_or(usize::MAX));
                    match file.read_at(&mut buffer[..wanted], offset) {
                        Ok(read @ 1..) => {
                            hasher.update(&buffer[..read]);
                            offset += read as u64;
                        }
                        Ok(0) | Err(_) => return "unreadable".to_owned(),
                    }
                }
            }
        }
        let hex = |byte: u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        hasher.finalize().into_iter().flat_map(hex).collect()
    }
}

async fn record_of(database: &Arc<Database>, module: &ModuleVersion) -> Result<ProvedRecord, Failure> {
    let target = target(module)
        .map_err(|err| Failure::Offline { upstream: Arc::from(database.name.as_str()), reason: err.to_string() })?;
    database.record(&target).await.map(|looked| looked.record)
}

fn no_answer(database: &Database, patience: Duration) -> Failure {
    let reason = format!("no answer within {} s", patience.as_secs_f32());
    Failure::Offline { upstream: Arc::from(database.name.as_str()), reason }
}

/// Says in which way a hash is not the one of the record, if it is not.
fn mismatch(module: &ModuleVersion, kind: ArtifactKind, h1: H1, record: &ProvedRecord) -> Option<String> {
    let said = match kind {
        ArtifactKind::Zip => record.zip(),
        ArtifactKind::Mod => record.go_mod(),
        ArtifactKind::Info => return None,
    };
    let number = record.number;
    match said {
        Some(said) if said == h1 => None,
        Some(said) => {
            Some(format!("{module}: {kind} checksum mismatch: got {h1}, checksum database record {number} says {said}"))
        }
        // The go command refuses it as well.
        None => Some(format!(
            "{module}: {kind} checksum mismatch: got {h1}, checksum database record {number} has no hash of a {kind}"
        )),
    }
}

fn target(module: &ModuleVersion) -> Result<LookupTarget, crate::module::ModuleError> {
    LookupTarget::new(module.path().clone(), module.version().as_str())
}

fn unjudged(why: Why, text: String) -> Failure {
    Failure::Unjudged(Unjudged { text: Arc::from(text), why })
}

/// Returns a failure's words, without the database's name where that stands before them anyway.
fn reason_of(failure: &Failure) -> String {
    match failure {
        Failure::Offline { reason, .. } => reason.clone(),
        failure => failure.to_string(),
    }
}
