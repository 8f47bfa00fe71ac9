//! Housekeeping: removes what the limits say, one run at a time, and remembers how the last one went.
//!
//! Owns [`Housekeeper`], which knows all that a run has to spare: pins, fills, and what is being read. Called by `app`
//! at intervals and by `control` when a person asks; calls `store::gc`, which does the work, and `fill` and
//! `cache::readers` for what is in use.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::cache::readers::Readers;
use crate::clock::Clock;
use crate::fill::Fills;
use crate::store::gc::{self, Limits, Mode, Removal, Report, Run};
use crate::store::index::Index;
use crate::store::partial;
use crate::store::pins::{PinError, Pins};

/// A run that comes right after the start waits so long for the index to be complete.
const INDEX_WAIT_MAX: Duration = Duration::from_secs(10);
const INDEX_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Why there was no run, or not all of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One is under way.
    #[error("housekeeping is under way already")]
    Busy,
    /// The index is not open, so nobody knows what is used.
    #[error("the index is not complete yet, so nothing can be said about what is used; try again in a moment")]
    NoIndex,
    /// What is pinned is not known, so nothing may be removed.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The disk did not do what was asked.
    #[error("housekeeping: {0}")]
    Disk(#[from] std::io::Error),
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct LastRun {
    /// When it ended, by the steady clock.
    pub ended: Instant,
    /// What it did, or why it could not.
    pub outcome: Result<Report, String>,
}

/// What a [`Housekeeper`] looks after.
pub struct Housekeeper {
    /// The cache directory.
    pub root: PathBuf,
    /// Its index.
    pub index: Arc<Index>,
    /// What is on its way in.
    pub fills: Arc<Fills>,
    /// What is being read.
    pub readers: Arc<Readers>,
    /// When something has to go.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
    /// Ends a run early.
    pub stop: CancellationToken,
    state: State,
}

#[derive(Default)]
struct State {
    running: Mutex<()>,
    pins: Mutex<Option<Arc<Pins>>>,
    last: Mutex<Option<LastRun>>,
}

impl Housekeeper {
    /// Makes a housekeeper for the cache directory `root`.
    pub fn new(
        root: PathBuf,
        index: Arc<Index>,
        (fills, readers): (Arc<Fills>, Arc<Readers>),
        limits: Limits,
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        Self { root, index, fills, readers, limits, clock, stop, state: State::default() }
    }

    /// Removes what `limits` say, or only tells it; calls `each` for every version that goes. For the blocking pool.
    ///
    /// # Errors
    /// Why nothing was removed, or not all.
    pub fn run(&self, limits: Limits, mode: Mode, each: &mut dyn FnMut(&Removal)) -> Result<Report, Error> {
        let _running = match self.state.running.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Error::Busy),
        };
        let outcome = self.run_alone(limits, mode, each);
        if mode == Mode::Remove {
            let last =
                LastRun { ended: self.clock.steady(), outcome: outcome.as_ref().map_err(ToString::to_string).copied() };
            *self.state.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        }
        outcome
    }

    fn run_alone(&self, limits: Limits, mode: Mode, each: &mut dyn FnMut(&Removal)) -> Result<Report, Error> {
        // Downloads that broke off and that nobody has taken up again go before anything that is complete.
        if mode == Mode::Remove && self.is_room_missing() {
            let freed = partial::prune(&self.root.join(".larder/tmp"), 0)?;
            log::debug!("unfinished downloads removed bytes={freed}");
        }
        self.wait_for_index()?;
        let pins = self.pins()?;
        // What has come in during the last moments counts too.
        self.index.maintain();
        let run = Run {
            root: &self.root,
            index: &self.index,
            pins: &pins,
            clock: &self.clock,
            is_busy: &|version| self.fills.is_filling(version) || self.readers.is_reading(version),
            is_cancelled: &|| self.stop.is_cancelled(),
        };
        Ok(run.run(limits, mode, each)?)
    }

    /// Waits a little for an index that is just being opened or completed; for the blocking pool.
    fn wait_for_index(&self) -> Result<(), Error> {
        let began = self.clock.steady();
        while !self.index.is_whole() {
            if self.stop.is_cancelled() || self.clock.steady().duration_since(began) > INDEX_WAIT_MAX {
                return Err(Error::NoIndex);
            }
            std::thread::sleep(INDEX_POLL_INTERVAL);
        }
        Ok(())
    }

    /// Returns whether the limits on size and free space ask for a run now. Costs no reading of the tree; for the
    /// blocking pool.
    pub fn is_room_missing(&self) -> bool {
        let is_too_large = self.limits.cache_bytes_max.is_some_and(|max| self.index.totals().bytes > max);
        is_too_large || gc::free_bytes(&self.root).is_ok_and(|free| free < self.limits.free_bytes_min)
    }

    /// Returns what is pinned, read from the disk at the first call that succeeds.
    ///
    /// # Errors
    /// The file cannot be read or understood. It is read again at the next call.
    pub fn pins(&self) -> Result<Arc<Pins>, PinError> {
        let mut pins = self.state.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pins) = &*pins {
            return Ok(Arc::clone(pins));
        }
        let loaded = Arc::new(Pins::load(&self.root)?);
        *pins = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Returns how the last run that was not a dry one went, if there was one since the start.
    pub fn last_run(&self) -> Option<LastRun> {
        self.state.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how long ago a moment of the steady clock was.
    pub fn since(&self, moment: Instant) -> Duration {
        self.clock.steady().saturating_duration_since(moment)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make the trees they need")]

    use super::*;
    use crate::module::ModuleVersion;
    use crate::resource::ArtifactKind;
    use crate::shutdown::Tasks;
    use crate::store::adopt::{self, Adoption};
    use crate::store::pins::Pin;

    fn housekeeper(root: &std::path::Path) -> Housekeeper {
        let index = Arc::new(Index::opening(root));
        let in_use = (Fills::new(Tasks::new()), Arc::new(Readers::default()));
        Housekeeper::new(root.to_owned(), index, in_use, Limits::default(), Clock::system(), CancellationToken::new())
    }

    fn open_index(keeper: &Housekeeper) {
        keeper.index.open();
        adopt::scan(&Adoption::of(&keeper.root), &keeper.index, &keeper.clock, &|| false).unwrap();
    }

    /// Without an index, or with pins that cannot be understood, nothing is removed, and the next run tries again.
    #[test]
    fn nothing_goes_while_something_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join(".larder");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("pins"), "../x\n").unwrap();
        let keeper = housekeeper(root.path());
        let run = || keeper.run(keeper.limits, Mode::Remove, &mut |_| {});
        // The run would wait for the index otherwise.
        keeper.stop.cancel();
        assert!(matches!(run(), Err(Error::NoIndex)));
        open_index(&keeper);
        assert!(matches!(run(), Err(Error::Pins(PinError::Line { line: 1, .. }))));
        assert!(keeper.last_run().unwrap().outcome.unwrap_err().contains("line 1"));
        std::fs::write(own.join("pins"), "example.com/m\n").unwrap();
        assert!(run().is_ok());
        assert_eq!(keeper.pins().unwrap().list(), [Pin::parse("example.com/m").unwrap()]);
    }

    /// A second run does not begin while one is under way.
    #[test]
    fn one_run_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let keeper = housekeeper(root.path());
        open_index(&keeper);
        let version = ModuleVersion::parse("example.com/m@v1.0.0").unwrap();
        keeper.index.note_artifact(&version, ArtifactKind::Zip, 100, "", keeper.clock.now());
        keeper.index.maintain();
        let mut second = None;
        keeper.clock.advance(Duration::from_secs(7200));
        let limits = Limits { cache_bytes_max: Some(1), ..Limits::default() };
        let report = keeper.run(limits, Mode::DryRun, &mut |_| {
            second = Some(keeper.run(limits, Mode::Remove, &mut |_| {}));
        });
        assert_eq!(report.unwrap().versions, 1);
        assert!(matches!(second, Some(Err(Error::Busy))));
        assert!(keeper.last_run().is_none());
    }
}
