//! An answer on its way in: the head that is there, and the body as it comes.
//!
//! Owns [`Response`] and [`ResponseBody`]. Made by `egress`; read by `upstream` and `fill`. Invariant: waiting for the
//! next piece has a limit.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::net::egress::Error;
use crate::net::egress::error::innermost;

/// So much of a proxy's own words is shown, in characters.
const WORDS_CHARS_MAX: usize = 80;

/// An answer whose head has arrived.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The rest, still on its way.
    pub body: ResponseBody,
}

/// A body on its way in.
#[derive(Debug)]
pub struct ResponseBody {
    pub(super) incoming: Incoming,
    pub(super) stall_timeout: Duration,
}

impl ResponseBody {
    /// Returns the next piece, or `None` at the declared end.
    ///
    /// # Errors
    /// `Stalled` when nothing came for too long, `Ended` when the connection broke before the declared end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(self.stall_timeout, self.incoming.frame())
                .await
                .map_err(|_| Error::Stalled(self.stall_timeout))?;
            match frame {
                None => return Ok(None),
                Some(Err(err)) => return Err(Error::Ended(innermost(&err))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Returns the next piece if it has already arrived.
    ///
    /// # Errors
    /// As [`ResponseBody::chunk`].
    pub fn chunk_if_ready(&mut self) -> Result<Option<Bytes>, Error> {
        use futures_util::FutureExt as _;
        match self.incoming.frame().now_or_never() {
            None | Some(None) => Ok(None),
            Some(Some(Err(err))) => Err(Error::Ended(innermost(&err))),
            Some(Some(Ok(frame))) => Ok(frame.into_data().ok()),
        }
    }
}

/// What a proxy itself has to say to a request for plain http.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OfTheProxy {
    /// It wants to know who asks.
    WhoAsks(String),
    /// It could not reach the target, or may not.
    CouldNot(String),
}

/// Returns what the proxy itself says in an answer that is not the target's, as far as proxies can be told from targets:
/// by status 407, by `Proxy-Status` (RFC 9209), and by what squid and tinyproxy write.
pub(super) fn of_the_proxy(status: StatusCode, headers: &HeaderMap) -> Option<OfTheProxy> {
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        return Some(OfTheProxy::WhoAsks(format!("status {}", status.as_u16())));
    }
    // No proxy knows that something does not exist.
    if status.as_u16() < 400 || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return None;
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_tinyproxy = header("server").is_some_and(|server| server.starts_with("tinyproxy/"));
    if is_tinyproxy && status == StatusCode::UNAUTHORIZED {
        return Some(OfTheProxy::WhoAsks("status 401".to_owned()));
    }
    let error = header("x-squid-error").or_else(|| header("proxy-status").filter(|status| status.contains("error=")));
    if error.is_none() && !is_tinyproxy {
        return None;
    }
    let words = error.map(|error| format!(": {}", error.chars().take(WORDS_CHARS_MAX).collect::<String>()));
    Some(OfTheProxy::CouldNot(format!("status {}{}", status.as_u16(), words.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a proxy says is told from what the target says through it.
    #[test]
    fn whose_answer() {
        let who = |text: &str| Some(OfTheProxy::WhoAsks(text.to_owned()));
        let could_not = |text: &str| Some(OfTheProxy::CouldNot(text.to_owned()));
        for (status, name, value, expected) in [
            (200, "server", "tinyproxy/1.11.1", None),
            (404, "x-squid-error", "ERR_X", None),
            (407, "server", "squid/5.7", who("status 407")),
            (401, "server", "tinyproxy/1.11.1", who("status 401")),
            (401, "server", "nginx", None),
            (403, "x-squid-error", "ERR_ACCESS_DENIED 0", could_not("status 403: ERR_ACCESS_DENIED 0")),
            (500, "server", "tinyproxy/1.11.1", could_not("status 500")),
            (502, "proxy-status", "p; error=dns_error", could_not("status 502: p; error=dns_error")),
            (502, "proxy-status", "p; received-status=502", None),
            (503, "server", "nginx", None),
        ] {
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]);
            assert_eq!(of_the_proxy(StatusCode::from_u16(status).unwrap(), &headers), expected, "{status} {value}");
        }
    }
}
