//! The upstreams: where a miss is fetched from, in which order, and what each answer means.
//!
//! Called by `fill`; uses `net::egress`. An upstream is one entry of a GOPROXY list, an HTTP server, a folder
//! (`file://`) or `off`. Modules that match a private pattern have an upstream of their own and are asked for nowhere
//! else: neither its 404 nor its failure takes the name to the public list.
//!
//! Invariants: 404 or 410 come out of here only when every upstream asked has said so; an upstream found unreachable is
//! skipped until a probe in the background has reached it again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use url::Url;

use crate::module::path::ModulePath;
use crate::module::pattern::PatternList;
use crate::net::egress::{Credentials, Egress};
use crate::resource::Resource;
use crate::shutdown::Tasks;

pub mod answer;
pub mod failure;
mod reach;
mod request;
pub mod walk;

pub use answer::{Answer, Ask};
pub use failure::{Failure, NotFound, Unjudged, Why};
use reach::Reach;
pub use walk::{Retry, Walk};

/// What separates an entry from the next one, and so which failures lead on to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallthrough {
    /// `,`: on after 404, 410, and transient failures once the retries are spent.
    Comma,
    /// `|`: on after any failure.
    Pipe,
}

/// Where an upstream's files come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A module proxy.
    Http {
        /// Its address, without credentials.
        base: Url,
        /// How it is called where people read it; without anything secret.
        name: String,
        /// What proves to it who asks.
        credentials: Option<Credentials>,
        /// The client that asks it, and so the way there.
        egress: Egress,
    },
    /// A checksum database at its own address: below it there are only that one's files, without `sumdb/NAME/` before them.
    Database {
        /// Its address.
        base: Url,
        /// How it is called where people read it; without anything secret.
        name: String,
        /// The client that asks it, and so the way there.
        egress: Egress,
    },
    /// A tree of the same shape on a local file system.
    Folder(PathBuf),
    /// The end of the list: nothing is asked.
    Off,
}

/// One entry as configured.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where to ask.
    pub source: Source,
    /// What leads on to the next entry.
    pub fallthrough: Fallthrough,
}

/// How the upstreams are to be asked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public list, in order.
    pub entries: Vec<Entry>,
    /// The private upstreams, each with the modules it alone is asked for; the first match counts.
    pub private: Vec<(PatternList, Source)>,
    /// How often one upstream is asked for one thing before its failure counts.
    pub retry_attempts: u32,
    /// The pause before the second attempt; it doubles from there.
    pub retry_backoff: Duration,
}

/// One upstream at work.
#[derive(Debug)]
pub struct Upstream {
    /// How it is called in logs, headers and the index; without credentials.
    pub name: Arc<str>,
    source: Source,
    fallthrough: Fallthrough,
    reach: Reach,
    /// Places for small files on their way in; each upstream has its own, so that one that hangs keeps no other waiting.
    pub small_files: Semaphore,
}

/// Small files on their way in from one upstream at a time.
const SMALL_FILES_MAX: usize = 128;

impl Upstream {
    fn new(source: Source, fallthrough: Fallthrough) -> Arc<Self> {
        let name = match &source {
            Source::Http { name, .. } | Source::Database { name, .. } => Arc::from(name.trim_end_matches('/')),
            Source::Folder(path) => Arc::from(format!("file://{}", path.display())),
            Source::Off => Arc::from("off"),
        };
        Arc::new(Self {
            name,
            source,
            fallthrough,
            reach: Reach::default(),
            small_files: Semaphore::new(SMALL_FILES_MAX),
        })
    }

    /// Returns the address and the client of one that is asked over the network.
    fn way(&self) -> Option<(&Url, &Egress)> {
        match &self.source {
            Source::Http { base, egress, .. } | Source::Database { base, egress, .. } => Some((base, egress)),
            Source::Folder(_) | Source::Off => None,
        }
    }

    /// Returns whether asking is pointless right now: it was found unreachable, or is `off`.
    pub fn is_down(&self) -> bool {
        match self.source {
            Source::Http { .. } | Source::Database { .. } => self.reach.is_down(),
            Source::Folder(_) => false,
            Source::Off => true,
        }
    }

    /// Returns why it was found unreachable, if it was.
    pub fn down_reason(&self) -> Option<String> {
        match self.source {
            Source::Http { .. } | Source::Database { .. } => self.reach.reason(),
            Source::Folder(_) => None,
            Source::Off => Some("upstream is off".to_owned()),
        }
    }
}

/// All upstreams.
pub struct UpstreamList {
    public: Vec<Arc<Upstream>>,
    private: Vec<(PatternList, Arc<Upstream>)>,
    tasks: Tasks,
    retry_attempts: u32,
    retry_backoff: Duration,
}

impl UpstreamList {
    /// Makes the list; nothing is asked yet.
    pub fn new(config: Config, tasks: Tasks) -> Self {
        let public = config.entries.into_iter().map(|entry| Upstream::new(entry.source, entry.fallthrough));
        let private =
            config.private.into_iter().map(|(patterns, source)| (patterns, Upstream::new(source, Fallthrough::Comma)));
        Self {
            public: public.collect(),
            private: private.collect(),
            tasks,
            retry_attempts: config.retry_attempts.max(1),
            retry_backoff: config.retry_backoff,
        }
    }

    /// Returns every upstream, the public ones first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.public.iter().chain(self.private.iter().map(|(_, upstream)| upstream))
    }

    /// Returns the upstreams of the public list, in order.
    pub fn public(&self) -> &[Arc<Upstream>] {
        &self.public
    }

    /// Makes an upstream of a checksum database at its own address. It is in no list: who asks it names it.
    pub fn database(base: Url, name: String, egress: Egress) -> Arc<Upstream> {
        Upstream::new(Source::Database { base, name, egress }, Fallthrough::Comma)
    }

    /// Returns whether a module has an upstream of its own, so that its name must not leave for anywhere else.
    pub fn is_private(&self, path: &ModulePath) -> bool {
        self.private.iter().any(|(patterns, _)| patterns.matches(path))
    }

    /// Returns the upstreams to ask for `resource`, in order.
    pub fn route(&self, resource: &Resource) -> Walk {
        let own =
            resource.module_path().and_then(|path| self.private.iter().find(|(patterns, _)| patterns.matches(path)));
        match own {
            Some((_, upstream)) => Walk::new(vec![Arc::clone(upstream)]),
            None => Walk::new(self.public.clone()),
        }
    }

    /// Returns why no upstream that could be asked for `resource` can be reached, if it is so.
    pub fn offline_reason_for(&self, resource: &Resource) -> Option<String> {
        self.route(resource).down_reason()
    }

    /// Returns the walk along some of them, in this order.
    pub fn walk(&self, upstreams: Vec<Arc<Upstream>>) -> Walk {
        Walk::new(upstreams)
    }

    /// Starts the count of attempts at one upstream.
    pub fn retry(&self) -> Retry {
        Retry::new(self.retry_attempts, self.retry_backoff)
    }
}
