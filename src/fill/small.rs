//! Fetches what fits in memory: everything but zips.
//!
//! Called by `cache`; walks the upstreams with their retries until one gives a body that can be right.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::fill::judge;
use crate::resource::Resource;
use crate::upstream::answer::Part;
use crate::upstream::{Answer, Ask, Failure, Upstream, UpstreamList};

/// Small files on their way in at a time.
const IN_FLIGHT_MAX: usize = 128;
/// Bodies of unknown or unusual size on their way in at a time; with their limit of 16 MiB this bounds the memory.
const LARGE_IN_FLIGHT_MAX: usize = 4;
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
}

/// Fetches small files.
pub struct SmallFiles {
    upstreams: Arc<UpstreamList>,
    in_flight: Semaphore,
    large_in_flight: Semaphore,
}

impl SmallFiles {
    /// Makes a fetcher over `upstreams`.
    pub fn new(upstreams: Arc<UpstreamList>) -> Self {
        Self {
            upstreams,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            large_in_flight: Semaphore::new(LARGE_IN_FLIGHT_MAX),
        }
    }

    /// Fetches `resource`, or learns that what we have is still right.
    ///
    /// # Errors
    /// What the walk along the upstreams has come to.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn fetch(&self, resource: &Resource, ask: &Ask) -> Result<Fetched, Failure> {
        let _permit = self.in_flight.acquire().await.map_err(|_| Failure::Stopped)?;
        let mut walk = self.upstreams.route(resource);
        while let Some(upstream) = walk.next_upstream() {
            let mut retry = self.upstreams.retry();
            loop {
                let failure = match self.attempt(&upstream, resource, ask).await {
                    Ok(fetched) => return Ok(fetched),
                    Err(failure) => failure,
                };
                if let Failure::Network { error, .. } = &failure {
                    self.upstreams.look_into(&upstream, error).await;
                }
                if !retry.again(&failure, &upstream, false).await {
                    if let Failure::Network { error, .. } = &failure {
                        self.upstreams.give_up(&upstream, error);
                    }
                    walk.failed(failure)?;
                    break;
                }
            }
        }
        Err(walk.end())
    }

    async fn attempt(&self, upstream: &Arc<Upstream>, resource: &Resource, ask: &Ask) -> Result<Fetched, Failure> {
        let mut answer: Answer = self.upstreams.get(upstream, resource, ask).await?;
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
        })
    }
}
