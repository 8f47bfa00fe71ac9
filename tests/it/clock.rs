//! A board without a battery clock: at 1970 it works, and nothing is thrown away for a time that is not true.

use std::path::{Path, PathBuf};

use crate::harness::{Larder, Start, Tree, Upstream, run_command, temp_dir, wait_for};

const PATHS: [&str; 3] =
    ["/example.com/made/@v/v1.0.0.info", "/example.com/made/@v/v1.0.0.mod", "/example.com/made/@v/v1.0.0.zip"];

/// The library that shows a program another time; without it the test is left out, with a line that says so.
fn faketime() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .chain([PathBuf::from("/usr/lib/faketime/libfaketimeMT.so.1")])
        .find(|library| library.is_file());
    if found.is_none() {
        println!("left out: the package faketime is not installed");
    }
    found
}

/// Prepares a Larder whose wall clock is what `clock` says, a file with a line like `@1970-01-01 00:01:00`.
fn at(library: &Path, clock: &Path, upstream: &Upstream) -> Start {
    Start::on(upstream)
        .env("LD_PRELOAD", library.to_str().unwrap())
        .env("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("NO_FAKE_STAT", "1")
        .env("TZ", "UTC")
}

fn set(clock: &Path, time: &str) {
    std::fs::write(clock, format!("@{time}\n")).unwrap();
}

#[track_caller]
fn collect(larder: &Larder) -> String {
    let output = larder.command(&["gc"]);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

/// With the clock at 1970 everything is fetched and served, and removal by age removes nothing.
#[test]
fn at_1970_it_serves_and_keeps() {
    let Some(library) = faketime() else { return };
    let tree = Tree::new().module("example.com/made", "v1.0.0", 100_000);
    let (upstream, folder) = (Upstream::with(tree.path(), &[]), temp_dir());
    let clock = folder.path().join("clock");
    set(&clock, "1970-01-01 00:01:00");
    let cache = folder.path().join("cache");
    let mut larder = at(&library, &clock, &upstream).cache(&cache).args(["-max-cache-age", "1h"]).run();
    for path in PATHS {
        larder.get(path).expect(200);
        larder.hit(path);
    }
    set(&clock, "1970-03-01 00:00:00");
    collect(&larder);
    assert!(PATHS.iter().all(|path| larder.has(path)), "removed by a clock at 1970");
    larder.stop();
    // The same after a start with files that come from the future.
    let larder = at(&library, &clock, &upstream).cache(&cache).args(["-max-cache-age", "1h"]).run();
    collect(&larder);
    for path in PATHS {
        larder.hit(path);
    }
}

/// When the clock jumps from 1970 to today, what was stored before counts as used at that moment: it is kept, and
/// ages from then on.
#[test]
fn a_jump_to_today_removes_nothing() {
    let Some(library) = faketime() else { return };
    let tree = Tree::new().module("example.com/made", "v1.0.0", 100_000);
    let (upstream, folder) = (Upstream::with(tree.path(), &[]), temp_dir());
    let clock = folder.path().join("clock");
    set(&clock, "1970-01-01 00:01:00");
    let larder = at(&library, &clock, &upstream).args(["-max-cache-age", "1h", "-fresh-for", "0s"]).run();
    for path in PATHS {
        larder.get(path).expect(200);
    }
    larder.get("/example.com/made/@v/list").expect(200);
    set(&clock, "2027-01-01 12:00:00");
    collect(&larder);
    assert!(PATHS.iter().all(|path| larder.has(path)), "removed by the jump");
    larder.get("/example.com/made/@v/list").expect(200);
    set(&clock, "2027-01-01 12:30:00");
    collect(&larder);
    assert!(PATHS.iter().all(|path| larder.has(path)), "removed half an hour after the jump");
    set(&clock, "2027-01-01 14:00:00");
    wait_for("the removal by age", || {
        collect(&larder);
        PATHS.iter().all(|path| !larder.has(path)).then_some(())
    });
}

/// A clock that goes back, from today to 1970 after a power cut, removes nothing either, and answers stay fresh for a
/// bounded time only.
#[test]
fn a_power_cut_back_to_1970_keeps_all() {
    let Some(library) = faketime() else { return };
    let tree = Tree::new().module("example.com/made", "v1.0.0", 100_000);
    let (upstream, folder) = (Upstream::with(tree.path(), &[]), temp_dir());
    let (clock, cache) = (folder.path().join("clock"), folder.path().join("cache"));
    set(&clock, "2027-01-01 12:00:00");
    let run = || at(&library, &clock, &upstream).cache(&cache).args(["-max-cache-age", "1h", "-fresh-for", "0s"]).run();
    let mut larder = run();
    for path in PATHS {
        larder.get(path).expect(200);
    }
    larder.get("/example.com/made/@v/list").expect(200);
    larder.kill();
    set(&clock, "1970-01-01 00:00:30");
    let mut larder = run();
    collect(&larder);
    for path in PATHS {
        larder.hit(path);
    }
    let _tree = tree.module("example.com/made", "v1.1.0", 100);
    assert_eq!(
        larder.get("/example.com/made/@v/list").expect(200).text().lines().count(),
        2,
        "a list from the future is never asked for again"
    );
    larder.stop();
    assert!(run_command(&cache, &["status"]).status.success());
}
