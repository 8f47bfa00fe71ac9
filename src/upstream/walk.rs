//! The way along a list of upstreams, and the attempts at one of them. No I/O but the pause between two attempts.
//!
//! Called by `fill`, which asks; calls nothing. Source: Go modules reference, "GOPROXY protocol", for the separators.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::upstream::failure::Failure;
use crate::upstream::{Fallthrough, Upstream};

/// An upstream that asks to be left alone for longer than this has failed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The pause between two attempts does not double beyond this.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A walk along the upstreams for one resource.
#[derive(Debug)]
pub struct Walk {
    route: Vec<Arc<Upstream>>,
    next: usize,
    first_not_found: Option<Failure>,
    first_other: Option<Failure>,
}

impl Walk {
    pub(super) fn new(route: Vec<Arc<Upstream>>) -> Self {
        Self { route, next: 0, first_not_found: None, first_other: None }
    }

    /// Returns the next upstream to ask, or `None` at the end of the list.
    pub fn next_upstream(&mut self) -> Option<Arc<Upstream>> {
        let upstream = self.route.get(self.next).map(Arc::clone);
        self.next += 1;
        upstream
    }

    /// Notes what the upstream asked last has come to, and goes on if its separator says so.
    ///
    /// # Errors
    /// The failure itself, where the list ends with it.
    pub fn failed(&mut self, failure: Failure) -> Result<(), Failure> {
        let upstream = self.next.checked_sub(1).and_then(|at| self.route.get(at));
        let goes_on = match (&failure, upstream.map(|upstream| upstream.fallthrough)) {
            // The verdict that is missing here would be missing of another upstream's bytes as well.
            (Failure::Store(_) | Failure::Unjudged(_) | Failure::Stopped, _) | (_, None) => false,
            (
                Failure::NotFound(_)
                | Failure::Unavailable { .. }
                | Failure::Network { .. }
                | Failure::Offline { .. }
                | Failure::Mismatch { .. },
                Some(_),
            ) => true,
            (Failure::Refused { .. } | Failure::Rejected { .. } | Failure::Changed { .. }, Some(separator)) => {
                separator == Fallthrough::Pipe
            }
        };
        if !goes_on {
            return Err(failure);
        }
        self.keep(failure);
        Ok(())
    }

    /// Notes what the upstream asked last has come to, and goes on whatever its separator says, for what is no module.
    ///
    /// # Errors
    /// A failure of our own.
    pub fn passed(&mut self, failure: Failure) -> Result<(), Failure> {
        if matches!(failure, Failure::Store(_) | Failure::Stopped) {
            return Err(failure);
        }
        self.keep(failure);
        Ok(())
    }

    fn keep(&mut self, failure: Failure) {
        let kept =
            if matches!(failure, Failure::NotFound(_)) { &mut self.first_not_found } else { &mut self.first_other };
        kept.get_or_insert(failure);
    }

    /// Returns what the whole walk has come to: "not found" only if nobody said anything else.
    pub fn end(self) -> Failure {
        self.first_other.or(self.first_not_found).unwrap_or_else(|| Failure::Offline {
            upstream: Arc::from("upstream"),
            reason: "none is configured".to_owned(),
        })
    }

    /// Returns why the first upstream cannot be reached, if none of them can.
    pub(super) fn down_reason(&self) -> Option<String> {
        if !self.route.iter().all(|upstream| upstream.is_down()) {
            return None;
        }
        let first = self.route.first().and_then(|upstream| upstream.down_reason());
        Some(first.unwrap_or_else(|| "no upstream is configured".to_owned()))
    }
}

/// The attempts left at one upstream.
#[derive(Debug)]
pub struct Retry {
    attempts: u32,
    left: u32,
    first_pause: Duration,
    pause: Duration,
}

impl Retry {
    pub(super) fn new(attempts: u32, first_pause: Duration) -> Self {
        Self { attempts, left: attempts, first_pause, pause: first_pause }
    }

    /// Waits before the next attempt. Returns `false` when the attempts are spent, or `failure` is final and not, in
    /// the caller's eyes, `worth_another` attempt all the same.
    ///
    /// # Cancel safety
    /// A dropped wait still counts as an attempt.
    pub(super) async fn again(&mut self, failure: &Failure, upstream: &Upstream, worth_another: bool) -> bool {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || !(failure.is_transient() || worth_another) || upstream.is_down() {
            return false;
        }
        let jitter = self.pause.mul_f64(fastrand::f64() * 0.5);
        let pause = match failure {
            Failure::Unavailable { retry_after: Some(asked), .. } if *asked > RETRY_AFTER_MAX => return false,
            Failure::Unavailable { retry_after: Some(asked), .. } => *asked,
            Failure::NotFound(_)
            | Failure::Refused { .. }
            | Failure::Unavailable { retry_after: None, .. }
            | Failure::Network { .. }
            | Failure::Offline { .. }
            | Failure::Rejected { .. }
            | Failure::Changed { .. }
            | Failure::Mismatch { .. }
            | Failure::Unjudged(_)
            | Failure::Store(_)
            | Failure::Stopped => self.pause + jitter,
        };
        self.pause = (self.pause * 2).min(BACKOFF_MAX.max(self.first_pause));
        sleep(pause).await;
        true
    }

    /// Starts counting anew, since the last attempt has brought the download forward.
    pub fn progressed(&mut self) {
        self.left = self.attempts;
        self.pause = self.first_pause;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::upstream::Source;
    use crate::upstream::failure::NotFound;

    fn not_found() -> Failure {
        Failure::NotFound(NotFound { status: 404, body: Bytes::new(), upstream: Arc::from("a") })
    }

    fn refused() -> Failure {
        Failure::Refused { upstream: Arc::from("a"), status: 403, body: Bytes::new() }
    }

    fn unavailable() -> Failure {
        Failure::Unavailable { upstream: Arc::from("a"), status: 500, retry_after: None }
    }

    fn walk(separator: Fallthrough) -> Walk {
        let mut walk =
            Walk::new(vec![Upstream::new(Source::Off, separator), Upstream::new(Source::Off, Fallthrough::Comma)]);
        assert!(walk.next_upstream().is_some());
        walk
    }

    /// After a comma the next upstream is asked on 404 and on transient failures, and on nothing else.
    #[test]
    fn comma_goes_on_after_absence_and_trouble() {
        assert!(walk(Fallthrough::Comma).failed(not_found()).is_ok());
        assert!(walk(Fallthrough::Comma).failed(unavailable()).is_ok());
        assert!(walk(Fallthrough::Comma).failed(refused()).is_err());
    }

    /// After a pipe the next upstream is asked on any failure of an upstream, but not on one of our own.
    #[test]
    fn pipe_goes_on_after_anything() {
        assert!(walk(Fallthrough::Pipe).failed(refused()).is_ok());
        assert!(walk(Fallthrough::Pipe).failed(Failure::Stopped).is_err());
    }

    /// "Not found" needs every upstream's word; one that was in trouble outweighs any number of 404s.
    #[test]
    fn not_found_only_if_all_say_so() {
        let mut both = walk(Fallthrough::Comma);
        both.failed(not_found()).unwrap();
        both.next_upstream();
        both.failed(not_found()).unwrap();
        assert!(matches!(both.end(), Failure::NotFound(_)));
        let mut mixed = walk(Fallthrough::Comma);
        mixed.failed(not_found()).unwrap();
        mixed.next_upstream();
        mixed.failed(unavailable()).unwrap();
        assert!(matches!(mixed.end(), Failure::Unavailable { .. }));
    }
}
