//! What the readers of a running download may see of it, and how they wait for more.
//!
//! Owns [`FillState`], which `fill::transfer` publishes, and [`FillReader`], which `server::body` polls; calls nothing
//! of Larder's own. Invariants 4 and 5: a writer that fails or vanishes is an error to its readers, never the end of
//! the file; nothing at or behind `readable` is read.

use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;

/// What readers of a fill may see.
#[derive(Clone, Debug)]
pub enum FillState {
    /// Bytes before `readable` may be read; more may come.
    Open {
        /// The whole length in bytes, where the upstream told it.
        length: Option<u64>,
        /// How many bytes from the start may be read now.
        readable: u64,
    },
    /// Judged good and complete: `length` bytes.
    Sealed {
        /// The whole length in bytes.
        length: u64,
    },
    /// The fill has failed; nothing more may be read.
    Failed(Arc<str>),
}

type Changed = (Result<(), watch::error::RecvError>, watch::Receiver<FillState>);

/// Follows a growing file. All readers of a download share its one descriptor.
pub struct FillReader {
    file: Arc<File>,
    state: watch::Receiver<FillState>,
    waiting: Option<Pin<Box<dyn Future<Output = Changed> + Send + Sync>>>,
}

impl FillReader {
    /// Makes a reader over a partial file and the state its writer publishes.
    pub fn new(file: Arc<File>, state: watch::Receiver<FillState>) -> Self {
        Self { file, state, waiting: None }
    }

    /// Returns the file being written. It stays readable after it got its final name.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Returns the whole length in bytes, where it is known yet.
    pub fn length(&self) -> Option<u64> {
        match *self.state.borrow() {
            FillState::Open { length, .. } => length,
            FillState::Sealed { length } => Some(length),
            FillState::Failed(_) => None,
        }
    }

    /// Waits until bytes after `offset` may be read and returns the end of what may be read.
    ///
    /// An end equal to `offset` means that the file is complete and `offset` is its end.
    ///
    /// # Errors
    /// The text of the fill's failure. A writer that vanished is a failure too, never the end of the file.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>, offset: u64) -> Poll<Result<u64, Arc<str>>> {
        loop {
            match &*self.state.borrow_and_update() {
                FillState::Sealed { length } => return Poll::Ready(Ok(*length)),
                FillState::Failed(text) => return Poll::Ready(Err(Arc::clone(text))),
                FillState::Open { readable, .. } if *readable > offset => return Poll::Ready(Ok(*readable)),
                FillState::Open { .. } => {}
            }
            let mut state = self.state.clone();
            let waiting = self.waiting.get_or_insert_with(|| {
                Box::pin(async move {
                    let changed = state.changed().await;
                    (changed, state)
                })
            });
            let (changed, state) = ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            self.state = state;
            if changed.is_err() && !matches!(*self.state.borrow(), FillState::Sealed { .. } | FillState::Failed(_)) {
                return Poll::Ready(Err(Arc::from("the download ended without a result")));
            }
        }
    }
}
