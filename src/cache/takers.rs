//! Who waits for a file that is on its way: whoever gets it unverified has to be named if it turns out wrong later.
//!
//! Owns [`Takers`]. Called by `cache` for each miss, and at the end of each fill; calls nothing. Bounds: so many files, and
//! so many clients for each.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::resource::Resource;

/// Clients noted for one file.
const CLIENTS_MAX: usize = 64;
/// Files at a time, more than there are fills. Who comes in the very moment in which a fill ends stays noted.
const FILES_MAX: usize = 4096;

/// The clients of running fills.
#[derive(Debug, Default)]
pub struct Takers {
    waiting: Mutex<HashMap<Resource, Vec<IpAddr>>>,
}

impl Takers {
    /// Notes that `client` waits for `resource`.
    pub fn wait(&self, resource: &Resource, client: IpAddr) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= FILES_MAX {
            waiting.clear();
        }
        let clients = waiting.entry(resource.clone()).or_default();
        if !clients.contains(&client) && clients.len() < CLIENTS_MAX {
            clients.push(client);
        }
    }

    /// Returns who has waited for `resource` since it began to come, and forgets them.
    pub fn take(&self, resource: &Resource) -> Vec<IpAddr> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(resource).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each client is named once, for its own file, and only until it is asked for.
    #[test]
    fn takers_are_named_once() {
        let takers = Takers::default();
        let resource = |path: &str| Resource::parse(path).unwrap();
        let (one, other) = (resource("example.com/m/@v/v1.0.0.mod"), resource("example.com/m/@v/v1.0.0.zip"));
        let client: IpAddr = [192, 0, 2, 1].into();
        takers.wait(&one, client);
        takers.wait(&one, client);
        assert!(takers.take(&other).is_empty());
        assert_eq!(takers.take(&one), [client]);
        assert!(takers.take(&one).is_empty());
        for number in 0..=FILES_MAX {
            takers.wait(&resource(&format!("example.com/m/@v/v1.0.{number}.mod")), client);
        }
        assert!(takers.waiting.lock().unwrap().len() <= FILES_MAX);
    }
}
