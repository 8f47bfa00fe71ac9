//! Tells the time, and whether that time can be believed.
//!
//! Owns the only reads of the system clock in Larder. Called by everything that stamps, ages or waits; calls
//! nothing. These boards have no battery clock: after a power cut the time may be years back until the network
//! has set it, so every decision that deletes by age asks [`Clock::trusted_now`] first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A wall-clock time as whole seconds since 1970, UTC; what stamps on disk hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// Returns how long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time as a person reads it: `2026-11-29 07:00:00 UTC`.
    pub fn utc(self) -> String {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // Days since 0000-03-01, in eras of 400 years: a year begins in March, so that a leap day is its last one.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }

    /// Returns the whole seconds of a file time; times before 1970 become zero.
    pub fn from_system_time(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
    }
}

/// No correct clock shows a time before this one: 2026-11-01, when this code was written. Moved forward at releases.
pub const CLOCK_FLOOR: UnixSeconds = UnixSeconds(1_793_491_200);

/// The source of time. Clones share one clock, so a test advances it for everyone.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Seconds a test has added to the wall clock and the steady clock alike.
    advanced_s: Arc<AtomicU64>,
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns the wall-clock time, right or wrong.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> UnixSeconds {
        let now = UnixSeconds::from_system_time(SystemTime::now());
        UnixSeconds(now.0 + self.advanced_s.load(Ordering::Relaxed))
    }

    /// Returns the wall-clock time if it is possible, that is, not before [`CLOCK_FLOOR`].
    pub fn trusted_now(&self) -> Option<UnixSeconds> {
        Some(self.now()).filter(|now| *now >= CLOCK_FLOOR)
    }

    /// Returns a steady time that only measures differences; it is right whatever the wall clock shows.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the steady clock")]
    pub fn steady(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.advanced_s.load(Ordering::Relaxed))
    }

    /// Moves the clock forward, for tests.
    pub fn advance(&self, by: Duration) {
        self.advanced_s.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times are written as the `date` command writes them.
    #[test]
    fn times_for_people() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_868_799, "2000-02-29 23:59:59 UTC"),
            (1_735_689_600, "2025-01-01 00:00:00 UTC"),
            (1_793_491_200, "2026-11-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(UnixSeconds(seconds).utc(), text);
        }
    }

    /// A stamp made before the floor is not trusted; one made after it is.
    #[test]
    fn floor_decides_trust() {
        let clock = Clock::system();
        assert_eq!(clock.trusted_now().is_some(), clock.now() >= CLOCK_FLOOR);
        let before = clock.now();
        clock.advance(Duration::from_secs(90));
        assert!(clock.now().since(before) >= Duration::from_secs(90));
        assert_eq!(before.since(clock.now()), Duration::ZERO);
    }
}
