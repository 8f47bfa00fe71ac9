//! How something of a database is proved: with which tiles, stored or fetched, and what is kept of them.
//!
//! Called by `database`; calls `sumdb::check` through the check it is given. Invariants: stored tiles are tried first and
//! believed no more than fetched ones; a head is on the disk before what follows from it; only tiles that were proved are
//! stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::Database;
use crate::resource::Resource;
use crate::store::{self, Store};
use crate::sumdb::check::{Lie, Outcome, Proved, ProvedHead, Standing};
use crate::sumdb::fork::Fork;
use crate::sumdb::record::cut_data_tile;
use crate::sumdb::{SignedHead, SumdbName, Tile, TileLevel};
use crate::upstream::Failure;
use crate::verify::ways::Fetched;

/// Tiles asked for at a time in one proof.
const TILES_IN_FLIGHT: usize = 8;
/// A proof takes its tiles in one round, one more shows a fork, and each once more with fresh tiles.
const ROUNDS_MAX: usize = 6;

/// Why something is not proved.
pub(super) enum Unproved {
    Lie(Lie),
    /// Tiles that do not fit, though those fetched just now contradict stored ones that once did.
    Inconsistent(Lie),
    Fork(Box<Fork>),
    Failure(Failure),
}

impl From<Failure> for Unproved {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Lie> for Unproved {
    fn from(lie: Lie) -> Self {
        Self::Lie(lie)
    }
}

/// The tiles of one proof that are at hand.
#[derive(Default)]
pub(super) struct Tiles {
    at_hand: HashMap<Tile, Bytes>,
    /// Those that came from the network: they are not stored yet.
    pub(super) fetched: Vec<Tile>,
    /// Whether some of them did not come from the database's own address.
    has_foreign: bool,
    /// What was stored, kept for comparison when all are fetched afresh.
    distrusted: Option<HashMap<Tile, Bytes>>,
}

impl Database {
    /// Runs a check, giving it the tiles it wants: stored ones first; all of them fetched afresh if those do not fit.
    pub(super) async fn prove<T>(
        &self,
        tiles: &mut Tiles,
        run: impl Fn(&HashMap<Tile, Bytes>) -> Outcome<T>,
    ) -> Result<Proved<T>, Unproved> {
        for _ in 0..ROUNDS_MAX {
            match run(&tiles.at_hand) {
                Outcome::Proved(proved) => return Ok(proved),
                Outcome::Fork(fork) => return Err(Unproved::Fork(fork)),
                Outcome::NeedTiles(missing) => self.gather(missing, tiles).await?,
                Outcome::Lie(lie) => {
                    let is_stale = tiles.distrusted.is_none() && tiles.at_hand.len() > tiles.fetched.len();
                    if !lie.may_be_stale_tiles() || !is_stale {
                        let contradicts = tiles.contradicts() && lie.may_be_stale_tiles();
                        return Err(if contradicts { Unproved::Inconsistent(lie) } else { Unproved::Lie(lie) });
                    }
                    log::warn!("tiles do not fit, all are fetched afresh database={} reason={lie}", self.name);
                    let distrusted = Some(std::mem::take(&mut tiles.at_hand));
                    *tiles = Tiles { distrusted, ..Tiles::default() };
                }
            }
        }
        Err(self.busy().into())
    }

    async fn gather(&self, missing: Vec<Tile>, tiles: &mut Tiles) -> Result<(), Failure> {
        let mut rest = Vec::new();
        if tiles.distrusted.is_none() {
            let (store, name) = (Arc::clone(&self.parts.store), self.name.clone());
            let stored = store::blocking(move || {
                missing
                    .into_iter()
                    .map(|tile| Ok((tile, stored_tile(&store, &name, &tile)?)))
                    .collect::<Result<Vec<_>, _>>()
            });
            for (tile, bytes) in stored.await? {
                match bytes {
                    Some(bytes) => drop(tiles.at_hand.insert(tile, bytes)),
                    None => rest.push(tile),
                }
            }
        } else {
            rest = missing;
        }
        let fetches = rest.into_iter().map(|tile| async move { (tile, self.fetch_tile_from(&tile).await) });
        let mut arriving = stream::iter(fetches).buffer_unordered(TILES_IN_FLIGHT);
        while let Some((tile, bytes)) = arriving.next().await {
            // A proof that is withheld says nothing of what it is for: it is not the absence of a record.
            let bytes = bytes.map_err(|failure| match failure {
                Failure::NotFound(said) => {
                    Failure::Rejected { upstream: said.upstream, reason: format!("{tile} of the proof is not there") }
                }
                failure => failure,
            });
            let Fetched { body, is_own } = bytes?;
            tiles.at_hand.insert(tile, body);
            tiles.fetched.push(tile);
            tiles.has_foreign |= !is_own;
        }
        Ok(())
    }

    /// Fetches a tile in its width; a partial one that the database has dropped is cut from the full one.
    pub(super) async fn fetch_one(&self, tile: &Tile) -> Result<Bytes, Failure> {
        Ok(self.fetch_tile_from(tile).await?.body)
    }

    async fn fetch_tile_from(&self, tile: &Tile) -> Result<Fetched, Failure> {
        let fetched = self.ways.fetch(&Resource::SumdbTile(self.name.clone(), *tile)).await;
        let absent = match fetched {
            Err(failure @ Failure::NotFound(_)) if tile.is_partial() => failure,
            fetched => return fetched,
        };
        let full =
            self.ways.fetch(&Resource::SumdbTile(self.name.clone(), tile.full())).await.map_err(|_| absent.clone())?;
        let body = cut(&full.body, tile).ok_or(absent)?;
        Ok(Fetched { body, is_own: full.is_own })
    }

    /// Makes a proved head the known one, durably, and stores the tiles that came with it. `false` if the known head has
    /// moved on meanwhile: what was proved has to be proved again.
    pub(super) async fn accept(
        &self,
        known: Option<&SignedHead>,
        proved: &ProvedHead,
        tiles: &[(Tile, Bytes)],
        fetched: &[Tile],
    ) -> Result<bool, Failure> {
        let turn = self.accepting.lock().await;
        if self.known_head().as_ref() != known {
            return Ok(false);
        }
        if proved.standing == Standing::Newer {
            self.known.move_to(&self.parts, &self.name, proved.head.clone()).await?;
            log::info!("tree head size={} database={}", proved.head.head().size, self.name);
        }
        self.can_serve.store(true, Ordering::Relaxed);
        // What was proved stays true when the head moves on.
        drop(turn);
        for (tile, bytes) in tiles.iter().filter(|(tile, _)| fetched.contains(tile)) {
            self.commit(&Resource::SumdbTile(self.name.clone(), *tile), bytes).await;
        }
        Ok(true)
    }

    /// Stores something proved. A full disk is no reason to withhold it.
    pub(super) async fn commit(&self, resource: &Resource, content: &Bytes) {
        let (store, target, bytes) = (Arc::clone(&self.parts.store), resource.clone(), content.clone());
        let written = store::blocking(move || {
            let written = store.commit_bytes(&target, &bytes)?;
            if let Resource::SumdbTile(name, tile) = &target {
                store.remove_narrower_tiles(name, tile)?;
            }
            Ok(written)
        });
        match written.await {
            Ok(written) => self.parts.index.count_other(1, i64::try_from(written.length).unwrap_or_default()),
            Err(err) => log::error!("proved but not stored {resource}: {err}"),
        }
    }
}

impl Tiles {
    /// Says whether a tile that came now differs from the beginning of the one that was stored.
    fn contradicts(&self) -> bool {
        let Some(distrusted) = &self.distrusted else { return false };
        // Somebody else's tiles accuse nobody but him.
        !self.has_foreign
            && self.at_hand.iter().any(|(tile, bytes)| distrusted.get(tile).is_some_and(|stored| stored != bytes))
    }
}

fn stored_tile(store: &Store, name: &SumdbName, tile: &Tile) -> Result<Option<Bytes>, store::Error> {
    let stored = match tile.level() {
        TileLevel::Hashes(_) => store.widest_tile(name, tile)?,
        TileLevel::Data => store.open_blocking(&Resource::SumdbTile(name.clone(), *tile))?,
    };
    let Some(stored) = stored else { return Ok(None) };
    let bytes = stored.read().map_err(|err| store::Error::at("stored tile", err))?;
    Ok(cut(&bytes, tile))
}

/// Cuts a tile, of hashes or of records, out of a wider one at its place.
pub(super) fn cut(wider: &Bytes, tile: &Tile) -> Option<Bytes> {
    let part = match tile.level() {
        TileLevel::Hashes(_) => tile.cut(wider)?,
        TileLevel::Data => cut_data_tile(wider, tile.width())?,
    };
    Some(wider.slice_ref(part))
}
