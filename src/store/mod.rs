//! (placeholder, the lead's)
pub mod adopt;
pub mod durable;
pub mod gc;
pub mod index;
pub mod offline;
pub mod pins;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod testing;
mod walk;
