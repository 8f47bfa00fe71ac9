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
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::dial;
use crate::net::egress::{Config, Error};
use crate::net::resolver::Resolver;

/// Connects for the pool. Clones share the TLS session cache.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    resolver: Resolver,
    connect_timeout: Duration,
    tls_timeout: Duration,
}

impl Connector {
    pub(super) fn new(tls: Arc<rustls::ClientConfig>, config: &Config) -> Self {
        Self {
            tls: TlsConnector::from(tls),
            resolver: Resolver::default(),
            connect_timeout: config.connect_timeout,
            tls_timeout: config.tls_timeout,
        }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, Error> {
        let host = uri.host().unwrap_or_default().to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses =
            self.resolver.resolve(&host, port).await.map_err(|reason| Error::Dns { host: host.clone(), reason })?;
        let target = format!("{host}:{port}");
        let tcp = dial::connect(&addresses, self.connect_timeout)
            .await
            .map_err(|err| Error::Connect { host: target.clone(), reason: err.to_string() })?;
        if !is_tls {
            return Ok(TokioIo::new(Stream::Plain(tcp)));
        }
        let failed = |reason: String| Error::Tls { host: target.clone(), reason };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|err| failed(err.to_string()))?;
        let stream = timeout(self.tls_timeout, self.tls.connect(name, tcp))
            .await
            .map_err(|_| failed(format!("no handshake within {} s", self.tls_timeout.as_secs())))?
            .map_err(|err| failed(err.to_string()))?;
        Ok(TokioIo::new(Stream::Tls(Box::new(stream))))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection to an upstream, with or without TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => Connected::new().negotiated_h2(),
            Self::Plain(_) | Self::Tls(_) => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
