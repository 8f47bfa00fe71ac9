//! The buffer a zip's directory is read through, so that its size does not matter.
//!
//! Called by `zip`; calls nothing. Invariants: it holds 64 KiB and never reads beyond the end it was given.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A part of a file, seen through a buffer of fixed size.
pub(super) struct Window<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    /// What of the buffer has not been taken yet.
    start: usize,
    filled: usize,
    /// Where in the file the bytes behind the buffer are, and where they end.
    next: u64,
    end: u64,
}

/// Enough for the longest name, extra field or comment.
const WINDOW_BYTES: usize = 1 << 16;

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a File, offset: u64, end: u64) -> Self {
        Self { file, buffer: vec![0; WINDOW_BYTES], start: 0, filled: 0, next: offset.min(end), end }
    }

    pub(super) fn left(&self) -> u64 {
        (self.filled - self.start) as u64 + (self.end - self.next)
    }

    /// Returns the next `bytes` bytes, at most 65,536; nothing if the file has fewer.
    pub(super) fn take(&mut self, bytes: usize) -> io::Result<Option<&[u8]>> {
        if self.left() < bytes as u64 {
            return Ok(None);
        }
        if self.filled - self.start < bytes {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
            let room = WINDOW_BYTES - self.filled;
            let more = usize::try_from(self.end - self.next).unwrap_or(room).min(room);
            self.file.read_exact_at(&mut self.buffer[self.filled..self.filled + more], self.next)?;
            self.filled += more;
            self.next += more as u64;
        }
        let taken = self.start;
        self.start += bytes;
        Ok(self.buffer.get(taken..self.start))
    }
}
