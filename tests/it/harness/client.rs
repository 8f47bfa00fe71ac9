//! HTTP clients of the tests: an ordinary one, and a bare socket for what no ordinary client would send.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::{Client, Response};
use reqwest::header::HeaderMap;

/// The longest any answer may take; a request that passes it fails its test instead of hanging the suite.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

static CLIENT: LazyLock<Client> = LazyLock::new(|| build(None));

fn build(from: Option<Ipv4Addr>) -> Client {
    // The HTTP library wants a TLS provider even for plain http; a second installation is refused, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .local_address(from.map(Into::into))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(ANSWER_LIMIT)
        .build()
        .unwrap()
}

/// Returns a client that speaks from the given loopback address, and so counts as a machine of its own.
pub(crate) fn client_from(from: Ipv4Addr) -> Client {
    build(Some(from))
}

/// One complete answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads an answer to its end, which fails when the connection ends before the announced length.
    pub(crate) fn read(mut response: Response) -> Result<Self, String> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        response.read_to_end(&mut body).map_err(|error| format!("after {} bytes: {error}", body.len()))?;
        Ok(Self { status, headers, body })
    }

    /// Returns a header's value, empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Returns whether `Cache-Status` calls this a hit.
    pub(crate) fn is_hit(&self) -> bool {
        self.header("cache-status").split(';').any(|part| part.trim() == "hit")
    }

    /// Fails unless the status is the expected one, showing the text a person would see.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        assert_eq!(self.status, status, "Cache-Status: {}, body: {shown}", self.header("cache-status"));
        self
    }
}

/// Starts a request and returns once the head of the answer is here.
pub(crate) fn send(method: Method, url: &str, headers: &[(&str, &str)]) -> Result<Response, String> {
    let mut request = CLIENT.request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().map_err(|error| format!("{url}: {error:?}"))
}

/// Sends a request and reads the answer to its end.
pub(crate) fn try_request(method: Method, url: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    Answer::read(send(method, url, headers)?)
}

/// PUTs a text and reads the answer to its end.
pub(crate) fn put(url: &str, text: String) -> Result<Answer, String> {
    Answer::read(CLIENT.put(url).body(text).send().map_err(|error| format!("{url}: {error:?}"))?)
}

/// Connects from the given loopback address.
pub(crate) fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Reads until the other side closes, resets or `limit` has passed without a byte; returns what came, and whether
/// the connection ended.
pub(crate) fn read_rest(stream: &mut TcpStream, limit: Duration) -> (Vec<u8>, bool) {
    stream.set_read_timeout(Some(limit)).unwrap();
    let mut got = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (got, true),
            Ok(count) => got.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return (got, false);
            }
            Err(_) => return (got, true),
        }
    }
}

/// Sends bytes as they are and returns the status of the answer, `None` when the connection ended without one.
pub(crate) fn raw(to: SocketAddr, request: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(to).unwrap();
    // The other side may refuse in the middle of a long request; its answer is still to be read then.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let (answer, _) = read_rest(&mut stream, super::SOON);
    let line = answer.split(|&byte| byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()
}
