//! The structure of a module zip: whether a file is a complete archive of one module version, before anyone gets it.
//!
//! Called when a zip has arrived or is adopted; calls nothing. It reads the end of the file, walks the central
//! directory through one fixed buffer and looks at the first bytes of every entry; it inflates nothing, so it does not
//! replace the checksum. Invariants: memory is bounded whatever the file says; what Go's `archive/zip` and the h1 hash
//! accept is refused only for bytes after the archive, a name outside the module, a directory outside the file, or a
//! limit. (One exception: of two entries with one name Go hashes the last alone, so it does not miss the first one's
//! data. It refuses to unpack such a zip anyway.) Sources: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3; the Go module
//! reference, "Module zip files".
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

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use self::window::Window;
use super::{ModuleVersion, Shown};

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
pub fn check_structure(file: &File, zip_bytes: u64, module: &ModuleVersion) -> Result<(), ZipError> {
    if zip_bytes > ZIP_BYTES_MAX {
        return Err(ZipError::TooLarge { bytes: zip_bytes });
    }
    let end = find_end(file, zip_bytes)?;
    let place = locate_directory(file, zip_bytes, &end)?;
    check_entries(file, zip_bytes, &place, &format!("{module}/"))
}

const LOCAL_SIGNATURE: &[u8; 4] = b"PK\x03\x04";
const HEADER_SIGNATURE: &[u8; 4] = b"PK\x01\x02";
const END_SIGNATURE: &[u8; 4] = b"PK\x05\x06";
const LOCATOR_SIGNATURE: &[u8; 4] = b"PK\x06\x07";
const END64_SIGNATURE: &[u8; 4] = b"PK\x06\x06";

const LOCAL_BYTES: usize = 30;
const HEADER_BYTES: usize = 46;
const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
const END64_BYTES: usize = 56;
const COMMENT_BYTES_MAX: usize = u16::MAX as usize;

/// The end record, with the zip64 one's figures where that one counts.
struct End {
    /// Where the record that counts begins; the directory ends there.
    offset: u64,
    entries: u64,
    directory_bytes: u64,
    directory_offset: u64,
}

/// Where the directory is, and what offsets in it are counted from.
struct Place {
    directory: u64,
    entries: u64,
    /// More than zero if bytes stand before the archive, less if the end record's offset is wrong.
    base: i128,
}

/// Finds the last end record and asks that it ends the file.
fn find_end(file: &File, zip_bytes: u64) -> Result<End, ZipError> {
    let window = usize::try_from(zip_bytes).unwrap_or(usize::MAX).min(END_BYTES + COMMENT_BYTES_MAX);
    let window_offset = zip_bytes - window as u64;
    let mut tail = vec![0; window];
    file.read_exact_at(&mut tail, window_offset)?;
    let at = (0..=window.checked_sub(END_BYTES).ok_or(ZipError::NoEnd { bytes: window })?)
        .rev()
        .find(|at| tail[*at..].starts_with(END_SIGNATURE))
        .ok_or(ZipError::NoEnd { bytes: window })?;
    let record = &tail[at..];
    let record_bytes = END_BYTES + usize::from(u16_at(record, 20));
    if record_bytes > record.len() {
        return Err(ZipError::NoEnd { bytes: window });
    }
    if record_bytes < record.len() {
        return Err(ZipError::TrailingBytes { bytes: (record.len() - record_bytes) as u64 });
    }
    let end = End {
        offset: window_offset + at as u64,
        entries: u64::from(u16_at(record, 10)),
        directory_bytes: figure_at(record, 12),
        directory_offset: figure_at(record, 16),
    };
    // Go looks for a zip64 record on these three figures, the middle one a slip of theirs. It matters: with another
    // rule one file could be two archives.
    let is_maybe_zip64 = end.entries == 0xffff || end.directory_bytes == 0xffff || end.directory_offset == 0xffff_ffff;
    if is_maybe_zip64 { find_end64(file, zip_bytes, end) } else { Ok(end) }
}

/// Replaces the figures by those of the zip64 end record, if there is a locator for one.
fn find_end64(file: &File, zip_bytes: u64, end: End) -> Result<End, ZipError> {
    let Some(locator_offset) = end.offset.checked_sub(LOCATOR_BYTES as u64) else {
        return Ok(end);
    };
    let mut locator = [0; LOCATOR_BYTES];
    file.read_exact_at(&mut locator, locator_offset)?;
    if !locator.starts_with(LOCATOR_SIGNATURE) || u32_at(&locator, 4) != 0 || u32_at(&locator, 16) != 1 {
        return Ok(end);
    }
    let offset = u64_at(&locator, 8);
    let outside = ZipError::DirectoryOutside { offset, bytes: END64_BYTES as u64 };
    if offset.checked_add(END64_BYTES as u64).is_none_or(|after| after > zip_bytes) {
        return Err(outside);
    }
    let mut record = [0; END64_BYTES];
    file.read_exact_at(&mut record, offset)?;
    if !record.starts_with(END64_SIGNATURE) {
        return Err(outside);
    }
    Ok(End {
        offset,
        entries: u64_at(&record, 32),
        directory_bytes: u64_at(&record, 40),
        directory_offset: u64_at(&record, 48),
    })
}

/// Settles where the directory is. It ends where the end record begins; if the offset given does not fit to that, bytes
/// stand before the archive, unless a directory is found at the very offset.
fn locate_directory(file: &File, zip_bytes: u64, end: &End) -> Result<Place, ZipError> {
    let outside = || ZipError::DirectoryOutside { offset: end.directory_offset, bytes: end.directory_bytes };
    let directory = end.offset.checked_sub(end.directory_bytes).ok_or_else(outside)?;
    if directory >= zip_bytes || i64::try_from(end.directory_offset).is_err() {
        return Err(outside());
    }
    let base = i128::from(directory) - i128::from(end.directory_offset);
    if base > 0 {
        let mut window = Window::new(file, end.directory_offset, zip_bytes);
        if matches!(next_entry(&mut window), Ok(Step::Entry(_))) {
            return Ok(Place { directory: end.directory_offset, entries: end.entries, base: 0 });
        }
    }
    Ok(Place { directory, entries: end.entries, base })
}

/// Walks the directory until something else comes, as Go does, and then asks whether that was all.
fn check_entries(file: &File, zip_bytes: u64, place: &Place, prefix: &str) -> Result<(), ZipError> {
    let mut window = Window::new(file, place.directory, zip_bytes);
    let (mut found, mut unpacked_bytes) = (0_u64, 0_u64);
    loop {
        let entry = match next_entry(&mut window)? {
            Step::Entry(entry) => entry,
            Step::Other => break,
            Step::Nothing => {
                return Err(ZipError::Directory { found, expected: place.entries });
            }
        };
        found += 1;
        check_name(&entry.name, prefix)?;
        check_local_header(file, zip_bytes, place, &entry)?;
        if entry.name.ends_with(b"/") {
            continue;
        }
        let is_limited = matches!(&entry.name[prefix.len()..], b"go.mod" | b"LICENSE");
        if is_limited && entry.unpacked_bytes > TOP_FILE_BYTES_MAX {
            return Err(ZipError::TopFileTooLarge { name: shown(&entry.name), bytes: entry.unpacked_bytes });
        }
        unpacked_bytes = unpacked_bytes.saturating_add(entry.unpacked_bytes);
        if unpacked_bytes > ZIP_BYTES_MAX {
            return Err(ZipError::UnpackedTooLarge { bytes: unpacked_bytes });
        }
    }
    if found % 0x1_0000 != place.entries % 0x1_0000 {
        return Err(ZipError::Directory { found, expected: place.entries });
    }
    Ok(())
}

fn check_name(name: &[u8], prefix: &str) -> Result<(), ZipError> {
    if !name.starts_with(prefix.as_bytes()) {
        return Err(ZipError::Prefix { name: shown(name), prefix: prefix.to_owned() });
    }
    if name.contains(&b'\n') {
        return Err(ZipError::Newline { name: shown(name) });
    }
    Ok(())
}

fn check_local_header(file: &File, zip_bytes: u64, place: &Place, entry: &Entry) -> Result<(), ZipError> {
    let offset = place.base + i128::from(entry.header_offset);
    let missing = || ZipError::LocalHeader { name: shown(&entry.name), offset };
    let start = u64::try_from(offset).map_err(|_| missing())?;
    if start.checked_add(LOCAL_BYTES as u64).is_none_or(|after| after > zip_bytes) {
        return Err(missing());
    }
    let mut signature = [0; LOCAL_SIGNATURE.len()];
    file.read_exact_at(&mut signature, start)?;
    if &signature == LOCAL_SIGNATURE { Ok(()) } else { Err(missing()) }
}

/// Names are only shown, and cut then; a name that is not UTF-8 is no reason to refuse a zip.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// One entry of the directory, as far as it matters here.
struct Entry {
    /// Whole, up to 65,535 bytes.
    name: Vec<u8>,
    unpacked_bytes: u64,
    /// Signed, as Go has it: what no archive holds then stays out of the file.
    header_offset: i64,
}

/// What stands at a place of the directory.
enum Step {
    Entry(Entry),
    /// Anything else, an entry that the file's end cuts in two included. The directory is over.
    Other,
    /// The file is over where a part of an entry would begin, which cannot be, with an end record behind the directory.
    Nothing,
}

fn next_entry(window: &mut Window<'_>) -> Result<Step, ZipError> {
    let Some(header) = window.take(HEADER_BYTES)? else {
        return Ok(shortage(window));
    };
    if !header.starts_with(HEADER_SIGNATURE) {
        return Ok(Step::Other);
    }
    let mut figures =
        Figures { unpacked: figure_at(header, 24), compressed: figure_at(header, 20), offset: figure_at(header, 42) };
    let [name_bytes, extra_bytes, comment_bytes] = [28, 30, 32].map(|at| usize::from(u16_at(header, at)));
    if window.left() < (name_bytes + extra_bytes + comment_bytes) as u64 {
        return Ok(shortage(window));
    }
    let name = window.take(name_bytes)?.unwrap_or_default().to_vec();
    let is_whole = figures.widen(window.take(extra_bytes)?.unwrap_or_default());
    window.take(comment_bytes)?;
    let entry = Entry { name, unpacked_bytes: figures.unpacked, header_offset: figures.offset.cast_signed() };
    Ok(if is_whole { Step::Entry(entry) } else { Step::Other })
}

fn shortage(window: &Window<'_>) -> Step {
    if window.left() == 0 { Step::Nothing } else { Step::Other }
}

/// The figures of an entry that may be too large for its header.
struct Figures {
    unpacked: u64,
    compressed: u64,
    offset: u64,
}

/// A figure of all ones stands in the zip64 extra field.
const ELSEWHERE: u64 = u32::MAX as u64;

const ZIP64_TAG: u16 = 1;

impl Figures {
    /// Takes what the header could not hold from its extra fields. Says whether nothing is missing: an unpacked size of
    /// all ones may be meant as it stands, as Go takes it too.
    fn widen(&mut self, extra: &[u8]) -> bool {
        let mut figures = [&mut self.unpacked, &mut self.compressed, &mut self.offset];
        let mut is_wanted = [*figures[0] == ELSEWHERE, *figures[1] == ELSEWHERE, *figures[2] == ELSEWHERE];
        let mut rest = extra;
        while rest.len() >= 4 {
            let (tag, field_bytes) = (u16_at(rest, 0), usize::from(u16_at(rest, 2)));
            let Some((mut field, after)) = rest[4..].split_at_checked(field_bytes) else {
                break;
            };
            rest = after;
            if tag != ZIP64_TAG {
                continue;
            }
            for (figure, is_wanted) in figures.iter_mut().zip(&mut is_wanted) {
                if !std::mem::take(is_wanted) {
                    continue;
                }
                let Some((value, after)) = field.split_first_chunk() else {
                    return false;
                };
                **figure = u64::from_le_bytes(*value);
                field = after;
            }
        }
        let [_, is_compressed_missing, is_offset_missing] = is_wanted;
        !is_compressed_missing && !is_offset_missing
    }
}

/// Reads two bytes. Callers ask within what they have read.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn figure_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at))
}

#[cfg(test)]
mod tests;
