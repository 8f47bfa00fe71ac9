//! The buffer a zip's directory is read through, so that its size does not matter.
//!
//! Called by `directory` and `content`; calls `source`. Invariants: it holds 64 KiB and never reads beyond the end it was given.

use std::io;

use super::source::ReadAt;

/// A part of a file, seen through a buffer of fixed size.
pub(super) struct Window<'a, S: ReadAt + ?Sized> {
    source: &'a S,
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

impl<'a, S: ReadAt + ?Sized> Window<'a, S> {
    pub(super) fn new(source: &'a S, offset: u64, end: u64) -> Self {
        Self { source, buffer: vec![0; WINDOW_BYTES], start: 0, filled: 0, next: offset.min(end), end }
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
            self.source.read_exact_at(&mut self.buffer[self.filled..self.filled + more], self.next)?;
            self.filled += more;
            self.next += more as u64;
        }
        let taken = self.start;
        self.start += bytes;
        Ok(self.buffer.get(taken..self.start))
    }
}
