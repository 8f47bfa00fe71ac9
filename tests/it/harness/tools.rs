//! The programs in `tests/tools` that are written in Go, built by the first test of a run that needs them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

use super::root;

/// The oracle: Go's own libraries, to be asked what they think.
static ORACLE: LazyLock<PathBuf> = LazyLock::new(|| build("oracle"));

/// Builds the program of that name and returns where it is.
pub(super) fn build(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(root().join("tests/tools").join(name))
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local")
        .status()
        .unwrap_or_else(|error| panic!("the go command is needed to build {name}: {error}"));
    assert!(built.success(), "{name} does not build");
    program
}

/// Asks Go's own libraries one question (see `tests/tools/oracle`). An error is their verdict.
pub(crate) fn ask_oracle(question: &Value) -> Result<Value, String> {
    let mut command = Command::new(&*ORACLE);
    let mut oracle = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(oracle.stdin.take().unwrap(), "{question}").unwrap();
    let output = oracle.wait_with_output().unwrap();
    let mut answer: Value = serde_json::from_slice(&output.stdout).expect("the question makes no sense to the oracle");
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer["ok"].take()),
    }
}
