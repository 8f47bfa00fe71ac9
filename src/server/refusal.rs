//! Answers to connections that are not served: a short text that says why, then the end.
//!
//! Called by `server::serve`; calls nothing of Larder's own. The request is waited for, shortly, because a client that
//! gets its answer before it has asked reports a broken connection instead of the text. The work is bounded: a fixed
//! number of refusals at a time, each with a time limit and a few kilobytes; beyond that connections are just closed.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::shutdown::Tasks;

/// Refusals under way at a time.
const REFUSALS_MAX: usize = 64;
/// What one refusal may take in all.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(2);
/// What is read of a refused client's request before the answer, and at most so many times that after it.
const REQUEST_BYTES_MAX: usize = 4 * 1024;
const DISCARDED_READS_MAX: usize = 16;

/// Why a connection is not served.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// The client's address is not on the allow list.
    NotAllowed(IpAddr),
    /// The client has as many connections as one client may have.
    ClientFull,
    /// All connections are taken.
    Full,
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Self::NotAllowed(_) => "403 Forbidden",
            Self::ClientFull | Self::Full => "503 Service Unavailable",
        }
    }

    fn text(self) -> String {
        match self {
            Self::NotAllowed(client) => format!(
                "larder: {client} is not an address this cache serves\n\
                 hint: its -allow says which networks are served; by default those this machine is in\n"
            ),
            Self::ClientFull => "larder: this machine has too many connections open\n\
                 hint: see -max-connections-per-client\n"
                .to_owned(),
            Self::Full => "larder: all connections are taken\nhint: try again; see -max-connections\n".to_owned(),
        }
    }

    /// Returns the whole answer; one to HEAD has no body.
    fn answer(self, request: &[u8]) -> String {
        let text = self.text();
        let retry_after = if matches!(self, Self::NotAllowed(_)) { "" } else { "Retry-After: 1\r\n" };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             {retry_after}Connection: close\r\n\r\n",
            self.status(),
            text.len()
        );
        if request.starts_with(b"HEAD ") { head } else { head + &text }
    }
}

/// The refusals under way.
#[derive(Debug)]
pub(super) struct Refusals {
    slots: Arc<Semaphore>,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(REFUSALS_MAX)) }
    }

    /// Answers and closes a connection in a task of its own, or closes it at once where too many are being answered.
    pub(super) fn refuse(&self, tasks: &Tasks, stream: TcpStream, refusal: Refusal) {
        log::debug!("connection refused reason={refusal:?}");
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return;
        };
        tasks.spawn("refusal", async move {
            // A client that does not take its refusal gets none; there is nothing else to do about it.
            let _ = tokio::time::timeout(REFUSAL_TIME_MAX, answer_and_close(stream, refusal)).await;
            drop(slot);
        });
    }
}

async fn answer_and_close(mut stream: TcpStream, refusal: Refusal) -> io::Result<()> {
    let mut request = vec![0; REQUEST_BYTES_MAX];
    let length = stream.read(&mut request).await?;
    stream.write_all(refusal.answer(&request[..length]).as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with bytes unread would reset the connection, and the client might never see the answer.
    for _ in 0..DISCARDED_READS_MAX {
        if stream.read(&mut request).await? == 0 {
            break;
        }
    }
    Ok(())
}
