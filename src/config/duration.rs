//! Reads and prints durations as Go writes them: `100ms`, `1h30m`, `720h`, `0`.
//!
//! Called by the settings table; calls nothing. A number needs a unit, except for zero.
//! Source: the syntax of Go's time.ParseDuration.
//!
//! ```text
//! duration = "0" | number unit { number unit }      unit = ns us µs ms s m h
//! number   = digits [ "." digits ] | "." digits
//! ```

use std::time::Duration;

/// Units, longest text first where one begins another. The micro sign exists twice in Unicode.
const UNITS_NS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Go counts in a signed 64-bit number of nanoseconds: about 292 years.
const DURATION_NS_MAX: u128 = i64::MAX.unsigned_abs() as u128;

const EXPECTED: &str = "not a duration: write a number with a unit, such as 100ms, 30s, 1h30m or 720h";

/// Reads a duration. The inverse of [`print()`].
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" || text == "-0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.starts_with('-') {
        return Err("a duration cannot be negative".to_owned());
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the unit is missing: write a duration such as 100ms, 30s, 1h30m or 720h".to_owned());
    }
    let mut rest = unsigned;
    let mut total_ns: u128 = 0;
    while !rest.is_empty() || unsigned.is_empty() {
        let (part_ns, after) = part(rest).ok_or(EXPECTED)?;
        total_ns = total_ns.saturating_add(part_ns);
        rest = after;
    }
    if total_ns > DURATION_NS_MAX {
        return Err("the duration is too long: at most 292 years".to_owned());
    }
    let seconds = u64::try_from(total_ns / 1_000_000_000).map_err(|_| EXPECTED)?;
    let nanoseconds = u32::try_from(total_ns % 1_000_000_000).map_err(|_| EXPECTED)?;
    Ok(Duration::new(seconds, nanoseconds))
}

/// Reads one number with its unit and returns its nanoseconds and what follows it.
fn part(text: &str) -> Option<(u128, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (unit, unit_ns) = UNITS_NS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
    // More digits than a number holds are far above the limit, or far below a nanosecond.
    let whole_ns =
        if whole.is_empty() { 0 } else { whole.parse::<u128>().unwrap_or(u128::MAX).saturating_mul(unit_ns) };
    let fraction = fraction.get(..fraction.len().min(18))?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction_ns = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? * unit_ns / scale };
    Some((whole_ns.saturating_add(fraction_ns), rest.get(unit.len()..)?))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

/// Prints a duration so that [`parse`] reads the same back: `24h`, `1h30m`, `1.5ms` as `1ms500us`.
pub(super) fn print(duration: Duration) -> String {
    let mut rest_ns = duration.as_nanos();
    let mut text = String::new();
    for unit in ["h", "m", "s", "ms", "us", "ns"] {
        let unit_ns = UNITS_NS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, unit_ns)| *unit_ns);
        if rest_ns >= unit_ns {
            text.push_str(&(rest_ns / unit_ns).to_string());
            text.push_str(unit);
            rest_ns %= unit_ns;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go's durations read as Go reads them.
    #[test]
    fn go_syntax() {
        let cases = [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("+5s", 5_000_000_000, "5s"),
            ("100ms", 100_000_000, "100ms"),
            ("1h30m", 5_400_000_000_000, "1h30m"),
            ("720h", 2_592_000_000_000_000, "720h"),
            ("1.5h", 5_400_000_000_000, "1h30m"),
            (".5s", 500_000_000, "500ms"),
            ("5.s", 5_000_000_000, "5s"),
            ("1us", 1_000, "1us"),
            ("1\u{b5}s", 1_000, "1us"),
            ("1\u{3bc}s", 1_000, "1us"),
            ("3ns", 3, "3ns"),
            ("1m0.000000001s", 60_000_000_001, "1m1ns"),
            ("9223372036854775807ns", 9_223_372_036_854_775_807, "2562047h47m16s854ms775us807ns"),
        ];
        for (text, nanoseconds, printed) in cases {
            let duration = parse(text).unwrap();
            assert_eq!(duration.as_nanos(), nanoseconds, "{text}");
            assert_eq!(print(duration), printed);
            assert_eq!(parse(printed), Ok(duration));
        }
    }

    /// What Go refuses is refused, with the reason.
    #[test]
    fn refused() {
        let cases = [
            ("100", "unit is missing"),
            ("", "not a duration"),
            ("-1s", "negative"),
            ("1d", "not a duration"),
            ("1 s", "not a duration"),
            ("s", "not a duration"),
            (".s", "not a duration"),
            ("1s2", "not a duration"),
            ("ten", "not a duration"),
            ("9223372036854775808ns", "too long"),
            ("99999999999999999999999999999999999999999h", "too long"),
        ];
        for (text, reason) in cases {
            let mistake = parse(text).unwrap_err();
            assert!(mistake.contains(reason), "{text:?}: {mistake}");
        }
    }
}
