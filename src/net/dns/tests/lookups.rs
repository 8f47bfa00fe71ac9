//! Look-ups by several servers, what is remembered of them, and what is said while nobody can be asked.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use trust_dns_resolver::proto::op::ResponseCode;

use super::{BOTH, config, nobody, stopwatch};
use crate::clock::Clock;
use crate::net::candidates::{COOL_DOWN_MIN, PATIENCE};
use crate::net::dns::Transport;
use crate::net::dns::names::{Names, Origin};
use crate::net::dns::server::Server;
use crate::net::dns::servers::{LOOKUP_LIMIT, Servers};
use crate::net::dns::testing::{Act, Responder, code, is_v6, records, server, with_soa};
use crate::shutdown::Tasks;

/// A list of servers with one clock, and its look-ups.
fn names(servers: Vec<Server>, clock: &Clock) -> Arc<Names> {
    names_with(Path::new("/nonexistent"), servers, clock)
}

/// The same with a file of hosts.
pub(super) fn names_with(hosts: &Path, servers: Vec<Server>, clock: &Clock) -> Arc<Names> {
    let origin = Origin::Servers(Servers::new(servers, clock.clone()));
    Names::new(hosts, origin, Tasks::new(), clock.clone())
}

pub(super) fn of(responder: &Responder, transport: Transport) -> Server {
    server(responder.config(transport))
}

pub(super) async fn lookup(names: &Arc<Names>) -> String {
    match names.lookup("A.example.").await {
        Ok(found) => format!("{:?} by {}", found.addresses, found.source),
        Err(text) => text,
    }
}

/// The first server that can tell does; one that fails is asked after, one that is silent costs once, and each says why
/// when none can; that a name does not exist is final.
#[tokio::test]
async fn several_servers() {
    let good = Responder::start(|query, _| Act::Reply(records(query, &["a.example 0 192.0.2.1"]))).await;
    let failing = Responder::start(|query, _| Act::Reply(code(query, ResponseCode::ServFail))).await;
    let silent = Responder::start(|_, _| Act::Silence).await;
    let absent = Responder::start(|query, _| Act::Reply(code(query, ResponseCode::NXDomain))).await;
    let clock = Clock::system();
    let by_good = format!("[192.0.2.1] by udp://{}", good.address);

    let list = names(vec![of(&failing, Transport::Udp), of(&good, Transport::Udp)], &clock);
    assert_eq!(lookup(&list).await, by_good);
    assert_eq!(list.servers().unwrap().checks()[0].text, "a.example: server failure (SERVFAIL)");

    let list = names(vec![of(&silent, Transport::Udp), of(&good, Transport::Udp)], &clock);
    let began = stopwatch();
    assert_eq!(lookup(&list).await, by_good);
    assert!((PATIENCE..Duration::from_secs(1)).contains(&began()), "{:?}", began());
    let began = stopwatch();
    assert_eq!(lookup(&list).await, by_good);
    assert!(began() < Duration::from_millis(300), "{:?}", began());
    let asked = silent.asked().len();
    clock.advance(COOL_DOWN_MIN);
    assert_eq!(lookup(&list).await, by_good);
    assert!(silent.asked().len() > asked, "asked again after its time");

    let list = names(vec![of(&absent, Transport::Udp), of(&good, Transport::Udp)], &clock);
    assert_eq!(lookup(&list).await, format!("udp://{}: a.example: no such name", absent.address));

    let list = names(vec![of(&failing, Transport::Tcp), server(config(nobody().await, Transport::Udp))], &clock);
    let said = lookup(&list).await;
    let (first, second) = said.split_once("; ").unwrap();
    assert_eq!(first, format!("tcp://{}: a.example: server failure (SERVFAIL)", failing.address));
    assert!(second.ends_with(": connection refused: nothing listens there"), "{second}");
}

/// Look-ups of one name at a time are one; what it gave is kept for its time, absence too, and nothing without a time.
#[tokio::test]
async fn remembered() {
    let clock = Clock::system();
    let slow = Responder::start(|query, _| {
        Act::After(Duration::from_millis(30), Box::new(Act::Reply(records(query, &BOTH[..1]))))
    });
    let slow = slow.await;
    let list = names(vec![of(&slow, Transport::Udp)], &clock);
    let all = join_all((0..100).map(|_| lookup(&list))).await;
    assert!(all.iter().all(|said| *said == format!("[192.0.2.1] by udp://{}", slow.address)), "{all:?}");
    assert_eq!(slow.asked().len(), 2);
    assert_eq!(lookup(&list).await, "[192.0.2.1] by cache");
    clock.advance(Duration::from_secs(60));
    lookup(&list).await;
    assert_eq!(slow.asked().len(), 4);

    for (soa, kept) in [(true, true), (false, false)] {
        let responder = Responder::start(move |query, _| {
            let answer = code(query, ResponseCode::NXDomain);
            Act::Reply(if soa { with_soa(answer, 60, 60) } else { answer })
        });
        let responder = responder.await;
        let list = names(vec![of(&responder, Transport::Udp)], &clock);
        let said = lookup(&list).await;
        let asked = responder.asked().len();
        assert_eq!(lookup(&list).await, said);
        assert_eq!(responder.asked().len() == asked, kept);
    }
}

/// What was dropped by whoever began it still ends for others, and IPv6 addresses that come late are kept.
#[tokio::test]
async fn late_and_alone() {
    let responder = Responder::start(|query, _| {
        let answer = Box::new(Act::Reply(records(query, &BOTH)));
        Act::After(Duration::from_millis(if is_v6(query) { 200 } else { 20 }), answer)
    });
    let responder = responder.await;
    let list = names(vec![of(&responder, Transport::Udp)], &Clock::system());
    let gone = tokio::time::timeout(Duration::from_millis(5), lookup(&list)).await;
    assert!(gone.is_err());
    assert_eq!(lookup(&list).await, format!("[192.0.2.1] by udp://{}", responder.address));
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(lookup(&list).await, "[2001:db8::1, 192.0.2.1] by cache");
    assert_eq!(responder.asked().len(), 2);
}

/// While nobody can be asked, addresses of some time ago are used, for a day; the name that is gone is not among them.
#[tokio::test]
async fn stale() {
    let state = Arc::new(AtomicUsize::new(0));
    let responder = {
        let state = Arc::clone(&state);
        Responder::start(move |query, _| match state.load(Ordering::Relaxed) {
            0 => Act::Reply(records(query, &BOTH[..1])),
            1 => Act::Silence,
            2 => Act::Reply(code(query, ResponseCode::ServFail)),
            _ => Act::Reply(code(query, ResponseCode::NXDomain)),
        })
        .await
    };
    let clock = Clock::system();
    let list = names(vec![of(&responder, Transport::Udp)], &clock);
    lookup(&list).await;
    clock.advance(Duration::from_secs(61));
    state.store(1, Ordering::Relaxed);
    let (old, began) = ("[192.0.2.1] by stale", stopwatch());
    assert_eq!(lookup(&list).await, old);
    assert!(began() < Duration::from_millis(1300), "{:?}", began());
    let began = stopwatch();
    assert_eq!(lookup(&list).await, old);
    assert!(began() < Duration::from_millis(100), "{:?}", began());
    state.store(2, Ordering::Relaxed);
    clock.advance(Duration::from_secs(31));
    assert_eq!(lookup(&list).await, old);
    state.store(3, Ordering::Relaxed);
    clock.advance(Duration::from_secs(31));
    assert_eq!(lookup(&list).await, format!("udp://{}: a.example: no such name", responder.address));
    state.store(0, Ordering::Relaxed);
    lookup(&list).await;
    state.store(2, Ordering::Relaxed);
    clock.advance(Duration::from_secs(24 * 3600 + 61));
    assert_eq!(lookup(&list).await, format!("udp://{}: a.example: server failure (SERVFAIL)", responder.address));
}

/// A server that tells no time to live is asked each time, and what it said is used while it cannot be asked.
#[tokio::test]
async fn stale_without_a_time() {
    let is_up = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&is_up);
    let responder = Responder::start(move |query, _| {
        let is_up = state.load(Ordering::Relaxed);
        let good = records(query, &["a.example 0 192.0.2.1"]);
        Act::Reply(if is_up { good } else { code(query, ResponseCode::ServFail) })
    });
    let responder = responder.await;
    let list = names(vec![of(&responder, Transport::Udp)], &Clock::system());
    for _ in 0..2 {
        assert_eq!(lookup(&list).await, format!("[192.0.2.1] by udp://{}", responder.address));
    }
    is_up.store(false, Ordering::Relaxed);
    assert_eq!(lookup(&list).await, "[192.0.2.1] by stale");
}

/// One server over QUIC that is silent is said to be that within the limit of a look-up, and those who ask right after
/// that do not wait again.
#[tokio::test]
async fn silent_quic() {
    let socket = tokio::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let quic = config(socket.local_addr().unwrap(), Transport::Quic);
    let expected = format!("{}: no handshake within 4 s", quic.name);
    let clock = Clock::system();
    let list = names(vec![server(quic)], &clock);
    let began = stopwatch();
    for _ in 0..3 {
        assert_eq!(lookup(&list).await, expected);
    }
    assert!(began() < LOOKUP_LIMIT, "{:?}", began());
    clock.advance(LOOKUP_LIMIT);
    assert!(timeout(Duration::from_millis(100), lookup(&list)).await.is_err(), "asked again after that");
}
