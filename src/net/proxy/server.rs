//! One proxy at work: the connection to it, and the tunnel through it.
//!
//! Owns [`Server`]. Called by `proxy`; calls `bootstrap`, `dial`, `tls`, `proxy::connect` and `proxy::socks`. Every step
//! has its limit, and every failure is the proxy's ([`Miss::Dead`]) or the target's ([`Miss::Unable`]).
//!
//! A proxy whose address says `https://` may turn out to speak plain HTTP. It is then used in plain, with one warning,
//! unless its address holds a password; once it has spoken TLS it is never used without.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tokio::time::{sleep, timeout};

use crate::net::bootstrap::Bootstrap;
use crate::net::candidates::{Miss, PATIENCE, Sign};
use crate::net::dial;
use crate::net::proxy::{Error, Kind, Limits, ServerConfig, connect, socks};
use crate::net::stream::Stream;
use crate::net::target::{Host, Target};
use crate::net::tls::{self, Trust};

/// Asking whether a proxy speaks plain HTTP may take so long.
const PLAIN_CHECK_LIMIT: Duration = Duration::from_secs(3);

const UNKNOWN: u8 = 0;
const TLS: u8 = 1;
const PLAIN: u8 = 2;

/// One proxy.
pub(super) struct Server {
    pub(super) config: ServerConfig,
    /// What proves to an HTTP proxy who asks; the others have no use for it.
    pub(super) authorization: Option<HeaderValue>,
    tls: Arc<rustls::ClientConfig>,
    /// What one with `https://` has been found to speak.
    speaks: AtomicU8,
    /// Whether the log has been told that it is out of order.
    pub(super) is_known_dead: AtomicBool,
    bootstrap: Arc<Bootstrap>,
    limits: Limits,
}

/// Why the first handshake with a proxy led nowhere.
enum NoTls {
    /// It is a proxy that speaks plain HTTP.
    Plain,
    /// In words.
    Failed(String),
}

impl Server {
    pub(super) fn new(config: ServerConfig, bootstrap: Arc<Bootstrap>, trust: &Trust, limits: Limits) -> Self {
        let is_http = matches!(config.kind, Kind::Http | Kind::Https);
        let authorization = config.credentials.as_ref().filter(|_| is_http).and_then(|(user, password)| {
            let text = format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.reveal())));
            let mut value = HeaderValue::try_from(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self {
            authorization,
            tls: trust.client(&[b"http/1.1"]),
            speaks: AtomicU8::new(if config.kind == Kind::Https { UNKNOWN } else { PLAIN }),
            is_known_dead: AtomicBool::new(false),
            config,
            bootstrap,
            limits,
        }
    }

    /// Tells whether it can be given whole requests for plain http.
    pub(super) fn is_http(&self) -> bool {
        matches!(self.config.kind, Kind::Http | Kind::Https)
    }

    /// Returns the error of a proxy that is out of order, or does not let us in.
    fn dead(&self, reason: impl Into<String>) -> Error {
        Error::Proxy { proxy: self.config.name.clone(), reason: reason.into() }
    }

    fn unable(&self, to: &Target, reason: &str, is_refused: bool) -> Miss<Error> {
        let reason = format!("through {}: {reason}", self.config.name);
        Miss::Unable(Error::Connect { to: to.clone(), reason, is_refused })
    }

    /// Opens a connection to the proxy itself.
    pub(super) async fn reach(&self, sign: &Sign) -> Result<Stream, Miss<Error>> {
        let stream = self.dial(Some(sign)).await?;
        sign.has_begun();
        if self.config.kind != Kind::Https || self.speaks.load(Ordering::Relaxed) == PLAIN {
            return Ok(stream);
        }
        match self.speak_tls(stream, sign).await {
            Ok(stream) => {
                self.speaks.store(TLS, Ordering::Relaxed);
                sign.give();
                Ok(stream)
            }
            Err(NoTls::Failed(reason)) => Err(Miss::Dead(self.dead(format!("tls: {reason}")))),
            Err(NoTls::Plain) if self.config.credentials.is_some() => {
                let reason = "it speaks plain HTTP, where anybody on the way could read the password of its address; \
                              write http:// if that is meant";
                Err(Miss::Dead(self.dead(reason)))
            }
            Err(NoTls::Plain) => {
                match self.speaks.compare_exchange(UNKNOWN, PLAIN, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        let name = &self.config.name;
                        log::warn!(
                            "proxy speaks plain HTTP though its address says https://, and is used so proxy={name}"
                        );
                    }
                    Err(PLAIN) => {}
                    // Another connection has spoken TLS with it meanwhile.
                    Err(_) => return Err(Miss::Dead(self.dead("tls: it spoke TLS before, and does not now"))),
                }
                let stream = self.dial(Some(sign)).await?;
                sign.give();
                Ok(stream)
            }
        }
    }

    async fn dial(&self, sign: Option<&Sign>) -> Result<Stream, Miss<Error>> {
        let limit = self.limits.connect;
        // A slow look-up is not the proxy's silence.
        let found = self.bootstrap.addresses(&self.config.host);
        let found = match sign {
            Some(sign) => sign.waiting_for(found).await,
            None => found.await,
        };
        let addresses = found.map_err(|reason| Miss::Dead(self.dead(format!("its name: {reason}"))))?;
        let addresses: Vec<_> = addresses.into_iter().map(|ip| SocketAddr::new(ip, self.config.port)).collect();
        match dial::connect(&addresses, limit).await {
            Ok(stream) => Ok(Stream::Plain(stream)),
            Err(err) => Err(Miss::Dead(self.dead(err.to_string()))),
        }
    }

    /// Does the TLS handshake. As long as it is not known what the proxy speaks, a silence is used to find out.
    async fn speak_tls(&self, stream: Stream, sign: &Sign) -> Result<Stream, NoTls> {
        let handshake = tls::handshake_io(&self.tls, &self.config.host, stream, self.limits.tls);
        if self.speaks.load(Ordering::Relaxed) == TLS {
            return handshake.await.map_err(|err| NoTls::Failed(tls::explain(&err)));
        }
        let mut handshake = std::pin::pin!(handshake);
        let silence = async {
            // Before others are asked for the same reason.
            sleep(PATIENCE / 2).await;
            self.is_plain().await
        };
        let mut silence = std::pin::pin!(silence);
        let mut was_asked = false;
        let result = loop {
            tokio::select! {
                result = &mut handshake => break result,
                is_plain = &mut silence, if !was_asked => {
                    was_asked = true;
                    if is_plain {
                        sign.give();
                        return Err(NoTls::Plain);
                    }
                }
            }
        };
        match result {
            Ok(stream) => Ok(stream),
            Err(err) if tls::is_not_tls(&err) => Err(NoTls::Plain),
            Err(err) => {
                // Some that do not know TLS close the connection at the first line that is none.
                let is_closed = !was_asked && tls::is_closed(&err);
                if is_closed && self.is_plain().await {
                    return Err(NoTls::Plain);
                }
                Err(NoTls::Failed(tls::explain(&err)))
            }
        }
    }

    /// Finds out whether the proxy takes a `CONNECT` in plain. Neither a password is sent nor what is to be reached:
    /// both would be there for everybody on the way to read, if it does speak TLS after all.
    async fn is_plain(&self) -> bool {
        let itself = Target { host: self.config.host.clone(), port: self.config.port };
        let ask = async {
            let Ok(mut stream) = self.dial(None).await else { return false };
            match connect::connect(&mut stream, &itself, None).await {
                Ok(()) | Err(connect::Failure::Early) => true,
                // That is how servers of TLS answer somebody who speaks HTTP.
                Err(connect::Failure::Status(status, _)) => status != 400,
                Err(connect::Failure::NotHttp { .. } | connect::Failure::Odd(_) | connect::Failure::Broken(_)) => false,
            }
        };
        timeout(PLAIN_CHECK_LIMIT, ask).await.unwrap_or(false)
    }

    /// Opens a tunnel to `to`; `addresses` are its own, where this kind of proxy needs them.
    pub(super) async fn tunnel(&self, to: &Target, addresses: &[IpAddr], sign: &Sign) -> Result<Stream, Miss<Error>> {
        match self.config.kind {
            Kind::Http | Kind::Https => self.connect(to, sign).await,
            Kind::Socks5h => self.socks(to, to, sign).await,
            Kind::Socks5 => {
                let at = |ip: &IpAddr| Target { host: Host::Address(*ip), port: to.port };
                let targets: Vec<Target> = addresses.iter().map(at).collect();
                // One address that it cannot reach says more than a tunnel too many that it does not want to open.
                let unable = OnceLock::new();
                let tunnel = async |at: Target| {
                    let opened = self.socks(&at, to, sign).await;
                    if let Err(Miss::Unable(error)) = &opened {
                        unable.get_or_init(|| error.clone());
                    }
                    opened
                };
                // Each is a connection and a log-in at the proxy, so the next one is not hurried.
                let tried = dial::first_after(PATIENCE, targets, tunnel).await;
                tried.map_err(|last| match (unable.get(), last) {
                    (Some(error), _) => Miss::Unable(error.clone()),
                    (None, Some(last)) => last,
                    (None, None) => self.unable(to, "the name has no address", false),
                })
            }
        }
    }

    async fn connect(&self, to: &Target, sign: &Sign) -> Result<Stream, Miss<Error>> {
        let mut stream = self.reach(sign).await?;
        let limit = self.limits.handshake;
        let dead = |reason: String| Err(Miss::Dead(self.dead(reason)));
        match timeout(limit, connect::connect(&mut stream, to, self.authorization.as_ref())).await {
            Ok(Ok(())) => Ok(stream),
            Err(_) => dead(format!("no answer to CONNECT {to} within {} s", limit.as_secs())),
            Ok(Err(connect::Failure::Status(status, words))) => {
                let said = format!("status {status} {words}");
                let said = said.trim_end();
                match status {
                    // tinyproxy says 401 for a wrong password.
                    401 | 407 => dead(not_let_in(self.authorization.is_some(), said)),
                    // Not now.
                    408 | 425 | 429 => Err(self.unable(to, said, false)),
                    // Not a proxy's answer to a target it cannot reach, but to a question it does not want.
                    400..=499 | 501 => Err(self.unable(to, &format!("CONNECT refused: {said}"), true)),
                    _ => Err(self.unable(to, said, false)),
                }
            }
            Ok(Err(connect::Failure::NotHttp { is_tls })) => {
                if self.config.kind == Kind::Https {
                    // It may have learnt TLS since.
                    let _ = self.speaks.compare_exchange(PLAIN, UNKNOWN, Ordering::Relaxed, Ordering::Relaxed);
                }
                dead(if is_tls { "it speaks TLS: write https://" } else { "it does not speak HTTP" }.to_owned())
            }
            Ok(Err(connect::Failure::Early)) => {
                Err(self.unable(to, "something came through before the tunnel was used", false))
            }
            Ok(Err(connect::Failure::Odd(text))) => dead(text.to_owned()),
            Ok(Err(connect::Failure::Broken(err))) => dead(dial::plain(&err)),
        }
    }

    /// Opens a tunnel to `at`, which is `to` or one of its addresses.
    async fn socks(&self, at: &Target, to: &Target, sign: &Sign) -> Result<Stream, Miss<Error>> {
        let stream = self.reach(sign).await?;
        let limit = self.limits.handshake;
        let said_bytes = Arc::new(AtomicUsize::new(0));
        let asked = socks::connect(stream, at, self.config.credentials.as_ref(), sign, &said_bytes);
        match timeout(limit, asked).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(socks::Failure::Proxy(reason))) => Err(Miss::Dead(self.dead(reason))),
            Ok(Err(socks::Failure::Target(reason))) => Err(self.unable(to, &reason, false)),
            // One that has greeted us works; it is the target that is silent.
            Err(_) if said_bytes.load(Ordering::Relaxed) > 0 => {
                Err(self.unable(to, &format!("no answer within {} s", limit.as_secs()), false))
            }
            Err(_) => Err(Miss::Dead(self.dead(format!("no answer within {} s", limit.as_secs())))),
        }
    }
}

/// Returns the words for a proxy that wants to know who asks.
pub(super) fn not_let_in(has_password: bool, said: &str) -> String {
    if has_password {
        format!("wrong user name or password ({said})")
    } else {
        format!("it wants a user name and a password ({said})")
    }
}
