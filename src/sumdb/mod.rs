//! The checksum database: what its files are called, and what they prove.
//!
//! Called by `resource`, later by the database's client; calls `module`. Pure: bytes in, verdicts out. To read as a
//! reference, in this order:
//!
//! | file | read it for |
//! | --- | --- |
//! | [`key`], [`note`] | who signs, and what a signature covers |
//! | [`hash`], [`tree`] | what a log is: leaves, nodes, complete subtrees, one root |
//! | [`head`], [`record`] | what is signed, what is looked up, and which of it counts |
//! | [`tile`], [`authentic`] | hashes in files of 256, and how each is proved by the one above it |
//! | [`proof`], [`fork`] | proofs that stand for themselves, and the evidence that a database has lied |
//! | [`check`] | all of it together: what an answer proves, and which tiles that takes |
//! | [`follow`] | the log read from record to record, and its root computed from nothing else |
//! | [`name`] | what a database is called, and what it is asked for |

pub mod authentic;
pub mod check;
pub mod follow;
pub mod fork;
#[cfg(test)]
pub(crate) mod generate;
pub mod hash;
pub mod head;
pub mod key;
pub mod name;
pub mod note;
#[cfg(test)]
pub(crate) mod oracle;
pub mod proof;
pub mod record;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_follow;
#[cfg(test)]
mod tests_oracle;
pub mod tile;
pub mod tree;

pub use hash::Hash;
pub use head::{SignedHead, TreeHead};
pub use key::VerifierKey;
pub use name::{LookupTarget, SumdbName};
pub use tile::{Tile, TileLevel};
