//! The HTTP client for upstreams.
//!
//! Called by `upstream`; uses `resolver` and `dial`. Owns the pool of connections, TLS, the limits on time and the
//! redirects. reqwest is not used here because it takes no connector of ours, has one figure for connecting and TLS,
//! and sends custom headers on to other hosts after a redirect.
//!
//! Invariants: credentials go to the origin they were given for and nowhere else; a redirect never leads from https to
//! plain http; every wait has a limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use url::Url;

use crate::net::proxy::Proxies;
use crate::net::resolver::Resolver;
use crate::net::tls::Trust;

mod connector;

use connector::Connector;

/// At most this many redirects are followed, as the go command does.
const REDIRECTS_MAX: usize = 10;
/// Idle connections kept for each host.
const IDLE_PER_HOST_MAX: usize = 10;
/// A connection unused for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Receive window of one HTTP/2 stream: enough for 20 MB/s at 50 ms.
const H2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// How long the steps of one request may take.
#[derive(Clone, Debug)]
pub struct Config {
    /// From the first SYN to a connection.
    pub connect_timeout: Duration,
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
            connect_timeout: Duration::from_secs(5),
            tls_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// What went wrong on the way out, by the step that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The name could not be resolved.
    #[error("dns: {reason}")]
    Dns {
        /// The name asked for.
        host: String,
        /// Who was asked, and what they said.
        reason: String,
    },
    /// The proxy is out of order, or does not let us in.
    #[error("proxy: {proxy}: {reason}")]
    Proxy {
        /// Its name, without anything secret.
        proxy: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection to any address.
    #[error("connect: {host}: {reason}")]
    Connect {
        /// Host and port.
        host: String,
        /// The system's words.
        reason: String,
    },
    /// The TLS handshake failed.
    #[error("tls: {host}: {reason}")]
    Tls {
        /// Host and port.
        host: String,
        /// What rustls said.
        reason: String,
    },
    /// The answer's head did not come in time.
    #[error("no answer within {} s", .0.as_secs())]
    HeaderTimeout(Duration),
    /// The body stopped coming.
    #[error("no byte for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The body kept coming, but not fast enough to end.
    #[error("not done after {} s", .0.as_secs())]
    TooSlow(Duration),
    /// The connection broke.
    #[error("connection ended early: {0}")]
    Ended(String),
    /// The host that a redirect led to did not answer well.
    #[error("redirected to {host}: {reason}")]
    Elsewhere {
        /// That host.
        host: String,
        /// The step that failed there.
        reason: String,
    },
    /// A redirect that cannot be followed.
    #[error("redirect: {0}")]
    Redirect(String),
}

impl Error {
    /// Returns whether the network, not one answer, is to blame: the sign of an uplink that is gone.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Dns { .. }
            | Self::Proxy { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::HeaderTimeout(_) => true,
            Self::Stalled(_) | Self::TooSlow(_) | Self::Ended(_) | Self::Elsewhere { .. } | Self::Redirect(_) => false,
        }
    }

    /// Returns whether a new connection could not be made, so that trying another one soon is of no use.
    pub fn is_of_a_fresh_connection(&self) -> bool {
        match self {
            Self::Dns { .. } | Self::Proxy { .. } | Self::Connect { .. } | Self::Tls { .. } => true,
            Self::HeaderTimeout(_)
            | Self::Stalled(_)
            | Self::TooSlow(_)
            | Self::Ended(_)
            | Self::Elsewhere { .. }
            | Self::Redirect(_) => false,
        }
    }

    /// Returns the error's token of RFC 9209.
    pub fn token(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns_error",
            Self::Proxy { .. } => "destination_ip_unroutable",
            Self::Connect { .. } | Self::Elsewhere { .. } => "destination_unavailable",
            Self::Tls { .. } => "tls_protocol_error",
            Self::HeaderTimeout(_) => "http_response_timeout",
            Self::Stalled(_) | Self::TooSlow(_) => "connection_read_timeout",
            Self::Ended(_) => "http_response_incomplete",
            Self::Redirect(_) => "http_protocol_error",
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

/// An answer whose head has arrived.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The rest, still on its way.
    pub body: ResponseBody,
}

/// A body on its way in.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    stall_timeout: Duration,
}

impl ResponseBody {
    /// Returns the next piece, or `None` at the declared end.
    ///
    /// # Errors
    /// `Stalled` when nothing came for too long, `Ended` when the connection broke before the declared end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(self.stall_timeout, self.incoming.frame())
                .await
                .map_err(|_| Error::Stalled(self.stall_timeout))?;
            match frame {
                None => return Ok(None),
                Some(Err(err)) => return Err(Error::Ended(innermost(&err))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Returns the next piece if it has already arrived.
    ///
    /// # Errors
    /// As [`ResponseBody::chunk`].
    pub fn chunk_if_ready(&mut self) -> Result<Option<Bytes>, Error> {
        use futures_util::FutureExt as _;
        match self.incoming.frame().now_or_never() {
            None | Some(None) => Ok(None),
            Some(Some(Err(err))) => Err(Error::Ended(innermost(&err))),
            Some(Some(Ok(frame))) => Ok(frame.into_data().ok()),
        }
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

/// The client. Clones share one pool of connections.
#[derive(Clone)]
pub struct Egress {
    client: Client<Connector, Empty<Bytes>>,
    config: Config,
    route: Route,
    tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Egress {
    /// Makes a client that goes out by `route` and believes those that `trust` vouches for.
    pub fn new(config: Config, route: Route, trust: &Trust) -> Self {
        Self::with_tls(config, route, trust.client(&[b"h2", b"http/1.1"]))
    }

    fn with_tls(config: Config, route: Route, tls: Arc<rustls::ClientConfig>) -> Self {
        let connector = Connector::new(Arc::clone(&tls), &config, route.clone());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .build(connector);
        Self { client, config, route, tls }
    }

    /// Returns which way requests go.
    pub fn route(&self) -> &Route {
        &self.route
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
        let mut at = url.clone();
        for hop in 0..=REDIRECTS_MAX {
            let credentials = credentials.filter(|_| at.origin() == url.origin());
            let response = self.get_once(&at, headers, credentials).await.map_err(|err| match hop {
                0 => err,
                // The upstream itself can be reached: where it sent us is not its own state.
                _ => Error::Elsewhere { host: at.host_str().unwrap_or_default().to_owned(), reason: err.to_string() },
            })?;
            if !is_redirect(response.status) {
                return Ok(response);
            }
            let Some(location) = response.headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
                return Err(Error::Redirect("no Location header".to_owned()));
            };
            let next = at.join(location).map_err(|err| Error::Redirect(format!("bad Location header: {err}")))?;
            if at.scheme() == "https" && next.scheme() != "https" {
                return Err(Error::Redirect(format!("from https to {}", next.scheme())));
            }
            if !matches!(next.scheme(), "http" | "https") {
                return Err(Error::Redirect(format!("to {}:", next.scheme())));
            }
            at = next;
        }
        Err(Error::Redirect(format!("more than {REDIRECTS_MAX} in a row")))
    }

    /// Finds out within `limit`, over a connection of its own, whether anything answers at `url`; any HTTP answer will
    /// do.
    ///
    /// # Errors
    /// The step that failed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn probe(&self, url: &Url, limit: Duration) -> Result<(), Error> {
        let fresh = Self::with_tls(self.config.clone(), self.route.clone(), Arc::clone(&self.tls));
        let asked = timeout(limit, fresh.get_once(url, &HeaderMap::new(), None)).await;
        asked.map_err(|_| Error::HeaderTimeout(limit))?.map(|_| ())
    }

    async fn get_once(
        &self,
        url: &Url,
        headers: &HeaderMap,
        credentials: Option<&Credentials>,
    ) -> Result<Response, Error> {
        let mut request = http::Request::builder()
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
        let config = &self.config;
        // Connecting and the handshake have limits of their own inside the connector; this one is mostly about silence
        // on a connection that is open already.
        let limit = config.connect_timeout + config.header_timeout;
        let answer = timeout(limit, self.client.request(request))
            .await
            .map_err(|_| Error::HeaderTimeout(limit))?
            .map_err(|err| classify(&err))?;
        let (head, incoming) = answer.into_parts();
        let body = ResponseBody { incoming, stall_timeout: config.stall_timeout };
        Ok(Response { status: head.status, headers: head.headers, body })
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
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

/// Returns the text of the deepest cause, which is the one that says what happened.
fn innermost(err: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = err;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
