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

mod bodies;
mod clients;

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

/// Connects with a small receive buffer, so that the server soon cannot send any more.
fn connect_with_small_buffer(server: &TestServer) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    Client { stream: TcpStream::from_std(socket.into()).unwrap(), buffer: Vec::new() }
}
