//! Makes the connections the client's pool asks for: resolve, dial, and TLS where the scheme says so.
//!
//! Called by hyper-util's pool; calls `resolver` and `dial`. Each step has its own limit and its own error, which
//! `egress` finds again below the pool's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::net::dial;
use crate::net::egress::{Config, Error, Route};
use crate::net::stream::Stream;

/// Connects for the pool. Clones share the TLS session cache.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    route: Route,
    connect_timeout: Duration,
    tls_timeout: Duration,
}

impl Connector {
    pub(super) fn new(tls: Arc<rustls::ClientConfig>, config: &Config, route: Route) -> Self {
        Self {
            tls: TlsConnector::from(tls),
            route,
            connect_timeout: config.connect_timeout,
            tls_timeout: config.tls_timeout,
        }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Pooled>, Error> {
        let host = uri.host().unwrap_or_default().to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses = self
            .route
            .resolver
            .resolve(&host, port)
            .await
            .map_err(|reason| Error::Dns { host: host.clone(), reason })?;
        let target = format!("{host}:{port}");
        let tcp = dial::connect(&addresses, self.connect_timeout)
            .await
            .map_err(|err| Error::Connect { host: target.clone(), reason: err.to_string() })?;
        if !is_tls {
            return Ok(TokioIo::new(Pooled(Stream::Plain(tcp))));
        }
        let failed = |reason: String| Error::Tls { host: target.clone(), reason };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|err| failed(err.to_string()))?;
        let stream = timeout(self.tls_timeout, self.tls.connect(name, Stream::Plain(tcp)))
            .await
            .map_err(|_| failed(format!("no handshake within {} s", self.tls_timeout.as_secs())))?
            .map_err(|err| failed(err.to_string()))?;
        Ok(TokioIo::new(Pooled(Stream::Tls(Box::new(stream)))))
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
pub(super) struct Pooled(Stream);

impl Connection for Pooled {
    fn connected(&self) -> Connected {
        if self.0.is_h2() { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl AsyncRead for Pooled {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pooled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
