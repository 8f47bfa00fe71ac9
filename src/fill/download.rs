//! Downloads one zip: into a partial file, over several connections where that is safe, resuming what broke off.
//!
//! Called by `cache` inside a fill. The bytes are published to readers while they come, in order from the start; the last
//! few are held back until the zip has been judged (invariant 5).
//!
//! Two answers are pieces of one file only if they carry the same strong validator. With one, the missing ranges are
//! fetched over several connections and after a break from where it broke, also by the next run of Larder. Without one
//! there is a single stream; after a break it begins again at zero, and what readers have already been given must come
//! out equal, or the download fails ([`Failure::Changed`]).

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::fill::HeadWriter;
use crate::fill::transfer::Transfer;
use crate::module::ModuleVersion;
use crate::module::zip::hash::H1;
use crate::resource::{ArtifactKind, Resource};
use crate::store::{self, Store, StoredFile};
use crate::upstream::{Failure, UpstreamList};
use crate::verify::{Verdict, Verifier};

/// How zips are downloaded.
#[derive(Clone, Debug)]
pub struct Config {
    /// Connections for one zip.
    pub connections: usize,
    /// Zips at a time; 0 is no limit.
    pub downloads_max: usize,
}

/// Downloads zips.
pub struct Downloader {
    pub(super) store: Arc<Store>,
    pub(super) upstreams: Arc<UpstreamList>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) connections: usize,
    permits: Option<Semaphore>,
    stop: CancellationToken,
}

/// A zip that got its final name.
#[derive(Debug)]
pub struct Downloaded {
    /// The file.
    pub stored: StoredFile,
    /// Where it came from.
    pub upstream: Arc<str>,
    /// Its hash, if it was wanted.
    pub h1: Option<H1>,
    /// The judgement of it.
    pub verdict: Verdict,
}

impl Downloader {
    /// Makes a downloader; `stop` interrupts every download, keeping what has come.
    pub fn new(
        config: &Config,
        store: Arc<Store>,
        upstreams: Arc<UpstreamList>,
        verifier: Arc<Verifier>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            upstreams,
            verifier,
            connections: config.connections.max(1),
            permits: (config.downloads_max > 0).then(|| Semaphore::new(config.downloads_max)),
            stop,
        }
    }

    /// Downloads the zip of `module`, publishing it through `head`, and stores it.
    ///
    /// # Errors
    /// Why there is no zip. Once bytes have been published, the readers have got the failure already.
    ///
    /// # Cancel safety
    /// Dropping the future fails the readers; what has come stays for the next attempt.
    pub async fn download(&self, module: &ModuleVersion, head: &HeadWriter) -> Result<Downloaded, Failure> {
        let _permit = match &self.permits {
            Some(permits) => Some(permits.acquire().await.map_err(|_| Failure::Stopped)?),
            None => None,
        };
        let resource = Resource::Artifact(module.clone(), ArtifactKind::Zip);
        let partial = {
            let (store, resource) = (Arc::clone(&self.store), resource.clone());
            store::blocking(move || store.partial(&resource)).await?
        };
        if let Some(failure) = self.verifier.refuses_at_once(module) {
            return Err(failure);
        }
        self.verifier.expect(module);
        let mut transfer = Transfer::new(self, module, resource, partial, head);
        let result = tokio::select! {
            result = transfer.run() => result,
            () = self.stop.cancelled() => Err(Failure::Stopped),
        };
        transfer.finish(result).await
    }
}
