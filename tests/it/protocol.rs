//! The protocol as `go` and people speak it: what is relayed, named, cut, refused, and with which headers.

use reqwest::Method;

use crate::harness::{
    BIG_ZIP, Go, Larder, SMALL_ZIP, SOON, Start, Upstream, connect_from, files_below, fixture, raw, read_rest, wait_for,
};

const SUMDB: &str = "/sumdb/sum.golang.org";

/// Returns the content type the protocol gives a path.
fn expected_type(path: &str) -> &'static str {
    match path {
        _ if path.ends_with("/@latest") || path.ends_with(".info") => "application/json",
        _ if path.ends_with(".zip") => "application/zip",
        _ if path.contains("/tile/") => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}

/// Every kind of resource is relayed byte for byte with its type and length, stored under its own name, and answered
/// from there the second time.
#[test]
fn every_resource_is_relayed_and_stored() {
    let upstream = Upstream::start();
    let larder = Start::on(&upstream).args(["-download-connections", "1"]).run();
    let files = files_below(&fixture());
    for (name, content) in &files {
        let path = format!("/{}", name.display());
        for (round, answer) in [("relayed", larder.get(&path).expect(200)), ("stored", larder.hit(&path))] {
            assert!(answer.body == *content, "{round} {path}: {} bytes, not {}", answer.body.len(), content.len());
            assert_eq!(answer.header("content-length"), content.len().to_string(), "{round} {path}");
            let (is, expected) = (answer.header("content-type").to_lowercase(), expected_type(&path).to_lowercase());
            assert_eq!(is, expected, "{round} {path}");
            assert!(answer.header("cache-status").starts_with("Larder"), "{round} {path}");
        }
    }
    let asked = upstream.stats()["by_path"].clone();
    let twice: Vec<_> = asked.as_object().unwrap().iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "not asked for once: {twice:?}");
    for (name, content) in &files {
        // The answers to queries are remembered, but not as files of a version.
        let is_query = name.extension().is_some_and(|extension| extension == "info")
            && !name.file_name().unwrap().to_str().unwrap().starts_with('v');
        if !is_query {
            let stored = std::fs::read(larder.cache.join(name));
            assert!(stored.is_ok_and(|stored| stored == *content), "{} is not stored as it is", name.display());
        }
    }
}

/// `%21` and `!` name the same file, which is fetched once; an upper-case letter or a dangling `!` names nothing.
#[test]
fn escaped_names_are_decoded_once() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let path = "/github.com/!burnt!sushi/toml/@v/v1.6.0.mod";
    let first = larder.get("/github.com/%21burnt%21sushi/toml/@v/v1.6.0.mod").expect(200);
    assert_eq!(first.body, larder.hit(path).body);
    larder.get("/google.golang.org/grpc/@v/v1.0.1-%21g%21a.info").expect(200);
    larder.get("/github.com/gofrs/uuid/@v/v4.4.0+incompatible.info").expect(200);
    larder.hit("/github.com/gofrs/uuid/@v/v4.4.0%2Bincompatible.info");
    assert_eq!(upstream.requests(), 3, "one file is fetched by two names");
    let asked = upstream.requests();
    for wrong in
        ["/github.com/BurntSushi/toml/@v/v1.6.0.mod", "/github.com/burnt!/toml/@v/list", "/a.com/%2521b/@v/list"]
    {
        larder.get(wrong).expect(404);
    }
    assert_eq!(upstream.requests(), asked, "a malformed name reaches the upstream");
    assert_eq!(upstream.log_of(path).len(), 1);
}

/// A branch or a commit is answered as the upstream does, never becomes a file of that version's name, and leaves the
/// version it stands for stored.
#[test]
fn queries_store_their_canonical_answer_only() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let answer = larder.get("/github.com/gorilla/websocket/@v/main.info").expect(200);
    assert!(answer.text().contains("v1.5.3"), "{}", answer.text());
    larder.get("/github.com/golang/groupcache/@v/2c02b8208cf8.info").expect(200);
    let asked = upstream.requests();
    for path in [
        "/github.com/gorilla/websocket/@v/v1.5.3.info",
        "/github.com/golang/groupcache/@v/v0.0.0-20241129210726-2c02b8208cf8.info",
    ] {
        wait_for("the canonical answer to be stored", || larder.has(path).then_some(()));
        let truth = std::fs::read(fixture().join(&path[1..])).unwrap();
        assert!(larder.hit(path).body == truth, "{path}");
    }
    assert_eq!(upstream.requests(), asked, "the canonical answer is fetched again");
    // A branch has no go.mod and no zip under its own name.
    larder.get("/github.com/gorilla/websocket/@v/main.mod").expect(404);
    larder.get("/github.com/gorilla/websocket/@v/main.zip").expect(404);
    assert_eq!(upstream.requests(), asked);
}

/// The upstream's 404 and 410 arrive with their status, text and type unchanged, and are remembered.
#[test]
fn not_found_is_relayed_unchanged_and_remembered() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let path = "/rsc.io/quote/@v/v1.9.9.info";
    for _ in 0..2 {
        let answer = larder.get(path).expect(404);
        assert_eq!(answer.text(), "not found: rsc.io/quote/@v/v1.9.9.info\n");
        assert_eq!(answer.header("content-type").to_lowercase(), "text/plain; charset=utf-8");
    }
    assert_eq!(upstream.requests(), 1, "the second answer is remembered");
    assert!(!larder.has(path));
    upstream.faults(crate::harness::json!([{"match": "gone", "status": 410, "body": "gone: line one\nline two\n"}]));
    let answer = larder.get("/example.com/gone/@v/v1.0.0.mod").expect(410);
    assert_eq!(answer.text(), "gone: line one\nline two\n");
}

/// HEAD has the same status and headers as GET, and no body, for what is stored and what is not yet.
#[test]
fn head_tells_what_get_would() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    for path in
        [SMALL_ZIP, "/rsc.io/quote/@v/v1.5.2.mod", "/rsc.io/quote/@latest", "/github.com/gorilla/websocket/@v/list"]
    {
        let content = std::fs::read(fixture().join(&path[1..])).unwrap();
        for _ in 0..2 {
            let head = larder.request(Method::HEAD, path, &[]).expect(200);
            assert_eq!(head.header("content-length"), content.len().to_string(), "{path}");
            assert!(head.body.is_empty());
            let answer = larder.get(path).expect(200);
            assert!(answer.body == content);
            for name in ["content-type", "content-length"] {
                assert_eq!(head.header(name), answer.header(name), "{path}: {name}");
            }
        }
    }
    larder.request(Method::HEAD, "/rsc.io/quote/@v/v1.9.9.info", &[]).expect(404);
}

/// A stored file answers single ranges, refuses one past its end, and gives the whole where If-Range names another.
#[test]
fn stored_files_answer_ranges() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let stored = larder.hit(BIG_ZIP);
    let (whole, etag) = (stored.body.clone(), stored.header("etag").to_owned());
    assert!(etag.starts_with('"'), "a stored file has a strong ETag: {etag}");
    let length = whole.len();
    for (range, from, to) in
        [("bytes=0-0", 0, 1), ("bytes=100-199", 100, 200), ("bytes=-10", length - 10, length), ("bytes=5-", 5, length)]
    {
        let answer = larder.get_with(BIG_ZIP, &[("range", range), ("if-range", &etag)]).expect(206);
        assert!(answer.body == whole[from..to], "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {from}-{}/{length}", to - 1));
        assert_eq!(answer.header("content-length"), (to - from).to_string());
    }
    let answer = larder.get_with(BIG_ZIP, &[("range", &format!("bytes={length}-"))]).expect(416);
    assert_eq!(answer.header("content-range"), format!("bytes */{length}"));
    assert!(larder.get_with(BIG_ZIP, &[("range", "bytes=1-2"), ("if-range", "\"other\"")]).expect(200).body == whole);
    assert!(larder.get_with(BIG_ZIP, &[("range", "lines=1-2")]).expect(200).body == whole);
}

/// A client that has the file already is told so, with no body.
#[test]
fn validators_of_stored_files_are_honoured() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let etag = larder.hit(SMALL_ZIP).header("etag").to_owned();
    for given in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        let answer = larder.get_with(SMALL_ZIP, &[("if-none-match", &given)]).expect(304);
        assert!(answer.body.is_empty(), "{given}");
        assert_eq!(answer.header("etag"), etag);
    }
    larder.get_with(SMALL_ZIP, &[("if-none-match", "\"other\"")]).expect(200);
}

/// Anything but GET and HEAD is answered 405 and never passed on.
#[test]
fn other_methods_are_refused() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let answer = larder.request(method, SMALL_ZIP, &[]).expect(405);
        assert_eq!(answer.header("allow").replace(' ', ""), "GET,HEAD");
    }
    assert_eq!(upstream.requests(), 0);
}

/// What is no valid resource is 404 with a reason, reaches neither the upstream nor a file, and hurts nothing.
#[test]
fn malformed_paths_end_at_larder() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    larder.get("/rsc.io/quote/@v/v1.5.2.mod").expect(200);
    std::fs::write(larder.cache.join("secret.mod"), "hunter2").unwrap();
    let long = format!("/example.com/{}/@v/list", "a".repeat(9_000));
    let deep = format!("/example.com{}/@v/list", "/a".repeat(4_000));
    for path in [
        "//",
        "/rsc.io",
        "/rsc.io/quote",
        "/rsc.io/quote/@v/",
        "/rsc.io/quote/@v",
        "/rsc.io/quote/@v/v1.5.2",
        "/rsc.io/quote/@v/v1.5.2.tar",
        "/rsc.io/quote/@v/.info",
        "/rsc.io/quote/@v/v1.mod",
        "/rsc.io/quote/@v/v2.0.0.mod",
        "/rsc.io/quote/@v/v1.5.2.mod/",
        "/rsc.io//quote/@v/list",
        "/rsc.io/quote/@v/v1.5.2.ziphash",
        "/secret.mod",
        "/rsc.io/quote/@v/v1.5.2.mod/../v1.5.2.mod",
        "/../etc/passwd",
        "/rsc.io/../secret.mod",
        "/rsc.io/./quote/@v/list",
        "/rsc.io/quote/@v/..%2f..%2f..%2f..%2fsecret.mod",
        "/rsc.io%2fquote/@v/list",
        "/rsc.io/quote/@v%2flist",
        "/rsc.io/quote/@v/..%5csecret.mod",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/rsc.io/%2e%2e/@v/list",
        "/rsc.io/quo%00te/@v/list",
        "/rsc.io/quote/@v/v1.5.2%00.mod",
        "/rsc.io/quote/@v/%ff.info",
        "/rsc.io/quote/@v/%zz.info",
        "/rsc.io/quote/@v/%2",
        "/.larder/pins",
        "/.larder/index/conf",
        "/larder/@v/list",
        "/-a.com/x/@v/list",
        "/a.com/con/@v/list",
        "/a.com/x./@v/list",
        "/a.com/.x/@v/list",
        "/a.com/x y/@v/list",
        "/a.com/x/v1/@v/list",
        "/gopkg.in/yaml/@v/list",
        "/sumdb/sum.golang.org/tile/8/0/0",
        "/sumdb/sum.golang.org/tile/8/0/000.p/256",
        "/sumdb/sum.golang.org/tile/8/0/000.p/0",
        "/sumdb/sum.golang.org/tile/0/0/000",
        "/sumdb/sum.golang.org/other",
        "/sumdb/sum.golang.org/lookup/rsc.io/quote",
        "/sumdb/../rsc.io/quote/@v/list",
        "/sumdb//supported",
        &long,
        &deep,
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n\r\n");
        let shown = &path[..path.len().min(80)];
        let mut stream = connect_from([127, 0, 0, 1].into(), larder.address());
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let (answer, ended) = read_rest(&mut stream, SOON);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let refused = ["HTTP/1.1 404 ", "HTTP/1.1 400 ", "HTTP/1.1 414 "].iter().any(|line| answer.starts_with(line));
        assert!(ended && refused, "{shown}: {answer}");
        assert!(!answer.contains("hunter2"), "{shown}: {answer}");
        let reason = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        assert!(!answer.starts_with("HTTP/1.1 404 ") || !reason.trim().is_empty(), "{shown}: no reason");
    }
    let asked = upstream.log();
    assert_eq!(
        asked.len(),
        1,
        "the upstream was asked: {:?}",
        asked.iter().map(|record| &record.uri).collect::<Vec<_>>()
    );
    let raw_nul = b"GET /rsc.io/quo\0te/@v/list HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n\r\n";
    assert!(raw(larder.address(), raw_nul).is_none_or(|status| (400..500).contains(&status)));
    larder.hit("/rsc.io/quote/@v/v1.5.2.mod");
}

/// Asked for cached content only, by header or by path, Larder answers from its store or 404, and fetches nothing.
#[test]
fn cached_only_never_fetches() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let (header, path) = ([("disable-module-fetch", "true")], "/rsc.io/quote/@v/v1.5.2.mod");
    larder.get_with(path, &header).expect(404);
    larder.get(&format!("/cached-only{path}")).expect(404);
    assert_eq!(upstream.requests(), 0);
    larder.hit(path);
    assert!(larder.get_with(path, &header).expect(200).is_hit());
    assert!(larder.get(&format!("/cached-only{path}")).expect(200).is_hit());
    assert_eq!(upstream.requests(), 1);
}

/// `/health` answers JSON without asking anybody.
#[test]
fn health_is_json() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let answer = larder.get("/health").expect(200);
    assert!(answer.header("content-type").starts_with("application/json"));
    let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(value.is_object(), "{value}");
    assert_eq!(upstream.requests(), 0);
}

/// The checksum database is passed on; a partial tile is cut from any wider one that is stored; an unknown database
/// is the upstream's 404.
#[test]
fn partial_tiles_are_cut_from_wider_ones() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    larder.get(&format!("{SUMDB}/supported")).expect(200);
    let full = larder.hit(&format!("{SUMDB}/tile/8/1/000")).body;
    assert_eq!(full.len(), 8192);
    let wide = larder.hit(&format!("{SUMDB}/tile/8/3/000.p/4")).body;
    let asked = upstream.requests();
    for (width, path, source) in [(1, "1/000.p/1", &full), (200, "1/000.p/200", &full), (3, "3/000.p/3", &wide)] {
        let cut = larder.get(&format!("{SUMDB}/tile/8/{path}")).expect(200);
        assert!(cut.body == source[..width * 32], "{path}: {} bytes", cut.body.len());
        assert_eq!(cut.header("content-length"), (width * 32).to_string());
    }
    assert_eq!(upstream.requests(), asked, "a tile that can be cut is not asked for");
    larder.get("/sumdb/other.example.com/supported").expect(404);
    larder.get(&format!("{SUMDB}/lookup/rsc.io/quote@v1.9.9")).expect(404);
}

/// A partial tile that the database has dropped is cut from the full one.
#[test]
fn dropped_partial_tiles_come_from_the_full_one() {
    let upstream = Upstream::with(&fixture(), &["-drop-partials"]);
    let larder = Larder::start(&upstream);
    let full = std::fs::read(fixture().join("sumdb/sum.golang.org/tile/8/1/000")).unwrap();
    let cut = larder.get(&format!("{SUMDB}/tile/8/1/000.p/77")).expect(200);
    assert!(cut.body == full[..77 * 32]);
}

/// The real go command, with its checksum database on, downloads, verifies and resolves through Larder.
#[test]
fn the_go_command_is_content() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let go = Go::new(&larder.url).sumdb("sum.golang.org");
    for module in [
        "github.com/BurntSushi/toml@v1.6.0",
        "google.golang.org/grpc@v1.0.1-GA",
        "rsc.io/quote@latest",
        "github.com/gofrs/uuid@v4.4.0+incompatible",
        "github.com/gorilla/websocket@main",
        "gopkg.in/yaml.v3@v3",
        "github.com/golang/groupcache@2c02b8208cf8",
    ] {
        go.expect(&["mod", "download", module]);
    }
    let versions = go.expect(&["list", "-m", "-versions", "github.com/gorilla/websocket"]);
    assert!(versions.contains("v1.5.3"), "{versions}");
    go.expect(&["get", "github.com/jmespath/go-jmespath@v0.4.0"]);
    let missing = go.run(&["mod", "download", "rsc.io/quote@v1.9.9"]);
    let shown = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && shown.contains("not found"), "{shown}");
}
