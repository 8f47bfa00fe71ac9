//! An answer on its way in: the head that is there, and the body as it comes.
//!
//! Owns [`Response`] and [`ResponseBody`]. Made by `egress`; read by `upstream` and `fill`. Invariant: waiting for the
//! next piece has a limit.

use std::time::Duration;

use bytes::Bytes;
use http::header::PROXY_AUTHENTICATE;
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
        let said = format!("status {}", status.as_u16());
        // A proxy that wants to know says how (RFC 9110, section 15.5.8). One that came through the proxy without that is
        // the word of a target that has no business saying it; it is not passed on, nor is the proxy blamed for it.
        let is_asked = headers.contains_key(PROXY_AUTHENTICATE) || header_members(headers, "via") == 0;
        return Some(if is_asked { OfTheProxy::WhoAsks(said) } else { OfTheProxy::CouldNot(said) });
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
    // What came through somebody before the proxy is not the proxy's own: there is a second one, as a reverse proxy of
    // the target's, and the proxy has added itself.
    if header_members(headers, "via") > 1 {
        return None;
    }
    let is_squid = header("server").is_none_or(|server| server.to_ascii_lowercase().starts_with("squid"));
    let squid_error = header("x-squid-error").filter(|_| is_squid);
    // The last member is of whoever is nearest (RFC 9209, section 2).
    let nearest = || headers.get_all("proxy-status").iter().next_back().and_then(|value| value.to_str().ok());
    let status_error = || {
        let member = nearest()?.rsplit(',').next()?.trim();
        (member.contains("error=") && !member.contains("received-status=")).then_some(member)
    };
    let error = squid_error.or_else(status_error);
    if error.is_none() && !is_tinyproxy {
        return None;
    }
    let words = error.map(|error| format!(": {}", error.chars().take(WORDS_CHARS_MAX).collect::<String>()));
    Some(OfTheProxy::CouldNot(format!("status {}{}", status.as_u16(), words.unwrap_or_default())))
}

/// Returns how many members a header that is a list has.
fn header_members(headers: &HeaderMap, name: &str) -> usize {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter(|member| !member.trim().is_empty()).count()
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
            (407, "proxy-authenticate", "Basic realm=x", who("status 407")),
            (200, "server", "tinyproxy/1.11.1", None),
            (404, "x-squid-error", "ERR_X", None),
            // Of a target behind a proxy that keeps such questions to itself.
            (407, "via", "1.1 office", could_not("status 407")),
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
        // What the target's own proxies say is the target's.
        for of_the_target in [
            &[("x-squid-error", "ERR_ACCESS_DENIED 0"), ("via", "1.1 front (squid/5.7), 1.1 office (squid/5.7)")][..],
            &[("x-squid-error", "ERR_ACCESS_DENIED 0"), ("server", "cdn")],
            &[("proxy-status", "cdn; error=http_request_denied"), ("via", "1.1 cdn"), ("via", "1.1 office")],
            &[("proxy-status", "cdn; error=http_request_denied, office; received-status=403")],
        ] {
            let header = |(name, value): &(&'static str, &str)| {
                (http::HeaderName::from_static(name), http::HeaderValue::try_from(*value).unwrap())
            };
            let mut headers = HeaderMap::new();
            for (name, value) in of_the_target.iter().map(header) {
                headers.append(name, value);
            }
            assert_eq!(of_the_proxy(StatusCode::FORBIDDEN, &headers), None, "{of_the_target:?}");
        }
    }
}
