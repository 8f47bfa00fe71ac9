//! DNS over HTTPS in both its forms, over one connection of our own making.
//!
//! Owns [`Connection`] and [`Form`]. Called by `exchange` and `server`; calls hyper, `reply` and `json`. Which form a
//! server takes is found out by asking: RFC 8484 first, as `POST application/dns-message`; when the server refuses that,
//! the JSON form, as `GET ?name=…&type=…`. What worked is remembered for the server and said in one log line.
//!
//! Invariants: a body is read up to [`BODY_BYTES_MAX`]; the path, which may hold a key, is in no text. Source: RFC 8484.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Mutex;
use trust_dns_resolver::proto::op::Message;
use url::form_urlencoded::byte_serialize;

use crate::net::dns::ServerConfig;
use crate::net::dns::json;
use crate::net::dns::reply::{Dress, Question, Reply};
use crate::net::stream::Stream;
use crate::shutdown::Tasks;

/// A DNS message is not longer than this, and its JSON form has no business to be.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Header bytes of an answer that are read.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

const WIRE_TYPE: &str = "application/dns-message";
const JSON_TYPE: &str = "application/dns-json";

/// A form of DNS over HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// RFC 8484.
    Wire,
    /// JSON.
    Json,
}

/// Which form a server takes, once it is known.
#[derive(Debug, Default)]
pub(super) struct KnownForm(AtomicU8);

impl KnownForm {
    fn order(&self) -> [Form; 2] {
        if self.0.load(Ordering::Relaxed) == 2 { [Form::Json, Form::Wire] } else { [Form::Wire, Form::Json] }
    }

    /// Remembers what worked, and returns whether that is news.
    fn note(&self, form: Form) -> bool {
        let value = match form {
            Form::Wire => 1,
            Form::Json => 2,
        };
        self.0.swap(value, Ordering::Relaxed) != value
    }
}

#[derive(Clone)]
enum Sender {
    /// One question at a time.
    One(Arc<Mutex<http1::SendRequest<Full<Bytes>>>>),
    /// Many at a time.
    Two(http2::SendRequest<Full<Bytes>>),
}

/// An open connection. Clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    sender: Sender,
    server: Arc<ServerConfig>,
    form: Arc<KnownForm>,
}

/// What became of one request.
enum Outcome {
    Reply(Reply),
    /// The server does not take this form.
    WrongForm(String),
}

impl Connection {
    /// Makes one over a stream whose handshake is done; the task that drives it ends with the last clone, or when the
    /// server closes.
    ///
    /// # Errors
    /// The two sides do not agree on HTTP, in plain words.
    pub(super) async fn over(
        stream: Stream,
        server: Arc<ServerConfig>,
        form: Arc<KnownForm>,
        tasks: &Tasks,
    ) -> Result<Self, String> {
        let is_h2 = stream.is_h2();
        let io = TokioIo::new(stream);
        let sender = if is_h2 {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .max_header_list_size(HEADER_BYTES_MAX)
                .handshake(io)
                .await
                .map_err(|err| plain_words(&err))?;
            tasks.spawn_until_stop("dns over https", async move {
                if let Err(err) = driver.await {
                    log::debug!("connection for DNS over HTTPS ended reason={err}");
                }
            });
            Sender::Two(sender)
        } else {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(HEADER_BYTES_MAX as usize);
            let (sender, driver) = builder.handshake(io).await.map_err(|err| plain_words(&err))?;
            tasks.spawn_until_stop("dns over https", async move {
                if let Err(err) = driver.await {
                    log::debug!("connection for DNS over HTTPS ended reason={err}");
                }
            });
            Sender::One(Arc::new(Mutex::new(sender)))
        };
        Ok(Self { sender, server, form })
    }

    /// Asks a question in the form the server takes.
    ///
    /// # Errors
    /// The connection broke, the server answers with an error of HTTP, or what it sent is no answer.
    pub(super) async fn ask(&self, question: &Question, dress: Dress) -> Result<Reply, String> {
        let mut refusals = Vec::new();
        for form in self.form.order() {
            match self.ask_as(form, question, dress).await? {
                Outcome::Reply(reply) => {
                    if self.form.note(form) {
                        let version = match self.sender {
                            Sender::One(_) => "HTTP/1.1",
                            Sender::Two(_) => "HTTP/2",
                        };
                        let form = match form {
                            Form::Wire => "DNS over HTTPS as RFC 8484 has it",
                            Form::Json => "DNS over HTTPS in its JSON form",
                        };
                        log::info!("DNS server speaks {form}, over {version} server={}", self.server.name);
                    }
                    return Ok(reply);
                }
                Outcome::WrongForm(text) => refusals.push(text),
            }
        }
        refusals.dedup();
        Err(format!("no DNS over HTTPS at this path: {}", refusals.join(", then ")))
    }

    async fn ask_as(&self, form: Form, question: &Question, dress: Dress) -> Result<Outcome, String> {
        let request = self.request(form, question, dress)?;
        let mut held;
        let response = match &self.sender {
            Sender::One(sender) => {
                // Held until the body is read: there is no second answer on the way before that.
                held = sender.lock().await;
                held.ready().await.map_err(|err| plain_words(&err))?;
                held.send_request(request).await
            }
            Sender::Two(sender) => sender.clone().send_request(request).await,
        };
        let response = response.map_err(|err| plain_words(&err))?;
        let (status, kind) = (response.status(), content_type(&response));
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|err| match err.downcast_ref::<hyper::Error>() {
            Some(err) => plain_words(err),
            None => format!("sent more than {} KiB", BODY_BYTES_MAX >> 10),
        })?;
        judge(form, status, &kind, &body.to_bytes(), question)
    }

    fn request(&self, form: Form, question: &Question, dress: Dress) -> Result<Request<Full<Bytes>>, String> {
        let path = if self.server.path.is_empty() { "/dns-query" } else { self.server.path.as_str() };
        let (method, path, accept, body) = match form {
            Form::Wire => {
                // The id is zero, so that what caches there are can do their work (RFC 8484, section 4.1).
                let message = question.message(0, dress).to_vec().map_err(|err| err.to_string())?;
                (Method::POST, path.to_owned(), WIRE_TYPE, Bytes::from(message))
            }
            Form::Json => {
                let joint = if path.contains('?') { '&' } else { '?' };
                let name = byte_serialize(question.text.as_bytes()).collect::<String>();
                let path = format!("{path}{joint}name={name}&type={}", question.family.record_type());
                (Method::GET, path, JSON_TYPE, Bytes::new())
            }
        };
        let port = self.server.port;
        let authority = if port == 443 { self.server.host.to_string() } else { self.server.target().to_string() };
        let is_h2 = matches!(self.sender, Sender::Two(_));
        let target = if is_h2 { format!("https://{authority}{path}") } else { path };
        let uri = Uri::try_from(target).map_err(|_| "the path is not one that HTTP can carry".to_owned())?;
        let mut request = Request::new(Full::new(body));
        let is_post = method == Method::POST;
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(USER_AGENT, HeaderValue::from_static("larder"));
        if is_post {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(accept));
        }
        if !is_h2 {
            let host = HeaderValue::try_from(authority).map_err(|err| err.to_string())?;
            headers.insert(HOST, host);
        }
        Ok(request)
    }
}

/// Tells what an answer of HTTP means.
fn judge(form: Form, status: StatusCode, kind: &str, body: &[u8], question: &Question) -> Result<Outcome, String> {
    let status_text = || {
        let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
        format!("HTTP {}{reason}", status.as_u16())
    };
    match status.as_u16() {
        200..=299 => {}
        // What servers of the other form say.
        400 | 404 | 405 | 406 | 415 | 501 => return Ok(Outcome::WrongForm(status_text())),
        401 | 403 => return Err(format!("{}: it refuses us; is a key missing in its address?", status_text())),
        300..=399 => return Err(format!("{}: it is at another address", status_text())),
        _ => return Err(status_text()),
    }
    match form {
        Form::Wire if kind == WIRE_TYPE => {
            let message = Message::from_vec(body).map_err(|_| "sent something that is not a DNS message".to_owned())?;
            Reply::of_message(&message, question).map(Outcome::Reply)
        }
        Form::Wire => Ok(Outcome::WrongForm(format!("{} with {}", status_text(), shown(kind)))),
        Form::Json if kind == "text/html" => Err("sent a web page instead of an answer".to_owned()),
        // Otherwise the type is not looked at: some say application/json, text/javascript or nothing.
        Form::Json => json::read(body, question).map(Outcome::Reply),
    }
}

fn content_type(response: &Response<Incoming>) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn shown(kind: &str) -> String {
    if kind.is_empty() { "no content type".to_owned() } else { kind.chars().take(40).collect() }
}

fn plain_words(err: &hyper::Error) -> String {
    if err.is_closed() || err.is_canceled() || err.is_incomplete_message() {
        return "the connection was closed".to_owned();
    }
    if err.is_parse() {
        return "the other side does not speak HTTP".to_owned();
    }
    let mut deepest: &dyn std::error::Error = err;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    let text = deepest.to_string();
    if text.starts_with("stream error received") { "the server broke the request off".to_owned() } else { text }
}
