//! The proxies that lead out, in order of preference, and the connections opened through them.
//!
//! Owns [`Proxies`]. Called by `resolver` and `egress`; calls `candidates`, `bootstrap`, `dial` and `tls`. What one proxy
//! does is in `proxy::server`. The first proxy is asked; when it fails or is silent, the next is asked beside it. Who is
//! out of order itself cools down; who could not help with this target does not.
//!
//! Invariants: a proxy's credentials are sent to that proxy and nowhere else; what `NO_PROXY` covers meets no proxy; a
//! name is resolved here only where an address is needed.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::check::{Check, Outcome};
use crate::clock::Clock;
use crate::net::bootstrap::Bootstrap;
use crate::net::candidates::Candidates;
use crate::net::redacted::Secret;
use crate::net::stream::Stream;
use crate::net::target::{Host, Target};
use crate::net::tls::Trust;

pub mod no_proxy;

pub use no_proxy::NoProxy;

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP: `CONNECT`, and absolute addresses for plain http.
    Http,
    /// The same inside TLS.
    Https,
    /// SOCKS version 5, given addresses: names are resolved here.
    Socks5,
    /// SOCKS version 5, given names.
    Socks5h,
}

/// One proxy as configured.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// How it is spoken to.
    pub kind: Kind,
    /// Where it is.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// User name and password, decoded.
    pub credentials: Option<(String, Secret)>,
    /// How it is called where people read it; without anything secret.
    pub name: String,
}

/// One place in the list of proxies.
#[derive(Clone, Debug)]
pub enum Entry {
    /// No proxy: `direct`.
    Direct,
    /// A proxy.
    Server(ServerConfig),
}

impl Entry {
    /// Reads `direct` or `SCHEME://[USER[:PASSWORD]@]HOST[:PORT]`; without a scheme it is an HTTP proxy, as for Go.
    ///
    /// # Errors
    /// What is wrong; the text does not repeat what was given, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let _ = text;
        Err("not built yet".to_owned())
    }
}

/// How long the steps to and through one proxy may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Finding its address and connecting to it.
    pub connect: Duration,
    /// The TLS handshake with it.
    pub tls: Duration,
    /// From the request for a tunnel to its answer.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), tls: Duration::from_secs(5), handshake: Duration::from_secs(10) }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name could not be resolved here.
    #[error("dns: {reason}")]
    Dns {
        /// The name.
        host: String,
        /// Who was asked, and what they said.
        reason: String,
    },
    /// The target did not answer, directly or through a proxy that works.
    #[error("connect: {to}: {reason}")]
    Connect {
        /// Where the connection was to lead.
        to: Target,
        /// What was said, and through whom.
        reason: String,
        /// Whether a proxy does not want to lead there, rather than having failed to.
        is_refused: bool,
    },
    /// The TLS handshake with the target failed.
    #[error("tls: {to}: {reason}")]
    Tls {
        /// With whom.
        to: Target,
        /// What went wrong, and through whom.
        reason: String,
    },
    /// The proxy itself is out of order, or does not let us in.
    #[error("proxy: {proxy}: {reason}")]
    Proxy {
        /// Its name, without anything secret.
        proxy: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The proxies, and where none is used.
pub struct Proxies {
    ways: Candidates<Entry>,
    no_proxy: NoProxy,
    bootstrap: Arc<Bootstrap>,
    limits: Limits,
    clock: Clock,
}

impl Proxies {
    /// Makes the list; nothing is connected yet. Without entries everything is reached directly.
    pub fn new(entries: Vec<Entry>, no_proxy: NoProxy, bootstrap: Arc<Bootstrap>, trust: &Trust, clock: Clock) -> Self {
        let _ = trust;
        let entries = if entries.is_empty() { vec![Entry::Direct] } else { entries };
        Self { ways: Candidates::new(entries, clock.clone()), no_proxy, bootstrap, limits: Limits::default(), clock }
    }

    /// Tells whether `to` is reached without any proxy.
    pub fn is_direct(&self, to: &Target) -> bool {
        !self.has_proxies() || self.no_proxy.covers(to)
    }

    /// Tells whether there is any proxy.
    pub fn has_proxies(&self) -> bool {
        self.ways.iter().any(|(way, _)| matches!(way, Entry::Server(_)))
    }

    /// Returns the names of the ways, in order of preference; `direct` is one of them.
    pub fn names(&self) -> Vec<String> {
        let name = |way: &Entry| match way {
            Entry::Direct => "direct".to_owned(),
            Entry::Server(server) => server.name.clone(),
        };
        self.ways.iter().map(|(way, _)| name(way)).collect()
    }

    /// Tells whether every way is a proxy that is given names, so that names of upstreams are not resolved here.
    pub fn resolves_names(&self) -> bool {
        self.ways.iter().all(|(way, _)| match way {
            Entry::Server(server) => server.kind != Kind::Socks5,
            Entry::Direct => false,
        })
    }

    /// Opens a connection to `to` through the first way that can. `resolve` is asked where an address is needed:
    /// directly, and through a `socks5` proxy.
    ///
    /// # Errors
    /// What each of those asked said.
    ///
    /// # Cancel safety
    /// Dropping the future closes every attempt, and blames nobody.
    pub async fn connect<F, A>(&self, to: &Target, resolve: F) -> Result<Stream, Error>
    where
        F: Fn(&str) -> A,
        A: Future<Output = Result<Vec<IpAddr>, String>>,
    {
        let _ = (&self.bootstrap, &self.limits, &self.clock, resolve);
        Err(Error::Connect { to: to.clone(), reason: "not built yet".to_owned(), is_refused: false })
    }

    /// Does as [`Proxies::connect`], and speaks TLS with `to`. A way that leads to no handshake is passed over.
    ///
    /// # Errors
    /// What each of those asked said.
    ///
    /// # Cancel safety
    /// Dropping the future closes every attempt, and blames nobody.
    pub async fn connect_tls<F, A>(
        &self,
        to: &Target,
        resolve: F,
        tls: &Arc<rustls::ClientConfig>,
        limit: Duration,
    ) -> Result<Stream, Error>
    where
        F: Fn(&str) -> A,
        A: Future<Output = Result<Vec<IpAddr>, String>>,
    {
        let _ = (tls, limit);
        self.connect(to, resolve).await
    }

    /// Returns what each proxy did when it was last asked.
    pub fn checks(&self) -> Vec<Check> {
        let _ = Outcome::Pass;
        Vec::new()
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("ways", &self.names()).field("no_proxy", &self.no_proxy).finish()
    }
}
