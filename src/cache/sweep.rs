//! Going over what is stored: every file is judged, and what is broken can be fetched again.
//!
//! Owns [`Sweep`] and the order of a sweep. Called by the command verify and by the task that does the same in the
//! background; calls `verify::check` for the judgement and [`Cache::get`] for what is fetched. Invariants: what the log
//! contradicts leaves the tree at once, whoever looks; all else is touched only by a sweep that repairs; a file that
//! cannot be had again is not given up as long as its content is right. Records and tiles come first, so that what
//! decayed among them is told as that and not met on the way.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, FetchMode};
use crate::module::zip::hash::H1;
use crate::resource::{ArtifactKind, Resource};
use crate::store::alarms::{AlarmKind, NewAlarm};
use crate::store::scrub::Throttle;
use crate::store::{self, Store};
use crate::verify::check::{Checker, Outcome};

/// Where a sweep in the background stands: the path of the last file it judged.
pub const STATE_FILE: &str = "scrub";
/// When the last one came to its end, in seconds since 1970.
pub const STAMP_FILE: &str = "scrubbed";
/// Alarms of one sweep: who has hundreds of broken files needs no alarm for each.
const ALARMS_MAX: u32 = 16;
/// How often it is looked whether a download has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// What is small is stored that long after it could be served, at most.
const SMALL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Whether a person is having the tree verified: one at a time, and the background waits.
#[derive(Debug, Default)]
pub struct Verifying(AtomicBool);

/// As long as it lives, a person is having the tree verified.
#[derive(Debug)]
pub struct Turn<'a>(&'a Verifying);

impl Verifying {
    /// Begins; nothing if it has begun already.
    pub fn begin(&self) -> Option<Turn<'_>> {
        // Made only if it is to be handed out: dropping one ends the turn of whoever has it.
        (!self.0.swap(true, Ordering::AcqRel)).then(|| Turn(self))
    }

    /// Says whether it is under way.
    pub fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

/// What a sweep has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files that were read.
    pub files: u64,
    /// Bytes of those that hold.
    pub bytes: u64,
    /// Files that are not what was stored.
    pub broken: u64,
    /// Files that are not what the log says.
    pub wrong: u64,
    /// Files that could not be read.
    pub unreadable: u64,
    /// Of all these, files of which the right one is there again.
    pub repaired: u64,
    /// Files of which the log could not say whether they are right.
    pub unverified: u64,
    /// Files that the log vouches for.
    pub vouched_for: u64,
}

impl Tally {
    /// Returns how many files are not, or not there any more, as they should be.
    pub fn left(&self) -> u64 {
        (self.broken + self.wrong + self.unreadable).saturating_sub(self.repaired)
    }
}

/// Something a person may want to know of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In one word: `broken`, `wrong`, `unreadable`, `unverified`, `repaired`, `kept` or `quarantined`.
    pub word: &'static str,
    /// The file, and what was found or done.
    pub text: String,
}

/// One way over the tree.
pub struct Sweep<'a> {
    cache: &'a Arc<Cache>,
    runtime: &'a Handle,
    stop: &'a CancellationToken,
    checker: Checker<'a>,
    repairs: bool,
    alarms: u32,
    /// What has been found so far.
    pub tally: Tally,
}

/// Returns what is stored in the order of a sweep, beginning after `after`: what others are judged by comes first, since
/// judging by it would have it fetched again before it is looked at.
pub fn in_order(store: &Store, after: Option<&Resource>) -> impl Iterator<Item = Resource> {
    let begins_in = after.map_or(0, part);
    let parts = (begins_in..PARTS).map(move |number| {
        let after = after.filter(|_| number == begins_in);
        store.resources_after(after).filter(move |resource| part(resource) == number)
    });
    parts.collect::<Vec<_>>().into_iter().flatten()
}

/// How many parts a sweep has.
const PARTS: u8 = 3;

fn part(resource: &Resource) -> u8 {
    match resource {
        Resource::SumdbTile(..) => 0,
        Resource::SumdbSupported(_) | Resource::SumdbLatest(_) | Resource::SumdbLookup(..) => 1,
        Resource::List(_) | Resource::Latest(_) | Resource::Query(..) | Resource::Artifact(..) => 2,
    }
}

impl<'a> Sweep<'a> {
    /// Begins one. What is broken is fetched again if it `repairs`; `runtime` is where that is waited for.
    pub fn new(
        cache: &'a Arc<Cache>,
        runtime: &'a Handle,
        stop: &'a CancellationToken,
        throttle: &'a Throttle<'a>,
        repairs: bool,
    ) -> Self {
        let checker = Checker::new(&cache.verifier, runtime, stop, throttle);
        Self { cache, runtime, stop, checker, repairs, alarms: 0, tally: Tally::default() }
    }

    /// Judges a stored file and does what is to be done, telling it. `false` if it is to stop. For a thread that may take
    /// its time; not for a task.
    pub fn look_at(&mut self, resource: &Resource, tell: &mut dyn FnMut(Finding)) -> bool {
        let name = name_of(resource);
        let mut say = |word, text: String| tell(Finding { word, text: format!("{name}: {text}") });
        match self.checker.check(resource) {
            Outcome::Stopped => return false,
            Outcome::Gone => return true,
            Outcome::Fine { bytes, is_vouched_for } => {
                self.tally.bytes += bytes;
                self.tally.vouched_for += u64::from(is_vouched_for);
            }
            Outcome::Unverified { bytes, reason } => {
                self.tally.bytes += bytes;
                self.tally.unverified += 1;
                say("unverified", reason);
            }
            Outcome::Unreadable(text) => {
                self.tally.unreadable += 1;
                self.alarm(&name, &text);
                say("unreadable", text);
            }
            Outcome::SetAside { text, replaced } => {
                self.tally.broken += 1;
                self.alarm(&name, &text);
                say("broken", text);
                match replaced {
                    Ok(()) => {
                        self.tally.repaired += 1;
                        say("repaired", "fetched again and proved".to_owned());
                    }
                    Err(reason) => say("quarantined", format!("not to be had now: {reason}")),
                }
            }
            Outcome::Wrong(text) => {
                self.tally.wrong += 1;
                let text = text.split_once(": ").map_or(text.as_str(), |(_, text)| text);
                say("wrong", format!("{text}; it has been moved to the quarantine, see larder alarms"));
                if self.repairs {
                    match self.fetch(resource) {
                        Ok(()) => self.repaired(&mut say),
                        Err(reason) => say("quarantined", format!("not to be had now: {reason}")),
                    }
                }
            }
            Outcome::Broken { text, right_h1 } => {
                self.tally.broken += 1;
                self.alarm(&name, &text);
                let content = if right_h1.is_some() { "; its content is still the right one" } else { "" };
                say("broken", format!("{text}{content}"));
                if self.repairs {
                    self.repair(resource, right_h1, &mut say);
                }
            }
        }
        self.tally.files += 1;
        true
    }

    fn repaired(&mut self, say: &mut dyn FnMut(&'static str, String)) {
        self.tally.repaired += 1;
        say("repaired", "fetched again".to_owned());
    }

    /// Moves a broken file out of the way and fetches it again. One whose content is right comes back if there is no other.
    fn repair(&mut self, resource: &Resource, right_h1: Option<H1>, say: &mut dyn FnMut(&'static str, String)) {
        if right_h1.is_some()
            && let Some(reason) = self.cache.offline_reason(resource)
        {
            return say("kept", format!("its content is right, and no other one is to be had now: {reason}"));
        }
        let kept = match self.set_aside(resource) {
            Ok(kept) => kept,
            Err(err) => return say("kept", format!("it cannot be moved to the quarantine: {err}")),
        };
        let reason = match self.fetch(resource) {
            Ok(()) => return self.repaired(say),
            Err(reason) => reason,
        };
        match (right_h1, &kept, resource) {
            (Some(h1), Some(kept), Resource::Artifact(module, kind)) => {
                let (store, index) = (&self.cache.store, &self.cache.index);
                let length = store.take_back(kept, resource).and_then(|()| {
                    store.write_zip_hash(module, h1).map_err(std::io::Error::other)?;
                    let stored = store.open_blocking(resource).map_err(std::io::Error::other)?;
                    Ok(stored.map_or(0, |stored| stored.length))
                });
                match length {
                    Ok(length) => {
                        index.note_found(module, *kind, length, None, self.cache.clock.now());
                        say("kept", format!("its content is right, and no other one is to be had now: {reason}"));
                    }
                    Err(err) => {
                        say("quarantined", format!("not to be had now: {reason}; and cannot be put back: {err}"));
                    }
                }
            }
            _ => say("quarantined", format!("not to be had now: {reason}")),
        }
    }

    fn set_aside(&self, resource: &Resource) -> Result<Option<PathBuf>, store::Error> {
        if let Resource::Artifact(module, _) = resource {
            let moved = self.runtime.block_on(self.cache.verifier.set_aside(resource, module))?;
            return Ok(moved.map(PathBuf::from));
        }
        let length = self.cache.store.open_blocking(resource)?.map_or(0, |stored| stored.length);
        let moved = self.cache.store.quarantine(resource).map_err(|err| store::Error::at("quarantine", err))?;
        if resource.sumdb_name().is_some() {
            self.cache.index.count_other(-1, -i64::try_from(length).unwrap_or_default());
        } else {
            self.cache.index.forget_mutable(resource);
        }
        Ok(moved)
    }

    /// Fetches what is not stored any more, and waits until it is.
    fn fetch(&self, resource: &Resource) -> Result<(), String> {
        self.cache.index.forget_negative(resource);
        let fetched = async {
            // The reader of a zip on its way in is not needed: the download goes on.
            drop(self.cache.get(resource, FetchMode::Fetch, None).await.map_err(|err| err.to_string())?);
            self.wait_for(resource).await
        };
        let stopped = || Err("stopped".to_owned());
        self.runtime.block_on(self.stop.run_until_cancelled(fetched)).unwrap_or_else(stopped)
    }

    async fn wait_for(&self, resource: &Resource) -> Result<(), String> {
        let mut waited = Duration::ZERO;
        loop {
            let is_on_its_way = match resource {
                Resource::Artifact(module, ArtifactKind::Zip) => self.cache.fills.is_filling(module),
                _ => waited < SMALL_WAIT_MAX,
            };
            match self.cache.store.open(resource).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) if is_on_its_way => {}
                Ok(None) => return Err("it came, and could not be stored: the log says why".to_owned()),
                Err(err) => return Err(err.to_string()),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
            waited += POLL_INTERVAL;
        }
    }

    fn alarm(&mut self, name: &str, text: &str) {
        self.alarms += 1;
        if self.alarms > ALARMS_MAX {
            return log::warn!("damaged, and told without an alarm of its own, {name}: {text}");
        }
        let alarm = NewAlarm {
            kind: AlarmKind::Damaged,
            database: None,
            subject: name.to_owned(),
            text: format!("a stored file is not what was stored: {text}"),
            details: Vec::new(),
            evidence: None,
        };
        if let Err(err) = self.cache.verifier.alarms().raise(alarm, self.cache.clock.now()) {
            log::error!("an alarm could not be written and is lost at the next start: {err}");
        }
    }
}

/// Returns what a person calls a file.
fn name_of(resource: &Resource) -> String {
    match resource {
        Resource::Artifact(module, kind) => format!("{module} {kind}"),
        other => other.path(),
    }
}

#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
#[cfg(test)]
mod tests {
    use super::*;

    /// What is of a checksum database comes first, and a sweep goes on after any of the files.
    #[test]
    fn sweeps_go_on_anywhere() {
        let root = tempfile::tempdir().unwrap();
        let wanted = ["sumdb/x/latest", "a.com/m/@v/list", "a.com/m/@v/v1.0.0.mod", "z.com/m/@v/list"];
        for path in wanted {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        let store = Store::open_root(root.path()).unwrap();
        let order = |after: Option<&Resource>| in_order(&store, after).map(|r| r.path()).collect::<Vec<_>>();
        assert_eq!(order(None), wanted);
        for (index, path) in wanted.iter().enumerate() {
            assert_eq!(order(Some(&Resource::parse(path).unwrap())), wanted[index + 1..]);
        }
    }

    /// One person at a time.
    #[test]
    fn verifying_is_done_once_at_a_time() {
        let verifying = Verifying::default();
        let turn = verifying.begin();
        assert!(turn.is_some() && verifying.begin().is_none() && verifying.is_under_way());
        drop(turn);
        assert!(!verifying.is_under_way() && verifying.begin().is_some());
    }

    /// What was repaired is not left.
    #[test]
    fn repaired_files_are_not_left() {
        let tally = Tally { broken: 2, wrong: 1, repaired: 2, ..Tally::default() };
        assert_eq!((tally.left(), Tally::default().left()), (1, 0));
    }
}
