//! Tests of the ways out and of what is told of them.

use std::collections::BTreeMap;

use super::*;
use crate::app::upstreams;

/// Returns the way out of a configuration file, and the configuration.
pub(in crate::app) fn way_out(yaml: &str) -> (Config, WayOut) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let flags = BTreeMap::from([("config", "c.yaml".to_owned())]);
    let loaded = Config::load(&flags, &BTreeMap::new(), &|_| Ok(yaml.to_owned())).unwrap();
    let way_out = WayOut::new(&loaded.config, &Trusts::load(&loaded).unwrap(), &Tasks::new(), &Clock::system());
    (loaded.config, way_out)
}

fn names(egress: &Egress) -> String {
    egress.route().proxies.names().join(",")
}

/// Upstreams of one way share its client; what one of them has of its own overrides only that.
#[tokio::test]
async fn clients_by_way() {
    let (_, found) = way_out(
        "proxy: socks5://tunnel:1080\ndns: tls://192.0.2.1\nupstreams:\n- https://a.example\n\
         - {url: 'https://b.example', proxy: direct}\n- {url: 'https://c.example', dns: system}\n\
         - {url: 'https://d.example', proxy: direct}\nprivate_upstreams:\n\
         - {pattern: x.example, url: 'https://x.example', proxy: direct}\n\
         - {pattern: y.example, url: 'https://y.example', proxy: direct, dns: 10.0.0.53}\n",
    );
    assert_eq!(found.public, [0, 1, 2, 1]);
    assert_eq!(found.private, [1, 3]);
    let seen: Vec<_> = found.clients.iter().map(|e| (names(e), e.route().resolver.is_system())).collect();
    let tunnel = || "socks5://tunnel:1080".to_owned();
    let direct = || "direct".to_owned();
    assert_eq!(seen, [(tunnel(), false), (direct(), false), (tunnel(), true), (direct(), false)]);
}

/// A file of certificates that is no such thing is a mistake in the setting that names it.
#[test]
fn unusable_files_of_certificates() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for (flag, path) in [("ca", "/nonexistent/ca.pem"), ("dns-ca", "/")] {
        let flags = BTreeMap::from([(flag, path.to_owned()), ("dns", "tls://192.0.2.1".to_owned())]);
        let loaded = Config::load(&flags, &BTreeMap::new(), &|_| Ok(String::new())).unwrap();
        let Err(errors) = Trusts::load(&loaded) else { panic!("{flag}") };
        assert!(errors.mistakes[0].starts_with(&format!("-{flag}: {path}: ")), "{errors}");
    }
}

fn lines_of(yaml: &str) -> Vec<String> {
    let (config, found) = way_out(yaml);
    let upstreams = upstreams::lines(&config, &found).into_iter().map(|line| format!("upstream: {line}"));
    let own = found.lines().iter().map(|(name, text)| format!("{name}: {text}"));
    own.chain(upstreams.skip(1)).collect()
}

/// Nothing is said of what needs no words; all else is told server by server, and no password with it.
#[tokio::test]
async fn what_people_are_told() {
    let cases: [(&str, &[&str]); 10] = [
        ("port: 1", &[]),
        ("proxy: direct", &[]),
        (
            "proxy: [socks5://u:s3cret@192.0.2.9, http://proxy:8080, direct]\nno_proxy: .corp.example",
            &[
                "proxy: socks5://***@192.0.2.9:1080, given addresses",
                "proxy: else http://proxy:8080, given names, which it resolves itself",
                "proxy: else none, directly",
                "names: of upstreams are looked up by the system's resolver, past the proxy: -dns or socks5h:// prevents it",
                "no proxy: for .corp.example",
                "bootstrap: the system's resolver, for the names of proxies and DNS servers",
            ],
        ),
        (
            "dns_bootstrap: [9.9.9.9, tls://192.0.2.2]",
            &[
                "bootstrap: udp://9.9.9.9:53, else tls://192.0.2.2:853 directly, for the names of proxies and DNS servers",
            ],
        ),
        (
            "upstreams: [a.example, {url: 'https://u:s3cret@b.example', proxy: direct, dns: system}, \
             {url: 'https://c.example', proxy: 'http://u:s3cret@192.0.2.9,direct'}]",
            &[
                "upstream: https://***@b.example directly, its name looked up by the system's resolver",
                "upstream: https://c.example through http://***@192.0.2.9, else direct",
            ],
        ),
        (
            "dns_route: proxy\nproxy: socks5h://192.0.2.9\n\
             upstreams: [a.example, {url: 'https://b.example', proxy: direct}, \
             {url: 'https://c.example', proxy: direct, dns: 10.0.0.53}]",
            &[
                "proxy: socks5h://192.0.2.9:1080, given names, which it resolves itself",
                "upstream: https://b.example directly, its name looked up by the system's resolver",
                "upstream: https://c.example directly, its name looked up by udp://10.0.0.53:53 directly",
            ],
        ),
        (
            "proxy: socks5://192.0.2.9\ndns: tls://192.0.2.1",
            &[
                "proxy: socks5://192.0.2.9:1080, given addresses: names of upstreams are resolved here",
                "dns: tls://192.0.2.1:853 through socks5://192.0.2.9",
            ],
        ),
        (
            "proxy: http://192.0.2.9\nno_proxy: .example\ndns: tls://192.0.2.1\nupstreams: [https://a.example, https://b.example]",
            &[
                "proxy: http://192.0.2.9:80, given names, which it resolves itself",
                "no proxy: for .example",
                "dns: tls://192.0.2.1:853 through http://192.0.2.9",
                "upstream: https://b.example directly (no-proxy)",
            ],
        ),
        (
            "proxy: http://192.0.2.9\nno_proxy: b.example\nupstreams: [https://a.example, https://b.example]",
            &[
                "proxy: http://192.0.2.9:80, given names, which it resolves itself",
                "no proxy: for b.example",
                "upstream: https://b.example directly (no-proxy), its name looked up by the system's resolver",
            ],
        ),
        (
            "dns: [https://192.0.2.1/s3cret, https://192.0.2.1/s3cret2/dns-query, https://192.0.2.2/resolve?s3cret]",
            &[
                "dns: https://192.0.2.1/*** (1) directly",
                "dns: https://192.0.2.1/*** (2) directly",
                "dns: https://192.0.2.2/resolve?*** directly",
            ],
        ),
    ];
    for (yaml, expected) in cases {
        assert_eq!(lines_of(yaml), expected, "{yaml}");
    }
}

/// Roots of a variable's that take the place of the machine's are told.
#[tokio::test]
async fn roots_of_a_variable() {
    let (mut config, found) = way_out("port: 1");
    config.platform_ca = vec![("SSL_CERT_FILE", "/etc/office.pem".into())];
    let told = words::lines(&config, found.of_all().route());
    let text = "/etc/office.pem (SSL_CERT_FILE) instead of this machine's root certificates";
    assert_eq!(told, [("trusts", text.to_owned())]);
}

/// Where all names are to go through the proxy, only what is expressly reached directly can get to the system's resolver.
#[tokio::test]
async fn strict_dns_asks_nobody_without_servers() {
    let (_, found) = way_out(
        "dns_route: proxy\nproxy: socks5h://192.0.2.9\n\
         upstreams: [a.example, {url: 'https://b.example', proxy: direct}]",
    );
    let [of_all, direct] = found.clients.as_slice() else { panic!("{}", found.clients.len()) };
    let said = of_all.route().resolver.lookup("localhost").await.unwrap_err();
    assert_eq!(said, "-dns-route proxy allows no look-up without -dns");
    assert!(!of_all.route().resolver.is_system() && direct.route().resolver.is_system());
}

/// The path of a server over HTTPS may be somebody's key: it is in no error and in nothing that is remembered.
#[tokio::test]
async fn invariant_10_keys_of_dns_servers() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_, found) = way_out(&format!("dns: https://{closed}/s3cret/dns-query"));
    let resolver = &found.of_all().route().resolver;
    let said = resolver.lookup("a.example").await.unwrap_err();
    assert!(said.starts_with(&format!("https://{closed}/***: ")), "{said}");
    let checks = format!("{said} {:?} {resolver:?}", resolver.checks());
    assert!(checks.contains("/***") && !checks.contains("s3cret"), "{checks}");
}
