//! The way out: names to addresses, addresses to connections, connections to HTTP answers.
//!
//! Each of these uses those before it, which is what keeps DNS over HTTPS and proxies by name from becoming a circle:
//! `dial` (addresses only), `tls`, `dns` (one server), `bootstrap` (names of servers and proxies), `proxy`, `resolver`,
//! `egress`. `candidates` decides for DNS servers and proxies alike which of several is asked; `target` and `stream` are
//! what all speak of. `cidr` and `redacted` are plain values: which clients are meant, and what of an address may be shown;
//! `interfaces` lists the networks of this machine.

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
