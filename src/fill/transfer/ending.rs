//! The end of a download: hashes, verdict, and what becomes of the file.
//!
//! Called by `fill::transfer` and `fill::download`; calls `fill::judge`, `verify` and `store`. Invariant 5: nobody reads the
//! last bytes before the verdict.

use std::sync::{Arc, PoisonError};

use super::Transfer;
use crate::fill::Head;
use crate::fill::download::Downloaded;
use crate::fill::hashing::Hashes;
use crate::fill::judge;
use crate::fill::publisher::Shown;
use crate::resource::ArtifactKind;
use crate::store::{self, ZipSums};
use crate::upstream::{Failure, Upstream, Why};
use crate::verify::{Content, Subject, Verdict};

impl Transfer<'_> {
    /// Checks the complete file and, if it is good, lets readers have the tail.
    pub(super) async fn judge(&mut self, upstream: &Arc<Upstream>) -> Result<(), Failure> {
        let length = self.lock().prefix();
        self.partial.set_length(length)?;
        let (file, module) = (Arc::clone(&self.partial.file), self.module.clone());
        let (store, hashing) = (Arc::clone(&self.with.store), self.hashing.clone());
        let checked = store::blocking(move || match judge::check_zip(&file, length, &module) {
            Ok(()) => hashing.finish(&store, &file, length, &module),
            Err(reason) => Ok(Err(reason)),
        });
        let hashes = match checked.await? {
            Ok(hashes) => hashes,
            Err(reason) => {
                self.forget_blocks();
                return Err(Failure::Rejected { upstream: Arc::clone(&upstream.name), reason });
            }
        };
        let verdict = match self.verdict(&hashes, length, upstream).await {
            Ok(verdict) => verdict,
            Err(failure) => {
                // What only lacks a verdict is not downloaded once more for it.
                if matches!(failure, Failure::Mismatch { .. }) {
                    self.forget_blocks();
                }
                return Err(failure);
            }
        };
        self.judged = Some((hashes, verdict));
        if self.upstream.is_empty() {
            self.upstream = Arc::clone(&upstream.name);
        }
        if self.publisher.seal(length) == Shown::First {
            self.show_head();
        }
        Ok(())
    }

    async fn verdict(&self, hashes: &Hashes, length: u64, upstream: &Arc<Upstream>) -> Result<Verdict, Failure> {
        let Some(h1) = hashes.h1 else { return Ok(Verdict::Exempt) };
        let bytes = Content::File(Arc::clone(&self.partial.file), length);
        let (module, kind) = (self.module, ArtifactKind::Zip);
        self.with.verifier.judge(&Subject { module, kind, h1, upstream: &upstream.name, bytes }).await
    }

    /// Gives a good file its name; keeps or removes what is left of a failed one.
    pub(in crate::fill) async fn finish(self, result: Result<(), Failure>) -> Result<Downloaded, Failure> {
        let Self { with, resource, partial, publisher, upstream, segments, head, judged, .. } = self;
        let store = Arc::clone(&with.store);
        let Err(failure) = result else {
            let (h1, crc32) = judged.as_ref().map_or((None, None), |(hashes, _)| (hashes.h1, Some(hashes.crc32)));
            let sums = ZipSums { h1, crc32 };
            let stored = store::blocking(move || store.commit_partial(&partial, &resource, sums)).await?;
            let verdict = judged.map_or(Verdict::Exempt, |(_, verdict)| verdict);
            return Ok(Downloaded { stored, upstream, h1, verdict });
        };
        // Those who come while the remains are cleared away get the failure as a status, not as a broken body.
        head.publish(Head::Failed(failure.clone()));
        publisher.fail(&failure.to_string());
        let done_bytes = segments.into_inner().unwrap_or_else(PoisonError::into_inner).done_bytes();
        let is_resumable =
            partial.identity.as_ref().is_some_and(|identity| identity.validator.is_some()) && done_bytes > 0;
        let may_pass_later = match &failure {
            Failure::Stopped => true,
            Failure::Unjudged(unjudged) => unjudged.why == Why::Unreachable,
            failure => failure.is_transient(),
        };
        let is_worth_keeping = is_resumable && may_pass_later;
        let kept = store::blocking(move || {
            if !is_worth_keeping {
                return store.discard_partial(&partial);
            }
            partial.sync()?;
            drop(partial);
            store.prune_partials()
        });
        if let Err(err) = kept.await {
            log::warn!("partial download: {err}");
        }
        Err(failure)
    }
}
