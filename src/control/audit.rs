//! The command audit: reads the log of the checksum database and compares it with what was seen of it.
//!
//! Called by [`Desk`] alone; calls `verify::audit`, which does the reading, and keeps what it finds as alarms. One audit
//! at a time. Invariants: the state that is resumed is the one the set of what was seen holds, so both are of the same
//! moment; whatever ends a run, but a damaged set, the next one goes on where it was.
//!
//! ```text
//! first time           begins behind the newest record: what comes from then on is read
//! later                from there to the newest record
//! --from-start         all records; goes on if the last such run did not come to its end
//! ```

use std::path::PathBuf;
use std::sync::{Arc, TryLockError};

use crate::control::desk::{Desk, Machinery};
use crate::control::teller::Teller;
use crate::control::text::count;
use crate::store::alarms::NewAlarm;
use crate::store::seen::{Conflict, Findings, Seen, SeenError};
use crate::sumdb::authentic::TilePlan;
use crate::sumdb::follow::{Follower, entries};
use crate::sumdb::record::data_tile_records;
use crate::sumdb::tile::TILE_WIDTH_FULL;
use crate::sumdb::{SignedHead, Tile, TileLevel};
use crate::upstream::Failure;
use crate::verify::audit::{self, AuditError, Ended, Pace, Progress};
use crate::verify::{Database, evidence};

/// So many contradictions are shown and raised by one run. One is enough to act.
const CONFLICTS_SHOWN_MAX: usize = 20;

impl Desk {
    /// Reads the log, all of it if `from_start`. Ends early when `self.housekeeper.stop` says so.
    pub(super) fn audit(&self, machinery: &Machinery, from_start: bool, teller: &mut Teller<'_>) -> Result<(), String> {
        let Some(database) = machinery.cache.verifier.database() else {
            return Err("there is no checksum database to audit: -gosumdb is off".to_owned());
        };
        let _turn = match machinery.auditing.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err("an audit is under way already".to_owned()),
        };
        let own_folder = machinery.cache.store.own_folder();
        AuditRun { desk: self, machinery, database, own_folder }.run(from_start, teller)
    }
}

/// One run over the log of one database.
struct AuditRun<'a> {
    desk: &'a Desk,
    machinery: &'a Machinery,
    database: &'a Arc<Database>,
    own_folder: PathBuf,
}

/// What a run begins with.
enum Start {
    /// There are records before it; the head is the one followed to before.
    Follow(Box<(Follower, Seen, Option<SignedHead>)>),
    /// The audit has begun behind the newest record, and that is all for now.
    AtHead,
}

/// Who is followed, from where and to where.
struct Course {
    target: SignedHead,
    before: Option<SignedHead>,
    from: u64,
}

impl AuditRun<'_> {
    fn run(&self, from_start: bool, teller: &mut Teller<'_>) -> Result<(), String> {
        let name = &self.database.name;
        let target = self.target(teller)?;
        let start = if from_start { self.begin_again(target, teller) } else { self.go_on(target, teller) };
        let Start::Follow(start) = start? else { return Ok(()) };
        let (follower, seen, before) = *start;
        let course = Course { target: follower.target().clone(), before, from: follower.taken() };
        let (clock, stop) = (&self.machinery.cache.clock, &self.desk.housekeeper.stop);
        let mut proved = course.from;
        let tell = |progress: Progress| {
            proved = proved.max(progress.proved);
            teller.progress(progress.taken, progress.target, &format!("records of {name}"));
        };
        // Neither kind of tile is stored: clients need few of them, and get those proved.
        let fetch = |tile: Tile, _| async move {
            self.database.unproved_tile(&tile).await.map_err(|failure| failure.to_string())
        };
        let reading = audit::follow(follower, seen, Pace::default(), clock, stop, fetch, tell);
        match self.machinery.runtime.block_on(reading) {
            Ok(Ended::Reached { findings, .. }) => self.report(&course, &findings, teller),
            Ok(Ended::Cancelled) => Err(format!("audit of {name}: stopped; {}", kept(proved, &course))),
            Err(error) => Err(self.failed(&error, proved, &course)),
        }
    }

    /// Returns the head to follow to: the newest, or the one that is known if the database cannot be asked.
    fn target(&self, teller: &mut Teller<'_>) -> Result<SignedHead, String> {
        let name = &self.database.name;
        let newest = self.machinery.runtime.block_on(self.database.newest());
        let known = self.database.known_head();
        match (newest, known) {
            // If it shows an older one, that is the known one.
            (Ok(newest), _) => Ok(newest),
            (Err(Failure::Unjudged(unjudged)), _) => Err(format!("{unjudged}; see larder alarms")),
            (Err(failure @ Failure::Stopped), _) | (Err(failure), None) => {
                Err(format!("audit of {name}: no head to follow to: {failure}"))
            }
            (Err(failure), Some(known)) => {
                let size = known.head().size;
                teller.line(format!(
                    "{name} cannot be asked for its newest head ({failure}): the known one is {size} records"
                ));
                Ok(known)
            }
        }
    }

    /// Begins with the first record, or goes on with a run that did and did not come to its end.
    fn begin_again(&self, target: SignedHead, teller: &mut Teller<'_>) -> Result<Start, String> {
        let name = &self.database.name;
        let seen = match Seen::open(&self.own_folder, name) {
            // What is damaged, or of another key, goes.
            Err(SeenError::Damaged { .. }) => None,
            other => Some(other.map_err(|err| self.unusable(&err))?),
        };
        if let Some(seen) = seen
            && let Ok(mut follower) = Follower::resume(seen.state(), &self.database.key)
            && follower.from() == 0
            && follower.audited().size == 0
            && follower.proved() == seen.reach()
        {
            let before = follower.target().clone();
            if follower.aim(target.clone()).is_ok() {
                if follower.proved() > 0 {
                    teller.line(format!("audit of {name}: goes on at record {}", follower.proved()));
                }
                return Ok(Start::Follow(Box::new((follower, seen, Some(before)))));
            }
        }
        let begun = Seen::remove(&self.own_folder, name).and_then(|()| Seen::open(&self.own_folder, name));
        let mut seen = begun.map_err(|err| self.unusable(&err))?;
        let follower = Follower::from_start(target);
        // So that a run that ends before its first save is known to be one from the start.
        seen.save(0, &follower.state(), &|| false).map_err(|err| self.unusable(&err))?;
        Ok(Start::Follow(Box::new((follower, seen, None))))
    }

    /// Goes on where the last run ended; the first one begins behind the newest record.
    fn go_on(&self, target: SignedHead, teller: &mut Teller<'_>) -> Result<Start, String> {
        let name = &self.database.name;
        let seen = Seen::open(&self.own_folder, name).map_err(|err| self.unusable(&err))?;
        if seen.state().is_empty() {
            return self.begin_at(target, seen, teller).map(|()| Start::AtHead);
        }
        let resumed = Follower::resume(seen.state(), &self.database.key).ok();
        let Some(mut follower) = resumed.filter(|follower| follower.proved() == seen.reach()) else {
            let text = "what the last one has left does not make sense, or is of another key";
            return Err(format!("audit of {name}: {text}; larder audit --from-start begins again"));
        };
        let before = follower.target().clone();
        let newest = target.head().size;
        if follower.aim(target).is_err() {
            let known = follower.proved();
            let text = format!("{known} records were proved, and now there are {newest}");
            return Err(format!("audit of {name}: {text}; larder audit --from-start begins again"));
        }
        Ok(Start::Follow(Box::new((follower, seen, Some(before)))))
    }

    fn begin_at(&self, target: SignedHead, mut seen: Seen, teller: &mut Teller<'_>) -> Result<(), String> {
        let (name, head) = (&self.database.name, *target.head());
        let failed = |text: String| format!("audit of {name}: {text}");
        let tiles = self.machinery.runtime.block_on(self.database.prove_plan(&Follower::start_plan(&head, &target)));
        let tiles = tiles.map_err(|failure| failed(failure.to_string()))?;
        let follower = Follower::from_head(&head, &tiles, target).map_err(|err| failed(err.to_string()))?;
        seen.save(follower.proved(), &follower.state(), &|| false).map_err(|err| self.unusable(&err))?;
        let records = count(head.size, "record", "records");
        teller.line(format!("audit of {name}: begins here, behind {records} (size {}); nothing was read", head.size));
        teller.line(
            "what comes from now on is read by the next one; larder audit --from-start reads the whole log".to_owned(),
        );
        Ok(())
    }

    /// Says how it went, and keeps each contradiction.
    fn report(&self, course: &Course, findings: &Findings, teller: &mut Teller<'_>) -> Result<(), String> {
        let name = &self.database.name;
        let size = course.target.head().size;
        let records = match size - course.from {
            0 => format!("no new records, {size} in all"),
            new => format!("records {} to {} ({new} of {size})", course.from, size - 1),
        };
        let seen = Seen::open(&self.own_folder, name).map_err(|err| self.unusable(&err))?;
        // Those of different runs are in the set more than once until the runs are merged.
        let unmerged = findings.repetitions.saturating_sub(seen.findings().repetitions);
        let versions = count(seen.entries_and_runs().0.saturating_sub(unmerged), "module version", "module versions");
        let repetitions = count(findings.repetitions, "repetition", "repetitions");
        let contradictions = match findings.conflicts.len() as u64 {
            0 => "no contradiction".to_owned(),
            some => count(some, "contradiction", "contradictions"),
        };
        teller.line(format!(
            "audited {name}: {records}, root recomputed and signed: ok; {versions} seen, {repetitions}, {contradictions}"
        ));
        for conflict in findings.conflicts.iter().take(CONFLICTS_SHOWN_MAX) {
            self.contradiction(*conflict, &course.target, teller);
        }
        if findings.conflicts.len() > CONFLICTS_SHOWN_MAX {
            teller.line(format!("and {} more", findings.conflicts.len() - CONFLICTS_SHOWN_MAX));
        }
        if findings.conflicts.is_empty() {
            Ok(())
        } else {
            Err(format!("the log of {name} has {contradictions}; see larder alarms"))
        }
    }

    fn contradiction(&self, conflict: Conflict, head: &SignedHead, teller: &mut Teller<'_>) {
        let name = &self.database.name;
        let numbers = [conflict.first, conflict.second];
        let texts = numbers.map(|number| self.record(number, head));
        let subject = match &texts {
            [Ok(one), Ok(other)] => disputed(one, other),
            _ => None,
        };
        let about = subject.as_deref().unwrap_or("a module version");
        teller
            .line(format!("contradiction: {about} has different hashes in records {} and {}", numbers[0], numbers[1]));
        for (number, text) in numbers.iter().zip(&texts) {
            match text {
                Ok(text) => text.lines().for_each(|line| teller.line(format!("    {number}  {line}"))),
                Err(reason) => teller.line(format!("    {number}  cannot be shown: {reason}")),
            }
        }
        let [one, other] = texts.each_ref().map(|text| text.as_deref().ok());
        let alarm = evidence::duplicate(name, subject.as_deref(), &[(numbers[0], one), (numbers[1], other)], head);
        // The log will say so for ever; a person who has cleared the alarm knows.
        let known = self.desk.alarms.list().into_iter().find(|known| {
            known.kind == alarm.kind
                && known.database == alarm.database
                && known.subject == alarm.subject
                && known.text == alarm.text
                && !known.is_open()
        });
        match known {
            Some(known) => teller.line(format!("    alarm {}, which was cleared", known.id)),
            None => teller.line(format!("    {}", self.raise(alarm))),
        }
    }

    /// Returns the text of a record, proved.
    fn record(&self, number: u64, head: &SignedHead) -> Result<String, String> {
        let width = u64::from(TILE_WIDTH_FULL);
        let mut plan = TilePlan::new(*head.head());
        plan.add_tile(TileLevel::Data, number / width);
        let proved = self.machinery.runtime.block_on(self.database.prove_plan(&plan));
        let proved = proved.map_err(|failure| failure.to_string())?;
        let tile = Tile::in_tree(TileLevel::Data, number / width, head.head().size);
        let records = tile.and_then(|tile| data_tile_records(proved.bytes(&tile)?));
        let text = records.and_then(|records| records.get(usize::try_from(number % width).ok()?).copied());
        text.map(ToOwned::to_owned).ok_or_else(|| "it is not in the log".to_owned())
    }

    /// Says why the log could not be followed to its end, and keeps what that shows of the database.
    fn failed(&self, error: &AuditError, proved: u64, course: &Course) -> String {
        let name = &self.database.name;
        let text = match error {
            AuditError::Seen(error) => return self.unusable(error),
            AuditError::Fetch { .. } | AuditError::Disk(_) => format!("audit of {name}: {error}"),
            AuditError::Follow(_) | AuditError::Hashes { .. } => {
                let (before, head) = (course.before.as_ref(), &course.target);
                let alarm = evidence::unfounded(name, &error.to_string(), proved, before, head);
                format!("audit of {name}: {error}: {}", self.raise(alarm))
            }
        };
        format!("{text}; {}", kept(proved, course))
    }

    fn unusable(&self, error: &SeenError) -> String {
        let name = &self.database.name;
        let hint = match error {
            SeenError::Damaged { .. } => "; larder audit --from-start begins again",
            SeenError::Disk(_) | SeenError::Full { .. } | SeenError::Number { .. } => "",
        };
        format!("audit of {name}: what was seen of the log: {error}{hint}")
    }

    /// Raises an alarm and says which one it is.
    fn raise(&self, alarm: NewAlarm) -> String {
        let kind = alarm.kind;
        match self.desk.alarms.raise(alarm, self.desk.housekeeper.clock.now()) {
            Ok(alarm) => format!("alarm {} ({kind})", alarm.id),
            Err(err) => format!("alarm ({kind}), which could not be written and is lost at the next start: {err}"),
        }
    }
}

/// Returns the module version of which two records say different things.
fn disputed(one: &str, other: &str) -> Option<String> {
    let others = entries(other).entries;
    let differs = |module_version: &str, lines: &[&str]| {
        others.iter().any(|other| other.module_version == module_version && other.lines != lines)
    };
    let found = entries(one).entries.into_iter().find(|entry| differs(entry.module_version, &entry.lines))?;
    Some(found.module_version.replace(' ', "@"))
}

fn kept(proved: u64, course: &Course) -> String {
    format!("{proved} of {} records are proved, the next audit goes on there", course.target.head().size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two records with several module versions, the one they disagree about is named.
    #[test]
    fn the_disputed_version_is_named() {
        let line = |what: &str, letter: &str| format!("{what} h1:{}=\n", letter.repeat(42) + "A");
        let both = line("a.b/c v1.0.0", "x") + &line("a.b/d v1.1.0", "y") + &line("a.b/d v1.1.0/go.mod", "z");
        let other = line("a.b/d v1.1.0", "y") + &line("a.b/d v1.1.0/go.mod", "w");
        assert_eq!(disputed(&both, &other).as_deref(), Some("a.b/d@v1.1.0"));
        assert_eq!(disputed(&both, &both), None);
        assert_eq!(disputed(&both, &line("a.b/e v1.0.0", "x")), None);
    }
}
