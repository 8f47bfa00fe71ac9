//! Opens a TCP connection to one of several addresses.
//!
//! Called by `egress`; knows addresses only, never names. The addresses of one host are tried in the order given,
//! each next one starting when the one before failed or has been silent for a quarter of a second, and the first that
//! connects wins (the idea of RFC 8305, without its sorting: the resolver has sorted already).

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long a connection attempt stays alone before the next address is tried beside it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// At most this many addresses of one host are tried.
const ADDRESSES_MAX: usize = 8;

/// Connects to the first of `addresses` that answers, within `limit` in all.
///
/// # Errors
/// The last address's error, or `TimedOut` when `limit` has passed.
///
/// # Cancel safety
/// Dropping the future closes every attempt.
pub async fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    match timeout(limit, race(addresses)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", limit.as_millis()))),
    }
}

async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter().take(ADDRESSES_MAX);
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(attempt(*address));
        } else if attempts.is_empty() {
            return Err(last);
        }
        // Wait for one attempt to end; with more addresses at hand, only for a moment.
        let patience = pin!(async {
            if waiting.len() > 0 {
                sleep(NEXT_ADDRESS_AFTER).await;
            } else {
                std::future::pending::<()>().await;
            }
        });
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(err) => last = err,
            },
            () = patience => {}
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let connected = TcpStream::connect(address).await;
    let stream = connected.map_err(|err| io::Error::new(err.kind(), format!("{address}: {err}")))?;
    stream.set_nodelay(true)?;
    Ok(stream)
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
