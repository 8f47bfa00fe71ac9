//! Every kind of proxy, real ones, between a Larder and an upstream that it has no other way to.

use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::proxies::{Program, Server, USER, bracketed};
use crate::harness::{Answer, Authority, BIG_ZIP, Host, Net, SMALL_ZIP, Start, Upstream, fixture, json, root};

/// The names of the proxy's host, for one family each.
const PROXY: [&str; 2] = ["proxy4.test", "proxy6.test"];
/// Names of the upstream that only Larder's host knows.
const NEAR: [&str; 2] = ["near4.test", "near6.test"];
/// Names of the upstream that only the proxy's host knows.
const FAR: [&str; 2] = ["far4.test", "far6.test"];

/// A Larder, proxies and an upstream: the first two on one wire, the last two on another.
struct Ground {
    larder: Host,
    proxy: Host,
    away: Host,
    upstream: Upstream,
    authority: Authority,
    trust: PathBuf,
    /// Dropped last.
    #[expect(dead_code, reason = "its hosts are gone when it is dropped")]
    net: Net,
}

impl Ground {
    fn new() -> Option<Self> {
        let (net, authority) = (Net::new()?, Authority::new("Proxy Authority")?);
        let (inner, outer) = (net.wire(), net.wire());
        let larder = net.host("larder", &[(inner, 10)]);
        let proxy = net.host("proxy", &[(inner, 20), (outer, 20)]);
        let away = net.host("upstream", &[(outer, 30)]);
        let pair = |names: [&str; 2], host: &Host| format!("{} {}\n{} {}\n", host.v4(), names[0], host.v6(), names[1]);
        larder.hosts_file(&(pair(PROXY, &proxy) + &pair(NEAR, &away)));
        proxy.hosts_file(&pair(FAR, &away));
        let (v4, v6) = (away.v4().to_string(), away.v6().to_string());
        let upstream = Upstream::inside(&away, &[NEAR[0], NEAR[1], FAR[0], FAR[1], &v4, &v6], &fixture(), &[]);
        // The authorities of the upstream and of the proxy's TLS, in one file as companies hand them out.
        let both = [upstream.authority().into(), authority.file()].map(|file: PathBuf| std::fs::read(file).unwrap());
        let trust = larder.folder().join("ca.pem");
        std::fs::write(&trust, both.concat()).unwrap();
        Some(Self { larder, proxy, away, upstream, authority, trust, net })
    }

    fn start(&self, proxy: &str, upstream: &str) -> Start {
        let start = Start::upstream(upstream).inside(&self.larder);
        start.args(["-proxy", proxy, "-ca", self.trust.to_str().unwrap(), "-retry-attempts", "1"])
    }
}

/// Returns whether an answer says that there is none; 404 is for the go command, which then asks its next proxy.
fn is_reason(answer: &Answer) -> bool {
    matches!(answer.status, 404 | 502 | 504)
}

/// Proxies of one program, without a password and with one, and TLS in front of both where it speaks HTTP.
struct Family {
    program: Program,
    servers: [Server; 2],
    tls: Option<[Server; 2]>,
}

impl Family {
    fn start(ground: &Ground, program: Program, port: u16) -> Option<Self> {
        let servers = [
            Server::start(program, &ground.proxy, port, false)?,
            Server::start(program, &ground.proxy, port + 1, true)?,
        ];
        let mut tls = None;
        if matches!(program, Program::Tinyproxy | Program::Squid) {
            let (v4, v6) = (ground.proxy.v4().to_string(), ground.proxy.v6().to_string());
            let certificate = ground.authority.sign(&[PROXY[0], PROXY[1], &v4, &v6]);
            tls = Some([
                Server::tls(&ground.proxy, port + 2, &certificate, &servers[0])?,
                Server::tls(&ground.proxy, port + 3, &certificate, &servers[1])?,
            ]);
        }
        Some(Self { program, servers, tls })
    }

    fn schemes(&self) -> [&'static str; 2] {
        match self.program {
            Program::Danted | Program::Microsocks => ["socks5", "socks5h"],
            Program::Tinyproxy | Program::Squid => ["http", "https"],
        }
    }

    fn url(&self, scheme: &str, host: &str, has_password: bool) -> String {
        let servers = self.tls.as_ref().filter(|_| scheme == "https").unwrap_or(&self.servers);
        let port = servers[usize::from(has_password)].port();
        let user = if has_password { format!("{USER}:{}@", self.program.password().1) } else { String::new() };
        format!("{scheme}://{user}{host}:{port}")
    }
}

/// Every scheme, with a password and without, with names and with addresses, of both families, leads to an upstream
/// that speaks TLS and to one that does not; danted, microsocks, tinyproxy and squid all serve it.
#[test]
fn every_scheme_leads_out() {
    let Some(ground) = Ground::new() else { return };
    let programs = [Program::Danted, Program::Microsocks, Program::Tinyproxy, Program::Squid];
    std::thread::scope(|scope| {
        let threads = programs.iter().zip([1000, 2000, 3000, 4000]).map(|(program, port)| {
            let ground = &ground;
            scope.spawn(move || {
                let Some(family) = Family::start(ground, *program, port) else { return };
                for scheme in family.schemes() {
                    walk(ground, &family, scheme);
                }
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

fn walk(ground: &Ground, family: &Family, scheme: &str) {
    let truth = std::fs::read(fixture().join(&SMALL_ZIP[1..])).unwrap();
    for (index, is_named, has_password, outer) in (0..16).map(|n| (n & 1, n & 2 == 0, n & 4 != 0, n & 8 == 0)) {
        let outer = if outer { "https" } else { "http" };
        let address = |host: &Host| bracketed(if index == 0 { host.v4().into() } else { IpAddr::from(host.v6()) });
        // Larder knows no name that the proxy is to resolve, and the proxy none that Larder is to.
        let known = if scheme == "socks5" { NEAR } else { FAR };
        let (proxy, upstream) = if is_named {
            (PROXY[index].to_owned(), known[index].to_owned())
        } else {
            (address(&ground.proxy), address(&ground.away))
        };
        let way = format!("{:?}, {} to {outer}://{upstream}", family.program, family.url(scheme, &proxy, has_password));
        let larder = ground.start(&family.url(scheme, &proxy, has_password), &format!("{outer}://{upstream}")).run();
        let answer = larder.get(SMALL_ZIP);
        let text = || String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]).into_owned();
        assert!(answer.status == 200 && answer.body == truth, "{way}: {}: {}\n{}", answer.status, text(), larder.log());
        assert!(!larder.log().contains("Batt"), "{way}: a password in the log: {}", larder.log());
    }
    assert_eq!(ground.upstream.log_of(SMALL_ZIP).iter().filter(|record| record.status >= 400).count(), 0);
    // The real go command, once for each scheme, with the longest way there is: names, TLS, a password.
    if !matches!(
        (family.program, scheme),
        (Program::Danted, "socks5")
            | (Program::Microsocks, "socks5h")
            | (Program::Tinyproxy, "http")
            | (Program::Squid, "https")
    ) {
        return;
    }
    let proxy = family.url(scheme, PROXY[1], true);
    let upstream = if scheme == "socks5" { NEAR[0] } else { FAR[0] };
    let larder = ground.start(&proxy, &format!("https://{upstream}")).run();
    let built = Command::new(root().join("tests/tools/fresh-build.sh")).args(["pocket", &larder.url]).output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{:?}, {scheme}: {said}\n{}", family.program, larder.log());
}

/// A real proxy is killed while a zip comes through it: the client's one connection ends with the whole file, which the
/// next proxy led to.
#[test]
fn a_killed_proxy_is_replaced_under_way() {
    let Some(ground) = Ground::new() else { return };
    let Some(second) = Server::start(Program::Squid, &ground.proxy, 4000, false) else { return };
    for (program, scheme, port) in
        [(Program::Danted, "socks5h", 1000), (Program::Microsocks, "socks5h", 2000), (Program::Tinyproxy, "http", 3000)]
    {
        for face in ["https", "http"] {
            let Some(mut first) = Server::start(program, &ground.proxy, port, false) else { return };
            let at = ground.proxy.v4();
            let proxies = format!("{scheme}://{at}:{port},http://{at}:{}", second.port());
            ground.upstream.reset();
            ground.upstream.faults(json!([{"kind": "zip", "bandwidth": 1_500_000, "times": 4}]));
            let larder = ground.start(&proxies, &format!("{face}://{}", FAR[0])).args(["-retry-attempts", "3"]).run();
            let mut response = larder.open(BIG_ZIP);
            let mut body = vec![0; 300_000];
            response.read_exact(&mut body).unwrap();
            first.kill();
            let way = format!("{program:?} to {face}");
            response.read_to_end(&mut body).unwrap_or_else(|error| panic!("{way}: {error}: {}", larder.log()));
            assert!(body == std::fs::read(fixture().join(&BIG_ZIP[1..])).unwrap(), "{way}: {} bytes", body.len());
            let asked = ground.upstream.log_of(BIG_ZIP).len();
            assert!(asked > 1, "{way}: it had come before the proxy was killed");
        }
    }
    assert!(second.log().contains(FAR[0]), "{}", second.log());
}

/// A wrong or a missing password is called that, whatever the program says to it, and no password is shown.
#[test]
fn wrong_passwords_are_called_that() {
    let Some(ground) = Ground::new() else { return };
    for (program, port) in
        [(Program::Danted, 1000), (Program::Microsocks, 2000), (Program::Tinyproxy, 3000), (Program::Squid, 4000)]
    {
        let Some(family) = Family::start(&ground, program, port) else { return };
        for scheme in family.schemes() {
            let right = family.url(scheme, PROXY[0], true);
            let (start, rest) = right.split_once("://").unwrap();
            let host = rest.rsplit_once('@').unwrap().1;
            let known = if scheme == "socks5" { NEAR } else { FAR };
            for user in ["", "user:Wr%6Fng-one@", "other:Wr%6Fng-one@"] {
                for face in ["https", "http"] {
                    let proxy = format!("{start}://{user}{host}");
                    let larder = ground.start(&proxy, &format!("{face}://{}", known[0])).run();
                    let answer = larder.get(SMALL_ZIP);
                    let name = format!("proxy: {start}://{}{host}: ", if user.is_empty() { "" } else { "***@" });
                    let (text, way) = (answer.text(), format!("{program:?}, {proxy} to {face}"));
                    assert!(is_reason(&answer), "{way}: {text}");
                    assert!(text.contains(&name) && text.contains("password"), "{way}: {text}");
                    let all = larder.log() + text + larder.get("/health").text();
                    assert!(!all.contains("Wr%6Fng") && !all.contains("Wrong-one"), "{way}: {all}");
                }
            }
        }
    }
    assert_eq!(ground.upstream.requests(), 0);
}

/// What a proxy may not do or cannot reach is told with its name and with what it was to do.
#[test]
fn what_real_proxies_refuse() {
    let Some(ground) = Ground::new() else { return };
    let proxy = &ground.proxy;
    let mut servers = Vec::new();
    for (program, port) in [(Program::Danted, 1000), (Program::Tinyproxy, 3000), (Program::Squid, 4000)] {
        let Some(server) = Server::refusing(program, proxy, port, 443) else { return };
        servers.push(server);
    }
    for (program, port) in [(Program::Microsocks, 2000), (Program::Tinyproxy, 3001), (Program::Squid, 4001)] {
        let Some(server) = Server::start(program, proxy, port, false) else { return };
        servers.push(server);
    }
    let at = proxy.v4();
    for (url, upstream, said) in [
        // A rule against this port.
        (format!("socks5h://{at}:1000"), format!("https://{}", FAR[0]), "not allowed"),
        (format!("http://{at}:3000"), format!("https://{}", FAR[0]), "403"),
        (format!("http://{at}:4000"), format!("https://{}", FAR[0]), "403"),
        // Nobody listens there.
        (format!("socks5h://{at}:2000"), format!("https://{}:4444", FAR[0]), "refused"),
        (format!("http://{at}:3001"), format!("https://{}:4444", FAR[0]), "50"),
        (format!("http://{at}:4001"), format!("https://{}:4444", FAR[0]), "503"),
        // A name that the proxy does not know.
        (format!("socks5h://{at}:2000"), "https://unknown.test".to_owned(), "failed"),
        (format!("http://{at}:3001"), "https://unknown.test".to_owned(), "50"),
        (format!("http://{at}:4001"), "https://unknown.test".to_owned(), "50"),
        // The same for requests that the proxy is given whole.
        (format!("http://{at}:3001"), format!("http://{}:4444", FAR[0]), "50"),
        (format!("http://{at}:4001"), format!("http://{}:4444", FAR[0]), "503"),
        (format!("http://{at}:3001"), "http://unknown.test".to_owned(), "50"),
        (format!("http://{at}:4001"), "http://unknown.test".to_owned(), "50"),
        // A name that Larder does not know: the proxy has nothing to do with it.
        (format!("socks5://{at}:2000"), "https://unknown.test".to_owned(), "dns: "),
    ] {
        let larder = ground.start(&url, &upstream).run();
        let answer = larder.get(SMALL_ZIP);
        assert!(is_reason(&answer), "{url}: {}", answer.text());
        assert!(answer.text().contains(said), "{url} to {upstream}: {}", answer.text());
        assert_eq!(answer.text().contains(&url), said != "dns: ", "{url} to {upstream}: {}", answer.text());
    }
}

/// TLS with the proxy itself is checked as strictly as with an upstream, and its faults are told apart.
#[test]
fn certificates_of_proxies_are_checked() {
    let Some(ground) = Ground::new() else { return };
    let Some(other) = Authority::new("Other Authority") else { return };
    let Some(inner) = Server::start(Program::Tinyproxy, &ground.proxy, 3000, false) else { return };
    let at = ground.proxy.v4().to_string();
    for (port, certificate, said) in [
        (5001, ground.authority.sign_expired(&[PROXY[0], &at]), "certificate expired on 2024-05-01"),
        (5002, ground.authority.sign(&["elsewhere.test"]), "certificate is for elsewhere.test, not for"),
        (5003, other.sign(&[PROXY[0], &at]), "certificate of an unknown authority"),
    ] {
        let Some(_tls) = Server::tls(&ground.proxy, port, &certificate, &inner) else { return };
        for host in [PROXY[0], &at] {
            for face in ["https", "http"] {
                let url = format!("https://{host}:{port}");
                let larder = ground.start(&url, &format!("{face}://{}", FAR[0])).run();
                let answer = larder.get(SMALL_ZIP);
                assert!(is_reason(&answer), "{url}: {}", answer.text());
                let name = format!("proxy: {url}: ");
                assert!(answer.text().contains(&name) && answer.text().contains(said), "{url}: {}", answer.text());
            }
        }
    }
    assert_eq!(ground.upstream.requests(), 0);
}
