//! Larder, a Go module cache for an office network.

pub mod clock;
pub mod net;
pub mod shutdown;
