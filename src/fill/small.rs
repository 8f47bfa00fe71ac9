//! Fetches what fits in memory: everything but zips.
//!
//! Called by `cache`; walks the upstreams with their retries until one gives a body that can be right.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::fill::judge;
use crate::module::zip::hash::H1;
use crate::net::egress::Error;
use crate::resource::{ArtifactKind, Resource};
use crate::upstream::answer::Part;
use crate::upstream::{Answer, Ask, Failure, Upstream, UpstreamList};
use crate::verify::{Content, Subject, Verdict, Verifier};

/// Bodies of unknown or unusual size on their way in at a time; with their limit of 16 MiB this bounds the memory.
const LARGE_IN_FLIGHT_MAX: usize = 4;
/// One attempt may take so long in all; what trickles for longer would hold a place that others need.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);
/// What counts as a usual size, in bytes.
const USUAL_BYTES_MAX: u64 = 256 * 1024;

/// A small file as an upstream sent it.
#[derive(Debug)]
pub struct Fetched {
    /// The content; `None` if what we have is still right.
    pub body: Option<Bytes>,
    /// Who sent it.
    pub upstream: Arc<str>,
    /// The `ETag`, for the next revalidation.
    pub etag: Option<String>,
    /// The `Last-Modified`, for the next revalidation.
    pub last_modified: Option<String>,
    /// The judgement of a `.mod`.
    pub verdict: Option<Verdict>,
}

/// What is stored of a resource, for a revalidation.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who sent it.
    pub upstream: String,
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub last_modified: Option<String>,
}

/// Fetches small files.
pub struct SmallFiles {
    upstreams: Arc<UpstreamList>,
    verifier: Arc<Verifier>,
    large_in_flight: Semaphore,
}

impl SmallFiles {
    /// Makes a fetcher over `upstreams`, whose `.mod` files `verifier` judges.
    pub fn new(upstreams: Arc<UpstreamList>, verifier: Arc<Verifier>) -> Self {
        Self { upstreams, verifier, large_in_flight: Semaphore::new(LARGE_IN_FLIGHT_MAX) }
    }

    /// Fetches `resource`, or learns that what we have is still right.
    ///
    /// # Errors
    /// What the walk along the upstreams has come to.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn fetch(&self, resource: &Resource, known: Option<&Known>) -> Result<Fetched, Failure> {
        let mut walk = self.upstreams.route(resource);
        if let Resource::Artifact(module, ArtifactKind::Mod) = resource {
            self.verifier.expect(module);
        }
        while let Some(upstream) = walk.next_upstream() {
            if let Some(failure) = self.verifier.distrusted(&upstream.name, resource) {
                walk.failed(failure)?;
                continue;
            }
            let mut retry = self.upstreams.retry();
            loop {
                let failure = match timeout(ATTEMPT_TIMEOUT, self.attempt(&upstream, resource, known)).await {
                    Ok(Ok(fetched)) => match self.judged(resource, fetched).await {
                        Ok(fetched) => return Ok(fetched),
                        Err(failure) => failure,
                    },
                    Ok(Err(failure)) => failure,
                    Err(_) => Failure::Network {
                        upstream: Arc::clone(&upstream.name),
                        error: Error::TooSlow(ATTEMPT_TIMEOUT),
                    },
                };
                if !self.upstreams.try_again(&mut retry, &failure, &upstream, false).await {
                    walk.failed(failure)?;
                    break;
                }
            }
        }
        Err(walk.end())
    }

    /// Has a `.mod` judged; everything else has nothing to be judged by.
    async fn judged(&self, resource: &Resource, mut fetched: Fetched) -> Result<Fetched, Failure> {
        if let (Resource::Artifact(module, kind @ ArtifactKind::Mod), Some(body)) = (resource, &fetched.body) {
            let (h1, bytes) = (H1::of_go_mod(body), Content::Bytes(body.clone()));
            let subject = Subject { module, kind: *kind, h1, upstream: &fetched.upstream, bytes };
            fetched.verdict = Some(self.verifier.judge(&subject).await?);
        }
        Ok(fetched)
    }

    async fn attempt(
        &self,
        upstream: &Arc<Upstream>,
        resource: &Resource,
        known: Option<&Known>,
    ) -> Result<Fetched, Failure> {
        let _permit = upstream.small_files.acquire().await.map_err(|_| Failure::Stopped)?;
        // Another upstream's validators would only make this one confirm what it never said.
        let ask = match known.filter(|known| *known.upstream == *upstream.name) {
            Some(known) => Ask {
                if_none_match: known.etag.clone(),
                if_modified_since: known.last_modified.clone(),
                ..Ask::default()
            },
            None => Ask::default(),
        };
        let mut answer: Answer = self.upstreams.get(upstream, resource, &ask).await?;
        let rejected = |reason: String| Failure::Rejected { upstream: Arc::clone(&upstream.name), reason };
        let body = if answer.part == Part::NotModified {
            None
        } else {
            let is_large = answer.length.is_none_or(|length| length > USUAL_BYTES_MAX);
            let _permit =
                if is_large { Some(self.large_in_flight.acquire().await.map_err(|_| Failure::Stopped)?) } else { None };
            let limit = judge::bytes_max(resource);
            let read = answer.body.read_at_most(limit).await;
            let body = read
                .map_err(|error| Failure::Network { upstream: Arc::clone(&upstream.name), error })?
                .ok_or_else(|| rejected(format!("the answer has more than {limit} bytes")))?;
            judge::check_small(resource, &body).map_err(rejected)?;
            Some(Bytes::from(body))
        };
        Ok(Fetched {
            body,
            upstream: Arc::clone(&upstream.name),
            etag: answer.etag,
            last_modified: answer.last_modified,
            verdict: None,
        })
    }
}
