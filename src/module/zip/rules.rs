//! The go command's rules for module zips, all of them: what `go` would refuse to unpack is refused before it is stored.
//!
//! Called when a zip has arrived; calls `directory`, `name` and `unicode`. Invariants: the verdict is that of Go's
//! `zip.CheckZip`, for every file; the only exception is a zip beyond [`PATHS_MAX`] or [`FOLDER_BYTES_MAX`]. Names are
//! kept as hashes, so that memory is at most [`PATHS_HELD_MAX`] of them, whatever the file says; where there are more, the
//! directory is read several times, and each time one share of them is compared. Source: Go 1.26,
//! golang.org/x/mod/zip/zip.go.
//!
//! What Go lets pass and this does as well: bytes before and after the archive, entries whose data is damaged (that is
//! for the hash to find), and symbolic links, which `go` unpacks as plain files that hold the name of the target.

use super::super::Flaw;
use super::directory::{Directory, Entry};
use super::hash::digest_of;
use super::name::check_file_name;
use super::unicode::fold;
use super::{ModuleVersion, ReadAt, Shown, Sizes, ZIP_BYTES_MAX, ZipError, check_prefix, shown};

/// The most paths, folders among them, that a zip can have here.
pub const PATHS_MAX: u64 = 16 << 20;

/// The most bytes in the paths of all folders. One name of 64 KiB can stand for 32,000 folders with paths as long, and each
/// is hashed.
pub const FOLDER_BYTES_MAX: u64 = 256 << 20;

/// The most paths whose hashes are in memory at a time, of 32 bytes each.
pub const PATHS_HELD_MAX: usize = 1 << 18;

/// The rule of the go command that a zip breaks.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// It is no zip, is too large, or has an entry outside the module.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// A name that is no file name on some system.
    #[error("zip entry {}: malformed file path: {flaw}", Shown(.name))]
    Name {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A name that is not UTF-8.
    #[error("zip entry {}: malformed file path: invalid UTF-8", Shown(.name))]
    NotUtf8 {
        /// The entry's name, as far as it can be shown.
        name: String,
    },
    /// Two names that differ in case only.
    #[error("zip entry {}: case-insensitive file name collision with {}", Shown(.name), Shown(.other))]
    Collision {
        /// The path, below the prefix.
        name: String,
        /// The path that came before it.
        other: String,
    },
    /// A path that is the name of a file and of a folder.
    #[error("zip entry {} is both a file and a directory", Shown(.name))]
    FileAndFolder {
        /// The path, below the prefix.
        name: String,
    },
    /// Two files of one name.
    #[error("multiple entries for zip entry {}", Shown(.name))]
    Duplicate {
        /// The path, below the prefix.
        name: String,
    },
    /// A go.mod file in a folder: those files are another module's.
    #[error("zip entry {}: go.mod file not in module root directory", Shown(.name))]
    GoModBelow {
        /// The entry's name.
        name: String,
    },
    /// `GO.MOD` or the like.
    #[error("zip entry {}: go.mod files must have lowercase names", Shown(.name))]
    GoModCase {
        /// The entry's name.
        name: String,
    },
    /// More paths than are compared here.
    #[error("zip with more than {PATHS_MAX} paths, or folders of more than {FOLDER_BYTES_MAX} bytes")]
    TooManyPaths,
}

/// What is worth knowing of a zip that keeps the rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    /// How many entries it has, folders included.
    pub entries: u64,
    /// What its files take when they are unpacked.
    pub unpacked_bytes: u64,
    /// How many bytes follow the archive.
    pub trailing_bytes: u64,
    /// The first entry that is a symbolic link. `go` makes a plain file of it.
    pub symlink: Option<String>,
}

/// Checks that the first `zip_bytes` bytes of `source` are a zip that `go` would unpack as this module version, but for
/// the data of its entries.
///
/// Blocking. Reads the directory alone, once for most zips.
///
/// # Errors
/// [`RuleError`] names the rule that is broken, and where.
pub fn check_rules<S>(source: &S, zip_bytes: u64, module: &ModuleVersion) -> Result<Facts, RuleError>
where
    S: ReadAt + ?Sized,
{
    check_with(source, zip_bytes, module, PATHS_HELD_MAX)
}

pub(super) fn check_with<S>(
    source: &S,
    zip_bytes: u64,
    module: &ModuleVersion,
    held_max: usize,
) -> Result<Facts, RuleError>
where
    S: ReadAt + ?Sized,
{
    if zip_bytes > ZIP_BYTES_MAX {
        return Err(ZipError::TooLarge { bytes: zip_bytes }.into());
    }
    let directory = Directory::open(source, zip_bytes)?;
    let prefix = format!("{module}/");
    let (facts, paths) = check_entries(&directory, &prefix)?;
    let shares = (2 * paths).div_ceil(held_max as u64).max(1);
    // Shares differ in size as it falls; one that turns out too large is divided further.
    let mut todo: Vec<Share> = (0..shares).map(|number| Share { shares, number }).collect();
    while let Some(share) = todo.pop() {
        if !check_paths(&directory, &prefix, share, held_max)? {
            let shares = share.shares * 2;
            todo.extend([share.number, share.number + share.shares].map(|number| Share { shares, number }));
        }
    }
    Ok(facts)
}

/// Asks every rule that looks at one entry alone. Returns also how many paths there are, folders counted with each file.
fn check_entries<S>(directory: &Directory<'_, S>, prefix: &str) -> Result<(Facts, u64), RuleError>
where
    S: ReadAt + ?Sized,
{
    let mut sizes = Sizes::default();
    let trailing_bytes = directory.trailing_bytes;
    let mut facts = Facts { entries: 0, unpacked_bytes: 0, trailing_bytes, symlink: None };
    let (mut paths, mut folder_bytes, mut last) = (0_u64, 0_u64, String::new());
    let mut walk = directory.walk();
    while let Some(entry) = walk.next()? {
        facts.entries += 1;
        check_prefix(&entry.name, prefix)?;
        let Some(name) = path_of(&entry, prefix)? else { continue };
        check_file_name(name).map_err(|flaw| RuleError::Name { name: shown(&entry.name), flaw })?;
        if !entry.is_folder() {
            check_go_mod(name, &entry)?;
            if entry.is_symlink && facts.symlink.is_none() {
                facts.symlink = Some(shown(&entry.name));
            }
        }
        sizes.add(&entry, prefix.len())?;
        paths += 1;
        for folder in new_folders(&last, name) {
            paths += 1;
            folder_bytes += folder.len() as u64;
        }
        if paths > PATHS_MAX || folder_bytes > FOLDER_BYTES_MAX {
            return Err(RuleError::TooManyPaths);
        }
        last.clear();
        last.push_str(name);
    }
    facts.unpacked_bytes = sizes.unpacked_bytes;
    Ok((facts, paths))
}

/// Returns the entry's path below the prefix, a folder's without its slash; nothing for the prefix itself.
fn path_of<'a>(entry: &'a Entry, prefix: &str) -> Result<Option<&'a str>, RuleError> {
    let path = &entry.name[prefix.len()..];
    if path.is_empty() {
        return Ok(None);
    }
    let path = path.strip_suffix(b"/").unwrap_or(path);
    std::str::from_utf8(path).map(Some).map_err(|_| RuleError::NotUtf8 { name: shown(&entry.name) })
}

fn check_go_mod(path: &str, entry: &Entry) -> Result<(), RuleError> {
    let name = || shown(&entry.name);
    let (folder, base) = path.rsplit_once('/').map_or((None, path), |(folder, base)| (Some(folder), base));
    if !base.eq_ignore_ascii_case("go.mod") {
        return Ok(());
    }
    if folder.is_some() {
        return Err(RuleError::GoModBelow { name: name() });
    }
    if base == "go.mod" { Ok(()) } else { Err(RuleError::GoModCase { name: name() }) }
}

/// Returns the folders above `path`, without those that `last` is below of as well: with files of one folder side by
/// side, as they mostly are, each is seen once.
fn new_folders<'a>(last: &str, path: &'a str) -> impl Iterator<Item = &'a str> {
    let common = last.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
    path.match_indices('/').filter(move |(at, _)| *at >= common).map(|(at, _)| &path[..at])
}

/// One part of all paths: those whose hash leaves this remainder.
#[derive(Clone, Copy)]
struct Share {
    shares: u64,
    number: u64,
}

/// A path as it is compared. The order brings together what differs in case only, then what is spelled the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    /// The first 16 bytes of the SHA-256 hash of the path, folded.
    folded: [u8; 16],
    /// The first 15 bytes of that of the path as it is: nobody has two paths that differ and agree in both.
    spelled: [u8; 15],
    is_folder: bool,
}

/// Compares the paths of one share with each other. Says whether there was room for it.
fn check_paths<S>(directory: &Directory<'_, S>, prefix: &str, share: Share, held_max: usize) -> Result<bool, RuleError>
where
    S: ReadAt + ?Sized,
{
    let mut marks: Vec<Mark> = Vec::new();
    let (mut conflict, mut has_room) = (None, true);
    each_path(directory, prefix, |path, is_folder| {
        let mark = Mark::of(path, is_folder);
        if share.has(&mark) {
            if marks.len() == held_max {
                conflict = compact(&mut marks);
                has_room = marks.len() <= held_max / 2;
            }
            marks.push(mark);
        }
        conflict.is_none() && has_room
    })?;
    if conflict.is_none() && has_room {
        conflict = compact(&mut marks);
    }
    match conflict {
        Some(conflict) => Err(name_conflict(directory, prefix, conflict)?),
        None => Ok(has_room),
    }
}

/// Sorts, drops folders that were seen before, and returns two paths that are at odds, if there are any.
fn compact(marks: &mut Vec<Mark>) -> Option<[Mark; 2]> {
    marks.sort_unstable();
    marks.dedup_by(|a, b| a.is_folder && a == b);
    marks.windows(2).find(|pair| pair[0].folded == pair[1].folded).map(|pair| [pair[0], pair[1]])
}

/// Reads the directory once more to name two paths that are at odds.
fn name_conflict<S>(directory: &Directory<'_, S>, prefix: &str, marks: [Mark; 2]) -> Result<RuleError, RuleError>
where
    S: ReadAt + ?Sized,
{
    let mut names: Vec<String> = Vec::new();
    each_path(directory, prefix, |path, is_folder| {
        if marks.contains(&Mark::of(path, is_folder)) && !names.iter().any(|name| name == path) {
            names.push(path.to_owned());
        }
        names.len() < 2
    })?;
    let mut names = names.into_iter();
    let (first, second) = (names.next().unwrap_or_default(), names.next());
    Ok(match second {
        Some(name) => RuleError::Collision { name, other: first },
        None if marks[0].is_folder == marks[1].is_folder => RuleError::Duplicate { name: first },
        None => RuleError::FileAndFolder { name: first },
    })
}

/// Shows every path of the directory, and whether it is a folder's, until the caller has seen enough.
fn each_path<S, F>(directory: &Directory<'_, S>, prefix: &str, mut see: F) -> Result<(), RuleError>
where
    S: ReadAt + ?Sized,
    F: FnMut(&str, bool) -> bool,
{
    let mut walk = directory.walk();
    let mut last = String::new();
    while let Some(entry) = walk.next()? {
        let Some(path) = path_of(&entry, prefix)? else { continue };
        for folder in new_folders(&last, path) {
            if !see(folder, true) {
                return Ok(());
            }
        }
        if !see(path, entry.is_folder()) {
            return Ok(());
        }
        last.clear();
        last.push_str(path);
    }
    Ok(())
}

impl Mark {
    fn of(path: &str, is_folder: bool) -> Self {
        let spelled = digest_of(path.as_bytes());
        // Most paths are ASCII and lower case, and their own folded form.
        let is_its_own = path.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        let folded =
            if is_its_own { spelled } else { digest_of(path.chars().map(fold).collect::<String>().as_bytes()) };
        let mut mark = Self { folded: [0; 16], spelled: [0; 15], is_folder };
        mark.folded.copy_from_slice(&folded[..16]);
        mark.spelled.copy_from_slice(&spelled[..15]);
        mark
    }
}

impl Share {
    fn has(self, mark: &Mark) -> bool {
        let mut number = [0; 8];
        number.copy_from_slice(&mark.folded[..8]);
        u64::from_le_bytes(number) % self.shares == self.number
    }
}
