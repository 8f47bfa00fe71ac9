//! Tests of the whole configuration: defaults, precedence, error texts, secrets.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::*;
use crate::cli;

/// Loads the configuration of a command line and some variables; files are looked up by name.
pub(super) fn load(words: &[&str], variables: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let words = std::iter::once("larder").chain(words.iter().copied()).map(OsString::from);
    let flags = cli::parse(words).unwrap().flags;
    let environment: BTreeMap<String, OsString> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    let read_file = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    Config::load(&flags, &environment, &read_file)
}

fn mistakes(words: &[&str], variables: &[(&str, &str)], files: &[(&str, &str)]) -> String {
    load(words, variables, files).unwrap_err().to_string()
}

/// Without any source the documented defaults hold.
#[test]
fn defaults() {
    let loaded = load(&[], &[], &[]).unwrap();
    assert!(loaded.warnings.is_empty());
    assert!(loaded.origins.iter().all(|(_, origin)| *origin == Origin::Default));
    let config = &loaded.config;
    assert_eq!(upstreams::print_list(&config.upstreams), DEFAULT_UPSTREAM);
    assert_eq!((config.port, config.retry_attempts, config.download_connections), (12_345, 3, 4));
    assert_eq!((config.max_concurrent_downloads, config.max_cache_age), (Some(4), None));
    assert_eq!((config.max_cache_size, config.min_free_space), (None, 256_000_000));
    assert_eq!((config.max_connections, config.max_connections_per_client), (2_048, 256));
    assert_eq!((config.network_mode, config.log_level.as_str()), (NetworkMode::Fallback, "info"));
    assert_eq!(config.retry_backoff, Duration::from_millis(100));
    assert_eq!(config.fresh_for, Duration::from_secs(60));
    let addresses: Vec<String> = config.socket_addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["[::]:12345", "0.0.0.0:12345"]);
    // What is printed as a default reads back as the same default.
    for (setting, _) in &loaded.origins {
        let mut again = Config::default();
        (setting.read)(&mut again, &file::Node::Scalar(setting.default.to_owned()), &mut Report::default());
        assert_eq!((setting.show)(&again), (setting.show)(config), "{}", setting.name());
    }
}

/// A text that is valid for a setting, and unlike its default.
fn sample(setting: &Setting) -> &'static str {
    match setting.name() {
        "listen" => "127.0.0.1",
        "allow" => "10.0.0.0/8",
        "cache_dir" | "ready_file" | "ca" | "dns_ca" => "other",
        "upstreams" => "https://a.example|off",
        "network_mode" => "offline",
        "retry_backoff" | "stall_timeout" | "fresh_for" | "max_cache_age" | "cleanup_interval" | "scrub_interval" => {
            "7s"
        }
        "max_cache_size" | "min_free_space" | "scrub_rate" => "7MB",
        "gosumdb" => "off",
        "sumdbs" => DEFAULT_DATABASE,
        "sumdb_mode" => "strict",
        "gonosumdb" => "rsc.io",
        "proxy" => "http://proxy.example:8080,direct",
        "no_proxy" => ".corp.example,10.0.0.0/8",
        "dns" | "dns_bootstrap" => "tcp://8.8.8.8:53,tls://[2001:db8::1]:853",
        "dns_route" => "direct",
        "log_requests" => "true",
        "log_level" => "debug",
        _ => "7",
    }
}

/// For every setting: the file beats the default, each variable the file, the flag all; the origin says which.
#[test]
fn precedence_for_every_setting() {
    for setting in SETTINGS {
        let (Some(flag), Some(key)) = (setting.flag, setting.key) else {
            continue;
        };
        let text = sample(setting);
        let yaml = format!("{key}: \"{text}\"\n");
        let files = [("c.yaml", yaml.as_str())];
        let given = format!("-{flag}={text}");
        let check = |words: &[&str], variables: &[(&str, &str)], expected: Origin| {
            let words = [words, &["-config", "c.yaml"]].concat();
            let loaded = load(&words, variables, &files).unwrap();
            let (_, origin) = loaded.origins.iter().find(|(row, _)| row.name() == setting.name()).unwrap();
            assert_eq!(*origin, expected, "{flag}");
            assert_eq!((setting.show)(&loaded.config), text, "{flag}");
        };
        check(&[], &[], Origin::File("c.yaml".into(), key));
        for variable in setting.variables {
            check(&[], &[(variable.name, text)], Origin::Environment(variable.name));
            check(&[given.as_str()], &[(variable.name, text)], Origin::Flag(flag));
        }
        check(&[given.as_str()], &[], Origin::Flag(flag));
    }
}

/// The stronger source gives the value, not only the origin.
#[test]
fn the_stronger_value_counts() {
    let files = [("c.json", r#"{"port": 1, "cache_dir": "file", "network_mode": "strict"}"#)];
    let variables = [("PORT", "2"), ("CACHE_DIR", "variable"), ("GOPROXY_CONFIG", "c.json")];
    let config = load(&["-port", "3"], &variables, &files).unwrap().config;
    assert_eq!((config.port, config.cache_dir.as_path()), (3, Path::new("variable")));
    assert_eq!(config.network_mode, NetworkMode::Strict);
    // An empty variable and an empty key are as good as none.
    let files = [("c.json", r#"{"port": "", "upstreams": [], "cache_dir": null}"#)];
    let loaded = load(&["-config", "c.json"], &[("PORT", "")], &files).unwrap();
    assert_eq!((loaded.config.port, loaded.config.cache_dir.as_path()), (12_345, Path::new("./cache")));
}

/// Proxies come from the flag, then from the variables in go-proxy's order, each before its form in lower case.
#[test]
fn the_order_of_the_proxies_variables() {
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "SOCKS5_PROXY", "socks5_proxy"];
    let variables: Vec<_> = names.iter().map(|name| (*name, format!("http://{}:1", name.replace('_', "-")))).collect();
    let variables: Vec<_> = variables.iter().rev().map(|(name, value)| (*name, value.as_str())).collect();
    let shown = |loaded: Loaded| loaded.config.proxies.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (index, name) in names.iter().enumerate() {
        let loaded = load(&[], &variables[..names.len() - index], &[]).unwrap();
        assert_eq!(shown(loaded), [format!("http://{}:1", name.to_lowercase().replace('_', "-"))]);
    }
    assert_eq!(shown(load(&["-proxy", "direct"], &variables, &[]).unwrap()), ["direct"]);
    let files = [("c.yaml", "proxy: [socks5://a, socks5h://b]\nno_proxy: [a, b]\n")];
    let loaded = load(&["-config", "c.yaml"], &[("no_proxy", "x"), ("NO_PROXY", "y")], &files).unwrap();
    assert_eq!(loaded.config.no_proxy, "y");
    assert_eq!(shown(loaded), ["socks5://a", "socks5h://b"]);
}

/// All mistakes of all sources come together, each with its source and setting and without its value.
#[test]
fn all_mistakes_together() {
    let yaml = "prot: 1\ncache: s3cret\ngosumdb: off\nretry_backoff: 100\nallow: [10.0.0.0/8, s3cret]\nport: [s3cret]\n\
                private_upstreams:\n- {pattern: x, url: 'ftp://s3cret', auth: {type: bearr, value: s3cret}}\n\
                - {patern: y, url: 'https://a', auth: {type: header, value: s3cret}}\n";
    let text = mistakes(
        &["-config=c.yaml", "-download-connections", "s3cret"],
        &[("MAX_CACHE_AGE", "s3cret"), ("NETWORK_MODE", "s3cret"), ("UPSTREAM_PROXY", "https://a,s3cret://u:s3cret@b")],
        &[("c.yaml", yaml)],
    );
    let expected = [
        "the configuration has 14 mistakes:",
        "c.yaml: prot: unknown key; did you mean port?",
        "c.yaml: cache: this key is named cache_dir",
        "c.yaml: port: one value, not a list or a map",
        "c.yaml: allow: entry 2: not a network, such as 192.168.0.0/16, 2001:db8::/32 or 10.1.2.3",
        "UPSTREAM_PROXY: entry 2: the scheme must be https, http or file",
        "c.yaml: private_upstreams: entry 1: url: the scheme must be https, http or file",
        "c.yaml: private_upstreams: entry 1: auth: type: must be basic, bearer or header",
        "c.yaml: private_upstreams: entry 2: patern: unknown key; did you mean pattern?",
        "c.yaml: private_upstreams: entry 2: pattern: missing",
        "c.yaml: private_upstreams: entry 2: auth: name: missing",
        "NETWORK_MODE: must be strict, fallback or offline",
        "c.yaml: retry_backoff: the unit is missing: write a duration such as 100ms, 30s, 1h30m or 720h",
        "-download-connections: not a whole number from 0 to 64",
        "MAX_CACHE_AGE: not a duration: write a number with a unit, such as 100ms, 30s, 1h30m or 720h",
    ];
    assert_eq!(text, expected.join("\n  "));
}

/// Each kind of wrong value has its own text.
#[test]
fn mistake_of_each_kind() {
    let cases: [(&[&str], &str); 21] = [
        (&["-port", "70000"], "-port: not a whole number from 0 to 65535"),
        (&["-port", ""], "-port: not a whole number"),
        (&["-cache", ""], "-cache: not a path"),
        (&["-listen", "eth0"], "-listen: entry 1: not an address"),
        (&["-upstream", ""], "-upstream: the list is empty"),
        (&["-upstream", "direct"], "-upstream: \"direct\" needs version control tools"),
        (&["-retry-backoff", "2m"], "-retry-backoff: at most 1m"),
        (&["-stall-timeout", "0"], "-stall-timeout: at least 1ms"),
        (&["-max-cache-size", "big"], "-max-cache-size: not a size"),
        (&["-cleanup-interval", "-1h"], "-cleanup-interval: a duration cannot be negative"),
        (&["-max-connections", "0"], "-max-connections: not a whole number from 1"),
        (&["-gosumdb", "a b c"], "-gosumdb: not a checksum database"),
        (&["-proxy", "direct,ftp://x"], "-proxy: entry 2: the scheme must be http, https, socks5 or socks5h"),
        (&["-dns", "ftp://x"], "-dns: entry 1: the scheme must be udp"),
        (&["-dns", "8.8.8.8,system"], "-dns: entry 2: system stands alone"),
        (&["-dns-bootstrap", "dns.example"], "-dns-bootstrap: entry 1: must be named by its address"),
        (&["-dns-route", "tunnel"], "-dns-route: must be auto, proxy or direct"),
        (&["-ca", "a\0b"], "-ca: entry 1: not a path"),
        (&["-dns-ca", "a,b\0"], "-dns-ca: entry 2: not a path"),
        (&["-log-requests=maybe"], "-log-requests: must be true or false"),
        (&["-log-level", "loud"], "-log-level: must be off, error"),
    ];
    for (words, expected) in cases {
        let text = mistakes(words, &[], &[]);
        assert!(text.starts_with("the configuration has a mistake: ") && text.contains(expected), "{words:?}: {text}");
    }
    assert!(mistakes(&["-config", "no.yaml"], &[], &[]).contains("-config: no.yaml: "));
    assert!(mistakes(&[], &[("GOPROXY_CONFIG", "c.toml")], &[("c.toml", "")]).contains("c.toml: the name must end in"));
}

/// What is wrong with variables that are set for other programs only warns, and the next one counts.
#[test]
fn shared_variables_only_warn() {
    let cases = [
        ("SOCKS5_PROXY", "gopher://s3cret", "SOCKS5_PROXY: entry 1: the scheme must be"),
        ("http_proxy", "http://u:s3cret", "http_proxy: entry 1: not a proxy"),
        ("RUST_LOG", "s3cret[span]", "RUST_LOG: must be off, error"),
    ];
    for (name, value, expected) in cases {
        let loaded = load(&[], &[(name, value)], &[]).unwrap();
        let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
        assert!(warning.starts_with(expected) && warning.ends_with("(ignored)"), "{warning}");
        assert!(!warning.contains("s3cret"));
        assert!(loaded.config.proxies.is_empty());
        assert_eq!(loaded.config.log_level, "info");
    }
    let loaded = load(&[], &[("HTTP_PROXY", "gopher://s3cret"), ("https_proxy", "http://b:1")], &[]).unwrap();
    assert_eq!(loaded.config.proxies[0].to_string(), "http://b:1");
    let config = load(&[], &[("RUST_LOG", "larder::store=debug")], &[]).unwrap().config;
    assert_eq!(config.log_level, "larder::store=debug");
}

/// A list that fails in the middle leaves nothing of itself behind.
#[test]
fn half_a_list_does_not_count() {
    let loaded = load(&[], &[("HTTP_PROXY", "http://a:1,gopher://b")], &[]).unwrap();
    assert!(loaded.config.proxies.is_empty(), "{:?}", loaded.config.proxies);
    assert_eq!(loaded.warnings.len(), 1);
}

/// A wrong value that a stronger source overrides is worth a warning, no more.
#[test]
fn overridden_mistakes_warn() {
    let loaded = load(&["-port", "3000"], &[("PORT", "s3cret")], &[]).unwrap();
    assert_eq!(loaded.warnings, ["PORT: not a whole number from 0 to 65535 (not used, since -port is set)"]);
}

/// No password, token or query is printed by `check-config`, a warning, a mistake or `Debug`.
#[test]
fn invariant_10_secrets_never_show() {
    let yaml = r#"{"private_upstreams": [
        {"pattern": "a.example/*", "url": "https://u:s3cret@a.example/x"},
        {"pattern": "b.example", "url": "http://b.example", "auth": {"type": "basic", "value": "user:s3cret"}},
        {"pattern": "c.example", "url": "https://c.example", "auth": {"type": "bearer", "value": "s3cret"}},
        {"pattern": "d.example", "url": "https://d.example", "proxy": "http://u:s3cret@p:2", "dns": "https://d/?s3cret",
         "auth": {"type": "header", "name": "X-Key", "value": "s3cret"}}
    ]}"#;
    let upstream = "https://u:s3cret@e.example|https://s3cret@f.example/,direct";
    let words =
        ["-config", "c.json", "-upstream", upstream, "-proxy", "socks5://u:s3cret@p:1", "-dns", "https://d/?s3cret"];
    let loaded = load(&words, &[], &[("c.json", yaml)]).unwrap();
    let report = loaded.report(&[]);
    let texts = [report.clone(), loaded.warnings.join("\n"), format!("{loaded:?}")];
    for text in texts {
        assert!(!text.contains("s3cret"), "{text}");
    }
    for expected in [
        "https://***@e.example|https://***@f.example",
        "a.example/* from https://***@a.example/x; b.example from http://b.example (basic ***); ",
        "c.example from https://c.example (bearer ***); d.example from https://d.example (header x-key: ***) (proxy http://***@p:2, dns https://d/?***)",
        "socks5://***@p:1",
        "https://d/?***",
        "warning: c.json: private_upstreams: entry 2: credentials travel unencrypted over http",
        "warning: -upstream: \"direct\" needs version control tools",
    ] {
        assert!(report.contains(expected), "{expected}\n{report}");
    }
}

/// `check-config` shows every setting with its value and origin.
#[test]
fn report_shows_all() {
    let loaded = load(&["-port", "3000"], &[("MAX_CACHE_SIZE", "2GiB")], &[]).unwrap();
    let report = loaded.report(&["dns        somewhere".to_owned()]);
    assert!(report.ends_with("\ndns        somewhere\nok\n"), "{report}");
    for setting in SETTINGS {
        assert!(report.lines().any(|line| line.split_whitespace().next() == Some(setting.name())), "{report}");
    }
    let words = |name: &str| -> Vec<&str> {
        let line = report.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().collect()
    };
    assert_eq!(words("port "), ["port", "3000", "-port"]);
    assert_eq!(words("max_cache_size"), ["max_cache_size", "2GiB", "MAX_CACHE_SIZE"]);
    assert_eq!(words("fresh_for"), ["fresh_for", "1m", "default"]);
}
