//! What changes: lists, @latest, queries, the tree head. Fresh for a while, revalidated afterwards, and served old
//! rather than not at all when the upstreams cannot be asked.
//!
//! Called by [`Cache::get`]; calls `filling` through a fill, and `offline` where nobody can be asked.

use std::sync::Arc;

use crate::cache::{
    Cache, CacheStatus, Content, Error, FetchMode, Forward, NetworkMode, Reply, content_of, remembered,
};
use crate::fill::Head;
use crate::resource::Resource;
use crate::store::StoredFile;
use crate::store::index::MutableEntry;
use crate::upstream::Failure;

impl Cache {
    /// Answers a request for something that changes.
    pub(super) async fn mutable(self: &Arc<Self>, resource: &Resource, fetch_mode: FetchMode) -> Result<Reply, Error> {
        let stored = self.store.open(resource).await?;
        let (entry, negative) = self.remembered_of(resource).await?;
        // A file without an entry was not put there by us: it counts as old.
        let entry = entry.unwrap_or_default();
        if let Some(stored) = stored.clone().filter(|_| entry.is_fresh(self.clock.now(), self.config.fresh_for)) {
            return Ok(self.stored_reply(stored, &entry));
        }
        if let Some(negative) =
            negative.as_ref().filter(|negative| negative.is_fresh(self.clock.now(), self.config.fresh_for))
        {
            return Err(remembered(negative));
        }
        if fetch_mode == FetchMode::CachedOnly {
            let stored = stored.ok_or_else(|| Error::NotStored(resource.clone()))?;
            return Ok(self.stored_reply(stored, &entry));
        }
        if let Some(reason) = self.offline_reason(resource) {
            return self.mutable_offline(resource, stored, &entry, negative.as_ref(), reason).await;
        }
        let failure = match self.fill(resource).await {
            Ok((head, is_collapsed)) => {
                let forward = if stored.is_some() { Forward::Stale } else { Forward::UriMiss };
                let mut status = CacheStatus::forwarded(forward, is_collapsed);
                if matches!(&head, Head::Whole(whole) if whole.is_revalidated) {
                    status = status.with_detail("not-modified");
                }
                let content = content_of(head).ok_or(Error::Busy)?;
                return Ok(Reply { content, status });
            }
            Err(Error::Upstream { failure, .. }) => failure,
            Err(error) => return Err(error),
        };
        if self.config.network_mode == NetworkMode::Strict {
            return Err(Error::Upstream { resource: resource.clone(), failure });
        }
        if failure.is_unreachable()
            && let Some(reason) = self.offline_reason(resource)
        {
            return self.mutable_offline(resource, stored, &entry, negative.as_ref(), reason).await;
        }
        match stored {
            // The upstream is there but does not give a usable answer: what it said last is the best there is.
            Some(stored) if failure.is_transient() || matches!(failure, Failure::Rejected { .. }) => {
                log::warn!("serving stale {resource}: {failure}");
                let mut reply = self.stored_reply(stored, &entry);
                reply.status = reply.status.with_detail("stale-if-error");
                Ok(reply)
            }
            Some(_) | None => Err(Error::Upstream { resource: resource.clone(), failure }),
        }
    }

    /// Returns what is stored, saying how much longer it is fresh, or for how long it has not been.
    pub(super) fn stored_reply(&self, stored: StoredFile, entry: &MutableEntry) -> Reply {
        let status = CacheStatus { ttl_s: Some(self.ttl_s(entry)), ..CacheStatus::hit() };
        Reply { content: Content::Stored(stored), status }
    }

    /// Returns for how many seconds more an answer is fresh; below zero, for how many it has not been.
    pub(super) fn ttl_s(&self, entry: &MutableEntry) -> i64 {
        let age_s = i64::try_from(self.clock.now().since(entry.fetched).as_secs()).unwrap_or(i64::MAX);
        let fresh_s = i64::try_from(self.config.fresh_for.as_secs()).unwrap_or(i64::MAX);
        fresh_s.saturating_sub(age_s)
    }
}
