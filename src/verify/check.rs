//! One stored file, judged wholly: first by what was noted when it was stored, then by the log.
//!
//! Owns [`Checker`]. Called by those who go over the whole tree, on a thread that may take its time; calls `store::scrub`
//! for the bytes and [`super::Database`] for the records, which are proved again from the disk. Invariants: nothing is
//! asked of anybody for a file whose record is stored; a file that the log contradicts is moved out of the tree before
//! this returns, as any late mismatch is; all else stays where it is, but for a stored record that does not verify.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Verifier, mismatch, reason_of};
use crate::module::ModuleVersion;
use crate::module::zip::hash::H1;
use crate::resource::{ArtifactKind, Resource};
use crate::store::scrub::{self, Throttle, Unsound};
use crate::sumdb::SumdbName;
use crate::sumdb::check::ProvedRecord;
use crate::sumdb::name::LookupTarget;
use crate::upstream::Failure;

/// How a stored file was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Fine {
        /// Its length.
        bytes: u64,
        /// Whether the log vouches for it.
        is_vouched_for: bool,
    },
    /// It holds, and the log could not say whether it is the right one.
    Unverified {
        /// Its length.
        bytes: u64,
        /// Why.
        reason: String,
    },
    /// It is not what was stored. It is where it was.
    Broken {
        /// In which way.
        text: String,
        /// The hash of a zip whose content is the right one all the same.
        right_h1: Option<H1>,
    },
    /// It was a record that did not verify, and has been moved to the quarantine.
    SetAside {
        /// In which way.
        text: String,
        /// Whether the right one is there in its place; if not, why.
        replaced: Result<(), String>,
    },
    /// It is not what the log says. It has been moved to the quarantine, and an alarm raised.
    Wrong(String),
    /// It could not be read, or not be moved: the device is at fault.
    Unreadable(String),
    /// It is not there any more.
    Gone,
    /// The check was told to stop.
    Stopped,
}

/// Judges stored files, one after the other.
pub struct Checker<'a> {
    verifier: &'a Arc<Verifier>,
    runtime: &'a Handle,
    stop: &'a CancellationToken,
    throttle: &'a Throttle<'a>,
    /// What the log said of the last module version: its two files come one after the other.
    last: Option<(ModuleVersion, Result<ProvedRecord, Failure>)>,
}

impl<'a> Checker<'a> {
    /// Makes one that reads as `throttle` allows. `runtime` is where the log is waited for, until `stop` is cancelled.
    pub fn new(
        verifier: &'a Arc<Verifier>,
        runtime: &'a Handle,
        stop: &'a CancellationToken,
        throttle: &'a Throttle<'a>,
    ) -> Self {
        Self { verifier, runtime, stop, throttle, last: None }
    }

    /// Judges the stored file of `resource`. For a thread that may take its time; not for a task.
    pub fn check(&mut self, resource: &Resource) -> Outcome {
        let checked = match scrub::check(&self.verifier.parts.store, resource, self.throttle) {
            Ok(Some(checked)) => checked,
            Ok(None) => return Outcome::Gone,
            Err(Unsound::Stopped) => return Outcome::Stopped,
            Err(unsound) if unsound.is_unknown() => return Outcome::Unreadable(unsound.to_string()),
            Err(unsound) => {
                let is_decayed = matches!(unsound, Unsound::Decayed { .. });
                let right_h1 = if is_decayed { self.right_h1(resource) } else { None };
                return Outcome::Broken { text: unsound.to_string(), right_h1 };
            }
        };
        match (resource, checked.h1) {
            (Resource::Artifact(module, kind @ (ArtifactKind::Mod | ArtifactKind::Zip)), Some(h1)) => {
                self.by_the_log(resource, module, *kind, h1, checked.bytes)
            }
            (Resource::SumdbLookup(name, target), _) => self.lookup(resource, name, target, checked.bytes),
            _ => Outcome::Fine { bytes: checked.bytes, is_vouched_for: false },
        }
    }

    fn by_the_log(
        &mut self,
        resource: &Resource,
        module: &ModuleVersion,
        kind: ArtifactKind,
        h1: H1,
        bytes: u64,
    ) -> Outcome {
        let record = match self.record(module) {
            None => return Outcome::Fine { bytes, is_vouched_for: false },
            Some(Ok(record)) => record,
            Some(Err(Failure::Stopped)) => return Outcome::Stopped,
            Some(Err(failure)) => return Outcome::Unverified { bytes, reason: self.reason(&failure) },
        };
        let concluded = self.verifier.conclude(resource, module, kind, (h1, &record), None);
        match self.runtime.block_on(concluded) {
            Ok(None) => Outcome::Fine { bytes, is_vouched_for: true },
            Ok(Some(text)) => Outcome::Wrong(text),
            Err(failure) => Outcome::Unreadable(format!("it is not what the log says, and cannot be moved: {failure}")),
        }
    }

    /// A stored record is proved again from the stored tiles; one that does not verify is replaced by whoever asks for it.
    fn lookup(&self, resource: &Resource, name: &SumdbName, target: &LookupTarget, bytes: u64) -> Outcome {
        let judge = self.verifier.database().filter(|database| database.name == *name);
        let Some(database) = judge.or_else(|| self.verifier.proxied(name)) else {
            return Outcome::Fine { bytes, is_vouched_for: false };
        };
        let Some(before) = self.stored_bytes(resource) else { return Outcome::Gone };
        let looked = self.runtime.block_on(self.stop.run_until_cancelled(database.record(target)));
        let after = self.stored_bytes(resource);
        let is_moved = after.as_ref() != Some(&before);
        let text = || "it does not verify".to_owned();
        match looked {
            None | Some(Err(Failure::Stopped)) => Outcome::Stopped,
            Some(Ok(_)) if is_moved => Outcome::SetAside { text: text(), replaced: Ok(()) },
            Some(Ok(_)) => Outcome::Fine { bytes, is_vouched_for: true },
            Some(Err(failure)) if is_moved => Outcome::SetAside { text: text(), replaced: Err(reason_of(&failure)) },
            Some(Err(failure)) => Outcome::Unverified { bytes, reason: self.reason(&failure) },
        }
    }

    fn stored_bytes(&self, resource: &Resource) -> Option<bytes::Bytes> {
        self.verifier.parts.store.open_blocking(resource).ok().flatten()?.read().ok()
    }

    /// Returns the hash of a zip that has changed where its content is not, if somebody vouches for that.
    fn right_h1(&mut self, resource: &Resource) -> Option<H1> {
        let Resource::Artifact(module, ArtifactKind::Zip) = resource else { return None };
        let (h1, is_noted) = scrub::content_of_zip(&self.verifier.parts.store, module, self.throttle)?;
        let is_right = match self.record(module) {
            Some(Ok(record)) => mismatch(module, ArtifactKind::Zip, h1, &record).is_none(),
            Some(Err(_)) | None => is_noted,
        };
        is_right.then_some(h1)
    }

    /// Returns what the log says of a module version; nothing if it is not to be asked.
    fn record(&mut self, module: &ModuleVersion) -> Option<Result<ProvedRecord, Failure>> {
        self.verifier.database()?;
        if self.verifier.is_exempt(module.path()) {
            return None;
        }
        if let Some((last, record)) = &self.last
            && last == module
        {
            return Some(record.clone());
        }
        let asked = self.stop.run_until_cancelled(self.verifier.record_unhurried(module));
        let record = self.runtime.block_on(asked).unwrap_or(Err(Failure::Stopped));
        self.last = Some((module.clone(), record.clone()));
        Some(record)
    }

    fn reason(&self, failure: &Failure) -> String {
        let name = self.verifier.database().map(|database| database.name.to_string()).unwrap_or_default();
        match failure {
            Failure::NotFound(_) => format!("not in the log of checksum database {name}"),
            Failure::Unjudged(unjudged) => unjudged.text.to_string(),
            failure => format!("checksum database {name} is out of reach: {}", reason_of(failure)),
        }
    }
}
