//! Module paths: what may be one, and which versions belong to it.
//!
//! Called by `resource` and everything that names a module; calls `escape`. Invariants: a [`ModulePath`] is valid for
//! `go`, each element of its escaped form fits into a file name and the whole below any sensible root. It has no `@`,
//! no element that begins with a dot, and its first element has a dot: so it can meet neither `@v`, `@latest`,
//! `.larder` nor `sumdb` in the tree. Source: the Go module reference, "Module paths" and "Major version suffixes".

use std::fmt;
use std::sync::Arc;

use super::escape::{self, EscapedPath};
use super::version::{Version, is_number};
use super::{Flaw, ModuleError};

/// The longest escaped module path in bytes. Linux allows 4,096 for a whole path: this leaves room for the root before
/// it and a version, or a checksum database's name, beside it. The longest in use are below 200.
pub const MODULE_PATH_BYTES_MAX: usize = 2048;

/// The longest file name in bytes, on every file system Larder is likely to meet.
pub(crate) const FILE_NAME_BYTES_MAX: usize = 255;

/// A valid module path, unescaped. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModulePath(Arc<str>);

impl ModulePath {
    /// Parses an unescaped module path such as `github.com/BurntSushi/toml`. One element is enough: `go` asks for
    /// `github.com` too.
    ///
    /// # Errors
    /// [`ModuleError::MalformedPath`] with the flaw that was found first.
    pub fn parse(path: &str) -> Result<Self, ModuleError> {
        check(path).map_err(|flaw| ModuleError::MalformedPath {
            path: path.to_owned(),
            flaw,
        })?;
        Ok(Self(Arc::from(path)))
    }

    /// Parses an escaped module path such as `github.com/!burnt!sushi/toml`, the inverse of [`Self::escaped`].
    ///
    /// # Errors
    /// [`ModuleError::MalformedPath`] with the flaw that was found first.
    pub fn from_escaped(escaped: &str) -> Result<Self, ModuleError> {
        let malformed = |flaw| ModuleError::MalformedPath {
            path: escaped.to_owned(),
            flaw,
        };
        let path = escape::unescape(escaped).map_err(malformed)?;
        check(&path).map_err(malformed)?;
        Ok(Self(Arc::from(path)))
    }

    /// Returns the unescaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the spelling for URLs and file names, the inverse of [`Self::from_escaped`].
    pub fn escaped(&self) -> EscapedPath {
        EscapedPath(escape::escape(&self.0))
    }

    /// Returns the major number the path's suffix asks for: `3` of `rsc.io/quote/v3`, `2` of `gopkg.in/yaml.v2`.
    pub fn major_suffix(&self) -> Option<&str> {
        // The path was checked, so an invalid suffix cannot be met here.
        split_major(&self.0).ok().flatten()
    }

    /// Says whether a version belongs to this path, by its major number.
    pub fn admits(&self, version: &Version) -> bool {
        let major = version.major().trim_start_matches('v');
        match self.major_suffix() {
            // An old mistake that is still in go.mod files: gopkg.in/check.v1 v0.0.0-20161208181325-20d25e280405.
            Some("1") if self.is_gopkg_in() && version.as_str().starts_with("v0.0.0-") => true,
            Some(wanted) => wanted == major,
            None => matches!(major, "0" | "1") || version.is_incompatible(),
        }
    }

    fn is_gopkg_in(&self) -> bool {
        self.0.starts_with(GOPKG_IN)
    }
}

impl fmt::Display for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The one host with a version rule of its own, `.vN` instead of `/vN`.
const GOPKG_IN: &str = "gopkg.in/";

/// Where an element stands, which decides what it may be made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// Between the slashes of a module path.
    OfPath,
    /// A file name, as every version is one. No `!`, because that is the escaping's own.
    Version,
}

/// Checks one path element or version text.
pub(crate) fn check_element(element: &str, kind: Element) -> Result<(), Flaw> {
    let is_of_path = kind == Element::OfPath;
    let bytes = element.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err(Flaw::EmptyElement);
    };
    if bytes.iter().all(|b| *b == b'.') {
        return Err(Flaw::Dots);
    }
    if is_of_path && *first == b'.' {
        return Err(Flaw::LeadingDot);
    }
    if *last == b'.' {
        return Err(Flaw::TrailingDot);
    }
    let is_allowed = |c: char| {
        c.is_ascii_alphanumeric()
            || if is_of_path {
                "-._~".contains(c)
            } else {
                "#$%&()+,-.=@[]^_{}~ ".contains(c)
            }
    };
    if let Some(c) = element.chars().find(|c| !is_allowed(*c)) {
        return Err(Flaw::Char(c));
    }
    let stem = element.split('.').next().unwrap_or(element);
    if is_windows_name(stem) {
        return Err(Flaw::WindowsName);
    }
    if is_of_path
        && let Some((_, suffix)) = stem.rsplit_once('~')
        && !suffix.is_empty()
        && suffix.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(Flaw::ShortName);
    }
    Ok(())
}

fn is_windows_name(stem: &str) -> bool {
    match stem.len() {
        3 => ["con", "prn", "aux", "nul"]
            .iter()
            .any(|name| stem.eq_ignore_ascii_case(name)),
        4 => {
            let (name, digit) = stem.as_bytes().split_at(3);
            matches!(digit, [b'1'..=b'9']) && (name.eq_ignore_ascii_case(b"com") || name.eq_ignore_ascii_case(b"lpt"))
        }
        _ => false,
    }
}

fn check(path: &str) -> Result<(), Flaw> {
    if path.is_empty() {
        return Err(Flaw::Empty);
    }
    // The plain length first: a hostile megabyte is refused before anything walks over it.
    if path.len() > MODULE_PATH_BYTES_MAX || escape::escaped_bytes(path) > MODULE_PATH_BYTES_MAX {
        return Err(Flaw::TooLong {
            bytes_max: MODULE_PATH_BYTES_MAX,
        });
    }
    if path.starts_with('-') {
        return Err(Flaw::LeadingDash);
    }
    for element in path.split('/') {
        check_element(element, Element::OfPath)?;
        if escape::escaped_bytes(element) > FILE_NAME_BYTES_MAX {
            return Err(Flaw::TooLong {
                bytes_max: FILE_NAME_BYTES_MAX,
            });
        }
    }
    let host = path.split('/').next().unwrap_or(path);
    if !host.contains('.') {
        return Err(Flaw::NoDotInFirst);
    }
    let is_host_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if let Some(c) = host.chars().find(|c| !is_host_char(*c)) {
        return Err(Flaw::CharInFirst(c));
    }
    split_major(path).map(|_| ())
}

/// Returns the major number of the path's suffix, if it has one.
fn split_major(path: &str) -> Result<Option<&str>, Flaw> {
    if path.starts_with(GOPKG_IN) {
        let tagged = path.strip_suffix("-unstable").unwrap_or(path);
        let stem = tagged.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = &tagged[stem.len()..];
        let is_good = stem.strip_suffix(".v").is_some() && is_number(number);
        return if is_good {
            Ok(Some(number))
        } else {
            Err(Flaw::MajorSuffix)
        };
    }
    let stem = path.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &path[stem.len()..];
    if number.is_empty() || !stem.ends_with("/v") {
        return Ok(None);
    }
    if number.contains('.') || number.starts_with('0') || number == "1" {
        return Err(Flaw::MajorSuffix);
    }
    Ok(Some(number))
}
