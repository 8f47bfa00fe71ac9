//! Tests that every command and file of go-proxy's documentation works.

use std::path::Path;
use std::time::Duration;

use super::tests::load;
use super::{DEFAULT_DATABASE, Loaded, UpstreamAuth, upstreams};

/// The configuration file of go-proxy's documentation.
const EXAMPLE_YAML: &str = r#"
# config.yaml
port: "12345"
cache_dir: "./cache"
upstreams: [https://a.example, https://goproxy.cn]
private_upstreams:
  - {pattern: "github.com/myorg/*", url: "https://myproxy.corp.com", auth: {type: bearer, value: "ghp_xxx"}}
  - {pattern: "*.corp.example.com", url: "https://nexus.corp.example.com", auth: {type: basic, value: "user:pass"}}
gosumdb: "off"
gonosumdb: "*.corp.example.com,github.com/myorg/*"
retry_attempts: 3
retry_backoff: 100ms
download_connections: 4
max_concurrent_downloads: 4
max_cache_age: 720h
cleanup_interval: 24h
"#;

type Example = (&'static [&'static str], &'static [(&'static str, &'static str)]);

/// Every command of go-proxy's documentation, with its variables.
const EXAMPLES: &[Example] = &[
    (&["-port", "3000", "-cache", "/path/to/cache", "-upstream", "https://goproxy.cn"], &[]),
    (
        &[],
        &[
            ("PORT", "3000"),
            ("CACHE_DIR", "/path/to/cache"),
            ("UPSTREAM_PROXY", "https://a.example,https://goproxy.cn"),
            ("GOPROXY_CONFIG", "./config.yaml"),
        ],
    ),
    (&["-max-cache-age", "720h", "-cleanup-interval", "24h"], &[]),
    (&["-download-connections", "8"], &[]),
    (&["-config", "config.yaml"], &[]),
    (&["-upstream", "https://a.example,https://goproxy.cn"], &[]),
    (&["-gosumdb", DEFAULT_DATABASE, "-gonosumdb", "*.corp.example.com,github.com/myorg/*"], &[]),
    (&["-proxy", "http://proxy-server:8080"], &[]),
    (&["-proxy", "socks5://socks5-server:1080"], &[]),
    (&["-proxy", "socks5h://socks5-server:1080"], &[]),
    (&[], &[("HTTP_PROXY", "http://proxy-server:8080")]),
    (&[], &[("SOCKS5_PROXY", "socks5://socks5-server:1080")]),
    (&[], &[("DNS_SERVER", "8.8.8.8:53")]),
    (&["-dns", "8.8.8.8:53"], &[]),
    (&["-dns", "udp://8.8.8.8:53"], &[]),
    (&["-dns", "https://cloudflare-dns.com/dns-query"], &[]),
    (&["-dns", "https://dns.google/resolve"], &[]),
    (&["-dns", "https://1.1.1.1/dns-query"], &[]),
    (&["-dns", "tls://1.1.1.1:853"], &[]),
    (&["-dns", "tls://dns.example"], &[]),
    (&["-dns", "quic://dns.adguard.com:853"], &[]),
    (&["-dns", "quic://dns.example"], &[]),
    (&["-dns", "8.8.8.8:53", "-proxy", "socks5://socks5-server:1080"], &[]),
    (
        &[
            "-dns",
            "https://cloudflare-dns.com/dns-query",
            "-proxy",
            "http://proxy:8080",
            "-upstream",
            "https://goproxy.cn",
        ],
        &[],
    ),
    (&["-dns", "tls://1.1.1.1:853", "-proxy", "socks5://socks5-server:1080"], &[]),
];

/// Every example of go-proxy's documentation passes `check-config`.
#[test]
fn every_go_proxy_example_works() {
    let files = [("config.yaml", EXAMPLE_YAML), ("./config.yaml", EXAMPLE_YAML)];
    for (words, variables) in EXAMPLES {
        let loaded =
            load(words, variables, &files).unwrap_or_else(|errors| panic!("{words:?} {variables:?}: {errors}"));
        assert!(loaded.report(&[]).ends_with("\nok\n"), "{words:?} {variables:?}");
    }
}

/// The example file gives what it says; its unset keys keep their defaults.
#[test]
fn example_file_in_full() {
    let loaded = load(&["-config", "config.yaml"], &[], &[("config.yaml", EXAMPLE_YAML)]).unwrap();
    let Loaded { config, warnings, .. } = loaded;
    assert_eq!((config.port, config.cache_dir.as_path()), (12_345, Path::new("./cache")));
    assert_eq!(upstreams::print_list(&config.upstreams), "https://a.example,https://goproxy.cn");
    let [org, corp] = config.private_upstreams.as_slice() else { panic!() };
    assert_eq!(org.pattern, "github.com/myorg/*");
    assert!(matches!(&org.auth, Some(UpstreamAuth::Bearer(token)) if token.reveal() == "ghp_xxx"));
    assert!(matches!(&corp.auth, Some(UpstreamAuth::Basic { user, password })
        if user == "user" && password.reveal() == "pass"));
    assert_eq!(config.max_cache_age, Some(Duration::from_secs(720 * 3600)));
    assert_eq!(config.cleanup_interval, Duration::from_secs(24 * 3600));
    assert_eq!(config.gonosumdb, ["*.corp.example.com", "github.com/myorg/*"]);
    assert_eq!(config.stall_timeout, Duration::from_secs(30));
    assert_eq!(warnings, ["config.yaml: gonosumdb: has no effect while gosumdb is off"]);
}
