//! Which way DNS goes, and how the servers themselves are found.

use super::for_all;
use super::scene::{DNSDIST, HICKORY, HTTP_PORT, JSON, NOBODY, REFUSING_PORT, SOCKS_PORT, Scene, UNBOUND, server_name};
use crate::harness::{SMALL_ZIP, Start};

const MODULE: &str = "/rsc.io/quote/@v/v1.5.2.info";

/// Adds flags to a start.
fn with(start: Start, flags: &[String]) -> Start {
    flags.iter().fold(start, |start, flag| start.args([flag.as_str()]))
}

fn flags(text: String) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The rules of `-dns-route`, and what is said about them at the start.
#[test]
fn rules() {
    let Some(scene) = Scene::new() else { return };
    let (unbound, office, proxy) = (scene.address(UNBOUND, false), scene.bootstrap(false), scene.proxy(false));
    let nobody = scene.address(NOBODY, false);
    let (socks, http) = (format!("socks5://{proxy}:{SOCKS_PORT}"), format!("http://{proxy}:{HTTP_PORT}"));
    let refusing = format!("http://{proxy}:{REFUSING_PORT}");
    let blocked = scene.blocked.watch_port_53().unwrap();
    // The host, the flags, the upstream, and what a line of the log says.
    let rows = vec![
        // UDP becomes TCP where everything is to go through the proxy.
        (
            &scene.blocked,
            format!("-dns udp://{unbound} -proxy {socks} -dns-route proxy"),
            "https://mirror.test",
            "through",
        ),
        (
            &scene.blocked,
            format!("-dns tls://{unbound} -proxy {socks} -dns-route proxy"),
            "https://mirror.test",
            "through",
        ),
        (
            &scene.open,
            format!("-dns tls://{unbound} -proxy {socks} -dns-route direct"),
            "https://mirror.test",
            "directly",
        ),
        // What NO_PROXY names is reached without a proxy, a DNS server too.
        (
            &scene.open,
            format!("-dns tls://{unbound} -proxy {socks} -no-proxy {unbound}"),
            "https://mirror.test",
            "directly",
        ),
        // A proxy that does not lead to this port: directly from then on.
        (
            &scene.open,
            format!("-dns tls://{unbound} -proxy {refusing} -no-proxy office.test"),
            "https://office.test",
            "refuse",
        ),
        // The proxy finds the names of upstreams: the server is never asked.
        (
            &scene.blocked,
            format!("-dns udp://{nobody} -proxy socks5h://{proxy}:{SOCKS_PORT}"),
            "https://mirror.test",
            "not asked for the names of upstreams",
        ),
        (
            &scene.blocked,
            format!("-dns udp://{nobody} -proxy {http}"),
            "https://mirror.test",
            "not asked for the names of upstreams",
        ),
        // And without -dns the system's resolver is asked, which lies here, unless a proxy is.
        (&scene.blocked, format!("-proxy {http}"), "https://mirror.test", "proxy"),
    ];
    for_all(rows, |(host, words, upstream, says)| {
        let larder = with(scene.start(host, upstream), &flags(words.clone())).run();
        larder.get(MODULE).expect(200);
        let log = larder.log();
        assert!(log.contains(says), "{says} is not in: {log}");
    });
    assert!(blocked.packets().is_empty(), "{:?}", blocked.packets());
    drop(blocked);

    // Where everything is to go through the proxy and it refuses, nothing else is tried.
    let watch = scene.open.watch_port_53().unwrap();
    let words = format!("-dns tcp://{office} -proxy {refusing} -no-proxy office.test -dns-route proxy");
    let larder = with(scene.start(&scene.open, "https://office.test"), &flags(words)).run();
    let answer = larder.get(SMALL_ZIP);
    let text = answer.text();
    assert!(text.contains("dns: ") && text.contains(&refusing), "{text}");
    assert!(watch.packets().is_empty(), "{:?}", watch.packets());
}

/// The names of a DNS server and of the proxy to it are found at the servers of `-dns-bootstrap`; nobody else is asked for
/// them, and these are asked for nothing else.
#[test]
fn names_of_proxies() {
    let Some(scene) = Scene::new() else { return };
    let watch = scene.blocked.watch_port_53().unwrap();
    for scheme in ["socks5", "socks5h"] {
        let words = format!(
            "-dns tls://{} -proxy {scheme}://proxy.test:{SOCKS_PORT} -dns-bootstrap {}",
            server_name(UNBOUND, false),
            scene.bootstrap(true)
        );
        let larder = with(scene.start(&scene.blocked, "https://mirror.test"), &flags(words)).run();
        larder.get(MODULE).expect(200);
    }
    assert_eq!(watch.others(), scene.bootstraps()[1..]);
    let packets = watch.packets();
    assert!(packets.iter().all(|packet| !packet.text.contains("mirror")), "{packets:?}");
}

/// The name of a DNS server is found in the hosts file, at the servers of `-dns-bootstrap`, whatever they speak, or else by
/// the system's resolver, which is never asked for an upstream; if it is not found, the client reads whose name it was.
#[test]
fn names_of_servers() {
    let Some(scene) = Scene::new() else { return };
    let (tls, json) =
        (format!("tls://{}", server_name(UNBOUND, false)), format!("https://{}/resolve", server_name(JSON, true)));
    let start = |words: String| with(scene.start(&scene.open, "https://mirror.test"), &flags(words)).run();
    let over_tls = format!("-dns {json} -dns-bootstrap tls://{}", scene.address(DNSDIST, false));
    start(over_tls).get(MODULE).expect(200);
    let over_quic = format!("-dns {tls} -dns-bootstrap quic://[{}]", scene.address(HICKORY, true));
    start(over_quic).get(MODULE).expect(200);

    let lost = start(format!("-dns {tls} -dns-bootstrap tcp://{}:54", scene.address(UNBOUND, false)));
    let answer = lost.get(SMALL_ZIP);
    let text = answer.text();
    assert!(text.contains(&tls) && text.contains("dns: ") && text.contains(":54"), "{text}");

    // The liar is the system's resolver up to here.
    let watch = scene.open.watch_port_53().unwrap();
    scene.open.hosts_file(&format!("{} {}\n", scene.address(UNBOUND, false), server_name(UNBOUND, false)));
    start(format!("-dns {tls}")).get(MODULE).expect(200);
    assert!(watch.packets().is_empty(), "{:?}", watch.packets());

    scene.open.hosts_file("");
    scene.open.resolv_conf(&format!("nameserver {}\n", scene.bootstraps()[0]));
    start(format!("-dns {tls}")).get(MODULE).expect(200);
    let packets = watch.packets();
    assert!(!packets.is_empty() && packets.iter().all(|packet| !packet.text.contains("mirror")), "{packets:?}");

    // And without -dns it is asked for everything, as everybody expects.
    start(String::new()).get(MODULE).expect(200);
    assert!(watch.packets().iter().any(|packet| packet.text.contains("mirror.test")), "{:?}", watch.packets());

    // The hosts file holds for upstreams too.
    scene.open.hosts_file(&format!("{} mirror.test\n", scene.upstream_address()));
    start(format!("-dns tcp://{}:54", scene.address(UNBOUND, false))).get(MODULE).expect(200);
}

/// An upstream may have DNS servers of its own, or the system's resolver: they are asked for it, and for nothing else.
#[test]
fn an_upstream_has_servers_of_its_own() {
    let Some(scene) = Scene::new() else { return };
    let file = scene.open.write(
        "larder.yaml",
        &format!(
            "dns: tcp://{}\nupstreams:\n  - url: https://mirror4.test\n    dns: tls://{}\n  - url: https://mirror6.test\n    \
             dns: system\nprivate_upstreams:\n  - pattern: corp.example\n    url: https://office.test\n    \
             dns: [https://{}/resolve]\n",
            scene.address(NOBODY, false),
            scene.address(UNBOUND, false),
            scene.address(JSON, false)
        ),
    );
    scene.open.resolv_conf(&format!("nameserver {}\n", scene.bootstraps()[0]));
    let watch = scene.open.watch_port_53().unwrap();
    let larder = scene.place(&scene.open, Start::configured(&file)).run();
    larder.get(MODULE).expect(200);
    assert!(watch.packets().is_empty(), "{:?}", watch.packets());
    // What the first one does not have, the second is asked for.
    larder.get("/example.com/nothing/@v/v1.0.0.info").expect(404);
    let packets = watch.packets();
    let is_of_mirror6 = |text: &str| !text.contains("A? ") || text.contains("mirror6.test");
    assert!(!packets.is_empty() && packets.iter().all(|packet| is_of_mirror6(&packet.text)), "{packets:?}");
    assert_eq!(watch.others(), scene.bootstraps()[..1]);
    larder.get("/corp.example/module/@v/list").expect(404);
    // Questions in the binary form, which it does not take, have none of this in their address.
    let asked: Vec<_> = scene.json.asked().into_iter().filter(|question| question.contains("name=")).collect();
    assert!(!asked.is_empty() && asked.iter().all(|question| question.contains("office.test")), "{asked:?}");
}
