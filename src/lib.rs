//! Larder, a Go module cache for an office network.

pub mod app;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod fill;
pub mod housekeeping;
pub mod logging;
pub mod module;
pub mod net;
pub mod progress;
pub mod resource;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod sumdb;
pub mod upstream;
