//! Properties of the set: nothing is missed, whatever the order, the bounds and the restarts; a power cut at any step
//! leaves the old set or the new one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::*;

thread_local! {
    /// How many steps there are until the power fails; none while it does not.
    static STEPS_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

pub(super) fn step() -> io::Result<()> {
    match STEPS_LEFT.get() {
        Some(0) => Err(io::Error::other("power cut")),
        Some(left) => {
            STEPS_LEFT.set(Some(left - 1));
            Ok(())
        }
        None => Ok(()),
    }
}

const TINY: Bounds = Bounds { entries_max: 50, entries_spare: 10, fan_in: 3, read_bytes: 4 * run::ENTRY_BYTES };

fn name() -> SumdbName {
    SumdbName::parse("sum.example/a/b").unwrap()
}

fn open(own: &Path, bounds: Bounds) -> Seen {
    Seen::open_with(own, &name(), bounds).unwrap()
}

fn never() -> bool {
    false
}

fn add(seen: &mut Seen, number: u64, module: u64, hash: u64) {
    let line = format!("m{module} v1.0.0 h{hash}");
    seen.add(number, &format!("m{module} v1.0.0"), &[&line]).unwrap();
}

fn conflicts(findings: &Findings) -> Vec<(u64, u64)> {
    findings.conflicts.iter().map(|conflict| (conflict.first, conflict.second)).collect()
}

/// Returns the names of the files of the set.
fn files(own: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(own.join("audit/sum.example@a@b")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The bound that is promised holds for what is reserved: entries, buffers of runs, writer, conflicts.
#[test]
fn memory_is_bounded() {
    const { assert!(MEMORY_BYTES_MAX <= 8 << 20) };
    let own = tempfile::tempdir().unwrap();
    let mut seen = open(own.path(), Bounds { fan_in: 2, ..TINY });
    let reserved = seen.fresh.capacity();
    for number in 0..60 {
        assert_eq!(seen.is_full(), number >= 50);
        add(&mut seen, number, number, 0);
    }
    assert!(matches!(seen.add(60, "m v1.0.0", &[]), Err(SeenError::Full { entries: 60 })));
    assert_eq!(seen.fresh.capacity(), reserved);
    seen.forget_unsaved();
    assert!(matches!(seen.add(1 << 40, "m v1.0.0", &[]), Err(SeenError::Number { number: 0x100_0000_0000 })));
    seen.add((1 << 40) - 1, "m v1.0.0", &[]).unwrap();
    let mut findings = Findings::default();
    (0..2000).for_each(|number| findings.conflict(number, number + 1));
    assert_eq!(findings.conflicts.len(), CONFLICTS_MAX);
}

/// 300,000 entries through tiny bounds, with repetitions and conflicts at known places, across restarts: all of them are
/// found, and nothing else. The set is a few runs of 21 bytes an entry.
#[test]
fn many_entries_are_merged() {
    const RECORDS: u64 = 300_000;
    let own = tempfile::tempdir().unwrap();
    let bounds = Bounds { entries_max: 1000, entries_spare: 1, fan_in: 4, read_bytes: 4096 };
    let mut seen = open(own.path(), bounds);
    let (mut expected, mut repetitions) = (Vec::new(), 0);
    for number in 0..RECORDS {
        let block = number / 10_000;
        match number % 10_000 {
            // A module from the half of what came before, with another hash.
            9_999 => {
                let module = block / 2 * 10_000 + 17 + block % 2;
                expected.push((module, number));
                add(&mut seen, number, module, 1);
            }
            5_000 => {
                repetitions += 1;
                add(&mut seen, number, block / 3 * 10_000 + 100 + block % 3, 0);
            }
            _ => add(&mut seen, number, number, 0),
        }
        if seen.is_full() {
            seen.save(number + 1, &format!("state {number}"), &never).unwrap();
        }
        if number % 70_000 == 69_999 {
            drop(seen);
            seen = open(own.path(), bounds);
            assert_eq!((seen.reach(), seen.state()), (number + 1, format!("state {number}").as_str()));
        }
    }
    let findings = seen.settle(&never).unwrap().unwrap();
    assert_eq!((conflicts(&findings), findings.repetitions), (expected, repetitions));
    assert_eq!(seen.settle(&never).unwrap().unwrap(), findings);
    let (entries, runs) = seen.entries_and_runs();
    // 300 runs are 10230 in base 4.
    assert_eq!(runs, 6);
    assert_eq!(files(own.path()).len(), runs + 1);
    let folder = own.path().join("audit/sum.example@a@b");
    let bytes = |name: &String| std::fs::metadata(folder.join(name)).unwrap().len();
    let on_disk: u64 = files(own.path()).iter().filter(|name| *name != "manifest").map(bytes).sum();
    assert_eq!(on_disk, entries * 21);
}

/// The set finds what a map in memory finds, for random records of few modules, saves and restarts.
#[test]
fn agrees_with_a_map() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let own = tempfile::tempdir().unwrap();
        let bounds = Bounds { fan_in: random.usize(2..5), ..TINY };
        let mut seen = open(own.path(), bounds);
        let mut said: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
        let modules = random.u64(50..2000);
        for number in 0..1500 {
            let (module, hash) = (random.u64(0..modules), u64::from(random.u8(0..10) == 0));
            said.entry(module).or_default().push((number, hash));
            add(&mut seen, number, module, hash);
            if seen.is_full() || random.u8(0..40) == 0 {
                seen.save(number + 1, "", &never).unwrap();
            }
            if random.u16(0..300) == 0 {
                seen.save(number + 1, "", &never).unwrap();
                seen = open(own.path(), bounds);
            }
            if random.u16(0..500) == 0 {
                seen.settle(&never).unwrap().unwrap();
            }
        }
        seen.save(1500, "", &never).unwrap();
        let findings = seen.settle(&never).unwrap().unwrap();
        // A module that was said differently is in a conflict, which names two records of it that differ.
        let module_of =
            |number: u64| said.values().position(|said| said.iter().any(|(said, _)| *said == number)).unwrap();
        let hash_of = |number: u64| said.values().flatten().find(|(said, _)| *said == number).unwrap().1;
        let mut found: Vec<usize> = Vec::new();
        for (first, second) in conflicts(&findings) {
            assert_eq!(module_of(first), module_of(second));
            assert_ne!(hash_of(first), hash_of(second));
            found.push(module_of(first));
        }
        found.sort_unstable();
        found.dedup();
        let differs = |said: &Vec<(u64, u64)>| said.iter().any(|(_, hash)| *hash != said[0].1);
        let expected: Vec<usize> =
            said.values().enumerate().filter(|(_, said)| differs(said)).map(|(module, _)| module).collect();
        assert_eq!(found, expected, "seed {seed}");
        let first_differs = |said: &Vec<(u64, u64)>| said.iter().filter(|(_, hash)| *hash == said[0].1).count() - 1;
        if expected.is_empty() {
            assert_eq!(findings.repetitions, said.values().map(first_differs).sum::<usize>() as u64);
        }
    }
}

/// A conflict between two runs that are never merged is found by settling, between two entries of one save at once; the
/// order in which a record's number comes does not matter, and a restart does not forget.
#[test]
fn conflicts_are_found_across_runs_and_restarts() {
    let own = tempfile::tempdir().unwrap();
    let mut seen = open(own.path(), TINY);
    add(&mut seen, 0, 7, 0);
    add(&mut seen, 1, 8, 0);
    add(&mut seen, 2, 8, 1);
    seen.save(3, "one", &never).unwrap();
    assert_eq!(conflicts(seen.findings()), [(1, 2)]);
    drop(seen);
    let mut seen = open(own.path(), TINY);
    add(&mut seen, 3, 7, 1);
    add(&mut seen, 4, 9, 0);
    seen.save(5, "two", &never).unwrap();
    assert_eq!(conflicts(seen.findings()), [(1, 2)]);
    assert!(seen.settle(&|| true).unwrap().is_some(), "too short to be cancelled");
    assert_eq!(conflicts(seen.findings()), [(0, 3), (1, 2)]);
    drop(seen);
    let mut seen = open(own.path(), TINY);
    assert_eq!(conflicts(seen.findings()), [(0, 3), (1, 2)]);
    add(&mut seen, 5, 9, 0);
    seen.save(6, "three", &never).unwrap();
    let findings = seen.settle(&never).unwrap().unwrap();
    assert_eq!((conflicts(&findings), findings.repetitions), (vec![(0, 3), (1, 2)], 1));
    assert_eq!((seen.reach(), seen.state(), seen.entries_and_runs()), (6, "three", (3, 1)));
    Seen::remove(own.path(), &name()).unwrap();
    Seen::remove(own.path(), &name()).unwrap();
    let seen = open(own.path(), TINY);
    assert_eq!((seen.reach(), seen.state(), seen.findings()), (0, "", &Findings::default()));
}

/// The power fails at each step of a save that merges twice, in the middle of a run too. What is there afterwards is the
/// old set or the new one, nothing is left over, and going on from there finds what an undisturbed set finds.
#[test]
fn a_power_cut_at_any_step_loses_nothing() {
    const SAVES: u16 = 9;
    let save = |seen: &mut Seen, round: u64| {
        for number in round * 10..round * 10 + 10 {
            // Module 3 is said three times, last with another hash; module 40 twice alike.
            let (module, hash) = match number {
                33 => (3, 0),
                83 => (3, 1),
                85 => (40, 0),
                _ => (number, 0),
            };
            add(seen, number, module, hash);
        }
        seen.save((round + 1) * 10, &format!("round {round}"), &never)
    };
    let mut cut_in_round = [0; SAVES as usize];
    for steps in 0.. {
        let own = tempfile::tempdir().unwrap();
        let mut seen = open(own.path(), TINY);
        STEPS_LEFT.set(Some(steps));
        let mut cut = None;
        let mut round = 0;
        while round < u64::from(SAVES) {
            if save(&mut seen, round).is_ok() {
                round += 1;
                continue;
            }
            assert_eq!(cut, None);
            cut = Some(round);
            STEPS_LEFT.set(None);
            let saved = seen.reach();
            drop(seen);
            seen = open(own.path(), TINY);
            assert!(seen.reach() == round * 10 || seen.reach() == round * 10 + 10);
            // What is durable may be more than what the process that died knew.
            assert!(seen.reach() >= saved);
            assert!(seen.reach() == 0 || seen.state() == format!("round {}", seen.reach() / 10 - 1));
            let mut left = files(own.path());
            left.retain(|name| name != "manifest");
            assert_eq!(left.len(), seen.entries_and_runs().1, "cut after {steps}");
            round = seen.reach() / 10;
        }
        STEPS_LEFT.set(None);
        let findings = seen.settle(&never).unwrap().unwrap();
        assert_eq!((conflicts(&findings), findings.repetitions), (vec![(3, 83)], 2), "cut after {steps}");
        match cut {
            Some(round) => cut_in_round[usize::try_from(round).unwrap()] += 1,
            None => break,
        }
    }
    // Six steps to write a run, two for the manifest; the third, sixth and ninth save merge, the last one twice.
    assert!(cut_in_round.iter().all(|cuts| *cuts >= 7), "{cut_in_round:?}");
    assert!(cut_in_round[8] > cut_in_round[2] && cut_in_round[2] > cut_in_round[0], "{cut_in_round:?}");
}

/// A merge that is cancelled leaves the set as it was, all of it saved; the next save merges.
#[test]
fn cancelled_merges_are_made_up_for() {
    let own = tempfile::tempdir().unwrap();
    let bounds = Bounds { entries_max: 5000, ..TINY };
    let mut seen = open(own.path(), bounds);
    for round in 0..3 {
        (round * 3000..(round + 1) * 3000).for_each(|number| add(&mut seen, number, number, 0));
        seen.save((round + 1) * 3000, "", &|| true).unwrap();
    }
    assert_eq!((seen.reach(), seen.entries_and_runs()), (9000, (9000, 3)));
    assert_eq!(files(own.path()).len(), 4);
    assert!(seen.settle(&|| true).unwrap().is_none());
    seen.save(9000, "", &never).unwrap();
    assert_eq!((seen.entries_and_runs(), files(own.path()).len()), ((9000, 1), 2));
}

/// A byte that changed in a run or in the manifest is noticed, and so is a file that lost its end or is gone.
#[test]
fn damage_is_noticed() {
    let own = tempfile::tempdir().unwrap();
    let mut seen = open(own.path(), TINY);
    (0..40).for_each(|number| add(&mut seen, number, number, 0));
    seen.save(40, "state\nof\n", &never).unwrap();
    drop(seen);
    let folder = own.path().join("audit/sum.example@a@b");
    let is_damaged = |error: SeenError| matches!(error, SeenError::Damaged { .. });
    for name in files(own.path()) {
        let path = folder.join(name);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            std::fs::write(&path, changed).unwrap();
            let found =
                Seen::open_with(own.path(), &super::tests::name(), TINY).and_then(|mut seen| seen.settle(&never));
            assert!(is_damaged(found.unwrap_err()), "{} at {at}", path.display());
        }
        std::fs::write(&path, &whole[1..]).unwrap();
        assert!(is_damaged(Seen::open_with(own.path(), &super::tests::name(), TINY).unwrap_err()));
        if path.extension().is_some() {
            std::fs::remove_file(&path).unwrap();
            assert!(is_damaged(Seen::open_with(own.path(), &super::tests::name(), TINY).unwrap_err()));
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(open(own.path(), TINY).state(), "state\nof\n");
}

/// Two sets remember the same thing differently: nobody can prepare two hashes that look like one.
#[test]
fn sets_have_salts_of_their_own() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let entry = |own: &Path| {
        let mut seen = open(own, TINY);
        add(&mut seen, 1, 1, 1);
        seen.fresh[0]
    };
    assert_ne!(entry(one.path()), entry(other.path()));
}
