//! Proofs that stand for themselves: that a log holds a record, and that it begins with an older log.
//!
//! Called by `check` and `fork`; calls `tree`. Pure. A proof is a list of hashes, deepest first; together with the hash
//! that is to be proved they combine to the root. Sources: RFC 6962, sections 2.1.1 and 2.1.2; `golang.org/x/mod/sumdb/tlog`,
//! whose proofs these are, hash for hash.

use super::hash::Hash;
use super::head::TreeHead;
use super::tree::{Node, combine, split, subtrees};

/// Returns the hashes that prove that the log of this size holds record `number`; none if it does not, or if `hash_of`
/// does not know a hash of a complete subtree.
pub fn prove_record(size: u64, number: u64, hash_of: impl Fn(Node) -> Option<Hash>) -> Option<Vec<Hash>> {
    if number >= size {
        return None;
    }
    let mut proof = Vec::new();
    let (mut from, mut to) = (0, size);
    while to - from > 1 {
        let middle = from + split(to - from);
        // The half that the record is not in is part of the proof.
        let (left, right) = ((from, middle), (middle, to));
        let (inside, outside) = if number < middle { (left, right) } else { (right, left) };
        proof.push(range_hash(outside, &hash_of)?);
        (from, to) = inside;
    }
    proof.reverse();
    Some(proof)
}

/// Says whether the proof shows that the log with this head holds the record with this leaf hash at that number.
pub fn is_record_proved(proof: &[Hash], head: &TreeHead, number: u64, leaf: &Hash) -> bool {
    number < head.size && run_record_proof(proof, 0, head.size, number, leaf) == Some(head.root)
}

/// Returns the hashes that prove that the log of `size` records begins with those of the log of `older` records, 1 at
/// least; none if it cannot, or if `hash_of` does not know a hash of a complete subtree.
pub fn prove_prefix(size: u64, older: u64, hash_of: impl Fn(Node) -> Option<Hash>) -> Option<Vec<Hash>> {
    if older == 0 || older > size {
        return None;
    }
    let mut proof = Vec::new();
    let (mut from, mut to) = (0, size);
    while to != older {
        let middle = from + split(to - from);
        let (left, right) = ((from, middle), (middle, to));
        let (inside, outside) = if older <= middle { (left, right) } else { (right, left) };
        proof.push(range_hash(outside, &hash_of)?);
        (from, to) = inside;
    }
    if from > 0 {
        proof.push(range_hash((from, to), &hash_of)?);
    }
    proof.reverse();
    Some(proof)
}

/// Says whether the proof shows that the log with the newer head begins with all that the older head stands for.
pub fn is_prefix_proved(proof: &[Hash], newer: &TreeHead, older: &TreeHead) -> bool {
    let is_possible = older.size >= 1 && older.size <= newer.size;
    is_possible && run_prefix_proof(proof, 0, newer.size, older) == Some((older.root, newer.root))
}

/// Combines the hashes of a range that begins where a subtree of its size can.
fn range_hash((from, to): (u64, u64), hash_of: &impl Fn(Node) -> Option<Hash>) -> Option<Hash> {
    let hashes: Vec<Hash> = subtrees(from, to).into_iter().map(hash_of).collect::<Option<_>>()?;
    Some(combine(&hashes))
}

/// Returns the hash over `from..to` that follows from a leaf within it; none if the proof is too long or too short. As deep
/// as the tree: 63 at most.
fn run_record_proof(proof: &[Hash], from: u64, to: u64, number: u64, leaf: &Hash) -> Option<Hash> {
    if to - from == 1 {
        return proof.is_empty().then_some(*leaf);
    }
    let (outside, rest) = proof.split_last()?;
    let middle = from + split(to - from);
    if number < middle {
        Some(Hash::of_node(&run_record_proof(rest, from, middle, number, leaf)?, outside))
    } else {
        Some(Hash::of_node(outside, &run_record_proof(rest, middle, to, number, leaf)?))
    }
}

/// Returns the hashes that follow for `from..older` and for `from..to`.
fn run_prefix_proof(proof: &[Hash], from: u64, to: u64, older: &TreeHead) -> Option<(Hash, Hash)> {
    if to == older.size {
        // The older tree itself is known; a part of it has to be told.
        return match (from, proof) {
            (0, []) => Some((older.root, older.root)),
            (1.., [common]) => Some((*common, *common)),
            _ => None,
        };
    }
    let (outside, rest) = proof.split_last()?;
    let middle = from + split(to - from);
    if older.size <= middle {
        let (before, after) = run_prefix_proof(rest, from, middle, older)?;
        Some((before, Hash::of_node(&after, outside)))
    } else {
        let (before, after) = run_prefix_proof(rest, middle, to, older)?;
        Some((Hash::of_node(outside, &before), Hash::of_node(outside, &after)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::generate::vectors;
    use crate::sumdb::generate::Log;

    fn hash(value: &serde_json::Value) -> Hash {
        value.as_str().unwrap().parse().unwrap()
    }

    fn hashes(value: &serde_json::Value) -> Vec<Hash> {
        value.as_array().unwrap().iter().map(hash).collect()
    }

    /// The proofs Go's own tools made of the small log are the ones made here, and of the public log they hold.
    #[test]
    fn proofs_agree_with_go() {
        let small = vectors("small_tree");
        let log = Log::new((0..13).map(|number| format!("record {number}\n")));
        for row in small["inclusion"].as_array().unwrap() {
            let (size, number) = (row["size"].as_u64().unwrap(), row["record"].as_u64().unwrap());
            let proof = prove_record(size, number, |node| log.hash(node)).unwrap();
            assert_eq!(proof, hashes(&row["proof"]));
            assert!(is_record_proved(&proof, &log.head(size), number, &log.hash(Node::of_record(number)).unwrap()));
        }
        for row in small["consistency"].as_array().unwrap() {
            let (size, older) = (row["new"].as_u64().unwrap(), row["old"].as_u64().unwrap());
            let proof = prove_prefix(size, older, |node| log.hash(node)).unwrap();
            assert_eq!(proof, hashes(&row["proof"]));
            assert!(is_prefix_proved(&proof, &log.head(size), &log.head(older)));
        }
        let public = vectors("sumdb");
        let head = TreeHead { size: public["latest"]["size"].as_u64().unwrap(), root: hash(&public["latest"]["root"]) };
        for row in public["lookups"].as_array().unwrap() {
            let (number, proof) = (row["id"].as_u64().unwrap(), hashes(&row["inclusion_in_latest"]));
            let leaf = hash(&row["leaf_hash"]);
            assert!(is_record_proved(&proof, &head, number, &leaf));
            assert!(!is_record_proved(&proof, &head, number ^ 1, &leaf));
        }
        for row in public["consistency"].as_array().unwrap() {
            let older = TreeHead { size: row["old"].as_u64().unwrap(), root: hash(&row["old_root"]) };
            assert!(is_prefix_proved(&hashes(&row["proof"]), &head, &older));
        }
    }

    /// Every proof in every small log holds, and none with a hash changed, left out, doubled, or for another record or
    /// size.
    #[test]
    fn changed_proofs_do_not_hold() {
        let log = Log::new((0..40).map(|number| format!("record {number}\n")));
        let hash_of = |node| log.hash(node);
        let other = Hash::of_record(b"other");
        for size in 0..=40 {
            let head = log.head(size);
            assert_eq!((prove_record(size, size, hash_of), prove_prefix(size, size + 1, hash_of)), (None, None));
            assert_eq!(prove_prefix(size, 0, hash_of), None);
            assert!(!is_record_proved(&[], &head, size, &head.root) && !is_prefix_proved(&[], &head, &log.head(0)));
            for number in 0..size {
                let leaf = log.hash(Node::of_record(number)).unwrap();
                let proof = prove_record(size, number, hash_of).unwrap();
                assert!(is_record_proved(&proof, &head, number, &leaf));
                assert!(!is_record_proved(&proof, &head, number, &other));
                for changed in changed(&proof) {
                    assert!(!is_record_proved(&changed, &head, number, &leaf));
                }
                for another in (0..size).filter(|another| *another != number) {
                    assert!(!is_record_proved(&proof, &head, another, &leaf));
                }
                let older = log.head(number + 1);
                let proof = prove_prefix(size, older.size, hash_of).unwrap();
                assert!(is_prefix_proved(&proof, &head, &older));
                assert!(!is_prefix_proved(&proof, &head, &TreeHead { root: other, ..older }));
                assert!(!is_prefix_proved(&proof, &TreeHead { root: other, ..head }, &older));
                for changed in changed(&proof) {
                    assert!(!is_prefix_proved(&changed, &head, &older));
                }
            }
        }
    }

    fn changed(proof: &[Hash]) -> Vec<Vec<Hash>> {
        let mut all = vec![[proof, &[Hash::of_record(b"more")]].concat()];
        for at in 0..proof.len() {
            let mut changed = proof.to_vec();
            changed[at] = Hash::of_record(b"changed");
            all.push(changed.clone());
            changed.remove(at);
            all.push(changed.clone());
            changed = proof.to_vec();
            changed.insert(at, proof[at]);
            all.push(changed);
        }
        all
    }

    /// The largest log there can be is no trouble.
    #[test]
    fn the_largest_size_does_not_overflow() {
        let size = u64::try_from(i64::MAX).unwrap();
        let same = |_| Some(Hash::of_record(b""));
        assert_eq!(prove_record(size, size - 1, same).unwrap().len(), 62);
        assert_eq!(prove_prefix(size, size - 1, same).unwrap().len(), 63);
        let head = TreeHead { size, root: Hash::of_empty_tree() };
        assert!(!is_record_proved(&[head.root; 62], &head, size - 1, &head.root));
        assert!(!is_prefix_proved(&[head.root; 63], &head, &TreeHead { size: size - 1, ..head }));
    }
}
