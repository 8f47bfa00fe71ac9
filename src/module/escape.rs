//! Escaped names: the only spelling of a module path or version that goes into URLs and file names.
//!
//! Called by `path`, `version` and `resource`; calls nothing. File systems that fold case must not mix up two modules,
//! so every upper-case letter is written as `!` and its lower-case letter:
//!
//! ```text
//! github.com/BurntSushi/toml  ↔  github.com/!burnt!sushi/toml        v1.0.1-GA  ↔  v1.0.1-!g!a
//! ```
//!
//! Invariant: escaping and unescaping are inverse, so a name has one escaped spelling. Source: the Go module reference,
//! "GOPROXY protocol".

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;

use super::Flaw;

/// A module path in its escaped spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EscapedPath(pub(super) Arc<str>);

/// A version, or a query, in its escaped spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EscapedVersion(pub(super) Arc<str>);

impl EscapedPath {
    /// Returns the escaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl EscapedVersion {
    /// Returns the escaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EscapedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EscapedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Escapes a checked name. Names without upper-case letters, most of them, are shared instead of copied.
pub(super) fn escape(name: &Arc<str>) -> Arc<str> {
    let bytes = escaped_bytes(name);
    if bytes == name.len() {
        return Arc::clone(name);
    }
    let mut escaped = String::with_capacity(bytes);
    // Writing to a string cannot fail.
    let _ = write_escaped(&mut escaped, name);
    Arc::from(escaped)
}

/// Writes a checked name in its escaped form.
pub(crate) fn write_escaped(out: &mut impl Write, name: &str) -> fmt::Result {
    let mut rest = name;
    while let Some(upper) = rest.bytes().position(|b| b.is_ascii_uppercase()) {
        out.write_str(&rest[..upper])?;
        out.write_char('!')?;
        out.write_char(char::from(rest.as_bytes()[upper].to_ascii_lowercase()))?;
        rest = &rest[upper + 1..];
    }
    out.write_str(rest)
}

/// Returns the length of the escaped form of a name, in bytes.
pub(crate) fn escaped_bytes(name: &str) -> usize {
    name.len() + name.bytes().filter(u8::is_ascii_uppercase).count()
}

/// Unescapes a name, the inverse of [`write_escaped`]. The result is not yet checked to be a path or version.
///
/// # Errors
/// [`Flaw::Escaping`] if the text is not what escaping some name gives.
pub(super) fn unescape(escaped: &str) -> Result<Cow<'_, str>, Flaw> {
    if !escaped.is_ascii() || escaped.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Flaw::Escaping);
    }
    if !escaped.contains('!') {
        return Ok(Cow::Borrowed(escaped));
    }
    let mut name = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        if c != '!' {
            name.push(c);
            continue;
        }
        match chars.next() {
            Some(lower) if lower.is_ascii_lowercase() => name.push(lower.to_ascii_uppercase()),
            Some(_) | None => return Err(Flaw::Escaping),
        }
    }
    Ok(Cow::Owned(name))
}
