//! Which way questions go, seen by a proxy, a DNS server and a server for its name, all on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::route::{Ground, Route};
use super::{Config, Resolver, Rule, ServerConfig, Transport};
use crate::check::Outcome;
use crate::clock::Clock;
use crate::net::bootstrap::Bootstrap;
use crate::net::dns::Reach as _;
use crate::net::dns::testing::{Act, Came, Responder, code, records};
use crate::net::proxy::{Entry, NoProxy, Proxies};
use crate::net::target::Host;
use crate::net::tls::Trust;
use crate::shutdown::Tasks;

/// A proxy that leads every tunnel to one place, or refuses.
struct Tunnels {
    address: SocketAddr,
    /// The first lines of what it was asked.
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: Tasks,
}

impl Tunnels {
    async fn start(status: &'static str, to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (tasks, asked) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let (address, group, seen) = (listener.local_addr().unwrap(), tasks.clone(), Arc::clone(&asked));
        tasks.spawn("proxy", async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let seen = Arc::clone(&seen);
                group.spawn("tunnel", async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = client.read_u8().await else { return };
                        head.push(byte);
                    }
                    let line = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
                    seen.lock().unwrap().push(line);
                    client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
                    if status.starts_with("200") {
                        let mut server = TcpStream::connect(to).await.unwrap();
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// What a look-up may meet: the server, the proxy, and the server that knows the first one's name.
struct Scene {
    dns: Responder,
    proxy: Tunnels,
    bootstrap: Responder,
}

impl Scene {
    async fn new(status: &'static str) -> Self {
        let dns = Responder::start(|query, came| {
            let address = if came == Came::Udp { "192.0.2.17" } else { "192.0.2.6" };
            Act::Reply(records(query, &[&format!("a.example 0 {address}")]))
        });
        let dns = dns.await;
        let bootstrap = Responder::start(|query, _| Act::Reply(records(query, &["dns.example 60 127.0.0.1"]))).await;
        let proxy = Tunnels::start(status, dns.address).await;
        Self { dns, proxy, bootstrap }
    }

    fn server(&self, transport: Transport) -> ServerConfig {
        let port = self.dns.address.port();
        let name = format!("{transport}://dns.example:{port}");
        ServerConfig { transport, host: Host::parse("dns.example"), port, path: String::new(), name }
    }

    fn resolver(&self, server: ServerConfig, rule: Rule, no_proxy: &str) -> Resolver {
        let (trust, clock) = (Trust::load(&[]).unwrap(), Clock::system());
        let known = vec![self.bootstrap.config(Transport::Udp)];
        let bootstrap = Arc::new(Bootstrap::new(known, &trust, Tasks::new(), clock.clone()));
        let entry = Entry::parse(&format!("http://{}", self.proxy.address)).unwrap();
        let no_proxy = NoProxy::parse(no_proxy);
        let proxies = Arc::new(Proxies::new(vec![entry], no_proxy, Arc::clone(&bootstrap), &trust, clock.clone()));
        Resolver::new(Config { servers: vec![server], rule }, bootstrap, proxies, &trust, clock)
    }
}

async fn shown(resolver: &Resolver) -> String {
    match resolver.lookup("a.example").await {
        Ok(answer) => format!("{:?} {}", answer.addresses, answer.source),
        Err(text) => text,
    }
}

/// By itself, TCP goes through the proxy, which is given the server's name; UDP, what is near and what is exempt do not.
#[tokio::test]
async fn auto() {
    let scene = Scene::new("200 OK").await;
    let (port, proxy) = (scene.dns.address.port(), scene.proxy.address);
    let resolver = scene.resolver(scene.server(Transport::Tcp), Rule::Auto, "");
    assert_eq!(resolver.ways(), [format!("tcp://dns.example:{port} through http://{proxy}")]);
    assert_eq!(shown(&resolver).await, format!("[192.0.2.6] tcp://dns.example:{port}"));
    assert_eq!(scene.proxy.asked(), [format!("CONNECT dns.example:{port} HTTP/1.1")]);
    assert_eq!(scene.bootstrap.asked(), [""; 0], "the proxy finds the server itself");
    assert_eq!(resolver.checks()[0].outcome, Outcome::Pass);

    for (server, no_proxy, address) in [
        (scene.server(Transport::Udp), "", "192.0.2.17"),
        (scene.server(Transport::Tcp), "dns.example", "192.0.2.6"),
        (scene.dns.config(Transport::Tcp), "", "192.0.2.6"),
    ] {
        let name = server.name.clone();
        let resolver = scene.resolver(server, Rule::Auto, no_proxy);
        assert_eq!(resolver.ways(), [format!("{name} directly")]);
        assert_eq!(shown(&resolver).await, format!("[{address}] {name}"));
    }
    assert_eq!(scene.proxy.asked().len(), 1);
}

/// A proxy that does not lead to the server's port is asked once; from then on the server is reached directly.
#[tokio::test]
async fn auto_falls_back() {
    let scene = Scene::new("403 Forbidden").await;
    let resolver = scene.resolver(scene.server(Transport::Tcp), Rule::Auto, "");
    let name = scene.server(Transport::Tcp).name;
    for _ in 0..3 {
        assert_eq!(shown(&resolver).await, format!("[192.0.2.6] {name}"));
    }
    assert_eq!(scene.proxy.asked().len(), 1);
    assert_eq!(resolver.ways(), [format!("{name} directly")]);
}

/// The way past a proxy that refuses is taken only if it leads somewhere, and not for good.
#[tokio::test]
async fn falling_back_is_not_for_good() {
    let scene = Scene::new("403 Forbidden").await;
    let (trust, clock) = (Trust::load(&[]).unwrap(), Clock::system());
    let known = vec![scene.bootstrap.config(Transport::Udp)];
    let bootstrap = Arc::new(Bootstrap::new(known, &trust, Tasks::new(), clock.clone()));
    let entry = Entry::parse(&format!("http://{}", scene.proxy.address)).unwrap();
    let proxies = Proxies::new(vec![entry], NoProxy::default(), Arc::clone(&bootstrap), &trust, clock.clone());
    let ground = Arc::new(Ground { rule: Rule::Auto, bootstrap, proxies: Arc::new(proxies) });
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let absent = ServerConfig { port: gone.port(), ..scene.server(Transport::Tcp) };
    let route = Route::new(&absent, Arc::clone(&ground));
    for asked in 1..3 {
        let said = route.open(&absent, None).await.unwrap_err();
        assert!(said.contains("CONNECT refused: status 403") && said.contains("; directly: "), "{said}");
        assert_eq!(scene.proxy.asked().len(), asked);
    }

    let server = scene.server(Transport::Tcp);
    let route = Route::new(&server, ground);
    for asked in [3, 3, 4] {
        if asked == 4 {
            clock.advance(Duration::from_secs(30 * 60));
        }
        route.open(&server, None).await.unwrap();
        assert_eq!(scene.proxy.asked().len(), asked);
    }
    assert!(route.words(&server) == "directly" && route.open(&absent, None).await.is_err());
    assert!(route.words(&server).starts_with("through "), "the direct way works no more");
}

/// With the rule that everything goes through the proxy, nothing goes any other way, whatever happens.
#[tokio::test]
async fn proxy_only() {
    let scene = Scene::new("200 OK").await;
    let (port, proxy) = (scene.dns.address.port(), scene.proxy.address);
    let resolver = scene.resolver(scene.server(Transport::Udp), Rule::Proxy, "");
    assert_eq!(resolver.ways(), [format!("udp://dns.example:{port} over TCP through http://{proxy}")]);
    assert_eq!(shown(&resolver).await, format!("[192.0.2.6] udp://dns.example:{port}"));
    let near = scene.resolver(scene.dns.config(Transport::Tcp), Rule::Proxy, "");
    shown(&near).await;
    assert_eq!(scene.proxy.asked().len(), 2);

    let scene = Scene::new("403 Forbidden").await;
    for (transport, no_proxy, expected) in [
        (Transport::Udp, "", "CONNECT refused: status 403 Forbidden"),
        (Transport::Tls, "", "CONNECT refused: status 403 Forbidden"),
        (Transport::Quic, "", "QUIC cannot go through a proxy"),
        (Transport::Udp, "dns.example", "it is to go through a proxy, but NO_PROXY exempts it"),
        (Transport::Tcp, "*", "it is to go through a proxy, but NO_PROXY exempts it"),
    ] {
        let said = shown(&scene.resolver(scene.server(transport), Rule::Proxy, no_proxy)).await;
        let name = scene.server(transport).name;
        assert!(said.starts_with(&format!("{name}: ")) && said.ends_with(expected), "{said}");
    }
    assert_eq!((scene.dns.asked(), scene.bootstrap.asked()), (Vec::new(), Vec::new()));
}

/// Addresses are not asked for, names of this machine neither; every server is probed past what is remembered.
#[tokio::test]
async fn not_asked() {
    let scene = Scene::new("200 OK").await;
    let resolver = scene.resolver(scene.server(Transport::Udp), Rule::Direct, "");
    for (name, addresses, source) in [
        ("192.0.2.9", "[192.0.2.9]", "literal"),
        ("[2001:db8::9]", "[2001:db8::9]", "literal"),
        ("LocalHost.", "[::1, 127.0.0.1]", "/etc/hosts"),
    ] {
        let answer = resolver.lookup(name).await.unwrap();
        assert_eq!((format!("{:?}", answer.addresses).as_str(), answer.source.as_str()), (addresses, source));
    }
    assert_eq!(scene.dns.asked(), [""; 0]);
    for _ in 0..2 {
        let probed = resolver.probe("a.example").await;
        assert_eq!(probed[0].1.as_ref().unwrap().addresses, ["192.0.2.17".parse::<std::net::IpAddr>().unwrap()]);
    }
    assert_eq!(scene.dns.asked().len(), 4);
    let system = Resolver::system(&Bootstrap::default());
    assert!(system.ways().is_empty() && system.is_system());
}

/// Names of servers are asked of the servers for that, once; nobody else is asked when those fail.
#[tokio::test]
async fn names_of_servers() {
    let (trust, clock) = (Trust::load(&[]).unwrap(), Clock::system());
    let scene = Scene::new("200 OK").await;
    let known = Bootstrap::new(vec![scene.bootstrap.config(Transport::Tcp)], &trust, Tasks::new(), clock.clone());
    for _ in 0..3 {
        let found = known.addresses(&Host::parse("dns.example")).await.unwrap();
        assert_eq!(found, ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    }
    assert_eq!(scene.bootstrap.asked().len(), 2);
    let failing =
        Responder::start(|query, _| Act::Reply(code(query, trust_dns_resolver::proto::op::ResponseCode::ServFail)));
    let failing = failing.await;
    let unknown = Bootstrap::new(vec![failing.config(Transport::Udp)], &trust, Tasks::new(), clock);
    // A name that the system may well know.
    let said = unknown.addresses(&Host::parse("dns.example")).await.unwrap_err();
    assert_eq!(said, format!("udp://{}: dns.example: server failure (SERVFAIL)", failing.address));
    assert!(!unknown.is_system() && Bootstrap::default().is_system());
}
