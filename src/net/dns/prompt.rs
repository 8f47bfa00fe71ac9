//! A stream for small messages in both directions: each is sent whole, and what comes is acknowledged at once.
//!
//! Owns [`Prompt`]. Called by `exchange`. A server that answers two questions with two writes, and has left Nagle's
//! algorithm on as unbound does, sends the second one only when the first is acknowledged; a system that waits for
//! something to send along with that acknowledgement makes it 40 ms. Source: tcp(7), `TCP_QUICKACK`; RFC 7766, section 8
//! (length and message in one write).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::net::stream::Stream;

/// The stream.
pub(super) struct Prompt(Stream);

impl Prompt {
    pub(super) fn new(stream: Stream) -> Self {
        let prompt = Self(stream);
        prompt.acknowledge_at_once();
        prompt
    }

    /// Asks the system for that; it forgets it by and by. Where it cannot be had, all that is lost is time.
    fn acknowledge_at_once(&self) {
        let _ = SockRef::from(socket(&self.0)).set_tcp_quickack(true);
    }
}

fn socket(stream: &Stream) -> &TcpStream {
    match stream {
        Stream::Plain(socket) => socket,
        Stream::Tls(outer) => socket(outer.get_ref().0),
    }
}

impl AsyncRead for Prompt {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let prompt = self.get_mut();
        let outcome = ready!(Pin::new(&mut prompt.0).poll_read(cx, buf));
        prompt.acknowledge_at_once();
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let whole = bufs.iter().flat_map(|buf| buf.iter().copied()).collect::<Vec<_>>();
        Pin::new(&mut self.get_mut().0).poll_write(cx, &whole)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
