//! Reads where modules come from: the ordered list of upstreams and the private ones.
//!
//! Owns the types a list is read into. Called by the settings table; calls `net::redacted`. Nothing here repeats a
//! rejected text, since it may hold a password.
//! Source: Go modules reference, section "GOPROXY protocol" and the variable GOPROXY, whose syntax this is.
//!
//! ```text
//! list  = entry { ("," | "|") entry }     after ",": next one on 404, 410 and when retries are spent
//! entry = URL | "off" | "direct"          after "|": next one on any failure
//! ```

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::file::Node;
use super::sources::Report;
use crate::net::redacted::{RedactedUrl, Secret};

/// What makes the next upstream of the list be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fallthrough {
    /// A comma: 404, 410, and a transient failure once the retries are spent.
    #[default]
    Comma,
    /// A pipe: any failure.
    Pipe,
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamTarget {
    /// A server that speaks the GOPROXY protocol, over http or https.
    Http(RedactedUrl),
    /// A directory laid out as Go's download cache is: an absolute path.
    File(PathBuf),
    /// The word `off`: nothing is asked from here on.
    Off,
}

/// One entry of the list of upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamEntry {
    /// Where it is.
    pub target: UpstreamTarget,
    /// What stands between this entry and the next; of no meaning in the last.
    pub fallthrough: Fallthrough,
}

/// An upstream that alone is asked for the modules of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateUpstream {
    /// Globs in the syntax of GOPRIVATE, well formed.
    pub pattern: String,
    /// Where it is; never `Off`.
    pub target: UpstreamTarget,
    /// How Larder introduces itself there.
    pub auth: Option<UpstreamAuth>,
}

/// How Larder introduces itself to a private upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAuth {
    /// `Authorization: Basic …`.
    Basic {
        /// The name before the first colon.
        user: String,
        /// What follows it.
        password: Secret,
    },
    /// `Authorization: Bearer …`.
    Bearer(Secret),
    /// A header of any name.
    Header {
        /// The name, valid and in lower case.
        name: http::HeaderName,
        /// The value, valid in a header.
        value: Secret,
    },
}

impl fmt::Display for UpstreamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

impl fmt::Display for PrivateUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.pattern, self.target)?;
        match &self.auth {
            None => Ok(()),
            Some(UpstreamAuth::Basic { password, .. }) => write!(f, " (basic {password})"),
            Some(UpstreamAuth::Bearer(token)) => write!(f, " (bearer {token})"),
            Some(UpstreamAuth::Header { name, value }) => write!(f, " (header {name}: {value})"),
        }
    }
}

/// Prints a list as it would be written, with its secrets masked.
pub(super) fn print_list(entries: &[UpstreamEntry]) -> String {
    let mut text = String::new();
    for (index, entry) in entries.iter().enumerate() {
        text.push_str(&entry.target.to_string());
        if index + 1 < entries.len() {
            text.push(if entry.fallthrough == Fallthrough::Pipe { '|' } else { ',' });
        }
    }
    text
}

/// Reads a list of upstreams.
///
/// `direct` ends the list with a warning, so that a value copied from a developer's GOPROXY works; a list of nothing
/// else is a mistake.
pub(super) fn parse_list(text: &str, report: &mut Report) -> Vec<UpstreamEntry> {
    let mut entries = Vec::new();
    let mut rest = text;
    let mut number = 0;
    while !rest.is_empty() {
        let end = rest.find([',', '|']).unwrap_or(rest.len());
        let (entry, separator_and_rest) = rest.split_at(end);
        let fallthrough = if separator_and_rest.starts_with('|') { Fallthrough::Pipe } else { Fallthrough::Comma };
        rest = separator_and_rest.get(1..).unwrap_or("");
        let entry = entry.trim();
        if entry.is_empty() {
            continue;
        }
        number += 1;
        if entry == "direct" {
            let why = "\"direct\" needs version control tools, which Larder does not run";
            if entries.is_empty() && report.is_clean() {
                report.mistake(format!("{why}; name an upstream, or \"off\" for none"));
            } else {
                report.warning(format!("{why}: the list ends before it; clients may add it to their own GOPROXY"));
            }
            warn_of_rest(rest, "direct", report);
            return entries;
        }
        match parse_target(entry) {
            Ok(target) => entries.push(UpstreamEntry { target, fallthrough }),
            Err(text) => report.mistake(format!("entry {number}: {text}")),
        }
        if entry == "off" {
            warn_of_rest(rest, "off", report);
            return entries;
        }
    }
    if number == 0 {
        report.mistake("the list is empty; name an upstream, or \"off\" for none".to_owned());
    }
    entries
}

fn warn_of_rest(rest: &str, word: &str, report: &mut Report) {
    if !rest.trim().is_empty() {
        report.warning(format!("\"{word}\" ends the list: what follows it is never asked"));
    }
}

/// Reads one entry other than `direct`. An address without a scheme is taken as https, as Go does.
fn parse_target(text: &str) -> Result<UpstreamTarget, String> {
    if text == "off" {
        return Ok(UpstreamTarget::Off);
    }
    if text.starts_with('/') {
        return Err("a directory is written as file:///path".to_owned());
    }
    let scheme = if !text.contains(":/") && text.contains(['.', ':']) { "https://" } else { "" };
    let url = Url::parse(&format!("{scheme}{text}"))
        .map_err(|_| "not a URL: write https://host, http://host, file:///path or off".to_owned())?;
    match url.scheme() {
        "http" | "https" if url.fragment().is_some() => Err("the URL of an upstream has no fragment (#)".to_owned()),
        "http" | "https" if url.query().is_some() => Err("the URL of an upstream has no query (?)".to_owned()),
        "http" | "https" => Ok(UpstreamTarget::Http(RedactedUrl::new(url))),
        "file" => url
            .to_file_path()
            .map(UpstreamTarget::File)
            .map_err(|()| "a file upstream is a directory of this machine: write file:///path".to_owned()),
        _ => Err("the scheme must be https, http or file".to_owned()),
    }
}

/// Reads the private upstreams, a list of maps that only a file can hold.
pub(super) fn parse_private(node: &Node, report: &mut Report) -> Vec<PrivateUpstream> {
    let Node::List(items) = node else {
        report.mistake("not a list of entries with the keys pattern, url and auth".to_owned());
        return Vec::new();
    };
    let mut upstreams = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let mut entry = Report::default();
        if let Some(upstream) = parse_private_entry(item, &mut entry) {
            upstreams.push(upstream);
        }
        report.absorb(entry, &format!("entry {}: ", index + 1));
    }
    upstreams
}

fn parse_private_entry(node: &Node, report: &mut Report) -> Option<PrivateUpstream> {
    let entry = node.fields(&["pattern", "url", "auth"], report)?;
    let pattern = entry.required("pattern", report).and_then(|pattern| {
        if is_well_formed(pattern) {
            return Some(pattern.to_owned());
        }
        report.mistake_none("pattern: not a well-formed glob, such as github.com/myorg/* or *.corp.example")
    });
    let target = entry.required("url", report).and_then(|url| match parse_target(url) {
        Ok(UpstreamTarget::Off) => report.mistake_none("url: a private upstream cannot be off"),
        Ok(target) => Some(target),
        Err(text) => report.mistake_none(&format!("url: {text}")),
    });
    let mut auth_report = Report::default();
    let auth = entry.node("auth").and_then(|auth| parse_auth(auth, &mut auth_report));
    report.absorb(auth_report, "auth: ");
    match (&target, &auth) {
        (Some(UpstreamTarget::Http(url)), Some(_)) if url.has_credentials() => {
            report.mistake("credentials stand both in url and in auth: keep one of them".to_owned());
        }
        (Some(UpstreamTarget::Http(url)), _)
            if url.reveal().scheme() == "http" && (auth.is_some() || url.has_credentials()) =>
        {
            report.warning("credentials travel unencrypted over http".to_owned());
        }
        (Some(UpstreamTarget::File(_)), Some(_)) => {
            report.mistake("auth: a directory asks for no credentials".to_owned());
        }
        _ => {}
    }
    Some(PrivateUpstream { pattern: pattern?, target: target?, auth })
}

fn parse_auth(node: &Node, report: &mut Report) -> Option<UpstreamAuth> {
    let auth = node.fields(&["type", "name", "value"], report)?;
    if auth.is_empty() {
        return None;
    }
    let kind = auth.required("type", report)?;
    let value = auth.required("value", report)?;
    if http::HeaderValue::from_str(value).is_err() {
        return report.mistake_none("value: holds a character that cannot be sent in a header");
    }
    match kind.to_ascii_lowercase().as_str() {
        "basic" => match value.split_once(':') {
            Some((user, password)) => {
                Some(UpstreamAuth::Basic { user: user.to_owned(), password: Secret::new(password) })
            }
            None => report.mistake_none("value: for type basic it is written user:password"),
        },
        "bearer" => Some(UpstreamAuth::Bearer(Secret::new(value))),
        "header" => match auth.required("name", report)?.parse() {
            Ok(name) => Some(UpstreamAuth::Header { name, value: Secret::new(value) }),
            Err(_) => report.mistake_none("name: not the name of a header"),
        },
        _ => report.mistake_none("type: must be basic, bearer or header"),
    }
}

/// Tells whether every glob of the pattern can match: brackets closed and not empty, no backslash at an end.
fn is_well_formed(pattern: &str) -> bool {
    let mut globs = pattern.split(',').filter(|glob| !glob.is_empty()).peekable();
    globs.peek().is_some() && globs.all(|glob| glob.split('/').all(is_well_formed_element))
}

/// A class is `"[" [ "^" ] item { item } "]"`, an item one character or a range of two, each of which may be escaped.
fn is_well_formed_element(element: &str) -> bool {
    let mut characters = element.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.next().is_none() => return false,
            '[' => {
                let rest = characters.as_str();
                let Some(after) = skip_class(rest.strip_prefix('^').unwrap_or(rest)) else {
                    return false;
                };
                characters = after.chars();
            }
            _ => {}
        }
    }
    true
}

fn skip_class(text: &str) -> Option<&str> {
    let mut rest = text;
    let mut items = 0;
    while items == 0 || !rest.starts_with(']') {
        rest = skip_class_character(rest)?;
        if let Some(high) = rest.strip_prefix('-') {
            rest = skip_class_character(high)?;
        }
        items += 1;
    }
    rest.strip_prefix(']')
}

fn skip_class_character(text: &str) -> Option<&str> {
    let mut characters = text.chars();
    match characters.next()? {
        '-' | ']' => return None,
        '\\' => characters.next()?,
        character => character,
    };
    Some(characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> (String, Report) {
        let mut report = Report::default();
        (print_list(&parse_list(text, &mut report)), report)
    }

    /// Lists read as GOPROXY reads them and print without their passwords.
    #[test]
    fn lists() {
        let cases = [
            ("https://a.example", "https://a.example"),
            ("https://a.example/,https://goproxy.cn", "https://a.example,https://goproxy.cn"),
            ("https://a.example, https://b.example|off", "https://a.example,https://b.example|off"),
            ("http://a.example|file:///srv/go%20mod,off", "http://a.example|file:///srv/go mod,off"),
            ("goproxy.cn,localhost:8080", "https://goproxy.cn,https://localhost:8080"),
            (",,https://a.example,", "https://a.example"),
            ("off", "off"),
            ("https://user:pa,ss@a.example", ""),
            ("https://user:pass@a.example/go", "https://***@a.example/go"),
            ("https://a.example/go?key=1", ""),
        ];
        for (text, printed) in cases {
            let (list, report) = list(text);
            assert_eq!(report.is_clean(), !printed.is_empty(), "{text}: {report:?}");
            if report.is_clean() {
                assert_eq!(list, printed);
            }
        }
    }

    /// `direct` and what follows `off` are said to be left out; an unusable list is a mistake with its place.
    #[test]
    fn list_endings_and_mistakes() {
        let (printed, report) = list("https://a.example,direct,https://b.example");
        assert_eq!((printed.as_str(), report.mistakes.len(), report.warnings.len()), ("https://a.example", 0, 2));
        let (_, report) = list("off|https://a.example");
        assert_eq!((report.mistakes.len(), report.warnings.len()), (0, 1));
        let cases = [
            ("direct", "version control"),
            ("", "empty"),
            (" , ", "empty"),
            ("https://a.example,ftp://s3cret@b.example", "entry 2: the scheme must be"),
            ("/srv/modules", "file:///path"),
            ("file://host/path", "directory of this machine"),
            ("https://", "not a URL"),
            ("s3cret", "not a URL"),
            ("https://a.example/#s3cret", "fragment"),
        ];
        for (text, expected) in cases {
            let (_, report) = list(text);
            let mistakes = report.mistakes.join("\n");
            assert!(mistakes.contains(expected) && !mistakes.contains("s3cret"), "{text}: {mistakes}");
        }
    }

    /// Globs that can never match are told from those that can.
    #[test]
    fn globs() {
        for glob in
            ["github.com/myorg/*", "*.corp.example.com,rsc.io", "[a-r]sc.io", r"rsc\.io", "[^a]x", r"[\]]", "a]"]
        {
            assert!(is_well_formed(glob), "{glob}");
        }
        for glob in ["", ",", "[", "[]", "[^]", "[a", "[a-]", "[-a]", "rsc\\", "a,[", "[a/b]"] {
            assert!(!is_well_formed(glob), "{glob}");
        }
    }
}
