//! A zip's central directory: where it is, and what it says of each entry, read as Go's `archive/zip` reads it.
//!
//! Called by the checks and the hashing of finished zips (`zip`, `rules`, `content`), and by `stream` for the form of its
//! records; calls `window`. Invariants: what Go opens is opened, with the same entries; memory is bounded whatever the
//! file says. The drawing of the format is in `zip`. Source: Go 1.26, archive/zip/reader.go.

use super::ZipError;
use super::source::ReadAt;
use super::window::Window;

pub(super) const LOCAL_SIGNATURE: &[u8; 4] = b"PK\x03\x04";
pub(super) const HEADER_SIGNATURE: &[u8; 4] = b"PK\x01\x02";
pub(super) const END_SIGNATURE: &[u8; 4] = b"PK\x05\x06";
pub(super) const LOCATOR_SIGNATURE: &[u8; 4] = b"PK\x06\x07";
pub(super) const END64_SIGNATURE: &[u8; 4] = b"PK\x06\x06";

pub(super) const LOCAL_BYTES: usize = 30;
pub(super) const HEADER_BYTES: usize = 46;
pub(super) const END_BYTES: usize = 22;
pub(super) const LOCATOR_BYTES: usize = 20;
pub(super) const END64_BYTES: usize = 56;

/// How far from the end of the file Go looks for the end record; some bytes behind the archive may stand there.
const TAIL_BYTES_MAX: usize = 65 << 10;

/// A zip whose directory was found.
pub(super) struct Directory<'a, S: ReadAt + ?Sized> {
    source: &'a S,
    zip_bytes: u64,
    /// How many bytes the file has behind the archive.
    pub(super) trailing_bytes: u64,
    start: u64,
    /// What the end record says; their number modulo 65,536 counts.
    entries: u64,
    /// What offsets are counted from: more than zero if bytes stand before the archive, less if the end record's offset is
    /// wrong.
    base: i128,
}

/// What the directory says of one entry.
pub(super) struct Entry {
    /// Whole, up to 65,535 bytes.
    pub(super) name: Vec<u8>,
    pub(super) is_symlink: bool,
    pub(super) has_descriptor: bool,
    pub(super) method: u16,
    pub(super) crc: u32,
    pub(super) compressed_bytes: u64,
    pub(super) unpacked_bytes: u64,
    /// Where its local header should be, in bytes from the start of the file; that can be anywhere.
    pub(super) start: i128,
}

impl Entry {
    /// A name that ends in a slash is a folder's; such an entry has no content.
    pub(super) fn is_folder(&self) -> bool {
        self.name.ends_with(b"/")
    }
}

impl<'a, S: ReadAt + ?Sized> Directory<'a, S> {
    /// Finds the directory of the zip that the first `zip_bytes` bytes of `source` are.
    ///
    /// # Errors
    /// [`ZipError`] if there is no end record, or it leads out of the file.
    pub(super) fn open(source: &'a S, zip_bytes: u64) -> Result<Self, ZipError> {
        let (end, trailing_bytes) = find_end(source, zip_bytes)?;
        let (start, base) = locate(source, zip_bytes, &end)?;
        Ok(Self { source, zip_bytes, trailing_bytes, start, entries: end.entries, base })
    }

    /// Begins to read the entries, in the directory's order.
    pub(super) fn walk(&self) -> Walk<'a, '_, S> {
        Walk { directory: self, window: Window::new(self.source, self.start, self.zip_bytes), found: 0 }
    }
}

/// A walk along the directory.
pub(super) struct Walk<'a, 'd, S: ReadAt + ?Sized> {
    directory: &'d Directory<'a, S>,
    window: Window<'a, S>,
    found: u64,
}

impl<S: ReadAt + ?Sized> Walk<'_, '_, S> {
    /// Returns the next entry; nothing where something else comes, if all have been read by then.
    ///
    /// # Errors
    /// [`ZipError::Directory`] if there are more or fewer than promised.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ZipError> {
        let damaged = ZipError::Directory { found: self.found, expected: self.directory.entries };
        match next_entry(&mut self.window, self.directory.base)? {
            Step::Entry(entry) => {
                self.found += 1;
                Ok(Some(entry))
            }
            Step::Other if self.found % 0x1_0000 == self.directory.entries % 0x1_0000 => Ok(None),
            Step::Other | Step::Nothing => Err(damaged),
        }
    }
}

/// The end record, with the zip64 one's figures where that one counts.
struct End {
    /// Where the record that counts begins; the directory ends there.
    offset: u64,
    entries: u64,
    directory_bytes: u64,
    directory_offset: u64,
}

/// Finds the last end record, and how many bytes follow it and its comment.
fn find_end<S: ReadAt + ?Sized>(source: &S, zip_bytes: u64) -> Result<(End, u64), ZipError> {
    let window = usize::try_from(zip_bytes).unwrap_or(usize::MAX).min(TAIL_BYTES_MAX);
    let window_offset = zip_bytes - window as u64;
    let mut tail = vec![0; window];
    source.read_exact_at(&mut tail, window_offset)?;
    let at = (0..=window.checked_sub(END_BYTES).ok_or(ZipError::NoEnd { bytes: window })?)
        .rev()
        .find(|at| tail[*at..].starts_with(END_SIGNATURE))
        .ok_or(ZipError::NoEnd { bytes: window })?;
    let record = &tail[at..];
    let after = record.len().checked_sub(END_BYTES + usize::from(u16_at(record, 20)));
    let trailing_bytes = after.ok_or(ZipError::NoEnd { bytes: window })? as u64;
    let end = End {
        offset: window_offset + at as u64,
        entries: u64::from(u16_at(record, 10)),
        directory_bytes: figure_at(record, 12),
        directory_offset: figure_at(record, 16),
    };
    let is_zip64 = is_maybe_zip64(end.entries, end.directory_bytes, end.directory_offset);
    let end = if is_zip64 { find_end64(source, zip_bytes, end)? } else { end };
    Ok((end, trailing_bytes))
}

/// Go looks for a zip64 record on these three figures, the middle one a slip of theirs. It matters: with another rule one
/// file could be two archives.
pub(super) fn is_maybe_zip64(entries: u64, directory_bytes: u64, directory_offset: u64) -> bool {
    entries == 0xffff || directory_bytes == 0xffff || directory_offset == ELSEWHERE
}

/// Replaces the figures by those of the zip64 end record, if there is a locator for one.
fn find_end64<S: ReadAt + ?Sized>(source: &S, zip_bytes: u64, end: End) -> Result<End, ZipError> {
    let Some(locator_offset) = end.offset.checked_sub(LOCATOR_BYTES as u64) else {
        return Ok(end);
    };
    let mut locator = [0; LOCATOR_BYTES];
    source.read_exact_at(&mut locator, locator_offset)?;
    let offset = u64_at(&locator, 8);
    // Go takes the offset as a signed number, and a negative one for none.
    let is_locator = locator.starts_with(LOCATOR_SIGNATURE) && i64::try_from(offset).is_ok();
    if !is_locator || u32_at(&locator, 4) != 0 || u32_at(&locator, 16) != 1 {
        return Ok(end);
    }
    let outside = ZipError::DirectoryOutside { offset, bytes: END64_BYTES as u64 };
    if offset.checked_add(END64_BYTES as u64).is_none_or(|after| after > zip_bytes) {
        return Err(outside);
    }
    let mut record = [0; END64_BYTES];
    source.read_exact_at(&mut record, offset)?;
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

/// Settles where the directory is, and what offsets are counted from. It ends where the end record begins; if the offset
/// given does not fit to that, bytes stand before the archive, unless a directory is found at the very offset.
fn locate<S: ReadAt + ?Sized>(source: &S, zip_bytes: u64, end: &End) -> Result<(u64, i128), ZipError> {
    let outside = || ZipError::DirectoryOutside { offset: end.directory_offset, bytes: end.directory_bytes };
    let directory = end.offset.checked_sub(end.directory_bytes).ok_or_else(outside)?;
    if directory >= zip_bytes || i64::try_from(end.directory_offset).is_err() {
        return Err(outside());
    }
    let base = i128::from(directory) - i128::from(end.directory_offset);
    if base > 0 {
        let mut window = Window::new(source, end.directory_offset, zip_bytes);
        if matches!(next_entry(&mut window, 0), Ok(Step::Entry(_))) {
            return Ok((end.directory_offset, 0));
        }
    }
    Ok((directory, base))
}

/// What stands at a place of the directory.
enum Step {
    Entry(Entry),
    /// Anything else, an entry that the file's end cuts in two included. The directory is over.
    Other,
    /// The file is over where a part of an entry would begin, which cannot be, with an end record behind the directory.
    Nothing,
}

fn next_entry<S: ReadAt + ?Sized>(window: &mut Window<'_, S>, base: i128) -> Result<Step, ZipError> {
    let Some(header) = window.take(HEADER_BYTES)? else {
        return Ok(shortage(window));
    };
    if !header.starts_with(HEADER_SIGNATURE) {
        return Ok(Step::Other);
    }
    let header = Header::read(header);
    if window.left() < (header.name_bytes + header.extra_bytes + header.comment_bytes) as u64 {
        return Ok(shortage(window));
    }
    let (extra_bytes, comment_bytes) = (header.extra_bytes, header.comment_bytes);
    let name = window.take(header.name_bytes)?.unwrap_or_default().to_vec();
    let entry = header.entry(name, window.take(extra_bytes)?.unwrap_or_default(), base);
    window.take(comment_bytes)?;
    Ok(entry.map_or(Step::Other, Step::Entry))
}

fn shortage<S: ReadAt + ?Sized>(window: &Window<'_, S>) -> Step {
    if window.left() == 0 { Step::Nothing } else { Step::Other }
}

/// The fixed part of an entry in the directory.
pub(super) struct Header {
    is_symlink: bool,
    has_descriptor: bool,
    method: u16,
    crc: u32,
    figures: Figures,
    pub(super) name_bytes: usize,
    pub(super) extra_bytes: usize,
    pub(super) comment_bytes: usize,
}

/// The flag that says a data descriptor follows the entry's data.
pub(super) const DESCRIPTOR_FLAG: u16 = 8;

impl Header {
    /// Reads the first [`HEADER_BYTES`] bytes of an entry.
    pub(super) fn read(header: &[u8]) -> Self {
        let [name_bytes, extra_bytes, comment_bytes] = [28, 30, 32].map(|at| usize::from(u16_at(header, at)));
        // Made on Unix or macOS: the upper half of the attributes is a mode.
        let is_unix = matches!(header[5], 3 | 19);
        Self {
            is_symlink: is_unix && u32_at(header, 38) >> 28 == 0o12,
            has_descriptor: u16_at(header, 8) & DESCRIPTOR_FLAG != 0,
            method: u16_at(header, 10),
            crc: u32_at(header, 16),
            figures: Figures {
                unpacked: figure_at(header, 24),
                compressed: figure_at(header, 20),
                offset: figure_at(header, 42),
            },
            name_bytes,
            extra_bytes,
            comment_bytes,
        }
    }

    /// Makes the entry of it; nothing if a figure is missing. Offsets are counted from `base`.
    pub(super) fn entry(mut self, name: Vec<u8>, extra: &[u8], base: i128) -> Option<Entry> {
        let is_whole = self.figures.widen(extra);
        is_whole.then(|| Entry {
            name,
            is_symlink: self.is_symlink,
            has_descriptor: self.has_descriptor,
            method: self.method,
            crc: self.crc,
            compressed_bytes: self.figures.compressed,
            unpacked_bytes: self.figures.unpacked,
            // Signed, as Go has it: what no archive holds then stays out of the file.
            start: base + i128::from(self.figures.offset.cast_signed()),
        })
    }
}

/// The figures of an entry that may be too large for its header.
pub(super) struct Figures {
    pub(super) unpacked: u64,
    pub(super) compressed: u64,
    pub(super) offset: u64,
}

/// A figure of all ones stands in the zip64 extra field.
pub(super) const ELSEWHERE: u64 = u32::MAX as u64;

const ZIP64_TAG: u16 = 1;

impl Figures {
    /// Takes what the header could not hold from its extra fields. Says whether nothing is missing: an unpacked size of
    /// all ones may be meant as it stands, as Go takes it too.
    pub(super) fn widen(&mut self, extra: &[u8]) -> bool {
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
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

pub(super) fn figure_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at))
}
