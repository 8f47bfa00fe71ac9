//! What a person sees at the start and in the log, and how a mistake in the configuration ends it.

use std::process::{Command, Output, Stdio};

use crate::harness::{Larder, SMALL_ZIP, Start, Upstream, temp_dir, wait_for};

fn larder(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_larder")).args(args).env_clear().stdin(Stdio::null()).output().unwrap()
}

/// The start prints exactly one line to copy, with the port that was picked, before it says that it is ready.
#[test]
fn the_line_to_copy_is_printed() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let line = format!("export GOPROXY={}", larder.url);
    let log = larder.log();
    assert_eq!(log.matches("export GOPROXY=").count(), 1, "{log}");
    assert!(log.lines().any(|logged| logged.contains(&line)), "{log}");
    assert!(log.contains(env!("CARGO_PKG_VERSION")), "{log}");
}

/// Several addresses are served on one port, also a free one, and IPv4 ones beside all of IPv6.
#[test]
fn several_addresses_share_a_port() {
    let upstream = Upstream::start();
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let addresses = if has_ipv6 { "127.0.0.1,127.0.0.2,::" } else { "127.0.0.1,127.0.0.2" };
    let larder = Start::on(&upstream).args(["-listen", addresses]).run();
    let port = larder.address().port();
    for host in ["127.0.0.1", "127.0.0.2", "[::1]"].iter().filter(|host| has_ipv6 || !host.starts_with('[')) {
        let connected = std::net::TcpStream::connect(format!("{host}:{port}"));
        assert!(connected.is_ok(), "{host}: {}", larder.log());
    }
}

/// `-log-requests` logs each request with the client, the path and whether it was a hit; without it hits leave no line.
#[test]
fn requests_are_logged_when_asked_for() {
    let upstream = Upstream::start();
    let path = "/rsc.io/quote/@v/v1.5.2.mod";
    let talkative = Start::on(&upstream).args(["-log-requests"]).run();
    talkative.get(path).expect(200);
    talkative.hit(path);
    let lines = wait_for("both lines", || {
        let lines: Vec<_> = talkative
            .log()
            .lines()
            .filter(|line| line.contains("127.0.0.1") && line.contains(path))
            .map(str::to_owned)
            .collect();
        lines.last().is_some_and(|line| line.contains("hit")).then_some(lines)
    });
    assert!(lines[0].contains("miss"), "{}", lines[0]);
    let quiet = Larder::start(&upstream);
    quiet.hit(SMALL_ZIP);
    // The download's own line comes when the index knows of the file, a moment after the first hit.
    let stored = format!("stored {}", &SMALL_ZIP[1..]);
    wait_for("the line of the download", || quiet.log().contains(&stored).then_some(()));
    let before = quiet.log().len();
    for _ in 0..10 {
        assert!(quiet.get(SMALL_ZIP).expect(200).is_hit());
    }
    assert_eq!(quiet.log().len(), before, "hits are logged: {}", quiet.log());
}

/// A mistake in the configuration ends the start with 64 and names the setting; nothing is silently ignored.
#[test]
fn mistakes_are_named() {
    let folder = temp_dir();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "prot: 3000\n").unwrap();
    let config = config.to_str().unwrap();
    for (args, named) in [
        (vec!["-port", "many"], "port"),
        (vec!["-retry-attempts", "-1"], "retry-attempts"),
        (vec!["-max-cache-age", "soon"], "max-cache-age"),
        (vec!["-network-mode", "sometimes"], "network-mode"),
        (vec!["-allow", "all"], "allow"),
        (vec!["-upstream", "ftp://example.com"], "upstream"),
        (vec!["-no-such-flag"], "no-such-flag"),
        (vec!["-config", config], "prot"),
        (vec!["-config", "/nonexistent/config.yaml"], "/nonexistent/config.yaml"),
    ] {
        for command in ["serve", "check-config"] {
            let all: Vec<_> = [command].into_iter().chain(args.iter().copied()).collect();
            let output = larder(&all);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{all:?}: {text}");
            assert!(text.contains(named), "{all:?}: {text}");
        }
    }
}

/// Flags whose feature has not landed end the start with a text that says so.
#[test]
fn features_to_come_are_refused_clearly() {
    for args in [["-proxy", "socks5://127.0.0.1:1080"], ["-dns", "tls://127.0.0.1:853"], ["-gosumdb", "sum.golang.org"]]
    {
        let output = larder(&args);
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!output.status.success() && text.contains("not yet"), "{args:?}: {text}");
    }
}

/// `check-config` prints the values, where each came from, and no secret.
#[test]
fn check_config_shows_sources_and_hides_secrets() {
    let folder = temp_dir();
    let config = folder.path().join("config.yaml");
    let text = "port: \"3000\"\nretry_attempts: 5\nprivate_upstreams:\n  - {pattern: \"git.example.com\", \
                url: \"https://git.example.com\", auth: {type: bearer, value: \"hunter2\"}}\n";
    std::fs::write(&config, text).unwrap();
    let output = larder(&["check-config", "-config", config.to_str().unwrap(), "-retry-attempts", "7"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("3000") && shown.contains('7') && shown.contains("git.example.com"), "{shown}");
    assert!(shown.contains("config.yaml") && shown.contains("default"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
