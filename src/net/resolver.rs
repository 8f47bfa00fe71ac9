//! Turns host names into addresses: by the system's resolver, or by servers of the user's choice.
//!
//! Owns [`Resolver`]. Called by `egress`, `doctor` and `app`; calls `dns`, `proxy` and `bootstrap`. Invariant: once there
//! are servers, no name that is looked up here ever reaches the system's resolver.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::check::Check;
use crate::clock::Clock;
use crate::net::bootstrap::{Bootstrap, Common, HOSTS_PATH};
use crate::net::dns::Reach;
use crate::net::dns::names::{Found, Memory, Names, Origin};
use crate::net::dns::server::Server;
use crate::net::dns::servers::Servers;
pub use crate::net::dns::{ServerConfig, Transport};
use crate::net::proxy::Proxies;
use crate::net::resolver::route::{Ground, Route};
use crate::net::target::Host;
use crate::net::tls::Trust;

mod route;
#[cfg(test)]
mod tests;

/// What is said where all names are to go through proxies that resolve them.
const NO_LOOK_UP: &str = "-dns-route proxy allows no look-up without -dns";

/// Which way DNS itself goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// TCP, TLS and HTTPS through the proxies, except to servers nearby; UDP and QUIC directly.
    #[default]
    Auto,
    /// Everything through the proxies, UDP as TCP; nothing ever falls back.
    Proxy,
    /// Everything directly.
    Direct,
}

/// The servers to ask, and which way they are reached.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// In order of preference; at least one.
    pub servers: Vec<ServerConfig>,
    /// Which way they are reached.
    pub rule: Rule,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Best first, at least one.
    pub addresses: Vec<IpAddr>,
    /// Who said so: a server's name, `/etc/hosts`, `cache`, `stale`, `system resolver`, `literal`.
    pub source: String,
    /// How long it took.
    pub took: Duration,
}

/// Where names are looked up. Clones share the cache and the connections.
#[derive(Clone)]
pub struct Resolver(Arc<Parts>);

struct Parts {
    /// `None` where nobody may be asked.
    names: Option<Arc<Names>>,
    /// Of servers of the user's choice.
    ways: Vec<(ServerConfig, Arc<Route>)>,
    clock: Clock,
}

impl Resolver {
    /// Returns the operating system's resolver, as every other program on the machine uses it, but for what it says
    /// being kept for two seconds, so that the many connections of one build ask once.
    pub fn system(bootstrap: &Bootstrap) -> Self {
        Self::system_with(bootstrap.common().clone())
    }

    fn system_with(Common { tasks, system, clock }: Common) -> Self {
        let names = Names::new(Path::new(HOSTS_PATH), Origin::System(system, Memory::Moment), tasks, clock.clone());
        Self(Arc::new(Parts { names: Some(names), ways: Vec::new(), clock }))
    }

    /// Makes a resolver that asks the given servers and nobody else; with no servers, the system's, or with
    /// [`Rule::Proxy`] nobody. `trust` is whom the certificates of the servers are traced back to. The tasks are among those
    /// of `bootstrap`.
    pub fn new(config: Config, bootstrap: Arc<Bootstrap>, proxies: Arc<Proxies>, trust: &Trust, clock: Clock) -> Self {
        if config.servers.is_empty() {
            return match config.rule {
                Rule::Proxy => Self(Arc::new(Parts { names: None, ways: Vec::new(), clock })),
                Rule::Auto | Rule::Direct => Self::system(&bootstrap),
            };
        }
        let tasks = bootstrap.common().tasks.clone();
        let ground = Arc::new(Ground { rule: config.rule, bootstrap, proxies });
        let (mut ways, mut servers) = (Vec::new(), Vec::new());
        for server in config.servers {
            let route = Arc::new(Route::new(&server, Arc::clone(&ground)));
            let (transport, reach) = (route.transport(&server), Arc::clone(&route) as Arc<dyn Reach>);
            ways.push((server.clone(), route));
            servers.push(Server::new(server, transport, reach, trust, tasks.clone(), clock.clone()));
        }
        let origin = Origin::Servers(Servers::new(servers, clock.clone()));
        let names = Names::new(Path::new(HOSTS_PATH), origin, tasks, clock.clone());
        Self(Arc::new(Parts { names: Some(names), ways, clock }))
    }

    /// Tells whether this is the system's resolver.
    pub fn is_system(&self) -> bool {
        self.0.names.as_ref().is_some_and(|names| names.servers().is_none())
    }

    /// Returns the addresses of `host`, best first. A literal address is returned as it is.
    ///
    /// # Errors
    /// Who was asked, and what they said.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; the look-up goes on for others and for the cache.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let answer = self.lookup(host).await?;
        Ok(answer.addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// Returns the addresses of `name`, who gave them and how long it took.
    ///
    /// # Errors
    /// Who was asked, and what they said: `tls://192.0.2.1:853: certificate expired on …`, several joined by `; `.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; the look-up goes on for others and for the cache.
    pub async fn lookup(&self, name: &str) -> Result<Answer, String> {
        if let Host::Address(address) = Host::parse(name) {
            return Ok(Answer { addresses: vec![address], source: "literal".to_owned(), took: Duration::ZERO });
        }
        let began = self.0.clock.steady();
        let names = self.0.names.as_ref().ok_or(NO_LOOK_UP)?;
        let found = names.lookup(name).await?;
        Ok(self.answer(found, began))
    }

    fn answer(&self, Found { addresses, source }: Found, began: Instant) -> Answer {
        Answer { addresses, source, took: self.0.clock.steady().duration_since(began) }
    }

    /// Returns, server by server, which way it goes, for the start-up lines: `tls://192.0.2.1:853 through
    /// socks5://192.0.2.2:1080`, `udp://192.0.2.3:53 directly`. Nothing for the system's resolver.
    pub fn ways(&self) -> Vec<String> {
        let words = |(server, route): &(ServerConfig, Arc<Route>)| format!("{} {}", server.name, route.words(server));
        self.0.ways.iter().map(words).collect()
    }

    /// Returns what each server did when it was last asked; nothing for the system's resolver.
    pub fn checks(&self) -> Vec<Check> {
        self.0.names.as_ref().and_then(|names| names.servers()).map(Servers::checks).unwrap_or_default()
    }

    /// Asks every server itself for `name`, past the cache, and returns what each said.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the look-ups.
    pub async fn probe(&self, name: &str) -> Vec<(String, Result<Answer, String>)> {
        let Some(names) = &self.0.names else {
            return vec![("no server".to_owned(), Err(NO_LOOK_UP.to_owned()))];
        };
        let Some(servers) = names.servers() else {
            let began = self.0.clock.steady();
            let found = names.lookup_anew(name).await;
            return vec![("system resolver".to_owned(), found.map(|found| self.answer(found, began)))];
        };
        let said = servers.probe(name).await.into_iter();
        let answer = |(server, said, took): (String, Result<_, _>, _)| {
            (server.clone(), said.map(|addresses| Answer { addresses, source: server, took }))
        };
        said.map(answer).collect()
    }
}

impl Default for Resolver {
    /// Returns the operating system's resolver, with places of its own.
    fn default() -> Self {
        Self::system_with(Common::default())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").field(&self.ways()).finish()
    }
}
