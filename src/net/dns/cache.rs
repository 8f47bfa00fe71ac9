//! What is remembered of names: addresses, that there are none, and for a while addresses whose time is over.
//!
//! Owns [`Cache`], a plain value. Called by `names`, which holds its lock; calls nothing.
//!
//! Invariants: at most [`NAMES_MAX`] names; nothing is kept longer than its TTL and [`TTL_MAX`] say, as far as it is
//! fresh, nor longer than [`STALE_MAX`] after that. Sources: RFC 2308, section 5 (absence); RFC 8767 (stale answers).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Names that are remembered.
const NAMES_MAX: usize = 4096;
/// Addresses hold no longer than this, whatever their TTL.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Absence holds no longer than this, whatever the server says.
const ABSENCE_MAX: Duration = Duration::from_secs(300);
/// How long addresses may be used after their time when nobody can be asked.
const STALE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often somebody is asked all the same while stale addresses are used.
const RETRY_EVERY: Duration = Duration::from_secs(30);
/// Addresses of one name.
const ADDRESSES_MAX: usize = 32;

#[derive(Debug)]
enum Kept {
    Addresses { addresses: Vec<IpAddr>, retry_at: Option<Instant> },
    Absence { text: String },
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    is_of_hosts: bool,
    expires: Instant,
    used: Instant,
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Its addresses.
    Fresh(Vec<IpAddr>),
    /// That there are none, in words.
    Absent(String),
    /// Its addresses of some time ago.
    Stale {
        /// At least one.
        addresses: Vec<IpAddr>,
        /// Whether it is time to ask again.
        is_to_be_asked: bool,
    },
    /// Nothing.
    Nothing,
}

/// The names.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<String, Entry>,
}

impl Cache {
    /// Returns what is known of `name`.
    pub(super) fn look(&mut self, name: &str, now: Instant) -> Look {
        let Some(entry) = self.entries.get_mut(name) else { return Look::Nothing };
        entry.used = now;
        let is_fresh = now < entry.expires;
        match &entry.kept {
            Kept::Addresses { addresses, .. } if is_fresh => Look::Fresh(addresses.clone()),
            Kept::Absence { text } if is_fresh => Look::Absent(text.clone()),
            Kept::Addresses { addresses, retry_at } if now < entry.expires + STALE_MAX => {
                Look::Stale { addresses: addresses.clone(), is_to_be_asked: retry_at.is_none_or(|at| at <= now) }
            }
            Kept::Addresses { .. } | Kept::Absence { .. } => {
                self.entries.remove(name);
                Look::Nothing
            }
        }
    }

    /// Remembers addresses; those with no time to live only for when nobody can be asked.
    pub(super) fn keep(&mut self, name: &str, mut addresses: Vec<IpAddr>, ttl: Duration, now: Instant) {
        addresses.truncate(ADDRESSES_MAX);
        self.put(name, Kept::Addresses { addresses, retry_at: None }, ttl.min(TTL_MAX), now);
    }

    /// Remembers addresses that the file of hosts has.
    pub(super) fn keep_hosts(&mut self, name: &str, addresses: Vec<IpAddr>, ttl: Duration, now: Instant) {
        self.keep(name, addresses, ttl, now);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.is_of_hosts = true;
        }
    }

    /// Remembers that there are no addresses.
    pub(super) fn keep_absence(&mut self, name: &str, text: String, ttl: Duration, now: Instant) {
        self.put(name, Kept::Absence { text }, ttl.min(ABSENCE_MAX), now);
    }

    /// Remembers that nobody could say, unless there are addresses of some time ago.
    pub(super) fn keep_failure(&mut self, name: &str, text: String, ttl: Duration, now: Instant) {
        if !self.entries.get(name).is_some_and(|entry| matches!(entry.kept, Kept::Addresses { .. })) {
            self.put(name, Kept::Absence { text }, ttl, now);
        }
    }

    /// Adds addresses that came late to fresh ones; the shorter time counts.
    pub(super) fn add(&mut self, name: &str, more: &[IpAddr], ttl: Duration, now: Instant) {
        let Some(entry) = self.entries.get_mut(name).filter(|entry| now < entry.expires) else { return };
        let Kept::Addresses { addresses, .. } = &mut entry.kept else { return };
        let mut all = addresses.clone();
        all.extend(more.iter().filter(|address| !addresses.contains(address)));
        let (v6, v4) = all.into_iter().partition(IpAddr::is_ipv6);
        *addresses = interleave(v6, v4);
        addresses.truncate(ADDRESSES_MAX);
        entry.expires = entry.expires.min(now + ttl);
    }

    /// Notes that nobody could be asked just now, so that the next ones need not wait for that.
    pub(super) fn postpone(&mut self, name: &str, now: Instant) {
        if let Some(Entry { kept: Kept::Addresses { retry_at, .. }, .. }) = self.entries.get_mut(name) {
            *retry_at = Some(now + RETRY_EVERY);
        }
    }

    /// Returns all names something is known of.
    pub(super) fn names(&self) -> HashSet<String> {
        self.entries.keys().cloned().collect()
    }

    /// Forgets what the file of hosts said before it was changed, and what others said of the names it has now.
    pub(super) fn forget_hosts(&mut self, named: &HashSet<String>) {
        self.entries.retain(|name, entry| !entry.is_of_hosts && !named.contains(name));
    }

    fn put(&mut self, name: &str, kept: Kept, ttl: Duration, now: Instant) {
        if ttl.is_zero() && matches!(kept, Kept::Absence { .. }) {
            self.entries.remove(name);
            return;
        }
        if self.entries.len() >= NAMES_MAX && !self.entries.contains_key(name) {
            let longest_unused = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone());
            self.entries.remove(&longest_unused.unwrap_or_default());
        }
        self.entries.insert(name.to_owned(), Entry { kept, is_of_hosts: false, expires: now + ttl, used: now });
    }
}

/// Returns both families in turn, IPv6 first (RFC 8305, section 4).
pub(super) fn interleave(v6: Vec<IpAddr>, v4: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut mixed = Vec::with_capacity(v6.len() + v4.len());
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    loop {
        let (six, four) = (v6.next(), v4.next());
        if six.is_none() && four.is_none() {
            return mixed;
        }
        mixed.extend(six.into_iter().chain(four));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Addresses are fresh for their TTL, stale for a day after that, then gone; retries are spaced.
    #[test]
    fn life_of_addresses() {
        let mut cache = Cache::default();
        let start = Clock::system().steady();
        let one = addresses(&["192.0.2.1"]);
        cache.keep("a", one.clone(), seconds(60), start);
        assert_eq!(cache.look("a", start + seconds(59)), Look::Fresh(one.clone()));
        let stale = |is_to_be_asked| Look::Stale { addresses: one.clone(), is_to_be_asked };
        let later = start + seconds(60);
        assert_eq!(cache.look("a", later), stale(true));
        cache.postpone("a", later);
        assert_eq!(cache.look("a", later + seconds(29)), stale(false));
        assert_eq!(cache.look("a", later + seconds(30)), stale(true));
        assert_eq!(cache.look("a", later + STALE_MAX), Look::Nothing);
        assert!(cache.entries.is_empty());
    }

    /// A TTL of zero is stale at once; a long one is cut to a day, absence to five minutes.
    #[test]
    fn bounds_of_time() {
        let mut cache = Cache::default();
        let start = Clock::system().steady();
        cache.keep("a", addresses(&["192.0.2.1"]), seconds(60), start);
        cache.keep("a", addresses(&["192.0.2.2"]), Duration::ZERO, start);
        let stale = Look::Stale { addresses: addresses(&["192.0.2.2"]), is_to_be_asked: true };
        assert_eq!(cache.look("a", start), stale);
        cache.keep_failure("a", "no".to_owned(), seconds(5), start);
        assert_eq!(cache.look("a", start), stale);
        cache.keep_failure("b", "no".to_owned(), seconds(5), start);
        assert_eq!(cache.look("b", start + seconds(4)), Look::Absent("no".to_owned()));
        assert_eq!(cache.look("b", start + seconds(5)), Look::Nothing);
        cache.keep("a", addresses(&["192.0.2.1"]), seconds(1 << 31), start);
        assert!(matches!(cache.look("a", start + TTL_MAX), Look::Stale { .. }));
        cache.keep_absence("a", "no".to_owned(), seconds(86_400), start);
        assert_eq!(cache.look("a", start + seconds(299)), Look::Absent("no".to_owned()));
        assert_eq!(cache.look("a", start + seconds(300)), Look::Nothing);
        cache.keep_absence("a", "no".to_owned(), Duration::ZERO, start);
        assert_eq!(cache.look("a", start), Look::Nothing);
    }

    /// What comes late is mixed in, once, and shortens the time; what has no fresh addresses gets none.
    #[test]
    fn late_addresses() {
        let mut cache = Cache::default();
        let start = Clock::system().steady();
        cache.add("a", &addresses(&["2001:db8::1"]), seconds(60), start);
        assert_eq!(cache.look("a", start), Look::Nothing);
        cache.keep("a", addresses(&["192.0.2.1", "192.0.2.2"]), seconds(60), start);
        for _ in 0..2 {
            cache.add("a", &addresses(&["2001:db8::1"]), seconds(30), start);
        }
        let mixed = addresses(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        assert_eq!(cache.look("a", start + seconds(29)), Look::Fresh(mixed));
        assert!(matches!(cache.look("a", start + seconds(30)), Look::Stale { .. }));
    }

    /// Beyond its bound, the cache forgets what was not used for longest.
    #[test]
    fn bounded() {
        let mut cache = Cache::default();
        let start = Clock::system().steady();
        for number in 0..=NAMES_MAX {
            let now = start + Duration::from_millis(number as u64);
            cache.keep(&number.to_string(), addresses(&["192.0.2.1"]), seconds(3600), now);
            cache.look("0", now);
        }
        assert_eq!(cache.entries.len(), NAMES_MAX);
        assert_eq!(cache.look("1", start), Look::Nothing);
        assert!(matches!(cache.look("0", start), Look::Fresh(_)));
    }
}
