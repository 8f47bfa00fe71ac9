//! Asks a SOCKS5 proxy for a tunnel.
//!
//! Called by `proxy::server`; tokio-socks speaks the protocol, this file watches over it and says what its answers mean.
//! Source: RFC 1928, RFC 1929.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_socks::Error as SocksError;
use tokio_socks::tcp::Socks5Stream;

use crate::net::candidates::Sign;
use crate::net::redacted::Secret;
use crate::net::stream::Stream;
use crate::net::target::{Host, Target};

/// Why there is no tunnel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The proxy is not what it should be, or does not let us in.
    Proxy(String),
    /// It could not reach the target, or may not.
    Target(String),
}

/// Asks for a tunnel to `to`, by name if that is what it holds. `said_bytes` counts what the proxy says.
pub(super) async fn connect(
    stream: Stream,
    to: &Target,
    credentials: Option<&(String, Secret)>,
    sign: &Sign,
    said_bytes: &Arc<AtomicUsize>,
) -> Result<Stream, Failure> {
    let watched = Watched { stream, sign: sign.clone(), said_bytes: Arc::clone(said_bytes) };
    let connected = match (&to.host, credentials) {
        (Host::Address(address), None) => {
            Socks5Stream::connect_with_socket(watched, SocketAddr::new(*address, to.port)).await
        }
        (Host::Name(name), None) => Socks5Stream::connect_with_socket(watched, (name.as_str(), to.port)).await,
        (Host::Address(address), Some((user, password))) => {
            let to = SocketAddr::new(*address, to.port);
            Socks5Stream::connect_with_password_and_socket(watched, to, user, password.reveal()).await
        }
        (Host::Name(name), Some((user, password))) => {
            let to = (name.as_str(), to.port);
            Socks5Stream::connect_with_password_and_socket(watched, to, user, password.reveal()).await
        }
    };
    match connected {
        Ok(stream) => Ok(stream.into_inner().stream),
        Err(err) => Err(meaning(&err, credentials.is_some(), said_bytes.load(Ordering::Relaxed))),
    }
}

fn meaning(err: &SocksError, has_password: bool, said_bytes: usize) -> Failure {
    let has_spoken = said_bytes > 0;
    // The method takes two bytes, and what is said of the password two more; then comes the reply.
    let has_agreed = said_bytes > if has_password { 4 } else { 2 };
    let proxy = |text: &str| Failure::Proxy(text.to_owned());
    let target = |text: &str| Failure::Target(text.to_owned());
    match err {
        SocksError::PasswordAuthFailure(_) => proxy("wrong user name or password"),
        SocksError::NoAcceptableAuthMethods if has_password => proxy("it does not take a user name and a password"),
        SocksError::NoAcceptableAuthMethods | SocksError::AuthorizationRequired => {
            proxy("it wants a user name and a password")
        }
        // A reply code above those of RFC 1928 is read as this too; some say more about the target by it.
        SocksError::UnknownAuthMethod if has_agreed => target("refused with a code of its own"),
        SocksError::UnknownAuthMethod => proxy("it answered something Larder does not know"),
        SocksError::InvalidAuthValues(_) => proxy("user name and password must have 1 to 255 bytes each"),
        SocksError::InvalidResponseVersion | SocksError::InvalidReservedByte | SocksError::UnknownAddressType => {
            proxy("it does not speak SOCKS5")
        }
        // Some close the connection instead of saying that they could not reach the target.
        SocksError::Io(err) if has_spoken => Failure::Target(closed(err)),
        SocksError::Io(err) => Failure::Proxy(closed(err)),
        SocksError::ConnectionNotAllowedByRuleset => target("not allowed by its rules"),
        SocksError::GeneralSocksServerFailure => target("general failure"),
        SocksError::NetworkUnreachable => target("network unreachable from there"),
        SocksError::HostUnreachable => target("host unreachable from there"),
        SocksError::ConnectionRefused => target("connection refused"),
        SocksError::TtlExpired => target("no answer from there"),
        SocksError::CommandNotSupported => target("it does not connect for others"),
        SocksError::AddressTypeNotSupported => target("it does not know this kind of address"),
        SocksError::InvalidTargetAddress(why) => target(why),
        SocksError::ParseError(_)
        | SocksError::ProxyServerUnreachable
        | SocksError::UnknownError
        | SocksError::IdentdAuthFailure
        | SocksError::InvalidUserIdAuthFailure => Failure::Proxy(err.to_string()),
    }
}

fn closed(err: &io::Error) -> String {
    match err.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "it closed the connection without an answer".to_owned()
        }
        _ => crate::net::dial::plain(err),
    }
}

/// A stream that tells when the other side says something.
struct Watched {
    stream: Stream,
    sign: Sign,
    said_bytes: Arc<AtomicUsize>,
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.sign.give();
            this.said_bytes.fetch_add(buf.filled().len() - before, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Watched {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is the proxy's fault is told apart from what is the target's.
    #[test]
    fn who_is_to_blame() {
        let eof = || SocksError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "early eof"));
        let proxy = |text: &str| Failure::Proxy(text.to_owned());
        let target = |text: &str| Failure::Target(text.to_owned());
        for (err, has_password, said_bytes, expected) in [
            (SocksError::PasswordAuthFailure(1), true, 4, proxy("wrong user name or password")),
            (SocksError::NoAcceptableAuthMethods, false, 2, proxy("it wants a user name and a password")),
            (SocksError::NoAcceptableAuthMethods, true, 4, proxy("it does not take a user name and a password")),
            (SocksError::InvalidResponseVersion, false, 2, proxy("it does not speak SOCKS5")),
            (SocksError::UnknownAuthMethod, false, 2, proxy("it answered something Larder does not know")),
            (SocksError::UnknownAuthMethod, false, 6, target("refused with a code of its own")),
            (SocksError::UnknownAuthMethod, true, 4, proxy("it answered something Larder does not know")),
            (eof(), false, 0, proxy("it closed the connection without an answer")),
            (eof(), false, 2, target("it closed the connection without an answer")),
            (SocksError::HostUnreachable, false, 2, target("host unreachable from there")),
            (SocksError::ConnectionNotAllowedByRuleset, false, 2, target("not allowed by its rules")),
        ] {
            assert_eq!(meaning(&err, has_password, said_bytes), expected);
        }
    }
}
