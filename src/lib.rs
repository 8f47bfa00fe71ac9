//! Larder, a Go module cache for an office network.

pub mod clock;
pub mod fill;
pub mod net;
pub mod server;
pub mod shutdown;
