//! Tests of the go command's rules for zips: Go's vectors, each rule by name, and directories too large for memory.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::super::{Flaw, generate::vectors};
use super::rules::*;
use super::tests_archive::*;
use super::*;

fn module() -> ModuleVersion {
    ModuleVersion::parse("example.com/m@v1.0.0").unwrap()
}

fn check(bytes: &[u8]) -> Result<Facts, RuleError> {
    check_rules(bytes, bytes.len() as u64, &module())
}

fn names(names: &[&str]) -> Vec<u8> {
    let items: Vec<Item> =
        names.iter().map(|name| Item { is_deflated: false, has_descriptor: false, ..Item::new(name, b"") }).collect();
    plain(&items)
}

/// Go's verdict on every zip of the vectors is the verdict here.
#[test]
fn vectors_are_judged_as_go_does() {
    for row in vectors("zip_check").as_array().unwrap() {
        let bytes = BASE64_STANDARD.decode(row["zip_base64"].as_str().unwrap()).unwrap();
        let result = check(&bytes);
        assert_eq!(result.is_ok(), row["checked"].as_bool().unwrap(), "{}: {result:?}", row["why"]);
    }
}

/// Each rule is named, with the entry that breaks it.
#[test]
fn rules_are_named() {
    for (entries, text) in [
        (&["a\\b"][..], r#"zip entry "example.com/m@v1.0.0/a\\b": malformed file path: invalid char '\\'"#),
        (&["a/../b"], "zip entry \"example.com/m@v1.0.0/a/../b\": malformed file path: path element of dots"),
        (&["/"], "zip entry \"example.com/m@v1.0.0//\": malformed file path: empty string"),
        (&["a//"], "zip entry \"example.com/m@v1.0.0/a//\": malformed file path: empty path element"),
        (&["nul/x"], "zip entry \"example.com/m@v1.0.0/nul/x\": malformed file path: reserved name on Windows"),
        (&["a.go", "b", "a.go"], "multiple entries for zip entry \"a.go\""),
        (&["a.go", "b", "A.go"], "zip entry \"A.go\": case-insensitive file name collision with \"a.go\""),
        (&["K/a", "\u{212a}/b"], "zip entry \"\u{212a}\": case-insensitive file name collision with \"K\""),
        (&["x/a", "X/b"], "zip entry \"X\": case-insensitive file name collision with \"x\""),
        (&["x", "x/y"], "zip entry \"x\" is both a file and a directory"),
        (&["x/y/z", "x/y"], "zip entry \"x/y\" is both a file and a directory"),
        (&["x/", "x"], "zip entry \"x\" is both a file and a directory"),
        (&["sub/Go.mod"], "zip entry \"example.com/m@v1.0.0/sub/Go.mod\": go.mod file not in module root directory"),
        (&["Go.mod"], "zip entry \"example.com/m@v1.0.0/Go.mod\": go.mod files must have lowercase names"),
    ] {
        assert_eq!(check(&names(entries)).unwrap_err().to_string(), text);
    }
    let entry = |name: &[u8]| plain(&[Item { name: name.into(), ..Item::new("", b"") }]);
    let error = check(&entry(b"example.com/m@v1.0.0/\xff")).unwrap_err();
    assert_eq!(error.to_string(), "zip entry \"example.com/m@v1.0.0/\u{fffd}\": malformed file path: invalid UTF-8");
    let error = check(&entry(b"example.com/n@v1.0.0/a")).unwrap_err();
    assert!(matches!(error, RuleError::Zip(ZipError::Prefix { .. })), "{error}");
    assert!(matches!(check(b"PK"), Err(RuleError::Zip(ZipError::NoEnd { .. }))));
    let error = check_rules(&b""[..], ZIP_BYTES_MAX + 1, &module()).unwrap_err();
    assert!(matches!(error, RuleError::Zip(ZipError::TooLarge { .. })), "{error}");
    assert!(matches!(check(&names(&["a:"])), Err(RuleError::Name { flaw: Flaw::Char(':'), .. })));
}

/// What `go` unpacks passes: folders named twice, the prefix itself, case that only looks alike, bytes behind the archive.
#[test]
fn what_go_takes_passes() {
    for entries in [
        &[][..],
        &["", "a.go"],
        &["x/", "x/", "x/y", "x/z", "y/", "x/"],
        &["ß", "ss", "ẞ.go", "i", "ı"],
        &["GO.MODX", "go.mod", "sub/go.sum"],
        &["LICENSE", "sub/License"],
    ] {
        assert!(check(&names(entries)).is_ok(), "{entries:?}");
    }
    let bytes = [names(&["a", "b/"]), b"behind".to_vec()].concat();
    assert_eq!(check(&bytes).unwrap(), Facts { entries: 2, unpacked_bytes: 0, trailing_bytes: 6, symlink: None });
}

/// A symbolic link is a plain file for `go`; it is told apart all the same.
#[test]
fn symlinks_are_noticed() {
    let items = [Item::new("a", b"12"), Item { is_symlink: true, ..Item::new("b/link", b"../a") }];
    let facts = check(&plain(&items)).unwrap();
    assert_eq!((facts.unpacked_bytes, facts.symlink.as_deref()), (6, Some("example.com/m@v1.0.0/b/link")));
}

/// Where paths are compared a share at a time, nothing gets lost between the shares.
#[test]
fn large_directories_are_compared_in_shares() {
    let mut all: Vec<String> = (0..700).map(|number| format!("d{}/e{}/{number}.go", number % 70, number % 9)).collect();
    let check = |all: &[String]| {
        let bytes = names(&all.iter().map(String::as_str).collect::<Vec<_>>());
        check_with(&bytes[..], bytes.len() as u64, &module(), 32)
    };
    assert_eq!(check(&all).unwrap().entries, 700);
    for (name, is_right) in [
        ("D3/x", (|error| matches!(error, RuleError::Collision { .. })) as fn(RuleError) -> bool),
        ("d69/E8/x", |error| matches!(error, RuleError::Collision { .. })),
        ("d69/e6", |error| matches!(error, RuleError::FileAndFolder { .. })),
        ("d3/e3/3.go", |error| matches!(error, RuleError::Duplicate { .. })),
    ] {
        all.push(name.to_owned());
        assert!(is_right(check(&all).unwrap_err()), "{name}");
        all.pop();
    }
    // Shares do not help where all are the same; that is found at once.
    let same = vec!["a".to_owned(); 1_000];
    assert!(matches!(check(&same), Err(RuleError::Duplicate { .. })));
}

/// A name of thousands of folders is compared; one that would take minutes is not.
#[test]
fn deep_names_are_bounded() {
    assert!(check(&names(&[&"/a".repeat(3_000)[1..]])).is_ok());
    assert!(matches!(check(&names(&[&"/a".repeat(32_700)[1..]])), Err(RuleError::TooManyPaths)));
}
