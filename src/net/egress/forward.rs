//! Requests for plain http where there are proxies: an HTTP proxy is given the whole of them.
//!
//! Called by `egress`; calls `proxy`. Connecting proves nothing here, since the proxy's first word is the answer. So the
//! ways are asked in order with the request itself, the next one beside a silent one, as long as the first has not been
//! found to be well a moment ago; then it is asked alone, and a slow answer is the target's.
//!
//! Invariant: what proves to a proxy who asks goes over connections to that proxy alone; each way has its own.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http::header::PROXY_AUTHORIZATION;
use http_body_util::Empty;

use crate::net::candidates::Miss;
use crate::net::egress::response::{OfTheProxy, of_the_proxy};
use crate::net::egress::{Egress, Error, Pools, Response};
use crate::net::target::{Host, Target};

impl Egress {
    /// Sends a request for plain http through the first way that can.
    pub(super) async fn send_by_a_way(
        &self,
        pools: &Pools,
        request: &Request<Empty<Bytes>>,
        to: &Target,
    ) -> Result<Response, Error> {
        let proxies = &self.0.connector.route.proxies;
        let preferred = proxies.preferred();
        let mut failed = None;
        if self.0.trusts_ways && proxies.is_proven(preferred) {
            let began = proxies.now();
            let result = self.send_by(pools, preferred, request).await;
            proxies.note(preferred, proxies.now().duration_since(began), &result);
            match result.map_err(Miss::into_inner) {
                Ok(response) => return Ok(response),
                Err(error @ Error::HeaderTimeout(_)) => return Err(error),
                Err(error) if pools.of_ways.len() == 1 => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        if let (true, Host::Name(name)) = (proxies.needs_addresses(preferred), &to.host) {
            // A slow look-up is nothing a proxy is to be blamed for. What it finds is remembered there.
            let _ = self.0.connector.route.resolver.resolve(name, to.port).await;
        }
        let without = failed.as_ref().map(|_| preferred);
        let asked = proxies.first(without, |way| -> BoxFuture<'_, Result<Response, Miss<Error>>> {
            Box::pin(self.send_by(pools, way, request))
        });
        asked.await.map_err(|errors| together(failed.into_iter().chain(errors)))
    }

    /// Sends a request by this way alone, and tells whose fault a failure is.
    async fn send_by(
        &self,
        pools: &Pools,
        way: usize,
        request: &Request<Empty<Bytes>>,
    ) -> Result<Response, Miss<Error>> {
        let proxies = &self.0.connector.route.proxies;
        let is_taken = proxies.takes_requests(way);
        let was_proven = proxies.is_proven(way);
        let mut request = request.clone();
        if let Some(authorization) = proxies.authorization(way) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let dead = |error: crate::net::proxy::Error| Err(Miss::Dead(Error::from(error)));
        let limit = proxies.connect_limit(is_taken) + self.0.config.header_timeout;
        let mut is_again = false;
        loop {
            return match self.send(&pools.of_ways[way], request.clone(), limit).await {
                Ok(response) if is_taken => match of_the_proxy(response.status, &response.headers) {
                    None => Ok(response),
                    Some(OfTheProxy::WhoAsks(said)) => dead(proxies.not_let_in(way, &said)),
                    Some(OfTheProxy::CouldNot(said)) => {
                        let (proxy, status) = (proxies.name(way), response.status.as_u16());
                        Err(Miss::Unable(Error::Denied { proxy, status, said }))
                    }
                },
                Ok(response) => Ok(response),
                // A connection that was kept may have been closed at that moment.
                Err(Error::Ended(_)) if is_taken && !is_again => {
                    is_again = true;
                    continue;
                }
                Err(Error::Ended(reason)) if is_taken => dead(proxies.broken(way, reason)),
                Err(Error::HeaderTimeout(limit)) if is_taken && !was_proven => {
                    dead(proxies.broken(way, format!("no answer within {} s", limit.as_secs())))
                }
                Err(error @ Error::Proxy { .. }) => Err(Miss::Dead(error)),
                Err(error) => Err(Miss::Unable(error)),
            };
        }
    }
}

/// Makes one error of what several ways said: an answer to the request counts more than what was found out about the
/// target, and that more than what is wrong with a proxy.
fn together(errors: impl Iterator<Item = Error>) -> Error {
    let mut errors: Vec<Error> = errors.collect();
    let weight = |error: &Error| match error {
        Error::Denied { .. } => 2,
        Error::Proxy { .. } => 0,
        Error::Dns { .. }
        | Error::Connect { .. }
        | Error::Tls { .. }
        | Error::HeaderTimeout(_)
        | Error::Stalled(_)
        | Error::TooSlow(_)
        | Error::Ended(_)
        | Error::Elsewhere { .. }
        | Error::Redirect(_) => 1,
    };
    let heaviest = errors.iter().map(weight).max().unwrap_or_default();
    let first = errors.iter().position(|error| weight(error) == heaviest).unwrap_or_default();
    if errors.is_empty() {
        return Error::Ended("no way to try".to_owned());
    }
    let mut first = errors.remove(first);
    for other in errors {
        match &mut first {
            Error::Dns { reason, .. }
            | Error::Connect { reason, .. }
            | Error::Tls { reason, .. }
            | Error::Proxy { reason, .. }
            | Error::Denied { said: reason, .. }
            | Error::Ended(reason) => *reason = format!("{reason}; {other}"),
            Error::HeaderTimeout(_)
            | Error::Stalled(_)
            | Error::TooSlow(_)
            | Error::Elsewhere { .. }
            | Error::Redirect(_) => {}
        }
    }
    first
}
