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

    /// Splits off the user name and the password, decoded: what `Authorization: Basic` is made of.
    ///
    /// The query stays in the URL, so that it is still not fit for printing.
    pub fn split_credentials(&self) -> (Url, Option<(String, Secret)>) {
        let credentials = self.has_credentials().then(|| {
            let password = self.0.password().unwrap_or("");
            (percent_decoded(self.0.username()), Secret::new(percent_decoded(password)))
        });
        let mut url = self.0.clone();
        // Both fail only for URLs that cannot have credentials, and then there is nothing to take out.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        (url, credentials)
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

/// Decodes `%41` to `A`. What is no escape stays, and what is not UTF-8 afterwards is replaced.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            Some(_) | None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
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

    /// Credentials come out of a URL decoded, and the URL is left without them.
    #[test]
    fn credentials_split_off() {
        let cases = [
            ("https://a.example/x", "https://a.example/x", None),
            ("https://user:p%40s%3as%@a.example/x", "https://a.example/x", Some(("user", "p@s:s%"))),
            ("https://token@a.example/", "https://a.example/", Some(("token", ""))),
            ("http://:%C3%A9@a.example/", "http://a.example/", Some(("", "é"))),
        ];
        for (text, bare, expected) in cases {
            let (url, credentials) = RedactedUrl::new(Url::parse(text).unwrap()).split_credentials();
            assert_eq!(url.as_str(), bare);
            let credentials = credentials.as_ref().map(|(user, password)| (user.as_str(), password.reveal()));
            assert_eq!(credentials, expected);
        }
    }
}
