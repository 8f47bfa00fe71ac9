//! Who may ask: the office, not the internet.
//!
//! Owns the rule of issue 3 ("Who may ask"). Called by `server::serve` once per connection; calls `net::interfaces` and the
//! clock. Unless told otherwise it serves loopback, link-local, private and unique-local addresses and the blocks of
//! the box's own interfaces, so that a box put on a public address is not an open relay by accident. Loopback is served
//! always: the operator on the box itself cannot lock himself out.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::net::cidr::Cidr;
use crate::net::interfaces;

/// How long the blocks of the interfaces are believed; offices renumber, laptops move.
const BLOCKS_FRESH_FOR: Duration = Duration::from_secs(10);
/// Before a client is refused the interfaces are looked at anew, but not more often than this: strangers may knock fast.
const BLOCKS_REFUSAL_FRESH_FOR: Duration = Duration::from_secs(1);

/// The addresses that are served.
#[derive(Debug)]
pub struct AllowList {
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// Nothing was configured: the office, as far as the box can tell.
    Office { clock: Clock, own: Mutex<OwnBlocks> },
    /// `-allow` was given: those blocks and loopback.
    Given(Vec<Cidr>),
}

#[derive(Debug, Default)]
struct OwnBlocks {
    blocks: Vec<Cidr>,
    read_at: Option<Instant>,
    is_failing: bool,
}

impl AllowList {
    /// Serves the office: private addresses and the blocks of the box's own interfaces, followed as they change.
    pub fn office(clock: Clock) -> Self {
        Self { rule: Rule::Office { clock, own: Mutex::default() } }
    }

    /// Serves `blocks` and loopback only.
    pub fn only(blocks: Vec<Cidr>) -> Self {
        Self { rule: Rule::Given(blocks) }
    }

    /// Tells whether a client at `ip` is served.
    pub fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if ip.is_loopback() {
            return true;
        }
        match &self.rule {
            Rule::Given(blocks) => blocks.iter().any(|block| block.contains(ip)),
            Rule::Office { clock, own } => is_private(ip) || is_own(clock, own, ip),
        }
    }
}

/// Tells whether `ip` is of the kinds that are never routed on the internet.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Tells whether `ip` lies in a block of the box's own interfaces.
fn is_own(clock: &Clock, own: &Mutex<OwnBlocks>, ip: IpAddr) -> bool {
    let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
    let now = clock.steady();
    let age = own.read_at.map(|at| now.saturating_duration_since(at));
    if age.is_none_or(|age| age >= BLOCKS_FRESH_FOR) {
        own.refresh(now);
    }
    if own.contains(ip) {
        return true;
    }
    if age.is_some_and(|age| (BLOCKS_REFUSAL_FRESH_FOR..BLOCKS_FRESH_FOR).contains(&age)) {
        own.refresh(now);
        return own.contains(ip);
    }
    false
}

impl OwnBlocks {
    fn contains(&self, ip: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.contains(ip))
    }

    /// Reads the blocks again. If that fails the last ones stay, and the log says so once.
    fn refresh(&mut self, now: Instant) {
        self.read_at = Some(now);
        match interfaces::configured() {
            Ok(found) => {
                self.blocks = found.into_iter().map(|configured| configured.block).collect();
                self.is_failing = false;
            }
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                log::warn!("cannot read the addresses of the network interfaces, keeping the last known: {error}");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without configuration, private addresses are served and public ones are not.
    #[test]
    fn office_is_served_and_the_internet_is_not() {
        let list = AllowList::office(Clock::system());
        for ip in [
            "127.0.0.1",
            "::1",
            "10.9.8.7",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.3.4",
            "fe80::1",
            "fd12::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(list.allows(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["8.8.8.8", "172.32.0.1", "100.64.0.1", "2001:4860::1", "::ffff:8.8.8.8"] {
            assert!(!list.allows(ip.parse().unwrap()), "{ip}");
        }
    }

    /// With `-allow` only those blocks and loopback are served.
    #[test]
    fn given_blocks_replace_the_office() {
        let list = AllowList::only(vec![Cidr::parse("192.0.2.0/24").unwrap()]);
        for (ip, served) in [("192.0.2.9", true), ("127.0.0.1", true), ("::1", true), ("10.0.0.1", false)] {
            assert_eq!(list.allows(ip.parse().unwrap()), served, "{ip}");
        }
    }

    /// A prefix that has appeared on an interface is served before the next regular look at the interfaces.
    #[test]
    fn refusal_looks_at_the_interfaces_again() {
        let clock = Clock::system();
        let own = Mutex::new(OwnBlocks { read_at: Some(clock.steady()), ..OwnBlocks::default() });
        let loopback: IpAddr = "127.0.0.9".parse().unwrap();
        assert!(!is_own(&clock, &own, loopback));
        clock.advance(Duration::from_secs(2));
        assert!(is_own(&clock, &own, loopback));
    }
}
