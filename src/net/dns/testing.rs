//! A small DNS server for unit tests: UDP, TCP and HTTP/1.1 without TLS, on loopback, doing what a script says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::sleep;
use trust_dns_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use trust_dns_resolver::proto::rr::rdata::{A, AAAA, CNAME, NS, SOA};
use trust_dns_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::clock::Clock;
use crate::net::dns::server::Server;
use crate::net::dns::{Boxed, Reach, ServerConfig, Transport};
use crate::net::stream::Stream;
use crate::net::target::Host;
use crate::net::tls::Trust;
use crate::shutdown::Tasks;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Udp,
    /// With the number of the connection, from 1.
    Tcp(usize),
}

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Reply(Message),
    /// Each after the other.
    Raw(Vec<Vec<u8>>),
    After(Duration, Box<Act>),
    Silence,
    Close,
}

type Script = dyn Fn(&Message, Came) -> Act + Send + Sync;

/// The server, until it is dropped.
pub(crate) struct Responder {
    pub(crate) address: SocketAddr,
    /// `NAME TYPE`, in the order they came.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    tasks: Tasks,
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Responder {
    /// Starts one on a port of its own.
    pub(crate) async fn start(script: impl Fn(&Message, Came) -> Act + Send + Sync + 'static) -> Self {
        loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = tcp.local_addr().unwrap();
            if let Ok(udp) = UdpSocket::bind(address).await {
                return Self::serve(tcp, udp, address, Arc::new(script));
            }
        }
    }

    fn serve(tcp: TcpListener, udp: UdpSocket, address: SocketAddr, script: Arc<Script>) -> Self {
        let (tasks, asked) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let told = {
            let asked = Arc::clone(&asked);
            Arc::new(move |message: &Message, came| {
                let query = &message.queries[0];
                let name = query.name().to_ascii();
                asked.lock().unwrap().push(format!("{} {}", name.trim_end_matches('.'), query.query_type()));
                script(message, came)
            }) as Arc<Script>
        };
        let token = tasks.token().clone();
        let (script, group) = (Arc::clone(&told), tasks.clone());
        tasks.spawn("udp", async move {
            tokio::select! { () = token.cancelled() => {}, () = serve_udp(udp, script, group) => {} }
        });
        let (token, group) = (tasks.token().clone(), tasks.clone());
        tasks.spawn("tcp", async move {
            tokio::select! { () = token.cancelled() => {}, () = serve_tcp(tcp, told, group) => {} }
        });
        Self { address, asked, tasks }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn config(&self, transport: Transport) -> ServerConfig {
        let host = Host::Address(self.address.ip());
        let name = format!("{transport}://{}", self.address);
        ServerConfig { transport, host, port: self.address.port(), path: "/q?key=secret".to_owned(), name }
    }

    /// Makes our side of it.
    pub(crate) fn server(&self, transport: Transport) -> Arc<Server> {
        Arc::new(server(self.config(transport)))
    }
}

/// Makes our side of a server, reached without TLS whatever its transport.
pub(crate) fn server(config: ServerConfig) -> Server {
    let (trust, transport) = (Trust::load(&[]).unwrap(), config.transport);
    Server::new(config, transport, Arc::new(Bare), &trust, Tasks::new(), Clock::system())
}

struct Bare;

impl Reach for Bare {
    fn addresses<'a>(&'a self, server: &'a ServerConfig) -> Boxed<'a, Result<Vec<IpAddr>, String>> {
        let Host::Address(address) = server.host else { unreachable!() };
        Box::pin(async move { Ok(vec![address]) })
    }

    fn open<'a>(
        &'a self,
        server: &'a ServerConfig,
        _: Option<&'a Arc<ClientConfig>>,
    ) -> Boxed<'a, Result<Stream, String>> {
        Box::pin(async move {
            let stream = TcpStream::connect(server.target().to_string()).await;
            stream.map(Stream::Plain).map_err(|err| err.to_string())
        })
    }
}

async fn serve_udp(socket: UdpSocket, script: Arc<Script>, tasks: Tasks) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let message = Message::from_vec(&buffer[..length]).unwrap();
        let (act, socket) = (script(&message, Came::Udp), Arc::clone(&socket));
        tasks.spawn("answer", async move {
            for bytes in play(act).await.unwrap_or_default() {
                let _ = socket.send_to(&bytes, from).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, script: Arc<Script>, tasks: Tasks) {
    for number in 1.. {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (script, token) = (Arc::clone(&script), tasks.token().clone());
        tasks.spawn("connection", async move {
            let serve = async {
                while let Ok(length) = stream.read_u16().await {
                    let mut bytes = vec![0; length.into()];
                    let Ok(_) = stream.read_exact(&mut bytes).await else { break };
                    let Ok(message) = Message::from_vec(&bytes) else { break };
                    let Some(answers) = play(script(&message, Came::Tcp(number))).await else { break };
                    for bytes in answers {
                        let mut framed = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
                        framed.extend(bytes);
                        let _ = stream.write_all(&framed).await;
                    }
                }
            };
            tokio::select! { () = token.cancelled() => {}, () = serve => {} }
        });
    }
}

/// Returns what is to be sent; nothing more to be sent at all after `Close`.
async fn play(act: Act) -> Option<Vec<Vec<u8>>> {
    let mut act = act;
    loop {
        act = match act {
            Act::Reply(message) => return Some(vec![message.to_vec().unwrap()]),
            Act::Raw(all) => return Some(all),
            Act::Silence => return Some(Vec::new()),
            Act::Close => return None,
            Act::After(pause, next) => {
                sleep(pause).await;
                *next
            }
        };
    }
}

/// Serves HTTP/1.1 on loopback: `answer` takes the head and the body of a request and returns the whole response.
pub(crate) async fn serve_http(answer: impl Fn(&str, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> (SocketAddr, Tasks) {
    let (address, _, tasks) = serve_http_counted(move |head, body| (Duration::ZERO, answer(head, body))).await;
    (address, tasks)
}

/// The same with a pause before each response; also returns how many connections there have been.
pub(crate) async fn serve_http_counted(
    answer: impl Fn(&str, &[u8]) -> (Duration, Vec<u8>) + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>, Tasks) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, tasks, answer) = (listener.local_addr().unwrap(), Tasks::new(), Arc::new(answer));
    let (group, connections) = (tasks.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&connections);
    tasks.spawn("http", async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let answer = Arc::clone(&answer);
            group.spawn("http connection", async move {
                let mut seen = Vec::new();
                while stream.read_buf(&mut seen).await.is_ok_and(|count| count > 0) {
                    let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8(seen[..end].to_vec()).unwrap();
                    let length = head
                        .lines()
                        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    let whole = end + 4 + length.unwrap_or(0);
                    if seen.len() < whole {
                        continue;
                    }
                    let (pause, response) = answer(&head, &seen[end + 4..whole]);
                    sleep(pause).await;
                    let _ = stream.write_all(&response).await;
                    seen.drain(..whole);
                }
            });
        }
    });
    (address, connections, tasks)
}

/// Begins the answer to a question.
pub(crate) fn reply(query: &Message) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.queries.clone_from(&query.queries);
    message.metadata.recursion_available = true;
    message
}

/// Answers with a response code.
pub(crate) fn code(query: &Message, code: ResponseCode) -> Message {
    let mut message = reply(query);
    message.metadata.response_code = code;
    message
}

/// Answers with those of `records` (`OWNER TTL ADDRESS-or-NAME`) that are of the family asked for, and all aliases.
pub(crate) fn records(query: &Message, records: &[&str]) -> Message {
    let mut message = reply(query);
    for text in records {
        let mut words = text.split(' ');
        let owner = Name::from_ascii(words.next().unwrap()).unwrap();
        let (ttl, data) = (words.next().unwrap().parse().unwrap(), words.next().unwrap());
        let data = match data.parse() {
            Ok(IpAddr::V4(address)) => RData::A(A(address)),
            Ok(IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
            Err(_) => RData::CNAME(CNAME(Name::from_ascii(data).unwrap())),
        };
        let kind = data.record_type();
        if kind == RecordType::CNAME || kind == query.queries[0].query_type() {
            message.answers.push(Record::from_rdata(owner, ttl, data));
        }
    }
    message
}

/// Adds the record by which absence is dated.
pub(crate) fn with_soa(mut message: Message, ttl: u32, minimum: u32) -> Message {
    let name = Name::from_ascii("example.").unwrap();
    let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, minimum);
    message.authorities.push(Record::from_rdata(name, ttl, RData::SOA(soa)));
    message
}

/// Adds a name server, as a referral has.
pub(crate) fn with_ns(mut message: Message) -> Message {
    let name = Name::from_ascii("example.").unwrap();
    message.authorities.push(Record::from_rdata(name.clone(), 60, RData::NS(NS(name))));
    message
}

/// Tells whether a question is for IPv6.
pub(crate) fn is_v6(query: &Message) -> bool {
    query.queries[0].query_type() == RecordType::AAAA
}
