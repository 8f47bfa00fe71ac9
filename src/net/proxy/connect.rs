//! Asks an HTTP proxy for a tunnel.
//!
//! Called by `proxy::server`; reads and writes a stream. The question and the answer:
//!
//! ```text
//! CONNECT name:443 HTTP/1.1              HTTP/1.1 200 Connection established
//! Host: name:443                         …headers, at most 16 KiB
//! Proxy-Authorization: Basic …
//! (empty line)                           (empty line), and the tunnel begins
//! ```
//!
//! Invariant: nothing behind the answer's head is read, so nothing of the tunnel is lost. Source: RFC 9110, section 9.3.6.

use std::io;

use http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::net::stream::Stream;
use crate::net::target::Target;

/// An answer's head that is longer is not one, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// More headers than that are not expected of anybody.
const HEADERS_MAX: usize = 64;
/// So much of the words beside a status is shown, in characters.
const REASON_CHARS_MAX: usize = 80;

/// Why there is no tunnel.
#[derive(Debug)]
pub(super) enum Failure {
    /// It answered with a status that is not of success, and these words.
    Status(u16, String),
    /// What it answered is not HTTP; whether it looks like TLS.
    NotHttp { is_tls: bool },
    /// It promised a tunnel, and something came through it at once, which neither TLS nor DNS does.
    Early,
    /// Its answer is of no use.
    Odd(&'static str),
    /// The connection broke.
    Broken(io::Error),
}

/// Asks for a tunnel to `to`; afterwards `stream` leads there.
pub(super) async fn connect(
    stream: &mut Stream,
    to: &Target,
    authorization: Option<&HeaderValue>,
) -> Result<(), Failure> {
    let mut question =
        format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: larder/{}\r\n", env!("CARGO_PKG_VERSION"))
            .into_bytes();
    if let Some(value) = authorization {
        question.extend_from_slice(b"Proxy-Authorization: ");
        question.extend_from_slice(value.as_bytes());
        question.extend_from_slice(b"\r\n");
    }
    question.extend_from_slice(b"\r\n");
    stream.write_all(&question).await.map_err(Failure::Broken)?;
    stream.flush().await.map_err(Failure::Broken)?;

    let mut answer = Vec::with_capacity(1024);
    loop {
        if answer.len() >= HEAD_BYTES_MAX {
            return Err(Failure::Odd("its answer's head is longer than 16 KiB"));
        }
        if stream.read_buf(&mut answer).await.map_err(Failure::Broken)? == 0 {
            let err = if answer.is_empty() { "without an answer" } else { "in the middle of its answer" };
            return Err(Failure::Broken(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it closed the connection {err}"),
            )));
        }
        if let Some(end) = read_head(&answer)? {
            answer.drain(..end);
            // A tunnel begins with what we send: TLS and DNS both wait for their client.
            if answer.is_empty() {
                return Ok(());
            }
            return Err(Failure::Early);
        }
    }
}

/// Returns the length of a head of success, or `None` if it is not all there.
fn read_head(answer: &[u8]) -> Result<Option<usize>, Failure> {
    let mut at = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let length = match head.parse(&answer[at..]) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Failure::Odd("its answer has too many headers")),
            Err(_) => {
                // A TLS record begins with its type, 20 to 23, and the version 3.
                let is_tls = matches!(answer, [20..=23, 3, ..]);
                return Err(Failure::NotHttp { is_tls });
            }
        };
        at += length;
        match head.code.unwrap_or_default() {
            // Only a beginning; the answer itself follows.
            100..=199 => {}
            200..=299 => return Ok(Some(at)),
            status => return Err(Failure::Status(status, shown(head.reason.unwrap_or_default()))),
        }
    }
}

/// Returns words of a stranger as they may be shown.
fn shown(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head decides: success, a refusal with its words, not all there yet, not HTTP.
    #[test]
    fn heads() {
        let read = |text: &str| match read_head(text.as_bytes()) {
            Ok(Some(length)) => format!("{length}"),
            Ok(None) => "more".to_owned(),
            Err(Failure::Status(status, reason)) => format!("{status} {reason}"),
            Err(Failure::NotHttp { is_tls }) => format!("not http {is_tls}"),
            Err(Failure::Early) => "early".to_owned(),
            Err(Failure::Odd(text)) => text.to_owned(),
            Err(Failure::Broken(err)) => err.to_string(),
        };
        for (text, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", "39"),
            ("HTTP/1.0 200 OK\r\nVia: x\r\n\r\nabc", "27"),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\n\r\n", "41"),
            ("HTTP/1.1 200 OK\r\nVia:", "more"),
            ("HTTP/1.1 407 Proxy Authentication\t Required\r\n\r\n", "407 Proxy Authentication Required"),
            ("HTTP/1.1 502\r\n\r\n", "502 "),
            ("SSH-2.0-OpenSSH\r\n", "not http false"),
            ("\u{15}\u{3}\u{1}\u{0}\u{2}", "not http true"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        assert_eq!(
            read(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "H: x\r\n".repeat(100))),
            "its answer has too many headers"
        );
    }
}
