//! The newest tree head that was accepted: what every other head is compared with, over restarts.
//!
//! Owns `.larder/sumdb/NAME/`. Called by `database`; calls `store` and `evidence`. Invariants: what is in memory is on the
//! disk; the size never shrinks; a head that is lost to damage is not forgotten silently, but latches an alarm. It is kept apart from `sumdb/NAME/latest` in the tree, since that one may be copied there from anywhere,
//! and who can put an old head in its place could show an old history again.
//!
//! ```text
//! .larder/sumdb/NAME/head      the signed note, byte for byte; a slash of the name is an @
//! .larder/sumdb/NAME/head.damaged    one that could not be read
//! .larder/sumdb/NAME/since     when it was accepted, in seconds since 1970
//! sumdb/NAME/latest            the same note, for those who use the tree as it is
//! ```

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::database::Parts;
use super::evidence;
use crate::clock::{CLOCK_FLOOR, Clock, UnixSeconds};
use crate::resource::Resource;
use crate::store::{self, Store};
use crate::sumdb::head::HeadError;
use crate::sumdb::note::NoteError;
use crate::sumdb::{SignedHead, SumdbName, VerifierKey};
use crate::upstream::Failure;

/// The known head of one database.
pub(super) struct Known {
    state: Mutex<Option<(SignedHead, UnixSeconds)>>,
}

impl Known {
    /// Reads what was accepted by earlier runs. A head that is no signed head any more is kept aside, and an alarm latches:
    /// an old history could be shown again, so a person has to say that the database may begin anew.
    ///
    /// # Errors
    /// What the disk says; a head that another key has signed.
    pub(super) fn open(parts: &Parts, name: &SumdbName, key: &VerifierKey) -> Result<Self, store::Error> {
        let store = &parts.store;
        let fresh = Self { state: Mutex::new(None) };
        let path = path(store, &file(name, "head")).display().to_string();
        let Some(note) = store.read_own(&file(name, "head"))? else { return Ok(fresh) };
        let head = match SignedHead::open(&note, key) {
            Ok(head) => head,
            Err(err @ HeadError::Note(NoteError::NotSigned { .. })) => {
                let reason = format!("{err}; if the database has another key now, remove this file");
                return Err(store::Error::at(&path, std::io::Error::other(reason)));
            }
            Err(err) => {
                lose(parts, name, &path, &err);
                return Ok(fresh);
            }
        };
        let since = store.read_own(&file(name, "since"))?;
        let since = since.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()).unwrap_or_default();
        let known = Self { state: Mutex::new(Some((head, UnixSeconds(since)))) };
        if let Some(now) = known.begin_age(&parts.clock) {
            write_since(store, name, now);
        }
        Ok(known)
    }

    /// Returns the head.
    pub(super) fn head(&self) -> Option<SignedHead> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(head, _)| head.clone())
    }

    /// Returns the head and for how long it has been known; as long as the clock cannot be trusted, for no time at all. Where
    /// nobody knows since when, because it was accepted by a clock that showed 1970, the time begins now.
    pub(super) async fn head_and_age(&self, parts: &Parts, name: &SumdbName) -> Option<(SignedHead, Duration)> {
        if let Some(now) = self.begin_age(&parts.clock) {
            let (store, name) = (Arc::clone(&parts.store), name.clone());
            // It counts in this process in any case; a failure was logged.
            let _ = store::blocking(move || {
                write_since(&store, &name, now);
                Ok(())
            })
            .await;
        }
        let (head, since) = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let age = parts.clock.trusted_now().filter(|_| since >= CLOCK_FLOOR).map(|now| now.since(since));
        Some((head, age.unwrap_or_default()))
    }

    /// Makes the time for which the head is known begin now, if it has not begun and the clock is right by now. Returns what
    /// is to be written then.
    fn begin_age(&self, clock: &Clock) -> Option<UnixSeconds> {
        let now = clock.trusted_now()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, since) = state.as_mut().filter(|(_, since)| *since < CLOCK_FLOOR)?;
        *since = now;
        Some(now)
    }

    /// Makes a head the known one: on the disk first. Only one at a time, by who has compared it with the one before.
    pub(super) async fn move_to(&self, parts: &Parts, name: &SumdbName, head: SignedHead) -> Result<(), Failure> {
        let now = parts.clock.now();
        let (store, name, note) = (parts.store.clone(), name.clone(), Bytes::from(head.note().to_owned()));
        let written = store::blocking(move || {
            // A head that is younger than it says is taken for one whose age is not known yet.
            store.replace_own(&file(&name, "since"), now.0.to_string().as_bytes())?;
            store.replace_own(&file(&name, "head"), &note)?;
            if let Err(err) = store.commit_bytes(&Resource::SumdbLatest(name), &note) {
                log::warn!("the tree's own copy of the head is an older one: {err}");
            }
            Ok(())
        });
        written.await?;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some((head, now));
        Ok(())
    }
}

/// Keeps aside what is no head any more. First the alarm: where it cannot be written the file stays, so that the next start
/// finds it again.
fn lose(parts: &Parts, name: &SumdbName, path: &str, err: &HeadError) {
    let alarm = evidence::head_lost(name, path, err);
    let raised = parts.alarms.raise(alarm, parts.clock.now()).map_err(|err| store::Error::at("alarms", err));
    let kept = raised.and_then(|_| parts.store.keep_own_aside(&file(name, "head")));
    if let Err(err) = kept {
        log::error!("{path}: is damaged, and is looked at again at the next start: {err}");
    }
}

fn write_since(store: &Store, name: &SumdbName, since: UnixSeconds) {
    if let Err(err) = store.replace_own(&file(name, "since"), since.0.to_string().as_bytes()) {
        log::warn!("since when the head of {name} is known is not kept: {err}");
    }
}

/// Returns where a file of Larder's own is, for a person who has to find it.
fn path(store: &Store, file: &str) -> PathBuf {
    let path = store.own_folder().join(file);
    std::path::absolute(&path).unwrap_or(path)
}

fn file(name: &SumdbName, file: &str) -> String {
    format!("sumdb/{}/{file}", name.as_str().replace('/', "@"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make the trees they need")]

    use std::path::Path;

    use super::*;
    use crate::shutdown::Tasks;
    use crate::store::alarms::{AlarmKind, Alarms};
    use crate::store::index::Index;
    use crate::sumdb::generate::{Log, Signer};
    use crate::upstream::{self, UpstreamList};

    const NAME: &str = "sum.example";
    const FOLDER: &str = ".larder/sumdb/sum.example";

    fn parts(root: &Path) -> Parts {
        let config = upstream::Config {
            entries: Vec::new(),
            private: Vec::new(),
            retry_attempts: 1,
            retry_backoff: Duration::ZERO,
        };
        Parts {
            store: Arc::new(Store::open_root(root).unwrap()),
            index: Arc::new(Index::opening(root)),
            upstreams: Arc::new(UpstreamList::new(config, Tasks::new())),
            alarms: Arc::new(Alarms::load(root, Clock::system().now()).unwrap()),
            tasks: Tasks::new(),
            clock: Clock::system(),
        }
    }

    fn signer() -> Signer {
        Signer::new(NAME, 1)
    }

    fn note(signer: &Signer) -> String {
        let log = Log::new((0..9_u32).map(|number| format!("record {number}\n")));
        signer.sign(&log.head(9).to_string())
    }

    fn open(parts: &Parts) -> Result<Known, store::Error> {
        Known::open(parts, &signer().key().sumdb_name().unwrap(), &signer().key())
    }

    /// Whatever damage made of the head, Larder starts, the alarm latches until a person clears it, and the file is kept.
    #[test]
    fn a_damaged_head_latches() {
        let good = note(&signer());
        for damaged in ["", "\0\0\0", &good[..good.len() - 9], &good.replacen('9', "8", 1), "no head\n"] {
            let root = tempfile::tempdir().unwrap();
            let parts = parts(root.path());
            std::fs::create_dir_all(root.path().join(FOLDER)).unwrap();
            std::fs::write(root.path().join(FOLDER).join("head"), damaged).unwrap();
            for _ in 0..2 {
                assert!(open(&parts).unwrap().head().is_none(), "{damaged:?}");
                let latched = parts.alarms.latched(NAME).unwrap();
                assert_eq!((latched.kind, latched.count), (AlarmKind::Inconsistent, 1));
                assert!(latched.details[1].1.ends_with(&format!("{FOLDER}/head.damaged")), "{latched:?}");
            }
            assert_eq!(std::fs::read_to_string(root.path().join(FOLDER).join("head.damaged")).unwrap(), damaged);
            assert!(!root.path().join(FOLDER).join("head").try_exists().unwrap());
        }
    }

    /// A head of another key is no damage: somebody has changed the settings. The text says which file it is.
    #[test]
    fn a_head_of_another_key_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let parts = parts(root.path());
        std::fs::create_dir_all(root.path().join(FOLDER)).unwrap();
        std::fs::write(root.path().join(FOLDER).join("head"), note(&Signer::new(NAME, 2))).unwrap();
        let text = open(&parts).err().unwrap().to_string();
        let path = root.path().join(FOLDER).join("head");
        assert!(text.starts_with(&format!("{}: ", path.display())), "{text}");
        assert!(text.contains("another key") && parts.alarms.list().is_empty(), "{text}");
        assert!(path.try_exists().unwrap());
    }

    /// A head that was accepted while the clock showed 1970 is known from the first moment at which it is right.
    #[tokio::test]
    async fn the_age_begins_when_the_clock_is_right() {
        let root = tempfile::tempdir().unwrap();
        let parts = parts(root.path());
        let folder = root.path().join(FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("head"), note(&signer())).unwrap();
        std::fs::write(folder.join("since"), "77").unwrap();
        let since = || std::fs::read_to_string(folder.join("since")).unwrap().parse::<u64>().unwrap();
        let known = open(&parts).unwrap();
        assert!(since() >= CLOCK_FLOOR.0);
        // As if it had come right only later.
        known.state.lock().unwrap().as_mut().unwrap().1 = UnixSeconds(77);
        std::fs::write(folder.join("since"), "77").unwrap();
        let name = signer().key().sumdb_name().unwrap();
        assert!(known.head_and_age(&parts, &name).await.unwrap().1 < Duration::from_secs(60));
        let begun = since();
        assert!(begun >= CLOCK_FLOOR.0);
        parts.clock.advance(Duration::from_secs(7200));
        for known in [known, open(&parts).unwrap()] {
            assert!(known.head_and_age(&parts, &name).await.unwrap().1 >= Duration::from_secs(7200));
        }
        assert_eq!(since(), begun);
    }
}
