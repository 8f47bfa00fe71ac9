//! The command verify: judges what is stored, or compares a go.sum file with the checksum database. Also what status
//! says of both.
//!
//! Called by [`Desk`] alone; calls `cache::sweep` for files and `verify` for records.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::cache::Cache;
use crate::cache::sweep::{Finding, STAMP_FILE, STATE_FILE, Sweep, Tally, in_order};
use crate::clock::UnixSeconds;
use crate::control::desk::{Desk, Machinery};
use crate::control::gosum::{self, Line, Sum};
use crate::control::teller::Teller;
use crate::control::text::{count, size, span};
use crate::store::Store;
use crate::store::scrub::Throttle;
use crate::sumdb::check::ProvedRecord;
use crate::sumdb::name::LookupTarget;
use crate::upstream::Failure;
use crate::verify::{Database, Verifier};

/// Records that are looked up at a time.
const LOOKUPS_AT_ONCE: usize = 8;

impl Desk {
    /// Judges all that is stored, at full speed. Ends early when `self.housekeeper.stop` says so.
    pub(super) fn verify(&self, machinery: &Machinery, repairs: bool, teller: &mut Teller<'_>) -> Result<(), String> {
        let (cache, keeper) = (&machinery.cache, &self.housekeeper);
        let Some(_turn) = cache.verifying.begin() else {
            return Err("the files are being verified already".to_owned());
        };
        let is_stopping = || keeper.stop.is_cancelled();
        let throttle = Throttle::new(0, &keeper.clock, &|pause| std::thread::sleep(pause), &is_stopping);
        keeper.index.maintain();
        let total = keeper.index.totals().bytes;
        let mut sweep = Sweep::new(cache, &machinery.runtime, &keeper.stop, &throttle, repairs);
        for resource in in_order(&cache.store, None) {
            let done = sweep.tally.bytes;
            teller.progress(done.min(total), total, "verifying");
            let goes_on = sweep.look_at(&resource, &mut |finding| teller.line(finding_text(&finding)));
            if !goes_on || is_stopping() {
                return Err("stopped before all was verified".to_owned());
            }
        }
        if cache.verifier.database().is_none() {
            teller.line("verification is off: only the bytes were compared with what was noted of them".to_owned());
        }
        teller.line(summary(sweep.tally));
        let (left, hint) =
            (sweep.tally.left(), if repairs { "" } else { "; larder verify --repair fetches them again" });
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{} not as they should be{hint}", count(left, "file is", "files are")))
        }
    }

    /// Compares the go.sum file `name`, which holds `text`, with the checksum database.
    pub(super) fn verify_sums(
        &self,
        machinery: &Machinery,
        name: &str,
        text: &str,
        teller: &mut Teller<'_>,
    ) -> Result<(), String> {
        let verifier = &machinery.cache.verifier;
        let Some(database) = verifier.database() else {
            return Err(format!("{name}: verification is off (gosumdb), so there is nothing to compare it with"));
        };
        let lines = gosum::parse(text);
        let compared = compare(verifier, database, &lines, teller);
        let bad = machinery.runtime.block_on(self.housekeeper.stop.run_until_cancelled(compared));
        match bad {
            None => Err(format!("{name}: stopped before all was compared")),
            Some(0) => Ok(()),
            Some(bad) => Err(format!(
                "{name}: of {}, {bad} not vouched for by checksum database {}",
                count(lines.len() as u64, "line", "lines"),
                database.name
            )),
        }
    }
}

/// Tells how every line stands. Returns how many are not as they should be.
async fn compare(verifier: &Verifier, database: &Arc<Database>, lines: &[Line], teller: &mut Teller<'_>) -> u64 {
    let total = lines.len() as u64;
    let mut records: HashMap<&LookupTarget, Result<ProvedRecord, Failure>> = HashMap::new();
    let mut met = HashSet::new();
    let targets = lines.iter().filter_map(|line| match line {
        Line::Sum(sum) => Some(&sum.target),
        Line::Ignored { .. } | Line::Malformed(..) => None,
    });
    let wanted: Vec<_> = targets.filter(|target| !verifier.is_exempt(target.path()) && met.insert(*target)).collect();
    let lookups = wanted
        .into_iter()
        .map(|target| async move { (target, database.record(target).await.map(|looked| looked.record)) });
    let mut lookups = stream::iter(lookups).buffered(LOOKUPS_AT_ONCE);
    let mut bad = 0;
    for (done, line) in lines.iter().enumerate() {
        teller.progress(done as u64, total, "comparing");
        if let Line::Sum(sum) = line {
            // Records come in the order in which they are met first.
            while !verifier.is_exempt(sum.target.path()) && !records.contains_key(&sum.target) {
                let Some((target, record)) = lookups.next().await else { break };
                records.insert(target, record);
            }
        }
        let (is_good, text) = match line {
            Line::Malformed(number, why) => (false, line_text("malformed", &format!("line {number}"), why)),
            Line::Ignored { name, why } => (true, line_text("ignored", name, why)),
            Line::Sum(sum) => judged(sum, records.get(&sum.target)),
        };
        bad += u64::from(!is_good);
        teller.line(text);
    }
    bad
}

fn judged(sum: &Sum, record: Option<&Result<ProvedRecord, Failure>>) -> (bool, String) {
    let name = sum.name();
    match record {
        None => (true, line_text("exempt", &name, "its module is not told to any checksum database")),
        Some(Ok(record)) => match sum.compare(record) {
            Ok(()) => (true, line_text("ok", &name, &format!("record {}", record.number))),
            Err(text) => (false, line_text("MISMATCH", &name, &text)),
        },
        Some(Err(Failure::NotFound(_))) => (false, line_text("not in log", &name, "")),
        Some(Err(Failure::Unjudged(unjudged))) => (false, line_text("no verdict", &name, &unjudged.text)),
        Some(Err(failure)) => (false, line_text("unreachable", &name, &failure.to_string())),
    }
}

fn line_text(word: &str, name: &str, more: &str) -> String {
    format!("{word:<9} {name}  {more}").trim_end().to_owned()
}

fn finding_text(finding: &Finding) -> String {
    format!("{:<9} {}", finding.word, finding.text)
}

fn summary(tally: Tally) -> String {
    let figure = |number: u64, what: &str| count(number, what, what);
    let mut text = format!(
        "verified {}, {}: {}, {}, {}, {} by the log",
        count(tally.files, "file", "files"),
        size(tally.bytes),
        figure(tally.broken, "broken"),
        figure(tally.wrong, "wrong"),
        figure(tally.unverified, "unverified"),
        figure(tally.vouched_for, "vouched for")
    );
    for (number, what) in [(tally.unreadable, "unreadable"), (tally.repaired, "repaired")] {
        if number > 0 {
            let _ = write!(text, ", {}", figure(number, what));
        }
    }
    text
}

/// Returns what status says of verification.
pub(super) fn verification_lines(cache: &Cache) -> Vec<String> {
    let verifier = &cache.verifier;
    let mut lines = Vec::new();
    if !verifier.unverified.is_empty() {
        let files = count(verifier.unverified.len() as u64, "file", "files");
        lines.push(format!("unverified    {files}, judged as soon as the checksum database can be asked"));
    }
    for database in verifier.databases() {
        let size = database.known_head().map_or_else(|| "unknown".to_owned(), |head| head.head().size.to_string());
        let state = database.down_reason().map_or_else(|| "ok".to_owned(), |reason| format!("down: {reason}"));
        lines.push(format!("database      {}  size {size}, {state}", database.name));
    }
    lines.push(format!("scrub         {}", scrub_text(&cache.store, cache.clock.now())));
    lines
}

fn scrub_text(store: &Store, now: UnixSeconds) -> String {
    let read = |name| store.read_own(name).ok().flatten().and_then(|text| String::from_utf8(text.to_vec()).ok());
    let finished = read(STAMP_FILE).and_then(|text| text.trim().parse().ok()).map(UnixSeconds);
    let mut text = match finished {
        Some(finished) => format!("finished {} ago", span(now.since(finished))),
        None => "not finished yet".to_owned(),
    };
    if let Some(cursor) = read(STATE_FILE) {
        let _ = write!(text, "; under way, at {}", cursor.trim());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a run in one line; what did not happen is not told, but for what everybody wants to know.
    #[test]
    fn summaries() {
        let mut tally = Tally { files: 1234, bytes: 56_000_000, unverified: 3, vouched_for: 1100, ..Tally::default() };
        let text = "verified 1,234 files, 56.00 MB: 0 broken, 0 wrong, 3 unverified, 1,100 vouched for by the log";
        assert_eq!(summary(tally), text);
        (tally.broken, tally.unreadable, tally.repaired) = (2, 1, 2);
        assert!(
            summary(tally)
                .ends_with(": 2 broken, 0 wrong, 3 unverified, 1,100 vouched for by the log, 1 unreadable, 2 repaired")
        );
    }

    /// Words stand in a column.
    #[test]
    fn lines_have_columns() {
        assert_eq!(
            line_text("ok", "rsc.io/quote v1.5.2/go.mod", "record 942"),
            "ok        rsc.io/quote v1.5.2/go.mod  record 942"
        );
        assert_eq!(line_text("not in log", "rsc.io/quote v1.5.2", ""), "not in log rsc.io/quote v1.5.2");
        let finding = Finding { word: "broken", text: "rsc.io/quote@v1.5.2 zip: why".to_owned() };
        assert_eq!(finding_text(&finding), "broken    rsc.io/quote@v1.5.2 zip: why");
    }
}
