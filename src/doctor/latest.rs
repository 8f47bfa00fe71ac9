//! What the running service knows of the same steps, without asking anybody: for `/health?verbose`.
//!
//! Owns [`Latest`]. Made by `app`, called by `server::admin` through it; calls the parts of the way out for what they saw
//! last. A server that was never asked is told as such.

use std::path::PathBuf;
use std::sync::Arc;

use super::{clock, disk, hints};
use crate::check::{Check, Outcome};
use crate::clock::Clock;
use crate::net::egress::Route;
use crate::upstream::UpstreamList;

/// What is looked at.
pub struct Latest {
    /// The different ways out.
    pub routes: Vec<Route>,
    /// The upstreams.
    pub upstreams: Arc<UpstreamList>,
    /// The cache directory.
    pub cache_dir: PathBuf,
    /// Bytes to be kept free there.
    pub free_bytes_min: u64,
    /// The time.
    pub clock: Clock,
}

impl Latest {
    /// Returns the latest state of each step, in the order of `larder doctor`. Asks the disk for its free space, so that
    /// it is for the blocking pool.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks = vec![clock::look(&self.clock)];
        for check in self.routes.iter().flat_map(|route| route.resolver.checks()) {
            add(&mut checks, check, hints::of_dns);
        }
        for check in self.routes.iter().flat_map(|route| route.proxies.checks()) {
            add(&mut checks, check, hints::of_proxy);
        }
        for upstream in self.upstreams.all() {
            let check = match upstream.down_reason() {
                None => Check::new("upstream", &*upstream.name, Outcome::Pass, "no failure is known"),
                Some(_) if &*upstream.name == "off" => Check::new("upstream", "off", Outcome::Skip, "nobody is asked"),
                Some(reason) => Check::new("upstream", &*upstream.name, Outcome::Fail, reason),
            };
            add(&mut checks, check, hints::of_upstream);
        }
        checks.push(disk::room_in(&self.cache_dir, self.free_bytes_min));
        checks
    }
}

/// Adds what is not there yet, several ways sharing a server, with what to change where that is missing.
fn add(checks: &mut Vec<Check>, mut check: Check, hint: fn(&str) -> String) {
    if checks.iter().any(|other| other.step == check.step && other.subject == check.subject && other.text == check.text)
    {
        return;
    }
    if check.outcome == Outcome::Fail && check.hint.is_none() {
        check.hint = Some(hint(&check.text));
    }
    checks.push(check);
}
