//! (placeholder, the lead's)
pub mod adopt;
pub mod durable;
pub mod gc;
pub mod index;
pub mod offline;
pub mod pins;
mod walk;
