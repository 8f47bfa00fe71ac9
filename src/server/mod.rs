//! The way in: accepts connections, admits or refuses them, serves HTTP on them, and drains at the end.
//!
//! Called by `app.rs` with a handler, which is all this module knows of modules and caches. Calls `listener` (sockets),
//! `access` (who may ask), `limits` (how many, how long) and `connection` (HTTP). One connection step by step: accept →
//! allowed? → room? → its own task → hyper → handler → [`Body`].
//!
//! Invariants: the accept loops wait for nothing but a new connection; everything started here is counted and has ended
//! when [`serve`] returns. Source: issue 3 ("Who may ask", "What people see").

pub mod access;
pub mod admin;
pub mod body;
mod connection;
pub mod handler;
mod limits;
pub mod listener;
mod page_cache;
mod refusal;
mod respond;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use self::access::AllowList;
pub use self::body::Body;
use self::connection::serve_connection;
pub use self::limits::ConnectionLimits;
use self::limits::{Admission, HeadGrace, Registry, SWEEP_INTERVAL};
use self::page_cache::PageCache;
use self::refusal::{Refusal, Refusals};
use crate::clock::Clock;
use crate::shutdown::Tasks;

/// How often a stopping server looks whether its connections have ended.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a request head may still be on its way when the server stops.
const DRAIN_HEAD_GRACE: Duration = Duration::from_millis(500);

/// What the server is told.
#[derive(Debug)]
pub struct Config {
    /// Bounds on connections.
    pub limits: ConnectionLimits,
    /// Who is served.
    pub allow: AllowList,
    /// How long running answers may take after the signal to stop.
    pub drain_deadline: Duration,
}

/// What a handler may know about the connection a request came by.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo {
    /// The client's address; an IPv4 client of a socket that serves both families has an IPv4-mapped one.
    pub peer: SocketAddr,
}

/// Serves `handler` on `listeners` until `stop`, then lets running answers end, up to the configured deadline.
///
/// # Cancel safety
/// Not cancel safe: dropped, it leaves its tasks to `tasks`.
pub async fn serve<H, F>(
    listeners: Vec<TcpListener>,
    handler: H,
    config: Config,
    clock: Clock,
    tasks: &Tasks,
    stop: CancellationToken,
) where
    H: Fn(Request<Incoming>, ConnectionInfo) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let registry = Registry::new(config.limits, clock);
    let admitter = Arc::new(Admitter {
        allow: config.allow,
        registry: Arc::clone(&registry),
        refusals: Refusals::new(),
        page_cache: PageCache::new(),
        tasks: tasks.clone(),
    });
    for listener in listeners {
        let (admitter, handler) = (Arc::clone(&admitter), handler.clone());
        let accepting = listener::accept_loop(listener, stop.clone(), move |stream, peer| {
            admitter.admit(stream, peer, &handler);
        });
        tasks.spawn("accept", accepting);
    }
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = sweep.tick() => registry.sweep(),
        }
    }
    drain(&registry, config.drain_deadline).await;
}

/// Decides about new connections.
struct Admitter {
    allow: AllowList,
    registry: Arc<Registry>,
    refusals: Refusals,
    page_cache: PageCache,
    tasks: Tasks,
}

impl Admitter {
    /// Starts serving a connection, or refusing it. Does not wait.
    fn admit<H, F>(&self, stream: TcpStream, peer: SocketAddr, handler: &H)
    where
        H: Fn(Request<Incoming>, ConnectionInfo) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let client = peer.ip().to_canonical();
        if !self.allow.allows(client) {
            return self.refusals.refuse(&self.tasks, stream, Refusal::NotAllowed(client));
        }
        match self.registry.admit(client) {
            Admission::Admitted(permit) => {
                let activity = Arc::clone(&permit.activity);
                let serving = serve_connection(stream, peer, permit, self.page_cache.clone(), handler.clone());
                activity.set_abort(self.tasks.spawn("connection", serving));
            }
            Admission::ClientFull => self.refusals.refuse(&self.tasks, stream, Refusal::ClientFull),
            Admission::Full => self.refusals.refuse(&self.tasks, stream, Refusal::Full),
        }
    }
}

/// Lets running answers end, closes what waits, and after the deadline everything.
async fn drain(registry: &Registry, deadline: Duration) {
    registry.begin_drain();
    let mut poll = tokio::time::interval(DRAIN_POLL_INTERVAL);
    let draining = async {
        let mut waited = Duration::ZERO;
        loop {
            poll.tick().await;
            let head_grace = if waited < DRAIN_HEAD_GRACE { HeadGrace::Running } else { HeadGrace::Over };
            if registry.close_waiting(head_grace) {
                break;
            }
            waited += DRAIN_POLL_INTERVAL;
        }
    };
    if tokio::time::timeout(deadline, draining).await.is_err() {
        let cut = registry.close_all();
        log::warn!("{cut} answers were cut off: they had not ended {} s after the stop", deadline.as_secs());
        while registry.count() > 0 {
            tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
        }
    }
}
