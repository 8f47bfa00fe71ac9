//! Larder, a Go module cache for an office network.

pub mod clock;
pub mod fill;
pub mod module;
pub mod resource;
pub mod store;
pub mod sumdb;
