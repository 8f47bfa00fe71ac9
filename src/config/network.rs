//! Reads the settings that name places on the network: listen addresses and checksum databases.
//!
//! Owns the types they are read into. Called by the settings table; calls `net::redacted` and `sumdb::key`. Rejected texts
//! are never repeated. Source: for GOSUMDB the go command's reference, section "Environment variables".

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use url::Url;

use super::table::DEFAULT_DATABASE;
use crate::net::redacted::RedactedUrl;
use crate::sumdb::{SumdbName, VerifierKey};

/// A second address of the public database, which the go command knows as well.
const PUBLIC_ELSEWHERE: &str = "sum.golang.google.cn";

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
    /// What it is called.
    pub name: SumdbName,
    /// What it signs with.
    pub key: VerifierKey,
    /// Its name, or its verifier key `NAME+HASH+KEY`, as it was written; both are public.
    text: String,
    /// Where it is, if not at `https://NAME`: it is asked there alone.
    pub url: Option<RedactedUrl>,
}

/// What becomes of a module that cannot be judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SumdbMode {
    /// It is served, and judged later.
    #[default]
    WhenReachable,
    /// It is refused.
    Strict,
}

impl SumdbMode {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "when-reachable" => Ok(Self::WhenReachable),
            "strict" => Ok(Self::Strict),
            _ => Err("must be when-reachable or strict".to_owned()),
        }
    }
}

impl fmt::Display for SumdbMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WhenReachable => "when-reachable",
            Self::Strict => "strict",
        })
    }
}

impl fmt::Display for ChecksumDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.url.as_ref().map_or(Ok(()), |url| write!(f, " {url}"))
    }
}

/// Reads `off`, `NAME`, `NAME+HASH+KEY`, each of the latter two with a URL behind it or not.
pub(super) fn parse_gosumdb(text: &str) -> Result<Option<ChecksumDatabase>, String> {
    if text == "off" { Ok(None) } else { parse_database(text).map(Some) }
}

/// Reads a database in the notation of `GOSUMDB`.
pub(super) fn parse_database(text: &str) -> Result<ChecksumDatabase, String> {
    const EXPECTED: &str = "not a checksum database: write off, NAME, NAME+HASH+KEY, or one of these and a URL";
    let words: Vec<&str> = text.split_whitespace().collect();
    let (name, url) = match words.as_slice() {
        [key] => (*key, None),
        [key, url] => (*key, Some(*url)),
        _ => return Err(EXPECTED.to_owned()),
    };
    let mut url = url.map(parse_database_url).transpose()?;
    let mut known = name;
    if name == PUBLIC_ELSEWHERE && url.is_none() {
        known = DEFAULT_DATABASE;
        url = Some(parse_database_url(&format!("https://{PUBLIC_ELSEWHERE}"))?);
    }
    let key = VerifierKey::known_or_parse(known).map_err(|err| {
        if name.contains('+') { err.to_string() } else { format!("no key is known for that name: {EXPECTED}") }
    })?;
    let name = key.sumdb_name().map_err(|err| err.to_string())?;
    Ok(ChecksumDatabase { name, key, text: known.to_owned(), url })
}

fn parse_database_url(text: &str) -> Result<RedactedUrl, String> {
    let url = Url::parse(text).map_err(|_| "the URL of the checksum database is malformed".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("the scheme of the checksum database's URL must be https or http".to_owned());
    }
    Ok(RedactedUrl::new(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GOSUMDB's forms are read; `off` is none, and a name without a known key is a mistake that says so.
    #[test]
    fn databases() {
        const KEY: &str = "sumdb.larder.test+e24d73c1+AQA+TtU6aYYswr4RvCm+mgVkJtDtfXpK4sI4khEPfBkm";
        assert_eq!(parse_gosumdb("off"), Ok(None));
        let with_url = format!("{KEY} https://a.example/db");
        for text in [DEFAULT_DATABASE, KEY, &with_url] {
            assert_eq!(parse_gosumdb(text).unwrap().unwrap().to_string(), text);
        }
        let elsewhere = parse_database(PUBLIC_ELSEWHERE).unwrap();
        assert_eq!(elsewhere.name.as_str(), DEFAULT_DATABASE);
        assert_eq!(elsewhere.url.unwrap().to_string(), format!("https://{PUBLIC_ELSEWHERE}"));
        let damaged = KEY.replace("AQA+T", "AQA+t");
        let ftp = format!("{KEY} ftp://a");
        for text in ["", "a b c", &ftp, "sum.example+12+A", "sum.example+1234abcd", "https://sum.example", &damaged] {
            assert!(parse_gosumdb(text).is_err(), "{text}");
        }
        assert!(parse_gosumdb("sum.example").unwrap_err().contains("no key is known"));
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
