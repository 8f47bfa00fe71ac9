//! Listening sockets: bound by ourselves or handed over by systemd, and the loop that accepts from them.
//!
//! Called by `app.rs` (bind, adopt) and by `server::serve` (accept); calls nothing of Larder's own. Options that every
//! connection needs (`TCP_NODELAY`, keep-alive probes) are set on the listening socket: Linux hands them on to accepted
//! sockets, so they cost no system call per connection. Source: issue 3 ("Who may ask"), tcp(7), `sd_listen_fds(3)`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Connections the kernel completes for us before they are accepted; an office that starts at nine connects at once.
const BACKLOG: i32 = 1024;

/// A client whose machine has vanished without a word is noticed after about two minutes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(5);
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// More open files than this are of no use to Larder, and some systems allow a billion.
const OPEN_FILES_MAX: u64 = 65_536;

/// Why Larder cannot listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}{}", bind_hint(source))]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A socket handed over by systemd is not one that can be listened on.
    #[error("cannot use the socket handed over as number {index}: {source}")]
    Adopt {
        /// Its place among the sockets handed over, from 0.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Names the flag that helps, where one does.
fn bind_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => " (another program has it; -port takes another one)",
        io::ErrorKind::AddrNotAvailable => " (this machine does not have the address; see -listen)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need a privilege; see -port)",
        _ => "",
    }
}

/// Binds `addresses` on `port`; no addresses means all interfaces, IPv6 and IPv4.
///
/// With port 0 the system chooses one, and all addresses get the same. Must be called inside the runtime.
///
/// # Errors
/// [`ListenError::Bind`] for the first address that cannot be bound.
pub fn bind(addresses: &[IpAddr], port: u16) -> Result<Vec<TcpListener>, ListenError> {
    if addresses.is_empty() {
        // One socket serves both families. A kernel without IPv6 cannot make it, so IPv4 alone is the way out there.
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = match bind_one(both, OtherFamily::Included) {
            Err(error) if lacks_ipv6(&error) => bind_one((Ipv4Addr::UNSPECIFIED, port).into(), OtherFamily::Excluded),
            result => result,
        };
        return Ok(vec![listener.map_err(|source| ListenError::Bind { address: both, source })?]);
    }
    let has_ipv4 = addresses.iter().any(IpAddr::is_ipv4);
    let other_family = if has_ipv4 { OtherFamily::Excluded } else { OtherFamily::Included };
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut port = port;
    for ip in addresses {
        let address = SocketAddr::from((*ip, port));
        let listener = bind_one(address, other_family).map_err(|source| ListenError::Bind { address, source })?;
        if let Ok(bound) = listener.local_addr() {
            port = bound.port();
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Takes over the TCP sockets systemd has opened for us; none if it has not.
///
/// # Errors
/// [`ListenError::Adopt`] for a socket that is not a listening TCP socket.
pub fn adopt() -> Result<Vec<TcpListener>, ListenError> {
    let mut handed_over = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed_over.len() {
        let listener = handed_over
            .take_tcp_listener(index)
            .and_then(|listener| listener.map(prepare).transpose())
            .map_err(|source| ListenError::Adopt { index, source })?;
        listeners.extend(listener);
    }
    Ok(listeners)
}

/// Raises the limit of open files to what the system lets us have; returns the limit that holds now.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(OPEN_FILES_MAX);
    if wanted <= current {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            log::warn!("cannot raise the limit of open files from {current} to {wanted}: {error}");
            current
        }
    }
}

/// Accepts until `stop`, handing each connection and its peer to `serve_one`, which must not wait.
///
/// # Cancel safety
/// Dropping it closes the socket; a connection already accepted has been handed on.
pub(super) async fn accept_loop(
    listener: TcpListener,
    stop: CancellationToken,
    mut serve_one: impl FnMut(TcpStream, SocketAddr),
) {
    let mut backoff = ACCEPT_BACKOFF_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff = ACCEPT_BACKOFF_MIN;
                serve_one(stream, peer);
            }
            // The client gave up before we came to it: nothing is wrong here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                log::warn!("cannot accept a connection, trying again in {} ms: {error}", backoff.as_millis());
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
            }
        }
    }
}

/// Whether an IPv6 socket takes IPv4 connections too.
#[derive(Clone, Copy)]
enum OtherFamily {
    Included,
    Excluded,
}

fn bind_one(address: SocketAddr, other_family: OtherFamily) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(matches!(other_family, OtherFamily::Excluded))?;
    }
    // A restart must not wait for the last run's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    prepare(socket.into())
}

/// Sets what accepted sockets inherit and hands the socket to the runtime.
fn prepare(listener: StdTcpListener) -> io::Result<TcpListener> {
    let socket = SockRef::from(&listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Tells whether a bind failed because the kernel has no IPv6, or has it switched off.
fn lacks_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without addresses both families are served on one port.
    #[tokio::test]
    async fn default_serves_both_families() {
        let listeners = bind(&[], 0).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        if listeners[0].local_addr().unwrap().is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        }
    }

    /// Accepted sockets inherit `TCP_NODELAY` from the listening one.
    #[tokio::test]
    async fn accepted_sockets_inherit_nodelay() {
        let listeners = bind(&[Ipv4Addr::LOCALHOST.into()], 0).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listeners[0].accept());
        assert!(accepted.unwrap().0.nodelay().unwrap());
    }

    /// Several addresses with port 0 get the same port.
    #[tokio::test]
    async fn several_addresses_share_the_chosen_port() {
        let listeners = bind(&["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()], 0).unwrap();
        assert_eq!(listeners[0].local_addr().unwrap().port(), listeners[1].local_addr().unwrap().port());
    }

    /// A port that is taken is an error that names the flag.
    #[tokio::test]
    async fn taken_port_names_the_flag() {
        let address = [IpAddr::from(Ipv4Addr::LOCALHOST)];
        let first = bind(&address, 0).unwrap();
        let error = bind(&address, first[0].local_addr().unwrap().port()).unwrap_err();
        assert!(error.to_string().contains("-port"), "{error}");
    }
}
