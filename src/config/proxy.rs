//! Reads the proxies that lead to the upstreams: `-proxy`, its variables, and the key `proxy` of one upstream.
//!
//! Owns the types they are read into. Called by the settings table and by `route`; calls `net` for hosts and masked
//! URLs. A rejected text is never repeated: it may hold a password. A comma separates proxies, so one inside a password
//! is written `%2C`.
//! Source: the settings go-proxy documents; RFC 1929 (lengths for SOCKS5), RFC 7617 section 2 (no colon in a user name).

use std::fmt;

use url::Url;

use crate::net::redacted::RedactedUrl;
use crate::net::target::Host;

/// The length of a user name or a password in SOCKS5 is one byte.
const SOCKS_CREDENTIAL_BYTES_MAX: usize = 255;

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// HTTP: CONNECT, and whole addresses for `http://` upstreams.
    Http,
    /// The same inside TLS.
    Https,
    /// SOCKS5; names are resolved here.
    Socks5,
    /// SOCKS5; names are resolved by the proxy.
    Socks5h,
}

/// A proxy that leads to the upstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyServer {
    /// How it is spoken to.
    pub kind: ProxyKind,
    /// Its host, by name or by address.
    pub host: Host,
    /// Its port: 80, 443 or 1080 where the URL names none.
    pub port: u16,
    /// The URL it was written as; may hold credentials.
    pub url: RedactedUrl,
}

/// One entry of a list of proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyEntry {
    /// No proxy.
    Direct,
    /// Through this one.
    Server(ProxyServer),
}

impl fmt::Display for ProxyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Server(server) => server.url.fmt(f),
        }
    }
}

/// Reads `direct` or the URL of a proxy; without a scheme it is taken as `http://`.
pub(super) fn parse(text: &str) -> Result<ProxyEntry, String> {
    const EXPECTED: &str = "not a proxy: write http://host:port, https://…, socks5://…, socks5h://… or direct";
    if text == "direct" {
        return Ok(ProxyEntry::Direct);
    }
    let scheme = if text.contains("://") { "" } else { "http://" };
    let url = Url::parse(&format!("{scheme}{text}")).map_err(|_| EXPECTED)?;
    let (kind, port) = match url.scheme() {
        "http" => (ProxyKind::Http, 80),
        "https" => (ProxyKind::Https, 443),
        "socks5" => (ProxyKind::Socks5, 1080),
        "socks5h" => (ProxyKind::Socks5h, 1080),
        _ => return Err("the scheme must be http, https, socks5 or socks5h".to_owned()),
    };
    let has_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
    let Some(host) = host(&url).filter(|_| !has_more) else { return Err(EXPECTED.to_owned()) };
    let port = url.port().unwrap_or(port);
    let url = RedactedUrl::new(url);
    check_credentials(kind, &url)?;
    Ok(ProxyEntry::Server(ProxyServer { kind, host, port, url }))
}

/// Says what is wrong with credentials that could not be sent.
fn check_credentials(kind: ProxyKind, url: &RedactedUrl) -> Result<(), String> {
    let (_, Some((user, password))) = url.split_credentials() else { return Ok(()) };
    match kind {
        ProxyKind::Http | ProxyKind::Https if user.contains(':') => {
            Err("a user name with a colon cannot be sent to an HTTP proxy".to_owned())
        }
        ProxyKind::Socks5 | ProxyKind::Socks5h
            if user.len().max(password.reveal().len()) > SOCKS_CREDENTIAL_BYTES_MAX =>
        {
            Err("user name and password of a SOCKS5 proxy have 255 bytes at most".to_owned())
        }
        ProxyKind::Http | ProxyKind::Https | ProxyKind::Socks5 | ProxyKind::Socks5h => Ok(()),
    }
}

/// Returns the host of a URL, if it is an address or can be the name of one.
pub(super) fn host(url: &Url) -> Option<Host> {
    let host = Host::parse(url.host_str()?);
    let Host::Name(name) = &host else { return Some(host) };
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // What ends in a number is an address with a slip in it.
    let is_name =
        name.split('.').all(is_label) && name.split('.').next_back().is_some_and(|label| label.parse::<u64>().is_err());
    is_name.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every proxy scheme of go-proxy is read, with the port of its scheme; credentials are kept but never printed.
    #[test]
    fn proxies() {
        let cases = [
            ("http://proxy-server:8080", ProxyKind::Http, 8080, "http://proxy-server:8080"),
            ("https://proxy-server", ProxyKind::Https, 443, "https://proxy-server"),
            ("proxy-server:8080", ProxyKind::Http, 8080, "http://proxy-server:8080"),
            ("192.0.2.1", ProxyKind::Http, 80, "http://192.0.2.1"),
            ("socks5://socks5-server:1080", ProxyKind::Socks5, 1080, "socks5://socks5-server:1080"),
            ("socks5://u:s3cret%2C@192.0.2.1", ProxyKind::Socks5, 1080, "socks5://***@192.0.2.1"),
            ("socks5h://u:s3cret@[::1]", ProxyKind::Socks5h, 1080, "socks5h://***@[::1]"),
        ];
        for (text, kind, port, printed) in cases {
            let entry = parse(text).unwrap();
            assert_eq!(entry.to_string(), printed);
            assert!(!format!("{entry:?}").contains("s3cret"));
            let ProxyEntry::Server(server) = entry else { panic!("{text}") };
            assert_eq!((server.kind, server.port), (kind, port), "{text}");
        }
        assert_eq!(parse("direct"), Ok(ProxyEntry::Direct));
    }

    /// What is no proxy, or could never be spoken to, is a mistake that repeats nothing.
    #[test]
    fn mistakes() {
        let long = format!("socks5://u:{}@h", "s3cret".repeat(50));
        for (text, expected) in [
            ("", "not a proxy"),
            ("ftp://s3cret", "the scheme must be http, https, socks5 or socks5h"),
            ("socks4://h:1", "the scheme"),
            ("socks5://", "not a proxy"),
            ("socks5://u:s3cret", "not a proxy"),
            ("http://h/s3cret", "not a proxy"),
            ("http://h?s3cret", "not a proxy"),
            ("socks5://10.0.0", "not a proxy"),
            ("socks5://a..b", "not a proxy"),
            ("http://u%3As3cret:x@h", "colon"),
            (long.as_str(), "255 bytes"),
        ] {
            let mistake = parse(text).unwrap_err();
            assert!(mistake.contains(expected) && !mistake.contains("s3cret"), "{text}: {mistake}");
        }
    }
}
