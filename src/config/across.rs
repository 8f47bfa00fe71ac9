//! Looks at settings side by side: values that make no sense together, or that contradict each other.
//!
//! Called by `Config::load` once every setting has its value. A combination that could do something else than was asked
//! for, above all let DNS leave past the proxy, is a mistake; one that only does nothing is a warning.

use super::settings::Setting;
use super::sources::{Origin, Report};
use super::{Config, DnsRoute, DnsServer, DnsTransport, UpstreamRoute, UpstreamTarget};
use crate::net::proxy::{Entry, Kind, NoProxy};
use crate::net::target::{Host, Target};

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
        [&config.dns, &config.dns_bootstrap]
            .into_iter()
            .chain(upstreams(config).filter_map(|(_, _, _, route)| route.dns.as_ref()))
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

/// One upstream: the setting it stands in, its place there counted from one, where it is and how it is reached.
type Place<'a> = (&'static str, usize, &'a UpstreamTarget, &'a UpstreamRoute);

fn upstreams(config: &Config) -> impl Iterator<Item = Place<'_>> {
    let public = config.upstreams.iter().map(|entry| (&entry.target, &entry.route)).enumerate();
    let private = config.private_upstreams.iter().map(|entry| (&entry.target, &entry.route)).enumerate();
    let public = public.map(|(index, (target, route))| ("upstreams", index + 1, target, route));
    public.chain(private.map(|(index, (target, route))| ("private_upstreams", index + 1, target, route)))
}

/// `-dns-route proxy` promises that no question leaves past the proxy, so whatever would is refused.
fn look_at_strict_dns(config: &Config, origin: &dyn Fn(&str) -> String, report: &mut Report) {
    let place = origin("dns_route");
    let all_need_dns = config.dns.is_empty() && !config.proxies.iter().all(resolves_names);
    if all_need_dns {
        report.mistake(format!("{place}: proxy needs -dns: the system's resolver does not ask through a proxy"));
    }
    if !config.dns.is_empty() || config.proxies.is_empty() {
        for text in past_the_proxy(&config.proxies, &NoProxy::parse(&config.no_proxy), &config.dns) {
            report.mistake(format!("{place}: {text}"));
        }
    }
    for (setting, number, target, route) in upstreams(config) {
        // An upstream that is expressly reached directly has its own DNS servers asked directly too, and where there are
        // none at all, the system's resolver.
        if route.is_direct() || (route.is_of_all() && (all_need_dns || config.proxies.is_empty())) {
            continue;
        }
        let (proxies, no_proxy) = match &route.proxies {
            Some(own) => (own, NoProxy::default()),
            None => (&config.proxies, NoProxy::parse(&config.no_proxy)),
        };
        let own = route.dns.as_deref().unwrap_or_default();
        let mut texts = if own.is_empty() { Vec::new() } else { past_the_proxy(proxies, &no_proxy, own) };
        if route.dns.as_ref().unwrap_or(&config.dns).is_empty() {
            let remedy = if route.dns.is_none() {
                "name a server in -dns, or as dns beside its URL"
            } else {
                "write a server instead of dns: system"
            };
            let text = to_the_system(target, proxies, &no_proxy);
            texts.extend(text.map(|text| format!("{text}: {remedy}, unless proxy: direct stands there")));
        }
        // The list that is built in is not what anybody could change an entry of.
        let at = match origin(setting) {
            default if default == Origin::Default.to_string() => place.clone(),
            own => format!("{own}: entry {number}"),
        };
        for text in texts {
            report.mistake(format!("{at}: with -dns-route proxy, {text}"));
        }
    }
}

/// Says why the name of an upstream for which no DNS server is configured would be looked up by the system's resolver.
fn to_the_system(upstream: &UpstreamTarget, proxies: &[Entry], no_proxy: &NoProxy) -> Option<String> {
    let to = match upstream {
        UpstreamTarget::Http(url) => {
            let url = url.reveal();
            Target { host: Host::parse(url.host_str()?), port: url.port_or_known_default()? }
        }
        UpstreamTarget::File(_) | UpstreamTarget::Off => return None,
    };
    let Host::Name(name) = &to.host else { return None };
    let why = match proxies.iter().find(|entry| !resolves_names(entry)) {
        _ if no_proxy.covers(&to) => "no-proxy covers it".to_owned(),
        Some(Entry::Direct) => "\"direct\" is among its proxies".to_owned(),
        Some(Entry::Server(server)) => format!("{} is given addresses, not names", server.name),
        None if proxies.is_empty() => "no proxy leads to it".to_owned(),
        None => return None,
    };
    Some(format!("{name} would be looked up by the system's resolver, since {why}"))
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
            (
                "{url: 'https://a.example', dns: 'quic://10.0.0.53'}",
                "entry 2: with -dns-route proxy, quic://10.0.0.53:853: QUIC is UDP",
            ),
            (
                "{url: 'https://a.example', proxy: ['http://q', direct], dns: 10.0.0.53}",
                "entry 2: with -dns-route proxy, \"direct\" among",
            ),
        ];
        for (upstream, expected) in upstreams {
            let yaml =
                format!("dns_route: proxy\nproxy: socks5://p\ndns: tls://a\nupstreams: [https://b, {upstream}]\n");
            let said = said(&yaml).join("; ");
            assert_eq!(said.is_empty(), expected.is_empty(), "{upstream}: {said}");
            assert!(said.is_empty() || said.starts_with(&format!("c.yaml: upstreams: {expected}")), "{said}");
        }
    }

    /// With `-dns-route proxy`, no upstream's name can get to the system's resolver unless it is expressly reached
    /// directly.
    #[test]
    fn strict_dns_keeps_names_from_the_system() {
        let asked = "with -dns-route proxy, b.example would be looked up by the system's resolver, since";
        let cases = [
            (
                "proxy: socks5h://p",
                "{url: 'https://b.example', proxy: 'socks5://u:s3cret@q'}",
                "socks5://***@q is given addresses",
            ),
            (
                "proxy: socks5h://p",
                "{url: 'https://b.example', proxy: ['http://q', direct]}",
                "\"direct\" is among its proxies",
            ),
            ("proxy: socks5h://p\nno_proxy: .example:443", "https://b.example", "no-proxy covers it"),
            ("proxy: socks5h://p\nno_proxy: .example", "{url: 'https://b.example', dns: system}", "no-proxy covers it"),
            (
                "proxy: socks5://p\ndns: tls://x",
                "{url: 'https://b.example', dns: system}",
                "socks5://p is given addresses",
            ),
            // What is no name, is not asked of a server, has servers, or expressly goes directly, is nobody's to look up.
            ("proxy: socks5h://p\nno_proxy: .example:80", "https://b.example", ""),
            ("proxy: socks5h://p\nno_proxy: 'b.example,10.0.0.0/8'", "http://10.0.0.1", ""),
            ("proxy: socks5h://p\nno_proxy: '*'", "file:///srv/modules", ""),
            ("proxy: socks5h://p\nno_proxy: b.example\ndns: tls://x", "https://b.example", ""),
            ("proxy: socks5h://p\nno_proxy: b.example", "{url: 'https://b.example', dns: 'tls://x'}", ""),
            ("proxy: socks5h://p\nno_proxy: b.example", "{url: 'https://b.example', proxy: 'http://q'}", ""),
            ("proxy: socks5h://p", "{url: 'https://b.example', proxy: direct}", ""),
            ("proxy: socks5://p\ndns: tls://x", "{url: 'https://b.example', proxy: direct, dns: system}", ""),
        ];
        for (of_all, upstream, expected) in cases {
            let said =
                said(&format!("dns_route: proxy\n{of_all}\nupstreams: [https://1.2.3.4, {upstream}]\n")).join("; ");
            let text = format!("c.yaml: upstreams: entry 2: {asked} {expected}");
            let is_right = if expected.is_empty() { said.is_empty() } else { said.starts_with(&text) };
            assert!(is_right && !said.contains("s3cret"), "{of_all}, {upstream}: {said}");
        }
        let built_in = said("dns_route: proxy\nproxy: http://p\nno_proxy: golang.org\n").join("; ");
        let host = crate::config::DEFAULT_UPSTREAM.trim_start_matches("https://");
        let text = format!(
            "c.yaml: dns_route: with -dns-route proxy, {host} would be looked up by the system's resolver, since no-proxy \
             covers it: name a server in -dns, or as dns beside its URL, unless proxy: direct stands there"
        );
        assert_eq!(built_in, text);
        let private = "{pattern: b, url: 'https://b.example', proxy: 'socks5://q'}";
        let said = said(&format!("dns_route: proxy\nproxy: http://p\nprivate_upstreams: [{private}]\n")).join("; ");
        assert!(said.starts_with(&format!("c.yaml: private_upstreams: entry 1: {asked} socks5://q")), "{said}");
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
            ("gosumdb: off\ngonosumdb: a", "c.yaml: gonosumdb: has no effect while gosumdb is off"),
        ];
        for (yaml, expected) in cases {
            assert_eq!(said(&format!("{yaml}\n")).join("; "), expected);
        }
    }
}
