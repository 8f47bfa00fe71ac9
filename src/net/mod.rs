//! The network below HTTP.

pub mod cidr;
