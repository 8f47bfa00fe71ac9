//! The checksum database of the tests (`tests/tools/testsumdb`) as a handle: built once, started over a tree, told to
//! lie, asked what it was asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Answer, put, try_request};
use super::{fixture, root, tools, wait_for};

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| tools::build("testsumdb"));

/// A running, or for the moment stopped, checksum database.
pub(crate) struct Sumdb {
    child: Option<Child>,
    tree: PathBuf,
    args: Vec<String>,
    /// Where it answers.
    pub(crate) url: String,
    /// Its verifier key, in the notation of `GOSUMDB`.
    pub(crate) key: String,
    /// Its name.
    pub(crate) name: String,
    /// The records of its honest log.
    pub(crate) size: u64,
    folder: tempfile::TempDir,
}

impl Sumdb {
    /// Logs the fixture tree.
    pub(crate) fn start() -> Self {
        Self::over(&fixture(), &[])
    }

    /// Logs `tree`, with more flags (see `tests/tools/testsumdb/README.md`).
    pub(crate) fn over(tree: &Path, args: &[&str]) -> Self {
        let mut sumdb = Self {
            child: None,
            tree: tree.to_path_buf(),
            args: args.iter().map(ToString::to_string).collect(),
            url: String::new(),
            key: String::new(),
            name: String::new(),
            size: 0,
            folder: super::temp_dir(),
        };
        sumdb.run("127.0.0.1:0");
        sumdb
    }

    fn run(&mut self, address: &str) {
        let ready = self.folder.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        let mut command = Command::new(&*PROGRAM);
        // A test that is killed leaves no process behind for long.
        command.arg("-tree").arg(&self.tree).args(["-http", address, "-for", "15m", "-ready"]).arg(&ready);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let line = wait_for("the checksum database's ready file", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the checksum database ended: {ended:?}");
            std::fs::read(&ready).ok()
        });
        let line: Value = serde_json::from_slice(&line).unwrap();
        let part = |name: &str| line[name].as_str().unwrap().to_owned();
        (self.url, self.key, self.name) = (part("url"), part("vkey"), part("name"));
        self.size = line["size"].as_u64().unwrap();
    }

    /// Returns the value of `-gosumdb` that has it asked directly.
    pub(crate) fn flag(&self) -> String {
        format!("{} {}", self.key, self.url)
    }

    /// Returns the value of `-gosumdb` that has it asked at an upstream which was given [`Self::behind`].
    pub(crate) fn flag_at(&self, upstream: &str) -> String {
        format!("{} {upstream}/sumdb/{}", self.key, self.name)
    }

    /// Returns the value of the stand-in upstream's `-sumdb` that has it pass this one on.
    pub(crate) fn behind(&self) -> String {
        format!("{}={}", self.name, self.url)
    }

    /// Returns the path below a proxy of one of its files.
    pub(crate) fn path(&self, file: &str) -> String {
        format!("/sumdb/{}/{file}", self.name)
    }

    /// Sets how it behaves (see `tests/tools/testsumdb/README.md`).
    pub(crate) fn mode(&self, mode: Value) {
        let answer = put(&format!("{}/_/mode", self.url), mode.to_string()).unwrap();
        assert_eq!(answer.status, 200, "{mode} is refused: {}", answer.text());
    }

    /// Has it tell the truth from now on.
    pub(crate) fn honest(&self) {
        self.mode(json!({"mode": "honest"}));
    }

    /// GETs one of its files, past everybody else.
    pub(crate) fn get(&self, file: &str) -> Answer {
        try_request(Method::GET, &format!("{}/{file}", self.url), &[]).unwrap()
    }

    /// Returns the number of a module version's record.
    pub(crate) fn number(&self, module: &str) -> u64 {
        let answer = self.get(&format!("lookup/{module}")).expect(200);
        answer.text().lines().next().unwrap().parse().unwrap()
    }

    /// Returns the two hashes that the log has for a module version, of the zip and of the go.mod file.
    pub(crate) fn hashes(&self, module: &str) -> [String; 2] {
        let answer = self.get(&format!("lookup/{module}")).expect(200);
        let mut hashes = answer.text().lines().skip(1).map(|line| line.rsplit(' ').next().unwrap().to_owned());
        [(); 2].map(|()| hashes.next().unwrap())
    }

    /// Returns how often it was asked for what, by path below its own address.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let answer = try_request(Method::GET, &format!("{}/_/counts", self.url), &[]).unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Returns how often it was asked for paths that contain `part`.
    pub(crate) fn asked(&self, part: &str) -> u64 {
        self.counts().iter().filter(|(path, _)| path.contains(part)).map(|(_, count)| count).sum()
    }

    /// Forgets what it was asked.
    pub(crate) fn forget(&self) {
        try_request(Method::DELETE, &format!("{}/_/counts", self.url), &[]).unwrap();
    }

    /// Ends it: from now on connections to its port are refused.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the port it had, honest, with its counters at zero.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let address = self.url.strip_prefix("http://").unwrap().to_owned();
        self.run(&address);
    }
}

impl Drop for Sumdb {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the key of the public checksum database, whose recorded data the fixture tree holds.
pub(crate) fn public_key() -> String {
    std::fs::read_to_string(root().join("tests/fixtures/sumdb-key.txt")).unwrap().trim().to_owned()
}
