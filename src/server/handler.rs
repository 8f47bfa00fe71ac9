//! One request: what it asks for, and which part of Larder answers.
//!
//! Called by the connection layer with every request; calls `cache` and `admin`, and leaves the answer's form to
//! `respond`. The order of the steps is the order of this file: method, path, cache, log.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::cache::{Cache, FetchMode};
use crate::clock::Clock;
use crate::resource::Resource;
use crate::server::admin::Admin;
use crate::server::body::Body;
use crate::server::{ConnectionInfo, respond};

/// A path below this is answered only from what is stored.
const CACHED_ONLY: &str = "/cached-only";

/// Answers requests.
pub struct Handler {
    /// Where modules come from.
    pub cache: Arc<Cache>,
    /// Everything that is not a module.
    pub admin: Admin,
    /// Whether every request is logged.
    pub log_requests: bool,
    /// The time.
    pub clock: Clock,
}

impl Handler {
    /// Answers one request.
    ///
    /// # Cancel safety
    /// A fill that was started goes on when the future is dropped.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>, connection: ConnectionInfo) -> Response<Body> {
        if !self.log_requests {
            return self.answer(&request, connection).await;
        }
        let started = self.clock.steady();
        let response = self.answer(&request, connection).await;
        let ms = self.clock.steady().duration_since(started).as_millis();
        let client: IpAddr = connection.peer.ip().to_canonical();
        log::info!(
            target: "request",
            "{client} {} {} status={} cache={} ms={ms}",
            request.method(),
            // A path may hold what a terminal would act on.
            request.uri().path().escape_debug(),
            response.status().as_u16(),
            respond::cache_word(&response),
        );
        response
    }

    async fn answer(&self, request: &Request<Incoming>, connection: ConnectionInfo) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return respond::method_not_allowed();
        }
        let path = request.uri().path();
        if let Some(response) = self.admin.answer(request.uri(), request.headers()).await {
            return response;
        }
        let (path, fetch_mode) = match path.strip_prefix(CACHED_ONLY).filter(|rest| rest.starts_with('/')) {
            Some(rest) => (rest, FetchMode::CachedOnly),
            None if wants_no_fetch(request) => (path, FetchMode::CachedOnly),
            None => (path, FetchMode::Fetch),
        };
        let resource = match Resource::from_request_path(path) {
            Ok(resource) => resource,
            Err(error) => return respond::malformed(&error),
        };
        match self.cache.get(&resource, fetch_mode, Some(connection.peer.ip().to_canonical())).await {
            Ok(reply) => respond::found(&resource, reply, request.headers()),
            Err(error) => respond::failed(&resource, &error),
        }
    }
}

fn wants_no_fetch(request: &Request<Incoming>) -> bool {
    request.headers().get("disable-module-fetch").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}
