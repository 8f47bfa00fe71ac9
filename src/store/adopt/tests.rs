//! Trees of other programs, and Larder's own without an index.

use super::*;
use crate::store::testing::{Tree, info, version, zip};

const NEVER: &dyn Fn() -> bool = &|| false;

fn scanned(tree: &Tree, index: &Index) -> ScanReport {
    let adoption = Adoption::of(tree.root());
    assert!(is_scan_due(&adoption, index) || adoption.is_complete());
    let report = scan(&adoption, index, &Clock::system(), NEVER).unwrap();
    assert!(report.is_complete && adoption.is_complete() && index.is_whole());
    assert!(!is_scan_due(&adoption, index));
    index.maintain();
    report
}

/// The go command's own download cache is taken as it is: its locks and leftovers are no resources, its hashes are
/// known, its list is stale, everything counts as used now.
#[test]
fn a_download_cache_is_adopted() {
    let tree = Tree::new();
    tree.put_version("example.com/M@v1.0.0", 100);
    let folder = "example.com/!m/@v";
    tree.put(&format!("{folder}/v1.0.0.ziphash"), "h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=");
    for name in ["v1.0.0.lock", "v1.0.1.partial", "v1.0.1.lock", "list.lock", "v1.0.2.part", "x.tmp", "v1.0.2.mod.tmp"]
    {
        tree.put(&format!("{folder}/{name}"), "");
    }
    tree.put(&format!("{folder}/list"), "v1.0.0\n");
    tree.put(&format!("{folder}/v1.1.0.mod"), "module example.com/M\n");
    tree.put("sumdb/sum.example/tile/8/0/000.p/2", [0; 64]);
    tree.put(".usage.db", "");
    let before = Clock::system().now();
    let index = tree.index();
    let report = scanned(&tree, &index);
    assert_eq!((report.found.files, report.broken), (6, 0));
    assert_eq!(index.totals(), report.found);
    let entry = index.version(&version("example.com/M@v1.0.0")).unwrap();
    assert_eq!((entry.file_count(), entry.h1.unwrap()[0], entry.fetched), (3, 0xc3, None));
    assert!(entry.last_used >= before);
    assert_eq!(index.version(&version("example.com/M@v1.1.0")).unwrap().file_count(), 1);
    let list = Resource::parse("example.com/!m/@v/list").unwrap();
    assert_eq!(index.mutable(&list).unwrap().fetched, UnixSeconds(0));
    assert!(tree.has("example.com/!m/@v/v1.0.0.lock"));
}

/// Files that do not hold are moved out of the way: by the scan, and by the first request that comes before it.
#[test]
fn broken_files_are_set_aside() {
    let tree = Tree::new();
    let m = version("example.com/m@v1.0.0");
    let whole = zip(&m, 100);
    let cases: [(&str, Vec<u8>); 9] = [
        ("example.com/m/@v/v1.0.0.info", b"not json".to_vec()),
        ("example.com/m/@v/v1.0.1.info", info("v1.0.2").into_bytes()),
        ("example.com/m/@v/v1.0.2.info", vec![b' '; 2_000_000]),
        ("example.com/m/@v/v1.0.0.mod", Vec::new()),
        ("example.com/m/@v/v1.0.0.zip", whole[..whole.len() - 1].to_vec()),
        ("example.com/m/@v/v1.0.1.zip", whole.clone()),
        ("example.com/m/@latest", Vec::new()),
        ("sumdb/sum.example/tile/8/0/000", vec![0; 8191]),
        ("sumdb/sum.example/lookup/example.com/m@v1.0.0", Vec::new()),
    ];
    let put = || {
        for (path, content) in &cases {
            tree.put(path, content);
        }
        tree.put("example.com/m/@v/v1.0.0.ziphash", "h1:x");
        tree.put_version("example.com/good@v1.0.0", 10);
    };
    put();
    let index = tree.index();
    let report = scanned(&tree, &index);
    assert_eq!((report.found.files, report.broken), (3, 9));
    for (path, _) in &cases {
        assert!(!tree.has(path), "{path}");
    }
    let kept = std::fs::read_dir(tree.path(".larder/quarantine")).unwrap();
    let kept: Vec<_> = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(kept.len(), 9);
    assert!(kept.iter().any(|name| name.ends_with("@example.com@m@@v@v1.0.0.zip")), "{kept:?}");
    assert!(!tree.has("example.com/m/@v/v1.0.0.ziphash"));

    std::fs::remove_file(tree.path(".larder/adopted")).unwrap();
    put();
    let adoption = Adoption::of(tree.root());
    let now = Clock::system().now();
    for (path, _) in cases.iter().filter(|(path, _)| path.contains("/@v/")) {
        let resource = Resource::parse(path).unwrap();
        adoption.check_before_serving(&index, &resource, now).unwrap_err();
        assert!(!tree.has(path), "{path}");
    }
    let good = Resource::parse("example.com/good/@v/v1.0.0.zip").unwrap();
    adoption.check_before_serving(&index, &good, now).unwrap();
    let absent = Resource::parse("example.com/good/@v/v1.0.9.zip").unwrap();
    let err = adoption.check_before_serving(&index, &absent, now).unwrap_err();
    assert!(err.is_unreadable(), "{err}");
}

/// An index that is gone is made from the tree, with hashes; the tree is not judged a second time.
#[test]
fn a_lost_index_is_made_anew() {
    let tree = Tree::new();
    tree.put_version("example.com/m@v1.0.0", 100);
    let index = tree.index();
    let found = scanned(&tree, &index).found;
    index.close();
    std::fs::remove_dir_all(tree.path(".larder/index")).unwrap();
    tree.put("example.com/m/@v/v1.0.0.ziphash", "h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=\n");
    tree.put("example.com/m/@v/v1.0.1.mod", "");
    let index = tree.index();
    let report = scanned(&tree, &index);
    assert_eq!((report.found.files, report.found.bytes, report.broken), (4, found.bytes, 0));
    assert_eq!(index.totals(), report.found);
    assert!(index.version(&version("example.com/m@v1.0.0")).unwrap().h1.is_some());
    let judged = Resource::parse("example.com/m/@v/v1.0.1.mod").unwrap();
    Adoption::of(tree.root()).check_before_serving(&index, &judged, UnixSeconds(0)).unwrap();
}

/// A scan that is stopped leaves no stamp; scanning twice changes nothing; what was used before stays so.
#[test]
fn scans_can_be_stopped_and_repeated() {
    let tree = Tree::new();
    tree.put_version("example.com/m@v1.0.0", 100);
    let index = tree.index();
    let adoption = Adoption::of(tree.root());
    let report = scan(&adoption, &index, &Clock::system(), &|| true).unwrap();
    assert!(!report.is_complete && !adoption.is_complete() && !tree.has(".larder/adopted"));
    assert!(!index.is_whole() && is_scan_due(&adoption, &index));
    index.close();
    let index = tree.index();
    assert!(!index.is_whole() && index.wants_scan());
    let m = version("example.com/m@v1.0.0");
    index.restamp(&m, UnixSeconds(1_795_000_000));
    scanned(&tree, &index);
    scanned(&tree, &index);
    assert_eq!(index.totals().files, 3);
    assert_eq!(index.version(&m).unwrap().last_used, UnixSeconds(1_795_000_000));
}
