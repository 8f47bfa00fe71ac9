//! Asks Go's own libraries, through the program in `tests/tools/oracle`, what they think of the same bytes.
//!
//! Called by tests only. The program is built once a run by the go command, which these tests need.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// The program, beside the tests' own.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let program = std::env::current_exe().unwrap().with_file_name("larder-oracle");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/oracle"))
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local")
        .status()
        .expect("the go command is needed to build the oracle");
    assert!(built.success(), "the oracle does not build");
    program
});

/// A running oracle.
pub(crate) struct Oracle {
    process: Child,
    requests: Option<BufWriter<ChildStdin>>,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    pub(crate) fn start() -> Self {
        let mut process = Command::new(&*PROGRAM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let requests = Some(BufWriter::new(process.stdin.take().unwrap()));
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, requests, answers }
    }

    /// Asks one question. An error is Go's verdict.
    pub(crate) fn ask(&mut self, request: &Value) -> Result<Value, String> {
        let requests = self.requests.as_mut().unwrap();
        serde_json::to_writer(&mut *requests, request).unwrap();
        requests.write_all(b"\n").and_then(|()| requests.flush()).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let mut answer: Value = serde_json::from_str(&line).expect("the oracle ended");
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It ends with its input.
        self.requests = None;
        let _ = self.process.wait();
    }
}
