//! Black-box tests: the real `larder` binary between real clients and the stand-in upstream, over real sockets.
//!
//! Each test proves the sentence that is its doc comment. [`harness`] starts and ends the processes; every file
//! beside it holds one group of promises. Nothing outside the machine is contacted, nothing waits for a fixed time.
#![expect(clippy::disallowed_methods, reason = "tests write files, read the clock and the environment themselves")]
#![expect(clippy::needless_pass_by_value, reason = "json! values are written in place by the tests")]
#![expect(clippy::case_sensitive_file_extension_comparisons, reason = "names in the protocol are case-sensitive")]

#[cfg(test)]
mod clients;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod fills;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod housekeeping;
#[cfg(test)]
mod offline;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod startup;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod upstreams;
#[cfg(test)]
mod way_out;
