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

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::resource::Resource;
use crate::sumdb::{SumdbName, TileLevel};
use crate::upstream::{Ask, Failure, Upstream, UpstreamList};

/// One attempt may take so long in all. The database may fetch a module first, so it is given time.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest signed head, with a record or without one, that the go command reads.
const NOTE_BYTES_MAX: usize = 1_000_000;
/// Room for a tile of 256 records.
const DATA_TILE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What an upstream says to `supported` is waited for so long, and what is unclear then asked again after so long.
const SUPPORT_TIMEOUT: Duration = Duration::from_secs(3);
const UNCLEAR_FOR: Duration = Duration::from_secs(60);
/// Questions to one database at a time. Places of its own: a database that hangs must not keep an upstream's modules.
const QUESTIONS_MAX: usize = 32;
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
    /// When there was no clear answer.
    Unclear(Instant),
}

/// An answer, and whether it came from the database's own address: what others say may be old, or not its words.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) body: Bytes,
    pub(super) is_own: bool,
}

/// The ways to one database.
pub(super) struct Ways {
    config: Config,
    name: SumdbName,
    upstreams: Arc<UpstreamList>,
    /// In the order of the public upstreams.
    support: Mutex<Vec<Support>>,
    /// Held by the one who finds out which upstreams proxy the database.
    finding_out: tokio::sync::Mutex<()>,
    questions: Semaphore,
    /// How many answers have come: an answer to one question shows that a silence at another is no dead database.
    answers: AtomicU64,
    clock: Clock,
}

impl Ways {
    pub(super) fn new(config: Config, name: SumdbName, upstreams: Arc<UpstreamList>, clock: Clock) -> Self {
        let support = Mutex::new(vec![Support::Unknown; upstreams.public().len()]);
        let (finding_out, questions) = (tokio::sync::Mutex::default(), Semaphore::new(QUESTIONS_MAX));
        Self { config, name, upstreams, support, finding_out, questions, answers: AtomicU64::new(0), clock }
    }

    /// Returns how many answers have come so far.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Returns why nobody can be asked, as far as that is known.
    pub(super) fn down_reason(&self) -> Option<String> {
        if self.config.is_offline {
            return Some("network-mode is offline".to_owned());
        }
        let support = self.support.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let through = self.upstreams.public().iter().zip(support).filter(|(_, support)| {
            self.config.asks_upstreams
                && !matches!(support, Support::No(since) if self.is_recent(*since, UNSUPPORTED_FOR))
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
    pub(super) async fn fetch(&self, resource: &Resource) -> Result<Fetched, Failure> {
        let candidates = self.candidates().await;
        if candidates.is_empty() {
            return Err(Failure::Offline { upstream: Arc::from(self.name.as_str()), reason: self.nowhere() });
        }
        let mut walk = self.upstreams.walk(candidates);
        while let Some(upstream) = walk.next_upstream() {
            let is_own = self.config.own.as_ref().is_some_and(|own| Arc::ptr_eq(own, &upstream));
            match self.fetch_from(&upstream, resource).await {
                Ok(body) => return Ok(Fetched { body, is_own }),
                // Whatever the separators say of modules: a database that one cannot give is asked of the next.
                Err(failure) => walk.passed(failure)?,
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
        let _permit = self.questions.acquire().await.map_err(|_| Failure::Stopped)?;
        let mut answer = self.upstreams.get(upstream, resource, &Ask::default()).await.inspect_err(|failure| {
            if matches!(failure, Failure::NotFound(_)) {
                self.answers.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        let rejected =
            |reason: &str| Failure::Rejected { upstream: Arc::clone(&upstream.name), reason: reason.to_owned() };
        let body = answer.body.read_at_most(bytes_max(resource)).await;
        let body = body.map_err(|error| Failure::Network { upstream: Arc::clone(&upstream.name), error })?;
        let body = body.ok_or_else(|| rejected("the answer is too long"))?;
        // A captive portal answers everything with a page: that is no word of the database's, true or false.
        if body.trim_ascii_start().starts_with(b"<") {
            return Err(rejected("a web page in place of the checksum database's answer"));
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
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
        if let Some(known) = self.known_support(index) {
            return known;
        }
        let _turn = self.finding_out.lock().await;
        if let Some(known) = self.known_support(index) {
            return known;
        }
        let resource = Resource::SumdbSupported(self.name.clone());
        let now = self.clock.steady();
        let found = match timeout(SUPPORT_TIMEOUT, self.attempt(upstream, &resource)).await {
            Ok(Ok(_)) => Support::Yes,
            Ok(Err(failure)) if !failure.is_transient() => Support::No(now),
            // An upstream in trouble may still turn out to be one who knows; nobody waits for that.
            Ok(Err(_)) | Err(_) => Support::Unclear(now),
        };
        if let Some(support) = self.support.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            *support = found;
        }
        found == Support::Yes
    }

    fn known_support(&self, index: usize) -> Option<bool> {
        match *self.support.lock().unwrap_or_else(PoisonError::into_inner).get(index)? {
            Support::Yes => Some(true),
            Support::No(since) if self.is_recent(since, UNSUPPORTED_FOR) => Some(false),
            Support::Unclear(since) if self.is_recent(since, UNCLEAR_FOR) => Some(false),
            Support::No(_) | Support::Unclear(_) | Support::Unknown => None,
        }
    }

    fn is_recent(&self, since: Instant, limit: Duration) -> bool {
        self.clock.steady().duration_since(since) < limit
    }

    fn nowhere(&self) -> String {
        if self.config.is_offline {
            return "network-mode is offline".to_owned();
        }
        format!("none of the upstreams proxies {}, and it is not asked at its own address", self.name)
    }
}

/// Returns how long an answer may be, in bytes.
fn bytes_max(resource: &Resource) -> usize {
    match resource {
        Resource::SumdbTile(_, tile) => match tile.level() {
            TileLevel::Hashes(_) => usize::try_from(tile.bytes().unwrap_or_default()).unwrap_or(usize::MAX),
            TileLevel::Data => DATA_TILE_BYTES_MAX,
        },
        Resource::SumdbSupported(_)
        | Resource::SumdbLatest(_)
        | Resource::SumdbLookup(..)
        | Resource::List(_)
        | Resource::Latest(_)
        | Resource::Query(..)
        | Resource::Artifact(..) => NOTE_BYTES_MAX,
    }
}
