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
use crate::net::dns::names::{Found, Memory, Names, Origin};
use crate::net::dns::server::Server;
use crate::net::dns::servers::Servers;
use crate::net::dns::system::System;
use crate::net::dns::{self, Boxed, Reach, ServerConfig};
use crate::net::stream::Stream;
use crate::net::target::Host;
use crate::net::tls::Trust;
use crate::shutdown::Tasks;

/// Where the system keeps names of its own.
pub(crate) const HOSTS_PATH: &str = "/etc/hosts";
/// Names whose last addresses are remembered for the log.
const LOGGED_MAX: usize = 256;

/// What all look-ups of the program have in common.
#[derive(Clone)]
pub(crate) struct Common {
    /// Where their tasks belong.
    pub(crate) tasks: Tasks,
    /// The system's resolver, with the places there are for all.
    pub(crate) system: System,
    /// Their time.
    pub(crate) clock: Clock,
}

/// Where the names of DNS servers and proxies are looked up.
pub struct Bootstrap {
    names: Arc<Names>,
    common: Common,
    logged: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Bootstrap {
    /// Makes one that asks the given servers, always directly; with none, the system's resolver. The hosts of `servers`
    /// are literal addresses. Its tasks, and those of every resolver that is made with it, are among `tasks`.
    pub fn new(servers: Vec<ServerConfig>, trust: &Trust, tasks: Tasks, clock: Clock) -> Self {
        let common = Common { tasks: tasks.clone(), system: System::new(), clock: clock.clone() };
        let make = |config: ServerConfig| {
            let transport = config.transport;
            Server::new(config, transport, Arc::new(ByAddress), trust, tasks.clone(), clock.clone())
        };
        let origin = if servers.is_empty() {
            Origin::System(common.system.clone(), Memory::Long)
        } else {
            Origin::Servers(Servers::new(servers.into_iter().map(make).collect(), clock.clone()))
        };
        Self { names: Names::new(Path::new(HOSTS_PATH), origin, tasks, clock), common, logged: Mutex::default() }
    }

    /// Returns what resolvers share with it.
    pub(crate) fn common(&self) -> &Common {
        &self.common
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
        let shown = found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        log::info!("name of a DNS server or proxy found name={name} addresses={shown} server={}", found.source);
        logged.insert(name.to_owned(), addresses);
    }
}

impl Default for Common {
    fn default() -> Self {
        Self { tasks: Tasks::new(), system: System::new(), clock: Clock::system() }
    }
}

impl Default for Bootstrap {
    /// Makes one that asks the system.
    fn default() -> Self {
        let common = Common::default();
        let Common { tasks, system, clock } = common.clone();
        let names = Names::new(Path::new(HOSTS_PATH), Origin::System(system, Memory::Long), tasks, clock);
        Self { names, common, logged: Mutex::default() }
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
