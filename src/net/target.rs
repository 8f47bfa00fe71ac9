//! Where a connection is to lead: a host by name or by address, and a port.
//!
//! Plain values, used by every part of the way out; calls nothing.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// By name, in lower case and without the root's dot.
    Name(String),
    /// By address.
    Address(IpAddr),
}

impl Host {
    /// Reads a host as it stands in a URL: an IPv6 address with its brackets or without, else IPv4, else a name.
    pub fn parse(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match bare.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()),
        }
    }

    /// Does as [`Host::parse`], and returns nothing for what is no address and cannot be the name of a host.
    pub fn checked(text: &str) -> Option<Self> {
        let host = Self::parse(text);
        let Self::Name(name) = &host else { return Some(host) };
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        // What ends in a number is an address with a slip in it.
        let is_slip = name.rsplit('.').next().is_some_and(|label| label.parse::<u64>().is_ok());
        (name.split('.').all(is_label) && !is_slip).then_some(host)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Address(address.ip()), port: address.port() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Tells whether an address belongs to this machine or to a network of the user's own, as RFC 1918, RFC 4193, RFC 3927
/// and RFC 6598 set them aside.
pub fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_local(IpAddr::V4(v4)),
            None => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts are read as URLs write them, and printed so that a port can follow.
    #[test]
    fn hosts() {
        for (text, printed) in
            [("A.Example.", "a.example:53"), ("192.0.2.1", "192.0.2.1:53"), ("[::1]", "[::1]:53"), ("::1", "[::1]:53")]
        {
            assert_eq!(Target { host: Host::parse(text), port: 53 }.to_string(), printed);
        }
    }

    /// Names that cannot be names are told from those that can.
    #[test]
    fn names_of_hosts() {
        for text in ["a", "A.Example.", "xn--bcher-kva.example", "my_host", "10.0.0.1", "::1", "[::1]", "1.example"] {
            assert_eq!(Host::checked(text), Some(Host::parse(text)), "{text}");
        }
        for text in ["", ".", "a..b", "10.0.0", "1", "a b", "a%20b", "[::1", "bücher.example"] {
            assert_eq!(Host::checked(text), None, "{text}");
        }
    }

    /// What is set aside for a site's own use is local; what is not, is not.
    #[test]
    fn local_addresses() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_local(text.parse().unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!is_local(text.parse().unwrap()), "{text}");
        }
    }
}
