//! What `larder doctor` says about servers that speak TLS wrongly, in its form for scripts; `doctor.rs` has the rest.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::harness::{Authority, Certificate, Fault, Process, Relay, Start, Upstream, fixture, temp_dir};

/// One line of doctor's report.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Check {
    step: String,
    subject: String,
    outcome: String,
    text: String,
    hint: String,
}

#[derive(Deserialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// Runs doctor and returns its report, whose verdict must be its exit code.
#[track_caller]
fn doctor(start: Start) -> Report {
    let output = start.subcommand(&["doctor", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.code(), Some(i32::from(!report.ok)), "{text}");
    assert!(!text.contains("Swordfish"), "a password: {text}");
    report
}

/// Fails unless a check of this step about this subject failed, saying this and advising that.
#[track_caller]
fn assert_named(what: &str, report: &Report, step: &str, subject: &str, said: &str, advised: &str) {
    let found = report.checks.iter().find(|check| check.step == step && check.outcome == "fail");
    let Some(check) = found else { panic!("{what}: nothing is wrong with {step}: {:?}", report.checks) };
    let all = format!("{}: {}", check.subject, check.text);
    assert!(all.contains(subject) && all.contains(said), "{what}: {check:?}");
    assert!(check.hint.contains(advised), "{what}: {check:?}");
}

/// A server on loopback that shows a certificate and no more.
struct Tls {
    #[expect(dead_code, reason = "it runs until the end")]
    process: Process,
    address: String,
    #[expect(dead_code, reason = "it holds the log")]
    folder: tempfile::TempDir,
}

impl Tls {
    fn start(certificate: &Certificate) -> Self {
        let folder = temp_dir();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-accept", "127.0.0.1:0", "-cert"]).arg(&certificate.certificate);
        command.arg("-key").arg(&certificate.key).stdin(Stdio::null());
        let mut process = Process::spawn("here", "openssl", command, folder.path());
        let address = process.wait_until("it listens", |process| {
            let log = process.log();
            let line = log.lines().find_map(|line| line.strip_prefix("ACCEPT "))?;
            Some(line.to_owned())
        });
        Self { process, address, folder }
    }
}

/// Each fault of a DNS server is named with the server, in plain words and with something to do.
#[test]
fn dns_servers() {
    let Some(authority) = Authority::new("DNS Authority") else { return };
    let ca = authority.file();
    let expired = Tls::start(&authority.sign_expired(&["127.0.0.1"]));
    let elsewhere = Tls::start(&authority.sign(&["elsewhere.test"]));
    let unknown = Upstream::with(&fixture(), &["-https", "127.0.0.1:0"]);
    let unknown = unknown.https.as_ref().unwrap().0.strip_prefix("https://").unwrap().to_owned();
    let closed = Relay::start();
    closed.end();
    let hung = Relay::with(Fault::Silent);
    let rows = [
        ("down", format!("tls://{}", closed.address()), "refused", "start it"),
        ("hung", format!("tls://{}", hung.address()), "within", "firewall"),
        ("expired", format!("tls://{}", expired.address), "certificate expired on 2024-05-01", "renew"),
        ("another's", format!("tls://{}", elsewhere.address), "certificate is for elsewhere.test", "name"),
        ("unknown", format!("https://{unknown}/dns-query"), "unknown authority", "-dns-ca"),
    ];
    std::thread::scope(|scope| {
        for (what, server, said, advised) in &rows {
            let ca = &ca;
            scope.spawn(move || {
                let args = ["-dns", server, "-dns-ca", ca.to_str().unwrap()];
                let report = doctor(Start::upstream("https://mirror.test").args(args));
                assert_named(what, &report, "dns", server, said, advised);
            });
        }
    });
}

/// Each fault of a proxy is named with the proxy, in plain words and with something to do.
#[test]
fn proxies() {
    let Some(authority) = Authority::new("Proxy Authority") else { return };
    let upstream = Upstream::with(&fixture(), &["-https", "127.0.0.1:0"]);
    let (https, trusted) = upstream.https.as_ref().unwrap();
    let both: Vec<_> = [PathBuf::from(trusted), authority.file()].map(|file| std::fs::read(file).unwrap()).concat();
    let folder = temp_dir();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, both).unwrap();
    let expired = Tls::start(&authority.sign_expired(&["127.0.0.1"]));
    let elsewhere = Tls::start(&authority.sign(&["elsewhere.test"]));
    let other = Authority::new("Other Authority").unwrap();
    let unknown = Tls::start(&other.sign(&["127.0.0.1"]));
    let relays =
        [(Relay::with(Fault::Mute), "http", "no answer", "hangs"), (Relay::start(), "https", "plain HTTP", "http://")];
    let mut rows: Vec<_> = relays
        .iter()
        .map(|(relay, scheme, said, advised)| {
            (relay.url_with(scheme, "user:Swordfish"), format!("***@{}", relay.address()), *said, *advised)
        })
        .collect();
    for (server, said, advised) in [
        (&expired, "certificate expired on 2024-05-01", "renew"),
        (&elsewhere, "certificate is for elsewhere.test", "name"),
        (&unknown, "unknown authority", "-ca FILE"),
    ] {
        rows.push((format!("https://{}", server.address), server.address.clone(), said, advised));
    }
    std::thread::scope(|scope| {
        for (proxy, name, said, advised) in &rows {
            let ca = &ca;
            scope.spawn(move || {
                let args = ["-proxy", proxy, "-ca", ca.to_str().unwrap()];
                let report = doctor(Start::upstream(https).args(args));
                assert_named(proxy, &report, "proxy", name, said, advised);
            });
        }
    });
    // And a proxy that works passes, as does everything else.
    let relay = Relay::start();
    let report = doctor(Start::upstream(https).args(["-proxy", &relay.url("socks5"), "-ca", ca.to_str().unwrap()]));
    assert!(report.ok, "{:?}", report.checks);
    assert!(report.checks.iter().any(|check| check.step == "proxy" && check.outcome == "pass"), "{:?}", report.checks);
}
