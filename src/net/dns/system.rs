//! The operating system's resolver, which answers on a thread and cannot be called back.
//!
//! Owns [`System`]. Called by `names`. A call of `getaddrinfo` goes on for up to half a minute when the servers of
//! `resolv.conf` are silent, whoever still waits for it; the threads it would fill are those that read stored files. So
//! there are [`PLACES`] for all who ask, clones included, and each is given back by the call itself when it returns.
//!
//! Invariant: at most [`PLACES`] threads are with the system's resolver, and none is queued for it. Source: getaddrinfo(3).

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::net::dns::servers::LOOKUP_LIMIT;

/// Calls at a time.
pub(super) const PLACES: usize = 4;

type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The system's resolver. Clones share its places.
#[derive(Clone)]
pub(crate) struct System {
    places: Arc<Semaphore>,
    ask: Arc<Ask>,
}

impl System {
    /// Makes one with places of its own.
    pub(crate) fn new() -> Self {
        Self::asking(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    /// Makes one that calls `ask` instead of the system.
    pub(super) fn asking(ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), ask: Arc::new(ask) }
    }

    /// Returns the addresses of `name`, at least one, sorted by the system (RFC 6724). A place is waited for no longer
    /// than [`LOOKUP_LIMIT`]; how long an answer is waited for is the caller's matter.
    ///
    /// # Errors
    /// What the system said, or that it hangs.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a call to end by itself; it keeps its place until then.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let failed = |reason: &str| format!("system resolver: {name}: {reason}");
        let Ok(Ok(place)) = timeout(LOOKUP_LIMIT, Arc::clone(&self.places).acquire_owned()).await else {
            return Err(failed(&format!("it hangs: {PLACES} other look-ups are waiting for it")));
        };
        let (ask, asked) = (Arc::clone(&self.ask), name.to_owned());
        let said = tokio::task::spawn_blocking(move || {
            let said = ask(&asked);
            drop(place);
            said
        });
        let found = match said.await {
            Ok(Ok(found)) => found,
            Ok(Err(err)) => {
                let text = err.to_string();
                let words = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
                return Err(failed(&words.to_ascii_lowercase()));
            }
            Err(_) => return Err(failed("the look-up was given up")),
        };
        let mut addresses = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(failed("the name has no address")) } else { Ok(addresses) }
    }
}
