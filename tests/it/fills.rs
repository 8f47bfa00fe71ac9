//! Downloads: one for everybody, readable while it runs, and refused when it is not what it should be.

use std::io::Read;

use crate::harness::{
    Answer, BIG_ZIP, Larder, SMALL_ZIP, Start, Tree, Upstream, fixture, json, module_zip, noise, wait_for, zip_of,
};

/// The zip of the made-up module most tests here use, 3 MB.
const MADE_ZIP: &str = "/example.com/made/@v/v1.0.0.zip";

fn made_tree() -> Tree {
    Tree::new().module("example.com/made", "v1.0.0", 3 << 20)
}

/// Asks for `path` from `clients` threads at once.
fn together(larder: &Larder, clients: usize, path: &str) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..clients).map(|_| scope.spawn(|| larder.get(path).expect(200))).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Fails unless `path` is answered by an error (or the connection breaks off), is not stored, and is right as soon as
/// the upstream is.
#[track_caller]
fn assert_refused_then_right(larder: &Larder, upstream: &Upstream, path: &str, truth: &[u8], why: &str) {
    match larder.try_get(path) {
        Ok(answer) => assert_eq!(answer.status, 502, "{why}: {}", String::from_utf8_lossy(&answer.body)),
        Err(error) => assert!(error.starts_with("after "), "{why}: {error}"),
    }
    assert!(!larder.has(path), "{why}: it is stored");
    upstream.faults(json!([]));
    assert!(right_again(larder, path).body == truth, "{why}: wrong after the upstream is right again");
}

/// Returns the first good answer after a refused one: a request right behind it may still share in the refusal.
fn right_again(larder: &Larder, path: &str) -> Answer {
    wait_for("a good answer", || larder.try_get(path).ok().filter(|answer| answer.status == 200))
}

/// Fifty clients asking at once for one zip cost one upstream request, and each gets the whole.
#[test]
fn invariant_4_fifty_clients_one_upstream_request() {
    let tree = made_tree();
    let upstream = Upstream::with(tree.path(), &["-bandwidth", "4000000"]);
    let larder = Start::on(&upstream).args(["-download-connections", "1"]).run();
    let truth = tree.read(MADE_ZIP);
    for answer in together(&larder, 50, MADE_ZIP) {
        assert!(answer.body == truth);
    }
    assert_eq!(upstream.log_of(MADE_ZIP).len(), 1);
    assert_eq!(upstream.bytes_of(MADE_ZIP), truth.len() as u64);
}

/// Fifty clients asking at once for a small file, a list or what does not exist cost one upstream request each.
#[test]
fn small_answers_are_shared_too() {
    let upstream = Upstream::with(&fixture(), &["-latency", "200ms"]);
    let larder = Larder::start(&upstream);
    for path in ["/rsc.io/quote/@v/v1.5.2.mod", "/rsc.io/quote/v3/@v/list", "/rsc.io/quote/@latest"] {
        together(&larder, 50, path);
        assert_eq!(upstream.log_of(path).len(), 1, "{path}");
    }
    let path = "/example.com/missing/@v/list";
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| larder.get(path).expect(404));
        }
    });
    assert_eq!(upstream.log_of(path).len(), 1, "{path}");
}

/// A reader gets bytes while the upstream still sends, over one connection and over several, and so does one that
/// joins later, from the start.
#[test]
fn readers_follow_a_growing_file() {
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    for connections in ["1", "4"] {
        let upstream = Upstream::with(tree.path(), &["-bandwidth", "1500000"]);
        let larder = Start::on(&upstream).args(["-download-connections", connections]).run();
        let mut first = larder.open(MADE_ZIP);
        assert_eq!(first.headers()["content-length"].to_str().unwrap(), truth.len().to_string());
        let mut head = vec![0; 100_000];
        first.read_exact(&mut head).unwrap();
        assert!(!larder.has(MADE_ZIP), "{connections}: the first bytes came after the last");
        wait_for("the line about the start", || {
            larder.log().contains("fetching example.com/made@v1.0.0").then_some(())
        });
        let mut second = larder.open(MADE_ZIP);
        let mut same = vec![0; 50_000];
        second.read_exact(&mut same).unwrap();
        assert!(!larder.has(MADE_ZIP), "{connections}: the second reader waited for the end");
        assert!(head == truth[..head.len()] && same == truth[..same.len()]);
        let (mut rest, mut others) = (Vec::new(), Vec::new());
        first.read_to_end(&mut rest).unwrap();
        second.read_to_end(&mut others).unwrap();
        assert!(rest == truth[head.len()..] && others == truth[same.len()..], "{connections}");
    }
}

/// The client that started a download can leave; the file is completed all the same.
#[test]
fn invariant_9_a_leaving_client_changes_nothing() {
    let tree = made_tree();
    let upstream = Upstream::with(tree.path(), &["-bandwidth", "3000000"]);
    let larder = Start::on(&upstream).args(["-download-connections", "1"]).run();
    let mut response = larder.open(MADE_ZIP);
    response.read_exact(&mut [0; 1000]).unwrap();
    drop(response);
    wait_for("the abandoned download to be stored", || larder.has(MADE_ZIP).then_some(()));
    larder.hit(MADE_ZIP);
    assert!(larder.get(MADE_ZIP).body == tree.read(MADE_ZIP));
    assert_eq!(upstream.log_of(MADE_ZIP).len(), 1);
}

/// A zip above 512 KB comes over several Range requests at once, each byte once; one below in a single plain request.
#[test]
fn large_zips_come_in_parallel_ranges() {
    let upstream = Upstream::with(&fixture(), &["-bandwidth", "30000000", "-latency", "50ms"]);
    let larder = Larder::start(&upstream);
    let truth = std::fs::read(fixture().join(&BIG_ZIP[1..])).unwrap();
    assert!(larder.get(BIG_ZIP).expect(200).body == truth);
    let asked = upstream.log_of(BIG_ZIP);
    let ranged = asked.iter().filter(|record| record.status == 206).count();
    assert!(ranged >= 3, "{ranged} of {} requests had ranges", asked.len());
    assert!(upstream.stats()["max_in_flight"].as_u64().unwrap() >= 2, "the ranges are not asked for at once");
    let bytes: u64 = asked.iter().map(|record| record.bytes).sum();
    assert!(bytes < truth.len() as u64 * 5 / 4, "{bytes} bytes came for {}", truth.len());
    larder.get(SMALL_ZIP).expect(200);
    assert_eq!(upstream.log_of(SMALL_ZIP).len(), 1);
    assert_eq!(upstream.log_of(SMALL_ZIP)[0].status, 200);
}

/// `-download-connections 1` asks for the whole in one request.
#[test]
fn one_connection_turns_ranges_off() {
    let upstream = Upstream::start();
    let larder = Start::on(&upstream).args(["-download-connections", "1"]).run();
    larder.get(BIG_ZIP).expect(200);
    let asked = upstream.log_of(BIG_ZIP);
    assert_eq!(asked.len(), 1);
    assert!(asked[0].range.is_empty() && asked[0].status == 200);
}

/// Without a strong validator two ranges could be of two files: a zip without one comes in a single request.
#[test]
fn no_strong_validator_no_parallel_ranges() {
    let upstream = Upstream::with(&fixture(), &["-no-validators"]);
    let larder = Larder::start(&upstream);
    let truth = std::fs::read(fixture().join(&BIG_ZIP[1..])).unwrap();
    assert!(larder.get(BIG_ZIP).expect(200).body == truth);
    assert_eq!(upstream.log_of(BIG_ZIP).len(), 1);
    assert_eq!(upstream.log_of(BIG_ZIP)[0].status, 200);
}

/// No more zips are in flight than `-max-concurrent-downloads`, and small files do not wait behind them.
#[test]
fn zips_in_flight_are_bounded_and_small_files_pass() {
    let mut tree = Tree::new().copy(["/rsc.io/quote/@v/v1.5.2.mod"]);
    for index in 0..4 {
        tree = tree.module(&format!("example.com/m{index}"), "v1.0.0", 400_000);
    }
    let upstream = Upstream::with(tree.path(), &[]);
    upstream.faults(json!([{"kind": "zip", "bandwidth": 800_000}]));
    let larder = Start::on(&upstream).args(["-max-concurrent-downloads", "2", "-download-connections", "1"]).run();
    std::thread::scope(|scope| {
        for index in 0..4 {
            let larder = &larder;
            scope.spawn(move || larder.get(&format!("/example.com/m{index}/@v/v1.0.0.zip")).expect(200));
        }
        wait_for("two zips in flight", || (upstream.in_flight() == 2).then_some(()));
        larder.get("/rsc.io/quote/@v/v1.5.2.mod").expect(200);
        assert!(upstream.in_flight() >= 1, "the small file waited for the zips");
    });
    // Two zips and the small file.
    assert!(upstream.stats()["max_in_flight"].as_u64().unwrap() <= 3);
    assert_eq!(upstream.stats()["by_kind"]["zip"]["requests"], 4);
}

/// Zips that wait for their turn are fetched in the order in which they were asked for.
#[test]
fn waiting_zips_are_first_come_first_served() {
    let tree = (0..5).fold(Tree::new(), |tree, index| tree.module(&format!("example.com/m{index}"), "v1.0.0", 100_000));
    let upstream = Upstream::with(tree.path(), &[]);
    upstream.faults(json!([{"kind": "zip", "bandwidth": 400_000}]));
    let larder = Start::on(&upstream).args(["-max-concurrent-downloads", "1", "-log-level", "debug"]).run();
    let zips = (0..5).map(|index| format!("example.com/m{index}/@v/v1.0.0.zip"));
    std::thread::scope(|scope| {
        for zip in zips.clone() {
            let (larder, path) = (&larder, format!("/{zip}"));
            scope.spawn(move || larder.get(&path).expect(200));
            wait_for("the request to have come", || larder.log().contains(&format!("fetching {zip}")).then_some(()));
        }
    });
    let asked: Vec<_> = upstream.log().into_iter().map(|record| record.path()).collect();
    assert_eq!(asked, zips.map(|zip| format!("/{zip}")).collect::<Vec<_>>());
}

/// An .info that is not JSON, or of another version, is refused and not stored.
#[test]
fn info_must_be_of_its_version() {
    let upstream = Upstream::start();
    let path = "/github.com/gorilla/websocket/@v/v1.5.3.info";
    let truth = std::fs::read(fixture().join(&path[1..])).unwrap();
    for (why, rule) in [
        ("another version", json!([{"kind": "info", "replace_with": "/github.com/gorilla/websocket/@v/v1.5.2.info"}])),
        (
            "a web page",
            json!([{"kind": "info", "status": 200, "body": "<html>log in</html>", "content_type": "text/html"}]),
        ),
        ("no version", json!([{"kind": "info", "status": 200, "body": "{}"}])),
        ("nothing", json!([{"kind": "info", "status": 200, "body": ""}])),
        ("half of it", json!([{"kind": "info", "truncate": -3}])),
    ] {
        let larder = Larder::start(&upstream);
        upstream.faults(rule);
        assert_refused_then_right(&larder, &upstream, path, &truth, why);
    }
}

/// A zip that is a web page, cut, longer, another module's or without its directory is refused and not stored,
/// however its length is announced.
#[test]
fn invariant_5_a_wrong_zip_is_refused() {
    let upstream = Upstream::start();
    for path in [SMALL_ZIP, BIG_ZIP] {
        let truth = std::fs::read(fixture().join(&path[1..])).unwrap();
        for (why, rule) in [
            (
                "a web page",
                json!([{"kind": "zip", "status": 200, "body": "<html>log in</html>", "content_type": "text/html"}]),
            ),
            ("nothing", json!([{"kind": "zip", "truncate": 0}])),
            ("cut", json!([{"kind": "zip", "truncate": -100}])),
            ("cut to its beginning", json!([{"kind": "zip", "truncate": 1000}])),
            ("longer", json!([{"kind": "zip", "append_garbage": 100}])),
            (
                "another module's",
                json!([{"kind": "zip", "replace_with": "/github.com/gorilla/websocket/@v/v1.5.3.zip"}]),
            ),
            ("without its end record", json!([{"kind": "zip", "flip_byte": -22}])),
            ("announced shorter", json!([{"kind": "zip", "length_delta": -50}])),
            ("announced longer", json!([{"kind": "zip", "length_delta": 50}])),
            ("cut, without a length", json!([{"kind": "zip", "truncate": -100, "chunked": true}])),
        ] {
            let larder = Larder::start(&upstream);
            upstream.faults(rule);
            assert_refused_then_right(&larder, &upstream, path, &truth, &format!("{path}: {why}"));
        }
    }
}

/// Of a zip that is refused no client gets the last bytes, so none can take it for complete.
#[test]
fn invariant_5_the_end_of_a_zip_waits_for_its_verdict() {
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    for connections in ["1", "4"] {
        let upstream = Upstream::with(tree.path(), &["-bandwidth", "10000000"]);
        upstream.faults(json!([{"kind": "zip", "flip_byte": -22}]));
        let larder = Start::on(&upstream).args(["-download-connections", connections]).run();
        let (mut response, mut got) = (larder.open(MADE_ZIP), Vec::new());
        response.read_to_end(&mut got).unwrap_err();
        assert!(got.len() + 1000 < truth.len(), "{connections}: {} of {} bytes", got.len(), truth.len());
        assert!(got == truth[..got.len()] && !got.is_empty(), "{connections}");
        assert!(!larder.has(MADE_ZIP));
    }
}

/// A toolchain is a module like others, only larger.
#[test]
fn toolchains_are_modules() {
    let tree = Tree::new().module("golang.org/toolchain", "v0.0.1-go1.99.0.linux-arm64", 3 << 20);
    let upstream = Upstream::with(tree.path(), &[]);
    let larder = Larder::start(&upstream);
    for name in ["v0.0.1-go1.99.0.linux-arm64.zip", "v0.0.1-go1.99.0.linux-arm64.info", "list"] {
        let path = format!("/golang.org/toolchain/@v/{name}");
        assert!(larder.get(&path).expect(200).body == tree.read(&path), "{name}");
    }
}

/// A zip without an announced length is taken when it is right.
#[test]
fn a_zip_of_unknown_length_is_taken() {
    let upstream = Upstream::start();
    upstream.faults(json!([{"chunked": true}]));
    let larder = Larder::start(&upstream);
    for path in [SMALL_ZIP, BIG_ZIP, "/rsc.io/quote/@v/v1.5.2.mod", "/rsc.io/quote/v3/@v/list"] {
        let truth = std::fs::read(fixture().join(&path[1..])).unwrap();
        assert!(larder.get(path).expect(200).body == truth, "{path}");
        assert!(larder.hit(path).body == truth, "{path}");
    }
}

/// Names outside `PATH@VERSION/` make a zip somebody else's; they are refused wherever they stand.
#[test]
fn foreign_names_in_a_zip_are_refused() {
    let prefix = "example.com/made@v1.0.0";
    let ours = (format!("{prefix}/go.mod"), b"module example.com/made\n".to_vec());
    for name in [
        "example.com/made@v1.0.1/x.go",
        "example.com/made@v1.0.0",
        "x.go",
        "/etc/passwd",
        "example.com/other@v1.0.0/x.go",
    ] {
        let tree = made_tree();
        let truth = tree.read(MADE_ZIP);
        tree.put(MADE_ZIP, &zip_of(&[ours.clone(), (name.to_owned(), noise(1, 100))]));
        let upstream = Upstream::with(tree.path(), &[]);
        let larder = Larder::start(&upstream);
        match larder.try_get(MADE_ZIP) {
            Ok(answer) => assert_eq!(answer.status, 502, "{name}"),
            Err(error) => assert!(error.starts_with("after "), "{name}: {error}"),
        }
        assert!(!larder.has(MADE_ZIP), "{name}");
        tree.put(MADE_ZIP, &truth);
        assert!(right_again(&larder, MADE_ZIP).body == truth, "{name}");
    }
}

/// A go.mod file above 16 MiB is refused; a list that never ends is, too, with bounded memory.
#[test]
fn invariant_7_small_files_have_limits() {
    let tree = made_tree();
    tree.put("/example.com/made/@v/v1.1.0.mod", &vec![b'\n'; (16 << 20) + 1]);
    tree.put("/example.com/huge/@v/list", &b"v1.0.0\n".repeat(10 << 20));
    let upstream = Upstream::with(tree.path(), &[]);
    let larder = Larder::start(&upstream);
    for path in ["/example.com/made/@v/v1.1.0.mod", "/example.com/huge/@v/list"] {
        if let Ok(answer) = larder.try_get(path) {
            assert_eq!(answer.status, 502, "{path}");
        }
        assert!(!larder.has(path), "{path}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", larder.pid())).unwrap();
    let peak: u64 = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert!(peak < 150_000, "{peak} kB resident at the peak");
}

/// Every kind of file appears in the cache directory only under its final name and complete, with nothing left in
/// the folder for partials.
#[test]
fn nothing_is_left_behind() {
    let tree = made_tree();
    let upstream = Upstream::with(tree.path(), &[]);
    let larder = Larder::start(&upstream);
    for extension in ["info", "mod", "zip"] {
        larder.get(&format!("/example.com/made/@v/v1.0.0.{extension}")).expect(200);
    }
    larder.get("/example.com/made/@v/list").expect(200);
    larder.get("/example.com/made/@v/v1.9.9.zip").expect(404);
    upstream.faults(json!([{"kind": "zip", "status": 200, "body": "no zip"}]));
    larder.get("/example.com/made/@v/v1.8.0.zip").expect(502);
    wait_for("the partials to go", || larder.partials().is_empty().then_some(()));
    assert!(std::fs::read(larder.stored(MADE_ZIP)).unwrap() == module_zip("example.com/made", "v1.0.0", 3 << 20));
}
