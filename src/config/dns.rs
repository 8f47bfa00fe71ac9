//! Reads the DNS servers to ask instead of the system's: `-dns`, `-dns-bootstrap`, and the key `dns` of one upstream.
//!
//! Owns the types they are read into. Called by the settings table and by `route`; calls `net` for hosts and secrets. A
//! rejected text is never repeated: the address of a DNS over HTTPS server may hold somebody's key.
//! Source: the forms go-proxy documents; ports of RFC 1035, 7858 (TLS), 8484 (HTTPS), 9250 (QUIC).

use std::fmt;
use std::net::Ipv6Addr;

use url::Url;

use super::file::Node;
use super::sources::Report;
use super::values::{joined, many};
use crate::net::redacted::Secret;
use crate::net::target::Host;

/// The word for the resolver of the operating system.
const SYSTEM: &str = "system";

/// The paths that are shown. Providers with accounts put them into others, so those may be somebody's key.
const USUAL_PATHS: [&str; 3] = ["/dns-query", "/resolve", "/"];

/// How a DNS server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DnsTransport {
    /// Plain DNS, port 53; over a stream where an answer is too long.
    Udp,
    /// Plain DNS over a stream, port 53.
    Tcp,
    /// DNS over TLS, port 853.
    Tls,
    /// DNS over HTTPS, port 443, with a path.
    Https,
    /// DNS over QUIC, port 853.
    Quic,
}

/// A DNS server to ask instead of the system's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsServer {
    /// How it is asked.
    pub transport: DnsTransport,
    /// Its host, by name or by address.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// For HTTPS the path with its slash and its query, either of which may hold a key; empty otherwise.
    pub path: Secret,
    /// Its number among those that people could not tell from it without the key.
    pub number: Option<usize>,
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            DnsTransport::Udp => "udp",
            DnsTransport::Tcp => "tcp",
            DnsTransport::Tls => "tls",
            DnsTransport::Https => "https",
            DnsTransport::Quic => "quic",
        };
        write!(f, "{scheme}://{}", self.host)?;
        // A URL says nothing of the port everybody knows; elsewhere it tells people which one that is.
        if self.transport != DnsTransport::Https || self.port != 443 {
            write!(f, ":{}", self.port)?;
        }
        let path = self.path.reveal();
        let (shown, has_query) = path.split_once('?').map_or((path, false), |(path, _)| (path, true));
        if shown.is_empty() || USUAL_PATHS.contains(&shown) {
            write!(f, "{shown}{}", if has_query { "?***" } else { "" })?;
        } else {
            f.write_str("/***")?;
        }
        self.number.map_or(Ok(()), |number| write!(f, " ({number})"))
    }
}

/// Numbers those servers that would look alike though they are not the same, since what differs may be a key.
pub(super) fn tell_apart<'a>(servers: impl Iterator<Item = &'a mut DnsServer>) {
    let servers: Vec<_> = servers.collect();
    let mut different: Vec<(String, DnsServer)> = Vec::new();
    for server in &servers {
        if !different.iter().any(|(_, known)| known == *server) {
            different.push((server.to_string(), (*server).clone()));
        }
    }
    for server in servers {
        let text = server.to_string();
        let alike: Vec<_> = different.iter().filter(|(other, _)| *other == text).collect();
        let place = alike.iter().position(|(_, other)| other == server);
        server.number = place.filter(|_| alike.len() > 1).map(|place| place + 1);
    }
}

/// Which way DNS itself goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DnsRoute {
    /// Through the proxies where that is possible and makes sense.
    #[default]
    Auto,
    /// Through the proxies and never past them.
    Proxy,
    /// Past the proxies.
    Direct,
}

impl DnsRoute {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "proxy" => Ok(Self::Proxy),
            "direct" => Ok(Self::Direct),
            _ => Err("must be auto, proxy or direct".to_owned()),
        }
    }
}

impl fmt::Display for DnsRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Proxy => "proxy",
            Self::Direct => "direct",
        })
    }
}

/// Reads a list of servers, or the word `system`, which is an empty one.
pub(super) fn read_list(field: &mut Vec<DnsServer>, node: &Node, report: &mut Report) {
    if matches!(node, Node::Scalar(text) if text.trim() == SYSTEM) {
        field.clear();
        return;
    }
    many(field, node, report, |text| match text {
        SYSTEM => Err("system stands alone: its resolver is not one of several servers".to_owned()),
        _ => parse(text),
    });
}

/// Reads the list of servers that look up the names of proxies and of other DNS servers.
pub(super) fn read_bootstrap(field: &mut Vec<DnsServer>, node: &Node, report: &mut Report) {
    many(field, node, report, |text| {
        let server = parse(text)?;
        match server.host {
            Host::Address(_) => Ok(server),
            Host::Name(_) => Err("must be named by its address, such as 9.9.9.9 or tls://9.9.9.9".to_owned()),
        }
    });
}

/// Prints a list as it would be written, secrets masked.
pub(super) fn print_list(servers: &[DnsServer]) -> String {
    if servers.is_empty() { SYSTEM.to_owned() } else { joined(servers) }
}

/// Reads `8.8.8.8:53`, `udp://…`, `tcp://…`, `https://host[/dns-query]`, `tls://host[:853]` or `quic://host[:853]`.
fn parse(text: &str) -> Result<DnsServer, String> {
    const EXPECTED: &str =
        "not a DNS server: write 8.8.8.8:53, udp://host, tcp://host, tls://host, quic://host or https://host/dns-query";
    let text = if let Ok(address) = text.parse::<Ipv6Addr>() { format!("[{address}]") } else { text.to_owned() };
    let scheme = if text.contains("://") { "" } else { "udp://" };
    let url = Url::parse(&format!("{scheme}{text}")).map_err(|_| EXPECTED)?;
    let (transport, port) = match url.scheme() {
        "udp" => (DnsTransport::Udp, 53),
        "tcp" => (DnsTransport::Tcp, 53),
        "tls" => (DnsTransport::Tls, 853),
        "https" => (DnsTransport::Https, 443),
        "quic" => (DnsTransport::Quic, 853),
        _ => return Err("the scheme must be udp, tcp, tls, https or quic".to_owned()),
    };
    let host = url.host_str().and_then(Host::checked).ok_or(EXPECTED)?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(EXPECTED.to_owned());
    }
    let is_https = transport == DnsTransport::Https;
    if !is_https && (!matches!(url.path(), "" | "/") || url.query().is_some()) {
        return Err(EXPECTED.to_owned());
    }
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    let path = match url.path() {
        _ if !is_https => String::new(),
        // Nobody answers DNS where the home page is; every provider has it here.
        "" | "/" if query.is_empty() => USUAL_PATHS[0].to_owned(),
        path => format!("{path}{query}"),
    };
    let path = Secret::new(path);
    Ok(DnsServer { transport, host, port: url.port().unwrap_or(port), path, number: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form of a DNS server that go-proxy knows is read, with the port of its transport.
    #[test]
    fn servers() {
        let cases = [
            ("8.8.8.8:53", "udp://8.8.8.8:53"),
            ("8.8.8.8", "udp://8.8.8.8:53"),
            ("udp://8.8.8.8", "udp://8.8.8.8:53"),
            ("2001:db8::1", "udp://[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "udp://[2001:db8::1]:5353"),
            ("dns.example:54", "udp://dns.example:54"),
            ("tcp://8.8.8.8", "tcp://8.8.8.8:53"),
            ("tls://1.1.1.1:853", "tls://1.1.1.1:853"),
            ("tls://[2001:db8::1]", "tls://[2001:db8::1]:853"),
            ("tls://DNS.Example.", "tls://dns.example:853"),
            ("quic://dns.adguard.com:853", "quic://dns.adguard.com:853"),
            ("https://cloudflare-dns.com/dns-query", "https://cloudflare-dns.com/dns-query"),
            ("https://1.1.1.1:443/dns-query", "https://1.1.1.1/dns-query"),
            ("https://[2001:db8::1]:8443/dns-query", "https://[2001:db8::1]:8443/dns-query"),
            ("https://dns.example/resolve?key=s3cret", "https://dns.example/resolve?***"),
            ("https://1.1.1.1", "https://1.1.1.1/dns-query"),
            ("https://dns.example:8443/", "https://dns.example:8443/dns-query"),
            ("https://dns.example?s3cret", "https://dns.example/?***"),
            ("https://dns.example/s3cret", "https://dns.example/***"),
            ("https://dns.example/s3cret/dns-query", "https://dns.example/***"),
            ("https://dns.example/dns-query/s3cret?s3cret", "https://dns.example/***"),
        ];
        for (text, printed) in cases {
            let server = parse(text).unwrap();
            assert_eq!(server.to_string(), printed, "{text}");
            assert!(!format!("{server:?}").contains("s3cret"), "{text}");
        }
        for text in [
            "",
            "ftp://s3cret",
            "8.8.8.8:99999",
            "8.8.8",
            "tls://",
            "udp://h/s3cret",
            "https://u:s3cret@h/q",
            "a b",
            "tls://a..b",
        ] {
            let mistake = parse(text).unwrap_err();
            assert!(!mistake.contains("s3cret"), "{text}: {mistake}");
        }
    }

    /// Servers that differ in what is not shown are numbered, the same one alike wherever it stands.
    #[test]
    fn servers_that_look_alike() {
        let texts =
            ["https://a/key1", "https://b/key1", "https://a/key2?k", "https://a/key1", "https://a/dns-query", "a", "a"];
        let mut servers: Vec<_> = texts.iter().map(|text| parse(text).unwrap()).collect();
        tell_apart(servers.iter_mut());
        let printed: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let expected = ["https://a/*** (1)", "https://b/***", "https://a/*** (2)", "https://a/*** (1)"];
        assert_eq!(printed, [&expected[..], &["https://a/dns-query", "udp://a:53", "udp://a:53"]].concat());
    }

    /// A list keeps its order, `system` stands for none, and bootstrap servers have addresses.
    #[test]
    fn lists() {
        type Read = fn(&mut Vec<DnsServer>, &Node, &mut Report);
        let cases: [(Read, &str, &str); 7] = [
            (read_list, "8.8.8.8, tls://dns.example", "udp://8.8.8.8:53,tls://dns.example:853"),
            (read_list, " system ", "system"),
            (read_list, "", "system"),
            (read_list, "8.8.8.8,system", "entry 2: system stands alone"),
            (read_list, "8.8.8.8,s3cret://x", "entry 2: the scheme must be"),
            (read_bootstrap, "9.9.9.9,https://1.1.1.1/q", "udp://9.9.9.9:53,https://1.1.1.1/***"),
            (read_bootstrap, "9.9.9.9,tls://s3cret.example", "entry 2: must be named by its address"),
        ];
        for (read, text, expected) in cases {
            let (mut servers, mut report) = (Vec::new(), Report::default());
            read(&mut servers, &Node::Scalar(text.to_owned()), &mut report);
            let printed = if report.is_clean() { print_list(&servers) } else { report.mistakes.join("; ") };
            assert!(printed.starts_with(expected) && !printed.contains("s3cret"), "{text}: {printed}");
        }
    }
}
