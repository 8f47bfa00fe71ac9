//! One question to one upstream: the address, the headers, and what the answer's head says.
//!
//! Called by `fill` through [`UpstreamList::get`]; calls `net::egress`. Invariant: bytes that are not exactly those
//! asked for do not leave here as a good answer. Source: RFC 9110, sections 13 to 15; the statuses as `go` reads them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::timeout;
use url::Url;

use crate::net::egress::{self, Credentials, Egress, Response};
use crate::resource::Resource;
use crate::store;
use crate::upstream::answer::{Answer, Ask, Body, Part};
use crate::upstream::failure::{Failure, NotFound, TEXT_BYTES_MAX};
use crate::upstream::{Source, Upstream, UpstreamList};

/// The text of an error is waited for so long; its status is what counts.
const TEXT_TIMEOUT: Duration = Duration::from_secs(5);
/// A `Last-Modified` proves identity only if the file had rested for this long when it was sent.
const LAST_MODIFIED_RESTS: Duration = Duration::from_secs(60);

impl UpstreamList {
    /// Asks `upstream` for `resource` once.
    ///
    /// # Errors
    /// What the answer, or its absence, means.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn get(&self, upstream: &Arc<Upstream>, resource: &Resource, ask: &Ask) -> Result<Answer, Failure> {
        match &upstream.source {
            Source::Off => {
                Err(Failure::Offline { upstream: Arc::clone(&upstream.name), reason: "switched off".to_owned() })
            }
            Source::Folder(root) => open_in_folder(upstream, root, resource, ask).await,
            Source::Http { base, credentials, egress, .. } => {
                get_from(upstream, &address(base, &resource.url_path()), credentials.as_ref(), egress, ask).await
            }
            Source::Database { base, egress, .. } => {
                get_from(upstream, &address(base, &below_database(resource)), None, egress, ask).await
            }
        }
    }
}

async fn get_from(
    upstream: &Arc<Upstream>,
    address: &str,
    credentials: Option<&Credentials>,
    egress: &Egress,
    ask: &Ask,
) -> Result<Answer, Failure> {
    if let Some(reason) = upstream.down_reason() {
        return Err(Failure::Offline { upstream: Arc::clone(&upstream.name), reason });
    }
    let network = |error: egress::Error| failure_of(upstream, error);
    let url = Url::parse(address).map_err(|err| network(egress::Error::Redirect(format!("bad address: {err}"))))?;
    let response = egress.get(&url, &headers(ask), credentials).await.map_err(network)?;
    upstream.note_answer();
    read_answer(upstream, response, ask).await
}

/// Returns what an error on the way to `upstream` means.
fn failure_of(upstream: &Upstream, error: egress::Error) -> Failure {
    let name = Arc::clone(&upstream.name);
    match error {
        // Asking again would only lead there again.
        egress::Error::Redirect(_) => Failure::Rejected { upstream: name, reason: error.to_string() },
        // The proxy's policy, or what it makes of the request, is an answer to the request.
        egress::Error::Denied { status: status @ 400..=499, .. } if !matches!(status, 408 | 425 | 429) => {
            // What a proxy wants of Larder is not to be asked of Larder's client.
            let status = if status == 407 { 403 } else { status };
            let body = Bytes::from(format!("{name}: {error}\n"));
            Failure::Refused { upstream: name, status, body }
        }
        _ => Failure::Network { upstream: name, error },
    }
}

/// Returns what an answer means to somebody who asked `ask`.
async fn read_answer(upstream: &Upstream, mut response: Response, ask: &Ask) -> Result<Answer, Failure> {
    let name = || Arc::clone(&upstream.name);
    let rejected = |reason: &str| Failure::Rejected { upstream: name(), reason: reason.to_owned() };
    match response.status.as_u16() {
        200 => Ok(answer(response, Part::Whole, None)),
        206 => {
            let range = content_range(&response.headers).ok_or_else(|| rejected("bad Content-Range"))?;
            match ask.range {
                Some(wanted) if range.is_what_was_asked(wanted) => {
                    Ok(answer(response, Part::From(range.start), Some(range.length)))
                }
                Some(_) => Err(rejected("another range than asked for")),
                None => Err(rejected("status 206 without a range having been asked for")),
            }
        }
        304 if ask.if_none_match.is_some() || ask.if_modified_since.is_some() => {
            Ok(answer(response, Part::NotModified, None))
        }
        // The file is shorter than what we have of it, so it is another one.
        416 if ask.range.is_some() => Err(Failure::Changed { upstream: name() }),
        status @ (404 | 410) => {
            Err(Failure::NotFound(NotFound { status, body: text(&mut response).await, upstream: name() }))
        }
        status @ (429 | 500..=599) => {
            let retry_after = retry_after(&response.headers);
            Err(Failure::Unavailable { upstream: name(), status, retry_after })
        }
        status @ 400..=499 => Err(Failure::Refused { upstream: name(), status, body: text(&mut response).await }),
        status => Err(rejected(&format!("unexpected status {status}"))),
    }
}

/// Returns the URL of a path below `base`.
fn address(base: &Url, path: &str) -> String {
    format!("{}/{path}", base.as_str().trim_end_matches('/'))
}

/// Returns the path of a checksum database's file at its own address.
fn below_database(resource: &Resource) -> String {
    let path = resource.url_path();
    let prefix = resource.sumdb_name().map(|name| format!("sumdb/{name}/")).unwrap_or_default();
    path.strip_prefix(&prefix).map(str::to_owned).unwrap_or(path)
}

fn headers(ask: &Ask) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: Option<String>| {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    };
    set(
        RANGE,
        ask.range.map(|(start, end)| match end {
            Some(end) => format!("bytes={start}-{}", end.saturating_sub(1)),
            None => format!("bytes={start}-"),
        }),
    );
    set(IF_RANGE, ask.if_range.clone());
    set(IF_NONE_MATCH, ask.if_none_match.clone());
    set(IF_MODIFIED_SINCE, ask.if_modified_since.clone());
    headers
}

fn answer(response: Response, part: Part, length: Option<u64>) -> Answer {
    let header = |name: HeaderName| response.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let etag = header(ETAG);
    let last_modified = header(LAST_MODIFIED);
    let rested = || {
        let modified = httpdate::parse_http_date(last_modified.as_deref()?).ok()?;
        let sent = httpdate::parse_http_date(&header(DATE)?).ok()?;
        (sent.duration_since(modified).ok()? >= LAST_MODIFIED_RESTS).then(|| last_modified.clone())?
    };
    let strong_etag = etag.clone().filter(|etag| etag.starts_with('"'));
    Answer {
        part,
        length: length.or_else(|| header(CONTENT_LENGTH).and_then(|value| value.parse().ok())),
        validator: strong_etag.or_else(rested),
        has_ranges: part != Part::Whole || header(ACCEPT_RANGES).is_some_and(|unit| unit.eq_ignore_ascii_case("bytes")),
        etag,
        last_modified,
        body: Body::Network(response.body),
    }
}

/// `Content-Range: bytes FIRST-LAST/LENGTH`, with what `Content-Length` says beside it.
struct ContentRange {
    start: u64,
    end: u64,
    length: u64,
    body_bytes: Option<u64>,
}

impl ContentRange {
    /// A range that is not exactly what was asked for, or whose two lengths differ, cannot be put in its place.
    fn is_what_was_asked(&self, (start, end): (u64, Option<u64>)) -> bool {
        let wanted_end = end.unwrap_or(self.length).min(self.length);
        let is_whole = self.body_bytes.is_none_or(|bytes| bytes == self.end - self.start);
        self.start == start && self.end == wanted_end && is_whole
    }
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, length) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (start, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    let end = last.checked_add(1).filter(|end| start < *end)?;
    let body_bytes = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    Some(ContentRange { start, end, length: length.parse().ok()?, body_bytes })
}

/// Returns the seconds of a `Retry-After`; the form with a date counts as "not now" and is left to the usual pause.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Returns the beginning of an error's body. A body that breaks off, or dawdles, is shown as far as it came.
async fn text(response: &mut Response) -> Bytes {
    let mut body = Vec::new();
    let read = async {
        while body.len() < TEXT_BYTES_MAX {
            match response.body.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) | Err(_) => break,
            }
        }
    };
    // Out of patience, what has come has to do.
    let _ = timeout(TEXT_TIMEOUT, read).await;
    body.truncate(TEXT_BYTES_MAX);
    Bytes::from(body)
}

async fn open_in_folder(
    upstream: &Arc<Upstream>,
    root: &Path,
    resource: &Resource,
    ask: &Ask,
) -> Result<Answer, Failure> {
    let path = root.join(resource.path());
    let opened = store::blocking(move || {
        let at = |source| store::Error::Io { path: path.display().to_string(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(err) if matches!(err.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(err) => return Err(at(err)),
        };
        let metadata = file.metadata().map_err(at)?;
        Ok(metadata.is_file().then_some((file, metadata.len())))
    });
    let Some((file, length)) = opened
        .await
        .map_err(|err| Failure::Rejected { upstream: Arc::clone(&upstream.name), reason: err.to_string() })?
    else {
        let body = Bytes::from(format!("not found: {}\n", resource.path()));
        return Err(Failure::NotFound(NotFound { status: 404, body, upstream: Arc::clone(&upstream.name) }));
    };
    let offset = ask.range.map_or(0, |(start, _)| start.min(length));
    Ok(Answer {
        part: if ask.range.is_some() { Part::From(offset) } else { Part::Whole },
        length: Some(length),
        etag: None,
        last_modified: None,
        validator: None,
        has_ranges: false,
        body: Body::File { file: Arc::new(file), offset, end: length },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Fallthrough;

    /// What a proxy does not allow is a refusal, and what it could not do is trouble of one request: neither is "not
    /// found", nor an upstream out of reach.
    #[test]
    fn a_proxys_answer_is_about_one_request() {
        let upstream = Upstream::new(Source::Off, Fallthrough::Comma);
        for (status, relayed) in [(403, Some(403)), (407, Some(403)), (413, Some(413)), (429, None), (503, None)] {
            let said = format!("status {status}: ERR_X");
            let failure = failure_of(&upstream, egress::Error::Denied { proxy: "http://p:1".to_owned(), status, said });
            assert!(!failure.is_unreachable(), "{failure}");
            match (failure, relayed) {
                (Failure::Refused { status: got, body, .. }, Some(status_relayed)) => {
                    assert_eq!(got, status_relayed);
                    let text = String::from_utf8(body.to_vec()).unwrap();
                    assert!(text.ends_with(&format!("proxy: http://p:1: status {status}: ERR_X\n")), "{text}");
                }
                (failure @ Failure::Network { .. }, None) => assert!(failure.is_transient()),
                (failure, _) => panic!("{status}: {failure}"),
            }
        }
    }
}
