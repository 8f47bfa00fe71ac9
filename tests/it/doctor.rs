//! `larder doctor` against each fault that can be made on one machine: it names it, and says what to change.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{Authority, FakeClock, Larder, Start, Tmpfs, Upstream, files_below, json, temp_dir};

mod network;
mod servers;

/// What one run has printed, and how it ended.
struct Report {
    text: String,
    code: Option<i32>,
}

/// Runs it with these flags, and nothing of the test's own environment.
fn doctor(args: &[&str]) -> Report {
    report(&command(args).output().unwrap())
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(["doctor", "-port", "0", "-min-free-space", "0", "-listen", "127.0.0.1"]).args(args);
    command.env_clear().stdin(Stdio::null());
    if !args.contains(&"-gosumdb") {
        command.args(["-gosumdb", "off"]);
    }
    if !args.contains(&"-cache") {
        command.args(["-cache", "/nonexistent/larder"]);
    }
    command
}

fn report(output: &Output) -> Report {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{text}");
    Report { text, code: output.status.code() }
}

impl Report {
    /// Asserts that there is a line with this mark and step that holds, together with its hint, all of `words`.
    #[track_caller]
    fn expect(&self, mark: &str, step: &str, words: &[&str]) -> &Self {
        let lines: Vec<&str> = self.text.lines().collect();
        let found = lines.iter().enumerate().any(|(index, line)| {
            let hint = lines.get(index + 1).filter(|next| next.starts_with(' ')).unwrap_or(&"");
            line.starts_with(&format!("{mark:4} {step:17} "))
                && words.iter().all(|word| line.contains(word) || hint.contains(word))
        });
        assert!(found, "{mark} {step} {words:?} is not in\n{}", self.text);
        self
    }

    /// Asserts that something failed, or that nothing did.
    #[track_caller]
    fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }
}

/// When all is well each step says so, nothing is left in the cache directory, and the code is 0.
#[test]
fn all_is_well() {
    let (upstream, folder) = (Upstream::start(), temp_dir());
    let list = format!("{},file://{}", upstream.url, crate::harness::fixture().display());
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    let report = doctor(&["-upstream", &list, "-cache", cache.to_str().unwrap()]);
    report
        .expect("ok", "configuration", &["in order"])
        .expect("ok", "clock", &["UTC"])
        .expect("skip", "proxy", &["directly"])
        .expect("ok", "upstream", &[&upstream.url, "answers 200", " ms"])
        .expect("ok", "upstream", &["file://", "can be read"])
        .expect("ok", "clock", &["agrees with", &upstream.url])
        .expect("skip", "checksum database", &["off"])
        .expect("ok", "disk", &["can be written to"])
        .expect("ok", "disk", &["free"])
        .ends(0);
    assert!(report.text.ends_with("all is well\n") && !report.text.contains("hint"), "{}", report.text);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
}

/// It needs no service, and one that runs is not disturbed: its lock stays, its files stay.
#[test]
fn beside_a_running_service() {
    let upstream = Upstream::start();
    let larder = Start::on(&upstream).run();
    larder.hit("/rsc.io/quote/@v/v1.5.2.mod");
    let before = files_below(&larder.cache);
    let port = larder.address().port().to_string();
    let report = doctor(&["-upstream", &upstream.url, "-cache", larder.cache.to_str().unwrap(), "-port", &port]);
    report.expect("ok", "disk", &["can be written to"]).expect("ok", "lan", &["larder", "answers on port"]).ends(0);
    report.expect("ok", "lan", &["export GOPROXY=", &larder.url]);
    assert_eq!(files_below(&larder.cache), before);
    assert_eq!(larder.partials(), Vec::<std::path::PathBuf>::new());
    larder.get("/rsc.io/quote/@v/v1.5.2.mod").expect(200);
}

/// `--json` is one object: whether all is well, and each check with its step, subject, outcome, text, hint and time.
#[test]
fn as_json() {
    let upstream = Upstream::start();
    let list = format!("{},http://127.0.0.1:1", upstream.url);
    let report = doctor(&["--json", "-upstream", &list]);
    report.ends(1);
    let value: Value = serde_json::from_str(&report.text).unwrap();
    assert_eq!(value["ok"], false);
    let checks = value["checks"].as_array().unwrap();
    for check in checks {
        assert!(check["step"].is_string() && check["subject"].is_string() && check["text"].is_string(), "{check}");
        assert!(["pass", "warn", "fail", "skip"].contains(&check["outcome"].as_str().unwrap()), "{check}");
    }
    let of = |subject: &str| checks.iter().find(|check| check["subject"] == subject).unwrap();
    assert!(of(&upstream.url)["outcome"] == "pass" && of(&upstream.url)["ms"].is_number());
    let failed = of("http://127.0.0.1:1");
    assert!(failed["outcome"] == "fail" && failed["hint"].as_str().unwrap().contains("-upstream"), "{failed}");
}

/// Roots of a variable that are of no use are found out where the configuration is looked at.
#[test]
fn useless_roots() {
    let output = command(&["-upstream", "off"]).env("SSL_CERT_FILE", "/nonexistent/ca.pem").output().unwrap();
    let words = ["SSL_CERT_FILE: /nonexistent/ca.pem", "No such file", "root certificates"];
    report(&output).expect("warn", "configuration", &words);
}

/// A mistake in the configuration is the first finding and the last, in either form.
#[test]
fn mistakes_in_the_configuration() {
    let folder = temp_dir();
    let not_pem = folder.path().join("not.pem");
    std::fs::write(&not_pem, "no certificate\n").unwrap();
    let not_pem = not_pem.to_str().unwrap();
    for (args, word) in [
        (["-upstream", "ftp://example.com"], "upstream"),
        (["-config", "/nonexistent/config.yaml"], "/nonexistent/config.yaml"),
        (["-ca", not_pem], not_pem),
    ] {
        let report = doctor(&args);
        report.expect("FAIL", "configuration", &[word]).ends(1);
        assert!(!report.text.contains("disk") && !report.text.contains("clock"), "{}", report.text);
        let report = doctor(&[&["--json"], &args[..]].concat());
        let value: Value = serde_json::from_str(&report.text).unwrap();
        assert!(report.code == Some(1) && value["checks"][0]["outcome"] == "fail", "{}", report.text);
    }
}

/// A cache directory that cannot be used is told with the reason and what to do.
#[test]
fn disks() {
    let upstream = Upstream::start();
    let look = |cache: &Path| doctor(&["-upstream", &upstream.url, "-cache", cache.to_str().unwrap()]);
    let folder = temp_dir();
    look(&folder.path().join("a/b")).expect("ok", "disk", &["not there yet"]).ends(0);
    std::fs::write(folder.path().join("file"), "").unwrap();
    look(&folder.path().join("file")).expect("FAIL", "disk", &["not a folder", "-cache"]).ends(1);
    let Some(disk) = Tmpfs::mount(64 << 20) else { return };
    let remount = |options| {
        let done = Command::new("mount").args(["-o", options]).arg(disk.path()).status().unwrap();
        assert!(done.success());
    };
    remount("remount,ro");
    look(disk.path()).expect("FAIL", "disk", &["Read-only file system", "mounted read-only"]).ends(1);
    remount("remount,rw");
    disk.fill(&disk.path().join("full"));
    look(disk.path()).expect("FAIL", "disk", &["cannot be written to", "make room"]).ends(1);
}

/// A folder that belongs to somebody else is told with both users.
#[test]
fn a_disk_of_somebody_else() {
    if !rustix::process::geteuid().is_root() {
        println!("left out, it needs root");
        return;
    }
    let upstream = Upstream::start();
    // Somewhere every user comes to.
    let cache = tempfile::Builder::new().prefix("larder-").tempdir_in("/tmp").unwrap();
    std::os::unix::fs::chown(cache.path(), Some(1), Some(1)).unwrap();
    let path = cache.path().to_str().unwrap();
    let args = ["doctor", "-port", "0", "-upstream", &upstream.url, "-cache", path, "-min-free-space", "0"];
    let as_nobody = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(copied_binary(cache.path()))
        .args(args)
        .output()
        .unwrap();
    report(&as_nobody).expect("FAIL", "disk", &["Permission denied", "user 1", "user 65534"]).ends(1);
    let as_root = doctor(&args[3..]);
    as_root.expect("ok", "disk", &["by root", "belongs to user 1"]).ends(0);
}

/// The build's folder may be closed to other users.
fn copied_binary(folder: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let copy = folder.join("larder-under-test");
    std::fs::copy(env!("CARGO_BIN_EXE_larder"), &copy).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

/// A port that another program has is told; one that is free is no fault.
#[test]
fn ports() {
    let upstream = Upstream::start();
    let taken = servers::Silent::start();
    let port = taken.address.port().to_string();
    doctor(&["-upstream", &upstream.url, "-port", &port])
        .expect("FAIL", "lan", &["another program", &port, "-port"])
        .ends(1);
    drop(taken);
    doctor(&["-upstream", &upstream.url, "-port", &port]).expect("skip", "lan", &["nothing listens", &port]).ends(0);
    let foreign = doctor(&["-upstream", &upstream.url, "-listen", "192.0.2.254"]);
    foreign.expect("FAIL", "lan", &["192.0.2.254 is not an address of this machine", "-listen"]).ends(1);
}

/// A clock that is years behind is told by itself and by what an upstream says, though its certificate cannot be
/// believed at that time.
#[test]
fn a_clock_that_is_wrong() {
    let Some(clock) = FakeClock::new() else { return };
    let Some(authority) = Authority::new("Authority") else { return };
    let server = servers::Tls::start(&authority.sign(&["localhost"]));
    clock.set("2020-01-01 00:00:00");
    let ca = authority.file();
    let mut command = command(&["-ca", ca.to_str().unwrap(), "-upstream", &server.url("localhost")]);
    for (name, value) in clock.environment() {
        command.env(name, value);
    }
    let report = report(&command.output().unwrap());
    report
        .expect("FAIL", "clock", &["2020-01-01", "before", "timedatectl"])
        .expect("FAIL", "tls", &["not valid before 2024-01-01", "for localhost until 2050-01-01", "clock"])
        .ends(1);
}

/// `/health?verbose` adds the latest state of the same steps; `/health` stays as it was.
#[test]
fn health_in_full() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    larder.get("/rsc.io/quote/@v/v1.5.2.mod").expect(200);
    let of = |path: &str| -> Value { serde_json::from_slice(&larder.get(path).expect(200).body).unwrap() };
    let (short, mut long) = (of("/health"), of("/health?verbose"));
    let checks = long.as_object_mut().unwrap().remove("checks").unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&short), keys(&long));
    let outcome = |step: &str| {
        let found = checks.as_array().unwrap().iter().find(|check| check["step"] == step);
        found.unwrap_or_else(|| panic!("{step}: {checks}"))["outcome"].clone()
    };
    assert_eq!((outcome("clock"), outcome("upstream"), outcome("disk")), (json!("pass"), json!("pass"), json!("pass")));
}
