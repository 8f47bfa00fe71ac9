//! Whether this machine's clock can be right: certificates are judged by it, and modules are removed by it.
//!
//! Called by `doctor`. Boards without a battery start years in the past; nothing else looks so much like a broken
//! network as that.

use std::time::Duration;

use super::words::{minute, span};
use crate::check::{Check, Outcome};
use crate::clock::{CLOCK_FLOOR, Clock, UnixSeconds};

const STEP: &str = "clock";
/// Servers' clocks are a little off too, and an answer takes its time on the way.
const OFF_WARN_S: u64 = 120;
/// From here on certificates that are good are taken for expired or not yet valid.
const OFF_FAIL_S: u64 = 12 * 3600;
const HINT: &str = "set the clock, and have it kept right: `timedatectl set-ntp true`, or NTP in the router's settings";

/// Tells whether the time is one a right clock can show.
pub(super) fn look(clock: &Clock) -> Check {
    let now = clock.now();
    if clock.trusted_now().is_none() {
        let text =
            format!("shows {}, which is before {}, when this program was made", minute(now), minute(CLOCK_FLOOR));
        return Check::new(STEP, "", Outcome::Fail, text).hint(HINT);
    }
    Check::new(STEP, "", Outcome::Pass, minute(now))
}

/// Compares the clock, when it showed `here`, with what `server` said at that moment.
pub(super) fn compare(server: &str, here: UnixSeconds, there: UnixSeconds) -> Check {
    let off = here.0.abs_diff(there.0);
    let direction = if here < there { "behind" } else { "ahead of" };
    let text = format!("{} {direction} what {server} says, {}", span(Duration::from_secs(off)), minute(there));
    if off > OFF_FAIL_S {
        Check::new(STEP, "", Outcome::Fail, text).hint(HINT)
    } else if off > OFF_WARN_S {
        Check::new(STEP, "", Outcome::Warn, text).hint(HINT)
    } else {
        Check::new(STEP, "", Outcome::Pass, format!("agrees with {server}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that is off is told by how much, and seconds do not matter.
    #[test]
    fn compared_with_a_server() {
        let now = CLOCK_FLOOR.0;
        let compared = |here| compare("https://a.example", UnixSeconds(here), UnixSeconds(now));
        assert_eq!(compared(now - 3).outcome, Outcome::Pass);
        let behind = compared(now - 3600);
        let expected = "1 h 0 min behind what https://a.example says, 2026-11-01 00:00 UTC";
        assert_eq!((behind.outcome, behind.text.as_str()), (Outcome::Warn, expected));
        assert_eq!(
            compared(now + 40 * 86_400).text,
            "40 days ahead of what https://a.example says, 2026-11-01 00:00 UTC"
        );
        assert_eq!(compared(0).outcome, Outcome::Fail);
    }
}
