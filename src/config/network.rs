//! Reads the settings that name places on the network: listen addresses and checksum databases.
//!
//! Owns the types they are read into. Called by the settings table; calls `net::redacted`. Rejected texts are never
//! repeated. Source: for GOSUMDB the go command's reference, section "Environment variables".

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use url::Url;

use crate::net::redacted::RedactedUrl;

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
