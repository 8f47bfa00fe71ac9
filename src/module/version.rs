//! Versions: canonical ones, which name files that never change, and everything else one may ask a proxy for.
//!
//! Called by `resource` and whatever sorts or picks versions; calls `escape`. Invariants: a [`Version`] is canonical,
//! so it has one spelling; its escaped form fits into a file name together with every suffix Larder puts behind it.
//! Source: semver.org 2.0.0 and the Go module reference, "Versions" and "Pseudo-versions".
//!
//! ```text
//! v1.2.3   v1.2.4-0.20191010083416-a7dc8b61c822   v2.0.0-rc.1   v4.4.0+incompatible      canonical
//! v1   v1.2   v1.2.3+meta   main   2c02b8208cf8                                          queries
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::escape::{self, EscapedVersion};
use super::path::{Element, FILE_NAME_BYTES_MAX, ModulePath, check_element};
use super::{Flaw, ModuleError};

/// The longest escaped version in bytes: with `.ziphash`, the longest suffix, it has to fit into a file name.
pub const VERSION_BYTES_MAX: usize = FILE_NAME_BYTES_MAX - ".ziphash".len();

const INCOMPATIBLE: &str = "+incompatible";

/// A canonical version, unescaped. Clones share the text.
///
/// Ordered by semantic precedence. Two versions that differ only in `+incompatible` have the same precedence; they are
/// then ordered as text, so that the order agrees with equality.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// Parses an unescaped canonical version.
    ///
    /// # Errors
    /// [`ModuleError::NotCanonical`] or, if it is too long for a file name, [`ModuleError::MalformedVersion`].
    pub fn parse(version: &str) -> Result<Self, ModuleError> {
        check_canonical(version)?;
        Ok(Self(Arc::from(version)))
    }

    /// Parses an escaped canonical version, the inverse of [`Self::escaped`].
    ///
    /// # Errors
    /// As [`Self::parse`]; and [`ModuleError::MalformedVersion`] if the escaping is wrong.
    pub fn from_escaped(escaped: &str) -> Result<Self, ModuleError> {
        let version = escape::unescape(escaped).map_err(|flaw| malformed(escaped, flaw))?;
        check_canonical(&version)?;
        Ok(Self(Arc::from(version)))
    }

    /// Returns the canonical version that a semantic version stands for: `v1.2.0` for `v1.2`, `v1.2.3` for
    /// `v1.2.3+meta`. Nothing for what is not a semantic version.
    pub fn canonical_of(version: &str) -> Option<Self> {
        let parts = Parts::split(version)?;
        let incompatible = if parts.build == INCOMPATIBLE { INCOMPATIBLE } else { "" };
        let minor = if parts.minor.is_empty() { "0" } else { parts.minor };
        let patch = if parts.patch.is_empty() { "0" } else { parts.patch };
        Self::parse(&format!(
            "v{}.{minor}.{patch}{}{incompatible}",
            parts.major, parts.prerelease
        ))
        .ok()
    }

    /// Returns the unescaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the spelling for URLs and file names, the inverse of [`Self::from_escaped`].
    pub fn escaped(&self) -> EscapedVersion {
        EscapedVersion(escape::escape(&self.0))
    }

    /// Returns the major version with its `v`: `v1` of `v1.2.3`.
    pub fn major(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }

    /// Says whether `go` made this version up for a commit that has no tag.
    pub fn is_pseudo(&self) -> bool {
        let parts = self.parts();
        let Some((head, revision)) = parts
            .prerelease
            .strip_prefix('-')
            .and_then(|text| text.rsplit_once('-'))
        else {
            return false;
        };
        let Some(stem_bytes) = head.len().checked_sub(PSEUDO_TIME_BYTES) else {
            return false;
        };
        let (stem, time) = head.split_at(stem_bytes);
        let has_no_base = stem.is_empty() && parts.minor == "0" && parts.patch == "0";
        let has_base = stem == "0." || stem.ends_with(".0.");
        (has_no_base || has_base)
            && time.bytes().all(|b| b.is_ascii_digit())
            && !revision.is_empty()
            && revision.bytes().all(|b| b.is_ascii_alphanumeric())
    }

    /// Says whether this is a pre-release, as every pseudo-version is too.
    pub fn is_prerelease(&self) -> bool {
        !self.parts().prerelease.is_empty()
    }

    /// Says whether the version ends in `+incompatible`.
    pub fn is_incompatible(&self) -> bool {
        self.0.ends_with(INCOMPATIBLE)
    }

    fn parts(&self) -> Parts<'_> {
        // The text was checked when it became a version.
        Parts::split(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts()
            .precedence(&other.parts())
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A branch, tag, commit or incomplete version to be asked of one module, unescaped. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Query(Arc<str>);

impl Query {
    /// Checks an unescaped query for a module. The path matters: `v2.0.0` is a version of `rsc.io/quote/v2` and only a
    /// query, if a hopeless one, for `rsc.io/quote`.
    ///
    /// # Errors
    /// [`ModuleError::MalformedVersion`] if nobody could ask for it, [`ModuleError::NotQuery`] if it is a canonical
    /// version that belongs to the path.
    pub fn new(path: &ModulePath, text: &str) -> Result<Self, ModuleError> {
        check_text(text).map_err(|flaw| malformed(text, flaw))?;
        match Version::parse(text) {
            Ok(version) if path.admits(&version) => Err(ModuleError::NotQuery {
                path: path.clone(),
                version,
            }),
            Ok(_) | Err(_) => Ok(Self(Arc::from(text))),
        }
    }

    /// Returns the unescaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the spelling for URLs and file names.
    pub fn escaped(&self) -> EscapedVersion {
        EscapedVersion(escape::escape(&self.0))
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks text that is asked for as a version, canonical or not.
pub(crate) fn check_text(text: &str) -> Result<(), Flaw> {
    if text.is_empty() {
        return Err(Flaw::Empty);
    }
    if text.len() > VERSION_BYTES_MAX || escape::escaped_bytes(text) > VERSION_BYTES_MAX {
        return Err(Flaw::TooLong {
            bytes_max: VERSION_BYTES_MAX,
        });
    }
    check_element(text, Element::Version)
}

/// Unescapes text that is asked for as a version, and checks it.
pub(crate) fn text_from_escaped(escaped: &str) -> Result<std::borrow::Cow<'_, str>, ModuleError> {
    let text = escape::unescape(escaped).map_err(|flaw| malformed(escaped, flaw))?;
    check_text(&text).map_err(|flaw| malformed(escaped, flaw))?;
    Ok(text)
}

fn malformed(version: &str, flaw: Flaw) -> ModuleError {
    ModuleError::MalformedVersion {
        version: version.to_owned(),
        flaw,
    }
}

fn check_canonical(version: &str) -> Result<(), ModuleError> {
    let is_canonical = Parts::split(version)
        .is_some_and(|parts| !parts.patch.is_empty() && (parts.build.is_empty() || parts.build == INCOMPATIBLE));
    if !is_canonical {
        return Err(ModuleError::NotCanonical {
            version: version.to_owned(),
        });
    }
    check_text(version).map_err(|flaw| malformed(version, flaw))
}

/// The length of a pseudo-version's time, `yyyymmddhhmmss`.
const PSEUDO_TIME_BYTES: usize = 14;

/// A semantic version taken apart. What is missing is empty; numbers stay text because they have no bound.
#[derive(Clone, Copy, Default)]
struct Parts<'a> {
    major: &'a str,
    minor: &'a str,
    patch: &'a str,
    /// With its dash.
    prerelease: &'a str,
    /// With its plus.
    build: &'a str,
}

impl<'a> Parts<'a> {
    fn split(version: &'a str) -> Option<Self> {
        let rest = version.strip_prefix('v')?;
        let (numbers, suffix) = rest.split_at(rest.find(['-', '+']).unwrap_or(rest.len()));
        let mut numbers = numbers.split('.');
        let (major, minor, patch) = (numbers.next()?, numbers.next(), numbers.next());
        let is_well_numbered = is_number(major) && minor.is_none_or(is_number) && patch.is_none_or(is_number);
        let is_short = patch.is_none();
        if !is_well_numbered || numbers.next().is_some() || (is_short && !suffix.is_empty()) {
            return None;
        }
        let (minor, patch) = (minor.unwrap_or_default(), patch.unwrap_or_default());
        let (prerelease, build) = suffix.split_at(suffix.find('+').unwrap_or(suffix.len()));
        let is_prerelease_good = prerelease.is_empty()
            || prerelease[1..]
                .split('.')
                .all(|part| is_identifier(part) && (!is_digits(part) || is_number(part)));
        let is_build_good = build.is_empty() || build[1..].split('.').all(is_identifier);
        (is_prerelease_good && is_build_good).then_some(Self {
            major,
            minor,
            patch,
            prerelease,
            build,
        })
    }

    fn precedence(&self, other: &Self) -> Ordering {
        number_order(self.major, other.major)
            .then_with(|| number_order(self.minor, other.minor))
            .then_with(|| number_order(self.patch, other.patch))
            .then_with(|| prerelease_order(self.prerelease, other.prerelease))
    }
}

fn prerelease_order(a: &str, b: &str) -> Ordering {
    match (a.strip_prefix('-'), b.strip_prefix('-')) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => identifiers_order(a, b),
    }
}

/// Compares dotted identifiers: numbers before text, a list before a longer one that it begins.
fn identifiers_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.split('.'), b.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => match (is_digits(a), is_digits(b)) {
                (true, true) => number_order(a, b),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Compares numbers without leading zeros by value, however long they are.
fn number_order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Says whether this is a decimal number without leading zeros.
pub(super) fn is_number(text: &str) -> bool {
    is_digits(text) && (text == "0" || !text.starts_with('0'))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
