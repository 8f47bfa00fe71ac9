//! `larder verify`: every stored file is read again, and go.sum files are compared with the log; beside the service and alone.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Output;

use super::{A, B, C, Ground, LARGE, alarms, command, file, get_true, lookup, modules, printed, stored};
use crate::harness::{Larder, run_command, temp_dir, wait_for};

/// Makes a Larder with everything of A, B and C, judged and stored.
fn filled(ground: &Ground, cache: &Path) -> Larder {
    let larder = ground.start().cache(cache).run();
    for module in [A, B, C] {
        for kind in ["mod", "zip", "info"] {
            get_true(&larder, ground, module, kind);
            stored(&larder, module, kind);
        }
        larder.get(&lookup(&ground.sumdb, module)).expect(200);
        wait_for("the hash beside the zip", || larder.stored(&file(module, "ziphash")).is_file().then_some(()));
    }
    larder
}

/// Changes one bit of a byte of a stored file in place, as a worn card does: neither length nor times nor attributes tell.
/// A second time it changes it back.
fn flip(path: &Path, at: u64) {
    let times = std::fs::metadata(path).unwrap().modified().unwrap();
    let mut content = std::fs::read(path).unwrap();
    let index = usize::try_from(at).unwrap();
    content[index] ^= 1;
    let mut opened = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    opened.seek(SeekFrom::Start(at)).unwrap();
    opened.write_all(&content[index..=index]).unwrap();
    opened.set_modified(times).unwrap();
}

/// Runs a subcommand without a service, with the settings it would have.
fn alone(ground: &Ground, cache: &Path, words: &[&str]) -> Output {
    ground.start().cache(cache).subcommand(words)
}

/// Returns the offsets of a zip at which a byte is changed: in a header, a name, the content, the directory and its end.
fn offsets(zip: &[u8]) -> [u64; 8] {
    let end = zip.len() as u64;
    [0, 8, 35, end / 3, end / 2, end - 150, end - 30, end - 1]
}

/// One flipped bit anywhere in a stored zip is found, beside the running service and alone, and nothing else is reported;
/// a tree without one is in order.
#[test]
fn a_flipped_byte_in_a_zip_is_found() {
    let ground = Ground::over(modules(&[A, B, C], LARGE), &["-pad", "300"]);
    let folder = temp_dir();
    let mut larder = filled(&ground, folder.path());
    command(&larder, &["verify"], 0);
    let path = larder.stored(&file(B, "zip"));
    let places = offsets(&ground.truth(B, "zip"));
    for at in places.into_iter().step_by(2) {
        flip(&path, at);
        assert_reports(&command(&larder, &["verify"], 1), B, "zip", at);
        flip(&path, at);
    }
    command(&larder, &["verify"], 0);
    larder.stop();
    for at in places {
        flip(&path, at);
        let (code, text) = printed(&alone(&ground, folder.path(), &["verify"]));
        assert_eq!(code, 1, "{at}: {text}");
        assert_reports(&text, B, "zip", at);
        flip(&path, at);
    }
    let (code, text) = printed(&alone(&ground, folder.path(), &["verify"]));
    assert_eq!(code, 0, "{text}");
}

/// Asserts that this one file is named, and no other module.
#[track_caller]
fn assert_reports(text: &str, module: &str, kind: &str, at: u64) {
    let named = text
        .lines()
        .any(|line| (line.contains(&file(module, kind)[1..]) || line.contains(module)) && line.contains(kind));
    assert!(named, "{at}: {text}");
    for other in [A, B, C].into_iter().filter(|other| *other != module) {
        assert!(!text.contains(other) && !text.contains(&file(other, "zip")[1..]), "{at}: {other} is named: {text}");
    }
}

/// A flipped bit in a go.mod file, an .info, a lookup or a tile is found as well, and one in a `.ziphash` mended.
#[test]
fn a_flipped_byte_in_any_file_is_found() {
    let ground = Ground::new(&["-pad", "300"]);
    let folder = temp_dir();
    let larder = filled(&ground, folder.path());
    let tile = ground.sumdb.path("tile/8/0/001.p/47");
    for (path, at) in [(file(B, "mod"), 3), (file(B, "info"), 14), (lookup(&ground.sumdb, B), 20), (tile, 100)] {
        let stored = larder.stored(&path);
        let original = std::fs::read(&stored).unwrap();
        flip(&stored, at);
        let text = command(&larder, &["verify"], 1);
        // Files of a version are named as people name them, all others by their path.
        assert!(text.contains(&format!("{B} ")) || text.contains(&path[1..path.len() - 8]), "{path}: {text}");
        // A damaged tile may have been fetched again already, since what depends on it was judged.
        std::fs::write(&stored, original).unwrap();
    }
}

/// `--repair` moves what is broken aside and fetches it again: the next reader has the true bytes, and the damage is kept
/// for who wants to see it.
#[test]
fn a_damaged_file_is_repaired() {
    let ground = Ground::over(modules(&[A, B, C], LARGE), &["-pad", "300"]);
    let folder = temp_dir();
    let mut larder = filled(&ground, folder.path());
    let (zip, go_mod) = (larder.stored(&file(B, "zip")), larder.stored(&file(C, "mod")));
    let damage = || {
        flip(&zip, 5000);
        flip(&go_mod, 2);
        std::fs::read(&zip).unwrap()
    };
    let quarantined = |bytes: &[u8]| {
        let folder = larder_quarantine(folder.path());
        let kept =
            std::fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>());
        kept.unwrap_or_default().iter().any(|path| std::fs::read(path).is_ok_and(|content| content == bytes))
    };
    let assert_repaired = |text: &str| {
        assert!(text.contains(&file(B, "zip")[1..]) || text.contains(B), "{text}");
        for (module, kind) in [(B, "zip"), (C, "mod")] {
            let path = folder.path().join(&file(module, kind)[1..]);
            let truth = ground.truth(module, kind);
            assert!(std::fs::read(path).is_ok_and(|content| content == truth), "{module} {kind}: {text}");
        }
    };
    let damaged = damage();
    let (_, text) = printed(&larder.command(&["verify", "--repair"]));
    assert_repaired(&text);
    assert!(quarantined(&damaged), "{text}");
    command(&larder, &["verify"], 0);
    for (module, kind) in [(B, "zip"), (C, "mod")] {
        get_true(&larder, &ground, module, kind);
    }
    assert!(
        alarms(&larder).iter().any(|alarm| alarm.kind == "damaged" && alarm.subject.contains(B)),
        "{:?}",
        alarms(&larder)
    );
    larder.stop();
    // Alone it does the same.
    damage();
    let (_, text) = printed(&alone(&ground, folder.path(), &["verify", "--repair"]));
    assert_repaired(&text);
    let (code, text) = printed(&alone(&ground, folder.path(), &["verify"]));
    assert_eq!(code, 0, "{text}");
}

fn larder_quarantine(cache: &Path) -> std::path::PathBuf {
    cache.join(".larder/quarantine")
}

/// A file whose content and stored sums were both changed is compared with the log: the log is what counts.
#[test]
fn the_log_is_asked_about_stored_files() {
    let ground = Ground::new(&[]);
    let folder = temp_dir();
    // Stored by a Larder that verified nothing; the log says otherwise about B.
    let mut larder = crate::harness::Start::on(&ground.upstream).cache(folder.path()).args(["-gosumdb", "off"]).run();
    for module in [A, B] {
        for kind in ["mod", "zip"] {
            get_true(&larder, &ground, module, kind);
            stored(&larder, module, kind);
        }
    }
    larder.stop();
    let lying = crate::harness::Sumdb::over(ground.tree.path(), &["-lie", B]);
    let start = || crate::harness::Start::on(&ground.upstream).cache(folder.path()).args(["-gosumdb", &lying.flag()]);
    let (code, text) = printed(&start().subcommand(&["verify"]));
    assert!(code == 1 && text.contains("mismatch"), "{text}");
    assert_reports(&text, B, "zip", 0);
    // Without the database the files themselves are in order, and what could not be asked is said.
    let offline = start().args(["-network-mode", "offline"]).subcommand(&["verify"]);
    let (code, text) = printed(&offline);
    assert_eq!(code, 0, "{text}");
}

/// Each line of a go.sum file gets its verdict; one that is not what the log says makes the command fail, and so does one
/// that the log does not know, which is no mismatch.
#[test]
fn go_sum_files_are_checked() {
    let ground = Ground::new(&["-pad", "300"]);
    let folder = temp_dir();
    let mut larder = ground.start().cache(folder.path()).run();
    let line = |module: &str, which: usize| {
        let suffix = ["", "/go.mod"][which];
        format!("{}{suffix} {}\n", module.replace('@', " "), ground.sumdb.hashes(module)[which])
    };
    let bad = line(B, 0).replace(&ground.sumdb.hashes(B)[0], &ground.sumdb.hashes(A)[0]);
    let unknown = line(A, 0).replace("example.com/a", "example.com/unknown");
    let files = temp_dir();
    let write = |name: &str, lines: &[String]| {
        let path = files.path().join(name);
        std::fs::write(&path, lines.concat()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write("go.sum", &[line(A, 0), line(A, 1), line(B, 0), line(B, 1), line(C, 1)]);
    let bad = write("bad.sum", &[line(A, 0), bad, line(C, 1)]);
    let unknown = write("unknown.sum", &[line(A, 0), unknown]);
    let check = |larder: Option<&Larder>, path: &str| match larder {
        Some(larder) => printed(&larder.command(&["verify", path])),
        None => printed(&alone(&ground, folder.path(), &["verify", path])),
    };
    for round in 0..2 {
        let service = (round == 0).then_some(&larder);
        let (code, text) = check(service, &good);
        assert_eq!(code, 0, "{text}");
        for words in [
            "example.com/a v1.0.0",
            "example.com/a v1.0.0/go.mod",
            "example.com/b v1.0.0",
            "example.com/c v1.0.0/go.mod",
        ] {
            assert!(text.lines().any(|line| line.contains(words)), "{words}: {text}");
        }
        assert!(text.lines().count() >= 5 && !text.contains("MISMATCH"), "{text}");
        let (code, text) = check(service, &bad);
        assert_eq!(code, 1, "{text}");
        let mismatches: Vec<_> =
            text.lines().filter(|line| line.contains("example.com/") && line.starts_with("MISMATCH")).collect();
        assert!(mismatches.len() == 1 && mismatches[0].contains("example.com/b v1.0.0"), "{text}");
        assert!(
            text.lines().any(|line| line.contains("example.com/c v1.0.0/go.mod") && line.starts_with("ok ")),
            "{text}"
        );
        let (code, text) = check(service, &unknown);
        assert_eq!(code, 1, "{text}");
        assert!(
            text.contains("example.com/unknown") && text.contains("not in log") && !text.contains("mismatch"),
            "{text}"
        );
        if round == 0 {
            larder.stop();
        }
    }
    // A file that is no go.sum, and one that is not there, are mistakes of whoever asks.
    let no_sum = write("go.mod", &["module example.com/user\n".to_owned()]);
    for path in [&no_sum, "/nowhere/go.sum"] {
        let (code, text) = check(None, path);
        assert!(code != 0 && text.contains(path), "{text}");
    }
}

/// A go.sum file is checked with the database alone: names that are private are not asked about, and say so.
#[test]
fn private_lines_of_a_go_sum_file_are_not_asked_about() {
    let ground = Ground::new(&[]);
    let folder = temp_dir();
    let path = folder.path().join("go.sum");
    let [hash, _] = ground.sumdb.hashes(B);
    ground.sumdb.forget();
    std::fs::write(&path, format!("example.com/b v1.0.0 {hash}\n")).unwrap();
    let cache = temp_dir();
    let start = ground.start().cache(cache.path()).args(["-gonosumdb", "example.com/b"]);
    let (_, text) = printed(&start.subcommand(&["verify", path.to_str().unwrap()]));
    assert!(text.starts_with("exempt ") && text.contains("example.com/b v1.0.0"), "{text}");
    assert_eq!(ground.sumdb.asked("example.com/b"), 0);
}

/// The background run finds a flipped bit by itself, raises the alarm, and has the file fetched again.
#[test]
fn the_background_run_finds_damage() {
    let ground = Ground::over(modules(&[A, B, C], LARGE), &[]);
    let folder = temp_dir();
    let mut larder = filled(&ground, folder.path());
    larder.stop();
    flip(&larder.stored(&file(B, "zip")), 40_000);
    let larder = ground.start().cache(folder.path()).args(["-scrub-interval", "1s", "-scrub-rate", "0"]).run();
    let alarm = super::alarm_of(&larder, "damaged");
    assert!(alarm.subject.contains(B), "{alarm:?}");
    let truth = ground.truth(B, "zip");
    wait_for("the true bytes", || {
        larder.try_get(&file(B, "zip")).ok().filter(|answer| answer.status == 200 && answer.body == truth)
    });
    assert!(run_command(folder.path(), &["status"]).status.success());
}
