//! Broken downloads: cut, stalled, changed under way, killed; what was fetched is used again, and never mixed.

use std::io::Read;
use std::path::Path;

use crate::harness::{
    Larder, Start, Tree, Upstream, assert_stored_is_true, files_below, fixture, json, module_zip, noise, temp_dir,
    zip_of,
};

const MADE_ZIP: &str = "/example.com/made/@v/v1.0.0.zip";
const MADE_BYTES: usize = 6 << 20;

/// How many bytes may be fetched twice for one break: what was under way, and what was not yet noted as finished.
const TWICE_BYTES_MAX: u64 = 3 << 19;

fn made_tree() -> Tree {
    Tree::new().module("example.com/made", "v1.0.0", MADE_BYTES)
}

fn start(upstream: &Upstream, cache: &Path, connections: &str) -> Larder {
    Start::on(upstream)
        .cache(cache)
        .args(["-download-connections", connections, "-stall-timeout", "1s", "-retry-attempts", "6"])
        .run()
}

/// A download that the upstream cuts again and again is completed on the client's one connection, over one stream
/// and over several, without fetching anything twice.
#[test]
fn cuts_are_resumed() {
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    for connections in ["1", "4"] {
        let upstream = Upstream::with(tree.path(), &[]);
        upstream.faults(json!([{"kind": "zip", "cut_after": 700_000, "bandwidth": 20_000_000, "times": 4}]));
        let folder = temp_dir();
        let larder = start(&upstream, folder.path(), connections);
        assert!(larder.get(MADE_ZIP).expect(200).body == truth, "{connections}");
        assert_eq!(upstream.stats()["faults_fired"]["rule 0"], 4, "{connections}");
        let bytes = upstream.bytes_of(MADE_ZIP);
        assert!(bytes < truth.len() as u64 + TWICE_BYTES_MAX, "{connections}: {bytes} bytes came for {}", truth.len());
        let resumed: Vec<_> = upstream.log_of(MADE_ZIP).into_iter().filter(|record| record.status == 206).collect();
        assert!(!resumed.is_empty() && resumed.iter().all(|record| !record.if_range.is_empty()), "{connections}");
    }
}

/// A stream that stalls is given up after the stall limit and resumed.
#[test]
fn stalls_are_resumed() {
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    for connections in ["1", "4"] {
        let upstream = Upstream::with(tree.path(), &[]);
        upstream.faults(json!([{"kind": "zip", "hang_after": 300_000, "times": 1}]));
        let folder = temp_dir();
        let larder = start(&upstream, folder.path(), connections);
        assert!(larder.get(MADE_ZIP).expect(200).body == truth, "{connections}");
    }
}

/// A slow stream that does progress is left alone.
#[test]
fn slowness_is_no_failure() {
    let tree = Tree::new().module("example.com/made", "v1.0.0", 400_000);
    let upstream = Upstream::with(tree.path(), &[]);
    upstream.faults(json!([{"kind": "zip", "bandwidth": 150_000}]));
    let folder = temp_dir();
    let larder = start(&upstream, folder.path(), "1");
    assert!(larder.get(MADE_ZIP).expect(200).body == tree.read(MADE_ZIP));
    assert_eq!(upstream.log_of(MADE_ZIP).len(), 1);
}

/// Where ranges are not supported, are ignored, or nothing says that the file is still the same, a broken download
/// begins again, and the client sees one right file.
#[test]
fn without_ranges_or_validators_it_starts_over() {
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    let cut = json!({"kind": "zip", "cut_after": 1_500_000, "times": 1});
    for (why, flags, rules) in [
        ("no ranges", vec!["-no-range"], json!([cut])),
        ("no validators", vec!["-no-validators"], json!([cut])),
        ("neither", vec!["-no-range", "-no-validators"], json!([cut])),
        ("ranges ignored later", vec![], json!([cut, {"kind": "zip", "no_range": true}])),
        (
            "no etag",
            vec![],
            json!([{"kind": "zip", "cut_after": 1_500_000, "times": 1, "etag": "none"}, {"kind": "zip", "etag": "none"}]),
        ),
        (
            "a weak etag",
            vec![],
            json!([{"kind": "zip", "cut_after": 1_500_000, "times": 1, "etag": "weak"}, {"kind": "zip", "etag": "weak"}]),
        ),
        (
            "another etag each time",
            vec![],
            json!([{"kind": "zip", "cut_after": 1_500_000, "times": 1, "etag": "changing"}, {"kind": "zip", "etag": "changing"}]),
        ),
    ] {
        for connections in ["1", "4"] {
            let upstream = Upstream::with(tree.path(), &flags);
            upstream.faults(rules.clone());
            let folder = temp_dir();
            let larder = start(&upstream, folder.path(), connections);
            match larder.try_get(MADE_ZIP) {
                Ok(answer) => assert!(answer.body == truth, "{why}, {connections} connections: {}", answer.status),
                Err(error) => panic!("{why}, {connections} connections: {error}"),
            }
            assert!(larder.hit(MADE_ZIP).body == truth, "{why}, {connections} connections");
        }
    }
}

/// A file that is another one after the break is never glued to the first: the client's connection ends, and what is
/// stored in the end is the new file, whole.
#[test]
fn two_files_are_never_spliced() {
    let tree = made_tree();
    let old = tree.read(MADE_ZIP);
    let prefix = "example.com/made@v1.0.0/";
    let new = zip_of(&[
        (format!("{prefix}go.mod"), b"module example.com/made\n\ngo 1.21\n".to_vec()),
        (format!("{prefix}made.go"), b"// Package made is made up.\npackage made\n".to_vec()),
        (format!("{prefix}testdata/noise.bin"), noise(99, MADE_BYTES)),
    ]);
    assert!(new.len() == old.len() && new != old);
    tree.put("/example.com/changed/@v/v1.0.0.zip", &new);
    let cut = json!({"kind": "zip", "cut_after": 1_500_000, "bandwidth": 20_000_000, "times": 1});
    let changed = json!({"kind": "zip", "replace_with": "/example.com/changed/@v/v1.0.0.zip"});
    let unmarked = json!({"kind": "zip", "replace_with": "/example.com/changed/@v/v1.0.0.zip", "etag": "none"});
    let cut_unmarked =
        json!({"kind": "zip", "cut_after": 1_500_000, "bandwidth": 20_000_000, "times": 1, "etag": "none"});
    for (why, rules) in [
        ("another etag", json!([cut, changed])),
        ("no etag", json!([cut_unmarked, unmarked])),
        (
            "another file between ranges",
            json!([{"kind": "zip", "skip": 2, "replace_with": "/example.com/changed/@v/v1.0.0.zip"}]),
        ),
    ] {
        for connections in ["1", "4"] {
            let upstream = Upstream::with(tree.path(), &[]);
            upstream.faults(rules.clone());
            let folder = temp_dir();
            let larder = start(&upstream, folder.path(), connections);
            if let Ok(answer) = larder.try_get(MADE_ZIP) {
                let is_whole = answer.body == old || answer.body == new;
                assert!(answer.status != 200 || is_whole, "{why}, {connections} connections: a mixture was sent");
            }
            upstream.faults(json!([changed]));
            // Whoever comes while a failed download is being cleared away is told of its failure.
            let body = crate::harness::wait_for("a good answer", || {
                Some(larder.get(MADE_ZIP)).filter(|answer| answer.status == 200)
            })
            .body;
            assert!(body == old || body == new, "{why}, {connections} connections: a mixture is stored");
        }
    }
}

/// An upstream whose ranges are shifted, or of another version, spoils nothing.
#[test]
fn wrong_ranges_are_noticed() {
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    for (why, rules) in [
        ("shifted", json!([{"kind": "zip", "cut_after": 1_500_000, "times": 1}, {"kind": "zip", "wrong_range": true}])),
        (
            "another etag on ranges",
            json!([{"kind": "zip", "cut_after": 1_500_000, "times": 1}, {"kind": "zip", "etag": "wrong-on-range"}]),
        ),
    ] {
        for connections in ["1", "4"] {
            let upstream = Upstream::with(tree.path(), &[]);
            upstream.faults(rules.clone());
            let folder = temp_dir();
            let larder = start(&upstream, folder.path(), connections);
            if let Ok(answer) = larder.try_get(MADE_ZIP) {
                assert!(
                    answer.status != 200 || answer.body == truth,
                    "{why}, {connections} connections: wrong bytes were sent"
                );
            }
            assert_stored_is_true(&larder.cache, tree.path());
            upstream.faults(json!([]));
            assert!(larder.settled(MADE_ZIP).expect(200).body == truth, "{why}, {connections} connections");
        }
    }
}

/// Reads `bytes` of the made zip through a new Larder, kills it, and returns how much it had fetched by then.
fn fetch_and_kill(upstream: &Upstream, cache: &Path, connections: &str, bytes: usize) -> u64 {
    let mut larder = start(upstream, cache, connections);
    let mut response = larder.open(MADE_ZIP);
    response.read_exact(&mut vec![0; bytes]).unwrap();
    larder.kill();
    crate::harness::wait_for("the upstream to notice", || (upstream.in_flight() == 0).then_some(()));
    upstream.bytes_of(MADE_ZIP)
}

/// Killed at any moment of a download, Larder has nothing wrong under a final name, and fetches afterwards only what
/// it had not yet.
#[test]
fn a_killed_download_is_resumed() {
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    for connections in ["1", "4"] {
        for bytes in [1, 400_000, 1_700_000, 3_100_000, 5_900_000] {
            let upstream = Upstream::with(tree.path(), &["-bandwidth", "12000000"]);
            let folder = temp_dir();
            let before = fetch_and_kill(&upstream, folder.path(), connections, bytes);
            assert_stored_is_true(folder.path(), tree.path());
            let larder = start(&upstream, folder.path(), connections);
            assert!(larder.get(MADE_ZIP).expect(200).body == truth);
            let after = upstream.bytes_of(MADE_ZIP) - before;
            let left = (truth.len() as u64).saturating_sub(before);
            assert!(
                after <= left + TWICE_BYTES_MAX,
                "{connections} connections, killed after {bytes} bytes: {before} bytes before, {after} after the start"
            );
        }
    }
}

/// Killed several times in one download, it still comes to its end.
#[test]
fn a_download_survives_many_kills() {
    let tree = made_tree();
    let upstream = Upstream::with(tree.path(), &["-bandwidth", "12000000"]);
    let folder = temp_dir();
    for bytes in [200_000, 900_000, 1_800_000, 2_700_000, 4_000_000, 5_500_000] {
        fetch_and_kill(&upstream, folder.path(), "1", bytes);
        assert_stored_is_true(folder.path(), tree.path());
    }
    let larder = start(&upstream, folder.path(), "1");
    let truth = tree.read(MADE_ZIP);
    assert!(larder.get(MADE_ZIP).expect(200).body == truth);
    let bytes = upstream.bytes_of(MADE_ZIP);
    assert!(bytes <= truth.len() as u64 + 6 * TWICE_BYTES_MAX / 2, "{bytes} bytes came for {}", truth.len());
}

/// Without a validator a killed download starts from zero, and nothing of the old one is in the new.
#[test]
fn a_killed_download_without_validator_starts_over() {
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    let upstream = Upstream::with(tree.path(), &["-no-validators", "-bandwidth", "12000000"]);
    let folder = temp_dir();
    let before = fetch_and_kill(&upstream, folder.path(), "4", 3_000_000);
    let larder = start(&upstream, folder.path(), "4");
    assert!(larder.get(MADE_ZIP).expect(200).body == truth);
    assert!(upstream.bytes_of(MADE_ZIP) - before >= truth.len() as u64);
}

/// Killed at many moments while many files of all kinds are fetched, Larder never has a wrong file under a final name,
/// and ends with all of them.
#[test]
fn invariant_2_kills_at_any_moment_leave_only_right_files() {
    let upstream = Upstream::with(&fixture(), &["-bandwidth", "40000000"]);
    let folder = temp_dir();
    let paths: Vec<_> = files_below(&fixture())
        .into_iter()
        .map(|(path, _)| format!("/{}", path.display()))
        .filter(|path| path.contains("/@v/v"))
        .collect();
    for round in 1..=8 {
        let mut larder = start(&upstream, folder.path(), "4");
        let answered = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for part in paths.chunks(paths.len() / 6 + 1) {
                let (url, answered) = (&larder.url, &answered);
                scope.spawn(move || {
                    for path in part {
                        let url = format!("{url}{path}");
                        if crate::harness::try_request(crate::harness::Method::GET, &url, &[]).is_err() {
                            return;
                        }
                        answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
            let enough = paths.len() * round / 10;
            crate::harness::wait_for("enough answers", || {
                (answered.load(std::sync::atomic::Ordering::Relaxed) >= enough).then_some(())
            });
            crate::harness::kill_process(larder.pid());
        });
        larder.kill();
        assert_stored_is_true(folder.path(), &fixture());
    }
    let larder = start(&upstream, folder.path(), "4");
    for path in &paths {
        let truth = std::fs::read(fixture().join(&path[1..])).unwrap();
        assert!(larder.get(path).expect(200).body == truth, "{path}");
    }
}

/// A partial that was truncated, emptied, flipped or filled with zeros while Larder was down is noticed or replaced:
/// the file that comes out is right.
#[test]
fn damaged_partials_are_survived() {
    type Harm = fn(&mut Vec<u8>);
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    let harms: [(&str, Harm); 4] = [
        ("truncated", |content| content.truncate(content.len() / 2)),
        ("emptied", Vec::clear),
        ("flipped", |content| {
            let middle = content.len() / 3;
            if let Some(byte) = content.get_mut(middle) {
                *byte ^= 0xff;
            }
        }),
        ("zeroed", |content| {
            content.iter_mut().skip(10).for_each(|byte| *byte = 0);
        }),
    ];
    for connections in ["1", "4"] {
        for (why, harm) in harms {
            let upstream = Upstream::with(tree.path(), &["-bandwidth", "25000000"]);
            let folder = temp_dir();
            fetch_and_kill(&upstream, folder.path(), connections, 2_500_000);
            for entry in std::fs::read_dir(folder.path().join(".larder/tmp")).unwrap() {
                let file = entry.unwrap().path();
                let mut content = std::fs::read(&file).unwrap();
                harm(&mut content);
                std::fs::write(&file, content).unwrap();
            }
            let larder = start(&upstream, folder.path(), connections);
            if let Ok(answer) = larder.try_get(MADE_ZIP) {
                assert!(
                    answer.status != 200 || answer.body == truth,
                    "{why}, {connections} connections: wrong bytes sent"
                );
            }
            let answer = larder.get(MADE_ZIP).expect(200);
            assert!(answer.body == truth, "{why}, {connections} connections: wrong bytes stored");
        }
    }
}

/// A download interrupted by an orderly stop is resumed as well.
#[test]
fn invariant_9_a_stopped_download_is_resumed() {
    let tree = made_tree();
    let truth = tree.read(MADE_ZIP);
    assert!(truth == module_zip("example.com/made", "v1.0.0", MADE_BYTES));
    let upstream = Upstream::with(tree.path(), &[]);
    // So slow that the ten seconds granted at a stop do not suffice.
    upstream.faults(json!([{"kind": "zip", "bandwidth": 200_000, "times": 1}]));
    let folder = temp_dir();
    let mut larder = start(&upstream, folder.path(), "1");
    let mut response = larder.open(MADE_ZIP);
    response.read_exact(&mut vec![0; 400_000]).unwrap();
    drop(response);
    larder.stop();
    crate::harness::wait_for("the upstream to notice", || (upstream.in_flight() == 0).then_some(()));
    let before = upstream.bytes_of(MADE_ZIP);
    let larder = start(&upstream, folder.path(), "1");
    assert!(larder.get(MADE_ZIP).expect(200).body == truth);
    let after = upstream.bytes_of(MADE_ZIP) - before;
    assert!(after <= truth.len() as u64 - 400_000 + TWICE_BYTES_MAX / 4, "{after} bytes came after the stop");
}
