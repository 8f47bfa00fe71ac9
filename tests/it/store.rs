//! The cache directory: a tree anyone can read, adopted from elsewhere, surviving a damaged index and a full disk.

use std::path::Path;

use crate::harness::{
    BIG_ZIP, Go, Larder, SMALL_ZIP, Start, Tmpfs, Tree, Upstream, assert_stored_is_true, files_below, fixture, json,
    run_command, temp_dir, wait_for,
};

/// What the tests here store: all kinds of files.
const STORED: [&str; 8] = [
    "/rsc.io/quote/@v/v1.5.2.info",
    "/rsc.io/quote/@v/v1.5.2.mod",
    SMALL_ZIP,
    BIG_ZIP,
    "/rsc.io/quote/v3/@v/list",
    "/github.com/gorilla/websocket/@latest",
    "/sumdb/sum.golang.org/lookup/rsc.io/quote@v1.5.2",
    "/sumdb/sum.golang.org/tile/8/1/000",
];

fn fill(larder: &Larder) {
    for path in STORED {
        larder.hit(path);
    }
}

/// A damaged, emptied, foreign or missing index loses no module: everything stored is served without the upstream,
/// the pins are kept, and one line of the log says that the index was made anew.
#[test]
fn invariant_3_a_damaged_index_loses_nothing() {
    type Harm = fn(&Path);
    fn each(folder: &Path, harm: fn(&mut Vec<u8>)) {
        for (path, mut content) in files_below(folder) {
            harm(&mut content);
            std::fs::write(folder.join(path), content).unwrap();
        }
    }
    let harms: [(&str, Harm); 5] = [
        ("missing", |folder| std::fs::remove_dir_all(folder).unwrap()),
        ("truncated", |folder| {
            each(folder, |content| content.truncate(content.len() / 2));
        }),
        ("emptied", |folder| each(folder, Vec::clear)),
        ("flipped", |folder| {
            each(folder, |content| {
                content.iter_mut().step_by(50).for_each(|byte| *byte ^= 0xff);
            });
        }),
        ("a text", |folder| {
            each(folder, |content| *content = b"this is no database\n".repeat(500));
        }),
    ];
    for (why, harm) in harms {
        let upstream = Upstream::start();
        let folder = temp_dir();
        let mut larder = Start::on(&upstream).cache(folder.path()).run();
        fill(&larder);
        larder.stop();
        assert!(run_command(folder.path(), &["pin", "rsc.io/quote"]).status.success(), "{why}");
        harm(&folder.path().join(".larder/index"));
        upstream.reset();
        let larder = Start::on(&upstream).cache(folder.path()).run();
        for path in STORED.into_iter().filter(|path| !path.ends_with("list") && !path.ends_with("latest")) {
            let answer = larder.get(path).expect(200);
            assert!(answer.is_hit(), "{why}: {path}: {}", answer.header("cache-status"));
            assert!(answer.body == std::fs::read(fixture().join(&path[1..])).unwrap(), "{why}: {path}");
        }
        assert_eq!(upstream.requests(), 0, "{why}: something was fetched again");
        wait_for(&format!("{why}: the line about the index"), || {
            (larder.log().matches("from the tree").count() == 1).then_some(())
        });
        let pins = larder.command(&["pins"]);
        assert!(String::from_utf8_lossy(&pins.stdout).contains("rsc.io/quote"), "{why}: the pin is gone");
        larder.get("/rsc.io/sampler/@v/v1.3.0.mod").expect(200);
    }
}

/// `GOPROXY=file://` on the cache directory, while Larder runs and when it does not, gives the go command what was
/// downloaded through it.
#[test]
fn the_cache_directory_is_a_proxy() {
    let upstream = Upstream::start();
    let mut larder = Larder::start(&upstream);
    let modules = ["github.com/BurntSushi/toml@v1.6.0", "google.golang.org/grpc@v1.0.1-GA", "rsc.io/quote@v1.5.2"];
    let proxy = format!("file://{}", larder.cache.display());
    for module in modules {
        Go::new(&larder.url).expect(&["mod", "download", module]);
    }
    for module in modules {
        Go::new(&proxy).expect(&["mod", "download", module]);
    }
    larder.stop();
    for module in modules {
        Go::new(&proxy).expect(&["mod", "download", module]);
    }
    let go = Go::new(&proxy);
    let absent = go.run(&["mod", "download", "rsc.io/quote/v3@v3.1.0"]);
    assert!(!absent.status.success(), "a module that was never asked for is there");
    assert_stored_is_true(&larder.cache, &fixture());
}

/// A module cache of the go command, put in place as it is, is served: its modules are hits, the list it rewrote is
/// asked for again, its lock and hash files are nobody's resource.
#[test]
fn a_go_module_cache_is_adopted() {
    let upstream = Upstream::start();
    let go = Go::new(&upstream.url).sumdb("sum.golang.org");
    go.expect(&[
        "mod",
        "download",
        "github.com/BurntSushi/toml@v1.6.0",
        "rsc.io/quote@v1.5.2",
        "github.com/gorilla/websocket@v1.5.3",
    ]);
    let list = "/github.com/gorilla/websocket/@v/list";
    let own = std::fs::read_to_string(go.download_cache().join(&list[1..])).unwrap_or_default();
    assert_ne!(own, std::fs::read_to_string(fixture().join(&list[1..])).unwrap());
    upstream.reset();
    let larder = Start::on(&upstream).cache(&go.download_cache()).run();
    for path in [
        "/github.com/!burnt!sushi/toml/@v/v1.6.0.info",
        "/github.com/!burnt!sushi/toml/@v/v1.6.0.mod",
        "/github.com/!burnt!sushi/toml/@v/v1.6.0.zip",
        SMALL_ZIP,
        "/github.com/gorilla/websocket/@v/v1.5.3.zip",
        "/sumdb/sum.golang.org/lookup/rsc.io/quote@v1.5.2",
    ] {
        let answer = larder.get(path).expect(200);
        assert!(answer.is_hit(), "{path}: {}", answer.header("cache-status"));
    }
    assert_eq!(upstream.requests(), 0);
    assert_eq!(larder.get(list).expect(200).text(), std::fs::read_to_string(fixture().join(&list[1..])).unwrap());
    larder.get("/rsc.io/quote/@v/v1.5.2.ziphash").expect(404);
    larder.get("/rsc.io/quote/@v/v1.5.2.lock").expect(404);
}

/// A directory filled by go-proxy is adopted: what is complete is served, its own leftovers are not, and a zip that is
/// cut short or an info that is none is fetched again.
#[test]
fn a_go_proxy_directory_is_adopted() {
    let tree = Tree::new().copy([
        "/rsc.io/quote/@v/v1.5.2.info",
        "/rsc.io/quote/@v/v1.5.2.mod",
        SMALL_ZIP,
        "/rsc.io/sampler/@v/v1.3.0.info",
        "/rsc.io/sampler/@v/v1.3.0.zip",
        "/rsc.io/sampler/@v/v1.3.0.mod",
        "/github.com/gorilla/websocket/@v/v1.5.3.zip",
    ]);
    tree.put("/.usage.db", b"not ours");
    tree.put("/golang.org/x/text/@v/v0.42.0.zip.part", &[7; 1000]);
    tree.put("/golang.org/x/text/@v/v0.42.0.zip.tmp", &[7; 1000]);
    let zip = tree.read("/github.com/gorilla/websocket/@v/v1.5.3.zip");
    tree.put("/github.com/gorilla/websocket/@v/v1.5.3.zip", &zip[..zip.len() - 500]);
    tree.put("/rsc.io/sampler/@v/v1.3.0.info", b"{\"Version\":");
    let upstream = Upstream::start();
    let larder = Start::on(&upstream).cache(tree.path()).run();
    for path in
        ["/rsc.io/quote/@v/v1.5.2.info", "/rsc.io/quote/@v/v1.5.2.mod", SMALL_ZIP, "/rsc.io/sampler/@v/v1.3.0.zip"]
    {
        assert!(larder.get(path).expect(200).is_hit(), "{path}");
    }
    assert_eq!(upstream.requests(), 0);
    // Adoption goes on in the background after the start; until a file has been judged its answer may be what it was.
    for path in ["/github.com/gorilla/websocket/@v/v1.5.3.zip", "/rsc.io/sampler/@v/v1.3.0.info"] {
        let truth = std::fs::read(fixture().join(&path[1..])).unwrap();
        wait_for("the broken file to be replaced", || {
            larder.try_get(path).ok().filter(|answer| answer.status == 200 && answer.body == truth)
        });
    }
    assert!(larder.get(BIG_ZIP).expect(200).body == std::fs::read(fixture().join(&BIG_ZIP[1..])).unwrap());
}

/// A stored file that was damaged behind Larder's back in a way that shows is not served as if it were right.
#[test]
fn a_stored_file_cut_short_is_replaced() {
    let upstream = Upstream::start();
    let folder = temp_dir();
    let mut larder = Start::on(&upstream).cache(folder.path()).run();
    larder.get(BIG_ZIP).expect(200);
    larder.stop();
    let (file, truth) = (larder.stored(BIG_ZIP), std::fs::read(fixture().join(&BIG_ZIP[1..])).unwrap());
    std::fs::write(&file, &truth[..1_000_000]).unwrap();
    let larder = Start::on(&upstream).cache(folder.path()).run();
    wait_for("the whole file again", || {
        larder.try_get(BIG_ZIP).ok().filter(|answer| answer.status == 200 && answer.body == truth)
    });
}

/// Two processes never share a cache directory: the second says so and ends.
#[test]
fn one_process_owns_the_directory() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let second =
        run_command(&larder.cache, &["serve", "-listen", "127.0.0.1", "-port", "0", "-upstream", &upstream.url]);
    let shown = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && shown.contains(larder.cache.to_str().unwrap()), "{shown}");
    larder.get(SMALL_ZIP).expect(200);
}

/// With the disk full a download fails with a clear text, what is stored stays served, and no half file remains.
#[test]
fn a_full_disk_harms_only_what_is_new() {
    let Some(disk) = Tmpfs::mount(5 << 20) else { return };
    let upstream = Upstream::start();
    let larder = Start::on(&upstream).cache(&disk.path().join("cache")).run();
    larder.hit(SMALL_ZIP);
    larder.hit("/rsc.io/quote/@v/v1.5.2.mod");
    for connections in 0..2 {
        match larder.try_get(BIG_ZIP) {
            Ok(answer) => {
                assert_eq!(answer.status, 507, "{connections}: {}", answer.text());
                assert!(answer.text().contains("space") || answer.text().contains("full"), "{}", answer.text());
            }
            Err(error) => assert!(error.starts_with("after "), "{error}"),
        }
        assert!(!larder.has(BIG_ZIP));
        assert!(larder.get(SMALL_ZIP).expect(200).is_hit());
    }
    wait_for("the half file to go", || larder.partials().is_empty().then_some(()));
    larder.get("/rsc.io/sampler/@v/v1.3.0.zip").expect(200);
    assert_stored_is_true(&larder.cache, &fixture());
}

/// Where the disk is full for everything, stored files are still hits, and room made later is used at once.
#[test]
fn a_disk_without_a_byte_serves_hits() {
    let Some(disk) = Tmpfs::mount(6 << 20) else { return };
    let upstream = Upstream::start();
    let larder = Start::on(&upstream).cache(&disk.path().join("cache")).run();
    larder.hit(SMALL_ZIP);
    let ballast = disk.path().join("ballast");
    disk.fill(&ballast);
    for _ in 0..20 {
        assert!(larder.get(SMALL_ZIP).expect(200).is_hit());
    }
    let answer = larder.get("/github.com/gorilla/websocket/@v/v1.5.3.zip");
    assert_eq!(answer.status, 507, "{}", answer.text());
    std::fs::remove_file(&ballast).unwrap();
    larder.get("/github.com/gorilla/websocket/@v/v1.5.3.zip").expect(200);
}

/// A refused zip of a version leaves its .info and .mod, each file being fetched by itself.
#[test]
fn each_file_is_fetched_by_itself() {
    let upstream = Upstream::start();
    upstream.faults(json!([{"kind": "zip", "hang_after": 100}]));
    let larder = Start::on(&upstream).args(["-stall-timeout", "3s"]).run();
    let running = larder.open(BIG_ZIP.replace(".zip", ".info").as_str());
    assert_eq!(running.status(), 200);
    let _zip = std::thread::scope(|scope| {
        let zip = scope.spawn(|| larder.try_get(SMALL_ZIP));
        larder.get("/rsc.io/quote/@v/v1.5.2.info").expect(200);
        larder.get("/rsc.io/quote/@v/v1.5.2.mod").expect(200);
        upstream.faults(json!([]));
        zip.join().unwrap()
    });
    let asked: Vec<_> = upstream.log().into_iter().map(|record| record.kind).collect();
    assert_eq!(asked.iter().filter(|kind| *kind == "info").count(), 2, "{asked:?}");
    assert_eq!(asked.iter().filter(|kind| *kind == "mod").count(), 1, "{asked:?}");
}
