//! Ten thousand requests over a way out that fails all the time: what Larder holds does not grow.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Fault, Larder, Names, Relay, Start, Tree, Upstream, client_from, json, wait_within};

const REQUESTS: usize = 10_000;
/// From here on nothing may grow.
const WARM: usize = 2_000;
/// Clients at a time, each from an address of its own.
const CLIENTS: usize = 8;
/// Modules that each of them asks for.
const MODULES: usize = 5;
/// Connections are broken after this many requests.
const CUT_EVERY: usize = 100;

/// How long all of it may take: several times what it takes on two idle cores.
const LIMIT: Duration = Duration::from_secs(90);
/// How much more there may be in the end than after the first requests: descriptors, and memory in kB, of a debug build.
const DESCRIPTORS_SLACK: usize = 8;
const RESIDENT_KB_SLACK: u64 = 6_000;

struct Held {
    descriptors: usize,
    resident_kb: u64,
}

/// Returns what Larder holds once it has nothing left to do.
fn held(larder: &Larder) -> Held {
    let folder = format!("/proc/{}", larder.pid());
    let status = std::fs::read_to_string(format!("{folder}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let resident_kb = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    Held { descriptors: std::fs::read_dir(format!("{folder}/fd")).unwrap().count(), resident_kb }
}

/// Requests that all go out, through proxies that hang up, under names that are not always answered, to an upstream that
/// drops, cuts, refuses and stalls, leave neither descriptors nor memory behind.
#[test]
fn ten_thousand_requests_leave_nothing_behind() {
    let mut tree = Tree::new();
    for number in 0..CLIENTS * MODULES {
        tree = tree.module(&format!("example.com/made{number}"), "v1.0.0", 2_000);
    }
    let upstream = Upstream::with(tree.path(), &["-https", "127.0.0.1:0", "-hosts", "mirror.test", "-http1"]);
    upstream.faults(json!([
        {"rate": 0.02, "drop": true},
        {"rate": 0.02, "status": 503},
        {"rate": 0.01, "status": 429},
        {"rate": 0.01, "cut_after": 3},
        {"rate": 0.002, "hang_after": 3, "times": 10},
    ]));
    let (https, ca) = upstream.https.as_ref().unwrap();
    let relays = [Relay::with(Fault::ClosesOneIn(7)), Relay::with(Fault::ClosesOneIn(5))];
    let names = [Names::failing(1, 5, 11), Names::failing(1, 7, usize::MAX)];
    let larder = Start::upstream(&https.replace("127.0.0.1", "mirror.test"))
        .args(["-proxy", &relays.iter().map(|relay| relay.url("socks5")).collect::<Vec<_>>().join(",")])
        .args(["-dns", &names.iter().map(Names::server).collect::<Vec<_>>().join(",")])
        .args(["-ca", ca, "-fresh-for", "0s", "-stall-timeout", "1s", "-network-mode", "strict"])
        .run();
    let began = Instant::now();
    let answered = AtomicUsize::new(0);
    ask(&larder, &relays, 0..WARM, &answered);
    let early = settle(&larder, &relays);
    ask(&larder, &relays, WARM..REQUESTS, &answered);
    let late = settle(&larder, &relays);
    let took = began.elapsed();
    let figures = format!(
        "{REQUESTS} requests in {took:?}, {} answered well, {} reached the upstream, {} connections through proxies, {} \
         questions; descriptors {} and {}, memory {} and {} kB",
        answered.load(Ordering::Relaxed),
        upstream.requests(),
        relays.iter().map(Relay::connections).sum::<u64>(),
        names.iter().map(|names| names.names().len()).sum::<usize>(),
        early.descriptors,
        late.descriptors,
        early.resident_kb,
        late.resident_kb,
    );
    println!("{figures}");
    assert!(late.descriptors <= early.descriptors + DESCRIPTORS_SLACK, "{figures}");
    assert!(late.resident_kb <= early.resident_kb + RESIDENT_KB_SLACK, "{figures}");
    assert!(took < LIMIT, "{figures}");
    // Otherwise it would have been a test of something else.
    assert!(upstream.requests() >= REQUESTS as u64, "{figures}");
    assert!(answered.load(Ordering::Relaxed) > REQUESTS * 9 / 10, "{figures}");
    assert!(names.iter().all(|names| !names.names().is_empty()) && relays.iter().all(|relay| relay.connections() > 50));
    // And no task is left that would keep it from ending.
    let mut larder = larder;
    larder.stop();
}

/// Sends the requests of these numbers; a client asks for lists of modules that are its own, so that none is shared.
fn ask(larder: &Larder, relays: &[Relay], numbers: std::ops::Range<usize>, answered: &AtomicUsize) {
    let next = AtomicUsize::new(numbers.start);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (next, end) = (&next, numbers.end);
            scope.spawn(move || {
                let http = client_from([127, 0, 20, u8::try_from(client + 1).unwrap()].into());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    if number % CUT_EVERY == 0 {
                        relays.iter().for_each(Relay::cut);
                    }
                    // Three in four are not there, which is as much of an answer, and nothing is written for them.
                    let module = client * MODULES + number % MODULES;
                    let (name, good) = if number % 4 == 0 { ("made", 200) } else { ("absent", 404) };
                    let url = format!("{}/example.com/{name}{module}/@v/list", larder.url);
                    let answer = http.get(url).send().and_then(|answer| {
                        let status = answer.status().as_u16();
                        answer.bytes().map(|_| status)
                    });
                    if answer.is_ok_and(|status| status == good) {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// Breaks what is idle, waits until Larder has let go of it, and returns what it holds then.
fn settle(larder: &Larder, relays: &[Relay]) -> Held {
    relays.iter().for_each(Relay::cut);
    let mut least = usize::MAX;
    let mut since = Instant::now();
    wait_within(Duration::from_secs(10), "the number of descriptors to settle", || {
        let held = held(larder);
        if held.descriptors < least {
            (least, since) = (held.descriptors, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(1_500)).then_some(held)
    })
}
