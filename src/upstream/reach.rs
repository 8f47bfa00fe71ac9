//! Whether an upstream can be reached, found out once and not by every request.
//!
//! An upstream is marked down when a fresh connection to it fails. From then on requests do not wait for it, while one
//! task probes it, at first after a second and then less and less often, until it answers again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::net::egress;
use crate::upstream::{Failure, Retry, Upstream, UpstreamList};

const FIRST_PROBE_AFTER: Duration = Duration::from_secs(1);
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(15);
/// A probe in the background may take as long as a request.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
/// A look that a request waits for must be shorter: it only has to tell a slow answer from a dead line.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// The state of the way to one upstream.
#[derive(Debug, Default)]
pub(super) struct Reach {
    is_down: AtomicBool,
    /// Whether a task is probing.
    is_probed: AtomicBool,
    /// Held by the one who looks into a silence.
    looking: tokio::sync::Mutex<()>,
    reason: Mutex<String>,
}

impl Reach {
    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.is_down().then(|| self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Marks the upstream as reachable; returns whether that is news.
    fn up(&self) -> bool {
        self.is_down.swap(false, Ordering::SeqCst)
    }

    fn down(&self, reason: &str) -> bool {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        !self.is_down.swap(true, Ordering::SeqCst)
    }
}

impl Upstream {
    /// Notes that the upstream has answered.
    pub(super) fn note_answer(&self) {
        if self.reach.is_down() && self.reach.up() {
            log::info!("upstream is reachable again upstream={}", self.name);
        }
    }
}

impl UpstreamList {
    /// Waits before the next attempt, as [`Retry::again`] says, and draws from a failure of the network what it says about the
    /// upstream itself. Returns whether there is a next attempt.
    ///
    /// # Cancel safety
    /// A dropped wait still counts as an attempt.
    pub async fn try_again(
        self: &Arc<Self>,
        retry: &mut Retry,
        failure: &Failure,
        upstream: &Arc<Upstream>,
        worth_another: bool,
    ) -> bool {
        if let Failure::Network { error, .. } = failure {
            self.look_into(upstream, error).await;
        }
        let again = retry.again(failure, upstream, worth_another).await;
        if let (false, Failure::Network { error, .. }) = (again, failure) {
            self.give_up(upstream, error);
        }
        again
    }

    /// Looks into a silence. One slow answer does not make an upstream unreachable, and a connection that was good can
    /// have died unnoticed, so a fresh connection decides before the request goes on: those after it need not wait.
    ///
    /// # Cancel safety
    /// The upstream counts as reachable still when the future is dropped.
    async fn look_into(self: &Arc<Self>, upstream: &Arc<Upstream>, error: &egress::Error) {
        let is_silence = matches!(error, egress::Error::HeaderTimeout(_) | egress::Error::Stalled(_));
        let Some((base, egress)) = upstream.way() else { return };
        if !is_silence {
            return;
        }
        let Ok(_turn) = upstream.reach.looking.try_lock() else {
            // Somebody is looking right now; what they find goes for all who wait.
            drop(upstream.reach.looking.lock().await);
            return;
        };
        if upstream.is_down() {
            return;
        }
        // What is asked next must not wait for the same silence once more.
        egress.abandon_connections();
        if let Err(err) = egress.probe(base, LOOK_TIMEOUT).await {
            self.note_unreachable(upstream, &err);
        }
    }

    /// Notes a failure after which the upstream is not asked again for now: if it was one of a fresh connection, others
    /// need not find out for themselves.
    fn give_up(self: &Arc<Self>, upstream: &Arc<Upstream>, error: &egress::Error) {
        if error.is_of_a_fresh_connection() {
            self.note_unreachable(upstream, error);
        }
    }

    fn note_unreachable(self: &Arc<Self>, upstream: &Arc<Upstream>, error: &egress::Error) {
        if !upstream.reach.down(&error.to_string()) {
            return;
        }
        log::warn!("upstream is out of reach, serving what is stored upstream={} reason={error}", upstream.name);
        if upstream.reach.is_probed.swap(true, Ordering::SeqCst) {
            return;
        }
        let (list, upstream) = (Arc::clone(self), Arc::clone(upstream));
        self.tasks.spawn("probe", async move {
            let token = list.tasks.token().clone();
            tokio::select! {
                () = token.cancelled() => {}
                () = list.probe_until_reached(&upstream) => {}
            }
        });
    }

    async fn probe_until_reached(&self, upstream: &Upstream) {
        let Some((base, egress)) = upstream.way() else { return };
        let mut pause = FIRST_PROBE_AFTER;
        loop {
            // Somebody's request may have got through meanwhile, and another one found it down again.
            if !upstream.reach.is_down() {
                upstream.reach.is_probed.store(false, Ordering::SeqCst);
                if !upstream.reach.is_down() || upstream.reach.is_probed.swap(true, Ordering::SeqCst) {
                    return;
                }
                pause = FIRST_PROBE_AFTER;
            }
            sleep(pause).await;
            if egress.probe(base, PROBE_TIMEOUT).await.is_ok() {
                upstream.note_answer();
            }
            pause = (pause * 2).min(PROBE_INTERVAL_MAX);
        }
    }
}
