//! What readers of a download may see, as its writer tells them.
//!
//! Called by `fill::transfer`. Invariant 5 of ARCHITECTURE.md is kept here: as long as the file has not been judged, what is
//! shown stays [`TAIL_BYTES`] short of its end.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::fill::{FillState, Growing};

/// Bytes held back until the verdict. A zip without its end is no zip, so a few are enough, and a small zip's first
/// bytes are not kept waiting for its last.
const TAIL_BYTES: u64 = 4096;

/// The writer's side of a [`FillState`].
#[derive(Debug)]
pub(super) struct Publisher {
    state: watch::Sender<FillState>,
    /// How many bytes are there, gaps or not, for people to see.
    received: Arc<AtomicU64>,
}

/// Whether readers had seen anything before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// These are the first bytes to be seen: answers can be begun now.
    First,
    /// More of it, or nothing new.
    More,
}

impl Publisher {
    pub(super) fn new() -> Self {
        Self { state: watch::Sender::new(FillState::Open { length: None, readable: 0 }), received: Arc::default() }
    }

    /// Returns what followers need to read along.
    pub(super) fn growing(&self, file: &Arc<File>, upstream: &Arc<str>) -> Growing {
        Growing {
            file: Arc::clone(file),
            state: self.state.subscribe(),
            received: Arc::clone(&self.received),
            upstream: Arc::clone(upstream),
        }
    }

    /// Notes how many bytes are there in all.
    pub(super) fn received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
    }

    /// Tells the whole length, as far as it is known.
    pub(super) fn announce(&self, known: Option<u64>) {
        self.state.send_if_modified(|state| match state {
            FillState::Open { length, .. } if *length != known => {
                *length = known;
                true
            }
            FillState::Open { .. } | FillState::Sealed { .. } | FillState::Failed(_) => false,
        });
    }

    /// Lets readers see the first `prefix` bytes, but for the tail. What was shown once is never taken back.
    pub(super) fn show(&self, prefix: u64) -> Shown {
        let mut shown = Shown::More;
        self.state.send_if_modified(|state| {
            let FillState::Open { length, readable } = state else { return false };
            let end = length.unwrap_or(prefix).saturating_sub(TAIL_BYTES).min(prefix);
            let has_grown = end > *readable;
            if has_grown && *readable == 0 {
                shown = Shown::First;
            }
            *readable = (*readable).max(end);
            has_grown
        });
        shown
    }

    /// Lets readers see all of it: the file is complete and judged.
    pub(super) fn seal(&self, length: u64) -> Shown {
        let shown = if self.shown_bytes() == 0 { Shown::First } else { Shown::More };
        self.state.send_replace(FillState::Sealed { length });
        shown
    }

    /// Ends every reader with an error.
    pub(super) fn fail(&self, text: &str) {
        self.state.send_replace(FillState::Failed(Arc::from(text)));
    }

    /// Returns how many bytes readers may have seen.
    pub(super) fn shown_bytes(&self) -> u64 {
        match *self.state.borrow() {
            FillState::Open { readable, .. } => readable,
            FillState::Sealed { length } => length,
            FillState::Failed(_) => 0,
        }
    }

    /// Returns the length that readers may have announced.
    pub(super) fn announced_length(&self) -> Option<u64> {
        match *self.state.borrow() {
            FillState::Open { length, .. } => length,
            FillState::Sealed { length } => Some(length),
            FillState::Failed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Until the verdict the tail stays back, with a known length and without one, and nothing shown is taken back.
    #[test]
    fn tail_is_held_back() {
        let publisher = Publisher::new();
        assert_eq!(publisher.show(TAIL_BYTES), Shown::More);
        publisher.announce(Some(10_000));
        assert_eq!(publisher.show(5_000), Shown::First);
        assert_eq!(publisher.shown_bytes(), 5_000);
        publisher.show(10_000);
        assert_eq!(publisher.shown_bytes(), 10_000 - TAIL_BYTES);
        publisher.show(100);
        assert_eq!(publisher.shown_bytes(), 10_000 - TAIL_BYTES);
        assert_eq!(publisher.seal(10_000), Shown::More);
        assert_eq!(publisher.shown_bytes(), 10_000);
    }
}
