//! (placeholder, the lead's)
pub mod durable;
pub mod index;
