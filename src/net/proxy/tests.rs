//! Proxies against small ones on loopback that do what a test wants: work, refuse, stall, speak something else.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::net::candidates::COOL_DOWN_MIN;
use crate::shutdown::Tasks;

/// What a proxy of the tests does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Reads a head, answers with this, and leads to the target if it is a 200.
    Answer(&'static str),
    /// Is an HTTP proxy that goes on reading whatever it is sent.
    Wait,
    /// Says nothing, ever.
    Stall,
    /// Closes the connection at the first words.
    Close,
    /// Speaks SOCKS5 and answers with this code.
    Socks(u8),
    /// Speaks SOCKS5 and wants this user name and password.
    SocksPassword(&'static str, &'static str),
    /// Greets as SOCKS5 does, and is silent from there.
    SocksStall,
}

const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";
const OK: Does = Does::Answer(ESTABLISHED);

/// A proxy of the tests, and what it was asked.
#[derive(Clone)]
struct Fake {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = Arc::clone(&fake.asked);
        Tasks::new().spawn("fake proxy", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let asked = Arc::clone(&asked);
                Tasks::new().spawn("fake proxy connection", async move {
                    let _ = serve(stream, does, &asked).await;
                });
            }
        });
        fake
    }

    fn entry(&self, scheme: &str, credentials: &str) -> Entry {
        Entry::parse(&format!("{scheme}://{credentials}127.0.0.1:{}", self.port)).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn serve(mut stream: TcpStream, does: Does, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    match does {
        Does::Answer(_) | Does::Wait => {
            let answer = if let Does::Answer(answer) = does { answer } else { ESTABLISHED };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let byte = stream.read_u8().await?;
                // As real ones do, at the first line that cannot be HTTP.
                if does != Does::Wait && head.is_empty() && byte == 22 {
                    return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                }
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap();
            let to = head.split(' ').nth(1).unwrap().to_owned();
            asked.lock().unwrap().push(head);
            stream.write_all(answer.as_bytes()).await?;
            if answer.contains(" 200 ") { relay(stream, &to).await } else { Ok(()) }
        }
        Does::Stall => {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.map(|_| ())
        }
        Does::Close => stream.read(&mut [0; 4096]).await.map(|_| ()),
        Does::Socks(_) | Does::SocksPassword(..) | Does::SocksStall => serve_socks(stream, does, asked).await,
    }
}

async fn serve_socks(mut stream: TcpStream, does: Does, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut methods = vec![0; 2];
    stream.read_exact(&mut methods).await?;
    let count = usize::from(methods[1]);
    methods.resize(count, 0);
    stream.read_exact(&mut methods).await?;
    if let Does::SocksPassword(user, password) = does {
        if !methods.contains(&2) {
            return stream.write_all(&[5, 0xff]).await;
        }
        stream.write_all(&[5, 2]).await?;
        let mut given = Vec::new();
        stream.read_u8().await?;
        for _ in 0..2 {
            let mut part = vec![0; usize::from(stream.read_u8().await?)];
            stream.read_exact(&mut part).await?;
            given.push(String::from_utf8(part).unwrap());
        }
        let is_right = given == [user, password];
        stream.write_all(&[1, u8::from(!is_right)]).await?;
    } else {
        stream.write_all(&[5, 0]).await?;
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => IpAddr::from(<[u8; 4]>::try_from(read_bytes(&mut stream, 4).await?).unwrap()).to_string(),
        4 => format!("[{}]", IpAddr::from(<[u8; 16]>::try_from(read_bytes(&mut stream, 16).await?).unwrap())),
        _ => {
            let length = usize::from(stream.read_u8().await?);
            String::from_utf8(read_bytes(&mut stream, length).await?).unwrap()
        }
    };
    let to = format!("{host}:{}", stream.read_u16().await?);
    asked.lock().unwrap().push(to.clone());
    let code = match does {
        Does::Socks(code) => code,
        Does::SocksStall => return stream.read_u8().await.map(|_| ()),
        Does::Answer(_) | Does::Wait | Does::Stall | Does::Close | Does::SocksPassword(..) => 0,
    };
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    if code == 0 { relay(stream, &to).await } else { Ok(()) }
}

async fn read_bytes(stream: &mut TcpStream, count: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.map(|_| bytes)
}

/// Leads to the target; every name is this machine.
async fn relay(mut stream: TcpStream, to: &str) -> std::io::Result<()> {
    let port = to.rsplit_once(':').unwrap().1.parse().unwrap();
    let mut target = TcpStream::connect(("127.0.0.1", port)).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut target).await.map(|_| ())
}

/// A target that says hello to everybody.
async fn target() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    Tasks::new().spawn("target", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"hello").await;
        }
    });
    port
}

fn proxies(entries: Vec<Entry>) -> Proxies {
    let trust = Trust::load(&[]).unwrap();
    Proxies::new(entries, NoProxy::default(), Arc::default(), &trust, Clock::system())
}

/// Asks for a connection to `host:port`; returns what the other side says first, or the error's text.
async fn ask(proxies: &Proxies, host: &str, port: u16) -> Result<String, String> {
    let to = Target { host: Host::parse(host), port };
    let resolve = |name: &str| {
        let known = VecDeque::from([("a.example", vec!["127.0.0.1".parse().unwrap()]), ("none.example", vec![])]);
        let found = known.into_iter().find(|(known, _)| *known == name).map(|(_, found)| found);
        async move { found.ok_or_else(|| "no such name".to_owned()) }
    };
    let mut stream = proxies.connect(&to, resolve).await.map_err(|err| err.to_string())?;
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.map_err(|err| err.to_string())?;
    Ok(String::from_utf8(said.to_vec()).unwrap())
}

/// Each kind of proxy leads to the target, and is told of it as it should be: by name, or by address.
#[tokio::test]
async fn every_kind_leads_out() {
    let port = target().await;
    let (http, socks) = (Fake::start(OK).await, Fake::start(Does::Socks(0)).await);
    for (fake, scheme, host, expected) in [
        (&http, "http", "a.example", format!("CONNECT a.example:{port} HTTP/1.1\r\nHost: a.example:{port}\r\n")),
        (&http, "http", "[::1]", format!("CONNECT [::1]:{port} HTTP/1.1\r\nHost: [::1]:{port}\r\n")),
        (&socks, "socks5h", "a.example", format!("a.example:{port}")),
        (&socks, "socks5h", "[::1]", format!("[::1]:{port}")),
        (&socks, "socks5", "a.example", format!("127.0.0.1:{port}")),
        (&socks, "socks5", "127.0.0.1", format!("127.0.0.1:{port}")),
    ] {
        let proxies = proxies(vec![fake.entry(scheme, "")]);
        assert_eq!(ask(&proxies, host, port).await.as_deref(), Ok("hello"), "{scheme} {host}");
        let asked = fake.asked();
        assert!(asked.len() == 1 && asked[0].starts_with(&expected), "{asked:?}");
        assert!(!asked[0].contains("Proxy-Authorization"), "{asked:?}");
    }
}

/// What goes wrong is told by its step: the proxy, or the target behind it.
#[tokio::test]
async fn who_is_to_blame() {
    let status = |line| Does::Answer(line);
    let dead = "proxy: SCHEME://127.0.0.1:PORT: ";
    let through = "connect: a.example:443: through SCHEME://127.0.0.1:PORT: ";
    for (does, scheme, credentials, prefix, reason) in [
        (Does::Close, "http", "", dead, "it closed the connection without an answer"),
        (status("SSH-2.0-x\r\n"), "http", "", dead, "it does not speak HTTP"),
        (status("HTTP/1.1 502 Bad Gateway\r\n\r\n"), "http", "", through, "status 502 Bad Gateway"),
        (status("HTTP/1.1 403 Forbidden\r\n\r\n"), "http", "", through, "CONNECT refused: status 403 Forbidden"),
        (status("HTTP/1.1 407 Who\r\n\r\n"), "http", "", dead, "it wants a user name and a password (status 407 Who)"),
        (
            status("HTTP/1.1 407 Who\r\n\r\n"),
            "http",
            "u:p@",
            "proxy: http://***@127.0.0.1:PORT: ",
            "wrong user name or password (status 407 Who)",
        ),
        (Does::Socks(2), "socks5h", "", through, "not allowed by its rules"),
        (Does::Socks(4), "socks5h", "", through, "host unreachable from there"),
        (Does::Socks(5), "socks5", "", through, "connection refused"),
        (Does::SocksPassword("u", "p"), "socks5", "", dead, "it wants a user name and a password"),
        (
            Does::SocksPassword("u", "p"),
            "socks5",
            "u:q@",
            "proxy: socks5://***@127.0.0.1:PORT: ",
            "wrong user name or password",
        ),
    ] {
        let fake = Fake::start(does).await;
        let expected = format!("{prefix}{reason}").replace("SCHEME", scheme).replace("PORT", &fake.port.to_string());
        let proxies = proxies(vec![fake.entry(scheme, credentials)]);
        let said = ask(&proxies, "a.example", 443).await.unwrap_err();
        assert_eq!(said, expected);
        assert!(!said.contains("u:"), "{said}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let said = ask(&proxies(vec![Entry::parse(&format!("http://{gone}")).unwrap()]), "a.example", 443).await;
    assert_eq!(said.unwrap_err(), format!("proxy: http://{gone}: {gone}: Connection refused"));
    let socks = Fake::start(Does::Socks(0)).await;
    let said = ask(&proxies(vec![socks.entry("socks5", "")]), "other.example", 443).await;
    assert_eq!(said.unwrap_err(), "dns: no such name");
}

/// A password is percent-decoded, and sent to its own proxy alone.
#[tokio::test]
async fn passwords_go_to_their_proxy_alone() {
    let port = target().await;
    let first = Fake::start(Does::Answer("HTTP/1.1 407 No\r\n\r\n")).await;
    let second = Fake::start(OK).await;
    let list = proxies(vec![first.entry("http", "u:p%40ss@"), second.entry("http", "")]);
    assert_eq!(ask(&list, "a.example", port).await.as_deref(), Ok("hello"));
    // u:p@ss
    assert!(first.asked()[0].contains("\r\nProxy-Authorization: Basic dTpwQHNz\r\n"));
    assert!(!second.asked()[0].contains("Authorization"));
    let socks = Fake::start(Does::SocksPassword("u", "p@ss")).await;
    let list = proxies(vec![socks.entry("socks5h", "u:p%40ss@")]);
    assert_eq!(ask(&list, "a.example", port).await.as_deref(), Ok("hello"));
    assert!(!format!("{list:?} {:?}", list.entries()).contains("p@ss"));
}

/// A proxy that is gone or silent costs one request a moment, and the next nothing; afterwards it is tried again.
#[tokio::test]
async fn the_dead_cost_once() {
    let port = target().await;
    let good = Fake::start(Does::Socks(0)).await;
    for (does, scheme) in [
        (Does::Stall, "http"),
        (Does::Stall, "socks5"),
        (Does::Stall, "https"),
        (Does::SocksStall, "socks5h"),
        (Does::Close, "http"),
    ] {
        let bad = Fake::start(does).await;
        let list = proxies(vec![bad.entry(scheme, ""), good.entry("socks5h", "")]);
        let began = Clock::system().steady();
        assert_eq!(ask(&list, "a.example", port).await.as_deref(), Ok("hello"));
        assert!(began.elapsed() < Duration::from_secs(1), "{does:?} {:?}", began.elapsed());
        let began = Clock::system().steady();
        assert_eq!(ask(&list, "a.example", port).await.as_deref(), Ok("hello"));
        assert!(began.elapsed() < Duration::from_millis(300), "{does:?} {:?}", began.elapsed());
        let checks = list.checks();
        assert_eq!((checks[0].outcome, checks[1].outcome), (Outcome::Fail, Outcome::Pass), "{checks:?}");
        assert_eq!(list.preferred(), 1);
        list.clock.advance(COOL_DOWN_MIN);
        assert_eq!(list.preferred(), 0);
    }
}

/// One that cannot reach this target does not cool down, and the next is asked at once.
#[tokio::test]
async fn unable_is_not_dead() {
    let port = target().await;
    let first = Fake::start(Does::Socks(5)).await;
    let second = Fake::start(OK).await;
    let list = proxies(vec![first.entry("socks5h", ""), second.entry("http", "")]);
    let began = Clock::system().steady();
    assert_eq!(ask(&list, "a.example", port).await.as_deref(), Ok("hello"));
    assert!(began.elapsed() < Duration::from_millis(300));
    assert_eq!(list.preferred(), 0);
    assert_eq!(list.checks()[0].outcome, Outcome::Warn);
    let list = proxies(vec![first.entry("socks5h", ""), Entry::Direct]);
    assert_eq!(ask(&list, "a.example", port).await.as_deref(), Ok("hello"));
}

/// What `NO_PROXY` covers meets no proxy.
#[tokio::test]
async fn no_proxy_is_heeded() {
    let port = target().await;
    let fake = Fake::start(OK).await;
    let mut list = proxies(vec![fake.entry("http", "")]);
    list.no_proxy = NoProxy::parse("a.example");
    assert_eq!(ask(&list, "a.example", port).await.as_deref(), Ok("hello"));
    assert!(fake.asked().is_empty());
    assert_eq!(ask(&list, "b.example", port).await.as_deref(), Ok("hello"));
    assert_eq!(fake.asked().len(), 1);
}

/// A proxy written with https:// that speaks plain HTTP works, is remembered, and is never sent a password.
#[tokio::test]
async fn https_that_is_plain() {
    let port = target().await;
    let fake = Fake::start(OK).await;
    let list = proxies(vec![fake.entry("https", "")]);
    for _ in 0..2 {
        assert_eq!(ask(&list, "a.example", port).await.as_deref(), Ok("hello"));
    }
    assert_eq!(fake.asked().len(), 2);
    // One that waits for a line's end that never comes, as tinyproxy does, is asked in plain, but not for the target.
    let patient = Fake::start(Does::Wait).await;
    let list = proxies(vec![patient.entry("https", "")]);
    assert_eq!(ask(&list, "a.example", port).await.as_deref(), Ok("hello"));
    let asked = patient.asked();
    assert!(asked.len() == 2 && !asked[0].contains("a.example") && asked[1].contains("a.example"), "{asked:?}");
    let list = proxies(vec![fake.entry("https", "u:hunter2@")]);
    let said = ask(&list, "a.example", port).await.unwrap_err();
    assert!(said.contains("it speaks plain HTTP") && !said.contains("hunter2"), "{said}");
    assert!(fake.asked().iter().all(|head| !head.contains("Authorization")));
    // One that speaks neither.
    let odd = Fake::start(Does::Close).await;
    let said = ask(&proxies(vec![odd.entry("https", "")]), "a.example", port).await.unwrap_err();
    assert!(said.ends_with(": tls: the connection was closed during the handshake"), "{said}");
}

/// A proxy that stalls is blamed by its name also by somebody with less patience than its own limits.
#[tokio::test]
async fn a_stalled_proxy_is_named_within_a_shorter_limit() {
    let stalled = Fake::start(Does::Stall).await;
    let list = proxies(vec![stalled.entry("socks5h", "")]);
    let to = Target { host: Host::parse("a.example"), port: 853 };
    let resolve = |_: &str| std::future::ready(Ok(Vec::new()));
    let limit = Duration::from_secs(3);
    let said = list.connect_within(&to, resolve, None, limit).await.unwrap_err().to_string();
    assert!(said.starts_with(&format!("proxy: socks5h://127.0.0.1:{}: no answer for ", stalled.port)), "{said}");
    assert_eq!(list.checks()[0].outcome, Outcome::Fail);
}

/// While a SOCKS5 proxy waits for the target's addresses it is not blamed for the silence.
#[tokio::test]
async fn a_slow_look_up_is_not_the_proxys() {
    let port = target().await;
    let (stalled, slow) = (Fake::start(Does::Stall).await, Fake::start(Does::Socks(0)).await);
    let good = Fake::start(OK).await;
    let list = proxies(vec![stalled.entry("socks5h", ""), slow.entry("socks5", ""), good.entry("http", "")]);
    let to = Target { host: Host::parse("a.example"), port };
    let resolve = |_: &str| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(vec!["127.0.0.1".parse().unwrap()])
    };
    list.connect(&to, resolve).await.unwrap();
    let outcomes: Vec<_> = list.checks().into_iter().map(|check| check.outcome).collect();
    assert_eq!(outcomes, [Outcome::Fail, Outcome::Skip, Outcome::Pass]);
}
