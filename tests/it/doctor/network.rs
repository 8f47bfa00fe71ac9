//! Faults on the way: upstreams, certificates, DNS servers and proxies.

use std::time::{Duration, Instant};

use super::servers::{Dns, Says, Silent, Tls, free_port};
use super::{doctor, json};
use crate::harness::{Authority, Fault, Relay, Upstream, temp_dir};

/// Each thing an upstream can answer, or not answer, is told for what it is.
#[test]
fn upstreams() {
    let upstream = Upstream::start();
    let gone = format!("http://127.0.0.1:{}", free_port());
    doctor(&["-upstream", &gone]).expect("FAIL", "upstream", &[&gone, "onnection refused", "nothing listens"]).ends(1);
    for (rule, words) in [
        (json!({"status": 401}), ["401", "wants to know who asks"]),
        (json!({"status": 403}), ["403", "private_upstreams"]),
        (json!({"status": 503}), ["503", "upstream's own failure"]),
        (
            json!({"status": 200, "body": "<!DOCTYPE html><p>Log in", "content_type": "text/html"}),
            ["web page", "login"],
        ),
        (json!({"drop": true}), ["connection ended", "-upstream"]),
    ] {
        upstream.faults(json!([rule]));
        doctor(&["-upstream", &upstream.url])
            .expect("FAIL", "upstream", &[&[&*upstream.url], &words[..]].concat())
            .ends(1);
    }
    for status in [404, 410] {
        upstream.faults(json!([{"status": status}]));
        doctor(&["-upstream", &upstream.url]).expect("ok", "upstream", &[&status.to_string()]).ends(0);
    }
    doctor(&["-upstream", "off"]).expect("skip", "upstream", &["off"]).ends(0);
    let offline = doctor(&["-upstream", &gone, "-network-mode", "offline"]);
    offline.expect("skip", "upstream", &["offline"]).ends(0);
}

/// A private upstream is asked with its credentials, and only for whether it lets us in.
#[test]
fn private_upstreams() {
    let (upstream, folder) = (Upstream::start(), temp_dir());
    let config = folder.path().join("config.yaml");
    let text = format!(
        "upstreams: \"off\"\nprivate_upstreams:\n  - {{pattern: git.example.com, url: \"{}/go\", auth: {{type: bearer, \
         value: s3cret-token}}}}\n",
        upstream.url
    );
    std::fs::write(&config, text).unwrap();
    let args = ["-config", config.to_str().unwrap()];
    doctor(&args).expect("ok", "upstream", &[&upstream.url, "404"]).expect("warn", "configuration", &["unencrypted"]);
    assert!(upstream.log().iter().any(|asked| asked.uri == "/go/" && asked.authorization), "{:?}", upstream.log());
    upstream.faults(json!([{"status": 401}]));
    let refused = doctor(&args);
    refused.expect("FAIL", "upstream", &["401", "does not let us in", "token"]).ends(1);
    assert!(!refused.text.contains("s3cret"), "{}", refused.text);
}

/// The certificates are shown, and what is wrong with them is told with what would help.
#[test]
fn certificates() {
    let (Some(ours), Some(other)) = (Authority::new("Office Root"), Authority::new("Other Root")) else { return };
    let ca = ours.file();
    let look = |server: &Tls, host: &str| doctor(&["-ca", ca.to_str().unwrap(), "-upstream", &server.url(host)]);
    let good = Tls::start(&ours.sign(&["localhost", "127.0.0.1"]));
    for host in ["localhost", "127.0.0.1"] {
        look(&good, host)
            .expect("ok", "tls", &[&good.url(host), "for localhost, 127.0.0.1 until 2050-01-01, issued by Office Root"])
            .expect("ok", "upstream", &["answers 200"])
            .ends(0);
    }
    let expired = Tls::start(&ours.sign_expired(&["localhost"]));
    look(&expired, "localhost")
        .expect("FAIL", "tls", &["expired on 2024-05-01", "until 2024-05-01, issued by Office Root", "renew"])
        .expect("skip", "upstream", &["TLS failed"])
        .ends(1);
    let misnamed = Tls::start(&ours.sign(&["b.example"]));
    look(&misnamed, "localhost")
        .expect("FAIL", "tls", &["for b.example, not for localhost", "another server than the one meant"])
        .ends(1);
    let unknown = Tls::start(&other.sign(&["localhost"]));
    look(&unknown, "localhost")
        .expect("FAIL", "tls", &["unknown authority", "issued by Other Root", "-ca FILE"])
        .ends(1);
    let plain = Upstream::start();
    let url = plain.url.replace("http://", "https://");
    doctor(&["-upstream", &url]).expect("FAIL", "tls", &[&url, "does not speak TLS", "http://"]).ends(1);
}

/// Everything that can hang hangs: it ends all the same, and says of each that nothing came.
#[test]
fn nothing_answers() {
    let (upstream, proxy, dns) = (Silent::start(), Silent::start(), Dns::start(Says::Nothing));
    let (upstream, proxy) = (upstream.address, proxy.address);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let list = format!("http://{upstream},https://{upstream}");
            let report = doctor(&["-upstream", &list]);
            report.expect("FAIL", "upstream", &[&format!("http://{upstream}"), "no answer within", "-proxy"]);
            report.expect("FAIL", "tls", &[&format!("https://{upstream}"), "no handshake within"]).ends(1);
        });
        scope.spawn(|| {
            let name = dns.name();
            let report = doctor(&["-dns", &name, "-upstream", "https://a.example"]);
            report.expect("FAIL", "dns", &[&name, "a.example", "no answer", "firewall"]);
            report.expect("FAIL", "upstream", &["dns: ", &name]).ends(1);
        });
        scope.spawn(move || {
            // A tunnel that stands and passes nothing is none, and is not merely slow.
            let relay = Relay::start();
            let proxy = relay.url("http");
            let report = doctor(&["-proxy", &proxy, "-upstream", &format!("https://{upstream}")]);
            report.expect("FAIL", "proxy", &[&proxy, "nothing came through", "another one behind it"]);
            report.expect("FAIL", "tls", &["no handshake within", "see to proxy, above"]).ends(1);
            assert!(!report.text.contains("leads around it"), "{}", report.text);
        });
        for scheme in ["socks5h", "http", "https"] {
            scope.spawn(move || {
                let name = format!("{scheme}://{proxy}");
                let report = doctor(&["-proxy", &name, "-upstream", "https://a.example"]);
                report.expect("FAIL", "proxy", &[&name, " within ", "hangs"]);
                report.expect("FAIL", "upstream", &["proxy: ", &name]).ends(1);
            });
        }
    });
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

/// What DNS servers do wrong is told of each, and by the upstream's own line with the server's name.
#[test]
fn dns_servers() {
    let closed = format!("udp://127.0.0.1:{}", free_port());
    for (says, words) in [
        (Some(Says::Code(3)), ["no such name", "spelt right"]),
        (Some(Says::Code(2)), ["SERVFAIL", "another one with -dns"]),
        (Some(Says::Code(5)), ["REFUSED", "-dns"]),
        (Some(Says::Address([0, 0, 0, 0])), ["leads nowhere", "-dns"]),
        (None, ["efused", "no DNS server listens there"]),
    ] {
        let server = says.map(Dns::start);
        let name = server.as_ref().map_or_else(|| closed.clone(), Dns::name);
        let report = doctor(&["-dns", &name, "-upstream", "https://a.example"]);
        report.expect("FAIL", "dns", &[&[&*name, "a.example"], &words[..]].concat());
        report.expect("FAIL", "upstream", &["dns: ", &name, words[0]]).ends(1);
    }
    let upstream = Upstream::start();
    let port = upstream.address().rsplit(':').next().unwrap();
    let good = Dns::start(Says::Address([127, 0, 0, 1]));
    // A filter that answers with this very machine: whoever looks at the upstream is led back to dns.
    let report = doctor(&["-dns", &good.name(), "-upstream", &format!("http://a.example:{}", free_port())]);
    report.expect("FAIL", "dns", &["127.0.0.1", "leads nowhere"]);
    report.expect("FAIL", "upstream", &["127.0.0.1", "see to dns, above"]).ends(1);
    // Two servers, of which one is dead: the way leads out, and the dead one is named.
    let list = format!("{closed},{}", good.name());
    let report = doctor(&["-dns", &list, "-upstream", &format!("http://a.example:{port}")]);
    report.expect("warn", "dns", &[&closed]).expect("ok", "upstream", &["answers 200"]);
}

/// Certificates of DNS servers and of proxies are told as those of upstreams are, with the setting that would help.
#[test]
fn certificates_on_the_way() {
    let (Some(ours), Some(other)) = (Authority::new("Office Root"), Authority::new("Other Root")) else { return };
    let ca = ours.file();
    let ca = ca.to_str().unwrap();
    for (certificate, said, dns_hint, proxy_hint) in [
        (ours.sign_expired(&["127.0.0.1"]), "certificate expired on 2024-05-01", "renew", "renew"),
        (ours.sign(&["b.example"]), "certificate is for b.example, not for 127.0.0.1", "-dns", "name the proxy"),
        (other.sign(&["127.0.0.1"]), "certificate of an unknown authority", "-dns-ca FILE", "-ca FILE"),
    ] {
        let server = Tls::start(&certificate);
        let name = server.url("127.0.0.1").replace("https", "tls");
        let report = doctor(&["-dns-ca", ca, "-dns", &name, "-upstream", "https://a.example"]);
        report.expect("FAIL", "dns", &[&name, said, dns_hint]);
        report.expect("FAIL", "upstream", &["dns: ", &name, said]).ends(1);
        let name = server.url("127.0.0.1");
        let report = doctor(&["-ca", ca, "-proxy", &name, "-upstream", "https://a.example"]);
        report.expect("FAIL", "proxy", &[&name, said, proxy_hint]);
        report.expect("FAIL", "upstream", &["proxy: ", &name, said]).ends(1);
    }
}

/// What proxies do wrong is told of each.
#[test]
fn proxies() {
    let upstream = Upstream::start();
    let look = |proxy: &str| doctor(&["-proxy", proxy, "-upstream", &upstream.url]);
    let honest = Relay::start();
    for scheme in ["socks5", "socks5h", "http"] {
        let name = honest.url(scheme);
        look(&name).expect("ok", "proxy", &[&name, "leads to", upstream.address()]).ends(0);
    }
    for (fault, scheme, words) in [
        (Fault::WrongPassword, "socks5", ["wrong user name or password", "user:password@"]),
        (Fault::WrongPassword, "http", ["wrong user name or password", "user:password@"]),
        (Fault::Reply(2), "socks5", ["not allowed", "allow"]),
        (Fault::Reply(5), "socks5h", ["does not lead to", "proxy works"]),
        (Fault::Closes, "socks5", ["closed the connection", "-proxy"]),
    ] {
        let relay = Relay::with(fault);
        let report = look(&relay.url_with(scheme, "user:s3cret"));
        report.expect("FAIL", "proxy", &[&[&*format!("{scheme}://***@")], &words[..]].concat()).ends(1);
        assert!(!report.text.contains("s3cret") && !report.text.contains("user:s"), "{}", report.text);
    }
    // Whole requests are the proxy's to answer too, so that it cannot be told who did; a tunnel is the proxy's alone.
    let relay = Relay::with(Fault::Status("403 Forbidden"));
    look(&relay.url("http"))
        .expect("warn", "proxy", &["answers 403 Forbidden", "or the upstream behind it"])
        .expect("FAIL", "upstream", &["403", "proxy"])
        .ends(1);
    let refused = doctor(&["-proxy", &relay.url("http"), "-upstream", "https://a.example"]);
    refused.expect("FAIL", "proxy", &[&relay.url("http"), "does not lead to a.example:443", "403", "allow"]).ends(1);
    let gone = format!("socks5://127.0.0.1:{}", free_port());
    look(&gone).expect("FAIL", "proxy", &[&gone, "efused", "start the proxy"]).ends(1);
    // Of two, one of which is dead, the other leads out; the dead one is named.
    let both = format!("{gone},{}", honest.url("socks5"));
    look(&both).expect("warn", "proxy", &[&gone]).expect("ok", "upstream", &["answers 200"]).ends(0);
    look(&format!("{gone},direct")).expect("warn", "proxy", &[&gone]).ends(0);
    let bypassed = doctor(&["-proxy", &gone, "-no-proxy", "127.0.0.1", "-upstream", &upstream.url]);
    bypassed.expect("skip", "proxy", &["NO_PROXY"]).ends(0);
}

/// Whatever fails, in whichever form: no password, token or key is in what is printed.
#[test]
fn no_secrets() {
    let folder = temp_dir();
    let config = folder.path().join("config.yaml");
    let port = free_port();
    let text = format!(
        "upstreams: \"http://user:s3cret-1@127.0.0.1:{port},https://user:s3cret-2@127.0.0.1:{port}\"\n\
         proxy: [\"socks5://user:s3cret-3@127.0.0.1:{port}\", \"http://user:s3cret-4@127.0.0.1:{port}\"]\n\
         dns: \"https://127.0.0.1:{port}/dns-query?key=s3cret-5,https://127.0.0.1:{port}/s3cret-7/dns-query\"\n\
         private_upstreams:\n  - {{pattern: git.example.com, url: \"http://a.example:{port}\", auth: {{type: basic, \
         value: \"user:s3cret-6\"}}}}\n"
    );
    std::fs::write(&config, text).unwrap();
    for form in [&[][..], &["--json"], &["-log-level", "debug"]] {
        let output = super::command(&[form, &["-config", config.to_str().unwrap()]].concat()).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.code() == Some(1) && !text.contains("s3cret"), "{form:?}: {text}");
        // Encoded, as headers have them.
        assert!(!text.contains("dXNlcjpzM2NyZXQt"), "{form:?}: {text}");
    }
}
