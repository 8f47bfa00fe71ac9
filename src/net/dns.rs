//! DNS servers of the user's choice and how they are asked: what `bootstrap` and `resolver` have in common.
//!
//! Owns the plain description of a server ([`ServerConfig`]) and [`Reach`], by which a server is told how connections to
//! it are made: `bootstrap` goes directly, `resolver` perhaps through proxies. Below: `reply` reads answers, `exchange`
//! carries one question over UDP or a connection (`quic`, `https` with `json`, or the stream of `prompt`), `server` is one
//! server with its connection, `servers` several in order, `hosts` the file, `system` the operating
//! system's resolver, `names` looks up and `cache` remembers.
//! Sources: RFC 1035, 2308, 7766, 7858, 8484, 8767, 9250.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::net::stream::Stream;
use crate::net::target::{Host, Target};
use crate::net::{dial, tls};

mod cache;
mod exchange;
mod hosts;
mod https;
mod json;
pub(crate) mod names;
mod prompt;
mod quic;
mod reply;
pub(crate) mod server;
pub(crate) mod servers;
pub(crate) mod system;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// How long connecting to a server directly may take, and how long its TLS handshake. Together a little less than a
/// look-up may take, so that it is this step's error that is heard.
const STEP_LIMIT: Duration = Duration::from_millis(2400);

/// How a DNS server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams, and TCP for answers that do not fit.
    Udp,
    /// TCP.
    Tcp,
    /// DNS over TLS, RFC 7858.
    Tls,
    /// DNS over HTTPS, RFC 8484 or its JSON form.
    Https,
    /// DNS over QUIC, RFC 9250.
    Quic,
}

impl Transport {
    /// Returns the scheme people write for it.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Quic => "quic",
        }
    }

    /// Returns the port that is meant when none is given.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 53,
            Self::Tls | Self::Quic => 853,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme())
    }
}

/// One DNS server, as the configuration names it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// How it is spoken to.
    pub transport: Transport,
    /// Where it is; its certificate is checked against this.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// For DNS over HTTPS the path with its query, beginning with a slash; empty otherwise. It may hold a key.
    pub path: String,
    /// What people read, without secrets: `tls://192.0.2.1:853`.
    pub name: String,
}

impl ServerConfig {
    /// Returns where connections to it lead.
    pub fn target(&self) -> Target {
        Target { host: self.host.clone(), port: self.port }
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerConfig").field(&self.name).finish()
    }
}

/// A boxed future.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a server is reached. `bootstrap` and `resolver` each have their own way.
pub(crate) trait Reach: Send + Sync {
    /// Returns the addresses of the server, best first; for datagrams.
    ///
    /// # Errors
    /// Who was asked for the server's name, and what they said.
    fn addresses<'a>(&'a self, server: &'a ServerConfig) -> Boxed<'a, Result<Vec<IpAddr>, String>>;

    /// Opens a connection to the server, with TLS where `tls` is given.
    ///
    /// # Errors
    /// What failed, in plain words.
    fn open<'a>(
        &'a self,
        server: &'a ServerConfig,
        tls: Option<&'a Arc<ClientConfig>>,
    ) -> Boxed<'a, Result<Stream, String>>;
}

/// Opens a connection to one of the server's addresses, without any proxy.
///
/// # Errors
/// What failed, in plain words.
pub(crate) async fn open_directly(
    addresses: &[IpAddr],
    server: &ServerConfig,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Stream, String> {
    let addresses = addresses.iter().map(|address| SocketAddr::new(*address, server.port)).collect::<Vec<_>>();
    let connected = dial::connect(&addresses, STEP_LIMIT).await.map_err(|err| {
        let text = err.to_string();
        // The server's own name says the address already.
        text.strip_prefix(&format!("{}: ", server.target())).unwrap_or(&text).to_ascii_lowercase()
    });
    let stream = Stream::Plain(connected?);
    match tls {
        Some(tls) => tls::handshake(tls, &server.host, stream, STEP_LIMIT).await,
        None => Ok(stream),
    }
}
