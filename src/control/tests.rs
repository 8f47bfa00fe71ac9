//! Tests of the conversation, both ways: with a service on the other side of the socket and without one.
#![expect(clippy::disallowed_methods, reason = "tests make the trees they need")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use super::*;
use crate::clock::Clock;
use crate::fill::Fills;
use crate::housekeeping::Housekeeper;
use crate::module::ModuleVersion;
use crate::resource::{ArtifactKind, Resource};
use crate::shutdown::Tasks;
use crate::store::Store;
use crate::store::adopt::{self, Adoption};
use crate::store::alarms::{AlarmKind, Alarms, NewAlarm};
use crate::store::index::Index;

const ONE: &str = "example.com/one@v1.0.0";
const TWO: &str = "example.com/two@v1.0.0";

/// A service without its server: the desk behind a socket.
struct Running {
    tasks: Tasks,
    runtime: tokio::runtime::Runtime,
    index: Arc<Index>,
}

impl Running {
    fn start(root: &Path) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = Arc::new(Store::open_root(root).unwrap());
        let tasks = Tasks::new();
        let index = Arc::new(Index::opening(root));
        index.open();
        // An empty tree counts as judged: what the tests store in it stands for modules and is none.
        adopt::scan(&Adoption::of(root), &index, &Clock::system(), &|| false).unwrap();
        let in_use = (Fills::new(tasks.clone()), Arc::default());
        let stop = CancellationToken::new();
        let keeper =
            Housekeeper::new(root.to_owned(), Arc::clone(&index), in_use, Limits::default(), Clock::system(), stop);
        let alarms = Arc::new(Alarms::load(root, Clock::system().now()).unwrap());
        let desk = Desk { housekeeper: Arc::new(keeper), alarms, machinery: None, service: None };
        let desk = Arc::new(desk);
        let listener = runtime.block_on(async { server::bind(&store).unwrap() });
        let served = server::serve(listener, desk, store, tasks.clone());
        runtime.block_on(async { tasks.spawn("control", served) });
        Self { tasks, runtime, index }
    }

    fn stop(self) {
        assert!(self.runtime.block_on(self.tasks.drain(Duration::from_secs(5))));
        self.index.close();
    }
}

/// Stores the three files of a version as a fill does.
fn put(root: &Path, index: &Index, version: &str) {
    let version = ModuleVersion::parse(version).unwrap();
    for kind in [ArtifactKind::Info, ArtifactKind::Mod, ArtifactKind::Zip] {
        let path = root.join(Resource::Artifact(version.clone(), kind).path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "1234567890").unwrap();
        index.note_artifact(&version, kind, 10, "", Clock::system().now());
    }
}

fn plain(store: &Arc<Store>) -> Result<Desk, client::Error> {
    client::plain_desk(store, Limits::default())
}

/// Returns the lines, the exit code and the error of a command.
fn run(root: &Path, request: &Request) -> (Vec<String>, u8, Option<String>) {
    let (mut lines, mut end) = (Vec::new(), None);
    client::run(root, request, plain, &mut |answer| match answer {
        Answer::Line(line) => lines.push(line),
        Answer::Bytes(piece) => lines.push(String::from_utf8(teller::decode(&piece).unwrap()).unwrap()),
        Answer::Working | Answer::Progress { .. } => {}
        Answer::Exit { code, error } => end = Some((code, error)),
    })
    .unwrap();
    let (code, error) = end.unwrap();
    (lines, code, error)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What every command does, whoever does it.
fn commands_work(root: &Path) {
    let (lines, code, error) = run(root, &Request::Pin(names(&[ONE, "example.com/unheard-of"])));
    assert_eq!((code, error), (0, None));
    assert_eq!(
        lines,
        [format!("pinned {ONE}"), "pinned example.com/unheard-of; nothing of this module is stored yet".to_owned()]
    );
    assert_eq!(run(root, &Request::Pin(names(&[ONE]))).0, [format!("already pinned {ONE}")]);
    let (lines, code, error) = run(root, &Request::Pin(names(&["example.com/new", "no module"])));
    assert!(lines.is_empty() && code == 1 && error.unwrap().contains("no module"));
    assert_eq!(run(root, &Request::Pins).0, ["example.com/unheard-of", ONE]);

    let rules = Rules { cache_bytes_max: Some(1), free_bytes_min: Some(0), ..Rules::default() };
    let (lines, code, _) = run(root, &Request::Gc { dry_run: true, rules });
    assert!(code == 0 && lines[0].starts_with(&format!("would remove {TWO}  30 B  to make room")), "{lines:?}");
    assert!(lines[1].starts_with("would remove 1 module version, 3 files, 30 B of 60 B; 1 kept"), "{lines:?}");
    assert!(root.join("example.com/two/@v/v1.0.0.zip").is_file());
    let (lines, code, _) = run(root, &Request::Gc { dry_run: false, rules });
    assert!(code == 0 && lines[1].starts_with("removed 1 module version, 3 files"), "{lines:?}");
    assert!(!root.join("example.com/two").is_dir() && root.join("example.com/one/@v/v1.0.0.zip").is_file());

    let (lines, code, _) = run(root, &Request::Status);
    let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
    assert!(code == 0 && has("larder ") && has("stored        3 files, 30 B"), "{lines:?}");
    let (lines, code, error) = run(root, &Request::Unpin(names(&[ONE, TWO])));
    assert_eq!((lines, code), (vec![format!("unpinned {ONE}")], 1));
    assert_eq!(error, Some(format!("not pinned: {TWO}")));
}

/// Every command does the same through a service's socket and alone.
#[test]
fn commands_work_both_ways() {
    let root = tempfile::tempdir().unwrap();
    let running = Running::start(root.path());
    put(root.path(), &running.index, ONE);
    put(root.path(), &running.index, TWO);
    commands_work(root.path());
    put(root.path(), &running.index, TWO);
    running.stop();
    let socket = root.path().join(".larder").join(SOCKET);
    assert!(socket.symlink_metadata().is_err(), "the socket stays behind");
    run(root.path(), &Request::Unpin(names(&["example.com/unheard-of"])));
    commands_work(root.path());
    // Nobody holds the lock any more.
    Store::open_root(root.path()).unwrap();
}

/// A cache directory whose path is longer than a socket's address works as well.
#[test]
fn long_paths_work() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a".repeat(120));
    std::fs::create_dir(&root).unwrap();
    let running = Running::start(&root);
    let mode = root.join(".larder").join(SOCKET).symlink_metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(run(&root, &Request::Pin(names(&[ONE]))).1, 0);
    running.stop();
}

/// The socket of a service that was killed keeps neither a command nor the next service from working.
#[test]
fn stale_sockets_are_replaced() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join(".larder").join(SOCKET);
    std::fs::create_dir(root.path().join(".larder")).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.symlink_metadata().unwrap().file_type().is_socket());
    assert_eq!(run(root.path(), &Request::Pin(names(&[ONE]))).1, 0);
    let running = Running::start(root.path());
    assert_eq!(run(root.path(), &Request::Pins).0, [ONE]);
    running.stop();
}

/// What is no request is answered with an error, what is too long is not read to its end, and neither silence nor
/// clients that leave keep others from being answered.
#[test]
fn odd_clients_do_no_harm() {
    let root = tempfile::tempdir().unwrap();
    let running = Running::start(root.path());
    let connect = || UnixStream::connect(root.path().join(".larder").join(SOCKET)).unwrap();
    let answer = |sent: &[u8]| {
        let mut stream = connect();
        // The service may have seen enough before all is sent.
        let _ = stream.write_all(sent);
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        line
    };
    for sent in [&b"GET / HTTP/1.1\r\n"[..], b"{\"pin\":[1]}\n", b"{\"gc\":{}}\n", b"\n"] {
        let line = answer(sent);
        assert!(line.starts_with(r#"{"exit":{"code":1,"error":"the service does not know"#), "{line}");
    }
    let endless = vec![b' '; usize::try_from(REQUEST_BYTES_MAX).unwrap() + 10_000];
    let line = answer(&endless);
    assert!(line.is_empty() || line.contains("\"code\":1"), "{line}");
    let silent: Vec<UnixStream> = (0..4).map(|_| connect()).collect();
    for _ in 0..20 {
        connect().write_all(b"\"status\"\n").unwrap();
    }
    assert_eq!(run(root.path(), &Request::Status).1, 0);
    drop(silent);
    running.stop();
}

/// A service that ends in the middle of its answer is an error and not the end of the answer.
#[test]
fn a_broken_conversation_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join(".larder")).unwrap();
    let listener = UnixListener::bind(root.path().join(".larder").join(SOCKET)).unwrap();
    let service = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"\"working\"\n{\"line\":\"one\"}\n").unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut answers = Vec::new();
    let result = client::run(root.path(), &Request::Pins, plain, &mut |answer| answers.push(answer));
    assert!(matches!(result, Err(client::Error::Broken(_))), "{result:?}");
    assert_eq!(answers, [Answer::Working, Answer::Line("one".to_owned())]);
    service.join().unwrap();
}

/// Without a cache directory there is nothing to look after; a lock that nobody answers for is told as such.
#[test]
fn missing_and_deaf_caches_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let run = |root: &Path| client::run(root, &Request::Pins, plain, &mut |_| {});
    assert!(matches!(run(&nowhere), Err(client::Error::NoCache(_))));
    assert!(!nowhere.is_dir());
    let store = Store::open_root(folder.path()).unwrap();
    assert!(matches!(run(folder.path()), Err(client::Error::Deaf(_))));
    drop(store);
}

/// Requests and answers come out of their lines as they went in.
#[test]
fn lines_hold_what_they_are_given() {
    let rules = Rules { age_max_s: Some(0), cache_bytes_max: Some(5), free_bytes_min: None };
    let requests = [
        Request::Status,
        Request::Gc { dry_run: true, rules },
        Request::Pin(names(&[ONE])),
        Request::Pins,
        Request::Unpin(names(&[ONE, TWO])),
        Request::Alarms,
        Request::ExportAlarm(3),
        Request::ClearAlarms(vec![]),
        Request::ClearAlarms(vec![1, 2]),
        Request::Verify { repair: true },
        Request::VerifySums { name: "go.sum".to_owned(), text: "a v1.0.0 h1:x=\nb".to_owned() },
        Request::Audit { from_start: false },
    ];
    for request in requests {
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request, "{line}");
    }
    let progress = Answer::Progress { done: 1, total: 9, text: "a".to_owned() };
    for answer in [progress, Answer::Bytes("YQ==".to_owned()), Answer::Working] {
        let line = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), answer, "{line}");
    }
    let configured = Limits { age_max: Some(Duration::from_secs(9)), cache_bytes_max: Some(9), free_bytes_min: 9 };
    assert_eq!(rules.over(configured), Limits { age_max: None, cache_bytes_max: Some(5), free_bytes_min: 9 });
    assert_eq!(Rules::default().over(configured), configured);
}

/// Alarms are listed, handed out and cleared, with a service and without one; status tells of open ones.
#[test]
fn alarms_work_both_ways() {
    let root = tempfile::tempdir().unwrap();
    let evidence = "note\nno end of line";
    let raise = |subject: &str| {
        let new = NewAlarm {
            kind: AlarmKind::Fork,
            database: Some("sumdb.larder.test".to_owned()),
            subject: subject.to_owned(),
            text: "two histories".to_owned(),
            details: Vec::new(),
            evidence: (subject == "one").then(|| evidence.into()),
        };
        Alarms::load(root.path(), Clock::system().now()).unwrap().raise(new, Clock::system().now()).unwrap();
    };
    std::fs::create_dir(root.path().join(".larder")).unwrap();
    assert_eq!(run(root.path(), &Request::Alarms), (names(&["no alarms"]), 0, None));
    raise("one");
    raise("two");
    for is_served in [false, true] {
        let running = is_served.then(|| Running::start(root.path()));
        let open = if is_served { 1 } else { 2 };
        let (lines, code, _) = run(root.path(), &Request::Alarms);
        assert!(code == 0 && lines[0].starts_with("1  fork  sumdb.larder.test  20"), "{lines:?}");
        let status = run(root.path(), &Request::Status).0;
        let expected = format!("alarms        {open} open, {open} latched: see larder alarms");
        assert!(status.contains(&expected), "{status:?}");
        assert_eq!(run(root.path(), &Request::ExportAlarm(1)), (names(&[evidence]), 0, None));
        let (lines, code, error) = run(root.path(), &Request::ExportAlarm(2));
        assert!(lines.is_empty() && code == 1 && error.unwrap() == "alarm 2 has no evidence");
        assert_eq!(run(root.path(), &Request::ExportAlarm(9)).1, 1);
        if is_served {
            assert_eq!(run(root.path(), &Request::ClearAlarms(vec![])), (names(&["cleared alarm 2"]), 0, None));
            assert_eq!(run(root.path(), &Request::ClearAlarms(vec![])).0, ["no open alarms"]);
            assert!(!run(root.path(), &Request::Status).0.iter().any(|line| line.starts_with("alarms")));
        } else {
            let (lines, code, error) = run(root.path(), &Request::ClearAlarms(vec![1, 7]));
            assert_eq!((lines, code, error), (names(&["cleared alarm 1"]), 1, Some("not an open alarm: 7".to_owned())));
        }
        if let Some(running) = running {
            running.stop();
        }
    }
}

/// What takes the network says so where there is none, and needs no other request.
#[test]
fn the_network_is_for_those_who_need_it() {
    let root = tempfile::tempdir().unwrap();
    let sums = Request::VerifySums { name: String::new(), text: String::new() };
    for request in [Request::Verify { repair: false }, sums, Request::Audit { from_start: true }] {
        assert!(request.needs_machinery());
        assert_eq!(run(root.path(), &request).1, 1);
    }
    assert!(![Request::Status, Request::Pins, Request::Alarms].iter().any(Request::needs_machinery));
}
