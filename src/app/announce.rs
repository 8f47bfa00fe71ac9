//! What the person who starts Larder sees first: version, the configuration that matters, the line to copy.
//!
//! Called by `app` when it listens; calls `config` for what is configured and `control` for the words of the rules.
//! Texts are without secrets: addresses come masked from the configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::app::upstreams;
use crate::app::way_out::WayOut;
use crate::config::{Config, NetworkMode};
use crate::control::text;

/// Prints the start-up lines, whatever the log level.
#[expect(clippy::print_stderr, reason = "the start-up lines are for the person at the terminal, and not log lines")]
pub(super) fn print(config: &Config, way_out: &WayOut, addresses: &[SocketAddr]) {
    for line in lines(config, way_out, addresses) {
        eprintln!("{line}");
    }
}

/// Returns a line on the way to the upstreams each.
pub(super) fn way_out_lines(config: &Config, way_out: &WayOut) -> Vec<String> {
    let upstreams = upstreams::lines(config, way_out).into_iter().map(|text| line("upstream", &text));
    upstreams.chain(way_out.lines().iter().map(|(name, text)| line(name, text))).collect()
}

fn line(name: &str, text: &str) -> String {
    format!("{name:<10} {text}")
}

fn lines(config: &Config, way_out: &WayOut, addresses: &[SocketAddr]) -> Vec<String> {
    let mut lines = vec![format!("larder {}", env!("CARGO_PKG_VERSION"))];
    let mut say = |name: &str, text: &str| lines.push(line(name, text));
    if let Some(path) = &config.config_file {
        say("config", &path.display().to_string());
    }
    // The whole path: a relative one is the reason why a cache seems empty after a start from elsewhere.
    let cache_dir = std::path::absolute(&config.cache_dir).unwrap_or_else(|_| config.cache_dir.clone());
    say("cache", &cache_dir.display().to_string());
    lines.extend(way_out_lines(config, way_out));
    let mut say = |name: &str, text: &str| lines.push(line(name, text));
    if config.network_mode != NetworkMode::Fallback {
        say("network", &config.network_mode.to_string());
    }
    say("removes", &text::rules(super::commands::limits(config)));
    if !config.allow.is_empty() {
        let allowed: Vec<String> = config.allow.iter().map(ToString::to_string).collect();
        say("serves", &format!("{} and nobody else", allowed.join(", ")));
    }
    for address in addresses {
        say("listening", &address.to_string());
    }
    if let Some(address) = addresses.first() {
        lines.push(format!("export GOPROXY=http://{}", reachable(*address)));
    }
    lines
}

/// Returns the address under which a listener on all interfaces can be reached from the office.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Connecting a UDP socket sends nothing; it only has the system choose the address it would send from.
    let chosen = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr()));
    let ip = chosen.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |local| local.ip());
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::way_out::tests::way_out;

    /// There is one line to copy, it is the last, and what differs from the defaults is told.
    #[tokio::test]
    async fn the_lines_of_a_start() {
        let (_, way_out) = way_out("proxy: socks5://192.0.2.9");
        let mut config = Config { cache_dir: "/srv/larder".into(), min_free_space: 256_000_000, ..Config::default() };
        let address = SocketAddr::from(([127, 0, 0, 1], 3000));
        let expected = [
            concat!("larder ", env!("CARGO_PKG_VERSION")),
            "cache      /srv/larder",
            "proxy      socks5://192.0.2.9:1080, given addresses",
            "names      of upstreams are looked up by the system's resolver, past the proxy: -dns or socks5h:// prevents it",
            "network    strict",
            "removes    what is unused longest, below 256.00 MB of free space",
            "listening  127.0.0.1:3000",
            "export GOPROXY=http://127.0.0.1:3000",
        ];
        config.network_mode = NetworkMode::Strict;
        assert_eq!(lines(&config, &way_out, &[address]), expected);
    }

    /// A listener on all interfaces is given an address that others can use.
    #[test]
    fn an_unspecified_address_is_replaced() {
        let all = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], 3000));
        let shown = reachable(all);
        assert!(!shown.ip().is_unspecified() && shown.port() == 3000, "{shown}");
    }
}
