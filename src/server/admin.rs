//! What Larder says about itself over HTTP: a front page for people and `/health` for machines.
//!
//! Called by `handler` before anything is taken for a module; calls `cache` for the figures. Asks no upstream.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::cache::Cache;
use crate::server::body::Body;
use crate::server::respond;

/// Answers the paths that are not modules.
pub struct Admin {
    /// What is reported on.
    pub cache: Arc<Cache>,
    /// When this run began, by the steady clock.
    pub started: Instant,
}

impl Admin {
    /// Returns the answer to `path`, if it is one of ours.
    pub(super) fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        match path {
            "/health" => Some(self.health()),
            "/" => Some(front_page(headers)),
            _ => None,
        }
    }

    fn health(&self) -> Response<Body> {
        let body = self.report().to_string();
        let mut response = Response::new(Body::Bytes(Bytes::from(body)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// Returns how this Larder is doing, for `/health` and `larder status`.
    pub fn report(&self) -> serde_json::Value {
        let cache = &self.cache;
        let totals = cache.index.totals();
        let upstreams: Vec<_> = cache
            .upstreams
            .all()
            .map(|upstream| {
                let reason = upstream.down_reason();
                json!({
                    "name": &*upstream.name,
                    "state": if reason.is_some() { "down" } else { "ok" },
                    "reason": reason,
                })
            })
            .collect();
        json!({
            "status": "ok",
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": cache.clock.steady().duration_since(self.started).as_secs(),
            "is_clock_trusted": cache.clock.trusted_now().is_some(),
            "cache_dir": cache.store.root().display().to_string(),
            "stored_files": totals.files,
            "stored_bytes": totals.bytes,
            "downloads": cache.fills.growing().len(),
            "upstreams": upstreams,
        })
    }
}

fn front_page(headers: &HeaderMap) -> Response<Body> {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    // Only what a host and port can be made of is repeated to the reader.
    let is_plain = |host: &&str| host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
    let host = host.filter(is_plain).unwrap_or("THIS-HOST:12345");
    let page = format!(
        "Larder {}, a Go module cache.\n\nTo use it:\n\n    go env -w GOPROXY=http://{host}\n\n\
         How it is doing: http://{host}/health\n",
        env!("CARGO_PKG_VERSION")
    );
    respond::text(StatusCode::OK, Bytes::from(page))
}
