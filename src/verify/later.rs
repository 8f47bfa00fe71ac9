//! Judged later: what was served without a verdict, and what other programs, or runs without verification, have stored.
//!
//! Owns the root task [`Verifier::catch_up`] and what a late mismatch leads to. Called by `app`, and by `cache` for files
//! that must not be served without a verdict; calls `store::scrub` for the hashes of stored files. Invariants: a file that
//! turns out wrong is moved out of the tree before anything else is done, and who has got it is told; nobody waits for
//! this but who asks for such a file in the mode `strict`.
//!
//! ```text
//! .larder/unverified    what was stored without a verdict: judged as soon as the database can be reached
//! .larder/judged        text; that it is there, and fits the settings, says that all files of the tree are judged or listed
//! ```

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Mode, Verdict, Verifier, evidence, mismatch, unjudged};
use crate::clock::UnixSeconds;
use crate::module::ModuleVersion;
use crate::module::zip::hash::H1;
use crate::resource::{ArtifactKind, Resource};
use crate::store;
use crate::store::alarms::AlarmKind;
use crate::store::index;
use crate::store::scrub::{self, Throttle, Unsound};
use crate::store::unverified::{Entry, Record};
use crate::sumdb::check::ProvedRecord;
use crate::upstream::{Failure, Why};

/// How often the list is looked at, and what has changed in it written.
const ROUND_INTERVAL: Duration = Duration::from_secs(2);
/// Files judged in one round.
const ROUND_FILES_MAX: usize = 64;
/// A module that is not in the log is looked up again after so long.
const ABSENT_PAUSE: Duration = Duration::from_secs(3600);
/// What could not be judged for another reason is tried again after so long.
const FAILED_PAUSE: Duration = Duration::from_secs(30);
/// A tree that could not be judged to its end is begun again after so long.
const TREE_PAUSE: Duration = Duration::from_secs(600);
/// How often the log's head is asked for, so that a history that changes is noticed while nobody builds anything.
const HEAD_INTERVAL: Duration = Duration::from_secs(3600);
/// How often before the first contact.
const FIRST_HEAD_INTERVAL: Duration = Duration::from_secs(30);
/// Files of the tree between the walk and the judge.
const QUEUE_FILES: usize = 64;
const STAMP: &str = "judged";

/// What became of a stored file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    Verified,
    Wrong,
    NotInLog,
    Gone,
}

impl Verifier {
    /// Asks for the log's head from time to time, judges the tree if that is due, and what could not be judged before.
    pub async fn catch_up(self: Arc<Self>) {
        let Some(database) = self.database().cloned() else {
            let store = Arc::clone(&self.parts.store);
            // What is stored from now on is not judged.
            let removed = store::blocking(move || store.remove_own(STAMP)).await;
            if let Err(err) = removed {
                log::warn!("{err}");
            }
            return;
        };
        let heads = async {
            let mut was_told = false;
            loop {
                let asked = database.newest().await;
                if let Err(failure) = &asked {
                    let is_news = !std::mem::replace(&mut was_told, true);
                    if is_news && !database.can_serve() {
                        log::warn!("modules are not verified for now: checksum database {}: {failure}", database.name);
                    }
                }
                sleep(if asked.is_ok() || database.can_serve() { HEAD_INTERVAL } else { FIRST_HEAD_INTERVAL }).await;
            }
        };
        let files = async {
            loop {
                self.judge_unverified().await;
                if let Err(err) = self.flush().await {
                    log::warn!("list of the unverified: {err}");
                }
                sleep(ROUND_INTERVAL).await;
            }
        };
        let tree = async {
            while !self.judge_tree().await {
                sleep(TREE_PAUSE).await;
            }
        };
        tokio::join!(heads, files, tree);
    }

    /// Judges a stored file that is not to be served without a verdict.
    ///
    /// # Errors
    /// Why it is not served.
    pub async fn judge_stored(self: &Arc<Self>, module: &ModuleVersion, kind: ArtifactKind) -> Result<(), Failure> {
        if self.is_exempt(module.path()) {
            return Ok(());
        }
        let name = self.database().map(|database| database.name.to_string()).unwrap_or_default();
        match self.judge_late(module, kind, None).await {
            Ok(Late::Verified | Late::Gone) => Ok(()),
            Ok(Late::Wrong) => Err(unjudged(
                Why::Lie,
                format!("{module}: the stored {kind} is not what checksum database {name} says"),
            )),
            Ok(Late::NotInLog) => {
                Err(unjudged(Why::NotInLog, format!("{module}: not in the log of checksum database {name}")))
            }
            Err(failure @ (Failure::Unjudged(_) | Failure::Store(_) | Failure::Stopped)) => Err(failure),
            Err(failure) => Err(unjudged(
                Why::Unreachable,
                format!("{module}: cannot be verified: checksum database {name} is out of reach: {failure}"),
            )),
        }
    }

    /// Notes who was given a file without a verdict.
    pub fn was_served(&self, module: &ModuleVersion, kind: ArtifactKind, client: IpAddr) {
        self.unverified.served(module, kind, client, self.parts.clock.now());
    }

    /// Writes what has gathered in memory.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn flush(&self) -> Result<(), store::Error> {
        let (unverified, store) = (Arc::clone(&self.unverified), Arc::clone(&self.parts.store));
        // A list that says less than it should is no proof that the rest has been judged.
        let is_incomplete = unverified.is_incomplete();
        if is_incomplete {
            self.is_tree_judged.store(false, Ordering::Relaxed);
        }
        store::blocking(move || {
            if is_incomplete {
                store.remove_own(STAMP)?;
            }
            unverified.flush().map_err(|err| store::Error::at("list of the unverified", err))
        })
        .await
    }

    /// Judges what is due of the list. Returns how many files there were.
    async fn judge_unverified(self: &Arc<Self>) -> usize {
        let Some(database) = self.database() else { return 0 };
        if self.unverified.is_empty() || database.down_reason().is_some() {
            return 0;
        }
        if self.mode() == Mode::Strict && self.parts.alarms.latched(database.name.as_str()).is_some() {
            return 0;
        }
        let now = self.parts.clock.now();
        let mut judged = 0;
        let is_due = |record: &Record, tried: UnixSeconds| {
            let pause = if record.reason.starts_with("not in the log") { ABSENT_PAUSE } else { FAILED_PAUSE };
            // A clock that was set back is no reason to wait for years.
            tried == UnixSeconds::default() || tried > now || now.since(tried) >= pause
        };
        for (module, kind, record) in self.unverified.due(ROUND_FILES_MAX, is_due) {
            judged += 1;
            self.unverified.tried(&module, kind, now);
            match self.judge_late(&module, kind, Some(record)).await {
                Ok(Late::Verified | Late::Wrong | Late::NotInLog | Late::Gone) => {}
                Err(failure) => {
                    log::debug!("still unverified {module} kind={kind} reason={failure}");
                    // The next one would meet the same.
                    if !matches!(failure, Failure::Unjudged(_)) {
                        break;
                    }
                }
            }
        }
        judged
    }

    /// Judges a stored file by its bytes.
    async fn judge_late(
        self: &Arc<Self>,
        module: &ModuleVersion,
        kind: ArtifactKind,
        listed: Option<Record>,
    ) -> Result<Late, Failure> {
        if self.database().is_none() {
            return Ok(Late::Verified);
        }
        let resource = Resource::Artifact(module.clone(), kind);
        let record = match self.record_unhurried(module).await {
            Ok(record) => record,
            Err(Failure::NotFound(_)) => return Ok(Late::NotInLog),
            Err(failure) => return Err(failure),
        };
        let Some(h1) = self.hash_stored(&resource).await? else {
            self.unverified.remove(module, kind);
            return Ok(Late::Gone);
        };
        if self.conclude(&resource, module, kind, (h1, &record), listed).await?.is_some() {
            return Ok(Late::Wrong);
        }
        log::info!("verified {module} kind={kind} record={}", record.number);
        self.note_judged(module, kind);
        Ok(Late::Verified)
    }

    /// Compares a stored file's hash with its record. Returns in which way it is wrong, if it is, and has been moved.
    pub(super) async fn conclude(
        &self,
        resource: &Resource,
        module: &ModuleVersion,
        kind: ArtifactKind,
        (h1, record): (H1, &ProvedRecord),
        listed: Option<Record>,
    ) -> Result<Option<String>, Failure> {
        let Some(text) = mismatch(module, kind, h1, record) else {
            let was_listed = self.unverified.remove(module, kind).is_some();
            let is_known = |entry: index::VersionEntry| entry.verdict == index::Verdict::Verified;
            if was_listed || !self.parts.index.version(module).is_some_and(is_known) {
                let zip_h1 = (kind == ArtifactKind::Zip).then(|| *h1.as_bytes());
                self.parts.index.note_verdict(module, index::Verdict::Verified, zip_h1);
            }
            return Ok(None);
        };
        self.condemn(resource, module, kind, text.clone(), listed).await?;
        Ok(Some(text))
    }

    /// Moves a file that turned out wrong out of the tree, and tells who has got it.
    async fn condemn(
        &self,
        resource: &Resource,
        module: &ModuleVersion,
        kind: ArtifactKind,
        text: String,
        listed: Option<Record>,
    ) -> Result<(), Failure> {
        let key = (module.clone(), kind);
        self.condemned.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        let moved = self.set_aside(resource, module).await;
        let listed = self.unverified.remove(module, kind).or(listed);
        let mut alarm = self.mismatch_alarm(AlarmKind::LateMismatch, module, kind, text);
        match &moved {
            Ok(Some(path)) => alarm.details.push(("moved to".to_owned(), path.clone())),
            Ok(None) => {}
            Err(err) => alarm.details.push(("cannot be moved, is not served".to_owned(), err.to_string())),
        }
        if let Some(record) = listed {
            alarm.details.push(("sent by".to_owned(), record.upstream));
            alarm.details.push(("stored unverified".to_owned(), format!("{} ({})", record.since.utc(), record.reason)));
            for (client, when) in record.served {
                alarm.details.push(("served to".to_owned(), format!("{client} {}", when.utc())));
            }
            if record.served_more > 0 {
                alarm.details.push(("served to".to_owned(), format!("{} more", record.served_more)));
            }
        }
        evidence::raise(&self.parts.alarms, &self.parts.clock, alarm).await;
        moved?;
        self.condemned.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        Ok(())
    }

    /// Moves a stored file to the quarantine, and has the index forget it. Returns where it is now.
    pub async fn set_aside(&self, resource: &Resource, module: &ModuleVersion) -> Result<Option<String>, store::Error> {
        let (store, index, clock) =
            (Arc::clone(&self.parts.store), Arc::clone(&self.parts.index), self.parts.clock.clone());
        let (resource, module) = (resource.clone(), module.clone());
        store::blocking(move || {
            let moved = store.quarantine(&resource).map_err(|err| store::Error::at("quarantine", err))?;
            index.forget_version(&module);
            // Its other files are still there.
            for kind in ArtifactKind::ALL {
                if let Some(stored) = store.open_blocking(&Resource::Artifact(module.clone(), kind))? {
                    index.note_found(&module, kind, stored.length, None, clock.now());
                }
            }
            Ok(moved.map(|path| path.display().to_string()))
        })
        .await
    }

    /// Returns the hash of a stored `.mod` or `.zip`; nothing if it is not there any more. One that does not hold is moved
    /// out of the way.
    async fn hash_stored(&self, resource: &Resource) -> Result<Option<H1>, Failure> {
        let (store, clock, target) = (Arc::clone(&self.parts.store), self.parts.clock.clone(), resource.clone());
        let stop = self.parts.tasks.token().clone();
        let checked = store::blocking(move || {
            let (pause, is_cancelled) = (|pause| std::thread::sleep(pause), || stop.is_cancelled());
            Ok(scrub::check(&store, &target, &Throttle::new(0, &clock, &pause, &is_cancelled)))
        });
        match checked.await? {
            Ok(checked) => Ok(checked.and_then(|checked| checked.h1)),
            Err(Unsound::Stopped) => Err(Failure::Stopped),
            Err(unsound) if unsound.is_unknown() => {
                Err(store::Error::at(&resource.path(), std::io::Error::other(unsound.to_string())).into())
            }
            Err(unsound) => {
                log::warn!("{resource}: {unsound}; it goes to .larder/quarantine and will be fetched again");
                if let Resource::Artifact(module, _) = resource {
                    self.set_aside(resource, module).await?;
                }
                Ok(None)
            }
        }
    }

    /// Judges a tree that others have filled, if that has not been done since the settings changed. Returns whether it
    /// is done.
    async fn judge_tree(self: &Arc<Self>) -> bool {
        let stamp = format!(
            "Every file of this tree has been judged, or is in the list beside this one.\n{}\n",
            self.config.fingerprint
        );
        let store = Arc::clone(&self.parts.store);
        match store::blocking(move || store.read_own(STAMP)).await {
            Ok(Some(text)) if text == stamp.as_bytes() && !self.unverified.is_incomplete() => {
                self.is_tree_judged.store(true, Ordering::Relaxed);
                return true;
            }
            Ok(_) => {}
            Err(err) => log::warn!("{err}"),
        }
        // What is missing from the list is found by this walk.
        self.unverified.begin_anew();
        let (sender, mut found) = mpsc::channel(QUEUE_FILES);
        let store = Arc::clone(&self.parts.store);
        let walk = store::blocking(move || {
            let artifacts = store.resources_after(None).filter_map(|resource| match resource {
                Resource::Artifact(module, kind) => Some((module, kind)),
                _ => None,
            });
            // Whoever judges may have given up; then there is nobody to send to.
            Ok(artifacts.map(|artifact| sender.blocking_send(artifact)).all(|sent| sent.is_ok()))
        });
        let judge = async move {
            let mut judged = 0_u64;
            while let Some((module, kind)) = found.recv().await {
                if kind == ArtifactKind::Info || self.is_exempt(module.path()) {
                    continue;
                }
                if !self.judge_found(&module, kind).await {
                    return None;
                }
                judged += 1;
            }
            Some(judged)
        };
        let (walked, judged) = tokio::join!(walk, judge);
        let (Ok(true), Some(judged)) = (walked, judged) else { return false };
        let store = Arc::clone(&self.parts.store);
        if let Err(err) = store::blocking(move || store.replace_own(STAMP, stamp.as_bytes())).await {
            log::warn!("{err}");
        }
        self.is_tree_judged.store(true, Ordering::Relaxed);
        if judged > 0 {
            log::info!("the tree has been judged by the checksum database: files={judged}");
        }
        true
    }

    fn is_database_down(&self) -> bool {
        self.database().is_none_or(|database| database.down_reason().is_some())
    }

    /// Judges a file of the tree, or enters it into the list. `false` if there is no going on now.
    async fn judge_found(self: &Arc<Self>, module: &ModuleVersion, kind: ArtifactKind) -> bool {
        let reason = match self.judge_late(module, kind, None).await {
            Ok(Late::Verified | Late::Wrong | Late::Gone) => return true,
            Ok(Late::NotInLog) => "not in the log".to_owned(),
            Err(Failure::Unjudged(unjudged)) => unjudged.text.to_string(),
            Err(failure) if matches!(failure, Failure::Stopped | Failure::Store(_)) || self.is_database_down() => {
                log::debug!("the tree is judged later: {failure}");
                return false;
            }
            Err(failure) => failure.to_string(),
        };
        let entry = Entry { reason, upstream: "unknown".to_owned(), since: self.parts.clock.now() };
        let (unverified, module) = (Arc::clone(&self.unverified), module.clone());
        let added = store::blocking(move || {
            unverified.add(&module, kind, entry).map_err(|err| store::Error::at("list of the unverified", err))
        });
        added.await.inspect_err(|err| log::warn!("{err}")).is_ok()
    }
}

impl Verdict {
    /// Returns it as the index keeps it.
    pub fn for_index(&self) -> index::Verdict {
        match self {
            Self::Verified => index::Verdict::Verified,
            Self::Exempt => index::Verdict::Exempt,
            Self::Unverifiable(_) => index::Verdict::Unverifiable,
        }
    }
}
