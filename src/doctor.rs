//! `larder doctor`: walks the way out step by step and says, for each, what happened and what to change.
//!
//! Owns [`examine`]. Called by `app`, which builds the parts from the configuration exactly as for the service; calls
//! those parts (`net`, and `store` for the disk). Needs neither a running service nor the cache directory's lock, and
//! writes nothing but one file in that directory, which it removes again.
//!
//! ```text
//! clock ─ dns ─ proxy ─ tls, upstream ─ clock again, by what an upstream said ─ checksum database ─ disk ─ lan
//!         └──── all at the same time, shown in this order as they end ────┘
//! ```
//!
//! Invariants: every wait is bounded, all together by [`LIMIT`]; nothing shown holds a secret; credentials go only where
//! the service would send them. Source: issue 4, "Telling what is wrong".

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use tokio::time::timeout;
use url::Url;

use crate::check::{Check, Outcome};
use crate::clock::{Clock, UnixSeconds};
use crate::net::egress::Egress;
use crate::net::proxy::Proxies;
use crate::net::target::Target;
use crate::net::tls::Trust;
use crate::store;
use crate::upstream::Source;

mod chain;
mod clock;
mod disk;
mod dns;
mod hints;
mod lan;
pub mod latest;
pub mod print;
mod proxy;
mod upstream;
mod words;

/// No step takes longer, however many of its parts hang; and all run at the same time.
const LIMIT: Duration = Duration::from_secs(45);

/// What is looked at: the parts of the service, and what its configuration says.
pub struct Subject {
    /// The upstreams, each with its way out.
    pub upstreams: Vec<Upstream>,
    /// The checksum database, unless it is off.
    pub database: Option<Database>,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Whether upstreams are never asked.
    pub is_offline: bool,
    /// The cache directory.
    pub cache_dir: PathBuf,
    /// Bytes to be kept free there.
    pub free_bytes_min: u64,
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// The address that developers are given.
    pub goproxy: SocketAddr,
    /// The time.
    pub clock: Clock,
}

/// One upstream.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where its files come from, and the way there.
    pub source: Source,
    /// Whether it has modules of its own, instead of those everybody has.
    pub is_private: bool,
}

/// A checksum database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: Url,
    /// The way there.
    pub egress: Egress,
}

/// What one step found out.
#[derive(Debug, Default)]
struct Found {
    checks: Vec<Check>,
    date: Option<Date>,
}

/// The time by somebody else's clock.
#[derive(Debug)]
struct Date {
    server: String,
    here: UnixSeconds,
    there: UnixSeconds,
}

impl From<Vec<Check>> for Found {
    fn from(checks: Vec<Check>) -> Self {
        Self { checks, date: None }
    }
}

/// Walks the way out, and hands each check to `show` as soon as those before it are there.
///
/// # Cancel safety
/// Dropping the future abandons what is under way; a file on its way onto the disk is removed all the same.
pub async fn examine(subject: &Subject, mut show: impl FnMut(Check)) {
    show(clock::look(&subject.clock));
    let mut network = FuturesOrdered::new();
    if subject.is_offline {
        show(Check::new("upstream", "", Outcome::Skip, "the network mode is offline: nobody is ever asked"));
    } else {
        network.extend(network_steps(subject));
    }
    let mut local: FuturesOrdered<BoxFuture<'_, Found>> = FuturesOrdered::new();
    local.push_back(bounded("checksum database", upstream::database(subject)));
    local.push_back(bounded("disk", look_at_disk(subject)));
    local.push_back(bounded("lan", lan::look(&subject.listen, subject.goproxy).map(Found::from)));
    // Polled together from the beginning: what is shown last must not begin last.
    let mut waiting: Vec<Found> = Vec::new();
    let mut date = None;
    loop {
        tokio::select! {
            Some(found) = network.next() => {
                found.checks.into_iter().for_each(&mut show);
                date = date.or(found.date);
            }
            Some(found) = local.next(), if !network.is_empty() => waiting.push(found),
            else => break,
        }
    }
    if let Some(Date { server, here, there }) = date {
        show(clock::compare(&server, here, there));
    }
    waiting.into_iter().flat_map(|found| found.checks).for_each(&mut show);
    while let Some(found) = local.next().await {
        found.checks.into_iter().for_each(&mut show);
    }
}

/// Returns the steps that lead to the upstreams, in the order they are shown.
fn network_steps(subject: &Subject) -> Vec<BoxFuture<'_, Found>> {
    let mut steps: Vec<BoxFuture<'_, Found>> = Vec::new();
    let mut asked = BTreeSet::new();
    for way in ways(subject) {
        if let Some(key) = dns::question(&way).filter(|key| !asked.contains(key)) {
            asked.insert(key);
            steps.push(bounded("dns", dns::look(way).map(Found::from)));
        }
    }
    let mut seen: Vec<&Arc<Proxies>> = Vec::new();
    for way in ways(subject) {
        let proxies = &way.egress.route().proxies;
        // The first upstream that is reached through these proxies stands for all of them.
        if !proxies.is_direct(&way.target) && !seen.iter().any(|other| Arc::ptr_eq(other, proxies)) {
            seen.push(proxies);
            steps.push(bounded("proxy", proxy::look(way, &subject.trust).map(Found::from)));
        }
    }
    if seen.is_empty() {
        steps.push(async { proxy::none(subject).into() }.boxed());
    }
    for upstream in &subject.upstreams {
        steps.push(bounded("upstream", upstream::look(upstream, subject)));
    }
    steps
}

/// An upstream on the network, and the way there.
#[derive(Clone, Debug)]
struct Way<'a> {
    url: &'a Url,
    target: Target,
    egress: &'a Egress,
    clock: &'a Clock,
}

fn ways(subject: &Subject) -> Vec<Way<'_>> {
    let ways = subject.upstreams.iter().filter_map(|upstream| match &upstream.source {
        Source::Http { base, egress, .. } | Source::Database { base, egress, .. } => {
            Some(Way { url: base, target: upstream::target(base)?, egress, clock: &subject.clock })
        }
        Source::Folder(_) | Source::Off => None,
    });
    ways.collect()
}

fn bounded<'a>(step: &'static str, found: impl Future<Output = Found> + Send + 'a) -> BoxFuture<'a, Found> {
    async move {
        timeout(LIMIT, found).await.unwrap_or_else(|_| {
            let text = format!("not done within {} s", LIMIT.as_secs());
            vec![Check::new(step, "", Outcome::Fail, text).hint("something on the way swallows packets: a firewall?")]
                .into()
        })
    }
    .boxed()
}

async fn look_at_disk(subject: &Subject) -> Found {
    let (root, free_bytes_min, clock) = (subject.cache_dir.clone(), subject.free_bytes_min, subject.clock.clone());
    match store::blocking(move || Ok(disk::look(&root, free_bytes_min, &clock))).await {
        Ok(checks) => checks.into(),
        Err(err) => vec![Check::new("disk", "", Outcome::Fail, err.to_string())].into(),
    }
}
