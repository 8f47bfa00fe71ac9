//! Look-ups by the operating system's resolver, played by closures; what is remembered when files change or a program ends.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::lookups::{lookup, names_with, of};
use super::stopwatch;
use crate::clock::Clock;
use crate::net::dns::Transport;
use crate::net::dns::names::{Memory, Names, Origin};
use crate::net::dns::system::{PLACES, System};
use crate::net::dns::testing::{Act, Responder, records};
use crate::shutdown::Tasks;

fn by(system: &System, memory: Memory, clock: &Clock) -> Arc<Names> {
    let origin = Origin::System(system.clone(), memory);
    Names::new(Path::new("/nonexistent"), origin, Tasks::new(), clock.clone())
}

/// A system that hangs until the returned sender is dropped, and how often it was called.
fn hanging() -> (System, mpsc::SyncSender<()>, Arc<AtomicUsize>) {
    let (release, held) = mpsc::sync_channel(0);
    let (held, calls) = (Mutex::new(held), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&calls);
    let system = System::asking(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        // Others wait for the lock, which is as good.
        let _ = held.lock().map(|held| held.recv());
        Err(io::Error::other("failed to lookup address information: Temporary failure in name resolution"))
    });
    (system, release, calls)
}

/// However many names are asked for by however many, a system's resolver that hangs has a few threads and no more, and
/// each who asks is told so in time; the other threads read files as ever.
#[test]
fn hanging_system() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(PLACES + 1)
        .enable_all()
        .build()
        .unwrap();
    let (system, release, calls) = hanging();
    runtime.block_on(async {
        let clock = Clock::system();
        let lists = [by(&system, Memory::Moment, &clock), by(&system, Memory::Long, &clock)];
        let began = stopwatch();
        let asked = join_all((0..120).map(|number| {
            let list = &lists[number % 2];
            async move { list.lookup(&format!("{}.example", number % 40)).await.unwrap_err() }
        }));
        let file = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let began = stopwatch();
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            began()
        };
        let (said, file) = tokio::join!(asked, file);
        assert!(file < Duration::from_millis(500), "{file:?}");
        assert!(began() < Duration::from_secs(7), "{:?}", began());
        assert_eq!(calls.load(Ordering::Relaxed), PLACES);
        assert!(said.iter().all(|text| text.starts_with("system resolver: ")), "{said:?}");
        assert!(said.iter().any(|text| text.ends_with(".example: no answer within 5 s")), "{said:?}");
        assert!(said.iter().any(|text| text.ends_with(": it hangs: 4 other look-ups are waiting for it")), "{said:?}");
        // Another one for such a name takes no further place, and does not wait as long again.
        let began = stopwatch();
        join_all((0..40).step_by(2).map(|number| lookup_of(&lists[0], number))).await;
        assert!(began() < Duration::from_secs(2), "{:?}", began());
        assert_eq!(calls.load(Ordering::Relaxed), PLACES);
    });
    drop(release);
    runtime.shutdown_timeout(Duration::from_secs(5));
}

async fn lookup_of(list: &Arc<Names>, number: usize) {
    let _ = list.lookup(&format!("{number}.example")).await;
}

/// What the system says holds for a moment and no longer; what is asked for at the same time is asked for once. Names of
/// servers are kept for longer, and used while the system fails.
#[tokio::test]
async fn remembered_of_the_system() {
    let clock = Clock::system();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let system = System::asking(move |name| {
        assert_eq!(name, "a.example.", "the dot is the system's to see");
        match count.fetch_add(1, Ordering::Relaxed) {
            2.. => Err(io::Error::other("failed to lookup address information: Name or service not known")),
            _ => Ok(vec!["192.0.2.1".parse().unwrap(), "192.0.2.1".parse().unwrap()]),
        }
    });
    let (moment, long) = (by(&system, Memory::Moment, &clock), by(&system, Memory::Long, &clock));
    let all = join_all((0..50).map(|_| lookup(&moment))).await;
    assert!(all.iter().all(|said| said == "[192.0.2.1] by system resolver"), "{all:?}");
    assert_eq!(lookup(&moment).await, "[192.0.2.1] by cache");
    assert_eq!(lookup(&long).await, "[192.0.2.1] by system resolver");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    clock.advance(Duration::from_secs(2));
    let failure = "system resolver: a.example.: name or service not known";
    assert_eq!(lookup(&moment).await, failure);
    assert_eq!(lookup(&long).await, "[192.0.2.1] by cache");
    clock.advance(Duration::from_secs(30));
    assert_eq!(lookup(&long).await, "[192.0.2.1] by stale");
    assert_eq!(moment.lookup_anew("A.example.").await.unwrap_err(), failure);
}

/// When the file of hosts changes, what it said is forgotten, and what others said of the names it now has; nothing else.
#[tokio::test]
async fn changed_hosts() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"192.0.2.7 hosts.example\n").unwrap();
    let (clock, dns) = (
        Clock::system(),
        Responder::start(|query, _| {
            let name = query.queries[0].name().to_ascii();
            Act::Reply(records(query, &[&format!("{name} 600 192.0.2.1")]))
        }),
    );
    let dns = dns.await;
    let list = names_with(file.path(), vec![of(&dns, Transport::Udp)], &clock);
    let found = async |name| list.lookup(name).await.map(|found| format!("{:?} by {}", found.addresses, found.source));
    for name in ["a.example", "b.example", "hosts.example"] {
        found(name).await.unwrap();
    }
    file.write_all(b"192.0.2.8 hosts.example\n192.0.2.9 B.example\n").unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!(found("a.example").await.unwrap(), "[192.0.2.1] by cache");
    assert_eq!(found("b.example").await.unwrap(), "[192.0.2.9] by /etc/hosts");
    assert_eq!(found("hosts.example").await.unwrap(), "[192.0.2.7, 192.0.2.8] by /etc/hosts");
    file.as_file().set_len(0).unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!(found("b.example").await.unwrap(), format!("[192.0.2.1] by udp://{}", dns.address));
    assert_eq!(found("a.example").await.unwrap(), "[192.0.2.1] by cache");
}

/// A look-up that begins when the runtime has ended fails, and stops nobody.
#[test]
fn after_the_end() {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();
        let list = by(&System::new(), Memory::Moment, &Clock::system());
        done.send(list.lookup("a.example").now_or_never().map(|said| said.unwrap_err())).unwrap();
    });
    let said = ended.recv_timeout(Duration::from_secs(10)).expect("a lock is held for good");
    assert_eq!(said.as_deref(), Some("a.example: the look-up ended without an outcome"));
}
