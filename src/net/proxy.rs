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
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::check::{Check, Outcome};
use crate::clock::Clock;
use crate::net::bootstrap::Bootstrap;
use crate::net::candidates::{Candidates, Last, Miss, Sign};
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
    /// Requests for plain http are given to the proxy itself, if it is one for HTTP; the others lead to the target.
    Requests,
}

/// One that has done what it should so recently is taken to be well.
const PROVEN_FOR: Duration = Duration::from_secs(10);

/// A TLS handshake to do, and its limit.
type Finish<'a> = Option<(&'a Arc<rustls::ClientConfig>, Duration)>;

/// What a look-up came to.
type Found = Result<Vec<IpAddr>, String>;

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
    /// Dropping the future closes every attempt, and blames those who were silent for long.
    pub async fn connect<F, A>(&self, to: &Target, resolve: F) -> Result<Stream, Error>
    where
        F: Fn(&str) -> A + Sync,
        A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
    {
        self.open(to, &resolve, None).await
    }

    /// Does as [`Proxies::connect`], and speaks TLS with `to`. A way that leads to no handshake is passed over: some
    /// proxies promise a tunnel before they have one.
    ///
    /// # Errors
    /// What each of those asked said.
    ///
    /// # Cancel safety
    /// Dropping the future closes every attempt, and blames those who were silent for long.
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
        self.open(to, &resolve, Some((tls, limit))).await
    }

    /// Does as [`Proxies::connect`], or with `tls` as [`Proxies::connect_tls`], within `limit` in all. When that has
    /// passed, the error names the proxy that was silent.
    ///
    /// # Errors
    /// What each of those asked said.
    ///
    /// # Cancel safety
    /// Dropping the future closes every attempt.
    pub async fn connect_within<F, A>(
        &self,
        to: &Target,
        resolve: F,
        tls: Finish<'_>,
        limit: Duration,
    ) -> Result<Stream, Error>
    where
        F: Fn(&str) -> A + Sync,
        A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
    {
        let began = self.clock.steady();
        if let Ok(opened) = timeout(limit, self.open(to, &resolve, tls)).await {
            return opened;
        }
        self.tell_changes();
        let silent = self.ways.iter().find_map(|(way, last)| {
            let last = last.filter(|last| last.is_dead && last.at >= began)?;
            Some(Error::Proxy { proxy: way.name().to_owned(), reason: last.failure? })
        });
        Err(silent.unwrap_or_else(|| Error::Connect {
            to: to.clone(),
            reason: format!("no connection through {} within {} s", self.names().join(", else "), limit.as_secs_f32()),
            is_refused: false,
        }))
    }

    /// Opens a connection for requests for plain http at `to` by this `way` and no other. It leads to the proxy if that
    /// [`takes requests`](Self::takes_requests), otherwise to `to`.
    pub(super) async fn connect_by<F, A>(&self, way: usize, to: &Target, resolve: F) -> Result<Stream, Error>
    where
        F: Fn(&str) -> A + Sync,
        A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
    {
        let sign = Sign::new(self.clock.clone());
        let opened = self.open_by(way, Use::Requests, to, &resolve, &OnceCell::new(), None, &sign).await;
        opened.map_err(Miss::into_inner)
    }

    /// Returns the first good answer that `ask` gives for a way, the ways being asked in order; one left out.
    ///
    /// # Errors
    /// What was wrong with each of those asked.
    pub(super) async fn first<R, E, F, A>(&self, without: Option<usize>, ask: F) -> Result<R, Vec<E>>
    where
        E: fmt::Display,
        F: Fn(usize) -> A,
        A: Future<Output = Result<R, Miss<E>>>,
    {
        let order = self.ways.order().into_iter().filter(|way| Some(*way) != without).collect();
        let asked = self.ways.first_in(order, |way, sign| {
            // Its first word is the target's answer, which may take long.
            sign.spare();
            ask(way)
        });
        let asked = asked.await;
        self.tell_changes();
        asked.map(|(_, answer)| answer).map_err(|misses| misses.into_iter().map(|(_, error)| error).collect())
    }

    /// Notes what came of asking one way alone.
    pub(super) fn note<R, E: fmt::Display>(&self, way: usize, took: Duration, result: &Result<R, Miss<E>>) {
        match result {
            Ok(_) => return self.ways.note_good(way, took),
            Err(Miss::Dead(error)) => {
                self.ways.note_dead(way, took, error.to_string());
            }
            Err(Miss::Unable(error)) => self.ways.note_unable(way, took, error.to_string()),
        }
        self.tell_changes();
    }

    /// Tells whether this way has just been found to be well.
    pub(super) fn is_proven(&self, way: usize) -> bool {
        self.ways.is_proven(way, PROVEN_FOR)
    }

    /// Tells whether this way needs addresses.
    pub(super) fn needs_addresses(&self, way: usize) -> bool {
        self.ways.item(way).needs_addresses()
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

    /// Returns the error of a proxy that did not let a request for plain http in.
    pub(super) fn not_let_in(&self, way: usize, said: &str) -> Error {
        self.broken(way, server::not_let_in(self.authorization(way).is_some(), said))
    }

    /// Returns the error of a proxy that is out of order.
    pub(super) fn broken(&self, way: usize, reason: impl Into<String>) -> Error {
        Error::Proxy { proxy: self.ways.item(way).name().to_owned(), reason: reason.into() }
    }

    /// Returns the name of this way, without anything secret.
    pub(super) fn name(&self, way: usize) -> String {
        self.ways.item(way).name().to_owned()
    }

    /// Returns the time by the clock that the proxies are timed with.
    pub(super) fn now(&self) -> Instant {
        self.clock.steady()
    }

    /// Returns how long a connection may take at most, as far as anybody should wait for it; `to_proxy` says that it ends
    /// at one.
    pub(super) fn connect_limit(&self, to_proxy: bool) -> Duration {
        // A tunnel has to be asked for besides.
        let tunnel = if self.is_any && !to_proxy { self.limits.handshake } else { Duration::ZERO };
        self.limits.connect + tunnel
    }

    async fn open<F, A>(&self, to: &Target, resolve: &F, finish: Finish<'_>) -> Result<Stream, Error>
    where
        F: Fn(&str) -> A + Sync,
        A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
    {
        let found = &OnceCell::new();
        if self.is_direct(to) {
            return self.direct(to, look_up(to, resolve, found).await?, finish).await;
        }
        // A slow look-up is nothing a proxy is to be blamed for, so it is not part of the race if the first needs it.
        if self.needs_addresses(self.preferred()) {
            let looked_up = look_up(to, resolve, found).await;
            if self.ways.iter().all(|(way, _)| way.needs_addresses()) {
                looked_up?;
            }
        }
        // Boxed, since the compiler does not see through to `Send` otherwise.
        let asked = self.ways.first_in(self.ways.order(), |way, sign| -> BoxFuture<'_, Result<Stream, Miss<Error>>> {
            Box::pin(async move { self.open_by(way, Use::Tunnel, to, resolve, found, finish, &sign).await })
        });
        let result = asked.await;
        self.tell_changes();
        result
            .map(|(_, stream)| stream)
            .map_err(|misses| together(misses.into_iter().map(|(_, error)| error).collect(), to))
    }

    #[expect(clippy::too_many_arguments, reason = "what one attempt is about, spelled out at its two callers")]
    async fn open_by<F, A>(
        &self,
        way: usize,
        purpose: Use,
        to: &Target,
        resolve: &F,
        found: &OnceCell<Found>,
        finish: Finish<'_>,
        sign: &Sign,
    ) -> Result<Stream, Miss<Error>>
    where
        F: Fn(&str) -> A + Sync,
        A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
    {
        let server = match self.ways.item(way) {
            Way::Direct => {
                let addresses = sign.waiting_for(look_up(to, resolve, found)).await.map_err(Miss::Unable)?;
                return self.direct(to, addresses, finish).await.map_err(Miss::Unable);
            }
            Way::Server(server) if purpose == Use::Requests && server.is_http() => return server.reach(sign).await,
            Way::Server(server) => server,
        };
        let addresses = match server.config.kind {
            Kind::Socks5 => sign.waiting_for(look_up(to, resolve, found)).await.map_err(Miss::Unable)?,
            Kind::Http | Kind::Https | Kind::Socks5h => Vec::new(),
        };
        let stream = server.tunnel(to, &addresses, sign).await?;
        let Some((tls, limit)) = finish else { return Ok(stream) };
        sign.give();
        tls::handshake(tls, &to.host, stream, limit).await.map_err(|reason| {
            let reason = format!("through {}: {reason}", server.config.name);
            Miss::Unable(Error::Tls { to: to.clone(), reason })
        })
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
            if server.is_known_dead.swap(last.is_dead, Ordering::Relaxed) == last.is_dead {
                continue;
            }
            match last.failure {
                Some(reason) if last.is_dead => {
                    log::warn!(
                        "proxy is out of order proxy={} reason={}",
                        server.config.name,
                        without_name(&reason, &server.config.name)
                    );
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

/// Returns the reason of an error of this proxy without what says again whose it is.
fn without_name<'a>(reason: &'a str, name: &str) -> &'a str {
    let rest = reason.strip_prefix("proxy: ").and_then(|rest| rest.strip_prefix(name)?.strip_prefix(": "));
    rest.unwrap_or(reason)
}

/// Looks up the target's addresses, once for all ways.
async fn look_up<F, A>(to: &Target, resolve: &F, found: &OnceCell<Found>) -> Result<Vec<IpAddr>, Error>
where
    F: Fn(&str) -> A + Sync,
    A: Future<Output = Result<Vec<IpAddr>, String>> + Send,
{
    let ask = || async move {
        match &to.host {
            Host::Address(address) => Ok(vec![*address]),
            Host::Name(name) => resolve(name).await,
        }
    };
    let addresses = found.get_or_init(ask).await;
    addresses.clone().map_err(|reason| Error::Dns { host: to.host.to_string(), reason })
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
