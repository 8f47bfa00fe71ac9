//! Whether each upstream shows a good certificate and answers a small request; and the checksum database.
//!
//! Called by `doctor`; calls `net::egress` and `net::proxy` as the service does, and `chain` for the certificates.
//! Credentials go to the upstream they belong to, over a connection whose certificate is good, and nowhere else.

use std::path::Path;
use std::time::Duration;

use http::header::DATE;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use url::Url;

use super::hints::Circumstances;
use super::words::span;
use super::{Date, Found, Subject, Upstream, chain, hints};
use crate::check::{Check, Outcome};
use crate::clock::{Clock, UnixSeconds};
use crate::net::egress::{self, Credentials, Egress, Response};
use crate::net::proxy;
use crate::net::stream::Stream;
use crate::net::target::{Host, Target};
use crate::store;
use crate::upstream::Source;

const TLS: &str = "tls";
const STEP: &str = "upstream";
/// A connection with TLS that is not there within this time is felt as none.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// The handshake alone.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// An answer to a small request that is not there by then is none.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// An upstream that takes longer for a list is felt in every build.
const SLOW: Duration = Duration::from_secs(3);
/// A certificate that ends sooner is worth a word.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 86_400);
/// The list of a module that every public upstream has, and whose content does not matter.
const SMALL_REQUEST: &str = "golang.org/x/text/@v/list";
/// The head of an answer that only its date is read of.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Returns where an upstream is.
pub(super) fn target(base: &Url) -> Option<Target> {
    Some(Target { host: Host::parse(base.host_str()?), port: base.port_or_known_default()? })
}

/// Looks at one upstream.
pub(super) async fn look(upstream: &Upstream, subject: &Subject) -> Found {
    match &upstream.source {
        Source::Off => {
            let text = "nobody further is asked from here on";
            vec![Check::new(STEP, "off", Outcome::Skip, text)].into()
        }
        Source::Folder(path) => {
            let folder = path.clone();
            let looked = store::blocking(move || Ok(folder_check(&folder))).await;
            let name = format!("file://{}", path.display());
            vec![looked.unwrap_or_else(|err| Check::new(STEP, name, Outcome::Fail, err.to_string()))].into()
        }
        Source::Http { base, name, credentials, egress } => {
            // What only a private upstream has is not known here; whether it lets us in is.
            let path = if upstream.is_private { "" } else { SMALL_REQUEST };
            reach(&Question { name, base, path, credentials: credentials.as_ref(), egress }, subject).await
        }
        Source::Database { base, name, egress } => {
            reach(&Question { name, base, path: "latest", credentials: None, egress }, subject).await
        }
    }
}

async fn reach(question: &Question<'_>, subject: &Subject) -> Found {
    let Question { name, base, egress, .. } = question;
    let mut found = Found::default();
    if base.scheme() == "https" {
        match tls_checks(name, base, egress, subject, &mut found).await {
            Tls::Good => {}
            Tls::Bad => {
                found.checks.push(Check::new(STEP, *name, Outcome::Skip, "not asked, since TLS failed"));
                return found;
            }
            Tls::NotReached => return found,
        }
    }
    ask(STEP, question, &subject.clock, &mut found).await;
    found
}

/// Looks at the checksum database.
pub(super) async fn database(subject: &Subject) -> Found {
    const STEP: &str = "checksum database";
    let mut found = Found::default();
    match &subject.database {
        None => found.checks.push(Check::new(STEP, "", Outcome::Skip, "off: modules are not verified")),
        Some(database) if subject.is_offline => {
            found.checks.push(Check::new(STEP, &database.name, Outcome::Skip, "the network mode is offline"));
        }
        Some(database) => {
            let question = Question {
                name: &database.name,
                base: &database.url,
                path: "latest",
                credentials: None,
                egress: &database.egress,
            };
            ask(STEP, &question, &subject.clock, &mut found).await;
            found.date = None;
        }
    }
    found
}

enum Tls {
    Good,
    Bad,
    NotReached,
}

/// Connects as the service does, and shows the certificates.
async fn tls_checks(name: &str, base: &Url, egress: &Egress, subject: &Subject, found: &mut Found) -> Tls {
    let Some(to) = target(base) else { return Tls::Good };
    let clock = &subject.clock;
    let tls = subject.trust.client(&[b"h2", b"http/1.1"]);
    let began = clock.steady();
    let route = egress.route();
    let resolve = |host: &str| {
        let host = host.to_owned();
        async move { route.resolver.lookup(&host).await.map(|answer| answer.addresses) }
    };
    let connected = timeout(CONNECT_LIMIT, route.proxies.connect_tls(&to, resolve, &tls, HANDSHAKE_LIMIT)).await;
    let took = clock.steady().duration_since(began);
    let reason = match connected {
        Ok(Ok(stream)) => {
            found.checks.push(good(name, &chain::of(&stream), clock.now()).took(took));
            return Tls::Good;
        }
        Ok(Err(proxy::Error::Tls { reason, .. })) => reason,
        Ok(Err(err @ (proxy::Error::Dns { .. } | proxy::Error::Connect { .. } | proxy::Error::Proxy { .. }))) => {
            found.checks.push(unreachable(STEP, name, &err.to_string(), (base, egress)).took(took));
            return Tls::NotReached;
        }
        Err(_) => {
            found.checks.push(silent(STEP, name, "connection", CONNECT_LIMIT, (base, egress)));
            return Tls::NotReached;
        }
    };
    // Once more without asking who it is, to show whom we have met.
    let met = timeout(CONNECT_LIMIT, async {
        let stream = route.proxies.connect(&to, resolve).await.ok()?;
        chain::regardless(&to.host, stream, HANDSHAKE_LIMIT).await.ok()
    });
    let mut text = reason.clone();
    if let Ok(Some(stream)) = met.await {
        text = format!("{reason}; it is {}", chain::line(&chain::of(&stream)));
        if hints::is_about_time(&reason) {
            found.date = date_of(name, &to, stream, clock).await;
        }
    }
    let hint = if subject.trust.roots().is_empty() {
        "this machine has no root certificates: install ca-certificates".to_owned()
    } else {
        hints::of_upstream_on(&format!("tls: {reason}"), Circumstances::of(&to, route))
    };
    found.checks.push(Check::new(TLS, name, Outcome::Fail, text).hint(hint));
    Tls::Bad
}

fn good(name: &str, chain: &[chain::Certificate], now: UnixSeconds) -> Check {
    let text = format!("certificate {}", chain::line(chain));
    let left = chain.iter().map(|certificate| certificate.until).min().map(|until| until.since(now));
    match left.filter(|left| *left < EXPIRES_SOON) {
        Some(left) => Check::new(TLS, name, Outcome::Warn, format!("{text}; it ends in {}", span(left)))
            .hint("its operator has to renew it in time"),
        None => Check::new(TLS, name, Outcome::Pass, text),
    }
}

fn unreachable(step: &'static str, name: &str, reason: &str, (base, egress): (&Url, &Egress)) -> Check {
    let hint = match target(base) {
        Some(to) => hints::of_upstream_on(reason, Circumstances::of(&to, egress.route())),
        None => hints::of_upstream(reason),
    };
    Check::new(step, name, Outcome::Fail, reason).hint(hint)
}

/// Says that nothing came; several proxies that hang leave no time to say more.
fn silent(step: &'static str, name: &str, what: &str, limit: Duration, (base, egress): (&Url, &Egress)) -> Check {
    unreachable(step, name, &format!("no {what} within {} s", limit.as_secs()), (base, egress))
}

/// Asks a server that cannot be trusted what time it is, which is all that is taken from it.
async fn date_of(name: &str, to: &Target, mut stream: Stream, clock: &Clock) -> Option<Date> {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: larder/{}\r\nConnection: close\r\n\r\n",
        to.host,
        env!("CARGO_PKG_VERSION")
    );
    let answered = timeout(HANDSHAKE_LIMIT, async {
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = Vec::new();
        while head.len() < HEAD_BYTES_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(1..) => {}
                // A connection that ends has still said what it had to say.
                Ok(0) | Err(_) => break,
            }
        }
        Some(head)
    });
    let head = answered.await.ok()??;
    let head = String::from_utf8_lossy(&head);
    let is_date = |line: &&str| line.get(..5).is_some_and(|key| key.eq_ignore_ascii_case("date:"));
    let date = head.lines().take_while(|line| !line.is_empty()).find(is_date)?;
    dated(name, date.get(5..)?, clock)
}

fn dated(server: &str, text: &str, clock: &Clock) -> Option<Date> {
    let there = UnixSeconds::from_system_time(httpdate::parse_http_date(text.trim()).ok()?);
    Some(Date { server: server.to_owned(), here: clock.now(), there })
}

/// A small request.
struct Question<'a> {
    name: &'a str,
    base: &'a Url,
    path: &'a str,
    credentials: Option<&'a Credentials>,
    egress: &'a Egress,
}

async fn ask(step: &'static str, question: &Question<'_>, clock: &Clock, found: &mut Found) {
    let Question { name, base, path, credentials, egress } = question;
    let address = format!("{}/{path}", base.as_str().trim_end_matches('/'));
    let Ok(url) = Url::parse(&address) else { return };
    let began = clock.steady();
    let answer = timeout(ANSWER_LIMIT, egress.get(&url, &HeaderMap::new(), *credentials)).await;
    let took = clock.steady().duration_since(began);
    found.checks.push(match answer {
        Err(_) => silent(step, name, "answer", ANSWER_LIMIT, (base, egress)),
        Ok(Err(egress::Error::HeaderTimeout(limit))) => silent(step, name, "answer", limit, (base, egress)),
        Ok(Err(err)) => unreachable(step, name, &err.to_string(), (base, egress)).took(took),
        Ok(Ok(mut response)) => {
            let date = response.headers.get(DATE).and_then(|value| value.to_str().ok());
            found.date = date.and_then(|text| dated(name, text, clock));
            let is_page = response.status.is_success() && !path.is_empty() && is_web_page(&mut response).await;
            let check = judge(step, name, response.status, is_page, credentials.is_some(), took);
            match (&check.hint, target(base)) {
                // Plain requests are the proxy's to answer, and it cannot be told who did.
                (Some(hint), Some(to)) if base.scheme() == "http" && !egress.route().proxies.is_direct(&to) => {
                    let hint = format!("{hint}; or it was the proxy that said so");
                    check.hint(hint)
                }
                (Some(_) | None, _) => check,
            }
        }
    });
}

/// A captive portal or a filter answers everything with a page for people.
async fn is_web_page(response: &mut Response) -> bool {
    match timeout(HANDSHAKE_LIMIT, response.body.chunk()).await {
        Ok(Ok(Some(chunk))) => chunk.trim_ascii_start().starts_with(b"<"),
        Ok(Ok(None) | Err(_)) | Err(_) => false,
    }
}

fn judge(step: &'static str, name: &str, status: StatusCode, is_page: bool, is_known: bool, took: Duration) -> Check {
    let check = |outcome, text: String| Check::new(step, name, outcome, text).took(took);
    let failed = |text: &str, hint: &str| check(Outcome::Fail, format!("answers {status}{text}")).hint(hint);
    match status.as_u16() {
        200..=299 if is_page => failed(
            ", with a web page: something on the way answers in its place",
            "open the address in a browser: a network that wants a login, or a filter; -proxy leads around it",
        ),
        200..=299 | 404 | 410 if took > SLOW => {
            check(Outcome::Warn, format!("answers {status}, but slowly")).hint("put a nearer upstream before it")
        }
        200..=299 | 404 | 410 => check(Outcome::Pass, format!("answers {status}")),
        401 | 403 if is_known => failed(
            ": it does not let us in",
            "see to user name and password, or token, in `auth` of private_upstreams or in the upstream's URL",
        ),
        401 | 403 => failed(
            ": it wants to know who asks",
            "give user name and password, or a token, as `auth` in private_upstreams or in the upstream's URL",
        ),
        407 => failed(": a proxy wants to know who asks", "put user:password@ into the URL of -proxy"),
        429 => check(Outcome::Warn, format!("answers {status}: too many requests")).hint("it will do again later"),
        500..=599 => {
            failed("", "that is the upstream's own failure: try later, or name another one behind it in -upstream")
        }
        _ => failed("", "is this the address of a module proxy? See -upstream"),
    }
}

/// Looks at a folder that is an upstream. Blocks.
fn folder_check(path: &Path) -> Check {
    let check = |outcome, text: String| Check::new(STEP, format!("file://{}", path.display()), outcome, text);
    let mut entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(err) => {
            let hint = "is it mounted, and may the user Larder runs as read it?";
            return check(Outcome::Fail, format!("cannot be read: {err}")).hint(hint);
        }
    };
    if path.join("cache/download").is_dir() {
        return check(Outcome::Fail, "is a GOMODCACHE and no tree of a module proxy".to_owned())
            .hint(format!("the tree is in it: file://{}/cache/download", path.display()));
    }
    match entries.next() {
        None => check(Outcome::Warn, "is empty".to_owned()).hint("is something to be mounted there?"),
        Some(Err(err)) => check(Outcome::Fail, format!("cannot be read: {err}")),
        Some(Ok(_)) => check(Outcome::Pass, "can be read".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a status means for the way out, and what to do about it.
    #[test]
    fn statuses() {
        let judged = |status, is_page, is_known| {
            let took = Duration::from_millis(5);
            let check =
                judge(STEP, "https://a.example", StatusCode::from_u16(status).unwrap(), is_page, is_known, took);
            (check.outcome, format!("{} {}", check.text, check.hint.unwrap_or_default()))
        };
        for (status, outcome, word) in [
            (200, Outcome::Pass, "200"),
            (404, Outcome::Pass, "404"),
            (401, Outcome::Fail, "auth"),
            (403, Outcome::Fail, "wants to know"),
            (407, Outcome::Fail, "-proxy"),
            (429, Outcome::Warn, "later"),
            (503, Outcome::Fail, "another one behind it"),
            (418, Outcome::Fail, "-upstream"),
        ] {
            let (found, text) = judged(status, false, false);
            assert!(found == outcome && text.contains(word), "{status}: {text}");
        }
        assert!(judged(401, false, true).1.contains("does not let us in"));
        assert!(judged(200, true, false).1.contains("browser"));
    }

    /// Folders that are none, are empty or are one level too high are told apart.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
    fn folders() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(folder_check(&root.path().join("gone")).outcome, Outcome::Fail);
        assert_eq!(folder_check(root.path()).outcome, Outcome::Warn);
        std::fs::create_dir_all(root.path().join("cache/download/example.com")).unwrap();
        assert!(folder_check(root.path()).hint.unwrap().ends_with("/cache/download"));
        assert_eq!(folder_check(&root.path().join("cache/download")).outcome, Outcome::Pass);
    }
}
