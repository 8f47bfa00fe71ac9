//! Times as people read them. Pure.

use std::time::Duration;

use x509_cert::der::DateTime;

use crate::clock::UnixSeconds;

/// Returns a time as a date.
pub(super) fn day(time: UnixSeconds) -> String {
    minute(time).split(' ').next().unwrap_or_default().to_owned()
}

/// Returns a time as date, hour and minute.
pub(super) fn minute(time: UnixSeconds) -> String {
    DateTime::from_unix_duration(Duration::from_secs(time.0)).map_or_else(
        |_| format!("{} s after 1970", time.0),
        |at| format!("{:04}-{:02}-{:02} {:02}:{:02} UTC", at.year(), at.month(), at.day(), at.hour(), at.minutes()),
    )
}

/// Returns a time span in the units that matter.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (1, hours, _) => format!("1 day {hours} h"),
        (days, _, _) => format!("{days} days"),
    }
}
