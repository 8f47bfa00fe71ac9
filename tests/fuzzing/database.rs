//! What has to hold of signed notes, tree heads, evidence of forks and answers to lookups.
//!
//! Called by `fuzzing`; calls `sumdb`. No fuzzer can sign, so the bytes are tried as they come, with the public key, and
//! once more with the texts in them signed here, which is what lets mutations come past the signature.
//!
//! ```text
//! note      text, or whole note, or evidence              or, with NUL bytes:   text NUL text NUL lines of hashes
//! lookup    PATH@VERSION newline  answer, or answer with the text of a head where the note should be  [NUL tile]
//! ```

use std::fmt::Write;
use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use larder::module::ModulePath;
use larder::sumdb::check::{HeadCheck, LookupCheck, Outcome, TileCheck};
use larder::sumdb::fork::Fork;
use larder::sumdb::key::{PUBLIC_KEY, VerifierKey};
use larder::sumdb::name::LookupTarget;
use larder::sumdb::note::Note;
use larder::sumdb::record::{GoSum, LookupAnswer, data_tile_records};
use larder::sumdb::{SignedHead, Tile, TileLevel};
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::split;

/// Notes, heads and evidence: what opens is what was signed, and comes back when it is printed.
pub fn note(data: &[u8]) {
    check_note(data, &KEYS.public);
    check_fork(data, &KEYS.public);
    let (older, rest) = split(data, 0);
    let (newer, hashes) = split(rest, 0);
    let is_plain = std::str::from_utf8(older)
        .is_ok_and(|text| text.ends_with('\n') && text.bytes().all(|byte| byte >= b' ' || byte == b'\n'));
    let signed = KEYS.sign(older);
    let opened = Note::open(&signed, &KEYS.own);
    assert_eq!(opened.map(|note| note.text().as_bytes().to_vec()).ok(), is_plain.then(|| older.to_vec()));
    check_note(&signed, &KEYS.own);
    check_fork(&evidence(&signed, &KEYS.sign(newer), hashes), &KEYS.own);
}

fn check_note(data: &[u8], key: &VerifierKey) {
    let Ok(note) = Note::open(data, key) else {
        assert!(SignedHead::open(data, key).is_err());
        return;
    };
    assert!(note.text().ends_with('\n') && data.starts_with(note.text().as_bytes()));
    let Ok(head) = SignedHead::open(data, key) else { return };
    assert_eq!(head.note().as_bytes(), data);
    // Two bits of the last letter of a root carry nothing and may be set, as for the go command; printed they are not.
    let printed = KEYS.sign(head.head().to_string().as_bytes());
    assert_eq!(SignedHead::open(&printed, &KEYS.own).map(|again| *again.head()), Ok(*head.head()));
    assert_eq!(SignedHead::open(head.note().as_bytes(), key).as_ref(), Ok(&head));
    // The tiles of a head are tiles its log has, and nothing is proved without them.
    let check = HeadCheck::of(head.clone(), None);
    check_tiles(check.tiles(), head.head().size);
    assert_eq!(matches!(check.run(|_| None), Outcome::Proved(_)), check.tiles().is_empty());
}

fn check_fork(data: &[u8], key: &VerifierKey) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(fork) = Fork::parse(text, key) else { return };
    assert_eq!(Fork::parse(&fork.to_string(), key).as_ref(), Ok(&fork));
    assert!(fork.older().head().size <= fork.newer().head().size);
    assert_ne!(fork.older().head(), fork.newer().head());
}

/// Lookups and data tiles: what is read comes back when it is printed, and every check ends.
pub fn lookup(data: &[u8]) {
    if let Some(records) = data_tile_records(data) {
        let printed: Vec<&[u8]> = records.iter().flat_map(|record| [record.as_bytes(), b"\n"]).collect();
        assert_eq!(printed.concat(), data);
    }
    let (data, tile) = split(data, 0);
    let (name, answer) = split(data, b'\n');
    let target = std::str::from_utf8(name).ok().and_then(|name| name.split_once('@'));
    let target = target.and_then(|(path, version)| LookupTarget::new(ModulePath::parse(path).ok()?, version).ok());
    let Ok(parsed) = LookupAnswer::parse(answer) else { return };
    let record = format!("{}\n{}\n", parsed.number, parsed.text);
    assert_eq!([record.as_bytes(), parsed.note].concat(), answer);
    let Some(target) = target else { return };
    let found = GoSum::find(parsed.text, &target);
    if let Ok(found) = &found {
        let is_there = |hash, suffix| {
            parsed.text.contains(&format!("{} {}{suffix} {hash}\n", target.path().as_str(), target.version()))
        };
        assert!(found.zip.is_none_or(|hash| is_there(hash, "")), "{found:?}");
        assert!(found.go_mod.is_none_or(|hash| is_there(hash, "/go.mod")), "{found:?}");
    }
    check_lookup(answer, &target, &KEYS.public, tile);
    let signed = [record.as_bytes(), &KEYS.sign(parsed.note)].concat();
    let proved = check_lookup(&signed, &target, &KEYS.own, tile);
    assert!(proved.is_none_or(|go_sum| found == Ok(go_sum)));
}

/// Checks an answer, with the bytes for every tile there is.
fn check_lookup(answer: &[u8], target: &LookupTarget, key: &VerifierKey, tile_bytes: &[u8]) -> Option<GoSum> {
    let note = LookupAnswer::parse(answer).ok()?.note;
    let check = LookupCheck::new(answer, target, None, key).ok()?;
    let head = SignedHead::open(note, key).ok()?;
    check_tiles(check.tiles(), head.head().size);
    for tile in check.tiles() {
        let check = TileCheck::new(tile.level(), tile.index(), &head);
        assert_eq!(check.map(|check| *check.tile()), Some(*tile));
    }
    let at_hand = |tile: &Tile| tile.cut(tile_bytes).map(Bytes::copy_from_slice);
    match check.run(at_hand) {
        Outcome::Proved(proved) => Some(proved.thing.go_sum),
        Outcome::NeedTiles(tiles) => {
            assert!(!tiles.is_empty() && tiles.iter().all(|tile| check.tiles().contains(tile)));
            None
        }
        Outcome::Lie(_) => None,
        Outcome::Fork(fork) => panic!("a fork of one head: {fork}"),
    }
}

fn check_tiles(tiles: &[Tile], tree_size: u64) {
    for tile in tiles {
        assert!(tile.level() != TileLevel::Data);
        assert_eq!(Tile::in_tree(tile.level(), tile.index(), tree_size), Some(*tile));
    }
}

struct Keys {
    public: VerifierKey,
    own: VerifierKey,
    own_hash: [u8; 4],
    pair: Ed25519KeyPair,
}

const OWN_NAME: &str = "sum.example";

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let key = [&[1], pair.public_key().as_ref()].concat();
    let hash = digest(&SHA256, &[OWN_NAME.as_bytes(), b"\n", &key].concat());
    let own_hash: [u8; 4] = hash.as_ref()[..4].try_into().unwrap();
    let own = format!("{OWN_NAME}+{:08x}+{}", u32::from_be_bytes(own_hash), BASE64_STANDARD.encode(key));
    Keys { public: VerifierKey::parse(PUBLIC_KEY).unwrap(), own: VerifierKey::parse(&own).unwrap(), own_hash, pair }
});

impl Keys {
    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let signature = BASE64_STANDARD.encode([&self.own_hash, self.pair.sign(text).as_ref()].concat());
        [text, format!("\n\u{2014} {OWN_NAME} {signature}\n").as_bytes()].concat()
    }
}

/// Writes two notes and a proof in the form of evidence.
fn evidence(older: &[u8], newer: &[u8], hashes: &[u8]) -> Vec<u8> {
    let mut text = String::from("SECURITY ERROR\ngo.sum database server misbehavior detected!\n");
    for (title, section) in [("old database", older), ("new database", newer), ("proof of misbehavior", hashes)] {
        let section = String::from_utf8_lossy(section).replace('\n', "\n\t");
        let _ = write!(text, "\n{title}:\n\t{section}");
    }
    text.into_bytes()
}
