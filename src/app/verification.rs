//! Turns the configured checksum databases into the one that judges and those that clients may ask.
//!
//! Called by `app`; calls `config` and `verify`.

use std::sync::Arc;

use url::Url;

use crate::app::way_out::WayOut;
use crate::clock::Clock;
use crate::config::{ChecksumDatabase, Config, DEFAULT_UPSTREAM, NetworkMode, SumdbMode, UpstreamTarget};
use crate::module::pattern::PatternList;
use crate::shutdown::Tasks;
use crate::store::Store;
use crate::store::alarms::Alarms;
use crate::store::index::Index;
use crate::store::unverified::Unverified;
use crate::upstream::UpstreamList;
use crate::verify::{self, Database, Mode, Verifier, database, ways};

/// What a judge is made of.
pub(super) struct Parts<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) index: &'a Arc<Index>,
    pub(super) upstreams: &'a Arc<UpstreamList>,
    pub(super) tasks: &'a Tasks,
    pub(super) clock: &'a Clock,
}

/// Makes the judge; nothing is asked yet.
///
/// # Errors
/// A file of an earlier run that cannot be read: without the newest head, the alarms or the list of the unverified a lie
/// could pass.
pub(super) fn verifier(config: &Config, way_out: &WayOut, parts: &Parts<'_>) -> Result<Verifier, String> {
    let root = parts.store.root();
    let alarms = Alarms::load(root, parts.clock.now()).map_err(|err| format!("cannot read the alarms: {err}"))?;
    let unverified = Unverified::load(root).map_err(|err| format!("cannot read the list of the unverified: {err}"))?;
    let parts = verify::Parts {
        store: Arc::clone(parts.store),
        index: Arc::clone(parts.index),
        upstreams: Arc::clone(parts.upstreams),
        alarms: Arc::new(alarms),
        tasks: parts.tasks.clone(),
        clock: parts.clock.clone(),
    };
    let mut databases: Vec<(&ChecksumDatabase, Arc<Database>)> = Vec::new();
    for wanted in config.gosumdb.iter().chain(&config.sumdbs) {
        if databases.iter().any(|(known, _)| known.name == wanted.name) {
            continue;
        }
        let config = database::Config {
            name: wanted.name.clone(),
            key: wanted.key.clone(),
            ways: ways(config, wanted, way_out),
        };
        let database = Database::open(config, parts.clone()).map_err(|err| format!("checksum database: {err}"))?;
        databases.push((wanted, Arc::new(database)));
    }
    let is_proxied = |name| config.sumdbs.is_empty() || config.sumdbs.iter().any(|proxied| proxied.name == name);
    let proxied = databases.iter().filter(|(known, _)| is_proxied(known.name.clone()));
    let proxied = proxied.map(|(_, database)| Arc::clone(database)).collect();
    let judge = databases.first().filter(|_| config.gosumdb.is_some()).map(|(_, database)| Arc::clone(database));
    Ok(Verifier::new(judgement(config), judge, proxied, Arc::new(unverified), parts))
}

fn judgement(config: &Config) -> verify::Config {
    let mode = match config.sumdb_mode {
        SumdbMode::WhenReachable => Mode::WhenReachable,
        SumdbMode::Strict => Mode::Strict,
    };
    let private = config.private_upstreams.iter().map(|private| private.pattern.as_str());
    let patterns: Vec<&str> = config.gonosumdb.iter().map(String::as_str).chain(private).collect();
    let key = config.gosumdb.as_ref().map(|database| format!("{}+{:08x}", database.name, database.key.hash()));
    verify::Config {
        mode,
        exempt: patterns.iter().map(|pattern| PatternList::parse(pattern)).collect(),
        fingerprint: format!("{} except {}", key.unwrap_or_default(), patterns.join(",")),
    }
}

/// Where a database is asked.
pub(super) struct Place {
    /// Whether the public upstreams are asked first.
    pub(super) asks_upstreams: bool,
    /// Its own address, and how that is shown.
    pub(super) own: Option<(Url, String)>,
}

impl Place {
    /// Finds out: an address that nobody chose is asked only if the public mirror is used as well.
    pub(super) fn of(config: &Config, database: &ChecksumDatabase) -> Self {
        if let Some(url) = &database.url {
            return Self { asks_upstreams: false, own: Some((url.split_credentials().0, url.to_string())) };
        }
        let is_chosen =
            config.is_gosumdb_chosen && config.gosumdb.as_ref().is_some_and(|chosen| chosen.name == database.name);
        let address = format!("https://{}", database.name);
        let own = Url::parse(&address).ok().filter(|_| is_chosen || has_public_mirror(config));
        Self { asks_upstreams: true, own: own.map(|url| (url, address)) }
    }
}

fn ways(config: &Config, database: &ChecksumDatabase, way_out: &WayOut) -> ways::Config {
    let Place { asks_upstreams, own } = Place::of(config, database);
    let own = own.map(|(url, name)| UpstreamList::database(url, name, way_out.of_all().clone()));
    ways::Config { asks_upstreams, own, is_offline: config.network_mode == NetworkMode::Offline }
}

fn has_public_mirror(config: &Config) -> bool {
    let public = Url::parse(DEFAULT_UPSTREAM).ok();
    config.upstreams.iter().any(|entry| match &entry.target {
        UpstreamTarget::Http(url) => public.as_ref().is_some_and(|public| url.reveal().host() == public.host()),
        UpstreamTarget::File(_) | UpstreamTarget::Off => false,
    })
}
