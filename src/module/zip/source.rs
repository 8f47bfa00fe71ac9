//! What a zip is read from, by position: a file, or bytes in memory.
//!
//! Called by everything in `zip` that reads a finished zip; calls nothing. Invariant: reading moves nothing that another
//! reader of the same file could see.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Something whose bytes can be read by their position.
pub trait ReadAt {
    /// Fills the buffer with the bytes from `offset` on. Blocking.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if there are fewer, or what reading met.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
