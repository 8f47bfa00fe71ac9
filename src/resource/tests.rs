//! Tests of the resources: tables, and properties over generated names.

use std::collections::HashSet;

use super::*;
use crate::module::generate::Generator;
use crate::sumdb::tile::TileLevel;

fn parse(path: &str) -> Resource {
    Resource::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn module_version(text: &str) -> ModuleVersion {
    ModuleVersion::parse(text).unwrap()
}

fn sumdb() -> SumdbName {
    SumdbName::parse("sumdb.example.com").unwrap()
}

/// Each endpoint of the protocol has its variant, its content type and its freshness class.
#[test]
fn every_endpoint_is_known() {
    use ArtifactKind::{Info, Mod, Zip};
    use Mutability::{Immutable, Mutable};
    let toml = ModulePath::parse("github.com/BurntSushi/toml").unwrap();
    let artifact = |kind| Resource::Artifact(module_version("github.com/BurntSushi/toml@v1.6.0-RC"), kind);
    let target = LookupTarget::new(toml.clone(), "v1.6.0-RC").unwrap();
    let tile = Tile::new(TileLevel::Hashes(1), 1095, 31).unwrap();
    let (text, json) = ("text/plain; charset=UTF-8", "application/json");
    let stem = "github.com/!burnt!sushi/toml";
    let table = [
        (Resource::List(toml.clone()), format!("{stem}/@v/list"), text, Mutable),
        (Resource::Latest(toml.clone()), format!("{stem}/@latest"), json, Mutable),
        (Resource::info(toml.clone(), "Main").unwrap(), format!("{stem}/@v/!main.info"), json, Mutable),
        (artifact(Info), format!("{stem}/@v/v1.6.0-!r!c.info"), json, Immutable),
        (artifact(Mod), format!("{stem}/@v/v1.6.0-!r!c.mod"), text, Immutable),
        (artifact(Zip), format!("{stem}/@v/v1.6.0-!r!c.zip"), "application/zip", Immutable),
        (Resource::SumdbSupported(sumdb()), "sumdb/sumdb.example.com/supported".into(), text, Mutable),
        (Resource::SumdbLatest(sumdb()), "sumdb/sumdb.example.com/latest".into(), text, Mutable),
        (
            Resource::SumdbLookup(sumdb(), target),
            format!("sumdb/sumdb.example.com/lookup/{stem}@v1.6.0-!r!c"),
            text,
            Immutable,
        ),
        (
            Resource::SumdbTile(sumdb(), tile),
            "sumdb/sumdb.example.com/tile/8/1/x001/095.p/31".into(),
            "application/octet-stream",
            Immutable,
        ),
    ];
    for (resource, path, content_type, mutability) in table {
        assert_eq!(resource.path(), path);
        assert_eq!(resource.to_string(), path);
        assert_eq!(parse(&path), resource);
        assert_eq!(resource.content_type(), content_type, "{path}");
        assert_eq!(resource.mutability(), mutability, "{path}");
        assert_eq!(resource.sumdb_name().is_some(), path.starts_with("sumdb/"));
        let is_about_module = path.contains(stem);
        assert_eq!(resource.module_path(), is_about_module.then_some(&toml), "{path}");
    }
}

/// What `go` sends is understood in every spelling it uses: `!` encoded and not, `+` and `@` bare, one element.
#[test]
fn requests_of_go_are_understood() {
    for (raw, path) in [
        ("/github.com/%21burnt%21sushi/toml/@v/v1.6.0.info", "github.com/!burnt!sushi/toml/@v/v1.6.0.info"),
        ("/github.com/!burnt!sushi/toml/@v/v1.6.0.info", "github.com/!burnt!sushi/toml/@v/v1.6.0.info"),
        ("/github.com/gofrs/uuid/@v/v4.4.0+incompatible.zip", "github.com/gofrs/uuid/@v/v4.4.0+incompatible.zip"),
        ("/github.com/gofrs/uuid/@v/v4.4.0%2Bincompatible.zip", "github.com/gofrs/uuid/@v/v4.4.0+incompatible.zip"),
        ("/github.com/@v/list", "github.com/@v/list"),
        (
            "/golang.org/toolchain/@v/v0.0.1-go1.26.0.linux-amd64.zip",
            "golang.org/toolchain/@v/v0.0.1-go1.26.0.linux-amd64.zip",
        ),
        ("/rsc.io/quote/@v/a%20b%25c.info", "rsc.io/quote/@v/a b%c.info"),
        ("/sumdb/h.example/a/b/supported", "sumdb/h.example/a/b/supported"),
        ("/sumdb/localhost:8080/x/latest", "sumdb/localhost:8080/x/latest"),
        ("/sumdb/h.example/lookup/golang.org/x/tile@v0.1.0", "sumdb/h.example/lookup/golang.org/x/tile@v0.1.0"),
        (
            "/sumdb/h.example/p/lookup/rsc.io/!q@v1.0.0+incompatible",
            "sumdb/h.example/p/lookup/rsc.io/!q@v1.0.0+incompatible",
        ),
        ("/sumdb/h.example/lookup/rsc.io/quote@some@branch", "sumdb/h.example/lookup/rsc.io/quote@some@branch"),
    ] {
        let resource = Resource::from_request_path(raw).unwrap_or_else(|error| panic!("{raw}: {error}"));
        assert_eq!(resource.path(), path);
        assert_eq!(resource, parse(path));
    }
}

/// Decoding happens once; what an encoding must not hide is refused before anything else looks at it.
#[test]
fn encodings_that_hide_something_are_refused() {
    for raw in [
        "/rsc.io%2fquote/@v/list",
        "/rsc.io/quote/@v/a%2Fb.info",
        "/rsc.io/quote/@v/a%5cb.info",
        "/rsc.io/quote/@v/v1.0.0%00.info",
        "/rsc.io/quote/@v/%ff.info",
        "/rsc.io/quote/@v/%C3%28.info",
        "/rsc.io/quote/@v/v1.0.0.info%",
        "/rsc.io/quote/@v/v1.0.0.info%2",
        "/rsc.io/quote/@v/%zz.info",
        "/rsc.io/quote/@v/%+1.info",
    ] {
        let error = Resource::from_request_path(raw).unwrap_err();
        assert_eq!(error, ResourceError::Encoding { path: raw.to_owned() });
    }
    // Encoded twice is a per cent sign in the name after the one decoding.
    let twice = Resource::from_request_path("/rsc.io/quote/@v/a%252fb.info").unwrap();
    assert_eq!(twice.path(), "rsc.io/quote/@v/a%2fb.info");
    assert_eq!(twice.url_path(), "rsc.io/quote/@v/a%252fb.info");
    // Dots in disguise are dots.
    for raw in
        ["/%2e%2e/etc/@v/list", "/rsc.io/%2E%2E/@v/list", "/rsc.io/quote/@v/%2e%2e.info", "/rsc.io/q/@v/%2e.info"]
    {
        assert!(matches!(Resource::from_request_path(raw), Err(ResourceError::Module(_))), "{raw}");
    }
}

/// What is no endpoint is refused as such.
#[test]
fn other_paths_are_no_endpoints() {
    let no_endpoint = [
        "",
        "/",
        "//",
        "favicon.ico",
        "rsc.io/quote",
        "rsc.io/quote/@v",
        "rsc.io/quote/@v/",
        "rsc.io/quote/@v/v1.0.0",
        "rsc.io/quote/@v/v1.0.0.INFO",
        "rsc.io/quote/@v/v1.0.0.ziphash",
        "rsc.io/quote/@v/list/",
        "rsc.io/quote/@latest/",
        "rsc.io/quote/@Latest",
        "rsc.io/quote/@x/list",
        "sumdb",
        "sumdb/",
        "sumdb/h.example/lookup",
        "sumdb/h.example/tile",
        "sumdb/h.example/lookup/",
        "sumdb/h.example/lookup/rsc.io/quote",
        "sumdb/h.example/supported/",
        "sumdb/h.example/latest/x",
        "sumdb/h.example",
        "sumdb/h.example/x",
    ];
    for path in no_endpoint {
        assert!(matches!(Resource::parse(path), Err(ResourceError::NoEndpoint { .. })), "{path}");
    }
    let noisy = format!("{}\u{1b}[31m\n/@v/list", "x.y/".repeat(400));
    let text = Resource::parse(&noisy).unwrap_err().to_string();
    assert!(text.len() < 250 && !text.contains(char::is_control), "{text}");
}

/// A canonical version that does not belong to its path is a query like any other, if a hopeless one.
#[test]
fn info_of_a_foreign_version_is_a_query() {
    for (path, is_query) in [
        ("rsc.io/quote/@v/v1.5.2.info", false),
        ("rsc.io/quote/@v/v2.0.0.info", true),
        ("rsc.io/quote/v3/@v/v1.5.2.info", true),
        ("rsc.io/quote/@v/v1.5.info", true),
        ("rsc.io/quote/@v/v1.5.2+meta.info", true),
        ("rsc.io/quote/@v/2c02b8208cf8.info", true),
        ("rsc.io/quote/@v/latest.info", true),
        ("rsc.io/quote/@v/list.info", true),
        ("rsc.io/quote/@v/v1.5.2.info.info", true),
    ] {
        assert_eq!(matches!(parse(path), Resource::Query(..)), is_query, "{path}");
    }
}

/// What fits into no file name is refused as a name, not by the file system.
#[test]
fn names_too_long_for_a_file_are_refused() {
    let element = |bytes: usize| format!("rsc.io/{}/@v/list", "a".repeat(bytes));
    assert!(Resource::parse(&element(255)).is_ok());
    assert!(Resource::parse(&element(256)).is_err());
    assert!(Resource::parse(&format!("rsc.io/{}/@v/list", "!a".repeat(127))).is_ok());
    assert!(Resource::parse(&format!("rsc.io/{}/@v/list", "!a".repeat(128))).is_err());
    assert!(Resource::parse(&format!("rsc.io/{}x/@v/list", "abc/".repeat(510))).is_ok());
    assert!(Resource::parse(&format!("rsc.io/{}x/@v/list", "abc/".repeat(511))).is_err());
    let version = |bytes: usize| format!("rsc.io/quote/@v/v1.0.0-{}.zip", "a".repeat(bytes - 7));
    assert!(Resource::parse(&version(247)).is_ok());
    assert!(Resource::parse(&version(248)).is_err());
    let lookup = |bytes: usize| format!("sumdb/h.example/lookup/rsc.io/{}@v1.0.0", "a".repeat(bytes - 7));
    assert!(Resource::parse(&lookup(255)).is_ok());
    assert!(Resource::parse(&lookup(256)).is_err());
    let name = |bytes: usize| format!("sumdb/{}/supported", "a".repeat(bytes));
    assert!(Resource::parse(&name(255)).is_ok());
    assert!(Resource::parse(&name(256)).is_err());
}

/// Lookups know the module version they are about, where it is one.
#[test]
fn lookup_target_knows_its_module_version() {
    let of = |text: &str| {
        let (path, version) = text.split_once('@').unwrap();
        LookupTarget::new(ModulePath::parse(path).unwrap(), version).unwrap()
    };
    assert_eq!(of("rsc.io/quote@v1.5.2").module_version(), Some(module_version("rsc.io/quote@v1.5.2")));
    assert_eq!(of("rsc.io/quote@v2.0.0").module_version(), None);
    assert_eq!(of("rsc.io/quote@main").module_version(), None);
    assert_eq!(of("rsc.io/quote@main").to_string(), "rsc.io/quote@main");
    assert_eq!((of("rsc.io/quote@main").version(), of("rsc.io/quote@main").path().as_str()), ("main", "rsc.io/quote"));
}

/// Invariant 1: only a `Resource` names a file or an upstream URL, and `parse(path(r)) == r` for every `r`.
#[test]
fn invariant_1_only_a_resource_names_a_file_and_parse_of_its_path_is_it() {
    let mut generator = Generator::new(1);
    let mut paths = HashSet::new();
    for _ in 0..20_000 {
        let resource = resource(&mut generator);
        let path = resource.path();
        assert_eq!(Resource::parse(&path).as_ref(), Ok(&resource), "{path}");
        assert_names_one_file_below_the_root(&path);
        let url = format!("/{}", resource.url_path());
        assert_eq!(Resource::from_request_path(&url).as_ref(), Ok(&resource), "{url}");
        assert_eq!(url.parse::<http::uri::PathAndQuery>().unwrap().path(), url);
        paths.insert(path);
    }
    assert!(paths.len() > 10_000, "the generator repeats itself: {}", paths.len());
}

/// Whatever text is given, if it parses at all it is the one spelling of what it names.
#[test]
fn no_resource_has_a_second_spelling() {
    let mut generator = Generator::new(2);
    let mut parsed = 0;
    for _ in 0..50_000 {
        let path = resource(&mut generator).path();
        let text = generator.mutated(&path);
        if let Ok(resource) = Resource::parse(&text) {
            assert_eq!(resource.path(), text);
            assert_names_one_file_below_the_root(&text);
            parsed += 1;
        }
        if let Ok(resource) = Resource::from_request_path(&format!("/{text}")) {
            assert_names_one_file_below_the_root(&resource.path());
        }
    }
    assert!(parsed > 5_000, "hardly any mutation parses: {parsed}");
}

fn assert_names_one_file_below_the_root(path: &str) {
    assert!(path.len() <= 2_700, "{path}");
    for element in path.split('/') {
        assert!(!element.is_empty() && element.len() <= 255, "{path}");
        assert!(!element.starts_with('.') || path.contains("/@v/."), "{path}");
        assert!(element != "." && element != "..", "{path}");
        assert!(!element.contains(['\\', '\0', ':']) || path.starts_with("sumdb/"), "{path}");
    }
    if !path.starts_with("sumdb/") {
        assert!(!path.contains(|c: char| c.is_ascii_uppercase()), "{path}");
    }
}

fn resource(generator: &mut Generator) -> Resource {
    let path = generator.module_path();
    let name = SumdbName::parse(["h.example", "sum.h.example/x", "localhost:8080/a/b"][generator.below(3)]).unwrap();
    let kind = ArtifactKind::ALL[generator.below(3)];
    match generator.below(8) {
        0 => Resource::List(path),
        1 => Resource::Latest(path),
        2 | 3 => Resource::info(path, &generator.version_text()).unwrap(),
        4 => Resource::Artifact(generator.module_version(), kind),
        5 => Resource::SumdbLookup(name, LookupTarget::new(path, &generator.version_text()).unwrap()),
        6 => Resource::SumdbTile(name, generator.tile()),
        _ if generator.below(2) == 0 => Resource::SumdbSupported(name),
        _ => Resource::SumdbLatest(name),
    }
}
