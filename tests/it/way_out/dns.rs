//! DNS servers of the user's choice: every way to ask, every way to fail, and nobody else is asked.

mod faults;
mod routes;
mod scene;
mod states;

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use crate::harness::proxies::bracketed;
use crate::harness::{Go, Start};
use scene::{DNSDIST, HICKORY, HTTP_PORT, JSON, KRESD, SOCKS_PORT, Scene, UNBOUND, server_name};

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scheme {
    Udp,
    Tcp,
    Tls,
    Https,
    /// The JSON form.
    Json,
    Quic,
}

impl Scheme {
    const ALL: [Self; 6] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https, Self::Json, Self::Quic];

    /// Returns how people write a server of this kind.
    fn server(self, host: &str) -> String {
        match self {
            Self::Udp => format!("udp://{host}"),
            Self::Tcp => format!("tcp://{host}:53"),
            Self::Tls => format!("tls://{host}"),
            Self::Https => format!("https://{host}/dns-query"),
            Self::Json => format!("https://{host}/resolve"),
            Self::Quic => format!("quic://{host}"),
        }
    }

    /// Returns the server of the scene that is asked this way.
    fn number(self) -> u8 {
        match self {
            Self::Udp | Self::Tcp | Self::Tls | Self::Https => UNBOUND,
            Self::Json => JSON,
            Self::Quic => HICKORY,
        }
    }

    /// Returns whether the rule `auto` sends it through a proxy.
    fn is_proxied(self) -> bool {
        !matches!(self, Self::Udp | Self::Quic)
    }
}

/// Which way Larder reaches the server, and the upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Both directly.
    Direct,
    /// Both through a SOCKS5 proxy, but for what goes directly by itself.
    Socks,
    /// The server through an HTTP proxy, the upstream, which `-no-proxy` names, directly.
    Http,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    scheme: Scheme,
    number: u8,
    is_named: bool,
    is_v6: bool,
    way: Way,
}

/// Returns the product of everything, and the second opinions.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for way in [Way::Direct, Way::Socks, Way::Http] {
        for scheme in Scheme::ALL {
            for (is_named, is_v6) in [(false, false), (false, true), (true, false), (true, true)] {
                rows.push(Row { scheme, number: scheme.number(), is_named, is_v6, way });
            }
        }
        for number in [DNSDIST, KRESD] {
            for scheme in [Scheme::Tls, Scheme::Https] {
                rows.push(Row { scheme, number, is_named: true, is_v6: false, way });
            }
        }
    }
    rows
}

impl Row {
    /// Returns its server as it is configured.
    fn server(self, scene: &Scene) -> String {
        let address = scene.address(self.number, self.is_v6);
        let host = if self.is_named { server_name(self.number, self.is_v6) } else { bracketed(address) };
        self.scheme.server(&host)
    }

    /// Begins a Larder of this row.
    fn start(self, scene: &Scene) -> Start {
        // What goes to its server directly needs a leg outside; whatever else is outside is then behind the proxy all
        // the same.
        let host = if self.way == Way::Direct || !self.scheme.is_proxied() { &scene.open } else { &scene.blocked };
        let upstream = if self.way == Way::Http { "https://office.test" } else { "https://mirror.test" };
        let mut start = scene.start(host, upstream).args(["-dns", &self.server(scene)]);
        // An HTTP proxy is given the name of what is reached through it, and finds it itself.
        if self.is_named && !(self.way == Way::Http && self.scheme.is_proxied()) {
            start = start.args(["-dns-bootstrap", &scene.bootstrap(self.is_v6)]);
        }
        let proxy = bracketed(scene.proxy(self.is_v6));
        match self.way {
            Way::Direct => start,
            Way::Socks => start.args(["-proxy", &format!("socks5://{proxy}:{SOCKS_PORT}")]),
            Way::Http => start.args(["-proxy", &format!("http://{proxy}:{HTTP_PORT}"), "-no-proxy", "office.test"]),
        }
    }

    /// Asserts that the lines at the start say which way the server is asked.
    fn assert_announced(self, scene: &Scene, log: &str) {
        let way = if self.way != Way::Direct && self.scheme.is_proxied() { "through" } else { "directly" };
        let server = self.server(scene);
        let is_it = |line: &str| line.starts_with("dns ") && line.contains(&server) && line.contains(way);
        assert!(log.lines().any(is_it), "no line says that {server} is asked {way}: {log}");
    }
}

/// Runs `check` for every row on a few threads, and fails with all the rows that fail.
fn for_all<T: Send + std::fmt::Debug>(rows: Vec<T>, check: impl Fn(&T) + Sync) {
    let (rows, failed) = (Mutex::new(rows.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(row) = rows.lock().unwrap().next() else { return };
                    if catch_unwind(AssertUnwindSafe(|| check(&row))).is_err() {
                        failed.lock().unwrap().push(format!("{row:?}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} rows failed:\n{}", failed.len(), failed.join("\n"));
}

/// Every kind of server, by name and by address, over IPv4 and IPv6, directly and through proxies, finds the upstream
/// for the real go command, although the system's resolver lies; and on port 53 nobody but the configured servers is
/// asked. `larder doctor` finds nothing wrong then.
#[test]
fn every_server_leads_to_the_upstream() {
    let Some(scene) = Scene::new() else { return };
    let watches = [&scene.blocked, &scene.open].map(|host| (host, host.watch_port_53().unwrap()));
    for_all(rows(), |row| {
        let larder = row.start(&scene).run();
        row.assert_announced(&scene, &larder.log());
        Go::new(&larder.url).expect(&["mod", "download", "rsc.io/quote@v1.5.2"]);
        if row.number == KRESD {
            let doctor = row.start(&scene).subcommand(&["doctor"]);
            let report = String::from_utf8_lossy(&doctor.stdout);
            assert!(doctor.status.success() && !report.contains("FAIL"), "{report}");
            assert!(report.contains(&row.server(&scene)), "{report}");
        }
    });
    let configured: Vec<IpAddr> = [UNBOUND, DNSDIST, KRESD, HICKORY]
        .iter()
        .flat_map(|number| [scene.address(*number, false), scene.address(*number, true)])
        .chain(scene.bootstraps())
        .collect();
    for (host, watch) in watches {
        let others = watch.others();
        assert!(!others.is_empty(), "{}: the watch has seen nothing", host.name());
        let foreign: Vec<_> = others.iter().filter(|address| !configured.contains(address)).collect();
        assert!(foreign.is_empty(), "{} spoke DNS with {foreign:?}: {:?}", host.name(), watch.packets());
    }
    assert!(scene.json.asked().iter().any(|question| question.contains("mirror.test")));
}
