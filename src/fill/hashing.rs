//! The hashes of a zip while it arrives: the h1 of its content, and the checksum of its bytes.
//!
//! Called by `fill::transfer`; calls `module::zip::stream`. The bytes are read back from the file as far as they are there
//! without a gap, from the page cache: so several connections, pieces in any order and a resumed beginning are all the
//! same, and no connection waits for the hash. What the stream does not tell is hashed from the finished file.
//! Memory: that of one [`StreamHasher`] and a buffer.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use crate::module::ModuleVersion;
use crate::module::zip::ZipError;
use crate::module::zip::hash::{H1, HashError};
use crate::module::zip::stream::{Odd, StreamHasher};
use crate::store::scrub;
use crate::store::{self, Store};
use crate::upstream::Failure;

/// What is read back at a time, in bytes.
const PIECE_BYTES: usize = 128 * 1024;
/// What is hashed before somebody else may have the thread, in bytes.
const TURN_BYTES: u64 = 1024 * 1024;

/// The hashes of one zip in the making. Clones share them.
#[derive(Clone)]
pub(super) struct Hashing {
    /// What every name begins with, if an h1 is wanted.
    prefix: Option<String>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Nothing if no h1 is wanted.
    stream: Option<Result<StreamHasher, Odd>>,
    crc: crc32fast::Hasher,
    position: u64,
    /// Counts the files that have been begun: a turn meant for an earlier one does nothing.
    generation: u64,
}

/// The hashes of a complete zip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashes {
    pub(super) h1: Option<H1>,
    pub(super) crc32: u32,
}

impl State {
    fn new(prefix: Option<&str>, generation: u64) -> Self {
        let stream = prefix.map(|prefix| Ok(StreamHasher::new(prefix)));
        Self { stream, crc: crc32fast::Hasher::new(), position: 0, generation }
    }
}

impl Hashing {
    /// Begins with nothing. Without `wants_h1` only the bytes have a checksum.
    pub(super) fn new(module: &ModuleVersion, wants_h1: bool) -> Self {
        let prefix = wants_h1.then(|| format!("{module}/"));
        let state = Arc::new(Mutex::new(State::new(prefix.as_deref(), 0)));
        Self { prefix, state }
    }

    /// Begins again: another file is written in place of this one.
    pub(super) fn restart(&self) {
        let mut state = self.lock();
        *state = State::new(self.prefix.as_deref(), state.generation + 1);
    }

    /// Returns how many bytes have been hashed, and of which file.
    fn position(&self) -> (u64, u64) {
        let state = self.lock();
        (state.position, state.generation)
    }

    /// Hashes some of what is there of the file that was begun as this one, up to `end`; for the blocking pool.
    fn advance(&self, file: &File, end: u64, generation: u64) -> std::io::Result<()> {
        let mut state = self.lock();
        if state.generation != generation {
            return Ok(());
        }
        let end = end.min(state.position + TURN_BYTES);
        let mut buffer = vec![0; PIECE_BYTES];
        while state.position < end {
            let left = usize::try_from(end - state.position).unwrap_or(usize::MAX);
            let piece = &mut buffer[..left.min(PIECE_BYTES)];
            file.read_exact_at(piece, state.position)?;
            state.crc.update(piece);
            if let Some(Ok(stream)) = &mut state.stream
                && let Err(odd) = stream.push(piece)
            {
                state.stream = Some(Err(odd));
            }
            state.position += piece.len() as u64;
        }
        Ok(())
    }

    /// Hashes what is left of the complete zip, and all of it if its stream was odd; for the blocking pool.
    pub(super) fn finish(
        &self,
        store: &Store,
        file: &File,
        zip_bytes: u64,
        module: &ModuleVersion,
    ) -> Result<Result<Hashes, String>, store::Error> {
        loop {
            let (position, generation) = self.position();
            if position >= zip_bytes {
                break;
            }
            self.advance(file, zip_bytes, generation).map_err(|err| store::Error::at("downloaded zip", err))?;
        }
        let (_, generation) = self.position();
        let done = std::mem::replace(&mut *self.lock(), State::new(self.prefix.as_deref(), generation + 1));
        let crc32 = done.crc.finalize();
        match done.stream.map(|stream| stream.and_then(StreamHasher::finish)) {
            None => Ok(Ok(Hashes { h1: None, crc32 })),
            Some(Ok(h1)) => Ok(Ok(Hashes { h1: Some(h1), crc32 })),
            Some(Err(odd)) => {
                log::debug!("{module}: hashed from the finished file, since the stream was odd: {odd}");
                match scrub::h1_of_zip(store, file, zip_bytes, module) {
                    Ok(h1) => Ok(Ok(Hashes { h1: Some(h1), crc32 })),
                    Err(HashError::Zip(ZipError::Io(err))) => Err(store::Error::at("downloaded zip", err)),
                    Err(err) => Ok(Err(err.to_string())),
                }
            }
        }
    }

    /// Hashes along while the file grows, as fast as `is_there` says that bytes have come; ends never.
    ///
    /// # Cancel safety
    /// The turn under way ends by itself when the future is dropped.
    pub(super) async fn follow(
        &self,
        file: &Arc<File>,
        is_there: impl Fn() -> u64,
        has_grown: &tokio::sync::Notify,
    ) -> Result<std::convert::Infallible, Failure> {
        loop {
            let (position, generation) = self.position();
            let end = is_there();
            if position < end {
                let (this, file) = (self.clone(), Arc::clone(file));
                let turn =
                    move || this.advance(&file, end, generation).map_err(|err| store::Error::at("downloaded zip", err));
                store::blocking(turn).await?;
            } else {
                has_grown.notified().await;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
