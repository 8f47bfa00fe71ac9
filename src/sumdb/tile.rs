//! Tiles of a checksum database: their coordinates and the one spelling of their path.
//!
//! Called by `resource`, later by the database's client; calls nothing. Invariant: parsing and printing are inverse,
//! and no second spelling of a tile parses, since every spelling would be a file of its own. Sources:
//! `golang.org/x/mod/sumdb/tlog`, proposal 25530, C2SP tlog-tiles.
//!
//! ```text
//! tile/8/LEVEL/NNN         256 hashes of 32 bytes      LEVEL: 0, 1, 2 … or data (the records themselves)
//! tile/8/LEVEL/NNN.p/W     the first W of them         W: 1 to 255
//! NNN: the index in groups of three digits, all but the last with an x: x001/x234/067 is 1,234,067
//! ```
//!
//! The first W hashes of a tile never change, so a partial tile is a prefix of every wider one.

use std::fmt;

/// The height of every tile: 2⁸ hashes make a full one. Databases know no other.
pub const TILE_HEIGHT: u32 = 8;

/// How many hashes, or records, a full tile holds.
pub const TILE_WIDTH_FULL: u16 = 1 << TILE_HEIGHT;

/// The length of one hash in bytes.
pub const HASH_BYTES: u64 = 32;

/// A path that is not a tile's, or not in its one spelling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed tile path {}", crate::module::Shown(.path))]
pub struct TileError {
    /// The offending path.
    pub path: String,
}

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileLevel {
    /// Hashes of this tile level, that is, of level 8 × `.0` of the tree. Trees that can exist end at 7.
    Hashes(u8),
    /// The records themselves. `go` never asks for these.
    Data,
}

/// The coordinates of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    level: TileLevel,
    index: u64,
    width: u16,
}

impl Tile {
    /// Returns the tile with these coordinates; none if `width` is not 1 to 256 or `index` does not fit into 63 bits.
    pub fn new(level: TileLevel, index: u64, width: u16) -> Option<Self> {
        let is_possible = (1..=TILE_WIDTH_FULL).contains(&width) && i64::try_from(index).is_ok();
        is_possible.then_some(Self { level, index, width })
    }

    /// Parses a tile's path, the inverse of `Display`.
    ///
    /// # Errors
    /// [`TileError`] for everything but the one spelling.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        parse(path).ok_or_else(|| TileError { path: path.to_owned() })
    }

    /// Returns the tile of this level and index as a tree of `tree_size` records has it: full, partial, or none where
    /// the tree does not reach. Asking for more than a verified tree covers is asking to be lied to.
    pub fn in_tree(level: TileLevel, index: u64, tree_size: u64) -> Option<Self> {
        let hashes = match level {
            TileLevel::Hashes(level) => tree_size.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0),
            TileLevel::Data => tree_size,
        };
        let before = index.checked_mul(u64::from(TILE_WIDTH_FULL))?;
        let width = hashes.checked_sub(before)?.min(u64::from(TILE_WIDTH_FULL));
        Self::new(level, index, u16::try_from(width).ok()?)
    }

    /// Returns what the tile holds.
    pub fn level(&self) -> TileLevel {
        self.level
    }

    /// Returns how many full tiles of its level stand before it.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Returns how many hashes, or records, it holds: 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Says whether the tile holds less than 256 hashes.
    pub fn is_partial(&self) -> bool {
        self.width < TILE_WIDTH_FULL
    }

    /// Returns the full tile at the same place. A database may have dropped a partial one for it.
    #[must_use]
    pub fn full(&self) -> Self {
        Self { width: TILE_WIDTH_FULL, ..*self }
    }

    /// Says whether this tile is at the same place as `narrower` and holds all of it.
    pub fn covers(&self, narrower: &Self) -> bool {
        self.level == narrower.level && self.index == narrower.index && self.width >= narrower.width
    }

    /// Returns the length of the tile in bytes. Records have no fixed length, so a tile of them has none.
    pub fn bytes(&self) -> Option<u64> {
        match self.level {
            TileLevel::Hashes(_) => Some(u64::from(self.width) * HASH_BYTES),
            TileLevel::Data => None,
        }
    }

    /// Cuts this tile out of the bytes of a wider one, or of its own; none if they are too few, or are records.
    pub fn cut<'a>(&self, wider: &'a [u8]) -> Option<&'a [u8]> {
        wider.get(..usize::try_from(self.bytes()?).ok()?)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            TileLevel::Hashes(level) => write!(f, "tile/{TILE_HEIGHT}/{level}/")?,
            TileLevel::Data => write!(f, "tile/{TILE_HEIGHT}/data/")?,
        }
        let mut unit = GROUPS_UNIT_MAX;
        while unit > 1 {
            if self.index >= unit {
                write!(f, "x{:03}/", self.index / unit % GROUP)?;
            }
            unit /= GROUP;
        }
        write!(f, "{:03}", self.index % GROUP)?;
        if self.is_partial() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// Three digits make a group, so that no folder holds more than some thousands of names.
const GROUP: u64 = 1000;

/// The value of the highest group a 63-bit index can have.
const GROUPS_UNIT_MAX: u64 = GROUP.pow(6);

fn parse(path: &str) -> Option<Tile> {
    let (level, place) = path.strip_prefix("tile/8/")?.split_once('/')?;
    let level = match level {
        "data" => TileLevel::Data,
        number => TileLevel::Hashes(u8::try_from(decimal(number)?).ok()?),
    };
    let (groups, width) = match place.split_once(".p/") {
        None => (place, TILE_WIDTH_FULL),
        Some((groups, width)) => {
            let width = u16::try_from(decimal(width)?).ok()?;
            (groups, Some(width).filter(|width| *width < TILE_WIDTH_FULL)?)
        }
    };
    let (upper, last) = groups.rsplit_once('/').map_or(("", groups), |(upper, last)| (upper, last));
    let mut index = 0_u64;
    if groups.len() > last.len() {
        for upper_group in upper.split('/') {
            index = index.checked_mul(GROUP)?.checked_add(group(upper_group.strip_prefix('x')?)?)?;
            if index == 0 {
                // A leading group of zeros would be a second spelling.
                return None;
            }
        }
    }
    index = index.checked_mul(GROUP)?.checked_add(group(last)?)?;
    Tile::new(level, index, width)
}

/// Reads a number without sign or leading zeros.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

/// Reads exactly three digits.
fn group(text: &str) -> Option<u64> {
    if text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::generate::{Generator, vectors};

    /// Paths parse and print as Go's own tools do it, of the one height there is.
    #[test]
    fn paths_agree_with_go() {
        let paths = vectors("tile_paths");
        for row in paths["good"].as_array().unwrap() {
            let path = row["path"].as_str().unwrap();
            let Ok(tile) = Tile::parse(path) else {
                assert_ne!(row["h"], u64::from(TILE_HEIGHT), "{path}");
                continue;
            };
            let level = match tile.level() {
                TileLevel::Hashes(level) => i64::from(level),
                TileLevel::Data => -1,
            };
            assert_eq!((row["l"].as_i64(), row["n"].as_u64()), (Some(level), Some(tile.index())));
            assert_eq!((row["w"].as_u64(), row["h"].as_u64()), (Some(u64::from(tile.width())), Some(8)));
            assert_eq!(tile.to_string(), path);
        }
        for row in paths["bad"].as_array().unwrap() {
            let path = row["path"].as_str().unwrap();
            assert_eq!(Tile::parse(path), Err(TileError { path: path.to_owned() }));
        }
        for path in [
            "",
            "tile/8/0/x/000",
            "tile/8/0/xx01/000",
            "tile/8/256/000",
            "tile/8/0/000.p/",
            "tile/8/0/000.p/1/",
            "tile/8/0/000.p/1.p/1",
            "tile/8//000",
            "tile/8/data/x009/x223/x372/x036/x854/x775/808",
            "tile/8/0/٠٠٠",
        ] {
            assert!(Tile::parse(path).is_err(), "{path}");
        }
        let last = "tile/8/data/x009/x223/x372/x036/x854/x775/807";
        assert_eq!(Tile::parse(last).unwrap().index(), u64::try_from(i64::MAX).unwrap());
    }

    /// Any tile comes back from its path, and a changed path is refused or names another tile.
    #[test]
    fn one_spelling_each() {
        let mut generator = Generator::new(6);
        for _ in 0..10_000 {
            let tile = generator.tile();
            let path = tile.to_string();
            assert_eq!(Tile::parse(&path), Ok(tile));
            let other = generator.mutated(&path);
            if let Ok(tile) = Tile::parse(&other) {
                assert_eq!(tile.to_string(), other);
            }
        }
    }

    /// A tree of 71,769,961 records has the right edge that its database serves.
    #[test]
    fn width_follows_the_tree() {
        let tree_size = 71_769_961;
        let tile = |level, index| Tile::in_tree(TileLevel::Hashes(level), index, tree_size).map(|t| t.to_string());
        assert_eq!(tile(3, 0).as_deref(), Some("tile/8/3/000.p/4"));
        assert_eq!(tile(2, 4).as_deref(), Some("tile/8/2/004.p/71"));
        assert_eq!(tile(1, 1095).as_deref(), Some("tile/8/1/x001/095.p/31"));
        assert_eq!(tile(0, 280_351).as_deref(), Some("tile/8/0/x280/351.p/105"));
        assert_eq!(tile(0, 3).as_deref(), Some("tile/8/0/003"));
        assert_eq!(
            (tile(0, 280_352), tile(4, 0), tile(8, 0), tile(255, 0), tile(0, u64::MAX)),
            (None, None, None, None, None)
        );
        assert_eq!(Tile::in_tree(TileLevel::Data, 0, 512), Tile::new(TileLevel::Data, 0, 256));
        // A row of exactly 256 hashes ends with a full tile, and no empty one follows.
        assert_eq!(Tile::in_tree(TileLevel::Hashes(0), 2, 512), None);
    }

    /// A narrower tile is cut from the bytes of a wider one.
    #[test]
    fn partial_tiles_are_prefixes() {
        let tile = |width| Tile::new(TileLevel::Hashes(0), 7, width).unwrap();
        let full: Vec<u8> = (0..=255).flat_map(|b| [b; 32]).collect();
        assert_eq!(tile(256).cut(&full), Some(&full[..]));
        assert_eq!(tile(3).cut(&full), Some(&full[..96]));
        assert_eq!(tile(3).cut(&full[..95]), None);
        assert_eq!(Tile::new(TileLevel::Data, 7, 3).unwrap().cut(&full), None);
        assert_eq!(tile(3).full(), tile(256));
        assert!(tile(3).is_partial() && !tile(256).is_partial());
        assert!(tile(4).covers(&tile(3)) && !tile(3).covers(&tile(4)));
        assert!(!tile(4).covers(&Tile::new(TileLevel::Hashes(0), 8, 3).unwrap()));
        assert_eq!((Tile::new(TileLevel::Data, 0, 0), Tile::new(TileLevel::Data, 0, 257)), (None, None));
        assert_eq!(Tile::new(TileLevel::Data, u64::MAX, 1), None);
    }
}
