//! Proxies as they are configured: how to speak to one, where it is, what it wants to know.
//!
//! Owns [`Entry`] and [`ServerConfig`]. Made by `config`, read by `proxy`; calls nothing. Texts never repeat what was
//! given, since that may hold a password. A comma separates entries, so one inside a password is written `%2C`.
//! Source: the settings go-proxy documents; RFC 1929 (lengths for SOCKS5), RFC 7617 section 2 (no colon in a user name).

use std::fmt;

use url::Url;

use crate::net::redacted::{RedactedUrl, Secret};
use crate::net::target::Host;

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP: `CONNECT`, and absolute addresses for plain http.
    Http,
    /// The same inside TLS.
    Https,
    /// SOCKS version 5, given addresses: names are resolved here.
    Socks5,
    /// SOCKS version 5, given names.
    Socks5h,
}

/// One proxy as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// How it is spoken to.
    pub kind: Kind,
    /// Where it is.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// User name and password, decoded.
    pub credentials: Option<(String, Secret)>,
    /// How it is called where people read it; without anything secret.
    pub name: String,
}

/// One place in the list of proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// No proxy: `direct`.
    Direct,
    /// A proxy.
    Server(ServerConfig),
}

impl Entry {
    /// Reads `direct` or `SCHEME://[USER[:PASSWORD]@]HOST[:PORT]`; without a scheme it is an HTTP proxy, as for Go.
    ///
    /// # Errors
    /// What is wrong; the text does not repeat what was given, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "not a proxy: write http://host:port, https://…, socks5://…, socks5h://… or direct";
        if text == "direct" {
            return Ok(Self::Direct);
        }
        let scheme = if text.contains("://") { "" } else { "http://" };
        let url = Url::parse(&format!("{scheme}{text}")).map_err(|_| EXPECTED)?;
        let (kind, usual_port) = match url.scheme() {
            "http" => (Kind::Http, 80),
            "https" => (Kind::Https, 443),
            "socks5" => (Kind::Socks5, 1080),
            "socks5h" => (Kind::Socks5h, 1080),
            _ => return Err("the scheme must be http, https, socks5 or socks5h".to_owned()),
        };
        let has_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
        let host = url.host_str().and_then(Host::checked).filter(|_| !has_more).ok_or(EXPECTED)?;
        let port = url.port().unwrap_or(usual_port);
        let url = RedactedUrl::new(url);
        let (_, credentials) = url.split_credentials();
        let is_socks = matches!(kind, Kind::Socks5 | Kind::Socks5h);
        let fits = |text: &str| (1..=255).contains(&text.len());
        if let Some((user, password)) = &credentials {
            if is_socks && !(fits(user) && fits(password.reveal())) {
                return Err("user name and password of a SOCKS5 proxy must have 1 to 255 bytes each".to_owned());
            }
            if user.contains(':') && !is_socks {
                return Err("the user name of an HTTP proxy must not hold a colon".to_owned());
            }
        }
        Ok(Self::Server(ServerConfig { kind, host, port, credentials, name: url.to_string() }))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Server(server) => &server.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        Ok(match Entry::parse(text)? {
            Entry::Direct => "direct".to_owned(),
            Entry::Server(ServerConfig { kind, host, port, credentials, name }) => {
                let credentials = credentials.map(|(user, password)| format!("{user} {}", password.reveal()));
                format!("{kind:?} {host} {port} {} {name}", credentials.unwrap_or_default())
            }
        })
    }

    /// What is written where a proxy is expected, and what it means.
    #[test]
    fn as_written() {
        for (text, expected) in [
            ("direct", "direct"),
            ("http://proxy.example:3128", "Http proxy.example 3128  http://proxy.example:3128"),
            ("proxy.example:3128", "Http proxy.example 3128  http://proxy.example:3128"),
            ("http://proxy.example/", "Http proxy.example 80  http://proxy.example"),
            ("https://Proxy.Example", "Https proxy.example 443  https://proxy.example"),
            ("socks5://u%40x:p%3A@[::1]", "Socks5 [::1] 1080 u@x p: socks5://***@[::1]"),
            ("socks5h://192.0.2.7:9050", "Socks5h 192.0.2.7 9050  socks5h://192.0.2.7:9050"),
            ("http://only-user@p.example:1", "Http p.example 1 only-user  http://***@p.example:1"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    /// What cannot be a proxy is refused, in words that do not repeat a password.
    #[test]
    fn mistakes() {
        for text in [
            "",
            "ftp://u:hunter2@p.example",
            "socks4://u:hunter2@p.example",
            "http://",
            "http://u:hunter2@p.example/path",
            "http://u:hunter2@p.example?x",
            "socks5://hunter2@p.example",
            "http://u%3Av:hunter2@p.example",
            "socks5://u:hunter2",
            "socks5://u:hunter2@10.0.0",
            "socks5://u:hunter2@a..b",
            "http://u:hunter2@p.example:99999",
        ] {
            let said = read(text).unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
