//! Tracked tasks, the signal that stops them and the deadline by which they have ended.
//!
//! Owns the only place that spawns tasks. Called by `app.rs` for root tasks and by the server for connections; calls
//! nothing of Larder's own.

use std::future::Future;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one part of the program, and the signal that asks them to end. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Tasks {
    /// Makes an empty group whose signal has not been given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task and counts it until it has ended; `name` is for the log.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        log::trace!("task starts task={name}");
        self.tracker.spawn(future).abort_handle()
    }

    /// Does as [`Tasks::spawn`] for a task that has nothing to put in order: it is dropped when the signal is given.
    pub fn spawn_until_stop<F>(&self, name: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.token.clone();
        self.spawn(name, async move { stop.run_until_cancelled_owned(future).await.unwrap_or_default() })
    }

    /// Returns the signal that asks the tasks to end.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Gives the signal and waits until all tasks have ended or `deadline` has passed; tells whether they ended.
    ///
    /// # Cancel safety
    /// The signal stays given; waiting can be started again.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stop waits for tasks that heed the signal, and gives up on those that do not.
    #[tokio::test]
    async fn drain_waits_within_its_deadline() {
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        tasks.spawn("heeds", async move { token.cancelled().await });
        assert!(tasks.drain(Duration::from_secs(5)).await);
        let tasks = Tasks::new();
        tasks.spawn_until_stop("dropped", std::future::pending());
        assert!(tasks.drain(Duration::from_secs(5)).await);
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        assert!(!tasks.drain(Duration::from_millis(20)).await);
    }
}
