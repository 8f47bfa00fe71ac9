//! Requests through proxies of the tests, which keep their connections and write down what they are sent.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::clock::Clock;
use crate::net::proxy::{Entry, NoProxy};
use crate::shutdown::Tasks;

/// A server of HTTP that gives every request the same answer.
struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    /// How long an answer is withheld.
    delay: Arc<Mutex<Duration>>,
}

impl Server {
    async fn start(answer: impl Into<String>) -> Self {
        let (answer, listener) = (answer.into(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, heads: Arc::default(), connections: Arc::default(), delay: Arc::default() };
        let (heads, connections) = (Arc::clone(&server.heads), Arc::clone(&server.connections));
        let delay = Arc::clone(&server.delay);
        Tasks::new().spawn("server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (heads, delay, answer) = (Arc::clone(&heads), Arc::clone(&delay), answer.clone());
                Tasks::new().spawn("connection", async move {
                    let _ = serve(stream, &answer, &heads, &delay).await;
                });
            }
        });
        server
    }

    fn proxy(&self, scheme: &str, credentials: &str) -> Entry {
        Entry::parse(&format!("{scheme}://{credentials}127.0.0.1:{}", self.port)).unwrap()
    }

    fn heads(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().unwrap())
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &str,
    heads: &Mutex<Vec<String>>,
    delay: &Mutex<Duration>,
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        heads.lock().unwrap().push(String::from_utf8(head).unwrap().to_lowercase());
        if answer == CLOSES {
            return Ok(());
        }
        let delay = *delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        stream.write_all(answer.as_bytes()).await?;
    }
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const WHO: &str =
    "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n";

/// Instead of an answer: the connection ends, or nothing comes.
const CLOSES: &str = "closes";
const SILENT: &str = "";

fn egress(entries: Vec<Entry>, no_proxy: &str) -> Egress {
    let trust = Trust::load(&[]).unwrap();
    let proxies = Proxies::new(entries, NoProxy::parse(no_proxy), Arc::default(), &trust, Clock::system());
    let route = Route { proxies: Arc::new(proxies), resolver: Resolver::default() };
    Egress::new(Config::default(), route, &trust)
}

async fn ask(egress: &Egress, url: &str) -> Result<String, String> {
    let url = Url::parse(url).unwrap();
    let credentials = Credentials::authorization("Bearer of-the-upstream").unwrap();
    let mut response = egress.get(&url, &HeaderMap::new(), Some(&credentials)).await.map_err(|err| err.to_string())?;
    let mut body = Vec::new();
    while let Some(chunk) = response.body.chunk().await.map_err(|err| err.to_string())? {
        body.extend_from_slice(&chunk);
    }
    Ok(format!("{} {}", response.status.as_u16(), String::from_utf8(body).unwrap()))
}

/// Plain http goes to an HTTP proxy whole, with the proxy's own password and the upstream's, over one connection; the
/// name is not looked up here.
#[tokio::test]
async fn plain_http_is_given_to_the_proxy() {
    let proxy = Server::start(GOOD).await;
    let egress = egress(vec![proxy.proxy("http", "u:p%40ss@")], "");
    for _ in 0..3 {
        assert_eq!(ask(&egress, "http://nowhere.invalid:8080/x?y").await.as_deref(), Ok("200 hi"));
    }
    let heads = proxy.heads();
    assert_eq!((heads.len(), proxy.connections.load(Ordering::Relaxed)), (3, 1));
    for head in heads {
        assert!(head.starts_with("get http://nowhere.invalid:8080/x?y http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nhost: nowhere.invalid:8080\r\n"), "{head}");
        assert!(head.contains("\r\nproxy-authorization: basic dtpwqhnz\r\n"), "{head}");
        assert!(head.contains("\r\nauthorization: bearer of-the-upstream\r\n"), "{head}");
    }
}

/// A proxy that does not let us in is passed over; its password is not shown to the next one, nor to what is reached
/// directly.
#[tokio::test]
async fn a_proxys_password_is_for_it_alone() {
    let origin = Server::start(GOOD).await;
    let first = Server::start(WHO).await;
    let location =
        format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/\r\nContent-Length: 0\r\n\r\n", origin.port);
    let second = Server::start(location).await;
    let entries = vec![first.proxy("http", "u:one@"), second.proxy("http", "u:two@")];
    let list = egress(entries, "127.0.0.1");
    for _ in 0..2 {
        assert_eq!(ask(&list, "http://nowhere.invalid/").await.as_deref(), Ok("200 hi"));
    }
    // The first was asked once: it cools down.
    assert_eq!((first.heads().len(), second.heads().len()), (1, 2));
    let heads = origin.heads();
    assert_eq!(heads.len(), 2);
    assert!(
        heads.iter().all(|head| !head.contains("authorization") && head.starts_with("get / http/1.1")),
        "{heads:?}"
    );

    let alone = egress(vec![first.proxy("http", "u:one@")], "");
    let expected = format!("proxy: http://***@127.0.0.1:{}: wrong user name or password (status 407)", first.port);
    assert_eq!(ask(&alone, "http://nowhere.invalid/").await, Err(expected));
}

/// A proxy that takes a request for plain http and then closes, or is silent, costs one request a moment, and the next
/// nothing.
#[tokio::test]
async fn a_proxy_without_an_answer_is_passed_over() {
    let clock = Clock::system();
    for answer in [CLOSES, SILENT, "SSH-2.0-x\r\n"] {
        let (bad, good) = (Server::start(answer).await, Server::start(GOOD).await);
        let list = egress(vec![bad.proxy("http", ""), good.proxy("http", "")], "");
        let began = clock.steady();
        assert_eq!(ask(&list, "http://nowhere.invalid/").await.as_deref(), Ok("200 hi"), "{answer}");
        assert!(clock.steady() - began < Duration::from_secs(1), "{answer}");
        let (asked, began) = (bad.heads().len(), clock.steady());
        assert_eq!(ask(&list, "http://nowhere.invalid/").await.as_deref(), Ok("200 hi"), "{answer}");
        assert!((1..=2).contains(&asked) && bad.heads().is_empty(), "{answer} {asked}");
        assert!(clock.steady() - began < Duration::from_millis(300), "{answer}");
        if answer != SILENT {
            let said = ask(&egress(vec![bad.proxy("http", "")], ""), "http://nowhere.invalid/").await.unwrap_err();
            assert!(said.starts_with(&format!("proxy: http://127.0.0.1:{}: ", bad.port)), "{said}");
        }
    }
}

/// A slow answer is the target's as long as the proxy was well a moment ago; a probe believes nobody.
#[tokio::test]
async fn a_slow_answer_is_not_the_proxys() {
    let (first, second) = (Server::start(GOOD).await, Server::start(GOOD).await);
    let list = egress(vec![first.proxy("http", ""), second.proxy("http", "")], "");
    assert_eq!(ask(&list, "http://nowhere.invalid/").await.as_deref(), Ok("200 hi"));
    *first.delay.lock().unwrap() = Duration::from_secs(1);
    assert_eq!(ask(&list, "http://nowhere.invalid/").await.as_deref(), Ok("200 hi"));
    assert!(second.heads().is_empty());
    list.probe(&Url::parse("http://nowhere.invalid/").unwrap(), Duration::from_secs(3)).await.unwrap();
    assert_eq!(second.heads().len(), 1);
}

/// Once the connections are abandoned, what is asked gets a new one, while an answer on its way still ends.
#[tokio::test]
async fn connections_can_be_abandoned() {
    let server = Server::start(GOOD).await;
    let direct = egress(Vec::new(), "");
    let url = format!("http://127.0.0.1:{}/", server.port);
    for _ in 0..2 {
        ask(&direct, &url).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    let mut response = direct.get(&Url::parse(&url).unwrap(), &HeaderMap::new(), None).await.unwrap();
    direct.abandon_connections();
    assert_eq!(response.body.chunk().await.unwrap().as_deref(), Some(b"hi".as_slice()));
    ask(&direct, &url).await.unwrap();
    assert_eq!(server.connections.load(Ordering::Relaxed), 2);
}

/// A proxy that cannot reach the target is not dead, and the next one is asked; when it is the only one, the error names
/// it and what it said.
#[tokio::test]
async fn a_proxy_that_cannot_reach_the_target() {
    let failing =
        "HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\nContent-Length: 0\r\n\r\n";
    let (unable, good) = (Server::start(failing).await, Server::start(GOOD).await);
    let list = egress(vec![unable.proxy("http", ""), good.proxy("http", "")], "");
    for _ in 0..2 {
        assert_eq!(ask(&list, "http://nowhere.invalid/").await.as_deref(), Ok("200 hi"));
    }
    assert_eq!((unable.heads().len(), good.heads().len()), (2, 2));
    let said = ask(&egress(vec![unable.proxy("http", "")], ""), "http://nowhere.invalid/").await.unwrap_err();
    assert_eq!(said, format!("proxy: http://127.0.0.1:{}: status 503: ERR_CONNECT_FAIL 111", unable.port));
}

/// A dead proxy is passed over, and the next requests do not meet it; when it is the only one, the error names it.
#[tokio::test]
async fn dead_proxies_are_passed_over() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (good, origin) = (Server::start(GOOD).await, Server::start(GOOD).await);
    let dead = |scheme: &str| Entry::parse(&format!("{scheme}://{gone}")).unwrap();
    for scheme in ["http", "https", "socks5", "socks5h"] {
        let list = egress(vec![dead(scheme), good.proxy("http", "")], "");
        for _ in 0..2 {
            assert_eq!(ask(&list, "http://nowhere.invalid/").await.as_deref(), Ok("200 hi"), "{scheme}");
        }
        let said = ask(&egress(vec![dead(scheme)], ""), "http://127.0.0.1:1/").await.unwrap_err();
        assert_eq!(said, format!("proxy: {scheme}://{gone}: {gone}: Connection refused"));
        let list = egress(vec![dead(scheme), Entry::Direct], "");
        let url = format!("http://127.0.0.1:{}/", origin.port);
        assert_eq!(ask(&list, &url).await.as_deref(), Ok("200 hi"), "{scheme}");
    }
    assert_eq!(good.heads().len(), 8);
}

/// The errors of the way out are those of the upstream's way, and say so to the list of upstreams.
#[tokio::test]
async fn a_proxy_out_of_order_is_a_fresh_connection_that_failed() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let list = egress(vec![Entry::parse(&format!("socks5h://{gone}")).unwrap()], "");
    let url = Url::parse("https://nowhere.invalid/").unwrap();
    let err = list.get(&url, &HeaderMap::new(), None).await.unwrap_err();
    assert!(matches!(err, Error::Proxy { .. }) && err.is_unreachable() && err.is_of_a_fresh_connection(), "{err:?}");
    assert_eq!(err.token(), "destination_unavailable");
    let err = list.probe(&url, Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(err, Error::Proxy { .. }), "{err:?}");
}

/// What a proxy says to one request is said of that request alone: nothing is out of reach for it, whatever else the
/// other ways came to.
#[tokio::test]
async fn a_denied_request_is_not_an_upstream_out_of_reach() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let denied = "HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 0\r\n\r\n";
    let proxy = Server::start(denied).await;
    let dead = Entry::parse(&format!("http://{gone}")).unwrap();
    for entries in [vec![proxy.proxy("http", "")], vec![dead, proxy.proxy("http", "")]] {
        let list = egress(entries, "");
        let url = Url::parse("http://nowhere.invalid/").unwrap();
        let err = list.get(&url, &HeaderMap::new(), None).await.unwrap_err();
        assert!(matches!(err, Error::Denied { status: 403, .. }), "{err:?}");
        assert!(!err.is_unreachable() && !err.is_of_a_fresh_connection());
        assert_eq!(err.token(), "http_request_denied");
    }
    assert_eq!(proxy.heads().len(), 2);
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

/// Once a redirect has led away from an upstream, its credentials are not sent any more, also not when another one leads
/// back; a name and password in a Location are sent to nobody.
#[tokio::test]
async fn credentials_do_not_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stranger = Server::start(redirect(&format!("http://u:p@127.0.0.1:{port}/stolen"))).await;
    // The upstream sends every path away but the one it is sent back to.
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let (seen, away) = (Arc::clone(&heads), redirect(&format!("http://127.0.0.1:{}/", stranger.port)));
    Tasks::new().spawn("upstream", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let answer = if head.starts_with("get /stolen") { GOOD } else { &away };
            stream.write_all(answer.replace("Length: ", "Length:").as_bytes()).await.unwrap();
            seen.lock().unwrap().push(head);
        }
    });
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(ask(&egress(Vec::new(), ""), &url).await.as_deref(), Ok("200 hi"));
    let (heads, strange) = (heads.lock().unwrap().clone(), stranger.heads());
    assert!(heads[0].contains("\r\nauthorization: bearer of-the-upstream\r\n"), "{heads:?}");
    assert!(heads.len() == 2 && !heads[1].contains("authorization"), "{heads:?}");
    assert!(strange.len() == 1 && !strange[0].contains("authorization"), "{strange:?}");
}

/// All hops of one request together take no longer than one request may.
#[tokio::test]
async fn redirects_share_one_limit() {
    let at = Url::parse("http://a.example/x/").unwrap();
    let to = |location: &[u8]| {
        let value = http::HeaderValue::from_bytes(location).unwrap();
        redirected(&at, &HeaderMap::from_iter([(LOCATION, value)])).map(String::from).map_err(|err| err.to_string())
    };
    assert_eq!(to("b/ä".as_bytes()).as_deref(), Ok("http://a.example/x/b/%C3%A4"));
    assert_eq!(to(b"https://u:p@b.example/").as_deref(), Ok("https://b.example/"));
    assert_eq!(to(b"\xff"), Err("redirect: bad Location header: neither ASCII nor UTF-8".to_owned()));
    assert_eq!(to(b"ftp://b.example/"), Err("redirect: to ftp:".to_owned()));

    let slow = Server::start(redirect("/again")).await;
    *slow.delay.lock().unwrap() = Duration::from_millis(400);
    let (list, limit) = (egress(Vec::new(), ""), Duration::from_secs(1));
    let url = Url::parse(&format!("http://127.0.0.1:{}/", slow.port)).unwrap();
    let err = list.get_within(&url, &HeaderMap::new(), None, limit).await.unwrap_err();
    assert_eq!(err.to_string(), "redirected to other places: no answer within 1 s in all");
    assert!(slow.heads().len() <= 4);
}
