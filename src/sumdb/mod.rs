//! The checksum database: what its files are called. (Verifying them comes with its client.)
//!
//! Called by `resource`; calls nothing. Pure.

pub mod tile;

pub use tile::{Tile, TileLevel};
