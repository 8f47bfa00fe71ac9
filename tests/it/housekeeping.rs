//! Making room: by age, by size, by free space, and never what is pinned, read or being fetched.

use std::io::Read;

use crate::harness::{FakeClock, Larder, Start, Tmpfs, Tree, Upstream, run_command, temp_dir, wait_for};

/// A tree of `example.com/m0`, `m1`, …, each with one version and a zip of `bytes`.
fn modules(count: usize, bytes: usize) -> Tree {
    (0..count).fold(Tree::new(), |tree, index| tree.module(&format!("example.com/m{index}"), "v1.0.0", bytes))
}

fn zip(index: usize) -> String {
    format!("/example.com/m{index}/@v/v1.0.0.zip")
}

/// Fetches all three files of a module's version, and its list, and waits until they are stored and noted.
fn fetch(larder: &Larder, index: usize) {
    for name in ["v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "list"] {
        larder.get(&format!("/example.com/m{index}/@v/{name}")).expect(200);
        let line = format!("stored example.com/m{index}/@v/{name}");
        wait_for(&line, || larder.log().contains(&line).then_some(()));
    }
}

/// Which of the modules' versions are stored, by their zips; a version that is there in part fails the test.
fn stored(larder: &Larder, count: usize) -> Vec<usize> {
    (0..count)
        .filter(|index| {
            let has = ["info", "mod", "zip"].map(|kind| larder.has(&zip(*index).replace("zip", kind)));
            assert!(has.iter().all(|file| *file == has[0]), "m{index} is there in part: {has:?}");
            has[0]
        })
        .collect()
}

#[track_caller]
fn command(larder: &Larder, args: &[&str]) -> String {
    let output = larder.command(args);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "larder {}: {text}", args.join(" "));
    text
}

/// A version that nobody has used for `-max-cache-age` goes as a whole, by itself; one that is used stays, and so does
/// one that is pinned; lists stay.
#[test]
fn unused_versions_go_by_age() {
    let Some(clock) = FakeClock::new() else { return };
    let tree = modules(3, 10_000);
    let upstream = Upstream::with(tree.path(), &[]);
    clock.set_hour(0);
    let args = ["-max-cache-age", "48h", "-cleanup-interval", "1s"];
    let larder = clock.show_to(Start::on(&upstream)).args(args).run();
    for index in 0..3 {
        fetch(&larder, index);
    }
    command(&larder, &["pin", "example.com/m2@v1.0.0"]);
    clock.set_hour(40);
    command(&larder, &["gc"]);
    assert_eq!(stored(&larder, 3), [0, 1, 2], "removed before its time");
    larder.hit(&zip(0));
    clock.set_hour(60);
    wait_for("the unused version to go", || {
        let left = ["info", "mod", "zip"].map(|kind| larder.has(&zip(1).replace("zip", kind)));
        (left == [false; 3]).then_some(())
    });
    command(&larder, &["gc"]);
    assert_eq!(stored(&larder, 3), [0, 2]);
    assert!(larder.has("/example.com/m1/@v/list"));
    fetch(&larder, 1);
}

/// By default nothing goes by age.
#[test]
fn age_is_off_by_default() {
    let tree = modules(1, 1000);
    let upstream = Upstream::with(tree.path(), &[]);
    let larder = Larder::start(&upstream);
    fetch(&larder, 0);
    command(&larder, &["gc"]);
    assert_eq!(stored(&larder, 1), [0]);
}

/// Above `-max-cache-size` the least recently used versions go, only as many as needed, and `--dry-run` names them
/// without touching them.
#[test]
fn the_least_recently_used_go_by_size() {
    let Some(clock) = FakeClock::new() else { return };
    let tree = modules(5, 1_000_000);
    let (upstream, folder) = (Upstream::with(tree.path(), &[]), temp_dir());
    let run = |limit| {
        let args = ["-max-cache-size", limit, "-cleanup-interval", "24h"];
        clock.show_to(Start::on(&upstream)).cache(folder.path()).args(args).run()
    };
    clock.set_hour(0);
    let mut larder = run("10MB");
    for (index, hour) in [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8)] {
        clock.set_hour(hour);
        fetch(&larder, index);
    }
    command(&larder, &["gc"]);
    assert_eq!(stored(&larder, 5), [0, 1, 2, 3, 4], "removed below the limit");
    clock.set_hour(10);
    larder.hit(&zip(0));
    command(&larder, &["pin", "example.com/m1"]);
    larder.stop();
    let larder = run("3500KB");
    let planned = command(&larder, &["gc", "--dry-run"]);
    assert!(planned.contains("example.com/m2@v1.0.0") && planned.contains("example.com/m3@v1.0.0"), "{planned}");
    assert!(!planned.contains("example.com/m0@") && !planned.contains("example.com/m1@"), "{planned}");
    assert_eq!(stored(&larder, 5), [0, 1, 2, 3, 4], "a dry run removed something");
    command(&larder, &["gc"]);
    assert_eq!(stored(&larder, 5), [0, 1, 4]);
}

/// Below `-min-free-space` the least recently used versions go until there is room.
#[test]
fn a_floor_of_free_space_is_kept() {
    let (Some(disk), Some(clock)) = (Tmpfs::mount(24 << 20), FakeClock::new()) else { return };
    let tree = modules(5, 4_000_000);
    let upstream = Upstream::with(tree.path(), &[]);
    clock.set_hour(0);
    let args = ["-min-free-space", "10MB", "-cleanup-interval", "1s"];
    let larder = clock.show_to(Start::on(&upstream)).cache(&disk.path().join("cache")).args(args).run();
    for (index, hour) in [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8)] {
        clock.set_hour(hour);
        larder.get(&zip(index)).expect(200);
    }
    wait_for("the oldest to go", || (!larder.has(&zip(0))).then_some(()));
    assert!(larder.has(&zip(4)), "the newest went");
    wait_for("room to be made", || {
        let disk = rustix::fs::statvfs(disk.path()).unwrap();
        (disk.f_bavail * disk.f_frsize >= 10_000_000).then_some(())
    });
}

/// What a client is reading at the moment is not removed; it goes afterwards.
#[test]
fn what_is_being_read_stays() {
    let Some(clock) = FakeClock::new() else { return };
    let tree = modules(1, 40 << 20);
    let upstream = Upstream::with(tree.path(), &[]);
    clock.set_hour(0);
    let args = ["-max-cache-age", "10h", "-cleanup-interval", "24h"];
    let larder = clock.show_to(Start::on(&upstream)).args(args).run();
    larder.hit(&zip(0));
    let mut reading = larder.open(&zip(0));
    reading.read_exact(&mut [0; 1000]).unwrap();
    clock.set_hour(30);
    command(&larder, &["gc"]);
    assert!(larder.has(&zip(0)), "removed while it was read");
    let mut rest = Vec::new();
    reading.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() + 1000, tree.read(&zip(0)).len());
    clock.set_hour(60);
    wait_for("the removal afterwards", || {
        command(&larder, &["gc"]);
        (!larder.has(&zip(0))).then_some(())
    });
}

/// Pins are set, listed and lifted while Larder runs and while it does not, and survive a restart.
#[test]
fn pins_work_with_and_without_the_service() {
    let Some(clock) = FakeClock::new() else { return };
    let tree = modules(3, 1000);
    let (upstream, folder) = (Upstream::with(tree.path(), &[]), temp_dir());
    clock.set_hour(0);
    let run = || {
        let args = ["-max-cache-age", "10h", "-cleanup-interval", "24h"];
        clock.show_to(Start::on(&upstream)).cache(folder.path()).args(args).run()
    };
    let mut larder = run();
    for index in 0..3 {
        fetch(&larder, index);
    }
    command(&larder, &["pin", "example.com/m0"]);
    larder.stop();
    assert!(run_command(folder.path(), &["pin", "example.com/m1@v1.0.0"]).status.success());
    assert!(!run_command(folder.path(), &["pin", "no module"]).status.success());
    clock.set_hour(30);
    let larder = run();
    let pins = command(&larder, &["pins"]);
    assert!(pins.contains("example.com/m0") && pins.contains("example.com/m1@v1.0.0"), "{pins}");
    wait_for("the unpinned one to go", || {
        command(&larder, &["gc"]);
        (!larder.has(&zip(2))).then_some(())
    });
    assert_eq!(stored(&larder, 3), [0, 1]);
    command(&larder, &["unpin", "example.com/m0"]);
    wait_for("the one no longer pinned to go", || {
        command(&larder, &["gc"]);
        (!larder.has(&zip(0))).then_some(())
    });
    assert_eq!(stored(&larder, 3), [1]);
}

/// `larder gc` and `larder status` do the same with and without a running service.
#[test]
fn commands_work_with_and_without_the_service() {
    let tree = modules(2, 100_000);
    let upstream = Upstream::with(tree.path(), &[]);
    let folder = temp_dir();
    let mut larder = Start::on(&upstream).cache(folder.path()).run();
    fetch(&larder, 0);
    let running = command(&larder, &["status"]);
    assert!(!running.trim().is_empty());
    larder.stop();
    let stopped = run_command(folder.path(), &["status"]);
    assert!(stopped.status.success() && !stopped.stdout.is_empty());
    let planned = run_command(folder.path(), &["gc", "--dry-run", "-max-cache-size", "1KB"]);
    let shown = String::from_utf8_lossy(&planned.stdout);
    assert!(planned.status.success() && shown.contains("example.com/m0@v1.0.0"), "{shown}");
    assert_eq!(stored(&larder, 2), [0]);
    assert!(run_command(folder.path(), &["gc", "-max-cache-size", "1KB"]).status.success());
    assert_eq!(stored(&larder, 2), Vec::<usize>::new());
}

/// A hit writes nothing below the cache directory.
#[test]
fn hits_write_nothing() {
    let tree = modules(1, 1000);
    let upstream = Upstream::with(tree.path(), &[]);
    let larder = Larder::start(&upstream);
    fetch(&larder, 0);
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", larder.pid())).unwrap();
        let line = io.lines().find(|line| line.starts_with("write_bytes")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    larder.hit(&zip(0));
    // What was fetched is noted in the index a little later; after that, rounds of hits leave no trace.
    wait_for("a round of hits that writes nothing", || {
        let before = written();
        for _ in 0..200 {
            larder.get(&zip(0)).expect(200);
        }
        (written() == before).then_some(())
    });
}
