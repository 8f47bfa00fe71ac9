//! Turns host names into addresses.
//!
//! Called by `egress`. Today there is one way, the system's own resolver; servers of the user's choice join it here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

/// A name look-up that takes longer has failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where names are looked up.
#[derive(Clone, Debug, Default)]
pub enum Resolver {
    /// The operating system's resolver, as every other program on the machine uses it.
    #[default]
    System,
}

impl Resolver {
    /// Returns the addresses of `host`, best first. A literal address is returned as it is.
    ///
    /// # Errors
    /// The resolver's own words, or that it did not answer in time.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the look-up.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        match self {
            Self::System => match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await {
                Ok(Ok(found)) => Ok(found.collect()),
                Ok(Err(err)) => Err(err.to_string()),
                Err(_) => Err(format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs())),
            },
        }
    }
}
