//! The HTTP client for upstreams.
//!
//! Called by `upstream`; uses `proxy`, `resolver` and `tls`. Owns the pools of connections, the limits on time and the
//! redirects. reqwest is not used here because it takes no connector of ours, has one figure for connecting and TLS,
//! and sends custom headers on to other hosts after a redirect.
//!
//! https and everything direct goes over one pool: what a proxy has to do with it is over when its tunnel stands.
//! Requests for plain http are given to an HTTP proxy whole, with what proves to it who asks, so each way has a pool of
//! its own for them.
//!
//! Invariants: credentials go to the origin they were given for and nowhere else, there not after a redirect has led away
//! from it, and a proxy's to that proxy; a redirect never leads from https to plain http; every wait has a limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use url::Url;

use crate::net::proxy::Proxies;
use crate::net::resolver::Resolver;
use crate::net::target::{Host, Target};
use crate::net::tls::Trust;

mod connector;
mod error;
mod forward;
mod response;

use connector::Connector;
pub use error::Error;
use error::innermost;
pub use response::{Response, ResponseBody};

/// At most this many redirects are followed, as the go command does.
const REDIRECTS_MAX: usize = 10;
/// Idle connections kept for each host.
const IDLE_PER_HOST_MAX: usize = 10;
/// A connection unused for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Receive window of one HTTP/2 stream: enough for 20 MB/s at 50 ms.
const H2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// After so much silence on an HTTP/2 connection in use the other side is asked whether it is there, and has so long to
/// answer. Together less than an answer or a stalled body is waited for, so that the next attempt is not made over a
/// connection that died unnoticed.
const H2_PING_AFTER: Duration = Duration::from_secs(8);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(6);

/// How long the steps of one request may take.
#[derive(Clone, Debug)]
pub struct Config {
    /// The TLS handshake.
    pub tls_timeout: Duration,
    /// From the request to the end of the answer's head.
    pub header_timeout: Duration,
    /// Between two pieces of a body.
    pub stall_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tls_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// A header that proves who asks; sent to one origin only.
#[derive(Clone)]
pub struct Credentials {
    name: HeaderName,
    value: HeaderValue,
}

impl Credentials {
    /// Makes credentials sent in the header `name`. The value is marked sensitive, so that nothing prints it.
    ///
    /// # Errors
    /// A value or name that cannot stand in a header; the text does not repeat it.
    pub fn header(name: &str, value: &str) -> Result<Self, &'static str> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "not a header name")?;
        let mut value = HeaderValue::from_str(value).map_err(|_| "not a header value")?;
        value.set_sensitive(true);
        Ok(Self { name, value })
    }

    /// Makes credentials sent in the `Authorization` header.
    ///
    /// # Errors
    /// As [`Credentials::header`].
    pub fn authorization(value: &str) -> Result<Self, &'static str> {
        Self::header(AUTHORIZATION.as_str(), value)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}: …)", self.name)
    }
}

/// Which way requests go. Clones share it.
#[derive(Clone, Debug)]
pub struct Route {
    /// The proxies, if any.
    pub proxies: Arc<Proxies>,
    /// Where names are looked up.
    pub resolver: Resolver,
}

type Pool = Client<Connector, Empty<Bytes>>;

/// The client. Clones share its connections.
#[derive(Clone)]
pub struct Egress(Arc<Parts>);

struct Parts {
    pools: Mutex<Arc<Pools>>,
    connector: Connector,
    config: Config,
    /// Whether ways that were well a moment ago are asked one at a time, since they are taken to be so still.
    trusts_ways: bool,
}

struct Pools {
    all: Pool,
    /// For plain http where there are proxies: the connections of each way.
    of_ways: Vec<Pool>,
}

impl Pools {
    fn new(connector: &Connector) -> Self {
        let proxies = &connector.route.proxies;
        let ways = if proxies.has_proxies() { proxies.count() } else { 0 };
        let of_ways = (0..ways).map(|way| pool(connector.for_requests(way))).collect();
        Self { all: pool(connector.clone()), of_ways }
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("route", &self.0.connector.route).finish_non_exhaustive()
    }
}

impl Egress {
    /// Makes a client that goes out by `route` and believes those that `trust` vouches for.
    pub fn new(config: Config, route: Route, trust: &Trust) -> Self {
        let tls = trust.client(&[b"h2", b"http/1.1"]);
        let connector = Connector { tls, route, tls_timeout: config.tls_timeout, way: None };
        Self::with(config, connector, true)
    }

    fn with(config: Config, connector: Connector, trusts_ways: bool) -> Self {
        let pools = Mutex::new(Arc::new(Pools::new(&connector)));
        Self(Arc::new(Parts { pools, connector, config, trusts_ways }))
    }

    /// Returns which way requests go.
    pub fn route(&self) -> &Route {
        &self.0.connector.route
    }

    /// Asks for `url` and returns the answer's head, after redirects.
    ///
    /// `headers` go to every host on the way; `credentials` only to `url`'s own origin.
    ///
    /// # Errors
    /// The step that failed. An HTTP status is not an error here.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        credentials: Option<&Credentials>,
    ) -> Result<Response, Error> {
        // Each hop has its limits, and all of them together no more than one request.
        self.get_within(url, headers, credentials, self.answer_limit()).await
    }

    async fn get_within(
        &self,
        url: &Url,
        headers: &HeaderMap,
        credentials: Option<&Credentials>,
        limit: Duration,
    ) -> Result<Response, Error> {
        let first = self.get_once(url, headers, credentials).await?;
        if !is_redirect(first.status) {
            return Ok(first);
        }
        match timeout(limit, self.follow(url, first, headers, credentials)).await {
            Ok(followed) => followed,
            Err(_) => Err(Error::Elsewhere {
                host: "other places".to_owned(),
                reason: format!("no answer within {} s in all", limit.as_secs()),
            }),
        }
    }

    /// Follows the redirects that begin with `answer`, that of `url`, to the answer that is none.
    async fn follow(
        &self,
        url: &Url,
        mut answer: Response,
        headers: &HeaderMap,
        credentials: Option<&Credentials>,
    ) -> Result<Response, Error> {
        let mut at = url.clone();
        let mut credentials = credentials;
        for _ in 0..REDIRECTS_MAX {
            at = redirected(&at, &answer.headers)?;
            // Whoever comes back was sent by a stranger, to a path of the stranger's choice.
            credentials = credentials.filter(|_| at.origin() == url.origin());
            answer = self.get_once(&at, headers, credentials).await.map_err(|err| {
                // The upstream itself can be reached: where it sent us is not its own state.
                Error::Elsewhere { host: at.host_str().unwrap_or_default().to_owned(), reason: err.to_string() }
            })?;
            if !is_redirect(answer.status) {
                return Ok(answer);
            }
        }
        Err(Error::Redirect(format!("more than {REDIRECTS_MAX} in a row")))
    }

    /// Returns how long a request may take from its beginning to the end of the answer's head.
    fn answer_limit(&self) -> Duration {
        // The steps of connecting have limits of their own; this one is mostly about silence on a connection that is
        // open already.
        self.0.connector.route.proxies.connect_limit(false) + self.0.config.header_timeout
    }

    /// Finds out within `limit`, over a connection of its own, whether anything answers at `url`; any HTTP answer will
    /// do. No proxy is taken to be well.
    ///
    /// # Errors
    /// The step that failed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn probe(&self, url: &Url, limit: Duration) -> Result<(), Error> {
        let fresh = Self::with(self.0.config.clone(), self.0.connector.clone(), false);
        let asked = timeout(limit, fresh.get_once(url, &HeaderMap::new(), None)).await;
        asked.map_err(|_| Error::HeaderTimeout(limit))?.map(|_| ())
    }

    async fn get_once(
        &self,
        url: &Url,
        headers: &HeaderMap,
        credentials: Option<&Credentials>,
    ) -> Result<Response, Error> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(url.as_str())
            .body(Empty::new())
            .map_err(|err| Error::Redirect(format!("bad address: {err}")))?;
        let sent = request.headers_mut();
        sent.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        sent.insert(USER_AGENT, HeaderValue::from_static(concat!("larder/", env!("CARGO_PKG_VERSION"))));
        // Bytes are stored and relayed as they are, so no transfer compression may be applied to them.
        sent.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(credentials) = credentials {
            sent.insert(credentials.name.clone(), credentials.value.clone());
        }
        let pools = self.pools();
        if url.scheme() == "http" && self.0.connector.route.proxies.has_proxies() {
            let host = Host::parse(url.host_str().unwrap_or_default());
            let to = Target { host, port: url.port_or_known_default().unwrap_or(80) };
            if !self.0.connector.route.proxies.is_direct(&to) {
                return self.send_by_a_way(&pools, &request, &to).await;
            }
        }
        self.send(&pools.all, request, self.answer_limit()).await
    }

    async fn send(&self, pool: &Pool, request: Request<Empty<Bytes>>, limit: Duration) -> Result<Response, Error> {
        let answer = timeout(limit, pool.request(request))
            .await
            .map_err(|_| Error::HeaderTimeout(limit))?
            .map_err(|err| classify(&err))?;
        let (head, incoming) = answer.into_parts();
        let body = ResponseBody { incoming, stall_timeout: self.0.config.stall_timeout };
        Ok(Response { status: head.status, headers: head.headers, body })
    }

    /// Leaves the connections there are to those who use them: what is asked from now on gets new ones. For when one of
    /// them is silent and may have died unnoticed.
    pub fn abandon_connections(&self) {
        let fresh = Arc::new(Pools::new(&self.0.connector));
        *self.0.pools.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn pools(&self) -> Arc<Pools> {
        Arc::clone(&self.0.pools.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn pool(connector: Connector) -> Pool {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .http2_keep_alive_interval(H2_PING_AFTER)
        .http2_keep_alive_timeout(H2_PING_TIMEOUT)
        .build(connector)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns where an answer from `at` redirects to. A name and password in that address are left out: they are not ours to
/// send, and would be shown.
fn redirected(at: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    let Some(location) = headers.get(LOCATION) else {
        return Err(Error::Redirect("no Location header".to_owned()));
    };
    // Some write names of files as they are.
    let location = std::str::from_utf8(location.as_bytes())
        .map_err(|_| Error::Redirect("bad Location header: neither ASCII nor UTF-8".to_owned()))?;
    let mut next = at.join(location).map_err(|err| Error::Redirect(format!("bad Location header: {err}")))?;
    if at.scheme() == "https" && next.scheme() != "https" {
        return Err(Error::Redirect(format!("from https to {}", next.scheme())));
    }
    if !matches!(next.scheme(), "http" | "https") {
        return Err(Error::Redirect(format!("to {}:", next.scheme())));
    }
    // Both fail only for addresses that cannot hold any.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Ok(next)
}

fn classify(err: &ClientError) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(err);
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return ours.clone();
        }
        cause = inner.source();
    }
    Error::Ended(innermost(err))
}

#[cfg(test)]
mod tests;
