//! Properties of verifying: over logs of every small size, over forks of them, and over the recorded public database.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::check::{HeadCheck, Lie, LookupCheck, Outcome, Proved, ProvedRecord, Standing, TileCheck};
use super::fork::{EvidenceError, Fork};
use super::generate::{Log, Signer};
use super::head::HeadError;
use super::note::NoteError;
use super::record::RecordError;
use super::tree::Node;
use super::{Hash, LookupTarget, SignedHead, Tile, TileLevel, VerifierKey};
use crate::module::ModulePath;
use crate::module::zip::hash::H1;

/// A record with both lines for `example.com/mNUMBER`, and hashes that the salt changes.
pub(super) fn record(number: u64, salt: &str) -> String {
    let h1 = |what: &str| format!("h1:{}", Hash::of_record(format!("{number}{what}{salt}").as_bytes()));
    let module = format!("example.com/m{number} v1.0.0");
    format!("{module} {}\n{module}/go.mod {}\n", h1("zip"), h1("mod"))
}

pub(super) fn target(number: u64) -> LookupTarget {
    LookupTarget::new(ModulePath::parse(&format!("example.com/m{number}")).unwrap(), "v1.0.0").unwrap()
}

/// A log of modules, whose records differ from the other's from `fork_at` on.
pub(super) fn modules(size: u64, fork_at: u64) -> Log {
    Log::new((0..size).map(|number| record(number, if number < fork_at { "" } else { "fork" })))
}

pub(super) fn signer() -> Signer {
    Signer::new("sum.example", 1)
}

pub(super) fn signed(log: &Log, size: u64, signer: &Signer) -> SignedHead {
    SignedHead::open(signer.sign(&log.head(size).to_string()).as_bytes(), &signer.key()).unwrap()
}

fn lookup(log: &Log, number: u64, size: u64, known: Option<&SignedHead>) -> LookupCheck {
    let answer = log.answer(number, size, &signer());
    LookupCheck::new(answer.as_bytes(), &target(number), known, &signer().key()).unwrap()
}

fn proved<Thing: std::fmt::Debug>(outcome: Outcome<Thing>) -> Proved<Thing> {
    match outcome {
        Outcome::Proved(proved) => proved,
        Outcome::NeedTiles(_) | Outcome::Lie(_) | Outcome::Fork(_) => panic!("not proved: {outcome:?}"),
    }
}

fn lie<Thing: std::fmt::Debug>(outcome: Outcome<Thing>) -> Lie {
    match outcome {
        Outcome::Lie(lie) => lie,
        Outcome::NeedTiles(_) | Outcome::Proved(_) | Outcome::Fork(_) => panic!("no lie: {outcome:?}"),
    }
}

/// An honest log is believed, whatever the known size, the size that came and the record, and what may be stored is what
/// was asked for, in the widths of the newer log.
#[test]
fn honest_logs_are_believed() {
    let log = modules(600, 600);
    let mut random = fastrand::Rng::with_seed(5);
    let edges = [0, 1, 2, 255, 256, 257, 511, 512, 513, 599, 600];
    let sizes = (0..120).map(|_| (random.u64(0..=600), random.u64(1..=600)));
    let sizes: Vec<_> = edges.iter().flat_map(|a| edges[1..].iter().map(|b| (*a, *b))).chain(sizes).collect();
    for (known_size, came_size) in sizes {
        let known = signed(&log, known_size, &signer());
        let number = random.u64(0..came_size);
        for known in [None, Some(&known)] {
            let check = lookup(&log, number, came_size, known);
            let all: BTreeSet<Tile> = check.tiles().iter().copied().collect();
            let Outcome::NeedTiles(needed) = check.run(|_| None) else { panic!("proved from nothing") };
            assert_eq!(needed, check.tiles());
            let proved = proved(check.run(|tile| Some(log.tile(tile))));
            let stored: BTreeSet<Tile> = proved.tiles.iter().map(|(tile, _)| *tile).collect();
            assert_eq!(stored, all);
            assert!(proved.tiles.iter().all(|(tile, bytes)| *bytes == log.tile(tile)));
            let newest = known.map_or(came_size, |_| came_size.max(known_size));
            assert!(stored.iter().all(|tile| Tile::in_tree(tile.level(), tile.index(), newest) == Some(*tile)));
            let ProvedRecord { number: proved_number, go_sum, head } = proved.thing;
            let lines = record(number, "");
            let hashes: Vec<H1> =
                lines.lines().map(|line| H1::parse(line.rsplit_once(' ').unwrap().1).unwrap()).collect();
            assert_eq!((proved_number, go_sum.zip, go_sum.go_mod), (number, Some(hashes[0]), Some(hashes[1])));
            let standing = match known.map(|_| came_size.cmp(&known_size)) {
                None | Some(std::cmp::Ordering::Greater) => Standing::Newer,
                Some(std::cmp::Ordering::Equal) => Standing::Same,
                Some(std::cmp::Ordering::Less) => Standing::Older,
            };
            assert_eq!((head.standing, *head.head.head()), (standing, log.head(newest)));
        }
    }
}

/// A bit changed in any tile is found, and named where one tile alone can be wrong; nothing is proved without it.
#[test]
fn changed_tiles_are_found() {
    let log = modules(600, 600);
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..25 {
        let (known_size, came_size) = (random.u64(0..=600), random.u64(1..=600));
        let known = signed(&log, known_size, &signer());
        let check = lookup(&log, random.u64(0..came_size), came_size, Some(&known));
        for tile in check.tiles() {
            for _ in 0..20 {
                let at = random.usize(0..usize::from(tile.width()) * 32);
                let changed = |asked: &Tile| {
                    let mut bytes = log.tile(asked).to_vec();
                    if asked == tile {
                        bytes[at] ^= 1 << random.u32(0..8);
                    }
                    Some(Bytes::from(bytes))
                };
                let lie = lie(check.run(changed));
                assert!(lie.may_be_stale_tiles() && lie.to_string().starts_with("inconsistent tile"));
                match lie {
                    Lie::Root { tiles, .. } => assert!(tiles.contains(tile)),
                    Lie::Tile { tile: named, .. } => assert_eq!(named, *tile),
                    other => panic!("{other}"),
                }
            }
            let short = check
                .run(|asked| Some(log.tile(asked)).map(|bytes| if asked == tile { bytes.slice(32..) } else { bytes }));
            assert_eq!(lie(short), Lie::TileLength { tile: *tile });
        }
    }
}

/// A fork is proved to be one wherever it begins, from either side, and to anyone; where the logs agree on all that the
/// older head covers there is none.
#[test]
fn forks_are_proved() {
    let key = signer().key();
    let mut random = fastrand::Rng::with_seed(7);
    let honest = modules(600, 600);
    for _ in 0..100 {
        let fork_at = random.u64(0..600);
        let forked = modules(600, fork_at);
        let (known_size, came_size) = (random.u64(1..=600), random.u64(1..=600));
        let known = signed(&honest, known_size, &signer());
        let check = lookup(&forked, random.u64(0..came_size), came_size, Some(&known));
        // Tiles as whoever answers for the newer head has them.
        let newer = if came_size >= known_size { &forked } else { &honest };
        let outcome = check.run(|tile| Some(newer.tile(tile)));
        if fork_at >= known_size.min(came_size) && (came_size >= known_size || fork_at >= came_size) {
            proved(outcome);
            continue;
        }
        let Outcome::Fork(fork) = outcome else { panic!("no fork: {outcome:?}") };
        let sizes = [fork.older(), fork.newer()].map(|head| head.head().size);
        assert_eq!(sizes, [known_size.min(came_size), known_size.max(came_size)]);
        let text = fork.to_string();
        assert_eq!(Fork::parse(&text, &key).as_ref(), Ok(&*fork));
        let other_key = Signer::new("sum.example", 2).key();
        assert!(matches!(Fork::parse(&text, &other_key), Err(EvidenceError::Head(HeadError::Note(_)))));
    }
}

/// Where stored tiles contradict the head that came they first show as tiles that do not fit; fresh ones show the fork.
#[test]
fn a_fork_below_stored_tiles_is_found_with_fresh_ones() {
    let (honest, forked) = (modules(600, 600), modules(600, 3));
    let known = signed(&honest, 255, &signer());
    let check = lookup(&forked, 520, 600, Some(&known));
    // The older log ends in 0/000, which is full by now.
    let first = lie(check.run(|tile| Some(if tile.is_partial() { forked.tile(tile) } else { honest.tile(tile) })));
    assert!(first.may_be_stale_tiles());
    assert!(matches!(check.run(|tile| Some(forked.tile(tile))), Outcome::Fork(_)));
}

/// Who forks cannot hide it behind a tile of the record that is wrong or missing.
#[test]
fn a_fork_is_found_without_the_tiles_of_the_record() {
    let (honest, forked) = (modules(600, 600), modules(600, 300));
    let known = signed(&honest, 400, &signer());
    let check = lookup(&forked, 3, 600, Some(&known));
    let record_tile = *check.tiles().last().unwrap();
    assert_eq!(record_tile.to_string(), "tile/8/0/000");
    assert!(matches!(check.run(|tile| (*tile != record_tile).then(|| forked.tile(tile))), Outcome::Fork(_)));
    let zeros = |tile: &Tile| Some(if *tile == record_tile { vec![0; 8192].into() } else { forked.tile(tile) });
    assert!(matches!(check.run(zeros), Outcome::Fork(_)));
    // Nor behind a record of something else.
    let answer = forked.answer(3, 600, &signer());
    let check = LookupCheck::new(answer.as_bytes(), &target(4), Some(&known), &signer().key()).unwrap();
    assert!(matches!(check.run(|tile| Some(forked.tile(tile))), Outcome::Fork(_)));
}

/// What was stored for some lookups, made in any order, is all that a client needs that has nothing: for each of them, after
/// any of the others, with a partial tile cut from the widest that is stored.
#[test]
fn what_is_stored_serves_clients_that_have_nothing() {
    let (log, signer, mut random) = (modules(70_000, 70_000), signer(), fastrand::Rng::with_seed(9));
    for _ in 0..4 {
        let (mut stored, mut answers) = (BTreeMap::<(TileLevel, u64), Bytes>::new(), Vec::new());
        let cut = |stored: &BTreeMap<(TileLevel, u64), Bytes>, tile: &Tile| {
            let wide = stored.get(&(tile.level(), tile.index()))?;
            Some(wide.slice(..tile.cut(wide)?.len()))
        };
        let mut known = None;
        for _ in 0..14 {
            let size = random.choice([70_000, 66_000, 65_536, 600]).unwrap() - random.u64(0..500);
            let number = random.u64(0..size);
            let answer = log.answer(number, size, &signer);
            let check = LookupCheck::new(answer.as_bytes(), &target(number), known.as_ref(), &signer.key()).unwrap();
            let proved = proved(check.run(|tile| Some(cut(&stored, tile).unwrap_or_else(|| log.tile(tile)))));
            for (tile, bytes) in proved.tiles {
                let wide = stored.entry((tile.level(), tile.index())).or_default();
                if wide.len() < bytes.len() {
                    *wide = bytes;
                }
            }
            known = Some(proved.thing.head.head);
            answers.push((number, answer));
        }
        for _ in 0..4 {
            let mut known = None;
            random.shuffle(&mut answers);
            for (number, answer) in &answers {
                let check =
                    LookupCheck::new(answer.as_bytes(), &target(*number), known.as_ref(), &signer.key()).unwrap();
                let own = known.clone().map(|known| HeadCheck::of(known, None));
                assert!(own.is_none_or(|own| matches!(own.run(|tile| cut(&stored, tile)), Outcome::Proved(_))));
                known = Some(proved(check.run(|tile| cut(&stored, tile))).thing.head.head);
            }
        }
    }
}

/// Evidence that is changed shows nothing, and neither do two heads of one log.
#[test]
fn changed_evidence_shows_nothing() {
    let key = signer().key();
    let (honest, forked) = (modules(600, 600), modules(600, 300));
    let check = lookup(&forked, 0, 600, Some(&signed(&honest, 400, &signer())));
    let Outcome::Fork(fork) = check.run(|tile| Some(forked.tile(tile))) else { panic!("no fork") };
    let text = fork.to_string();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1 << (at % 7);
        let parsed = String::from_utf8(bytes).map(|changed| Fork::parse(&changed, &key));
        // What is still evidence is the same one: a base64 letter before the padding carries bits that nobody reads.
        if let Ok(Ok(other)) = parsed {
            let heads = |fork: &Fork| [*fork.older().head(), *fork.newer().head()];
            assert_eq!(heads(&other), heads(&fork), "byte {at}");
        }
    }
    for wrong in
        ["", "old database:\n", &text.replace("new database:", ""), &text.replace('\t', ""), &(text.clone() + "\n\n")]
    {
        assert_eq!(Fork::parse(wrong, &key), Err(EvidenceError::Malformed), "{wrong}");
    }
    assert!(Fork::parse(&(text.clone() + "\n"), &key).is_ok());
    let (heads, _) = text.split_once("proof of misbehavior:\n\t").unwrap();
    let with = |proof: &str| Fork::parse(&format!("{heads}proof of misbehavior:\n\t{proof}"), &key);
    assert_eq!(with(""), Err(EvidenceError::Malformed));
    let same = fork.newer().clone();
    assert_eq!(Fork::new(same.clone(), same.clone(), same.head().root, Vec::new()), None);
    assert_eq!(with(&same.head().root.to_string()), Err(EvidenceError::ShowsNone));
}

/// Every bit of an answer counts, its last signature letter's two unused ones aside.
#[test]
fn every_byte_of_an_answer_counts() {
    let log = modules(300, 300);
    let (signer, key) = (signer(), signer().key());
    let known = signed(&log, 200, &signer);
    let answer = log.answer(256, 300, &signer);
    let mut believed = Vec::new();
    for at in 0..answer.len() {
        for bit in 0..8 {
            let mut changed = answer.clone().into_bytes();
            changed[at] ^= 1 << bit;
            let Ok(check) = LookupCheck::new(&changed, &target(256), Some(&known), &key) else { continue };
            if let Outcome::Proved(_) = check.run(|tile| Some(log.tile(tile))) {
                believed.push(at);
            }
        }
        let cut = LookupCheck::new(&answer.as_bytes()[..at], &target(256), Some(&known), &key);
        assert!(cut.is_err(), "cut to {at} bytes");
    }
    assert!(believed.iter().all(|at| *at == answer.len() - 3), "{believed:?}");
}

/// golang/go#79070: a true answer to another question is a lie.
#[test]
fn issue_79070_a_signed_answer_for_another_module() {
    let log = modules(300, 300);
    let answer = log.answer(7, 300, &signer());
    for other in [8, 70] {
        let check = LookupCheck::new(answer.as_bytes(), &target(other), None, &signer().key()).unwrap();
        let lie = lie(check.run(|tile| Some(log.tile(tile))));
        assert_eq!(lie, Lie::Record(RecordError::OfAnother { target: target(other) }));
    }
}

/// golang/go#80745: lines of go.sum count within the record alone: not in a signed head's further lines, not in its
/// signatures, and not in what precedes the record.
#[test]
fn issue_80745_lines_outside_of_the_record_do_not_count() {
    let log = modules(300, 300);
    let (signer, key) = (signer(), signer().key());
    let forged = record(9999, "forged");
    let another = |answer: &str| {
        let check = LookupCheck::new(answer.as_bytes(), &target(9999), None, &key).unwrap();
        let lie = lie(check.run(|tile| Some(log.tile(tile))));
        assert_eq!(lie, Lie::Record(RecordError::OfAnother { target: target(9999) }), "{answer}");
    };
    let head = log.head(300).to_string();
    let answer = |text: &str| format!("7\n{}\n{}", log.records[7], signer.sign(text));
    another(&answer(&format!("{head}{forged}")));
    another(&answer(&format!("{head}\n{forged}")));
    // The head's further lines do no harm to the record that is there.
    let own = LookupCheck::new(answer(&format!("{head}{forged}")).as_bytes(), &target(7), None, &key).unwrap();
    proved(own.run(|tile| Some(log.tile(tile))));
    // Unless they are for the very module: a go command from before the fix would take them.
    let misleading = answer(&format!("{head}{}", record(7, "forged")));
    let own = LookupCheck::new(misleading.as_bytes(), &target(7), None, &key).unwrap();
    assert_eq!(lie(own.run(|tile| Some(log.tile(tile)))), Lie::LinesOutside { target: target(7) });
    let appended = LookupCheck::new((answer(&head) + &forged).as_bytes(), &target(9999), None, &key);
    assert!(matches!(appended, Err(Lie::Head(HeadError::Note(NoteError::NotSignature { .. })))));
    let before = LookupCheck::new((forged.clone() + &answer(&head)).as_bytes(), &target(9999), None, &key);
    assert_eq!(before.unwrap_err(), Lie::Record(RecordError::NoNumber));
    // Put into the record, the lines are found, and are not in the log.
    let within = format!("7\n{}{forged}\n{}", log.records[7], signer.sign(&head));
    let check = LookupCheck::new(within.as_bytes(), &target(9999), None, &key).unwrap();
    assert_eq!(lie(check.run(|tile| Some(log.tile(tile)))), Lie::NotInLog { number: 7, size: 300 });
}

/// golang/go#80744: a forged record is not believed because the lowest tile was forged to fit, on the right edge or right
/// behind it, in a log of more subtrees than tiles.
#[test]
fn issue_80744_forged_lowest_tiles_are_found() {
    let (signer, key) = (signer(), signer().key());
    let log = modules(511, 511);
    // 511 = 255 + 256: nine subtrees; right edge 1/000.p/1 and 0/001.p/255; record 0 is in 0/000, the third tile.
    for number in [0, 300, 510] {
        let text = record(number, "forged");
        let answer = format!("{number}\n{text}\n{}", signer.sign(&log.head(511).to_string()));
        let check = LookupCheck::new(answer.as_bytes(), &target(number), None, &key).unwrap();
        let leaf = Hash::of_record(text.as_bytes());
        let forged = |tile: &Tile| {
            let mut bytes = log.tile(tile).to_vec();
            if tile.level() == TileLevel::Hashes(0) && tile.index() == number / 256 {
                let at = usize::try_from(number % 256).unwrap() * 32;
                bytes[at..at + 32].copy_from_slice(leaf.as_bytes());
            }
            Some(Bytes::from(bytes))
        };
        let lie = lie(check.run(forged));
        match lie {
            Lie::Tile { tile, .. } => assert_eq!((number, tile.to_string().as_str()), (0, "tile/8/0/000")),
            Lie::Root { .. } => assert_ne!(number, 0),
            other => panic!("{other}"),
        }
    }
}

/// An older head is taken for what it is; one that does not reach to its own record is a lie, known newer head or not.
#[test]
fn heads_do_not_move_backwards() {
    let log = modules(600, 600);
    let known = signed(&log, 600, &signer());
    let old = HeadCheck::new(signed(&log, 300, &signer()).note().as_bytes(), Some(&known), &signer().key()).unwrap();
    let proved_head = proved(old.run(|tile| Some(log.tile(tile)))).thing;
    assert_eq!((proved_head.standing, proved_head.head), (Standing::Older, known.clone()));
    let alone = HeadCheck::of(known.clone(), None);
    assert_eq!(alone.tiles().len(), 2);
    assert_eq!(proved(alone.run(|tile| Some(log.tile(tile)))).thing.standing, Standing::Newer);
    let beyond = log.answer(300, 300, &signer());
    for known in [None, Some(&known)] {
        let check = LookupCheck::new(beyond.as_bytes(), &target(300), known, &signer().key()).unwrap();
        let lie = lie(check.run(|tile| Some(log.tile(tile))));
        assert_eq!(lie, Lie::BeyondHead { number: 300, size: 300 });
    }
    assert!(matches!(
        HeadCheck::new(b"", None, &signer().key()),
        Err(Lie::Head(HeadError::Note(NoteError::NoSignatures)))
    ));
    let wrong = super::TreeHead { size: 300, root: Hash::of_record(b"wrong") };
    let wrong = SignedHead::open(signer().sign(&wrong.to_string()).as_bytes(), &signer().key()).unwrap();
    assert!(matches!(lie(HeadCheck::of(wrong, None).run(|tile| Some(log.tile(tile)))), Lie::Root { .. }));
    let empty = signed(&log, 0, &signer());
    assert_eq!(proved(HeadCheck::of(empty, None).run(|_| None)).tiles.len(), 0);
}

/// A tile that a client asks for is proved in the width the known log has it in, records as well as hashes.
#[test]
fn single_tiles_are_proved() {
    let log = modules(600, 600);
    let known = signed(&log, 600, &signer());
    for (level, index, tiles) in [
        (TileLevel::Hashes(0), 0, 3),
        (TileLevel::Hashes(0), 2, 2),
        (TileLevel::Hashes(1), 0, 2),
        (TileLevel::Data, 1, 4),
        (TileLevel::Data, 2, 3),
    ] {
        let check = TileCheck::new(level, index, &known).unwrap();
        assert_eq!(check.tiles().len(), tiles);
        let proved = proved(check.run(|tile| Some(log.tile(tile))));
        assert_eq!((&proved.thing, proved.tiles.len()), (check.tile(), tiles));
        assert!(matches!(check.run(|_| None), Outcome::NeedTiles(needed) if needed == check.tiles()));
        for at in [0, 31, 40] {
            let changed = check.run(|tile| {
                let mut bytes = log.tile(tile).to_vec();
                bytes[at] ^= u8::from(tile == check.tile());
                Some(bytes.into())
            });
            assert!(lie(changed).may_be_stale_tiles());
        }
    }
    assert!(TileCheck::new(TileLevel::Hashes(0), 3, &known).is_none());
    assert!(TileCheck::new(TileLevel::Hashes(2), 0, &known).is_none());
    assert!(TileCheck::new(TileLevel::Data, 3, &known).is_none());
}

/// A signed head of any size, up to the largest there can be, is dealt with and asks for a bounded number of tiles.
#[test]
fn absurd_sizes_are_harmless() {
    let log = modules(10, 10);
    let known = signed(&log, 10, &signer());
    for size in [11, 1 << 32, (1 << 62) - 1, 1 << 62, u64::try_from(i64::MAX).unwrap()] {
        let head = super::TreeHead { size, root: Hash::of_record(b"") };
        let head = SignedHead::open(signer().sign(&head.to_string()).as_bytes(), &signer().key()).unwrap();
        let check = HeadCheck::of(head, Some(&known));
        assert!(check.tiles().len() <= 24, "{}", check.tiles().len());
        let zeros = |tile: &Tile| Some(Bytes::from(vec![0; usize::from(tile.width()) * 32]));
        assert!(matches!(lie(check.run(zeros)), Lie::Root { .. }));
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tree/sumdb/sum.golang.org")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Reads a recorded tile, cut from the widest there is.
pub(super) fn recorded_tile(tile: &Tile) -> Option<Bytes> {
    let widths = tile.width()..=256;
    let mut wide = widths.filter_map(|width| Tile::new(tile.level(), tile.index(), width));
    let bytes = wide.find_map(|wide| std::fs::read(fixture().join(wide.to_string())).ok())?;
    Some(Bytes::copy_from_slice(tile.cut(&bytes)?))
}

/// Returns the recorded lookups: what was asked for, and the answer.
pub(super) fn recorded_lookups() -> Vec<(LookupTarget, Vec<u8>)> {
    let base = fixture().join("lookup");
    let lookup = |file: PathBuf| {
        let escaped = file.strip_prefix(&base).unwrap().to_str().unwrap();
        let (path, version) = escaped.rsplit_once('@').unwrap();
        let version = version.replace("!g!a", "GA");
        (LookupTarget::new(ModulePath::from_escaped(path).unwrap(), &version).unwrap(), std::fs::read(&file).unwrap())
    };
    files_below(&base).into_iter().map(lookup).collect()
}

/// Every recorded lookup of the public database is proved, in any order, alone and against every head of another's.
#[test]
fn the_recorded_public_database_is_believed() {
    let key = VerifierKey::known_or_parse("sum.golang.org").unwrap();
    let lookups = recorded_lookups();
    assert!(lookups.len() > 20);
    let latest = SignedHead::open(&std::fs::read(fixture().join("latest")).unwrap(), &key).unwrap();
    let head_of = |answer: &[u8]| {
        let parsed = super::record::LookupAnswer::parse(answer).unwrap();
        SignedHead::open(parsed.note, &key).unwrap()
    };
    let mut random = fastrand::Rng::with_seed(8);
    for (target, answer) in &lookups {
        let some = head_of(&random.choice(&lookups).unwrap().1);
        for known in [None, Some(&latest), Some(&some)] {
            let check = LookupCheck::new(answer, target, known, &key).unwrap();
            let proved = proved(check.run(recorded_tile)).thing;
            let number = std::str::from_utf8(answer).unwrap().lines().next().unwrap();
            assert_eq!(proved.number.to_string(), number);
            let lines = std::str::from_utf8(answer).unwrap();
            assert!(lines.contains(&format!(
                "{} {} {}\n",
                target.path(),
                target.version(),
                proved.go_sum.zip.unwrap()
            )));
            assert!(lines.contains(&format!("/go.mod {}\n", proved.go_sum.go_mod.unwrap())));
        }
    }
}

/// The nodes of one tile are all that is below one node, and the tile's place follows.
#[test]
fn nodes_lie_in_their_tiles() {
    for (level, index, tile, range) in [
        (0, 0, "tile/8/0/000", 0..1),
        (0, 511, "tile/8/0/001", 255..256),
        (7, 1, "tile/8/0/000", 128..256),
        (7, 2, "tile/8/0/001", 0..128),
        (8, 0, "tile/8/1/000", 0..1),
        (9, 3, "tile/8/1/000", 6..8),
    ] {
        let node = Node { level, index };
        assert_eq!(node.tile_in(1 << 16).map(|tile| tile.to_string()).as_deref(), Some(tile));
        assert_eq!(node.range_in_tile(), range);
        assert_eq!(node.tile_in(index << level), None);
    }
}
