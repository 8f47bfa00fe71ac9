//! The one table of settings: flag, key, variables, value and default, help, how it is read and how it is shown.
//!
//! Flags, variables, the file, the help text and `check-config` are all driven by it, so a setting is added here, in
//! one place, together with its field in `Config`. Called by `Config::load`, `report` and `cli`; calls the parsers.
//! Source: the names and defaults of go-proxy, for which Larder is a drop-in.

use std::time::Duration;

use super::settings::{Setting, own, shared};
use super::values::{cidr, flat, joined, log_level, many, number, one, optional, path, port, print_paths, time, truth};
use super::{DnsRoute, NetworkMode, SumdbMode, dns, duration, network, proxy, size, upstreams};

/// The flag of the setting that names the file; it is settled before all others.
pub(super) const CONFIG_FLAG: &str = "config";

/// Where modules come from unless told otherwise: the go command's own default.
pub const DEFAULT_UPSTREAM: &str = "https://proxy.golang.org";

/// What modules are verified against unless told otherwise: the go command's own default, whose key is built in.
pub const DEFAULT_DATABASE: &str = "sum.golang.org";

/// Range connections of one download are sockets and buffers: this many at most.
const DOWNLOAD_CONNECTIONS_MAX: u32 = 64;
/// More downloads at a time than this help nobody.
const CONCURRENT_DOWNLOADS_MAX: u32 = 4_096;
/// Attempts after which an upstream counts as broken whatever it says.
const RETRY_ATTEMPTS_MAX: u32 = 100;
/// The first retry delay may not keep a client waiting longer than this.
const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A stall longer than go-proxy's limit for a whole download is no limit.
const STALL_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 60);
/// File descriptors end before this.
const CONNECTIONS_MAX: u32 = 1_000_000;

/// All settings, in the order in which people read them.
pub static SETTINGS: &[Setting] = &[
    Setting::new(
        "port",
        "port",
        &[own("PORT")],
        ("PORT", "12345"),
        "Port to listen on; 0 takes a free one",
        (|c, node, r| one(&mut c.port, node, r, port), |c| c.port.to_string()),
    ),
    Setting::new(
        "listen",
        "listen",
        &[own("LISTEN")],
        ("ADDR,…", ""),
        "Addresses to listen on, else all, v4 and v6",
        (|c, node, r| many(&mut c.listen, node, r, network::parse_listen), |c| joined(&c.listen)),
    ),
    Setting::new(
        "allow",
        "allow",
        &[own("ALLOW")],
        ("CIDR,…", ""),
        "Networks that may ask, else local ones only",
        (|c, node, r| many(&mut c.allow, node, r, cidr), |c| joined(&c.allow)),
    ),
    Setting::new(
        "cache",
        "cache_dir",
        &[own("CACHE_DIR")],
        ("DIR", "./cache"),
        "Cache directory",
        (|c, node, r| one(&mut c.cache_dir, node, r, path), |c| c.cache_dir.display().to_string()),
    )
    .formerly(&["cache"]),
    Setting::new(
        CONFIG_FLAG,
        "",
        &[own("GOPROXY_CONFIG")],
        ("FILE", ""),
        "Configuration file: .yaml, .yml or .json",
        (
            |c, node, r| optional(&mut c.config_file, node, r, path),
            |c| c.config_file.as_ref().map_or_else(String::new, |path| path.display().to_string()),
        ),
    ),
    Setting::new(
        "upstream",
        "upstreams",
        &[own("UPSTREAM_PROXY")],
        ("URL,…", DEFAULT_UPSTREAM),
        "Where modules come from, in order: after a comma the next is asked on 404, 410 and spent retries, after a \
         pipe (|) on any failure; https, http, file:///path, off",
        (|c, node, r| c.upstreams = upstreams::parse_list(node, r), |c| upstreams::print_list(&c.upstreams)),
    )
    .formerly(&["upstream", "upstream_proxy"]),
    Setting::new(
        "",
        "private_upstreams",
        &[],
        ("LIST", ""),
        "Upstreams that alone are asked for their pattern",
        (
            |c, node, r| {
                c.private_upstreams = if node.is_empty() { Vec::new() } else { upstreams::parse_private(node, r) };
            },
            |c| c.private_upstreams.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        ),
    )
    .formerly(&["private_upstream"]),
    Setting::new(
        "network-mode",
        "network_mode",
        &[own("NETWORK_MODE")],
        ("MODE", "fallback"),
        "When an upstream fails: strict relays that, fallback serves what is stored, offline never asks one",
        (|c, node, r| one(&mut c.network_mode, node, r, NetworkMode::parse), |c| c.network_mode.to_string()),
    ),
    Setting::new(
        "retry-attempts",
        "retry_attempts",
        &[],
        ("N", "3"),
        "Attempts per upstream on 5xx, 429 and network errors; 0 and 1 are one attempt",
        (
            |c, node, r| {
                one(&mut c.retry_attempts, node, r, |text| number(text, 0, RETRY_ATTEMPTS_MAX));
            },
            |c| c.retry_attempts.to_string(),
        ),
    ),
    Setting::new(
        "retry-backoff",
        "retry_backoff",
        &[],
        ("TIME", "100ms"),
        "First retry delay, then exponential",
        (
            |c, node, r| {
                one(&mut c.retry_backoff, node, r, |text| time(text, Duration::ZERO, RETRY_BACKOFF_MAX));
            },
            |c| duration::print(c.retry_backoff),
        ),
    ),
    Setting::new(
        "stall-timeout",
        "stall_timeout",
        &[own("STALL_TIMEOUT")],
        ("TIME", "30s"),
        "A download without a byte for this long is resumed",
        (
            |c, node, r| {
                one(&mut c.stall_timeout, node, r, |text| time(text, Duration::from_millis(1), STALL_TIMEOUT_MAX));
            },
            |c| duration::print(c.stall_timeout),
        ),
    ),
    Setting::new(
        "download-connections",
        "download_connections",
        &[own("DOWNLOAD_CONNECTIONS")],
        ("N", "4"),
        "Range connections per zip above 512 KB; 1 turns it off",
        (
            |c, node, r| {
                one(&mut c.download_connections, node, r, |text| number(text, 0, DOWNLOAD_CONNECTIONS_MAX));
            },
            |c| c.download_connections.to_string(),
        ),
    ),
    Setting::new(
        "max-concurrent-downloads",
        "max_concurrent_downloads",
        &[own("MAX_CONCURRENT_DOWNLOADS")],
        ("N", "4"),
        "Zips downloaded at a time; 0 is unlimited",
        (
            |c, node, r| {
                let parse = |text: &str| number(text, 0, CONCURRENT_DOWNLOADS_MAX).map(|n| (n > 0).then_some(n));
                one(&mut c.max_concurrent_downloads, node, r, parse);
            },
            |c| c.max_concurrent_downloads.unwrap_or(0).to_string(),
        ),
    ),
    Setting::new(
        "fresh-for",
        "fresh_for",
        &[own("FRESH_FOR")],
        ("TIME", "60s"),
        "Lists, @latest, queries and negative answers are not asked again for this long",
        (
            |c, node, r| {
                one(&mut c.fresh_for, node, r, |text| time(text, Duration::ZERO, Duration::MAX));
            },
            |c| duration::print(c.fresh_for),
        ),
    ),
    Setting::new(
        "max-cache-age",
        "max_cache_age",
        &[own("MAX_CACHE_AGE")],
        ("TIME", "0s"),
        "Modules unused for this long are removed; 0 is never",
        (
            |c, node, r| {
                let parse = |text: &str| duration::parse(text).map(|age| (!age.is_zero()).then_some(age));
                one(&mut c.max_cache_age, node, r, parse);
            },
            |c| duration::print(c.max_cache_age.unwrap_or_default()),
        ),
    ),
    Setting::new(
        "max-cache-size",
        "max_cache_size",
        &[own("MAX_CACHE_SIZE")],
        ("SIZE", "0"),
        "Above this the modules unused for longest are removed; 0 is unlimited",
        (
            |c, node, r| {
                let parse = |text: &str| size::parse(text).map(|bytes| (bytes > 0).then_some(bytes));
                one(&mut c.max_cache_size, node, r, parse);
            },
            |c| size::print(c.max_cache_size.unwrap_or(0)),
        ),
    ),
    Setting::new(
        "min-free-space",
        "min_free_space",
        &[own("MIN_FREE_SPACE")],
        ("SIZE", "256MB"),
        "Space kept free on the disk, by removing the modules unused for longest",
        (|c, node, r| one(&mut c.min_free_space, node, r, size::parse), |c| size::print(c.min_free_space)),
    ),
    Setting::new(
        "cleanup-interval",
        "cleanup_interval",
        &[own("CLEANUP_INTERVAL")],
        ("TIME", "24h"),
        "How often unused modules are looked for",
        (
            |c, node, r| {
                one(&mut c.cleanup_interval, node, r, |text| time(text, Duration::from_millis(1), Duration::MAX));
            },
            |c| duration::print(c.cleanup_interval),
        ),
    ),
    Setting::new(
        "max-connections",
        "max_connections",
        &[own("MAX_CONNECTIONS")],
        ("N", "2048"),
        "Client connections at a time",
        (
            |c, node, r| one(&mut c.max_connections, node, r, |text| number(text, 1, CONNECTIONS_MAX)),
            |c| c.max_connections.to_string(),
        ),
    ),
    Setting::new(
        "max-connections-per-client",
        "max_connections_per_client",
        &[own("MAX_CONNECTIONS_PER_CLIENT")],
        ("N", "256"),
        "Connections of one client address at a time",
        (
            |c, node, r| {
                one(&mut c.max_connections_per_client, node, r, |text| number(text, 1, CONNECTIONS_MAX));
            },
            |c| c.max_connections_per_client.to_string(),
        ),
    ),
    Setting::new(
        "gosumdb",
        "gosumdb",
        &[own("GOSUMDB")],
        ("NAME", DEFAULT_DATABASE),
        "Checksum database that modules are verified against: NAME, NAME+HASH+KEY, one of these and a URL, or off",
        (
            |c, node, r| one(&mut c.gosumdb, node, r, network::parse_gosumdb),
            |c| c.gosumdb.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string),
        ),
    ),
    Setting::new(
        "gonosumdb",
        "gonosumdb",
        &[own("GONOSUMDB")],
        ("PATTERN,…", ""),
        "Modules that are not verified, and whose names go to no checksum database",
        (|c, node, r| many(&mut c.gonosumdb, node, r, |text| Ok(text.to_owned())), |c| c.gonosumdb.join(",")),
    ),
    Setting::new(
        "sumdb-mode",
        "sumdb_mode",
        &[own("SUMDB_MODE")],
        ("MODE", "when-reachable"),
        "What cannot be verified now: when-reachable serves it and verifies it later, strict refuses it",
        (|c, node, r| one(&mut c.sumdb_mode, node, r, SumdbMode::parse), |c| c.sumdb_mode.to_string()),
    ),
    Setting::new(
        "sumdbs",
        "sumdbs",
        &[own("SUMDBS")],
        ("NAME,…", ""),
        "Checksum databases that are proxied, written as for gosumdb, else the one of gosumdb",
        (|c, node, r| many(&mut c.sumdbs, node, r, network::parse_database), |c| joined(&c.sumdbs)),
    ),
    Setting::new(
        "scrub-interval",
        "scrub_interval",
        &[own("SCRUB_INTERVAL")],
        ("TIME", "720h"),
        "How often every stored file is read again and compared with its hash; 0 is never",
        (
            |c, node, r| {
                let parse = |text: &str| duration::parse(text).map(|time| (!time.is_zero()).then_some(time));
                one(&mut c.scrub_interval, node, r, parse);
            },
            |c| duration::print(c.scrub_interval.unwrap_or_default()),
        ),
    ),
    Setting::new(
        "scrub-rate",
        "scrub_rate",
        &[own("SCRUB_RATE")],
        ("SIZE", "4MB"),
        "Bytes a second that this reads at most; 0 is no limit",
        (|c, node, r| one(&mut c.scrub_rate, node, r, size::parse), |c| size::print(c.scrub_rate)),
    ),
    Setting::new(
        "proxy",
        "proxy",
        &[
            shared("HTTP_PROXY"),
            shared("http_proxy"),
            shared("HTTPS_PROXY"),
            shared("https_proxy"),
            shared("SOCKS5_PROXY"),
            shared("socks5_proxy"),
        ],
        ("URL,…", ""),
        "Proxies to the upstreams, in order of preference: http, https, socks5 (names are resolved here), socks5h (by \
         the proxy), direct; with user:password@ where needed",
        (|c, node, r| many(&mut c.proxies, node, r, proxy::Entry::parse), |c| joined(&c.proxies)),
    )
    .formerly(&["proxies"]),
    Setting::new(
        "no-proxy",
        "no_proxy",
        &[shared("NO_PROXY"), shared("no_proxy")],
        ("HOST,…", ""),
        "Reached without a proxy: names with all below them, .names below only, addresses, networks, each with a port \
         or not; * for all",
        (
            |c, node, r| {
                if let Some(text) = flat(node, r) {
                    c.no_proxy = text;
                }
            },
            |c| c.no_proxy.clone(),
        ),
    ),
    Setting::new(
        "dns",
        "dns",
        &[own("DNS_SERVER")],
        ("SERVER,…", ""),
        "DNS servers in order, else the system's: 8.8.8.8:53, udp://…, tcp://…, tls://…, quic://…, https://host/path",
        (|c, node, r| dns::read_list(&mut c.dns, node, r), |c| dns::print_list(&c.dns)),
    ),
    Setting::new(
        "dns-bootstrap",
        "dns_bootstrap",
        &[own("DNS_BOOTSTRAP")],
        ("SERVER,…", ""),
        "DNS servers, by address, that find the names of proxies and DNS servers, else the system's",
        (|c, node, r| dns::read_bootstrap(&mut c.dns_bootstrap, node, r), |c| joined(&c.dns_bootstrap)),
    ),
    Setting::new(
        "dns-route",
        "dns_route",
        &[own("DNS_ROUTE")],
        ("WAY", "auto"),
        "Which way DNS goes: auto sends TCP, TLS and HTTPS through the proxy, UDP and QUIC directly; proxy sends all \
         through; direct none",
        (|c, node, r| one(&mut c.dns_route, node, r, DnsRoute::parse), |c| c.dns_route.to_string()),
    ),
    Setting::new(
        "dns-ca",
        "dns_ca",
        &[own("DNS_CA")],
        ("FILE,…", ""),
        "More certificate authorities to trust for DNS servers, PEM files",
        (|c, node, r| many(&mut c.dns_ca, node, r, path), |c| print_paths(&c.dns_ca)),
    ),
    Setting::new(
        "ca",
        "ca",
        &[own("CA_FILE")],
        ("FILE,…", ""),
        "More certificate authorities to trust, PEM files: a company's own, where TLS is inspected",
        (|c, node, r| many(&mut c.ca, node, r, path), |c| print_paths(&c.ca)),
    )
    .formerly(&["ca_file"]),
    Setting::new(
        "log-requests",
        "log_requests",
        &[own("LOG_REQUESTS")],
        ("", "false"),
        "Log every request",
        (|c, node, r| one(&mut c.log_requests, node, r, truth), |c| c.log_requests.to_string()),
    ),
    Setting::new(
        "log-level",
        "log_level",
        &[own("LOG_LEVEL"), shared("RUST_LOG")],
        ("LEVEL", "info"),
        "error, warn, info, debug or trace, also per module as in larder::store=debug",
        (|c, node, r| one(&mut c.log_level, node, r, log_level), |c| c.log_level.clone()),
    ),
    Setting::new(
        "ready-file",
        "ready_file",
        &[own("READY_FILE")],
        ("FILE", ""),
        "File that gets the address served on once it is",
        (
            |c, node, r| optional(&mut c.ready_file, node, r, path),
            |c| c.ready_file.as_ref().map_or_else(String::new, |path| path.display().to_string()),
        ),
    ),
];
