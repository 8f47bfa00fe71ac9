//! What to change, for each thing that goes wrong on the way out.
//!
//! Called by the steps of `doctor` with the reason as people read it, which is what `net` says about its failures: the
//! words looked for here are those of `net::tls::explain`, `net::dial`, `net::proxy` and the DNS servers, and a test
//! holds each fault of the table to its hint. Pure.

use crate::net::egress::Route;
use crate::net::proxy::{Entry, Kind};
use crate::net::target::{Host, Target, is_local};

/// What a hint has to know of the way to an upstream, so that it does not advise what is there or cannot help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// Who finds its address.
    finder: Finder,
    /// Whether it is reached through a proxy.
    is_proxied: bool,
    /// Whether such a proxy is given addresses, and could be given names.
    is_given_addresses: bool,
    /// Whether it may be near, so that a proxy is only in the way.
    is_near: bool,
}

/// Who finds an upstream's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Finder {
    /// It needs no finding, or a proxy does.
    #[default]
    Elsewhere,
    /// The system's resolver, which is the one that is lied to.
    System,
    /// Servers of the user's choice.
    Servers,
}

impl Circumstances {
    /// Returns those of a way.
    pub(super) fn of(to: &Target, route: &Route) -> Self {
        let is_proxied = !route.proxies.is_direct(to);
        let is_given_addresses = |entry: &Entry| matches!(entry, Entry::Server(server) if server.kind == Kind::Socks5);
        let is_looked_up = matches!(&to.host, Host::Name(name) if name != "localhost")
            && !(is_proxied && route.proxies.resolves_names());
        Self {
            finder: match is_looked_up {
                false => Finder::Elsewhere,
                true if route.resolver.is_system() => Finder::System,
                true => Finder::Servers,
            },
            is_proxied,
            is_given_addresses: is_proxied && route.proxies.entries().iter().any(is_given_addresses),
            is_near: match &to.host {
                Host::Address(address) => is_local(*address),
                Host::Name(name) => !name.contains('.'),
            },
        }
    }

    /// Returns what to do about an address that may be false; nothing where somebody was asked who was chosen.
    pub(super) fn doubt(self) -> Option<String> {
        let other = if self.is_given_addresses { ", or write socks5h://, and the proxy looks the name up" } else { "" };
        let text = "the address may be false, since the system's resolver gave it: name a DNS server that can be trusted \
                    with -dns (tls://…)";
        (self.finder == Finder::System).then(|| format!("{text}{other}"))
    }
}

/// The faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    TooLong,
    NotLedTo,
    NotTls,
    SpeaksTls,
    Unauthorised,
    UnknownAuthority,
    Expired,
    NotYetValid,
    WrongName,
    WrongKind,
    Cut,
    Blocked,
    NoSuchName,
    ServerFailed,
    RefusedThere,
    NoWay,
    NothingThere,
    Silent,
    Other,
}

/// Words, any of which tells a fault; the more telling ones first.
const SIGNS: [(Fault, &[&str]); 18] = [
    (Fault::TooLong, &["too long for udp"]),
    (Fault::NotTls, &["does not speak tls", "speaks plain http"]),
    (Fault::SpeaksTls, &["it speaks tls"]),
    (Fault::Unauthorised, &["user name", "password", "status 407", "who we are"]),
    (Fault::UnknownAuthority, &["unknown authority", "that of an authority"]),
    (Fault::Expired, &["certificate expired"]),
    (Fault::NotYetValid, &["not valid before", "not valid yet"]),
    (Fault::WrongName, &["certificate is for"]),
    (
        Fault::WrongKind,
        &[
            "does not speak",
            "no dns over https",
            "not a dns message",
            "not json",
            "web page",
            "not an answer of the dns",
        ],
    ),
    (Fault::Cut, &["during the handshake", "refused the handshake", "connection was closed", "connection was reset"]),
    (Fault::Blocked, &["leads nowhere"]),
    (
        Fault::NoSuchName,
        &["no such name", "no such host", "name or service not known", "no address associated", "name has no address"],
    ),
    (Fault::ServerFailed, &["servfail", "server failure", "temporary failure in name resolution"]),
    (Fault::NotLedTo, &["connect refused", "not allowed by", "does not connect for", "status 403", "status 405"]),
    (Fault::RefusedThere, &["refuses to answer"]),
    (Fault::NoWay, &["unreachable", "no route to host"]),
    (Fault::NothingThere, &["connection refused"]),
    (
        Fault::Silent,
        &["no answer", "timed out", "no handshake", "silent", "no byte", "no connection within", "not done"],
    ),
];

const CLOCK: &str = "set this machine's clock (`timedatectl set-ntp true`)";
const FIREWALL: &str = "look at this machine's network (`ip route`)";

fn fault(reason: &str) -> Fault {
    let reason = reason.to_ascii_lowercase();
    SIGNS
        .iter()
        .find(|(_, words)| words.iter().any(|word| reason.contains(word)))
        .map_or(Fault::Other, |(fault, _)| *fault)
}

/// Tells whether a certificate was refused for what the clock shows.
pub(super) fn is_about_time(reason: &str) -> bool {
    matches!(fault(reason), Fault::Expired | Fault::NotYetValid)
}

/// Returns what to change when a DNS server fails.
pub(super) fn of_dns(reason: &str) -> String {
    match fault(reason) {
        Fault::UnknownAuthority => "if the server is your own, name its authority's certificate with -dns-ca FILE",
        Fault::Expired => "the server's operator has to renew it; or this machine's clock is wrong",
        Fault::NotYetValid => CLOCK,
        Fault::WrongName => "name the server in -dns by a name its certificate is for; or somebody else answers for it",
        Fault::SpeaksTls | Fault::WrongKind => {
            "is it a DNS server of that kind? See to scheme, port and path in -dns (tls 853, https 443 and mostly /dns-query)"
        }
        Fault::Blocked => "ask a server that can be trusted with -dns: tls:// or https://, through a proxy if need be",
        Fault::NotTls => "that port speaks no TLS: udp:// or tcp://, or another port (tls 853, https 443)",
        Fault::Cut => "something on the way cuts TLS to that port: try https://, or another server",
        Fault::NoSuchName => "is the name spelt right? Else this server does not know it: ask another one with -dns",
        Fault::ServerFailed => "the server cannot find out: ask another one with -dns",
        Fault::RefusedThere => "it does not answer this machine: another -dns",
        Fault::NotLedTo => {
            "the proxy does not lead to that port: https:// in -dns, on port 443, goes through most proxies; or the proxy \
             has to allow it"
        }
        Fault::TooLong => "TCP to that port is blocked: ask over tls:// or https://, or another server, with -dns",
        Fault::NoWay => return format!("{FIREWALL}; or ask a server that can be reached, with -dns"),
        Fault::NothingThere => "no DNS server listens there: see to address and port in -dns, or start it",
        Fault::Silent => {
            "it is down, or a firewall drops the packets: another server, or tls:// or https:// through a proxy"
        }
        Fault::Unauthorised => "see to user name and password of the proxy that leads there, in -proxy",
        Fault::Other => "ask another server with -dns",
    }
    .to_owned()
}

/// Returns what to change when a proxy fails.
pub(super) fn of_proxy(reason: &str) -> String {
    match fault(reason) {
        Fault::Unauthorised => {
            "put the right user:password@ into its URL in -proxy (`@`, `:` and `/` in them as %40, %3A, %2F)"
        }
        Fault::UnknownAuthority => "if the proxy is your own, name its authority's certificate with -ca FILE",
        Fault::Expired => "the proxy's operator has to renew its certificate; or this machine's clock is wrong",
        Fault::NotYetValid => CLOCK,
        Fault::WrongName => "name the proxy by a name its certificate is for",
        Fault::NotTls => "the proxy speaks no TLS: write http:// in -proxy",
        Fault::SpeaksTls => "write https:// in -proxy",
        Fault::Cut => "is it an https proxy at all? Otherwise write http:// or socks5:// in -proxy",
        Fault::NoSuchName | Fault::ServerFailed | Fault::Blocked => {
            "see to the name in -proxy, or write the proxy's address; -dns-bootstrap finds its name"
        }
        Fault::NotLedTo | Fault::RefusedThere => {
            "the proxy has to allow it (host and port); or reach that upstream directly, with NO_PROXY"
        }
        Fault::NoWay => return format!("{FIREWALL}: there is no way to the proxy, or from it to the upstream"),
        Fault::NothingThere => "nothing listens there: see to host and port in -proxy, or start the proxy",
        Fault::Silent => {
            "it is down, hangs, or is of another kind than its URL in -proxy says; name another one behind it"
        }
        Fault::TooLong | Fault::WrongKind | Fault::Other => {
            "see to its URL in -proxy: kind (http, https, socks5, socks5h), host and port"
        }
    }
    .to_owned()
}

/// Tells whether what was said is that nothing was said.
pub(super) fn is_silence(reason: &str) -> bool {
    fault(reason) == Fault::Silent
}

/// Returns what to change when a proxy works and does not lead to an upstream.
pub(super) fn of_tunnel(reason: &str, way: Circumstances) -> String {
    match fault(reason) {
        Fault::NotLedTo | Fault::RefusedThere => of_proxy(reason),
        Fault::NoSuchName | Fault::ServerFailed | Fault::Blocked => {
            "the proxy does not find the upstream's name: with socks5:// it is looked up here".to_owned()
        }
        Fault::NotTls
        | Fault::SpeaksTls
        | Fault::Unauthorised
        | Fault::UnknownAuthority
        | Fault::Expired
        | Fault::NotYetValid
        | Fault::WrongName
        | Fault::WrongKind
        | Fault::Cut
        | Fault::NoWay
        | Fault::NothingThere
        | Fault::Silent
        | Fault::TooLong
        | Fault::Other => way.doubt().map_or_else(
            || {
                let near = if way.is_near { " If it is near, reach it directly, with NO_PROXY" } else { "" };
                format!("the proxy works, but from there the upstream is not reached: is it up, and is its address right?{near}")
            },
            |doubt| format!("the proxy works; {doubt}"),
        ),
    }
}

/// Returns what to change when the TLS handshake with an upstream fails.
pub(super) fn of_tls(reason: &str) -> String {
    match fault(reason) {
        Fault::UnknownAuthority => {
            "if your office inspects TLS, or the server is its own: -ca FILE with the authority's certificate"
        }
        Fault::Expired => "if the date on this machine is right, the upstream's operator has to renew it",
        Fault::NotYetValid => CLOCK,
        Fault::WrongName => {
            "another server than the one meant: is the address from dns (above) right, or does something in between \
             answer in its place? A DNS server that can be trusted is given with -dns"
        }
        Fault::NotTls => "write http:// in -upstream if the upstream is meant to be without TLS; or see to the port",
        Fault::Silent | Fault::Cut => "something on the way cuts TLS: -proxy leads around it, if there is one",
        Fault::Unauthorised
        | Fault::SpeaksTls
        | Fault::WrongKind
        | Fault::Blocked
        | Fault::NoSuchName
        | Fault::ServerFailed
        | Fault::RefusedThere
        | Fault::NotLedTo
        | Fault::TooLong
        | Fault::NoWay
        | Fault::NothingThere
        | Fault::Other => "see to the address in -upstream",
    }
    .to_owned()
}

/// Returns what to change when an upstream cannot be reached or does not answer.
pub(super) fn of_upstream(reason: &str) -> String {
    // Those steps are told by themselves, with what to change; only the system's resolver is not always.
    if reason.starts_with("dns: system resolver: ") {
        return of_dns(reason);
    }
    if let Some(step) = ["dns", "proxy"].iter().find(|step| reason.starts_with(&format!("{step}: "))) {
        return format!("see to {step}, above");
    }
    if reason.starts_with("tls: ") {
        return of_tls(reason);
    }
    match fault(reason) {
        Fault::NothingThere => "nothing listens there: see to host and port in -upstream, or start it".to_owned(),
        Fault::Silent => "a firewall may drop it: if only a proxy leads out, name it with -proxy; and is the address \
                          from dns (above) right?"
            .to_owned(),
        Fault::NoWay => format!("{FIREWALL}; if only a proxy leads out, name it with -proxy"),
        Fault::NotLedTo | Fault::RefusedThere => {
            "the proxy has to allow it; or reach this upstream directly, with NO_PROXY".to_owned()
        }
        Fault::Unauthorised => of_proxy(reason),
        Fault::SpeaksTls
        | Fault::TooLong
        | Fault::WrongKind
        | Fault::Blocked
        | Fault::UnknownAuthority
        | Fault::Expired
        | Fault::NotYetValid
        | Fault::WrongName
        | Fault::NotTls
        | Fault::Cut
        | Fault::NoSuchName
        | Fault::ServerFailed
        | Fault::Other => of_tls(reason),
    }
}

/// The same, where it is known which way that upstream is reached.
pub(super) fn of_upstream_on(reason: &str, way: Circumstances) -> String {
    let hint = of_upstream(reason);
    if ["dns: ", "proxy: "].iter().any(|step| reason.starts_with(step)) {
        return hint;
    }
    // A name that leads to this very machine was answered by a filter.
    if way.finder != Finder::Elsewhere
        && !way.is_proxied
        && [": 127.", ": [::1]:"].iter().any(|home| reason.contains(home))
    {
        return "see to dns, above".to_owned();
    }
    let is_tls = reason.starts_with("tls: ");
    let is_unreached = match fault(reason) {
        Fault::Silent | Fault::Cut => true,
        Fault::NoWay | Fault::NothingThere => !is_tls,
        Fault::TooLong
        | Fault::NotLedTo
        | Fault::NotTls
        | Fault::SpeaksTls
        | Fault::Unauthorised
        | Fault::UnknownAuthority
        | Fault::Expired
        | Fault::NotYetValid
        | Fault::WrongName
        | Fault::WrongKind
        | Fault::Blocked
        | Fault::NoSuchName
        | Fault::ServerFailed
        | Fault::RefusedThere
        | Fault::Other => false,
    };
    match way.doubt().filter(|_| is_unreached) {
        Some(doubt) if way.is_proxied => format!("{doubt}; and see to proxy, above"),
        Some(doubt) => format!("{doubt}; or {hint}"),
        None if way.is_proxied && is_unreached => "see to proxy, above".to_owned(),
        None => hint,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::net::tls;

    fn explained(error: rustls::Error) -> String {
        tls::explain(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// What TLS says about each fault of the table is understood here.
    #[test]
    fn what_tls_says() {
        use rustls::{CertificateError, Error, InvalidMessage};
        for (error, expected) in [
            (Error::InvalidCertificate(CertificateError::Expired), Fault::Expired),
            (Error::InvalidCertificate(CertificateError::NotValidYet), Fault::NotYetValid),
            (Error::InvalidCertificate(CertificateError::NotValidForName), Fault::WrongName),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), Fault::UnknownAuthority),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), Fault::NotTls),
        ] {
            let text = explained(error);
            assert_eq!(fault(&text), expected, "{text}");
        }
        assert_eq!(fault(&tls::explain(&io::ErrorKind::UnexpectedEof.into())), Fault::Cut);
    }

    /// What the system and the servers say is understood, and the hint names the setting to change.
    #[test]
    fn hints_name_what_to_change() {
        for (reason, hint, word) in [
            ("192.0.2.1:853: Connection refused (os error 111)", of_dns as fn(&str) -> String, "-dns"),
            ("certificate of an unknown authority", of_dns, "-dns-ca FILE"),
            ("a.example: no such name", of_dns, "spelt right"),
            ("a.example: SERVFAIL", of_dns, "another one with -dns"),
            ("no answer within 5 s", of_dns, "firewall"),
            ("wrong user name or password", of_proxy, "user:password@"),
            ("it wants a user name and a password (status 407)", of_proxy, "user:password@"),
            ("through http://192.0.2.1:3128: CONNECT refused: status 403 Forbidden", of_proxy, "allow"),
            ("it speaks plain HTTP, where anybody on the way could read the password", of_proxy, "write http://"),
            ("no DNS over HTTPS at this path: HTTP 404", of_dns, "path in -dns"),
            ("the answer is too long for UDP, and over TCP: Connection refused", of_dns, "TCP to that port is blocked"),
            ("through http://192.0.2.1:3128: CONNECT refused: status 403 Forbidden", of_dns, "https:// in -dns"),
            ("a.example: refuses to answer us (REFUSED)", of_dns, "another -dns"),
            ("no answer within 10 s", of_proxy, "hangs"),
            ("Connection refused (os error 111)", of_proxy, "start the proxy"),
            ("certificate of an unknown authority", of_tls, "-ca FILE"),
            ("certificate is for b.example, not for a.example", of_tls, "-dns"),
            ("certificate expired on 2024-05-01 (this machine's clock shows 2026-11-21)", of_tls, "renew"),
            ("connect: a.example:443: Connection refused (os error 111)", of_upstream, "-upstream"),
            ("connect: a.example:443: Network is unreachable (os error 101)", of_upstream, "-proxy"),
            ("proxy: socks5://***@192.0.2.1:1080: wrong user name or password", of_upstream, "proxy, above"),
            ("dns: udp://192.0.2.1:53: no answer within 5 s", of_upstream, "dns, above"),
            ("dns: system resolver: a.example: name or service not known", of_upstream, "another one with -dns"),
        ] {
            assert!(hint(reason).contains(word), "{reason}: {}", hint(reason));
        }
    }

    /// No hint advises what is there already, or what cannot help; an address of doubtful origin is doubted.
    #[test]
    fn hints_fit_the_way() {
        let lying = Circumstances { finder: Finder::System, ..Circumstances::default() };
        let socks5 = Circumstances { is_proxied: true, is_given_addresses: true, ..lying };
        let proxied = Circumstances { is_proxied: true, ..Circumstances::default() };
        let near = Circumstances { is_near: true, ..proxied };
        let unreached = "connect: a.example:443: 192.0.2.9:443: No route to host (os error 113)";
        let home = "connect: a.example:443: 127.0.0.1:443: Connection refused (os error 111)";
        let hung = "tls: a.example:443: through http://192.0.2.1:3128: no handshake within 5 s";
        for (hint, words, never) in [
            (of_upstream_on(unreached, lying), &["may be false", "-dns (tls", "-proxy"][..], "socks5h"),
            (of_upstream_on(unreached, socks5), &["may be false", "-dns (tls", "socks5h://"], "-proxy"),
            (
                of_tunnel("host unreachable from there", socks5),
                &["may be false", "-dns (tls", "socks5h://"],
                "NO_PROXY",
            ),
            (of_tunnel("host unreachable from there", proxied), &["is it up"], "NO_PROXY"),
            (of_tunnel("host unreachable from there", near), &["NO_PROXY"], "-dns"),
            (of_upstream_on(hung, proxied), &["see to proxy, above"], "-proxy"),
            (of_upstream_on(home, lying), &["see to dns, above"], "start it"),
            (of_upstream_on(unreached, Circumstances::default()), &["ip route", "-proxy"], "-dns"),
        ] {
            assert!(words.iter().all(|word| hint.contains(word)) && !hint.contains(never), "{hint}");
        }
    }
}
