//! Whether bytes of a file are in memory, and bringing them there without making anyone else wait.
//!
//! Called by `connection` before the kernel sends a piece of a file and by `body` for small files. A read that has to
//! wait for the card happens on the blocking pool only; for pieces of big files, a few at a time, so that a small file
//! asked for meanwhile does not find the card busy with megabytes of others.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Advice, fadvise, sendfile};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::sync::Semaphore;

use super::body::PIECE_BYTES_MAX;
use super::connection::Segment;

/// Pieces of files being read from the card at the same time. More do not make a card faster.
const READS_MAX: usize = 4;

/// What is read at a time where the kernel does not read ahead by itself.
const SCRATCH_BYTES: usize = 16 * 1024;

/// A piece of a file on its way into memory.
pub(super) type Warming = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// The pieces of files being read into memory. Clones share the bound.
#[derive(Clone, Debug)]
pub(super) struct PageCache {
    reads: Arc<Semaphore>,
}

impl PageCache {
    pub(super) fn new() -> Self {
        Self { reads: Arc::new(Semaphore::new(READS_MAX)) }
    }

    /// Brings a segment into memory.
    pub(super) fn read_ahead(&self, segment: &Segment) -> Warming {
        let reads = Arc::clone(&self.reads);
        let (file, offset, length) = (Arc::clone(&segment.file), segment.offset, segment.length);
        Box::pin(async move {
            let _turn = reads.acquire().await.map_err(io::Error::other)?;
            let read = tokio::task::spawn_blocking(move || read_into_memory(&file, offset, length));
            read.await.unwrap_or_else(|error| Err(error.into()))
        })
    }
}

/// Tells whether a segment is in memory, judged by its first and last byte.
///
/// Where the file system cannot tell, the answer is no: a read too many on the blocking pool is the smaller evil.
pub(super) fn is_in_memory(segment: &Segment) -> bool {
    let last = segment.offset + u64::try_from(segment.length.saturating_sub(1)).unwrap_or(0);
    [segment.offset, last].into_iter().all(|offset| {
        let mut byte = [0];
        preadv2(&segment.file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) == Ok(1)
    })
}

/// Reads bytes of a file if they are in memory, all of them.
pub(super) fn read_at_once(file: &File, offset: u64, length: u64) -> Option<Bytes> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    loop {
        return match preadv2(file, &mut [IoSliceMut::new(&mut bytes)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == bytes.len() => Some(bytes.into()),
            Err(Errno::INTR) => continue,
            Ok(_) | Err(_) => None,
        };
    }
}

/// Reads bytes of a file, however long it takes. For the blocking pool.
pub(super) fn read_waiting(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}

/// The error of a file that has fewer bytes than it had.
pub(super) fn became_shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter while it was sent")
}

/// Reads a piece of a file for the page cache's sake, and has the kernel begin with the piece after it. Waits.
fn read_into_memory(file: &File, offset: u64, length: usize) -> io::Result<()> {
    let wanted = u64::try_from(length).unwrap_or(0);
    let ahead = u64::try_from(PIECE_BYTES_MAX).unwrap_or(0);
    // Only advice: where it is not taken, reading is merely slower.
    let _ = fadvise(file, offset, NonZeroU64::new(wanted + ahead), Advice::WillNeed);
    let end = offset + wanted;
    let mut offset = offset;
    // Sending to the null device waits for the bytes and copies none of them.
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        while offset < end {
            let rest = usize::try_from(end - offset).unwrap_or(usize::MAX);
            match sendfile(&null, file, Some(&mut offset), rest) {
                Ok(1..) | Err(Errno::INTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
    }
    let mut scratch = [0; SCRATCH_BYTES];
    while offset < end {
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(SCRATCH_BYTES);
        match file.read_at(&mut scratch[..wanted], offset) {
            Ok(0) => return Err(became_shorter()),
            Ok(read) => offset += u64::try_from(read).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes brought into memory are found there; a piece beyond the end of the file is an error.
    #[tokio::test]
    async fn pieces_are_brought_into_memory() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 300_000], 0).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let segment = Segment { file: Arc::new(file), offset: 1000, length: 262_144 };
        let page_cache = PageCache::new();
        page_cache.read_ahead(&segment).await.unwrap();
        assert!(is_in_memory(&segment));
        let beyond = Segment { offset: 299_000, ..segment };
        assert_eq!(page_cache.read_ahead(&beyond).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Reading at once and reading with patience give the same bytes.
    #[test]
    fn both_ways_of_reading_agree() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        assert_eq!(read_at_once(&file, 3, 4).unwrap(), "3456");
        assert_eq!(read_waiting(&file, 3, 4).unwrap(), "3456");
        assert!(read_at_once(&file, 8, 4).is_none());
        assert!(read_waiting(&file, 8, 4).is_err());
    }
}
