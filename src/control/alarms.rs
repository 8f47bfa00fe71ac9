//! The commands alarms, alarms export and alarms clear.
//!
//! Called by [`Desk`] alone; calls `store::alarms`.

use crate::control::desk::Desk;
use crate::control::teller::Teller;
use crate::control::text::{count, time};
use crate::store::alarms::Alarm;

impl Desk {
    pub(super) fn list_alarms(&self, teller: &mut Teller<'_>) {
        let alarms = self.alarms.list();
        if alarms.is_empty() {
            teller.line("no alarms".to_owned());
        }
        for line in alarms.iter().flat_map(lines) {
            teller.line(line);
        }
    }

    pub(super) fn export_alarm(&self, id: u64, teller: &mut Teller<'_>) -> Result<(), String> {
        if !self.alarms.list().iter().any(|alarm| alarm.id == id) {
            return Err(format!("there is no alarm {id}; see larder alarms"));
        }
        let evidence = self.alarms.evidence(id).map_err(|err| format!("the evidence of alarm {id}: {err}"))?;
        teller.bytes(&evidence.ok_or_else(|| format!("alarm {id} has no evidence"))?);
        Ok(())
    }

    pub(super) fn clear_alarms(&self, ids: &[u64], teller: &mut Teller<'_>) -> Result<(), String> {
        let now = self.housekeeper.clock.now();
        let cleared = self.alarms.clear(ids, now).map_err(|err| format!("nothing is cleared: {err}"))?;
        for id in &cleared {
            teller.line(format!("cleared alarm {id}"));
        }
        if cleared.is_empty() && ids.is_empty() {
            teller.line("no open alarms".to_owned());
        }
        let missing: Vec<String> = ids.iter().filter(|id| !cleared.contains(id)).map(u64::to_string).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("not an open alarm: {}", missing.join(", "))) }
    }

    /// Tells of open alarms, if there are any, in one line.
    pub(super) fn alarms_line(&self) -> Option<String> {
        let open = self.alarms.open();
        let latched = open.iter().filter(|alarm| alarm.is_latched()).count();
        let latched = if latched > 0 { format!(", {latched} latched") } else { String::new() };
        (!open.is_empty()).then(|| format!("alarms        {} open{latched}: see larder alarms", open.len()))
    }
}

/// Returns an alarm as it is listed: one line, and what else is known below it.
fn lines(alarm: &Alarm) -> Vec<String> {
    let state = match alarm.cleared {
        Some(cleared) => format!("cleared {}", time(cleared)),
        None if alarm.is_latched() => "open, latched".to_owned(),
        None => "open".to_owned(),
    };
    let database = match &alarm.database {
        Some(name) => name,
        None if alarm.kind.latches() => "all databases",
        None => "-",
    };
    let Alarm { id, kind, text, .. } = alarm;
    let mut lines = vec![format!("{id}  {kind}  {database}  {}  {state}  {text}", time(alarm.raised))];
    let mut detail = |name: &str, value: &str| lines.push(format!("    {name}: {value}"));
    if !alarm.subject.is_empty() {
        detail("about", &alarm.subject);
    }
    if alarm.count > 1 {
        detail("raised", &format!("{}, last {}", count(alarm.count, "time", "times"), time(alarm.last)));
    }
    for (name, value) in &alarm.details {
        detail(name, value);
    }
    if alarm.evidence.is_some() {
        detail("evidence", &format!("larder alarms export {id}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSeconds;
    use crate::store::alarms::AlarmKind;

    /// An alarm is a line for people, with what else is known below it.
    #[test]
    fn alarms_are_listed() {
        let mut alarm = Alarm {
            id: 3,
            kind: AlarmKind::Fork,
            database: Some("sumdb.larder.test".to_owned()),
            subject: "tree of size 9".to_owned(),
            text: "two histories".to_owned(),
            details: vec![("upstream".to_owned(), "https://proxy.example".to_owned())],
            raised: UnixSeconds(1_795_935_600),
            last: UnixSeconds(1_795_935_661),
            count: 2,
            cleared: None,
            evidence: Some("3-fork.txt".to_owned()),
        };
        assert_eq!(
            lines(&alarm),
            [
                "3  fork  sumdb.larder.test  2026-11-29 07:00:00 UTC  open, latched  two histories",
                "    about: tree of size 9",
                "    raised: 2 times, last 2026-11-29 07:01:01 UTC",
                "    upstream: https://proxy.example",
                "    evidence: larder alarms export 3",
            ]
        );
        alarm.database = None;
        assert!(lines(&alarm)[0].starts_with("3  fork  all databases  "));
        (alarm.kind, alarm.count) = (AlarmKind::Damaged, 1);
        assert!(lines(&alarm)[0].starts_with("3  damaged  -  2026-11-29 07:00:00 UTC  open  "));
        alarm.cleared = Some(UnixSeconds(1_795_935_661));
        assert!(lines(&alarm)[0].ends_with("  cleared 2026-11-29 07:01:01 UTC  two histories"));
    }
}
