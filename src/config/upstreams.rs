//! Reads where modules come from: the ordered list of upstreams and the private ones.
//!
//! Owns the types a list is read into. Called by the settings table; calls `net::redacted`. Nothing here repeats a
//! rejected text, since it may hold a password.
//! Source: Go modules reference, section "GOPROXY protocol" and the variable GOPROXY, whose syntax this is.
//!
//! ```text
//! list  = entry { ("," | "|") entry }     after ",": next one on 404, 410 and when retries are spent
//! entry = URL | "off" | "direct"          after "|": next one on any failure
//! in the file also {url: URL, proxy: …, dns: …}, for one that is reached in another way than the rest
//! ```

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::file::Node;
use super::route::{self, UpstreamRoute};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamEntry {
    /// Where it is.
    pub target: UpstreamTarget,
    /// What stands between this entry and the next; of no meaning in the last.
    pub fallthrough: Fallthrough,
    /// How it is reached, where that differs.
    pub route: UpstreamRoute,
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
    /// How it is reached, where that differs.
    pub route: UpstreamRoute,
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

impl fmt::Display for UpstreamEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)?;
        if self.route.is_of_all() { Ok(()) } else { write!(f, " ({})", self.route) }
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
        }?;
        if self.route.is_of_all() { Ok(()) } else { write!(f, " ({})", self.route) }
    }
}

/// Prints a list as it would be written, with its secrets masked.
pub(super) fn print_list(entries: &[UpstreamEntry]) -> String {
    let mut text = String::new();
    for (index, entry) in entries.iter().enumerate() {
        text += &entry.to_string();
        if index + 1 < entries.len() {
            text.push(if entry.fallthrough == Fallthrough::Pipe { '|' } else { ',' });
        }
    }
    text
}

/// Reads a list of upstreams: a text, or in the file a list of texts and of maps with the keys url, proxy and dns.
///
/// `direct` ends the list with a warning, so that a value copied from a developer's GOPROXY works; a list of nothing
/// else is a mistake.
pub(super) fn parse_list(node: &Node, report: &mut Report) -> Vec<UpstreamEntry> {
    let mut list = List::default();
    let items = if let Node::List(items) = node { items } else { std::slice::from_ref(node) };
    for item in items {
        match item {
            Node::Null => {}
            Node::Scalar(text) => list.read_text(text, report),
            Node::Map(_) | Node::List(_) => list.read_map(item, report),
        }
    }
    if list.number == 0 {
        report.mistake("the list is empty; name an upstream, or \"off\" for none".to_owned());
    }
    list.entries
}

/// A list while it is read.
#[derive(Default)]
struct List {
    entries: Vec<UpstreamEntry>,
    /// How many were read, good or bad.
    number: usize,
    /// The word that ended the list; taken out once what follows it has been warned of.
    ended_by: Option<&'static str>,
    is_at_end: bool,
}

impl List {
    /// Counts an entry; returns whether it is to be read at all.
    fn begin(&mut self, report: &mut Report) -> bool {
        if let Some(word) = self.ended_by.take() {
            report.warning(format!("\"{word}\" ends the list: what follows it is never asked"));
        }
        self.number += 1;
        !self.is_at_end
    }

    fn end(&mut self, word: &'static str) {
        self.ended_by = Some(word);
        self.is_at_end = true;
    }

    fn read_text(&mut self, text: &str, report: &mut Report) {
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find([',', '|']).unwrap_or(rest.len());
            let (entry, separator_and_rest) = rest.split_at(end);
            let fallthrough = if separator_and_rest.starts_with('|') { Fallthrough::Pipe } else { Fallthrough::Comma };
            rest = separator_and_rest.get(1..).unwrap_or("");
            let entry = entry.trim();
            if entry.is_empty() || !self.begin(report) {
                continue;
            }
            match (entry, parse_target(entry)) {
                ("direct", _) => self.end_directly(report),
                (_, Ok(target)) => {
                    if target == UpstreamTarget::Off {
                        self.end("off");
                    }
                    self.entries.push(UpstreamEntry { target, fallthrough, route: UpstreamRoute::default() });
                }
                (_, Err(text)) => report.mistake(format!("entry {}: {text}", self.number)),
            }
        }
    }

    fn end_directly(&mut self, report: &mut Report) {
        let why = "\"direct\" needs version control tools, which Larder does not run";
        if self.entries.is_empty() && report.is_clean() {
            report.mistake(format!("{why}; name an upstream, or \"off\" for none"));
        } else {
            report.warning(format!("{why}: the list ends before it; clients may add it to their own GOPROXY"));
        }
        self.end("direct");
    }

    fn read_map(&mut self, node: &Node, report: &mut Report) {
        if !self.begin(report) {
            return;
        }
        let mut found = Report::default();
        if let Some(fields) = node.fields(&["url", route::KEYS[0], route::KEYS[1]], &mut found) {
            let target = fields.required("url", &mut found).and_then(|url| match parse_target(url) {
                Ok(UpstreamTarget::Off) => found.mistake_none("url: off stands alone, as a text"),
                Ok(_) if url.contains([',', '|']) => found.mistake_none("url: one URL, not a list"),
                Ok(target) => Some(target),
                Err(text) => found.mistake_none(&format!("url: {text}")),
            });
            let route = route::read(&fields, target.as_ref(), &mut found);
            if let Some(target) = target {
                self.entries.push(UpstreamEntry { target, fallthrough: Fallthrough::Comma, route });
            }
        }
        report.absorb(found, &format!("entry {}: ", self.number));
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
    let entry = node.fields(&["pattern", "url", "auth", route::KEYS[0], route::KEYS[1]], report)?;
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
    let route = route::read(&entry, target.as_ref(), report);
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
    Some(PrivateUpstream { pattern: pattern?, target: target?, auth, route })
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

    fn scalar(text: &str) -> Node {
        Node::Scalar(text.to_owned())
    }

    fn list(text: &str) -> (String, Report) {
        let mut report = Report::default();
        (print_list(&parse_list(&scalar(text), &mut report)), report)
    }

    fn map(fields: &[(&str, &str)]) -> Node {
        Node::Map(fields.iter().map(|(key, value)| ((*key).to_owned(), scalar(value))).collect())
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

    /// Entries of a file may be maps that say how this one is reached; `direct` and `system` mean none of what all have.
    #[test]
    fn entries_with_a_route() {
        let intranet = map(&[("url", "http://go.corp.example"), ("proxy", "direct"), ("dns", "system")]);
        let tunnelled = map(&[("url", "https://a.example"), ("proxy", "socks5://u:s3cret@p:1,direct"), ("dns", "")]);
        let named = map(&[("url", "https://b.example"), ("dns", "tls://dns.example,https://h/q?s3cret")]);
        let mut report = Report::default();
        let items = vec![intranet, scalar("https://c.example|"), tunnelled, scalar(""), named];
        let entries = parse_list(&Node::List(items), &mut report);
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(
            print_list(&entries),
            "http://go.corp.example (proxy direct, dns system),https://c.example|https://a.example (proxy \
             socks5://***@p:1,direct),https://b.example (dns tls://dns.example:853,https://h/***)"
        );
        assert_eq!(entries[0].route.dns, Some(Vec::new()));
        assert_eq!(entries[2].route.dns, None);
        // One map is a list of one.
        assert_eq!(parse_list(&map(&[("url", "https://a.example")]), &mut report).len(), 1);
        assert!(report.is_clean(), "{report:?}");
    }

    /// What is wrong with a map is told with its place and without what stands there.
    #[test]
    fn mistakes_in_entries_with_a_route() {
        let cases = [
            (map(&[("proxy", "direct")]), "entry 2: url: missing"),
            (
                map(&[("url", "https://a.example"), ("prox", "s3cret")]),
                "entry 2: prox: unknown key; did you mean proxy?",
            ),
            (map(&[("url", "https://a.example"), ("proxy", "s3cret://p")]), "entry 2: proxy: entry 1: the scheme"),
            (map(&[("url", "https://a.example"), ("dns", "1.1.1.1,s3cret://p")]), "entry 2: dns: entry 2: the scheme"),
            (map(&[("url", "https://a.example,https://s3cret")]), "entry 2: url: one URL"),
            (map(&[("url", "off")]), "entry 2: url: off stands alone"),
            (map(&[("url", "direct")]), "entry 2: url: not a URL"),
            (map(&[("url", "file:///srv"), ("proxy", "direct")]), "entry 2: proxy and dns: only upstreams"),
            (Node::List(vec![scalar("s3cret")]), "entry 2: not a map"),
        ];
        for (node, expected) in cases {
            let mut report = Report::default();
            parse_list(&Node::List(vec![scalar("https://z.example"), node]), &mut report);
            let mistakes = report.mistakes.join("; ");
            assert!(mistakes.starts_with(expected) && !mistakes.contains("s3cret"), "{expected}: {mistakes}");
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
