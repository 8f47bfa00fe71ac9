//! Which way is taken: several proxies in order, the dead ones passed over, `NO_PROXY`, and a way for each upstream.

use std::time::{Duration, Instant};

use crate::harness::{
    Capture, Fault, Larder, Names, Relay, SMALL_ZIP, Start, Tree, Upstream, fixture, temp_dir, wait_for,
};

const MOD: &str = "/rsc.io/quote/@v/v1.5.2.mod";
const INFO: &str = "/rsc.io/quote/@v/v1.5.2.info";

const MADE_ZIP: &str = "/example.com/made/@v/v1.0.0.zip";
const MADE_BYTES: usize = 6 << 20;
/// How many bytes may be fetched twice for one break: what was under way, and what was not yet noted as finished.
const TWICE_BYTES_MAX: u64 = 3 << 19;

/// How long a request may wait for what is dead, once.
const ONCE: Duration = Duration::from_secs(1);

/// Begins in front of the face of an upstream that speaks TLS.
fn to_https(upstream: &Upstream) -> Start {
    let (https, ca) = upstream.https.as_ref().unwrap();
    Start::upstream(https).args(["-ca", ca])
}

/// A proxy that accepts and is silent, hangs up, is down or does not know us costs a request less than a second once;
/// afterwards it is not asked.
#[test]
fn a_dead_first_proxy_costs_once() {
    let upstream = Upstream::with(&fixture(), &["-https", "127.0.0.1:0"]);
    for fault in [Some(Fault::Silent), Some(Fault::Mute), Some(Fault::Closes), Some(Fault::WrongPassword), None] {
        // An HTTP proxy is asked for tunnels by the first, and given whole requests by the second.
        for (scheme, face) in [("socks5", "https"), ("socks5h", "https"), ("http", "https"), ("http", "http")] {
            let what = format!("{fault:?}, {scheme} to {face}");
            let mut measured = Vec::new();
            // On a busy machine a single measurement may be of something else.
            while measured.last().is_none_or(|extra| *extra >= ONCE) {
                assert!(measured.len() < 5, "{what}: {measured:?}");
                let well = first_request(&upstream, Some(Fault::None), scheme, face);
                measured.push(first_request(&upstream, fault, scheme, face).saturating_sub(well));
            }
        }
    }
}

/// Returns how long a first request takes when the first of two proxies has a fault, of which `None` is not being there.
/// At the second request nobody may ask the first proxy, unless it is well.
fn first_request(upstream: &Upstream, fault: Option<Fault>, scheme: &str, face: &str) -> Duration {
    let (dead, well) = (Relay::with(fault.unwrap_or(Fault::None)), Relay::start());
    if fault.is_none() {
        dead.end();
    }
    let proxies = format!("{},{}", dead.url_with(scheme, "user:word"), well.url(scheme));
    let (https, ca) = upstream.https.as_ref().unwrap();
    let url = if face == "https" { https } else { &upstream.url };
    // Tried once: nothing of this is an attempt that failed.
    let larder = Start::upstream(url).args(["-proxy", &proxies, "-ca", ca, "-retry-attempts", "1"]).run();
    let began = Instant::now();
    larder.get(MOD).expect(200);
    let took = began.elapsed();
    if fault == Some(Fault::None) {
        return took;
    }
    let asked = dead.connections();
    // Whoever keeps connections open must not profit from it here.
    well.cut();
    let began = Instant::now();
    // A request may still go out on a connection whose end has not been noticed yet.
    wait_for("an answer", || Some(larder.get(INFO)).filter(|answer| answer.status == 200));
    let what = format!("{fault:?}, {scheme} to {face}");
    assert_eq!(dead.connections(), asked, "{what}: it is asked again while it cools down");
    assert!(began.elapsed() < ONCE, "{what}: then {:?}", began.elapsed());
    assert!(well.connections() > 0, "{what}");
    took
}

/// A proxy that only does not lead to this upstream is passed over for it, and is asked again the next time.
#[test]
fn a_proxy_that_is_unable_is_not_dead() {
    let upstream = Upstream::with(&fixture(), &["-https", "127.0.0.1:0"]);
    for code in [2, 3, 4, 5] {
        let (unable, well) = (Relay::with(Fault::Reply(code)), Relay::start());
        let proxies = format!("{},{}", unable.url("socks5"), well.url("socks5"));
        let larder = to_https(&upstream).args(["-proxy", &proxies, "-retry-attempts", "2"]).run();
        larder.get(MOD).expect(200);
        well.cut();
        unable.fault(Fault::None);
        larder.get(INFO).expect(200);
        assert_eq!(unable.connections(), 2, "reply {code}");
        assert_eq!(well.connections(), 1, "reply {code}");
    }
}

/// When all are dead, all are named.
#[test]
fn when_all_are_dead_all_are_named() {
    let upstream = Upstream::start();
    let dead = [Relay::with(Fault::Closes), Relay::with(Fault::WrongPassword), Relay::start()];
    dead[2].end();
    let proxies = dead.iter().map(|relay| relay.url_with("socks5", "u:p")).collect::<Vec<_>>().join(",");
    let larder = Start::on(&upstream).args(["-proxy", &proxies, "-retry-attempts", "1"]).run();
    let answer = larder.get(MOD);
    assert!(matches!(answer.status, 404 | 502 | 504), "{}", answer.status);
    for relay in &dead {
        assert!(answer.text().contains(&format!("socks5://***@{}", relay.address())), "{}", answer.text());
    }
    assert_eq!(upstream.requests(), 0, "what is meant to go through a proxy never goes without");
}

/// `direct` at the end of the list is the way when no proxy works.
#[test]
fn direct_is_a_place_in_the_list() {
    let upstream = Upstream::start();
    let dead = Relay::with(Fault::Closes);
    let larder =
        Start::on(&upstream).args(["-proxy", &format!("{},direct", dead.url("socks5")), "-retry-attempts", "1"]).run();
    larder.get(MOD).expect(200);
    assert_eq!(dead.connections(), 1);
}

/// A proxy that dies, or falls silent, in the middle of a zip: the client's one connection ends with the whole file,
/// nothing is fetched twice, and the rest came through the next proxy.
#[test]
fn a_proxy_dies_in_the_middle_of_a_zip() {
    let tree = Tree::new().module("example.com/made", "v1.0.0", MADE_BYTES);
    let truth = tree.read(MADE_ZIP);
    std::thread::scope(|scope| {
        for fault in [Fault::DiesAfter(1_500_000), Fault::HangsAfter(1_500_000)] {
            for scheme in ["socks5", "http"] {
                let (tree, truth) = (&tree, &truth);
                scope.spawn(move || {
                    for face in ["https", "http"] {
                        for connections in ["1", "4"] {
                            dies(tree, truth, fault, scheme, face, connections);
                        }
                    }
                });
            }
        }
    });
}

fn dies(tree: &Tree, truth: &[u8], fault: Fault, scheme: &str, face: &str, connections: &str) {
    let upstream = Upstream::with(tree.path(), &["-https", "127.0.0.1:0", "-bandwidth", "20000000"]);
    let (https, ca) = upstream.https.as_ref().unwrap();
    let (dying, well) = (Relay::with(fault), Relay::start());
    let proxies = format!("{},{}", dying.url(scheme), well.url(scheme));
    let larder = Start::upstream(if face == "https" { https } else { &upstream.url })
        .args(["-proxy", &proxies, "-ca", ca, "-download-connections", connections, "-stall-timeout", "1s"])
        .run();
    let what = format!("{fault:?}, {scheme} to {face}, {connections} connections");
    let answer = larder.try_get(MADE_ZIP).unwrap_or_else(|error| panic!("{what}: {error}\n{}", larder.log()));
    assert!(answer.status == 200 && answer.body == truth, "{what}: {}", answer.status);
    assert!(well.connections() > 0, "{what}: the other proxy was not needed");
    let bytes = upstream.bytes_of(MADE_ZIP);
    // Into a line that hangs the upstream sends until the buffers on the way are full.
    let lost = if matches!(fault, Fault::HangsAfter(_)) { 4 << 20 } else { TWICE_BYTES_MAX };
    assert!(bytes < truth.len() as u64 + lost, "{what}: {bytes} bytes came for {}", truth.len());
}

/// What `NO_PROXY` covers, by Go's rules, is reached without a proxy; the rest is not.
#[test]
fn no_proxy_is_obeyed() {
    let upstream = Upstream::start();
    let port = upstream.address().rsplit(':').next().unwrap();
    let (own, foreign) = (format!("127.0.0.1:{port}"), "127.0.0.1:1".to_owned());
    let named = format!("localhost:{port}");
    for (host, list, is_covered) in [
        ("127.0.0.1", "", false),
        ("127.0.0.1", "*", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.1", "10.0.0.0/8, 127.0.0.0/8", true),
        ("127.0.0.1", "10.0.0.0/8", false),
        ("127.0.0.1", &own, true),
        ("127.0.0.1", &foreign, false),
        ("127.0.0.1", "localhost", false),
        ("localhost", "localhost", true),
        ("localhost", "LocalHost,other.test", true),
        ("localhost", &named, true),
        ("localhost", "host", false),
        ("localhost", "127.0.0.1", false),
    ] {
        for way in ["variable", "lower case", "flag"] {
            let relay = Relay::start();
            let start = Start::upstream(&format!("http://{host}:{port}")).args(["-proxy", &relay.url("socks5h")]);
            let larder = match way {
                "variable" => start.env("NO_PROXY", list),
                "lower case" => start.env("no_proxy", list),
                _ => start.args(["-no-proxy", list]),
            }
            .run();
            larder.get(MOD).expect(200);
            assert_eq!(relay.connections() == 0, is_covered, "{host}, {list:?} by {way}");
        }
    }
}

/// Of `-proxy`, `HTTP_PROXY`, `HTTPS_PROXY` and `SOCKS5_PROXY` the first that is set counts, whatever the upstream
/// speaks; in lower case too.
#[test]
fn variables_are_taken_in_order() {
    let upstream = Upstream::start();
    let order = ["-proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "SOCKS5_PROXY", "socks5_proxy"];
    for first in 0..order.len() {
        let relays: Vec<_> = order.iter().map(|_| Relay::start()).collect();
        let mut start = Start::on(&upstream);
        for (name, relay) in order.iter().zip(&relays).skip(first) {
            let url = relay.url(if name.to_lowercase().contains("socks5") { "socks5" } else { "http" });
            start = if *name == "-proxy" { start.args(["-proxy", &url]) } else { start.env(name, &url) };
        }
        start.run().get(MOD).expect(200);
        let used: Vec<_> = order.iter().zip(&relays).filter(|(_, relay)| relay.connections() > 0).collect();
        assert_eq!(used.iter().map(|(name, _)| **name).collect::<Vec<_>>(), [order[first]]);
    }
}

/// Each upstream, and each private one, may have a proxy of its own or none, while the others go through the common one.
#[test]
fn each_upstream_has_its_way() {
    let tree = Tree::new().module("corp.example/tool", "v1.0.0", 100).module("other.example/tool", "v1.0.0", 100);
    let empty = Tree::new();
    let (first, second, third) =
        (Upstream::with(empty.path(), &[]), Upstream::with(empty.path(), &[]), Upstream::with(&fixture(), &[]));
    let (private, direct) = (Upstream::with(tree.path(), &[]), Upstream::with(tree.path(), &[]));
    let (common, own, inner) = (Relay::start(), Relay::start(), Relay::start());
    let folder = temp_dir();
    let file = folder.path().join("larder.yaml");
    let text = format!(
        "proxy: {}\nupstreams:\n  - url: {}\n    proxy: direct\n  - url: {}\n    proxy: {}\n  - {}\n\
         private_upstreams:\n  - pattern: corp.example\n    url: {}\n    proxy: [{}]\n  - pattern: other.example\n    \
         url: {}\n    proxy: direct\n",
        common.url("http"),
        first.url,
        second.url,
        own.url("socks5"),
        third.url,
        private.url,
        inner.url("socks5h"),
        direct.url,
    );
    std::fs::write(&file, text).unwrap();
    let larder = Start::configured(&file).run();
    larder.get(SMALL_ZIP).expect(200);
    larder.get("/corp.example/tool/@v/v1.0.0.mod").expect(200);
    larder.get("/other.example/tool/@v/v1.0.0.mod").expect(200);
    assert_eq!([&first, &second, &third, &private, &direct].map(|upstream| upstream.requests() > 0), [true; 5]);
    let led = |relay: &Relay| {
        let mut targets = relay.targets();
        targets.dedup();
        targets
    };
    assert_eq!(led(&common), [third.address()]);
    assert_eq!(led(&own), [second.address()]);
    assert_eq!(led(&inner), [private.address()]);
    assert_ways_are_said(&larder, &[&common.url("http"), &own.url("socks5"), &inner.url("socks5h")]);
}

/// Fails unless each of these stands in what Larder said when it started.
#[track_caller]
fn assert_ways_are_said(larder: &Larder, ways: &[&str]) {
    let log = larder.log();
    for way in ways {
        assert!(log.contains(way), "{way} is not in the log: {log}");
    }
}

/// The name of a proxy is looked up where bootstrap names are, and neither there nor in `-dns` anything else of it: a
/// proxy that resolves names is given the upstream's, which nobody here is asked for, and the first lines say so.
#[test]
fn names_go_where_they_belong() {
    let upstream = Upstream::with(&fixture(), &["-https", "127.0.0.1:0", "-hosts", "localhost"]);
    let (https, ca) = upstream.https.as_ref().unwrap();
    for (scheme, is_asked) in [("socks5", true), ("socks5h", false), ("http", false)] {
        let (relay, bootstrap, dns) = (Relay::start(), Names::start(60), Names::start(60));
        let proxy = relay.url(scheme).replace("127.0.0.1", "proxy.test");
        let args = ["-proxy", &proxy, "-dns-bootstrap", &bootstrap.server(), "-dns", &dns.server(), "-ca", ca];
        // A name that is in every hosts file would be asked of nobody; this one is the proxy's to find, or `-dns`'s.
        let start = Start::upstream(&https.replace("127.0.0.1", "localhost.")).args(args);
        let larder = start.run();
        larder.get(MOD).expect(200);
        assert!(bootstrap.names().iter().all(|name| name == "proxy.test"), "{scheme}: {:?}", bootstrap.names());
        assert!(!bootstrap.names().is_empty(), "{scheme}");
        assert!(dns.names().iter().all(|name| name == "localhost"), "{scheme}: {:?}", dns.names());
        let given = relay.targets().iter().all(|target| target.starts_with("localhost"));
        assert_eq!(given, !is_asked, "{scheme}: {:?}", relay.targets());
        assert_ways_are_said(&larder, &[&proxy]);
    }
}

/// Connections through a proxy are kept and used again.
#[test]
fn connections_are_kept() {
    let upstream = Upstream::with(&fixture(), &["-https", "127.0.0.1:0"]);
    let (https, ca) = upstream.https.as_ref().unwrap();
    for (face, schemes) in [(https, ["socks5", "http"].as_slice()), (&upstream.url, &["socks5"])] {
        for scheme in schemes {
            let relay = Relay::start();
            let larder =
                Start::upstream(face).args(["-proxy", &relay.url(scheme), "-ca", ca, "-fresh-for", "0s"]).run();
            for _ in 0..20 {
                larder.get("/rsc.io/quote/@v/list").expect(200);
            }
            assert!(relay.connections() <= 2, "{scheme} to {face}: {} connections", relay.connections());
        }
    }
}

/// A proxy's password is told to that proxy alone: not to the next one, nor to an upstream, whichever way is taken.
#[test]
fn a_password_is_for_its_proxy_alone() {
    let upstream = Capture::start("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    for scheme in ["socks5", "http"] {
        let (dead, other) = (Relay::with(Fault::Closes), Relay::start());
        let lists = [
            other.url_with(scheme, "user:word"),
            format!("{},direct", dead.url_with("http", "user:word")),
            format!("{},{}", dead.url_with("http", "user:word"), other.url(scheme)),
        ];
        for (told, list) in [1, 0, 0].into_iter().zip(lists) {
            let before = other.passwords();
            let larder = Start::upstream(&upstream.url).args(["-proxy", &list, "-retry-attempts", "1"]).run();
            larder.get(MOD).expect(404);
            assert_eq!(other.passwords().min(before + 1), before + told, "{list}");
        }
    }
    assert!(!upstream.heads().is_empty());
    for head in upstream.heads() {
        let head = head.to_lowercase();
        assert!(!head.contains("authorization") && !head.contains("dXNlcjp3b3Jk".to_lowercase().as_str()), "{head}");
    }
}
