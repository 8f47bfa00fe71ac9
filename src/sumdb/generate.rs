//! Makes up logs and signs them, for the tests of what verifies them.
//!
//! Called by tests only. The tree is built here the slow way, row by row, and not with the code that is tested.

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::hash::{Hash, encode_base64};
use super::head::TreeHead;
use super::key::VerifierKey;
use super::tile::{Tile, TileLevel};
use super::tree::Node;

/// Someone who signs notes, the same one for the same name and seed.
pub(crate) struct Signer {
    name: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    pub(crate) fn new(name: &str, seed: u8) -> Self {
        Self { name: name.to_owned(), pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap() }
    }

    fn key_bytes(&self) -> Vec<u8> {
        [&[1], self.pair.public_key().as_ref()].concat()
    }

    fn hash(&self) -> [u8; 4] {
        let input = [self.name.as_bytes(), b"\n", &self.key_bytes()].concat();
        digest(&SHA256, &input).as_ref()[..4].try_into().unwrap()
    }

    pub(crate) fn key(&self) -> VerifierKey {
        let hash = u32::from_be_bytes(self.hash());
        VerifierKey::parse(&format!("{}+{hash:08x}+{}", self.name, encode_base64(&self.key_bytes()))).unwrap()
    }

    /// Returns the note with this text.
    pub(crate) fn sign(&self, text: &str) -> String {
        let signature = [&self.hash(), self.pair.sign(text.as_bytes()).as_ref()].concat();
        format!("{text}\n\u{2014} {} {}\n", self.name, encode_base64(&signature))
    }
}

/// A log in memory: its records, and the hash of every node.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) records: Vec<String>,
    rows: Vec<Vec<Hash>>,
}

fn sha256(parts: &[&[u8]]) -> Hash {
    Hash::from_bytes(digest(&SHA256, &parts.concat()).as_ref()).unwrap()
}

impl Log {
    pub(crate) fn new(records: impl Iterator<Item = String>) -> Self {
        let records: Vec<String> = records.collect();
        let mut rows = vec![records.iter().map(|text| sha256(&[&[0], text.as_bytes()])).collect::<Vec<_>>()];
        while rows.last().unwrap().len() > 1 {
            let pairs = rows.last().unwrap().chunks_exact(2);
            rows.push(pairs.map(|pair| sha256(&[&[1], pair[0].as_bytes(), pair[1].as_bytes()])).collect());
        }
        Self { records, rows }
    }

    /// A log of records that say `PREFIX NUMBER`.
    pub(crate) fn numbered(prefix: &str, size: u64) -> Self {
        Self::new((0..size).map(|number| format!("{prefix} {number}\n")))
    }

    pub(crate) fn hash(&self, node: Node) -> Option<Hash> {
        self.rows.get(node.level as usize)?.get(usize::try_from(node.index).unwrap()).copied()
    }

    pub(crate) fn head(&self, size: u64) -> TreeHead {
        TreeHead { size, root: self.root(0, size) }
    }

    /// The definition of RFC 6962, with complete subtrees looked up.
    fn root(&self, from: u64, to: u64) -> Hash {
        let records = to - from;
        if records == 0 {
            return sha256(&[]);
        }
        if records.is_power_of_two() {
            let level = records.trailing_zeros();
            return self.rows[level as usize][usize::try_from(from >> level).unwrap()];
        }
        let middle = from + records.next_power_of_two() / 2;
        sha256(&[&[1], self.root(from, middle).as_bytes(), self.root(middle, to).as_bytes()])
    }

    /// Returns the bytes of a tile of the whole log, cut to its width.
    pub(crate) fn tile(&self, tile: &Tile) -> Bytes {
        let first = usize::try_from(tile.index() * 256).unwrap();
        let range = first..first + usize::from(tile.width());
        match tile.level() {
            TileLevel::Hashes(level) => self.rows[8 * usize::from(level)][range]
                .iter()
                .flat_map(|hash| *hash.as_bytes())
                .collect::<Vec<u8>>()
                .into(),
            TileLevel::Data => self.records[range].iter().map(|text| text.to_owned() + "\n").collect::<String>().into(),
        }
    }

    /// Returns the answer to a lookup, with the head the log had at this size.
    pub(crate) fn answer(&self, number: u64, size: u64, signer: &Signer) -> String {
        let text = &self.records[usize::try_from(number).unwrap()];
        format!("{number}\n{text}\n{}", signer.sign(&self.head(size).to_string()))
    }
}
