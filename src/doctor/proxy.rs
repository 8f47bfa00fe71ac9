//! Whether each proxy can be reached, lets us in and leads to the upstream.
//!
//! Called by `doctor`; calls `net::proxy` for each proxy alone, and `net::egress` through it, so that a plain http
//! upstream is asked as the service asks it. No credentials of an upstream are sent.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, StatusCode};
use tokio::time::timeout;

use super::{Subject, Way, hints, ways};
use crate::check::{Check, Outcome};
use crate::net::egress::{self, Egress, Route};
use crate::net::proxy::{Entry, Kind, NoProxy, Proxies};
use crate::net::tls::Trust;

const STEP: &str = "proxy";
/// One that leads nowhere within this time does not.
const LIMIT: Duration = Duration::from_secs(20);
/// A proxy that takes longer than this is felt in every build.
const SLOW: Duration = Duration::from_secs(3);

/// Says that there is nothing to look at.
pub(super) fn none(subject: &Subject) -> Vec<Check> {
    let has_proxies = ways(subject).iter().any(|way| way.egress.route().proxies.has_proxies());
    let text = if has_proxies {
        "no upstream is reached through one (NO_PROXY)"
    } else {
        "none: upstreams are reached directly"
    };
    vec![Check::new(STEP, "", Outcome::Skip, text)]
}

/// Asks the upstream through each proxy of the way alone.
pub(super) async fn look(way: Way<'_>, trust: &Trust) -> Vec<Check> {
    let route = way.egress.route();
    let asked = route.proxies.entries().into_iter().map(|entry| {
        let (name, is_http) = match &entry {
            Entry::Server(server) => (Some(server.name.clone()), matches!(server.kind, Kind::Http | Kind::Https)),
            Entry::Direct => (None, false),
        };
        let is_given_requests = way.url.scheme() == "http" && is_http;
        let bootstrap = Arc::clone(route.proxies.bootstrap());
        let entries = vec![entry];
        let alone = Proxies::new(entries, NoProxy::default(), bootstrap, trust, way.clock.clone());
        let route = Route { proxies: Arc::new(alone), resolver: route.resolver.clone() };
        let circumstances = hints::Circumstances::of(&way.target, &route);
        let egress = Egress::new(egress::Config::default(), route, trust);
        let way = &way;
        async move {
            let began = way.clock.steady();
            let answer = timeout(LIMIT, egress.get(way.url, &HeaderMap::new(), None)).await;
            let took = way.clock.steady().duration_since(began);
            let answer = answer.unwrap_or(Err(egress::Error::HeaderTimeout(LIMIT))).map(|response| response.status);
            // Reaching it directly is no proxy's business, but counts as a way.
            let subject = name.clone().unwrap_or_default();
            let check = judge(subject, (is_given_requests, circumstances), &way.target.to_string(), answer);
            (name.is_some(), check.took(took))
        }
    });
    settled(join_all(asked).await)
}

/// Of several ways one that leads there is enough: what is wrong with the others is then worth a look and no more.
fn settled(found: Vec<(bool, Check)>) -> Vec<Check> {
    let is_led = found.iter().any(|(_, check)| check.outcome == Outcome::Pass);
    let proxies = found.into_iter().filter(|(is_proxy, _)| *is_proxy);
    let checks = proxies.map(|(_, check)| match check.outcome {
        Outcome::Fail if is_led => Check { outcome: Outcome::Warn, ..check },
        Outcome::Pass | Outcome::Warn | Outcome::Fail | Outcome::Skip => slow(check),
    });
    checks.collect()
}

fn judge(
    name: String,
    (is_given_requests, way): (bool, hints::Circumstances),
    target: &str,
    answer: Result<StatusCode, egress::Error>,
) -> Check {
    let failed = |name: String, text: String| {
        let hint = hints::of_proxy(&text);
        Check::new(STEP, name, Outcome::Fail, text).hint(hint)
    };
    match answer {
        // Through a tunnel it is the upstream's own answer, whatever it is.
        Ok(status) if is_given_requests && matches!(status.as_u16(), 403 | 405 | 500..=599) => {
            let text = format!("answers {status} to a request for {target}, or the upstream behind it does");
            let hint = hints::of_tunnel(&format!("status {}", status.as_u16()), way);
            Check::new(STEP, name, Outcome::Warn, text).hint(hint)
        }
        Ok(_) => Check::new(STEP, name, Outcome::Pass, format!("leads to {target}")),
        // A tunnel that passes nothing is none, whatever the proxy said of it.
        Err(egress::Error::Tls { reason, .. }) if hints::is_silence(&reason) => {
            let reason = reason.strip_prefix(&format!("through {name}: ")).unwrap_or(&reason);
            let text = format!("takes the connection to {target}, and nothing came through: {reason}");
            let hint = "the proxy hangs, or what it leads to does: name another one behind it in -proxy";
            Check::new(STEP, name, Outcome::Fail, text).hint(hint)
        }
        // The tunnel stood: what its other end said is told with the upstream.
        Err(egress::Error::Tls { .. } | egress::Error::Elsewhere { .. } | egress::Error::Redirect(_)) => {
            Check::new(STEP, name, Outcome::Pass, format!("leads to {target}"))
        }
        Err(egress::Error::Proxy { reason, .. }) => failed(name, reason),
        Err(egress::Error::Denied { said, .. }) => {
            let text = format!("does not lead to {target}: {said}");
            Check::new(STEP, name, Outcome::Fail, text).hint(hints::of_tunnel(&said, way))
        }
        Err(egress::Error::Connect { reason, .. }) => {
            let reason = reason.strip_prefix(&format!("through {name}: ")).unwrap_or(&reason);
            let text = format!("does not lead to {target}: {reason}");
            Check::new(STEP, name, Outcome::Fail, text).hint(hints::of_tunnel(reason, way))
        }
        Err(egress::Error::Dns { .. }) => {
            let text = "not tried: it is given addresses, and dns (above) finds none";
            Check::new(STEP, name, Outcome::Skip, text)
        }
        Err(
            err @ (egress::Error::HeaderTimeout(_)
            | egress::Error::Stalled(_)
            | egress::Error::TooSlow(_)
            | egress::Error::Ended(_)),
        ) => failed(name, format!("to {target}: {err}")),
    }
}

fn slow(check: Check) -> Check {
    let is_slow = check.outcome == Outcome::Pass && check.took.is_some_and(|took| took > SLOW);
    if is_slow {
        let text = format!("{}, but slowly", check.text);
        return Check { outcome: Outcome::Warn, text, ..check }.hint("put a faster proxy before it in -proxy");
    }
    check
}
