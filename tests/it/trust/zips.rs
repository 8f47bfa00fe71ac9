//! Module zips: the go command's rules, and the hash of every zip that go accepts, however it is made and however it came.

use std::io::Read as _;

use zlib_rs::{DeflateConfig, ReturnCode, compress_slice};

use super::{A, Ground, alarm_of, file, get_true, modules, refused_zip, stored, unverified};
use crate::harness::{Start, Tree, Upstream, ask_oracle, json, noise, temp_dir, wait_for, zip_of};

/// A zip that breaks a rule: the module's last element, its entries below the prefix, and what the text must say.
type Broken = (&'static str, &'static [&'static str], &'static str);

const BROKEN: [Broken; 9] = [
    ("case", &["go.mod", "x/file.go", "x/File.go"], "case-insensitive file name collision"),
    ("folder-case", &["go.mod", "x/a.go", "X/b.go"], "case-insensitive file name collision"),
    ("both", &["go.mod", "x", "x/y.go"], "both a file and a directory"),
    ("backslash", &["go.mod", "x\\y.go"], "malformed file path"),
    ("device", &["go.mod", "aux.go"], "malformed file path"),
    ("below", &["go.mod", "x/go.mod"], "go.mod file not in module root directory"),
    ("spelling", &["GO.MOD", "x.go"], "go.mod files must have lowercase names"),
    ("twice", &["go.mod", "x.go", "x.go"], "multiple entries"),
    ("dots", &["go.mod", "x/../../y.go"], "malformed file path"),
];

fn broken_module(name: &str) -> String {
    format!("example.com/{name}@v1.0.0")
}

/// A zip that breaks a rule of the go command's is refused with the rule named, and nothing of it is stored: with the
/// checksum database and without.
#[test]
fn broken_rules_are_named() {
    let tree = BROKEN.iter().fold(Tree::new(), |tree, (name, entries, _)| {
        let (path, module) = (format!("example.com/{name}"), broken_module(name));
        let tree = tree.module(&path, "v1.0.0", 10);
        let entries: Vec<_> =
            entries.iter().map(|entry| (format!("{module}/{entry}"), b"package x\n".to_vec())).collect();
        tree.put(&file(&module, "zip"), &zip_of(&entries));
        tree
    });
    tree.put(&file(A, "zip"), &zip_of(&[("example.com/b@v1.0.0/x.go".to_owned(), Vec::new())]));
    let upstream = Upstream::with(tree.path(), &[]);
    // The log knows nothing of these: a rule is broken whether there is a hash or not.
    let ground = Ground::new(&[]);
    for gosumdb in ["off".to_owned(), ground.sumdb.flag()] {
        let larder = Start::on(&upstream).args(["-gosumdb", &gosumdb]).run();
        let outside = (A.to_owned(), "name does not begin with");
        for (module, rule) in BROKEN.map(|(name, _, rule)| (broken_module(name), rule)).into_iter().chain([outside]) {
            let answer = larder.get(&file(&module, "zip"));
            assert!(
                answer.status == 502 && answer.text().contains(rule),
                "{module}: {} {}",
                answer.status,
                answer.text()
            );
            assert!(!larder.has(&file(&module, "zip")), "{module}");
        }
        wait_for("no half file", || larder.partials().is_empty().then_some(()));
        assert!(!larder.cache.join(".larder/quarantine").is_dir(), "something was stored and taken back");
        assert!(super::alarms(&larder).is_empty(), "{:?}", super::alarms(&larder));
    }
}

/// Rules as the go command has them: what it accepts is taken, however odd it looks.
#[test]
fn odd_names_that_go_accepts_are_taken() {
    let module = "example.com/odd@v1.0.0";
    let names =
        ["go.mod", "a b.go", "é/ж.go", "[x]/~y{z}.go", "-a", ".hidden/.x", "empty/", "x/vendor/y.go", "LICENSE"];
    let entries: Vec<_> = names
        .iter()
        .map(|name| {
            (
                format!("{module}/{name}"),
                if name.ends_with('/') { Vec::new() } else { b"module example.com/odd\n".to_vec() },
            )
        })
        .collect();
    let tree = Tree::new().module("example.com/odd", "v1.0.0", 10);
    tree.put(&file(module, "zip"), &zip_of(&entries));
    let ground = Ground::over(tree, &[]);
    let larder = ground.strict().run();
    get_true(&larder, &ground, module, "zip");
}

/// A zip of half a megabyte that unpacks to more than go unpacks is refused before it has filled anything, with the limit in
/// the log, with the checksum database and without; as are a go.mod and a LICENSE that are too large.
#[test]
fn invariant_7_zips_that_unpack_to_too_much_are_refused() {
    let module = "example.com/bomb@v1.0.0";
    let tree = Tree::new().module("example.com/bomb", "v1.0.0", 10).module("example.com/license", "v1.0.0", 10);
    let bomb = bomb(module, "x", 1 << 20, 501);
    let license = bomb_of("example.com/license@v1.0.0/LICENSE", (16 << 20) + 1);
    tree.put(&file(module, "zip"), &bomb);
    tree.put(&file("example.com/license@v1.0.0", "zip"), &license);
    let upstream = Upstream::with(tree.path(), &[]);
    let ground = Ground::new(&[]);
    for gosumdb in ["off".to_owned(), ground.sumdb.flag()] {
        let larder = Start::on(&upstream).args(["-gosumdb", &gosumdb]).run();
        for (module, zip, words) in
            [(module, &bomb, "zip unpacks to"), ("example.com/license@v1.0.0", &license, "more than 16777216")]
        {
            let text = refused_zip(&larder, module, zip);
            wait_for("the rule in the log or the answer", || {
                (larder.log().contains(words) || text.as_ref().is_some_and(|text| text.contains(words))).then_some(())
            });
            assert!(!larder.has(&file(module, "zip")));
        }
        wait_for("no half file", || larder.partials().is_empty().then_some(()));
    }
}

/// Returns a zip of `count` entries which unpack to `bytes` zeros each.
fn bomb(prefix: &str, name: &str, bytes: usize, count: usize) -> Vec<u8> {
    let entries: Vec<_> = (0..count).map(|number| format!("{prefix}/{name}{number}")).collect();
    deflated(&entries, &vec![0; bytes])
}

fn bomb_of(name: &str, bytes: usize) -> Vec<u8> {
    deflated(&[name.to_owned()], &vec![0; bytes])
}

/// Returns a zip whose entries all have this content, deflated, with data descriptors, as Go's own are made.
fn deflated(names: &[String], content: &[u8]) -> Vec<u8> {
    let mut packed = vec![0; content.len() / 2 + 1000];
    let config = DeflateConfig { window_bits: -15, ..DeflateConfig::default() };
    let (packed, code) = compress_slice(&mut packed, content, config);
    assert!(code == ReturnCode::Ok);
    let sizes = [crc32fast::hash(content), packed.len().try_into().unwrap(), content.len().try_into().unwrap()];
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for name in names {
        let offset = u32::try_from(zip.len()).unwrap();
        // Version 2.0, a data descriptor follows, deflated, no time, no date.
        let begin: Vec<u8> = [20_u16, 8, 8, 0, 0].into_iter().flat_map(u16::to_le_bytes).collect();
        let name_bytes = u16::try_from(name.len()).unwrap().to_le_bytes();
        let sizes: Vec<u8> = sizes.into_iter().flat_map(u32::to_le_bytes).collect();
        zip.extend([&b"PK\x03\x04"[..], &begin, &[0; 12], &name_bytes, &[0; 2], name.as_bytes(), packed].concat());
        zip.extend([&b"PK\x07\x08"[..], &sizes].concat());
        directory.extend([&b"PK\x01\x02\x14\x00"[..], &begin, &sizes, &name_bytes, &[0; 12]].concat());
        directory.extend([&offset.to_le_bytes(), name.as_bytes()].concat());
    }
    let (offset, length) = (u32::try_from(zip.len()).unwrap(), u32::try_from(directory.len()).unwrap());
    let count = u16::try_from(names.len()).unwrap().to_le_bytes();
    zip.extend(directory);
    zip.extend(
        [&b"PK\x05\x06\x00\x00\x00\x00"[..], &count, &count, &length.to_le_bytes(), &offset.to_le_bytes(), &[0; 2]]
            .concat(),
    );
    zip
}

/// Adds a comment behind the end record.
fn with_comment(mut zip: Vec<u8>, comment: &[u8]) -> Vec<u8> {
    let at = zip.len() - 2;
    zip[at..].copy_from_slice(&u16::try_from(comment.len()).unwrap().to_le_bytes());
    zip.extend(comment);
    zip
}

/// Lists the entries of a zip without a comment in the opposite order, leaving their data where it is.
fn with_directory_reversed(mut zip: Vec<u8>) -> Vec<u8> {
    let end = zip.len() - 22;
    let begin = usize::try_from(u32::from_le_bytes(zip[end + 16..end + 20].try_into().unwrap())).unwrap();
    let (mut entries, mut rest) = (Vec::new(), &zip[begin..end]);
    while !rest.is_empty() {
        let (entry, after) = rest.split_at(46 + usize::from(u16::from_le_bytes([rest[28], rest[29]])));
        entries.push(entry.to_vec());
        rest = after;
    }
    entries.reverse();
    let reversed = entries.concat();
    zip[begin..end].copy_from_slice(&reversed);
    zip
}

/// Puts bytes between the last entry and the directory, where no reader looks.
fn with_a_gap(mut zip: Vec<u8>, gap: &[u8]) -> Vec<u8> {
    let end = zip.len() - 22;
    let begin = u32::from_le_bytes(zip[end + 16..end + 20].try_into().unwrap());
    let moved = begin + u32::try_from(gap.len()).unwrap();
    zip[end + 16..end + 20].copy_from_slice(&moved.to_le_bytes());
    let begin = usize::try_from(begin).unwrap();
    zip.splice(begin..begin, gap.iter().copied());
    zip
}

/// Zips that are made otherwise than Go makes them are verified all the same: what cannot be hashed while it comes is hashed
/// from the file. The same ones are refused when the log says otherwise.
#[test]
fn odd_zips_are_verified() {
    let entries = |module: &str, bytes| {
        let path = module.split('@').next().unwrap();
        [
            (format!("{module}/z.go"), b"package z\n".to_vec()),
            (format!("{module}/go.mod"), format!("module {path}\n").into_bytes()),
            (format!("{module}/a/noise.bin"), noise(3, bytes)),
            (format!("{module}/a.go"), b"package a\n".to_vec()),
        ]
    };
    let mut tree = Tree::new();
    let mut names = Vec::new();
    for bytes in [200, 50_000] {
        for shape in ["plain", "comment", "reversed", "gap", "deflated"] {
            let path = format!("example.com/{shape}{bytes}");
            let module = format!("{path}@v1.0.0");
            let plain = zip_of(&entries(&module, bytes));
            let zip = match shape {
                "comment" => with_comment(plain, b"made by hand"),
                "reversed" => with_directory_reversed(plain),
                "gap" => with_a_gap(plain, b"nothing to see here"),
                "deflated" => deflated(&[format!("{module}/go.mod"), format!("{module}/b/c.go")], b"module x\n"),
                _ => plain,
            };
            tree = tree.module(&path, "v1.0.0", 1);
            tree.put(&file(&module, "zip"), &zip);
            names.push(module);
        }
    }
    let lies = names.join(",");
    let ground = Ground::over(tree, &[]);
    let lying = crate::harness::Sumdb::over(ground.tree.path(), &["-lie", &lies]);
    let larder = ground.strict().run();
    let sceptic = Start::on(&ground.upstream).args(["-gosumdb", &lying.flag()]).run();
    for module in &names {
        get_true(&larder, &ground, module, "zip");
        let zip = ground.truth(module, "zip");
        // The hash beside it is the one in the log, which Go's own library has made.
        stored(&larder, module, "zip");
        let beside = wait_for("the hash beside the zip", || {
            std::fs::read_to_string(larder.stored(&file(module, "ziphash"))).ok()
        });
        assert_eq!(beside, ground.sumdb.hashes(module)[0], "{module}");
        let text = refused_zip(&sceptic, module, &zip);
        assert!(text.is_none_or(|text| text.contains("checksum mismatch")), "{module}");
        assert!(!sceptic.has(&file(module, "zip")), "{module}");
    }
    assert_eq!((unverified(&larder), unverified(&sceptic)), (0, 0));
}

/// However a zip came, in one piece, in ranges side by side, broken off and resumed, in this run or the one before, it is
/// verified to its last byte; and refused if the log says otherwise.
#[test]
fn a_zip_is_verified_however_it_came() {
    const BYTES: usize = 1_500_000;
    let ground = Ground::over(modules(&[A], BYTES), &[]);
    let lying = crate::harness::Sumdb::over(ground.tree.path(), &["-lie", A]);
    let zip = ground.truth(A, "zip");
    let ways = [
        ("side by side", &[][..], json!([]), "4"),
        ("in one piece", &["-no-range", "-no-validators"][..], json!([]), "4"),
        ("resumed", &[][..], json!([{"kind": "zip", "cut_after": 400_000, "times": 2}]), "1"),
        (
            "from the beginning",
            &["-no-validators"][..],
            json!([{"kind": "zip", "cut_after": 700_000, "times": 1}]),
            "1",
        ),
        ("of unknown length", &["-no-range"][..], json!([{"kind": "zip", "chunked": true}]), "4"),
    ];
    for (way, args, faults, connections) in ways {
        let upstream = Upstream::with(ground.tree.path(), args);
        for sumdb in [&ground.sumdb, &lying] {
            upstream.reset();
            upstream.faults(faults.clone());
            let flags = ["-gosumdb", &sumdb.flag(), "-sumdb-mode", "strict", "-download-connections", connections];
            let larder = Start::on(&upstream).args(flags).run();
            if sumdb.url == lying.url {
                refused_zip(&larder, A, &zip);
                alarm_of(&larder, "mismatch");
                assert!(!larder.has(&file(A, "zip")), "{way}");
            } else {
                assert!(larder.get(&file(A, "zip")).expect(200).body == zip, "{way}");
                stored(&larder, A, "zip");
            }
            let requests = upstream.log_of(&file(A, "zip")).len();
            assert!(
                requests > 1 || !matches!(way, "side by side" | "resumed" | "from the beginning"),
                "{way}: {requests}"
            );
        }
    }
}

/// A download that a power cut broke off is resumed by the next run and verified as a whole: bytes that came before the cut
/// count as much as those after it.
#[test]
fn a_zip_resumed_after_a_power_cut_is_verified() {
    const BYTES: usize = 1_500_000;
    let ground = Ground::over(modules(&[A], BYTES), &[]);
    let lying = crate::harness::Sumdb::over(ground.tree.path(), &["-lie", A]);
    let zip = ground.truth(A, "zip");
    for sumdb in [&ground.sumdb, &lying] {
        let folder = temp_dir();
        let start = || {
            let flags = ["-gosumdb", &sumdb.flag(), "-sumdb-mode", "strict", "-download-connections", "1"];
            Start::on(&ground.upstream).cache(folder.path()).args(flags)
        };
        ground.upstream.faults(json!([{"kind": "zip", "hang_after": 1_000_000}]));
        let mut larder = start().run();
        let mut response = larder.open(&file(A, "zip"));
        // What a reader gets has been written, and noted in whole blocks.
        response.read_exact(&mut vec![0; 900_000]).unwrap();
        larder.kill();
        ground.upstream.faults(json!([]));
        wait_for("the broken download to end", || (ground.upstream.in_flight() == 0).then_some(()));
        ground.upstream.reset();
        let larder = start().run();
        if sumdb.url == lying.url {
            refused_zip(&larder, A, &zip);
            alarm_of(&larder, "mismatch");
            assert!(!larder.has(&file(A, "zip")));
        } else {
            assert!(larder.get(&file(A, "zip")).expect(200).body == zip);
            let fetched = ground.upstream.bytes_of(&file(A, "zip"));
            assert!(fetched < u64::try_from(zip.len()).unwrap(), "{fetched} bytes fetched again");
        }
    }
}

/// Our hash of a fixture's zip is Go's.
#[test]
fn the_hash_is_gos() {
    use base64::Engine as _;
    let upstream = Upstream::start();
    let sumdb = crate::harness::Sumdb::start();
    let larder = Start::on(&upstream).args(["-gosumdb", &sumdb.flag(), "-sumdb-mode", "strict"]).run();
    for module in ["rsc.io/quote@v1.5.2", "golang.org/x/text@v0.42.0", "gopkg.in/yaml.v3@v3.0.1"] {
        let zip = larder.get(&file(module, "zip")).expect(200).body;
        let (path, version) = module.split_once('@').unwrap();
        let encoded = base64::engine::general_purpose::STANDARD.encode(&zip);
        let go = ask_oracle(&json!({"op": "zip", "path": path, "version": version, "zip": encoded})).unwrap();
        let beside = wait_for("the hash beside the zip", || {
            std::fs::read_to_string(larder.stored(&file(module, "ziphash"))).ok()
        });
        assert_eq!(go["h1"], beside, "{module}");
        assert_eq!(beside, sumdb.hashes(module)[0]);
    }
    assert_eq!(unverified(&larder), 0);
}
