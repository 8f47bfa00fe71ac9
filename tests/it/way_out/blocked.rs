//! The office that Larder was made for: port 53 lies whomever one asks, and one SOCKS5 proxy is all that leads out.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::harness::dns::{Place, Zone, liar, unbound};
use crate::harness::proxies::{Program, Server, is_installed};
use crate::harness::{
    Authority, Host, Larder, Net, Process, SMALL_ZIP, Start, Upstream, Wire, fixture, root, wait_for,
};

/// The mirror that is asked when nothing else is configured, here of course a stand-in.
const MIRROR: &str = "proxy.golang.org";
/// The same one under a name that only the DNS server knows.
const NAMED: &str = "mirror.test";

/// The numbers of the hosts on their wires.
const LARDER: u8 = 10;
const PROXY: u8 = 20;
const PROVIDER: u8 = 1;
const UPSTREAM: u8 = 30;
const DNS: u8 = 40;

/// An office and the world behind its provider. On the office's wire are the Larder, the proxy and the provider's box, to
/// which everything is sent that is for elsewhere, and which goes no further. The box has the true DNS server's
/// addresses too: whoever asks that server without the proxy asks the box.
struct Office {
    larder: Host,
    proxy: Host,
    away: Host,
    provider: Host,
    dns: Vec<IpAddr>,
    server: Server,
    upstream: Upstream,
    trust: PathBuf,
    #[expect(dead_code, reason = "they run until the end")]
    names: [Process; 3],
    /// Dropped last.
    #[expect(dead_code, reason = "its hosts are gone when it is dropped")]
    net: Net,
}

impl Office {
    fn new() -> Option<Self> {
        ["unbound", "dnsmasq", "kdig", "tcpdump"].into_iter().try_for_each(is_installed)?;
        let (net, authority) = (Net::new()?, Authority::new("Test Authority")?);
        let (office, world) = (net.wire(), net.wire());
        let larder = net.host("larder", &[(office, LARDER)]);
        let provider = net.host("provider", &[(office, PROVIDER)]);
        let proxy = net.host("proxy", &[(office, PROXY), (world, PROXY)]);
        let away = net.host("upstream", &[(world, UPSTREAM)]);
        let dns = net.host("dns", &[(world, DNS)]);
        larder.default_route(&provider, office);
        larder.resolv_conf(&format!("nameserver {}\nnameserver {}\n", provider.v4(), provider.v6()));
        proxy.hosts_file(&format!("{} {MIRROR}\n{} {MIRROR}\n", away.v4(), away.v6()));
        let names = Self::names(&authority, &provider, &dns, &away, office, world);
        let upstream = Upstream::inside(&away, &[MIRROR, NAMED], &fixture(), &[]);
        let both = [upstream.authority().into(), authority.file()].map(|file: PathBuf| std::fs::read(file).unwrap());
        let trust = larder.folder().join("ca.pem");
        std::fs::write(&trust, both.concat()).unwrap();
        let server = Server::start(Program::Danted, &proxy, 1080, false)?;
        Some(Self { dns: dns.addresses(), larder, proxy, away, provider, server, upstream, trust, names, net })
    }

    /// Starts who answers on port 53: the provider's box in its own name and in another's, and the true server.
    fn names(
        authority: &Authority,
        provider: &Host,
        dns: &Host,
        away: &Host,
        office: Wire,
        world: Wire,
    ) -> [Process; 3] {
        for (address, length) in [(IpAddr::from(world.v4(DNS)), 32), (world.v6(DNS).into(), 128)] {
            provider.ip(&["addr", "add", &format!("{address}/{length}"), "dev", "lo"]);
        }
        let lie = provider.v4().into();
        let zone = Zone::default().add(NAMED, away.v4()).add(NAMED, away.v6());
        let (v4, v6) = (dns.v4().to_string(), dns.v6().to_string());
        let certificate = authority.sign(&["dns.test", &v4, &v6]);
        [
            liar(Place { host: provider, wire: office, number: PROVIDER }, lie),
            liar(Place { host: provider, wire: world, number: DNS }, lie),
            unbound(Place { host: dns, wire: world, number: DNS }, &[], &certificate, &zone),
        ]
    }

    fn start(&self, start: Start) -> Start {
        start.inside(&self.larder).env("SSL_CERT_FILE", self.trust.to_str().unwrap())
    }

    fn socks(&self, scheme: &str) -> String {
        format!("{scheme}://{}:{}", self.proxy.v4(), self.server.port())
    }

    /// Builds the pocket application with the real go command, from empty caches.
    #[track_caller]
    fn build(&self, larder: &Larder) {
        let script = root().join("tests/tools/fresh-build.sh");
        let built = Command::new(script).args(["pocket", &larder.url]).output().unwrap();
        assert!(built.status.success(), "{}\n{}", String::from_utf8_lossy(&built.stderr), larder.log());
        assert!(!self.upstream.log_of(SMALL_ZIP).is_empty());
        self.upstream.reset();
    }
}

/// Everything that leaves or reaches the Larder's host on its wire and is not for or from the proxy.
struct Strays(Process);

impl Strays {
    fn watch(office: &Office) -> Self {
        let (v4, v6) = (office.proxy.v4(), office.proxy.v6());
        let filter = format!("(tcp or udp) and not host {v4} and not host {v6}");
        let args = ["-i", "eth1", "-nn", "-l", "-t", "--immediate-mode", "-Z", "root", &filter];
        let mut process = office.larder.spawn("tcpdump", &args);
        process.wait_until("it listens", |tcpdump| tcpdump.log().contains("listening on").then_some(()));
        Self(process)
    }

    /// Returns the lines of what was seen up to now; a packet of our own marks the end.
    fn seen(&self, office: &Office) -> Vec<String> {
        let socket = office.larder.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        let marker = format!(".{} > ", socket.local_addr().unwrap().port());
        socket.send_to(b"end", (office.provider.v4(), 9)).unwrap();
        let log = wait_for("tcpdump sees the marker", || Some(self.0.log()).filter(|log| log.contains(&marker)));
        let of_a_marker = format!(" > {}.9: UDP, length 3", office.provider.v4());
        let lines = log.lines().filter(|line| line.contains(" > ") && !line.contains(&of_a_marker));
        lines.map(str::to_owned).collect()
    }
}

/// Behind a resolver that lies and a wall with one SOCKS5 proxy in it, one line of configuration is enough for a real
/// build from empty caches, and not one packet goes anywhere but to the proxy.
#[test]
fn one_line_leads_out() {
    let Some(office) = Office::new() else { return };
    office.assert_blocked();
    let file = office.larder.write("larder.yaml", &format!("proxy: {}\n", office.socks("socks5h")));
    let Some(watch) = office.larder.watch_port_53() else { return };
    let strays = Strays::watch(&office);
    let larder = office.start(Start::configured(&file)).run();
    office.build(&larder);
    let led = |address: &IpAddr| office.server.log().contains(&address.to_string());
    assert!(office.away.addresses().iter().any(led), "{}", office.server.log());
    assert!(watch.packets().is_empty(), "{:?}", watch.packets());
    assert!(strays.seen(&office).is_empty(), "{:?}", strays.seen(&office));
    drop(larder);
    // The same with names resolved here: by the configured server alone, through the proxy. The same address without
    // the proxy would have been the liar's.
    for server in ["tcp", "tls", "https"] {
        for address in &office.dns {
            let path = if server == "https" { "/dns-query" } else { "" };
            let host = crate::harness::proxies::bracketed(*address);
            let line = ["-proxy", &office.socks("socks5"), "-dns", &format!("{server}://{host}{path}")];
            let larder = office.start(Start::upstream(&format!("https://{NAMED}")).args(line)).run();
            if server == "tls" {
                office.build(&larder);
            } else {
                larder.get(SMALL_ZIP).expect(200);
            }
        }
    }
    // UDP is sent through the proxy too when everything is to be, as TCP.
    let line = ["-proxy", &office.socks("socks5"), "-dns-route", "proxy", "-dns", &office.dns[0].to_string()];
    let larder = office.start(Start::upstream(&format!("https://{NAMED}")).args(line)).run();
    larder.get(SMALL_ZIP).expect(200);
    assert!(watch.packets().is_empty(), "{:?}", watch.packets());
    assert!(strays.seen(&office).is_empty(), "{:?}", strays.seen(&office));
}

impl Office {
    /// Fails unless it is as bad as it is meant to be.
    #[track_caller]
    fn assert_blocked(&self) {
        for address in self.away.addresses() {
            let target = SocketAddr::new(address, 443);
            let direct = self.larder.inside(|| TcpStream::connect_timeout(&target, Duration::from_millis(300)));
            assert!(direct.is_err(), "{target} is reached without the proxy");
        }
        for server in [IpAddr::from(self.provider.v4()), self.dns[0]] {
            let mut kdig = self.larder.command("kdig");
            let output = kdig.args([&format!("@{server}"), "+short", MIRROR, "A"]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), self.provider.v4().to_string());
        }
    }
}

/// Without a way out configured the same office gets an error that says what was tried, and doctor says the same.
#[test]
fn without_it_doctor_says_what_is_wrong() {
    let Some(office) = Office::new() else { return };
    let doctor = |start: Start| {
        let output = office.start(start).subcommand(&["doctor"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = doctor(Start::upstream(&format!("https://{MIRROR}")));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&office.provider.v4().to_string()), "the lie is shown: {text}");
    let dns = text.lines().find(|line| line.contains("dns  ")).unwrap_or_default();
    assert!(dns.starts_with("warn") && dns.contains("system resolver") && text.contains("may be false"), "{text}");
    // A proxy that works is no help with a false address; what is of help is named.
    let line = ["-proxy", &office.socks("socks5")];
    let (code, text) = doctor(Start::upstream(&format!("https://{NAMED}")).args(line));
    assert_eq!(code, Some(1), "{text}");
    assert!(["may be false", "-dns (tls://", "socks5h://"].iter().all(|word| text.contains(word)), "{text}");
    assert!(!text.contains("NO_PROXY") && !text.contains("with -proxy"), "{text}");
    // The liar in the true server's place, for UDP is not sent through the proxy by itself.
    let line = ["-proxy", &office.socks("socks5"), "-dns", &office.dns[0].to_string()];
    let (code, text) = doctor(Start::upstream(&format!("https://{NAMED}")).args(line));
    assert_eq!(code, Some(1), "{text}");
    let line = ["-proxy", &office.socks("socks5"), "-dns", &format!("tls://{}", office.dns[0])];
    let (code, text) = doctor(Start::upstream(&format!("https://{NAMED}")).args(line));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&office.socks("socks5")) && text.contains(&format!("tls://{}", office.dns[0])), "{text}");
    let (code, text) = doctor(Start::upstream("").args(["-proxy", &office.socks("socks5h")]));
    assert_eq!(code, Some(0), "{text}");
}
