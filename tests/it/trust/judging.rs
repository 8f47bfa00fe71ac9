//! The verdict on a file: hashes that differ from the log's, the next upstream, and what a client can get before it.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{
    A, B, C, Ground, LARGE, SMALL, WITHHELD, alarm_of, alarms, assert_nothing_of, command, file, get_true, health,
    lookup, modules, refused_zip, stored, unverified,
};
use crate::harness::{Go, Start, Sumdb, Upstream, ask_oracle, json, noise, wait_for, zip_of};

/// Returns a well-formed zip of the module version with other noise in it.
fn other_zip(module: &str, bytes: usize) -> Vec<u8> {
    let path = module.split('@').next().unwrap();
    zip_of(&[
        (format!("{module}/go.mod"), format!("module {path}\n\ngo 1.21\n").into_bytes()),
        (format!("{module}/made.go"), b"// Package made is another one.\npackage made\n".to_vec()),
        (format!("{module}/testdata/noise.bin"), noise(99, bytes)),
    ])
}

/// Asserts that a text tells of a mismatch: whose, which hash came, and which one the log has, and where in it.
///
/// The database lies about a hash by its first letter.
#[track_caller]
fn assert_tells(text: &str, module: &str, kind: &str, record: u64, logged: &str) {
    let words = [
        format!("{module}: {kind} checksum mismatch: got h1:"),
        format!("checksum database record {record} says {logged}"),
    ];
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    let got = text.split("got ").nth(1).unwrap().split(',').next().unwrap();
    assert!(got != logged && got[4..] == logged[4..], "not the hash of what came: {text}");
    assert!(text.contains("\nhint: ") && text.lines().count() <= 8 && text.len() <= 648, "{text}");
}

/// A file whose hash is not the one in the log is refused, in both modes, with both hashes and the record's number; nothing
/// of it is stored, and the alarm says which upstream sent it. What the log vouches for is served beside it.
#[test]
fn a_mismatch_is_refused_and_kept_as_an_alarm() {
    let ground = Ground::new(&["-pad", "16", "-lie", B]);
    let [zip, go_mod] = ground.sumdb.hashes(B);
    for start in [ground.start(), ground.strict()] {
        let larder = start.run();
        assert_tells(larder.get(&file(B, "mod")).expect(502).text(), B, "mod", 17, &go_mod);
        assert_tells(larder.get(&file(B, "zip")).expect(502).text(), B, "zip", 17, &zip);
        assert_nothing_of(&larder, &["example.com/b/@v"]);
        wait_for("no half file", || larder.partials().is_empty().then_some(()));
        for kind in ["mod", "zip"] {
            get_true(&larder, &ground, A, kind);
        }
        assert_eq!(unverified(&larder), 0);
        let found = alarms(&larder);
        for kind in ["mod", "zip"] {
            let is_it = |alarm: &super::Alarm| {
                alarm.kind == "mismatch" && alarm.subject.contains(B) && alarm.subject.contains(kind)
            };
            assert!(found.iter().any(is_it), "{kind}: {found:?}");
        }
        assert_eq!(health(&larder)["status"], "ok", "a mismatch does not latch");
        let list = command(&larder, &["alarms"], 0);
        assert!(list.contains("mismatch") && list.contains(ground.upstream.address()), "{list}");
        let log = larder.log();
        assert!(log.lines().any(|line| line.contains("mismatch") && line.contains(&zip)), "{log}");
        // Cleared by a person, it is gone from what must be looked at.
        command(&larder, &["alarms", "clear"], 0);
        assert!(alarms(&larder).is_empty(), "{:?}", alarms(&larder));
    }
}

/// A record without a line for the zip vouches for the go.mod file alone: its zip is refused, as the go command does.
#[test]
fn a_record_without_a_zip_vouches_for_none() {
    let ground = Ground::new(&["-drop-zip-line", B]);
    let larder = ground.start().run();
    get_true(&larder, &ground, B, "mod");
    let answer = larder.get(&file(B, "zip")).expect(502);
    assert!(answer.text().starts_with(B) && answer.text().contains("record 1"), "{}", answer.text());
    assert!(!larder.has(&file(B, "zip")));
    assert_eq!(alarm_of(&larder, "mismatch").subject.split(' ').next(), Some(B));
}

/// After a mismatch the next upstream is tried, and its good file is what is served and stored; the alarm names the other.
#[test]
fn the_next_upstream_has_the_good_file() {
    let ground = Ground::over(modules(&[A, B, C], LARGE), &[]);
    let bad = modules(&[A, B, C], LARGE);
    bad.put(&file(A, "mod"), b"module example.com/a\n\ngo 1.22\n");
    bad.put(&file(A, "zip"), &other_zip(A, SMALL));
    // Another module's go.mod, and a zip of the same length that differs in its last file only.
    bad.put(&file(B, "mod"), b"module example.com/a\n\ngo 1.21\n");
    bad.put(&file(B, "zip"), &other_zip(B, LARGE));
    let bad = Upstream::with(bad.path(), &[]);
    for separator in [',', '|'] {
        let list = format!("{}{separator}{}", bad.url, ground.upstream.url);
        let larder = Start::upstream(&list).args(["-gosumdb", &ground.sumdb.flag()]).run();
        for module in [A, B] {
            get_true(&larder, &ground, module, "mod");
        }
        // Nothing of a small zip has been sent when it turns out to be another; of a large one something may have been, and
        // then its readers are cut off and the next request has the good one.
        get_true(&larder, &ground, A, "zip");
        let truth = ground.truth(B, "zip");
        wait_for("the good zip", || match larder.try_get(&file(B, "zip")) {
            Ok(answer) => {
                assert!(answer.expect(200).body == truth, "the other zip was served whole");
                Some(())
            }
            Err(error) => {
                assert!(error.starts_with("after "), "{error}");
                None
            }
        });
        stored(&larder, B, "zip");
        assert!(std::fs::read(larder.stored(&file(B, "zip"))).unwrap() == truth);
        get_true(&larder, &ground, C, "zip");
        let list = command(&larder, &["alarms"], 0);
        assert!(list.contains(bad.address()) && !list.contains(ground.upstream.address()), "{list}");
        assert_eq!(unverified(&larder), 0);
    }
}

/// A zip with one byte changed by the upstream is refused wherever Go's own libraries would not take it for the same
/// module, and its last 4 KiB reach no client, however the download went.
#[test]
fn invariant_5_a_changed_byte_never_reaches_a_client_in_whole() {
    let ground = Ground::over(modules(&[A], LARGE), &[]);
    let (zip, [logged, _]) = (ground.truth(A, "zip"), ground.sumdb.hashes(A));
    let (end, mut refused) = (zip.len(), 0);
    // The header of the first entry, its name and its content, the noise, the directory, and the number of entries.
    for at in [4, 14, 32, 60, end / 2, end - 4000, end - 200, end - 100, end - 14] {
        for connections in ["1", "4"] {
            ground.upstream.faults(json!([{"kind": "zip", "flip_byte": at}]));
            let mut changed = zip.clone();
            changed[at] ^= 0xff;
            let larder = ground.start().args(["-download-connections", connections]).run();
            // Neither times nor what stands in the header before an entry counts for Go.
            if is_the_module(A, &changed, &logged) {
                assert!(larder.get(&file(A, "zip")).expect(200).body == changed, "{at}");
                continue;
            }
            refused += 1;
            let text = refused_zip(&larder, A, &zip);
            assert!(!larder.has(&file(A, "zip")), "{at}: {text:?}");
            ground.upstream.faults(json!([]));
            wait_for("the true zip", || {
                larder.try_get(&file(A, "zip")).ok().filter(|answer| answer.status == 200 && answer.body == zip)
            });
        }
    }
    assert!(refused >= 8, "{refused}");
}

/// Says whether Go's own libraries take a zip for that of the module version with this hash.
fn is_the_module(module: &str, zip: &[u8], hash: &str) -> bool {
    let (path, version) = module.split_once('@').unwrap();
    let question = json!({"op": "zip", "path": path, "version": version, "zip": STANDARD.encode(zip)});
    let verdict = ask_oracle(&question).unwrap();
    verdict["h1"] == hash && verdict["check_error"] == ""
}

/// A well-formed zip of other content, slow to come: a client that follows it gets all but the end, and no end.
#[test]
fn invariant_5_the_end_of_a_mismatch_is_withheld() {
    let ground = Ground::over(modules(&[A], LARGE), &[]);
    let other = other_zip(A, LARGE);
    let evil = modules(&[], 0);
    evil.put(&file(A, "zip"), &other);
    evil.put(&file(A, "info"), &ground.truth(A, "info"));
    for args in [&["-bandwidth", "400000"][..], &["-bandwidth", "400000", "-no-range", "-no-validators"]] {
        let evil = Upstream::with(evil.path(), args);
        let larder = Start::on(&evil).args(["-gosumdb", &ground.sumdb.flag()]).run();
        let (mut response, mut got) = (larder.open(&file(A, "zip")), Vec::new());
        assert_eq!(response.status(), 200);
        response.read_to_end(&mut got).unwrap_err();
        assert!(got.len() + WITHHELD <= other.len() && !got.is_empty(), "{} of {}", got.len(), other.len());
        assert!(got == other[..got.len()] && !larder.has(&file(A, "zip")));
        let alarm = alarm_of(&larder, "mismatch");
        assert!(alarm.text.contains("h1:") || alarm.text.contains("mismatch"), "{alarm:?}");
    }
}

/// With one record known a second file of the same version costs the database nothing, and neither does a second version
/// whose tiles are known, beyond its lookup; what is stored never costs anything.
#[test]
fn a_warm_verification_asks_for_a_record_at_most() {
    let ground = Ground::new(&["-pad", "600"]);
    let larder = ground.start().run();
    get_true(&larder, &ground, A, "mod");
    assert!(ground.sumdb.asked("/tile/") > 0);
    ground.sumdb.forget();
    get_true(&larder, &ground, A, "zip");
    assert_eq!(ground.sumdb.counts().len(), 0, "{:?}", ground.sumdb.counts());
    get_true(&larder, &ground, B, "zip");
    get_true(&larder, &ground, B, "mod");
    let counts = ground.sumdb.counts();
    assert!(counts.len() == 1 && counts.get(&format!("/lookup/{B}")) == Some(&1), "{counts:?}");
    ground.sumdb.forget();
    for module in [A, B] {
        for kind in ["mod", "zip"] {
            larder.hit(&file(module, kind));
        }
        larder.hit(&lookup(&ground.sumdb, module));
    }
    assert_eq!(ground.sumdb.counts().len(), 0, "{:?}", ground.sumdb.counts());
    assert_eq!(unverified(&larder), 0);
}

/// Many who ask at once for what nobody has judged yet ask the database once.
#[test]
fn a_crowd_asks_the_database_once() {
    let ground = Ground::new(&["-pad", "300"]);
    let larder = ground.start().run();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let (larder, ground) = (&larder, &ground);
            scope.spawn(move || {
                if number % 2 == 0 {
                    get_true(larder, ground, A, ["mod", "zip"][number / 2 % 2]);
                } else {
                    larder.get(&lookup(&ground.sumdb, A)).expect(200);
                }
            });
        }
    });
    // The start asks for the newest head, and for the tiles of its edge, on its own account.
    assert_eq!(ground.sumdb.asked("/lookup/"), 1);
    assert!(ground.sumdb.asked("/tile/") <= 4, "{:?}", ground.sumdb.counts());
}

/// With `-gosumdb off` nothing is verified and nobody is asked, and the alarm and the count stay empty.
#[test]
fn off_is_off() {
    let ground = Ground::new(&["-lie", B]);
    let larder = Start::on(&ground.upstream).args(["-gosumdb", "off"]).run();
    for kind in ["mod", "zip"] {
        get_true(&larder, &ground, B, kind);
    }
    assert!(alarms(&larder).is_empty());
    assert_eq!((unverified(&larder), ground.sumdb.counts().len()), (0, 0));
}

/// The go command is told of a mismatch in words, and has nothing to fall back on.
#[test]
fn the_go_command_shows_the_mismatch() {
    let ground = Ground::new(&["-lie", B]);
    let larder = ground.start().run();
    let output = Go::new(&larder.url).run(&["mod", "download", B]);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && shown.contains("checksum mismatch: got h1:") && shown.contains("hint: "),
        "{shown}"
    );
    // Its own verification, on line, through Larder, is content with what Larder lets pass.
    Go::new(&larder.url).sumdb(&ground.sumdb.key).expect(&["mod", "download", A]);
}

/// A database that is reached through an upstream is believed as little as one that is asked directly.
#[test]
fn an_upstream_that_changes_the_answers_is_found_out() {
    let ground = Ground::new(&[]);
    let between = Upstream::with(ground.tree.path(), &["-sumdb", &ground.sumdb.behind()]);
    between.faults(json!([{"kind": "lookup", "flip_byte": 40}]));
    let larder = Start::on(&between).args(["-gosumdb", &ground.sumdb.key]).run();
    let answer = larder.get(&file(A, "mod")).expect(502);
    assert!(answer.text().contains("answer does not verify"), "{}", answer.text());
    between.faults(json!([]));
    get_true(&larder, &ground, A, "mod");
    let other = Sumdb::over(ground.tree.path(), &["-seed", "another"]);
    assert_ne!(other.key, ground.sumdb.key);
    // A database with another key is not the one that was meant.
    let flag = format!("{} {}", ground.sumdb.key, other.url);
    let larder = Start::on(&ground.upstream).args(["-gosumdb", &flag]).run();
    larder.get(&file(A, "zip")).expect(502);
    assert_nothing_of(&larder, &["example.com/a", "sumdb/"]);
}
