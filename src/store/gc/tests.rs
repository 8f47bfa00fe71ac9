//! What goes, in which order, and what never does.

use super::*;
use crate::store::adopt::{Adoption, scan};
use crate::store::index::MutableEntry;
use crate::store::pins::Pin;
use crate::store::testing::{Tree, version};

const NOW: UnixSeconds = UnixSeconds(CLOCK_FLOOR.0 + 1000 * HOUR_S);
const RIGHT: Times = Times { now: NOW, trusted: Some(NOW) };
const WRONG: Times = Times { now: UnixSeconds(60), trusted: None };

/// A cache with one version for each age in hours: `example.com/mN@v1.0.0` was used N hours ago.
struct Cache {
    tree: Tree,
    index: Index,
    pins: Pins,
    clock: Clock,
    busy: Vec<ModuleVersion>,
}

impl Cache {
    fn with_ages(ages: &[u64]) -> Self {
        let tree = Tree::new();
        for age in ages {
            tree.put_version(&format!("example.com/m{age}@v1.0.0"), 10_000);
        }
        tree.put("sumdb/sum.example/tile/8/0/000.p/2", [0; 64]);
        let index = tree.index();
        let clock = Clock::system();
        scan(&Adoption::of(tree.root()), &index, &clock, &|| false).unwrap();
        for age in ages {
            index.restamp(&aged(*age), UnixSeconds(NOW.0 - age * HOUR_S));
        }
        index.maintain();
        let pins = Pins::load(tree.root()).unwrap();
        Self { tree, index, pins, clock, busy: Vec::new() }
    }

    fn run(&self, times: Times, limits: Limits, mode: Mode) -> (Report, Vec<String>) {
        let mut gone = Vec::new();
        let is_busy = |version: &ModuleVersion| self.busy.contains(version);
        let run = Run {
            root: self.tree.root(),
            index: &self.index,
            pins: &self.pins,
            clock: &self.clock,
            is_busy: &is_busy,
            is_cancelled: &|| false,
        };
        let report = run.run_at(times, limits, mode, &mut |removal| gone.push(removal.version.path().to_string()));
        gone.sort();
        (report.unwrap(), gone)
    }

    fn stored(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.tree.path("example.com"))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    /// The bytes of one version.
    fn unit(&self) -> u64 {
        let totals = self.index.totals();
        (totals.bytes - 64) / (totals.files / 3)
    }
}

fn aged(hours: u64) -> ModuleVersion {
    version(&format!("example.com/m{hours}@v1.0.0"))
}

fn by_age(hours: u64) -> Limits {
    Limits { age_max: Some(Duration::from_secs(hours * HOUR_S)), ..Limits::default() }
}

/// What was not used for longer than the limit goes whole, with its folders and its entry; the rest stays.
#[test]
fn old_versions_go() {
    let cache = Cache::with_ages(&[0, 99, 101, 500]);
    cache.tree.put("example.com/m500/@v/v1.0.0.ziphash", "h1:x");
    cache.tree.put("example.com/m101/@v/list", "v1.0.0\n");
    let before = cache.index.totals();
    let (dry, told) = cache.run(RIGHT, by_age(100), Mode::DryRun);
    assert_eq!(told, ["example.com/m101", "example.com/m500"]);
    assert_eq!(cache.index.totals(), before);
    let (report, gone) = cache.run(RIGHT, by_age(100), Mode::Remove);
    assert_eq!((&gone, report.removed), (&told, dry.removed));
    // The list stays: it goes only for room.
    assert_eq!(cache.stored(), ["m0", "m101", "m99"]);
    assert!(cache.tree.has("example.com/m101/@v/list") && !cache.tree.has("example.com/m101/@v/v1.0.0.info"));
    assert_eq!(cache.index.version(&aged(500)), None);
    assert_eq!(cache.index.totals().bytes, before.bytes - report.removed.bytes);
    assert_eq!(cache.run(RIGHT, by_age(100), Mode::Remove).0.versions, 0);
}

/// The least recently used go first, and no more than necessary; a list goes with the last version of its module.
#[test]
fn room_is_made_in_order_of_use() {
    let cache = Cache::with_ages(&[1, 2, 3, 4, 5]);
    cache.tree.put("example.com/m5/@v/list", "v1.0.0\n");
    cache.tree.put("example.com/m5/@latest", "{}");
    for (path, bytes) in [("example.com/m5/@v/list", 7), ("example.com/m5/@latest", 2)] {
        let entry = MutableEntry { bytes, ..MutableEntry::default() };
        cache.index.note_mutable(&Resource::parse(path).unwrap(), &entry);
    }
    cache.index.maintain();
    let all = cache.index.totals().bytes;
    let unit = (all - 64 - 9) / 5;
    let limit = |bytes| Limits { cache_bytes_max: Some(bytes), ..Limits::default() };
    assert_eq!(cache.run(RIGHT, limit(all), Mode::Remove).1, Vec::<String>::new());
    let (report, gone) = cache.run(RIGHT, limit(all - unit - 1), Mode::Remove);
    assert_eq!(gone, ["example.com/m4", "example.com/m5"]);
    assert_eq!(cache.index.totals(), Totals { files: 10, bytes: 3 * unit + 64 });
    assert_eq!(report.removed, Totals { files: 8, bytes: 2 * unit + 9 });
    assert_eq!(cache.stored(), ["m1", "m2", "m3"]);
    // Free space is a limit of its own: nobody has an exabyte free.
    let floor = Limits { free_bytes_min: 1 << 60, ..Limits::default() };
    assert!(cache.tree.has("sumdb/sum.example/tile/8/0/000.p/2"));
    cache.run(RIGHT, floor, Mode::Remove);
    assert_eq!(cache.stored(), Vec::<String>::new());
    assert!(!cache.tree.has("sumdb") && !cache.tree.has("example.com"));
    assert_eq!(cache.index.totals(), Totals::default());
}

/// In one hour only as much goes as has to.
#[test]
fn an_hour_is_not_emptied_for_nothing() {
    let cache = Cache::with_ages(&[7, 8, 9]);
    for age in [7, 8, 9] {
        cache.index.restamp(&aged(age), UnixSeconds(NOW.0 - 50 * HOUR_S + age));
    }
    let limits = Limits { cache_bytes_max: Some(cache.index.totals().bytes - 1), ..Limits::default() };
    assert_eq!(cache.run(RIGHT, limits, Mode::Remove).1.len(), 1);
    assert_eq!(cache.stored().len(), 2);
}

/// Pinned and busy versions stay whatever the limits say, and so does what is used while the run goes on.
#[test]
fn pinned_busy_and_used_versions_stay() {
    let mut cache = Cache::with_ages(&[100, 200, 300, 400]);
    cache.tree.put("example.com/m200/@v/list", "v1.0.0\n");
    cache.pins.add(&Pin::parse("example.com/m100").unwrap()).unwrap();
    cache.pins.add(&Pin::parse("example.com/m200@v1.0.0").unwrap()).unwrap();
    cache.busy.push(aged(300));
    let limits = Limits { cache_bytes_max: Some(0), ..by_age(1) };
    let (report, gone) = cache.run(RIGHT, limits, Mode::Remove);
    assert_eq!((gone, report.kept_versions), (vec!["example.com/m400".to_owned()], 3));
    assert_eq!(cache.stored(), ["m100", "m200", "m300"]);
    assert!(cache.tree.has("example.com/m200/@v/list"));

    cache.busy.clear();
    cache.index.touch(&aged(300), NOW);
    cache.run(RIGHT, by_age(1), Mode::Remove);
    assert_eq!(cache.stored(), ["m100", "m200", "m300"]);
}

/// A clock at 1970 removes nothing by age; stamps made then count as used now once it is right, and are rewritten; so are
/// stamps from the future. The size limit holds even then.
#[test]
fn a_wrong_clock_removes_nothing_by_age() {
    let cache = Cache::with_ages(&[1, 500]);
    cache.index.restamp(&aged(1), UnixSeconds(70));
    let (report, gone) = cache.run(WRONG, by_age(100), Mode::Remove);
    assert!(report.is_clock_wrong && gone.is_empty());
    assert_eq!(cache.index.version(&aged(1)).unwrap().last_used, UnixSeconds(70));
    let room = Limits { cache_bytes_max: Some(cache.unit() + 64), ..Limits::default() };
    assert_eq!(cache.run(WRONG, room, Mode::DryRun).1, ["example.com/m500"]);

    let (report, gone) = cache.run(RIGHT, by_age(100), Mode::Remove);
    assert_eq!((report.is_clock_wrong, gone), (false, vec!["example.com/m500".to_owned()]));
    assert_eq!(cache.index.version(&aged(1)).unwrap().last_used, NOW);
    cache.index.restamp(&aged(1), UnixSeconds(NOW.0 * 2));
    let later = UnixSeconds(NOW.0 + 50 * HOUR_S);
    cache.run(Times { now: later, trusted: Some(later) }, by_age(100), Mode::Remove);
    assert_eq!(cache.index.version(&aged(1)).unwrap().last_used, later);
}

/// What cannot be removed is counted and left; the rest of the run goes on.
#[test]
fn failures_are_counted() {
    let cache = Cache::with_ages(&[200, 300]);
    let zip = cache.tree.path("example.com/m300/@v/v1.0.0.zip");
    std::fs::remove_file(&zip).unwrap();
    std::fs::create_dir_all(zip.join("in-the-way")).unwrap();
    let (report, gone) = cache.run(RIGHT, by_age(100), Mode::Remove);
    assert_eq!((report.failures, gone), (1, vec!["example.com/m200".to_owned()]));
    assert!(cache.tree.has("example.com/m300/@v/v1.0.0.info"));
    // An entry whose files are gone already is dropped.
    std::fs::remove_dir_all(cache.tree.path("example.com")).unwrap();
    let (report, _) = cache.run(RIGHT, by_age(100), Mode::Remove);
    assert_eq!((report.failures, cache.index.totals().files), (0, 1));
}

/// Before the index knows the whole tree nothing is removed.
#[test]
fn a_part_of_the_tree_is_not_judged() {
    let cache = Cache::with_ages(&[200]);
    cache.index.close();
    let mut cache = Cache { index: Index::opening(cache.tree.root()), ..cache };
    let (report, gone) = cache.run(RIGHT, by_age(100), Mode::Remove);
    assert!(report.is_index_incomplete && gone.is_empty());
    cache.index.open();
    let (report, gone) = cache.run(RIGHT, by_age(100), Mode::Remove);
    assert!(!report.is_index_incomplete && gone.len() == 1);
    std::fs::remove_dir_all(cache.tree.path(".larder/index")).unwrap();
    cache.index = cache.tree.index();
    assert!(cache.run(RIGHT, by_age(100), Mode::Remove).0.is_index_incomplete);
}
