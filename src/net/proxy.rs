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
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderValue;
use tokio::sync::OnceCell;

use crate::check::{Check, Outcome};
use crate::clock::Clock;
use crate::net::bootstrap::Bootstrap;
use crate::net::candidates::{Candidates, Last, Miss};
use crate::net::dial;
use crate::net::stream::Stream;
use crate::net::target::{Host, Target};
use crate::net::tls::{self, Trust};

mod connect;
mod entry;
mod error;
pub mod no_proxy;
mod server;
mod socks;

pub use entry::{Entry, Kind, ServerConfig};
pub use error::Error;
use error::together;
pub use no_proxy::NoProxy;
use server::Server;

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

/// One place in the list, at work.
enum Way {
    Direct,
    Server(Box<Server>),
}

/// What a connection through a proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It leads to the target.
    Tunnel,
    /// Requests for plain http are given to the proxy itself, if it is one for HTTP; the others lead to the target. The
    /// way of this index is asked first.
    Requests(usize),
}

/// A TLS handshake to do, and its limit.
type Finish<'a> = Option<(&'a Arc<rustls::ClientConfig>, Duration)>;

/// The proxies, and where none is used.
pub struct Proxies {
    ways: Candidates<Way>,
    is_any: bool,
    bootstrap: Arc<Bootstrap>,
    no_proxy: NoProxy,
    limits: Limits,
    clock: Clock,
}

impl Proxies {
    /// Makes the list; nothing is connected yet. Without entries everything is reached directly.
    pub fn new(entries: Vec<Entry>, no_proxy: NoProxy, bootstrap: Arc<Bootstrap>, trust: &Trust, clock: Clock) -> Self {
        let limits = Limits::default();
        let entries = if entries.is_empty() { vec![Entry::Direct] } else { entries };
        let is_any = entries.iter().any(|entry| matches!(entry, Entry::Server(_)));
        let ways = entries.into_iter().map(|entry| match entry {
            Entry::Direct => Way::Direct,
            Entry::Server(config) => Way::Server(Box::new(Server::new(config, Arc::clone(&bootstrap), trust, limits))),
        });
        Self { ways: Candidates::new(ways, clock.clone()), is_any, bootstrap, no_proxy, limits, clock }
    }

    /// Tells whether `to` is reached without any proxy.
    pub fn is_direct(&self, to: &Target) -> bool {
        !self.is_any || self.no_proxy.covers(to)
    }

    /// Tells whether there is any proxy.
    pub fn has_proxies(&self) -> bool {
        self.is_any
    }

    /// Returns where the names of the proxies are looked up.
    pub fn bootstrap(&self) -> &Arc<Bootstrap> {
        &self.bootstrap
    }

    /// Returns the list as it was configured.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |way: &Way| match way {
            Way::Direct => Entry::Direct,
            Way::Server(server) => Entry::Server(server.config.clone()),
        };
        self.ways.iter().map(|(way, _)| entry(way)).collect()
    }

    /// Returns the names of the ways, in order of preference; `direct` is one of them.
    pub fn names(&self) -> Vec<String> {
        self.ways.iter().map(|(way, _)| way.name().to_owned()).collect()
    }

    /// Tells whether every way is a proxy that is given names, so that names of upstreams are not resolved here.
    pub fn resolves_names(&self) -> bool {
        self.ways.iter().all(|(way, _)| !way.needs_addresses())
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
        F: Fn(&str) -> A + Sync,
        A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
    {
        self.open(to, resolve, Use::Tunnel, None).await.map(|(_, stream)| stream)
    }

    /// Does as [`Proxies::connect`], and speaks TLS with `to`. A way that leads to no handshake is passed over: some
    /// proxies promise a tunnel before they have one.
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
        F: Fn(&str) -> A + Sync,
        A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
    {
        self.open(to, resolve, Use::Tunnel, Some((tls, limit))).await.map(|(_, stream)| stream)
    }

    /// Opens a connection for requests for plain http at `to`, if possible by `way`. Returns which way it goes: if that
    /// one [`takes requests`](Self::takes_requests), the connection leads to the proxy, otherwise to `to`.
    pub(super) async fn connect_for_requests<F, A>(
        &self,
        way: usize,
        to: &Target,
        resolve: F,
    ) -> Result<(usize, Stream), Error>
    where
        F: Fn(&str) -> A + Sync,
        A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
    {
        self.open(to, resolve, Use::Requests(way), None).await
    }

    /// Returns the number of ways.
    pub(super) fn count(&self) -> usize {
        self.ways.iter().count()
    }

    /// Returns the way that is to be used first right now.
    pub(super) fn preferred(&self) -> usize {
        self.ways.preferred()
    }

    /// Tells whether this way is an HTTP proxy, which is given requests for plain http whole.
    pub(super) fn takes_requests(&self, way: usize) -> bool {
        matches!(self.ways.item(way), Way::Server(server) if server.is_http())
    }

    /// Returns what proves to an HTTP proxy who asks.
    pub(super) fn authorization(&self, way: usize) -> Option<&HeaderValue> {
        match self.ways.item(way) {
            Way::Server(server) => server.authorization.as_ref(),
            Way::Direct => None,
        }
    }

    /// Notes that a proxy has refused a request for plain http because of who asks; returns the error that says so.
    pub(super) fn note_not_let_in(&self, way: usize, said: &str) -> Error {
        match self.ways.item(way) {
            Way::Server(server) => {
                let error = server.dead(server::not_let_in(server.authorization.is_some(), said));
                server.is_closed_to_us.store(true, Ordering::Relaxed);
                self.ways.note_dead(way, Duration::ZERO, error.to_string());
                self.tell_changes();
                error
            }
            Way::Direct => Error::Proxy { proxy: "direct".to_owned(), reason: said.to_owned() },
        }
    }

    /// Notes that a proxy has taken a request for plain http.
    pub(super) fn note_let_in(&self, way: usize) {
        let Way::Server(server) = self.ways.item(way) else { return };
        if server.is_closed_to_us.load(Ordering::Relaxed) {
            server.is_closed_to_us.store(false, Ordering::Relaxed);
            self.tell_changes();
        }
    }

    /// Returns the error of a proxy that could not do what a request for plain http asks; it is well itself.
    pub(super) fn could_not_reach(&self, way: usize, to: &Target, said: &str) -> Error {
        let reason = format!("through {}: {said}", self.ways.item(way).name());
        self.ways.note_unable(way, Duration::ZERO, reason.clone());
        Error::Connect { to: to.clone(), reason, is_refused: false }
    }

    /// Returns the way to be used next, those left out that have been tried.
    pub(super) fn next(&self, tried: &[usize]) -> Option<usize> {
        self.ways.order().into_iter().find(|way| !tried.contains(way))
    }

    /// Returns how long a connection may take at most, as far as anybody should wait for it.
    pub(super) fn connect_limit(&self) -> Duration {
        // A tunnel has to be asked for besides.
        if self.is_any { self.limits.connect + self.limits.handshake } else { self.limits.connect }
    }

    async fn open<F, A>(
        &self,
        to: &Target,
        resolve: F,
        purpose: Use,
        finish: Finish<'_>,
    ) -> Result<(usize, Stream), Error>
    where
        F: Fn(&str) -> A + Sync,
        A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
    {
        let found: OnceCell<Result<Vec<IpAddr>, String>> = OnceCell::new();
        let (found, resolve) = (&found, &resolve);
        let look_up = || async move {
            let ask = || async move {
                match &to.host {
                    Host::Address(address) => Ok(vec![*address]),
                    Host::Name(name) => resolve(name).await,
                }
            };
            let addresses = found.get_or_init(ask).await;
            addresses.clone().map_err(|reason| Error::Dns { host: to.host.to_string(), reason })
        };
        if self.is_direct(to) {
            let stream = self.direct(to, look_up().await?, finish).await?;
            return Ok((0, stream));
        }
        // A slow look-up is nothing a proxy is to be blamed for, so it is not part of the race if the first needs it.
        let mut order = self.ways.order();
        if let Use::Requests(way) = purpose {
            // The sort is stable.
            order.sort_by_key(|other| *other != way);
        }
        if order.first().is_some_and(|first| self.ways.item(*first).needs_addresses()) {
            let looked_up = look_up().await;
            if self.ways.iter().all(|(way, _)| way.needs_addresses()) {
                looked_up?;
            }
            // Looking it up may have shown which proxies are dead.
            if purpose == Use::Tunnel {
                order = self.ways.order();
            }
        }
        // Boxed, since the compiler does not see through to `Send` otherwise.
        let asked = self.ways.first_in(order, |index, sign| -> BoxFuture<'_, Result<Stream, Miss<Error>>> {
            Box::pin(async move {
                match self.ways.item(index) {
                    Way::Direct => {
                        let addresses = look_up().await.map_err(Miss::Unable)?;
                        sign.give();
                        self.direct(to, addresses, finish).await.map_err(Miss::Unable)
                    }
                    Way::Server(server) if purpose != Use::Tunnel && server.is_http() => server.reach(&sign).await,
                    Way::Server(server) => {
                        let addresses = match server.config.kind {
                            Kind::Socks5 => look_up().await.map_err(Miss::Unable)?,
                            Kind::Http | Kind::Https | Kind::Socks5h => Vec::new(),
                        };
                        let stream = server.tunnel(to, &addresses, &sign).await?;
                        let Some((tls, limit)) = finish else { return Ok(stream) };
                        sign.give();
                        tls::handshake(tls, &to.host, stream, limit).await.map_err(|reason| {
                            let reason = format!("through {}: {reason}", server.config.name);
                            Miss::Unable(Error::Tls { to: to.clone(), reason })
                        })
                    }
                }
            })
        });
        let result = asked.await;
        self.tell_changes();
        result.map_err(|misses| together(misses.into_iter().map(|(_, error)| error).collect(), to))
    }

    async fn direct(&self, to: &Target, addresses: Vec<IpAddr>, finish: Finish<'_>) -> Result<Stream, Error> {
        let addresses: Vec<_> = addresses.into_iter().map(|ip| SocketAddr::new(ip, to.port)).collect();
        let connected = dial::connect(&addresses, self.limits.connect).await;
        let stream = Stream::Plain(connected.map_err(|err| Error::Connect {
            to: to.clone(),
            reason: err.to_string(),
            is_refused: false,
        })?);
        let Some((tls, limit)) = finish else { return Ok(stream) };
        let spoken = tls::handshake(tls, &to.host, stream, limit).await;
        spoken.map_err(|reason| Error::Tls { to: to.clone(), reason })
    }

    /// Tells the log which proxies have failed, or work again.
    fn tell_changes(&self) {
        for (way, last) in self.ways.iter() {
            let (Way::Server(server), Some(last)) = (way, last) else { continue };
            // One that can be connected to has not let us in yet.
            let is_dead = last.is_dead || server.is_closed_to_us.load(Ordering::Relaxed);
            if server.is_known_dead.swap(is_dead, Ordering::Relaxed) == is_dead {
                continue;
            }
            match last.failure {
                Some(reason) if is_dead => {
                    log::warn!("proxy is out of order proxy={} reason={reason}", server.config.name);
                }
                Some(_) | None => log::info!("proxy works again proxy={}", server.config.name),
            }
        }
    }

    /// Returns what each proxy did when it was last asked.
    pub fn checks(&self) -> Vec<Check> {
        let now = self.clock.steady();
        let check = |(way, last): (&Way, Option<Last>)| {
            let Way::Server(server) = way else { return None };
            let name = server.config.name.clone();
            let Some(last) = last else { return Some(Check::new("proxy", name, Outcome::Skip, "not used yet")) };
            let mut check = match last.failure {
                None => Check::new("proxy", name, Outcome::Pass, "works"),
                Some(text) if last.is_dead => Check::new("proxy", name, Outcome::Fail, text),
                Some(text) => Check::new("proxy", name, Outcome::Warn, text),
            };
            check.took = Some(last.took);
            check.age = Some(now.duration_since(last.at));
            Some(check)
        };
        self.ways.iter().filter_map(check).collect()
    }
}

impl Way {
    fn name(&self) -> &str {
        match self {
            Self::Direct => "direct",
            Self::Server(server) => &server.config.name,
        }
    }

    fn needs_addresses(&self) -> bool {
        match self {
            Self::Direct => true,
            Self::Server(server) => server.config.kind == Kind::Socks5,
        }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("ways", &self.names()).field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
