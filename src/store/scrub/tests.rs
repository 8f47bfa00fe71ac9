//! Files that hold, files of which a byte has changed, sums that are missing, zips of every size, the pace.

use sha2::{Digest as _, Sha256};
use std::os::unix::fs::FileExt;

use super::*;
use crate::module::generate::vectors;
use crate::store::ZipSums;
use crate::store::testing::{Tree, info, many_entries, try_commit_zip, version, zip};

fn unhurried(store: &Store, resource: &Resource) -> Result<Option<Checked>, Unsound> {
    let clock = Clock::system();
    check(store, resource, &Throttle::new(0, &clock, &|_| panic!("no pause"), &|| false))
}

fn resource(path: &str) -> Resource {
    Resource::parse(path).unwrap()
}

fn fixture(path: &str) -> Vec<u8> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tree");
    std::fs::read(tree.join(path)).unwrap()
}

fn commit_zip(store: &Store, resource: &Resource, content: &[u8], sums: ZipSums) {
    try_commit_zip(store, resource, content, sums).unwrap();
}

fn open(tree: &Tree, resource: &Resource) -> File {
    File::options().read(true).write(true).open(tree.path(&resource.path())).unwrap()
}

/// Flips each byte in turn and returns what is said of it.
fn flipped<'t>(
    tree: &'t Tree,
    store: &'t Store,
    resource: &'t Resource,
) -> impl Iterator<Item = (u64, Result<Option<Checked>, Unsound>)> + 't {
    let file = open(tree, resource);
    (0..file.metadata().unwrap().len()).map(move |offset| {
        let mut byte = [0];
        FileExt::read_exact_at(&file, &mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (offset % 8)], offset).unwrap();
        let said = unhurried(store, resource);
        file.write_all_at(&byte, offset).unwrap();
        (offset, said)
    })
}

fn known_h1(path: &str, key: &str) -> H1 {
    let stem = path.rsplit_once('.').unwrap().0;
    let rows = vectors("modules");
    let row = rows.as_array().unwrap().iter().find(|row| row["stem"] == stem).unwrap();
    H1::parse(row[key].as_str().unwrap()).unwrap()
}

/// Whatever byte of whatever file changes, it is found out; before and after that the file holds.
#[test]
fn every_flipped_byte_is_found() {
    let tree = Tree::new();
    let store = Store::open_root(tree.root()).unwrap();
    let zip = "rsc.io/quote/@v/v1.5.2.zip";
    let lookup = "942\nrsc.io/quote v1.5.2 h1:a=\n\ngo.sum database tree\n1\nAA=\n\n\u{2014} name AAAA\n";
    for (path, content) in [
        (zip, fixture(zip)),
        ("rsc.io/quote/@v/v1.5.2.info", fixture("rsc.io/quote/@v/v1.5.2.info")),
        ("rsc.io/quote/@v/v1.5.2.mod", fixture("rsc.io/quote/@v/v1.5.2.mod")),
        ("rsc.io/quote/@v/list", fixture("rsc.io/quote/@v/list")),
        ("rsc.io/quote/@latest", fixture("rsc.io/quote/@v/v1.5.2.info")),
        ("sumdb/sum.example/lookup/rsc.io/quote@v1.5.2", lookup.as_bytes().to_vec()),
        ("sumdb/sum.example/tile/8/0/000.p/7", vec![7; 7 * 32]),
        ("sumdb/sum.example/latest", b"go.sum database tree\n".to_vec()),
        ("sumdb/sum.example/supported", Vec::new()),
    ] {
        let resource = resource(path);
        let crc32 = crc32fast::hash(&content);
        let h1 = match path.rsplit_once('.') {
            Some((_, "zip")) => Some(known_h1(path, "zip_h1")),
            Some((_, "mod")) => Some(known_h1(path, "mod_h1")),
            Some(_) | None => None,
        };
        if path == zip {
            commit_zip(&store, &resource, &content, ZipSums { h1, crc32: Some(crc32) });
        } else {
            store.commit_bytes(&resource, &content).unwrap();
        }
        let expected = Checked { bytes: content.len() as u64, crc32, was_sum_known: true, h1 };
        assert_eq!(unhurried(&store, &resource).unwrap(), Some(expected), "{path}");
        for (offset, said) in flipped(&tree, &store, &resource) {
            let Err(unsound) = said else { panic!("{path}: flip at {offset} not found") };
            assert!(!unsound.is_unknown());
            let Unsound::Decayed { stored_crc, found_crc } = unsound else { panic!("{path}: {unsound}") };
            assert!(stored_crc == crc32 && found_crc != crc32);
        }
        assert_eq!(unhurried(&store, &resource).unwrap(), Some(expected), "{path}");
    }
}

/// Without the attribute a byte that changes the content of a zip is found all the same, by its `.ziphash` or its form.
#[test]
fn content_is_found_by_the_zip_hash() {
    let tree = Tree::new();
    let store = Store::open_root(tree.root()).unwrap();
    let path = "rsc.io/quote/@v/v1.5.2.zip";
    let (zip, h1) = (resource(path), known_h1(path, "zip_h1"));
    commit_zip(&store, &zip, &fixture(path), ZipSums { h1: Some(h1), crc32: None });
    let mut harmless = 0;
    for (offset, said) in flipped(&tree, &store, &zip) {
        match said {
            Ok(checked) => {
                // A date, say: not in the hash.
                assert_eq!(checked.unwrap().h1, Some(h1), "flip at {offset}");
                sums::clear(&open(&tree, &zip));
                harmless += 1;
            }
            Err(unsound) => assert!(!unsound.is_unknown(), "flip at {offset}: {unsound}"),
        }
    }
    assert!(harmless < 600, "{harmless}");
}

/// What lacks its attribute, as on a file system without them or after a copy, holds by its form and gets it; what does not
/// hold does not get it.
#[test]
fn missing_sums_are_set_where_all_else_holds() {
    let tree = Tree::new();
    let store = Store::open_root(tree.root()).unwrap();
    tree.put_version("example.com/m@v1.0.0", 100);
    for kind in ArtifactKind::ALL {
        let resource = Resource::Artifact(version("example.com/m@v1.0.0"), kind);
        let first = unhurried(&store, &resource).unwrap().unwrap();
        assert!(!first.was_sum_known);
        assert_eq!(sums::get(&open(&tree, &resource)), Some(first.crc32));
        assert_eq!(unhurried(&store, &resource).unwrap(), Some(Checked { was_sum_known: true, ..first }));
    }
    let whole = zip(&version("example.com/m@v1.0.0"), 100);
    let other_zip = zip(&version("example.com/m@v1.0.6"), 1);
    let other = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    tree.put("example.com/m/@v/v1.0.6.ziphash", other);
    for (path, content, text) in [
        ("example.com/m/@v/v1.0.1.info", info("v1.0.2").into_bytes(), "names version v1.0.2"),
        ("example.com/m/@v/v1.0.2.info", b"x".to_vec(), "not the JSON of a version"),
        ("example.com/m/@v/v1.0.2.mod", Vec::new(), "empty"),
        ("example.com/m/@v/v1.0.3.mod", vec![b' '; 16_777_217], "too long: 16777217 bytes"),
        ("example.com/m/@v/v1.0.4.zip", whole[..200].to_vec(), "not a zip file, or cut short"),
        ("example.com/m/@v/v1.0.5.zip", whole, "name does not begin with example.com/m@v1.0.5/"),
        ("example.com/m/@v/v1.0.6.zip", other_zip, "zip hash mismatch: got h1:"),
        ("example.com/m/@v/v1.0.7.zip", many_entries("example.com/m@v1.0.7", 2, "GO.MOD"), "lowercase names"),
        ("sumdb/sum.example/tile/8/0/000", vec![0; 8191], "tile of 8191 bytes instead of 8192"),
        ("sumdb/sum.example/lookup/example.com/m@v1.0.0", Vec::new(), "empty"),
    ] {
        tree.put(path, content);
        let unsound = unhurried(&store, &resource(path)).unwrap_err();
        assert!(unsound.to_string().contains(text) && !unsound.is_unknown(), "{path}: {unsound}");
        assert_eq!(sums::get(&open(&tree, &resource(path))), None, "{path}");
    }
    assert_eq!(unhurried(&store, &resource("example.com/m/@v/v1.0.8.zip")).unwrap(), None);
    assert_eq!(unhurried(&store, &resource("example.com/m/v2/@v/v2.0.8.zip")).unwrap(), None);
}

/// An entry that cannot be read is found in a zip that nothing is known of but its form.
#[test]
fn damaged_content_is_found_without_any_sum() {
    let tree = Tree::new();
    let store = Store::open_root(tree.root()).unwrap();
    let path = "rsc.io/quote/@v/v1.5.2.zip";
    let mut content = fixture(path);
    content[90] ^= 4;
    tree.put(path, content);
    let unsound = unhurried(&store, &resource(path)).unwrap_err();
    assert!(matches!(unsound, Unsound::Hash(HashError::Content { .. })), "{unsound}");
    assert_eq!(sums::get(&open(&tree, &resource(path))), None);
}

/// A `.ziphash` that is damaged is written anew when its zip holds, and then speaks for it.
#[test]
fn damaged_zip_hashes_are_mended() {
    let tree = Tree::new();
    let store = Store::open_root(tree.root()).unwrap();
    let path = "rsc.io/quote/@v/v1.5.2.zip";
    let (zip, h1) = (resource(path), known_h1(path, "zip_h1"));
    let content = fixture(path);
    commit_zip(&store, &zip, &content, ZipSums { h1: Some(h1), crc32: Some(crc32fast::hash(&content)) });
    let beside = tree.path("rsc.io/quote/@v/v1.5.2.ziphash");
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), h1.to_string());
    let mut text = h1.to_string();
    text.replace_range(5..6, if &text[5..6] == "A" { "B" } else { "A" });
    for damaged in ["", &text] {
        std::fs::write(&beside, damaged).unwrap();
        assert_eq!(unhurried(&store, &zip).unwrap().unwrap().h1, Some(h1));
        assert_eq!(std::fs::read_to_string(&beside).unwrap(), h1.to_string());
    }
}

/// A zip of more entries than fit into memory is hashed by way of scratch files, to the hash of its sorted names; nothing
/// of them stays.
#[test]
fn large_directories_are_hashed_by_runs() {
    let tree = Tree::new();
    let store = Store::open_root(tree.root()).unwrap();
    let module = version("example.com/m@v1.0.0");
    let entries = crate::module::zip::hash::ENTRIES_MAX + 5;
    tree.put("example.com/m/@v/v1.0.0.zip", many_entries("example.com/m@v1.0.0", entries, "go.mod"));
    let zip = Resource::Artifact(module.clone(), ArtifactKind::Zip);
    let file = open(&tree, &zip);
    let bytes = file.metadata().unwrap().len();
    assert!(matches!(hash(&file, bytes, "example.com/m@v1.0.0/"), Err(HashError::TooManyEntries { .. })));
    let mut names: Vec<String> = (1..entries).map(|number| format!("{number}.go")).collect();
    names.push("go.mod".to_owned());
    names.sort();
    let mut summary = Sha256::new();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for name in names {
        summary.update(format!("{empty}  example.com/m@v1.0.0/{name}\n"));
    }
    let expected: [u8; 32] = summary.finalize().into();
    assert_eq!(*h1_of_zip(&store, &file, bytes, &module).unwrap().as_bytes(), expected);
    assert_eq!(*unhurried(&store, &zip).unwrap().unwrap().h1.unwrap().as_bytes(), expected);
    assert_eq!(std::fs::read_dir(tree.path(".larder/tmp")).unwrap().count(), 0);
    std::fs::remove_dir(tree.path(".larder/tmp")).unwrap();
    let failed = Unsound::from(h1_of_zip(&store, &file, bytes, &module).unwrap_err());
    assert!(failed.is_unknown() && failed.to_string().contains("scratch file"), "{failed}");
}

/// Reading waits so long that the rate is kept over all files, in pauses that are short enough to stop in between.
#[test]
fn the_rate_is_kept() {
    let tree = Tree::new();
    let store = Store::open_root(tree.root()).unwrap();
    let list = resource("example.com/m/@v/list");
    store.commit_bytes(&list, &vec![b'\n'; 1_000_000]).unwrap();
    let clock = Clock::system();
    let paused = Cell::new(Duration::ZERO);
    let pause = |time: Duration| {
        assert!(time <= PAUSE_MAX);
        paused.set(paused.get() + time);
    };
    let throttle = Throttle::new(1_000_000, &clock, &pause, &|| false);
    for _ in 0..3 {
        check(&store, &list, &throttle).unwrap().unwrap();
    }
    // The clock hardly moves while the pauses are not slept: what is owed adds up instead.
    assert!(paused.get() >= Duration::from_secs(3) - Duration::from_millis(900), "{:?}", paused.get());
    let is_stopped = Cell::new(false);
    let stop = |_: Duration| is_stopped.set(true);
    let is_cancelled = || is_stopped.get();
    let throttle = Throttle::new(1, &clock, &stop, &is_cancelled);
    let unsound = check(&store, &list, &throttle).unwrap_err();
    assert!(matches!(unsound, Unsound::Stopped) && unsound.is_unknown(), "{unsound}");
    let unsound = check(&store, &list, &Throttle::new(0, &clock, &|_| {}, &|| true)).unwrap_err();
    assert!(matches!(unsound, Unsound::Stopped), "{unsound}");
}

/// What is found out about a file that is replaced while it is read does not fall upon the new one.
#[test]
fn a_replaced_file_is_not_blamed() {
    let tree = Tree::new();
    let store = Store::open_root(tree.root()).unwrap();
    let list = resource("example.com/m/@v/list");
    store.commit_bytes(&list, b"v1.0.0\n").unwrap();
    open(&tree, &list).write_all_at(b"v1.0.1\n", 0).unwrap();
    assert!(matches!(unhurried(&store, &list), Err(Unsound::Decayed { .. })));
    let clock = Clock::system();
    let replace = |_: Duration| drop(store.commit_bytes(&list, b"v1.0.2\n").unwrap());
    let throttle = Throttle::new(1000, &clock, &replace, &|| false);
    assert_eq!(check(&store, &list, &throttle).unwrap(), None);
    assert!(unhurried(&store, &list).unwrap().unwrap().was_sum_known);
}
