//! Networks: which clients are meant, and what of an address may be shown.

pub mod cidr;
pub mod redacted;
