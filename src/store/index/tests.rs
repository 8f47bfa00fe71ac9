//! The index as its users see it.

use std::ops::ControlFlow;
use std::path::Path;

use super::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

fn version(text: &str) -> ModuleVersion {
    ModuleVersion::parse(text).unwrap()
}

fn resource(path: &str) -> Resource {
    Resource::parse(path).unwrap()
}

fn opened(root: &Path) -> Index {
    let index = Index::opening(root);
    index.open();
    assert!(index.is_open());
    index
}

fn after(hours: u64) -> UnixSeconds {
    UnixSeconds(NOW.0 + hours * 3600)
}

fn negative(body: &str, fetched: UnixSeconds) -> NegativeAnswer {
    NegativeAnswer { fetched, status: 404, body: body.into() }
}

/// What is noted is known at once, after writing, and after a restart; the totals follow.
#[test]
fn entries_outlive_the_process() {
    let root = tempfile::tempdir().unwrap();
    let m = version("example.com/M@v1.0.0");
    let list = resource("example.com/!m/@v/list");
    let absent = resource("example.com/@v/list");
    let check = |index: &Index| {
        let entry = index.version(&m).unwrap();
        assert_eq!((entry.info_bytes, entry.mod_bytes, entry.zip_bytes), (Some(60), None, Some(1000)));
        assert_eq!((entry.verdict, entry.h1), (Verdict::Verified, Some([9; 32])));
        assert_eq!((entry.fetched, entry.last_used), (Some(NOW), NOW));
        assert_eq!(index.upstream_name(entry.upstream.unwrap()).as_deref(), Some("https://proxy.example"));
        assert_eq!(index.mutable(&list).unwrap().etag.as_deref(), Some("\"e\""));
        assert_eq!(index.negative(&absent).unwrap().body, b"not found: example.com");
        assert_eq!(index.version(&version("example.com/m@v1.0.0")), None);
    };
    let index = opened(root.path());
    assert_eq!(index.take_scan_reason(), Some(ScanReason::Missing));
    index.note_artifact(&m, ArtifactKind::Info, 60, "https://proxy.example", NOW);
    index.note_artifact(&m, ArtifactKind::Zip, 1000, "https://proxy.example", NOW);
    index.note_verdict(&m, Verdict::Verified, Some([9; 32]));
    index.note_verdict(&m, Verdict::Unverifiable, None);
    let entry = MutableEntry { fetched: NOW, bytes: 7, etag: Some("\"e\"".into()), ..MutableEntry::default() };
    index.note_mutable(&list, &entry);
    index.note_negative(&absent, &negative("not found: example.com", NOW));
    index.count_other(2, 500);
    check(&index);
    index.maintain();
    check(&index);
    assert_eq!(index.totals(), Totals { files: 5, bytes: 1567 });
    index.scan_has_ended();
    index.close();

    let index = opened(root.path());
    assert_eq!(index.take_scan_reason(), None);
    check(&index);
    assert_eq!(index.totals(), Totals { files: 5, bytes: 1567 });
    index.forget_version(&m);
    index.forget_mutable(&list);
    index.forget_negative(&absent);
    for _ in 0..2 {
        assert_eq!((index.version(&m), index.mutable(&list), index.negative(&absent)), (None, None, None));
        index.maintain();
    }
    assert_eq!(index.totals(), Totals { files: 2, bytes: 500 });
}

/// Before it is open the index takes changes and answers from them; what does not fit asks for a scan.
#[test]
fn works_while_opening() {
    let root = tempfile::tempdir().unwrap();
    let index = opened(root.path());
    index.take_scan_reason();
    index.scan_has_ended();
    index.close();
    let index = Index::opening(root.path());
    let m = version("example.com/m@v1.0.0");
    index.note_found(&m, ArtifactKind::Mod, 30, None, NOW);
    index.touch(&m, after(1));
    assert_eq!(index.version(&m).unwrap().last_used, after(1));
    assert_eq!(index.negative(&resource("example.com/@v/list")), None);
    index.maintain();
    index.open();
    assert_eq!(index.take_scan_reason(), None);
    index.maintain();
    assert_eq!(index.totals(), Totals { files: 1, bytes: 30 });

    let index = Index::opening(root.path());
    for number in 0..=PENDING_MAX {
        index.note_found(
            &version(&format!("example.com/m@v2.0.{number}+incompatible")),
            ArtifactKind::Mod,
            1,
            None,
            NOW,
        );
    }
    assert_eq!(index.take_scan_reason(), Some(ScanReason::Dropped));
    assert_eq!(lock(&index.pending).len(), PENDING_MAX);
}

/// A use reaches the disk in a batch, only if it moves the time by an hour, and never goes back.
#[test]
fn uses_are_batched() {
    let root = tempfile::tempdir().unwrap();
    let m = version("example.com/m@v1.0.0");
    let index = opened(root.path());
    index.note_found(&m, ArtifactKind::Mod, 30, None, NOW);
    index.write_pending();
    let stored = |index: &Index| index.read_version(&Place::of_version(&m)).unwrap().last_used;
    for (used, expected) in
        [(UnixSeconds(NOW.0 + 3599), NOW), (after(1), after(1)), (NOW, after(1)), (after(9), after(9))]
    {
        index.touch(&m, used);
        assert_eq!(index.version(&m).unwrap().last_used, used.max(stored(&index)));
        index.write_usage();
        assert_eq!(stored(&index), expected);
    }
    // A use of what is not stored leaves no entry.
    index.touch(&version("example.com/m@v1.0.1"), NOW);
    index.touch(&m, after(20));
    index.close();
    let index = opened(root.path());
    assert_eq!(stored(&index), after(20));
    assert_eq!(index.version(&version("example.com/m@v1.0.1")), None);
    index.restamp(&m, NOW);
    index.write_pending();
    assert_eq!(stored(&index), NOW);
}

/// A run that did not end in an orderly way asks for a scan; an entry adopted by it keeps what was known.
#[test]
fn a_kill_asks_for_a_scan() {
    let root = tempfile::tempdir().unwrap();
    let m = version("example.com/m@v1.0.0");
    let index = opened(root.path());
    index.note_artifact(&m, ArtifactKind::Mod, 30, "u", NOW);
    index.maintain();
    drop(index);
    let index = opened(root.path());
    assert_eq!(index.take_scan_reason(), Some(ScanReason::Unclean));
    index.note_found(&m, ArtifactKind::Mod, 30, None, after(5));
    index.note_found(&m, ArtifactKind::Zip, 90, Some([1; 32]), after(5));
    let entry = index.version(&m).unwrap();
    assert_eq!((entry.last_used, entry.zip_bytes, entry.h1), (NOW, Some(90), Some([1; 32])));
    index.maintain();
    assert_eq!(index.totals(), Totals { files: 2, bytes: 120 });
}

/// The number of negative answers is bounded, and the oldest go first.
#[test]
fn negative_answers_are_bounded() {
    let most = usize::from(Class::Negative.buckets()) * write::NEGATIVE_PER_BUCKET_MAX;
    assert!(most <= 50_000, "{most}");
    let mut records = bucket::Records::new();
    for number in 0..40_u8 {
        records.insert(vec![number], negative("", UnixSeconds(1000 - u64::from(number))).encode());
    }
    write::drop_oldest(&mut records);
    let kept: Vec<u8> = records.keys().map(|key| key[0]).collect();
    assert_eq!(kept, (0..12).collect::<Vec<u8>>());
}

/// Every version is met once by a scan, with changes that were waiting.
#[test]
fn scans_meet_every_version() {
    let root = tempfile::tempdir().unwrap();
    let index = opened(root.path());
    for number in 0..3000 {
        let m = version(&format!("example.com/m{}@v1.0.{number}", number % 70));
        index.note_found(&m, ArtifactKind::Mod, number, None, NOW);
    }
    let mut met = Vec::new();
    let is_done = index.scan_versions(|version, entry| {
        met.push((version, entry.mod_bytes.unwrap()));
        ControlFlow::Continue(())
    });
    assert!(is_done);
    assert_eq!((met.len(), met.iter().map(|(_, bytes)| bytes).sum::<u64>()), (3000, 2999 * 3000 / 2));
    met.sort();
    met.dedup_by(|(a, _), (b, _)| a == b);
    assert_eq!(met.len(), 3000);
    let mut count = 0;
    let is_done = index.scan_versions(|_, _| {
        count += 1;
        ControlFlow::Break(())
    });
    assert!(!is_done);
    assert_eq!(count, 1);
}

/// Another format's index is started anew, and so is a folder that sled cannot open at all.
#[test]
fn other_formats_are_started_anew() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(".larder/index");
    {
        let db = sled::open(&folder).unwrap();
        db.insert(b"\0f", &[200]).unwrap();
        db.insert(b"key", b"value").unwrap();
        db.flush().unwrap();
    }
    let index = opened(root.path());
    assert_eq!(index.take_scan_reason(), Some(ScanReason::Damaged("format 200 instead of 1".into())));
    index.close();
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir_all(folder.join("db")).unwrap();
    let index = opened(root.path());
    assert!(matches!(index.take_scan_reason(), Some(ScanReason::Damaged(_))));
    index.scan_has_ended();
    index.close();
    assert_eq!(opened(root.path()).take_scan_reason(), None);
}

/// Bytes flipped anywhere in the database never panic, hang or give a wrong entry: what is damaged is noticed, at the start
/// or when it is met, and made anew.
#[test]
fn damage_is_survived() {
    let root = tempfile::tempdir().unwrap();
    let index = opened(root.path());
    let all: Vec<ModuleVersion> = (0..600).map(|n| version(&format!("example.com/m{}@v1.0.{n}", n % 50))).collect();
    for m in &all {
        index.note_found(m, ArtifactKind::Mod, 77, Some([5; 32]), NOW);
    }
    index.close();
    let whole = std::fs::read(root.path().join(".larder/index/db")).unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let mut noticed = 0;
    for round in 0..16 {
        let mut bytes = whole.clone();
        match round % 4 {
            0 => bytes.truncate(random.usize(..bytes.len())),
            1 => bytes.fill(0),
            _ => {
                for _ in 0..1 << (round % 7) {
                    let at = random.usize(..bytes.len());
                    bytes[at] ^= random.u8(1..);
                }
            }
        }
        let root = copy_of(root.path(), &bytes);
        let index = Index::opening(root.path());
        index.open();
        for m in &all {
            let entry = index.version(m);
            assert!(entry.is_none_or(|entry| entry.mod_bytes == Some(77) && entry.h1 == Some([5; 32])));
            index.note_found(m, ArtifactKind::Zip, 5, None, NOW);
        }
        index.maintain();
        index.maintain();
        assert!(index.is_open());
        noticed += u32::from(index.take_scan_reason().is_some());
        index.note_found(&all[0], ArtifactKind::Mod, 77, Some([5; 32]), NOW);
        index.maintain();
        assert_eq!(index.version(&all[0]).unwrap().mod_bytes, Some(77));
        index.close();
    }
    assert!(noticed >= 8, "{noticed}");
}

/// Returns a directory whose database is that of `root` with these bytes in its log.
fn copy_of(root: &Path, log: &[u8]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let folder = copy.path().join(".larder/index");
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(root.join(".larder/index")).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    std::fs::write(folder.join("db"), log).unwrap();
    copy
}
