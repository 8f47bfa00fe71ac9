//! Fills: at most one running download per resource, whoever asks and whoever leaves.
//!
//! Called by `cache`; uses `store` and `upstream`. A fill runs as a task of its own, so that no client's going away
//! ends it. Those who want the same file follow it: they see its [`Head`] as soon as an answer can be begun, and a
//! zip's bytes while they come in.
//!
//! Invariants 4 and 9: one fill per resource; a fill that fails, panics or is dropped reaches its followers as an
//! error, never as the end of the file.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::module::ModuleVersion;
use crate::resource::{ArtifactKind, Resource};
use crate::shutdown::Tasks;
use crate::upstream::Failure;

pub mod download;
mod hashing;
pub mod judge;
mod publisher;
pub mod reader;
mod segments;
pub mod small;
mod transfer;

pub use reader::{FillReader, FillState};

/// More fills than this do not run at once; clients are bounded too, but their fills outlive them.
const FILLS_MAX: usize = 1024;

/// What a fill has come to, as far as an answer's status and headers depend on it.
#[derive(Clone, Debug)]
pub enum Head {
    /// Nothing to be seen yet.
    Pending,
    /// A zip whose first bytes may be read.
    Growing(Growing),
    /// A small file, complete and judged.
    Whole(Whole),
    /// The fill has failed before anything could be seen.
    Failed(Failure),
}

/// A zip on its way in.
#[derive(Clone, Debug)]
pub struct Growing {
    /// The file being written.
    pub file: Arc<File>,
    /// How far it has come.
    pub state: watch::Receiver<FillState>,
    /// How many bytes of it are there, also beyond a gap.
    pub received: Arc<AtomicU64>,
    /// Where it comes from.
    pub upstream: Arc<str>,
}

/// How far a zip has come, for people to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arriving {
    /// What it is the zip of.
    pub version: ModuleVersion,
    /// The whole length in bytes, where the upstream told it.
    pub length: Option<u64>,
    /// How many bytes of it are there.
    pub received: u64,
    /// Where it comes from.
    pub upstream: Arc<str>,
}

impl Growing {
    /// Returns a reader that starts at the beginning.
    pub fn reader(&self) -> FillReader {
        FillReader::new(Arc::clone(&self.file), self.state.clone())
    }

    fn arriving(&self, version: &ModuleVersion) -> Option<Arriving> {
        let (length, received) = match *self.state.borrow() {
            FillState::Open { length, .. } => (length, self.received.load(Ordering::Relaxed)),
            FillState::Sealed { length } => (Some(length), length),
            FillState::Failed(_) => return None,
        };
        Some(Arriving { version: version.clone(), length, received, upstream: Arc::clone(&self.upstream) })
    }
}

/// A small file that has arrived.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Its content.
    pub body: Bytes,
    /// Where it came from.
    pub upstream: Arc<str>,
    /// Whether the upstream only confirmed what was stored.
    pub is_revalidated: bool,
}

/// Publishes what a fill has come to. Dropping it unpublished is a failure.
///
/// The fill stays in the table until this is dropped, that is, until the file has its name and the index knows of it,
/// or until what is left of it has been cleared away: nobody starts a second fill among the ruins of the first.
#[derive(Debug)]
pub struct HeadWriter {
    head: watch::Sender<Head>,
    resource: Resource,
    fills: Arc<Fills>,
}

impl HeadWriter {
    /// Lets followers see `head`.
    pub fn publish(&self, head: Head) {
        let is_growing = matches!(head, Head::Growing(_));
        self.head.send_replace(head);
        if is_growing {
            self.fills.growth.notify_one();
        }
    }
}

impl Drop for HeadWriter {
    fn drop(&mut self) {
        self.fills.forget(&self.resource);
        if matches!(*self.head.borrow(), Head::Pending) {
            self.head.send_replace(Head::Failed(Failure::Stopped));
        }
    }
}

/// One who waits for a fill.
#[derive(Debug)]
pub struct Follower {
    head: watch::Receiver<Head>,
    /// Whether somebody else's request had started the fill.
    pub is_collapsed: bool,
}

impl Follower {
    /// Waits until an answer can be begun.
    ///
    /// # Errors
    /// Why the fill failed.
    ///
    /// # Cancel safety
    /// The fill goes on when the future is dropped.
    pub async fn head(&mut self) -> Result<Head, Failure> {
        match self.head.wait_for(|head| !matches!(head, Head::Pending)).await {
            Ok(head) => match &*head {
                Head::Failed(failure) => Err(failure.clone()),
                Head::Pending | Head::Growing(_) | Head::Whole(_) => Ok(head.clone()),
            },
            Err(_) => Err(Failure::Stopped),
        }
    }
}

/// The running fills.
#[derive(Debug)]
pub struct Fills {
    running: Mutex<HashMap<Resource, watch::Receiver<Head>>>,
    growth: Notify,
    tasks: Tasks,
}

impl Fills {
    /// Makes the table; fills run as tasks of `tasks`.
    pub fn new(tasks: Tasks) -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), growth: Notify::new(), tasks })
    }

    /// Follows the fill of `resource`, starting it with `work` if none is running. `None` if too many are running.
    pub fn join_or_lead<F, W>(self: &Arc<Self>, resource: &Resource, work: W) -> Option<Follower>
    where
        F: Future<Output = ()> + Send + 'static,
        W: FnOnce(HeadWriter) -> F,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(head) = running.get(resource) {
            return Some(Follower { head: head.clone(), is_collapsed: true });
        }
        if running.len() >= FILLS_MAX {
            return None;
        }
        let (sender, head) = watch::channel(Head::Pending);
        running.insert(resource.clone(), head.clone());
        drop(running);
        let writer = HeadWriter { head: sender, resource: resource.clone(), fills: Arc::clone(self) };
        self.tasks.spawn("fill", work(writer));
        Some(Follower { head, is_collapsed: false })
    }

    /// Returns whether any of the three files of `version` is on its way in.
    pub fn is_filling(&self, version: &ModuleVersion) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let is_running = |kind| running.contains_key(&Resource::Artifact(version.clone(), kind));
        !running.is_empty() && [ArtifactKind::Info, ArtifactKind::Mod, ArtifactKind::Zip].into_iter().any(is_running)
    }

    /// Returns the zips on their way in and how far each has come, sorted by name.
    pub fn growing(&self) -> Vec<Arriving> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let growing = running.iter().filter_map(|(resource, head)| {
            let Resource::Artifact(version, _) = resource else { return None };
            let Head::Growing(growing) = &*head.borrow() else { return None };
            growing.arriving(version)
        });
        let mut growing: Vec<Arriving> = growing.collect();
        drop(running);
        growing.sort_by(|one, other| one.version.cmp(&other.version));
        growing
    }

    /// Waits until a zip has begun to grow since the last call; for one task.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn grown(&self) {
        self.growth.notified().await;
    }

    /// Waits until Larder stops.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn stopped(&self) {
        self.tasks.token().cancelled().await;
    }

    fn forget(&self, resource: &Resource) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(resource);
    }
}
