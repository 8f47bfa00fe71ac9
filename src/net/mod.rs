//! The way out: names to addresses, addresses to connections, connections to HTTP answers.
//!
//! `egress` uses `resolver`, `resolver` uses `dial`, and `dial` knows addresses only; that order is what keeps
//! DNS over HTTPS and proxies by name from becoming a circle. `cidr` and `redacted` are plain values: which clients are
//! meant, and what of an address may be shown.

pub mod bootstrap;
pub mod candidates;
pub mod cidr;
pub mod dial;
pub mod dns;
pub mod egress;
pub mod interfaces;
pub mod proxy;
pub mod redacted;
pub mod resolver;
pub mod stream;
pub mod target;
pub mod tls;
