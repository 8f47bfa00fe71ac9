//! The same bytes to this module and to Go's own libraries: they must agree, accept and reject alike.
//!
//! Where this module is stricter on purpose, the test says so in the place where it lets the difference pass.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};

use super::check::{HeadCheck, Lie, LookupCheck, Outcome, ProvedRecord};
use super::generate::{Log, Signer};
use super::hash::{decode_base64, encode_base64};
use super::key::PUBLIC_KEY;
use super::note::Note;
use super::oracle::Oracle;
use super::proof::{is_prefix_proved, is_record_proved, prove_prefix, prove_record};
use super::record::{LookupAnswer, RecordError};
use super::tests::{modules, record, recorded_lookups, recorded_tile, signed, signer, target};
use super::tree::Node;
use super::{Hash, SignedHead, Tile, TreeHead, VerifierKey};

/// What is put into texts to break them: all that means something to a parser here or there.
const HOSTILE: [&[u8]; 26] = [
    b"\n",
    b"\n\n",
    b"\r",
    b"\t",
    b"\0",
    b"\x7f",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"=",
    b"==",
    b"+",
    b"-",
    b"0",
    b" ",
    b"  ",
    b"/",
    "\u{2014} ".as_bytes(),
    "\u{85}".as_bytes(),
    "\u{a0}".as_bytes(),
    "\u{2028}".as_bytes(),
    "\u{200b}".as_bytes(),
    b"\n\xe2\x80\x94 sum.example AAAAAAA=\n",
    b"h1:",
    b"go.sum database tree\n",
    b"99999999999999999999",
];

fn mutated(random: &mut fastrand::Rng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.usize(0..3) {
        let at = random.usize(0..=bytes.len());
        let end = random.usize(at..=bytes.len()).min(at + 40);
        match random.u32(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u32(0..8),
            1 | 2 => {
                let piece = HOSTILE[random.usize(0..HOSTILE.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            3 => {
                let piece = HOSTILE[random.usize(0..HOSTILE.len())];
                bytes.splice(at..end, piece.iter().copied());
            }
            4 => {
                bytes.splice(at..end, []);
            }
            5 => {
                let copy = bytes[at..end].to_vec();
                let to = random.usize(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            6 if at < bytes.len() => bytes[at] = random.u8(b'0'..=b'z'),
            _ if at < bytes.len() => {
                // A whole line once more.
                let line = bytes.split_inclusive(|b| *b == b'\n').next_back().unwrap_or_default().to_vec();
                bytes.extend(line);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Keys: the same ones are good, with the same name and hash.
#[test]
fn keys_agree() {
    let mut oracle = Oracle::start();
    let mut random = fastrand::Rng::with_seed(11);
    let keys: Vec<String> =
        [signer().key().to_string(), Signer::new("host.example/path", 3).key().to_string(), PUBLIC_KEY.to_owned()]
            .into();
    let mut good = 0;
    for round in 0..4_000 {
        let key = &keys[round % keys.len()];
        let text = if round < 10 { key.clone().into_bytes() } else { mutated(&mut random, key.as_bytes()) };
        let Ok(text) = String::from_utf8(text) else { continue };
        // Go skips line breaks within base64; no key that was read from a setting has any.
        if text.contains(['\r', '\n']) {
            continue;
        }
        let theirs = oracle.ask(&json!({"op": "verifier", "key": text}));
        match VerifierKey::parse(&text) {
            Ok(key) => {
                assert_eq!(theirs, Ok(json!({"name": key.name(), "hash": key.hash()})), "{text:?}");
                good += 1;
            }
            Err(err) => assert!(theirs.is_err(), "{text:?}: {err}"),
        }
    }
    assert!(good >= 10);
}

/// Notes: thousands that are cut, patched and signed by several, opened or refused alike, with the same text.
#[test]
fn notes_agree() {
    let mut oracle = Oracle::start();
    let mut random = fastrand::Rng::with_seed(12);
    let key = signer().key();
    let (mut good, mut bad) = (0, 0);
    for round in 0..5_000 {
        let texts =
            ["go.sum database tree\n1\nAAAA\n", "a\n", "\n", "a\n\n\u{2014} x AAAAAAA=\n", "é\n\nb\n", "no newline"];
        let text = texts[random.usize(0..texts.len())];
        let mut note = signer().sign(text);
        if random.bool() {
            let other = Signer::new(["sum.example", "other.example"][random.usize(0..2)], random.u8(1..3)).sign(text);
            let line = other.split_inclusive('\n').next_back().unwrap().to_owned();
            match random.u32(0..4) {
                0 => note = note.clone() + &line,
                1 => note = note.replace("\n\n\u{2014} sum.example", &format!("\n\n{line}\u{2014} sum.example")),
                2 => note += &line.repeat(random.usize(97..102)),
                _ => note = other,
            }
        }
        let note = if round % 4 == 0 { note.into_bytes() } else { mutated(&mut random, note.as_bytes()) };
        let theirs = oracle.ask(&json!({"op": "open", "key": key.to_string(), "note": encode_base64(&note)}));
        let shown = String::from_utf8_lossy(&note);
        match Note::open(&note, &key) {
            Ok(opened) => {
                assert_eq!(theirs, Ok(json!({"text": opened.text()})), "{shown}");
                good += 1;
            }
            Err(err) => {
                assert!(theirs.is_err(), "{shown}: {err}");
                bad += 1;
            }
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} {bad}");
}

/// Signatures: with the parts of key and signature changed in ways that implementations of Ed25519 differ in.
#[test]
fn signatures_agree() {
    let mut oracle = Oracle::start();
    let mut random = fastrand::Rng::with_seed(13);
    // The order of the group, little-endian: S + order is the second spelling of a signature.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    // Points of small order, and of coordinates that are not reduced.
    let mut points = [[0_u8; 32], [0xff; 32], [0; 32], [0; 32], [0; 32]];
    points[2][0] = 1;
    points[3][31] = 0x80;
    points[4] = [0xff; 32];
    points[4][0] = 0xee;
    points[4][31] = 0x7f;
    for round in 0..1_500_u32 {
        let text = format!("text {round}\n");
        let note = signer().sign(&text);
        let (head, base64) = note.trim_end().rsplit_once(' ').unwrap();
        let mut signature = decode_base64(base64).unwrap();
        let mut key_bytes = decode_base64(signer().key().to_string().rsplit_once('+').unwrap().1).unwrap();
        match round % 6 {
            0 => {}
            1 => {
                let mut carry = 0;
                for (byte, add) in signature[36..68].iter_mut().zip(order) {
                    let sum = u16::from(*byte) + u16::from(add) + carry;
                    (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
                }
            }
            2 => signature[4..36].copy_from_slice(&points[random.usize(0..points.len())]),
            3 => {
                // A key of small order with a signature of zeros is good for some texts, or for all.
                let point = points[random.usize(0..points.len())];
                key_bytes[1..].copy_from_slice(&point);
                signature[4..36].copy_from_slice(&points[random.usize(0..points.len())]);
                signature[36..68].fill(0);
            }
            4 => {
                let at = random.usize(4..signature.len());
                signature[at] ^= 1 << random.u32(0..8);
            }
            _ => signature.resize(random.usize(5..80), 0),
        }
        let hash = Hash::of(&[b"sum.example\n", &key_bytes]);
        signature[..4].copy_from_slice(&hash.as_bytes()[..4]);
        let [a, b, c, d, ..] = *hash.as_bytes();
        let key = format!("sum.example+{a:02x}{b:02x}{c:02x}{d:02x}+{}", encode_base64(&key_bytes));
        let note = format!("{head} {}\n", encode_base64(&signature));
        let theirs = oracle.ask(&json!({"op": "open", "key": key, "note": encode_base64(note.as_bytes())}));
        let ours = Note::open(note.as_bytes(), &VerifierKey::parse(&key).unwrap());
        assert_eq!(ours.is_ok(), theirs.is_ok(), "round {round}: {key}\n{note}");
    }
}

/// Heads and answers to lookups: read or refused alike, with the same numbers, hashes and texts.
#[test]
fn heads_and_records_agree() {
    let mut oracle = Oracle::start();
    let mut random = fastrand::Rng::with_seed(14);
    let log = modules(20, 20);
    let (mut good, mut stricter) = (0, 0);
    for round in 0..6_000 {
        let text = log.head([0, 1, 20][random.usize(0..3)]).to_string();
        let text = if round % 10 == 0 { text.into_bytes() } else { mutated(&mut random, text.as_bytes()) };
        // Within a note there is no carriage return, which Go skips in base64, and nothing that is not UTF-8.
        if let Some(text) = String::from_utf8(text).ok().filter(|text| !text.contains('\r')) {
            let theirs = oracle.ask(&json!({"op": "head", "text": encode_base64(text.as_bytes())}));
            let ours = TreeHead::parse(&text);
            let ours = ours.map(|head| json!({"size": head.size, "root": head.root.to_string()}));
            assert_eq!(ours.as_ref().ok(), theirs.as_ref().ok(), "{text:?}");
            good += usize::from(ours.is_ok());
        }
        let answer = format!("{}\n{}\nrest", random.u64(0..20), log.records[7]);
        let answer = match round % 10 {
            0 => answer.into_bytes(),
            1 => (["+", "-", "0", " "][random.usize(0..4)].to_owned() + &answer).into_bytes(),
            _ => mutated(&mut random, answer.as_bytes()),
        };
        let theirs = oracle.ask(&json!({"op": "record", "answer": encode_base64(&answer)}));
        match LookupAnswer::parse(&answer) {
            Ok(answer) => {
                let leaf = Hash::of_record(answer.text.as_bytes()).to_string();
                let rest = encode_base64(answer.note);
                let ours = json!({"number": answer.number, "text": answer.text, "rest": rest, "leaf": leaf});
                assert_eq!(theirs, Ok(ours));
                good += 1;
            }
            // Go reads signs and leading zeros, and takes the record -1 for the record 0.
            Err(RecordError::NoNumber) if theirs.is_ok() => {
                let line = answer.split(|b| *b == b'\n').next().unwrap();
                assert!(line.starts_with(b"+") || line.starts_with(b"-") || line.starts_with(b"0"), "{line:?}");
                stricter += 1;
            }
            Err(err) => assert!(theirs.is_err(), "{answer:?}: {err}"),
        }
    }
    assert!(good > 1_000 && stricter > 10, "{good} {stricter}");
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(|hash| hash.as_str().unwrap().parse().unwrap()).collect()
}

fn shown(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}

/// Logs: roots of every size, stored hashes, tiles and proofs are the same; and both judge changed proofs alike.
#[test]
fn logs_and_proofs_agree() {
    let mut oracle = Oracle::start();
    let mut random = fastrand::Rng::with_seed(15);
    let sizes: Vec<u64> =
        [0, 1, 2, 255, 256, 257, 512, 600].into_iter().chain((0..12).map(|_| random.u64(3..600))).collect();
    for size in sizes {
        let made = oracle.ask(&json!({"op": "log", "prefix": "record of", "size": size})).unwrap();
        let log = Log::numbered("record of", size);
        let roots: Vec<Hash> = (0..=size).map(|size| log.head(size).root).collect();
        assert_eq!(hashes(&made["roots"]), roots);
        let stored = made["stored"].as_array().map_or_else(Vec::new, |_| hashes(&made["stored"]));
        for level in 0..10 {
            for index in 0..size >> level {
                let node = Node { level, index };
                assert_eq!(Some(stored[usize::try_from(node.stored_index().unwrap()).unwrap()]), log.hash(node));
            }
        }
        for (path, bytes) in made["tiles"].as_object().unwrap() {
            let tile = Tile::parse(path).unwrap();
            assert_eq!(Tile::in_tree(tile.level(), tile.index(), size), Some(tile));
            assert_eq!(decode_base64(bytes.as_str().unwrap()).unwrap(), log.tile(&tile));
        }
        let hash_of = |node| log.hash(node);
        for _ in 0..if size == 0 { 0 } else { 40 } {
            let within = random.u64(1..=size);
            let (number, older) = (random.u64(0..within), random.u64(1..=within));
            let (record_proof, tree_proof) =
                (prove_record(within, number, hash_of).unwrap(), prove_prefix(within, older, hash_of).unwrap());
            let theirs = oracle.ask(&json!({"op": "prove_record", "size": within, "number": number})).unwrap();
            assert_eq!(hashes(&theirs), record_proof);
            let theirs = oracle.ask(&json!({"op": "prove_tree", "size": within, "older": older})).unwrap();
            assert_eq!(hashes(&theirs), tree_proof);
            // Changed a little, or not.
            let (head, older_head) = (log.head(within), log.head(older));
            let leaf = log.hash(Node::of_record(number)).unwrap();
            let [mut record_proof, mut tree_proof] = [record_proof, tree_proof];
            let claimed_number = if random.u32(0..4) == 0 { random.u64(0..within + 2) } else { number };
            let claimed_older = if random.u32(0..4) == 0 { random.u64(0..within + 2) } else { older };
            for proof in [&mut record_proof, &mut tree_proof] {
                match random.u32(0..6) {
                    0 => proof.push(leaf),
                    1 if !proof.is_empty() => drop(proof.remove(random.usize(0..proof.len()))),
                    2 if !proof.is_empty() => *random.choice(proof.iter_mut()).unwrap() = leaf,
                    _ => {}
                }
            }
            let theirs = oracle.ask(
                &json!({"op": "check_record", "proof": shown(&record_proof), "size": within, "number": claimed_number,
                "root": head.root.to_string(), "leaf": leaf.to_string()}),
            );
            assert_eq!(is_record_proved(&record_proof, &head, claimed_number, &leaf), theirs.is_ok());
            let theirs = oracle
                .ask(&json!({"op": "check_tree", "proof": shown(&tree_proof), "size": within, "older": claimed_older,
                "root": head.root.to_string(), "rootWhenOlder": older_head.root.to_string()}));
            assert_eq!(
                is_prefix_proved(&tree_proof, &head, &TreeHead { size: claimed_older, ..older_head }),
                theirs.is_ok()
            );
        }
    }
    for _ in 0..2_000 {
        let (level, index) = (random.u32(0..40), random.u64(0..1 << 40) >> random.u32(0..40));
        let node = Node { level, index: index >> level.min(20) };
        if let Some(stored) = node.stored_index() {
            let theirs = oracle.ask(&json!({"op": "stored", "level": node.level, "n": node.index})).unwrap();
            assert_eq!(theirs["index"], stored);
            let tile = node.tile_in((node.index + 1) << node.level).unwrap();
            assert_eq!(theirs["tile"], tile.to_string());
        }
    }
}

/// The tiles that both are given. Who asks for one that is not there gets it cut from the full one.
struct Served(BTreeMap<String, Bytes>);

impl Served {
    fn get(&self, tile: &Tile) -> Option<Bytes> {
        let exact = self.0.get(&tile.to_string()).cloned();
        exact.or_else(|| {
            let full = self.0.get(&tile.full().to_string())?;
            Some(full.slice(..full.len() / 256 * usize::from(tile.width())))
        })
    }

    fn to_json(&self) -> Value {
        self.0
            .iter()
            .map(|(path, bytes)| (path.clone(), Value::from(encode_base64(bytes))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// Whole lookups: the go command's own client and this module, given the same known head, answer and tiles, come to the
/// same: the same hashes and tiles, the same alarm word for word, or a refusal.
#[test]
fn lookups_agree() {
    let mut oracle = Oracle::start();
    let mut random = fastrand::Rng::with_seed(16);
    let (signer, key) = (signer(), signer().key());
    let logs: Vec<(u64, Log)> =
        [600, 0, 3, 255, 256, 400, 511, 520, 599].into_iter().map(|fork_at| (fork_at, modules(600, fork_at))).collect();
    let honest = &logs[0].1;
    let mut tally = BTreeMap::<&str, u32>::new();
    for round in 0..1_600 {
        let (_, log) = &logs[if random.bool() { 0 } else { random.usize(0..logs.len()) }];
        let near = |random: &mut fastrand::Rng| match random.u32(0..3) {
            0 => [1, 2, 255, 256, 257, 511, 512, 513, 599, 600][random.usize(0..10)],
            _ => random.u64(1..=600),
        };
        let (known_size, came_size) = (near(&mut random), near(&mut random));
        let known = (random.u32(0..5) > 0).then(|| signed(honest, known_size, &signer));
        let number = random.u64(0..came_size);
        let mut answer = log.answer(number, came_size, &signer).into_bytes();
        match random.u32(0..12) {
            0 => answer = mutated(&mut random, &answer),
            1 => answer = log.answer(random.u64(0..600), came_size, &signer).into_bytes(),
            2 => {
                let text = record(number, "lie");
                answer = format!("{number}\n{text}\n{}", signer.sign(&log.head(came_size).to_string())).into_bytes();
            }
            _ => {}
        }
        let ours = LookupCheck::new(&answer, &target(number), known.as_ref(), &key);
        // Go checks the head it knows, at its start, and tells the other from the newer one's tiles.
        let own = known.clone().map(|known| HeadCheck::of(known, None));
        let newer = if known.is_some() && known_size >= came_size { honest } else { log };
        let mut served = Served(BTreeMap::new());
        for tile in own.iter().flat_map(HeadCheck::tiles) {
            served.0.insert(tile.to_string(), honest.tile(tile));
        }
        for tile in ours.iter().flat_map(LookupCheck::tiles) {
            served.0.insert(tile.to_string(), newer.tile(tile));
        }
        let paths: Vec<String> = served.0.keys().cloned().collect();
        if let Some(path) = random.choice(&paths) {
            let tile = Tile::parse(path).unwrap();
            let mut bytes = served.0[path].to_vec();
            let at = random.usize(0..bytes.len());
            match random.u32(0..10) {
                0 | 1 => bytes[at] ^= 1 << random.u32(0..8),
                2 => bytes.truncate(bytes.len() - [1, 32][random.usize(0..2)]),
                3 => bytes.extend([0; 32]),
                4 => drop(served.0.remove(path)),
                5 if tile.index() < 2 && tile.is_partial() && matches!(tile.level(), super::TileLevel::Hashes(0)) => {
                    served.0.remove(path);
                    served.0.insert(tile.full().to_string(), newer.tile(&tile.full()));
                }
                _ => {}
            }
            if let Some(changed) = served.0.get_mut(path) {
                *changed = bytes.into();
            }
        }
        let theirs = oracle.ask(&json!({"op": "lookup", "key": key.to_string(), "path": target(number).path().as_str(), "version": "v1.0.0",
            "known": encode_base64(known.as_ref().map_or("", SignedHead::note).as_bytes()), "answer": encode_base64(&answer), "tiles": served.to_json()}));
        let own = own.map(|check| (check.tiles().to_vec(), check.run(|tile| served.get(tile))));
        let is_own_good = own.as_ref().is_none_or(|(_, outcome)| matches!(outcome, Outcome::Proved(_)));
        let outcome = ours.map(|check| check.run(|tile| served.get(tile)));
        let shown = String::from_utf8_lossy(&answer);
        let context = format!("round {round}: {theirs:?}\n{outcome:?}\n{shown}");
        *tally
            .entry(judge(theirs, outcome, is_own_good, &own.map_or_else(Vec::new, |(tiles, _)| tiles), &context))
            .or_default() += 1;
    }
    for (what, at_least) in [("proved", 200), ("fork", 40), ("refused", 100), ("another module", 10), ("own tiles", 15)]
    {
        assert!(tally.get(what).is_some_and(|count| *count >= at_least), "{what}: {tally:?}");
    }
}

/// Compares Go's verdict of a lookup with ours, and says which it was.
fn judge(
    theirs: Result<Value, String>,
    ours: Result<Outcome<ProvedRecord>, Lie>,
    is_own_good: bool,
    own: &[Tile],
    context: &str,
) -> &'static str {
    let is_form = ours.is_err();
    let alarm = theirs.as_ref().ok().and_then(|theirs| theirs["alarm"].as_str()).filter(|alarm| !alarm.is_empty());
    match ours {
        _ if !is_own_good => {
            assert!(theirs.is_err() || alarm.is_some(), "{context}");
            "own tiles"
        }
        Ok(Outcome::Proved(proved)) => {
            let theirs = theirs.expect(context);
            assert_eq!(alarm_of(&theirs), "", "{context}");
            let hashes = [proved.thing.zip(), proved.thing.go_mod()].into_iter().flatten().map(|h1| h1.to_string());
            let lines: Vec<&str> =
                theirs["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
            assert!(hashes.clone().all(|h1| lines.iter().any(|line| line.ends_with(&h1))), "{context}");
            let latest = decode_base64(theirs["latest"].as_str().unwrap()).unwrap();
            assert_eq!(proved.thing.head.head.note().as_bytes(), latest, "{context}");
            let saved = theirs["saved"].as_array().cloned().unwrap_or_default();
            let saved: BTreeSet<Tile> = saved.iter().map(|path| Tile::parse(path.as_str().unwrap()).unwrap()).collect();
            let used: BTreeSet<Tile> = proved.tiles.iter().map(|(tile, _)| *tile).collect();
            assert!(used.is_subset(&saved), "{context}");
            assert!(saved.difference(&used).all(|tile| own.contains(tile)), "{context}");
            "proved"
        }
        Ok(Outcome::Fork(fork)) => {
            if let Some(alarm) = alarm {
                assert_eq!(fork.to_string(), alarm, "{context}");
                return "fork";
            }
            // Two roots of one size contradict each other; Go wants to see tiles first, which may be missing or wrong.
            assert!(theirs.is_err() && fork.older().head().size == fork.newer().head().size, "{context}");
            "fork by heads alone"
        }
        // Go's client returns no line of such a record, which its caller takes for a refusal.
        Ok(Outcome::Lie(Lie::Record(RecordError::OfAnother { .. }))) => {
            assert!(
                theirs.is_err() || (alarm.is_none() && theirs.is_ok_and(|theirs| theirs["lines"].is_null())),
                "{context}"
            );
            "another module"
        }
        // Stricter here: spellings of numbers and of hashes, and records beyond the head they came with.
        Ok(Outcome::Lie(Lie::Record(RecordError::Hash { .. }) | Lie::BeyondHead { .. }))
        | Err(Lie::Record(RecordError::NoNumber)) => {
            assert!(alarm.is_none() || is_form, "{context}");
            "stricter"
        }
        Ok(Outcome::NeedTiles(_) | Outcome::Lie(_)) | Err(_) => {
            assert!(theirs.is_err(), "{context}");
            "refused"
        }
    }
}

fn alarm_of(answer: &Value) -> &str {
    answer["alarm"].as_str().unwrap_or_default()
}

/// The recorded public database, whose tiles are of four levels: every lookup after a random other one.
#[test]
fn public_lookups_agree() {
    let mut oracle = Oracle::start();
    let key = VerifierKey::known_or_parse("sum.golang.org").unwrap();
    let lookups = recorded_lookups();
    let mut random = fastrand::Rng::with_seed(17);
    for (target, answer) in &lookups {
        let known = LookupAnswer::parse(&random.choice(&lookups).unwrap().1).unwrap().note;
        let known = SignedHead::open(known, &key).unwrap();
        let own = HeadCheck::of(known.clone(), None);
        let check = LookupCheck::new(answer, target, Some(&known), &key).unwrap();
        let tiles = own.tiles().iter().chain(check.tiles());
        let mut served = Served(tiles.map(|tile| (tile.to_string(), recorded_tile(tile).unwrap())).collect());
        for is_forged in [false, true] {
            if is_forged {
                let paths: Vec<String> = check.tiles().iter().map(ToString::to_string).collect();
                let path = random.choice(&paths).unwrap();
                let mut bytes = served.0[path].to_vec();
                let at = random.usize(0..bytes.len());
                bytes[at] ^= 1;
                served.0.insert(path.clone(), bytes.into());
            }
            let theirs = oracle.ask(&json!({"op": "lookup", "key": key.to_string(), "path": target.path().as_str(), "version": target.version(),
                "known": encode_base64(known.note().as_bytes()), "answer": encode_base64(answer), "tiles": served.to_json()}));
            let is_own_good = matches!(own.run(|tile| served.get(tile)), Outcome::Proved(_));
            let verdict =
                judge(theirs, Ok(check.run(|tile| served.get(tile))), is_own_good, own.tiles(), &target.to_string());
            assert_eq!(verdict == "proved", !is_forged);
        }
    }
}
