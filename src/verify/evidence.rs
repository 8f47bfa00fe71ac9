//! What is kept of a database's, or an upstream's, misbehaviour: the words and the bytes that show it to somebody else.
//!
//! Called by `database`, `judge` and the command audit; calls `store::alarms`. Evidence holds for itself: signed heads with a proof, or the
//! answer that does not verify. Nothing here decides what follows from it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::database::Parts;
use crate::clock::Clock;
use crate::store;
use crate::store::alarms::{AlarmKind, Alarms, LIE_EVIDENCE_BYTES_MAX, NewAlarm};
use crate::sumdb::check::Lie;
use crate::sumdb::fork::Fork;
use crate::sumdb::head::HeadError;
use crate::sumdb::{SignedHead, SumdbName};

/// Caches between a database and us may answer with a head that is older by so much.
pub(super) const ROLLBACK_GRACE: Duration = Duration::from_secs(3600);

/// Keeps an alarm, durably.
pub(super) async fn raise(alarms: &Arc<Alarms>, clock: &Clock, alarm: NewAlarm) {
    let (alarms, now) = (Arc::clone(alarms), clock.now());
    let raised =
        store::blocking(move || alarms.raise(alarm, now).map(drop).map_err(|err| store::Error::at("alarms", err)));
    if let Err(err) = raised.await {
        log::error!("an alarm could not be written and is lost at the next start: {err}");
    }
}

pub(super) async fn lie(parts: &Parts, name: &SumdbName, subject: &str, lie: &Lie, answer: &Bytes) {
    let text = format!("an answer does not verify: {lie}");
    let shown = beginning(answer);
    let is_cut = shown.len() < answer.len();
    let details = is_cut.then(|| ("evidence".to_owned(), format!("the beginning of {} bytes", answer.len())));
    let alarm = NewAlarm {
        kind: AlarmKind::Lie,
        database: Some(name.to_string()),
        subject: subject.to_owned(),
        text,
        details: details.into_iter().collect(),
        evidence: Some(shown.to_vec()),
    };
    raise(&parts.alarms, &parts.clock, alarm).await;
}

pub(super) async fn fork(parts: &Parts, name: &SumdbName, fork: &Fork) {
    let (older, newer) = (fork.older().head(), fork.newer().head());
    let alarm = NewAlarm {
        kind: AlarmKind::Fork,
        database: Some(name.to_string()),
        subject: format!("the log of {name}"),
        text: format!("two histories, signed both: {} and {} records", older.size, newer.size),
        details: vec![
            ("older head".to_owned(), format!("{} {}", older.size, older.root)),
            ("newer head".to_owned(), format!("{} {}", newer.size, newer.root)),
        ],
        evidence: Some(format!("{fork}\n").into_bytes()),
    };
    raise(&parts.alarms, &parts.clock, alarm).await;
}

pub(super) async fn rollback(parts: &Parts, name: &SumdbName, known: &SignedHead, came: &SignedHead) {
    let alarm = NewAlarm {
        kind: AlarmKind::Rollback,
        database: Some(name.to_string()),
        subject: format!("the log of {name}"),
        text: format!("it had {} records and now shows {}", known.head().size, came.head().size),
        details: Vec::new(),
        evidence: Some(heads(Some(known), came.note()).into_bytes()),
    };
    raise(&parts.alarms, &parts.clock, alarm).await;
}

pub(super) async fn inconsistent(
    parts: &Parts,
    name: &SumdbName,
    subject: &str,
    lie: &Lie,
    known: Option<&SignedHead>,
    answer: &Bytes,
) {
    let alarm = NewAlarm {
        kind: AlarmKind::Inconsistent,
        database: Some(name.to_string()),
        subject: format!("the log of {name}"),
        text: format!("its tiles contradict those that were proved before: {lie}"),
        details: vec![("while asking for".to_owned(), subject.to_owned())],
        evidence: Some(heads(known, &String::from_utf8_lossy(answer)).into_bytes()),
    };
    raise(&parts.alarms, &parts.clock, alarm).await;
}

/// Returns the alarm for the known head in the file at `path`, which cannot be read any more. The file itself is kept aside.
pub(super) fn head_lost(name: &SumdbName, path: &str, err: &HeadError) -> NewAlarm {
    NewAlarm {
        kind: AlarmKind::Inconsistent,
        database: Some(name.to_string()),
        subject: format!("the known head of {name}"),
        text: format!("the newest head that was accepted cannot be read, so an older log would not be noticed: {err}"),
        details: vec![("was in".to_owned(), path.to_owned()), ("kept aside as".to_owned(), format!("{path}.damaged"))],
        evidence: None,
    }
}

/// Returns the alarm for two records of one module version with different hashes. `records` are their numbers and, as far
/// as they could be had, their texts; `subject` is the module version, if it is known.
pub fn duplicate(
    name: &SumdbName,
    subject: Option<&str>,
    records: &[(u64, Option<&str>); 2],
    head: &SignedHead,
) -> NewAlarm {
    let [(first, _), (second, _)] = records;
    let mut evidence = format!("the log of {name} says two things of one module version\n\n");
    for (number, text) in records {
        // Writing to a string does not fail.
        let _ = writeln!(evidence, "record {number}:\n\n{}", text.unwrap_or("(it could not be fetched again)\n"));
    }
    NewAlarm {
        kind: AlarmKind::Duplicate,
        database: Some(name.to_string()),
        subject: subject.map_or_else(|| format!("records {first} and {second}"), ToOwned::to_owned),
        text: format!("records {first} and {second} of the log have different hashes for one module version"),
        details: Vec::new(),
        evidence: Some(format!("{evidence}signed head:\n\n{}", head.note()).into_bytes()),
    }
}

/// Returns the alarm for a log whose records do not give the hashes that it has signed. `before` is the head that the
/// audit had followed to before, `proved` how many records of it were proved.
pub fn unfounded(name: &SumdbName, why: &str, proved: u64, before: Option<&SignedHead>, head: &SignedHead) -> NewAlarm {
    let (size, root) = (head.head().size, head.head().root);
    let evidence = format!("{why}\n\nrecords proved before: {proved}\n\n{}", heads(before, head.note()));
    NewAlarm {
        kind: AlarmKind::Inconsistent,
        database: Some(name.to_string()),
        subject: format!("the log of {name}"),
        text: format!("its records are not what its head says: {why}"),
        details: vec![
            ("head".to_owned(), format!("{size} {root}")),
            ("records".to_owned(), format!("{proved} to {}", size.saturating_sub(1))),
        ],
        evidence: Some(evidence.into_bytes()),
    }
}

/// Writes both heads one after the other, each as it was signed.
fn heads(known: Option<&SignedHead>, came: &str) -> String {
    let known = known.map_or("none\n", SignedHead::note);
    format!("known head:\n\n{known}\nwhat came:\n\n{came}")
}

/// Returns as much of an answer as is kept of a lie; a text stays one.
fn beginning(answer: &[u8]) -> &[u8] {
    let Some(cut) = answer.get(..LIE_EVIDENCE_BYTES_MAX) else { return answer };
    match std::str::from_utf8(cut) {
        // Only the last character is cut in two.
        Err(err) if err.error_len().is_none() => &cut[..err.valid_up_to()],
        Ok(_) | Err(_) => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is short is kept whole, and no character is cut in two.
    #[test]
    fn lies_are_cut() {
        let max = LIE_EVIDENCE_BYTES_MAX;
        assert_eq!(beginning(b"short"), b"short");
        assert_eq!(beginning(&vec![b'x'; max]).len(), max);
        assert_eq!(beginning(&vec![0xff; max + 1]).len(), max);
        assert_eq!(beginning("ö".repeat(max).as_bytes()).len(), max);
        assert_eq!(beginning(format!("x{}", "ö".repeat(max)).as_bytes()).len(), max - 1);
    }
}
