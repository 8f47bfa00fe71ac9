//! Verifying what a checksum database says, without asking anybody: what comes in are bytes, what goes out is what they
//! prove, or which tiles are missing for it.
//!
//! Called by the database's client, which fetches and stores; calls everything else in `sumdb`. Pure: no network, no disk,
//! no clock, and no state between two calls. Invariants: nothing is [`Proved`] but by a chain of hashes up to a head that
//! the key signed and that contains, or is contained in, the head known before; the known head never moves backwards.
//! Sources: `golang.org/x/mod/sumdb`, client.go; golang/go#79070, #80744, #80745.
//!
//! ```text
//! let check = LookupCheck::new(answer, &target, known, &key)?;     form and signature; Err: a lie
//! loop {
//!     match check.run(|tile| at_hand(tile)) {
//!         Outcome::NeedTiles(tiles) => fetch them                  all that are missing, at once; a partial tile that the
//!         Outcome::Proved(proved)   => first store proved.head,    database dropped is cut from the full one
//!                                      then tiles and answer
//!         Outcome::Lie(lie)         => nothing is stored           once more with fresh tiles, if lie.may_be_stale_tiles()
//!         Outcome::Fork(fork)       => keep it, stop, tell
//!     }
//! }
//! ```
//!
//! The known head must not change between `new` and storing `proved.head`; if it did, check again with the new one.

use bytes::Bytes;

use super::authentic::{AuthenticTiles, TilePlan, Unproved};
use super::fork::Fork;
use super::hash::Hash;
use super::head::{HeadError, SignedHead, TreeHead};
use super::key::VerifierKey;
use super::name::LookupTarget;
use super::proof::prove_prefix;
use super::record::{GoSum, LookupAnswer, RecordError};
use super::tile::{Tile, TileLevel};
use super::tree::Node;
use crate::module::zip::hash::H1;

/// Checks an answer to a lookup. Once proved, every byte of it is vouched for but signature lines of other keys, which the
/// go command passes over as well.
#[derive(Clone, Debug)]
pub struct LookupCheck {
    heads: Heads,
    plan: TilePlan,
    record: Result<Claim, Lie>,
}

/// What an answer says the log holds for the module that was asked for.
#[derive(Clone, Debug)]
struct Claim {
    number: u64,
    go_sum: GoSum,
    leaf: Hash,
}

/// Checks a tree head, such as an answer to `latest`, against the one known before; or the one known against its own tiles.
#[derive(Clone, Debug)]
pub struct HeadCheck {
    heads: Heads,
    plan: TilePlan,
}

/// Checks a tile that a client asked for, hashes or records, against the known head.
#[derive(Clone, Debug)]
pub struct TileCheck {
    plan: TilePlan,
    tile: Tile,
}

/// What came of a check.
#[derive(Clone, Debug)]
pub enum Outcome<Thing> {
    /// It is true.
    Proved(Proved<Thing>),
    /// These tiles are not at hand. Never more than the newer of the two heads covers.
    NeedTiles(Vec<Tile>),
    /// The answer does not hold, and shows nothing else.
    Lie(Lie),
    /// The database signed two histories, and here is the proof.
    Fork(Box<Fork>),
}

/// What was proved, and what may be stored because of it.
#[derive(Clone, Debug)]
pub struct Proved<Thing> {
    /// What the check was for.
    pub thing: Thing,
    /// The tiles that were used, at the widths they were used in.
    pub tiles: Vec<(Tile, Bytes)>,
}

/// A record of the log for the module version that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedRecord {
    /// Its number, counted from 0.
    pub number: u64,
    /// Its hashes.
    pub go_sum: GoSum,
    /// The newest head that is known now.
    pub head: ProvedHead,
}

/// The newer one of the known head and the one that came, both of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedHead {
    /// The head.
    pub head: SignedHead,
    /// How the one that came stands to the one known.
    pub standing: Standing,
}

/// How a head that came stands to the one that was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the first one, or of a log that has grown. It is to be stored before anything that follows from it.
    Newer,
    /// It is of the same size and root.
    Same,
    /// It is of an earlier day. Mirrors keep lookups; a `latest` that goes backwards is another matter.
    Older,
}

/// Why an answer is not believed. An answer that lies is not an absence: nothing follows from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// The head is malformed, or not signed by the database.
    #[error("tree head: {0}")]
    Head(#[from] HeadError),
    /// The record is malformed, or not of the module asked for.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The head that came with a record does not reach to it: who knows no other one could not verify it.
    #[error("record {number} in a log of {size}")]
    BeyondHead {
        /// The record's number.
        number: u64,
        /// The size its head states.
        size: u64,
    },
    /// A tile that is too short or too long.
    #[error("{tile} has the wrong length")]
    TileLength {
        /// The tile.
        tile: Tile,
    },
    /// Tiles that do not combine to the root.
    #[error("inconsistent tiles: they do not give the root {} of size {}", .head.root, .head.size)]
    Root {
        /// The head they should give.
        head: TreeHead,
        /// The tiles, of which at least one is wrong.
        tiles: Vec<Tile>,
    },
    /// A tile that contradicts the one above it.
    #[error("inconsistent tile {tile} in the log of size {size}")]
    Tile {
        /// The tile.
        tile: Tile,
        /// The size of the log.
        size: u64,
    },
    /// Lines of go.sum for what was asked stand outside the record, where nothing proves them: golang/go#80745.
    #[error("lines for {target} outside the authenticated record")]
    LinesOutside {
        /// What was asked for.
        target: LookupTarget,
    },
    /// The log has another record at that number.
    #[error("the log of size {size} has another record {number}")]
    NotInLog {
        /// The record's number.
        number: u64,
        /// The size of the log.
        size: u64,
    },
}

impl Lie {
    /// Says whether tiles did not fit: those at hand may be of another history than the head that came. Once more, with all
    /// of them fetched afresh, either shows a [`Fork`] or must be treated as one.
    pub fn may_be_stale_tiles(&self) -> bool {
        match self {
            Self::TileLength { .. } | Self::Root { .. } | Self::Tile { .. } => true,
            Self::Head(_)
            | Self::Record(_)
            | Self::BeyondHead { .. }
            | Self::LinesOutside { .. }
            | Self::NotInLog { .. } => false,
        }
    }
}

impl ProvedRecord {
    /// Returns the hash of the zip, if the record has one.
    pub fn zip(&self) -> Option<H1> {
        self.go_sum.zip
    }

    /// Returns the hash of the go.mod file, if the record has one.
    pub fn go_mod(&self) -> Option<H1> {
        self.go_sum.go_mod
    }
}

impl LookupCheck {
    /// Takes an answer to the lookup of `target`. `known` is the newest head accepted so far.
    ///
    /// # Errors
    /// [`Lie`] for the form and the signature. That the record is not of that module comes out of [`Self::run`]: even then
    /// the signed head may show a fork.
    pub fn new(
        answer: &[u8],
        target: &LookupTarget,
        known: Option<&SignedHead>,
        key: &VerifierKey,
    ) -> Result<Self, Lie> {
        let answer = LookupAnswer::parse(answer)?;
        let came = SignedHead::open(answer.note, key)?;
        let record = Claim::new(&answer, target, came.head().size);
        let heads = Heads::new(came, known);
        let mut plan = heads.plan();
        if let Ok(claim) = &record {
            plan.add_node(Node::of_record(claim.number));
        }
        Ok(Self { heads, plan, record })
    }

    /// Returns all tiles the check takes, parents first.
    pub fn tiles(&self) -> &[Tile] {
        self.plan.tiles()
    }

    /// Checks with the tiles at hand. `bytes_of` gives a tile's bytes, cut to its width.
    pub fn run(&self, bytes_of: impl FnMut(&Tile) -> Option<Bytes>) -> Outcome<ProvedRecord> {
        self.heads.run(&self.plan, bytes_of, |tiles| {
            let Claim { number, go_sum, leaf } = self.record.clone()?;
            if tiles.hash(Node::of_record(number)) != Some(leaf) {
                return Err(Lie::NotInLog { number, size: self.heads.newer.head().size });
            }
            Ok(ProvedRecord { number, go_sum, head: self.heads.proved() })
        })
    }
}

impl Claim {
    /// Reads an answer that came with the head of a log of this size.
    fn new(answer: &LookupAnswer<'_>, target: &LookupTarget, size: u64) -> Result<Self, Lie> {
        let number = answer.number;
        if number >= size {
            return Err(Lie::BeyondHead { number, size });
        }
        // golang/go#80745: lines are taken from the text whose leaf hash is to be proved, never from the rest of the answer.
        let go_sum = GoSum::find(answer.text, target)?;
        // Others are not read here, but go commands from before the fix would take them from a note that says more than a
        // head.
        if let Some(target) = lines_outside(answer.note, target) {
            return Err(Lie::LinesOutside { target });
        }
        Ok(Self { number, go_sum, leaf: Hash::of_record(answer.text.as_bytes()) })
    }
}

/// Returns what was asked for, if the note behind a record has lines for it.
fn lines_outside(note: &[u8], target: &LookupTarget) -> Option<LookupTarget> {
    let prefixes = ["", "/go.mod"].map(|suffix| format!("{} {}{suffix} ", target.path(), target.version()));
    let mut lines = note.split(|byte| *byte == b'\n');
    let is_there = lines.any(|line| prefixes.iter().any(|prefix| line.starts_with(prefix.as_bytes())));
    is_there.then(|| target.clone())
}

impl HeadCheck {
    /// Takes a signed note. Without a known head only the note's own tiles are checked, as after a restart.
    ///
    /// # Errors
    /// [`Lie::Head`] if it is not a head, or not signed by the database.
    pub fn new(note: &[u8], known: Option<&SignedHead>, key: &VerifierKey) -> Result<Self, Lie> {
        Ok(Self::of(SignedHead::open(note, key)?, known))
    }

    /// Takes a head whose signature was checked before.
    pub fn of(came: SignedHead, known: Option<&SignedHead>) -> Self {
        let heads = Heads::new(came, known);
        let plan = heads.plan();
        Self { heads, plan }
    }

    /// Returns all tiles the check takes, parents first.
    pub fn tiles(&self) -> &[Tile] {
        self.plan.tiles()
    }

    /// Checks with the tiles at hand. `bytes_of` gives a tile's bytes, cut to its width.
    pub fn run(&self, bytes_of: impl FnMut(&Tile) -> Option<Bytes>) -> Outcome<ProvedHead> {
        self.heads.run(&self.plan, bytes_of, |_| Ok(self.heads.proved()))
    }
}

impl TileCheck {
    /// Takes the place of a tile; none if the log of this head does not reach so far. What is checked, and what is to be
    /// fetched, is the tile as this log has it, which may be wider than what was asked for.
    pub fn new(level: TileLevel, index: u64, known: &SignedHead) -> Option<Self> {
        let tile = Tile::in_tree(level, index, known.head().size)?;
        let mut plan = TilePlan::new(*known.head());
        plan.add_tile(level, index);
        Some(Self { plan, tile })
    }

    /// Returns the tile in the width it is checked in.
    pub fn tile(&self) -> &Tile {
        &self.tile
    }

    /// Returns all tiles the check takes, parents first.
    pub fn tiles(&self) -> &[Tile] {
        self.plan.tiles()
    }

    /// Checks with the tiles at hand. `bytes_of` gives a tile's bytes, cut to its width.
    pub fn run(&self, bytes_of: impl FnMut(&Tile) -> Option<Bytes>) -> Outcome<Tile> {
        match self.plan.prove(bytes_of) {
            Ok(tiles) => Outcome::Proved(Proved { thing: self.tile, tiles: tiles.into_tiles() }),
            Err(unproved) => unproved.into_outcome(*self.plan.head()),
        }
    }
}

/// Two heads that must be of one log. Without a known one the other stands for both.
#[derive(Clone, Debug)]
struct Heads {
    older: SignedHead,
    newer: SignedHead,
    standing: Standing,
}

impl Heads {
    fn new(came: SignedHead, known: Option<&SignedHead>) -> Self {
        let Some(known) = known.cloned() else {
            return Self { older: came.clone(), newer: came, standing: Standing::Newer };
        };
        match came.head().size.cmp(&known.head().size) {
            std::cmp::Ordering::Less => Self { older: came, newer: known, standing: Standing::Older },
            std::cmp::Ordering::Equal => Self { older: came, newer: known, standing: Standing::Same },
            std::cmp::Ordering::Greater => Self { older: known, newer: came, standing: Standing::Newer },
        }
    }

    fn proved(&self) -> ProvedHead {
        ProvedHead { head: self.newer.clone(), standing: self.standing }
    }

    /// Plans for the newer log, and for the older one as its beginning.
    fn plan(&self) -> TilePlan {
        let mut plan = TilePlan::new(*self.newer.head());
        if self.older.head().size < self.newer.head().size {
            plan.add_tree(self.older.head().size);
        }
        plan
    }

    /// Proves that the older log is the beginning of the newer one, then the rest of the plan, then what `conclude` looks
    /// at. In this order, for who signs two histories could else hide it behind a tile that is wrong for another reason.
    fn run<Thing>(
        &self,
        plan: &TilePlan,
        mut bytes_of: impl FnMut(&Tile) -> Option<Bytes>,
        conclude: impl FnOnce(&AuthenticTiles) -> Result<Thing, Lie>,
    ) -> Outcome<Thing> {
        let (older, newer) = (self.older.head(), self.newer.head());
        if older.size == newer.size && older.root != newer.root {
            // Two signed roots of one size need no tiles to contradict each other.
            if let Some(fork) = Fork::new(self.older.clone(), self.newer.clone(), newer.root, Vec::new()) {
                return Outcome::Fork(Box::new(fork));
            }
        }
        let heads_plan = self.plan();
        // The plan begins with the tiles of the heads.
        let rest = plan.tiles().get(heads_plan.tiles().len()..).unwrap_or_default();
        let tiles = match heads_plan.prove(&mut bytes_of) {
            Ok(tiles) => tiles,
            Err(Unproved::Missing(mut missing)) => {
                missing.extend(rest.iter().filter(|tile| bytes_of(tile).is_none()));
                return Outcome::NeedTiles(missing);
            }
            Err(unproved) => return unproved.into_outcome(*newer),
        };
        if tiles.root_of(older.size) != Some(older.root) {
            return self.fork(&tiles);
        }
        let tiles = match tiles.and(rest, bytes_of) {
            Ok(tiles) => tiles,
            Err(unproved) => return unproved.into_outcome(*newer),
        };
        match conclude(&tiles) {
            Ok(thing) => Outcome::Proved(Proved { thing, tiles: tiles.into_tiles() }),
            Err(lie) => Outcome::Lie(lie),
        }
    }

    fn fork<Thing>(&self, tiles: &AuthenticTiles) -> Outcome<Thing> {
        let (older, newer) = (self.older.head(), self.newer.head());
        let proof = prove_prefix(newer.size, older.size, |node| tiles.hash(node));
        let fork = tiles
            .root_of(older.size)
            .zip(proof)
            .and_then(|(root, proof)| Fork::new(self.older.clone(), self.newer.clone(), root, proof));
        // All hashes of the proof are in tiles of the plan: next to each node below which the older log ends is its sibling,
        // in the same tile. Were one missing, the answer would not be believed either.
        fork.map_or_else(
            || Outcome::Lie(Lie::Root { head: *older, tiles: Vec::new() }),
            |fork| Outcome::Fork(Box::new(fork)),
        )
    }
}

impl Unproved {
    /// Says what follows for who wants these tiles of the tree with this head.
    pub fn into_outcome<Thing>(self, head: TreeHead) -> Outcome<Thing> {
        match self {
            Self::Missing(tiles) => Outcome::NeedTiles(tiles),
            Self::WrongLength(tile) => Outcome::Lie(Lie::TileLength { tile }),
            Self::WrongRoot(tiles) => Outcome::Lie(Lie::Root { head, tiles }),
            Self::WrongTile(tile) => Outcome::Lie(Lie::Tile { tile, size: head.size }),
        }
    }
}
