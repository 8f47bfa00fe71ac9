//! The stop signal, and the tasks that hear it.
//!
//! Every task of Larder is spawned through [`Tasks`], so that a stop can wait for each of them by name and nothing
//! runs on unseen. Called by everything that runs in the background; calls nothing of ours.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The running tasks and the token that asks them to stop. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Tasks {
    /// Makes an empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` as a task of its own. A panic ends that one task and is logged with its name.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(future);
        self.tracker.spawn(async move {
            if let Err(err) = task.await
                && err.is_panic()
            {
                log::error!("task {name} panicked: this is a bug, please report it");
            }
        });
    }

    /// Returns the token that is cancelled when Larder stops.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Asks every task to stop and waits for them, at most for `deadline`. Returns whether all have ended.
    ///
    /// # Cancel safety
    /// The tasks have been asked even if the wait is dropped.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stop waits for tasks that heed the token, and gives up on those that do not.
    #[tokio::test(start_paused = true)]
    async fn stop_waits_within_its_deadline() {
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        tasks.spawn("heeds", async move { token.cancelled().await });
        assert!(tasks.stop(Duration::from_secs(1)).await);
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        assert!(!tasks.stop(Duration::from_secs(1)).await);
    }
}
