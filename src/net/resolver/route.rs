//! Which way a DNS server of the user's choice is reached: directly or through the proxies.
//!
//! Owns [`Route`], one per server. Called by `resolver` and, as a [`Reach`], by `dns`; calls `bootstrap` and `proxy`.
//!
//! Invariant: with [`Rule::Proxy`], nothing is ever sent directly. With [`Rule::Auto`], a server whose port all the
//! proxies refuse to lead to is reached directly for a while once that has worked, and the log says so; as soon as it
//! works no more, the proxies are asked again.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::net::bootstrap::Bootstrap;
use crate::net::dns::{self, Boxed, Reach, ServerConfig, Transport};
use crate::net::proxy::{self, Proxies};
use crate::net::resolver::Rule;
use crate::net::stream::Stream;
use crate::net::target::{Host, is_local};

/// How long the TLS handshake with a server behind a proxy may take.
const TLS_LIMIT: Duration = Duration::from_millis(2500);

/// How long a connection through the proxies may take in all: less than a look-up, so that it is them who are named.
const OPEN_LIMIT: Duration = Duration::from_secs(4);

/// How long a server that the proxies refused is reached directly before they are asked again.
const FALL_BACK_FOR: Duration = Duration::from_secs(30 * 60);

/// Where a server's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Directly,
    Through,
    /// There is no way that the rule allows; why.
    Nowhere(&'static str),
}

/// What all routes have in common.
pub(super) struct Ground {
    pub(super) rule: Rule,
    pub(super) bootstrap: Arc<Bootstrap>,
    pub(super) proxies: Arc<Proxies>,
}

/// The way to one server.
pub(super) struct Route {
    path: Path,
    /// Until when the server is reached directly though it should not be.
    fallen_back_until: Mutex<Option<Instant>>,
    ground: Arc<Ground>,
}

impl Route {
    /// Decides the way to `server`.
    pub(super) fn new(server: &ServerConfig, ground: Arc<Ground>) -> Self {
        let proxies = &ground.proxies;
        let path = match ground.rule {
            Rule::Direct => Path::Directly,
            Rule::Auto => match server.transport {
                Transport::Udp | Transport::Quic => Path::Directly,
                Transport::Tcp | Transport::Tls | Transport::Https
                    if is_near(&server.host) || proxies.is_direct(&server.target()) =>
                {
                    Path::Directly
                }
                Transport::Tcp | Transport::Tls | Transport::Https => Path::Through,
            },
            Rule::Proxy if server.transport == Transport::Quic => Path::Nowhere("QUIC cannot go through a proxy"),
            Rule::Proxy if !proxies.has_proxies() => Path::Nowhere("it is to go through a proxy, but there is none"),
            Rule::Proxy if proxies.is_direct(&server.target()) => {
                Path::Nowhere("it is to go through a proxy, but NO_PROXY exempts it")
            }
            Rule::Proxy => Path::Through,
        };
        Self { path, fallen_back_until: Mutex::default(), ground }
    }

    /// Returns how the server is spoken to on this way.
    pub(super) fn transport(&self, server: &ServerConfig) -> Transport {
        match (self.path(), server.transport) {
            (Path::Through | Path::Nowhere(_), Transport::Udp) => Transport::Tcp,
            (_, transport) => transport,
        }
    }

    /// Returns the way in words: `directly`, `through socks5://192.0.2.1:1080`.
    pub(super) fn words(&self, server: &ServerConfig) -> String {
        match self.path() {
            Path::Directly => "directly".to_owned(),
            Path::Through => {
                let over_tcp = if server.transport == Transport::Udp { "over TCP " } else { "" };
                format!("{over_tcp}through {}", self.ground.proxies.names().join(", else "))
            }
            Path::Nowhere(why) => format!("not at all: {why}"),
        }
    }

    fn path(&self) -> Path {
        if self.has_fallen_back() { Path::Directly } else { self.path }
    }

    fn fallen_back_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.fallen_back_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_fallen_back(&self) -> bool {
        let until = *self.fallen_back_until();
        until.is_some_and(|until| self.ground.proxies.now() < until)
    }

    /// Opens a connection to a server on the way it is reached now without a proxy.
    async fn open_past(&self, server: &ServerConfig, tls: Option<&Arc<ClientConfig>>) -> Result<Stream, String> {
        let opened = self.open_directly(server, tls).await;
        if opened.is_err() && self.fallen_back_until().take().is_some() {
            log::warn!(
                "dns server is asked through the proxies again, since it cannot be reached directly dns={}",
                server.name
            );
        }
        opened
    }

    /// Opens a connection past the proxies, which have refused with `reason`.
    async fn fall_back(
        &self,
        server: &ServerConfig,
        tls: Option<&Arc<ClientConfig>>,
        reason: String,
    ) -> Result<Stream, String> {
        match self.open_directly(server, tls).await {
            Ok(stream) => {
                let until = self.ground.proxies.now() + FALL_BACK_FOR;
                if self.fallen_back_until().replace(until).is_none() {
                    log::warn!("dns server is asked directly from now on dns={} reason={reason}", server.name);
                }
                Ok(stream)
            }
            Err(direct) => Err(format!("{reason}; directly: {direct}")),
        }
    }

    async fn open_directly(&self, server: &ServerConfig, tls: Option<&Arc<ClientConfig>>) -> Result<Stream, String> {
        let addresses = self.ground.bootstrap.addresses(&server.host).await?;
        dns::open_directly(&addresses, server, tls).await
    }

    async fn open_through(&self, server: &ServerConfig, tls: Option<&Arc<ClientConfig>>) -> Result<Stream, String> {
        let target = server.target();
        let resolve = |name: &str| {
            let (bootstrap, host) = (Arc::clone(&self.ground.bootstrap), Host::parse(name));
            async move { bootstrap.addresses(&host).await }
        };
        let tls_with_limit = tls.map(|tls| (tls, TLS_LIMIT));
        let opened = self.ground.proxies.connect_within(&target, resolve, tls_with_limit, OPEN_LIMIT).await;
        match opened {
            Ok(stream) => {
                *self.fallen_back_until() = None;
                Ok(stream)
            }
            Err(proxy::Error::Connect { reason, is_refused: true, .. }) if self.ground.rule == Rule::Auto => {
                self.fall_back(server, tls, reason).await
            }
            Err(proxy::Error::Proxy { proxy, reason }) => Err(format!("proxy: {proxy}: {reason}")),
            Err(
                proxy::Error::Dns { reason, .. }
                | proxy::Error::Connect { reason, .. }
                | proxy::Error::Tls { reason, .. },
            ) => Err(reason),
        }
    }
}

impl Reach for Route {
    fn addresses<'a>(&'a self, server: &'a ServerConfig) -> Boxed<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            match self.path() {
                Path::Directly => self.ground.bootstrap.addresses(&server.host).await,
                Path::Through => Err("datagrams cannot go through a proxy".to_owned()),
                Path::Nowhere(why) => Err(why.to_owned()),
            }
        })
    }

    fn open<'a>(
        &'a self,
        server: &'a ServerConfig,
        tls: Option<&'a Arc<ClientConfig>>,
    ) -> Boxed<'a, Result<Stream, String>> {
        Box::pin(async move {
            match self.path() {
                Path::Directly => self.open_past(server, tls).await,
                Path::Through => self.open_through(server, tls).await,
                Path::Nowhere(why) => Err(why.to_owned()),
            }
        })
    }
}

/// Tells whether a server is on this machine or in a network of the user's own, where no proxy leads.
fn is_near(host: &Host) -> bool {
    match host {
        Host::Address(address) => is_local(*address),
        Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
    }
}
