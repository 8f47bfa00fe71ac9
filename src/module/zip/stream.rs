//! The h1 hash of a zip while it arrives: a push parser that inflates and hashes entry by entry, in the order of the stream.
//!
//! Called with the bytes as they come; calls `directory` for the form of records, `content` to inflate, `lines` and `hash`.
//! Invariants: a hash comes out only if everything the directory says, which alone counts for `go`, is what the stream
//! held: same entries, order, places, sizes and checksums, and nothing before, between or behind them; then it is
//! the hash that [`hash::hash`](super::hash::hash) has for the same bytes. Anything else is [`Odd`], which is no
//! verdict but means: hash the finished file. Memory is at most [`bytes_max`](super::hash::bytes_max). No I/O. The
//! drawing of the format is in `zip`; beside it a stream has, behind deflated data whose size was not known before,
//!
//! ```text
//! descriptor   0 "PK\7\8"   4 CRC:4   8 compressed:4   12 unpacked:4        16, or 24 with sizes of 8 bytes
//! ```

use std::mem;

use ring::digest::Context;
use zlib_rs::Inflate;

use super::ZIP_BYTES_MAX;
use super::content::{DESCRIPTOR_SIGNATURE, Next, OUTPUT_BYTES, Sum, WINDOW_BITS, inflate};
use super::directory::{
    DESCRIPTOR_FLAG, END_BYTES, END_SIGNATURE, END64_BYTES, END64_SIGNATURE, Figures, HEADER_BYTES, HEADER_SIGNATURE,
    Header, LOCAL_BYTES, LOCAL_SIGNATURE, LOCATOR_BYTES, LOCATOR_SIGNATURE, figure_at, is_maybe_zip64, u16_at, u32_at,
    u64_at,
};
use super::hash::{H1, finish, summarize};
use super::lines::{Lines, Pieces, bytes_max};

/// Why the stream alone does not tell the hash. The finished file may have one all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Odd {
    /// Something stands where a record has to begin.
    #[error("no zip record at offset {0}")]
    Record(u64),
    /// A name outside the module, or with a newline in it.
    #[error("unusual name of the entry at offset {0}")]
    Name(u64),
    /// An entry whose end is not known from its beginning, is compressed otherwise, or a folder with content.
    #[error("unusual entry at offset {0}")]
    Entry(u64),
    /// Data that is damaged.
    #[error("damaged data of the entry at offset {0}")]
    Data(u64),
    /// A data descriptor that does not fit to the data.
    #[error("data descriptor differs at offset {0}")]
    Descriptor(u64),
    /// An entry of the directory that does not fit to the stream.
    #[error("zip directory differs at offset {0}")]
    Directory(u64),
    /// An end record that does not fit to the directory, or has a comment.
    #[error("end of zip differs at offset {0}")]
    End(u64),
    /// Bytes behind the archive.
    #[error("bytes after the end of the zip")]
    Trailing,
    /// Nothing more came where something had to.
    #[error("zip ends at offset {0}")]
    Cut(u64),
    /// More unpacked bytes than any module has; what the directory says of it is for the finished file to tell.
    #[error("zip unpacks to more than {ZIP_BYTES_MAX} bytes")]
    UnpackedTooLarge,
    /// More entries, or longer names, than memory may hold.
    #[error("too many entries")]
    TooManyEntries,
}

/// A hash in the making.
pub struct StreamHasher {
    prefix: String,
    state: State,
    /// Where in the stream the piece begins that is read now.
    position: u64,
    /// The beginning of a record, until all of it is there.
    pending: Vec<u8>,
    /// What is known of the entry whose data comes now; its name without the prefix.
    entry: Local,
    name: Vec<u8>,
    sum: Sum,
    data_bytes: u64,
    inflate: Inflate,
    output: Vec<u8>,
    unpacked_bytes: u64,
    lines: Lines,
    locals: Pieces<Local>,
    directory: u64,
    /// How many entries of the directory have been compared.
    compared: usize,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A local header, or the directory.
    Local,
    /// So many bytes of stored data.
    Stored(u64),
    Deflated,
    Descriptor,
    /// An entry of the directory, or what ends it.
    Directory,
    /// The zip64 locator, which has to lead there.
    Locator(u64),
    /// The end record behind a zip64 locator.
    End64,
    Done,
    Odd(Odd),
}

/// What the stream said of an entry, for the directory to repeat. All of it fits, since zips are far below 4 GiB.
#[derive(Clone, Copy, Default)]
struct Local {
    start: u32,
    compressed_bytes: u32,
    unpacked_bytes: u32,
    crc: u32,
    is_deflated: bool,
    has_descriptor: bool,
}

impl StreamHasher {
    /// Begins with nothing read. `prefix` is what every name has to begin with, `PATH@VERSION/` for a module; the empty
    /// one fits any zip.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            state: State::Local,
            position: 0,
            pending: Vec::new(),
            entry: Local::default(),
            name: Vec::new(),
            sum: Sum::new(),
            data_bytes: 0,
            inflate: Inflate::new(false, WINDOW_BITS),
            output: vec![0; OUTPUT_BYTES],
            unpacked_bytes: 0,
            lines: Lines::default(),
            locals: Pieces::default(),
            directory: 0,
            compared: 0,
        }
    }

    /// Takes the next bytes, any number of them. Blocking for as long as it takes to inflate and hash them.
    ///
    /// # Errors
    /// [`Odd`] as soon as that is known; from then on bytes are passed over.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Odd> {
        while !bytes.is_empty() {
            let step = match self.state {
                State::Odd(odd) => return Err(odd),
                State::Stored(left) => self.stored(left, &mut bytes),
                State::Deflated => self.deflated(&mut bytes),
                State::Local | State::Descriptor | State::Directory | State::Locator(_) | State::End64 => {
                    self.gather(&mut bytes)
                }
                State::Done => Err(Odd::Trailing),
            };
            if let Err(odd) = step {
                self.state = State::Odd(odd);
                // What was held is of no use any more.
                self.lines = Lines::default();
                self.locals = Pieces::default();
                return Err(odd);
            }
        }
        Ok(())
    }

    /// Returns the hash, if all of the zip was there.
    ///
    /// # Errors
    /// [`Odd`], that of [`push`](Self::push) if it had one.
    pub fn finish(self) -> Result<H1, Odd> {
        match self.state {
            State::Done => {
                summarize(&self.lines, &self.prefix, &self.lines.sorted()).map_err(|_| Odd::Cut(self.position))
            }
            State::Odd(odd) => Err(odd),
            State::Local
            | State::Stored(_)
            | State::Deflated
            | State::Descriptor
            | State::Directory
            | State::Locator(_)
            | State::End64 => Err(Odd::Cut(self.position)),
        }
    }

    /// Returns how many entries have been hashed.
    pub fn entries(&self) -> usize {
        self.lines.len()
    }

    /// Returns the memory that is reckoned with, in bytes; at most [`bytes_max`] of the entries so far.
    pub fn held_bytes(&self) -> usize {
        self.lines.held_bytes()
    }

    /// Collects bytes until a record is whole, and takes it in.
    fn gather(&mut self, bytes: &mut &[u8]) -> Result<(), Odd> {
        let wanted = self.wanted();
        if let Some(missing) = wanted.checked_sub(self.pending.len()).filter(|missing| *missing > 0) {
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            self.pending.extend_from_slice(taken);
            *bytes = rest;
        }
        // With more of it there, it may prove to be longer.
        if self.pending.len() < self.wanted() {
            return Ok(());
        }
        let record = mem::take(&mut self.pending);
        let result = self.record(&record);
        self.position += record.len() as u64;
        self.pending = record;
        self.pending.clear();
        result
    }

    /// Returns how long the record is, as far as can be told from what is there of it.
    fn wanted(&self) -> usize {
        let record = &self.pending[..];
        if self.state == State::Descriptor {
            return if record.len() >= 16 && !self.fits_short(record) { 24 } else { 16 };
        }
        if record.len() < 4 {
            return 4;
        }
        let length = |at| usize::from(u16_at(record, at));
        if record.starts_with(LOCAL_SIGNATURE) {
            LOCAL_BYTES + if record.len() < LOCAL_BYTES { 0 } else { length(26) + length(28) }
        } else if record.starts_with(HEADER_SIGNATURE) {
            HEADER_BYTES + if record.len() < HEADER_BYTES { 0 } else { length(28) + length(30) + length(32) }
        } else if record.starts_with(END64_SIGNATURE) {
            END64_BYTES
        } else if record.starts_with(LOCATOR_SIGNATURE) {
            LOCATOR_BYTES
        } else if record.starts_with(END_SIGNATURE) {
            END_BYTES
        } else {
            4
        }
    }

    /// Takes in a whole record, if it may come now.
    fn record(&mut self, record: &[u8]) -> Result<(), Odd> {
        if self.state == State::Descriptor {
            return self.descriptor(record);
        }
        let is_directory = matches!(self.state, State::Local | State::Directory);
        match (self.state, record.first_chunk()) {
            (State::Local, Some(LOCAL_SIGNATURE)) => self.local(record),
            (State::Local | State::Directory, Some(HEADER_SIGNATURE)) => {
                self.begin_directory();
                self.compare(record)
            }
            (_, Some(END64_SIGNATURE)) if is_directory => {
                self.begin_directory();
                self.end64(record)
            }
            (State::Locator(end64), Some(LOCATOR_SIGNATURE)) => self.locator(record, end64),
            (_, Some(END_SIGNATURE)) if is_directory || self.state == State::End64 => {
                self.begin_directory();
                self.end(record)
            }
            _ => Err(Odd::Record(self.position)),
        }
    }

    fn local(&mut self, record: &[u8]) -> Result<(), Odd> {
        let odd = Odd::Entry(self.position);
        let (name, extra) = record[LOCAL_BYTES..].split_at(usize::from(u16_at(record, 26)));
        let below = name.strip_prefix(self.prefix.as_bytes()).filter(|name| !name.contains(&b'\n'));
        let below = below.ok_or(Odd::Name(self.position))?;
        if self.lines.is_full(bytes_max(self.lines.len())) {
            return Err(Odd::TooManyEntries);
        }
        self.name.clear();
        self.name.extend_from_slice(below);
        let is_deflated = match u16_at(record, 8) {
            0 => false,
            8 => true,
            _ => return Err(odd),
        };
        let has_descriptor = u16_at(record, 6) & DESCRIPTOR_FLAG != 0;
        let mut figures = Figures { unpacked: figure_at(record, 22), compressed: figure_at(record, 18), offset: 0 };
        // Only the size of stored data is needed from here; all else the directory says again.
        let is_sized = figures.widen(extra);
        let is_folder_with_data = name.ends_with(b"/") && (is_deflated || has_descriptor || figures.compressed > 0);
        if is_folder_with_data || !is_deflated && !is_sized {
            return Err(odd);
        }
        let start = u32::try_from(self.position).map_err(|_| odd)?;
        self.entry = Local { start, is_deflated, has_descriptor, ..Local::default() };
        self.data_bytes = 0;
        if is_deflated {
            self.inflate.reset(false);
            self.state = State::Deflated;
            return Ok(());
        }
        self.state = State::Stored(figures.compressed);
        if figures.compressed == 0 { self.end_data() } else { Ok(()) }
    }

    fn stored(&mut self, left: u64, bytes: &mut &[u8]) -> Result<(), Odd> {
        let (data, rest) = bytes.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()));
        *bytes = rest;
        let left = left - data.len() as u64;
        self.sum.add(data);
        self.advance(data.len(), data.len())?;
        self.state = State::Stored(left);
        if left == 0 { self.end_data() } else { Ok(()) }
    }

    fn deflated(&mut self, bytes: &mut &[u8]) -> Result<(), Odd> {
        loop {
            let piece = inflate(&mut self.inflate, bytes, &mut self.output);
            self.sum.add(&self.output[..piece.written]);
            *bytes = &bytes[piece.read..];
            self.advance(piece.read, piece.written)?;
            match piece.next {
                Next::Input => return Ok(()),
                Next::Again => {}
                Next::End => return self.end_data(),
                Next::Damaged => return Err(Odd::Data(u64::from(self.entry.start))),
            }
        }
    }

    fn advance(&mut self, read: usize, unpacked: usize) -> Result<(), Odd> {
        self.position += read as u64;
        self.data_bytes += read as u64;
        self.unpacked_bytes += unpacked as u64;
        if self.unpacked_bytes > ZIP_BYTES_MAX { Err(Odd::UnpackedTooLarge) } else { Ok(()) }
    }

    /// All data of an entry is there.
    fn end_data(&mut self) -> Result<(), Odd> {
        let odd = Odd::Entry(u64::from(self.entry.start));
        self.entry.compressed_bytes = u32::try_from(self.data_bytes).map_err(|_| odd)?;
        self.entry.unpacked_bytes = u32::try_from(self.sum.bytes).map_err(|_| odd)?;
        self.entry.crc = self.sum.crc.clone().finalize();
        if self.entry.has_descriptor {
            self.state = State::Descriptor;
        } else {
            self.end_entry();
        }
        Ok(())
    }

    fn descriptor(&mut self, record: &[u8]) -> Result<(), Odd> {
        let is_long = record.len() == 24
            && u64_at(record, 8) == u64::from(self.entry.compressed_bytes)
            && u64_at(record, 16) == u64::from(self.entry.unpacked_bytes);
        let is_short = record.len() == 16 && self.fits_short(record);
        if !record.starts_with(DESCRIPTOR_SIGNATURE) || u32_at(record, 4) != self.entry.crc || !(is_short || is_long) {
            return Err(Odd::Descriptor(self.position));
        }
        self.end_entry();
        Ok(())
    }

    /// Says whether the sizes are right when they have four bytes each. A long descriptor of an empty content passes too, and
    /// makes the next record odd.
    fn fits_short(&self, record: &[u8]) -> bool {
        u32_at(record, 8) == self.entry.compressed_bytes && u32_at(record, 12) == self.entry.unpacked_bytes
    }

    fn end_entry(&mut self) {
        let context: Context = mem::replace(&mut self.sum, Sum::new()).context;
        self.lines.push(&self.name, Some(finish(context.finish().as_ref())));
        self.locals.push(self.entry);
        self.state = State::Local;
    }

    fn begin_directory(&mut self) {
        if self.state == State::Local {
            self.directory = self.position;
            self.state = State::Directory;
        }
    }

    /// Compares an entry of the directory with what the stream said at the same place in the order.
    fn compare(&mut self, record: &[u8]) -> Result<(), Odd> {
        let header = Header::read(record);
        let (name, extra) = record[HEADER_BYTES..].split_at(header.name_bytes);
        let extra = &extra[..header.extra_bytes];
        let below = name.strip_prefix(self.prefix.as_bytes());
        let is_same_name = below.is_some_and(|below| below == self.lines.name(self.compared));
        let fits = |local: &Local| {
            header.entry(Vec::new(), extra, 0).is_some_and(|entry| {
                entry.start == i128::from(local.start)
                    && entry.method == if local.is_deflated { 8 } else { 0 }
                    && entry.has_descriptor == local.has_descriptor
                    && entry.crc == local.crc
                    && entry.compressed_bytes == u64::from(local.compressed_bytes)
                    && entry.unpacked_bytes == u64::from(local.unpacked_bytes)
            })
        };
        if !is_same_name || !self.locals.get(self.compared).is_some_and(fits) {
            return Err(Odd::Directory(self.position));
        }
        self.compared += 1;
        Ok(())
    }

    /// Says whether an end record has the figures of what was read.
    fn fits_end(&self, entries: u64, directory_bytes: u64, directory_offset: u64, after: u64) -> bool {
        self.compared == self.lines.len()
            && entries == self.compared as u64
            && directory_bytes == after - self.directory
            && directory_offset == self.directory
    }

    fn end64(&mut self, record: &[u8]) -> Result<(), Odd> {
        // The record's own length, without the first twelve bytes: no more fields than are known.
        let is_plain = u64_at(record, 4) == END64_BYTES as u64 - 12;
        if !is_plain || !self.fits_end(u64_at(record, 32), u64_at(record, 40), u64_at(record, 48), self.position) {
            return Err(Odd::End(self.position));
        }
        self.state = State::Locator(self.position);
        Ok(())
    }

    fn locator(&mut self, record: &[u8], end64: u64) -> Result<(), Odd> {
        if u32_at(record, 4) != 0 || u64_at(record, 8) != end64 || u32_at(record, 16) != 1 {
            return Err(Odd::End(self.position));
        }
        self.state = State::End64;
        Ok(())
    }

    fn end(&mut self, record: &[u8]) -> Result<(), Odd> {
        let (entries, bytes, offset) = (u64::from(u16_at(record, 10)), figure_at(record, 12), figure_at(record, 16));
        let is_zip64 = is_maybe_zip64(entries, bytes, offset);
        // Where Go would look for zip64 records they have to be, and where not, not. A comment could hold another end.
        let is_right = if self.state == State::End64 {
            is_zip64
        } else {
            !is_zip64 && self.fits_end(entries, bytes, offset, self.position)
        };
        if !is_right || u16_at(record, 20) != 0 {
            return Err(Odd::End(self.position));
        }
        self.state = State::Done;
        Ok(())
    }
}
