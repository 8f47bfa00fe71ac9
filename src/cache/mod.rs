//! The cache: what happens to a request once it is clear what it asks for.
//!
//! Called by `server`; uses `fill`, `store` and `upstream`. One function for each class of resource, in the order in
//! which a request meets them: [`Cache::get`] chooses, `Cache::immutable` serves what never changes, `mutable.rs`
//! what does, `sumdb.rs` the checksum databases.
//!
//! Invariants: what is stored and immutable is served without asking anyone; 404 and 410 are answered only as invariant
//! 6 of ARCHITECTURE.md allows; a client that leaves ends nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::clock::{Clock, UnixSeconds};
use crate::fill::download::Downloader;
use crate::fill::small::SmallFiles;
use crate::fill::{FillReader, Fills, Head};
use crate::module::ModuleVersion;
use crate::resource::{ArtifactKind, Resource};
use crate::store::adopt::Adoption;
use crate::store::index::{Index, MutableEntry, NegativeAnswer};
use crate::store::{self, Store, StoredFile};
use crate::upstream::{Failure, UpstreamList};
use crate::verify::{Mode, Standing, Verifier};

pub mod error;
mod filling;
mod mutable;
mod offline;
pub mod readers;
pub mod status;
mod sumdb;
pub mod sweep;
pub mod takers;

pub use error::Error;
pub use status::{CacheStatus, Forward};

/// A miss that comes right after the start waits so long for the index; what is stored never waits for it.
const INDEX_WAIT_MAX: Duration = Duration::from_secs(3);
const INDEX_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What to do when the upstreams cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// Say so: nothing stale is served.
    Strict,
    /// Serve what is stored, saying how old it is.
    #[default]
    Fallback,
    /// Never ask them.
    Offline,
}

/// Whether a request may cause a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchMode {
    /// It may.
    Fetch,
    /// It wants what is stored (`Disable-Module-Fetch: true`, `/cached-only/…`).
    CachedOnly,
}

/// How the cache behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to do when the upstreams cannot be asked.
    pub network_mode: NetworkMode,
    /// How long an answer that may change counts as fresh, and an answer that there is no such thing.
    pub fresh_for: Duration,
}

/// The cache and everything it works with.
pub struct Cache {
    /// How it behaves.
    pub config: Config,
    /// The tree.
    pub store: Arc<Store>,
    /// What is derived from the tree.
    pub index: Arc<Index>,
    /// Whether what other programs left in the tree has been judged.
    pub adoption: Arc<Adoption>,
    /// Running downloads.
    pub fills: Arc<Fills>,
    /// Stored zips that are being read.
    pub readers: Arc<readers::Readers>,
    /// Told when something could not be stored because the disk is full.
    pub disk_full: Notify,
    /// Where misses go.
    pub upstreams: Arc<UpstreamList>,
    /// Who judges what comes from there.
    pub verifier: Arc<Verifier>,
    /// Whether a person is having the tree verified.
    pub verifying: sweep::Verifying,
    /// Who is waiting for files that have no verdict yet.
    pub takers: takers::Takers,
    /// How zips come in.
    pub downloader: Downloader,
    /// How everything else comes in.
    pub small_files: SmallFiles,
    /// The time.
    pub clock: Clock,
}

/// A good answer.
pub struct Reply {
    /// Its body.
    pub content: Content,
    /// How it came about.
    pub status: CacheStatus,
}

/// The body of a good answer.
pub enum Content {
    /// A file of the tree.
    Stored(StoredFile),
    /// Bytes in memory.
    Bytes(Bytes),
    /// A zip on its way in.
    Growing(FillReader),
}

impl Cache {
    /// Answers a client's request for `resource`; no client is Larder itself.
    ///
    /// # Errors
    /// Why there is no good answer.
    ///
    /// # Cancel safety
    /// A fill that was started goes on when the future is dropped.
    pub async fn get(
        self: &Arc<Self>,
        resource: &Resource,
        fetch_mode: FetchMode,
        client: Option<IpAddr>,
    ) -> Result<Reply, Error> {
        match resource {
            Resource::Artifact(module, kind) => self.artifact(resource, module, *kind, fetch_mode, client).await,
            Resource::List(_) | Resource::Latest(_) | Resource::Query(..) => self.mutable(resource, fetch_mode).await,
            Resource::SumdbSupported(name)
            | Resource::SumdbLatest(name)
            | Resource::SumdbLookup(name, _)
            | Resource::SumdbTile(name, _) => self.sumdb(resource, name, fetch_mode).await,
        }
    }

    /// What never changes: stored first, whatever the state of the world.
    async fn artifact(
        self: &Arc<Self>,
        resource: &Resource,
        module: &ModuleVersion,
        kind: ArtifactKind,
        fetch_mode: FetchMode,
        client: Option<IpAddr>,
    ) -> Result<Reply, Error> {
        if let Some(stored) = self.open_judged(resource).await?
            && self.may_be_served(module, kind, fetch_mode, client).await?
        {
            self.index.touch(module, self.clock.now());
            let content = Content::Stored(stored);
            self.note_reader(resource, &content);
            return Ok(Reply { content, status: CacheStatus::hit() });
        }
        let (_, negative) = self.remembered_of(resource).await?;
        if let Some(negative) =
            negative.as_ref().filter(|negative| negative.is_fresh(self.clock.now(), self.config.fresh_for))
        {
            return Err(remembered(negative));
        }
        if fetch_mode == FetchMode::CachedOnly {
            return Err(Error::NotStored(resource.clone()));
        }
        if let Some(reason) = self.offline_reason(resource) {
            return Err(self.absent_offline(resource, negative.as_ref(), reason).await);
        }
        if let Some(client) = client.filter(|_| kind != ArtifactKind::Info && self.verifier.database().is_some()) {
            self.takers.wait(resource, client);
        }
        match self.fill(resource).await {
            Ok((head, is_collapsed)) => {
                let status = CacheStatus::forwarded(Forward::UriMiss, is_collapsed);
                let content = content_of(head).ok_or(Error::Busy)?;
                self.note_reader(resource, &content);
                Ok(Reply { content, status })
            }
            // One upstream's silence is not the end of the network: only when none can be reached are we offline.
            Err(Error::Upstream { failure, .. }) if failure.is_unreachable() => match self.offline_reason(resource) {
                Some(reason) => Err(self.absent_offline(resource, negative.as_ref(), reason).await),
                None => Err(Error::Upstream { resource: resource.clone(), failure }),
            },
            Err(error) => Err(error),
        }
    }

    /// Says whether a stored file may be served: one that was never judged has to be where nothing else is served, and who
    /// gets it elsewhere is noted.
    async fn may_be_served(
        self: &Arc<Self>,
        module: &ModuleVersion,
        kind: ArtifactKind,
        fetch_mode: FetchMode,
        client: Option<IpAddr>,
    ) -> Result<bool, Error> {
        match (self.verifier.standing(module, kind), self.verifier.mode()) {
            (Standing::Fine, _) | (Standing::Unknown, Mode::WhenReachable) => Ok(true),
            (Standing::Unverified, Mode::WhenReachable) => {
                if let Some(client) = client {
                    self.verifier.was_served(module, kind, client);
                }
                Ok(true)
            }
            // Nobody is asked for who wants what is at hand.
            (Standing::Unverified | Standing::Unknown, Mode::Strict) if fetch_mode == FetchMode::CachedOnly => {
                Ok(false)
            }
            (Standing::Unverified | Standing::Unknown, Mode::Strict) | (Standing::Condemned, _) => {
                let resource = Resource::Artifact(module.clone(), kind);
                let judged = self.verifier.judge_stored(module, kind).await;
                judged.map_err(|failure| Error::Upstream { resource: resource.clone(), failure })?;
                // It may have turned out to be damaged, and be gone.
                Ok(self.store.open(&resource).await?.is_some())
            }
        }
    }

    /// Has housekeeping leave a zip alone as long as somebody reads it.
    fn note_reader(&self, resource: &Resource, content: &Content) {
        let Resource::Artifact(module, ArtifactKind::Zip) = resource else { return };
        match content {
            Content::Stored(stored) => self.readers.enter(module, &stored.file),
            Content::Growing(reader) => self.readers.enter(module, reader.file()),
            Content::Bytes(_) => {}
        }
    }

    /// Opens a stored file. One that another program left there is judged before it is served for the first time, and a
    /// zip whose end is not one is judged again: a broken one is moved out of the way and counts as not stored.
    async fn open_judged(&self, resource: &Resource) -> Result<Option<StoredFile>, Error> {
        let Some(stored) = self.store.open(resource).await? else { return Ok(None) };
        let is_odd = matches!(resource, Resource::Artifact(_, ArtifactKind::Zip)) && !stored.ends_like_a_zip();
        if self.adoption.is_complete() && !is_odd {
            return Ok(Some(stored));
        }
        let (adoption, index, now) = (Arc::clone(&self.adoption), Arc::clone(&self.index), self.clock.now());
        let judged = resource.clone();
        let verdict = store::blocking(move || {
            let judge = if is_odd { Adoption::judge_again } else { Adoption::check_before_serving };
            Ok(judge(&adoption, &index, &judged, now))
        });
        let is_good = matches!(verdict.await, Ok(Ok(())));
        Ok(Some(stored).filter(|_| is_good))
    }

    /// Starts or joins the fill of an immutable resource and waits until an answer can be begun.
    async fn fill(self: &Arc<Self>, resource: &Resource) -> Result<(Head, bool), Error> {
        let cache = Arc::clone(self);
        let wanted = resource.clone();
        let follower = self.fills.join_or_lead(resource, move |head| async move {
            match &wanted {
                Resource::Artifact(module, ArtifactKind::Zip) => cache.fill_zip(module, &wanted, &head).await,
                Resource::Artifact(_, ArtifactKind::Info | ArtifactKind::Mod)
                | Resource::SumdbLookup(..)
                | Resource::SumdbTile(..)
                | Resource::List(_)
                | Resource::Latest(_)
                | Resource::Query(..)
                | Resource::SumdbLatest(_)
                | Resource::SumdbSupported(_) => cache.fill_small(&wanted, &head).await,
            }
        });
        let mut follower = follower.ok_or(Error::Busy)?;
        let head = follower.head().await.map_err(|failure| Error::Upstream { resource: resource.clone(), failure })?;
        Ok((head, follower.is_collapsed))
    }

    /// Returns what the index knows of an answer that may change, and of one that there is no such thing. Reading it may
    /// wait for the device.
    async fn remembered_of(
        &self,
        resource: &Resource,
    ) -> Result<(Option<MutableEntry>, Option<NegativeAnswer>), Error> {
        self.index_is_open().await;
        let (index, resource) = (Arc::clone(&self.index), resource.clone());
        let read = store::blocking(move || Ok((index.mutable(&resource), index.negative(&resource))));
        Ok(read.await?)
    }

    /// Waits, in the first moments of a run, until the index can say what is remembered.
    async fn index_is_open(&self) {
        let mut waited = Duration::ZERO;
        while self.index.is_opening() && waited < INDEX_WAIT_MAX {
            tokio::time::sleep(INDEX_POLL_INTERVAL).await;
            waited += INDEX_POLL_INTERVAL;
        }
    }

    /// Returns what keeps us from asking any upstream for `resource`, if something does.
    fn offline_reason(&self, resource: &Resource) -> Option<String> {
        if self.config.network_mode == NetworkMode::Offline {
            return Some("network-mode is offline".to_owned());
        }
        self.upstreams.offline_reason_for(resource)
    }
}

/// Returns the body that a fill's head promises.
fn content_of(head: Head) -> Option<Content> {
    match head {
        Head::Growing(growing) => Some(Content::Growing(growing.reader())),
        Head::Whole(whole) => Some(Content::Bytes(whole.body)),
        Head::Pending | Head::Failed(_) => None,
    }
}

fn remembered(negative: &NegativeAnswer) -> Error {
    Error::NotFound { status: negative.status, body: Bytes::from(negative.body.clone()), is_remembered: true }
}

/// Returns the negative answer to remember, if the failure is one.
fn negative_of(failure: &Failure, now: UnixSeconds) -> Option<NegativeAnswer> {
    match failure {
        Failure::NotFound(said) => Some(NegativeAnswer { fetched: now, status: said.status, body: said.body.to_vec() }),
        Failure::Refused { .. }
        | Failure::Unavailable { .. }
        | Failure::Network { .. }
        | Failure::Offline { .. }
        | Failure::Rejected { .. }
        | Failure::Changed { .. }
        | Failure::Mismatch { .. }
        | Failure::Unjudged(_)
        | Failure::Store(_)
        | Failure::Stopped => None,
    }
}
