//! Clients that are slow, silent, hostile or many, and how Larder says goodbye to all of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{
    BIG_ZIP, Larder, SMALL_ZIP, SOON, Start, Tree, Upstream, client_from, connect_from, raw, read_rest, send, temp_dir,
    wait_for, wait_within,
};

/// The size below which the whole process must stay, whatever its clients do.
const RESIDENT_KB_MAX: u64 = 120_000;

const LARGE_ZIP: &str = "/example.com/large/@v/v1.0.0.zip";

fn large_tree() -> Tree {
    Tree::new().module("example.com/large", "v1.0.0", 40 << 20).copy([SMALL_ZIP])
}

/// The address of the test machine with this number.
fn machine(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, u8::try_from(number / 250 + 1).unwrap(), u8::try_from(number % 250 + 1).unwrap())
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: larder\r\n\r\n").into_bytes()
}

fn memory_kb(larder: &Larder, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", larder.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn resident_kb(larder: &Larder) -> u64 {
    memory_kb(larder, "VmRSS")
}

/// Asserts that a machine that has not appeared before is served at once.
#[track_caller]
fn assert_serves_others(larder: &Larder) {
    let began = Instant::now();
    let answer = client_from(Ipv4Addr::new(127, 0, 9, 9)).get(format!("{}{SMALL_ZIP}", larder.url)).send().unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "served after {:?}", began.elapsed());
}

/// Two hundred clients that ask for a large zip and never read cost neither the others' service nor memory, and the
/// download they began is completed.
#[test]
fn invariant_11_clients_that_never_read() {
    let tree = large_tree();
    let upstream = Upstream::with(tree.path(), &[]);
    let larder = Larder::start(&upstream);
    larder.get(SMALL_ZIP).expect(200);
    let slow: Vec<_> = (0..200)
        .map(|number| {
            let mut stream = connect_from(machine(number % 20), larder.address());
            stream.write_all(&request(LARGE_ZIP)).unwrap();
            stream
        })
        .collect();
    wait_for("the download to end though nobody reads", || larder.has(LARGE_ZIP).then_some(()));
    assert_serves_others(&larder);
    assert!(larder.get(LARGE_ZIP).expect(200).body == tree.read(LARGE_ZIP));
    assert!(resident_kb(&larder) < RESIDENT_KB_MAX, "{} kB", resident_kb(&larder));
    drop(slow);
    assert_serves_others(&larder);
}

/// Thirty clients that follow the download of a large zip cost no more memory than thirty that follow a small one.
#[test]
fn invariant_11_memory_does_not_grow_with_the_zip() {
    let tree = large_tree().module("example.com/small", "v1.0.0", 3 << 20);
    let upstream = Upstream::with(tree.path(), &["-bandwidth", "60000000"]);
    let peaks_kb = ["/example.com/small/@v/v1.0.0.zip", LARGE_ZIP].map(|path| {
        let larder = Larder::start(&upstream);
        let length = tree.read(path).len();
        std::thread::scope(|scope| {
            for _ in 0..30 {
                scope.spawn(|| {
                    let mut response = larder.open(path);
                    let read = std::io::copy(&mut response, &mut std::io::sink()).unwrap();
                    assert_eq!(read, length as u64);
                });
            }
        });
        memory_kb(&larder, "VmHWM")
    });
    assert!(peaks_kb[1] < peaks_kb[0] + 15_000, "{} kB for 3 MB, {} kB for 40 MB", peaks_kb[0], peaks_kb[1]);
}

/// Five hundred clients that connect and say nothing lock nobody out, and are dropped by a time limit.
#[test]
fn clients_that_say_nothing() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    larder.get(SMALL_ZIP).expect(200);
    let mut silent: Vec<_> = (0..500).map(|number| connect_from(machine(number), larder.address())).collect();
    assert_serves_others(&larder);
    assert!(resident_kb(&larder) < RESIDENT_KB_MAX, "{} kB", resident_kb(&larder));
    for stream in &silent {
        stream.set_nonblocking(true).unwrap();
    }
    wait_within(Duration::from_secs(60), "the silent clients to be dropped", || {
        silent.retain_mut(|stream| match stream.read(&mut [0; 1000]) {
            Ok(0) => false,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            Ok(_) => true,
        });
        silent.is_empty().then_some(())
    });
    assert_serves_others(&larder);
}

/// A client that sends its request a byte at a time is dropped by the same limit, however steadily it does so.
#[test]
fn clients_that_dribble() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let mut stream = connect_from(machine(1), larder.address());
    stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    stream.set_nonblocking(true).unwrap();
    wait_within(Duration::from_secs(60), "the dribbling client to be dropped", || {
        let is_sent = stream.write_all(b"a").is_ok();
        let is_open =
            matches!(stream.read(&mut [0; 1000]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        (!is_sent || !is_open).then_some(())
    });
    larder.get(SMALL_ZIP).expect(200);
}

/// Garbage, endless header lines, a megabyte of headers, bodies and half requests end in an error or a closed
/// connection, never in silence or in a crash.
#[test]
fn garbage_is_turned_away() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let to = larder.address();
    let mut many = b"GET / HTTP/1.1\r\n".to_vec();
    for number in 0..20_000 {
        many.extend(format!("X-Header-{number}: {}\r\n", "a".repeat(40)).into_bytes());
    }
    many.extend(b"\r\n");
    let long_value = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 1 << 20], b"\r\n\r\n".to_vec()].concat();
    let long_path = [b"GET /".to_vec(), vec![b'a'; 1 << 20], b" HTTP/1.1\r\nHost: larder\r\n\r\n".to_vec()].concat();
    let noise = crate::harness::noise(5, 100_000);
    let cases: [(&str, &[u8]); 12] = [
        ("noise", &noise),
        ("zeros", &[0; 10_000]),
        ("no request", b"hello\r\n\r\n"),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("an unknown version", b"GET / HTTP/9.9\r\n\r\n"),
        ("a bare line feed", b"GET\n\n"),
        ("many headers", &many),
        ("a megabyte in one header", &long_value),
        ("a megabyte of path", &long_path),
        ("a folded header", b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"),
        ("two lengths", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("a NUL in a header", b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n"),
    ];
    for (why, bytes) in cases {
        let status = raw(to, bytes);
        assert!(status.is_none_or(|status| (400..600).contains(&status)), "{why}: {status:?}");
        larder.get("/health").expect(200);
    }
    assert_eq!(upstream.requests(), 0);
    assert!(resident_kb(&larder) < RESIDENT_KB_MAX, "{} kB", resident_kb(&larder));
}

/// Several requests sent at once on one connection are answered in order, and an old client gets its answer too.
#[test]
fn connections_are_used_again() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let zip = larder.get(SMALL_ZIP).expect(200).body;
    let go_mod = larder.get("/rsc.io/quote/@v/v1.5.2.mod").expect(200).body;
    let mut stream = TcpStream::connect(larder.address()).unwrap();
    let close = b"GET /rsc.io/quote/@v/v1.5.2.mod HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n\r\n";
    stream.write_all(&[request(SMALL_ZIP), request("/nothing"), close.to_vec()].concat()).unwrap();
    let (all, ended) = read_rest(&mut stream, SOON);
    assert!(ended);
    let at = |part: &[u8]| all.windows(part.len()).position(|window| window == part);
    assert!(at(&zip).unwrap() < at(b"HTTP/1.1 404").unwrap());
    assert!(at(b"HTTP/1.1 404").unwrap() < at(&go_mod).unwrap());
    let mut old = TcpStream::connect(larder.address()).unwrap();
    old.write_all(format!("GET {SMALL_ZIP} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let (answer, ended) = read_rest(&mut old, SOON);
    assert!(ended && answer.starts_with(b"HTTP/1.0 200") && answer.ends_with(&zip));
}

/// One machine's connections are bounded by `-max-connections-per-client`; beyond it only that machine waits.
#[test]
fn one_machine_locks_nobody_out() {
    let upstream = Upstream::start();
    let larder = Start::on(&upstream).args(["-max-connections-per-client", "8"]).run();
    larder.get(SMALL_ZIP).expect(200);
    let greedy: Vec<_> = (0..60).map(|_| connect_from(machine(3), larder.address())).collect();
    for number in 4..40 {
        let mut stream = connect_from(machine(number), larder.address());
        stream.write_all(&request(SMALL_ZIP)).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200", "machine {number}");
    }
    let mut refused = 0;
    for mut stream in greedy {
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n\r\n");
        let (answer, _) = read_rest(&mut stream, Duration::from_millis(100));
        refused += usize::from(!answer.starts_with(b"HTTP/1.1 200"));
    }
    assert!(refused >= 30, "{refused} of 60 connections over a limit of 8 were not served at once");
}

/// All connections together are bounded by `-max-connections`: the files of the process are, too, and it recovers.
#[test]
fn invariant_7_connections_are_bounded_in_all() {
    let upstream = Upstream::start();
    let larder = Start::on(&upstream).args(["-max-connections", "50"]).run();
    larder.get(SMALL_ZIP).expect(200);
    let crowd: Vec<_> = (0..200).map(|number| connect_from(machine(number), larder.address())).collect();
    let open = std::fs::read_dir(format!("/proc/{}/fd", larder.pid())).unwrap().count();
    assert!(open < 150, "{open} open files");
    drop(crowd);
    assert_serves_others(&larder);
}

/// Who is not allowed gets a 403 that names the flag; who is allowed is served. In a network of the test's own.
#[test]
fn strangers_are_told_the_flag() {
    let folder = temp_dir();
    let script = r#"
        ip link set lo up && ip addr add 203.0.113.7/32 dev lo && ip addr add 203.0.113.8/32 dev lo
        "$1" -listen 203.0.113.7 -port 8080 -cache "$2/cache" -upstream off -allow 203.0.113.8/32 -ready-file "$2/ready" &
        larder=$!
        for _ in $(seq 200); do if [ -s "$2/ready" ]; then break; fi; sleep 0.05; done
        for from in 203.0.113.8 203.0.113.7; do
            curl -sS -m 20 --interface $from -w ' %{http_code}\n' "http://203.0.113.7:8080/health" | tr -d '\n'; echo
        done
        kill $larder && wait $larder
    "#;
    let ran = Command::new("unshare")
        .args(["-n", "bash", "-c", script, "bash", env!("CARGO_BIN_EXE_larder")])
        .arg(folder.path())
        .output();
    let Some(output) = ran.ok().filter(|output| !output.stdout.is_empty()) else {
        println!("left out: a network of its own needs root, unshare, ip and curl");
        return;
    };
    let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let answers: Vec<_> = shown.lines().collect();
    assert!(output.status.success() && answers.len() == 2, "{shown}{errors}");
    assert!(answers[0].ends_with(" 200"), "{shown}{errors}");
    assert!(answers[1].ends_with(" 403") && answers[1].contains("-allow"), "{shown}{errors}");
}

/// After SIGTERM a running response is finished, new connections are refused, and the process ends with 0.
#[test]
fn a_stop_finishes_what_runs() {
    let tree = large_tree();
    let upstream = Upstream::with(tree.path(), &[]);
    let mut larder = Larder::start(&upstream);
    larder.get(LARGE_ZIP).expect(200);
    let idle = connect_from(machine(1), larder.address());
    let mut running = send(crate::harness::Method::GET, &format!("{}{LARGE_ZIP}", larder.url), &[]).unwrap();
    let mut body = vec![0; 1000];
    running.read_exact(&mut body).unwrap();
    larder.signal_term();
    wait_for("new connections to be refused", || TcpStream::connect(larder.address()).is_err().then_some(()));
    running.read_to_end(&mut body).unwrap();
    assert!(body == tree.read(LARGE_ZIP));
    let began = Instant::now();
    assert!(larder.wait().success());
    assert!(began.elapsed() < Duration::from_secs(5), "an idle connection held it for {:?}", began.elapsed());
    drop(idle);
}

/// A client that never reads delays the end by the ten seconds it is given, and not for ever; SIGINT is as good.
#[test]
fn a_stop_ends_within_its_limit() {
    let tree = large_tree();
    let upstream = Upstream::with(tree.path(), &[]);
    let mut larder = Larder::start(&upstream);
    larder.get(LARGE_ZIP).expect(200);
    let mut stuck = connect_from(machine(1), larder.address());
    stuck.write_all(&request(LARGE_ZIP)).unwrap();
    stuck.read_exact(&mut [0; 100]).unwrap();
    let began = Instant::now();
    larder.signal_int();
    assert!(larder.wait().success());
    assert!(began.elapsed() < Duration::from_secs(12), "it took {:?}", began.elapsed());
}

/// Many machines with many connections each, as an office's morning has them, all get what they ask for.
#[test]
fn an_office_full_of_machines_is_served() {
    let upstream = Upstream::start();
    let larder = Larder::start(&upstream);
    let zip = larder.get(BIG_ZIP).expect(200).body.len();
    std::thread::scope(|scope| {
        for number in 0..30 {
            let larder = &larder;
            scope.spawn(move || {
                let mut streams: Vec<_> = (0..16).map(|_| connect_from(machine(number), larder.address())).collect();
                for stream in &mut streams {
                    stream.write_all(&request("/rsc.io/quote/@v/v1.5.2.mod")).unwrap();
                }
                for stream in &mut streams {
                    let mut start = [0; 12];
                    stream.read_exact(&mut start).unwrap();
                    assert_eq!(&start, b"HTTP/1.1 200");
                }
                let answer = client_from(machine(number)).get(format!("{}{BIG_ZIP}", larder.url)).send().unwrap();
                assert_eq!(answer.bytes().unwrap().len(), zip);
            });
        }
    });
}
