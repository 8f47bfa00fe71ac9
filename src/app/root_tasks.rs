//! The tasks that work for the cache while the server serves: index, housekeeping, commands, progress.
//!
//! Called by `app` at the start; each ends with the group it is started in.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::MultiProgress;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::app::scrub;
use crate::cache::Cache;
use crate::control::desk::{Desk, Machinery, Service};
use crate::control::server;
use crate::housekeeping::{Error, Housekeeper};
use crate::progress;
use crate::shutdown::Tasks;
use crate::store::adopt;
use crate::store::gc::Mode;
use crate::store::{self, Store};

/// How often what the index has gathered in memory is written.
const INDEX_INTERVAL: Duration = Duration::from_secs(30);
/// How often the limits on size and free space are looked at between two runs; that costs next to nothing.
const ROOM_INTERVAL: Duration = Duration::from_secs(30);
/// When a run could not make the room that is missing, another one would not either for a while.
const FRUITLESS_PAUSE: Duration = Duration::from_secs(3600);
/// Fills that find the disk full cause a run at most this often.
const DISK_FULL_PAUSE: Duration = Duration::from_secs(10);

/// Opens the index and reads the tree where that is due, both while requests are served already; then writes what
/// gathers in memory from time to time. Returns what is told once the index is complete.
pub(super) fn keep_index(cache: &Arc<Cache>, working: &Tasks, stop: &CancellationToken) -> Arc<Notify> {
    let indexed = Arc::new(Notify::new());
    let (cache, stop, token) = (Arc::clone(cache), stop.clone(), working.token().clone());
    let is_indexed = Arc::clone(&indexed);
    working.spawn("index", async move {
        let mut is_first = true;
        loop {
            let (cache, stop) = (Arc::clone(&cache), stop.clone());
            let round = store::blocking(move || {
                if is_first {
                    cache.index.open();
                } else {
                    cache.index.maintain();
                }
                if adopt::is_scan_due(&cache.adoption, &cache.index) {
                    let is_cancelled = || stop.is_cancelled();
                    let scanned = adopt::scan(&cache.adoption, &cache.index, &cache.clock, &is_cancelled);
                    scanned.map_err(|err| store::Error::at("reading the tree", err))?;
                }
                Ok(())
            });
            if let Err(err) = round.await {
                log::error!("{err}");
            }
            if is_first {
                is_indexed.notify_one();
            }
            is_first = false;
            tokio::select! {
                () = token.cancelled() => return,
                () = sleep(INDEX_INTERVAL) => {}
            }
        }
    });
    indexed
}

/// Runs the housekeeping once the index is complete, then at every `interval`, and in between when the limits on size
/// and free space ask for it or a fill found the disk full.
pub(super) fn keep_house(
    keeper: &Arc<Housekeeper>,
    cache: &Arc<Cache>,
    interval: Duration,
    indexed: Arc<Notify>,
    working: &Tasks,
) {
    let (keeper, cache, token) = (Arc::clone(keeper), Arc::clone(cache), working.token().clone());
    working.spawn("housekeeping", async move {
        let keep = async {
            indexed.notified().await;
            loop {
                let has_helped = run_once(&keeper).await;
                wait_until_due(&keeper, &cache, interval, has_helped).await;
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = keep => {}
        }
    });
}

/// Returns whether there is room now, as far as the limits say.
async fn run_once(keeper: &Arc<Housekeeper>) -> bool {
    let keeper = Arc::clone(keeper);
    let run = store::blocking(move || Ok(keeper.run(keeper.limits, Mode::Remove, &mut |_| {})));
    match run.await {
        Ok(Ok(report)) => report.removed.bytes >= report.needed_bytes,
        Ok(Err(Error::Busy)) => true,
        Ok(Err(err @ (Error::NoIndex | Error::Pins(_) | Error::Disk(_)))) => {
            log::warn!("nothing is removed: {err}");
            false
        }
        Err(err) => {
            log::error!("housekeeping: {err}");
            false
        }
    }
}

async fn wait_until_due(keeper: &Arc<Housekeeper>, cache: &Arc<Cache>, interval: Duration, has_helped: bool) {
    let pause = ROOM_INTERVAL.min(interval);
    let mut waited = Duration::ZERO;
    loop {
        let may_help = has_helped || waited >= FRUITLESS_PAUSE;
        tokio::select! {
            () = sleep(pause) => {}
            () = async { sleep(DISK_FULL_PAUSE).await; cache.disk_full.notified().await }, if may_help => return,
        }
        waited = waited.saturating_add(pause);
        if waited >= interval {
            return;
        }
        let keeper = Arc::clone(keeper);
        if may_help && store::blocking(move || Ok(keeper.is_room_missing())).await.unwrap_or(false) {
            return;
        }
    }
}

/// Answers the commands. Without a socket there is a warning and no more. To be called within a runtime.
pub(super) fn take_commands(keeper: &Arc<Housekeeper>, cache: &Arc<Cache>, working: &Tasks) {
    let store: &Arc<Store> = &cache.store;
    let listener = match server::bind(store) {
        Ok(listener) => listener,
        Err(err) => {
            log::warn!("larder status, gc and pin will not find this service: {err}");
            return;
        }
    };
    let desk = Arc::new(Desk {
        housekeeper: Arc::clone(keeper),
        alarms: Arc::clone(cache.verifier.alarms()),
        machinery: Some(Machinery { cache: Arc::clone(cache), runtime: Handle::current(), auditing: Mutex::default() }),
        service: Some(Service { started: cache.clock.steady() }),
    });
    working.spawn("control", server::serve(listener, desk, Arc::clone(store), working.clone()));
}

/// Judges what could not be judged before, and keeps an eye on the checksum database's log.
pub(super) fn catch_up(cache: &Arc<Cache>, working: &Tasks) {
    working.spawn_until_stop("verification", Arc::clone(&cache.verifier).catch_up());
}

/// Reads the tree again from time to time, unless `interval` says never, and fetches again what has decayed.
pub(super) fn scrub(cache: &Arc<Cache>, (interval, rate): (Option<Duration>, u64), working: &Tasks) {
    if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
        let pace = scrub::Pace { interval, rate };
        working.spawn("scrub", scrub::keep(Arc::clone(cache), pace, working.token().clone()));
    }
}

/// Shows downloads on their way.
pub(super) fn show_progress(cache: &Arc<Cache>, bars: Option<MultiProgress>, working: &Tasks) {
    working.spawn("progress", progress::show(Arc::clone(&cache.fills), bars, working.token().clone()));
}
