//! What a fill does, from the question to the stored file. Runs as a task of its own, whoever waits for it.
//!
//! Called by `cache` through [`crate::fill::Fills`]; calls `fill` for the bytes, `store` for the file and the index for
//! what is remembered. Invariant 2: nothing gets its final name, or is published whole, before it has been judged.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cache::{Cache, negative_of};
use crate::fill::small::{Fetched, Known};
use crate::fill::{FillState, Growing, Head, HeadWriter, Whole, judge};
use crate::module::ModuleVersion;
use crate::module::zip::hash::H1;
use crate::resource::{ArtifactKind, Mutability, Resource};
use crate::store::index::MutableEntry;
use crate::store::{self, StoredFile};
use crate::upstream::Failure;
use crate::verify::{Standing, Verdict};

impl Cache {
    /// Downloads a zip and stores it.
    pub(super) async fn fill_zip(&self, module: &ModuleVersion, resource: &Resource, head: &HeadWriter) {
        self.download_zip(module, resource, head).await;
        self.dismiss_takers(resource);
    }

    async fn download_zip(&self, module: &ModuleVersion, resource: &Resource, head: &HeadWriter) {
        // Whoever came while an earlier fill was just ending finds its file here.
        if let Ok(Some(stored)) = self.store.open(resource).await {
            let (_, state) = watch::channel(FillState::Sealed { length: stored.length });
            let (received, upstream) = (Arc::default(), Arc::from(""));
            head.publish(Head::Growing(Growing { file: stored.file, state, received, upstream }));
            return;
        }
        let started = self.clock.steady();
        log::debug!("fetching {resource}");
        match self.downloader.download(module, head).await {
            Ok(done) => {
                self.note_artifact(module, ArtifactKind::Zip, &done.stored, &done.upstream);
                self.note_verdict(module, ArtifactKind::Zip, &done.verdict, done.h1);
                self.index.forget_negative(resource);
                let ms = self.clock.steady().duration_since(started).as_millis();
                log::info!("stored {resource} bytes={} ms={ms} upstream={}", done.stored.length, done.upstream);
            }
            Err(failure) => self.failed(resource, head, failure),
        }
    }

    /// Fetches a small file, lets followers have it, and stores it.
    pub(super) async fn fill_small(&self, resource: &Resource, head: &HeadWriter) {
        self.fetch_small(resource, head).await;
        self.dismiss_takers(resource);
    }

    async fn fetch_small(&self, resource: &Resource, head: &HeadWriter) {
        let is_mutable = resource.mutability() == Mutability::Mutable;
        let stored = self.store.open(resource).await.ok().flatten();
        if let Some(stored) = stored.clone().filter(|_| !is_mutable) {
            return self.publish_stored(resource, head, stored, "", false).await;
        }
        let entry =
            if is_mutable { self.remembered_of(resource).await.ok().and_then(|(entry, _)| entry) } else { None };
        // Somebody else's fill may have ended between this request's look at the index and its turn here.
        if let (Some(stored), Some(entry)) = (&stored, &entry)
            && entry.is_fresh(self.clock.now(), self.config.fresh_for)
        {
            return self.publish_stored(resource, head, stored.clone(), "", true).await;
        }
        let known = entry.filter(|_| stored.is_some()).and_then(|entry| {
            let upstream = self.index.upstream_name(entry.upstream?)?;
            Some(Known { upstream, etag: entry.etag, last_modified: entry.last_modified })
        });
        let started = self.clock.steady();
        let fetched = tokio::select! {
            fetched = self.small_files.fetch(resource, known.as_ref()) => fetched,
            () = self.fills.stopped() => Err(Failure::Stopped),
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(failure) => return self.failed(resource, head, failure),
        };
        let Some(body) = fetched.body.clone() else {
            if let Some(stored) = stored {
                self.note_mutable(resource, &fetched, stored.length);
                self.publish_stored(resource, head, stored, &fetched.upstream, true).await;
            }
            return;
        };
        // Those who wait get the judged bytes now; that a copy is safe on the disk is not their concern.
        head.publish(Head::Whole(Whole {
            body: body.clone(),
            upstream: Arc::clone(&fetched.upstream),
            is_revalidated: false,
        }));
        let bytes = body.len();
        let commit = {
            let (store, resource, body) = (Arc::clone(&self.store), resource.clone(), body.clone());
            store::blocking(move || store.commit_bytes(&resource, &body))
        };
        match commit.await {
            Ok(written) => {
                self.note_small(resource, &fetched, &written);
                let ms = self.clock.steady().duration_since(started).as_millis();
                log::info!("stored {resource} bytes={bytes} ms={ms} upstream={}", fetched.upstream);
            }
            Err(err) => {
                log::error!("served but not stored {resource}: {err}");
                self.note_full_disk(&err);
            }
        }
        if let Resource::Query(path, _) = resource {
            self.keep_canonical(path, &body, &fetched).await;
        }
    }

    /// Stores the answer to a branch or commit also as what it is: the .info of a version.
    async fn keep_canonical(&self, path: &crate::module::path::ModulePath, body: &bytes::Bytes, fetched: &Fetched) {
        let Ok(version) = judge::info_version(body) else { return };
        let Ok(canonical @ Resource::Artifact(..)) = Resource::info(path.clone(), &version) else { return };
        if !matches!(self.store.open(&canonical).await, Ok(None)) {
            return;
        }
        let (store, body, target) = (Arc::clone(&self.store), body.clone(), canonical.clone());
        match store::blocking(move || store.commit_bytes(&target, &body)).await {
            Ok(written) => {
                if let Resource::Artifact(module, kind) = &canonical {
                    self.note_artifact(module, *kind, &written, &fetched.upstream);
                }
            }
            Err(err) => log::error!("not stored {canonical}: {err}"),
        }
    }

    async fn publish_stored(
        &self,
        resource: &Resource,
        head: &HeadWriter,
        stored: StoredFile,
        upstream: &str,
        is_revalidated: bool,
    ) {
        match store::blocking(move || stored.read().map_err(|err| store::Error::at("stored file", err))).await {
            Ok(body) => head.publish(Head::Whole(Whole { body, upstream: Arc::from(upstream), is_revalidated })),
            Err(err) => self.failed(resource, head, Failure::from(err)),
        }
    }

    /// Tells the followers, the log and, if it is a 404, the memory of negative answers.
    fn failed(&self, resource: &Resource, head: &HeadWriter, failure: Failure) {
        if let Some(negative) = negative_of(&failure, self.clock.now()) {
            self.index.note_negative(resource, &negative);
            log::debug!("not found {resource}: {failure}");
        } else if let Failure::Store(err) = &failure {
            log::error!("cannot store {resource}: {failure}");
            self.note_full_disk(err);
        } else if !matches!(failure, Failure::Offline { .. } | Failure::Stopped) {
            log::warn!("cannot fetch {resource}: {failure}");
        }
        head.publish(Head::Failed(failure));
    }

    /// Has housekeeping look for room, if that is what was missing.
    fn note_full_disk(&self, error: &store::Error) {
        if matches!(error, store::Error::Full { .. }) {
            self.disk_full.notify_one();
        }
    }

    /// Enters a small file into the index, and takes back that there was no such thing.
    fn note_small(&self, resource: &Resource, fetched: &Fetched, written: &StoredFile) {
        match resource {
            Resource::Artifact(module, kind) => {
                self.note_artifact(module, *kind, written, &fetched.upstream);
                if let Some(verdict) = &fetched.verdict {
                    self.note_verdict(module, *kind, verdict, None);
                }
            }
            Resource::SumdbLookup(..) | Resource::SumdbTile(..) => {
                self.index.count_other(1, i64::try_from(written.length).unwrap_or_default());
            }
            Resource::List(_)
            | Resource::Latest(_)
            | Resource::Query(..)
            | Resource::SumdbLatest(_)
            | Resource::SumdbSupported(_) => self.note_mutable(resource, fetched, written.length),
        }
        self.index.forget_negative(resource);
    }

    fn note_artifact(&self, module: &ModuleVersion, kind: ArtifactKind, stored: &StoredFile, upstream: &str) {
        self.index.note_artifact(module, kind, stored.length, upstream, self.clock.now());
    }

    /// Forgets who has waited for a file, noting those who got it without a verdict.
    fn dismiss_takers(&self, resource: &Resource) {
        let clients = self.takers.take(resource);
        if let Resource::Artifact(module, kind) = resource
            && !clients.is_empty()
            && self.verifier.standing(module, *kind) == Standing::Unverified
        {
            for client in clients {
                self.verifier.was_served(module, *kind, client);
            }
        }
    }

    /// Enters a verdict into the index, and who has got a file without one into the list.
    fn note_verdict(&self, module: &ModuleVersion, kind: ArtifactKind, verdict: &Verdict, h1: Option<H1>) {
        self.index.note_verdict(module, verdict.for_index(), h1.map(|h1| *h1.as_bytes()));
        if let Verdict::Unverifiable(_) = verdict {
            for client in self.takers.take(&Resource::Artifact(module.clone(), kind)) {
                self.verifier.was_served(module, kind, client);
            }
        }
    }

    fn note_mutable(&self, resource: &Resource, fetched: &Fetched, bytes: u64) {
        let entry = MutableEntry {
            fetched: self.clock.now(),
            bytes,
            etag: fetched.etag.clone(),
            last_modified: fetched.last_modified.clone(),
            upstream: self.index.upstream_number(&fetched.upstream),
        };
        self.index.note_mutable(resource, &entry);
    }
}
