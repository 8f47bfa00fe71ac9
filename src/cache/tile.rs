//! Tiles of a checksum database: the first hashes of a tile never change, so a narrow one is cut from any wider one.

use std::sync::Arc;

use crate::cache::{Cache, CacheStatus, Content, Error, FetchMode, Reply};
use crate::resource::{Resource, SumdbName};
use crate::store;
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
        if tile.is_partial()
            && self.store.open(resource).await?.is_none()
            && let Some(reply) = self.cut_tile(name, tile, false).await?
        {
            return Ok(reply);
        }
        let answer = self.immutable(resource, fetch_mode).await;
        // A database may drop a partial tile once the full one exists.
        match answer {
            Err(Error::NotFound { .. } | Error::Upstream { .. }) if tile.is_partial() => {
                let full = Resource::SumdbTile(name.clone(), tile.full());
                match self.immutable(&full, fetch_mode).await {
                    Ok(_) => match self.cut_tile(name, tile, true).await? {
                        Some(reply) => Ok(reply),
                        None => answer,
                    },
                    Err(_) => answer,
                }
            }
            answer => answer,
        }
    }
}
