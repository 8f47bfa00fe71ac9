//! The lines an h1 hash is made of, while they wait to be sorted: a name and the hash of its content for each entry.
//!
//! Called by `hash` and `stream`; calls nothing. Invariants: what is held fits [`bytes_max`]; the common prefix of the
//! names is not kept; nothing is ever moved to grow, so no peak is higher than what stays.

use std::io::{self, Read, Write};

/// The SHA-256 hash of an entry's content.
pub(super) type ContentHash = [u8; 32];

/// Above so many entries a zip is hashed by sorted runs.
pub const ENTRIES_MAX: usize = 100_000;

/// The most that is held for so many entries, in bytes.
pub const fn bytes_max(entries: usize) -> usize {
    (1 << 20) + 160 * entries
}

/// What a stream needs beside its lines, in bytes: buffers, the inflate window, one header with the longest name.
const OTHER_BYTES: usize = 512 << 10;
/// What a stream keeps of each entry beside its line, and the place in the order, in bytes.
const OTHER_BYTES_EACH: usize = 24;
/// As long as the longest name.
const NAMES_BYTES: usize = 64 << 10;

/// A list that grows without moving what it holds.
pub(super) struct Pieces<T>(Vec<Vec<T>>);

const PIECE_ITEMS: usize = 1024;

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Pieces<T> {
    pub(super) fn push(&mut self, item: T) {
        match self.0.last_mut() {
            Some(piece) if piece.len() < PIECE_ITEMS => piece.push(item),
            Some(_) | None => {
                let mut piece = Vec::with_capacity(PIECE_ITEMS);
                piece.push(item);
                self.0.push(piece);
            }
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.0.get(index / PIECE_ITEMS)?.get(index % PIECE_ITEMS)
    }

    fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.0.get_mut(index / PIECE_ITEMS)?.get_mut(index % PIECE_ITEMS)
    }

    fn held_bytes(&self) -> usize {
        self.0.len() * (PIECE_ITEMS * size_of::<T>() + size_of::<Vec<T>>())
    }
}

/// Lines in the order of the directory.
#[derive(Default)]
pub(super) struct Lines {
    records: Pieces<Record>,
    names: Vec<Vec<u8>>,
    names_bytes: usize,
    count: usize,
}

struct Record {
    /// Where the name is: which piece of `names`, and from where in it.
    piece: u32,
    start: u32,
    name_bytes: u16,
    content: Option<ContentHash>,
}

impl Lines {
    /// Adds a name, without the common prefix, and the hash of its content, or nothing if that cannot be read.
    pub(super) fn push(&mut self, name: &[u8], content: Option<ContentHash>) {
        // No header has room for a longer name.
        let name_bytes = u16::try_from(name.len()).unwrap_or(u16::MAX);
        let name = &name[..usize::from(name_bytes)];
        let mut names = match self.names.pop() {
            Some(names) if names.capacity() - names.len() >= name.len() => names,
            full => {
                self.names.extend(full);
                self.names_bytes += NAMES_BYTES + size_of::<Vec<u8>>();
                Vec::with_capacity(NAMES_BYTES)
            }
        };
        let [piece, start] = [self.names.len(), names.len()].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        names.extend_from_slice(name);
        self.names.push(names);
        self.records.push(Record { piece, start, name_bytes, content });
        self.count += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Returns what these lines take, with what goes along with them, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        OTHER_BYTES + self.records.held_bytes() + self.names_bytes + OTHER_BYTES_EACH * self.count
    }

    /// Says whether there is no room for another line with the longest name, if so many lines may take so much.
    pub(super) fn is_full(&self, bytes_max: usize) -> bool {
        self.count >= ENTRIES_MAX || self.held_bytes() + 3 * NAMES_BYTES > bytes_max
    }

    pub(super) fn name(&self, index: usize) -> &[u8] {
        self.records.get(index).map_or(&[], |record| {
            let start = record.start as usize;
            &self.names[record.piece as usize][start..start + usize::from(record.name_bytes)]
        })
    }

    pub(super) fn content(&self, index: usize) -> Option<ContentHash> {
        self.records.get(index).and_then(|record| record.content)
    }

    pub(super) fn set_content(&mut self, index: usize, content: ContentHash) {
        if let Some(record) = self.records.get_mut(index) {
            record.content = Some(content);
        }
    }

    /// Returns the indexes in the order of the names; equal names stay in the order of the directory.
    pub(super) fn sorted(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..u32::try_from(self.count).unwrap_or(u32::MAX)).collect();
        order.sort_unstable_by(|a, b| self.name(*a as usize).cmp(self.name(*b as usize)).then(a.cmp(b)));
        order
    }
}

/// One line of a run.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunLine {
    pub(super) name: Vec<u8>,
    pub(super) content: Option<ContentHash>,
}

/// Writes lines, sorted: length of the name (2 bytes, little-endian), 1 or 0 for a content that cannot be read, its hash,
/// the name. The inverse of [`read_line`].
pub(super) fn write_run(lines: &Lines, to: &mut impl Write) -> io::Result<()> {
    for index in lines.sorted() {
        let (name, content) = (lines.name(index as usize), lines.content(index as usize));
        to.write_all(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes())?;
        to.write_all(&[u8::from(content.is_some())])?;
        to.write_all(&content.unwrap_or_default())?;
        to.write_all(name)?;
    }
    Ok(())
}

/// Reads one line of a run; nothing at its end. The inverse of [`write_run`].
pub(super) fn read_line(from: &mut impl Read) -> io::Result<Option<RunLine>> {
    let mut fixed = [0; 35];
    loop {
        match from.read(&mut fixed[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    from.read_exact(&mut fixed[1..])?;
    let mut name = vec![0; usize::from(u16::from_le_bytes([fixed[0], fixed[1]]))];
    from.read_exact(&mut name)?;
    let mut content = [0; 32];
    content.copy_from_slice(&fixed[3..]);
    Ok(Some(RunLine { name, content: (fixed[2] == 1).then_some(content) }))
}
