//! Looks names up: in the cache, in the file of hosts, by servers or by the system; one look-up per name at a time.
//!
//! Owns [`Names`]. Called by `bootstrap` and `resolver`; calls `cache`, `hosts`, `servers` and
//! `system`. A look-up is a task of its
//! own, so that it ends for the cache and for others when whoever began it goes away.
//!
//! Invariants: where there are servers, the system's resolver is never asked; at most [`FLIGHTS_MAX`] look-ups at a time.
//! Nobody waits longer than [`WAIT_MAX`]; a look-up by the system may go on, and whoever asks for its name joins it.
//! Sources: RFC 8767 (stale answers, and how long to wait before giving one); RFC 9520 (failures).

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::net::dns::cache::{Cache, Look};
use crate::net::dns::hosts::Hosts;
use crate::net::dns::server::{Known, Late};
use crate::net::dns::servers::{LOOKUP_LIMIT, Servers};
use crate::net::dns::system::System;
use crate::shutdown::Tasks;

/// Look-ups under way at a time.
const FLIGHTS_MAX: usize = 256;
/// How long somebody waits who could have a stale answer (RFC 8767, section 5, recommends 1.8 s; people are waiting).
const STALE_AFTER: Duration = Duration::from_secs(1);
/// What is said of an address of that file.
const HOSTS: &str = "/etc/hosts";
/// How long what the file of hosts says is kept, beside watching the file.
const HOSTS_KEPT: Duration = Duration::from_secs(10);
/// How long somebody waits for a look-up: a little longer than that takes, so that it is heard what it says itself.
const WAIT_MAX: Duration = LOOKUP_LIMIT.saturating_add(Duration::from_millis(250));
/// How long somebody waits at least who comes when a look-up has been hanging for long.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// A look-up that failed after less than this may be begun again at once; one that took longer only after as long again.
const QUICK: Duration = Duration::from_secs(1);

/// Who is asked for what the file of hosts does not have.
pub(crate) enum Origin {
    /// These servers and nobody else.
    Servers(Servers),
    /// The operating system.
    System(System, Memory),
}

/// How long what the system says is remembered, which tells no TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// For the requests of one moment: more is the system's own matter.
    Moment,
    /// Longer, and beyond that while the system gives no answer.
    Long,
}

impl Memory {
    fn kept(self) -> Duration {
        match self {
            Self::Moment => Duration::from_secs(2),
            Self::Long => Duration::from_secs(30),
        }
    }
}

/// The addresses of a name, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Best first.
    pub(crate) addresses: Vec<IpAddr>,
    /// A server's name, `/etc/hosts`, `system resolver`, `cache` or `stale`.
    pub(crate) source: String,
}

/// Why there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Nothing {
    /// Somebody who should know says so.
    Absent(String),
    /// Nobody could be asked.
    Failed(String),
}

type Outcome = Result<Found, Nothing>;

/// What is waited for, and since when it is under way.
type Waiting = (watch::Receiver<Option<Outcome>>, Instant);

/// The look-ups.
pub(crate) struct Names {
    hosts: Hosts,
    origin: Origin,
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<String, Waiting>>,
    is_stale: AtomicBool,
    tasks: Tasks,
    clock: Clock,
}

impl Names {
    /// Makes one that reads the file at `hosts` and then asks `origin`.
    pub(crate) fn new(hosts: &Path, origin: Origin, tasks: Tasks, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            hosts: Hosts::new(hosts, clock.clone()),
            origin,
            cache: Mutex::default(),
            flights: Mutex::default(),
            is_stale: AtomicBool::new(false),
            tasks,
            clock,
        })
    }

    /// Returns the servers, if that is who is asked.
    pub(crate) fn servers(&self) -> Option<&Servers> {
        match &self.origin {
            Origin::Servers(servers) => Some(servers),
            Origin::System(..) => None,
        }
    }

    /// Returns the addresses of `name`.
    ///
    /// # Errors
    /// Who was asked, and what they said.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; the look-up goes on for others and for the cache.
    pub(crate) async fn lookup(self: &Arc<Self>, name: &str) -> Result<Found, String> {
        let name = self.plain(name);
        self.heed_hosts().await;
        let found = |addresses, source: &str| Ok(Found { addresses, source: source.to_owned() });
        let look = self.cache().look(&name, self.clock.steady());
        let stale = match look {
            Look::Fresh(addresses) => return found(addresses, "cache"),
            Look::Absent(text) => return Err(text),
            Look::Stale { .. } if matches!(self.origin, Origin::System(_, Memory::Moment)) => {
                return self.ask(&name).await;
            }
            Look::Stale { addresses, is_to_be_asked: false } => return found(addresses, "stale"),
            Look::Stale { addresses, is_to_be_asked: true } => addresses,
            Look::Nothing => return self.ask(&name).await,
        };
        let reason = match timeout(STALE_AFTER, self.join_or_lead(&name)).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(Nothing::Absent(text))) => return Err(text),
            Ok(Err(Nothing::Failed(text))) => text,
            Err(_) => format!("no answer within {} s", STALE_AFTER.as_secs()),
        };
        self.cache().postpone(&name, self.clock.steady());
        if !self.is_stale.swap(true, Ordering::Relaxed) {
            log::warn!(
                "no answer from the DNS in time, addresses of some time ago are used name={name} reason={reason}"
            );
        }
        found(stale, "stale")
    }

    /// Does as [`Names::lookup`], whatever is remembered.
    ///
    /// # Errors
    /// Who was asked, and what they said.
    ///
    /// # Cancel safety
    /// As that of [`Names::lookup`].
    pub(crate) async fn lookup_anew(self: &Arc<Self>, name: &str) -> Result<Found, String> {
        self.ask(&self.plain(name)).await
    }

    /// Returns a name as it is remembered. The system is left its dot, which keeps it from adding domains of its own.
    fn plain(&self, name: &str) -> String {
        let mut name = name.to_ascii_lowercase();
        if self.servers().is_some() && name.ends_with('.') {
            name.pop();
        }
        name
    }

    /// Forgets what another state of the file of hosts said, and what the present one says.
    async fn heed_hosts(&self) {
        let Some(mark) = self.hosts.change() else { return };
        let known = self.cache().names();
        let named = self.hosts.among(known).await;
        self.cache().forget_hosts(&named);
        self.hosts.note(mark);
    }

    async fn ask(self: &Arc<Self>, name: &str) -> Result<Found, String> {
        self.join_or_lead(name).await.map_err(|nothing| match nothing {
            Nothing::Absent(text) | Nothing::Failed(text) => text,
        })
    }

    /// Waits for the look-up of this name, and begins it if there is none.
    async fn join_or_lead(self: &Arc<Self>, name: &str) -> Outcome {
        let now = self.clock.steady();
        let mut led = None;
        let (mut waiting, began) = {
            let mut flights = self.flights();
            match flights.get(name) {
                Some(waiting) => waiting.clone(),
                None if flights.len() >= FLIGHTS_MAX => {
                    return Err(Nothing::Failed(format!("{name}: more than {FLIGHTS_MAX} names are being looked up")));
                }
                None => {
                    let (sender, waiting) = watch::channel(None);
                    flights.insert(name.to_owned(), (waiting.clone(), now));
                    led = Some((Flight { names: Arc::clone(self), name: name.to_owned(), began: now }, sender));
                    (waiting, now)
                }
            }
        };
        if let Some((flight, sender)) = led {
            // Not under the lock: a runtime that is ending drops the task at once, and that takes the lock.
            self.tasks.spawn_until_stop("dns look-up", flight.run(sender));
        }
        let left = WAIT_MAX.saturating_sub(now.duration_since(began)).max(WAIT_MIN);
        let Ok(outcome) = timeout(left, waiting.wait_for(Option::is_some)).await else {
            let who = if self.servers().is_some() { "" } else { "system resolver: " };
            return Err(Nothing::Failed(format!("{who}{name}: no answer within {} s", LOOKUP_LIMIT.as_secs())));
        };
        let outcome = outcome.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(Nothing::Failed(format!("{name}: the look-up ended without an outcome"))))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look-up under way; taken off the list when it is dropped, however it ends.
struct Flight {
    names: Arc<Names>,
    name: String,
    began: Instant,
}

impl Flight {
    async fn run(self, sender: watch::Sender<Option<Outcome>>) {
        let (outcome, late) = self.find().await;
        match &outcome {
            Ok(found) if found.source != HOSTS && self.names.is_stale.swap(false, Ordering::Relaxed) => {
                log::info!("the DNS answers again name={} server={}", self.name, found.source);
            }
            Err(Nothing::Failed(text)) => self.keep_failure(text),
            Ok(_) | Err(Nothing::Absent(_)) => {}
        }
        let (names, name) = (Arc::clone(&self.names), self.name.clone());
        // First off the list, then told: whoever comes now finds the cache.
        drop(self);
        sender.send_replace(Some(outcome));
        if let Some(late) = late
            && let Some((addresses, ttl_s)) = late.await
        {
            names.cache().add(&name, &addresses, Duration::from_secs(ttl_s.into()), names.clock.steady());
        }
    }

    async fn find(&self) -> (Outcome, Option<Late>) {
        let Self { names, name, .. } = self;
        let addresses = names.hosts.addresses(name).await;
        if !addresses.is_empty() {
            names.cache().keep_hosts(name, addresses.clone(), HOSTS_KEPT, names.clock.steady());
            return (Ok(Found { addresses, source: HOSTS.to_owned() }), None);
        }
        match &names.origin {
            Origin::Servers(servers) => match servers.lookup(name).await {
                Ok((Known::Found { addresses, ttl_s, late }, server)) => {
                    (Ok(self.keep(addresses, &server, Duration::from_secs(ttl_s.into()))), late)
                }
                Ok((Known::Absent { text, ttl_s }, _)) => {
                    let ttl = Duration::from_secs(ttl_s.unwrap_or(0).into());
                    names.cache().keep_absence(name, text.clone(), ttl, names.clock.steady());
                    (Err(Nothing::Absent(text)), None)
                }
                Err(text) => (Err(Nothing::Failed(text)), None),
            },
            Origin::System(system, memory) => match system.addresses(name).await {
                Ok(addresses) => (Ok(self.keep(addresses, "system resolver", memory.kept())), None),
                Err(text) => (Err(Nothing::Failed(text)), None),
            },
        }
    }

    fn keep(&self, addresses: Vec<IpAddr>, source: &str, ttl: Duration) -> Found {
        self.names.cache().keep(&self.name, addresses.clone(), ttl, self.names.clock.steady());
        Found { addresses, source: source.to_owned() }
    }

    /// Spares the next ones the same wait (RFC 9520, section 3.2): what took long to fail holds for as long again.
    fn keep_failure(&self, text: &str) {
        let now = self.names.clock.steady();
        let took = now.duration_since(self.began);
        if took >= QUICK {
            self.names.cache().keep_failure(&self.name, text.to_owned(), took.min(LOOKUP_LIMIT), now);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.names.flights().remove(&self.name);
    }
}
