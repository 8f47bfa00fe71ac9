//! Turns host names into addresses: by the system's resolver, or by servers of the user's choice.
//!
//! Owns [`Resolver`]. Called by `egress`, `doctor` and `app`; calls `dns`, `proxy` and `bootstrap`. Invariant: once there
//! are servers, no name that is looked up here ever reaches the system's resolver.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::check::Check;
use crate::clock::Clock;
use crate::net::bootstrap::Bootstrap;
pub use crate::net::dns::{ServerConfig, Transport};
use crate::net::proxy::Proxies;
use crate::net::tls::Trust;

/// A name look-up that takes longer has failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

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
#[derive(Clone, Debug, Default)]
pub struct Resolver(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Servers(Arc<Config>),
}

impl Resolver {
    /// Returns the operating system's resolver, as every other program on the machine uses it.
    pub fn system() -> Self {
        Self::default()
    }

    /// Makes a resolver that asks the given servers and nobody else; with no servers, the system's.
    pub fn new(
        config: Config,
        _bootstrap: Arc<Bootstrap>,
        _proxies: Arc<Proxies>,
        _trust: &Trust,
        _clock: Clock,
    ) -> Self {
        if config.servers.is_empty() { Self::system() } else { Self(Source::Servers(Arc::new(config))) }
    }

    /// Tells whether this is the system's resolver.
    pub fn is_system(&self) -> bool {
        matches!(self.0, Source::System)
    }

    /// Returns the addresses of `host`, best first. A literal address is returned as it is.
    ///
    /// # Errors
    /// Who was asked, and what they said.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the look-up.
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
        let literal = name.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(Answer { addresses: vec![address], source: "literal".to_owned(), took: Duration::ZERO });
        }
        match &self.0 {
            Source::System => match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name, 0))).await {
                Ok(Ok(found)) => Ok(Answer {
                    addresses: found.map(|found| found.ip()).collect(),
                    source: "system resolver".to_owned(),
                    took: Duration::ZERO,
                }),
                Ok(Err(err)) => Err(err.to_string()),
                Err(_) => Err(format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs())),
            },
            Source::Servers(config) => Err(format!("{}: not asked yet", config.servers[0].name)),
        }
    }

    /// Returns, server by server, which way it goes, for the start-up lines; nothing for the system's resolver.
    pub fn ways(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the latest state of each server.
    pub fn checks(&self) -> Vec<Check> {
        Vec::new()
    }

    /// Asks every server itself for `name`, past the cache, and returns what each said.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the look-ups.
    pub async fn probe(&self, name: &str) -> Vec<(String, Result<Answer, String>)> {
        vec![("system resolver".to_owned(), self.lookup(name).await)]
    }
}
