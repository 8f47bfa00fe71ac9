//! Names that must not leave the box: no checksum database, and nobody on the way to one, is told of a private module.

use super::{A, B, C, Ground, alarms, file, get_true, lookup, modules, refused_zip, unverified};
use crate::harness::{Go, Larder, Start, Sumdb, Tree, Upstream, temp_dir};

/// Asserts that a private name's lookup is refused in words that help, and that nobody was told.
#[track_caller]
fn assert_guarded(larder: &Larder, ground: &Ground, between: &Upstream, module: &str) {
    let answer = larder.get(&lookup(&ground.sumdb, module)).expect(403);
    let text = answer.text();
    assert!(
        text.contains(module) && text.contains("this module is private: its name is not sent to a checksum database"),
        "{text}"
    );
    assert!(text.contains("\nhint: ") && text.contains("GONOSUMDB") && text.contains("GONOPROXY=none"), "{text}");
    let path = module.split('@').next().unwrap();
    assert_eq!(ground.sumdb.asked(path), 0, "{:?}", ground.sumdb.counts());
    assert!(between.log().iter().all(|record| !record.uri.contains(&format!("lookup/{path}"))), "{:?}", between.log());
}

/// A lookup of a private pattern is 403 with a line that says what to set, and reaches neither the database nor the upstream
/// in between; the module itself is served unverified by choice, in strict mode too, and counted as nothing.
#[test]
fn a_private_lookup_goes_nowhere() {
    let private = "corp.example.com/team/lib@v1.0.0";
    let ground = Ground::over(modules(&[A, B, private], 500), &["-lie", private]);
    let between = Upstream::with(ground.tree.path(), &["-sumdb", &ground.sumdb.behind()]);
    for mode in ["when-reachable", "strict"] {
        let args = ["-gosumdb", &ground.sumdb.key, "-gonosumdb", "*.example.com,other.example/x", "-sumdb-mode", mode];
        let larder = Start::on(&between).args(args).run();
        for kind in ["mod", "zip"] {
            get_true(&larder, &ground, private, kind);
        }
        assert_guarded(&larder, &ground, &between, private);
        // Escaped letters change nothing: the pattern is about the path as it is.
        larder.get(&lookup(&ground.sumdb, "corp.example.com/!team/lib@v1.0.0")).expect(403);
        // One that matches no pattern is looked up as ever: *.example.com is not example.com/a.
        larder.get(&lookup(&ground.sumdb, A)).expect(200);
        get_true(&larder, &ground, B, "zip");
        assert_eq!(unverified(&larder), 0);
        assert!(alarms(&larder).is_empty(), "{:?}", alarms(&larder));
    }
}

/// What the go command shows a developer names the variable to set, and with it set the module is had.
#[test]
fn the_developer_is_told_what_to_set() {
    let ground = Ground::new(&[]);
    let larder = ground.start().args(["-gonosumdb", "example.com"]).run();
    let output = Go::new(&larder.url).sumdb(&ground.sumdb.key).run(&["mod", "download", A]);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && shown.contains("GONOSUMDB"), "{shown}");
    Go::new(&larder.url).sumdb(&ground.sumdb.key).env("GONOSUMDB", "example.com").expect(&["mod", "download", A]);
    let both = Go::new(&larder.url).sumdb(&ground.sumdb.key).env("GOPRIVATE", "example.com").env("GONOPROXY", "none");
    both.expect(&["mod", "download", B]);
    assert_eq!(ground.sumdb.asked("/lookup/"), 0);
}

/// The patterns of private upstreams are private by themselves.
#[test]
fn private_upstreams_make_private_names() {
    let ground = Ground::new(&[]);
    let name = "private.example.com/team/lib@v1.0.0";
    let tree = Tree::new().module("private.example.com/team/lib", "v1.0.0", 500);
    let private = Upstream::with(tree.path(), &[]);
    let between = Upstream::with(ground.tree.path(), &["-sumdb", &ground.sumdb.behind()]);
    let folder = temp_dir();
    let config = folder.path().join("larder.yaml");
    let text = format!("private_upstreams:\n  - pattern: \"private.example.com\"\n    url: \"{}\"\n", private.url);
    std::fs::write(&config, text).unwrap();
    let args = ["-config", config.to_str().unwrap(), "-gosumdb", &ground.sumdb.key, "-sumdb-mode", "strict"];
    let larder = Start::on(&between).args(args).run();
    for kind in ["mod", "zip"] {
        assert!(larder.get(&file(name, kind)).expect(200).body == tree.read(&file(name, kind)));
    }
    assert_guarded(&larder, &ground, &between, name);
    get_true(&larder, &ground, A, "zip");
    assert!(private.log().iter().all(|record| !record.uri.contains("sumdb")), "{:?}", private.log());
    assert!(between.log().iter().all(|record| !record.uri.contains("private")), "{:?}", between.log());
    assert_eq!(unverified(&larder), 0);
}

/// golang.org/toolchain is verified whatever the patterns say, as the go command does it.
#[test]
fn a_toolchain_is_never_exempt() {
    let (good, bad) =
        ("golang.org/toolchain@v0.0.1-go1.99.0.linux-amd64", "golang.org/toolchain@v0.0.1-go1.99.1.linux-amd64");
    let ground = Ground::over(modules(&[good, bad, "golang.org/x/made@v1.0.0"], 500), &["-lie", bad]);
    let larder = ground.strict().args(["-gonosumdb", "golang.org,golang.org/toolchain,golang.org/*"]).run();
    get_true(&larder, &ground, good, "zip");
    let text = refused_zip(&larder, bad, &ground.truth(bad, "zip")).unwrap();
    assert!(text.contains("checksum mismatch"), "{text}");
    larder.get(&lookup(&ground.sumdb, good)).expect(200);
    // Its neighbour is exempt.
    larder.get(&lookup(&ground.sumdb, "golang.org/x/made@v1.0.0")).expect(403);
    get_true(&larder, &ground, "golang.org/x/made@v1.0.0", "zip");
}

/// Patterns guard every proxied database, also one that files are not verified against.
#[test]
fn every_proxied_database_is_kept_in_the_dark() {
    let ground = Ground::new(&[]);
    let second = Sumdb::over(ground.tree.path(), &["-name", "second.test", "-seed", "second"]);
    let list = format!("{},{}", ground.sumdb.flag(), second.flag());
    for gosumdb in [ground.sumdb.flag(), "off".to_owned()] {
        let args = ["-gosumdb", &gosumdb, "-sumdbs", &list, "-gonosumdb", "example.com/b"];
        let larder = Start::on(&ground.upstream).args(args).run();
        for sumdb in [&ground.sumdb, &second] {
            larder.get(&lookup(sumdb, B)).expect(403);
            larder.get(&lookup(sumdb, C)).expect(200);
            assert_eq!(sumdb.asked("example.com/b"), 0);
        }
    }
}
