//! Tests of the server over real sockets: a handler that serves the files of a directory, and clients that speak bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::*;
use crate::fill::{FillReader, FillState};

/// A download under way: its file and what its readers are told.
struct Growing {
    file: Arc<File>,
    state: watch::Sender<FillState>,
}

/// What the handler serves.
#[derive(Default)]
struct Content {
    files: Mutex<HashMap<String, Arc<File>>>,
    growing: Mutex<HashMap<String, Growing>>,
}

/// A server on loopback, stopped when dropped.
struct TestServer {
    address: SocketAddr,
    content: Arc<Content>,
    folder: TempDir,
    clock: Clock,
    stop: CancellationToken,
    served: tokio::sync::oneshot::Receiver<()>,
}

impl TestServer {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            limits: ConnectionLimits { max_connections: 64, max_per_client: 64 },
            allow: AllowList::office(Clock::system()),
            drain_deadline: Duration::from_secs(2),
        };
        change(&mut config);
        let listeners = listener::bind(&[Ipv4Addr::LOCALHOST.into()], 0).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (content, clock, stop) = (Arc::new(Content::default()), Clock::system(), CancellationToken::new());
        let (ended, served) = tokio::sync::oneshot::channel();
        let tasks = Tasks::new();
        let serving = {
            let (content, clock, tasks, stop) = (Arc::clone(&content), clock.clone(), tasks.clone(), stop.clone());
            async move {
                let handler = move |request, _| answer(request, Arc::clone(&content));
                serve(listeners, handler, config, clock, &tasks, stop).await;
                let _ = ended.send(());
            }
        };
        tasks.spawn("test server", serving);
        Self { address, content, folder: tempfile::tempdir().unwrap(), clock, stop, served }
    }

    /// Adds a file of pseudo-random bytes and returns them.
    fn add_file(&self, name: &str, length: usize) -> Vec<u8> {
        let bytes = noise(length);
        let path = self.folder.path().join(name);
        let mut file = File::options().create_new(true).write(true).read(true).open(path).unwrap();
        file.write_all(&bytes).unwrap();
        self.content.files.lock().unwrap().insert(name.to_owned(), Arc::new(file));
        bytes
    }

    /// Adds a file so long that no socket buffer holds it.
    fn add_long_file(&self, name: &str) {
        let path = self.folder.path().join(name);
        let file = File::options().create_new(true).write(true).read(true).open(path).unwrap();
        file.set_len(64 << 20).unwrap();
        self.content.files.lock().unwrap().insert(name.to_owned(), Arc::new(file));
    }

    /// Adds a download that has announced `length`; the bytes are in its file already, none may be read yet.
    fn add_growing(&self, name: &str, bytes: &[u8], length: Option<u64>) {
        let path = self.folder.path().join(name);
        let mut file = File::options().create_new(true).write(true).read(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
        let state = watch::Sender::new(FillState::Open { length, readable: 0 });
        self.content.growing.lock().unwrap().insert(name.to_owned(), Growing { file: Arc::new(file), state });
    }

    fn set_growing(&self, name: &str, state: FillState) {
        self.content.growing.lock().unwrap()[name].state.send_replace(state);
    }

    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), buffer: Vec::new() }
    }

    /// Lets the server's limits believe that so much time has passed.
    async fn let_pass(&self, time: Duration) {
        self.clock.advance(time);
        tokio::time::sleep(SWEEP_INTERVAL + Duration::from_millis(100)).await;
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// Serves `/files/NAME?START-END`, `/growing/NAME`, `/bytes`, `/wait` (one second) and `/empty`.
async fn answer(request: Request<Incoming>, content: Arc<Content>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let body = match path.split('/').nth(1) {
        Some("files") => {
            let file = Arc::clone(&content.files.lock().unwrap()[&path["/files/".len()..]]);
            let length = file.metadata().unwrap().len();
            let (start, end) = match request.uri().query().and_then(|range| range.split_once('-')) {
                Some((start, end)) => (start.parse().unwrap(), end.parse().unwrap()),
                None => (0, length),
            };
            Body::File { file, start, end }
        }
        Some("growing") => {
            let growing = content.growing.lock().unwrap();
            let growing = &growing[&path["/growing/".len()..]];
            Body::Growing { reader: FillReader::new(Arc::clone(&growing.file), growing.state.subscribe()), start: 0 }
        }
        Some("bytes") => Body::from("twelve bytes"),
        Some("wait") => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Body::from("waited")
        }
        _ => Body::Empty,
    };
    Response::new(body)
}

/// A client that reads answers strictly.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Client {
    async fn send(&mut self, method: &str, path: &str) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: larder\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path).await;
        self.answer().await.unwrap()
    }

    /// Reads more bytes; none at the end of the connection.
    async fn fill(&mut self) -> std::io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            self.fill().await.ok().filter(|read| *read > 0)?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await.ok().filter(|read| *read > 0)?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    async fn head(&mut self) -> Option<Answer> {
        let mut head = String::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            head.push_str(&line.replace("content-length", "Content-Length"));
            head.push('\n');
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer { status, head, body: Vec::new() })
    }

    /// Reads a whole answer; none where the connection ends before the answer does.
    async fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head().await?;
        if let Some(length) = answer.header("Content-Length") {
            let length = length.parse().unwrap();
            answer.body = self.exactly(length).await?;
            return Some(answer);
        }
        loop {
            let length = usize::from_str_radix(&self.line().await?, 16).unwrap();
            answer.body.extend(self.exactly(length).await?);
            assert_eq!(self.line().await?, "");
            if length == 0 {
                return Some(answer);
            }
        }
    }

    /// Waits for the end of the connection; tells whether it was orderly.
    async fn is_closed_orderly(&mut self) -> bool {
        loop {
            match self.fill().await {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Every size around the bounds of pages, pieces and reading arrives byte for byte, over one connection.
#[tokio::test]
async fn files_of_every_size_arrive_unchanged() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    for size in [
        0,
        1,
        4095,
        4096,
        4097,
        16_383,
        16_384,
        16_385,
        262_143,
        262_144,
        262_145,
        1_000_003,
        1 << 20,
        (1 << 20) + 1,
        3 << 20,
    ] {
        let bytes = server.add_file(&format!("f{size}"), size);
        let answer = client.get(&format!("/files/f{size}")).await;
        assert_eq!(answer.header("Content-Length"), Some(size.to_string().as_str()));
        assert!(answer.body == bytes, "size {size}");
    }
}

/// A file that is not in memory arrives unchanged too, small or big.
#[tokio::test]
async fn files_out_of_memory_arrive_unchanged() {
    let server = TestServer::start();
    for size in [3_000, 2_500_000] {
        let name = format!("f{size}");
        let bytes = server.add_file(&name, size);
        {
            let files = server.content.files.lock().unwrap();
            files[&name].sync_all().unwrap();
            rustix::fs::fadvise(&files[&name], 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        let answer = server.connect().await.get(&format!("/files/{name}")).await;
        assert!(answer.body == bytes, "size {size}");
    }
}

/// Requests sent without waiting are answered in order, whatever kinds of bodies follow each other.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start();
    let big = server.add_file("big", 700_001);
    let small = server.add_file("small", 300);
    let mut client = server.connect().await;
    let paths = ["/files/big", "/files/small", "/bytes", "/files/big", "/empty", "/files/small", "/files/big"];
    let requests = paths
        .map(|path| {
            format!(
                "GET {path} HTTP/1.1
Host: larder

"
            )
        })
        .concat();
    client.stream.write_all(requests.as_bytes()).await.unwrap();
    for path in paths {
        let answer = client.answer().await.unwrap();
        let expected = match path {
            "/files/big" => &big[..],
            "/files/small" => &small[..],
            "/bytes" => b"twelve bytes",
            _ => b"",
        };
        assert!(answer.body == expected, "{path}");
    }
}

/// A slice of a file is that slice.
#[tokio::test]
async fn slices_of_a_file_are_exact() {
    let server = TestServer::start();
    let bytes = server.add_file("f", 1 << 20);
    let mut client = server.connect().await;
    for (start, end) in [(0, 1), (1, 1 << 20), (4097, 300_001), (500_000, 500_000), ((1 << 20) - 5, 1 << 20)] {
        let answer = client.get(&format!("/files/f?{start}-{end}")).await;
        assert!(answer.body == bytes[start..end], "{start}-{end}");
    }
}

/// HEAD tells the length and sends nothing, and the connection goes on.
#[tokio::test]
async fn head_sends_no_body() {
    let server = TestServer::start();
    let bytes = server.add_file("f", 1 << 20);
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send("HEAD", "/files/f").await;
        let head = client.head().await.unwrap();
        assert_eq!(head.header("Content-Length"), Some("1048576"));
    }
    assert!(client.get("/files/f").await.body == bytes);
}

/// A file that grows is sent as far as it may be read; what is held back is not sent before it is released.
#[tokio::test]
async fn growing_file_is_followed_and_its_tail_held_back() {
    let server = TestServer::start();
    let bytes = noise(2_000_000);
    for length in [Some(2_000_000), None] {
        let name = format!("g{}", length.is_some());
        server.add_growing(&name, &bytes, length);
        let mut client = server.connect().await;
        client.send("GET", &format!("/growing/{name}")).await;
        for readable in [1, 5_000, 700_000, 1_999_999] {
            server.set_growing(&name, FillState::Open { length, readable });
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let released = {
            let read = async { while client.fill().await.unwrap() > 0 {} };
            let _ = tokio::time::timeout(Duration::from_millis(300), read).await;
            client.buffer.len()
        };
        assert!((1_999_999..2_001_000).contains(&released), "{released} bytes");
        assert!(!client.buffer.ends_with(b"\r\n0\r\n\r\n"));
        server.set_growing(&name, FillState::Sealed { length: 2_000_000 });
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.header("Content-Length").is_some(), length.is_some());
        assert!(answer.body == bytes);
        assert_eq!(client.get("/bytes").await.body, b"twelve bytes");
    }
}

/// A download that fails, vanishes or ends short never looks like a complete answer, with or without a length.
#[tokio::test]
async fn failed_download_never_ends_cleanly() {
    let server = TestServer::start();
    let bytes = noise(600_000);
    let ends = [FillState::Failed("upstream cut".into()), FillState::Sealed { length: 500_000 }];
    for (number, (length, end)) in
        [Some(600_000), None].into_iter().flat_map(|l| ends.clone().map(|e| (l, e))).enumerate()
    {
        if length.is_none() && matches!(end, FillState::Sealed { .. }) {
            continue;
        }
        let name = format!("g{number}");
        server.add_growing(&name, &bytes, length);
        server.set_growing(&name, FillState::Open { length, readable: 500_000 });
        let mut client = server.connect().await;
        client.send("GET", &format!("/growing/{name}")).await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status, 200);
        server.set_growing(&name, end);
        assert!(!client.is_closed_orderly().await);
        assert!(!client.buffer.ends_with(b"0\r\n\r\n"));
    }
    server.add_growing("vanishing", &bytes, Some(600_000));
    let mut client = server.connect().await;
    client.send("GET", "/growing/vanishing").await;
    server.set_growing("vanishing", FillState::Open { length: Some(600_000), readable: 10 });
    client.head().await.unwrap();
    server.content.growing.lock().unwrap().remove("vanishing");
    assert!(!client.is_closed_orderly().await);
}

/// A file that became shorter ends the connection; no byte of another file fills the gap.
#[tokio::test]
async fn shortened_file_ends_the_connection() {
    let server = TestServer::start();
    server.add_file("f", 1000);
    let mut client = server.connect().await;
    for range in ["0-100000", "0-1500"] {
        client.send("GET", &format!("/files/f?{range}")).await;
        assert!(client.answer().await.is_none());
        client = server.connect().await;
    }
}

/// Connects with a small receive buffer, so that the server soon cannot send any more.
fn connect_with_small_buffer(server: &TestServer) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    Client { stream: TcpStream::from_std(socket.into()).unwrap(), buffer: Vec::new() }
}

/// A slow reader gets every byte, through partial sends of every length.
#[tokio::test]
async fn slow_reader_gets_every_byte() {
    let server = TestServer::start();
    let bytes = server.add_file("f", 8 << 20);
    let mut client = connect_with_small_buffer(&server);
    client.send("GET", "/files/f").await;
    client.head().await.unwrap();
    let mut received = std::mem::take(&mut client.buffer);
    let mut chunk = vec![0; 61_111];
    while received.len() < bytes.len() {
        let read = client.stream.read(&mut chunk).await.unwrap();
        assert!(read > 0);
        received.extend_from_slice(&chunk[..read]);
        if received.len().is_multiple_of(7) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(received == bytes);
}

/// A file which the kernel neither sends by itself nor tells to be in memory is read and sent all the same.
#[tokio::test]
async fn file_without_sendfile_is_copied() {
    let server = TestServer::start();
    let file = File::open("/proc/kallsyms").unwrap();
    let mut expected = vec![0; 100_000];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut expected, 0).unwrap();
    server.content.files.lock().unwrap().insert("proc".to_owned(), Arc::new(file));
    let mut client = server.connect().await;
    for end in [200, 100_000] {
        let answer = client.get(&format!("/files/proc?0-{end}")).await;
        assert!(answer.body == expected[..end]);
    }
}

/// A client that sends nothing, or a head that never ends, is dropped; so is one that never reads; others go on.
#[tokio::test]
async fn clients_that_make_us_wait_are_dropped() {
    let server = TestServer::start();
    server.add_long_file("f");
    let mut silent = server.connect().await;
    let mut trickling = server.connect().await;
    let mut never_reading = connect_with_small_buffer(&server);
    let mut idle = server.connect().await;
    trickling.stream.write_all(b"GET / HT").await.unwrap();
    never_reading.send("GET", "/files/f").await;
    assert_eq!(idle.get("/bytes").await.status, 200);
    tokio::time::sleep(Duration::from_millis(300)).await;

    server.let_pass(Duration::from_secs(20)).await;
    trickling.stream.write_all(b"T").await.unwrap();
    server.let_pass(Duration::from_secs(15)).await;
    assert!(silent.is_closed_orderly().await);
    assert!(trickling.stream.read(&mut [0; 9]).await.map_or(true, |read| read == 0));
    assert_eq!(idle.get("/bytes").await.status, 200);
    server.let_pass(Duration::from_secs(40)).await;
    let dropped = tokio::time::timeout(Duration::from_secs(5), never_reading.is_closed_orderly()).await.unwrap();
    assert!(!dropped);
    assert_eq!(idle.get("/bytes").await.status, 200);
    server.let_pass(Duration::from_secs(91)).await;
    assert!(idle.is_closed_orderly().await);
}

/// A client over its limit is told so with a text, and is served again once it has closed a connection.
#[tokio::test]
async fn client_over_its_limit_is_told() {
    let server = TestServer::start_with(|config| config.limits.max_per_client = 2);
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert_eq!(first.get("/bytes").await.status, 200);
    assert_eq!(second.get("/bytes").await.status, 200);
    let refused = server.connect().await.get("/bytes").await;
    assert_eq!(refused.status, 503);
    assert!(String::from_utf8(refused.body).unwrap().contains("-max-connections-per-client"));
    drop(first);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.connect().await.get("/bytes").await.status, 200);
}

/// When all connections are taken, idle ones give way; when all are at work, the new one is told.
#[tokio::test]
async fn idle_connections_give_way() {
    let server = TestServer::start_with(|config| config.limits.max_connections = 2);
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/bytes").await.status, 200);
    let mut waiting = server.connect().await;
    waiting.send("GET", "/wait").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut newer = server.connect().await;
    newer.send("GET", "/wait").await;
    assert!(idle.is_closed_orderly().await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.connect().await.get("/bytes").await.status, 503);
    assert_eq!(waiting.answer().await.unwrap().body, b"waited");
    assert_eq!(newer.answer().await.unwrap().body, b"waited");
}

/// A request head that is too long is refused, not kept in memory; garbage is refused too.
#[tokio::test]
async fn long_heads_and_garbage_are_refused() {
    let server = TestServer::start();
    let mut client = server.connect().await;
    let long = format!("GET / HTTP/1.1\r\nHost: larder\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = client.stream.write_all(long.as_bytes()).await;
    let answered = client.head().await;
    assert!(answered.is_none_or(|head| head.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16()));
    let mut client = server.connect().await;
    client.stream.write_all(b"\x16\x03\x01\x00garbage\r\n\r\n").await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 400);
    assert_eq!(server.connect().await.get("/bytes").await.status, 200);
}

/// On stop, idle connections close at once, running answers end, new clients are not accepted.
#[tokio::test]
async fn drain_lets_running_answers_end() {
    let mut server = TestServer::start();
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/bytes").await.status, 200);
    let mut running = server.connect().await;
    running.send("GET", "/wait").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.cancel();
    assert!(idle.is_closed_orderly().await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(TcpStream::connect(server.address).await.is_err());
    let answer = running.answer().await.unwrap();
    assert_eq!(answer.body, b"waited");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(running.is_closed_orderly().await);
    tokio::time::timeout(Duration::from_secs(1), &mut server.served).await.unwrap().unwrap();
}

/// A client that never reads cannot hold up the stop beyond the deadline.
#[tokio::test]
async fn drain_ends_at_its_deadline() {
    let mut server = TestServer::start_with(|config| config.drain_deadline = Duration::from_millis(300));
    server.add_long_file("f");
    let mut never_reading = connect_with_small_buffer(&server);
    never_reading.send("GET", "/files/f").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(2), &mut server.served).await.unwrap().unwrap();
    assert!(!never_reading.is_closed_orderly().await);
}

/// A client that is not allowed gets a text that names the flag.
#[tokio::test]
async fn refused_client_is_told_the_flag() {
    let listener = listener::bind(&[Ipv4Addr::LOCALHOST.into()], 0).unwrap().remove(0);
    let address = listener.local_addr().unwrap();
    for method in ["GET", "HEAD"] {
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let client = "192.0.2.9".parse().unwrap();
        Refusals::new().refuse(&Tasks::new(), accepted.unwrap().0, Refusal::NotAllowed(client));
        let mut client = Client { stream: stream.unwrap(), buffer: Vec::new() };
        client.send(method, "/x").await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status, 403);
        assert!(client.is_closed_orderly().await);
        let text = String::from_utf8(client.buffer).unwrap();
        assert_eq!(text.contains("192.0.2.9") && text.contains("-allow"), method == "GET", "{text}");
    }
}
