//! What was served before it could be judged: noted, judged as soon as that is possible, taken back if it was wrong.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{A, B, Ground, alarm_of, alarms, command, file, get_true, health, lookup, refused_zip, stored, unverified};
use crate::harness::{
    Answer, Larder, Start, Upstream, client_from, json, run_command, temp_dir, wait_for, wait_within,
};

/// What is judged in the background is judged within this, in the tests: the database's return has to be noticed first.
const LATER: Duration = Duration::from_secs(60);

/// The machine that gets what it should not have got.
const VICTIM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Fetches a file as another machine.
#[track_caller]
fn get_as_victim(larder: &Larder, path: &str) -> Answer {
    Answer::read(client_from(VICTIM).get(format!("{}{path}", larder.url)).send().unwrap()).unwrap().expect(200)
}

#[track_caller]
fn wait_for_verdicts(larder: &Larder) {
    wait_within(LATER, "everything to be judged", || (unverified(larder) == 0).then_some(()));
}

/// With the database away files are served, counted and named as unverified; once it is back they are judged without
/// anybody asking, and are as good as any: their lookups are stored, and nothing is fetched again.
#[test]
fn what_could_not_be_judged_is_judged_later() {
    let mut ground = Ground::new(&["-pad", "300"]);
    ground.sumdb.stop();
    let larder = ground.start().run();
    for module in [A, B] {
        for kind in ["mod", "zip"] {
            get_true(&larder, &ground, module, kind);
            stored(&larder, module, kind);
        }
    }
    wait_for("all to be counted", || (unverified(&larder) == 4).then_some(()));
    let sumdb = health(&larder)["sumdb"][0].clone();
    assert_eq!((sumdb["name"].as_str(), sumdb["mode"].as_str()), (Some(&*ground.sumdb.name), Some("when-reachable")));
    assert!(sumdb["state"] != "ok" && sumdb["reason"].is_string(), "{sumdb}");
    assert!(alarms(&larder).is_empty());
    ground.upstream.reset();
    ground.sumdb.restart();
    wait_for_verdicts(&larder);
    assert!(alarms(&larder).is_empty(), "{:?}", alarms(&larder));
    let sumdb = health(&larder)["sumdb"][0].clone();
    assert!(sumdb["state"] == "ok" && sumdb["size"] == 303, "{sumdb}");
    for module in [A, B] {
        assert!(larder.has(&lookup(&ground.sumdb, module)));
        for kind in ["mod", "zip"] {
            assert!(larder.hit(&file(module, kind)).body == ground.truth(module, kind));
        }
    }
    assert_eq!(ground.upstream.requests(), 0);
}

/// A file that turns out to be wrong when the database is back is moved aside and never served again; the alarm names who
/// got it, and when.
#[test]
fn a_late_mismatch_is_taken_back_and_names_who_got_it() {
    let mut ground = Ground::new(&["-lie", B]);
    ground.sumdb.stop();
    let larder = ground.start().run();
    let zip = get_as_victim(&larder, &file(B, "zip")).body;
    get_true(&larder, &ground, A, "zip");
    stored(&larder, B, "zip");
    ground.sumdb.restart();
    let alarm = wait_within(LATER, "the late verdict", || {
        alarms(&larder).into_iter().find(|alarm| alarm.kind == "late-mismatch")
    });
    assert!(alarm.subject.contains(B), "{alarm:?}");
    assert!(!larder.has(&file(B, "zip")));
    let text = refused_zip(&larder, B, &zip).unwrap();
    assert!(text.contains("zip checksum mismatch: got h1:"), "{text}");
    assert!(!larder.has(&file(B, "zip")));
    // Aside it lies for whoever wants to look at it.
    let kept: Vec<_> = std::fs::read_dir(larder.cache.join(".larder/quarantine")).unwrap().collect();
    assert!(kept.iter().any(|entry| std::fs::read(entry.as_ref().unwrap().path()).is_ok_and(|bytes| bytes == zip)));
    assert_names_the_victim(&command(&larder, &["alarms"], 0), ground.upstream.address());
    wait_for_verdicts(&larder);
    larder.hit(&file(A, "zip"));
}

#[track_caller]
fn assert_names_the_victim(list: &str, upstream: &str) {
    assert!(list.contains(B) && list.contains(&VICTIM.to_string()) && list.contains(upstream), "{list}");
    // A date and a time of day stand near the address.
    let line = list.lines().find(|line| line.contains(&VICTIM.to_string())).unwrap();
    assert!(line.contains("20") && line.contains(':') && line.matches('-').count() >= 2, "no time: {line}");
}

/// A power cut right behind the answer changes nothing of that: what was served unverified is known after it, judged, and
/// taken back.
#[test]
fn a_power_cut_does_not_make_files_trusted() {
    let mut ground = Ground::new(&["-lie", B]);
    let folder = temp_dir();
    ground.sumdb.stop();
    let mut larder = ground.start().cache(folder.path()).run();
    for kind in ["mod", "zip"] {
        get_as_victim(&larder, &file(B, kind));
        stored(&larder, B, kind);
    }
    larder.kill();
    let mut larder = ground.start().cache(folder.path()).run();
    assert_eq!(unverified(&larder), 2);
    // Still served, for it is still not known to be wrong.
    for kind in ["mod", "zip"] {
        larder.hit(&file(B, kind));
    }
    larder.kill();
    ground.sumdb.restart();
    let larder = ground.start().cache(folder.path()).run();
    wait_within(LATER, "both late verdicts", || {
        (["mod", "zip"].iter().all(|kind| !larder.has(&file(B, kind)))).then_some(())
    });
    wait_for("both alarms", || {
        (alarms(&larder).iter().filter(|alarm| alarm.kind == "late-mismatch").count() == 2).then_some(())
    });
    for kind in ["mod", "zip"] {
        larder.get(&file(B, kind)).expect(502);
    }
    // The clients of both runs before are in it, as far as the cut left them.
    assert!(command(&larder, &["alarms"], 0).contains(B));
}

/// Strict: what was served unverified in the other mode is not served any more until it has been judged.
#[test]
fn strict_does_not_serve_what_waits_for_its_verdict() {
    let mut ground = Ground::new(&[]);
    let folder = temp_dir();
    ground.sumdb.stop();
    let mut larder = ground.start().cache(folder.path()).run();
    get_true(&larder, &ground, A, "zip");
    stored(&larder, A, "zip");
    larder.stop();
    let larder = ground.strict().cache(folder.path()).run();
    let answer = larder.get(&file(A, "zip")).expect(504);
    assert!(answer.text().contains("cannot be verified"), "{}", answer.text());
    ground.sumdb.restart();
    wait_within(LATER, "the verdict", || (larder.get(&file(A, "zip")).status == 200).then_some(()));
    wait_for_verdicts(&larder);
}

/// A version that is not in the log is served as unverified, and judged when it is.
#[test]
fn what_was_not_in_the_log_is_judged_when_it_is() {
    let ground = Ground::new(&[]);
    ground.sumdb.mode(json!({"mode": "young", "size": 1}));
    let folder = temp_dir();
    let mut larder = ground.start().cache(folder.path()).run();
    get_true(&larder, &ground, B, "zip");
    stored(&larder, B, "zip");
    wait_for("it to be noted", || (unverified(&larder) == 1).then_some(()));
    larder.stop();
    ground.sumdb.honest();
    let larder = ground.start().cache(folder.path()).run();
    wait_for_verdicts(&larder);
    assert!(larder.has(&lookup(&ground.sumdb, B)) && larder.has(&file(B, "zip")));
}

/// While the database is silent, one request pays for finding that out, and a build is not slowed down for each of its
/// modules.
#[test]
fn a_silent_database_is_paid_for_once() {
    let ground = Ground::new(&[]);
    let between = Upstream::with(ground.tree.path(), &["-sumdb", &ground.sumdb.behind()]);
    between.faults(json!([{"match": "^/sumdb/", "delay_ms": 120_000}]));
    let flag = ground.sumdb.flag_at(&between.url);
    let larder =
        Start::on(&ground.upstream).args(["-gosumdb", &flag, "-retry-attempts", "1", "-stall-timeout", "3s"]).run();
    get_true(&larder, &ground, A, "zip");
    let began = std::time::Instant::now();
    for kind in ["mod", "zip"] {
        get_true(&larder, &ground, B, kind);
        get_true(&larder, &ground, super::C, kind);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?} for those after the first", began.elapsed());
    wait_for("all to be noted", || (unverified(&larder) == 5).then_some(()));
}

/// Off line by choice nothing is asked for verdicts, and what waits for one is still counted, also by the command.
#[test]
fn off_line_the_count_stays() {
    let mut ground = Ground::new(&[]);
    let folder = temp_dir();
    ground.sumdb.stop();
    let mut larder = ground.start().cache(folder.path()).run();
    get_true(&larder, &ground, A, "zip");
    stored(&larder, A, "zip");
    larder.stop();
    ground.sumdb.restart();
    let larder = ground.start().cache(folder.path()).args(["-network-mode", "offline"]).run();
    larder.hit(&file(A, "zip"));
    assert_eq!((unverified(&larder), ground.sumdb.counts().len()), (1, 0));
    assert!(run_command(folder.path(), &["status"]).status.success());
}

/// The alarm of a late mismatch is an alarm as any other: listed, exported, cleared, and it stops nothing.
#[test]
fn a_late_mismatch_does_not_latch() {
    let mut ground = Ground::new(&["-lie", B]);
    ground.sumdb.stop();
    let larder = ground.start().run();
    get_true(&larder, &ground, B, "mod");
    stored(&larder, B, "mod");
    ground.sumdb.restart();
    wait_within(LATER, "the file to go", || (!larder.has(&file(B, "mod"))).then_some(()));
    let alarm = alarm_of(&larder, "late-mismatch");
    assert_eq!(health(&larder)["status"], "ok");
    get_true(&larder, &ground, A, "mod");
    command(&larder, &["alarms", "clear", &alarm.id.to_string()], 0);
    assert!(alarms(&larder).iter().all(|alarm| alarm.kind != "late-mismatch"));
}
