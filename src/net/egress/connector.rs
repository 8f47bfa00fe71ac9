//! Makes the connections the client's pools ask for: directly or through a proxy, and TLS where the scheme says so.
//!
//! Called by hyper-util's pool; calls `proxy`, which asks `resolver` through it where an address is needed. Each step has
//! its own limit and its own error, which `egress` finds again below the pool's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::egress::{Error, Route};
use crate::net::stream::Stream;
use crate::net::target::{Host, Target};

/// Connects for a pool. Clones share the TLS session cache.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) route: Route,
    pub(super) tls_timeout: Duration,
    /// For the pool of one way's requests for plain http.
    pub(super) way: Option<usize>,
}

impl Connector {
    /// Returns the connector for requests for plain http that go this way.
    pub(super) fn for_requests(&self, way: usize) -> Self {
        Self { way: Some(way), ..self.clone() }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Pooled>, Error> {
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let to = Target { host: Host::parse(uri.host().unwrap_or_default()), port };
        let resolve = |name: &str| {
            let (resolver, name) = (self.route.resolver.clone(), name.to_owned());
            async move {
                let found = resolver.resolve(&name, port).await?;
                Ok(found.into_iter().map(|address| address.ip()).collect())
            }
        };
        let proxies = &self.route.proxies;
        if let Some(way) = self.way {
            let stream = proxies.connect_by(way, &to, resolve).await?;
            let is_forwarded = proxies.takes_requests(way);
            return Ok(TokioIo::new(Pooled { stream, is_forwarded }));
        }
        let connected = if is_tls {
            proxies.connect_tls(&to, resolve, &self.tls, self.tls_timeout).await
        } else {
            proxies.connect(&to, resolve).await
        };
        let stream = connected?;
        Ok(TokioIo::new(Pooled { stream, is_forwarded: false }))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Pooled>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection as the pool sees it.
pub(super) struct Pooled {
    stream: Stream,
    /// Whether the other side is a proxy that wants whole addresses.
    is_forwarded: bool,
}

impl Connection for Pooled {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_forwarded);
        if self.stream.is_h2() { connected.negotiated_h2() } else { connected }
    }
}

impl AsyncRead for Pooled {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pooled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
