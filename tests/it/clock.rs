//! A board without a battery clock: at 1970 it works, and nothing is thrown away for a time that is not true.

use crate::harness::{FakeClock, Larder, Start, Tree, Upstream, run_command, temp_dir, wait_for};

const PATHS: [&str; 3] =
    ["/example.com/made/@v/v1.0.0.info", "/example.com/made/@v/v1.0.0.mod", "/example.com/made/@v/v1.0.0.zip"];

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
    let Some(clock) = FakeClock::new() else { return };
    let tree = Tree::new().module("example.com/made", "v1.0.0", 100_000);
    let (upstream, folder) = (Upstream::with(tree.path(), &[]), temp_dir());
    let cache = folder.path().join("cache");
    clock.set("1970-01-01 00:01:00");
    let mut larder = clock.show_to(Start::on(&upstream)).cache(&cache).args(["-max-cache-age", "1h"]).run();
    for path in PATHS {
        larder.get(path).expect(200);
        larder.hit(path);
    }
    clock.set("1970-03-01 00:00:00");
    collect(&larder);
    assert!(PATHS.iter().all(|path| larder.has(path)), "removed by a clock at 1970");
    larder.stop();
    // The same after a start with files that come from the future.
    let larder = clock.show_to(Start::on(&upstream)).cache(&cache).args(["-max-cache-age", "1h"]).run();
    collect(&larder);
    for path in PATHS {
        larder.hit(path);
    }
}

/// When the clock jumps from 1970 to today, what was stored before counts as used at that moment: it is kept, and
/// ages from then on.
#[test]
fn a_jump_to_today_removes_nothing() {
    let Some(clock) = FakeClock::new() else { return };
    let tree = Tree::new().module("example.com/made", "v1.0.0", 100_000);
    let upstream = Upstream::with(tree.path(), &[]);
    clock.set("1970-01-01 00:01:00");
    let larder = clock.show_to(Start::on(&upstream)).args(["-max-cache-age", "1h", "-fresh-for", "0s"]).run();
    for path in PATHS {
        larder.get(path).expect(200);
    }
    larder.get("/example.com/made/@v/list").expect(200);
    clock.set("2027-01-01 12:00:00");
    collect(&larder);
    assert!(PATHS.iter().all(|path| larder.has(path)), "removed by the jump");
    larder.get("/example.com/made/@v/list").expect(200);
    clock.set("2027-01-01 12:30:00");
    collect(&larder);
    assert!(PATHS.iter().all(|path| larder.has(path)), "removed half an hour after the jump");
    clock.set("2027-01-01 16:00:00");
    wait_for("the removal by age", || {
        collect(&larder);
        PATHS.iter().all(|path| !larder.has(path)).then_some(())
    });
}

/// A clock that goes back, from today to 1970 after a power cut, removes nothing either, and answers stay fresh for a
/// bounded time only.
#[test]
fn a_power_cut_back_to_1970_keeps_all() {
    let Some(clock) = FakeClock::new() else { return };
    let tree = Tree::new().module("example.com/made", "v1.0.0", 100_000);
    let (upstream, folder) = (Upstream::with(tree.path(), &[]), temp_dir());
    let cache = folder.path().join("cache");
    clock.set("2027-01-01 12:00:00");
    let run =
        || clock.show_to(Start::on(&upstream)).cache(&cache).args(["-max-cache-age", "1h", "-fresh-for", "0s"]).run();
    let mut larder = run();
    for path in PATHS {
        larder.get(path).expect(200);
    }
    larder.get("/example.com/made/@v/list").expect(200);
    larder.kill();
    clock.set("1970-01-01 00:00:30");
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
