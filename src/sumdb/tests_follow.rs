//! Properties of following: over logs of many sizes and starts, with every record flipped once.

use super::authentic::AuthenticTiles;
use super::follow::{DATA_TILE_BYTES_MAX, Entry, FollowError, Follower, StateError, entries};
use super::generate::{Log, Signer};
use super::tests::{modules, signed, signer};
use super::{Hash, Tile, TileLevel, TreeHead};

/// Takes all tiles that are left and returns the numbers of the records.
fn take_all(follower: &mut Follower, log: &Log) -> Result<Vec<u64>, FollowError> {
    let mut numbers = Vec::new();
    for tile in follower.tiles() {
        let bytes = log.tile(&tile);
        for (number, text) in follower.take(&tile, &bytes)?.records {
            assert_eq!(text, log.records[usize::try_from(number).unwrap()]);
            numbers.push(number);
        }
    }
    Ok(numbers)
}

fn tiles_of(plan: &super::authentic::TilePlan, log: &Log) -> AuthenticTiles {
    plan.prove(|tile| Some(log.tile(tile))).unwrap()
}

/// Begins at a size of the same log.
fn begin(log: &Log, start: u64, size: u64) -> Follower {
    let (start, target) = (log.head(start), signed(log, size, &signer()));
    let tiles = tiles_of(&Follower::start_plan(&start, &target), log);
    Follower::from_head(&start, &tiles, target).unwrap()
}

/// From every start to every size, record by record, each once, with the root of the log at the end; and on from there.
#[test]
fn honest_logs_are_followed() {
    let log = modules(1100, 1100);
    let edges = [0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 767, 768, 1000, 1023, 1024, 1025, 1100];
    for size in edges {
        for start in edges.into_iter().filter(|start| *start <= size) {
            let mut follower = begin(&log, start, size);
            assert_eq!((follower.from(), follower.proved(), follower.audited().size), (start, start, start));
            assert_eq!(take_all(&mut follower, &log).unwrap(), (start..size).collect::<Vec<_>>());
            assert_eq!((follower.next_tile(), follower.proved(), follower.taken()), (None, start, size));
            assert_eq!(follower.finish(), Ok(log.head(size)));
            follower.aim(signed(&log, 1100, &signer())).unwrap();
            assert_eq!(take_all(&mut follower, &log).unwrap(), (size..1100).collect::<Vec<_>>());
            assert_eq!((follower.finish(), follower.proved(), follower.from()), (Ok(log.head(1100)), 1100, start));
        }
        let mut follower = Follower::from_start(signed(&log, size, &signer()));
        take_all(&mut follower, &log).unwrap();
        assert_eq!(follower.finish(), Ok(log.head(size)));
    }
}

/// Every record that is another one than the log's is found out, by the next waypoint and by the root at the end; after
/// rolling back the true records are taken.
#[test]
fn every_flipped_record_is_found() {
    let log = Log::numbered("record", 600);
    for flipped in 0..600 {
        let mut follower = Follower::from_start(signed(&log, 600, &signer()));
        let mut other = log.clone();
        other.records[flipped] = format!("other {flipped}\n");
        for tile in follower.tiles() {
            follower.take(&tile, &other.tile(&tile)).unwrap();
            let tiles = tiles_of(&follower.waypoint(), &log);
            let proved = follower.clone().prove(&tiles);
            assert_eq!(proved.is_err(), follower.taken() > flipped as u64, "{flipped} in {tile}");
            if let Err(error) = proved {
                let to = follower.taken() - 1;
                assert_eq!(error, FollowError::Contradiction { from: 0, to, head: log.head(600) });
                assert!(error.may_be_damaged_tiles());
            }
        }
        let Err(FollowError::Root { root, head }) = follower.finish() else { panic!("{flipped} was not found") };
        assert_eq!((head, follower.audited().size), (log.head(600), 0));
        assert_ne!(root, head.root);
        follower.roll_back();
        take_all(&mut follower, &log).unwrap();
        assert_eq!(follower.finish(), Ok(log.head(600)));
    }
}

/// A follower that is killed after any tile goes on from its last waypoint; what was not proved is not in its state, and
/// the audited head has not moved.
#[test]
fn state_holds_what_is_proved() {
    let log = modules(1500, 1500);
    let mut follower = begin(&log, 100, 1450);
    for (count, tile) in follower.tiles().enumerate() {
        let before = follower.state();
        follower.take(&tile, &log.tile(&tile)).unwrap();
        assert_eq!(follower.state(), before);
        if count % 2 == 1 {
            follower.prove(&tiles_of(&follower.waypoint(), &log)).unwrap();
            assert_ne!(follower.state(), before);
        }
        let mut resumed = Follower::resume(&follower.state(), &signer().key()).unwrap();
        assert_eq!(resumed.state(), follower.state());
        assert_eq!((resumed.from(), *resumed.audited()), (100, log.head(100)));
        assert_eq!((resumed.proved(), resumed.taken()), (follower.proved(), follower.proved()));
        resumed.aim(signed(&log, 1500, &signer())).unwrap();
        assert_eq!(take_all(&mut resumed, &log).unwrap(), (follower.proved()..1500).collect::<Vec<_>>());
        assert_eq!(resumed.finish(), Ok(log.head(1500)));
    }
}

/// Nothing but a state of a follower of this key is resumed.
#[test]
fn states_of_others_are_refused() {
    let log = modules(600, 600);
    let mut follower = begin(&log, 3, 600);
    let state = follower.state();
    let resume = |text: &str| Follower::resume(text, &signer().key()).map(|follower| follower.state());
    assert_eq!(resume(&state), Ok(state.clone()));
    let hash = Hash::of_record(b"another").to_string();
    for wrong in [
        String::new(),
        state.replace("audit 1", "audit 2"),
        state.replace("from 3", "from 4"),
        state.replace("proved 3", "proved 4"),
        state.replace("audited 3", "audited 601"),
        state.replace("proved 3\n", &format!("proved 3\n{hash}\n")),
        state.replacen(&log.hash(super::tree::Node::of_record(2)).unwrap().to_string(), &hash, 1),
        state.replace("tree\n600", "tree\n601"),
        state[..state.len() / 2].to_owned(),
    ] {
        assert_eq!(resume(&wrong), Err(StateError), "{wrong}");
    }
    let other = Signer::new("sum.example", 2);
    assert_eq!(Follower::resume(&state, &other.key()).map(|follower| follower.state()), Err(StateError));
    take_all(&mut follower, &log).unwrap();
    follower.finish().unwrap();
    let state = follower.state();
    assert_eq!(resume(&state), Ok(state.clone()));
    // A finished one is checked against the root that was signed.
    let first = state.lines().nth(4).unwrap();
    assert_eq!(resume(&state.replacen(first, &hash, 1)), Err(StateError));
}

/// Tiles that are not the next one, too short, too long or no records are named, and nothing of them is taken; a full tile
/// stands for a partial one.
#[test]
fn wrong_tiles_are_named() {
    let log = modules(600, 600);
    let mut follower = Follower::from_start(signed(&log, 300, &signer()));
    let tile = |index, width| Tile::new(TileLevel::Data, index, width).unwrap();
    let (first, second) = (tile(0, 256), tile(1, 44));
    assert_eq!(follower.tiles().collect::<Vec<_>>(), [first, second]);
    assert_eq!(follower.take(&second, &log.tile(&second)), Err(FollowError::NotNext { tile: second }));
    let bytes = log.tile(&first);
    let short = log.tile(&tile(0, 255));
    assert_eq!(follower.take(&first, &short), Err(FollowError::TooFew { tile: first, records: 255 }));
    let overlong = [&bytes[..], b"a\n\n"].concat();
    let huge = vec![b'a'; usize::try_from(DATA_TILE_BYTES_MAX).unwrap() + 1];
    for malformed in [&overlong[..], &bytes[..bytes.len() - 1], &huge, b"\xff\n\n"] {
        assert_eq!(follower.take(&first, malformed), Err(FollowError::Malformed { tile: first }));
    }
    assert_eq!(follower.finish(), Err(FollowError::Unfinished { size: 0, target: 300 }));
    follower.take(&first, &bytes).unwrap();
    let full = log.tile(&second.full());
    assert_eq!(follower.take(&second, &full).unwrap().records.len(), 44);
    assert_eq!(follower.finish(), Ok(log.head(300)));
    let behind = FollowError::Behind { size: 300, target: 299 };
    assert_eq!(follower.aim(signed(&log, 299, &signer())), Err(behind));
}

/// A start or a target of another history, and tiles of another plan, are found out.
#[test]
fn other_histories_are_found() {
    let (log, fork) = (modules(600, 600), modules(600, 200));
    let target = signed(&log, 600, &signer());
    let start = fork.head(300);
    let tiles = tiles_of(&Follower::start_plan(&start, &target), &log);
    let error = Follower::from_head(&start, &tiles, target.clone()).unwrap_err();
    assert_eq!(error, FollowError::Start { start, size: 600 });
    assert!(!error.may_be_damaged_tiles());
    let larger = TreeHead { size: 601, ..start };
    let error = Follower::from_head(&larger, &tiles, target.clone()).unwrap_err();
    assert_eq!(error, FollowError::Behind { size: 601, target: 600 });
    let error = Follower::from_head(&log.head(3), &tiles, target.clone()).unwrap_err();
    assert_eq!(error, FollowError::OtherTiles);
    let error = Follower::from_head(&log.head(300), &tiles, signed(&log, 599, &signer())).unwrap_err();
    assert_eq!(error, FollowError::OtherTiles);

    let mut follower = Follower::from_start(signed(&log, 300, &signer()));
    take_all(&mut follower, &log).unwrap();
    follower.finish().unwrap();
    follower.aim(signed(&fork, 600, &signer())).unwrap();
    assert_eq!(follower.prove(&tiles), Err(FollowError::OtherTiles));
    let contradiction = follower.prove(&tiles_of(&follower.waypoint(), &fork)).unwrap_err();
    assert!(matches!(contradiction, FollowError::Contradiction { from: 299, to: 299, .. }), "{contradiction:?}");
    take_all(&mut follower, &fork).unwrap();
    assert!(matches!(follower.finish(), Err(FollowError::Root { .. })));
    assert_eq!(follower.audited(), &log.head(300));
}

/// A waypoint each 64 tiles takes one hash tile more for each 256 data tiles, beside those above them.
#[test]
fn waypoints_are_cheap() {
    let log = Log::numbered("record", 200_000);
    let mut follower = Follower::from_start(signed(&log, 200_000, &signer()));
    let mut asked = std::collections::BTreeSet::new();
    for (count, tile) in follower.tiles().enumerate() {
        follower.take(&tile, &log.tile(&tile)).unwrap();
        if count % 64 == 63 {
            let plan = follower.waypoint();
            asked.extend(plan.tiles().to_vec());
            follower.prove(&tiles_of(&plan, &log)).unwrap();
        }
    }
    follower.finish().unwrap();
    let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
    // The right edge: three tiles; then one for each 256 data tiles.
    let all =
        ["tile/8/0/781.p/64", "tile/8/1/000", "tile/8/1/001", "tile/8/1/002", "tile/8/1/003.p/13", "tile/8/2/000.p/3"];
    assert_eq!(asked, all);
}

/// Lines are grouped by module version, in whatever order they come; others are counted.
#[test]
fn records_are_read() {
    let h1 = |what: &str| format!("h1:{}", Hash::of_record(what.as_bytes()));
    let (zip, go_mod) = (format!("a.b/c v1.0.0 {}", h1("zip")), format!("a.b/c v1.0.0/go.mod {}", h1("mod")));
    let other = format!("a.b/d v1.0.0 {}", h1("d"));
    let text = format!("{go_mod}\n{other}\n{zip}\n{zip}\n");
    let both = Entry { module_version: "a.b/c v1.0.0", lines: vec![&zip, &go_mod] };
    let one = Entry { module_version: "a.b/d v1.0.0", lines: vec![&other] };
    let found = entries(&text);
    assert_eq!((found.entries, found.odd_lines), (vec![both, one], 0));
    for odd in ["a", "a b", "a v1 h2:abc", "a v1 h1:abc", "", &format!("a  {}", h1("a")), &format!("a b c {}", h1("a"))]
    {
        let text = format!("{odd}\n");
        let found = entries(&text);
        assert_eq!((found.entries.len(), found.odd_lines), (0, 1), "{odd}");
    }
}
