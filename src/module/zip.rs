//! Module zips: their structure, checked here; the go command's rules (`rules`); the h1 hash (`hash`, `stream`).
//!
//! [`check_structure`] is called when a zip has arrived or is adopted, and says whether a file is a complete archive of
//! one module version; it calls `directory`. It reads the end of the file, walks the central directory through one fixed
//! buffer and looks at the first bytes of every entry; it inflates nothing, so it does not replace the hash. Invariants:
//! memory is bounded whatever the file says; what Go's `archive/zip` and the h1 hash accept is refused only for bytes
//! after the archive, a name outside the module, a directory outside the file, or a limit. (One exception: of two
//! entries with one name Go hashes the last alone, so it does not miss the first one's data. It unpacks such a zip only
//! if the name is a folder's.) Sources: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3; the Go module reference, "Module
//! zip files".
//!
//! ```text
//! [anything] [local header, name, extra, data]… [directory header, name, extra, comment]…
//! [zip64 end record] [zip64 locator] [end record, comment]                                   all little-endian
//!
//! local header      0 "PK\3\4"                                                               30 bytes + name + extra
//! directory header  0 "PK\1\2"  20 compressed:4  24 unpacked:4  28 name:2  30 extra:2  32 comment:2  42 offset:4   46
//! end record        0 "PK\5\6"  10 entries:2  12 directory bytes:4  16 directory offset:4  20 comment:2            22
//! zip64 locator     0 "PK\6\7"   4 disk:4   8 offset of the zip64 end record:8  16 disks:4                         20
//! zip64 end record  0 "PK\6\6"  32 entries:8  40 directory bytes:8  48 directory offset:8                          56
//! zip64 extra       0 tag 1:2    2 bytes:2   then 8 bytes each for what is all ones in the header:
//!                   unpacked, compressed, offset
//! ```

use std::io;

use self::directory::{Directory, Entry, LOCAL_BYTES, LOCAL_SIGNATURE};
pub use self::source::ReadAt;
use super::{ModuleVersion, Shown};

pub mod hash;
pub mod rules;
pub mod stream;

mod content;
mod directory;
mod lines;
mod name;
mod source;
mod unicode;
mod window;

/// The largest module zip in bytes, and the most it may hold unpacked: what `go` refuses to read or unpack.
pub const ZIP_BYTES_MAX: u64 = 500 << 20;

/// The largest top-level go.mod or LICENSE file in bytes.
pub const TOP_FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a file is not the zip of a module version.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// The file could not be read.
    #[error("reading the zip: {0}")]
    Io(#[from] io::Error),
    /// No end record where one has to be: not a zip, or one that was cut short.
    #[error("not a zip file, or cut short: no end of central directory in the last {bytes} bytes")]
    NoEnd {
        /// How much of the end was searched, in bytes.
        bytes: usize,
    },
    /// The archive ends before the file does.
    #[error("{bytes} bytes after the end of the zip")]
    TrailingBytes {
        /// How many bytes are too many.
        bytes: u64,
    },
    /// The central directory is said to be where the file is not.
    #[error("zip directory of {bytes} bytes at offset {offset} lies outside the file")]
    DirectoryOutside {
        /// Its offset, as the end record has it.
        offset: u64,
        /// Its length in bytes, as the end record has it.
        bytes: u64,
    },
    /// The central directory does not hold as many entries as the end record says.
    #[error("zip directory is damaged after {found} entries of {expected}")]
    Directory {
        /// How many were read before something else came.
        found: u64,
        /// How many there have to be; their number modulo 65,536 counts.
        expected: u64,
    },
    /// An entry's data does not begin where the directory says.
    #[error("zip entry {}: no local header at offset {offset}", Shown(.name))]
    LocalHeader {
        /// The entry's name.
        name: String,
        /// Where its header should be, in bytes from the start of the file.
        offset: i128,
    },
    /// An entry is not below `PATH@VERSION/`.
    #[error("zip entry {}: name does not begin with {prefix}", Shown(.name))]
    Prefix {
        /// The entry's name.
        name: String,
        /// What every name has to begin with.
        prefix: String,
    },
    /// A name holds a newline, which no h1 hash can be made of.
    #[error("zip entry {}: newline in the name", Shown(.name))]
    Newline {
        /// The entry's name.
        name: String,
    },
    /// The file is larger than any module zip.
    #[error("zip of {bytes} bytes: more than {ZIP_BYTES_MAX}")]
    TooLarge {
        /// The file's length.
        bytes: u64,
    },
    /// The entries together are larger than any module.
    #[error("zip unpacks to {bytes} bytes or more: more than {ZIP_BYTES_MAX}")]
    UnpackedTooLarge {
        /// The sum at which counting stopped.
        bytes: u64,
    },
    /// A top-level go.mod or LICENSE is larger than `go` takes.
    #[error("zip entry {} of {bytes} bytes: more than {TOP_FILE_BYTES_MAX}", Shown(.name))]
    TopFileTooLarge {
        /// The entry's name.
        name: String,
        /// Its unpacked length.
        bytes: u64,
    },
}

/// Checks that the first `zip_bytes` bytes of a file are the whole zip of a module version, by its structure alone.
///
/// Blocking. Reads by position, so the file's own offset does not move.
///
/// # Errors
/// [`ZipError`] names the rule that is broken.
pub fn check_structure<S: ReadAt + ?Sized>(file: &S, zip_bytes: u64, module: &ModuleVersion) -> Result<(), ZipError> {
    if zip_bytes > ZIP_BYTES_MAX {
        return Err(ZipError::TooLarge { bytes: zip_bytes });
    }
    let directory = Directory::open(file, zip_bytes)?;
    if directory.trailing_bytes > 0 {
        return Err(ZipError::TrailingBytes { bytes: directory.trailing_bytes });
    }
    let prefix = format!("{module}/");
    let mut walk = directory.walk();
    let mut sizes = Sizes::default();
    while let Some(entry) = walk.next()? {
        check_name(&entry.name, &prefix)?;
        check_local_header(file, zip_bytes, &entry)?;
        sizes.add(&entry, prefix.len())?;
    }
    Ok(())
}

fn check_name(name: &[u8], prefix: &str) -> Result<(), ZipError> {
    check_prefix(name, prefix)?;
    if name.contains(&b'\n') {
        return Err(ZipError::Newline { name: shown(name) });
    }
    Ok(())
}

fn check_prefix(name: &[u8], prefix: &str) -> Result<(), ZipError> {
    if !name.starts_with(prefix.as_bytes()) {
        return Err(ZipError::Prefix { name: shown(name), prefix: prefix.to_owned() });
    }
    Ok(())
}

fn check_local_header<S: ReadAt + ?Sized>(file: &S, zip_bytes: u64, entry: &Entry) -> Result<(), ZipError> {
    let missing = || ZipError::LocalHeader { name: shown(&entry.name), offset: entry.start };
    let start = u64::try_from(entry.start).map_err(|_| missing())?;
    if start.checked_add(LOCAL_BYTES as u64).is_none_or(|after| after > zip_bytes) {
        return Err(missing());
    }
    let mut signature = [0; LOCAL_SIGNATURE.len()];
    file.read_exact_at(&mut signature, start)?;
    if &signature == LOCAL_SIGNATURE { Ok(()) } else { Err(missing()) }
}

/// The limits of unpacked sizes, as the directory gives them.
#[derive(Default)]
struct Sizes {
    unpacked_bytes: u64,
}

impl Sizes {
    /// Counts an entry. Its name begins with a prefix of so many bytes.
    fn add(&mut self, entry: &Entry, prefix_bytes: usize) -> Result<(), ZipError> {
        if entry.is_folder() {
            return Ok(());
        }
        let is_limited = matches!(&entry.name[prefix_bytes..], b"go.mod" | b"LICENSE");
        if is_limited && entry.unpacked_bytes > TOP_FILE_BYTES_MAX {
            return Err(ZipError::TopFileTooLarge { name: shown(&entry.name), bytes: entry.unpacked_bytes });
        }
        self.unpacked_bytes = self.unpacked_bytes.saturating_add(entry.unpacked_bytes);
        if self.unpacked_bytes > ZIP_BYTES_MAX {
            return Err(ZipError::UnpackedTooLarge { bytes: self.unpacked_bytes });
        }
        Ok(())
    }
}

/// Names are only shown, and cut then; a name that is not UTF-8 is no reason to refuse a zip.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_archive;
#[cfg(test)]
mod tests_hash;
#[cfg(test)]
mod tests_oracle;
#[cfg(test)]
mod tests_rules;
