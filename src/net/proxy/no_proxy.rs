//! What is reached without a proxy though there is one: `NO_PROXY`, read as Go reads it.
//!
//! Owns [`NoProxy`]. Called by `config` and `proxy`; calls `cidr` and `target`. A list of entries between commas, each
//! with an optional `:port`: `*`; an address; a network `ADDRESS/BITS`; `example.com`, that name and all below it;
//! `.example.com` or `*.example.com`, all below it alone. Unlike Go, loopback is not left out by itself.
//! Source: golang.org/x/net/http/httpproxy.

use std::net::IpAddr;

use crate::net::cidr::Cidr;
use crate::net::target::{Host, Target};

/// Where no proxy is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    matches: Match,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Match {
    Everything,
    Network(Cidr),
    /// `.example.com`, and whether `example.com` itself is meant too.
    Names {
        below: String,
        itself: bool,
    },
}

impl NoProxy {
    /// Reads a list. What cannot be an entry is passed over, as Go does.
    pub fn parse(text: &str) -> Self {
        Self { rules: text.split(',').filter_map(|entry| rule(entry.trim())).collect() }
    }

    /// Tells whether `to` is reached without a proxy.
    pub fn covers(&self, to: &Target) -> bool {
        self.rules.iter().any(|rule| {
            rule.port.is_none_or(|port| port == to.port)
                && match (&rule.matches, &to.host) {
                    (Match::Everything, _) => true,
                    (Match::Network(network), Host::Address(address)) => network.contains(*address),
                    (Match::Names { below, itself }, Host::Name(name)) => {
                        name.ends_with(below) || (*itself && below.strip_prefix('.') == Some(name))
                    }
                    (Match::Network(_), Host::Name(_)) | (Match::Names { .. }, Host::Address(_)) => false,
                }
        })
    }
}

fn rule(entry: &str) -> Option<Rule> {
    if entry == "*" {
        return Some(Rule { matches: Match::Everything, port: None });
    }
    if let Some(network) = entry.contains('/').then(|| Cidr::parse(entry)) {
        return network.map(|network| Rule { matches: Match::Network(network), port: None });
    }
    let (host, port) = split_port(entry)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        return Some(Rule { matches: Match::Network(Cidr::new(address, bits)?), port });
    }
    let name = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let itself = !name.starts_with('.');
    let below = if itself { format!(".{name}") } else { name };
    (below.len() > 1).then_some(Rule { matches: Match::Names { below, itself }, port })
}

/// Splits `host:port`. A bare IPv6 address has no port, however many colons it has.
fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    if entry.parse::<IpAddr>().is_ok() {
        return Some((entry, None));
    }
    match entry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some((host, Some(port.parse().ok()?))),
        Some(_) | None => Some((entry, None)),
    }
    .filter(|(host, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(list: &str, to: &str) -> bool {
        let (host, port) = to.rsplit_once(':').unwrap();
        NoProxy::parse(list).covers(&Target { host: Host::parse(host), port: port.parse().unwrap() })
    }

    /// The entries mean what they mean to Go; the cases are those of its own tests where it has one.
    #[test]
    fn as_go_reads_it() {
        let list = "foobar.com, .barbaz.net, *.quux.org, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, \
                    2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64, port.example:8080, [fd00::7]";
        for (to, expected) in [
            ("localhost:80", false),
            ("127.0.0.1:80", false),
            ("[::1]:80", false),
            ("10.0.0.2:80", true),
            ("10.0.0.4:80", false),
            ("192.168.1.1:80", true),
            ("192.168.1.1:81", true),
            ("192.168.1.2:81", true),
            ("192.168.1.2:80", false),
            ("192.168.1.3:80", true),
            ("192.168.1.4:80", false),
            ("[::ffff:192.168.1.1]:80", true),
            ("[2001:db8::52:0:1]:80", true),
            ("[2001:db8::52:0:2]:443", true),
            ("[2001:db8::52:0:2]:80", false),
            ("[2001:db8::52:0:3]:80", true),
            ("[2002:db8:a::123]:80", true),
            ("[fe80::424b:c8be:1643:a1b6]:80", false),
            ("[fd00::7]:80", true),
            ("barbaz.net:80", false),
            ("www.barbaz.net:80", true),
            ("quux.org:80", false),
            ("www.quux.org:80", true),
            ("foobar.com:80", true),
            ("FOOBAR.com:443", true),
            ("www.foobar.com:80", true),
            ("foofoobar.com:80", false),
            ("baz.com:80", false),
            ("port.example:8080", true),
            ("below.port.example:8080", true),
            ("port.example:80", false),
        ] {
            assert_eq!(covers(list, to), expected, "{to}");
        }
    }

    /// A star covers everything; an empty list, and entries that mean nothing, cover nothing.
    #[test]
    fn stars_and_nonsense() {
        assert!(covers("a.example, *", "b.example:443"));
        assert!(covers("*", "[::1]:443"));
        for list in ["", ",", ":80", " , ", "10.0.0.0/99", "example.com:http", ".", "*."] {
            assert!(!covers(list, "example.com:80"), "{list}");
            assert!(!covers(list, "10.0.0.1:80"), "{list}");
        }
    }
}
