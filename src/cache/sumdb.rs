//! What clients ask a checksum database for: stored first, else proved before it is passed on.
//!
//! Called by [`Cache::get`]; calls `verify`. Invariants: the name of a private module goes to no database; what does not
//! verify is passed on to nobody, so that an older go command behind Larder is as safe as the newest; 404 sends the go
//! command to the database itself and is therefore the answer only for a database that is not proxied, that was never
//! reached, or that said so itself. Source: proposal 25530, "Proxying a checksum database".

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{Cache, CacheStatus, Content, Error, FetchMode, Forward, Reply};
use crate::resource::Resource;
use crate::store;
use crate::sumdb::name::{LookupTarget, SumdbName};
use crate::sumdb::tile::{Tile, TileLevel};
use crate::upstream::Failure;
use crate::verify::Database;

impl Cache {
    /// Answers a request for a file of a checksum database.
    pub(super) async fn sumdb(
        self: &Arc<Self>,
        resource: &Resource,
        name: &SumdbName,
        fetch_mode: FetchMode,
    ) -> Result<Reply, Error> {
        let Some(database) = self.verifier.proxied(name) else {
            return Err(Error::NotProxied(resource.clone()));
        };
        match resource {
            Resource::SumdbSupported(_) => self.supported(resource, database).await,
            Resource::SumdbLatest(_) => self.tree_head(resource, database, fetch_mode).await,
            Resource::SumdbLookup(_, target) => self.lookup(resource, database, target, fetch_mode).await,
            Resource::SumdbTile(_, tile) => self.tile(resource, database, tile, fetch_mode).await,
            Resource::List(_) | Resource::Latest(_) | Resource::Query(..) | Resource::Artifact(..) => {
                Err(Error::NotProxied(resource.clone()))
            }
        }
    }

    /// After a 200 the go command asks for everything here, and falls back to nothing.
    async fn supported(&self, resource: &Resource, database: &Arc<Database>) -> Result<Reply, Error> {
        if database.is_supported().await {
            return Ok(Reply { content: Content::Bytes(Bytes::new()), status: CacheStatus::hit() });
        }
        let reason = database.down_reason().unwrap_or_else(|| "it has not answered yet".to_owned());
        Err(Error::UnknownOffline { resource: resource.clone(), reason })
    }

    async fn tree_head(
        &self,
        resource: &Resource,
        database: &Arc<Database>,
        fetch_mode: FetchMode,
    ) -> Result<Reply, Error> {
        let asked = match fetch_mode {
            FetchMode::Fetch => database.latest().await.map_err(Some),
            FetchMode::CachedOnly => Err(None),
        };
        let note = |note: &str| Content::Bytes(Bytes::from(note.to_owned()));
        match (asked, database.known_head()) {
            (Ok(head), _) => Ok(Reply { content: note(head.note()), status: CacheStatus::hit() }),
            // A lie is no reason to fall back on what was true before.
            (Err(failure), Some(head)) if !matches!(failure, Some(Failure::Unjudged(_))) => {
                let status = CacheStatus::hit().with_detail("stale");
                Ok(Reply { content: note(head.note()), status })
            }
            (Err(None), _) => Err(Error::NotStored(resource.clone())),
            (Err(Some(failure)), _) => Err(failed_lookup(resource, database, failure)),
        }
    }

    async fn lookup(
        &self,
        resource: &Resource,
        database: &Arc<Database>,
        target: &LookupTarget,
        fetch_mode: FetchMode,
    ) -> Result<Reply, Error> {
        // The patterns of private upstreams are among these.
        if self.verifier.is_exempt(target.path()) {
            return Err(Error::PrivateLookup(resource.clone()));
        }
        if let Some(stored) = self.store.open(resource).await? {
            return Ok(Reply { content: Content::Stored(stored), status: CacheStatus::hit() });
        }
        if fetch_mode == FetchMode::CachedOnly {
            return Err(Error::NotStored(resource.clone()));
        }
        match database.record(target).await {
            Ok(looked) => Ok(fetched(looked.body)),
            Err(failure) => Err(failed_lookup(resource, database, failure)),
        }
    }

    async fn tile(
        &self,
        resource: &Resource,
        database: &Arc<Database>,
        tile: &Tile,
        fetch_mode: FetchMode,
    ) -> Result<Reply, Error> {
        if let Some(stored) = self.store.open(resource).await? {
            return Ok(Reply { content: Content::Stored(stored), status: CacheStatus::hit() });
        }
        if tile.is_partial() && tile.level() != TileLevel::Data {
            // The first hashes of a tile never change, so a narrow one is the beginning of any wider one.
            let (store, wanted, of) = (Arc::clone(&self.store), *tile, database.name.clone());
            let wider = store::blocking(move || {
                let wider = store.widest_tile(&of, &wanted)?;
                wider.map(|wider| wider.read().map_err(|err| store::Error::at("tile", err))).transpose()
            });
            if let Some(bytes) = wider.await?
                && let Some(part) = tile.cut(&bytes)
            {
                let content = Content::Bytes(bytes.slice_ref(part));
                return Ok(Reply { content, status: CacheStatus::hit() });
            }
        }
        if fetch_mode == FetchMode::CachedOnly {
            return Err(Error::NotStored(resource.clone()));
        }
        match database.tile(tile).await {
            Ok(bytes) => Ok(fetched(bytes)),
            Err(failure) => Err(failed_lookup(resource, database, failure)),
        }
    }
}

fn failed_lookup(resource: &Resource, database: &Database, failure: Failure) -> Error {
    match failure {
        Failure::NotFound(said) => Error::NotFound { status: said.status, body: said.body, is_remembered: false },
        failure if failure.is_unreachable() || database.down_reason().is_some() => {
            let reason = match failure {
                Failure::Offline { reason, .. } => reason,
                failure => failure.to_string(),
            };
            if database.can_serve() {
                Error::Offline { resource: resource.clone(), reason }
            } else {
                Error::UnknownOffline { resource: resource.clone(), reason }
            }
        }
        failure => Error::Upstream { resource: resource.clone(), failure },
    }
}

fn fetched(body: Bytes) -> Reply {
    Reply { content: Content::Bytes(body), status: CacheStatus::forwarded(Forward::UriMiss, false) }
}
