//! Carries one question to a server and its answer back: over UDP, over a stream (TCP or TLS), over QUIC, over HTTP.
//!
//! Owns [`Connection`]. Called by `server`; calls hickory's multiplexer and QUIC client, `https` and `reply`. Datagrams
//! have a socket of their own for each question, connected to the server, so that the system drops what comes from
//! elsewhere and a refusal is heard of; its port is the system's choice, at random, and the question's id comes from where
//! keys come from. After [`FORGED_MAX`] wrong answers the question goes over TCP.
//!
//! Sources: RFC 1035, section 4.2; RFC 5452 (forged answers); RFC 7766; RFC 7858; RFC 9250.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::sleep;
use trust_dns_resolver::net::quic::QuicClientStream;
use trust_dns_resolver::net::runtime::TokioRuntimeProvider;
use trust_dns_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use trust_dns_resolver::net::tcp::{TcpClientStream, TcpStream};
use trust_dns_resolver::net::xfer::{
    DnsExchange, DnsHandle as _, DnsMultiplexer, DnsRequestSender as _, FirstAnswer as _,
};
use trust_dns_resolver::net::{DnsError, NetError};
use trust_dns_resolver::proto::op::{DnsRequest, Message};

use crate::net::dial;
use crate::net::dns::https;
use crate::net::dns::prompt::Prompt;
use crate::net::dns::reply::{Dress, Question, Reply};
use crate::net::stream::Stream;
use crate::shutdown::Tasks;

/// Questions on their way to one server at a time. Hickory queues 32 messages for a connection and refuses more.
pub(super) const QUESTIONS_MAX: usize = 24;
/// When a datagram is sent again, counted from the one before.
const AGAIN_AFTER: [Duration; 3] = [Duration::from_millis(400), Duration::from_millis(600), Duration::from_secs(1)];
/// What is said of a server without addresses.
pub(super) const NO_ADDRESS: &str = "its name has no address";
/// Addresses of one server that are asked.
pub(super) const ADDRESSES_MAX: usize = 4;
/// Datagrams that are no answer to the question and yet came from the server's address to ours: who can send more may hit
/// the id by and by, of which there are 65,536 (RFC 5452, section 9.3: a limit, then TCP).
const FORGED_MAX: usize = 16;
/// The largest datagram that is read; longer ones are cut, and then not understood.
const DATAGRAM_BUFFER_BYTES: usize = 4096;
/// Beyond any limit of ours, so that a question whose asker is gone is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// An open connection to a server. Clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    /// TCP or TLS, with many questions at a time.
    Stream(DnsExchange<TokioRuntimeProvider>),
    /// QUIC.
    Quic(QuicClientStream),
    /// HTTP/1.1 or HTTP/2.
    Https(https::Connection),
}

impl Connection {
    /// Makes one over a stream; the task that reads it ends with the last clone, or when the server closes.
    pub(super) fn over(stream: Stream, tasks: &Tasks) -> Self {
        // Hickory only compares this with itself.
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let (stream, sender) = TcpStream::from_stream(AsyncIoTokioAsStd(Prompt::new(stream)), nowhere);
        let multiplexer = DnsMultiplexer::new(TcpClientStream::from_stream(stream), sender)
            .with_timeout(FORGOTTEN_AFTER)
            .with_max_active_requests(4 * QUESTIONS_MAX);
        let (exchange, background) = DnsExchange::from_stream(multiplexer);
        tasks.spawn_until_stop("dns connection", background);
        Self::Stream(exchange)
    }

    /// Asks a question.
    ///
    /// # Errors
    /// The connection broke, in plain words, or what came is no answer to the question.
    pub(super) async fn ask(&self, question: &Question, dress: Dress) -> Result<Reply, String> {
        let response = match self {
            Self::Stream(exchange) => {
                let request = DnsRequest::from(question.message(0, dress));
                exchange.send(request).first_answer().await
            }
            Self::Quic(connection) => {
                let request = DnsRequest::from(question.message(0, dress));
                connection.clone().send_message(request).first_answer().await
            }
            Self::Https(connection) => return connection.ask(question, dress).await,
        };
        match response {
            Ok(response) => Reply::of_message(&response, question),
            Err(err) => Err(plain_words(&err)),
        }
    }
}

/// Asks over UDP: each of `addresses` beside the one before when that one is silent. Returns nothing if somebody sends
/// forged answers: the question is to be asked over TCP then.
///
/// # Errors
/// What the last one said. There is no limit in time here.
pub(super) async fn ask_datagram(
    addresses: &[IpAddr],
    port: u16,
    question: &Question,
    dress: Dress,
) -> Result<Option<Reply>, String> {
    let asked = dial::first(addresses.iter().take(ADDRESSES_MAX), |address| async move {
        let asked = ask_one_datagram(SocketAddr::new(*address, port), question, dress).await;
        asked.map_err(|err| plain_io(&err))
    });
    asked.await.map_err(|last| last.unwrap_or_else(|| NO_ADDRESS.to_owned()))
}

async fn ask_one_datagram(server: SocketAddr, question: &Question, dress: Dress) -> io::Result<Option<Reply>> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = unguessable_id()?;
    let bytes = question.message(id, dress).to_vec().map_err(io::Error::other)?;
    socket.send(&bytes).await?;
    let mut again = AGAIN_AFTER.iter();
    let mut pause = again.next();
    let mut buffer = vec![0; DATAGRAM_BUFFER_BYTES];
    let mut waiting = Box::pin(sleep(pause.copied().unwrap_or_default()));
    let mut forged = 0;
    loop {
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let bytes = &buffer[..received?];
                // Whatever has another id, or answers another question, may be forged: the true answer may still come.
                if bytes.first_chunk() == Some(&id.to_be_bytes())
                    && let Ok(message) = Message::from_vec(bytes)
                    && let Ok(reply) = Reply::of_message(&message, question)
                {
                    return Ok(Some(reply));
                }
                forged += 1;
                if forged > FORGED_MAX {
                    return Ok(None);
                }
            }
            () = &mut waiting, if pause.is_some() => {
                socket.send(&bytes).await?;
                pause = again.next();
                waiting = Box::pin(sleep(pause.copied().unwrap_or_default()));
            }
        }
    }
}

/// Returns the id of a question, by the generator that keys are made with: who sees some must not foresee the next.
fn unguessable_id() -> io::Result<u16> {
    let mut id = [0; 2];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(u16::from_be_bytes(id))
}

/// Returns what an error of hickory's means, in words for people.
pub(super) fn plain_words(err: &NetError) -> String {
    match err {
        NetError::Io(err) => plain_io(err),
        NetError::Timeout => "no answer in time".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("answers with response code {}", u16::from(*code)),
        NetError::Proto(_) => "sent something that is not a DNS message".to_owned(),
        NetError::Message("receiver was canceled") | NetError::Busy => "the connection was closed".to_owned(),
        NetError::QuinnConnection(err) => err.to_string(),
        other => other.to_string(),
    }
}

fn plain_io(err: &io::Error) -> String {
    match err.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => "the connection was closed".to_owned(),
        io::ErrorKind::ConnectionReset => "the connection was reset".to_owned(),
        io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => err.to_string(),
    }
}
