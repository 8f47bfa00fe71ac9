//! Turns the configured upstreams into those that `upstream` works with.
//!
//! Here the secrets of the configuration become headers for one upstream, and the name it is called by stays masked
//! (invariant 10). Called by `app`; calls `config` and `net::egress`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::app::way_out::{self, WayOut};
use crate::cache;
use crate::config::{Config, Fallthrough, NetworkMode, UpstreamAuth, UpstreamTarget};
use crate::module::pattern::PatternList;
use crate::net::egress::{Credentials, Egress};
use crate::upstream;

/// Returns the configuration of the upstreams.
///
/// # Errors
/// Credentials that cannot stand in a header; the text does not repeat them.
pub(super) fn config(config: &Config, way_out: &WayOut) -> Result<upstream::Config, String> {
    let mut entries = Vec::new();
    for (entry, egress) in config.upstreams.iter().zip(way_out.public()) {
        let fallthrough = match entry.fallthrough {
            Fallthrough::Comma => upstream::Fallthrough::Comma,
            Fallthrough::Pipe => upstream::Fallthrough::Pipe,
        };
        entries.push(upstream::Entry { source: source(&entry.target, None, egress)?, fallthrough });
    }
    let mut private = Vec::new();
    for (entry, egress) in config.private_upstreams.iter().zip(way_out.private()) {
        let source = source(&entry.target, entry.auth.as_ref(), egress)
            .map_err(|err| format!("private upstream {}: {err}", entry.pattern))?;
        private.push((PatternList::parse(&entry.pattern), source));
    }
    Ok(upstream::Config {
        entries,
        private,
        retry_attempts: config.retry_attempts,
        retry_backoff: config.retry_backoff,
    })
}

/// Returns the configured mode in the cache's own terms.
pub(super) fn network_mode(mode: NetworkMode) -> cache::NetworkMode {
    match mode {
        NetworkMode::Strict => cache::NetworkMode::Strict,
        NetworkMode::Fallback => cache::NetworkMode::Fallback,
        NetworkMode::Offline => cache::NetworkMode::Offline,
    }
}

/// Returns a line for each upstream, with the way to it where that differs, and without secrets.
pub(super) fn lines(config: &Config, way_out: &WayOut) -> Vec<String> {
    let public = config.upstreams.iter().zip(way_out.public());
    let public = public
        .map(|(entry, egress)| format!("{}{}", entry.target, way_out::of_one(&entry.target, &entry.route, egress)));
    let private = config.private_upstreams.iter().zip(way_out.private()).map(|(entry, egress)| {
        format!("{} for {}{}", entry.target, entry.pattern, way_out::of_one(&entry.target, &entry.route, egress))
    });
    public.chain(private).collect()
}

fn source(target: &UpstreamTarget, auth: Option<&UpstreamAuth>, egress: &Egress) -> Result<upstream::Source, String> {
    match target {
        UpstreamTarget::Off => Ok(upstream::Source::Off),
        UpstreamTarget::File(path) => Ok(upstream::Source::Folder(path.clone())),
        UpstreamTarget::Http(url) => {
            let (base, in_url) = url.split_credentials();
            let credentials = match (auth, in_url) {
                (Some(UpstreamAuth::Basic { user, password }), _) => Some(basic(user, password.reveal())),
                (Some(UpstreamAuth::Bearer(token)), _) => {
                    Some(Credentials::authorization(&format!("Bearer {}", token.reveal())))
                }
                (Some(UpstreamAuth::Header { name, value }), _) => {
                    Some(Credentials::header(name.as_str(), value.reveal()))
                }
                (None, Some((user, password))) => Some(basic(&user, password.reveal())),
                (None, None) => None,
            };
            let credentials = credentials.transpose().map_err(str::to_owned)?;
            Ok(upstream::Source::Http { base, name: url.to_string(), credentials, egress: egress.clone() })
        }
    }
}

fn basic(user: &str, password: &str) -> Result<Credentials, &'static str> {
    Credentials::authorization(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}
