//! The network of the DNS tests.
//!
//! ```text
//!   wire 1, the office:   blocked .10, open .11, proxy .30, bootstrap .53, upstream .20, liar .66
//!   wire 2, outside:      open .11, proxy .30, upstream .20, liar .66, DNS servers .53 and up
//! ```
//!
//! `blocked` reaches what is outside through the proxy alone; `open` has a leg in both. The system resolver of both is the
//! liar. Every DNS server knows the same names, and nothing else does; `mirror.test` is the upstream's outside, `office.test`
//! its address in the office.

use std::net::IpAddr;

use crate::harness::dns::{self, JsonServer, Place, Zone};
use crate::harness::proxies::{self, Program, bracketed};
use crate::harness::{Authority, Host, Net, Process, Start, Upstream, Wire, fixture};

/// The numbers of the DNS servers.
pub(super) const UNBOUND: u8 = 53;
pub(super) const DNSDIST: u8 = 54;
pub(super) const KRESD: u8 = 55;
pub(super) const HICKORY: u8 = 56;
pub(super) const JSON: u8 = 57;

/// The numbers of the upstream, the proxy and the liar on every wire.
const UPSTREAM: u8 = 20;
const PROXY: u8 = 30;
pub(super) const LIAR: u8 = 66;
/// Nobody has this number.
pub(super) const NOBODY: u8 = 99;

/// What dnsdist does with names that are there for it: it fails, it says that the answer does not fit, it is late.
const RULES: &str = "\
addAction(QNameRule('servfail.test.'), RCodeAction(DNSRCode.SERVFAIL))
addAction(QNameRule('servfail-at-one.test.'), RCodeAction(DNSRCode.SERVFAIL))
addAction(QNameRule('other.test.'), RCodeAction(DNSRCode.NXDOMAIN))
addAction(AndRule({QNameRule('truncated.test.'), TCPRule(false)}), TCAction())
addAction(QNameRule('slow.test.'), DelayAction(300))
addAction(QNameRule('brief.test.'), SpoofAction({'198.51.100.20', '2001:db8:2::14'}, {ttl=1}))
";

/// An upstream whose address holds for a second, if it is dnsdist that says so.
pub(super) const BRIEF: &str = "https://brief.test";

pub(super) const SOCKS_PORT: u16 = 1080;
pub(super) const HTTP_PORT: u16 = 3128;
/// An HTTP proxy that leads to no DNS server.
pub(super) const REFUSING_PORT: u16 = 3129;

/// Everything that runs; it ends in this order.
pub(super) struct Scene {
    pub(super) json: JsonServer,
    pub(super) dnsdist: Process,
    _others: [Process; 4],
    _proxies: [proxies::Server; 3],
    pub(super) upstream: Upstream,
    pub(super) authority: Authority,
    pub(super) zone: Zone,
    pub(super) blocked: Host,
    pub(super) open: Host,
    pub(super) dns: Host,
    pub(super) office: Wire,
    pub(super) outside: Wire,
    _net: Net,
}

impl Scene {
    /// Sets it up; `None` when something it needs is not there, which has been printed.
    pub(super) fn new() -> Option<Self> {
        if !dns::all_installed() {
            return None;
        }
        let authority = Authority::new("Authority of the DNS tests")?;
        let net = Net::new()?;
        let (office, outside) = (net.wire(), net.wire());
        let both = |number| [(office, number), (outside, number)];
        let blocked = net.host("blocked", &[(office, 10)]);
        let open = net.host("open", &both(11));
        let (proxy, away, dns) =
            (net.host("proxy", &both(PROXY)), net.host("away", &both(UPSTREAM)), net.host("dns", &both(53)));
        let liar = net.host("liar", &both(LIAR));
        for number in [DNSDIST, KRESD, HICKORY, JSON] {
            dns.add_address(outside, number);
        }
        let zone = zone(office, outside);
        proxy.hosts_file(&zone.hosts_file());
        for host in [&blocked, &open] {
            host.resolv_conf(&format!("nameserver {}\noptions timeout:1 attempts:1\n", office.v4(LIAR)));
        }
        let certificate = &authority.sign(&server_hosts(&zone, outside));
        let at = |number| Place { host: &dns, wire: outside, number };
        // Together: each of them takes some time to answer.
        let (dnsdist, others) = std::thread::scope(|scope| {
            let zone = &zone;
            let bootstrap = [office.v4(UNBOUND).into(), office.v6(UNBOUND).into()];
            let unbound = scope.spawn(move || dns::unbound(at(UNBOUND), &bootstrap, certificate, zone));
            let dnsdist = scope.spawn(move || dns::dnsdist(at(DNSDIST), certificate, zone, RULES));
            let kresd = scope.spawn(move || dns::kresd(at(KRESD), certificate, zone));
            let hickory = scope.spawn(move || dns::hickory(at(HICKORY), certificate, zone));
            let liar = dns::liar(Place { host: &liar, wire: office, number: LIAR }, office.v4(LIAR).into());
            let join = |server: std::thread::ScopedJoinHandle<'_, Process>| server.join().unwrap();
            (join(dnsdist), [join(unbound), join(kresd), join(hickory), liar])
        });
        let json = JsonServer::start(at(JSON), certificate, &zone);
        let proxies = [
            proxies::Server::start(Program::Microsocks, &proxy, SOCKS_PORT, false)?,
            proxies::Server::start(Program::Tinyproxy, &proxy, HTTP_PORT, false)?,
            proxies::Server::refusing(Program::Tinyproxy, &proxy, REFUSING_PORT, 853)?,
        ];
        let upstream = Upstream::inside(&away, &zone.names(), &fixture(), &[]);
        Some(Self {
            json,
            dnsdist,
            _others: others,
            _proxies: proxies,
            upstream,
            authority,
            zone,
            blocked,
            open,
            dns,
            office,
            outside,
            _net: net,
        })
    }
}

impl Scene {
    /// Begins a Larder on `host` with this upstream and both authorities.
    pub(super) fn start(&self, host: &Host, upstream: &str) -> Start {
        self.place(host, Start::upstream(upstream))
    }

    /// Puts a Larder on `host` and gives it both authorities.
    pub(super) fn place(&self, host: &Host, start: Start) -> Start {
        let dns = self.authority.file();
        start.inside(host).args(["-ca", self.upstream.authority(), "-dns-ca", dns.to_str().unwrap()])
    }

    /// Returns every name and address that a DNS server may have in this scene.
    pub(super) fn server_hosts(&self) -> Vec<String> {
        server_hosts(&self.zone, self.outside)
    }

    /// Returns the address of a DNS server.
    pub(super) fn address(&self, number: u8, is_v6: bool) -> IpAddr {
        if is_v6 { self.outside.v6(number).into() } else { self.outside.v4(number).into() }
    }

    /// Returns the upstream's address outside.
    pub(super) fn upstream_address(&self) -> IpAddr {
        self.outside.v4(UPSTREAM).into()
    }

    /// Returns the addresses in the office at which unbound answers plain questions.
    pub(super) fn bootstraps(&self) -> [IpAddr; 2] {
        [self.office.v4(UNBOUND).into(), self.office.v6(UNBOUND).into()]
    }

    /// Returns one of them as it is configured.
    pub(super) fn bootstrap(&self, is_v6: bool) -> String {
        bracketed(self.bootstraps()[usize::from(is_v6)])
    }

    /// Returns the proxies' address in the office.
    pub(super) fn proxy(&self, is_v6: bool) -> IpAddr {
        if is_v6 { self.office.v6(PROXY).into() } else { self.office.v4(PROXY).into() }
    }
}

/// Returns the name of a server that leads to its address of one family.
pub(super) fn server_name(number: u8, is_v6: bool) -> String {
    format!("dns{number}-{}.test", if is_v6 { "v6" } else { "v4" })
}

fn server_hosts(zone: &Zone, outside: Wire) -> Vec<String> {
    let names = zone.names().into_iter().filter(|name| name.starts_with("dns")).map(str::to_owned);
    names
        .chain((UNBOUND..LIAR + 20).flat_map(|number| [outside.v4(number).to_string(), outside.v6(number).to_string()]))
        .collect()
}

/// Returns what the DNS servers know.
fn zone(office: Wire, outside: Wire) -> Zone {
    let mut zone = Zone::default()
        .add("mirror.test", outside.v4(UPSTREAM))
        .add("mirror.test", outside.v6(UPSTREAM))
        .add("mirror4.test", outside.v4(UPSTREAM))
        .add("mirror6.test", outside.v6(UPSTREAM))
        .add("office.test", office.v4(UPSTREAM))
        .add("office.test", office.v6(UPSTREAM))
        .add("half.test", outside.v4(UPSTREAM))
        .add("half.test", outside.v6(NOBODY))
        .add("proxy.test", office.v4(PROXY));
    for name in ["truncated.test", "slow.test", "servfail-at-one.test", "other.test", "brief.test"] {
        zone = zone.add(name, outside.v4(UPSTREAM));
    }
    for number in [UNBOUND, DNSDIST, KRESD, HICKORY, JSON] {
        zone = zone.add(&server_name(number, false), outside.v4(number));
        zone = zone.add(&server_name(number, true), outside.v6(number));
    }
    zone
}
