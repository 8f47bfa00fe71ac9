//! Proxies that are out of order, or do not let Larder in or out: who is named, what is said, and what is never said.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{Answer, Fault, Larder, Relay, SMALL_ZIP, Start, Upstream, fixture, temp_dir};

/// What must not be seen anywhere: a password, as it is written in a URL and as it is meant, and both inside the
/// header that carries it (base64, at any of the three places it may begin).
const WRITTEN: &str = "Sw%6Frdfish77";
const SECRETS: [&str; 5] = [WRITTEN, "Swordfish77", "Swordfis", "U3dvcmRmaXNo", "N3b3JkZmlza"];

/// Fails if a password can be seen in an answer, the log, or the state that Larder shows.
#[track_caller]
fn assert_no_secret(larder: &Larder, answer: &Answer) {
    let mut shown = vec![String::from_utf8_lossy(&answer.body).into_owned(), larder.log()];
    for path in ["/health", "/health?verbose"] {
        shown.push(String::from_utf8_lossy(&larder.get(path).body).into_owned());
    }
    for text in shown {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is shown: {text}");
        }
    }
}

/// An upstream on loopback that speaks plainly and with TLS.
fn upstream() -> Upstream {
    Upstream::with(&fixture(), &["-https", "127.0.0.1:0"])
}

/// Starts a Larder in front of one of the upstream's two faces.
fn start(upstream: &Upstream, face: &str, proxy: &str) -> Start {
    let (https, ca) = upstream.https.as_ref().unwrap();
    let url = if face == "https" { https } else { &upstream.url };
    Start::upstream(url).args(["-proxy", proxy, "-ca", ca, "-retry-attempts", "1"])
}

/// Returns the text of an answer that says why there is none.
///
/// What was never fetched is 404 while nobody can be reached, so that the go command asks its next proxy.
#[track_caller]
fn reason(answer: &Answer) -> String {
    assert!(matches!(answer.status, 404 | 502 | 504), "{}: {}", answer.status, answer.text());
    answer.text().to_owned()
}

/// Asks for a small file through a proxy that does not lead there; returns the text and how long it took.
#[track_caller]
fn refused(upstream: &Upstream, face: &str, proxy: &str) -> (String, Duration) {
    let larder = start(upstream, face, proxy).run();
    let began = Instant::now();
    let answer = larder.get(SMALL_ZIP);
    let took = began.elapsed();
    assert_no_secret(&larder, &answer);
    (reason(&answer), took)
}

/// A proxy that is down, hangs up, does not know us or will not lead there is named with what is wrong, for every
/// scheme, whether the upstream speaks TLS or not; its password is not.
#[test]
fn each_fault_names_the_proxy() {
    let upstream = upstream();
    let all = ["socks5", "socks5h", "http"];
    let socks = ["socks5", "socks5h"].as_slice();
    let http = ["http"].as_slice();
    // The fault, the schemes it can happen to, and what the text says after the proxy's name.
    for (fault, schemes, said) in [
        (Fault::Closes, all.as_slice(), "onnection"),
        (Fault::Greets("SSH-2.0-OpenSSH_9.2\r\n"), socks, "SOCKS"),
        (Fault::Greets("SSH-2.0-OpenSSH_9.2\r\n"), http, "HTTP"),
        (Fault::WrongPassword, all.as_slice(), "wrong user name or password"),
        (Fault::Reply(1), socks, "it failed, without saying why"),
        (Fault::Reply(2), socks, "not allowed"),
        (Fault::Reply(3), socks, "unreachable"),
        (Fault::Reply(4), socks, "unreachable"),
        (Fault::Reply(5), socks, "refused"),
    ] {
        for scheme in schemes {
            for face in ["https", "http"] {
                let relay = Relay::with(fault);
                let (text, _) = refused(&upstream, face, &relay.url_with(scheme, &format!("user:{WRITTEN}")));
                let name = format!("{scheme}://***@{}: ", relay.address());
                assert!(text.contains(&name) && text.contains(said), "{fault:?}, {scheme} to {face}: {text}");
                assert!(relay.connections() > 0);
            }
        }
    }
    for scheme in all {
        for face in ["https", "http"] {
            let relay = Relay::start();
            relay.end();
            let (text, took) = refused(&upstream, face, &relay.url(scheme));
            let name = format!("proxy: {}: ", relay.url(scheme));
            assert!(text.contains(&name) && text.contains("refused"), "down, {scheme} to {face}: {text}");
            assert!(took < Duration::from_secs(3), "a refused connection is no reason to wait: {took:?}");
        }
    }
    assert_eq!(upstream.requests(), 0, "nothing went past the proxies");
}

/// An HTTP proxy that does not open a tunnel is quoted.
#[test]
fn a_refused_connect_is_quoted() {
    let upstream = upstream();
    for line in ["403 Forbidden", "405 Method Not Allowed", "502 Bad Gateway", "503 Service Unavailable", "200 OK then"]
    {
        let relay = Relay::with(Fault::Status(line));
        // A tunnel that is promised and not there is noticed by the TLS in it.
        let said = if line.starts_with("200") { "tls" } else { line };
        let (text, _) = refused(&upstream, "https", &relay.url_with("http", &format!("user:{WRITTEN}")));
        assert!(text.contains(&format!("http://***@{}", relay.address())), "{line}: {text}");
        assert!(text.contains(said), "{line}: {text}");
    }
    assert_eq!(upstream.requests(), 0);
}

/// A proxy that accepts and then says nothing ends in an error that says so, within the limits of its steps.
#[test]
fn stalls_end() {
    let upstream = upstream();
    std::thread::scope(|scope| {
        for scheme in ["socks5", "socks5h", "http", "https"] {
            for fault in [Fault::Silent, Fault::Mute] {
                // Mute inside TLS would need a proxy that speaks it.
                if scheme == "https" && fault == Fault::Mute {
                    continue;
                }
                let upstream = &upstream;
                scope.spawn(move || {
                    let relay = Relay::with(fault);
                    let (text, took) = refused(upstream, "https", &relay.url_with(scheme, &format!("user:{WRITTEN}")));
                    let name = format!("{scheme}://***@{}: ", relay.address());
                    assert!(text.contains(&name) && text.contains(" within "), "{fault:?}, {scheme}: {text}");
                    assert!(took < Duration::from_secs(14), "{fault:?}, {scheme}: {took:?}");
                });
            }
        }
    });
}

/// What listens at the proxy's address and is no proxy of that kind is said to be none.
#[test]
fn not_a_proxy_of_that_kind() {
    let upstream = upstream();
    // An HTTP server that is asked for SOCKS waits for more, and asked for a tunnel it says 405.
    for (scheme, said) in [("socks5", "no answer within"), ("http", "405 Method Not Allowed")] {
        let proxy = upstream.url.replace("http", scheme);
        let (text, _) = refused(&upstream, "https", &proxy);
        assert!(text.contains(&proxy) && text.contains(said), "{scheme}: {text}");
    }
}

/// A proxy under `https://` that turns out to speak plain HTTP is used so, with one warning; with a password in the URL
/// it is not used, for the password would be there for everybody to read.
#[test]
fn https_that_is_plain_http() {
    let upstream = upstream();
    for face in ["https", "http"] {
        let relay = Relay::start();
        let larder = start(&upstream, face, &relay.url("https")).run();
        larder.get(SMALL_ZIP).expect(200);
        larder.get("/rsc.io/quote/@v/v1.5.2.mod").expect(200);
        larder.get("/rsc.io/quote/@v/list").expect(200);
        let log = larder.log();
        let warned = log.lines().filter(|line| line.contains(&relay.url("https")) && line.contains("plain HTTP"));
        assert_eq!(warned.count(), 1, "{face}: {log}");
    }
    upstream.reset();
    for face in ["https", "http"] {
        let relay = Relay::start();
        let (text, _) = refused(&upstream, face, &relay.url_with("https", &format!("user:{WRITTEN}")));
        assert!(text.contains(&format!("proxy: https://***@{}: ", relay.address())), "{face}: {text}");
        assert!(text.contains("plain HTTP") && text.contains("password"), "{face}: {text}");
        assert_eq!(relay.passwords(), 0, "{face}: it was told the password");
    }
    assert_eq!(upstream.requests(), 0);
}

/// The command that shows the settings shows no password either, whichever of the three sources it came from.
#[test]
fn check_config_shows_no_password() {
    let folder = temp_dir();
    let url = format!("socks5://user:{WRITTEN}@127.0.0.1:1080,https://user:{WRITTEN}@proxy.test:3128");
    let shown = |start: Start| {
        let output = start.subcommand(&["check-config"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert!(text.contains("socks5://***@127.0.0.1:1080"), "{text}");
        assert!(text.contains("https://***@proxy.test:3128"), "{text}");
    };
    let base = || Start::upstream("https://mirror.test");
    shown(base().args(["-proxy", &url]));
    shown(base().env("HTTPS_PROXY", &url));
    let file = folder.path().join("larder.yaml");
    std::fs::write(&file, format!("proxy: \"{url}\"\n")).unwrap();
    shown(base().args(["-config", text_of(&file)]));
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}
