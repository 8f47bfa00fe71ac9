//! The ground the other tests stand on: a network of their own, seen from the machine and from inside.

use crate::harness::{Authority, Go, Net, SMALL_ZIP, Start, Upstream, fixture};

/// A Larder in a network of its own reaches an upstream there over TLS, by a name that only its hosts file knows, and
/// the real go command outside reaches the Larder.
#[test]
fn a_network_of_its_own() {
    let Some(net) = Net::new() else { return };
    let wire = net.wire();
    let (inside, away) = (net.host("larder", &[(wire, 10)]), net.host("upstream", &[(wire, 20)]));
    inside.hosts_file(&format!("{} mirror.test\n", away.v4()));
    let upstream = Upstream::inside(&away, &["mirror.test"], &fixture(), &[]);
    let Some(watch) = inside.watch_port_53() else { return };
    let start = Start::upstream("https://mirror.test").inside(&inside).env("SSL_CERT_FILE", upstream.authority());
    let larder = start.run();
    larder.get(SMALL_ZIP).expect(200);
    Go::new(&larder.url).expect(&["mod", "download", "rsc.io/quote@v1.5.2"]);
    assert!(watch.packets().is_empty(), "{:?}", watch.packets());
    assert_eq!(upstream.log_of(SMALL_ZIP).len(), 1);
}

/// Certificates are what their names say.
#[test]
fn certificates() {
    let Some(authority) = Authority::new("Test Authority") else { return };
    let good = authority.sign(&["dns.test", "192.0.2.1", "2001:db8::1"]);
    let expired = authority.sign_expired(&["dns.test"]);
    let verify = |file: &std::path::Path, host: &str| {
        let mut command = std::process::Command::new("openssl");
        command.args(["verify", "-verify_hostname", host, "-CAfile"]).arg(authority.file()).arg(file);
        command.output().unwrap().status.success()
    };
    assert!(verify(&good.certificate, "dns.test"));
    assert!(!verify(&good.certificate, "other.test"));
    assert!(!verify(&expired.certificate, "dns.test"));
}
