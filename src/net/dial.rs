//! Opens a TCP connection to one of several addresses.
//!
//! Called by `proxy`, `bootstrap` and `resolver`; knows addresses only, never names. The addresses of one host are tried
//! in the order given, each next one starting when the one before failed or has been silent for a quarter of a second,
//! and the first that connects wins (the idea of RFC 8305, without its sorting: the resolver has sorted already).
//!
//! Invariant: a connection whose other side is gone without a word is noticed, by what was sent not being acknowledged
//! or by probes while nothing is sent.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long a connection attempt stays alone before the next address is tried beside it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// At most this many addresses of one host are tried.
const ADDRESSES_MAX: usize = 8;
/// What was sent and is not acknowledged for so long ends the connection: a little less than an answer is waited for, so
/// that a line that died unnoticed is not taken for a slow answer.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(14);
/// A connection silent for so long is probed, and so often again.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Connects to the first of `addresses` that answers, within `limit` in all.
///
/// # Errors
/// The last address's error, or `TimedOut` when `limit` has passed.
///
/// # Cancel safety
/// Dropping the future closes every attempt.
pub async fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    match timeout(limit, first(addresses.iter().copied(), attempt)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(Some(err))) => Err(err),
        Ok(Err(None)) => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address")),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs()))),
    }
}

/// Tries `addresses` in order, one beside the other, and returns what the first that succeeds gave.
///
/// # Errors
/// The last error; none if there was no address to try.
///
/// # Cancel safety
/// Dropping the future drops every attempt.
pub async fn first<T, R, E, A>(addresses: impl IntoIterator<Item = T>, attempt: impl Fn(T) -> A) -> Result<R, Option<E>>
where
    A: Future<Output = Result<R, E>>,
{
    first_after(NEXT_ADDRESS_AFTER, addresses, attempt).await
}

/// Does as [`first`], each attempt staying alone for `stagger` before the next one starts.
///
/// # Errors
/// The last error; none if there was no address to try.
///
/// # Cancel safety
/// Dropping the future drops every attempt.
pub async fn first_after<T, R, E, A>(
    stagger: Duration,
    addresses: impl IntoIterator<Item = T>,
    attempt: impl Fn(T) -> A,
) -> Result<R, Option<E>>
where
    A: Future<Output = Result<R, E>>,
{
    let mut waiting = addresses.into_iter().take(ADDRESSES_MAX).peekable();
    let mut attempts = FuturesUnordered::new();
    let mut last = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(attempt(address));
        } else if attempts.is_empty() {
            return Err(last);
        }
        let has_next = waiting.peek().is_some();
        // Wait for one attempt to end; with more addresses at hand, only for a moment.
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(good) => return Ok(good),
                Err(err) => last = Some(err),
            },
            () = sleep(stagger), if has_next => {}
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let connected = TcpStream::connect(address).await;
    let stream = connected.map_err(|err| io::Error::new(err.kind(), format!("{address}: {}", plain(&err))))?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE_AFTER).with_interval(KEEP_ALIVE_INTERVAL))?;
    Ok(stream)
}

/// Returns an error of the system in its own words, without its number: `Connection refused`.
pub(super) fn plain(err: &io::Error) -> String {
    let text = err.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// An address that refuses does not keep the next one from being used.
    #[tokio::test]
    async fn next_address_after_a_refusal() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(&[gone, there.local_addr().unwrap()], Duration::from_secs(5)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there.local_addr().unwrap());
    }

    /// Without any address the error says so at once.
    #[tokio::test]
    async fn no_address() {
        let err = connect(&[], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(err.to_string(), "the name has no address");
    }
}
