//! The three holes that were closed in the go command in 2026, each by its number: Larder believes none of these answers,
//! and so an older go command behind it gets neither them nor the modules that they would have let pass.

use super::{A, B, Ground, alarm_of, assert_nothing_of, file, get_true, lookup, modules, refused_zip};
use crate::harness::{Larder, json, wait_for};

/// Asserts that neither the answer nor what it would vouch for is served or stored, in words that say why.
#[track_caller]
fn assert_closed(larder: &Larder, ground: &Ground, module: &str, words: &[&str]) {
    for kind in ["mod", "zip"] {
        let answer = larder.get(&file(module, kind)).expect(502);
        assert!(words.iter().any(|word| answer.text().contains(word)), "{kind}: {}", answer.text());
    }
    let path = module.split('@').next().unwrap();
    assert_nothing_of(larder, &[&format!("{path}/@v")]);
    let _ = ground;
}

/// golang/go#79070: a true, signed answer for another module, which has no line for this one, is a lie, and neither silence
/// nor consent.
#[test]
fn issue_79070_a_signed_answer_for_another_module() {
    let ground = Ground::new(&["-pad", "300"]);
    ground.sumdb.mode(json!({"mode": "other-module", "match": format!("^{B}$")}));
    for larder in [ground.start().run(), ground.strict().run()] {
        assert_closed(&larder, &ground, B, &["answer does not verify"]);
        let answer = larder.get(&lookup(&ground.sumdb, B)).expect(502);
        assert!(answer.text().contains("something else"), "{}", answer.text());
        assert!(!larder.has(&lookup(&ground.sumdb, B)));
        assert!(alarm_of(&larder, "lie").subject.contains(B));
        get_true(&larder, &ground, A, "zip");
    }
}

/// golang/go#80745: the lines that count are those of the authenticated record. Right ones that the database has signed
/// elsewhere, below the root of its tree head, do not make a file right whose record says otherwise.
#[test]
fn issue_80745_lines_outside_of_the_authenticated_record() {
    let ground = Ground::new(&["-pad", "300", "-lie", B]);
    ground.sumdb.mode(json!({"mode": "lines-outside", "match": format!("^{B}$")}));
    let [logged, _] = ground.sumdb.hashes(B);
    let shown = ground.sumdb.get(&format!("lookup/{B}"));
    assert_eq!(shown.text().matches(&format!("{} h1:", B.replace('@', " "))).count(), 2, "{}", shown.text());
    for larder in [ground.start().run(), ground.strict().run()] {
        assert_closed(&larder, &ground, B, &["checksum mismatch", "answer does not verify"]);
        let text = refused_zip(&larder, B, &ground.truth(B, "zip")).unwrap();
        assert!(text.contains(&logged) || text.contains("does not verify"), "{text}");
        // An answer that would fool an older go command is not handed on.
        let answer = larder.get(&lookup(&ground.sumdb, B));
        assert!(answer.status == 502 || !fools_an_old_client(answer.text(), &logged), "{}", answer.text());
    }
}

/// Says whether a client that looks for its line in the whole answer finds one that is not in the record.
fn fools_an_old_client(answer: &str, logged: &str) -> bool {
    let line = format!("{} h1:", B.replace('@', " "));
    answer.lines().any(|other| other.starts_with(&line) && !other.contains(logged))
}

/// golang/go#80744: a forged record is not believed because the lowest tile was forged to fit, neither on the right edge nor
/// right behind it, in a log that has more subtrees than tiles: 511 records are nine subtrees in two tiles.
#[test]
fn issue_80744_a_forged_lowest_tile() {
    for (pad, flag) in [("508", "-pad"), ("508", "-pad-behind")] {
        let ground = Ground::over(modules(&[A, B, super::C], super::SMALL), &[flag, pad]);
        assert_eq!(ground.sumdb.size, 511);
        let edge = u64::from(flag == "-pad");
        assert_eq!(ground.sumdb.number(B) / 256, edge);
        ground.sumdb.mode(json!({"mode": "forged-edge", "match": format!("^{B}$")}));
        for larder in [ground.start().run(), ground.strict().run()] {
            assert_closed(&larder, &ground, B, &["answer does not verify"]);
            larder.get(&lookup(&ground.sumdb, B)).expect(502);
            assert_nothing_of(&larder, &["/lookup/"]);
            // The tile is refused to a client who asks for it alone, too, by whatever head is known.
            let tile = if edge == 1 { "tile/8/0/001.p/255" } else { "tile/8/0/000" };
            larder.get(&ground.sumdb.path(tile)).expect(502);
            assert_nothing_of(&larder, &[tile]);
            assert!(alarm_of(&larder, "lie").text.contains("tile"));
            ground.sumdb.honest();
            wait_for("the truth to be believed", || (larder.get(&file(B, "zip")).status == 200).then_some(()));
            ground.sumdb.mode(json!({"mode": "forged-edge", "match": format!("^{B}$")}));
        }
    }
}
