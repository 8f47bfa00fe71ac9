//! Looks at settings side by side: values that make no sense together, or that contradict each other.
//!
//! Called by `Config::load` once every setting has its value. A combination that could do something else than was asked
//! for, above all let DNS leave past the proxy, is a mistake; one that only does nothing is a warning.

use super::settings::Setting;
use super::sources::{Origin, Report};
use super::{Config, DnsRoute, DnsServer, DnsTransport, UpstreamRoute};
use crate::net::proxy::{Entry, Kind, NoProxy};
use crate::net::target::Target;

/// Reports what is odd or wrong across settings.
pub(super) fn look(config: &Config, origins: &[(&'static Setting, Origin)], report: &mut Report) {
    let origin = |name: &str| {
        let found = origins.iter().find(|(setting, _)| setting.name() == name);
        found.map_or_else(String::new, |(_, origin)| origin.to_string())
    };
    if config.max_connections_per_client > config.max_connections {
        let text = "one client may have more connections than there are (max-connections)";
        report.warning(format!("{}: {text}", origin("max_connections_per_client")));
    }
    if config.gosumdb.is_none() && !config.gonosumdb.is_empty() {
        report.warning(format!("{}: has no effect while gosumdb is off", origin("gonosumdb")));
    }
    let lists = || {
        [&config.dns, &config.dns_bootstrap].into_iter().chain(routes(config).filter_map(|(_, _, r)| r.dns.as_ref()))
    };
    if !config.dns_ca.is_empty() && !lists().flatten().any(has_certificate) {
        let text = "has no effect without a DNS server over TLS, HTTPS or QUIC";
        report.warning(format!("{}: {text}", origin("dns_ca")));
    }
    match config.dns_route {
        DnsRoute::Direct if lists().flatten().next().is_none() => {
            report.warning(format!("{}: has no effect without -dns", origin("dns_route")));
        }
        DnsRoute::Auto | DnsRoute::Direct => {}
        DnsRoute::Proxy => look_at_strict_dns(config, &origin, report),
    }
}

/// Whether a server shows a certificate.
fn has_certificate(server: &DnsServer) -> bool {
    match server.transport {
        DnsTransport::Udp | DnsTransport::Tcp => false,
        DnsTransport::Tls | DnsTransport::Https | DnsTransport::Quic => true,
    }
}

/// Returns each upstream's route with the setting it stands in and its place there, counted from one.
fn routes(config: &Config) -> impl Iterator<Item = (&'static str, usize, &UpstreamRoute)> {
    let public = config.upstreams.iter().enumerate().map(|(index, entry)| ("upstreams", index + 1, &entry.route));
    let private = config.private_upstreams.iter().enumerate();
    public.chain(private.map(|(index, entry)| ("private_upstreams", index + 1, &entry.route)))
}

/// `-dns-route proxy` promises that no question leaves past the proxy, so whatever would is refused.
fn look_at_strict_dns(config: &Config, origin: &dyn Fn(&str) -> String, report: &mut Report) {
    let place = origin("dns_route");
    if config.dns.is_empty() && !config.proxies.iter().all(resolves_names) {
        report.mistake(format!("{place}: proxy needs -dns: the system's resolver does not ask through a proxy"));
    }
    if !config.dns.is_empty() || config.proxies.is_empty() {
        for text in past_the_proxy(&config.proxies, &NoProxy::parse(&config.no_proxy), &config.dns) {
            report.mistake(format!("{place}: {text}"));
        }
    }
    for (setting, number, route) in routes(config) {
        // An upstream that is expressly reached directly has its own DNS servers asked directly too.
        let is_direct = matches!(route.proxies.as_deref(), Some([Entry::Direct]));
        let Some(servers) = route.dns.as_ref().filter(|servers| !servers.is_empty() && !is_direct) else { continue };
        let texts = match &route.proxies {
            Some(own) => past_the_proxy(own, &NoProxy::default(), servers),
            None => past_the_proxy(&config.proxies, &NoProxy::parse(&config.no_proxy), servers),
        };
        for text in texts {
            report.mistake(format!("{}: entry {number}: {text}, with -dns-route proxy", origin(setting)));
        }
    }
}

fn resolves_names(entry: &Entry) -> bool {
    match entry {
        Entry::Direct => false,
        Entry::Server(server) => match server.kind {
            Kind::Http | Kind::Https | Kind::Socks5h => true,
            Kind::Socks5 => false,
        },
    }
}

/// Says what of these would take a question past the proxy.
fn past_the_proxy(proxies: &[Entry], no_proxy: &NoProxy, servers: &[DnsServer]) -> Vec<String> {
    let mut texts = Vec::new();
    if proxies.is_empty() {
        texts.push("there is no proxy that DNS could go through".to_owned());
    }
    if proxies.contains(&Entry::Direct) {
        texts.push("\"direct\" among the proxies would let DNS past them".to_owned());
    }
    for server in servers {
        match server.transport {
            DnsTransport::Quic => {
                texts.push(format!("{server}: QUIC is UDP, which no proxy carries; use tls:// or https://"));
            }
            DnsTransport::Udp | DnsTransport::Tcp | DnsTransport::Tls | DnsTransport::Https => {}
        }
        if no_proxy.covers(&Target { host: server.host.clone(), port: server.port }) {
            texts.push(format!("{server}: no-proxy covers it, so that no proxy leads there"));
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;

    /// Returns the mistakes, or the warnings, of a configuration file.
    fn said(yaml: &str) -> Vec<String> {
        match load(&["-config", "c.yaml"], &[], &[("c.yaml", yaml)]) {
            Ok(loaded) => loaded.warnings,
            Err(errors) => errors.mistakes,
        }
    }

    /// `-dns-route proxy` refuses whatever could let a question leave past the proxy, for each upstream too.
    #[test]
    fn strict_dns_has_no_way_past_the_proxy() {
        let cases = [
            ("proxy: socks5://p\ndns: 8.8.8.8", ""),
            ("proxy: socks5://p\ndns: tls://a,https://b/q,tcp://c", ""),
            ("proxy: socks5h://p", ""),
            ("proxy: socks5://p", "proxy needs -dns"),
            ("proxy: [http://p, socks5://q]", "proxy needs -dns"),
            ("port: 1", "there is no proxy"),
            ("dns: 8.8.8.8", "there is no proxy"),
            ("proxy: direct\ndns: 8.8.8.8", "\"direct\" among the proxies"),
            ("proxy: [http://p, direct]\ndns: 8.8.8.8", "\"direct\" among the proxies"),
            ("proxy: socks5://p\ndns: [8.8.8.8, quic://a]", "quic://a:853: QUIC is UDP"),
            (
                "proxy: socks5://p\nno_proxy: 10.0.0.0/8,b\ndns: [8.8.8.8, 10.0.0.53]",
                "udp://10.0.0.53:53: no-proxy covers",
            ),
        ];
        for (yaml, expected) in cases {
            let said = said(&format!("dns_route: proxy\n{yaml}\n"));
            match said.as_slice() {
                [] => assert_eq!(expected, "", "{yaml}"),
                [text] => assert!(
                    !expected.is_empty() && text.starts_with(&format!("c.yaml: dns_route: {expected}")),
                    "{yaml}: {text}"
                ),
                more => panic!("{yaml}: {more:?}"),
            }
        }
        let upstreams = [
            ("{url: 'https://a.example', proxy: direct, dns: 10.0.0.53}", ""),
            ("{url: 'https://a.example', proxy: direct, dns: 'quic://10.0.0.53'}", ""),
            ("{url: 'https://a.example', proxy: 'http://q', dns: system}", ""),
            ("{url: 'https://a.example', dns: 'quic://10.0.0.53'}", "entry 2: quic://10.0.0.53:853: QUIC is UDP"),
            ("{url: 'https://a.example', proxy: ['http://q', direct], dns: 10.0.0.53}", "entry 2: \"direct\" among"),
        ];
        for (upstream, expected) in upstreams {
            let yaml =
                format!("dns_route: proxy\nproxy: socks5://p\ndns: tls://a\nupstreams: [https://b, {upstream}]\n");
            let said = said(&yaml).join("; ");
            assert_eq!(said.is_empty(), expected.is_empty(), "{upstream}: {said}");
            assert!(said.is_empty() || said.starts_with(&format!("c.yaml: upstreams: {expected}")), "{said}");
        }
    }

    /// What would do nothing is said, and stops nobody.
    #[test]
    fn settings_without_effect() {
        let cases = [
            ("dns_route: direct", "c.yaml: dns_route: has no effect without -dns"),
            ("dns_route: direct\nupstreams: [{url: 'https://a', dns: 10.0.0.53}]", ""),
            (
                "dns_ca: x.pem\ndns: 8.8.8.8",
                "c.yaml: dns_ca: has no effect without a DNS server over TLS, HTTPS or QUIC",
            ),
            ("dns_ca: x.pem\ndns: 8.8.8.8\ndns_bootstrap: tls://9.9.9.9", ""),
            ("dns_ca: x.pem\ndns: quic://a", ""),
            ("gonosumdb: a", "c.yaml: gonosumdb: has no effect while gosumdb is off"),
        ];
        for (yaml, expected) in cases {
            assert_eq!(said(&format!("{yaml}\n")).join("; "), expected);
        }
    }
}
