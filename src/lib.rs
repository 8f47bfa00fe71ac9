//! Larder, a Go module cache for an office network.
//!
//! The URL tree of the GOPROXY protocol, the directory tree of Go's own download cache and the type that names a thing
//! are the same tree. Once a request has become a [`resource::Resource`], all that is left is to find its file, or to
//! fetch it once for everybody. `ARCHITECTURE.md` draws that, lists the invariants and tells one download step by step.
//!
//! # Reading order
//! From the idea to what surrounds it. Each file says at its top what it owns, who calls it and what it calls.
//!
//! | module | read it for |
//! | --- | --- |
//! | [`resource`] | what a URL names and a file holds: parsed from the one, printed as the other |
//! | [`module`], [`sumdb`] | what such names are made of: paths, versions, escapes, patterns, zips; tiles, and the proofs in them. Pure |
//! | [`cache`] | what happens to a request: one function for each class of resource, every error and its status |
//! | [`fill`] | one running download per resource: who follows it, in which pieces it comes, who judges it |
//! | [`verify`] | what the public log says of it: one database asked and proved, verdicts, what is judged later |
//! | [`store`] | the tree, unfinished downloads, the index beside it, pins, adoption, removal |
//! | [`upstream`] | whom to ask, in which order, how often, and what each answer means |
//! | [`net`] | the way out: names, connections, TLS, HTTP; and what of an address may be shown |
//! | [`server`] | the way in: who may ask and how many, handler, answers, sendfile |
//! | [`doctor`], [`check`] | what is wrong with the way out, step by step, and what to change |
//! | [`housekeeping`], [`control`], [`progress`] | what goes on beside requests: removal, subcommands, bars |
//! | [`cli`], [`config`] | arguments, and one table of settings with its four sources |
//! | [`app`] | how all of it is put together, and the order in which it stops |
//! | [`clock`], [`shutdown`], [`logging`] | the ground: time, tasks, lines |
//!
//! A module uses what stands below it in the drawing of `ARCHITECTURE.md`; `tests/it/tidy.rs` holds every edge. What no
//! module may do (read the clock, write a file, spawn a task outside of its place) is in `clippy.toml`.

pub mod resource;

pub mod module;
pub mod sumdb;

pub mod cache;

pub mod fill;

pub mod verify;

pub mod store;
pub mod upstream;

pub mod net;
pub mod server;

pub mod control;
pub mod doctor;
pub mod housekeeping;
pub mod progress;

pub mod cli;
pub mod config;

pub mod app;

pub mod check;
pub mod clock;
pub mod logging;
pub mod shutdown;
