//! Reads the settings that name places on the network: listen addresses, proxies, DNS servers, checksum databases.
//!
//! Owns the types they are read into. Called by the settings table; calls `net::redacted`. Rejected texts are never
//! repeated: a proxy's URL may hold a password.
//! Source: the settings go-proxy documents; for GOSUMDB the go command's reference, section "Environment variables".

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

use crate::net::redacted::{RedactedUrl, Secret};

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    /// The address of an interface, or the unspecified one for all.
    pub address: IpAddr,
    /// The port, where it differs from `-port`.
    pub port: Option<u16>,
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

/// Reads `127.0.0.1`, `::1`, `[::1]`, `127.0.0.1:8080` or `[::1]:8080`.
pub(super) fn parse_listen(text: &str) -> Result<ListenAddress, String> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok(ListenAddress { address: socket.ip(), port: Some(socket.port()) });
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse()
        .map(|address| ListenAddress { address, port: None })
        .map_err(|_| "not an address of this machine, such as 127.0.0.1, ::1 or 192.168.1.5:8080".to_owned())
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// HTTP with CONNECT. The scheme `https` means this too, as in go-proxy.
    Http,
    /// SOCKS5; names are resolved here.
    Socks5,
    /// SOCKS5; names are resolved by the proxy.
    Socks5h,
}

/// A proxy that leads to the upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyServer {
    /// How it is spoken to.
    pub kind: ProxyKind,
    /// Its URL, always with a host; may hold credentials.
    pub url: RedactedUrl,
    /// Its port: 80, 443 or 1080 where the URL names none.
    pub port: u16,
}

/// Reads the URL of a proxy; without a scheme it is taken as `http://`.
pub(super) fn parse_proxy(text: &str) -> Result<ProxyServer, String> {
    const EXPECTED: &str = "not a proxy: write http://host:port, https://…, socks5://… or socks5h://…";
    let scheme = if text.contains("://") { "" } else { "http://" };
    let url = Url::parse(&format!("{scheme}{text}")).map_err(|_| EXPECTED)?;
    let (kind, port) = match url.scheme() {
        "http" => (ProxyKind::Http, 80),
        "https" => (ProxyKind::Http, 443),
        "socks5" => (ProxyKind::Socks5, 1080),
        "socks5h" => (ProxyKind::Socks5h, 1080),
        _ => return Err("the scheme must be http, https, socks5 or socks5h".to_owned()),
    };
    let has_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
    if url.host_str().is_none_or(str::is_empty) || has_more {
        return Err(EXPECTED.to_owned());
    }
    Ok(ProxyServer { kind, port: url.port().unwrap_or(port), url: RedactedUrl::new(url) })
}

/// How a DNS server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DnsTransport {
    /// Plain DNS, port 53.
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
    /// A name or an address, the latter without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// For HTTPS the path with its slash; empty otherwise.
    pub path: String,
    /// For HTTPS the query, where keys may stand.
    pub query: Option<Secret>,
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
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)?;
        f.write_str(&self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// Reads `8.8.8.8:53`, `udp://…`, `tcp://…`, `https://host/dns-query`, `tls://host[:853]` or `quic://host[:853]`.
pub(super) fn parse_dns(text: &str) -> Result<DnsServer, String> {
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
    let host = match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(Host::Domain(_)) | None => return Err(EXPECTED.to_owned()),
    };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(EXPECTED.to_owned());
    }
    let is_https = transport == DnsTransport::Https;
    if !is_https && (!matches!(url.path(), "" | "/") || url.query().is_some()) {
        return Err(EXPECTED.to_owned());
    }
    let path = if is_https { url.path().to_owned() } else { String::new() };
    let query = url.query().map(Secret::new);
    Ok(DnsServer { transport, host, port: url.port().unwrap_or(port), path, query })
}

/// A checksum database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChecksumDatabase {
    /// Its name, or its verifier key `NAME+HASH+KEY`, which is public.
    pub key: String,
    /// Where it is, if not at `https://NAME`.
    pub url: Option<RedactedUrl>,
}

impl fmt::Display for ChecksumDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        self.url.as_ref().map_or(Ok(()), |url| write!(f, " {url}"))
    }
}

/// Reads `off`, `NAME`, `NAME+HASH+KEY`, each of the latter two with a URL behind it or not.
pub(super) fn parse_gosumdb(text: &str) -> Result<Option<ChecksumDatabase>, String> {
    const EXPECTED: &str = "not a checksum database: write off, NAME, NAME+HASH+KEY, or one of these and a URL";
    let words: Vec<&str> = text.split_whitespace().collect();
    let (key, url) = match words.as_slice() {
        ["off"] => return Ok(None),
        [key] => (*key, None),
        [key, url] => {
            let url = Url::parse(url).map_err(|_| EXPECTED)?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err("the scheme of the checksum database's URL must be https or http".to_owned());
            }
            (*key, Some(RedactedUrl::new(url)))
        }
        _ => return Err(EXPECTED.to_owned()),
    };
    let mut parts = key.splitn(3, '+');
    let name = parts.next().unwrap_or("");
    let name_is_good = !name.is_empty() && !name.contains(['@', ':', '?', '#', ',']);
    let key_is_good = match (parts.next(), parts.next()) {
        (None, None) => true,
        (Some(hash), Some(key)) => hash.len() == 8 && u32::from_str_radix(hash, 16).is_ok() && !key.is_empty(),
        (Some(_) | None, _) => false,
    };
    if !name_is_good || !key_is_good {
        return Err(EXPECTED.to_owned());
    }
    Ok(Some(ChecksumDatabase { key: key.to_owned(), url }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form of a DNS server that go-proxy knows is read, with the port of its transport.
    #[test]
    fn dns_servers() {
        let cases = [
            ("8.8.8.8:53", "udp://8.8.8.8:53"),
            ("8.8.8.8", "udp://8.8.8.8:53"),
            ("udp://8.8.8.8", "udp://8.8.8.8:53"),
            ("2001:db8::1", "udp://[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "udp://[2001:db8::1]:5353"),
            ("dns.example:54", "udp://dns.example:54"),
            ("tcp://8.8.8.8", "tcp://8.8.8.8:53"),
            ("tls://1.1.1.1:853", "tls://1.1.1.1:853"),
            ("tls://dns.example", "tls://dns.example:853"),
            ("quic://dns.adguard.com:853", "quic://dns.adguard.com:853"),
            ("https://cloudflare-dns.com/dns-query", "https://cloudflare-dns.com:443/dns-query"),
            ("https://1.1.1.1/dns-query", "https://1.1.1.1:443/dns-query"),
            ("https://dns.example/q?key=s3cret", "https://dns.example:443/q?***"),
        ];
        for (text, printed) in cases {
            assert_eq!(parse_dns(text).unwrap().to_string(), printed, "{text}");
        }
        for text in ["", "ftp://s3cret", "8.8.8.8:99999", "tls://", "udp://h/s3cret", "https://u:s3cret@h/q", "a b"] {
            let mistake = parse_dns(text).unwrap_err();
            assert!(!mistake.contains("s3cret"), "{text}: {mistake}");
        }
    }

    /// Every proxy scheme of go-proxy is read; credentials are kept but never printed.
    #[test]
    fn proxies() {
        let cases = [
            ("http://proxy-server:8080", ProxyKind::Http, 8080, "http://proxy-server:8080"),
            ("https://proxy-server", ProxyKind::Http, 443, "https://proxy-server"),
            ("proxy-server:8080", ProxyKind::Http, 8080, "http://proxy-server:8080"),
            ("socks5://socks5-server:1080", ProxyKind::Socks5, 1080, "socks5://socks5-server:1080"),
            ("socks5h://u:s3cret@[::1]", ProxyKind::Socks5h, 1080, "socks5h://***@[::1]"),
        ];
        for (text, kind, port, printed) in cases {
            let proxy = parse_proxy(text).unwrap();
            assert_eq!((proxy.kind, proxy.port, proxy.url.to_string().as_str()), (kind, port, printed));
        }
        for text in ["", "ftp://s3cret", "socks5://", "http://h/s3cret", "socks4://h:1", "http://h?s3cret"] {
            let mistake = parse_proxy(text).unwrap_err();
            assert!(!mistake.contains("s3cret"), "{text}: {mistake}");
        }
    }

    /// GOSUMDB's forms are read; `off` is none.
    #[test]
    fn databases() {
        assert_eq!(parse_gosumdb("off"), Ok(None));
        for text in ["sum.example", "sum.example/db", "sum.example+1234abcd+Afoo+/x=", "sum.example https://a.example"]
        {
            assert_eq!(parse_gosumdb(text).unwrap().unwrap().to_string(), text);
        }
        for text in
            ["", "a b c", "sum.example ftp://a", "sum.example+12+A", "sum.example+1234abcd", "https://sum.example"]
        {
            assert!(parse_gosumdb(text).is_err(), "{text}");
        }
    }

    /// Listen addresses may carry a port of their own.
    #[test]
    fn listen_addresses() {
        for (text, printed) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::", "::"),
            ("[::1]", "::1"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(parse_listen(text).unwrap().to_string(), printed);
        }
        for text in ["", "eth0", "localhost:80", "1.2.3.4:x", ":80"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }
}
