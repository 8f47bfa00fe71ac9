//! The way out: DNS servers and proxies, in networks of the tests' own.
//!
//! Nothing here leaves the namespaces that [`crate::harness::Net`] makes; without root the tests are left out.

mod blocked;
mod dns;
mod doctor;
mod ground;
mod leaks;
mod proxies;
mod proxy_faults;
mod proxy_lists;
