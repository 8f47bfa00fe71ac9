//! Black-box tests: the real `larder` binary between real clients and the stand-in upstream, over real sockets.
//!
//! Each test proves the sentence that is its doc comment. [`harness`] starts and ends the processes; every file
//! beside it holds one group of promises. Nothing outside the machine is contacted, nothing waits for a fixed time.
#![expect(
    clippy::disallowed_methods,
    reason = "tests write files, read the clock and the environment themselves"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "json! values are written in place by the tests"
)]

#[cfg(test)]
mod harness;
#[cfg(test)]
mod protocol;
