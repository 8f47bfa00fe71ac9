//! What goes when alarms, or their evidence, are too many.
//!
//! Called by [`super::Alarms`] alone; calls nothing and never touches the disk. Invariants: an open alarm that latches is
//! never dropped; nobody who sends lies can push out what says more than a lie; all evidence together has a bound.

use super::{
    ALARMS_MAX, ALL_EVIDENCE_BYTES_MAX, Alarm, AlarmKind, Kept, NewAlarm, OPEN_LIES_MAX, OPEN_MISMATCHES_MAX, State,
};

impl State {
    /// Says whether as many alarms of this kind and database are open as may be. Of those that latch, it is all together.
    pub(super) fn has_too_many_like(&self, new: &NewAlarm) -> bool {
        let is_alike = |alarm: &Alarm| alarm.is_open() && alarm.kind == new.kind && alarm.database == new.database;
        let count = |is_meant: &dyn Fn(&Alarm) -> bool| self.kept.iter().filter(|kept| is_meant(&kept.alarm)).count();
        match new.kind {
            AlarmKind::Lie => count(&is_alike) >= OPEN_LIES_MAX,
            AlarmKind::Mismatch => count(&is_alike) >= OPEN_MISMATCHES_MAX,
            AlarmKind::Fork | AlarmKind::Rollback | AlarmKind::Inconsistent | AlarmKind::Duplicate => {
                count(&Alarm::is_latched) >= ALARMS_MAX
            }
            AlarmKind::LateMismatch | AlarmKind::Damaged => false,
        }
    }

    /// Drops the alarms that are too many, then the evidence that is too much.
    pub(super) fn make_room(&mut self) {
        while self.kept.len() > ALARMS_MAX {
            let ranks = self.kept.iter().enumerate().filter_map(|(index, kept)| Some((rank(&kept.alarm)?, index)));
            let Some((_, index)) = ranks.min() else { break };
            self.unnamed.extend(self.kept.remove(index).alarm.evidence);
        }
        let mut bytes: u64 = self.kept.iter().map(|kept| kept.evidence_bytes).sum();
        while bytes > ALL_EVIDENCE_BYTES_MAX {
            let with_evidence = || self.kept.iter().enumerate().filter(|(_, kept)| kept.alarm.evidence.is_some());
            let oldest = with_evidence().min_by_key(|(index, kept)| (evidence_rank(&kept.alarm), *index));
            // The first one that latches tells most; where all of them do, the newest goes.
            let goes = oldest.filter(|(_, kept)| !kept.alarm.is_latched()).or_else(|| with_evidence().next_back());
            let Some(index) = goes.map(|(index, _)| index) else { break };
            bytes -= self.kept[index].evidence_bytes;
            self.unnamed.extend(self.kept[index].forget_evidence());
        }
    }
}

impl Kept {
    /// Takes the evidence from the alarm, which says so from now on. Returns the name of its file.
    fn forget_evidence(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.evidence_bytes);
        let said = format!("{bytes} bytes, dropped to make room for other evidence");
        self.alarm.details.push(("evidence".to_owned(), said));
        self.alarm.evidence.take()
    }
}

/// Returns how early an alarm goes, lower ones earlier; nothing if it never does.
fn rank(alarm: &Alarm) -> Option<u8> {
    if !alarm.is_open() {
        return Some(0);
    }
    match alarm.kind {
        AlarmKind::Lie => Some(1),
        AlarmKind::Damaged => Some(2),
        AlarmKind::Mismatch => Some(3),
        AlarmKind::LateMismatch => Some(4),
        AlarmKind::Fork | AlarmKind::Rollback | AlarmKind::Inconsistent | AlarmKind::Duplicate => None,
    }
}

/// Returns how early the evidence of an alarm goes: of kinds that do not latch, then of cleared ones that did.
fn evidence_rank(alarm: &Alarm) -> (bool, bool) {
    (alarm.is_latched(), alarm.kind.latches())
}

#[cfg(test)]
mod tests {
    use super::super::Alarms;
    use super::*;
    use crate::clock::UnixSeconds;
    use crate::store::testing::Tree;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    /// Four of these are as much as is kept.
    const LONG: usize = 4 << 20;

    fn load(tree: &Tree) -> Alarms {
        Alarms::load(tree.root(), NOW).unwrap()
    }

    fn new(kind: AlarmKind, subject: &str) -> NewAlarm {
        NewAlarm {
            kind,
            database: Some("sumdb.larder.test".to_owned()),
            subject: subject.to_owned(),
            text: "something is wrong".to_owned(),
            details: Vec::new(),
            evidence: None,
        }
    }

    fn with_evidence(kind: AlarmKind, subject: &str, bytes: usize) -> NewAlarm {
        NewAlarm { evidence: Some(vec![b'x'; bytes]), ..new(kind, subject) }
    }

    fn subjects(alarms: &Alarms) -> Vec<String> {
        alarms.list().into_iter().map(|alarm| alarm.subject).collect()
    }

    /// Raises so many alarms without the disk's part.
    fn fill(alarms: &Alarms, count: usize, kind: AlarmKind) {
        let mut state = alarms.lock();
        for _ in 0..count {
            let id = state.next;
            let like = state.kept[0].alarm.clone();
            let alarm = Alarm { id, kind, subject: format!("{kind} {id}"), evidence: None, cleared: None, ..like };
            state.kept.push(Kept { alarm, written: NOW, evidence_bytes: 0 });
            state.next += 1;
        }
    }

    /// The cleared ones go first, then by kind, the oldest of each; open ones that latch never do.
    #[test]
    fn the_number_is_bounded() {
        let tree = Tree::new();
        let alarms = load(&tree);
        let raise = |kind, subject: &str| alarms.raise(new(kind, subject), NOW).unwrap();
        raise(AlarmKind::Fork, "fork");
        for kind in [AlarmKind::LateMismatch, AlarmKind::Mismatch, AlarmKind::Damaged, AlarmKind::Lie] {
            alarms.raise(with_evidence(kind, &kind.to_string(), 9), NOW).unwrap();
        }
        raise(AlarmKind::Rollback, "cleared");
        alarms.clear(&[6], NOW).unwrap();
        fill(&alarms, ALARMS_MAX - 6, AlarmKind::Duplicate);
        for goes in ["cleared", "lie", "damaged", "mismatch", "late-mismatch"] {
            assert!(subjects(&alarms).iter().any(|subject| subject == goes), "{goes}");
            let before = alarms.list().len();
            raise(AlarmKind::Inconsistent, goes);
            let gone = |alarm: &Alarm| alarm.subject == goes && alarm.kind != AlarmKind::Inconsistent;
            assert!(!alarms.list().iter().any(gone), "{goes}");
            assert_eq!(alarms.list().len(), before);
        }
        assert!(!tree.has(".larder/alarms/5-lie.txt") && !tree.has(".larder/alarms/2-late-mismatch.txt"));
        raise(AlarmKind::Lie, "no room");
        assert!(alarms.list().iter().all(Alarm::is_latched));
        // Beyond it, one a kind and database.
        fill(&alarms, 1, AlarmKind::Rollback);
        alarms.write_list(NOW).unwrap();
        raise(AlarmKind::Rollback, "another");
        raise(AlarmKind::Inconsistent, "lie");
        assert_eq!((alarms.list().len(), load(&tree).list().len()), (ALARMS_MAX + 1, ALARMS_MAX + 1));
        assert_eq!(alarms.list().iter().map(|alarm| alarm.count).sum::<u64>(), ALARMS_MAX as u64 + 3);
    }

    /// So many lies and mismatches of one database are open; the next ones count up the newest, written once a minute.
    #[test]
    fn floods_are_counted() {
        for (kind, max) in [(AlarmKind::Lie, OPEN_LIES_MAX), (AlarmKind::Mismatch, OPEN_MISMATCHES_MAX)] {
            let tree = Tree::new();
            let alarms = load(&tree);
            for number in 0..max + 40 {
                let now = UnixSeconds(NOW.0 + number as u64 / 8);
                alarms.raise(with_evidence(kind, &number.to_string(), 9), now).unwrap();
            }
            let newest = |alarms: &Alarms| alarms.list()[max - 1].clone();
            assert_eq!((alarms.list().len(), newest(&alarms).count, newest(&load(&tree)).count), (max, 41, 1));
            let last = UnixSeconds(NOW.0 + 100);
            alarms.raise(new(kind, "more"), last).unwrap();
            assert_eq!((newest(&load(&tree)).count, newest(&load(&tree)).last), (42, last));
            // The same one is counted up itself.
            assert_eq!(alarms.raise(with_evidence(kind, "3", 9), last).unwrap().id, 4);
            let other = NewAlarm { database: None, ..new(kind, "other") };
            assert_eq!(alarms.raise(other, last).unwrap().count, 1);
            alarms.clear(&[1], last).unwrap();
            assert_eq!(alarms.raise(new(kind, "again"), last).unwrap().count, 1);
        }
    }

    /// All evidence together is bounded; the oldest that latches nothing goes, and its alarm says so, after a restart too.
    #[test]
    fn evidence_is_bounded() {
        let tree = Tree::new();
        let alarms = load(&tree);
        alarms.raise(with_evidence(AlarmKind::Fork, "fork", LONG), NOW).unwrap();
        for number in 1..=3 {
            alarms.raise(with_evidence(AlarmKind::Damaged, &number.to_string(), LONG), NOW).unwrap();
        }
        let alarms = load(&tree);
        assert!(alarms.list().iter().all(|alarm| alarm.evidence.is_some() && alarm.details.is_empty()));
        alarms.raise(with_evidence(AlarmKind::Mismatch, "4", 1), NOW).unwrap();
        for alarms in [alarms, load(&tree)] {
            let has: Vec<bool> = alarms.list().iter().map(|alarm| alarm.evidence.is_some()).collect();
            assert_eq!(has, [true, false, true, true, true]);
            let said = ("evidence".to_owned(), "4194304 bytes, dropped to make room for other evidence".to_owned());
            assert_eq!((alarms.evidence(2).unwrap(), &alarms.list()[1].details), (None, &vec![said]));
        }
        assert!(!tree.has(".larder/alarms/2-damaged.txt") && tree.has(".larder/alarms/3-damaged.txt"));
        // Where all that is left latches, the first evidence stays.
        let alarms = load(&tree);
        for number in 5..=9 {
            alarms.raise(with_evidence(AlarmKind::Duplicate, &number.to_string(), LONG), NOW).unwrap();
        }
        let has: Vec<u64> = alarms.list().iter().filter(|kept| kept.evidence.is_some()).map(|kept| kept.id).collect();
        assert_eq!((has, alarms.list().len()), (vec![1, 6, 7, 8], 10));
    }
}
