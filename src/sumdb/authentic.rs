//! Tiles that are proved to belong to a tree head, and which tiles that takes.
//!
//! Called by `check`; calls `tree`, `tile`. Pure. Invariant: no hash leaves a tile before the tile is proved: the right edge
//! by combining to the root, every other tile by its hash in its parent, which was proved before it. Nothing is proved by
//! its place in a list (golang/go#80744). Source: `golang.org/x/mod/sumdb/tlog`, tile.go.
//!
//! The tiles of a tree of 71,769,961 records, 4·256³ + 71·256² + 31·256 + 105:
//!
//! ```text
//! level 3   [000.p/4]                                    the right edge, doubly framed: the partial tile of each level.
//!              │                                         Each hash in it is part of a complete subtree that ends no
//! level 2   [000] … [003] [[004.p/71]]                   tile; so all of them together combine to the root, and all
//!              │                                         are needed for it.
//! level 1   [000] … … … [[x001/095.p/31]]
//!              │                                         Full tiles have a parent: its hash at N mod 256 is theirs.
//! level 0   [003] … … … … … [[x280/351.p/105]]           Record 942 is in 0/003, below 1/000, below 2/000, below the edge.
//! ```

use bytes::Bytes;

use super::hash::Hash;
use super::head::TreeHead;
use super::record::{are_records_of, data_tile_records};
use super::tile::{HASH_BYTES, TILE_WIDTH_FULL, Tile, TileLevel};
use super::tree::{Node, combine, combine_perfect, subtrees};

/// The tiles it takes to know some hashes of a tree, each behind its parent.
#[derive(Clone, Debug)]
pub struct TilePlan {
    head: TreeHead,
    tiles: Vec<Tile>,
}

/// Why tiles are not proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unproved {
    /// Some are not there yet.
    Missing(Vec<Tile>),
    /// One is not as long as it must be.
    WrongLength(Tile),
    /// The right edge does not combine to the root: at least one of these tiles is wrong, or the head is.
    WrongRoot(Vec<Tile>),
    /// One contradicts its parent, or, of a data tile, the hashes of its records.
    WrongTile(Tile),
}

/// Tiles that belong to a tree head.
#[derive(Clone, Debug)]
pub struct AuthenticTiles {
    head: TreeHead,
    tiles: Vec<(Tile, Bytes)>,
}

impl TilePlan {
    /// Begins with what every plan needs: the right edge, that is, the partial tile of each level that has one.
    pub fn new(head: TreeHead) -> Self {
        let mut plan = Self { head, tiles: Vec::new() };
        for subtree in subtrees(0, head.size) {
            // Subtrees of 256 neighbouring sizes share a tile.
            plan.tiles.extend(subtree.tile_in(head.size).filter(|tile| !plan.tiles.contains(tile)));
        }
        plan
    }

    /// Adds what it takes to know the hash of a node. Nodes that the tree does not have add nothing.
    pub fn add_node(&mut self, node: Node) {
        self.tiles.extend(node.tile_in(self.head.size).map(|tile| self.path_to(tile)).unwrap_or_default());
    }

    /// Adds what it takes to know the root the tree had when it was of this size.
    pub fn add_tree(&mut self, size: u64) {
        for subtree in subtrees(0, size) {
            self.add_node(subtree);
        }
    }

    /// Adds a tile, in the width the tree has it in, for its own sake. Tiles that the tree does not have add nothing.
    pub fn add_tile(&mut self, level: TileLevel, index: u64) {
        let Some(tile) = Tile::in_tree(level, index, self.head.size) else {
            return;
        };
        match level {
            TileLevel::Hashes(_) => self.tiles.extend(self.path_to(tile)),
            TileLevel::Data => {
                self.add_tile(TileLevel::Hashes(0), index);
                if !self.tiles.contains(&tile) {
                    self.tiles.push(tile);
                }
            }
        }
    }

    /// Returns the head that the tiles are to be proved against.
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Returns the tiles, each behind its parent.
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// Proves all tiles of the plan. `bytes_of` gives the bytes of a tile, cut to its width, or none if it is not there.
    ///
    /// # Errors
    /// [`Unproved`]: all that are missing, or the first that is wrong.
    pub fn prove(&self, bytes_of: impl FnMut(&Tile) -> Option<Bytes>) -> Result<AuthenticTiles, Unproved> {
        let mut given = given(&self.tiles, bytes_of)?;
        let rest = given.split_off(self.edge_tiles());
        let authentic = AuthenticTiles { head: self.head, tiles: given };
        if authentic.root_of(self.head.size) != Some(self.head.root) {
            return Err(Unproved::WrongRoot(authentic.tiles.iter().map(|(tile, _)| *tile).collect()));
        }
        authentic.with(rest)
    }

    /// Returns how many tiles the right edge has. They stand in front.
    fn edge_tiles(&self) -> usize {
        // A partial tile is always one of the edge; a data tile never is.
        self.tiles.iter().take_while(|tile| tile.level() != TileLevel::Data && tile.is_partial()).count()
    }

    /// Returns a tile and those above it that are not in the plan yet, from the top.
    fn path_to(&self, tile: Tile) -> Vec<Tile> {
        let mut path = Vec::new();
        let mut next = Some(tile);
        while let Some(tile) = next.filter(|tile| !self.tiles.contains(tile)) {
            path.push(tile);
            next = parent(&tile).and_then(|node| node.tile_in(self.head.size));
        }
        path.reverse();
        path
    }
}

impl AuthenticTiles {
    /// Proves more tiles, each behind its parent.
    ///
    /// # Errors
    /// [`Unproved`]: all that are missing, or the first that is wrong.
    pub(super) fn and(
        self,
        tiles: &[Tile],
        bytes_of: impl FnMut(&Tile) -> Option<Bytes>,
    ) -> Result<AuthenticTiles, Unproved> {
        self.with(given(tiles, bytes_of)?)
    }

    fn with(mut self, given: Vec<(Tile, Bytes)>) -> Result<Self, Unproved> {
        for (tile, bytes) in given {
            if !self.vouches_for(&tile, &bytes) {
                return Err(Unproved::WrongTile(tile));
            }
            self.tiles.push((tile, bytes));
        }
        Ok(self)
    }

    /// Returns the head that the tiles are proved against.
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Returns the hash of a complete subtree; none if the plan did not ask for it.
    pub fn hash(&self, node: Node) -> Option<Hash> {
        let tile = node.tile_in(self.head.size)?;
        let bytes = self.bytes(&tile)?;
        let range = node.range_in_tile();
        let hash_bytes = usize::try_from(HASH_BYTES).ok()?;
        combine_perfect(bytes.get(range.start * hash_bytes..range.end * hash_bytes)?)
    }

    /// Returns the root the tree had when it was of this size; none if the plan did not ask for it.
    pub fn root_of(&self, size: u64) -> Option<Hash> {
        let hashes: Vec<Hash> = subtrees(0, size).into_iter().map(|node| self.hash(node)).collect::<Option<_>>()?;
        Some(combine(&hashes))
    }

    /// Returns the bytes of a tile; none if the plan did not ask for it.
    pub fn bytes(&self, tile: &Tile) -> Option<&Bytes> {
        self.tiles.iter().find(|(authentic, _)| authentic == tile).map(|(_, bytes)| bytes)
    }

    /// Returns all tiles, the only ones that may be stored.
    pub fn into_tiles(self) -> Vec<(Tile, Bytes)> {
        self.tiles
    }

    /// Says whether what is proved so far proves this tile.
    fn vouches_for(&self, tile: &Tile, bytes: &Bytes) -> bool {
        match tile.level() {
            TileLevel::Hashes(_) => {
                let expected = parent(tile).and_then(|node| self.hash(node));
                expected.is_some() && expected == combine_perfect(bytes)
            }
            TileLevel::Data => {
                let hashes = Tile::new(TileLevel::Hashes(0), tile.index(), tile.width());
                let hashes = hashes.and_then(|tile| self.bytes(&tile));
                data_tile_records(bytes).zip(hashes).is_some_and(|(records, hashes)| are_records_of(&records, hashes))
            }
        }
    }
}

/// Collects the bytes of tiles, if they are all there and as long as they must be.
fn given(tiles: &[Tile], mut bytes_of: impl FnMut(&Tile) -> Option<Bytes>) -> Result<Vec<(Tile, Bytes)>, Unproved> {
    let (mut given, mut missing) = (Vec::new(), Vec::new());
    for tile in tiles {
        match bytes_of(tile) {
            Some(bytes) => given.push((*tile, bytes)),
            None => missing.push(*tile),
        }
    }
    if !missing.is_empty() {
        return Err(Unproved::Missing(missing));
    }
    let has_length = |(tile, bytes): &(Tile, Bytes)| tile.bytes().is_none_or(|length| bytes.len() as u64 == length);
    match given.iter().find(|given| !has_length(given)) {
        Some((tile, _)) => Err(Unproved::WrongLength(*tile)),
        None => Ok(given),
    }
}

/// Returns the node that a full tile stands for, which is a hash in the tile above; a partial one stands for none.
fn parent(tile: &Tile) -> Option<Node> {
    match tile.level() {
        TileLevel::Hashes(level) if tile.width() == TILE_WIDTH_FULL => {
            Some(Node { level: 8 * (u32::from(level) + 1), index: tile.index() })
        }
        TileLevel::Hashes(_) | TileLevel::Data => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sumdb::generate::Log;

    fn paths(tiles: &[Tile]) -> Vec<String> {
        tiles.iter().map(ToString::to_string).collect()
    }

    /// The tiles for the public log are those the go command asks for.
    #[test]
    fn plans_agree_with_go() {
        let vectors = crate::module::generate::vectors("sumdb");
        let head = TreeHead { size: 71_769_961, root: Hash::of_empty_tree() };
        let edge = ["tile/8/3/000.p/4", "tile/8/2/004.p/71", "tile/8/1/x001/095.p/31", "tile/8/0/x280/351.p/105"];
        assert_eq!(paths(TilePlan::new(head).tiles()), edge);
        for lookup in vectors["lookups"].as_array().unwrap() {
            let mut plan = TilePlan::new(head);
            plan.add_node(Node::of_record(lookup["id"].as_u64().unwrap()));
            assert_eq!(lookup["leaf_tile"], plan.tiles().last().unwrap().to_string());
            let mut planned = paths(plan.tiles());
            planned.sort();
            assert_eq!(lookup["tiles_to_verify_in_latest"], serde_json::json!(planned));
        }
    }

    /// Every hash of logs of every small shape is proved and is the right one, and tiles are asked for once, each behind
    /// its parent.
    #[test]
    fn every_hash_is_proved() {
        let log = Log::numbered("leaf", 600);
        for size in (0..=600).step_by(7).chain([0, 1, 255, 256, 257, 511, 512, 513, 599, 600]) {
            let mut plan = TilePlan::new(log.head(size));
            assert!(plan.tiles().iter().all(Tile::is_partial));
            for level in 0..10 {
                for index in 0..size >> level {
                    plan.add_node(Node { level, index });
                }
            }
            plan.add_tree(size / 2);
            let mut sorted = plan.tiles().to_vec();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted.len(), plan.tiles().len());
            assert_eq!(sorted.len() as u64, size.div_ceil(256) + (size / 256).div_ceil(256));
            let authentic = plan.prove(|tile| Some(log.tile(tile))).unwrap();
            for level in 0..10 {
                for index in 0..=size >> level {
                    let node = Node { level, index };
                    assert_eq!(authentic.hash(node), log.hash(node).filter(|_| node.is_complete_in(size)));
                }
            }
            assert_eq!(authentic.root_of(size / 2), Some(log.head(size / 2).root));
            assert_eq!(authentic.into_tiles().len(), sorted.len());
        }
    }

    /// Nothing is known that was not planned, and nothing is planned beyond the tree.
    #[test]
    fn what_was_not_asked_for_is_not_known() {
        let log = Log::numbered("leaf", 600);
        let mut plan = TilePlan::new(log.head(600));
        plan.add_node(Node::of_record(600));
        plan.add_node(Node { level: 10, index: 0 });
        plan.add_tile(TileLevel::Hashes(0), 3);
        plan.add_tile(TileLevel::Data, 3);
        assert_eq!(paths(plan.tiles()), ["tile/8/1/000.p/2", "tile/8/0/002.p/88"]);
        let authentic = plan.prove(|tile| Some(log.tile(tile))).unwrap();
        assert_eq!(authentic.hash(Node::of_record(0)), None);
        assert_eq!(authentic.root_of(255), None);
        assert_eq!(authentic.hash(Node::of_record(599)), log.hash(Node::of_record(599)));
        assert_eq!(authentic.hash(Node { level: 8, index: 1 }), log.hash(Node { level: 8, index: 1 }));
    }

    /// Missing tiles are all named at once; one of the wrong length is named.
    #[test]
    fn missing_tiles_are_named() {
        let log = Log::numbered("leaf", 600);
        let mut plan = TilePlan::new(log.head(600));
        plan.add_tile(TileLevel::Data, 1);
        let all = ["tile/8/1/000.p/2", "tile/8/0/002.p/88", "tile/8/0/001", "tile/8/data/001"];
        assert_eq!(paths(plan.tiles()), all);
        let Err(Unproved::Missing(missing)) = plan.prove(|tile| tile.is_partial().then(|| log.tile(tile))) else {
            panic!("nothing is missing");
        };
        assert_eq!(paths(&missing), all[2..]);
        for tile in &plan.tiles()[..3] {
            for change in [-32_isize, -1, 1, 32] {
                let proved = plan.prove(|asked| {
                    let mut bytes = log.tile(asked).to_vec();
                    if asked == tile {
                        bytes.resize(bytes.len().checked_add_signed(change).unwrap(), 0);
                    }
                    Some(bytes.into())
                });
                assert_eq!(proved.unwrap_err(), Unproved::WrongLength(*tile));
            }
        }
    }

    /// golang/go#80744: every hash of every tile counts, whatever number of subtrees the tree consists of and wherever the
    /// tile stands in the plan: those of the right edge, the lowest of them too, and full ones right behind the edge. (Go's
    /// library once compared tiles with their parents from place n of its list on, n being the number of subtrees. Several
    /// of them share one tile, so some tiles before that place were believed unseen.)
    #[test]
    fn issue_80744_every_hash_of_every_tile_counts() {
        // Many subtrees in few tiles: 255 = 8 subtrees in 1 tile, 511 = 9 in 2, 65,535 = 16 in 2, 65,791 = 9 in 2.
        let log = Log::numbered("leaf", 66_000);
        for size in [1, 255, 256, 257, 511, 600, 65_535, 65_536, 65_791, 66_000] {
            let mut plan = TilePlan::new(log.head(size));
            plan.add_node(Node::of_record(0));
            plan.add_node(Node::of_record(size / 2));
            plan.add_tile(TileLevel::Data, size / 2 / 256);
            assert!(plan.prove(|tile| Some(log.tile(tile))).is_ok());
            let edge: Vec<Tile> =
                plan.tiles().iter().copied().filter(|tile| tile.is_partial() && tile.bytes().is_some()).collect();
            for tile in plan.tiles() {
                let last = usize::from(tile.width()) - 1;
                for hash in (0..last).step_by(if size > 600 { 31 } else { 3 }).chain([last]) {
                    let forged = plan.prove(|asked| {
                        let mut bytes = log.tile(asked).to_vec();
                        if asked == tile {
                            let at = if asked.bytes().is_some() { hash * 32 + hash % 32 } else { hash };
                            bytes[at] ^= 1 << (hash % 5);
                        }
                        Some(bytes.into())
                    });
                    let is_edge = edge.contains(tile);
                    let expected = if is_edge { Unproved::WrongRoot(edge.clone()) } else { Unproved::WrongTile(*tile) };
                    assert_eq!(forged.unwrap_err(), expected, "{size}: {tile} at {hash}");
                }
            }
        }
    }
}
