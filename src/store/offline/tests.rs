//! What is answered while nobody can be asked.

use super::*;
use crate::store::testing::{Tree, info, version};

fn path(text: &str) -> ModulePath {
    ModulePath::parse(text).unwrap()
}

fn version_of(answer: io::Result<Option<Vec<u8>>>) -> Option<String> {
    answer.unwrap().map(|content| parse_info(&content).unwrap().version)
}

fn list(tree: &Tree, module: &str) -> Option<String> {
    let path = path(module);
    let answer = Stored::read(tree.root(), &path).unwrap().list().unwrap();
    answer.map(|text| String::from_utf8(text).unwrap())
}

fn latest(tree: &Tree, module: &str) -> Option<String> {
    let path = path(module);
    version_of(Stored::read(tree.root(), &path).unwrap().latest())
}

fn query(tree: &Tree, module: &str, text: &str) -> Option<String> {
    let path = path(module);
    let query = Query::new(&path, text).unwrap();
    version_of(Stored::read(tree.root(), &path).unwrap().query(&query))
}

/// Of three versions known one is stored: the list and the latest are that one, so `go get M@latest` succeeds. The
/// remembered list limits what is told, and stands when nothing of it is stored.
#[test]
fn lists_tell_what_can_be_had() {
    let tree = Tree::new();
    tree.put("example.com/m/@v/list", "v1.2.0\nv1.1.0 2026-01-02T03:04:05Z\nv1.0.0\n");
    assert_eq!(list(&tree, "example.com/m").as_deref(), Some("v1.2.0\nv1.1.0 2026-01-02T03:04:05Z\nv1.0.0\n"));
    tree.put("example.com/m/@v/v1.2.0.info", info("v1.2.0"));
    tree.put("example.com/m/@v/v1.2.0.mod", "module example.com/m\n");
    tree.put_version("example.com/m@v1.1.0", 1);
    tree.put_version("example.com/m@v1.3.0", 1);
    assert_eq!(list(&tree, "example.com/m").as_deref(), Some("v1.1.0\n"));
    assert_eq!(latest(&tree, "example.com/m").as_deref(), Some("v1.1.0"));
    assert_eq!(stored_versions(tree.root(), &path("example.com/m")).unwrap().len(), 2);
    std::fs::remove_file(tree.path("example.com/m/@v/list")).unwrap();
    assert_eq!(list(&tree, "example.com/m").as_deref(), Some("v1.1.0\nv1.3.0\n"));
    assert_eq!(latest(&tree, "example.com/m").as_deref(), Some("v1.3.0"));
}

/// Nothing known of a module, not even of one whose path begins like another's, is told from an empty list.
#[test]
fn unknown_modules_are_unknown() {
    let tree = Tree::new();
    tree.put_version("example.com/m/sub@v0.0.0-20260102030405-0123456789ab", 1);
    tree.put("example.com/n/@latest", info("v0.1.0"));
    tree.put("example.com/o/@v/list", "");
    for (module, is_known, answer) in [
        ("example.com/m", false, None),
        ("example.com", false, None),
        ("example.com/m/sub", true, Some("")),
        ("example.com/n", true, Some("")),
        ("example.com/o", true, Some("")),
    ] {
        assert_eq!(knows_anything_of(tree.root(), &path(module)).unwrap(), is_known, "{module}");
        assert_eq!(list(&tree, module).as_deref(), answer, "{module}");
    }
    assert_eq!(latest(&tree, "example.com/m"), None);
    assert_eq!(latest(&tree, "example.com/n").as_deref(), Some("v0.1.0"));
}

/// Releases come before pre-releases, these before pseudo-versions, of which the newest counts, whatever its base.
#[test]
fn the_latest_is_what_go_would_pick() {
    let tree = Tree::new();
    let newest = "v0.0.0-20260102030405-0123456789ab";
    tree.put_version(&format!("example.com/m@{newest}"), 1);
    tree.put_version("example.com/m@v1.0.1-0.20250102030405-ba9876543210", 1);
    assert_eq!(latest(&tree, "example.com/m").as_deref(), Some(newest));
    tree.put("example.com/m/@latest", info("v1.0.1-0.20250102030405-ba9876543210"));
    assert_eq!(latest(&tree, "example.com/m").as_deref(), Some("v1.0.1-0.20250102030405-ba9876543210"));
    tree.put("example.com/m/@latest", info("v9.0.0"));
    assert_eq!(latest(&tree, "example.com/m").as_deref(), Some(newest));
    for (stored, expected) in [
        ("v1.5.0-beta.2", "v1.5.0-beta.2"),
        ("v1.5.0-beta.10", "v1.5.0-beta.10"),
        ("v1.0.0", "v1.0.0"),
        ("v1.10.0", "v1.10.0"),
        ("v1.9.0", "v1.10.0"),
        // Not if the newest of the others has a go.mod file.
        ("v4.0.0+incompatible", "v1.10.0"),
    ] {
        tree.put_version(&format!("example.com/m@{stored}"), 1);
        assert_eq!(latest(&tree, "example.com/m").as_deref(), Some(expected));
    }
    tree.put("example.com/m/@v/v1.10.0.mod", "module example.com/m\n");
    assert_eq!(latest(&tree, "example.com/m").as_deref(), Some("v4.0.0+incompatible"));
}

/// A query is answered from what was remembered if that is stored, else by commit, by prefix, by origin; what was
/// remembered stands if nothing else does.
#[test]
fn queries_find_stored_versions() {
    let tree = Tree::new();
    let old = "v0.0.0-20250102030405-0123456789ab";
    let new = "v0.0.0-20260102030405-ba9876543210";
    for text in ["v1.2.0", "v1.2.3", "v1.20.0", "v1.3.0-rc.1", old, new] {
        tree.put_version(&format!("example.com/m@{text}"), 1);
    }
    tree.put("example.com/m/@v/master.info", info(old));
    tree.put("example.com/m/@v/gone.info", info("v1.9.9"));
    let origin = |version: &str, hash: &str, reference: &str| {
        format!(
            "{{\"Version\":\"{version}\",\"Origin\":{{\"VCS\":\"git\",\"Hash\":\"{hash}\",\"Ref\":\"{reference}\"}}}}"
        )
    };
    let commit = "feedfacefeedfacefeedfacefeedfacefeedface";
    tree.put("example.com/m/@v/v1.2.3.info", origin("v1.2.3", commit, "refs/tags/v1.2.3"));
    tree.put(&format!("example.com/m/@v/{new}.info"), origin(new, "ba98765432100000", "refs/heads/dev"));
    tree.put(&format!("example.com/m/@v/{old}.info"), origin(old, "0123456789ab0000", "refs/heads/dev"));
    for (text, expected) in [
        ("master", Some(old)),
        ("gone", Some("v1.9.9")),
        ("v1", Some("v1.20.0")),
        ("v1.2", Some("v1.2.3")),
        ("v1.3", Some("v1.3.0-rc.1")),
        ("v2", None),
        ("v1.2.3+meta", Some("v1.2.3")),
        ("0123456", Some(old)),
        ("0123456789ab0000111122223333444455556666", Some(old)),
        ("0123457", None),
        ("feedface", Some("v1.2.3")),
        (commit, Some("v1.2.3")),
        ("dev", Some(new)),
        ("nowhere", None),
    ] {
        assert_eq!(query(&tree, "example.com/m", text).as_deref(), expected, "{text}");
    }
    assert!(tree.index().version(&version("example.com/m@v1.2.3")).is_none());
}
