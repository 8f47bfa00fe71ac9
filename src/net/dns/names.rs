//! Looks names up: in the cache, in the file of hosts, by servers or by the system; one look-up per name at a time.
//!
//! Owns [`Names`]. Called by `bootstrap` and `resolver`; calls `cache`, `hosts` and `servers`. A look-up is a task of its
//! own, so that it ends for the cache and for others when whoever began it goes away.
//!
//! Invariants: where there are servers, the system's resolver is never asked; at most [`FLIGHTS_MAX`] look-ups at a time.
//! Source: RFC 8767 (stale answers, and how long to wait before giving one).

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::net::dns::cache::{Cache, Look};
use crate::net::dns::hosts::Hosts;
use crate::net::dns::server::{Known, Late};
use crate::net::dns::servers::{LOOKUP_LIMIT, Servers};
use crate::shutdown::Tasks;

/// Look-ups under way at a time.
const FLIGHTS_MAX: usize = 256;
/// How long somebody waits who could have a stale answer (RFC 8767, section 5, recommends 1.8 s; people are waiting).
const STALE_AFTER: Duration = Duration::from_secs(1);
/// How long what the file of hosts says is kept, beside watching the file.
const HOSTS_KEPT: Duration = Duration::from_secs(10);
/// How long what the system says is kept, which tells no TTL.
const SYSTEM_KEPT: Duration = Duration::from_secs(30);

/// Who is asked for what the file of hosts does not have.
pub(crate) enum Origin {
    /// These servers and nobody else.
    Servers(Servers),
    /// The operating system.
    System,
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

/// The look-ups.
pub(crate) struct Names {
    hosts: Hosts,
    origin: Origin,
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<String, watch::Receiver<Option<Outcome>>>>,
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
            Origin::System => None,
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
        let mut name = name.to_ascii_lowercase();
        if name.ends_with('.') {
            name.pop();
        }
        if self.hosts.is_changed() {
            self.cache().clear();
        }
        let found = |addresses, source: &str| Ok(Found { addresses, source: source.to_owned() });
        let look = self.cache().look(&name, self.clock.steady());
        let stale = match look {
            Look::Fresh(addresses) => return found(addresses, "cache"),
            Look::Absent(text) => return Err(text),
            Look::Stale { addresses, is_to_be_asked: false } => return found(addresses, "stale"),
            Look::Stale { addresses, is_to_be_asked: true } => addresses,
            Look::Nothing => {
                return self.join_or_lead(&name).await.map_err(|nothing| match nothing {
                    Nothing::Absent(text) | Nothing::Failed(text) => text,
                });
            }
        };
        let reason = match timeout(STALE_AFTER, self.join_or_lead(&name)).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(Nothing::Absent(text))) => return Err(text),
            Ok(Err(Nothing::Failed(text))) => text,
            Err(_) => format!("no answer within {} s", STALE_AFTER.as_secs()),
        };
        self.cache().postpone(&name, self.clock.steady());
        if !self.is_stale.swap(true, Ordering::Relaxed) {
            log::warn!("dns: nobody can be asked, addresses of some time ago are used: {name}: {reason}");
        }
        found(stale, "stale")
    }

    /// Waits for the look-up of this name, and begins it if there is none.
    async fn join_or_lead(self: &Arc<Self>, name: &str) -> Outcome {
        let mut waiting = {
            let mut flights = self.flights();
            match flights.get(name) {
                Some(waiting) => waiting.clone(),
                None if flights.len() >= FLIGHTS_MAX => {
                    return Err(Nothing::Failed(format!("{name}: more than {FLIGHTS_MAX} names are being looked up")));
                }
                None => {
                    let (sender, waiting) = watch::channel(None);
                    flights.insert(name.to_owned(), waiting.clone());
                    let flight = Flight { names: Arc::clone(self), name: name.to_owned() };
                    self.tasks.spawn("dns look-up", flight.run(sender));
                    waiting
                }
            }
        };
        let outcome = waiting.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(Nothing::Failed(format!("{name}: the look-up ended without an outcome"))))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<Outcome>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look-up under way; taken off the list when it is dropped, however it ends.
struct Flight {
    names: Arc<Names>,
    name: String,
}

impl Flight {
    async fn run(self, sender: watch::Sender<Option<Outcome>>) {
        let (outcome, late) = self.find().await;
        if outcome.is_ok() && self.names.is_stale.swap(false, Ordering::Relaxed) {
            log::info!("dns: names are looked up again");
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
        let Self { names, name } = self;
        let addresses = names.hosts.addresses(name).await;
        if !addresses.is_empty() {
            return (Ok(self.keep(addresses, "/etc/hosts", HOSTS_KEPT)), None);
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
            Origin::System => match ask_system(name).await {
                Ok(addresses) => (Ok(self.keep(addresses, "system resolver", SYSTEM_KEPT)), None),
                Err(text) => (Err(Nothing::Failed(text)), None),
            },
        }
    }

    fn keep(&self, addresses: Vec<IpAddr>, source: &str, ttl: Duration) -> Found {
        self.names.cache().keep(&self.name, addresses.clone(), ttl, self.names.clock.steady());
        Found { addresses, source: source.to_owned() }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.names.flights().remove(&self.name);
    }
}

/// Asks the operating system's resolver.
///
/// # Errors
/// What it said, or that it did not answer in time.
///
/// # Cancel safety
/// Dropping the future leaves the system's look-up to end by itself.
pub(crate) async fn ask_system(name: &str) -> Result<Vec<IpAddr>, String> {
    let failed = |reason: &str| format!("system resolver: {name}: {reason}");
    let found = match timeout(LOOKUP_LIMIT, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => found,
        Ok(Err(err)) => {
            let text = err.to_string();
            let words = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
            return Err(failed(&words.to_ascii_lowercase()));
        }
        Err(_) => return Err(failed(&format!("no answer within {} s", LOOKUP_LIMIT.as_secs()))),
    };
    let mut addresses = Vec::new();
    for address in found.map(|address| address.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    // The system has sorted them already, by RFC 6724.
    if addresses.is_empty() { Err(failed("the name has no address")) } else { Ok(addresses) }
}
