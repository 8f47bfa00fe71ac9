//! Servers, lists of them and look-ups, against servers on loopback that answer, lie, stall and go away.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::time::timeout;
use trust_dns_resolver::proto::op::{Message, ResponseCode};
use trust_dns_resolver::proto::rr::{Name, RecordType};

use crate::clock::Clock;
use crate::net::candidates::Miss;
use crate::net::dns::cache::interleave;
use crate::net::dns::server::{Known, Server};
use crate::net::dns::testing::{
    Act, Came, Responder, code, is_v6, records, reply, serve_http, serve_http_counted, server, with_soa,
};
use crate::net::dns::{ServerConfig, Transport};
use crate::net::target::Host;

mod lookups;
mod system;

const BOTH: [&str; 2] = ["a.example 60 192.0.2.1", "a.example 60 2001:db8::1"];
const FOUND_BOTH: &str = "[2001:db8::1, 192.0.2.1] 60";

/// Looks `a.example` up at one server and returns what it said, without its name. What comes late, as happens on a busy
/// machine, counts for a while.
async fn ask(server: &Arc<Server>, limit_ms: u64) -> String {
    let said = server.lookup("a.example", Duration::from_millis(limit_ms), None).await;
    let bare = |text: String| text.strip_prefix(server.name()).unwrap().to_owned();
    match said {
        Ok(Known::Found { addresses, ttl_s, late: None }) => format!("{addresses:?} {ttl_s}"),
        Ok(Known::Found { addresses, ttl_s, late: Some(late) }) => {
            match timeout(Duration::from_millis(limit_ms.min(500)), late).await {
                Ok(Some((more, more_ttl_s))) => {
                    let (v6, v4) = addresses.into_iter().chain(more).partition(IpAddr::is_ipv6);
                    format!("{:?} {}", interleave(v6, v4), ttl_s.min(more_ttl_s))
                }
                Ok(None) => format!("{addresses:?} {ttl_s}"),
                Err(_) => format!("{addresses:?} {ttl_s} and perhaps more"),
            }
        }
        Ok(Known::Absent { text, ttl_s }) => format!("absent{} {ttl_s:?}", bare(text)),
        Err(Miss::Dead(text)) => format!("dead{}", bare(text)),
        Err(Miss::Unable(text)) => format!("unable{}", bare(text)),
    }
}

/// Returns what tells how long ago this was called.
fn stopwatch() -> impl Fn() -> Duration {
    let clock = Clock::system();
    let began = clock.steady();
    move || clock.steady().duration_since(began)
}

async fn nobody() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

fn config(address: SocketAddr, transport: Transport) -> ServerConfig {
    let (host, name) = (Host::Address(address.ip()), format!("{transport}://{address}"));
    ServerConfig { transport, host, port: address.port(), path: "/q?key=secret".to_owned(), name }
}

/// Over UDP and TCP, both families come together, and what the server says of absence and failure is told apart.
#[tokio::test]
async fn answers() {
    type Answer = fn(&Message) -> Message;
    let table: [(Answer, &str); 6] = [
        (|query| records(query, &BOTH), FOUND_BOTH),
        (|query| records(query, &BOTH[..1]), "[192.0.2.1] 60"),
        (|query| with_soa(code(query, ResponseCode::NXDomain), 60, 60), "absent: a.example: no such name Some(60)"),
        (|query| with_soa(reply(query), 60, 30), "absent: a.example: the name has no address Some(30)"),
        (|query| code(query, ResponseCode::ServFail), "unable: a.example: server failure (SERVFAIL)"),
        (|query| code(query, ResponseCode::Refused), "unable: a.example: refuses to answer us (REFUSED)"),
    ];
    for (answer, expected) in table {
        let responder = Responder::start(move |query, _| Act::Reply(answer(query))).await;
        for transport in [Transport::Udp, Transport::Tcp] {
            assert_eq!(ask(&responder.server(transport), 5000).await, expected, "{transport}");
        }
    }
}

/// An alias whose end is not in the answer is asked for, and not without end.
#[tokio::test]
async fn aliases() {
    let responder = Responder::start(|query, _| {
        let name = query.queries[0].name().to_ascii();
        Act::Reply(match name.as_str() {
            "a.example." => records(query, &["a.example 50 b.example"]),
            _ => records(query, &["b.example 60 192.0.2.1"]),
        })
    });
    let responder = responder.await;
    assert_eq!(ask(&responder.server(Transport::Udp), 5000).await, "[192.0.2.1] 50");
    let endless = Responder::start(|query, _| {
        let name = query.queries[0].name().to_ascii();
        Act::Reply(records(query, &[&format!("{name} 50 x{name}")]))
    });
    let endless = endless.await;
    assert_eq!(ask(&endless.server(Transport::Tcp), 5000).await, "unable: a.example: its aliases do not end");
    assert_eq!(endless.asked().len(), 16);
}

/// An answer that does not fit into a datagram is fetched over TCP; where that fails, what did fit is used.
#[tokio::test]
async fn truncated() {
    let responder = Responder::start(|query, came| {
        let mut answer = records(query, if came == Came::Udp { &BOTH[..1] } else { &BOTH });
        answer.metadata.truncation = came == Came::Udp;
        Act::Reply(answer)
    });
    assert_eq!(ask(&responder.await.server(Transport::Udp), 5000).await, FOUND_BOTH);
    for (fits, expected) in
        [(true, "[192.0.2.1] 60"), (false, "dead: the answer is too long for UDP, and over TCP: the connection was ")]
    {
        let responder = Responder::start(move |query, came| {
            if came != Came::Udp {
                return Act::Close;
            }
            let mut answer = records(query, if fits { &BOTH[..1] } else { &[] });
            answer.metadata.truncation = !is_v6(query);
            Act::Reply(answer)
        });
        let said = ask(&responder.await.server(Transport::Udp), 5000).await;
        assert!(said.starts_with(expected), "{said}");
    }
}

/// Datagrams with another id, about another name, or that are none, do not keep the true answer away.
#[tokio::test]
async fn forged_datagrams() {
    let responder = Responder::start(|query, _| {
        let truth = records(query, &BOTH);
        let lie = records(query, &["a.example 60 203.0.113.1", "a.example 60 2001:db8::bad"]);
        let (mut other_id, mut other_name) = (lie.clone(), lie);
        other_id.metadata.id ^= 1;
        other_name.queries[0].name = Name::from_ascii("b.example.").unwrap();
        let mut cut = truth.to_vec().unwrap();
        cut.truncate(20);
        let bytes = |message: Message| message.to_vec().unwrap();
        Act::Raw(vec![bytes(other_id), bytes(other_name), cut, vec![0], vec![], bytes(truth)])
    });
    assert_eq!(ask(&responder.await.server(Transport::Udp), 5000).await, FOUND_BOTH);
}

/// Over a stream, an answer to another question is not taken for ours.
#[tokio::test]
async fn forged_stream() {
    let responder = Responder::start(|query, _| {
        let mut answer = records(query, &BOTH);
        answer.queries[0].name = Name::from_ascii("b.example.").unwrap();
        Act::Reply(answer)
    });
    let said = ask(&responder.await.server(Transport::Tcp), 1000).await;
    assert_eq!(said, "dead: answered another question than the one asked");
    let garbage = Responder::start(|_, _| Act::Raw(vec![vec![1; 30]])).await;
    assert_eq!(ask(&garbage.server(Transport::Tcp), 400).await, "dead: no answer within 0.4 s");
}

/// A datagram that got lost is sent again.
#[tokio::test]
async fn lost_datagrams() {
    let count = AtomicUsize::new(0);
    let responder = Responder::start(move |query, _| match count.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Act::Silence,
        _ => Act::Reply(records(query, &BOTH)),
    });
    assert_eq!(ask(&responder.await.server(Transport::Udp), 5000).await, FOUND_BOTH);
}

/// A server of the nineties is asked again without EDNS, and from then on at once.
#[tokio::test]
async fn without_edns() {
    let responder = Responder::start(|query, _| match &query.edns {
        Some(_) => Act::Reply(code(query, ResponseCode::FormErr)),
        None => Act::Reply(records(query, &BOTH)),
    });
    let responder = responder.await;
    let server = responder.server(Transport::Udp);
    assert_eq!(ask(&server, 5000).await, FOUND_BOTH);
    let before = responder.asked().len();
    assert_eq!(ask(&server, 5000).await, FOUND_BOTH);
    assert_eq!(responder.asked().len(), before + 2);
    server.clock().advance(Duration::from_secs(3600));
    assert_eq!(ask(&server, 5000).await, FOUND_BOTH);
    assert_eq!(responder.asked().len(), before + 6, "it may have been mended");
}

/// One who does not understand a question whether it is dressed or not has no trouble with EDNS.
#[tokio::test]
async fn not_about_edns() {
    let responder = Responder::start(|query, _| {
        let is_understood = query.edns.is_some() && query.queries[0].name().num_labels() > 2;
        Act::Reply(if is_understood { records(query, &BOTH) } else { code(query, ResponseCode::NotImp) })
    });
    let responder = responder.await;
    let server = responder.server(Transport::Udp);
    let said = server.lookup("odd", Duration::from_secs(5), None).await;
    assert!(matches!(said, Err(Miss::Unable(text)) if text.contains("NOTIMP")));
    let said = server.lookup("a.a.example", Duration::from_secs(5), None).await;
    assert!(!matches!(said, Err(Miss::Unable(_) | Miss::Dead(_))), "EDNS is still used");
}

/// Who sends more wrong answers than happen by chance gets no chance to hit the right id: the question goes over TCP.
#[tokio::test]
async fn flood_of_forged_datagrams() {
    let responder = Responder::start(|query, came| {
        let lie = records(query, &["a.example 60 203.0.113.1", "a.example 60 2001:db8::bad"]);
        let wrong = |number: u16| {
            let mut lie = lie.clone();
            lie.metadata.id ^= number;
            lie.to_vec().unwrap()
        };
        match came {
            Came::Udp => Act::Raw((1..40).chain([0]).map(wrong).collect()),
            Came::Tcp(_) => Act::Reply(records(query, &BOTH)),
        }
    });
    assert_eq!(ask(&responder.await.server(Transport::Udp), 5000).await, FOUND_BOTH);
}

/// No two questions look alike to somebody who guesses: each has a port and an id of its own.
#[tokio::test]
async fn ports_and_ids() {
    let ids = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&ids);
    let responder = Responder::start(move |query, _| {
        seen.lock().unwrap().push(query.metadata.id);
        Act::Reply(records(query, &BOTH))
    });
    let responder = responder.await;
    let server = responder.server(Transport::Udp);
    for _ in 0..20 {
        assert_eq!(ask(&server, 5000).await, FOUND_BOTH);
    }
    let mut ids = ids.lock().unwrap().clone();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 35, "{ids:?}");
    let spread = ids.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(spread < 0x7fff, "{ids:?}");
}

/// Over HTTP/1.1, names that do not exist cost no connection: the question about IPv6 is given up before it is sent.
#[tokio::test]
async fn absence_keeps_the_connection() {
    let (address, connections, _tasks) = serve_http_counted(|_, body| {
        let query = Message::from_vec(body).unwrap();
        let pause = Duration::from_millis(if is_v6(&query) { 30 } else { 0 });
        (pause, http("200 OK", "application/dns-message", &code(&query, ResponseCode::NXDomain).to_vec().unwrap()))
    })
    .await;
    let server = Arc::new(server(config(address, Transport::Https)));
    for _ in 0..5 {
        assert_eq!(ask(&server, 5000).await, "absent: a.example: no such name None");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

/// Nobody there, somebody silent, somebody who hangs up: each is said in words, within the limit.
#[tokio::test]
async fn out_of_order() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Https] {
        let said = ask(&Arc::new(server(config(nobody().await, transport))), 5000).await;
        assert!(said.to_lowercase().contains("connection refused"), "{transport} {said}");
    }
    let silent = Responder::start(|_, _| Act::Silence).await;
    for transport in [Transport::Udp, Transport::Tcp, Transport::Https] {
        let began = stopwatch();
        assert_eq!(ask(&silent.server(transport), 500).await, "dead: no answer within 0.5 s", "{transport}");
        assert!(began() < Duration::from_millis(900), "{transport} {:?}", began());
    }
    let rude = Responder::start(|_, _| Act::Close).await;
    let said = ask(&rude.server(Transport::Tcp), 5000).await;
    assert!(["dead: the connection was closed", "dead: the connection was reset"].contains(&said.as_str()), "{said}");
}

/// A connection serves many questions; when it has died without a word, a new one is made within the same look-up; one
/// that has been idle for long is not tried at all.
#[tokio::test]
async fn connections() {
    let last = Arc::new(AtomicUsize::new(0));
    let is_deaf = Arc::new(AtomicBool::new(false));
    let responder = {
        let (last, is_deaf) = (Arc::clone(&last), Arc::clone(&is_deaf));
        Responder::start(move |query, came| {
            let Came::Tcp(number) = came else { return Act::Close };
            last.store(number, Ordering::Relaxed);
            if number == 1 && is_deaf.load(Ordering::Relaxed) {
                return Act::Silence;
            }
            Act::Reply(records(query, &BOTH))
        })
        .await
    };
    let server = responder.server(Transport::Tcp);
    let all = join_all((0..50).map(|_| ask(&server, 5000))).await;
    assert!(all.iter().all(|said| said == FOUND_BOTH), "{all:?}");
    assert_eq!(last.load(Ordering::Relaxed), 1, "one connection for all");
    is_deaf.store(true, Ordering::Relaxed);
    let began = stopwatch();
    assert_eq!(ask(&server, 600).await, FOUND_BOTH);
    assert!(began() >= Duration::from_millis(300), "half of the limit went to the dead one");
    assert_eq!(last.load(Ordering::Relaxed), 2);
    assert_eq!(ask(&server, 600).await, FOUND_BOTH);
    assert_eq!(last.load(Ordering::Relaxed), 2);
    server.clock().advance(Duration::from_secs(11));
    assert_eq!(ask(&server, 5000).await, FOUND_BOTH);
    assert_eq!(last.load(Ordering::Relaxed), 3);
}

/// A server that takes its time is waited for, by the socket that asked, over UDP as over a new connection.
#[tokio::test]
async fn slow_but_there() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let slow = Responder::start(|query, _| {
            let answer = Act::Reply(records(query, &BOTH[..1]));
            if is_v6(query) { answer } else { Act::After(Duration::from_millis(2700), Box::new(answer)) }
        });
        let slow = slow.await;
        let said = ask(&slow.server(transport), 5000).await;
        assert!(said.contains("192.0.2.1"), "{transport:?}: {said}");
    }
}

/// A server that closes after each answer is asked over a new connection, without a failure in between.
#[tokio::test]
async fn closed_between() {
    let count = AtomicUsize::new(0);
    let responder = Responder::start(move |query, _| match count.fetch_add(1, Ordering::Relaxed) % 3 {
        2 => Act::Close,
        _ => Act::Reply(records(query, &BOTH)),
    });
    let responder = responder.await;
    let server = responder.server(Transport::Tcp);
    for round in 0..10 {
        assert_eq!(ask(&server, 5000).await, FOUND_BOTH, "{round}");
    }
}

/// IPv6 addresses are waited for, but not long, and then come late; silence about them costs no connection.
#[tokio::test]
async fn the_other_family() {
    let slow = Responder::start(|query, _| {
        let answer = Act::Reply(records(query, &BOTH));
        if is_v6(query) { Act::After(Duration::from_millis(200), Box::new(answer)) } else { answer }
    });
    let slow = slow.await;
    let began = stopwatch();
    let known = slow.server(Transport::Udp).lookup("a.example", Duration::from_secs(5), None).await;
    assert!((50..180).contains(&began().as_millis()), "{:?}", began());
    let Ok(Known::Found { addresses, late: Some(late), .. }) = known else { panic!("no addresses, or none to come") };
    assert_eq!(addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(late.await, Some((vec!["2001:db8::1".parse().unwrap()], 60)));

    let six_only = Responder::start(|query, _| Act::Reply(records(query, &BOTH[1..]))).await;
    assert_eq!(ask(&six_only.server(Transport::Udp), 5000).await, "[2001:db8::1] 60");
}

/// Servers that know nothing of IPv6 are silent, fail, or say that the name does not exist: IPv4 works all the same.
#[tokio::test]
async fn nothing_of_ipv6() {
    type Answer = fn(&Message) -> Act;
    let table: [(Answer, &str); 3] = [
        (|_| Act::Silence, "[192.0.2.1] 60 and perhaps more"),
        (|query| Act::Reply(code(query, ResponseCode::ServFail)), "[192.0.2.1] 60"),
        (|query| Act::Reply(code(query, ResponseCode::NXDomain)), "[192.0.2.1] 60"),
    ];
    for (answer, expected) in table {
        let responder = Responder::start(move |query, _| {
            let four = Act::Reply(records(query, &BOTH[..1]));
            if is_v6(query) { answer(query) } else { Act::After(Duration::from_millis(20), Box::new(four)) }
        });
        assert_eq!(ask(&responder.await.server(Transport::Udp), 5000).await, expected);
    }
}

fn http(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

const JSON: &str = r#"{"Status":0,"Answer":[{"name":"a.example","type":1,"TTL":60,"data":"192.0.2.1"},
    {"name":"a.example","type":28,"TTL":60,"data":"2001:db8::1"}]}"#;

/// Both forms of DNS over HTTPS are found out and remembered, and the key in the path goes along with each.
#[tokio::test]
async fn forms_of_https() {
    for takes in ["POST", "GET"] {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let heads = Arc::clone(&seen);
        let (address, tasks) = serve_http(move |head, body| {
            let method = head.split(' ').next().unwrap();
            heads.lock().unwrap().push(head.lines().next().unwrap().to_owned());
            if method != takes {
                return http("415 Unsupported Media Type", "text/plain", b"no");
            }
            if method == "GET" {
                return http("200 OK", "application/json; charset=utf-8", JSON.as_bytes());
            }
            let query = Message::from_vec(body).unwrap();
            assert_eq!(query.metadata.id, 0);
            http("200 OK", "application/dns-message", &records(&query, &BOTH).to_vec().unwrap())
        })
        .await;
        let server = Arc::new(server(config(address, Transport::Https)));
        for _ in 0..3 {
            assert_eq!(ask(&server, 5000).await, FOUND_BOTH, "{takes}");
        }
        let seen = seen.lock().unwrap().clone();
        assert!(seen.iter().all(|line| line.contains("/q?key=secret")), "{seen:?}");
        assert_eq!(seen.iter().rev().take(4).filter(|line| line.starts_with(takes)).count(), 4, "{seen:?}");
        if takes == "GET" {
            assert!(seen.iter().any(|line| line == "GET /q?key=secret&name=a.example&type=AAAA HTTP/1.1"), "{seen:?}");
        }
        tasks.token().cancel();
    }
}

/// What HTTP says instead of an answer is told as it is, without the path.
#[tokio::test]
async fn failures_of_https() {
    let many = vec![b' '; 100_000];
    for (status, kind, body, expected) in [
        ("404 Not Found", "text/html", &b""[..], "dead: no DNS over HTTPS at this path: HTTP 404 Not Found"),
        ("200 OK", "text/html", b"<html>", "dead: sent a web page instead of an answer"),
        ("403 Forbidden", "", b"", "dead: HTTP 403 Forbidden: it refuses us; is a key missing in its address?"),
        ("302 Found", "", b"", "dead: HTTP 302 Found: it is at another address"),
        ("503 Service Unavailable", "", b"", "dead: HTTP 503 Service Unavailable"),
        ("200 OK", "application/dns-message", b"xx", "dead: sent something that is not a DNS message"),
        ("200 OK", "application/dns-json", b"{}", "dead: sent JSON that is not an answer of the DNS: it has no Status"),
        ("200 OK", "application/dns-json", &many, "dead: sent more than 64 KiB"),
    ] {
        let answer = http(status, kind, body);
        let (address, _tasks) = serve_http(move |_, _| answer.clone()).await;
        let said = ask(&Arc::new(server(config(address, Transport::Https))), 5000).await;
        assert_eq!(said, expected);
    }
    let (address, _tasks) = serve_http(|_, _| b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()).await;
    let said = ask(&Arc::new(server(config(address, Transport::Https))), 5000).await;
    assert_eq!(said, "dead: the other side does not speak HTTP");
}

/// Thousands of look-ups with every kind of failure among them leave no task and no descriptor behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaks() {
    let count = AtomicUsize::new(0);
    let responder = Responder::start(move |query, _| match count.fetch_add(1, Ordering::Relaxed) % 8 {
        0 => Act::Close,
        1 => Act::Reply(code(query, ResponseCode::ServFail)),
        2 => Act::Reply(code(query, ResponseCode::NXDomain)),
        3 if query.queries[0].query_type() == RecordType::AAAA => Act::Silence,
        4 => Act::Raw(vec![vec![7; 40]]),
        _ => Act::Reply(records(query, &["a.example 0 192.0.2.1"])),
    });
    let responder = responder.await;
    let (address, _tasks) = serve_http(move |_, _| http("500 Oops", "text/plain", b"no")).await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut before = (0, 0);
    for transport in [Transport::Udp, Transport::Tcp, Transport::Https] {
        let server = match transport {
            Transport::Https => Arc::new(server(config(address, transport))),
            _ => responder.server(transport),
        };
        for round in 0..10 {
            let said = join_all((0..100).map(|_| ask(&server, 40))).await;
            assert_eq!(said.len(), 100);
            if round == 4 && transport == Transport::Udp {
                before = (descriptors(), tasks());
            }
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = (descriptors(), tasks());
    // Other tests of this process come and go.
    assert!(after.0 < before.0 + 200, "descriptors {before:?} {after:?}");
    assert!(after.1 < before.1 + 100, "tasks {before:?} {after:?}");
}
