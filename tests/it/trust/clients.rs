//! The real go command with its own verification on is the judge of the proxied database: on line, off line, in any order.

use std::process::Command;

use super::{Ground, LARGE, file, lookup, modules, unverified};
use crate::harness::{Go, Larder, Start, Upstream, json, public_key, root, temp_dir};

/// The public database's name.
const PUBLIC: &str = "sum.golang.org";

/// Builds the pocket application with the real go command from empty caches, its database on, and compares its go.sum.
#[track_caller]
fn build_pocket(larder: &Larder) {
    let script = root().join("tests/tools/fresh-build.sh");
    let built = Command::new(script).args(["pocket", &larder.url]).output().unwrap();
    let shown = [built.stdout, built.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(built.status.success() && shown.contains("go.sum as recorded"), "{shown}");
}

/// A fresh go command with the public database on builds the fixture application through Larder, which verifies all of it
/// with the recorded data of that database; then another one does with everything behind Larder gone, and another after
/// a restart.
#[test]
fn the_fixture_application_is_built_and_verified_on_line_and_off() {
    let mut upstream = Upstream::start();
    let folder = temp_dir();
    let flag = format!("{} {}/sumdb/{PUBLIC}", public_key(), upstream.url);
    let start =
        || Start::upstream(&upstream.url).cache(folder.path()).args(["-gosumdb", &flag, "-sumdb-mode", "strict"]);
    let mut larder = start().run();
    build_pocket(&larder);
    assert_eq!(unverified(&larder), 0);
    assert!(super::alarms(&larder).is_empty());
    // A second one finds all of it stored.
    upstream.reset();
    build_pocket(&larder);
    assert_eq!(upstream.requests(), 0, "{:?}", upstream.log());
    let restart = start();
    upstream.stop();
    build_pocket(&larder);
    larder.stop();
    let larder = restart.run();
    build_pocket(&larder);
}

/// The same with lookups that carry one shared head, and with the database found through the upstream.
#[test]
fn the_fixture_application_is_verified_with_one_head() {
    let mut upstream = Upstream::with(&crate::harness::fixture(), &["-head", "latest", "-drop-partials"]);
    let larder = Start::on(&upstream).args(["-gosumdb", &public_key()]).run();
    build_pocket(&larder);
    assert_eq!(unverified(&larder), 0);
    upstream.stop();
    build_pocket(&larder);
}

/// Module versions that were verified one by one, by several machines, in any order, while the log grew and was answered
/// for by mirrors of different age, are verified by fresh machines off line, in any other order, one by one and all in one.
#[test]
fn whatever_was_verified_is_verified_off_line() {
    let names: Vec<String> = (0..8).map(|number| format!("example.com/m{number}@v1.0.0")).collect();
    let tree = modules(&names.iter().map(String::as_str).collect::<Vec<_>>(), 2000);
    let mut random = fastrand::Rng::with_seed(20);
    // Sizes around the edges of tiles: one tile, two, and a few on two levels.
    for (round, pad) in [(0, 250), (1, 508), (2, 70_000)] {
        let mut ground = Ground::over(copy(&tree), &["-pad", &pad.to_string(), "-pad-behind", "300"]);
        let key = ground.sumdb.key.clone();
        let mut order = names.clone();
        random.shuffle(&mut order);
        let larder = ground.strict().run();
        for name in &order {
            let size = random.u64(ground.sumdb.number(name) + 1..=ground.sumdb.size);
            ground.sumdb.mode(json!({"mode": "rollback", "size": size}));
            Go::new(&larder.url).sumdb(&key).expect(&["mod", "download", name]);
            ground.sumdb.honest();
        }
        ground.sumdb.stop();
        ground.upstream.stop();
        random.shuffle(&mut order);
        for name in &order[..3] {
            Go::new(&larder.url).sumdb(&key).expect(&["mod", "download", name]);
        }
        let go = Go::new(&larder.url).sumdb(&key).require(&order);
        go.expect(&["mod", "download"]);
        assert!(go.expect(&["mod", "verify"]).contains("all modules verified"), "{round}");
        let sums = std::fs::read_to_string(go.module().join("go.sum")).unwrap();
        assert!(names.iter().all(|name| sums.contains(name.split('@').next().unwrap())), "{sums}");
        assert_eq!(unverified(&larder), 0);
    }
}

/// Copies a made-up tree.
fn copy(tree: &crate::harness::Tree) -> crate::harness::Tree {
    let other = crate::harness::Tree::new();
    for (path, content) in crate::harness::files_below(tree.path()) {
        other.put(path.to_str().unwrap(), &content);
    }
    other
}

/// The database's own clients, who know nothing of modules here, are served too: one that verifies a module from elsewhere
/// needs the database alone.
#[test]
fn a_client_may_have_its_modules_from_elsewhere() {
    let mut ground = Ground::new(&["-pad", "300"]);
    let larder = ground.start().run();
    let elsewhere = Upstream::with(ground.tree.path(), &["-no-sumdb"]);
    // The go command walks on from the first, which proxies no database, to Larder.
    let proxies = format!("{},{}", elsewhere.url, larder.url);
    Go::new(&proxies).sumdb(&ground.sumdb.key).expect(&["mod", "download", super::A]);
    assert!(larder.has(&lookup(&ground.sumdb, super::A)) && !larder.has(&file(super::A, "zip")));
    ground.sumdb.stop();
    Go::new(&proxies).sumdb(&ground.sumdb.key).expect(&["mod", "download", super::A]);
}

/// What is stored because somebody asked for the module alone is enough for a client that verifies, off line: the lookup,
/// and every tile its proof needs, come with the module.
#[test]
fn a_lookup_is_stored_with_its_module() {
    let mut ground = Ground::over(modules(&[super::A, super::B], LARGE), &["-pad", "600"]);
    let larder = ground.start().run();
    for module in [super::B, super::A] {
        Go::new(&larder.url).expect(&["mod", "download", module]);
    }
    ground.sumdb.stop();
    ground.upstream.stop();
    for module in [super::A, super::B] {
        Go::new(&larder.url).sumdb(&ground.sumdb.key).expect(&["mod", "download", module]);
    }
}
