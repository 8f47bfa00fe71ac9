//! The shape of a log: which complete subtrees it consists of, and where their hashes are found.
//!
//! Called by `proof`, `authentic`; calls `hash`. Pure. Invariant: arithmetic does not overflow for any size of at most
//! 63 bits, which is what a [`super::TreeHead`] may state. Sources: RFC 6962, section 2.1; Crosby and Wallach, "Efficient
//! Data Structures for Tamper-Evident Logging", 3.3; `golang.org/x/mod/sumdb/tlog`.
//!
//! A node stands over 2^level records. Its subtree is complete once they all are there, and never changes again. A tree
//! of n records consists of one complete subtree for each one-bit of n, in falling size:
//!
//! ```text
//! n = 13 = 1101b                      root
//!                          ┌───────────┴────┐
//!                          │              ┌─┴──┐            root = node(s3, node(s2, s0))
//!                         s3             s2   s0
//!                  0 1 2 3 4 5 6 7     8 9 A B  C
//! ```

use super::hash::Hash;
use super::tile::{TILE_HEIGHT, Tile, TileLevel};

/// A node over 2^level records, from record index × 2^level on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// How many times records were combined in pairs to come to it: 0 for a record itself.
    pub level: u32,
    /// How many nodes of its level stand before it.
    pub index: u64,
}

impl Node {
    /// Returns the node of one record.
    pub fn of_record(number: u64) -> Self {
        Self { level: 0, index: number }
    }

    /// Says whether all its records are there in a tree of this size.
    pub fn is_complete_in(&self, tree_size: u64) -> bool {
        tree_size.checked_shr(self.level).is_some_and(|nodes| self.index < nodes)
    }

    /// Returns the tile that holds its hash, or the hashes it is computed from, in the width this tree has it in; none if
    /// the tree does not have the node.
    pub fn tile_in(&self, tree_size: u64) -> Option<Tile> {
        if !self.is_complete_in(tree_size) {
            return None;
        }
        let level = TileLevel::Hashes(u8::try_from(self.level / TILE_HEIGHT).ok()?);
        Tile::in_tree(level, self.index >> (TILE_HEIGHT - self.level % TILE_HEIGHT), tree_size)
    }

    /// Returns which hashes of its tile, counted in hashes, combine to this node.
    pub(super) fn range_in_tile(&self) -> std::ops::Range<usize> {
        let within = self.level % TILE_HEIGHT;
        let nodes_in_tile = 1_u64 << (TILE_HEIGHT - within);
        // Below 256 both, since a tile holds no more.
        let first = usize::try_from((self.index % nodes_in_tile) << within).unwrap_or(usize::MAX);
        first..first + (1 << within)
    }

    /// Returns where its hash stands in the order in which hashes come to be: behind a record's own those of the nodes it
    /// completes. None beyond 63 bits.
    ///
    /// ```text
    /// 0  1  (0-1)  2  3  (2-3)  (0-3)  4 …
    /// ```
    pub fn stored_index(&self) -> Option<u64> {
        // The node is stored right behind the last record below it.
        let records = self.index.checked_add(1)?.checked_mul(1_u64.checked_shl(self.level)?)?;
        let last = records - 1;
        // Record n is stored at n + n/2 + n/4 + …: behind n records and what those completed.
        let before = (0..63).try_fold(0_u64, |sum, shift| sum.checked_add(last >> shift))?;
        before.checked_add(u64::from(self.level)).filter(|index| i64::try_from(*index).is_ok())
    }
}

/// Returns the complete subtrees of the records `from..to`, left to right. `from` must be a multiple of the largest power
/// of two that fits into the range, as 0 is for any.
pub(super) fn subtrees(from: u64, to: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = from;
    while at < to {
        let level = (to - at).ilog2();
        nodes.push(Node { level, index: at >> level });
        at += 1 << level;
    }
    nodes
}

/// Combines the hashes of complete subtrees, left to right and each smaller than the one before, to the hash over all.
pub(super) fn combine(hashes: &[Hash]) -> Hash {
    let Some((last, before)) = hashes.split_last() else {
        return Hash::of_empty_tree();
    };
    before.iter().rev().fold(*last, |right, left| Hash::of_node(left, &right))
}

/// Combines the hashes of a perfect subtree, a power of two of them, to its root; none if there is not such a number.
pub(super) fn combine_perfect(bytes: &[u8]) -> Option<Hash> {
    let mut row: Vec<Hash> = bytes.chunks(32).map(Hash::from_bytes).collect::<Option<_>>()?;
    if !row.len().is_power_of_two() {
        return None;
    }
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| Hash::of_node(&pair[0], &pair[1])).collect();
    }
    row.first().copied()
}

/// Returns where the two halves of a tree of these many records meet: the largest power of two below the size, which is
/// 2 or more.
pub(super) fn split(records: u64) -> u64 {
    1 << (records - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::generate::vectors;
    use crate::sumdb::generate::Log;

    /// Hashes are stored where Go's own tools store them, in the same tiles.
    #[test]
    fn stored_hashes_agree_with_go() {
        for row in vectors("stored_hashes").as_array().unwrap() {
            let node = Node {
                level: u32::try_from(row["level"].as_u64().unwrap()).unwrap(),
                index: row["n"].as_u64().unwrap(),
            };
            assert_eq!(row["index"].as_u64(), node.stored_index());
            let tile = node.tile_in((node.index + 1) << node.level).unwrap();
            let named = Tile::parse(row["tile"].as_str().unwrap()).unwrap();
            assert_eq!(tile, named, "{row}");
        }
        assert_eq!(Node { level: 0, index: u64::MAX }.stored_index(), None);
        assert_eq!(Node { level: 64, index: 0 }.stored_index(), None);
        assert_eq!(Node { level: 62, index: 1 }.stored_index(), None);
        assert_eq!(Node { level: 61, index: 1 }.stored_index(), Some((1 << 63) - 3));
    }

    /// The small log of thirteen records has the hashes, roots and stored order that Go's own tools give it.
    #[test]
    fn the_small_tree_agrees_with_go() {
        let small = vectors("small_tree");
        let records: Vec<&str> =
            small["records"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let log = Log::new(records.iter().map(ToString::to_string));
        for (number, leaf) in small["leaf_hashes"].as_array().unwrap().iter().enumerate() {
            assert_eq!(*leaf, log.hash(Node::of_record(number as u64)).unwrap().to_string());
        }
        for row in small["roots"].as_array().unwrap() {
            assert_eq!(row["root"], log.head(row["size"].as_u64().unwrap()).root.to_string());
        }
        let stored = small["stored_hashes"].as_array().unwrap();
        let mut seen = 0;
        for level in 0..4 {
            for index in 0..13 {
                let node = Node { level, index };
                assert_eq!(node.is_complete_in(13), log.hash(node).is_some());
                if let Some(hash) = log.hash(node) {
                    assert_eq!(stored[usize::try_from(node.stored_index().unwrap()).unwrap()], hash.to_string());
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, stored.len());
    }

    /// Subtrees cover a tree without gap, each smaller than the one before; the largest size there can be included.
    #[test]
    fn subtrees_cover_the_tree() {
        let max = u64::try_from(i64::MAX).unwrap();
        for size in (0..700).chain([71_769_961, max - 1, max]) {
            let nodes = subtrees(0, size);
            assert_eq!(nodes.len(), size.count_ones() as usize);
            let mut at = 0;
            for node in nodes {
                assert_eq!(node.index << node.level, at);
                assert!(node.is_complete_in(size) && node.tile_in(size).unwrap().is_partial());
                at += 1 << node.level;
            }
            assert_eq!(at, size);
        }
        assert_eq!((split(2), split(3), split(4), split(5), split(max)), (1, 2, 2, 4, 1 << 62));
        assert_eq!((combine_perfect(&[]), combine_perfect(&[0; 96]), combine_perfect(&[0; 33])), (None, None, None));
    }
}
