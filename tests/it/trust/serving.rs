//! The proxied database: what a client may ask for, the answers, and what is answered when the database is gone.

use super::{A, B, C, Ground, get_true, lookup};
use crate::harness::{FakeClock, Go, Start, Sumdb, Upstream, json, wait_for, wait_within};

/// Lookups, heads and tiles, those of records too, full and partial, are passed on byte for byte with their types, and the
/// second time without asking.
#[test]
fn every_file_of_the_database_is_served_as_it_is() {
    let ground = Ground::new(&["-pad", "300"]);
    let (larder, sumdb) = (ground.start().run(), &ground.sumdb);
    assert_eq!(larder.get(&sumdb.path("supported")).expect(200).header("content-encoding"), "");
    let files = [
        ("latest", "text/plain"),
        ("lookup/example.com/a@v1.0.0", "text/plain"),
        ("lookup/pad.example/m0000001@v1.0.0", "text/plain"),
        ("tile/8/0/000", "application/octet-stream"),
        ("tile/8/0/001.p/47", "application/octet-stream"),
        ("tile/8/1/000.p/1", "application/octet-stream"),
        ("tile/8/data/000", "application/octet-stream"),
        ("tile/8/data/001.p/47", "application/octet-stream"),
    ];
    for (name, content_type) in files {
        let (answer, truth) = (larder.get(&sumdb.path(name)).expect(200), sumdb.get(name).body);
        assert!(answer.body == truth, "{name}: {} bytes, not {}", answer.body.len(), truth.len());
        assert!(answer.header("content-type").starts_with(content_type), "{name}: {}", answer.header("content-type"));
        assert_eq!(answer.header("content-length"), truth.len().to_string(), "{name}");
        // The same file lies in the tree, for those who use it as it is.
        wait_for(&format!("{name} to be stored"), || {
            std::fs::read(larder.stored(&sumdb.path(name))).ok().filter(|stored| *stored == truth)
        });
    }
    sumdb.forget();
    for (name, _) in files {
        larder.get(&sumdb.path(name)).expect(200);
    }
    assert_eq!(sumdb.counts().len(), 0, "{:?}", sumdb.counts());
}

/// A partial tile is the beginning of a wider one, of records too; one that the log does not reach is 404, and so is one
/// that no log has.
#[test]
fn partial_tiles_are_cut() {
    let ground = Ground::new(&["-pad", "300"]);
    let (larder, sumdb) = (ground.start().run(), &ground.sumdb);
    larder.get(&lookup(sumdb, A)).expect(200);
    larder.get(&sumdb.path("tile/8/0/000")).expect(200);
    larder.get(&sumdb.path("tile/8/data/000")).expect(200);
    sumdb.forget();
    for name in ["tile/8/0/000.p/1", "tile/8/0/000.p/255", "tile/8/0/001.p/46", "tile/8/data/000.p/5"] {
        let answer = larder.get(&sumdb.path(name)).expect(200);
        assert_eq!(sumdb.asked(name), 0, "{name} was asked for");
        assert!(answer.body == sumdb.get(name).body, "{name}");
        sumdb.forget();
    }
    for name in ["tile/8/0/001", "tile/8/0/001.p/48", "tile/8/0/002.p/1", "tile/8/1/000.p/2", "tile/8/2/000.p/1"] {
        larder.get(&sumdb.path(name)).expect(404);
    }
    for name in ["tile/8/0/1", "tile/8/0/000.p/256", "tile/8/-1/000", "tile/7/0/000", "lookup/example.com/a", "other"] {
        let status = larder.get(&sumdb.path(name)).status;
        assert!(status == 404 || status == 400, "{name}: {status}");
    }
}

/// The full tile serves where the database has dropped the partial ones.
#[test]
fn dropped_partial_tiles_are_cut_from_the_full_one() {
    let ground = Ground::new(&["-pad", "300"]);
    let mut sumdb = Sumdb::over(ground.tree.path(), &["-pad", "300"]);
    // A head of a log that ends within the first tile, from a database that has gone on since and dropped that tile's parts.
    sumdb.mode(json!({"mode": "rollback", "size": 200}));
    let between = Upstream::with(ground.tree.path(), &["-sumdb", &sumdb.behind()]);
    between.faults(json!([{"match": r"/tile/8/0/000\.p/", "status": 404}]));
    let larder = Start::on(&ground.upstream).args(["-gosumdb", &sumdb.flag_at(&between.url)]).run();
    let padding = "pad.example/m0000007@v1.0.0";
    let answer = larder.get(&lookup(&sumdb, padding)).expect(200);
    assert!(answer.text().contains("\n200\n"), "{}", answer.text());
    let cut = larder.get(&sumdb.path("tile/8/0/000.p/200")).expect(200);
    assert!(cut.body == sumdb.get("tile/8/0/000").body[..200 * 32]);
    sumdb.stop();
    larder.get(&sumdb.path("tile/8/0/000.p/13")).expect(200);
}

/// A database that is not proxied is 404, at once and without asking anybody, so that the go command turns to it itself.
#[test]
fn other_databases_are_not_proxied() {
    let ground = Ground::new(&[]);
    let larder = ground.start().run();
    for name in ["sum.golang.org", "other.example", "sumdb.larder.test/more", "sumdb.larder.tes", "SUMDB.larder.test"] {
        for file in ["supported", "latest", "lookup/example.com/a@v1.0.0", "tile/8/0/000"] {
            larder.get(&format!("/sumdb/{name}/{file}")).expect(404);
        }
    }
    assert_eq!((ground.upstream.requests(), ground.sumdb.asked("example.com/a")), (0, 0));
    // One may be proxied without being what files are verified against.
    let larder = Start::on(&ground.upstream).args(["-gosumdb", "off", "-sumdbs", &ground.sumdb.flag()]).run();
    larder.get(&ground.sumdb.path("supported")).expect(200);
    Go::new(&larder.url).sumdb(&ground.sumdb.key).expect(&["mod", "download", B]);
    // Several may be, each with its own head.
    let second = Sumdb::over(ground.tree.path(), &["-name", "second.test", "-seed", "second"]);
    let list = format!("{},{}", ground.sumdb.flag(), second.flag());
    let larder = Start::on(&ground.upstream).args(["-gosumdb", &ground.sumdb.flag(), "-sumdbs", &list]).run();
    for sumdb in [&ground.sumdb, &second] {
        Go::new(&larder.url).sumdb(&sumdb.key).expect(&["mod", "download", A]);
        assert!(sumdb.asked("/lookup/") > 0);
    }
}

/// A database's name may hold slashes: its files are told from those of a database with the beginning of that name.
#[test]
fn names_may_hold_slashes() {
    let ground = Ground::new(&["-name", "sumdb.larder.test/team/go"]);
    let mut larder = ground.start().run();
    larder.get("/sumdb/sumdb.larder.test/team/go/supported").expect(200);
    larder.get("/sumdb/sumdb.larder.test/supported").expect(404);
    let go = Go::new(&larder.url).sumdb(&ground.sumdb.key);
    go.expect(&["mod", "download", A]);
    get_true(&larder, &ground, B, "zip");
    assert!(larder.has("/sumdb/sumdb.larder.test/team/go/lookup/example.com/a@v1.0.0"));
    larder.stop();
    let head = std::fs::read_to_string(larder.cache.join(".larder/sumdb/sumdb.larder.test@team@go/head")).unwrap();
    assert!(head.starts_with("go.sum database tree\n3\n"), "{head}");
}

/// `supported` is 404 as long as the database was never reached, so that the go command turns to it itself, and 200 for
/// ever after: with the database gone, and after a restart, stored lookups are answered.
#[test]
fn supported_says_what_can_be_served() {
    let mut ground = Ground::new(&[]);
    let folder = crate::harness::temp_dir();
    let supported = ground.sumdb.path("supported");
    ground.sumdb.stop();
    let mut larder = ground.start().cache(folder.path()).run();
    larder.get(&supported).expect(404);
    larder.stop();
    let mut larder = ground.start().cache(folder.path()).run();
    larder.get(&supported).expect(404);
    ground.sumdb.restart();
    wait_within(std::time::Duration::from_secs(60), "the database to be noticed", || {
        (larder.get(&supported).status == 200).then_some(())
    });
    larder.get(&lookup(&ground.sumdb, A)).expect(200);
    ground.sumdb.stop();
    larder.get(&supported).expect(200);
    larder.stop();
    let larder = ground.start().cache(folder.path()).run();
    larder.get(&supported).expect(200);
    larder.get(&lookup(&ground.sumdb, A)).expect(200);
    larder.get(&ground.sumdb.path("latest")).expect(200);
    larder.get(&ground.sumdb.path("tile/8/0/000.p/3")).expect(200);
    // What is not stored is no 404: after a 200 to `supported` nobody else is asked, and it may well be in the log.
    let answer = larder.get(&lookup(&ground.sumdb, B));
    assert!(answer.status >= 500, "{}: {}", answer.status, answer.text());
}

/// A database without a way to it is no business of the go command's: nothing is asked for at a start, and `supported`
/// is answered within seconds even where nobody answers.
#[test]
fn supported_does_not_wait_for_the_silent() {
    let ground = Ground::new(&[]);
    let between = Upstream::with(ground.tree.path(), &["-sumdb", &ground.sumdb.behind()]);
    between.faults(json!([{"match": "^/sumdb/", "delay_ms": 120_000}]));
    let larder = Start::on(&ground.upstream).args(["-gosumdb", &ground.sumdb.flag_at(&between.url)]).run();
    let began = std::time::Instant::now();
    larder.get(&ground.sumdb.path("supported")).expect(404);
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}

/// That a version is not in the log is relayed with its text, and remembered for a minute, whatever `-fresh-for` says, and
/// not on the disk.
#[test]
fn absent_lookups_are_remembered_for_a_minute() {
    let Some(clock) = FakeClock::new() else { return };
    let ground = Ground::new(&[]);
    ground.sumdb.mode(json!({"mode": "young", "size": 1}));
    let folder = crate::harness::temp_dir();
    // Steady time follows the clock as well, for the minute is one of steady time.
    let run = |fresh_for: &str| {
        clock.set_hour(0);
        let start = clock.show_to(ground.start()).env("FAKETIME_DONT_FAKE_MONOTONIC", "0");
        start.cache(folder.path()).args(["-fresh-for", fresh_for]).run()
    };
    let mut larder = run("0s");
    let path = lookup(&ground.sumdb, B);
    for _ in 0..3 {
        let answer = larder.get(&path).expect(404);
        assert!(answer.text().contains("not found"), "{}", answer.text());
    }
    assert_eq!(ground.sumdb.asked(&format!("/lookup/{B}")), 1);
    ground.sumdb.honest();
    larder.get(&path).expect(404);
    clock.set("2027-01-01 00:01:30");
    // Connections may end with the jump.
    wait_for("the minute to be over", || larder.try_get(&path).ok().filter(|answer| answer.status == 200));
    // Over a restart it is not remembered at all.
    ground.sumdb.mode(json!({"mode": "young", "size": 2}));
    larder.get(&lookup(&ground.sumdb, C)).expect(404);
    larder.stop();
    ground.sumdb.honest();
    let larder = run("24h");
    larder.get(&lookup(&ground.sumdb, C)).expect(200);
}

/// The go command does not ask a second time, so Larder does: lookups and tiles that fail with the database's own trouble,
/// or break off, are fetched again within the request.
#[test]
fn troubles_of_the_database_are_retried() {
    let ground = Ground::new(&["-pad", "300"]);
    let between = Upstream::with(ground.tree.path(), &["-sumdb", &ground.sumdb.behind()]);
    for fault in [
        json!({"kind": "lookup", "status": 503, "times": 2}),
        json!({"kind": "tile", "status": 500, "times": 2}),
        json!({"kind": "lookup", "drop": true, "times": 1}),
        json!({"kind": "lookup", "cut_after": 50, "times": 1}),
        json!({"kind": "tile", "cut_after": 50, "times": 2}),
        json!({"kind": "lookup", "status": 429, "retry_after": "0", "times": 1}),
    ] {
        between.faults(json!([fault]));
        let flag = ground.sumdb.flag_at(&between.url);
        let larder = Start::on(&ground.upstream).args(["-gosumdb", &flag]).run();
        larder.get(&ground.sumdb.path("supported")).expect(200);
        Go::new(&larder.url).sumdb(&ground.sumdb.key).expect(&["mod", "download", B]);
        let stats = between.stats();
        let mut fired = stats["faults_fired"].as_object().unwrap().values();
        assert!(fired.any(|count| *count != 0), "{fault}: nothing has failed");
    }
}

/// Without an address of its own the database is asked through the first upstream that proxies it; one that does not is
/// asked about that once.
#[test]
fn upstreams_that_proxy_the_database_are_asked() {
    let ground = Ground::new(&[]);
    let without = Upstream::with(ground.tree.path(), &["-no-sumdb"]);
    let with = Upstream::with(ground.tree.path(), &["-sumdb", &ground.sumdb.behind()]);
    for separator in [',', '|'] {
        without.reset();
        with.reset();
        let list = format!("{}{separator}{}", without.url, with.url);
        let larder = Start::upstream(&list).args(["-gosumdb", &ground.sumdb.key]).run();
        for module in [A, B, C] {
            for kind in ["mod", "zip"] {
                get_true(&larder, &ground, module, kind);
            }
            larder.get(&lookup(&ground.sumdb, module)).expect(200);
        }
        let of_sumdb: Vec<_> = without.log().into_iter().filter(|record| record.uri.contains("/sumdb/")).collect();
        assert!(of_sumdb.len() == 1 && of_sumdb[0].kind == "supported", "{of_sumdb:?}");
        assert!(with.log().iter().any(|record| record.kind == "lookup"));
        assert_eq!(super::unverified(&larder), 0);
    }
}

/// The newest head is asked for at most once a minute, and with the database gone it is the one that was known.
#[test]
fn the_newest_head_is_fresh_for_a_minute() {
    let mut ground = Ground::new(&[]);
    ground.sumdb.mode(json!({"mode": "young", "size": 2}));
    let larder = ground.start().args(["-fresh-for", "0s"]).run();
    let latest = ground.sumdb.path("latest");
    let first = larder.get(&latest).expect(200);
    assert!(first.text().starts_with("go.sum database tree\n2\n"), "{}", first.text());
    ground.sumdb.honest();
    larder.get(&latest).expect(200);
    assert_eq!(ground.sumdb.asked("/latest"), 1);
    // A lookup brings a newer one along, which is the newest that is known then.
    larder.get(&lookup(&ground.sumdb, C)).expect(200);
    ground.sumdb.stop();
    let last = larder.get(&latest).expect(200);
    assert!(last.text().starts_with("go.sum database tree\n3\n"), "{}", last.text());
}

/// Only what is proved is stored: of a database that lies there is nothing in the tree but what it did not lie about.
#[test]
fn only_authentic_files_are_stored() {
    let ground = Ground::new(&["-pad", "300"]);
    let names = [
        "lookup/example.com/a@v1.0.0",
        "latest",
        "tile/8/0/000",
        "tile/8/1/000.p/1",
        "tile/8/data/000",
        "tile/8/data/001.p/47",
    ];
    let truth = names.map(|name| ground.sumdb.get(name).body);
    for mode in ["wrong-record", "bad-signature", "wrong-root", "tampered-tile", "short-tile", "garbage"] {
        ground.sumdb.mode(json!({"mode": mode}));
        let larder = ground.start().run();
        let mut refused = 0;
        for (name, truth) in names.iter().zip(&truth) {
            let answer = larder.get(&ground.sumdb.path(name));
            // What this mode does not touch is true.
            assert!(answer.status == 502 || answer.body == *truth, "{mode}: {name}: {}", answer.status);
            refused += usize::from(answer.status == 502);
        }
        assert!(refused > 0, "{mode}");
        ground.sumdb.honest();
        for (path, content) in crate::harness::files_below(&larder.cache) {
            let name = path.to_str().unwrap().strip_prefix(&format!("sumdb/{}/", ground.sumdb.name)).unwrap();
            assert!(content == ground.sumdb.get(name).body, "{mode}: {name} is stored and not true");
        }
        for (name, truth) in names.iter().zip(&truth) {
            assert!(larder.get(&ground.sumdb.path(name)).expect(200).body == *truth, "{mode}: {name}");
        }
    }
}
