//! Resources: the type that names a thing, its URL and its file, which are the same tree.
//!
//! Called by everything; calls `module`, `sumdb::name` and `sumdb::tile`. Pure. Invariant 1: only a [`Resource`] names
//! a file or an upstream URL, and `parse(path(r)) == r` for every `r`. Once parsing has succeeded, no question of
//! traversal, escaping or content type is left. Source: the Go module reference, "GOPROXY protocol"; proposal 25530 for
//! `sumdb/`.
//!
//! ```text
//! MODULE/@v/list  MODULE/@latest  MODULE/@v/VERSION.info .mod .zip  MODULE/@v/QUERY.info
//! sumdb/NAME/supported  sumdb/NAME/latest  sumdb/NAME/lookup/MODULE@VERSION  sumdb/NAME/tile/…
//! ```

use std::borrow::Cow;
use std::fmt::{self, Write};

use crate::module::escape::write_escaped;
use crate::module::{ModuleError, ModulePath, ModuleVersion, Query, Shown, Version, version};
use crate::sumdb::name::{LookupTarget, SUMDB_ENDPOINTS, SumdbName, SumdbNameError};
use crate::sumdb::tile::{Tile, TileError};

/// The longest request path that can name a resource, in bytes, still percent-encoded.
pub const REQUEST_PATH_BYTES_MAX: usize = 8192;

/// What a URL names and a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The tagged versions of a module.
    List(ModulePath),
    /// The newest version of a module that may have no tags.
    Latest(ModulePath),
    /// What a branch, tag or commit stands for now. The query is made for this path, see [`Resource::info`].
    Query(ModulePath, Query),
    /// A file of a version; it never changes.
    Artifact(ModuleVersion, ArtifactKind),
    /// Whether a checksum database is proxied.
    SumdbSupported(SumdbName),
    /// The newest signed tree head of a checksum database.
    SumdbLatest(SumdbName),
    /// A record of a checksum database.
    SumdbLookup(SumdbName, LookupTarget),
    /// A tile of a checksum database.
    SumdbTile(SumdbName, Tile),
}

/// The immutable files of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArtifactKind {
    /// Version and time, as JSON.
    Info,
    /// The go.mod file.
    Mod,
    /// The module's files.
    Zip,
}

impl ArtifactKind {
    /// All kinds, in the order `go mod download` asks for them.
    pub const ALL: [Self; 3] = [Self::Info, Self::Mod, Self::Zip];

    /// Returns the ending of the file name, with its dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Info => ".info",
            Self::Mod => ".mod",
            Self::Zip => ".zip",
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffix()[1..])
    }
}

/// The freshness class of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutability {
    /// Stored once and served for ever.
    Immutable,
    /// Asked again when it has grown old.
    Mutable,
}

/// Why a text names no resource. All of these mean "not found": nothing can be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The percent-encoding is broken, or hides a slash, a backslash or a NUL byte.
    #[error("{}: bad percent-encoding", Shown(.path))]
    Encoding {
        /// The request path as it came.
        path: String,
    },
    /// Longer than any resource's path.
    #[error("path of {bytes} bytes is longer than any name")]
    TooLong {
        /// The length that was given.
        bytes: usize,
    },
    /// Neither a module proxy's endpoint nor a checksum database's.
    #[error("{}: not a path of the module proxy protocol", Shown(.path))]
    NoEndpoint {
        /// The decoded path.
        path: String,
    },
    /// The module or the version in it is malformed, or they do not belong together.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The checksum database's name in it is malformed.
    #[error(transparent)]
    SumdbName(#[from] SumdbNameError),
    /// The tile in it is malformed.
    #[error(transparent)]
    Tile(#[from] TileError),
}

impl Resource {
    /// Parses the path of a request: still percent-encoded, with its leading slash, without a query.
    ///
    /// It is decoded once, before anything is unescaped. An encoded slash, backslash or NUL byte is refused, as is what
    /// is not UTF-8 afterwards.
    ///
    /// # Errors
    /// [`ResourceError`]; every variant means that nothing can be there.
    pub fn from_request_path(raw: &str) -> Result<Self, ResourceError> {
        if raw.len() > REQUEST_PATH_BYTES_MAX {
            return Err(ResourceError::TooLong { bytes: raw.len() });
        }
        let bad = || ResourceError::Encoding { path: raw.to_owned() };
        let decoded = percent_decode(raw).ok_or_else(bad)?;
        let path = decoded.strip_prefix('/').ok_or_else(|| no_endpoint(&decoded))?;
        Self::parse(path)
    }

    /// Parses a path below the root, escaped but not percent-encoded, without a leading slash: the inverse of
    /// [`Self::path`].
    ///
    /// # Errors
    /// [`ResourceError`]; every variant means that nothing can be there.
    pub fn parse(path: &str) -> Result<Self, ResourceError> {
        if let Some(rest) = path.strip_prefix("sumdb/") {
            return parse_sumdb(path, rest);
        }
        // A module path has no @, so the first one ends it.
        let (module, rest) = path.split_once("/@").ok_or_else(|| no_endpoint(path))?;
        match rest {
            "latest" => return Ok(Self::Latest(ModulePath::from_escaped(module)?)),
            "v/list" => return Ok(Self::List(ModulePath::from_escaped(module)?)),
            _ => {}
        }
        let file = rest.strip_prefix("v/").ok_or_else(|| no_endpoint(path))?;
        let kind_of = |kind: &ArtifactKind| Some((file.strip_suffix(kind.suffix())?, *kind));
        let (escaped, kind) = ArtifactKind::ALL
            .iter()
            .find_map(kind_of)
            .ok_or_else(|| no_endpoint(path))?;
        let module = ModulePath::from_escaped(module)?;
        match kind {
            ArtifactKind::Info => Ok(Self::info(module, &version::text_from_escaped(escaped)?)?),
            ArtifactKind::Mod | ArtifactKind::Zip => {
                let version = Version::from_escaped(escaped)?;
                Ok(Self::Artifact(ModuleVersion::new(module, version)?, kind))
            }
        }
    }

    /// Returns the resource that tells what `text`, unescaped, means as a version of a module: the `.info` of a
    /// canonical version that belongs to the path, or a query.
    ///
    /// # Errors
    /// [`ModuleError::MalformedVersion`] if nobody could ask for it.
    pub fn info(path: ModulePath, text: &str) -> Result<Self, ModuleError> {
        match Version::parse(text) {
            Ok(version) if path.admits(&version) => {
                Ok(Self::Artifact(ModuleVersion::new(path, version)?, ArtifactKind::Info))
            }
            Ok(_) | Err(_) => {
                let query = Query::new(&path, text)?;
                Ok(Self::Query(path, query))
            }
        }
    }

    /// Returns the path below the store's root and, not percent-encoded, below an upstream's base: the inverse of
    /// [`Self::parse`]. At most some 2,600 bytes.
    pub fn path(&self) -> String {
        let mut path = String::with_capacity(128);
        // Writing to a string cannot fail.
        let _ = self.write_path(&mut path);
        path
    }

    /// Returns the path below an upstream's base, percent-encoded as `go` does it: `!` is encoded except in a checksum
    /// database's URLs. The inverse of [`Self::from_request_path`], but for the slash.
    pub fn url_path(&self) -> String {
        let path = self.path();
        let is_bang_bare = self.sumdb_name().is_some();
        let is_bare = |b: u8| b.is_ascii_alphanumeric() || b"-._~$&+=:@/".contains(&b) || (b == b'!' && is_bang_bare);
        if path.bytes().all(is_bare) {
            return path;
        }
        let mut encoded = String::with_capacity(path.len() + 32);
        for b in path.bytes() {
            if is_bare(b) {
                encoded.push(char::from(b));
            } else {
                let _ = write!(encoded, "%{b:02X}");
            }
        }
        encoded
    }

    /// Returns the Content-Type to serve it with.
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::Latest(_) | Self::Query(..) | Self::Artifact(_, ArtifactKind::Info) => "application/json",
            Self::Artifact(_, ArtifactKind::Zip) => "application/zip",
            Self::SumdbTile(..) => "application/octet-stream",
            Self::List(_)
            | Self::Artifact(_, ArtifactKind::Mod)
            | Self::SumdbSupported(_)
            | Self::SumdbLatest(_)
            | Self::SumdbLookup(..) => "text/plain; charset=UTF-8",
        }
    }

    /// Returns the freshness class. A lookup counts as immutable: its record never changes, and the tree head that
    /// comes with it stays a head of the same log, which is why `go` keeps lookups for ever too.
    pub fn mutability(&self) -> Mutability {
        match self {
            Self::Artifact(..) | Self::SumdbLookup(..) | Self::SumdbTile(..) => Mutability::Immutable,
            Self::List(_) | Self::Latest(_) | Self::Query(..) | Self::SumdbSupported(_) | Self::SumdbLatest(_) => {
                Mutability::Mutable
            }
        }
    }

    /// Returns the module it is about, a lookup's included.
    pub fn module_path(&self) -> Option<&ModulePath> {
        match self {
            Self::List(path) | Self::Latest(path) | Self::Query(path, _) => Some(path),
            Self::Artifact(module, _) => Some(module.path()),
            Self::SumdbLookup(_, target) => Some(target.path()),
            Self::SumdbSupported(_) | Self::SumdbLatest(_) | Self::SumdbTile(..) => None,
        }
    }

    /// Returns the checksum database it is of.
    pub fn sumdb_name(&self) -> Option<&SumdbName> {
        match self {
            Self::List(_) | Self::Latest(_) | Self::Query(..) | Self::Artifact(..) => None,
            Self::SumdbSupported(name)
            | Self::SumdbLatest(name)
            | Self::SumdbLookup(name, _)
            | Self::SumdbTile(name, _) => Some(name),
        }
    }

    fn write_path(&self, out: &mut impl Write) -> fmt::Result {
        match self {
            Self::List(path) => {
                write_escaped(out, path.as_str())?;
                out.write_str("/@v/list")
            }
            Self::Latest(path) => {
                write_escaped(out, path.as_str())?;
                out.write_str("/@latest")
            }
            Self::Query(path, query) => write_file(out, path, query.as_str(), ArtifactKind::Info),
            Self::Artifact(module, kind) => write_file(out, module.path(), module.version().as_str(), *kind),
            Self::SumdbSupported(name) => write!(out, "sumdb/{name}/supported"),
            Self::SumdbLatest(name) => write!(out, "sumdb/{name}/latest"),
            Self::SumdbLookup(name, target) => {
                write!(out, "sumdb/{name}/lookup/")?;
                write_escaped(out, target.path().as_str())?;
                out.write_char('@')?;
                write_escaped(out, target.version())
            }
            Self::SumdbTile(name, tile) => write!(out, "sumdb/{name}/{tile}"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_path(f)
    }
}

fn no_endpoint(path: &str) -> ResourceError {
    ResourceError::NoEndpoint { path: path.to_owned() }
}

fn write_file(out: &mut impl Write, path: &ModulePath, version: &str, kind: ArtifactKind) -> fmt::Result {
    write_escaped(out, path.as_str())?;
    out.write_str("/@v/")?;
    write_escaped(out, version)?;
    out.write_str(kind.suffix())
}

/// Parses what follows `sumdb/`. A database's name has slashes of its own; it ends at the first element it cannot have.
fn parse_sumdb(path: &str, rest: &str) -> Result<Resource, ResourceError> {
    let mut name_bytes = 0;
    for element in rest.split('/') {
        if SUMDB_ENDPOINTS.contains(&element) {
            break;
        }
        name_bytes += element.len() + 1;
    }
    let endpoint = rest.get(name_bytes..).ok_or_else(|| no_endpoint(path))?;
    let name = SumdbName::parse(rest[..name_bytes].strip_suffix('/').unwrap_or_default())?;
    match endpoint {
        "supported" => return Ok(Resource::SumdbSupported(name)),
        "latest" => return Ok(Resource::SumdbLatest(name)),
        _ => {}
    }
    if endpoint.starts_with("tile/") {
        return Ok(Resource::SumdbTile(name, Tile::parse(endpoint)?));
    }
    let target = endpoint.strip_prefix("lookup/").ok_or_else(|| no_endpoint(path))?;
    // A version may have an @ of its own, a path has none.
    let (module, version) = target.split_once('@').ok_or_else(|| no_endpoint(path))?;
    let module = ModulePath::from_escaped(module)?;
    Ok(Resource::SumdbLookup(
        name,
        LookupTarget::new(module, &version::text_from_escaped(version)?)?,
    ))
}

/// Decodes percent-encoding once. Nothing if it is broken or hides what must not be hidden.
fn percent_decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            decoded.push(b);
            continue;
        }
        let b = hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?;
        if matches!(b, b'/' | b'\\' | 0) {
            return None;
        }
        decoded.push(b);
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
