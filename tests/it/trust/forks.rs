//! Two histories of one log, a log that shrinks, tiles that contradict what was proved: alarms that latch until a person
//! has looked, with evidence that others can check.

use std::path::Path;

use super::{
    A, Alarm, B, C, Ground, alarm_of, alarms, assert_nothing_of, command, file, get_true, health, lookup, printed,
    stored,
};
use crate::harness::{FakeClock, Larder, ask_oracle, json, run_command, temp_dir};

/// Returns the evidence of an alarm as the command hands it out.
#[track_caller]
fn exported(cache: &Path, alarm: &Alarm) -> String {
    let output = run_command(cache, &["alarms", "export", &alarm.id.to_string()]);
    assert!(output.status.success(), "{}", printed(&output).1);
    String::from_utf8(output.stdout).unwrap()
}

/// Has Go's own libraries judge evidence of a fork; returns the sizes of both logs.
#[track_caller]
fn forked_sizes(ground: &Ground, evidence: &str) -> (u64, u64) {
    let answer = ask_oracle(&json!({"op": "fork", "key": ground.sumdb.key, "text": evidence}));
    let answer = answer.unwrap_or_else(|error| panic!("{error}: {evidence}"));
    (answer["older"].as_u64().unwrap(), answer["newer"].as_u64().unwrap())
}

/// Makes a Larder with A, verified, that knows the honest log.
#[track_caller]
fn with_a(ground: &Ground, cache: &Path) -> Larder {
    let larder = ground.start().cache(cache).run();
    for kind in ["mod", "zip"] {
        get_true(&larder, ground, A, kind);
        stored(&larder, A, kind);
    }
    larder
}

/// Asserts how a Larder with a latched alarm behaves, `strict` or not.
#[track_caller]
fn assert_latched(larder: &Larder, ground: &Ground, kind: &str, is_strict: bool) {
    let alarm = alarm_of(larder, kind);
    assert_eq!(health(larder)["status"], "alarm");
    assert!(command(larder, &["alarms"], 0).contains(kind));
    // What was judged stays served.
    for kind in ["mod", "zip"] {
        larder.hit(&file(A, kind));
    }
    larder.get(&lookup(&ground.sumdb, A)).expect(200);
    for name in ["mod", "zip"] {
        let answer = larder.get(&file(B, name));
        if is_strict {
            assert_eq!(answer.status, 503, "{}", answer.text());
            let words = format!("checksum database {}: alarm {} ({kind})", ground.sumdb.name, alarm.id);
            assert!(answer.text().starts_with(B) && answer.text().contains(&words), "{}", answer.text());
            assert!(answer.text().contains("larder alarms"), "{}", answer.text());
        } else {
            // Unverifiable is not refused in this mode, and a lie always is.
            assert!(answer.status == 200 || answer.status >= 500, "{}", answer.status);
        }
    }
    if is_strict {
        assert_nothing_of(larder, &["example.com/b/@v"]);
    }
}

/// A fork, wherever it begins, by a longer log or one of the same size, is noticed by the lookup that shows it: nothing of
/// it is stored, the alarm outlives restarts, and Go's own libraries say that the evidence holds.
#[test]
fn a_fork_is_an_alarm_with_proof() {
    for (mode, fork_at, newer) in
        [("fork", "-1", 304), ("fork-same-size", "-1", 303), ("fork", "0", 304), ("fork", "280", 304)]
    {
        let ground = Ground::new(&["-pad", "300", "-fork-at", fork_at]);
        let folder = temp_dir();
        let mut larder = with_a(&ground, folder.path());
        let (head, proved) = (head(&larder, &ground), larder.get(&lookup(&ground.sumdb, A)).expect(200).body);
        ground.sumdb.mode(json!({"mode": mode}));
        let answer = larder.get(&lookup(&ground.sumdb, B));
        assert!(answer.status >= 500, "{mode} {fork_at}: {} {}", answer.status, answer.text());
        assert!(!larder.has(&lookup(&ground.sumdb, B)), "{mode} {fork_at}");
        assert_eq!(self::head(&larder, &ground), head, "{mode} {fork_at}: the head moved");
        let alarm = alarm_of(&larder, "fork");
        let evidence = exported(folder.path(), &alarm);
        assert_eq!(forked_sizes(&ground, &evidence), (303, newer), "{mode} {fork_at}");
        let log = larder.log();
        assert!(log.contains("fork") || log.contains("two histories"), "{log}");
        larder.stop();
        // The command alone, with no service, hands out the same.
        assert_eq!(exported(folder.path(), &alarm), evidence);
        let mut larder = ground.strict().cache(folder.path()).run();
        assert_latched(&larder, &ground, "fork", true);
        assert!(larder.get(&lookup(&ground.sumdb, A)).expect(200).body == proved);
        larder.stop();
        let larder = ground.start().cache(folder.path()).run();
        assert_latched(&larder, &ground, "fork", false);
    }
}

/// Returns the stored head.
fn head(larder: &Larder, ground: &Ground) -> String {
    std::fs::read_to_string(larder.cache.join(".larder/sumdb").join(&ground.sumdb.name).join("head")).unwrap()
}

/// The alarm ends when a person clears it, and only then: the database being honest again does not end it, nor do restarts.
#[test]
fn an_alarm_latches_until_it_is_cleared() {
    let ground = Ground::new(&["-pad", "300"]);
    let folder = temp_dir();
    let mut larder = with_a(&ground, folder.path());
    ground.sumdb.mode(json!({"mode": "fork"}));
    assert!(larder.get(&lookup(&ground.sumdb, B)).status >= 500);
    alarm_of(&larder, "fork");
    ground.sumdb.honest();
    larder.kill();
    let mut larder = ground.strict().cache(folder.path()).run();
    assert_latched(&larder, &ground, "fork", true);
    larder.stop();
    let mut larder = ground.strict().cache(folder.path()).run();
    let alarm = alarm_of(&larder, "fork");
    larder.get(&file(B, "zip")).expect(503);
    // A number that is none, or of another, clears nothing.
    let (code, text) = printed(&larder.command(&["alarms", "clear", &(alarm.id + 100).to_string()]));
    assert!(code != 0, "{text}");
    larder.get(&file(B, "zip")).expect(503);
    command(&larder, &["alarms", "clear", &alarm.id.to_string()], 0);
    assert!(alarms(&larder).is_empty(), "{:?}", alarms(&larder));
    assert_eq!(health(&larder)["status"], "ok");
    for kind in ["mod", "zip"] {
        get_true(&larder, &ground, B, kind);
    }
    larder.stop();
    let larder = ground.strict().cache(folder.path()).run();
    get_true(&larder, &ground, C, "zip");
}

/// It can be cleared without the service too.
#[test]
fn an_alarm_is_cleared_without_the_service() {
    let ground = Ground::new(&[]);
    let folder = temp_dir();
    let mut larder = with_a(&ground, folder.path());
    ground.sumdb.mode(json!({"mode": "fork"}));
    assert!(larder.get(&lookup(&ground.sumdb, B)).status >= 500);
    let alarm = alarm_of(&larder, "fork");
    larder.stop();
    let (code, list) = printed(&run_command(folder.path(), &["alarms"]));
    assert!(code == 0 && list.contains("fork") && list.contains(&ground.sumdb.name), "{list}");
    assert_eq!(printed(&run_command(folder.path(), &["alarms", "clear", &alarm.id.to_string()])).0, 0);
    ground.sumdb.honest();
    let larder = ground.strict().cache(folder.path()).run();
    get_true(&larder, &ground, B, "zip");
}

/// A log that is shorter than it was, asked an hour later, has lost something: an alarm with both heads. Within the hour it
/// is an old answer of somebody on the way.
#[test]
fn a_rollback_is_an_alarm_after_an_hour() {
    let Some(clock) = FakeClock::new() else { return };
    let ground = Ground::new(&["-pad", "300"]);
    let (folder, latest) = (temp_dir(), ground.sumdb.path("latest"));
    // The newest head is not asked for twice within a minute of one run.
    let run = |hour| {
        clock.set_hour(hour);
        clock.show_to(ground.strict()).cache(folder.path()).run()
    };
    let mut larder = run(0);
    for kind in ["mod", "zip"] {
        get_true(&larder, &ground, A, kind);
        stored(&larder, A, kind);
    }
    let known = head(&larder, &ground);
    ground.sumdb.mode(json!({"mode": "rollback", "size": 200}));
    assert_eq!(larder.get(&latest).expect(200).text(), known, "an older head is handed on as the newest");
    assert!(alarms(&larder).is_empty(), "{:?}", alarms(&larder));
    larder.stop();
    let mut larder = run(2);
    let _ = larder.get(&latest);
    let alarm = alarm_of(&larder, "rollback");
    let evidence = exported(folder.path(), &alarm);
    let answer = ask_oracle(&json!({"op": "rollback", "key": ground.sumdb.key, "text": evidence}));
    assert_eq!(answer, Ok(json!({"known": 303, "came": 200})), "{evidence}");
    assert_eq!(head(&larder, &ground), known);
    assert_latched(&larder, &ground, "rollback", true);
    larder.kill();
    ground.sumdb.honest();
    let larder = run(3);
    assert_latched(&larder, &ground, "rollback", true);
    command(&larder, &["alarms", "clear"], 0);
    get_true(&larder, &ground, B, "zip");
}

/// Lies and mismatches do not latch: what they are about is refused, and everything else goes on.
#[test]
fn small_alarms_stop_nothing() {
    let ground = Ground::new(&["-pad", "300", "-lie", B]);
    let larder = ground.strict().run();
    ground.sumdb.mode(json!({"mode": "wrong-record"}));
    larder.get(&file(C, "mod")).expect(502);
    ground.sumdb.honest();
    larder.get(&file(B, "mod")).expect(502);
    get_true(&larder, &ground, C, "mod");
    let mut kinds: Vec<_> = alarms(&larder).into_iter().map(|alarm| alarm.kind).collect();
    kinds.sort();
    assert_eq!(kinds, ["lie", "mismatch"]);
    assert_eq!(health(&larder)["status"], "ok");
}

/// Evidence of a lie is the answer itself, byte for byte.
#[test]
fn the_answer_that_lied_is_kept() {
    let ground = Ground::new(&[]);
    ground.sumdb.mode(json!({"mode": "bad-signature"}));
    let lie = ground.sumdb.get(&format!("lookup/{B}")).body;
    let larder = ground.start().run();
    larder.get(&lookup(&ground.sumdb, B)).expect(502);
    // The newest head, which is asked for at the start, is a lie of its own.
    let alarm = alarms(&larder).into_iter().find(|alarm| alarm.kind == "lie" && alarm.subject.contains(B)).unwrap();
    let output = larder.command(&["alarms", "export", &alarm.id.to_string()]);
    assert!(output.status.success() && output.stdout == lie, "{}", String::from_utf8_lossy(&output.stdout));
}
