//! Holds the source to the shape ARCHITECTURE.md draws: which module may use which, and how long a file may be.
//!
//! Reads the files under `src/` and `tests/` as text; calls nothing of Larder. A new edge is a decision: it is added
//! to the table here and to the drawing there in one commit.

use std::path::{Path, PathBuf};

/// Each module and those it may use, from the top of the drawing to its ground.
///
/// `config` composes the lower modules' own configurations and is used by those at the top alone.
const MAY_USE: [(&str, &[&str]); 21] = [
    ("app", &ALL_BELOW_APP),
    ("doctor", &["check", "clock", "net", "store", "upstream"]),
    (
        "control",
        &["cache", "clock", "fill", "housekeeping", "module", "shutdown", "store", "sumdb", "upstream", "verify"],
    ),
    ("progress", &["fill", "module"]),
    ("housekeeping", &["cache", "clock", "fill", "shutdown", "store"]),
    ("server", &["cache", "check", "clock", "fill", "module", "net", "resource", "shutdown", "store", "verify"]),
    ("cache", &["clock", "fill", "module", "resource", "shutdown", "store", "sumdb", "upstream", "verify"]),
    ("fill", &["clock", "module", "net", "resource", "shutdown", "store", "upstream", "verify"]),
    ("verify", &["clock", "module", "resource", "shutdown", "store", "sumdb", "upstream"]),
    ("upstream", &["clock", "module", "net", "resource", "shutdown", "store"]),
    ("store", &["clock", "module", "resource", "shutdown", "sumdb"]),
    ("net", &["check", "clock", "shutdown"]),
    ("cli", &["config"]),
    ("config", &["module", "net", "sumdb"]),
    ("logging", &[]),
    ("resource", &["module", "sumdb"]),
    ("sumdb", &["module"]),
    ("module", &[]),
    ("check", &[]),
    ("shutdown", &["clock"]),
    ("clock", &[]),
];

const ALL_BELOW_APP: [&str; 20] = [
    "cache",
    "check",
    "cli",
    "clock",
    "config",
    "control",
    "doctor",
    "fill",
    "housekeeping",
    "logging",
    "module",
    "net",
    "progress",
    "resource",
    "server",
    "shutdown",
    "store",
    "sumdb",
    "upstream",
    "verify",
];

/// A file above this is two files, in lines; tests do not count.
const FILE_LINES_MAX: usize = 500;

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Returns the text without its tests, which may use anything.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// Returns the names that follow `crate::` outside comments.
fn used_modules(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut used: Vec<String> = code
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect())
        .collect();
    used.sort();
    used.dedup();
    used
}

/// Every module uses only what the drawing lets it use.
#[test]
fn modules_use_what_stands_below_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in rust_files(&source) {
        let below = file.strip_prefix(&source).unwrap();
        let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        let is_test =
            below.file_stem().unwrap().to_str().unwrap().starts_with("tests") || below.ends_with("generate.rs");
        if module == "lib" || module == "main" || is_test {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{module}: not in the drawing"));
            continue;
        };
        for used in used_modules(without_tests(&text)) {
            if used != module && MAY_USE.iter().any(|(name, _)| *name == used) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: uses {used}", below.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What only one module may do is written in that module alone; `clippy.toml` says the same to the compiler.
#[test]
fn invariant_8_time_files_environment_and_tasks_have_one_owner() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (what, owners) in [
        ("SystemTime::now(", &["clock.rs"][..]),
        ("Instant::now(", &["clock.rs"]),
        ("tokio::spawn(", &["shutdown.rs"]),
        ("env::var", &["config", "main.rs"]),
        ("fs::write(", &["store"]),
        ("fs::rename(", &["store"]),
        ("fs::remove_dir_all(", &["store"]),
    ] {
        for file in rust_files(&source) {
            let below = file.strip_prefix(&source).unwrap().to_str().unwrap();
            let is_test = file.file_stem().unwrap().to_str().unwrap().starts_with("test");
            let is_owner = owners.iter().any(|owner| below.starts_with(owner));
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(is_owner || is_test || !without_tests(&text).contains(what), "{below}: {what}");
        }
    }
}

/// Every invariant of ARCHITECTURE.md has a test that carries its number.
#[test]
fn every_invariant_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [rust_files(&root.join("src")), rust_files(&root.join("tests"))].concat();
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let drawing = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let section = drawing.split("## Invariants").nth(1).unwrap().split("\n## ").next().unwrap();
    let numbers: Vec<_> = section.lines().filter_map(|line| line.split_once(". ")?.0.parse::<u32>().ok()).collect();
    assert!(numbers.len() >= 11, "{numbers:?}");
    for number in numbers {
        assert!(text.contains(&format!("fn invariant_{number}_")), "invariant {number} has no test");
    }
}

/// What is pure knows neither the runtime nor the log nor the network.
#[test]
fn pure_modules_are_pure() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&source);
    for file in &files {
        let below = file.strip_prefix(&source).unwrap().to_str().unwrap();
        if ["module", "sumdb", "resource"].iter().any(|pure| below.starts_with(pure)) {
            let text = std::fs::read_to_string(file).unwrap();
            for foreign in ["tokio::", "log::", "hyper", "sled::", "std::net"] {
                assert!(!without_tests(&text).contains(foreign), "{below} uses {foreign}");
            }
        }
    }
}

/// Every file says at its top what it owns, and none is longer than a person wants to read.
#[test]
fn files_begin_with_a_header_and_end_in_time() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [rust_files(&root.join("src")), rust_files(&root.join("tests"))].concat() {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} has no header", file.display());
        let is_test =
            file.starts_with(root.join("src")) && file.file_stem().unwrap().to_str().unwrap().starts_with("tests");
        let lines = if is_test { 0 } else { without_tests(&text).lines().count() };
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", file.display());
    }
}
