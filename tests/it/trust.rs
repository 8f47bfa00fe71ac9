//! The checksum database: proxied, believed only as far as it proves what it says, remembered when it lies.
//!
//! The database of the tests is a real log with a key of its own (`tests/tools/testsumdb`), except where the recorded data
//! of the public one is used, which the stand-in upstream serves. This file holds what the groups below share.

mod audit;
mod clients;
mod commands;
mod forks;
mod heads;
mod holes;
mod judging;
mod late;
mod lies;
mod private;
mod serving;
mod zips;

use std::process::Output;

use crate::harness::{Answer, Larder, Start, Sumdb, Tree, Upstream, files_below, wait_for};

/// The module versions of the usual ground.
const A: &str = "example.com/a@v1.0.0";
const B: &str = "example.com/b@v1.0.0";
const C: &str = "example.com/c@v1.0.0";

/// A zip of this many bytes of noise is whole in what a reader is not given before the verdict.
const SMALL: usize = 500;
/// One of this many is given to readers while it comes.
const LARGE: usize = 100_000;
/// What of a zip nobody gets before its verdict, in bytes.
const WITHHELD: usize = 4096;

/// A tree, an upstream that serves it, and a database that has logged it.
struct Ground {
    tree: Tree,
    upstream: Upstream,
    sumdb: Sumdb,
}

impl Ground {
    /// Three modules of one version each, with small zips; the database with these flags.
    fn new(args: &[&str]) -> Self {
        Self::over(modules(&[A, B, C], SMALL), args)
    }

    /// Any tree, logged and served.
    fn over(tree: Tree, args: &[&str]) -> Self {
        let (upstream, sumdb) = (Upstream::with(tree.path(), &[]), Sumdb::over(tree.path(), args));
        Self { tree, upstream, sumdb }
    }

    /// A Larder in front of them, which asks the database directly.
    fn start(&self) -> Start {
        Start::on(&self.upstream).args(["-gosumdb", &self.sumdb.flag(), "-retry-attempts", "2"])
    }

    /// The same that refuses what it cannot judge.
    fn strict(&self) -> Start {
        self.start().args(["-sumdb-mode", "strict"])
    }

    /// Returns a file of a module version as the upstream has it.
    fn truth(&self, module: &str, kind: &str) -> Vec<u8> {
        self.tree.read(&file(module, kind))
    }
}

/// Makes a tree of these module versions, whose zips hold so many bytes of noise.
fn modules(versions: &[&str], bytes: usize) -> Tree {
    versions.iter().fold(Tree::new(), |tree, module| {
        let (path, version) = module.split_once('@').unwrap();
        tree.module(path, version, bytes)
    })
}

/// Returns the path of a file of a module version, written `PATH@VERSION`.
fn file(module: &str, kind: &str) -> String {
    let (path, version) = module.split_once('@').unwrap();
    format!("/{path}/@v/{version}.{kind}")
}

/// Returns the path of a module version's lookup.
fn lookup(sumdb: &Sumdb, module: &str) -> String {
    sumdb.path(&format!("lookup/{module}"))
}

/// Fetches a file of a module version and asserts that it is the true one.
#[track_caller]
fn get_true(larder: &Larder, ground: &Ground, module: &str, kind: &str) -> Answer {
    let answer = larder.get(&file(module, kind)).expect(200);
    assert!(answer.body == ground.truth(module, kind), "{module} {kind} is another one");
    answer
}

/// Waits until a file is stored under its final name.
#[track_caller]
fn stored(larder: &Larder, module: &str, kind: &str) {
    wait_for(&format!("{module} {kind} to be stored"), || larder.has(&file(module, kind)).then_some(()));
}

/// Asserts that nothing is stored whose path holds one of these parts.
#[track_caller]
fn assert_nothing_of(larder: &Larder, parts: &[&str]) {
    let names: Vec<_> = files_below(&larder.cache).into_iter().map(|(path, _)| path.display().to_string()).collect();
    let found: Vec<_> = names.iter().filter(|name| parts.iter().any(|part| name.contains(part))).collect();
    assert!(found.is_empty(), "stored: {found:?}");
}

/// Asks for a zip that must not be had, and asserts that its last bytes are not. Returns the error's text if there is one:
/// where a part has been sent before the verdict, the connection is broken off instead.
#[track_caller]
fn refused_zip(larder: &Larder, module: &str, zip: &[u8]) -> Option<String> {
    match larder.try_get(&file(module, "zip")) {
        Ok(answer) => {
            let answer = answer.expect(502);
            Some(answer.text().to_owned())
        }
        Err(error) => {
            let got = error.strip_prefix("after ").and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
            let got = got.unwrap_or_else(|| panic!("{module}: {error}"));
            assert!(got + WITHHELD <= zip.len(), "{module}: {got} of {} bytes", zip.len());
            None
        }
    }
}

/// One alarm, as `/health` tells it.
#[derive(Debug, Clone)]
struct Alarm {
    id: u64,
    kind: String,
    subject: String,
    text: String,
}

/// Returns the open alarms.
fn alarms(larder: &Larder) -> Vec<Alarm> {
    let health = health(larder);
    let list = health["alarms"].as_array().unwrap_or_else(|| panic!("no alarms in {health}"));
    let part = |alarm: &serde_json::Value, name: &str| {
        alarm[name].as_str().unwrap_or_else(|| panic!("no {name} in {alarm}")).to_owned()
    };
    let alarm = |alarm: &serde_json::Value| Alarm {
        id: alarm["id"].as_u64().unwrap_or_else(|| panic!("no id in {alarm}")),
        kind: part(alarm, "kind"),
        subject: part(alarm, "subject"),
        text: part(alarm, "text"),
    };
    list.iter().map(alarm).collect()
}

/// Waits for an open alarm of this kind.
#[track_caller]
fn alarm_of(larder: &Larder, kind: &str) -> Alarm {
    wait_for(&format!("an alarm of kind {kind}"), || alarms(larder).into_iter().find(|alarm| alarm.kind == kind))
}

/// Returns what `/health` says.
fn health(larder: &Larder) -> serde_json::Value {
    serde_json::from_slice(&larder.get("/health").expect(200).body).unwrap()
}

/// Returns how many files wait for their verdict.
fn unverified(larder: &Larder) -> u64 {
    let health = health(larder);
    health["unverified"].as_u64().unwrap_or_else(|| panic!("no number of unverified files in {health}"))
}

/// Returns what a command printed, and its exit code.
fn printed(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned();
    (output.status.code().unwrap_or_else(|| panic!("it was killed: {text}")), text)
}

/// Runs a subcommand beside the running service and asserts its exit code; returns what it printed.
#[track_caller]
fn command(larder: &Larder, args: &[&str], expected: i32) -> String {
    let (code, text) = printed(&larder.command(args));
    assert_eq!(code, expected, "larder {}: {text}", args.join(" "));
    text
}
