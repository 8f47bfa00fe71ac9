//! The stand-in upstream (`tests/tools/upstream`) as a handle: built once, started on a port of its own, told to
//! misbehave, asked what it was asked.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{put, try_request};
use super::{Host, fixture, tools, wait_for};

/// The program, built by the first test that needs it.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| tools::build("upstream"));

/// One request the upstream was sent.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) method: String,
    /// As received, still percent-encoded.
    pub(crate) uri: String,
    pub(crate) kind: String,
    pub(crate) host: String,
    pub(crate) range: String,
    pub(crate) if_range: String,
    pub(crate) if_none_match: String,
    pub(crate) disable_module_fetch: String,
    pub(crate) authorization: bool,
    pub(crate) status: u16,
    /// Body bytes sent.
    pub(crate) bytes: u64,
    /// Milliseconds since the start, when it came.
    pub(crate) at_ms: f64,
}

impl Record {
    /// Returns the path asked for, decoded as the protocol needs it.
    pub(crate) fn path(&self) -> String {
        self.uri.replace("%21", "!")
    }
}

/// A running, or for the moment stopped, stand-in upstream.
pub(crate) struct Upstream {
    child: Option<Child>,
    tree: PathBuf,
    args: Vec<String>,
    host: Option<Host>,
    pub(crate) url: String,
    /// With `-https`: the address, and the file of the authority that vouches for it.
    pub(crate) https: Option<(String, String)>,
    folder: tempfile::TempDir,
}

impl Upstream {
    /// Serves the fixture tree.
    pub(crate) fn start() -> Self {
        Self::with(&fixture(), &[])
    }

    /// Serves `tree` with more flags (see `tests/tools/upstream/README.md`).
    pub(crate) fn with(tree: &Path, args: &[&str]) -> Self {
        let mut upstream = Self::new(tree, args, None);
        upstream.run("127.0.0.1:0");
        upstream
    }

    /// Serves `tree` on a host of the test's own network, on port 80 and, under these names and with an authority of its
    /// own, on 443. Its `url` leads through the host's gate: the way of the test, not Larder's.
    pub(crate) fn inside(host: &Host, names: &[&str], tree: &Path, args: &[&str]) -> Self {
        let mut upstream = Self::new(tree, args, Some(host.clone()));
        let certificates = upstream.folder.path().join("certificates");
        let hosts = names.join(",");
        let more = ["-listen-any", "-https", ":443", "-hosts", &hosts, "-certs", certificates.to_str().unwrap()];
        upstream.args.extend(more.map(str::to_owned));
        upstream.run(":80");
        upstream
    }

    fn new(tree: &Path, args: &[&str], host: Option<Host>) -> Self {
        Self {
            child: None,
            tree: tree.to_path_buf(),
            args: args.iter().map(ToString::to_string).collect(),
            host,
            url: String::new(),
            https: None,
            folder: super::temp_dir(),
        }
    }

    /// Returns the file of the authority that vouches for its names.
    pub(crate) fn authority(&self) -> &str {
        &self.https.as_ref().expect("it serves https").1
    }

    fn run(&mut self, address: &str) {
        let ready = self.folder.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        let program = PROGRAM.to_str().unwrap();
        let mut command = self.host.as_ref().map_or_else(|| Command::new(program), |host| host.command(program));
        // A test that is killed leaves no process behind for long.
        command.arg("-tree").arg(&self.tree).args(["-http", address, "-for", "15m", "-ready"]).arg(&ready);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let line = wait_for("the stand-in upstream's ready file", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the stand-in upstream ended: {ended:?}");
            std::fs::read(&ready).ok()
        });
        let line: Value = serde_json::from_slice(&line).unwrap();
        let part = |name: &str| line[name].as_str().map(str::to_owned);
        self.url = match &self.host {
            Some(host) => format!("http://{}", host.gate()),
            None => part("http").unwrap(),
        };
        self.https = part("https").zip(part("ca"));
    }

    /// Returns the address it listens on.
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Ends it: from now on connections to its port are refused.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the port it had; its log and its rules begin anew.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let address = if self.host.is_some() { ":80".to_owned() } else { self.address().to_owned() };
        self.run(&address);
    }

    fn control(&self, method: Method, path: &str) -> Value {
        let answer = try_request(method, &format!("{}/_/{path}", self.url), &[]).unwrap();
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// Replaces the fault rules.
    pub(crate) fn faults(&self, rules: Value) {
        let answer = put(&format!("{}/_/faults", self.url), rules.to_string()).unwrap();
        assert!((200..300).contains(&answer.status), "the rules are refused: {}", answer.text());
    }

    /// Returns the finished requests so far, in the order they ended.
    pub(crate) fn log(&self) -> Vec<Record> {
        serde_json::from_value(self.control(Method::GET, "log")).unwrap()
    }

    /// Returns the finished requests for one path (unencoded, with its leading slash).
    pub(crate) fn log_of(&self, path: &str) -> Vec<Record> {
        self.log().into_iter().filter(|record| record.path() == path).collect()
    }

    /// Returns how many body bytes were sent for one path.
    pub(crate) fn bytes_of(&self, path: &str) -> u64 {
        self.log_of(path).iter().map(|record| record.bytes).sum()
    }

    /// Returns how many requests it has finished.
    pub(crate) fn requests(&self) -> u64 {
        self.stats()["requests"].as_u64().unwrap()
    }

    /// Returns its counters.
    pub(crate) fn stats(&self) -> Value {
        self.control(Method::GET, "stats?paths=1")
    }

    /// Returns how many requests are running.
    pub(crate) fn in_flight(&self) -> u64 {
        self.stats()["in_flight"].as_u64().unwrap()
    }

    /// Forgets the log and the counters.
    pub(crate) fn reset(&self) {
        self.control(Method::POST, "reset");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}
