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

use super::connection::Segment;

/// Pieces of files being read from the card at the same time. More do not make a card faster.
const READS_MAX: usize = 4;

/// What is looked for in memory as one, and read from the card at a time: enough for a card to be fast, and little
/// enough for a small file's turn to come soon.
const WINDOW_BYTES: u64 = 256 * 1024;

/// What is read at a time where the kernel does not read ahead by itself.
const SCRATCH_BYTES: usize = 16 * 1024;

/// A piece of a file on its way into memory.
pub(super) type Warming = Pin<Box<dyn Future<Output = io::Result<usize>> + Send>>;

/// The pieces of files being read into memory. Clones share the bound.
#[derive(Clone, Debug)]
pub(super) struct PageCache {
    reads: Arc<Semaphore>,
}

impl PageCache {
    pub(super) fn new() -> Self {
        Self { reads: Arc::new(Semaphore::new(READS_MAX)) }
    }

    /// Brings the first window of a segment into memory; the answer is how many bytes those are.
    pub(super) fn read_ahead(&self, segment: &Segment) -> Warming {
        let reads = Arc::clone(&self.reads);
        let (file, offset) = (Arc::clone(&segment.file), segment.offset);
        let length = segment.length.min(usize::try_from(WINDOW_BYTES).unwrap_or(usize::MAX));
        Box::pin(async move {
            let _turn = reads.acquire().await.map_err(io::Error::other)?;
            let read = tokio::task::spawn_blocking(move || read_into_memory(&file, offset, length));
            read.await.unwrap_or_else(|error| Err(error.into()))?;
            Ok(length)
        })
    }
}

/// Returns how many of a segment's first bytes are in memory, judged by its first byte and the last one of each window.
///
/// Where the file system cannot tell, the answer is 0: a read too many on the blocking pool is the smaller evil.
pub(super) fn length_in_memory(segment: &Segment) -> usize {
    let end = segment.offset + u64::try_from(segment.length).unwrap_or(0);
    if segment.length == 0 || !is_in_memory(&segment.file, segment.offset) {
        return 0;
    }
    let mut known = segment.offset;
    while known < end {
        let window_end = end.min(known + WINDOW_BYTES);
        if !is_in_memory(&segment.file, window_end - 1) {
            break;
        }
        known = window_end;
    }
    usize::try_from(known - segment.offset).unwrap_or(0)
}

fn is_in_memory(file: &File, offset: u64) -> bool {
    let mut byte = [0];
    preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) == Ok(1)
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
    // Only advice: where it is not taken, reading is merely slower.
    let _ = fadvise(file, offset, NonZeroU64::new(wanted + WINDOW_BYTES), Advice::WillNeed);
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

    /// Bytes brought into memory are found there, a window at a time; a piece beyond the end of the file is an error.
    #[tokio::test]
    async fn pieces_are_brought_into_memory() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 700_000], 0).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let mut segment = Segment { file: Arc::new(file), offset: 1000, length: 600_000 };
        let page_cache = PageCache::new();
        let end = segment.offset + 600_000;
        while segment.offset < end {
            segment.length = usize::try_from(end - segment.offset).unwrap();
            let read = page_cache.read_ahead(&segment).await.unwrap();
            assert!(length_in_memory(&segment) >= read);
            segment.offset += u64::try_from(read).unwrap();
        }
        let whole = Segment { file: Arc::clone(&segment.file), offset: 1000, length: 600_000 };
        assert_eq!(length_in_memory(&whole), 600_000);
        let beyond = Segment { offset: 699_000, length: 2000, ..segment };
        assert_eq!(length_in_memory(&beyond), 0);
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
