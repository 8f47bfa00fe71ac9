//! One checksum database: what it says is asked for, proved, and only then stored and passed on.
//!
//! Called by `cache` for clients and by [`super::Verifier`] for judgements, so that both see the very same files; calls
//! `sumdb::check` for every proof, `store` and [`super::ways`]. Invariants: nothing is stored that is not authenticated
//! against a head the key signed; a newer head is on the disk before anything that follows from it; the known head never
//! moves backwards; a lie is never taken for an absence. Sources: `golang.org/x/mod/sumdb`, client.go; proposal 25530.
//!
//! **Why a client can verify off line what was stored.** A client that knows no head yet meets lookups in any order, each
//! with the head of its own day. What it asks for are tiles at the places that the record and both heads need, in the width
//! of the newer head. Every lookup is proved here against the newest head of all, K, together with its own head as a
//! beginning of K, so every such place is stored, in K's width, and a narrower tile is its beginning. When K moves on, the
//! proof that the old K is a beginning of the new one fetches exactly the tiles that were partial, in their new width.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use super::evidence;
use super::flights::Flights;
use super::known::Known;
use super::ways::{self, Ways};
use crate::clock::Clock;
use crate::resource::Resource;
use crate::shutdown::Tasks;
use crate::store::alarms::Alarms;
use crate::store::index::Index;
use crate::store::{self, Store};
use crate::sumdb::authentic::{AuthenticTiles, TilePlan};
use crate::sumdb::check::{
    HeadCheck, Lie, LookupCheck, Outcome, Proved, ProvedHead, ProvedRecord, Standing, TileCheck,
};
use crate::sumdb::name::LookupTarget;
use crate::sumdb::{SignedHead, SumdbName, Tile, VerifierKey};
use crate::upstream::{Failure, NotFound, Unjudged, UpstreamList, Why};

mod proving;

use proving::{Tiles, Unproved, cut};

/// `latest` is not asked again for so long.
const HEAD_FRESH_FOR: Duration = Duration::from_secs(60);
/// A module that is not in the log now may be in a minute, when the database has fetched it.
const ABSENT_FOR: Duration = Duration::from_secs(60);
/// Absent records remembered at a time.
const ABSENT_MAX: usize = 4096;
/// Who asks whether the database is proxied waits so long for the first contact with it.
const FIRST_CONTACT_WAIT: Duration = Duration::from_secs(3);
/// The known head may move on while a proof is under way, so often.
const MOVES_MAX: usize = 16;

/// What one database is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name.
    pub name: SumdbName,
    /// Its key.
    pub key: VerifierKey,
    /// Where it is asked.
    pub ways: ways::Config,
}

/// The parts of Larder that a database works with.
#[derive(Clone)]
pub struct Parts {
    /// Where its files are.
    pub store: Arc<Store>,
    /// Where files are counted.
    pub index: Arc<Index>,
    /// Through whom it is asked.
    pub upstreams: Arc<UpstreamList>,
    /// Where lies and forks are kept.
    pub alarms: Arc<Alarms>,
    /// What its fetches are among.
    pub tasks: Tasks,
    /// The time.
    pub clock: Clock,
}

/// A record, proved.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The whole answer, for a client.
    pub body: Bytes,
    /// What it proves.
    pub record: ProvedRecord,
}

/// A checksum database.
pub struct Database {
    /// Its name.
    pub name: SumdbName,
    /// Its key.
    pub key: VerifierKey,
    ways: Ways,
    parts: Parts,
    known: Known,
    lookups: Arc<Flights<LookupTarget, Result<Looked, Failure>>>,
    tiles: Arc<Flights<Tile, Result<Bytes, Failure>>>,
    heads: Arc<Flights<(), Result<SignedHead, Failure>>>,
    absent: Mutex<HashMap<LookupTarget, (Instant, NotFound)>>,
    /// When `latest` was last answered.
    latest_at: Mutex<Option<Instant>>,
    /// Whether it was ever reached, or something of it is stored.
    can_serve: AtomicBool,
    /// Held while a head, and what follows from it, is written.
    accepting: tokio::sync::Mutex<()>,
}

impl Database {
    /// Opens the database's part of the store; nothing is asked yet.
    ///
    /// # Errors
    /// What the disk says, and a known head of another key. One that is damaged latches an alarm instead.
    pub fn open(config: Config, parts: Parts) -> Result<Self, store::Error> {
        let known = Known::open(&parts, &config.name, &config.key)?;
        let can_serve = known.head().is_some() || parts.store.has_lookups(&config.name);
        let ways = Ways::new(config.ways, config.name.clone(), Arc::clone(&parts.upstreams), parts.clock.clone());
        Ok(Self {
            name: config.name,
            key: config.key,
            ways,
            known,
            lookups: Flights::new(parts.tasks.clone()),
            tiles: Flights::new(parts.tasks.clone()),
            heads: Flights::new(parts.tasks.clone()),
            parts,
            absent: Mutex::default(),
            latest_at: Mutex::default(),
            can_serve: AtomicBool::new(can_serve),
            accepting: tokio::sync::Mutex::default(),
        })
    }

    /// Returns the newest head that was accepted.
    pub fn known_head(&self) -> Option<SignedHead> {
        self.known.head()
    }

    /// Returns how many answers have come from it so far.
    pub(super) fn answers(&self) -> u64 {
        self.ways.answers()
    }

    /// Returns why the database cannot be asked, as far as that is known without asking.
    pub fn down_reason(&self) -> Option<String> {
        self.ways.down_reason()
    }

    /// Says whether the go command may be told that this database is proxied: after that it goes nowhere else.
    pub async fn is_supported(self: &Arc<Self>) -> bool {
        if !self.can_serve() {
            // The outcome is the flag; whoever asks first at a fresh start waits a moment for it.
            let _ = timeout(FIRST_CONTACT_WAIT, self.latest()).await;
        }
        self.can_serve()
    }

    /// Says whether it was ever reached, or something of it is stored.
    pub fn can_serve(&self) -> bool {
        self.can_serve.load(Ordering::Relaxed)
    }

    /// Returns the record of a module version, stored or fetched, proved against the newest head in either case.
    ///
    /// # Errors
    /// [`Failure::NotFound`] if it is not in the log; [`Failure::Unjudged`] if the answer does not verify.
    ///
    /// # Cancel safety
    /// The look-up goes on when the future is dropped.
    pub async fn record(self: &Arc<Self>, target: &LookupTarget) -> Result<Looked, Failure> {
        let (database, wanted) = (Arc::clone(self), target.clone());
        let looked = self.lookups.join(target, || async move { database.look_up(&wanted).await }).await;
        looked.unwrap_or_else(|| Err(self.not_begun()))
    }

    /// Begins to look a record up, for whoever will want it soon.
    pub fn expect(self: &Arc<Self>, target: &LookupTarget) {
        let (database, wanted) = (Arc::clone(self), target.clone());
        drop(self.lookups.begin(target, || async move { database.look_up(&wanted).await }));
    }

    /// Returns a tile in the width asked for, proved.
    ///
    /// # Errors
    /// [`Failure::NotFound`] if the log does not reach so far; [`Failure::Unjudged`] if what comes does not verify.
    ///
    /// # Cancel safety
    /// The fetch goes on when the future is dropped.
    pub async fn tile(self: &Arc<Self>, tile: &Tile) -> Result<Bytes, Failure> {
        let (database, wanted) = (Arc::clone(self), *tile);
        let fetched = self.tiles.join(tile, || async move { database.fetch_tile(&wanted).await }).await;
        fetched.unwrap_or_else(|| Err(self.not_begun()))
    }

    /// Returns the newest head, asking for it unless that was done within the last minute.
    ///
    /// # Errors
    /// Why nobody could say. The head known before stays known.
    ///
    /// # Cancel safety
    /// The question is still asked when the future is dropped.
    pub async fn latest(self: &Arc<Self>) -> Result<SignedHead, Failure> {
        let asked = *self.latest_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(head), Some(asked)) = (self.known_head(), asked)
            && self.parts.clock.steady().duration_since(asked) < HEAD_FRESH_FOR
        {
            return Ok(head);
        }
        self.newest().await
    }

    /// Asks for the newest head, however fresh the known one is.
    ///
    /// # Errors
    /// As [`Self::latest`].
    pub async fn newest(self: &Arc<Self>) -> Result<SignedHead, Failure> {
        let database = Arc::clone(self);
        let head = self.heads.join(&(), || async move { database.fetch_latest().await }).await;
        head.unwrap_or_else(|| Err(self.not_begun()))
    }

    /// Says why a question was not even begun.
    fn not_begun(&self) -> Failure {
        if self.parts.tasks.token().is_cancelled() {
            return Failure::Stopped;
        }
        Failure::Offline { upstream: Arc::from(self.name.as_str()), reason: "too many questions at a time".to_owned() }
    }

    /// Fetches one tile of records without storing it, for who follows the log; what it holds is for the caller to prove.
    ///
    /// # Errors
    /// Why it could not be had.
    pub async fn unproved_tile(&self, tile: &Tile) -> Result<Bytes, Failure> {
        self.fetch_one(tile).await
    }

    /// Proves the tiles of a plan against its head, which is the known one or was accepted once.
    ///
    /// # Errors
    /// As [`Self::tile`].
    pub async fn prove_plan(&self, plan: &TilePlan) -> Result<AuthenticTiles, Failure> {
        let run = |tiles: &HashMap<Tile, Bytes>| match plan.prove(|tile| tiles.get(tile).cloned()) {
            Ok(authentic) => Outcome::Proved(Proved { thing: authentic, tiles: Vec::new() }),
            Err(unproved) => unproved.into_outcome(*plan.head()),
        };
        let proved = self.prove(&mut Tiles::default(), run).await;
        proved.map(|proved| proved.thing).map_err(|unproved| self.settled(unproved, "the log"))
    }

    async fn look_up(&self, target: &LookupTarget) -> Result<Looked, Failure> {
        let resource = Resource::SumdbLookup(self.name.clone(), target.clone());
        if let Some(stored) = self.parts.store.open(&resource).await? {
            let body =
                store::blocking(move || stored.read().map_err(|err| store::Error::at("stored lookup", err))).await?;
            match self.prove_lookup(&body, target).await {
                Ok(record) => return Ok(Looked { body, record }),
                Err(Unproved::Lie(lie)) => self.set_aside(&resource, &lie).await?,
                Err(unproved) => return Err(self.told(unproved, &body, &target.to_string()).await),
            }
        }
        if let Some(not_found) = self.absent(target) {
            return Err(Failure::NotFound(not_found));
        }
        let fetched = self.ways.fetch(&resource).await.inspect_err(|failure| self.note_absent(target, failure))?;
        let body = fetched.body;
        let record = match self.prove_lookup(&body, target).await {
            Ok(record) => record,
            Err(unproved) => return Err(self.told(unproved, &body, &target.to_string()).await),
        };
        self.commit(&resource, &body).await;
        log::info!("proved record={} of {target} database={}", record.number, self.name);
        Ok(Looked { body, record })
    }

    /// Proves an answer, moves the known head on if it is newer, and stores the tiles it took.
    async fn prove_lookup(&self, body: &Bytes, target: &LookupTarget) -> Result<ProvedRecord, Unproved> {
        let mut tiles = Tiles::default();
        for _ in 0..MOVES_MAX {
            let known = self.known_head();
            let check = LookupCheck::new(body, target, known.as_ref(), &self.key)?;
            let proved = self.prove(&mut tiles, |tiles| check.run(|tile| tiles.get(tile).cloned())).await?;
            if self.accept(known.as_ref(), &proved.thing.head, &proved.tiles, &tiles.fetched).await? {
                return Ok(proved.thing);
            }
        }
        Err(self.busy().into())
    }

    async fn fetch_latest(&self) -> Result<SignedHead, Failure> {
        let resource = Resource::SumdbLatest(self.name.clone());
        let fetched = self.ways.fetch(&resource).await?;
        let note = fetched.body;
        let head = match self.prove_head(&note).await {
            Ok(head) => head,
            Err(unproved) => return Err(self.told(unproved, &note, "latest").await),
        };
        // Others may keep what they were told for as long as they like.
        if head.standing == Standing::Older && fetched.is_own {
            self.look_into_rollback(&resource, &note).await;
        }
        *self.latest_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.parts.clock.steady());
        Ok(head.head)
    }

    async fn prove_head(&self, note: &Bytes) -> Result<ProvedHead, Unproved> {
        let mut tiles = Tiles::default();
        for _ in 0..MOVES_MAX {
            let known = self.known_head();
            let check = HeadCheck::new(note, known.as_ref(), &self.key)?;
            let proved = self.prove(&mut tiles, |tiles| check.run(|tile| tiles.get(tile).cloned())).await?;
            if self.accept(known.as_ref(), &proved.thing, &proved.tiles, &tiles.fetched).await? {
                return Ok(proved.thing);
            }
        }
        Err(self.busy().into())
    }

    /// An older head is no lie: caches keep answers. But a log that stays shorter than it was has lost something.
    async fn look_into_rollback(&self, resource: &Resource, came: &Bytes) {
        let Some((known, since)) = self.known.head_and_age(&self.parts, &self.name).await else { return };
        if since < evidence::ROLLBACK_GRACE {
            log::info!("an older tree head than the known one came database={}", self.name);
            return;
        }
        // Once more, for it is a grave thing to say.
        let Ok(again) = self.ways.fetch(resource).await else { return };
        let came = if again.body == *came { came.clone() } else { again.body };
        let Ok(head) = SignedHead::open(&came, &self.key) else { return };
        if head.head().size < known.head().size {
            evidence::rollback(&self.parts, &self.name, &known, &head).await;
        }
    }

    async fn fetch_tile(self: &Arc<Self>, tile: &Tile) -> Result<Bytes, Failure> {
        let mut tiles = Tiles::default();
        for _ in 0..MOVES_MAX {
            let reaches = |head: &SignedHead| {
                let there = Tile::in_tree(tile.level(), tile.index(), head.head().size);
                there.is_some_and(|there| there.covers(tile))
            };
            let known = match self.known_head().filter(reaches) {
                Some(known) => known,
                None => self.newest().await?,
            };
            let check = Some(&known).filter(|known| reaches(known));
            let Some(check) = check.and_then(|known| TileCheck::new(tile.level(), tile.index(), known)) else {
                return Err(self.beyond(tile, &known));
            };
            let proved = match self.prove(&mut tiles, |tiles| check.run(|tile| tiles.get(tile).cloned())).await {
                Ok(proved) => proved,
                Err(unproved) => return Err(self.told(unproved, &Bytes::new(), &tile.to_string()).await),
            };
            let head = ProvedHead { head: known.clone(), standing: Standing::Same };
            if self.accept(Some(&known), &head, &proved.tiles, &tiles.fetched).await? {
                let bytes = proved.tiles.iter().find(|(proved, _)| proved.covers(tile)).map(|(_, bytes)| bytes.clone());
                return bytes.and_then(|bytes| cut(&bytes, tile)).ok_or_else(|| self.beyond(tile, &known));
            }
        }
        Err(self.busy())
    }

    fn beyond(&self, tile: &Tile, known: &SignedHead) -> Failure {
        let text = format!("not found: {tile} is not in the log of {} records\n", known.head().size);
        Failure::NotFound(NotFound { status: 404, body: Bytes::from(text), upstream: Arc::from(self.name.as_str()) })
    }

    /// Says what becomes of something that is not proved, and keeps what it shows of the database.
    async fn told(&self, unproved: Unproved, answer: &Bytes, subject: &str) -> Failure {
        match &unproved {
            Unproved::Lie(lie) => evidence::lie(&self.parts, &self.name, subject, lie, answer).await,
            Unproved::Inconsistent(lie) => {
                let known = self.known_head();
                evidence::inconsistent(&self.parts, &self.name, subject, lie, known.as_ref(), answer).await;
            }
            Unproved::Fork(fork) => evidence::fork(&self.parts, &self.name, fork).await,
            Unproved::Failure(_) => {}
        }
        self.settled(unproved, subject)
    }

    fn settled(&self, unproved: Unproved, subject: &str) -> Failure {
        let unjudged = |why, text: String| Failure::Unjudged(Unjudged { text: Arc::from(text), why });
        let name = &self.name;
        match unproved {
            Unproved::Failure(failure) => failure,
            Unproved::Lie(lie) | Unproved::Inconsistent(lie) => {
                unjudged(Why::Lie, format!("{subject}: checksum database {name}: answer does not verify: {lie}"))
            }
            Unproved::Fork(_) => {
                unjudged(Why::Alarm, format!("{subject}: checksum database {name}: it has shown two histories"))
            }
        }
    }

    /// What decayed on the disk, or was put there by another program, is no word of the database's.
    async fn set_aside(&self, resource: &Resource, lie: &Lie) -> Result<(), Failure> {
        log::warn!("stored {resource} does not verify and is fetched again: {lie}");
        let (store, target) = (Arc::clone(&self.parts.store), resource.clone());
        Ok(store::blocking(move || {
            store.quarantine(&target).map(drop).map_err(|err| store::Error::at("quarantine", err))
        })
        .await?)
    }

    fn absent(&self, target: &LookupTarget) -> Option<NotFound> {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, not_found) = absent.get(target)?;
        if self.parts.clock.steady().duration_since(*since) < ABSENT_FOR {
            return Some(not_found.clone());
        }
        absent.remove(target);
        None
    }

    fn note_absent(&self, target: &LookupTarget, failure: &Failure) {
        let Failure::NotFound(not_found) = failure else { return };
        let now = self.parts.clock.steady();
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.len() >= ABSENT_MAX {
            absent.retain(|_, (since, _)| now.duration_since(*since) < ABSENT_FOR);
        }
        if absent.len() < ABSENT_MAX {
            absent.insert(target.clone(), (now, not_found.clone()));
        }
    }

    fn busy(&self) -> Failure {
        let reason = "its head moves faster than it can be followed".to_owned();
        Failure::Rejected { upstream: Arc::from(self.name.as_str()), reason }
    }
}
