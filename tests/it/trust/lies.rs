//! Every way in which the database of the tests can lie, break or be silent, for both kinds of files and in both modes.

use super::{
    A, B, Ground, alarms, assert_nothing_of, command, file, get_true, lookup, refused_zip, stored, unverified,
};
use crate::harness::{Larder, Start, files_below, json, wait_for};

/// What a way of answering must come to for a Larder that has seen nothing of the database yet.
#[derive(Clone, Copy)]
enum Outcome {
    /// The answer does not verify; the words are in the text, one of them.
    Lie(&'static [&'static str]),
    /// It is true, for who knows nothing else.
    Verified,
    /// There is no answer.
    Unreachable,
    /// The database says that there is no such record.
    NotInLog,
    /// The record is there, and what proves it is withheld.
    Unproved,
}

/// The log has 303 records, of which B's is number 301: tiles of two levels, of the edge and full ones.
const MODES: [(&str, Outcome); 14] = [
    (r#"{"mode":"honest"}"#, Outcome::Verified),
    (r#"{"mode":"wrong-record"}"#, Outcome::Lie(&["another record 301"])),
    (r#"{"mode":"wrong-id"}"#, Outcome::Lie(&["another record"])),
    (r#"{"mode":"bad-signature"}"#, Outcome::Lie(&["signature"])),
    (r#"{"mode":"wrong-key"}"#, Outcome::Lie(&["not signed"])),
    (r#"{"mode":"wrong-root"}"#, Outcome::Lie(&["inconsistent"])),
    (r#"{"mode":"tampered-tile"}"#, Outcome::Lie(&["inconsistent"])),
    (r#"{"mode":"short-tile"}"#, Outcome::Lie(&["wrong length"])),
    (r#"{"mode":"garbage"}"#, Outcome::Lie(&["malformed record"])),
    (r#"{"mode":"rollback","size":100}"#, Outcome::Lie(&["record 301 in a log of 100"])),
    (r#"{"mode":"missing-partial"}"#, Outcome::Unproved),
    (r#"{"mode":"fork"}"#, Outcome::Verified),
    (r#"{"mode":"status","status":404}"#, Outcome::NotInLog),
    (r#"{"mode":"status","status":500}"#, Outcome::Unreachable),
];

fn mode(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// Asserts that the text names module and database, and the lie.
#[track_caller]
fn assert_names_the_lie(text: &str, name: &str, words: &[&str]) {
    let begin = format!("{B}: checksum database {name}: answer does not verify: ");
    assert!(text.starts_with(&begin) && words.iter().any(|word| text.contains(word)), "{text}");
}

fn each_mode(start: fn(&Ground) -> Start, check: fn(&Ground, &Larder, Outcome)) {
    let ground = Ground::new(&["-pad", "300"]);
    for (text, outcome) in MODES {
        ground.sumdb.mode(mode(text));
        let larder = start(&ground).run();
        println!("{text}");
        check(&ground, &larder, outcome);
        // Nothing of it is remembered against the module: a database that has come to its senses is believed.
        ground.sumdb.honest();
        wait_for("the files, verified", || {
            let answers = ["mod", "zip"].map(|kind| larder.get(&file(B, kind)).status);
            // What the database did not find is not looked up again within the minute.
            (answers == [200; 2] || matches!(outcome, Outcome::NotInLog)).then_some(())
        });
    }
}

/// What both modes make of a lie: a refusal that names it, and an alarm; nothing stored, of the database neither.
#[track_caller]
fn assert_refused_as_lie(ground: &Ground, larder: &Larder, words: &[&str]) {
    let name = &ground.sumdb.name;
    for kind in ["mod", "zip"] {
        let answer = larder.get(&file(B, kind)).expect(502);
        assert_names_the_lie(answer.text(), name, words);
        assert!(answer.text().contains("\nhint: "), "{}", answer.text());
    }
    // Passed on to a client of the database it is the same lie, and no 404.
    assert_names_the_lie(larder.get(&lookup(&ground.sumdb, B)).expect(502).text(), name, words);
    assert_nothing_of(larder, &["example.com/b", "/lookup/"]);
    let found = alarms(larder);
    let named = found.iter().any(|alarm| alarm.kind == "lie" && alarm.subject.contains(B));
    assert!(named && words.iter().any(|word| found.iter().any(|alarm| alarm.text.contains(word))), "{found:?}");
    let list = command(larder, &["alarms"], 0);
    assert!(list.contains("lie") && list.contains(B), "{list}");
    // What is stored of the database because something else of it was true is the truth.
    ground.sumdb.honest();
    for (path, content) in files_below(&larder.stored(&ground.sumdb.path("tile"))) {
        assert!(content == ground.sumdb.get(&format!("tile/{}", path.display())).body, "{}", path.display());
    }
}

/// When-reachable: a lie is refused; silence and absence are not, and what is served then is counted as unverified.
#[test]
fn when_reachable_serves_only_what_is_not_lied_about() {
    each_mode(Ground::start, |ground, larder, outcome| match outcome {
        Outcome::Lie(words) => assert_refused_as_lie(ground, larder, words),
        Outcome::Verified => {
            for kind in ["mod", "zip"] {
                get_true(larder, ground, B, kind);
                stored(larder, B, kind);
            }
            assert_eq!(unverified(larder), 0);
            assert!(alarms(larder).is_empty(), "{:?}", alarms(larder));
        }
        Outcome::Unreachable | Outcome::NotInLog | Outcome::Unproved => {
            for kind in ["mod", "zip"] {
                get_true(larder, ground, B, kind);
                stored(larder, B, kind);
            }
            wait_for("both files to be noted", || (unverified(larder) == 2).then_some(()));
            assert!(alarms(larder).is_empty(), "{:?}", alarms(larder));
        }
    });
}

/// Strict: what is not proved is refused, with a status that does not send the go command elsewhere and a text that says
/// what is missing.
#[test]
fn strict_serves_only_what_is_proved() {
    each_mode(Ground::strict, |ground, larder, outcome| {
        let (name, statuses, words): (_, &[u16], _) = match outcome {
            Outcome::Lie(words) => return assert_refused_as_lie(ground, larder, words),
            Outcome::Verified => {
                for kind in ["mod", "zip"] {
                    get_true(larder, ground, B, kind);
                }
                return assert_eq!(unverified(larder), 0);
            }
            Outcome::Unreachable => {
                (B, &[504], format!("cannot be verified: checksum database {} is out of reach: ", ground.sumdb.name))
            }
            Outcome::NotInLog => (B, &[403], format!("not in the log of checksum database {}", ground.sumdb.name)),
            // That a tile cannot be had is no word about the module.
            Outcome::Unproved => (B, &[502, 504], ground.sumdb.name.clone()),
        };
        for kind in ["mod", "zip"] {
            let answer = larder.get(&file(B, kind));
            assert!(statuses.contains(&answer.status), "{kind}: {} {}", answer.status, answer.text());
            assert!(answer.text().starts_with(name) && answer.text().contains(&words), "{}", answer.text());
        }
        assert_nothing_of(larder, &["example.com/b/@v/v1.0.0.mod", "example.com/b/@v/v1.0.0.zip"]);
        assert_eq!(unverified(larder), 0);
        assert!(alarms(larder).is_empty(), "{:?}", alarms(larder));
    });
}

/// A Larder that knows the database is not impressed by its lies: what is stored stays served, what is not is refused.
#[test]
fn what_is_known_stays_served_under_lies() {
    let ground = Ground::new(&["-pad", "300"]);
    let larder = ground.start().run();
    for kind in ["mod", "zip"] {
        get_true(&larder, &ground, A, kind);
        stored(&larder, A, kind);
    }
    for (text, outcome) in MODES {
        let Outcome::Lie(_) = outcome else { continue };
        // Tiles that are known already are not asked for; an older head, and two of one size, are matters of their own.
        if ["tile", "rollback", "wrong-root"].iter().any(|other| text.contains(other)) {
            continue;
        }
        ground.sumdb.mode(mode(text));
        assert!(larder.hit(&file(A, "zip")).body == ground.truth(A, "zip"), "{text}");
        larder.hit(&lookup(&ground.sumdb, A));
        assert!(refused_zip(&larder, B, &ground.truth(B, "zip")).is_some(), "{text}");
        larder.get(&file(B, "mod")).expect(502);
        larder.get(&lookup(&ground.sumdb, B)).expect(502);
        assert_nothing_of(&larder, &["example.com/b"]);
    }
    ground.sumdb.honest();
    wait_for("the truth to be believed", || (larder.get(&file(B, "zip")).status == 200).then_some(()));
    get_true(&larder, &ground, B, "zip");
}

/// Answers that are no database's at all, a login page among them, are no lies and no records.
#[test]
fn a_login_page_is_no_lie() {
    let ground = Ground::new(&[]);
    let between = crate::harness::Upstream::with(ground.tree.path(), &["-sumdb", &ground.sumdb.behind()]);
    between.faults(
        json!([{"match": "^/sumdb/", "status": 200, "body": "<html>log in</html>", "content_type": "text/html"}]),
    );
    let larder = Start::on(&ground.upstream).args(["-gosumdb", &ground.sumdb.flag_at(&between.url)]).run();
    get_true(&larder, &ground, A, "zip");
    assert!(alarms(&larder).is_empty(), "{:?}", alarms(&larder));
    wait_for("the file to be noted", || (unverified(&larder) == 1).then_some(()));
    assert_nothing_of(&larder, &["sumdb/"]);
}
