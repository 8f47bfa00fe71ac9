//! Larder's configuration: what was asked for by defaults, file, environment and flags, as one plain struct.
//!
//! Owns `Config` and the only reads of the environment. Called by `main` and `app`, which hand each module its own
//! part; calls the parsers below it. All mistakes are reported together, each naming its source, and none repeats
//! the value that was rejected: it may be a secret that got into the wrong place.
//!
//! ```text
//! default ─► file ─► environment ─► flag      sources.rs, the later the stronger
//!      └──── table.rs: one row each ──► Config, with the origin of every value
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::net::cidr::Cidr;
use crate::net::proxy;

mod across;
mod dns;
mod duration;
mod file;
mod network;
mod report;
mod roots;
mod route;
mod settings;
mod size;
mod sources;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_examples;
mod upstreams;
mod values;

pub use dns::{DnsRoute, DnsServer, DnsTransport};
pub use network::{ChecksumDatabase, ListenAddress, SumdbMode};
pub use route::UpstreamRoute;
pub use settings::{Setting, Variable};
pub use sources::Origin;
pub use table::{DEFAULT_DATABASE, DEFAULT_UPSTREAM, SETTINGS};
pub use upstreams::{Fallthrough, PrivateUpstream, UpstreamAuth, UpstreamEntry, UpstreamTarget};

use sources::{Report, Sources};

/// The exit code for a wrong configuration or command line: `EX_USAGE` of sysexits.h.
pub const EXIT_CONFIG: u8 = 64;

/// A configuration is a page of text; what is larger is some other file.
const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// What to do when the upstream fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// Relay the failure.
    Strict,
    /// Serve what is stored.
    #[default]
    Fallback,
    /// Never ask an upstream.
    Offline,
}

impl NetworkMode {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "strict" => Ok(Self::Strict),
            "fallback" => Ok(Self::Fallback),
            "offline" => Ok(Self::Offline),
            _ => Err("must be strict, fallback or offline".to_owned()),
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Fallback => "fallback",
            Self::Offline => "offline",
        })
    }
}

/// The whole configuration. Its `Default` is blank, not the defaults: those come from the table, by [`Config::load`].
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The port to listen on; 0 for a free one.
    pub port: u16,
    /// Addresses to listen on; empty for all. See [`Config::socket_addresses`].
    pub listen: Vec<ListenAddress>,
    /// Networks that may ask; empty for the local ones.
    pub allow: Vec<Cidr>,
    /// The root of the cache.
    pub cache_dir: PathBuf,
    /// The configuration file that was read.
    pub config_file: Option<PathBuf>,
    /// Upstreams in order, at least one.
    pub upstreams: Vec<UpstreamEntry>,
    /// Upstreams that alone are asked for their pattern.
    pub private_upstreams: Vec<PrivateUpstream>,
    /// What to do when an upstream fails.
    pub network_mode: NetworkMode,
    /// Attempts per upstream; 0 and 1 both mean one.
    pub retry_attempts: u32,
    /// The delay before the second attempt.
    pub retry_backoff: Duration,
    /// A download without a byte for this long has stalled.
    pub stall_timeout: Duration,
    /// Range connections per large zip; 0 and 1 both mean a single stream.
    pub download_connections: u32,
    /// Zips downloaded at a time; `None` is unlimited.
    pub max_concurrent_downloads: Option<u32>,
    /// How long mutable and negative answers are fresh.
    pub fresh_for: Duration,
    /// Age since last use after which a module is removed; `None` is never.
    pub max_cache_age: Option<Duration>,
    /// Bytes above which modules are removed; `None` is unlimited.
    pub max_cache_size: Option<u64>,
    /// Bytes kept free on the disk; 0 is none.
    pub min_free_space: u64,
    /// How often housekeeping runs.
    pub cleanup_interval: Duration,
    /// Client connections at a time.
    pub max_connections: u32,
    /// Connections of one client address at a time.
    pub max_connections_per_client: u32,
    /// The checksum database; `None` is off.
    pub gosumdb: Option<ChecksumDatabase>,
    /// Whether somebody chose it, or it is the default.
    pub is_gosumdb_chosen: bool,
    /// Patterns of modules that are not verified.
    pub gonosumdb: Vec<String>,
    /// What becomes of modules that cannot be judged.
    pub sumdb_mode: SumdbMode,
    /// The checksum databases that are proxied; none means that of `gosumdb`.
    pub sumdbs: Vec<ChecksumDatabase>,
    /// How often every stored file is read again; `None` is never.
    pub scrub_interval: Option<Duration>,
    /// Bytes a second that this may read; 0 is no limit.
    pub scrub_rate: u64,
    /// The proxies that lead to the upstreams, in order of preference; none is directly.
    pub proxies: Vec<proxy::Entry>,
    /// What is reached without a proxy, in the syntax of `NO_PROXY`.
    pub no_proxy: String,
    /// The DNS servers in order; none is the system's resolver.
    pub dns: Vec<DnsServer>,
    /// The DNS servers, by address, that find the names of proxies and DNS servers; none is the system's resolver.
    pub dns_bootstrap: Vec<DnsServer>,
    /// Which way DNS itself goes.
    pub dns_route: DnsRoute,
    /// Files with certificate authorities to trust for DNS servers, beside those of `ca`.
    pub dns_ca: Vec<PathBuf>,
    /// Files with certificate authorities to trust beside the platform's.
    pub ca: Vec<PathBuf>,
    /// Variables that take the place of the platform's certificate authorities, with their values.
    pub platform_ca: Vec<(&'static str, PathBuf)>,
    /// Whether every request is logged.
    pub log_requests: bool,
    /// A level, or levels per module, in the syntax of `RUST_LOG`.
    pub log_level: String,
    /// The file that gets the address served on.
    pub ready_file: Option<PathBuf>,
}

/// What [`Config::load`] found out.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is odd about it but stops nothing, each a line.
    pub warnings: Vec<String>,
    /// Where each setting's value came from, in the order of the table.
    pub origins: Vec<(&'static Setting, Origin)>,
}

/// Mistakes in the configuration, all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// Each a line: source, setting, what is wrong.
    pub mistakes: Vec<String>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.as_slice() {
            [mistake] => write!(f, "the configuration has a mistake: {mistake}"),
            mistakes => {
                write!(f, "the configuration has {} mistakes:", mistakes.len())?;
                mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
            }
        }
    }
}

impl Config {
    /// Builds the configuration of all sources.
    ///
    /// `flags` holds values by flag name without dash, `environment` variables by name. `read_file` returns the text
    /// of the configuration file; [`read_config_file`] in earnest.
    ///
    /// # Errors
    /// Every mistake of every source.
    pub fn load(
        flags: &BTreeMap<&'static str, String>,
        environment: &BTreeMap<String, OsString>,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Loaded, ConfigErrors> {
        let mut report = Report::default();
        let mut sources = Sources { flags, environment, file: None };
        sources.file = read_named_file(&sources, read_file, &mut report);

        let mut config = Self::default();
        let mut origins = Vec::new();
        for setting in SETTINGS {
            origins.push((setting, sources.settle(setting, &mut config, &mut report)));
        }
        config.platform_ca = roots::look(environment, &mut report);
        let chosen =
            |(setting, origin): &(&Setting, Origin)| setting.flag == Some("gosumdb") && *origin != Origin::Default;
        config.is_gosumdb_chosen = origins.iter().any(chosen);
        let routes = config.upstreams.iter_mut().map(|entry| &mut entry.route);
        let routes = routes.chain(config.private_upstreams.iter_mut().map(|entry| &mut entry.route));
        let lists = [&mut config.dns, &mut config.dns_bootstrap].into_iter();
        dns::tell_apart(lists.chain(routes.filter_map(|route| route.dns.as_mut())).flatten());
        across::look(&config, &origins, &mut report);
        if report.is_clean() {
            Ok(Loaded { config, warnings: report.warnings, origins })
        } else {
            Err(ConfigErrors { mistakes: report.mistakes })
        }
    }

    /// Returns the addresses to listen on, at least one, the unspecified ones for all interfaces.
    pub fn socket_addresses(&self) -> Vec<SocketAddr> {
        if self.listen.is_empty() {
            let all = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
            return all.into_iter().map(|address| SocketAddr::new(address, self.port)).collect();
        }
        self.listen.iter().map(|listen| SocketAddr::new(listen.address, listen.port.unwrap_or(self.port))).collect()
    }
}

impl Loaded {
    /// Makes the error for a setting, by its name, whose value turned out to be of no use: `-ca: FILE: no certificate`.
    pub fn mistake(&self, name: &str, text: &str) -> ConfigErrors {
        let origin = self.origins.iter().find(|(setting, _)| setting.name() == name).map(|(_, origin)| origin);
        let place = origin.map_or_else(|| name.to_owned(), ToString::to_string);
        ConfigErrors { mistakes: vec![format!("{place}: {text}")] }
    }
}

/// Finds out which file is named, and reads it.
fn read_named_file(
    sources: &Sources<'_>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
    report: &mut Report,
) -> Option<(PathBuf, Vec<(String, file::Node)>)> {
    let setting = SETTINGS.iter().find(|setting| setting.flag == Some(table::CONFIG_FLAG))?;
    let mut config = Config::default();
    // Mistakes about the name itself are reported when its turn comes in the table.
    let origin = sources.settle(setting, &mut config, &mut Report::default());
    let path = config.config_file?;
    let text =
        read_file(&path).map_err(|error| report.mistake(format!("{origin}: {}: {error}", path.display()))).ok()?;
    match file::parse(&path, &text) {
        Ok(fields) => {
            for (key, _) in &fields {
                if let Some(text) = unknown_top_key(key) {
                    report.mistake(format!("{}: {text}", path.display()));
                }
            }
            Some((path, fields))
        }
        Err(text) => {
            report.mistake(format!("{}: {text}", path.display()));
            None
        }
    }
}

/// Says what is wrong with a key of the file, if no setting has it.
fn unknown_top_key(key: &str) -> Option<String> {
    if SETTINGS.iter().any(|setting| setting.key == Some(key)) {
        return None;
    }
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.former_keys.contains(&key)) {
        return Some(format!("{key}: this key is named {}", setting.name()));
    }
    let known: Vec<&str> = SETTINGS.iter().filter_map(|setting| setting.key).collect();
    Some(file::unknown_key(key, &known))
}

/// Reads the configuration file of this machine, up to a bound.
///
/// # Errors
/// Those of opening and reading; a file that is too long or not UTF-8.
pub fn read_config_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(CONFIG_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(io::Error::other("longer than 1 MiB: not a configuration file"));
    }
    Ok(text)
}

/// Returns the environment of this process; variables whose names are not UTF-8 are none of Larder's.
pub fn process_environment() -> BTreeMap<String, OsString> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
}

/// Tells whether stderr leads to systemd's journal, as systemd says in the environment.
#[expect(clippy::disallowed_methods, reason = "the configuration reads the environment")]
pub fn is_under_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}
