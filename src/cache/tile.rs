//! Tiles of a checksum database: the first hashes of a tile never change, so a narrow one is cut from any wider one.
//!
//! Called by [`Cache::get`]; calls `immutable` for the tile as asked, and for the full one where a database has dropped
//! it.

use std::sync::Arc;

use crate::cache::{Cache, CacheStatus, Content, Error, FetchMode, Reply};
use crate::resource::Resource;
use crate::store;
use crate::sumdb::name::SumdbName;
use crate::sumdb::tile::Tile;

impl Cache {
    /// Answers a request for a tile.
    pub(super) async fn tile(
        self: &Arc<Self>,
        resource: &Resource,
        name: &SumdbName,
        tile: &Tile,
        fetch_mode: FetchMode,
    ) -> Result<Reply, Error> {
        if !tile.is_partial() {
            return self.immutable(resource, fetch_mode).await;
        }
        if let Some(stored) = self.store.open(resource).await? {
            return Ok(Reply { content: Content::Stored(stored), status: CacheStatus::hit() });
        }
        let (store, wanted, of) = (Arc::clone(&self.store), *tile, name.clone());
        if let Some(wider) = store::blocking(move || store.widest_tile(&of, &wanted)).await?
            && let Some(content) = cut(Content::Stored(wider), tile).await?
        {
            return Ok(Reply { content, status: CacheStatus::hit() });
        }
        let answer = self.immutable(resource, fetch_mode).await;
        // A database may drop a partial tile once the full one exists.
        if let Err(Error::NotFound { .. } | Error::Upstream { .. }) = answer {
            let full = Resource::SumdbTile(name.clone(), tile.full());
            if let Ok(reply) = self.immutable(&full, fetch_mode).await
                && let Some(content) = cut(reply.content, tile).await?
            {
                return Ok(Reply { content, status: reply.status });
            }
        }
        answer
    }
}

/// Cuts a tile out of a wider one.
async fn cut(wider: Content, tile: &Tile) -> Result<Option<Content>, Error> {
    let bytes = match wider {
        Content::Stored(stored) => {
            store::blocking(move || stored.read().map_err(|err| store::Error::at("tile", err))).await?
        }
        Content::Bytes(bytes) => bytes,
        Content::Growing(_) => return Ok(None),
    };
    Ok(tile.cut(&bytes).map(|part| Content::Bytes(bytes.slice_ref(part))))
}
