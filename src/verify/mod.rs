//! Verification against the checksum database: what is asked, proved, stored.

pub mod audit;
