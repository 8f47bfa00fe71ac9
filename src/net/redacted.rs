//! Keeps what is secret out of every text: logs, errors, pages, `check-config`.
//!
//! Owns `RedactedUrl` and `Secret`. Used by everything that holds an upstream's address or credentials; calls
//! nothing. Printing either, by `Display` or `Debug`, never shows a user name, a password, a query or a token.

use std::fmt;

use url::Url;

/// What is printed in place of a secret.
pub const MASK: &str = "***";

/// A URL that may hold credentials: printing it masks them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RedactedUrl(Url);

impl RedactedUrl {
    /// Wraps a URL.
    pub fn new(url: Url) -> Self {
        Self(url)
    }

    /// Returns the URL with everything in it, for sending a request and nothing else.
    pub fn reveal(&self) -> &Url {
        &self.0
    }

    /// Tells whether the URL names a user or a password.
    pub fn has_credentials(&self) -> bool {
        !self.0.username().is_empty() || self.0.password().is_some()
    }
}

impl From<Url> for RedactedUrl {
    fn from(url: Url) -> Self {
        Self::new(url)
    }
}

impl fmt::Display for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.0.scheme())?;
        if let Some(host) = self.0.host_str() {
            let credentials = if self.has_credentials() { "***@" } else { "" };
            write!(f, "//{credentials}{host}")?;
            if let Some(port) = self.0.port() {
                write!(f, ":{port}")?;
            }
        } else if self.0.has_authority() {
            f.write_str("//")?;
        }
        // A bare slash says nothing: people do not write it either.
        let path = self.0.path();
        f.write_str(if path == "/" { "" } else { path })?;
        if self.0.query().is_some() {
            write!(f, "?{MASK}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A password, a token or another text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for sending it where it belongs and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// User names, passwords, queries and fragments never show; everything else does.
    #[test]
    fn credentials_are_masked() {
        let cases = [
            ("https://a.example", "https://a.example"),
            ("https://a.example/", "https://a.example"),
            ("https://user:pass@a.example:8443/go/", "https://***@a.example:8443/go/"),
            ("https://token@a.example", "https://***@a.example"),
            ("https://:pass@a.example", "https://***@a.example"),
            ("http://a.example/p?token=abc#frag", "http://a.example/p?***"),
            ("socks5://u:p@[::1]:1080", "socks5://***@[::1]:1080"),
            ("file:///srv/modules", "file:///srv/modules"),
        ];
        for (text, printed) in cases {
            let url = RedactedUrl::new(Url::parse(text).unwrap());
            assert_eq!(url.to_string(), printed);
            assert_eq!(format!("{url:?}"), format!("\"{printed}\""));
            assert_eq!(url.reveal().as_str(), Url::parse(text).unwrap().as_str());
        }
        assert_eq!(format!("{0} {0:?}", Secret::new("hunter2")), "*** ***");
    }
}
