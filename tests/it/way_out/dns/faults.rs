//! What a client and `larder doctor` say when DNS fails: which step, which server, and why; and what fails without anybody
//! noticing.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::scene::{DNSDIST, HICKORY, HTTP_PORT, JSON, LIAR, NOBODY, SOCKS_PORT, Scene, UNBOUND};
use super::{Scheme, for_all};
use crate::harness::dns::{self, Place};
use crate::harness::proxies::bracketed;
use crate::harness::{Authority, Process, SMALL_ZIP, Start};

/// The servers of this file: one for each thing that can be wrong with a certificate, by hands that speak TLS and HTTPS,
/// and by one that speaks QUIC.
const EXPIRED: [u8; 2] = [71, 72];
const OTHER_NAME: [u8; 2] = [73, 74];
const STRANGER: [u8; 2] = [75, 76];
/// Takes what comes and never says a word.
const MUTE: u8 = 77;
/// Nothing listens there.
const DOWN: u8 = 78;

/// Servers with something wrong.
struct Broken {
    #[expect(dead_code, reason = "kept until the test ends")]
    processes: Vec<Process>,
    #[expect(dead_code, reason = "kept until the test ends")]
    sockets: (Vec<TcpListener>, Vec<UdpSocket>),
}

impl Broken {
    fn new(scene: &Scene, stranger: &Authority) -> Self {
        let expired = scene.authority.sign_expired(&scene.server_hosts());
        let other_name = scene.authority.sign(&["elsewhere.test".to_owned()]);
        let of_a_stranger = stranger.sign(&scene.server_hosts());
        for number in EXPIRED.into_iter().chain(OTHER_NAME).chain(STRANGER).chain([MUTE, DOWN]) {
            scene.dns.add_address(scene.outside, number);
        }
        let processes = std::thread::scope(|scope| {
            let mut starting = Vec::new();
            for (numbers, certificate) in [(EXPIRED, &expired), (OTHER_NAME, &other_name), (STRANGER, &of_a_stranger)] {
                let at = |number| Place { host: &scene.dns, wire: scene.outside, number };
                let (tls, quic) = (at(numbers[0]), at(numbers[1]));
                starting.push(scope.spawn(move || dns::dnsdist(tls, certificate, &scene.zone, "")));
                starting.push(scope.spawn(move || dns::hickory(quic, certificate, &scene.zone)));
            }
            starting.into_iter().map(|server| server.join().unwrap()).collect()
        });
        let mute = scene.address(MUTE, false);
        let sockets = scene.dns.inside(|| {
            let tcp = [53, 443, 853].map(|port| TcpListener::bind(SocketAddr::new(mute, port)).unwrap());
            let udp = [53, 853].map(|port| UdpSocket::bind(SocketAddr::new(mute, port)).unwrap());
            (tcp.into(), udp.into())
        });
        Self { processes, sockets }
    }
}

/// A fault: the servers, a proxy to them if there is one, the upstream, and what the client's error text says.
#[derive(Debug)]
struct Fault {
    servers: String,
    proxy: Option<String>,
    upstream: &'static str,
    says: Vec<String>,
}

impl Fault {
    fn new(servers: &str, upstream: &'static str, says: &[&str]) -> Self {
        let says = says.iter().map(ToString::to_string).collect();
        Self { servers: servers.to_owned(), proxy: None, upstream, says }
    }

    /// Begins a Larder with this fault: where there is a proxy, in the office, and the upstream is there too.
    fn start(&self, scene: &Scene) -> Start {
        let start = match &self.proxy {
            None => scene.start(&scene.open, self.upstream),
            Some(proxy) => {
                scene.start(&scene.blocked, self.upstream).args(["-proxy", proxy, "-no-proxy", "office.test"])
            }
        };
        start.args(["-dns", &self.servers, "-retry-attempts", "1"])
    }

    /// Asserts that a text has every word that belongs to this fault.
    fn assert_told_by(&self, text: &str) {
        let folded = text.to_lowercase();
        for says in &self.says {
            assert!(folded.contains(&says.to_lowercase()), "{says} is not in: {text}");
        }
    }
}

fn faults(scene: &Scene) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut add = |servers: &str, upstream, says: &[&str]| faults.push(Fault::new(servers, upstream, says));
    let at = |number| scene.address(number, false).to_string();
    for scheme in Scheme::ALL {
        let is_quic = scheme == Scheme::Quic;
        let broken = |numbers: [u8; 2]| scheme.server(&at(numbers[usize::from(is_quic)]));
        if !matches!(scheme, Scheme::Udp | Scheme::Tcp | Scheme::Json) {
            let (expired, other, stranger) = (broken(EXPIRED), broken(OTHER_NAME), broken(STRANGER));
            add(&expired, "https://mirror.test", &[&expired, "certificate expired on 2024-05-01"]);
            add(&other, "https://mirror.test", &[&other, "certificate is for elsewhere.test, not for"]);
            add(&stranger, "https://mirror.test", &[&stranger, "certificate of an unknown authority"]);
        }
        let good = scheme.server(&at(scheme.number()));
        add(&good, "https://missing.test", &[&good, "missing.test", "no such name"]);
        // hickory-dns knows its zone and no more; the others are told to fail.
        let (failing, name, says) = match scheme {
            Scheme::Quic => (scheme.server(&at(HICKORY)), "https://mirror.example", "REFUSED"),
            Scheme::Json => (scheme.server(&at(JSON)), "https://servfail.test", "SERVFAIL"),
            _ => (scheme.server(&at(DNSDIST)), "https://servfail.test", "SERVFAIL"),
        };
        add(&failing, name, &[&failing, says]);
        let down = scheme.server(&at(DOWN));
        // QUIC has no refusal that its library passes on.
        add(&down, "https://mirror.test", &[&down, if is_quic { "" } else { "refused" }]);
        let mute = scheme.server(&at(MUTE));
        add(&mute, "https://mirror.test", &[&mute, "no "]);
        let nobody = scheme.server(&at(NOBODY));
        add(&nobody, "https://mirror.test", &[&nobody]);
    }
    // Something else than DNS is there.
    let not_tls = format!("tls://{}:53", at(UNBOUND));
    add(&not_tls, "https://mirror.test", &[&not_tls]);
    let no_page = format!("https://{}/elsewhere", at(UNBOUND));
    // A path that is not one of the usual ones may hold somebody's key, and is masked.
    add(&no_page, "https://mirror.test", &[&format!("https://{}/***", at(UNBOUND)), "404"]);
    // Of several, each says why.
    let (down, failing) = (Scheme::Tls.server(&at(DOWN)), Scheme::Https.server(&at(DNSDIST)));
    add(&format!("{down},{failing}"), "https://servfail.test", &[&down, "refused", &failing, "SERVFAIL"]);
    // A name that does not exist for one does not exist.
    let (first, second) = (Scheme::Tcp.server(&at(DNSDIST)), Scheme::Tcp.server(&at(UNBOUND)));
    add(&format!("{first},{second}"), "https://other.test", &[&first, "no such name"]);
    faults.extend(faults_behind_proxies(scene));
    faults
}

/// The same through proxies, and the proxy's own.
fn faults_behind_proxies(scene: &Scene) -> Vec<Fault> {
    let at = |number| scene.address(number, false).to_string();
    let proxy = scene.proxy(false);
    let (socks, http) = (format!("socks5://{proxy}:{SOCKS_PORT}"), format!("http://{proxy}:{HTTP_PORT}"));
    let (no_socks, no_http) = (format!("socks5://{proxy}:9"), format!("http://{proxy}:9"));
    let (expired, stranger) = (Scheme::Tls.server(&at(EXPIRED[0])), Scheme::Https.server(&at(STRANGER[0])));
    let (down, good) = (Scheme::Tcp.server(&at(DOWN)), Scheme::Tls.server(&at(UNBOUND)));
    let mut faults = Vec::new();
    for (servers, proxy, says) in [
        (&expired, &socks, &[&expired, "certificate expired on 2024-05-01"][..]),
        (&expired, &http, &[&expired, "certificate expired on 2024-05-01"]),
        (&stranger, &socks, &[&stranger, "certificate of an unknown authority"]),
        (&stranger, &http, &[&stranger, "certificate of an unknown authority"]),
        (&down, &socks, &[&down, &socks, "refused"]),
        (&down, &http, &[&down, &http]),
        (&good, &no_socks, &[&good, &no_socks, "refused"]),
        (&good, &no_http, &[&good, &no_http, "refused"]),
    ] {
        faults.push(Fault { proxy: Some(proxy.clone()), ..Fault::new(servers, "https://office.test", says) });
    }
    faults
}

/// Whatever is wrong with a DNS server, the client's error text names the step, the server and the reason, and `larder
/// doctor` names them too and says what to do.
#[test]
fn every_fault_is_named() {
    let Some(scene) = Scene::new() else { return };
    let Some(stranger) = Authority::new("Nobody Knows Me") else { return };
    let _broken = Broken::new(&scene, &stranger);
    for_all(faults(&scene), |fault| {
        let answer = fault.start(&scene).run().get(SMALL_ZIP);
        // 404 is for the go command: it is to go on to its next proxy, if there is one.
        let text = answer.text();
        assert!(answer.status == 404 || answer.status >= 500, "{}: {text}", answer.status);
        fault.assert_told_by(text);
        assert!(text.contains("dns: "), "{text}");

        let doctor = fault.start(&scene).subcommand(&["doctor"]);
        let report = String::from_utf8_lossy(&doctor.stdout);
        assert_eq!(doctor.status.code(), Some(1), "{report}");
        let lines: Vec<_> = report.lines().collect();
        let failed: Vec<_> = lines.windows(2).filter(|pair| pair[0].starts_with("FAIL dns ")).collect();
        fault.assert_told_by(&failed.concat().join("\n"));
        assert!(failed.iter().all(|pair| pair[1].trim_start().starts_with("hint: ")), "{report}");
    });
}

/// A lying server of one's own choice is believed: what fails then is the next step, and that is what the text names.
#[test]
fn a_lie_is_not_called_a_fault_of_dns() {
    let Some(scene) = Scene::new() else { return };
    let liar = bracketed(scene.office.v4(LIAR).into());
    let larder = scene.start(&scene.open, "https://mirror.test").args(["-dns", &liar]).run();
    let answer = larder.get(SMALL_ZIP);
    let text = answer.text();
    assert!(text.contains("mirror.test") && text.contains("refused") && !text.contains("dns: "), "{text}");
}

/// What a server's answer lacks is asked for elsewhere, and the client never knows: a truncated answer over TCP, a failing
/// server's question at the next one, an address that leads nowhere by the other family.
#[test]
fn what_can_be_mended_is() {
    let Some(scene) = Scene::new() else { return };
    let at = |number| scene.address(number, false).to_string();
    let rows = vec![
        // Over UDP this name never fits.
        (Scheme::Udp.server(&at(DNSDIST)), "https://truncated.test"),
        // 300 ms late.
        (Scheme::Udp.server(&at(DNSDIST)), "https://slow.test"),
        (format!("{},{}", Scheme::Tls.server(&at(DOWN)), Scheme::Tls.server(&at(UNBOUND))), "https://mirror.test"),
        (format!("{},{}", Scheme::Udp.server(&at(DOWN)), Scheme::Udp.server(&at(UNBOUND))), "https://mirror.test"),
        (format!("{},{}", Scheme::Tcp.server(&at(DNSDIST)), at(UNBOUND)), "https://servfail-at-one.test"),
        // One family each, and one whose IPv6 address nobody has.
        (Scheme::Udp.server(&at(UNBOUND)), "https://mirror4.test"),
        (Scheme::Udp.server(&at(UNBOUND)), "https://mirror6.test"),
        (Scheme::Udp.server(&at(UNBOUND)), "https://half.test"),
    ];
    for_all(rows, |(servers, upstream)| {
        let larder = scene.start(&scene.open, upstream).args(["-dns", servers]).run();
        larder.get(SMALL_ZIP).expect(200);
    });
}
