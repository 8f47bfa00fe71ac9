//! Larder, a Go module cache for an office network.

pub mod cli;
pub mod clock;
pub mod config;
pub mod fill;
pub mod net;
