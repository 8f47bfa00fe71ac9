//! Finds the addresses of DNS servers and proxies, which cannot be looked up through themselves.
//!
//! Owns [`Bootstrap`]. Called by `proxy` and `resolver`; calls `dns`. The order: a literal address, `/etc/hosts`, the
//! servers of `-dns-bootstrap`, and only if there are none the system's resolver. It always goes directly. What was
//! found is kept for its time to live, and used beyond that while nobody can be asked; each change is logged.
//!
//! Invariant: with servers of its own, it never asks the system's resolver.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;

use crate::clock::Clock;
use crate::net::dns::names::{Found, Names, Origin};
use crate::net::dns::server::Server;
use crate::net::dns::servers::Servers;
use crate::net::dns::{self, Boxed, Reach, ServerConfig};
use crate::net::stream::Stream;
use crate::net::target::Host;
use crate::net::tls::Trust;
use crate::shutdown::Tasks;

/// Where the system keeps names of its own.
pub(crate) const HOSTS_PATH: &str = "/etc/hosts";
/// Names whose last addresses are remembered for the log.
const LOGGED_MAX: usize = 256;

/// Where the names of DNS servers and proxies are looked up.
pub struct Bootstrap {
    names: Arc<Names>,
    logged: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Bootstrap {
    /// Makes one that asks the given servers, always directly; with none, the system's resolver. The hosts of `servers`
    /// are literal addresses.
    pub fn new(servers: Vec<ServerConfig>, trust: &Trust, clock: Clock) -> Self {
        let tasks = Tasks::new();
        let make = |config: ServerConfig| {
            let transport = config.transport;
            Server::new(config, transport, Arc::new(ByAddress), trust, tasks.clone(), clock.clone())
        };
        let origin = if servers.is_empty() {
            Origin::System
        } else {
            Origin::Servers(Servers::new(servers.into_iter().map(make).collect(), clock.clone()))
        };
        Self { names: Names::new(Path::new(HOSTS_PATH), origin, tasks, clock), logged: Mutex::default() }
    }

    /// Returns the addresses of `host`, best first, at least one.
    ///
    /// # Errors
    /// Who was asked, and what they said.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; the look-up goes on for others.
    pub async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, String> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let found = self.names.lookup(name).await?;
        self.tell_change(name, &found);
        Ok(found.addresses)
    }

    /// Tells whether the system's resolver is asked for what `/etc/hosts` does not have.
    pub fn is_system(&self) -> bool {
        self.names.servers().is_none()
    }

    fn tell_change(&self, name: &str, found: &Found) {
        if found.source == "cache" {
            return;
        }
        let mut addresses = found.addresses.clone();
        addresses.sort_unstable();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(name) == Some(&addresses) || (logged.len() >= LOGGED_MAX && !logged.contains_key(name)) {
            return;
        }
        let shown = found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        log::info!("bootstrap: {name} is {shown}, by {}", found.source);
        logged.insert(name.to_owned(), addresses);
    }
}

impl Default for Bootstrap {
    /// Makes one that asks the system.
    fn default() -> Self {
        let clock = Clock::system();
        let names = Names::new(Path::new(HOSTS_PATH), Origin::System, Tasks::new(), clock);
        Self { names, logged: Mutex::default() }
    }
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap").field("is_system", &self.is_system()).finish_non_exhaustive()
    }
}

/// Reaches servers that are given by their addresses.
struct ByAddress;

impl ByAddress {
    fn address(server: &ServerConfig) -> Result<Vec<IpAddr>, String> {
        match server.host {
            Host::Address(address) => Ok(vec![address]),
            Host::Name(_) => Err("a server that looks up names of servers is given by its address".to_owned()),
        }
    }
}

impl Reach for ByAddress {
    fn addresses<'a>(&'a self, server: &'a ServerConfig) -> Boxed<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async { Self::address(server) })
    }

    fn open<'a>(
        &'a self,
        server: &'a ServerConfig,
        tls: Option<&'a Arc<ClientConfig>>,
    ) -> Boxed<'a, Result<Stream, String>> {
        Box::pin(async move { dns::open_directly(&Self::address(server)?, server, tls).await })
    }
}
