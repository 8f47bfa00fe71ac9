//! What Larder remembers of names and servers: answers, absences, the dead, and what was true some time ago.

use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Scheme;
use super::scene::{BRIEF, DNSDIST, JSON, Scene, UNBOUND};
use crate::harness::{Larder, SMALL_ZIP, wait_for};

/// A second, and what the rest of a request takes.
const LIMIT: Duration = Duration::from_millis(1200);

const MODULE: &str = "/rsc.io/quote/@v/v1.5.2.info";

/// Asks for something that nobody has and that was not asked for before: upstreams are asked again.
fn ask_anew(larder: &Larder) -> u16 {
    static COUNT: Mutex<u32> = Mutex::new(0);
    let mut count = COUNT.lock().unwrap();
    *count += 1;
    larder.get(&format!("/example.com/nothing{count}/@v/v1.0.0.info")).status
}

/// A name is asked for once, however many need it at once and afterwards, over however many connections; so is one that
/// does not exist.
#[test]
fn a_name_is_asked_for_once() {
    let Some(mut scene) = Scene::new() else { return };
    let server = Scheme::Json.server(&scene.address(JSON, false).to_string());
    let larder = scene.start(&scene.open, "https://mirror.test").args(["-dns", &server]).run();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(ask_anew(&larder), 404));
        }
    });
    for _ in 0..2 {
        // Its connections are gone, and new ones need the address.
        scene.upstream.restart();
        assert_eq!(ask_anew(&larder), 404);
    }
    let asked = scene.json.asked();
    let of_mirror = asked.iter().filter(|question| question.contains("name=mirror.test"));
    assert_eq!(of_mirror.count(), 2, "one question for each family: {asked:?}");
    let log = larder.log();
    assert_eq!(log.matches("JSON").count(), 1, "the form is said once: {log}");

    let watch = scene.open.watch_port_53().unwrap();
    let server = Scheme::Udp.server(&scene.address(UNBOUND, false).to_string());
    let larder = scene.start(&scene.open, "https://missing.test").args(["-dns", &server]).run();
    for _ in 0..5 {
        let answer = larder.get(SMALL_ZIP);
        assert!(answer.text().contains("no such name"), "{}", answer.text());
    }
    let packets = watch.packets();
    let questions = packets.iter().filter(|packet| packet.to.port() == 53 && packet.text.contains("missing.test"));
    assert!(questions.count() <= 2, "one question for each family: {packets:?}");
}

/// A first server that takes connections and says nothing costs a request at most a second, once: the next names are
/// asked of the server that answers.
#[test]
fn a_dead_server_costs_a_second_once() {
    let Some(scene) = Scene::new() else { return };
    let mute = 80;
    scene.dns.add_address(scene.outside, mute);
    let address = SocketAddr::new(scene.address(mute, false), 53);
    let listener = scene.dns.inside(|| TcpListener::bind(address).unwrap());
    listener.set_nonblocking(true).unwrap();
    // Kept open, so that the other end sees nothing.
    let taken = Mutex::new(Vec::new());
    let connections = || {
        let mut taken = taken.lock().unwrap();
        taken.extend(std::iter::from_fn(|| listener.accept().ok()));
        taken.len()
    };
    let servers = format!("tcp://{address},udp://{}", scene.address(UNBOUND, false));
    let mut shortest = Duration::MAX;
    // A busy machine may be slower by itself: one of a few must be as fast as promised.
    for _ in 0..5 {
        let before = connections();
        // The second upstream is asked for what the first does not have.
        let start = scene.start(&scene.open, "https://mirror4.test,https://mirror6.test");
        let larder = start.args(["-dns", &servers, "-gosumdb", "off"]).run();
        let began = Instant::now();
        larder.get(MODULE).expect(200);
        shortest = shortest.min(began.elapsed());
        let first = connections();
        assert!(first > before, "the first server is tried first");
        assert_eq!(ask_anew(&larder), 404);
        assert_eq!(connections(), first, "the dead server is left alone: {}", larder.log());
        if shortest < LIMIT {
            break;
        }
    }
    assert!(shortest < LIMIT, "{shortest:?}");
}

/// While no server can be reached, names that were known lead where they led, and that is said once.
#[test]
fn what_was_true_is_used_while_nobody_answers() {
    let Some(mut scene) = Scene::new() else { return };
    let server = Scheme::Tls.server(&scene.address(DNSDIST, false).to_string());
    let larder = scene.start(&scene.open, BRIEF).args(["-dns", &server]).run();
    larder.get(MODULE).expect(200);
    scene.dnsdist.kill();
    wait_for("an answer with an address of some time ago", || {
        scene.upstream.restart();
        assert_eq!(ask_anew(&larder), 404, "{}", larder.log());
        larder.log().contains("addresses of some time ago are used").then_some(())
    });
    let log = larder.log();
    assert_eq!(log.matches("addresses of some time ago are used").count(), 1, "{log}");
}
