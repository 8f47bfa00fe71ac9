//! The scrub: the whole tree is read again from time to time, slowly, and what has decayed is fetched again.
//!
//! Called by `root_tasks`; calls `cache::sweep`. Invariants: it goes on after a restart where it was; it begins at no
//! time that the clock does not know; a person who has the tree verified comes first.
//!
//! ```text
//! .larder/scrub       path of the last file that was judged; there only while a scrub is not finished
//! .larder/scrubbed    when the last one came to its end, in seconds since 1970
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::cache::sweep::{STAMP_FILE, STATE_FILE, Sweep, Tally, in_order};
use crate::clock::UnixSeconds;
use crate::resource::Resource;
use crate::store::scrub::Throttle;
use crate::store::{self, Store};

/// A service that has just started has other things to do than a tree that was never read.
const FIRST_PAUSE: Duration = Duration::from_secs(3600);
/// How often it is looked whether a scrub is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is written where it stands.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// After each file: a small one costs more than its bytes.
const FILE_PAUSE: Duration = Duration::from_millis(5);
/// While a person has the tree verified.
const VERIFYING_PAUSE: Duration = Duration::from_millis(200);

/// How often, and how fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From the end of one to the beginning of the next.
    pub(super) interval: Duration,
    /// Bytes a second; 0 for as many as there are.
    pub(super) rate: u64,
}

/// What the disk says of earlier scrubs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Earlier {
    finished: Option<UnixSeconds>,
    cursor: Option<Resource>,
}

/// Scrubs whenever that is due, until `stop`; then it writes down where it stands.
pub(super) async fn keep(cache: Arc<Cache>, pace: Pace, stop: CancellationToken) {
    let started = cache.clock.steady();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK_INTERVAL.min(pace.interval)) => {}
        }
        let uptime = cache.clock.steady().duration_since(started);
        // A clock that shows an impossible time may become right any moment.
        let Some(now) = cache.clock.trusted_now().filter(|_| cache.index.is_whole()) else { continue };
        let store = Arc::clone(&cache.store);
        let earlier = store::blocking(move || read(&store)).await.unwrap_or_else(|err| {
            log::warn!("{err}");
            Earlier::default()
        });
        if !is_due(&earlier, now, uptime, pace.interval) {
            continue;
        }
        let (cache, stop, runtime) = (Arc::clone(&cache), stop.clone(), Handle::current());
        let scrubbed = store::blocking(move || scrub(&cache, &runtime, pace, earlier.cursor.as_ref(), &stop));
        if let Err(err) = scrubbed.await {
            log::error!("scrub: {err}");
        }
    }
}

fn is_due(earlier: &Earlier, now: UnixSeconds, uptime: Duration, interval: Duration) -> bool {
    match earlier {
        Earlier { cursor: Some(_), .. } => true,
        // A time that has not come yet is one of a wrong clock.
        Earlier { finished: Some(finished), .. } => *finished > now || now.since(*finished) >= interval,
        Earlier { finished: None, .. } => uptime >= FIRST_PAUSE.min(interval),
    }
}

fn read(store: &Store) -> Result<Earlier, store::Error> {
    let text = |name| Ok(store.read_own(name)?.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()));
    Ok(Earlier {
        finished: text(STAMP_FILE)?.and_then(|text| text.parse().ok()).map(UnixSeconds),
        cursor: text(STATE_FILE)?.and_then(|text| Resource::parse(&text).ok()),
    })
}

/// Goes over the tree once, to its end or until `stop`. For the blocking pool.
fn scrub(
    cache: &Arc<Cache>,
    runtime: &Handle,
    pace: Pace,
    after: Option<&Resource>,
    stop: &CancellationToken,
) -> Result<(), store::Error> {
    match after {
        Some(after) => log::info!("scrub goes on after {after}"),
        None => log::info!("scrub begins: every stored file is read again"),
    }
    let (clock, is_stopping) = (&cache.clock, || stop.is_cancelled());
    let rest = |pause| std::thread::sleep(pause);
    let throttle = Throttle::new(pace.rate, clock, &rest, &is_stopping);
    let mut sweep = Sweep::new(cache, runtime, stop, &throttle, true);
    let mut saved: Instant = clock.steady();
    let mut last: Option<Resource> = None;
    for resource in in_order(&cache.store, after) {
        while cache.verifying.is_under_way() && !is_stopping() {
            rest(VERIFYING_PAUSE);
        }
        let goes_on = sweep.look_at(&resource, &mut |finding| {
            if finding.word == "unverified" {
                log::debug!("scrub: {} {}", finding.word, finding.text);
            } else {
                log::warn!("scrub: {} {}", finding.word, finding.text);
            }
        });
        if !goes_on || is_stopping() {
            if let Some(last) = &last {
                save(&cache.store, last)?;
            }
            log::info!("scrub stops and goes on at the next start: {}", figures(sweep.tally));
            return Ok(());
        }
        if clock.steady().duration_since(saved) >= SAVE_INTERVAL {
            save(&cache.store, &resource)?;
            saved = clock.steady();
        }
        last = Some(resource);
        if pace.rate > 0 {
            rest(FILE_PAUSE);
        }
    }
    cache.store.replace_own(STAMP_FILE, format!("{}\n", clock.now().0).as_bytes())?;
    cache.store.remove_own(STATE_FILE)?;
    log::info!("scrub ends: {}", figures(sweep.tally));
    Ok(())
}

fn save(store: &Store, last: &Resource) -> Result<(), store::Error> {
    store.replace_own(STATE_FILE, format!("{last}\n").as_bytes())
}

fn figures(tally: Tally) -> String {
    let Tally { files, bytes, broken, wrong, unreadable, repaired, unverified, vouched_for } = tally;
    format!(
        "files={files} bytes={bytes} broken={broken} wrong={wrong} unreadable={unreadable} repaired={repaired} \
         unverified={unverified} vouched_for={vouched_for}"
    )
}

#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    /// A scrub begins when the last one is long ago, or was never, or was interrupted; a clock that was wrong once does not
    /// put it off for ever.
    #[test]
    fn scrubs_are_due() {
        let is_due = |finished: Option<u64>, cursor: Option<&str>, uptime| {
            let cursor = cursor.map(|path| Resource::parse(path).unwrap());
            is_due(&Earlier { finished: finished.map(UnixSeconds), cursor }, NOW, Duration::from_secs(uptime), DAY)
        };
        assert!(!is_due(None, None, 3599) && is_due(None, None, 3600));
        assert!(is_due(Some(NOW.0 - 86_400), None, 1) && !is_due(Some(NOW.0 - 86_399), None, 9999));
        assert!(is_due(Some(NOW.0 + 9), None, 1));
        assert!(is_due(Some(NOW.0), Some("a.com/m/@v/list"), 1));
    }

    /// Where a scrub stands is read as it was written; what makes no sense counts as nothing.
    #[test]
    fn state_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open_root(root.path()).unwrap();
        assert_eq!(read(&store).unwrap(), Earlier::default());
        let cursor = Resource::parse("a.com/!m/@v/v1.0.0.zip").unwrap();
        save(&store, &cursor).unwrap();
        store.replace_own(STAMP_FILE, b"17\n").unwrap();
        assert_eq!(read(&store).unwrap(), Earlier { finished: Some(UnixSeconds(17)), cursor: Some(cursor) });
        std::fs::write(root.path().join(".larder/scrub"), "../x").unwrap();
        std::fs::write(root.path().join(".larder/scrubbed"), "x").unwrap();
        assert_eq!(read(&store).unwrap(), Earlier::default());
    }
}
