//! Whether an upstream can be reached, found out once and not by every request.
//!
//! An upstream is marked down when a fresh connection to it fails. From then on requests do not wait for it, while one
//! task probes it, at first after a second and then less and less often, until it answers again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::net::egress;
use crate::upstream::{Source, Upstream, UpstreamList};

const FIRST_PROBE_AFTER: Duration = Duration::from_secs(1);
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(15);

/// The state of the way to one upstream.
#[derive(Debug, Default)]
pub(super) struct Reach {
    is_down: AtomicBool,
    is_probed: AtomicBool,
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
        self.is_down.swap(false, Ordering::Relaxed)
    }

    fn down(&self, reason: &str) -> bool {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        !self.is_down.swap(true, Ordering::Relaxed)
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
    /// Notes a failure of the network. One on a fresh connection counts at once when `is_final`; silence on an old
    /// connection is looked into first, since one slow answer does not make an upstream unreachable.
    pub fn note_failure(self: &Arc<Self>, upstream: &Arc<Upstream>, error: &egress::Error, is_final: bool) {
        let is_certain = match error {
            egress::Error::Dns { .. } | egress::Error::Connect { .. } | egress::Error::Tls { .. } => is_final,
            egress::Error::HeaderTimeout(_) | egress::Error::Stalled(_) => false,
            egress::Error::Ended(_) | egress::Error::Redirect(_) => return,
        };
        let is_doubtful = matches!(error, egress::Error::HeaderTimeout(_) | egress::Error::Stalled(_));
        if is_certain && upstream.reach.down(&error.to_string()) {
            log::warn!("upstream is out of reach, serving what is stored upstream={} reason={error}", upstream.name);
        }
        if (is_certain || is_doubtful) && !upstream.reach.is_probed.swap(true, Ordering::Relaxed) {
            let (list, upstream) = (Arc::clone(self), Arc::clone(upstream));
            self.tasks.spawn("probe", async move {
                let token = list.tasks.token().clone();
                tokio::select! {
                    () = token.cancelled() => {}
                    () = list.probe_until_reached(&upstream) => {}
                }
                upstream.reach.is_probed.store(false, Ordering::Relaxed);
            });
        }
    }

    async fn probe_until_reached(&self, upstream: &Upstream) {
        let Source::Http { base, .. } = &upstream.source else { return };
        let mut pause = FIRST_PROBE_AFTER;
        if upstream.reach.is_down() {
            sleep(pause).await;
        }
        loop {
            match self.egress.probe(base).await {
                Ok(()) => return upstream.note_answer(),
                Err(err) => {
                    if upstream.reach.down(&err.to_string()) {
                        log::warn!(
                            "upstream is out of reach, serving what is stored upstream={} reason={err}",
                            upstream.name
                        );
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PROBE_INTERVAL_MAX);
        }
    }
}
