//! The newest tree head that was accepted: on the disk before anything is said because of it, and never moved back.

use std::path::PathBuf;

use super::{A, B, C, Ground, file, get_true, lookup, stored};
use crate::harness::{Larder, json, temp_dir};

fn head_file(larder: &Larder, ground: &Ground) -> PathBuf {
    larder.cache.join(".larder/sumdb").join(&ground.sumdb.name).join("head")
}

/// Returns the size in a stored head.
#[track_caller]
fn head_size(larder: &Larder, ground: &Ground) -> u64 {
    let head = std::fs::read_to_string(head_file(larder, ground)).unwrap();
    head.lines().nth(1).unwrap().parse().unwrap()
}

/// Whatever brings a newer head, a lookup of a client, the verdict on a file or the question for the newest, the head is
/// on the disk when the answer is there: a power cut right behind it loses nothing.
#[test]
fn a_new_head_is_on_the_disk_before_the_answer() {
    type Ask = fn(&Larder, &Ground);
    let ways: [(&str, Ask); 4] = [
        ("a lookup", |larder, ground| drop(larder.get(&lookup(&ground.sumdb, B)).expect(200))),
        ("a go.mod", |larder, ground| drop(get_true(larder, ground, B, "mod"))),
        ("a zip", |larder, ground| drop(get_true(larder, ground, B, "zip"))),
        ("the newest", |larder, ground| {
            let answer = larder.get(&ground.sumdb.path("latest")).expect(200);
            assert!(answer.text().contains("\n303\n"), "{}", answer.text());
        }),
    ];
    let ground = Ground::new(&["-pad", "300"]);
    for (what, ask) in ways {
        ground.sumdb.mode(json!({"mode": "rollback", "size": 302}));
        let folder = temp_dir();
        let mut larder = ground.start().cache(folder.path()).run();
        larder.get(&lookup(&ground.sumdb, A)).expect(200);
        assert_eq!(head_size(&larder, &ground), 302, "{what}");
        ground.sumdb.honest();
        if what == "the newest" {
            // Within a minute of one run it is not asked for again.
            larder.stop();
            larder = ground.start().cache(folder.path()).run();
        }
        ask(&larder, &ground);
        larder.kill();
        assert_eq!(head_size(&larder, &ground), 303, "{what}");
        // The next run goes on from there.
        let larder = ground.start().cache(folder.path()).run();
        get_true(&larder, &ground, C, "zip");
    }
}

/// An older head, as mirrors have them, is taken for what it is; the known one does not move back.
#[test]
fn the_known_head_never_moves_back() {
    let ground = Ground::new(&["-pad", "300", "-pad-behind", "300"]);
    let larder = ground.strict().run();
    get_true(&larder, &ground, A, "mod");
    assert_eq!(head_size(&larder, &ground), 603);
    for size in [303, 512, 302] {
        ground.sumdb.mode(json!({"mode": "rollback", "size": size}));
        let module = if size == 302 {
            "pad.example/m0000301@v1.0.0"
        } else if size == 512 {
            C
        } else {
            B
        };
        let status = larder.get(&lookup(&ground.sumdb, module)).status;
        // A record beyond the head that came with it could not be verified by who knows no other one.
        assert_eq!(status, if size == 302 { 502 } else { 200 }, "{size}");
        assert_eq!(head_size(&larder, &ground), 603, "{size}");
    }
    assert!(super::alarms(&larder).iter().all(|alarm| alarm.kind == "lie"), "{:?}", super::alarms(&larder));
    get_true(&larder, &ground, C, "zip");
}

/// A head that has changed on the disk is no head, and what it was is not known any more: an alarm says so, and in the mode
/// strict nothing new is judged before a person has looked. What is stored is served.
#[test]
fn a_damaged_head_is_not_believed() {
    let ground = Ground::new(&[]);
    let folder = temp_dir();
    let mut larder = ground.start().cache(folder.path()).run();
    get_true(&larder, &ground, A, "zip");
    stored(&larder, A, "zip");
    larder.stop();
    let path = head_file(&larder, &ground);
    let head = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, head.replace("\n3\n", "\n2\n")).unwrap();
    let larder = ground.strict().cache(folder.path()).run();
    let alarms = super::alarms(&larder);
    assert!(alarms.len() == 1 && alarms[0].kind == "inconsistent", "{alarms:?}");
    larder.hit(&file(A, "zip"));
    let answer = larder.get(&file(B, "zip")).expect(503);
    let refused = answer.text();
    assert!(refused.contains("inconsistent") && refused.contains("larder alarms"), "{refused}");
}

/// A head that another key signed means that somebody has changed the key: Larder says so at its start, with the file to
/// look at, instead of believing anything.
#[test]
fn a_head_of_another_key_ends_the_start() {
    let ground = Ground::new(&[]);
    let folder = temp_dir();
    let mut larder = ground.start().cache(folder.path()).run();
    get_true(&larder, &ground, A, "zip");
    larder.stop();
    let public = crate::harness::fixture().join(format!("sumdb/{}/latest", crate::harness::PUBLIC_DATABASE));
    std::fs::copy(public, head_file(&larder, &ground)).unwrap();
    let said = ground.start().cache(folder.path()).refused();
    assert!(said.contains("head") && said.contains("another key"), "{said}");
}

/// Tiles that rot on the disk are no lies of the database: they are fetched afresh, and no alarm is raised.
#[test]
fn rotten_tiles_are_fetched_again() {
    let ground = Ground::new(&["-pad", "300"]);
    let folder = temp_dir();
    let mut larder = ground.start().cache(folder.path()).run();
    larder.get(&lookup(&ground.sumdb, A)).expect(200);
    larder.stop();
    let folder_of_tiles = larder.stored(&ground.sumdb.path("tile"));
    for (path, mut content) in crate::harness::files_below(&folder_of_tiles) {
        content[0] ^= 1;
        std::fs::write(folder_of_tiles.join(path), content).unwrap();
    }
    let larder = ground.strict().cache(folder.path()).run();
    get_true(&larder, &ground, B, "zip");
    larder.get(&lookup(&ground.sumdb, A)).expect(200);
    assert!(super::alarms(&larder).is_empty(), "{:?}", super::alarms(&larder));
}
