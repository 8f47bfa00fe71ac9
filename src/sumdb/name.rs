//! Names within a checksum database: its own, and what it is asked for.
//!
//! Called by `resource`, later by the database's client; calls `module`. Pure. Invariants: it is always clear where a
//! database's name ends in a path, and a lookup fits into one file name. Source: proposal 25530; the name's form is the
//! one `go` accepts in `GOSUMDB`, host and perhaps path.

use std::fmt;
use std::sync::Arc;

use crate::module::escape::escaped_bytes;
use crate::module::path::{Element, FILE_NAME_BYTES_MAX, check_element};
use crate::module::{Flaw, ModuleError, ModulePath, ModuleVersion, Shown, Version, version};

/// The longest name of a checksum database in bytes.
pub const SUMDB_NAME_BYTES_MAX: usize = 255;

/// The name of a checksum database: a host, perhaps with a port, perhaps with a path. Clones share the text.
///
/// No element of it is one that follows a name in the tree (`supported`, `latest`, `lookup`, `tile`), so it is always
/// clear where a name ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SumdbName(Arc<str>);

/// What a checksum database is asked for: a module and whatever `go` may take for a version of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupTarget {
    path: ModulePath,
    version: Arc<str>,
}

/// Not the name of a checksum database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed checksum database name {}: {flaw}", Shown(.name))]
pub struct SumdbNameError {
    /// The offending name.
    pub name: String,
    /// What is wrong with it.
    pub flaw: Flaw,
}

impl SumdbName {
    /// Checks a database's name, the text before the first `+` of its key.
    ///
    /// # Errors
    /// [`SumdbNameError`] with the flaw that was found first.
    pub fn parse(name: &str) -> Result<Self, SumdbNameError> {
        check_sumdb_name(name).map_err(|flaw| SumdbNameError { name: name.to_owned(), flaw })?;
        Ok(Self(Arc::from(name)))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SumdbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LookupTarget {
    /// Checks what is asked of a database. The version, unescaped, may be anything `go` could send.
    ///
    /// # Errors
    /// [`ModuleError::MalformedVersion`] if nobody could ask for it, or if it does not fit into one file name together
    /// with the last element of the path.
    pub fn new(path: ModulePath, version: &str) -> Result<Self, ModuleError> {
        let malformed = |flaw| ModuleError::MalformedVersion { version: version.to_owned(), flaw };
        version::check_text(version).map_err(malformed)?;
        // The last element of the path and the version are one file name here.
        let element = path.as_str().rsplit('/').next().unwrap_or_default();
        if escaped_bytes(element) + 1 + escaped_bytes(version) > FILE_NAME_BYTES_MAX {
            return Err(malformed(Flaw::TooLong { bytes_max: FILE_NAME_BYTES_MAX }));
        }
        Ok(Self { path, version: Arc::from(version) })
    }

    /// Returns the module.
    pub fn path(&self) -> &ModulePath {
        &self.path
    }

    /// Returns the version as it was asked for, unescaped.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the module version, if the version is canonical and belongs to the path.
    pub fn module_version(&self) -> Option<ModuleVersion> {
        ModuleVersion::new(self.path.clone(), Version::parse(&self.version).ok()?).ok()
    }
}

impl fmt::Display for LookupTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.path, self.version)
    }
}

/// The elements that follow a database's name.
pub(crate) const SUMDB_ENDPOINTS: [&str; 4] = ["supported", "latest", "lookup", "tile"];

fn check_sumdb_name(name: &str) -> Result<(), Flaw> {
    if name.is_empty() {
        return Err(Flaw::Empty);
    }
    if name.len() > SUMDB_NAME_BYTES_MAX {
        return Err(Flaw::TooLong { bytes_max: SUMDB_NAME_BYTES_MAX });
    }
    let (host, path) = name.split_once('/').map_or((name, None), |(host, path)| (host, Some(path)));
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) | None => host,
    };
    for element in [host].into_iter().chain(path.into_iter().flat_map(|path| path.split('/'))) {
        check_element(element, Element::OfPath)?;
        if SUMDB_ENDPOINTS.contains(&element) {
            return Err(Flaw::Reserved);
        }
    }
    Ok(())
}
