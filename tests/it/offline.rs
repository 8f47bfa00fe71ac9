//! Without the upstream: what is stored is served, what can be had is told, what cannot is said at once, and the
//! upstream's return is noticed.

use std::time::{Duration, Instant};

use crate::harness::{Answer, Go, Larder, Start, Tree, Upstream, fixture, json, temp_dir, wait_for, wait_within};

const MODULE: &str = "example.com/three";

/// A module with three versions, and one that is not listed.
fn three_versions() -> Tree {
    let tree = Tree::new();
    let tree = ["v1.0.0", "v1.1.0", "v1.2.0"].iter().fold(tree, |tree, version| tree.module(MODULE, version, 2000));
    tree.put(&format!("{MODULE}/@latest"), &tree.read(&format!("{MODULE}/@v/v1.2.0.info")));
    tree.put(&format!("{MODULE}/@v/main.info"), &tree.read(&format!("{MODULE}/@v/v1.2.0.info")));
    tree
}

/// Starts a Larder for which answers that may change are stale at once.
fn forgetful(upstream: &Upstream) -> Larder {
    Start::on(upstream).args(["-fresh-for", "0s", "-retry-attempts", "2"]).run()
}

fn is_stale_or_offline(answer: &Answer) -> bool {
    let status = answer.header("cache-status");
    status.contains("stale") || status.contains("offline")
}

/// Everything stored is served while the upstream is gone, and the whole of a real module can be downloaded again.
#[test]
fn stored_files_are_served() {
    let mut upstream = Upstream::start();
    let larder = forgetful(&upstream);
    let args =
        ["mod", "download", "rsc.io/quote@v1.5.2", "github.com/BurntSushi/toml@v1.6.0", "gopkg.in/yaml.v3@v3.0.1"];
    Go::new(&larder.url).sumdb("sum.golang.org").expect(&args);
    upstream.stop();
    Go::new(&larder.url).sumdb("sum.golang.org").expect(&args);
}

/// Three versions known, one stored: offline the list, @latest and a branch tell what can be had, and `go get` of the
/// latest succeeds with it.
#[test]
fn lists_tell_what_can_be_had() {
    let tree = three_versions();
    let mut upstream = Upstream::with(tree.path(), &[]);
    let larder = forgetful(&upstream);
    let list = format!("/{MODULE}/@v/list");
    assert_eq!(larder.get(&list).expect(200).text(), "v1.0.0\nv1.1.0\nv1.2.0\n");
    larder.get(&format!("/{MODULE}/@latest")).expect(200);
    // Known by its info and go.mod, but without its zip a version cannot be had.
    larder.get(&format!("/{MODULE}/@v/v1.2.0.info")).expect(200);
    larder.get(&format!("/{MODULE}/@v/v1.2.0.mod")).expect(200);
    Go::new(&larder.url).expect(&["mod", "download", &format!("{MODULE}@v1.1.0")]);
    upstream.stop();
    let offline = larder.settled(&list).expect(200);
    assert_eq!(offline.text().trim(), "v1.1.0");
    assert!(is_stale_or_offline(&offline), "{}", offline.header("cache-status"));
    assert!(larder.get(&format!("/{MODULE}/@latest")).expect(200).text().contains("v1.1.0"));
    let go = Go::new(&larder.url);
    go.expect(&["get", &format!("{MODULE}@latest")]);
    assert!(go.expect(&["list", "-m", "all"]).contains("v1.1.0"));
    Go::new(&larder.url).expect(&["get", &format!("{MODULE}@v1")]);
    assert_eq!(
        std::fs::read_to_string(larder.stored(&list)).unwrap(),
        "v1.0.0\nv1.1.0\nv1.2.0\n",
        "the file is the upstream's"
    );
}

/// Where nothing of a module can be had, the remembered list is the answer, marked as stale, and the log says so.
#[test]
fn remembered_lists_are_better_than_none() {
    let tree = three_versions();
    let mut upstream = Upstream::with(tree.path(), &[]);
    let larder = forgetful(&upstream);
    let list = format!("/{MODULE}/@v/list");
    let online = larder.get(&list).expect(200);
    upstream.stop();
    let offline = larder.settled(&list).expect(200);
    assert_eq!(offline.text(), online.text());
    assert!(is_stale_or_offline(&offline), "{}", offline.header("cache-status"));
    assert!(larder.log().contains("out of reach, serving what is stored"), "{}", larder.log());
}

/// Offline, pseudo-versions are left out of a computed list, and @latest of a module without tags is the one stored.
#[test]
fn modules_without_tags_work_offline() {
    let mut upstream = Upstream::start();
    let larder = forgetful(&upstream);
    let module = "github.com/munnerz/goautoneg";
    let go = Go::new(&larder.url);
    go.expect(&["get", &format!("{module}@latest")]);
    upstream.stop();
    assert_eq!(larder.settled(&format!("/{module}/@v/list")).expect(200).text(), "");
    Go::new(&larder.url).expect(&["get", &format!("{module}@latest")]);
}

/// A prefix that is no module as far as anyone knows is 404, so that `go get` of a package finds its module.
#[test]
fn unknown_prefixes_are_not_found() {
    let tree = three_versions();
    let mut upstream = Upstream::with(tree.path(), &[]);
    let larder = forgetful(&upstream);
    Go::new(&larder.url).expect(&["get", &format!("{MODULE}@v1.1.0")]);
    // A negative answer the upstream gave is remembered.
    assert_eq!(larder.get("/example.com/@v/list").expect(404).text(), "not found: example.com/@v/list\n");
    upstream.stop();
    larder.get("/example.com/@v/list").expect(404);
    larder.get("/example.com/never/asked/@v/list").expect(404);
    larder.get("/example.com/never/asked/@latest").expect(404);
    larder.get("/example.com/never/asked/@v/v1.0.0.info").expect(404);
    Go::new(&larder.url).expect(&["get", &format!("{MODULE}@latest")]);
}

/// A version that is known to exist and not stored is 504, with a text that says why: `go` must not take it for gone.
#[test]
fn invariant_6_known_versions_that_are_not_stored_are_not_404() {
    let tree = three_versions();
    let mut upstream = Upstream::with(tree.path(), &[]);
    let larder = forgetful(&upstream);
    larder.get(&format!("/{MODULE}/@v/list")).expect(200);
    larder.get(&format!("/{MODULE}/@v/v1.1.0.info")).expect(200);
    upstream.stop();
    for name in ["v1.2.0.info", "v1.2.0.mod", "v1.2.0.zip", "v1.1.0.mod", "v1.1.0.zip"] {
        let answer = larder.get(&format!("/{MODULE}/@v/{name}")).expect(504);
        assert!(answer.text().contains("not stored"), "{name}: {}", answer.text());
        assert!(answer.header("content-type").starts_with("text/plain"));
    }
    let output = Go::new(&larder.url).run(&["mod", "download", &format!("{MODULE}@v1.2.0")]);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && shown.contains("not stored"), "{shown}");
}

/// The upstream's return is noticed without a restart.
#[test]
fn the_return_is_noticed() {
    let tree = three_versions();
    let mut upstream = Upstream::with(tree.path(), &[]);
    let larder = forgetful(&upstream);
    let list = format!("/{MODULE}/@v/list");
    larder.get(&list).expect(200);
    upstream.stop();
    larder.get(&format!("/{MODULE}/@v/v1.2.0.mod")).expect(504);
    upstream.restart();
    wait_for("a fetch after the upstream is back", || {
        (larder.get(&format!("/{MODULE}/@v/v1.2.0.mod")).status == 200).then_some(())
    });
    assert_eq!(larder.get(&list).expect(200).text().lines().count(), 3);
}

/// With an upstream that takes connections and says nothing, one request pays for finding out, and those after it
/// are answered at once.
#[test]
fn silence_is_paid_for_once() {
    let upstream = Upstream::start();
    let larder = Start::on(&upstream).args(["-fresh-for", "0s", "-retry-attempts", "1"]).run();
    larder.get("/github.com/gorilla/websocket/@v/list").expect(200);
    larder.get("/github.com/gorilla/websocket/@v/v1.5.3.mod").expect(200);
    upstream.faults(json!([{"delay_ms": 120_000}]));
    // The download that has just been answered may still be ending, and answer once more: the first is the one that waits.
    let paid = wait_within(Duration::from_secs(60), "a request that pays", || {
        let began = Instant::now();
        larder.get("/github.com/gorilla/websocket/@v/list").expect(200);
        Some(began.elapsed()).filter(|paid| *paid > Duration::from_secs(1))
    });
    assert!(paid < Duration::from_secs(25), "{paid:?} for the first");
    let began = Instant::now();
    for _ in 0..5 {
        larder.get("/github.com/gorilla/websocket/@v/list").expect(200);
        larder.get("/github.com/gorilla/websocket/@v/v1.5.3.mod").expect(200);
        larder.get("/rsc.io/never/@v/list").expect(404);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?} for those after it", began.elapsed());
}

/// `-network-mode offline` never asks the upstream, `strict` never serves what is stale.
#[test]
fn network_modes_are_kept() {
    let mut upstream = Upstream::start();
    let (list, folder) = ("/github.com/gorilla/websocket/@v/list", temp_dir());
    let mode = |mode| Start::on(&upstream).cache(folder.path()).args(["-fresh-for", "0s", "-network-mode", mode]).run();
    let mut larder = mode("fallback");
    larder.get(list).expect(200);
    larder.stop();
    upstream.reset();
    let larder = mode("offline");
    larder.get(list).expect(200);
    larder.get("/rsc.io/quote/@v/v1.5.2.mod").expect(404);
    assert_eq!(upstream.requests(), 0);
    drop(larder);
    let larder = mode("strict");
    larder.get(list).expect(200);
    upstream.stop();
    let answer = larder.settled(list);
    assert!(answer.status >= 500, "{} in strict mode", answer.status);
}

/// An answer that may change is asked for again once it is stale, conditionally where the upstream gave a validator,
/// and a changed one replaces it.
#[test]
fn changing_answers_are_revalidated() {
    let tree = three_versions();
    let upstream = Upstream::with(tree.path(), &[]);
    let list = format!("/{MODULE}/@v/list");
    let fresh = Larder::start(&upstream);
    fresh.get(&list).expect(200);
    fresh.hit(&list);
    assert_eq!(upstream.log_of(&list).len(), 1, "it is fresh for a while");
    upstream.reset();
    let larder = forgetful(&upstream);
    let log = wait_for("a second request to the upstream", || {
        assert_eq!(larder.get(&list).expect(200).text().lines().count(), 3);
        Some(upstream.log_of(&list)).filter(|log| log.len() >= 2)
    });
    assert!(log[1].status == 304 && !log[1].if_none_match.is_empty(), "{:?}", log[1]);
    let _tree = tree.module(MODULE, "v1.3.0", 100);
    assert_eq!(larder.settled(&list).expect(200).text().lines().count(), 4);
}

/// What the upstream answered 404 is asked again once it is stale, and found when it is there.
#[test]
fn negative_answers_age() {
    let upstream = Upstream::start();
    upstream.faults(json!([{"match": "websocket/@v/v1.5.3.info", "status": 404, "times": 1}]));
    let larder = forgetful(&upstream);
    let path = "/github.com/gorilla/websocket/@v/v1.5.3.info";
    larder.get(path).expect(404);
    let answer = wait_for("the second try", || Some(larder.get(path)).filter(|answer| answer.status == 200));
    assert!(answer.body == std::fs::read(fixture().join(&path[1..])).unwrap());
}

/// A restart while the upstream is gone changes nothing of all this: negatives and lists are remembered on disk.
#[test]
fn a_restart_offline_remembers() {
    let tree = three_versions();
    let mut upstream = Upstream::with(tree.path(), &[]);
    let folder = temp_dir();
    let run = |upstream: &Upstream| {
        Start::on(upstream).cache(folder.path()).args(["-fresh-for", "0s", "-retry-attempts", "2"]).run()
    };
    let mut larder = run(&upstream);
    larder.get(&format!("/{MODULE}/@v/list")).expect(200);
    larder.get(&format!("/{MODULE}/@v/v1.2.0.info")).expect(200);
    larder.get(&format!("/{MODULE}/@v/v1.7.0.info")).expect(404);
    larder.stop();
    upstream.stop();
    let larder = run(&upstream);
    larder.get(&format!("/{MODULE}/@v/list")).expect(200);
    larder.get(&format!("/{MODULE}/@v/v1.2.0.info")).expect(200);
    larder.get(&format!("/{MODULE}/@v/v1.7.0.info")).expect(404);
    larder.get(&format!("/{MODULE}/@v/v1.2.0.zip")).expect(504);
}
