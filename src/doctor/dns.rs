//! Whether each DNS server answers, and what it says the upstream's address is.
//!
//! Called by `doctor`; calls `net::resolver`, which asks every server itself and past the cache, and `net::proxy`
//! to see whether the system's answer leads anywhere: it is the one that is lied to.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::{Way, hints};
use crate::check::{Check, Outcome};
use crate::net::proxy;
use crate::net::resolver::Answer;
use crate::net::target::Host;

const STEP: &str = "dns";
/// A server that takes longer than this is felt in every build.
const SLOW: Duration = Duration::from_secs(1);
/// Who answers before any server is asked.
const HOSTS_FILE: &str = "/etc/hosts";
/// A connection that is not there within this time is felt as none.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// More addresses than this are not for reading.
const ADDRESSES_SHOWN_MAX: usize = 4;

/// Returns what is asked on this way, and of whom, so that it is asked once; `None` if there is nothing to ask.
pub(super) fn question(way: &Way<'_>) -> Option<(String, Vec<String>)> {
    match &way.target.host {
        Host::Address(_) => None,
        Host::Name(name) => Some((name.clone(), way.egress.route().resolver.ways())),
    }
}

/// Asks every server for the upstream's name.
pub(super) async fn look(way: Way<'_>) -> Vec<Check> {
    let Host::Name(name) = &way.target.host else { return Vec::new() };
    let route = way.egress.route();
    if !route.proxies.is_direct(&way.target) && route.proxies.resolves_names() {
        let text = format!("looked up by {}, not from here", route.proxies.names().join(", "));
        return vec![Check::new(STEP, name, Outcome::Skip, text)];
    }
    if route.resolver.is_system() {
        let (answers, is_reached) = tokio::join!(route.resolver.probe(name), is_reached(&way));
        let doubt = hints::Circumstances::of(&way.target, route).doubt().filter(|_| !is_reached);
        let judged = answers.into_iter().map(|(server, answer)| judge(name, server, answer));
        return judged.map(|check| doubted(check, doubt.as_deref())).collect();
    }
    // What stands in the machine's own file is asked of nobody.
    let (looked_up, answers) = tokio::join!(route.resolver.lookup(name), route.resolver.probe(name));
    match looked_up {
        Ok(answer) if answer.source == HOSTS_FILE => vec![judge(name, HOSTS_FILE.to_owned(), Ok(answer))],
        looked_up => {
            let is_answered = looked_up.is_ok();
            let judged = answers.into_iter().map(|(server, answer)| {
                let is_silent = answer.is_err();
                let check = judge(name, server, answer);
                // One that is out of order beside one that answers costs nobody anything but a moment.
                if is_silent && is_answered { Check { outcome: Outcome::Warn, ..check } } else { check }
            });
            judged.collect()
        }
    }
}

/// Tells whether the address that was found leads to the upstream. What is wrong with a proxy itself proves nothing.
async fn is_reached(way: &Way<'_>) -> bool {
    let route = way.egress.route();
    let resolve = |host: &str| {
        let host = host.to_owned();
        async move { route.resolver.lookup(&host).await.map(|answer| answer.addresses) }
    };
    match timeout(CONNECT_LIMIT, route.proxies.connect(&way.target, resolve)).await {
        Ok(Ok(_) | Err(proxy::Error::Dns { .. } | proxy::Error::Proxy { .. } | proxy::Error::Tls { .. })) => true,
        Ok(Err(proxy::Error::Connect { .. })) => false,
        Err(_) => !route.proxies.is_direct(&way.target),
    }
}

fn doubted(check: Check, doubt: Option<&str>) -> Check {
    match doubt {
        Some(doubt) if matches!(check.outcome, Outcome::Pass | Outcome::Warn) => {
            let text = format!("{}, which does not lead there", check.text);
            Check { outcome: Outcome::Warn, text, ..check }.hint(doubt)
        }
        Some(_) | None => check,
    }
}

fn judge(name: &str, server: String, answer: Result<Answer, String>) -> Check {
    let answer = match answer {
        Ok(answer) => answer,
        Err(reason) => {
            // The server's name stands before the text already.
            let reason = reason.strip_prefix(&format!("{server}: ")).unwrap_or(&reason).to_owned();
            if is_about_itself(&server, name, &reason) {
                let hint = "the server's own name is not found: write its address in -dns, or name a -dns-bootstrap";
                return Check::new(STEP, server, Outcome::Fail, format!("not reached: {reason}")).hint(hint);
            }
            let hint = hints::of_dns(&reason);
            let text = if reason.contains(name) { reason } else { format!("{name}: {reason}") };
            return Check::new(STEP, server, Outcome::Fail, text).hint(hint);
        }
    };
    let shown: Vec<String> = answer.addresses.iter().take(ADDRESSES_SHOWN_MAX).map(ToString::to_string).collect();
    let source = if answer.source == server { String::new() } else { format!(" ({})", answer.source) };
    let text = format!("{name} is {}{source}", shown.join(", "));
    let check = |outcome, text| Check::new(STEP, server, outcome, text).took(answer.took);
    if answer.addresses.iter().all(|address| is_nowhere(*address)) && name != "localhost" {
        let text = format!("{text}, which leads nowhere: the name is blocked there");
        return check(Outcome::Fail, text).hint("ask another server with -dns, one that can be trusted");
    }
    if answer.took > SLOW {
        return check(Outcome::Warn, format!("{text}, but slowly")).hint("ask a server nearer with -dns");
    }
    check(Outcome::Pass, text)
}

/// Tells whether it was the server's own name that could not be looked up.
fn is_about_itself(server: &str, name: &str, reason: &str) -> bool {
    let authority = server.split_once("://").map_or(server, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    matches!(Host::parse(host), Host::Name(own) if own != name && reason.contains(&format!("{own}: ")))
}

/// Filters answer with addresses that are nobody's.
fn is_nowhere(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(addresses: &[&str], took_ms: u64) -> Answer {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Answer { addresses, source: "udp://192.0.2.1:53".to_owned(), took: Duration::from_millis(took_ms) }
    }

    /// An answer passes with its addresses; a slow one is worth a look; one that leads nowhere is a lie.
    #[test]
    fn answers() {
        let judged = |answer| judge("a.example", "udp://192.0.2.1:53".to_owned(), answer);
        let good = judged(Ok(answer(&["2001:db8::7", "192.0.2.7"], 12)));
        assert_eq!((good.outcome, good.text.as_str()), (Outcome::Pass, "a.example is 2001:db8::7, 192.0.2.7"));
        assert_eq!(judged(Ok(answer(&["192.0.2.7"], 1500))).outcome, Outcome::Warn);
        assert_eq!(judged(Ok(answer(&["0.0.0.0"], 1))).outcome, Outcome::Fail);
        let failed = judged(Err("udp://192.0.2.1:53: a.example: no such name".to_owned()));
        assert_eq!((failed.outcome, failed.text.as_str()), (Outcome::Fail, "a.example: no such name"));
        assert!(failed.hint.is_some());
        let lost = Err("system resolver: dns.example: name or service not known".to_owned());
        let lost = judge("a.example", "https://dns.example:443/dns-query".to_owned(), lost);
        assert!(lost.hint.is_some_and(|hint| hint.contains("-dns-bootstrap")), "{}", lost.text);
    }
}
