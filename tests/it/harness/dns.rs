//! Real DNS servers on hosts of a test's own network, all knowing the same zone; ready once they answer kdig.
//!
//! unbound (UDP, TCP, TLS, HTTPS), dnsdist and kresd (TLS and HTTPS again, by other hands), hickory-dns (QUIC), dnsmasq
//! (a liar), and a responder of our own for the JSON form. Each takes one number, and serves on both addresses of it.

mod json;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Certificate, Host, Process, Wire};

pub(crate) use json::JsonServer;

/// Names below `test.` and their addresses.
#[derive(Clone, Default)]
pub(crate) struct Zone(Vec<(String, IpAddr)>);

impl Zone {
    /// Adds an address of a name.
    pub(crate) fn add(mut self, name: &str, address: impl Into<IpAddr>) -> Self {
        assert!(name.ends_with(".test"), "{name} is not below test.");
        self.0.push((name.to_owned(), address.into()));
        self
    }

    /// Returns its addresses of one family for a name, `None` when it does not know the name at all.
    pub(crate) fn find(&self, name: &str, is_v6: bool) -> Option<Vec<IpAddr>> {
        let of_name: Vec<_> = self.0.iter().filter(|(known, _)| known == name).map(|(_, address)| *address).collect();
        (!of_name.is_empty()).then(|| of_name.into_iter().filter(|address| address.is_ipv6() == is_v6).collect())
    }

    /// Returns its names, each once.
    pub(crate) fn names(&self) -> Vec<&str> {
        let names: std::collections::BTreeSet<_> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.into_iter().collect()
    }

    /// Returns it as a hosts file.
    pub(crate) fn hosts_file(&self) -> String {
        let mut text = String::new();
        for (name, address) in &self.0 {
            writeln!(text, "{address} {name}").unwrap();
        }
        text
    }

    /// Returns its lines in the notation of zone files.
    fn records(&self, ttl: u32) -> Vec<String> {
        let kind = |address: &IpAddr| if address.is_ipv6() { "AAAA" } else { "A" };
        self.0.iter().map(|(name, address)| format!("{name}. {ttl} IN {} {address}", kind(address))).collect()
    }
}

/// Where a server listens, and as whom.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) host: &'a Host,
    pub(crate) wire: Wire,
    pub(crate) number: u8,
}

impl Place<'_> {
    /// Returns both addresses.
    pub(crate) fn addresses(self) -> [IpAddr; 2] {
        [self.wire.v4(self.number).into(), self.wire.v6(self.number).into()]
    }

    fn folder(self, program: &str) -> PathBuf {
        let folder = self.host.folder().join(format!("{program}-{}", self.number));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// Says that a program is missing: the test is left out.
fn installed(program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join(program).is_file());
    if !found {
        println!("left out, it needs {program}");
    }
    found
}

/// Returns whether every server program there is a harness for is installed, and says which one is not.
pub(crate) fn all_installed() -> bool {
    let programs = ["unbound", "dnsdist", "kresd", "dnsmasq", "kdig", "tcpdump"];
    programs.into_iter().all(installed) && hickory_program().is_some()
}

/// Waits until a server answers kdig over this way (`+tcp`, `+tls`, `+https`, `+quic`) on both addresses.
fn wait_for_answer(process: &mut Process, place: Place<'_>, way: &str) {
    for address in place.addresses() {
        process.wait_until(&format!("an answer {way} at {address}"), |_| {
            let mut kdig = place.host.command("kdig");
            kdig.args([&format!("@{address}"), way, "+timeout=1", "+retry=0", "ready.test", "A"]);
            let output = kdig.output().unwrap();
            let answered = String::from_utf8_lossy(&output.stdout).contains("->>HEADER<<-");
            (output.status.success() && answered).then_some(())
        });
    }
}

/// Starts unbound: UDP and TCP on 53, TLS on 853, HTTPS (`/dns-query`) on 443. It also answers plain questions at `more`.
pub(crate) fn unbound(place: Place<'_>, more: &[IpAddr], certificate: &Certificate, zone: &Zone) -> Process {
    let mut config = "server:\n".to_owned();
    for (address, ports) in place
        .addresses()
        .iter()
        .map(|address| (address, &[53, 853, 443][..]))
        .chain(more.iter().map(|address| (address, &[53][..])))
    {
        for port in ports {
            writeln!(config, "  interface: {address}@{port}").unwrap();
        }
    }
    write!(
        config,
        "  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n  chroot: \"\"\n  username: \"\"\n  \
         pidfile: \"\"\n  directory: \"\"\n  do-daemonize: no\n  use-syslog: no\n  module-config: \"iterator\"\n  \
         num-threads: 1\n  tls-service-key: {}\n  tls-service-pem: {}\n  local-zone: \"test.\" static\n  \
         local-data: \"test. 60 IN SOA ns.test. admin.test. 1 3600 600 86400 60\"\n",
        certificate.key.display(),
        certificate.certificate.display()
    )
    .unwrap();
    for record in zone.records(60) {
        writeln!(config, "  local-data: \"{record}\"").unwrap();
    }
    config.push_str("remote-control:\n  control-enable: no\n");
    let file = place.folder("unbound").join("unbound.conf");
    std::fs::write(&file, config).unwrap();
    let mut process = place.host.spawn("unbound", &["-d", "-p", "-c", text(&file)]);
    wait_for_answer(&mut process, place, "+https");
    process
}

/// Starts dnsdist, as [`unbound`]; `rules` in its own language come before the zone.
pub(crate) fn dnsdist(place: Place<'_>, certificate: &Certificate, zone: &Zone, rules: &str) -> Process {
    let (chain, key) = (certificate.certificate.display(), certificate.key.display());
    let mut config = "setSecurityPollSuffix('')\nsetACL({'0.0.0.0/0', '::/0'})\n".to_owned();
    for (index, address) in place.addresses().iter().enumerate() {
        let add = if index == 0 { "setLocal" } else { "addLocal" };
        let socket = |port: u16| std::net::SocketAddr::new(*address, port);
        writeln!(config, "{add}('{}')", socket(53)).unwrap();
        writeln!(config, "addTLSLocal('{}', '{chain}', '{key}')", socket(853)).unwrap();
        writeln!(config, "addDOHLocal('{}', '{chain}', '{key}', '/dns-query')", socket(443)).unwrap();
    }
    config.push_str(rules);
    for (name, _) in &zone.0 {
        let of_family = |is_v6| zone.find(name, is_v6).unwrap_or_default();
        let addresses: Vec<_> =
            of_family(false).into_iter().chain(of_family(true)).map(|address| format!("'{address}'")).collect();
        writeln!(config, "addAction(QNameRule('{name}.'), SpoofAction({{{}}}))", addresses.join(",")).unwrap();
        // A family without an address is no error, and nothing goes on to servers that are not there.
        writeln!(config, "addAction(QNameRule('{name}.'), RCodeAction(DNSRCode.NOERROR))").unwrap();
    }
    config.push_str("addAction(AllRule(), RCodeAction(DNSRCode.NXDOMAIN))\n");
    let file = place.folder("dnsdist").join("dnsdist.conf");
    std::fs::write(&file, config).unwrap();
    let mut process = place.host.spawn("dnsdist", &["--supervised", "--disable-syslog", "-C", text(&file)]);
    wait_for_answer(&mut process, place, "+https");
    process
}

/// Starts Knot Resolver, as [`unbound`].
pub(crate) fn kresd(place: Place<'_>, certificate: &Certificate, zone: &Zone) -> Process {
    let mut config = String::new();
    for address in place.addresses() {
        for (port, kind) in [(53, "dns"), (853, "tls"), (443, "doh2")] {
            writeln!(config, "net.listen('{address}', {port}, {{ kind = '{kind}' }})").unwrap();
        }
    }
    let (chain, key) = (certificate.certificate.display(), certificate.key.display());
    // `test.` is a special name that it denies by itself: right for all but the names of the zone, and so nothing is
    // asked of others.
    let names: Vec<_> = zone.0.iter().map(|(name, _)| format!("'{name}.'")).collect();
    write!(
        config,
        "net.tls('{chain}', '{key}')\nmodules = {{ 'hints > iterate', 'policy' }}\n\
         policy.add(policy.suffix(policy.PASS, policy.todnames({{{}}})))\n\
         for _, name in ipairs({{'ta_update', 'ta_signal_query', 'priming', 'detect_time_skew'}}) do modules.unload(name) end\n\
         cache.size = 1 * MB\nhints.ttl(60)\n",
        names.join(",")
    )
    .unwrap();
    for (name, address) in &zone.0 {
        writeln!(config, "hints['{name}'] = '{address}'").unwrap();
    }
    let folder = place.folder("kresd");
    let file = folder.join("kresd.conf");
    std::fs::write(&file, config).unwrap();
    let mut process = place.host.spawn("kresd", &["-n", "-q", "-c", text(&file), text(&folder)]);
    wait_for_answer(&mut process, place, "+https");
    process
}

/// Returns the hickory-dns program, from where `tests/all` puts it or the search path. Without it it prints so.
fn hickory_program() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools/bin/hickory-dns");
    if built.is_file() {
        return Some(built);
    }
    installed("hickory-dns").then(|| PathBuf::from("hickory-dns"))
}

/// Starts hickory-dns: QUIC on 853 and nothing else but UDP.
pub(crate) fn hickory(place: Place<'_>, certificate: &Certificate, zone: &Zone) -> Process {
    let folder = place.folder("hickory");
    let mut records = "@ 60 IN SOA ns.test. admin.test. 1 3600 600 86400 60\n@ 60 IN NS ns.test.\n".to_owned();
    for record in zone.records(60) {
        writeln!(records, "{record}").unwrap();
    }
    std::fs::write(folder.join("zone"), records).unwrap();
    let [v4, v6] = place.addresses();
    let config = format!(
        "drop_privileges = false\nlisten_addrs_ipv4 = [\"{v4}\"]\nlisten_addrs_ipv6 = [\"{v6}\"]\nlisten_port = 53\n\
         quic_listen_port = 853\ndisable_tcp = true\ndisable_tls = true\ndisable_https = true\n\
         tls_cert = {{ path = \"{}\", private_key = \"{}\", endpoint_name = \"dns.test\" }}\n\
         [[zones]]\nzone = \"test\"\nzone_type = \"Primary\"\nfile = \"{}\"\n",
        certificate.certificate.display(),
        certificate.key.display(),
        folder.join("zone").display()
    );
    let file = folder.join("hickory.toml");
    std::fs::write(&file, config).unwrap();
    let program = hickory_program().expect("asked for before");
    let mut process = place.host.spawn(text(&program), &["-q", "-c", text(&file), "-z", text(&folder)]);
    wait_for_answer(&mut process, place, "+quic");
    process
}

/// Starts dnsmasq as a liar: everything has this one address, over UDP and TCP.
pub(crate) fn liar(place: Place<'_>, lie: IpAddr) -> Process {
    let [v4, v6] = place.addresses();
    let mut process = place.host.spawn(
        "dnsmasq",
        &[
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--pid-file=",
            "--log-facility=-",
            "--log-queries",
            "--bind-interfaces",
            &format!("--listen-address={v4},{v6}"),
            &format!("--address=/#/{lie}"),
        ],
    );
    wait_for_answer(&mut process, place, "+tcp");
    process
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
