//! The checksum database: what its files are called. (Verifying them comes with its client.)
//!
//! Called by `resource`; calls `module`. Pure.

pub mod name;
pub mod tile;

pub use name::{LookupTarget, SumdbName};
pub use tile::{Tile, TileLevel};
