//! The audit: the whole log of a checksum database, read record by record.
//!
//! Owns the pace and the order of its steps. Called by the command `audit` and by the service for it; calls
//! [`Follower`], which proves, and [`Seen`], which remembers. Who fetches is given. Invariants: only what is proved is
//! saved; few tiles are in memory at once; a tile that does not fit is fetched afresh once before anybody is accused.
//!
//! ```text
//! tiles ─► fetch (4 at once, in order, at the given pace) ─► take: hashes, entries
//!                                                             │ each 64 tiles, or when Seen is full
//!          hash tiles ─► proved against the signed head ─► prove ─► save: state and entries in one step
//! end: root of all records == signed root ─► save ─► settle: all entries compared ─► findings
//! ```

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::seen::{Findings, Seen, SeenError};
use crate::store::{Error as DiskError, blocking};
use crate::sumdb::authentic::{TilePlan, Unproved};
use crate::sumdb::follow::{FollowError, Follower, entries};
use crate::sumdb::{Tile, TileLevel, TreeHead};

/// How fast an audit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many tiles are being fetched at once; at least one.
    pub tiles_in_flight: usize,
    /// The shortest time from one tile to the next on average.
    pub tile_interval: Duration,
    /// Bytes a second on average; 0 for no limit.
    pub bytes_per_second: u64,
    /// How many tiles are taken between two saves.
    pub tiles_between_saves: usize,
}

impl Default for Pace {
    /// Twenty tiles a second: about a megabyte.
    fn default() -> Self {
        Self {
            tiles_in_flight: 4,
            tile_interval: Duration::from_millis(50),
            bytes_per_second: 0,
            tiles_between_saves: 64,
        }
    }
}

/// Where a tile may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What is stored will do.
    Any,
    /// What is stored did not fit: from the database again.
    Afresh,
}

/// How far an audit has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The first record that was followed, in this run.
    pub from: u64,
    /// How many records are taken.
    pub taken: u64,
    /// How many of them are proved and saved.
    pub proved: u64,
    /// How many there are.
    pub target: u64,
    /// How many bytes of data tiles have come in this run.
    pub bytes: u64,
    /// How many lines of records were none of go.sum.
    pub odd_lines: u64,
}

/// How an audit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All records up to this head are proved.
    Reached {
        /// The audited head.
        head: TreeHead,
        /// What the records of the whole log say of each other.
        findings: Findings,
    },
    /// It was cancelled; the next one goes on from what is saved.
    Cancelled,
}

/// Why an audit ended too early. What was saved stays.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A tile cannot be fetched.
    #[error("{tile}: {text}")]
    Fetch {
        /// The tile.
        tile: Tile,
        /// Why not.
        text: String,
    },
    /// The records are not those of the log that was signed, fetched twice.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// Hash tiles do not fit the head that was signed, fetched twice.
    #[error("hash tiles do not fit the log of size {} with root {}: {unproved:?}", .head.size, .head.root)]
    Hashes {
        /// The head.
        head: TreeHead,
        /// Which of them.
        unproved: Unproved,
    },
    /// What was seen cannot be kept.
    #[error(transparent)]
    Seen(#[from] SeenError),
    /// The work ended before its time.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl AuditError {
    /// Says whether tiles may have changed on the way.
    fn may_be_damaged_tiles(&self) -> bool {
        match self {
            Self::Follow(error) => error.may_be_damaged_tiles(),
            Self::Hashes { .. } => true,
            Self::Fetch { .. } | Self::Seen(_) | Self::Disk(_) => false,
        }
    }
}

/// Follows the log to the follower's target. The follower is that of `seen.state()`, or a new one with a new set. `fetch` gives the bytes of a tile and has its own deadline; a partial tile
/// that cannot be had is asked for as the full one. `tell` is called behind each tile.
///
/// # Errors
/// [`AuditError`]. The saved state is good in each case but [`SeenError::Damaged`].
///
/// # Cancel safety
/// What was saved stays; a save that has begun goes on to its end.
pub async fn follow<Fetch, Coming>(
    follower: Follower,
    seen: Seen,
    pace: Pace,
    clock: &Clock,
    stop: &CancellationToken,
    fetch: Fetch,
    mut tell: impl FnMut(Progress),
) -> Result<Ended, AuditError>
where
    Fetch: Fn(Tile, Source) -> Coming,
    Coming: Future<Output = Result<Bytes, String>>,
{
    let progress = Progress { from: follower.taken(), target: follower.target().head().size, ..Progress::default() };
    let desk = Desk { follower, seen };
    let (due, proved_tiles) = (clock.steady(), Vec::new());
    let mut audit = Audit { desk: Some(desk), pace, clock, stop, fetch: &fetch, progress, due, proved_tiles };
    let mut source = Source::Any;
    loop {
        let proved = audit.progress.proved;
        match audit.stretch(source, &mut tell).await {
            Ok(Step::Saved) => source = Source::Any,
            Ok(Step::Ended(ended)) => return Ok(ended),
            Err(error) if error.may_be_damaged_tiles() && source == Source::Any => {
                log::warn!("audit: {error}; fetching afresh from record {proved}");
                source = Source::Afresh;
                audit.roll_back().await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What is worked on where waiting is allowed.
struct Desk {
    follower: Follower,
    seen: Seen,
}

struct Audit<'a, Fetch> {
    /// Away while a task of the blocking pool works on it.
    desk: Option<Desk>,
    pace: Pace,
    clock: &'a Clock,
    stop: &'a CancellationToken,
    fetch: &'a Fetch,
    progress: Progress,
    /// When the next tile may be taken.
    due: Instant,
    /// Those of the last waypoint, most of which serve the next one.
    proved_tiles: Vec<(Tile, Bytes)>,
}

enum Step {
    Saved,
    Ended(Ended),
}

impl<Fetch, Coming> Audit<'_, Fetch>
where
    Fetch: Fn(Tile, Source) -> Coming,
    Coming: Future<Output = Result<Bytes, String>>,
{
    /// Goes from one save to the next.
    async fn stretch(&mut self, source: Source, tell: &mut impl FnMut(Progress)) -> Result<Step, AuditError> {
        let tiles: Vec<Tile> =
            self.on_desk(|desk| desk.follower.tiles()).await?.take(self.pace.tiles_between_saves).collect();
        let fetch = self.fetch;
        let coming = tiles.into_iter().map(|tile| async move { (tile, fetch_tile(fetch, tile, source).await) });
        let mut coming = std::pin::pin!(stream::iter(coming).buffered(self.pace.tiles_in_flight.max(1)));
        loop {
            let Some(next) = self.stop.run_until_cancelled(coming.next()).await else {
                return Ok(Step::Ended(Ended::Cancelled));
            };
            let Some((tile, bytes)) = next else { break };
            let bytes = bytes?;
            let length = bytes.len() as u64;
            let (taken, odd_lines, is_full) = self.on_desk(move |desk| desk.take(&tile, &bytes)).await??;
            self.progress = Progress { taken, bytes: self.progress.bytes + length, ..self.progress };
            self.progress.odd_lines += odd_lines;
            tell(self.progress);
            if is_full {
                break;
            }
            let stop = self.stop;
            if stop.run_until_cancelled(self.rest(length)).await.is_none() {
                return Ok(Step::Ended(Ended::Cancelled));
            }
        }
        let step = self.save(source).await?;
        tell(self.progress);
        Ok(step)
    }

    /// Waits as long as it takes to keep the pace, behind a tile of this length.
    async fn rest(&mut self, bytes: u64) {
        let by_bytes = match self.pace.bytes_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_millis(bytes.saturating_mul(1000) / rate),
        };
        let now = self.clock.steady();
        self.due = self.due.max(now) + by_bytes.max(self.pace.tile_interval);
        tokio::time::sleep(self.due.saturating_duration_since(now)).await;
    }

    /// Proves what was taken, and saves it; at the end of the log also compares all of it.
    async fn save(&mut self, source: Source) -> Result<Step, AuditError> {
        let (is_last, plan, target) = self
            .on_desk(|Desk { follower, .. }| {
                (follower.next_tile().is_none(), follower.waypoint(), *follower.target().head())
            })
            .await?;
        if is_last {
            self.on_desk(|desk| desk.follower.finish()).await??;
        } else {
            let tiles = fetch_plan(self.fetch, &plan, source, &self.proved_tiles);
            let Some(tiles) = self.stop.run_until_cancelled(tiles).await else {
                return Ok(Step::Ended(Ended::Cancelled));
            };
            let tiles = tiles?;
            let bytes_of = |tile: &Tile| tiles.iter().find(|(there, _)| there == tile).map(|(_, bytes)| bytes.clone());
            let authentic = plan.prove(bytes_of).map_err(|unproved| AuditError::Hashes { head: target, unproved })?;
            self.proved_tiles = tiles;
            self.on_desk(move |desk| desk.follower.prove(&authentic)).await??;
        }
        let stop = self.stop.clone();
        let is_cancelled = move || stop.is_cancelled();
        let (proved, findings) = self
            .on_desk(move |Desk { follower, seen }| {
                seen.save(follower.proved(), &follower.state(), &is_cancelled)?;
                let findings = if is_last { seen.settle(&is_cancelled)? } else { None };
                Ok::<_, SeenError>((follower.proved(), findings))
            })
            .await??;
        self.progress.proved = proved;
        Ok(match (is_last, findings) {
            (false, _) => Step::Saved,
            (true, Some(findings)) => Step::Ended(Ended::Reached { head: target, findings }),
            (true, None) => Step::Ended(Ended::Cancelled),
        })
    }

    /// Forgets what is not proved.
    async fn roll_back(&mut self) -> Result<(), AuditError> {
        self.proved_tiles.clear();
        let taken = self.on_desk(|Desk { follower, seen }| {
            follower.roll_back();
            seen.forget_unsaved();
            follower.taken()
        });
        self.progress.taken = taken.await?;
        Ok(())
    }

    /// Works where waiting for the device and hashing are allowed.
    async fn on_desk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Result<T, AuditError> {
        let gone = || DiskError::at("audit", std::io::Error::other("an earlier step was broken off"));
        let mut desk = self.desk.take().ok_or_else(gone)?;
        let (desk, result) = blocking(move || {
            let result = work(&mut desk);
            Ok((desk, result))
        })
        .await?;
        self.desk = Some(desk);
        Ok(result)
    }
}

impl Desk {
    /// Takes a tile; returns how many records are taken, how many lines were odd, and whether a save is due.
    fn take(&mut self, tile: &Tile, bytes: &Bytes) -> Result<(u64, u64, bool), AuditError> {
        let mut odd_lines = 0;
        for (number, text) in self.follower.take(tile, bytes)?.records {
            let found = entries(text);
            odd_lines += found.odd_lines as u64;
            for entry in found.entries {
                self.seen.add(number, entry.module_version, &entry.lines)?;
            }
        }
        Ok((self.follower.taken(), odd_lines, self.seen.is_full()))
    }
}

/// Fetches a tile, or the full one at its place if the database has dropped it, cut where it can be.
async fn fetch_tile<Fetch, Coming>(fetch: &Fetch, tile: Tile, source: Source) -> Result<Bytes, AuditError>
where
    Fetch: Fn(Tile, Source) -> Coming,
    Coming: Future<Output = Result<Bytes, String>>,
{
    let failed = |text| AuditError::Fetch { tile, text };
    match fetch(tile, source).await {
        Err(text) if tile.is_partial() => {
            // The first failure is the one to tell.
            let full = fetch(tile.full(), source).await.map_err(|_| failed(text))?;
            match tile.level() {
                TileLevel::Data => Ok(full),
                TileLevel::Hashes(_) => Ok(tile.cut(&full).map_or_else(|| full.clone(), |cut| full.slice_ref(cut))),
            }
        }
        fetched => fetched.map_err(failed),
    }
}

/// Returns the tiles of a plan, those at hand and the others fetched.
async fn fetch_plan<Fetch, Coming>(
    fetch: &Fetch,
    plan: &TilePlan,
    source: Source,
    at_hand: &[(Tile, Bytes)],
) -> Result<Vec<(Tile, Bytes)>, AuditError>
where
    Fetch: Fn(Tile, Source) -> Coming,
    Coming: Future<Output = Result<Bytes, String>>,
{
    let mut tiles = Vec::new();
    for tile in plan.tiles() {
        let bytes = match at_hand.iter().find(|(there, _)| there == tile) {
            Some((_, bytes)) => bytes.clone(),
            None => fetch_tile(fetch, *tile, source).await?,
        };
        tiles.push((*tile, bytes));
    }
    Ok(tiles)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sumdb::generate::{Log, Signer};
    use crate::sumdb::{Hash, SignedHead, SumdbName};

    const FAST: Pace =
        Pace { tiles_in_flight: 4, tile_interval: Duration::ZERO, bytes_per_second: 0, tiles_between_saves: 8 };

    /// A log of modules, of which record 5000 says the module of record 17 again with another hash, and record
    /// 6000 that of record 18 with the same.
    fn log(size: u64) -> Log {
        Log::new((0..size).map(|number| {
            let (module, salt) = match number {
                5000 => (17, "other"),
                6000 => (18, ""),
                _ => (number, ""),
            };
            let h1 = |what: &str| format!("h1:{}", Hash::of_record(format!("{module}{what}{salt}").as_bytes()));
            format!("a.b/m{module} v1.0.0 {}\na.b/m{module} v1.0.0/go.mod {}\n", h1("zip"), h1("mod"))
        }))
    }

    fn signer() -> Signer {
        Signer::new("sum.example", 1)
    }

    fn signed(log: &Log, size: u64) -> SignedHead {
        SignedHead::open(signer().sign(&log.head(size).to_string()).as_bytes(), &signer().key()).unwrap()
    }

    /// Opens what was saved, or begins with the first record.
    fn begin(own: &Path, target: SignedHead) -> (Follower, Seen) {
        let seen = Seen::open(own, &SumdbName::parse("sum.example").unwrap()).unwrap();
        let resumed = Follower::resume(seen.state(), &signer().key());
        let mut follower = resumed.unwrap_or_else(|_| Follower::from_start(target.clone()));
        assert_eq!(follower.proved(), seen.reach());
        follower.aim(target).unwrap();
        (follower, seen)
    }

    fn conflicts(ended: &Ended) -> Vec<(u64, u64)> {
        let Ended::Reached { findings, .. } = ended else { panic!("{ended:?}") };
        findings.conflicts.iter().map(|conflict| (conflict.first, conflict.second)).collect()
    }

    fn flipped(log: &Log, tile: &Tile) -> Bytes {
        let mut bytes = log.tile(tile).to_vec();
        bytes[10] ^= 1;
        bytes.into()
    }

    fn assert_send<T: Send>(future: T) -> T {
        future
    }

    /// The whole log is followed, at most four tiles at once, and a second record of a module is found. A later audit goes
    /// on at the head that was reached, with an old partial tile's place first.
    #[tokio::test]
    async fn logs_are_followed_to_their_end() {
        let (own, log, clock, stop) =
            (tempfile::tempdir().unwrap(), log(9000), Clock::system(), CancellationToken::new());
        let (at_once, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (follower, seen) = begin(own.path(), signed(&log, 8500));
        let mut last = Progress::default();
        let fetch = |tile: Tile, _| {
            let (log, at_once, most) = (&log, &at_once, &most);
            async move {
                most.fetch_max(at_once.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                // Later ones come first.
                for _ in 0..(50 - tile.index() % 50) {
                    tokio::task::yield_now().await;
                }
                at_once.fetch_sub(1, Ordering::Relaxed);
                Ok(log.tile(&tile))
            }
        };
        let audit = follow(follower, seen, FAST, &clock, &stop, fetch, |progress| last = progress);
        let ended = assert_send(audit).await.unwrap();
        assert_eq!(conflicts(&ended), [(17, 5000)]);
        assert!(
            matches!(&ended, Ended::Reached { head, findings } if *head == log.head(8500) && findings.repetitions == 1)
        );
        assert_eq!((last.from, last.taken, last.proved, last.target, last.odd_lines), (0, 8500, 8500, 8500, 0));
        assert_eq!(most.load(Ordering::Relaxed), 4);

        let (follower, seen) = begin(own.path(), signed(&log, 9000));
        assert_eq!(
            (follower.audited().size, follower.next_tile().unwrap().to_string()),
            (8500, "tile/8/data/033".to_owned())
        );
        let fetch = |tile, _| std::future::ready(Ok(log.tile(&tile)));
        let ended = follow(follower, seen, FAST, &clock, &stop, fetch, |_| ()).await.unwrap();
        assert!(matches!(&ended, Ended::Reached { head, .. } if *head == log.head(9000)));
        assert_eq!(conflicts(&ended), [(17, 5000)]);
    }

    /// An audit that is stopped after any tile has lost no more than what came since the last save.
    #[tokio::test]
    async fn cancelled_audits_go_on() {
        let (own, log, clock) = (tempfile::tempdir().unwrap(), log(9000), Clock::system());
        let (mut rounds, mut from) = (0, 0);
        let ended = loop {
            let (follower, seen) = begin(own.path(), signed(&log, 9000));
            assert!(follower.proved() >= from && follower.audited().size == 0);
            from = follower.proved();
            let (stop, tiles) = (CancellationToken::new(), Cell::new(0));
            let fetch = |tile, _| std::future::ready(Ok(log.tile(&tile)));
            let tell = |_| {
                tiles.set(tiles.get() + 1);
                if tiles.get() == 11 {
                    stop.cancel();
                }
            };
            match follow(follower, seen, FAST, &clock, &stop, fetch, tell).await.unwrap() {
                Ended::Cancelled => rounds += 1,
                ended @ Ended::Reached { .. } => break ended,
            }
        };
        // 36 tiles: 8 of each 10 that come are saved.
        assert_eq!(rounds, 4);
        assert_eq!(conflicts(&ended), [(17, 5000)]);
    }

    /// A tile that does not fit is fetched afresh, once; if that one does not fit either, the audit ends and what was saved
    /// before stays good. Hash tiles too.
    #[tokio::test]
    async fn wrong_tiles_are_fetched_afresh() {
        let (log, clock, stop) = (log(9000), Clock::system(), CancellationToken::new());
        for wrong in ["tile/8/data/000", "tile/8/data/020", "tile/8/data/035.p/40", "tile/8/1/000.p/35"] {
            let own = tempfile::tempdir().unwrap();
            let wrong = Tile::parse(wrong).unwrap();
            let (follower, seen) = begin(own.path(), signed(&log, 9000));
            let fetch =
                |tile, _| std::future::ready(Ok(if tile == wrong { flipped(&log, &tile) } else { log.tile(&tile) }));
            let error = follow(follower, seen, FAST, &clock, &stop, fetch, |_| ()).await.unwrap_err();
            assert!(error.may_be_damaged_tiles(), "{error}");
            let (follower, seen) = begin(own.path(), signed(&log, 9000));
            assert_eq!(follower.proved(), if wrong.level() == TileLevel::Data { wrong.index() / 8 * 2048 } else { 0 });
            let fetch = |tile, source| {
                let is_wrong = tile == wrong && source == Source::Any;
                std::future::ready(Ok(if is_wrong { flipped(&log, &tile) } else { log.tile(&tile) }))
            };
            let ended = follow(follower, seen, FAST, &clock, &stop, fetch, |_| ()).await.unwrap();
            assert_eq!(conflicts(&ended), [(17, 5000)]);
        }
    }

    /// Partial tiles that the database dropped are taken out of the full ones; what cannot be had is told with the first
    /// cause.
    #[tokio::test]
    async fn dropped_partial_tiles_are_cut_from_full_ones() {
        let (log, clock, stop) = (log(70_000), Clock::system(), CancellationToken::new());
        let own = tempfile::tempdir().unwrap();
        let (follower, seen) = begin(own.path(), signed(&log, 1000));
        let fetch = |tile: Tile, _| {
            let is_there = !tile.is_partial() && (tile.level() != TileLevel::Data || tile.index() != 2);
            std::future::ready(if is_there { Ok(log.tile(&tile)) } else { Err(format!("no {tile}")) })
        };
        let pace = Pace { tiles_between_saves: 2, ..FAST };
        let error = follow(follower, seen, pace, &clock, &stop, fetch, |_| ()).await.unwrap_err();
        assert_eq!(error.to_string(), "tile/8/data/002: no tile/8/data/002");
        let (follower, seen) = begin(own.path(), signed(&log, 1000));
        assert_eq!(follower.proved(), 512);
        let fetch = |tile: Tile, _| {
            std::future::ready(if tile.is_partial() { Err("dropped".to_owned()) } else { Ok(log.tile(&tile)) })
        };
        let ended = follow(follower, seen, pace, &clock, &stop, fetch, |_| ()).await.unwrap();
        assert!(matches!(ended, Ended::Reached { head, .. } if head == log.head(1000)));
    }

    /// Tiles come no faster than the pace, by number and by bytes.
    #[tokio::test]
    async fn the_pace_is_kept() {
        let (log, clock, stop) = (log(2560), Clock::system(), CancellationToken::new());
        let interval = Pace { tile_interval: Duration::from_millis(20), ..FAST };
        // Ten tiles of about 35,000 bytes.
        let bytes = Pace { bytes_per_second: 1_750_000, ..FAST };
        for pace in [interval, bytes] {
            let own = tempfile::tempdir().unwrap();
            let (follower, seen) = begin(own.path(), signed(&log, 2560));
            let began = clock.steady();
            let fetch = |tile, _| std::future::ready(Ok(log.tile(&tile)));
            follow(follower, seen, pace, &clock, &stop, fetch, |_| ()).await.unwrap();
            let took = clock.steady() - began;
            assert!(took >= Duration::from_millis(180), "{took:?}");
        }
    }
}
