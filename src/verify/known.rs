//! The newest tree head that was accepted: what every other head is compared with, over restarts.
//!
//! Owns `.larder/sumdb/NAME/`. Called by `database`; calls `store`. Invariants: what is in memory is on the disk; the size
//! never shrinks. It is kept apart from `sumdb/NAME/latest` in the tree, since that one may be copied there from anywhere,
//! and who can put an old head in its place could show an old history again.
//!
//! ```text
//! .larder/sumdb/NAME/head      the signed note, byte for byte; a slash of the name is an @
//! .larder/sumdb/NAME/since     when it was accepted, in seconds since 1970
//! sumdb/NAME/latest            the same note, for those who use the tree as it is
//! ```

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::database::Parts;
use crate::clock::{Clock, UnixSeconds};
use crate::resource::Resource;
use crate::store::{self, Store};
use crate::sumdb::{SignedHead, SumdbName, VerifierKey};
use crate::upstream::Failure;

/// The known head of one database.
pub(super) struct Known {
    state: Mutex<Option<(SignedHead, UnixSeconds)>>,
}

impl Known {
    /// Reads what was accepted by earlier runs.
    ///
    /// # Errors
    /// What the disk says; a head that does not verify.
    pub(super) fn open(store: &Store, name: &SumdbName, key: &VerifierKey) -> Result<Self, store::Error> {
        let Some(note) = store.read_own(&file(name, "head"))? else { return Ok(Self { state: Mutex::new(None) }) };
        let damaged = |reason: String| store::Error::at(&file(name, "head"), std::io::Error::other(reason));
        let head = SignedHead::open(&note, key)
            .map_err(|err| damaged(format!("{err}; if the database has another key now, remove this file")))?;
        let since = store.read_own(&file(name, "since"))?;
        let since = since.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()).unwrap_or_default();
        Ok(Self { state: Mutex::new(Some((head, UnixSeconds(since)))) })
    }

    /// Returns the head.
    pub(super) fn head(&self) -> Option<SignedHead> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(head, _)| head.clone())
    }

    /// Returns the head and for how long it has been known; as long as the clock cannot be trusted, for no time at all.
    pub(super) fn head_and_age(&self, clock: &Clock) -> Option<(SignedHead, Duration)> {
        let (head, since) = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let age = clock.trusted_now().filter(|_| since >= crate::clock::CLOCK_FLOOR).map(|now| now.since(since));
        Some((head, age.unwrap_or_default()))
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

fn file(name: &SumdbName, file: &str) -> String {
    format!("sumdb/{}/{file}", name.as_str().replace('/', "@"))
}
