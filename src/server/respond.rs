//! The form of an answer: status, headers, body. The only place where an [`Error`] becomes HTTP.
//!
//! Called by `handler`. Conditional requests and single ranges are answered here, for stored files only: RFC 9110,
//! sections 13 and 14.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::cache::{CacheStatus, Content, Error, Forward, Reply};
use crate::resource::{Resource, ResourceError};
use crate::server::body::Body;
use crate::store::StoredFile;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The word for the log, left with the answer.
#[derive(Clone, Copy, Debug)]
struct CacheWord(&'static str);

/// Returns the word that says how an answer came about.
pub(super) fn cache_word(response: &Response<Body>) -> &'static str {
    response.extensions().get::<CacheWord>().map_or("-", |word| word.0)
}

/// Answers with what was asked for.
pub(super) fn found(resource: &Resource, reply: Reply, asked: &HeaderMap) -> Response<Body> {
    let mut response = match reply.content {
        Content::Stored(stored) => of_stored(stored, asked),
        Content::Bytes(bytes) => Response::new(Body::Bytes(bytes)),
        Content::Growing(reader) => Response::new(Body::Growing { reader, start: 0 }),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(resource.content_type()));
    headers.insert(CACHE_STATUS, header_of(&reply.status));
    if let Some(length) = response.body().length().filter(|_| response.status() != StatusCode::NOT_MODIFIED) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response.extensions_mut().insert(CacheWord(reply.status.word()));
    response
}

/// Answers with an error.
pub(super) fn failed(resource: &Resource, error: &Error) -> Response<Body> {
    let mut response =
        text(StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY), error.client_text());
    let status = match error {
        Error::NotFound { is_remembered: true, .. } => CacheStatus::hit().with_detail("negative"),
        Error::NotProxied(_) => CacheStatus::unanswered("not-proxied"),
        Error::NotStored(_) => CacheStatus::unanswered("not-stored"),
        Error::Offline { .. } | Error::UnknownOffline { .. } => CacheStatus::unanswered("offline"),
        Error::NotFound { .. } | Error::Upstream { .. } | Error::PrivateLookup(_) | Error::Busy | Error::Store(_) => {
            CacheStatus::forwarded(Forward::UriMiss, false)
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_STATUS, header_of(&status));
    if let Some(token) = error.token()
        && let Ok(value) = HeaderValue::try_from(format!("Larder; error={token}"))
    {
        headers.insert(PROXY_STATUS, value);
    }
    response.extensions_mut().insert(CacheWord("error"));
    if error.status() >= 500 {
        log::debug!("answered {} to {resource}: {error}", error.status());
    }
    response
}

/// Answers a path that names nothing.
pub(super) fn malformed(error: &ResourceError) -> Response<Body> {
    let words: String = error.to_string().chars().filter(|c| !c.is_control()).take(500).collect();
    text(StatusCode::NOT_FOUND, Bytes::from(format!("not found: {words}\n")))
}

/// Answers a method that a module proxy does not have.
pub(super) fn method_not_allowed() -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, Bytes::from_static(b"only GET and HEAD are served\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// Answers with a text for people; `go` shows it only with this content type.
pub(super) fn text(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Bytes(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn header_of(status: &CacheStatus) -> HeaderValue {
    const HIT: HeaderValue = HeaderValue::from_static("Larder; hit");
    if *status == CacheStatus::hit() {
        return HIT;
    }
    HeaderValue::try_from(status.to_string()).unwrap_or(HIT)
}

fn of_stored(stored: StoredFile, asked: &HeaderMap) -> Response<Body> {
    let etag = etag_of(&stored);
    let mut response = Response::new(Body::Empty);
    if asked.get(IF_NONE_MATCH).is_some_and(|wanted| names(wanted, &etag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        let is_same = asked.get(IF_RANGE).is_none_or(|wanted| *wanted == etag);
        match asked
            .get(RANGE)
            .filter(|_| is_same)
            .and_then(|range| range.to_str().ok())
            .map(|range| parse_range(range, stored.length))
        {
            None | Some(Range::Whole) => {
                *response.body_mut() = Body::File { end: stored.length, start: 0, file: stored.file };
            }
            Some(Range::Part { start, end }) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                set_content_range(&mut response, &format!("bytes {start}-{}/{}", end - 1, stored.length));
                *response.body_mut() = Body::File { file: stored.file, start, end };
            }
            Some(Range::Unsatisfiable) => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                set_content_range(&mut response, &format!("bytes */{}", stored.length));
            }
        }
    }
    response.headers_mut().insert(ETAG, etag);
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

fn set_content_range(response: &mut Response<Body>, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
}

/// A stored file never changes in place, so its length and time name its content.
fn etag_of(stored: &StoredFile) -> HeaderValue {
    let mut etag = String::with_capacity(36);
    // Writing to a String cannot fail.
    let _ = write!(etag, "\"{:x}-{:x}\"", stored.length, stored.modified_ns);
    HeaderValue::try_from(etag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Returns whether an `If-None-Match` names `etag`, by the weak comparison.
fn names(wanted: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(wanted), Ok(etag)) = (wanted.to_str(), etag.to_str()) else { return false };
    wanted.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// No range, more than one, or one that is not understood: the whole file is a right answer to all of these.
    Whole,
    Part {
        start: u64,
        end: u64,
    },
    Unsatisfiable,
}

/// Reads `bytes=FIRST-LAST`, `bytes=FIRST-` and `bytes=-COUNT` against a file of `length` bytes.
fn parse_range(value: &str, length: u64) -> Range {
    let Some((first, last)) = value.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Range::Whole;
    };
    let (start, end) = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(length)),
        (Ok(first), Err(_)) if last.trim().is_empty() => (first, length),
        (Err(_), Ok(0)) if first.trim().is_empty() => return Range::Unsatisfiable,
        (Err(_), Ok(count)) if first.trim().is_empty() => (length.saturating_sub(count), length),
        _ => return Range::Whole,
    };
    if start < end { Range::Part { start, end } } else { Range::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::net::egress;
    use crate::store;
    use crate::upstream::{Failure, NotFound};

    /// Every error there is, with its status and whether asking again may help.
    fn errors(resource: &Resource) -> Vec<(Error, u16, bool)> {
        let upstream: Arc<str> = Arc::from("https://modules.example");
        let body = Bytes::from_static(b"not for you\n");
        let full = || Arc::new(store::Error::Full { path: "x".to_owned() });
        let in_use = || Arc::new(store::Error::InUse { path: "x".to_owned() });
        let io = || Arc::new(store::Error::Io { path: "x".to_owned(), source: std::io::ErrorKind::Other.into() });
        let failed = |failure| Error::Upstream { resource: resource.clone(), failure };
        let said = |status| NotFound { status, body: body.clone(), upstream: Arc::clone(&upstream) };
        let refused = |body| Failure::Refused { upstream: Arc::clone(&upstream), status: 403, body };
        let network = |error| Failure::Network { upstream: Arc::clone(&upstream), error };
        let (host, reason) = ("modules.example:443".to_owned(), "connection refused".to_owned());
        vec![
            (Error::NotFound { status: 404, body: body.clone(), is_remembered: false }, 404, false),
            (Error::NotFound { status: 410, body: body.clone(), is_remembered: true }, 410, false),
            (Error::NotStored(resource.clone()), 404, false),
            (Error::UnknownOffline { resource: resource.clone(), reason: reason.clone() }, 404, false),
            (Error::Offline { resource: resource.clone(), reason: reason.clone() }, 504, true),
            (Error::PrivateLookup(resource.clone()), 403, false),
            (failed(Failure::NotFound(said(404))), 404, false),
            (failed(Failure::NotFound(said(410))), 410, false),
            (failed(refused(body.clone())), 403, false),
            (failed(refused(Bytes::new())), 403, false),
            (
                failed(Failure::Unavailable { upstream: Arc::clone(&upstream), status: 429, retry_after: None }),
                502,
                true,
            ),
            (failed(network(egress::Error::Connect { host, reason: reason.clone() })), 502, true),
            (failed(network(egress::Error::Stalled(std::time::Duration::from_secs(30)))), 502, true),
            (failed(Failure::Offline { upstream: Arc::clone(&upstream), reason: reason.clone() }), 504, true),
            (failed(Failure::Rejected { upstream: Arc::clone(&upstream), reason }), 502, false),
            (failed(Failure::Changed { upstream: Arc::clone(&upstream) }), 502, false),
            (failed(Failure::Store(full())), 507, false),
            (failed(Failure::Store(in_use())), 500, false),
            (failed(Failure::Store(io())), 500, false),
            (failed(Failure::Stopped), 503, true),
            (Error::Busy, 503, true),
            (Error::Store(full()), 507, false),
            (Error::Store(in_use()), 500, false),
            (Error::Store(io()), 500, false),
        ]
    }

    /// Invariant 6: 404 and 410 stand only where they may. And every error has a text that `go` shows: short plain text
    /// in lower case, an upstream's own words where there are some.
    #[test]
    fn invariant_6_every_error_has_its_status_and_text() {
        let long = format!("example.com/{}m/@v/v1.2.0.zip", "long/".repeat(390));
        for path in ["example.com/m/@v/v1.2.0.zip", &long] {
            let resource = Resource::parse(path).unwrap();
            for (error, status, is_transient) in errors(&resource) {
                let response = failed(&resource, &error);
                assert_eq!((response.status().as_u16(), error.is_transient()), (status, is_transient), "{error:?}");
                assert_eq!(response.headers().get(CONTENT_TYPE), Some(&TEXT), "{error:?}");
                assert!(response.headers().contains_key(CACHE_STATUS), "{error:?}");
                let Body::Bytes(body) = response.into_body() else { panic!("{error:?}") };
                let text = std::str::from_utf8(&body).unwrap();
                assert!(text.len() <= 648 && text.ends_with('\n') && text.lines().count() <= 2, "{text}");
                assert!(text.lines().all(|line| !line.is_empty() && !line.ends_with('.')), "{text}");
                assert!(text.starts_with(char::is_lowercase), "{text}");
                assert!(text.lines().skip(1).all(|line| line.starts_with("hint: ")), "{text}");
            }
        }
    }

    /// The three forms of a single range, and what is none.
    #[test]
    fn ranges() {
        assert_eq!(parse_range("bytes=0-0", 10), Range::Part { start: 0, end: 1 });
        assert_eq!(parse_range("bytes=5-", 10), Range::Part { start: 5, end: 10 });
        assert_eq!(parse_range("bytes=5-99", 10), Range::Part { start: 5, end: 10 });
        assert_eq!(parse_range("bytes=-3", 10), Range::Part { start: 7, end: 10 });
        assert_eq!(parse_range("bytes=-30", 10), Range::Part { start: 0, end: 10 });
        assert_eq!(parse_range("bytes=10-", 10), Range::Unsatisfiable);
        assert_eq!(parse_range("bytes=-0", 10), Range::Unsatisfiable);
        for whole in ["bytes=", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes=5-2", "bytes=--1"] {
            assert_eq!(parse_range(whole, 10), Range::Whole, "{whole}");
        }
    }

    /// Entity tags are compared weakly, in lists, and against the star.
    #[test]
    fn entity_tags() {
        let etag = HeaderValue::from_static("\"a-1\"");
        for wanted in ["\"a-1\"", "W/\"a-1\"", "\"x\", \"a-1\"", "*"] {
            assert!(names(&HeaderValue::from_static(wanted), &etag), "{wanted}");
        }
        assert!(!names(&HeaderValue::from_static("\"a-2\""), &etag));
    }
}
