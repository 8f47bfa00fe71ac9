//! Several upstreams, their order and their failures; redirects; private ones and their credentials.

use std::time::{Duration, Instant};

use crate::harness::{BIG_ZIP, Capture, Larder, SMALL_ZIP, Start, Tree, Upstream, fixture, json, temp_dir};

const MOD: &str = "/rsc.io/quote/@v/v1.5.2.mod";

/// Starts a Larder in front of two upstreams with `separator` between them.
fn two(first: &Upstream, separator: &str, second: &Upstream) -> Larder {
    Start::upstream(&format!("{}{separator}{}", first.url, second.url)).args(["-retry-attempts", "2"]).run()
}

/// After a comma the next upstream is asked on 404, 410 and on a transient failure; after a pipe on any failure; a
/// refusal is relayed.
#[test]
fn commas_and_pipes_mean_what_they_do_to_go() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let page = json!({"status": 200, "body": "<html>log in</html>", "content_type": "text/html"});
    let other = json!({"kind": "info", "replace_with": "/rsc.io/quote/v3/@v/v3.1.0.info"});
    let info = "/rsc.io/quote/@v/v1.5.2.info";
    // What is asked, the fault, the status after a comma (200: the second answered), the status after a pipe.
    for (path, rule, comma, pipe) in [
        (MOD, json!({"status": 404}), 200, 200),
        (MOD, json!({"status": 410}), 200, 200),
        (MOD, json!({"status": 500}), 200, 200),
        (MOD, json!({"status": 502}), 200, 200),
        (MOD, json!({"status": 503}), 200, 200),
        (MOD, json!({"status": 429}), 200, 200),
        (MOD, json!({"drop": true}), 200, 200),
        (MOD, json!({"cut_after": 10}), 200, 200),
        (MOD, json!({"status": 401, "body": "who are you"}), 401, 200),
        (MOD, json!({"status": 403, "body": "not for you"}), 403, 200),
        (info, page.clone(), 502, 200),
        (info, other, 502, 200),
        (SMALL_ZIP, page, 502, 200),
        (SMALL_ZIP, json!({"truncate": -100}), 502, 200),
    ] {
        for (separator, status) in [(",", comma), ("|", pipe)] {
            first.faults(json!([rule]));
            second.reset();
            let larder = two(&first, separator, &second);
            let answer = larder.get(path);
            assert_eq!(answer.status, status, "{rule} {separator}: {}", String::from_utf8_lossy(&answer.body));
            assert_eq!(second.requests(), u64::from(status == 200), "{rule} {separator}");
            if status == 200 {
                assert!(answer.body == std::fs::read(fixture().join(&path[1..])).unwrap(), "{rule} {separator}");
            } else if status != 502 {
                assert_eq!(answer.text().trim(), rule["body"], "{separator}: the refusal is relayed");
            }
        }
    }
}

/// An upstream that cannot be reached is passed over like any other transient failure.
#[test]
fn an_unreachable_upstream_is_passed_over() {
    let (mut first, second) = (Upstream::start(), Upstream::start());
    first.stop();
    for separator in [",", "|"] {
        two(&first, separator, &second).get(MOD).expect(200);
    }
}

/// Larder says 404 only if every upstream did: one that was broken could have known the module.
#[test]
fn not_found_needs_every_upstream() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let missing = json!([{"status": 404, "body": "not found: here\n"}]);
    for separator in [",", "|"] {
        first.faults(missing.clone());
        second.faults(missing.clone());
        assert_eq!(two(&first, separator, &second).get(MOD).expect(404).text(), "not found: here\n");
        first.faults(json!([{"status": 500}]));
        let answer = two(&first, separator, &second).get(MOD);
        assert!(answer.status >= 500, "{separator}: {}", answer.status);
        first.faults(missing.clone());
        second.faults(json!([{"status": 503}]));
        let answer = two(&first, separator, &second).get(MOD);
        assert!(answer.status >= 500, "{separator}: {}", answer.status);
        second.faults(json!([{"status": 403}]));
        two(&first, separator, &second).get(MOD).expect(403);
    }
}

/// Transient failures are tried `-retry-attempts` times with growing pauses; a final answer is not tried again.
#[test]
fn transient_failures_are_retried() {
    let upstream = Upstream::start();
    for (rule, asked) in [
        (json!({"status": 500}), 3),
        (json!({"status": 503}), 3),
        (json!({"status": 429}), 3),
        (json!({"drop": true}), 3),
        (json!({"status": 404}), 1),
        (json!({"status": 403}), 1),
    ] {
        upstream.faults(json!([rule]));
        upstream.reset();
        let larder = Start::on(&upstream).args(["-retry-attempts", "3", "-retry-backoff", "100ms"]).run();
        let answer = larder.get(MOD);
        let expected = rule["status"].as_u64().filter(|status| *status < 429).unwrap_or(502);
        assert_eq!(u64::from(answer.status), expected, "{rule}");
        let log = upstream.log_of(MOD);
        assert_eq!(log.len(), asked, "{rule}");
        if asked == 3 {
            let (pause, next) = (log[1].at_ms - log[0].at_ms, log[2].at_ms - log[1].at_ms);
            assert!(pause >= 45.0 && next >= 90.0, "{rule}: pauses of {pause} and {next} ms");
        }
    }
    upstream.faults(json!([{"status": 503, "times": 2}]));
    let larder = Start::on(&upstream).args(["-retry-attempts", "3"]).run();
    larder.get(MOD).expect(200);
}

/// `Retry-After` is obeyed.
#[test]
fn retry_after_is_obeyed() {
    let upstream = Upstream::start();
    upstream.faults(json!([{"status": 429, "retry_after": "2", "times": 1}]));
    let larder = Larder::start(&upstream);
    larder.get(MOD).expect(200);
    let log = upstream.log_of(MOD);
    assert_eq!(log.len(), 2);
    assert!(log[1].at_ms - log[0].at_ms >= 1990.0, "asked again after {} ms", log[1].at_ms - log[0].at_ms);
}

/// Redirects are followed, to another host and relative to the same one; a loop ends in an error within a bound.
#[test]
fn redirects_are_followed_and_loops_end() {
    let (first, second) = (Upstream::start(), Upstream::start());
    for status in [301, 302, 303, 307, 308] {
        first.faults(json!([{"kind": "zip", "status": status, "redirect": format!("{}{SMALL_ZIP}", second.url)}]));
        let larder = Larder::start(&first);
        let truth = std::fs::read(fixture().join(&SMALL_ZIP[1..])).unwrap();
        assert!(larder.get(SMALL_ZIP).expect(200).body == truth, "{status}");
    }
    first.faults(json!([{"kind": "mod", "redirect": "/rsc.io/quote/v3/@v/v3.1.0.mod", "times": 1}]));
    Larder::start(&first).get(MOD).expect(200);
    first.faults(json!([{"redirect": MOD}]));
    first.reset();
    let larder = Start::on(&first).args(["-retry-attempts", "1"]).run();
    let began = Instant::now();
    larder.get(MOD).expect(502);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(first.requests() <= 30, "{} requests in a redirect loop", first.requests());
    assert!(!larder.has(MOD));
}

/// Writes a configuration with one private upstream for `private.example.com` and starts Larder with it.
fn with_private(public: &Upstream, private: &str, auth: &str) -> (Larder, tempfile::TempDir) {
    let folder = temp_dir();
    let file = folder.path().join("config.yaml");
    let text = format!(
        "private_upstreams:\n  - pattern: \"private.example.com\"\n    url: \"{private}\"\n    auth: {auth}\nretry_attempts: 2\n"
    );
    std::fs::write(&file, text).unwrap();
    (Start::on(public).args(["-config", file.to_str().unwrap()]).run(), folder)
}

const PRIVATE_MOD: &str = "/private.example.com/team/lib/@v/v1.0.0.mod";
const BASIC: &str = "{type: basic, value: \"user:hunter2-secret\"}";

/// A private module is asked of its own upstream only, with its credentials; neither its 404 nor its failure takes
/// the name anywhere else; public modules never see the credentials.
#[test]
fn private_upstreams_are_exclusive() {
    let tree = Tree::new().module("private.example.com/team/lib", "v1.0.0", 1000);
    let (mut private, public) = (Upstream::with(tree.path(), &[]), Upstream::start());
    for auth in [BASIC, "{type: bearer, value: \"hunter2-secret\"}"] {
        private.reset();
        public.reset();
        let (larder, _folder) = with_private(&public, &private.url, auth);
        larder.get(PRIVATE_MOD).expect(200);
        larder.get("/private.example.com/team/lib/@v/list").expect(200);
        larder.get("/private.example.com/team/lib/@v/v9.9.9.info").expect(404);
        larder.get(MOD).expect(200);
        assert!(private.log().iter().all(|record| record.authorization && record.uri.contains("private")), "{auth}");
        assert!(public.log().iter().all(|record| !record.authorization && record.path() == MOD), "{auth}");
        assert!(!larder.log().contains("hunter2-secret"), "{auth}: a secret is in the log");
    }
    let (larder, _folder) = with_private(&public, &private.url, BASIC);
    larder.get(PRIVATE_MOD).expect(200);
    public.reset();
    private.stop();
    let answer = larder.get("/private.example.com/team/lib/@v/v1.0.0.zip");
    assert!(answer.status >= 500, "{}", answer.status);
    assert!(!answer.text().contains("hunter2-secret") && !larder.log().contains("hunter2-secret"));
    assert_eq!(public.requests(), 0, "a private name reached the public upstream");
}

/// Credentials of any kind stay with the host they are for: a redirect to another one gets none.
#[test]
fn invariant_10_credentials_follow_no_redirect_and_reach_no_log() {
    let public = Upstream::start();
    let header = "{type: header, name: \"X-Private-Token\", value: \"hunter2-secret\"}";
    for auth in [BASIC, "{type: bearer, value: \"hunter2-secret\"}", header] {
        let elsewhere = Capture::start("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnone");
        let redirect = format!(
            "HTTP/1.1 302 Found\r\nLocation: {}/elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            elsewhere.url
        );
        let private = Capture::start(&redirect);
        let (larder, _folder) = with_private(&public, &private.url, auth);
        larder.get(PRIVATE_MOD).expect(404);
        let (asked, followed) = (private.heads(), elsewhere.heads());
        let secret = ["hunter2-secret", "dXNlcjpodW50ZXIyLXNlY3JldA=="];
        assert!(asked.iter().all(|head| secret.iter().any(|secret| head.contains(secret))), "{auth}: {asked:?}");
        assert_eq!(followed.len(), 1, "{auth}");
        assert!(secret.iter().all(|secret| !followed[0].contains(secret)), "{auth}: {}", followed[0]);
        assert!(secret.iter().all(|secret| !larder.log().contains(secret)), "{auth}: a secret is in the log");
    }
}

/// An upstream is asked over TLS with either version of HTTP, large zips over several connections too; one whose
/// certificate nobody vouches for is out of reach, and a redirect to plain http is not followed.
#[test]
fn tls_upstreams_are_verified() {
    let certificates = temp_dir();
    let certs = certificates.path().to_str().unwrap();
    for more in [&[][..], &["-http1"]] {
        let flags = [&["-https", "127.0.0.1:0", "-certs", certs], more].concat();
        let upstream = Upstream::with(&fixture(), &flags);
        let (url, authority) = upstream.https.clone().unwrap();
        let larder = Start::upstream(&url).env("SSL_CERT_FILE", &authority).run();
        for path in [MOD, SMALL_ZIP, BIG_ZIP, "/rsc.io/quote/@latest"] {
            let truth = std::fs::read(fixture().join(&path[1..])).unwrap();
            assert!(larder.get(path).expect(200).body == truth, "{path} {more:?}");
        }
        assert!(upstream.log_of(BIG_ZIP).len() > 1, "{more:?}");
        let elsewhere = "/rsc.io/sampler/@v/v1.3.0.mod";
        upstream.faults(json!([{"match": "sampler", "redirect": format!("{}{elsewhere}", upstream.url)}]));
        assert!(larder.get(elsewhere).expect(502).text().contains("from https to http") && !larder.has(elsewhere));
        let stranger = Start::upstream(&url).args(["-retry-attempts", "1"]).run();
        assert!(stranger.get(MOD).status >= 400, "{more:?}: served over a connection nobody vouches for");
        assert!(!stranger.has(MOD) && stranger.log().contains("certificate"), "{more:?}: {}", stranger.log());
    }
}

/// A `file://` upstream is a tree on disk, and what it does not have is asked of the next.
#[test]
fn file_upstreams_are_trees() {
    let tree = Tree::new().module("example.com/made", "v1.0.0", 2 << 20);
    let next = Upstream::start();
    let larder = Start::upstream(&format!("file://{},{}", tree.path().display(), next.url)).run();
    for name in ["list", "v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip"] {
        let path = format!("/example.com/made/@v/{name}");
        assert!(larder.get(&path).expect(200).body == tree.read(&path), "{name}");
    }
    assert_eq!(next.requests(), 0);
    larder.get(MOD).expect(200);
    assert_eq!(next.requests(), 1);
    larder.get("/example.com/made/@v/v1.1.0.info").expect(404);
}

/// `off` ends the list: what is stored is served, nothing is fetched.
#[test]
fn off_ends_the_list() {
    let (upstream, folder) = (Upstream::start(), temp_dir());
    let mut larder = Start::on(&upstream).cache(folder.path()).run();
    larder.hit(MOD);
    larder.stop();
    upstream.reset();
    let larder = Start::upstream("off").cache(folder.path()).run();
    larder.hit(MOD);
    assert!(larder.get(SMALL_ZIP).status >= 400);
    drop(larder);
    let larder = Start::upstream(&format!("off,{}", upstream.url)).cache(folder.path()).run();
    assert!(larder.get(SMALL_ZIP).status >= 400);
    assert_eq!(upstream.requests(), 0, "an upstream behind off was asked");
}
