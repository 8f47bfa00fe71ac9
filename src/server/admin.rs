//! What Larder says about itself over HTTP: a front page for people and `/health` for machines.
//!
//! Called by `handler` before anything is taken for a module; calls `cache` for the figures. Asks no upstream.
//! `/health?verbose` adds the latest state of each step of the way out, as far as it is known from requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::cache::Cache;
use crate::check::Check;
use crate::server::body::Body;
use crate::server::respond;
use crate::store;
use crate::store::alarms::Alarm;
use crate::verify::{Database, Mode};

/// A dead disk must not keep a look at the rest.
const CHECKS_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the latest state of each step of the way out; may wait for the disk.
pub type Checks = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// Answers the paths that are not modules.
pub struct Admin {
    /// What is reported on.
    pub cache: Arc<Cache>,
    /// When this run began, by the steady clock.
    pub started: Instant,
    /// Tells of the way out.
    pub checks: Checks,
    /// Held by the one who asks the disk: a dead one gets one thread, however often somebody asks.
    pub looking: Arc<Mutex<()>>,
}

impl Admin {
    /// Returns the answer to `path`, if it is one of ours.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub(super) async fn answer(&self, uri: &Uri, headers: &HeaderMap) -> Option<Response<Body>> {
        match uri.path() {
            "/health" if is_verbose(uri) => Some(health(&self.verbose_report().await)),
            "/health" => Some(health(&self.report())),
            "/" => Some(front_page(headers)),
            _ => None,
        }
    }

    async fn verbose_report(&self) -> Value {
        let checks = Arc::clone(&self.checks);
        let looking = Arc::clone(&self.looking);
        let look = async {
            let turn = looking.lock_owned().await;
            let work = move || {
                let _turn = turn;
                Ok(checks())
            };
            store::blocking(work).await
        };
        let checks = timeout(CHECKS_TIMEOUT, look).await;
        let mut report = self.report();
        report["checks"] = match checks {
            Ok(Ok(checks)) => json!(checks),
            // The report itself says that it could not be had.
            Ok(Err(_)) | Err(_) => Value::Null,
        };
        report
    }

    /// Returns how this Larder is doing, for `/health` and `larder status`.
    pub fn report(&self) -> Value {
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
        let verifier = &cache.verifier;
        let open = verifier.alarms().open();
        let alarms: Vec<_> = open
            .iter()
            .map(|alarm| {
                json!({
                    "id": alarm.id,
                    "kind": alarm.kind.to_string(),
                    "subject": alarm.subject,
                    "text": alarm.text,
                    "raised": alarm.raised.0,
                    "count": alarm.count,
                })
            })
            .collect();
        json!({
            "status": if open.iter().any(Alarm::is_latched) { "alarm" } else { "ok" },
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": cache.clock.steady().duration_since(self.started).as_secs(),
            "is_clock_trusted": cache.clock.trusted_now().is_some(),
            "cache_dir": cache.store.root().display().to_string(),
            "stored_files": totals.files,
            "stored_bytes": totals.bytes,
            "downloads": cache.fills.growing().len(),
            "upstreams": upstreams,
            "sumdb": self.databases(),
            "unverified": verifier.unverified.len(),
            "alarms": alarms,
        })
    }

    /// Returns how the checksum databases are doing: the one that judges, and those that are only passed on.
    fn databases(&self) -> Vec<Value> {
        let verifier = &self.cache.verifier;
        let state = |database: &Database| {
            let reason = database.down_reason();
            let state = match (verifier.alarms().latched(database.name.as_str()), &reason, database.can_serve()) {
                (Some(_), _, _) => "alarm",
                (None, Some(_), _) => "unreachable",
                (None, None, true) => "ok",
                (None, None, false) => "never reached",
            };
            (state, reason)
        };
        let judges = |database: &Database| verifier.database().is_some_and(|judge| judge.name == database.name);
        let report = |database: &Arc<Database>| {
            let (state, reason) = state(database);
            let mode = match (judges(database), verifier.mode()) {
                (false, _) => "proxied only",
                (true, Mode::WhenReachable) => "when-reachable",
                (true, Mode::Strict) => "strict",
            };
            json!({
                "name": database.name.to_string(),
                "mode": mode,
                "size": database.known_head().map(|head| head.head().size),
                "state": state,
                "reason": reason,
            })
        };
        verifier.databases().map(report).collect()
    }
}

fn is_verbose(uri: &Uri) -> bool {
    let mut words = uri.query().unwrap_or_default().split('&');
    words.any(|word| matches!(word, "verbose" | "verbose=1" | "verbose=true"))
}

fn health(report: &Value) -> Response<Body> {
    let mut response = Response::new(Body::Bytes(Bytes::from(report.to_string())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
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
