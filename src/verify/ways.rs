//! How a checksum database is asked: through the upstreams that proxy it, then at its own address, where that is allowed.
//!
//! Called by `database`; calls `upstream`. Nothing that comes out of here is proved. Invariants: the upstreams of private
//! modules are never asked; the own address is asked only if there is one in [`Config`]. Source: proposal 25530, "Proxying
//! a checksum database"; the go command asks `supported` once and stays with the answer.
//!
//! ```text
//! -gosumdb "KEY URL"     URL alone
//! -gosumdb KEY, NAME     the first upstreams that answer 200 to sumdb/NAME/supported, then https://NAME
//! by default             the same, but https://NAME only if the public mirror is among the upstreams
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::resource::Resource;
use crate::sumdb::SumdbName;
use crate::upstream::{Ask, Failure, Upstream, UpstreamList};

/// One attempt may take so long in all. The database may fetch a module first, so it is given time.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// Enough for a signed head with a record, and for a tile of 256 records.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An upstream that does not proxy the database is asked again after so long.
const UNSUPPORTED_FOR: Duration = Duration::from_secs(600);

/// Where a database may be asked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether the public upstreams are asked first.
    pub asks_upstreams: bool,
    /// The database at its own address.
    pub own: Option<Arc<Upstream>>,
    /// Whether nobody is ever asked.
    pub is_offline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Support {
    Unknown,
    Yes,
    /// Since when it is known that it does not.
    No(Instant),
}

/// The ways to one database.
pub(super) struct Ways {
    config: Config,
    name: SumdbName,
    upstreams: Arc<UpstreamList>,
    /// In the order of the public upstreams.
    support: Mutex<Vec<Support>>,
    clock: Clock,
}

impl Ways {
    pub(super) fn new(config: Config, name: SumdbName, upstreams: Arc<UpstreamList>, clock: Clock) -> Self {
        let support = Mutex::new(vec![Support::Unknown; upstreams.public().len()]);
        Self { config, name, upstreams, support, clock }
    }

    /// Says whether the database is asked at its own address first and last, and not through proxies that may keep old
    /// answers.
    pub(super) fn is_direct(&self) -> bool {
        !self.config.asks_upstreams
    }

    /// Returns why nobody can be asked, as far as that is known.
    pub(super) fn down_reason(&self) -> Option<String> {
        if self.config.is_offline {
            return Some("network-mode is offline".to_owned());
        }
        let support = self.support.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let through = self.upstreams.public().iter().zip(support).filter(|(_, support)| {
            self.config.asks_upstreams && !matches!(support, Support::No(since) if self.is_recent(*since))
        });
        let mut reason = None;
        for upstream in through.map(|(upstream, _)| upstream).chain(&self.config.own) {
            // One way is enough.
            reason = Some(upstream.down_reason()?);
        }
        Some(reason.unwrap_or_else(|| self.nowhere()))
    }

    /// Fetches a file of the database from the first who has it.
    ///
    /// # Errors
    /// What the walk along those who might has come to: [`Failure::NotFound`] only if all that were asked say so.
    pub(super) async fn fetch(&self, resource: &Resource) -> Result<Bytes, Failure> {
        let candidates = self.candidates().await;
        if candidates.is_empty() {
            return Err(Failure::Offline { upstream: Arc::from(self.name.as_str()), reason: self.nowhere() });
        }
        let mut walk = self.upstreams.walk(candidates);
        while let Some(upstream) = walk.next_upstream() {
            match self.fetch_from(&upstream, resource).await {
                Ok(body) => return Ok(body),
                Err(failure) => walk.failed(failure)?,
            }
        }
        Err(walk.end())
    }

    async fn fetch_from(&self, upstream: &Arc<Upstream>, resource: &Resource) -> Result<Bytes, Failure> {
        let mut retry = self.upstreams.retry();
        loop {
            let failure = match timeout(ATTEMPT_TIMEOUT, self.attempt(upstream, resource)).await {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::too_slow(upstream, ATTEMPT_TIMEOUT),
            };
            if !self.upstreams.try_again(&mut retry, &failure, upstream, false).await {
                return Err(failure);
            }
        }
    }

    async fn attempt(&self, upstream: &Arc<Upstream>, resource: &Resource) -> Result<Bytes, Failure> {
        let _permit = upstream.small_files.acquire().await.map_err(|_| Failure::Stopped)?;
        let mut answer = self.upstreams.get(upstream, resource, &Ask::default()).await?;
        let rejected =
            |reason: &str| Failure::Rejected { upstream: Arc::clone(&upstream.name), reason: reason.to_owned() };
        let body = answer.body.read_at_most(BODY_BYTES_MAX).await;
        let body = body.map_err(|error| Failure::Network { upstream: Arc::clone(&upstream.name), error })?;
        let body = body.ok_or_else(|| rejected("the answer is too long"))?;
        // A captive portal answers everything with a page: that is no word of the database's, true or false.
        if body.trim_ascii_start().starts_with(b"<") {
            return Err(rejected("a web page in place of the checksum database's answer"));
        }
        Ok(Bytes::from(body))
    }

    /// Returns those who can be asked, in order, after finding out which upstreams proxy the database.
    async fn candidates(&self) -> Vec<Arc<Upstream>> {
        if self.config.is_offline {
            return Vec::new();
        }
        let mut candidates = Vec::new();
        if self.config.asks_upstreams {
            for (index, upstream) in self.upstreams.public().iter().enumerate() {
                if self.supports(index, upstream).await {
                    candidates.push(Arc::clone(upstream));
                }
            }
        }
        candidates.extend(self.config.own.clone());
        candidates
    }

    async fn supports(&self, index: usize, upstream: &Arc<Upstream>) -> bool {
        let known = self.support.lock().unwrap_or_else(PoisonError::into_inner).get(index).copied();
        match known {
            Some(Support::Yes) => return true,
            Some(Support::No(since)) if self.is_recent(since) => return false,
            Some(Support::No(_) | Support::Unknown) | None => {}
        }
        let resource = Resource::SumdbSupported(self.name.clone());
        let found = match self.fetch_from(upstream, &resource).await {
            Ok(_) => Support::Yes,
            // An upstream in trouble may still turn out to be one who knows.
            Err(failure) if failure.is_transient() => Support::Unknown,
            Err(_) => Support::No(self.clock.steady()),
        };
        if let Some(support) = self.support.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            *support = found;
        }
        found == Support::Yes
    }

    fn is_recent(&self, since: Instant) -> bool {
        self.clock.steady().duration_since(since) < UNSUPPORTED_FOR
    }

    fn nowhere(&self) -> String {
        if self.config.is_offline {
            return "network-mode is offline".to_owned();
        }
        format!("none of the upstreams proxies {}, and it is not asked at its own address", self.name)
    }
}
