//! Figures as people read them. Pure.

use std::time::Duration;

use indicatif::DecimalBytes;
use x509_cert::der::DateTime;

use crate::clock::UnixSeconds;
use crate::store::gc::Limits;

/// Returns a size in the unit that fits it, counted in thousands as in the configuration.
pub(super) fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// Returns a time as date and time of day.
pub(super) fn time(time: UnixSeconds) -> String {
    // The crate's own form is the one of RFC 3339.
    DateTime::from_unix_duration(Duration::from_secs(time.0)).map_or_else(
        |_| format!("{} s after 1970", time.0),
        |at| format!("{} UTC", at.to_string().trim_end_matches('Z').replace('T', " ")),
    )
}

/// Returns a time span in its two largest units.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (1, _, _) => format!("1 day {hours} h"),
        (_, _, _) => format!("{days} days {hours} h"),
    }
}

/// Returns a number of things, in words that agree with it.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {}", if number == 1 { one } else { many })
}

/// Returns what housekeeping removes.
pub(crate) fn rules(limits: Limits) -> String {
    let age = limits.age_max.map(|age| format!("what is unused for {}", span(age)));
    let mut bounds = Vec::new();
    bounds.extend(limits.cache_bytes_max.map(|max| format!("above {} in all", size(max))));
    if limits.free_bytes_min > 0 {
        bounds.push(format!("below {} of free space", size(limits.free_bytes_min)));
    }
    let room = (!bounds.is_empty()).then(|| format!("what is unused longest, {}", bounds.join(" or ")));
    let rules: Vec<String> = age.into_iter().chain(room).collect();
    if rules.is_empty() { "nothing".to_owned() } else { rules.join("; ") }
}

/// Returns how much of a whole is there, as far as both are known.
pub(super) fn progress(part: u64, whole: Option<u64>) -> String {
    match whole {
        Some(whole) if whole > 0 => {
            let percent = u128::from(part.min(whole)) * 100 / u128::from(whole);
            format!("{percent} % of {}", size(whole))
        }
        Some(_) | None => size(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures come out as a person would write them.
    #[test]
    fn figures() {
        assert_eq!(size(46_300_000), "46.30 MB");
        assert_eq!(time(UnixSeconds(1_795_935_600)), "2026-11-29 07:00:00 UTC");
        assert_eq!(time(UnixSeconds(u64::MAX)), format!("{} s after 1970", u64::MAX));
        let spans =
            [(0, "0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90_000, "1 day 1 h"), (40 * 86_400, "40 days 0 h")];
        for (seconds, text) in spans {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(1_234_567, "file", "files"), "1,234,567 files");
        assert_eq!(count(0, "file", "files"), "0 files");
        let mut limits = Limits::default();
        assert_eq!(rules(limits), "nothing");
        limits.cache_bytes_max = Some(2_000_000_000);
        assert_eq!(rules(limits), "what is unused longest, above 2.00 GB in all");
        limits.age_max = Some(Duration::from_secs(720 * 3600));
        limits.free_bytes_min = 1_000_000;
        let all = "what is unused for 30 days 0 h; what is unused longest, above 2.00 GB in all or below 1.00 MB of free space";
        assert_eq!(rules(limits), all);
        assert_eq!(progress(500, Some(2000)), "25 % of 2.00 kB");
        assert_eq!(progress(500, None), "500 B");
        assert_eq!(progress(9, Some(0)), "9 B");
    }
}
