//! Bounds on connections: how many, how many per client, and for how long one may make us wait.
//!
//! Owns the registry of connections and the one task that drops those that have waited too long. Called by
//! `server::serve` (admission, sweeping, drain) and by `connection`, which notes what a connection is doing; calls the
//! clock. There are no timers per request: a connection stores its phase and the second it began, the sweep compares.
//!
//! Invariants: a connection is counted from its admission until its [`Permit`] is dropped or it is evicted, once;
//! the lock is held for a walk over the connections at most, never across an await.
//! Source: issue 3 ("Who may ask": bounded connections, slow or silent clients dropped).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::clock::Clock;

/// A client has this long to send a whole request head, however it trickles.
const HEAD_S_MAX: u32 = 30;
/// A connection kept open between requests; the go command's own limit is 90 s too.
const IDLE_S_MAX: u32 = 90;
/// The same, while more than nine tenths of the connections are taken.
const IDLE_CROWDED_S_MAX: u32 = 5;
/// A client that takes no byte of its answer for so long is gone or means no good.
const WRITE_STALL_S_MAX: u32 = 60;
/// A connection that has not sent its request after this long gives way to a new one when all are taken.
const HEAD_EVICTABLE_AFTER_S: u32 = 5;

/// How many connections are served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub max_connections: usize,
    /// From one client, that is, one IP address.
    pub max_per_client: usize,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// New, or the head of a request has begun to arrive: the client's turn, and it should be quick.
    Head,
    /// Between two requests.
    Idle,
    /// The answer is being made or sent: our turn.
    Handling,
    /// The socket takes no more of the answer: the client's turn again.
    Writing,
}

impl Phase {
    fn from_bits(bits: u64) -> Self {
        match bits >> 32 {
            0 => Self::Head,
            1 => Self::Idle,
            2 => Self::Handling,
            _ => Self::Writing,
        }
    }

    fn to_bits(self) -> u64 {
        let number = match self {
            Self::Head => 0,
            Self::Idle => 1,
            Self::Handling => 2,
            Self::Writing => 3_u64,
        };
        number << 32
    }
}

/// What all connections read without taking the registry's lock.
#[derive(Debug, Default)]
struct Common {
    /// Seconds since the registry was made, moved on by the sweep; a request must not pay for reading the clock.
    now_s: AtomicU32,
    is_draining: AtomicBool,
}

/// What one connection is doing and since when; written by the connection, read by the sweep.
#[derive(Debug)]
pub(super) struct Activity {
    common: Arc<Common>,
    /// The phase and, in the lower 32 bits, the second it began.
    phase_since_s: AtomicU64,
    /// Set when the client must not take the end of the connection for the end of the answer.
    must_reset: AtomicBool,
    abort: OnceLock<AbortHandle>,
}

impl Activity {
    fn new(common: Arc<Common>) -> Self {
        let activity = Self {
            common,
            phase_since_s: AtomicU64::new(0),
            must_reset: AtomicBool::new(false),
            abort: OnceLock::new(),
        };
        activity.enter(Phase::Head);
        activity
    }

    /// Notes that `phase` begins now.
    pub(super) fn enter(&self, phase: Phase) {
        let now_s = u64::from(self.common.now_s.load(Ordering::Relaxed));
        self.phase_since_s.store(phase.to_bits() | now_s, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::from_bits(self.phase_since_s.load(Ordering::Relaxed))
    }

    /// Tells whether the server is stopping, so that this answer should be the connection's last.
    pub(super) fn is_draining(&self) -> bool {
        self.common.is_draining.load(Ordering::Relaxed)
    }

    /// Makes the connection end with a reset, which no client takes for a complete answer.
    pub(super) fn reset_on_close(&self) {
        self.must_reset.store(true, Ordering::Relaxed);
    }

    pub(super) fn must_reset(&self) -> bool {
        self.must_reset.load(Ordering::Relaxed)
    }

    /// Says how the connection's task is ended from outside.
    pub(super) fn set_abort(&self, abort: AbortHandle) {
        let _ = self.abort.set(abort);
    }

    fn abort(&self) {
        if self.phase() == Phase::Writing {
            // The kernel would otherwise go on holding the unsent bytes for a client that does not take them.
            self.reset_on_close();
        }
        if let Some(abort) = self.abort.get() {
            abort.abort();
        }
    }

    /// Returns the phase and for how many seconds it has lasted.
    fn phase_and_age_s(&self, now_s: u32) -> (Phase, u32) {
        let bits = self.phase_since_s.load(Ordering::Relaxed);
        let since_s = u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        (Phase::from_bits(bits), now_s.saturating_sub(since_s))
    }
}

/// All connections being served.
#[derive(Debug)]
pub(super) struct Registry {
    limits: ConnectionLimits,
    clock: Clock,
    started: Instant,
    common: Arc<Common>,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next_id: u64,
    by_id: HashMap<u64, Entry>,
    count_by_client: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    client: IpAddr,
    activity: Arc<Activity>,
}

/// The answer to a new connection.
#[derive(Debug)]
pub(super) enum Admission {
    /// Serve it, and keep the permit while doing so.
    Admitted(Permit),
    /// This client has all the connections one client may have.
    ClientFull,
    /// All connections are taken, and every one is at work.
    Full,
}

impl Registry {
    pub(super) fn new(limits: ConnectionLimits, clock: Clock) -> Arc<Self> {
        let started = clock.steady();
        Arc::new(Self { limits, clock, started, common: Arc::default(), connections: Mutex::default() })
    }

    /// Admits a connection of `client`, if need be in the place of one that waits for its client's next request.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr) -> Admission {
        let client = client.to_canonical();
        let mut connections = self.lock();
        let of_client = connections.count_by_client.get(&client).copied().unwrap_or(0);
        if of_client >= self.limits.max_per_client {
            return Admission::ClientFull;
        }
        if connections.by_id.len() >= self.limits.max_connections && !connections.evict_one(self.now_s()) {
            return Admission::Full;
        }
        let id = connections.next_id;
        connections.next_id += 1;
        let activity = Arc::new(Activity::new(Arc::clone(&self.common)));
        connections.by_id.insert(id, Entry { client, activity: Arc::clone(&activity) });
        *connections.count_by_client.entry(client).or_default() += 1;
        Admission::Admitted(Permit { registry: Arc::clone(self), id, activity })
    }

    /// Moves the coarse clock on and drops every connection that has waited too long.
    pub(super) fn sweep(&self) {
        let running = self.clock.steady().saturating_duration_since(self.started);
        let now_s = u32::try_from(running.as_secs()).unwrap_or(u32::MAX);
        self.common.now_s.store(now_s, Ordering::Relaxed);
        let connections = self.lock();
        let is_crowded = connections.by_id.len() * 10 > self.limits.max_connections * 9;
        for entry in connections.by_id.values() {
            let (phase, age_s) = entry.activity.phase_and_age_s(now_s);
            let limit_s = match phase {
                Phase::Head => HEAD_S_MAX,
                Phase::Idle if is_crowded => IDLE_CROWDED_S_MAX,
                Phase::Idle => IDLE_S_MAX,
                Phase::Writing => WRITE_STALL_S_MAX,
                Phase::Handling => continue,
            };
            if age_s >= limit_s {
                log::debug!(
                    "connection dropped after {age_s} s without progress client={} phase={phase:?}",
                    entry.client
                );
                entry.activity.abort();
            }
        }
    }

    /// Makes every answer from now on the last of its connection.
    pub(super) fn begin_drain(&self) {
        self.common.is_draining.store(true, Ordering::Relaxed);
    }

    /// Closes the connections that are not in the middle of a request; tells whether none is left.
    ///
    /// A request head that is on its way gets `head_grace` to arrive and be answered.
    pub(super) fn close_waiting(&self, head_grace: HeadGrace) -> bool {
        let connections = self.lock();
        for entry in connections.by_id.values() {
            let is_waiting = match entry.activity.phase() {
                Phase::Idle => true,
                Phase::Head => matches!(head_grace, HeadGrace::Over),
                Phase::Handling | Phase::Writing => false,
            };
            if is_waiting {
                entry.activity.abort();
            }
        }
        connections.by_id.is_empty()
    }

    /// Closes all connections, whatever they are doing; returns how many were in the middle of an answer.
    pub(super) fn close_all(&self) -> usize {
        let connections = self.lock();
        let mut cut = 0;
        for entry in connections.by_id.values() {
            if matches!(entry.activity.phase(), Phase::Handling | Phase::Writing) {
                cut += 1;
                entry.activity.reset_on_close();
            }
            entry.activity.abort();
        }
        cut
    }

    /// Returns how many connections there are.
    pub(super) fn count(&self) -> usize {
        self.lock().by_id.len()
    }

    fn now_s(&self) -> u32 {
        self.common.now_s.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether request heads on their way when the server stops may still arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadGrace {
    /// They may.
    Running,
    /// They had their time.
    Over,
}

impl Connections {
    /// Closes the connection that has waited longest for its client's request; tells whether there was one.
    fn evict_one(&mut self, now_s: u32) -> bool {
        let longest_waiting = self
            .by_id
            .iter()
            .filter_map(|(id, entry)| match entry.activity.phase_and_age_s(now_s) {
                (Phase::Idle, age_s) => Some((age_s, *id)),
                (Phase::Head, age_s) if age_s >= HEAD_EVICTABLE_AFTER_S => Some((age_s, *id)),
                (Phase::Head | Phase::Handling | Phase::Writing, _) => None,
            })
            .max_by_key(|(age_s, id)| (*age_s, std::cmp::Reverse(*id)));
        let Some((_, id)) = longest_waiting else { return false };
        if let Some(entry) = self.remove(id) {
            entry.activity.abort();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.by_id.remove(&id)?;
        if let Some(count) = self.count_by_client.get_mut(&entry.client) {
            *count -= 1;
            if *count == 0 {
                self.count_by_client.remove(&entry.client);
            }
        }
        Some(entry)
    }
}

/// The right to be served; dropping it makes room for another connection.
#[derive(Debug)]
pub(super) struct Permit {
    registry: Arc<Registry>,
    id: u64,
    /// What the connection is doing.
    pub(super) activity: Arc<Activity>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.registry.lock().remove(self.id);
    }
}

/// How often the sweep runs, and so how exact the limits above are.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(max_connections: usize, max_per_client: usize) -> (Clock, Arc<Registry>) {
        let clock = Clock::system();
        (clock.clone(), Registry::new(ConnectionLimits { max_connections, max_per_client }, clock))
    }

    fn admit(registry: &Arc<Registry>, client: &str) -> Option<Permit> {
        match registry.admit(client.parse().unwrap()) {
            Admission::Admitted(permit) => Some(permit),
            Admission::ClientFull | Admission::Full => None,
        }
    }

    /// Returns a permit whose task runs until it is aborted, and the handle that tells.
    fn admit_running(registry: &Arc<Registry>, client: &str) -> (Permit, AbortHandle) {
        let permit = admit(registry, client).unwrap();
        let abort = tokio_util::task::TaskTracker::new().spawn(std::future::pending::<()>()).abort_handle();
        permit.activity.set_abort(abort.clone());
        (permit, abort)
    }

    async fn is_aborted(abort: &AbortHandle) -> bool {
        tokio::task::yield_now().await;
        abort.is_finished()
    }

    /// One client cannot have more than its share, by whatever form of its address; others are still served.
    #[test]
    fn one_client_has_its_share_only() {
        let (_, registry) = registry(10, 2);
        let first = admit(&registry, "192.0.2.1").unwrap();
        let _second = admit(&registry, "::ffff:192.0.2.1").unwrap();
        assert!(matches!(registry.admit("192.0.2.1".parse().unwrap()), Admission::ClientFull));
        let _other = admit(&registry, "192.0.2.2").unwrap();
        drop(first);
        let _third = admit(&registry, "192.0.2.1").unwrap();
        assert_eq!(registry.count(), 3);
    }

    /// When all connections are taken the longest idle one makes room, and one at work never does.
    #[tokio::test]
    async fn longest_idle_makes_room() {
        let (clock, registry) = registry(3, 3);
        let (working, working_task) = admit_running(&registry, "192.0.2.1");
        let (older, older_task) = admit_running(&registry, "192.0.2.2");
        working.activity.enter(Phase::Handling);
        older.activity.enter(Phase::Idle);
        clock.advance(Duration::from_secs(3));
        registry.sweep();
        let (newer, newer_task) = admit_running(&registry, "192.0.2.3");
        newer.activity.enter(Phase::Idle);

        let (_fourth, _) = admit_running(&registry, "192.0.2.4");
        assert!(is_aborted(&older_task).await);
        assert!(!is_aborted(&newer_task).await && !is_aborted(&working_task).await);
        let (_fifth, _) = admit_running(&registry, "192.0.2.5");
        assert!(is_aborted(&newer_task).await);
        assert!(matches!(registry.admit("192.0.2.6".parse().unwrap()), Admission::Full));
        // An evicted connection has given up its place already; its permit gives up nothing more.
        drop((older, newer));
        assert_eq!(registry.count(), 3);
    }

    /// Each kind of waiting has its own limit, and work has none.
    #[tokio::test]
    async fn each_phase_has_its_limit() {
        for (phase, last_good_s, first_bad_s) in
            [(Phase::Head, 29, 31), (Phase::Idle, 89, 91), (Phase::Writing, 59, 61), (Phase::Handling, 1799, u64::MAX)]
        {
            let (clock, registry) = registry(100, 100);
            let (permit, task) = admit_running(&registry, "192.0.2.1");
            permit.activity.enter(phase);
            clock.advance(Duration::from_secs(last_good_s));
            registry.sweep();
            assert!(!is_aborted(&task).await, "{phase:?}");
            if first_bad_s < u64::MAX {
                clock.advance(Duration::from_secs(first_bad_s - last_good_s));
                registry.sweep();
                assert!(is_aborted(&task).await, "{phase:?}");
                assert_eq!(permit.activity.must_reset(), phase == Phase::Writing);
            }
        }
    }

    /// While nearly all connections are taken, idle ones are kept for a short time only.
    #[tokio::test]
    async fn idle_is_short_when_crowded() {
        let (clock, registry) = registry(1, 1);
        let (permit, task) = admit_running(&registry, "192.0.2.1");
        permit.activity.enter(Phase::Idle);
        clock.advance(Duration::from_secs(6));
        registry.sweep();
        assert!(is_aborted(&task).await);
    }
}
