//! Reads how one upstream is reached, where that differs from all the others: the keys `proxy` and `dns` beside its URL.
//!
//! Owns [`UpstreamRoute`]. Called by `upstreams`; calls `dns` and `net::proxy`, whose forms these are.

use std::fmt;

use super::dns::{self, DnsServer};
use super::file::Fields;
use super::sources::Report;
use super::upstreams::UpstreamTarget;
use super::values::{joined, many};
use crate::net::proxy::Entry;

/// The keys that are read here.
pub(super) const KEYS: [&str; 2] = ["proxy", "dns"];

/// How one upstream is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamRoute {
    /// Its own proxies in order of preference; `None` for those of all.
    pub proxies: Option<Vec<Entry>>,
    /// Its own DNS servers, none of them for the system's resolver; `None` for those of all.
    pub dns: Option<Vec<DnsServer>>,
}

impl UpstreamRoute {
    /// Tells whether nothing differs.
    pub fn is_of_all(&self) -> bool {
        self.proxies.is_none() && self.dns.is_none()
    }

    /// Tells whether it is expressly reached without a proxy.
    pub fn is_direct(&self) -> bool {
        let is_direct =
            |proxies: &Vec<Entry>| !proxies.is_empty() && proxies.iter().all(|entry| *entry == Entry::Direct);
        self.proxies.as_ref().is_some_and(is_direct)
    }
}

impl fmt::Display for UpstreamRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxies = self.proxies.as_ref().map(|proxies| format!("proxy {}", joined(proxies)));
        let dns = self.dns.as_ref().map(|servers| format!("dns {}", dns::print_list(servers)));
        let parts: Vec<String> = proxies.into_iter().chain(dns).collect();
        f.write_str(&parts.join(", "))
    }
}

/// Reads the two keys of an upstream's map.
pub(super) fn read(fields: &Fields<'_>, target: Option<&UpstreamTarget>, report: &mut Report) -> UpstreamRoute {
    let mut route = UpstreamRoute::default();
    if let Some(node) = fields.node("proxy") {
        let mut found = Report::default();
        many(route.proxies.insert(Vec::new()), node, &mut found, Entry::parse);
        report.absorb(found, "proxy: ");
    }
    if let Some(node) = fields.node("dns") {
        let mut found = Report::default();
        dns::read_list(route.dns.insert(Vec::new()), node, &mut found);
        report.absorb(found, "dns: ");
    }
    if !route.is_of_all() && matches!(target, Some(UpstreamTarget::File(_) | UpstreamTarget::Off)) {
        report.mistake("proxy and dns: only upstreams over http and https are reached over the network".to_owned());
    }
    route
}
