//! Sorted runs of entries: written once, read from front to back, merged.
//!
//! Called by [`super`]; calls [`durable`]. Invariants: a run under its final name is whole and durable; its checksum, which
//! the manifest holds, is compared whenever it is read to its end; memory does not grow with the length of a run.
//!
//! ```text
//! NNNNNNNNNNNNNNNN.run    entries of 21 bytes, sorted, no two with one key
//! NNNNNNNNNNNNNNNN.tmp    one that is being written
//!
//! entry   0          10       15         21
//!         │ key      │ number │ value    │     number: of the record, big-endian, so that of one key the earliest comes first
//!         key = SHA-256(salt, 0, "MODULE VERSION"), value = SHA-256(salt, 1, its lines, each with a newline), cut off
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::{Findings, SeenError, step};
use crate::store::durable;

/// The length of an entry in bytes.
pub(super) const ENTRY_BYTES: usize = 21;
/// How much is gathered before it is written.
pub(super) const WRITE_BYTES: usize = 3000 * ENTRY_BYTES;
/// How many entries are merged between two looks at whether to go on.
const ENTRIES_AT_ONCE: u64 = 4096;

/// What is remembered of one module version in one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry(pub(super) [u8; ENTRY_BYTES]);

/// A run as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Its name.
    pub(super) id: u64,
    /// How many times what is in it was merged.
    pub(super) level: u32,
    /// How many entries it has.
    pub(super) entries: u64,
    /// CRC-32 of its bytes.
    pub(super) crc: u32,
}

impl Entry {
    pub(super) fn new(key: &[u8], number: u64, value: &[u8]) -> Option<Self> {
        let number = number.to_be_bytes();
        let is_small = number[..3] == [0; 3];
        let mut entry = [0; ENTRY_BYTES];
        entry[..10].copy_from_slice(key.get(..10)?);
        entry[10..15].copy_from_slice(&number[3..]);
        entry[15..].copy_from_slice(value.get(..6)?);
        is_small.then_some(Self(entry))
    }

    fn key(&self) -> &[u8] {
        &self.0[..10]
    }

    fn value(&self) -> &[u8] {
        &self.0[15..]
    }

    fn number(&self) -> u64 {
        self.0[10..15].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl Run {
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{:016x}.run", self.id))
    }
}

/// Lets the first entry of each key through, and notes what the others say.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    kept: Option<Entry>,
}

impl Distinct {
    /// Says whether the entry is the first of its key. Entries come sorted.
    pub(super) fn is_first(&mut self, entry: Entry, findings: &mut Findings) -> bool {
        match &self.kept {
            Some(kept) if kept.key() == entry.key() => {
                if kept.value() == entry.value() {
                    findings.repetitions += 1;
                } else {
                    findings.conflict(kept.number(), entry.number());
                }
                false
            }
            Some(_) | None => {
                self.kept = Some(entry);
                true
            }
        }
    }
}

/// A run that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    temporary: PathBuf,
    run: Run,
    crc: crc32fast::Hasher,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(folder: &Path, id: u64, level: u32) -> io::Result<Self> {
        step()?;
        let temporary = folder.join(format!("{id:016x}.tmp"));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let run = Run { id, level, entries: 0, crc: 0 };
        Ok(Self { file, temporary, run, crc: crc32fast::Hasher::new(), buffer: Vec::with_capacity(WRITE_BYTES) })
    }

    pub(super) fn push(&mut self, entry: &Entry) -> io::Result<()> {
        self.buffer.extend_from_slice(&entry.0);
        self.run.entries += 1;
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        // A power cut leaves half of what was written.
        let (half, rest) = self.buffer.split_at(self.buffer.len() / 2);
        self.file.write_all(half)?;
        step()?;
        self.file.write_all(rest)?;
        self.crc.update(&self.buffer);
        self.buffer.clear();
        Ok(())
    }

    /// Gives the run its name, durably.
    pub(super) fn finish(mut self, folder: &Path) -> io::Result<Run> {
        self.flush()?;
        step()?;
        self.file.sync_all()?;
        self.run.crc = self.crc.finalize();
        step()?;
        durable::rename(&self.temporary, &self.run.path(folder))?;
        durable::sync_folder(folder)?;
        step()?;
        Ok(self.run)
    }

    /// Removes what was written.
    pub(super) fn discard(self) {
        // One that stays is swept when the set is opened.
        let _ = durable::remove_file(&self.temporary);
    }
}

/// A run that is being read.
struct Reader {
    file: File,
    path: PathBuf,
    /// How many bytes are still to be read from the file.
    left: u64,
    expected: u32,
    crc: crc32fast::Hasher,
    buffer: Vec<u8>,
    at: usize,
}

impl Reader {
    fn open(run: &Run, folder: &Path, buffer_bytes: usize) -> Result<Self, SeenError> {
        let path = run.path(folder);
        let file = File::open(&path).map_err(|err| SeenError::at(&path, err))?;
        let left = run.entries * ENTRY_BYTES as u64;
        let length = file.metadata().map_err(|err| SeenError::at(&path, err))?.len();
        if length != left {
            return Err(SeenError::damaged(&path));
        }
        let entries = (buffer_bytes / ENTRY_BYTES).max(1);
        let buffer = Vec::with_capacity(entries * ENTRY_BYTES);
        Ok(Self { file, path, left, expected: run.crc, crc: crc32fast::Hasher::new(), buffer, at: 0 })
    }

    fn next(&mut self) -> Result<Option<Entry>, SeenError> {
        if self.at == self.buffer.len() && !self.fill()? {
            return Ok(None);
        }
        let mut entry = [0; ENTRY_BYTES];
        entry.copy_from_slice(&self.buffer[self.at..self.at + ENTRY_BYTES]);
        self.at += ENTRY_BYTES;
        Ok(Some(Entry(entry)))
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> Result<bool, SeenError> {
        if self.left == 0 {
            let is_whole = self.crc.clone().finalize() == self.expected;
            return if is_whole { Ok(false) } else { Err(SeenError::damaged(&self.path)) };
        }
        let bytes = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.buffer.capacity());
        self.buffer.resize(bytes, 0);
        self.file.read_exact(&mut self.buffer).map_err(|err| SeenError::at(&self.path, err))?;
        self.crc.update(&self.buffer);
        self.left -= bytes as u64;
        self.at = 0;
        Ok(true)
    }
}

/// Reads runs side by side, in order, and calls `keep` for the first entry of each key. Returns whether it got to the end
/// before `is_cancelled`.
pub(super) fn merge(
    runs: &[Run],
    folder: &Path,
    read_bytes: usize,
    findings: &mut Findings,
    is_cancelled: &dyn Fn() -> bool,
    mut keep: impl FnMut(&Entry) -> Result<(), SeenError>,
) -> Result<bool, SeenError> {
    let buffer_bytes = read_bytes / runs.len().max(1);
    let mut readers: Vec<Reader> =
        runs.iter().map(|run| Reader::open(run, folder, buffer_bytes)).collect::<Result<_, _>>()?;
    let mut heads = BinaryHeap::with_capacity(readers.len());
    for (place, reader) in readers.iter_mut().enumerate() {
        heads.extend(reader.next()?.map(|entry| Reverse((entry, place))));
    }
    let (mut distinct, mut count) = (Distinct::default(), 0_u64);
    while let Some(mut head) = heads.peek_mut() {
        count += 1;
        if count.is_multiple_of(ENTRIES_AT_ONCE) && is_cancelled() {
            return Ok(false);
        }
        let Reverse((entry, place)) = *head;
        if distinct.is_first(entry, findings) {
            keep(&entry)?;
        }
        match readers[place].next()? {
            Some(next) => *head = Reverse((next, place)),
            None => {
                PeekMut::pop(head);
            }
        }
    }
    Ok(true)
}
