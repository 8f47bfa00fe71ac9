//! What a person sees at the start and in the log, and how a mistake in the configuration ends it.

use std::process::{Command, Output, Stdio};

use crate::harness::{Larder, SMALL_ZIP, Start, Upstream, temp_dir, wait_for};

fn larder(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_larder")).args(args).env_clear().stdin(Stdio::null()).output().unwrap()
}

fn larder_with_env(args: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    let output = command.args(args).env_clear().envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
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

/// A file of certificates that cannot be used ends the start with 64, and names the setting and the file.
#[test]
fn unusable_certificates_are_named() {
    let folder = temp_dir();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "not a certificate\n").unwrap();
    let empty = empty.to_str().unwrap();
    for (args, named) in [
        (["-ca", "/nonexistent/ca.pem"], "-ca: /nonexistent/ca.pem: "),
        (["-ca", empty], "no certificate"),
        (["-dns-ca", empty], "-dns-ca: "),
    ] {
        for command in ["serve", "check-config"] {
            let all = [&[command, "-dns", "tls://192.0.2.1"], &args[..]].concat();
            let output = larder(&all);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{all:?}: {text}");
            assert!(text.contains(named), "{all:?}: {text}");
        }
    }
}

/// Every way of go-proxy to name a proxy and a DNS server starts, and the start-up lines say which way each goes,
/// as does `check-config`; passwords are in neither.
#[test]
fn the_way_out_is_told() {
    let upstream = Upstream::start();
    let folder = temp_dir();
    let config = folder.path().join("config.yaml");
    let text = format!(
        "private_upstreams:\n- {{pattern: rsc.io, url: \"{}\", proxy: direct}}\n\
         - {{pattern: a.example, url: \"https://a.example\", dns: system}}\n",
        upstream.url
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let larder = Start::upstream("off")
        .args(["-config", config, "-dns", "tls://192.0.2.1:853,8.8.8.8"])
        .args(["-proxy", "socks5://office:hunter2@192.0.2.9:1080", "-no-proxy", ".corp.example"])
        .run();
    larder.get(SMALL_ZIP).expect(200);
    let checked = larder_with_env(
        &["check-config", "-config", config, "-dns", "tls://192.0.2.1:853,8.8.8.8"],
        &[("HTTP_PROXY", "socks5://office:hunter2@192.0.2.9:1080"), ("no_proxy", ".corp.example")],
    );
    for told in [larder.log(), checked] {
        for expected in [
            "proxy      socks5://***@192.0.2.9:1080, given addresses",
            "no proxy   for .corp.example",
            "dns        tls://192.0.2.1:853 through socks5://***@192.0.2.9:1080",
            "dns        udp://8.8.8.8:53 directly",
            &format!("upstream   {} for rsc.io directly", upstream.url),
            "upstream   https://a.example for a.example, its name looked up by the system's resolver",
        ] {
            assert!(told.contains(expected), "{expected}\n{told}");
        }
        assert!(!told.contains("hunter2") && !told.contains("office"), "{told}");
    }
}

/// Every command of go-proxy's documentation that names a proxy or a DNS server serves what is stored; nobody is asked
/// before somebody asks for more.
#[test]
fn go_proxys_ways_out_start() {
    let upstream = Upstream::start();
    let cache = temp_dir();
    Start::on(&upstream).cache(cache.path()).run().hit(SMALL_ZIP);
    let flags = [
        "-proxy http://proxy-server:8080",
        "-proxy socks5://socks5-server:1080",
        "-proxy socks5h://socks5-server:1080",
        "-dns 8.8.8.8:53",
        "-dns udp://8.8.8.8:53",
        "-dns https://cloudflare-dns.com/dns-query",
        "-dns https://dns.google/resolve",
        "-dns https://1.1.1.1/dns-query",
        "-dns tls://1.1.1.1:853",
        "-dns quic://dns.adguard.com:853",
        "-dns 8.8.8.8:53 -proxy socks5://socks5-server:1080",
        "-dns https://cloudflare-dns.com/dns-query -proxy http://proxy:8080",
        "-dns tls://1.1.1.1:853 -proxy socks5://socks5-server:1080",
    ];
    let variables = ["HTTP_PROXY http://proxy-server:8080", "SOCKS5_PROXY socks5://s:1080", "DNS_SERVER 8.8.8.8:53"];
    let flags = flags.iter().map(|words| (words.split(' ').collect::<Vec<_>>(), None));
    let variables = variables.iter().map(|words| (Vec::new(), words.split_once(' ')));
    for (words, variable) in flags.chain(variables) {
        let start = words
            .chunks(2)
            .fold(Start::upstream("off").cache(cache.path()), |start, pair| start.args([pair[0], pair[1]]));
        let mut larder = variable.into_iter().fold(start, |start, (name, value)| start.env(name, value)).run();
        assert!(larder.get(SMALL_ZIP).expect(200).is_hit(), "{words:?} {variable:?}");
        larder.stop();
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
