//! `larder audit`: the log itself is read from record to record, and no module version may have two hashes in it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{A, B, Ground, alarm_of, alarms, command, file, get_true, printed};
use crate::harness::{Sumdb, Upstream, json, temp_dir, wait_within};

/// How long a log of thirty thousand records may take, in a debug build on a busy machine.
const LONG: std::time::Duration = std::time::Duration::from_secs(120);

/// Runs the audit without a service.
fn alone(flag: &str, cache: &Path, words: &[&str]) -> (i32, String) {
    let words = [&["audit"], words].concat();
    let output = crate::harness::Start::upstream("off").cache(cache).args(["-gosumdb", flag]).subcommand(&words);
    printed(&output)
}

/// An honest log is followed to its newest head, beside the service and alone, and what was done is said; the next time
/// only what is new is fetched. The first time nothing is, unless all of it is asked for.
#[test]
fn an_honest_log_is_followed() {
    let ground = Ground::new(&["-pad", "600"]);
    let folder = temp_dir();
    ground.sumdb.mode(json!({"mode": "rollback", "size": 520}));
    let mut larder = ground.start().cache(folder.path()).run();
    let text = command(&larder, &["audit"], 0);
    assert!(text.contains("520") && text.contains("nothing was read"), "{text}");
    assert_eq!(ground.sumdb.asked("/tile/8/data/"), 0);
    let text = command(&larder, &["audit", "--from-start"], 0);
    assert!(text.contains("records 0 to 519 (520 of 520)") && text.contains("no contradiction"), "{text}");
    assert_eq!(ground.sumdb.asked("/tile/8/data/000"), 1);
    ground.sumdb.honest();
    larder.stop();
    let (code, text) = alone(&ground.sumdb.flag(), folder.path(), &[]);
    assert!(code == 0 && text.contains("records 520 to 602 (83 of 603)"), "{text}");
    assert_eq!(
        (ground.sumdb.asked("/tile/8/data/000"), ground.sumdb.asked("/tile/8/data/001")),
        (1, 1),
        "fetched again"
    );
    ground.sumdb.forget();
    let (code, text) = alone(&ground.sumdb.flag(), folder.path(), &[]);
    assert!(code == 0 && text.contains("603"), "{text}");
    assert_eq!(ground.sumdb.asked("/tile/8/data/"), 0);
    let (code, text) = alone(&ground.sumdb.flag(), folder.path(), &["--from-start"]);
    assert!(code == 0 && text.contains("603"), "{text}");
    assert_eq!(ground.sumdb.asked("/tile/8/data/000"), 1);
}

/// A module version that is logged twice with different hashes is found and named, with both records: within one run, and
/// where the second came after the last one; beside the service it is an alarm.
#[test]
fn a_version_with_two_hashes_is_found() {
    let ground = Ground::new(&["-pad", "600", "-twice", B]);
    let folder = temp_dir();
    let (code, text) = alone(&ground.sumdb.flag(), folder.path(), &["--from-start"]);
    assert!(code == 1 && text.contains(B) && text.contains("601") && text.contains("603"), "{text}");
    assert!(!text.contains(A), "{text}");
    // The finding does not go away by asking again.
    for words in [&["--from-start"][..], &[]] {
        let (code, text) = alone(&ground.sumdb.flag(), folder.path(), words);
        assert!(code == 1 && text.contains(B), "{text}");
    }
    let folder = temp_dir();
    ground.sumdb.mode(json!({"mode": "rollback", "size": 603}));
    let larder = ground.start().cache(folder.path()).run();
    command(&larder, &["audit", "--from-start"], 0);
    ground.sumdb.honest();
    let text = command(&larder, &["audit"], 1);
    assert!(text.contains(B) && text.contains("601") && text.contains("603"), "{text}");
    let alarm = alarm_of(&larder, "duplicate");
    assert_eq!(alarm.subject, B);
    let evidence = command(&larder, &["alarms", "export", &alarm.id.to_string()], 0);
    let record = ground.sumdb.get(&format!("lookup/{B}")).expect(200);
    let (record, _) = record.text().split_once('\n').unwrap().1.split_once("\n\n").unwrap();
    assert!(evidence.contains(record) && evidence.matches("example.com/b v1.0.0 h1:").count() == 2, "{evidence}");
    assert!(evidence.contains("go.sum database tree\n604\n"), "{evidence}");
    // What a person has cleared is said, and is no new alarm.
    command(&larder, &["alarms", "clear"], 0);
    let text = command(&larder, &["audit"], 1);
    assert!(text.contains(B) && text.contains("cleared"), "{text}");
    assert!(alarms(&larder).is_empty());
    // Both records are in a log that is consistent with itself: what is stored stays served.
    get_true(&larder, &ground, A, "zip");
}

/// Records that are not those of the log, and a log that has forked since the last time, are found out.
#[test]
fn lies_are_found_by_the_audit() {
    let ground = Ground::new(&["-pad", "600"]);
    let folder = temp_dir();
    // Hashes in the data tiles are changed: they are not those that the tiles of hashes vouch for.
    ground.sumdb.mode(json!({"mode": "wrong-record", "match": "m0000300"}));
    let (code, text) = alone(&ground.sumdb.flag(), folder.path(), &["--from-start"]);
    assert!(code != 0 && text.contains(&ground.sumdb.name), "{text}");
    ground.sumdb.honest();
    let (code, text) = alone(&ground.sumdb.flag(), folder.path(), &[]);
    assert!(code == 0 && text.contains("(603 of 603)"), "{text}");
    let mut larder = ground.start().cache(folder.path()).run();
    alarm_of(&larder, "inconsistent");
    get_true(&larder, &ground, A, "zip");
    ground.sumdb.mode(json!({"mode": "fork"}));
    let (code, text) = printed(&larder.command(&["audit"]));
    assert!(code != 0, "{text}");
    alarm_of(&larder, "fork");
    larder.hit(&file(A, "zip"));
    larder.stop();
}

/// An audit of a long log that is killed goes on where it was, not where it began.
#[test]
fn a_killed_audit_goes_on_where_it_was() {
    let tree = super::modules(&[A, B], 100);
    let sumdb = Sumdb::over(tree.path(), &["-pad", "30000"]);
    let between = Upstream::with(tree.path(), &["-sumdb", &sumdb.behind()]);
    between.faults(json!([{"match": "/tile/8/data/11[0-9]", "hang_after": 100}]));
    let folder = temp_dir();
    let flag = sumdb.flag_at(&between.url);
    let mut running = audit(&flag, folder.path());
    let asked = |part: &str| between.log().iter().filter(|record| record.uri.contains(part)).count();
    wait_within(LONG, "the audit to come to where it hangs", || {
        assert!(running.try_wait().unwrap().is_none(), "it ended");
        // The ones before the last are finished, and in the log.
        (asked("/tile/8/data/10") == 10).then_some(())
    });
    running.kill().unwrap();
    running.wait().unwrap();
    between.faults(json!([]));
    let (code, text) = alone(&flag, folder.path(), &["--from-start"]);
    assert!(code == 0 && text.contains("30002"), "{text}");
    assert_eq!(asked("/tile/8/data/000"), 1, "it began anew");
    assert_eq!(asked("/tile/8/data/050"), 1, "it began anew");
}

fn audit(flag: &str, cache: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["audit", "--from-start", "-upstream", "off", "-gosumdb", flag, "-cache"])
        .arg(cache)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
