//! Work that several want at the same time and that is done once: whoever comes while it is under way gets its outcome.
//!
//! Called by `database`; calls nothing. The work runs as a task of its own, so that nobody's going away ends it. Bound:
//! so many at a time. A task that dies leaves its followers without an outcome, never waiting.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::shutdown::Tasks;

/// More than this do not run at once.
const FLIGHTS_MAX: usize = 1024;

/// What is under way, by what it is about.
pub(super) struct Flights<K, V> {
    running: Mutex<HashMap<K, watch::Receiver<Option<V>>>>,
    tasks: Tasks,
}

/// Takes the flight out of the table, however its task ends.
struct Landing<K: Clone + Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K: Clone + Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(tasks: Tasks) -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), tasks })
    }

    /// Returns the outcome of the flight about `key`, which begins with `work` if there is none. `None` if too many are
    /// under way, or Larder stops.
    ///
    /// # Cancel safety
    /// The flight goes on when the future is dropped.
    pub(super) async fn join<F>(self: &Arc<Self>, key: &K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut outcome = self.begin(key, work)?;
        let landed = outcome.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }

    /// Begins the flight about `key` if there is none, without waiting for it.
    pub(super) fn begin<F>(self: &Arc<Self>, key: &K, work: impl FnOnce() -> F) -> Option<watch::Receiver<Option<V>>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = running.get(key) {
            return Some(outcome.clone());
        }
        if running.len() >= FLIGHTS_MAX || self.tasks.token().is_cancelled() {
            return None;
        }
        let (sender, outcome) = watch::channel(None);
        running.insert(key.clone(), outcome.clone());
        drop(running);
        let landing = Landing { flights: Arc::clone(self), key: key.clone() };
        let work = work();
        self.tasks.spawn_until_stop("flight", async move {
            // Taken out of the table before the outcome is told, so that who asks afterwards asks anew.
            let value = work.await;
            drop(landing);
            sender.send_replace(Some(value));
        });
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Two who ask at the same time get one outcome, one who asks later a new one, and a dead flight keeps nobody.
    #[tokio::test]
    async fn one_flight_at_a_time() {
        let flights = Flights::new(Tasks::new());
        let count = Arc::new(AtomicUsize::new(0));
        let work = || {
            let count = Arc::clone(&count);
            move || async move {
                tokio::task::yield_now().await;
                count.fetch_add(1, Ordering::SeqCst)
            }
        };
        let (one, other) = tokio::join!(flights.join(&"a", work()), flights.join(&"a", work()));
        assert_eq!((one, other), (Some(0), Some(0)));
        assert_eq!(flights.join(&"a", work()).await, Some(1));
        let dead: Arc<Flights<&str, usize>> = Flights::new(Tasks::new());
        assert_eq!(dead.join(&"b", || async { panic!("it dies") }).await, None);
        assert!(dead.running.lock().unwrap().is_empty());
    }
}
