//! Following a log from record to record: its root computed from nothing but the records themselves.
//!
//! Called by the audit, which fetches and stores; calls `tree`, `authentic`, `record`. Pure: no network, no disk, no clock.
//! Invariants: what is saved is proved, that is, every record so far has been hashed here and the hashes are those that the
//! signed target has for them; the audited head moves only when the root of all records is the target's. Source: RFC 6962,
//! section 2.1; the tree of a growing log as in Crosby and Wallach, 3.3.
//!
//! ```text
//! for tile in follower.tiles() {                         data tiles, in the width the target has them
//!     for (number, text) in follower.take(&tile, &bytes)?.records { entries(text) … }
//!     now and then {
//!         let tiles = follower.waypoint().prove(…)?;     a few hash tiles, proved against the signed target
//!         follower.prove(&tiles)?;                       Err: follower.roll_back(), and the tiles once more
//!         save(follower.state());
//!     }
//! }
//! follower.finish()?;                                    the root is the target's: the audited head moves
//! ```
//!
//! Without waypoints one bit that flipped on the way would be found out after seventy million records, and nobody could say
//! where. They cost one hash tile for each 256 data tiles. What is between the last one and now is lost with the process,
//! so that nothing unproved is ever on the disk. The state as text:
//!
//! ```text
//! larder audit 1
//! from 0                                            the first record that was followed
//! audited 1000 BASE64                               size and root of the last target that was reached
//! proved 16385                                      how many records are proved, then the hashes of the complete
//! BASE64                                            subtrees of that size, left to right, a line each
//! BASE64
//! target                                            all that follows is the target's signed note
//! go.sum database tree
//! …
//! ```

use std::fmt::Write as _;

use super::authentic::{AuthenticTiles, TilePlan};
use super::hash::Hash;
use super::head::{SignedHead, TreeHead, decimal};
use super::key::VerifierKey;
use super::record::data_tile_records;
use super::tile::{TILE_WIDTH_FULL, Tile, TileLevel};
use super::tree::{combine, subtrees};
use crate::module::zip::hash::H1;

/// The longest data tile in bytes. Those of the public database have about 50,000.
pub const DATA_TILE_BYTES_MAX: u64 = 2 << 20;

/// The beginning of a log: how many records, and the hashes of the complete subtrees over them, left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Beginning {
    size: u64,
    hashes: Vec<Hash>,
}

/// Follows a log up to a signed head.
#[derive(Clone, Debug)]
pub struct Follower {
    from: u64,
    audited: TreeHead,
    proved: Beginning,
    taken: Beginning,
    target: SignedHead,
}

/// The records of a tile that were not known before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken<'a> {
    /// Number and text of each, in order. Not proved yet.
    pub records: Vec<(u64, &'a str)>,
}

/// What a record says of its module versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries<'a> {
    /// One for each module version, of which records usually have one.
    pub entries: Vec<Entry<'a>>,
    /// How many lines are none of go.sum, or have a hash of a kind that is not known.
    pub odd_lines: usize,
}

/// What a record says of one module version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Module and version, with a space between.
    pub module_version: &'a str,
    /// Its lines, of zip and go.mod, sorted, each once. As they stand there, so that equal lines are equal hashes.
    pub lines: Vec<&'a str>,
}

/// Why the log cannot be followed any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// Another tile than the next one was given.
    #[error("{tile} is not the next tile of the log")]
    NotNext {
        /// The tile.
        tile: Tile,
    },
    /// A tile that does not consist of records, or of too many bytes or records.
    #[error("{tile} is malformed")]
    Malformed {
        /// The tile.
        tile: Tile,
    },
    /// A tile that ends too early.
    #[error("{tile} has {records} records")]
    TooFew {
        /// The tile.
        tile: Tile,
        /// How many records it has.
        records: usize,
    },
    /// The records do not have the hashes that the signed head has for them.
    #[error("records {from} to {to} are not those of the log of size {} with root {}", .head.size, .head.root)]
    Contradiction {
        /// The first record of which that may be true.
        from: u64,
        /// The last one.
        to: u64,
        /// The head.
        head: TreeHead,
    },
    /// The records do not give the root that was signed.
    #[error("records 0 to {} give the root {root}, signed is {}", .head.size - 1, .head.root)]
    Root {
        /// The root they give.
        root: Hash,
        /// The signed head.
        head: TreeHead,
    },
    /// The head to begin with is not of the target's log.
    #[error("the log of size {size} does not begin with the one of size {} and root {}", .start.size, .start.root)]
    Start {
        /// The head to begin with.
        start: TreeHead,
        /// The target's size.
        size: u64,
    },
    /// The target has fewer records than are proved, or than were just taken.
    #[error("a log of {target} records where {size} are known")]
    Behind {
        /// How many records are known.
        size: u64,
        /// The target's size.
        target: u64,
    },
    /// There are records left to take.
    #[error("{size} of {target} records are taken")]
    Unfinished {
        /// How many records are taken.
        size: u64,
        /// The target's size.
        target: u64,
    },
    /// Tiles of another plan than the one asked for.
    #[error("the hash tiles are not those that were asked for")]
    OtherTiles,
}

/// A text that is not the state of a follower, or whose target this key did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed state of an audit")]
pub struct StateError;

impl FollowError {
    /// Says whether the tiles are to blame and may have changed on the way: once more, with all of them fetched afresh.
    pub fn may_be_damaged_tiles(&self) -> bool {
        match self {
            Self::Malformed { .. } | Self::TooFew { .. } | Self::Contradiction { .. } | Self::Root { .. } => true,
            Self::NotNext { .. }
            | Self::Start { .. }
            | Self::Behind { .. }
            | Self::Unfinished { .. }
            | Self::OtherTiles => false,
        }
    }
}

impl Beginning {
    fn empty() -> Self {
        Self { size: 0, hashes: Vec::new() }
    }

    /// Returns the hashes proved tiles have for the first records; none if their plan did not ask for them.
    fn of(tiles: &AuthenticTiles, size: u64) -> Option<Self> {
        let hashes = subtrees(0, size).into_iter().map(|node| tiles.hash(node)).collect::<Option<_>>()?;
        Some(Self { size, hashes })
    }

    fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each one-bit at the end of the size is a subtree as large as the one that has just been completed.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.hashes.pop() {
                hash = Hash::of_node(&left, &hash);
            }
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    fn head(&self) -> TreeHead {
        TreeHead { size: self.size, root: combine(&self.hashes) }
    }
}

impl Follower {
    /// Begins with the first record.
    pub fn from_start(target: SignedHead) -> Self {
        let beginning = Beginning::empty();
        Self { from: 0, audited: beginning.head(), proved: beginning.clone(), taken: beginning, target }
    }

    /// Returns which tiles it takes to begin behind the records of `start`, an older head.
    pub fn start_plan(start: &TreeHead, target: &SignedHead) -> TilePlan {
        let mut plan = TilePlan::new(*target.head());
        plan.add_tree(start.size);
        plan
    }

    /// Begins behind the records of `start`, with the tiles of [`Self::start_plan`].
    ///
    /// # Errors
    /// [`FollowError::Behind`], [`FollowError::OtherTiles`]; [`FollowError::Start`] if the log does not begin with `start`.
    pub fn from_head(start: &TreeHead, tiles: &AuthenticTiles, target: SignedHead) -> Result<Self, FollowError> {
        let size = target.head().size;
        if start.size > size {
            return Err(FollowError::Behind { size: start.size, target: size });
        }
        if tiles.head() != target.head() {
            return Err(FollowError::OtherTiles);
        }
        let beginning = Beginning::of(tiles, start.size).ok_or(FollowError::OtherTiles)?;
        if beginning.head() != *start {
            return Err(FollowError::Start { start: *start, size });
        }
        Ok(Self { from: start.size, audited: *start, proved: beginning.clone(), taken: beginning, target })
    }

    /// Reads what [`Self::state`] wrote.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn resume(state: &str, key: &VerifierKey) -> Result<Self, StateError> {
        parse_state(state, key).ok_or(StateError)
    }

    /// Returns what is proved as text, the inverse of [`Self::resume`]. Records taken since are not in it.
    pub fn state(&self) -> String {
        let Self { from, audited, proved, target, .. } = self;
        let mut text = format!("{FIRST_LINE}\nfrom {from}\naudited {} {}\n", audited.size, audited.root);
        // Writing to a string does not fail.
        let _ = writeln!(text, "proved {}", proved.size);
        for hash in &proved.hashes {
            let _ = writeln!(text, "{hash}");
        }
        text + "target\n" + target.note()
    }

    /// Takes a newer head as the target. That it is one of the same log comes out at the next waypoint, or at the end.
    ///
    /// # Errors
    /// [`FollowError::Behind`] if it is older than what was taken.
    pub fn aim(&mut self, target: SignedHead) -> Result<(), FollowError> {
        let (size, newer) = (self.taken.size, target.head().size);
        if newer < size {
            return Err(FollowError::Behind { size, target: newer });
        }
        self.target = target;
        Ok(())
    }

    /// Returns the head that is being followed to.
    pub fn target(&self) -> &SignedHead {
        &self.target
    }

    /// Returns the last head that was reached, or the one that was begun with.
    pub fn audited(&self) -> &TreeHead {
        &self.audited
    }

    /// Returns the number of the first record that was followed, when this audit first began.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Returns how many records are proved.
    pub fn proved(&self) -> u64 {
        self.proved.size
    }

    /// Returns how many records are taken, proved or not.
    pub fn taken(&self) -> u64 {
        self.taken.size
    }

    /// Returns the next data tile to take; none if all are taken.
    pub fn next_tile(&self) -> Option<Tile> {
        self.tiles().next()
    }

    /// Returns the data tiles that are left to take, in order, in the width the target has them.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> + use<> {
        let (size, target) = (self.taken.size, self.target.head().size);
        let first = size / u64::from(TILE_WIDTH_FULL);
        let is_left = size < target;
        (first..).take_while(move |_| is_left).map_while(move |index| Tile::in_tree(TileLevel::Data, index, target))
    }

    /// Takes the next data tile. Records that are known already are passed over, and, of the full tile in place of a
    /// partial one that the database dropped, those that the target does not cover.
    ///
    /// # Errors
    /// [`FollowError::NotNext`], [`FollowError::Malformed`], [`FollowError::TooFew`]. Nothing is taken then.
    pub fn take<'a>(&mut self, tile: &Tile, bytes: &'a [u8]) -> Result<Taken<'a>, FollowError> {
        if self.next_tile().as_ref() != Some(tile) {
            return Err(FollowError::NotNext { tile: *tile });
        }
        let malformed = FollowError::Malformed { tile: *tile };
        if bytes.len() as u64 > DATA_TILE_BYTES_MAX {
            return Err(malformed);
        }
        let Some(records) = data_tile_records(bytes).filter(|records| records.len() <= TILE_WIDTH_FULL.into()) else {
            return Err(malformed);
        };
        if records.len() < tile.width().into() {
            return Err(FollowError::TooFew { tile: *tile, records: records.len() });
        }
        let first = tile.index() * u64::from(TILE_WIDTH_FULL);
        let numbered = (first..).zip(records).take(tile.width().into());
        let records: Vec<_> = numbered.filter(|(number, _)| *number >= self.taken.size).collect();
        for (_, text) in &records {
            self.taken.push(Hash::of_record(text.as_bytes()));
        }
        Ok(Taken { records })
    }

    /// Returns which hash tiles it takes to prove what has been taken so far.
    pub fn waypoint(&self) -> TilePlan {
        let mut plan = TilePlan::new(*self.target.head());
        plan.add_tree(self.taken.size);
        plan
    }

    /// Compares what has been taken with the hashes of the target's log, given the tiles of [`Self::waypoint`].
    ///
    /// # Errors
    /// [`FollowError::OtherTiles`]; [`FollowError::Contradiction`], to be followed by [`Self::roll_back`].
    pub fn prove(&mut self, tiles: &AuthenticTiles) -> Result<(), FollowError> {
        if tiles.head() != self.target.head() {
            return Err(FollowError::OtherTiles);
        }
        let signed = Beginning::of(tiles, self.taken.size).ok_or(FollowError::OtherTiles)?;
        if signed != self.taken {
            let (from, to) =
                (self.proved.size.min(self.taken.size.saturating_sub(1)), self.taken.size.saturating_sub(1));
            return Err(FollowError::Contradiction { from, to, head: *self.target.head() });
        }
        self.proved.clone_from(&self.taken);
        Ok(())
    }

    /// Forgets what was taken and is not proved.
    pub fn roll_back(&mut self) {
        self.taken.clone_from(&self.proved);
    }

    /// Ends at the target: the root of all records must be the signed one. Only now the audited head moves.
    ///
    /// # Errors
    /// [`FollowError::Unfinished`]; [`FollowError::Root`], to be followed by [`Self::roll_back`].
    pub fn finish(&mut self) -> Result<TreeHead, FollowError> {
        let (head, came) = (*self.target.head(), self.taken.head());
        if came.size < head.size {
            return Err(FollowError::Unfinished { size: came.size, target: head.size });
        }
        if came != head {
            return Err(FollowError::Root { root: came.root, head });
        }
        self.proved.clone_from(&self.taken);
        self.audited = head;
        Ok(head)
    }
}

/// Reads what a record says. Lines that are none of go.sum are counted and passed over.
pub fn entries(text: &str) -> Entries<'_> {
    let mut lines: Vec<(&str, &str)> = Vec::new();
    let mut odd_lines = 0;
    for line in text.lines() {
        match module_version(line) {
            Some(module_version) => lines.push((module_version, line)),
            None => odd_lines += 1,
        }
    }
    lines.sort_unstable();
    lines.dedup();
    let entries = lines
        .chunk_by(|one, other| one.0 == other.0)
        .map(|group| Entry { module_version: group[0].0, lines: group.iter().map(|(_, line)| *line).collect() });
    Entries { entries: entries.collect(), odd_lines }
}

/// Returns module and version of a line of go.sum, if it is one.
fn module_version(line: &str) -> Option<&str> {
    let (what, hash) = line.rsplit_once(' ')?;
    let what = what.strip_suffix("/go.mod").unwrap_or(what);
    let (path, version) = what.split_once(' ')?;
    let is_line = !path.is_empty() && !version.is_empty() && !version.contains(' ') && H1::parse(hash).is_some();
    is_line.then_some(what)
}

const FIRST_LINE: &str = "larder audit 1";

fn parse_state(state: &str, key: &VerifierKey) -> Option<Follower> {
    let rest = state.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?;
    let (lines, note) = rest.split_once("target\n")?;
    let mut lines = lines.lines();
    let from = decimal(lines.next()?.strip_prefix("from ")?)?;
    let (size, root) = lines.next()?.strip_prefix("audited ")?.split_once(' ')?;
    let audited = TreeHead { size: decimal(size)?, root: root.parse().ok()? };
    let size = decimal(lines.next()?.strip_prefix("proved ")?)?;
    let hashes: Vec<Hash> = lines.map(|line| line.parse().ok()).collect::<Option<_>>()?;
    let target = SignedHead::open(note.as_bytes(), key).ok()?;
    let proved = Beginning { size, hashes };
    // At the size of a head that was reached, or is the target, the hashes can be checked against it.
    let fits = |head: &TreeHead| proved.size != head.size || proved.head() == *head;
    let is_whole = proved.hashes.len() == size.count_ones() as usize && fits(&audited) && fits(target.head());
    let is_in_order = from <= audited.size && audited.size <= size && size <= target.head().size;
    (is_whole && is_in_order).then(|| Follower { from, audited, proved: proved.clone(), taken: proved, target })
}
