//! The h1 hash: of a go.mod file, and of a finished zip, read through its directory as Go's `dirhash` reads it.
//!
//! Called for what has no stream (adopted, resumed) and for what `stream` finds odd; calls `directory`, `content` and
//! `lines`. Invariants: a hash comes out exactly where Go's `dirhash.HashZip` gives one, and the same one; but for zips
//! that unpack to more than [`ZIP_BYTES_MAX`], which `go` refuses to unpack. Memory is bounded by [`bytes_max`]: larger
//! zips go through runs, which the caller keeps. Source: Go 1.26, golang.org/x/mod/sumdb/dirhash.
//!
//! ```text
//! summary = for each entry's whole name, sorted by bytes:   SHA-256 of the content in hex, 2 spaces, name, newline
//! h1      = "h1:", base64 of the SHA-256 of the summary
//! ```
//! Two entries of one name are two equal lines, both with the content of the last.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io::{self, Read, Write};

use base64::prelude::{BASE64_STANDARD, Engine};
use ring::digest::{Context, SHA256, digest};

pub use super::content::ContentFlaw;
use super::content::Contents;
use super::directory::Directory;
use super::lines::{ContentHash, Lines, RunLine, read_line, write_run};
pub use super::lines::{ENTRIES_MAX, bytes_max};
use super::{ReadAt, Shown, ZIP_BYTES_MAX, ZipError, check_name, shown};

/// An h1 hash. Displayed as `h1:` and base64, as go.sum and the checksum database have it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct H1([u8; 32]);

impl H1 {
    /// Returns the hash of a go.mod file. Its name in the summary is `go.mod`, whatever the module.
    pub fn of_go_mod(bytes: &[u8]) -> Self {
        let mut summary = Summary::new("");
        summary.lines(b"go.mod", digest_of(bytes), 1);
        summary.finish()
    }

    /// Parses `h1:` and base64, the inverse of `Display`. Only that one spelling is taken.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.strip_prefix("h1:")?).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// Returns the 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for H1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h1:{}", BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for H1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a zip has no h1 hash, or not this way.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The archive itself is wrong, or too much.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// An entry's content cannot be read.
    #[error("zip entry {}: {flaw}", Shown(.name))]
    Content {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        flaw: ContentFlaw,
    },
    /// There are more entries, or longer names, than are sorted in memory: use [`write_runs`] and [`merge_runs`].
    #[error("zip of more than {entries} entries has to be hashed by sorted runs")]
    TooManyEntries {
        /// How many there were before it became too much.
        entries: usize,
    },
}

/// Returns the h1 hash of the zip that the first `zip_bytes` bytes of `source` are.
///
/// Blocking, for as long as it takes to inflate and hash everything. `prefix` is what every name has to begin with,
/// `PATH@VERSION/` for a module; the empty one fits any zip.
///
/// # Errors
/// [`HashError`]; of two entries with one name only the last is looked at, as in Go.
pub fn hash<S: ReadAt + ?Sized>(source: &S, zip_bytes: u64, prefix: &str) -> Result<H1, HashError> {
    let directory = open(source, zip_bytes, prefix)?;
    let mut lines = Lines::default();
    let mut walk = directory.walk();
    while let Some(entry) = walk.next()? {
        if lines.is_full(bytes_max(lines.len())) {
            return Err(HashError::TooManyEntries { entries: lines.len() });
        }
        lines.push(&entry.name[prefix.len()..], None);
    }
    let order = lines.sorted();
    let mut is_last = vec![true; order.len()];
    for pair in order.windows(2) {
        is_last[pair[0] as usize] = lines.name(pair[0] as usize) != lines.name(pair[1] as usize);
    }
    let mut contents = Contents::new();
    let mut walk = directory.walk();
    for (index, is_last) in is_last.into_iter().enumerate() {
        // The directory had as many entries a moment ago; with fewer now the file is being changed.
        let entry = walk.next()?.ok_or(ZipError::Directory { found: index as u64, expected: order.len() as u64 })?;
        if is_last {
            let content = contents.hash(source, zip_bytes, &entry)?;
            let content = content.map_err(|flaw| HashError::Content { name: shown(&entry.name), flaw })?;
            lines.set_content(index, content);
        }
    }
    summarize(&lines, prefix, &order)
}

/// Hashes a zip of any number of entries into sorted runs, each of which is handed out as soon as memory is full.
///
/// The caller keeps what [`Run::write_to`] writes, in order, and gives all of it to [`merge_runs`], with the same prefix.
/// Blocking, and bounds as for [`hash`].
///
/// # Errors
/// [`HashError`], or what the caller's own function returned.
pub fn write_runs<S, E>(
    source: &S,
    zip_bytes: u64,
    prefix: &str,
    mut keep: impl FnMut(Run<'_>) -> Result<(), E>,
) -> Result<(), E>
where
    S: ReadAt + ?Sized,
    E: From<HashError>,
{
    let directory = open(source, zip_bytes, prefix)?;
    let (mut lines, mut contents) = (Lines::default(), Contents::new());
    let mut walk = directory.walk();
    while let Some(entry) = walk.next().map_err(HashError::from)? {
        if lines.is_full(bytes_max(ENTRIES_MAX)) {
            keep(Run(&lines))?;
            lines = Lines::default();
        }
        let content = contents.hash(source, zip_bytes, &entry).map_err(HashError::from)?;
        // Whether a content that cannot be read counts is known when the runs are merged.
        lines.push(&entry.name[prefix.len()..], content.ok());
    }
    keep(Run(&lines))
}

/// Some sorted lines, to be kept by the caller.
pub struct Run<'a>(&'a Lines);

impl Run<'_> {
    /// Writes the lines, in small pieces: give it a buffered writer.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_to(&self, to: &mut impl Write) -> io::Result<()> {
        write_run(self.0, to)
    }
}

/// Merges the runs that [`write_runs`] made, in that order, to the h1 hash. Give it buffered readers.
///
/// # Errors
/// [`HashError`]; [`ZipError::Io`] if a run cannot be read or ends within a line.
pub fn merge_runs<R: Read>(runs: &mut [R], prefix: &str) -> Result<H1, HashError> {
    let mut heap = BinaryHeap::new();
    for (number, run) in runs.iter_mut().enumerate() {
        heap.extend(next_of(run, number)?);
    }
    let mut summary = Summary::new(prefix);
    while let Some(Reverse((mut name, mut number, mut content))) = heap.pop() {
        let mut count = 1;
        heap.extend(next_of(&mut runs[number], number)?);
        while heap.peek().is_some_and(|Reverse(next)| next.0 == name) {
            if let Some(Reverse(next)) = heap.pop() {
                (name, number, content) = next;
                count += 1;
                heap.extend(next_of(&mut runs[number], number)?);
            }
        }
        summary.lines(&name, content.ok_or_else(|| unreadable(prefix, &name))?, count);
    }
    Ok(summary.finish())
}

type Head = Reverse<(Vec<u8>, usize, Option<ContentHash>)>;

/// Returns the next line of a run, to be sorted by name, then by the run's number.
fn next_of(run: &mut impl Read, number: usize) -> Result<Option<Head>, HashError> {
    let line = read_line(run).map_err(ZipError::from)?;
    Ok(line.map(|RunLine { name, content }| Reverse((name, number, content))))
}

fn unreadable(prefix: &str, name: &[u8]) -> HashError {
    HashError::Content { name: format!("{prefix}{}", shown(name)), flaw: ContentFlaw::Unreadable }
}

/// Opens a zip and looks at what needs no content: names and sizes.
fn open<'a, S: ReadAt + ?Sized>(source: &'a S, zip_bytes: u64, prefix: &str) -> Result<Directory<'a, S>, HashError> {
    if zip_bytes > ZIP_BYTES_MAX {
        return Err(ZipError::TooLarge { bytes: zip_bytes }.into());
    }
    let directory = Directory::open(source, zip_bytes)?;
    let mut walk = directory.walk();
    let mut unpacked_bytes = 0_u64;
    while let Some(entry) = walk.next()? {
        check_name(&entry.name, prefix)?;
        if !entry.is_folder() {
            unpacked_bytes = unpacked_bytes.saturating_add(entry.unpacked_bytes);
        }
        if unpacked_bytes > ZIP_BYTES_MAX {
            return Err(ZipError::UnpackedTooLarge { bytes: unpacked_bytes }.into());
        }
    }
    Ok(directory)
}

/// Hashes the lines in this order, which has to be that of their names.
pub(super) fn summarize(lines: &Lines, prefix: &str, order: &[u32]) -> Result<H1, HashError> {
    let mut summary = Summary::new(prefix);
    for same in order.chunk_by(|a, b| lines.name(*a as usize) == lines.name(*b as usize)) {
        let Some(last) = same.last() else { continue };
        let name = lines.name(*last as usize);
        summary.lines(name, lines.content(*last as usize).ok_or_else(|| unreadable(prefix, name))?, same.len());
    }
    Ok(summary.finish())
}

/// Returns the SHA-256 hash of bytes.
pub(super) fn digest_of(bytes: &[u8]) -> ContentHash {
    finish(digest(&SHA256, bytes).as_ref())
}

/// Returns a digest as its 32 bytes.
pub(super) fn finish(digest: &[u8]) -> ContentHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest);
    hash
}

/// The summary, hashed line by line. Whoever gives the lines sorts them.
struct Summary<'a> {
    context: Context,
    prefix: &'a str,
    line: Vec<u8>,
}

impl<'a> Summary<'a> {
    fn new(prefix: &'a str) -> Self {
        Self { context: Context::new(&SHA256), prefix, line: Vec::new() }
    }

    /// Adds the line of a name below the prefix so many times. The name has no newline.
    fn lines(&mut self, name: &[u8], content: ContentHash, count: usize) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.line.clear();
        for byte in content {
            self.line.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        self.line.extend(b"  ");
        self.line.extend(self.prefix.as_bytes());
        self.line.extend(name);
        self.line.push(b'\n');
        for _ in 0..count {
            self.context.update(&self.line);
        }
    }

    fn finish(self) -> H1 {
        H1(finish(self.context.finish().as_ref()))
    }
}
