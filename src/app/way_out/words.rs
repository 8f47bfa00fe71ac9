//! What people are told of the way out, at a start and by `check-config`.
//!
//! Called by `way_out`, `announce` and `upstreams`; calls `config` and `net` for names, which come masked from there: no
//! secret gets into a line.

use crate::config::{Config, UpstreamRoute, UpstreamTarget};
use crate::net::egress::{Egress, Route};
use crate::net::proxy::{Entry, Kind, ServerConfig};
use crate::net::target::{Host, Target};

/// What a line is about, and what it says.
pub(in crate::app) type Line = (&'static str, String);

/// Returns the lines for the way that all upstreams share; nothing for a direct one with the system's resolver.
pub(super) fn lines(config: &Config, of_all: &Route) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, entry) in config.proxies.iter().enumerate() {
        let then = if index == 0 { "" } else { "else " };
        match entry {
            Entry::Direct if config.proxies.len() == 1 => {}
            Entry::Direct => lines.push(("proxy", format!("{then}none, directly"))),
            Entry::Server(server) => {
                let who = match server.kind {
                    Kind::Socks5 if of_all.resolver.is_system() => "given addresses",
                    Kind::Socks5 => "given addresses: names of upstreams are resolved here",
                    Kind::Http | Kind::Https | Kind::Socks5h => "given names, which it resolves itself",
                };
                lines.push(("proxy", format!("{then}{}, {who}", with_port(server))));
            }
        }
    }
    let is_given_addresses =
        |entry: &Entry| matches!(entry, Entry::Server(server) if matches!(server.kind, Kind::Socks5));
    if config.proxies.iter().any(is_given_addresses) && of_all.resolver.is_system() {
        let text =
            "of upstreams are looked up by the system's resolver, past the proxy: -dns or socks5h:// prevents it";
        lines.push(("names", text.to_owned()));
    }
    if of_all.proxies.has_proxies() && !config.no_proxy.is_empty() {
        lines.push(("no proxy", format!("for {}", config.no_proxy)));
    }
    lines.extend(of_all.resolver.ways().into_iter().map(|way| ("dns", way)));
    if of_all.proxies.resolves_names() && !config.dns.is_empty() && !is_past_the_proxies(config, of_all) {
        let text = "not asked for the names of upstreams, which the proxy resolves; only for what no proxy leads to";
        lines.push(("dns", text.to_owned()));
    }
    let servers = config.dns_bootstrap.iter().map(ToString::to_string).collect::<Vec<_>>().join(", else ");
    if !servers.is_empty() {
        lines.push(("bootstrap", format!("{servers} directly, for the names of proxies and DNS servers")));
    } else if has_names(config) {
        lines.push(("bootstrap", "the system's resolver, for the names of proxies and DNS servers".to_owned()));
    }
    for (name, path) in &config.platform_ca {
        lines.push(("trusts", format!("{} ({name}) instead of this machine's root certificates", path.display())));
    }
    for (files, whom) in [(&config.ca, "everybody"), (&config.dns_ca, "DNS servers")] {
        lines.extend(files.iter().map(|path| ("trusts", format!("{} too, for {whom}", path.display()))));
    }
    lines
}

/// Returns a proxy's name with its port, which is not always the one that people expect where none is written.
fn with_port(server: &ServerConfig) -> String {
    let port = format!(":{}", server.port);
    if server.name.ends_with(&port) { server.name.clone() } else { format!("{}{port}", server.name) }
}

/// Tells whether all upstreams are reached directly though there are proxies, since `NO_PROXY` covers them.
fn is_past_the_proxies(config: &Config, of_all: &Route) -> bool {
    let public = config.upstreams.iter().map(|entry| (&entry.target, &entry.route));
    let private = config.private_upstreams.iter().map(|entry| (&entry.target, &entry.route));
    let mut targets = public.chain(private).filter(|(_, own)| own.proxies.is_none()).filter_map(|(at, _)| place(at));
    targets.all(|to| of_all.proxies.is_direct(&to))
}

/// Returns where an upstream is on the network.
fn place(upstream: &UpstreamTarget) -> Option<Target> {
    match upstream {
        UpstreamTarget::Http(url) => {
            let (url, _) = url.split_credentials();
            Some(Target { host: Host::parse(url.host_str()?), port: url.port_or_known_default()? })
        }
        UpstreamTarget::File(_) | UpstreamTarget::Off => None,
    }
}

/// Tells whether a proxy or a DNS server is named by a name.
fn has_names(config: &Config) -> bool {
    let routes = config.upstreams.iter().map(|entry| &entry.route);
    let routes: Vec<_> = routes.chain(config.private_upstreams.iter().map(|entry| &entry.route)).collect();
    let proxies = routes.iter().filter_map(|route| route.proxies.as_ref()).chain([&config.proxies]).flatten();
    let dns = routes.iter().filter_map(|route| route.dns.as_ref()).chain([&config.dns]).flatten();
    let of_proxies = proxies.filter_map(|entry| match entry {
        Entry::Direct => None,
        Entry::Server(server) => Some(&server.host),
    });
    of_proxies.chain(dns.map(|server| &server.host)).any(|host| matches!(host, Host::Name(_)))
}

/// Returns how one upstream is reached, to follow its name: nothing if as all others.
pub(in crate::app) fn of_one(target: &UpstreamTarget, own: &UpstreamRoute, egress: &Egress) -> String {
    let Route { proxies, resolver } = egress.route();
    let is_excepted = proxies.has_proxies() && place(target).is_some_and(|to| proxies.is_direct(&to));
    let way = own.proxies.as_ref().map(|_| {
        if proxies.has_proxies() {
            format!(" through {}", proxies.names().join(", else "))
        } else {
            " directly".to_owned()
        }
    });
    let way = way.or_else(|| is_excepted.then(|| " directly (no-proxy)".to_owned()));
    // Whoever has an upstream reached past the proxies shall know that its name gets to the system's resolver.
    let is_to_tell = own.dns.is_some() || ((own.is_direct() || is_excepted) && resolver.is_system());
    let look_up = (is_to_tell && (is_excepted || !proxies.resolves_names())).then(|| {
        let by =
            if resolver.is_system() { "the system's resolver".to_owned() } else { resolver.ways().join(", else ") };
        format!(", its name looked up by {by}")
    });
    way.unwrap_or_default() + &look_up.unwrap_or_default()
}
