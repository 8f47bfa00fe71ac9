//! Names of modules and versions: what may be called a module, and how its name is spelled on disk and in URLs.
//!
//! Called by everything that handles a name; calls nothing. Pure: no clock, no log, no configuration.
//! Invariants: a [`ModulePath`], a [`Version`] and a [`ModuleVersion`] exist only checked, and each has exactly one
//! escaped spelling, whose every part fits into a file name. Source: the Go module reference, "Module paths" and
//! "Versions"; compared with the vectors Go's own tools made.

pub mod escape;
#[cfg(test)]
pub(crate) mod generate;
pub mod path;
pub mod pattern;
pub mod version;
pub mod zip;

use std::fmt::{self, Write as _};

pub use escape::{EscapedPath, EscapedVersion};
pub use path::ModulePath;
pub use pattern::PatternList;
pub use version::{Query, Version};

/// Why a module, a version or a pair of both is refused. All of these mean "malformed", none "unknown".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// Not a module path.
    #[error("malformed module path {}: {flaw}", Shown(.path))]
    MalformedPath {
        /// The offending text, as it was given.
        path: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// Neither a version nor a branch, tag or commit that can be asked for.
    #[error("malformed version {}: {flaw}", Shown(.version))]
    MalformedVersion {
        /// The offending text, as it was given.
        version: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A branch, a commit or a shorthand where only a canonical version will do.
    #[error("version {} is not canonical", Shown(.version))]
    NotCanonical {
        /// The offending text, unescaped.
        version: String,
    },
    /// A canonical version where a query was wanted.
    #[error("{path}@{version}: a canonical version is not a query")]
    NotQuery {
        /// The module.
        path: ModulePath,
        /// The version, which belongs to it.
        version: Version,
    },
    /// The version's major number is not the one the path asks for.
    #[error("{path}@{version}: invalid version: should be {expected}, not {}", .version.major())]
    WrongMajor {
        /// The module.
        path: ModulePath,
        /// The version that is not one of it.
        version: Version,
        /// The major numbers the path allows, for people: `v3`, or `v0 or v1`.
        expected: String,
    },
    /// Not of the form `PATH@VERSION`.
    #[error("{} is not of the form PATH@VERSION", Shown(.text))]
    NotPair {
        /// The offending text.
        text: String,
    },
}

/// What is wrong with a name. The words are those `go` uses, so that people find them with a search engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Nothing there.
    #[error("empty string")]
    Empty,
    /// Longer than a path or a file name can be.
    #[error("longer than {bytes_max} bytes when escaped")]
    TooLong {
        /// The bound, in bytes of the escaped form.
        bytes_max: usize,
    },
    /// A slash with nothing before or after it.
    #[error("empty path element")]
    EmptyElement,
    /// An element of dots alone.
    #[error("path element of dots")]
    Dots,
    /// An element that begins with a dot.
    #[error("leading dot in path element")]
    LeadingDot,
    /// An element that ends with a dot.
    #[error("trailing dot in path element")]
    TrailingDot,
    /// A path that begins with a dash.
    #[error("leading dash")]
    LeadingDash,
    /// A first element that cannot be a host name.
    #[error("missing dot in first path element")]
    NoDotInFirst,
    /// A character that is not allowed there.
    #[error("invalid char {0:?}")]
    Char(char),
    /// A character that is not allowed in a host name.
    #[error("invalid char {0:?} in first path element")]
    CharInFirst(char),
    /// A name Windows keeps for a device.
    #[error("reserved name on Windows")]
    WindowsName,
    /// A name that looks like one Windows makes up for a long one.
    #[error("trailing tilde and digits in path element")]
    ShortName,
    /// A major version suffix such as `/v1` or `/v2.0`.
    #[error("invalid version")]
    MajorSuffix,
    /// An element that means something else at that place in the tree.
    #[error("reserved path element")]
    Reserved,
    /// An upper-case letter in an escaped name, or `!` before anything but a lower-case letter.
    #[error("invalid escaping")]
    Escaping,
}

/// A module path and a canonical version that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleVersion {
    path: ModulePath,
    version: Version,
}

impl ModuleVersion {
    /// Joins a path and a version.
    ///
    /// # Errors
    /// [`ModuleError::WrongMajor`] if the version does not belong to the path.
    pub fn new(path: ModulePath, version: Version) -> Result<Self, ModuleError> {
        if path.admits(&version) {
            return Ok(Self { path, version });
        }
        let expected = path.major_suffix().map_or_else(|| "v0 or v1".to_owned(), |major| format!("v{major}"));
        Err(ModuleError::WrongMajor { path, version, expected })
    }

    /// Parses the unescaped form `PATH@VERSION`, the inverse of `Display`.
    ///
    /// # Errors
    /// [`ModuleError`] if there is no `@`, a side of it is malformed, or the two do not belong together.
    pub fn parse(text: &str) -> Result<Self, ModuleError> {
        let (path, version) = text.split_once('@').ok_or_else(|| ModuleError::NotPair { text: text.to_owned() })?;
        Self::new(ModulePath::parse(path)?, Version::parse(version)?)
    }

    /// Returns the module's path.
    pub fn path(&self) -> &ModulePath {
        &self.path
    }

    /// Returns the version.
    pub fn version(&self) -> &Version {
        &self.version
    }
}

impl fmt::Display for ModuleVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.path, self.version)
    }
}

/// Prints text from outside for people: quoted, control characters escaped, cut where it would flood a terminal.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

/// `go` prints 648 bytes of an error, and a hint has to fit in as well.
const SHOWN_CHARS_MAX: usize = 120;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars().take(SHOWN_CHARS_MAX) {
            write!(f, "{}", c.escape_debug())?;
        }
        f.write_str(if self.0.chars().nth(SHOWN_CHARS_MAX).is_some() { "…\"" } else { "\"" })
    }
}

#[cfg(test)]
mod tests;
