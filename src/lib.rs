//! Larder, a Go module cache for an office network.

pub mod clock;
pub mod fill;
pub mod module;
pub mod net;
pub mod resource;
pub mod shutdown;
pub mod store;
pub mod sumdb;
pub mod upstream;
