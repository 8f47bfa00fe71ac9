//! Tests of names against the vectors Go's own tools made, and of their properties.

use serde_json::Value;

use super::generate::{Generator, vectors};
use super::*;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// Paths and versions are escaped and unescaped as Go does it, and refused where Go refuses them.
#[test]
fn escaping_agrees_with_go() {
    let escape = vectors("escape");
    for row in rows(&escape["paths"]) {
        let path = ModulePath::parse(text(row, "path")).unwrap();
        assert_eq!(path.escaped().as_str(), text(row, "escaped"));
        assert_eq!(ModulePath::from_escaped(text(row, "escaped")), Ok(path));
    }
    for row in rows(&escape["versions"]) {
        let (version, escaped) = (text(row, "version"), text(row, "escaped"));
        assert_eq!(version::check_text(version), Ok(()), "{version}");
        assert_eq!(version::text_from_escaped(escaped).unwrap(), version);
        if let Ok(version) = Version::parse(version) {
            assert_eq!(version.escaped().to_string(), escaped);
            assert_eq!(Version::from_escaped(escaped), Ok(version));
        } else {
            let path = ModulePath::parse("example.com/m").unwrap();
            assert_eq!(Query::new(&path, version).unwrap().escaped().as_str(), escaped);
        }
    }
    for row in rows(&escape["bad_paths"]) {
        let path = text(row, "path");
        let error = ModulePath::parse(path).unwrap_err();
        assert!(matches!(error, ModuleError::MalformedPath { .. }), "{error}");
    }
    for row in rows(&escape["bad_versions"]) {
        assert!(version::check_text(text(row, "version")).is_err(), "{row}");
    }
    for row in rows(&escape["bad_escaped_paths"]) {
        let error = ModulePath::from_escaped(text(row, "escaped")).unwrap_err();
        assert!(matches!(error, ModuleError::MalformedPath { .. }), "{error}");
    }
}

/// A version belongs to a path exactly where Go says so.
#[test]
fn belonging_agrees_with_go() {
    for row in rows(&vectors("module_check")) {
        let (path, version) = (ModulePath::parse(text(row, "path")).unwrap(), text(row, "version"));
        assert_eq!(Version::parse(version).is_ok(), row["canonical"] == true && version.starts_with('v'), "{row}");
        let Ok(version) = Version::parse(version) else {
            continue;
        };
        let module = ModuleVersion::new(path, version);
        assert_eq!(module.is_ok(), row["ok"] == true, "{row}");
        match module {
            Ok(module) => assert_eq!(ModuleVersion::parse(&module.to_string()), Ok(module)),
            Err(error) => assert_eq!(error.to_string(), text(row, "error")),
        }
    }
}

/// Validity, canonical form and pseudo-versions are judged as Go judges them.
#[test]
fn versions_agree_with_go() {
    for row in rows(&vectors("versions")) {
        let (version, canonical) = (text(row, "version"), text(row, "canonical"));
        assert_eq!(Version::canonical_of(version).map_or(String::new(), |v| v.to_string()), canonical, "{row}");
        assert_eq!(Version::parse(version).is_ok(), version == canonical, "{row}");
        if let Ok(version) = Version::parse(version) {
            assert_eq!(version.is_pseudo(), row["pseudo"] == true, "{row}");
            assert!(version.is_prerelease() || !version.is_pseudo(), "{row}");
        }
    }
    for version in [
        "",
        "v",
        "v1.",
        "v1.2.",
        "v1..3",
        "v.1.2",
        "v1.2.3.4",
        "v1.2-pre",
        "v1-pre",
        "v1.2.3+",
        "v1.2.3-a..b",
        "v1.2.3-a_b",
        "v1.2.3+a+b",
        "v1.2.3 ",
        "V1.2.3",
        "v1.2.03",
        "v-1.2.3",
        "v1.2.3-é",
    ] {
        assert_eq!(Version::canonical_of(version), None, "{version}");
        assert_eq!(Version::parse(version), Err(ModuleError::NotCanonical { version: version.to_owned() }));
    }
}

/// Versions sort by semantic precedence, and equality agrees with the order.
#[test]
fn order_agrees_with_go() {
    let sorted: Vec<Version> =
        rows(&vectors("version_order")).iter().map(|v| Version::parse(v.as_str().unwrap()).unwrap()).collect();
    for (i, a) in sorted.iter().enumerate() {
        for (j, b) in sorted.iter().enumerate() {
            assert_eq!(a.cmp(b), i.cmp(&j), "{a} {b}");
        }
    }
    let version = |text| Version::parse(text).unwrap();
    assert!(version("v1.0.0-9") < version("v1.0.0-10") && version("v1.0.0-10") < version("v1.0.0-1a"));
    assert!(version("v99999999999999999999.0.0") > version("v9999999999999999999.9.9"));
    assert_ne!(version("v1.0.0").cmp(&version("v1.0.0+incompatible")), std::cmp::Ordering::Equal);
}

/// Ordering is total: for any three versions it does not contradict itself.
#[test]
fn order_is_total() {
    let mut generator = Generator::new(3);
    for _ in 0..5_000 {
        let [a, b, c] = std::array::from_fn(|_| generator.module_version().version().clone());
        assert_eq!(a.cmp(&b), b.cmp(&a).reverse(), "{a} {b}");
        assert_eq!(a.cmp(&b).is_eq(), a == b, "{a} {b}");
        assert!(!(a <= b && b <= c) || a <= c, "{a} {b} {c}");
    }
}

/// A canonical version stands for itself, and what is not canonical stands for something that is.
#[test]
fn canonical_form_is_final() {
    let mut generator = Generator::new(4);
    for _ in 0..5_000 {
        let text = generator.semantic();
        if let Some(version) = Version::canonical_of(&text) {
            assert_eq!(Version::canonical_of(version.as_str()).as_ref(), Some(&version), "{text}");
            assert_eq!(Version::parse(&text).is_ok(), text == version.as_str(), "{text}");
        }
    }
}

/// Every path and version comes back from its escaped form, and no two share one, even where case is folded.
#[test]
fn escaping_is_reversible() {
    let mut generator = Generator::new(5);
    for _ in 0..5_000 {
        let module = generator.module_version();
        let (path, version) = (module.path().escaped(), module.version().escaped());
        assert_eq!(ModulePath::from_escaped(path.as_str()).as_ref(), Ok(module.path()));
        assert_eq!(Version::from_escaped(version.as_str()).as_ref(), Ok(module.version()));
        assert_eq!(path.as_str(), path.to_string().to_ascii_lowercase());
        assert_eq!(version.as_str(), version.as_str().to_ascii_lowercase());
        assert_eq!(ModuleVersion::parse(&module.to_string()), Ok(module));
    }
}

/// A query is anything but a canonical version of the same path.
#[test]
fn query_is_no_version_of_its_path() {
    let path = ModulePath::parse("rsc.io/quote").unwrap();
    assert!(matches!(Query::new(&path, "v1.5.2"), Err(ModuleError::NotQuery { .. })));
    assert!(matches!(Query::new(&path, "a/b"), Err(ModuleError::MalformedVersion { .. })));
    assert!(matches!(Query::new(&path, ""), Err(ModuleError::MalformedVersion { .. })));
    for text in ["v2.0.0", "v1.5", "main", "v1.5.2+meta", "latest"] {
        assert_eq!(Query::new(&path, text).unwrap().as_str(), text);
    }
}

/// The text of a pair needs its `@`, and both sides are checked.
#[test]
fn pairs_are_checked() {
    assert!(matches!(ModuleVersion::parse("rsc.io/quote"), Err(ModuleError::NotPair { .. })));
    assert!(matches!(ModuleVersion::parse("nodot@v1.0.0"), Err(ModuleError::MalformedPath { .. })));
    assert!(matches!(ModuleVersion::parse("rsc.io/quote@v1"), Err(ModuleError::NotCanonical { .. })));
    assert!(matches!(ModuleVersion::parse("rsc.io/quote@v2.0.0"), Err(ModuleError::WrongMajor { .. })));
    let long = format!("v1.0.0-{}", "a".repeat(300));
    assert!(matches!(Version::parse(&long), Err(ModuleError::MalformedVersion { .. })));
    assert!(matches!(Version::from_escaped("v1.0.0-RC"), Err(ModuleError::MalformedVersion { .. })));
}

/// Patterns choose the modules Go's own matching chooses.
#[test]
fn patterns_agree_with_go() {
    for row in rows(&vectors("prefix_patterns")) {
        let list = PatternList::parse(text(row, "globs"));
        let path = ModulePath::parse(text(row, "target")).unwrap();
        assert_eq!(list.matches(&path), row["match"] == true, "{row}");
        assert_eq!(list.to_string(), text(row, "globs"));
    }
}

/// Stars, classes and escapes follow Go's path.Match to the letter.
#[test]
fn glob_syntax_is_that_of_go() {
    let path = ModulePath::parse("git.example.com/abc/Def").unwrap();
    for (glob, is_match) in [
        ("git.*", true),
        ("*", true),
        ("**", true),
        ("*.*.*", true),
        ("*.*.*.*", false),
        ("*/a*c", true),
        ("*/a*b", false),
        ("*/???", true),
        ("*/????", false),
        ("*/*/D*", true),
        ("*/*/d*", false),
        ("*/[a-c]bc", true),
        ("*/[^a-c]bc", false),
        ("*/[x^a]bc", true),
        ("*/\\abc", true),
        ("*/\\*", false),
        ("git[.]example.com", true),
        ("git?example.com", true),
        ("git.example.com/abc/Def", true),
        ("git.example.com/abc/Def/x", false),
        ("*[.]com", true),
        ("*m", true),
        ("*mm", false),
    ] {
        assert_eq!(PatternList::parse(glob).matches(&path), is_match, "{glob}");
    }
    for glob in ["[", "[]", "[^]", "[a", "[a-]", "[-a]", "a\\", "[\\", "x[]a]"] {
        let list = PatternList::parse(glob);
        assert_eq!((list.malformed(), list.is_empty()), (&[glob.to_owned()][..], true));
    }
}
