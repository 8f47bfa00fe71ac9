//! Answers without any upstream: what can be had, what is only known of, and what was never heard of.
//!
//! Offline, lists, @latest and queries tell what is stored completely, so that `go get M@latest` picks a version that
//! can be built. The files on the disk stay the upstream's words. Called by `immutable` and `mutable`; calls
//! `store::offline`, which reads the tree. Invariant 6: what was never heard of is 404, what is only not stored is 504.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{Cache, CacheStatus, Content, Error, NetworkMode, Reply, remembered};
use crate::resource::Resource;
use crate::store::index::{MutableEntry, NegativeAnswer};
use crate::store::offline::{Stored, knows_anything_of};
use crate::store::{self, StoredFile};

impl Cache {
    /// Says why something immutable that is not stored cannot be had now.
    pub(super) async fn absent_offline(
        &self,
        resource: &Resource,
        negative: Option<&NegativeAnswer>,
        reason: String,
    ) -> Error {
        if let Some(negative) = negative {
            return remembered(negative);
        }
        let Some(path) = resource.module_path().cloned() else {
            return Error::Offline { resource: resource.clone(), reason };
        };
        let root = self.store.root().to_owned();
        let knows = store::blocking(move || {
            knows_anything_of(&root, &path).map_err(|err| store::Error::at(path.as_str(), err))
        });
        match knows.await {
            Ok(false) => Error::UnknownOffline { resource: resource.clone(), reason },
            Ok(true) => Error::Offline { resource: resource.clone(), reason },
            Err(err) => Error::from(err),
        }
    }

    /// Answers for something that changes from what is stored.
    pub(super) async fn mutable_offline(
        self: &Arc<Self>,
        resource: &Resource,
        stored: Option<StoredFile>,
        entry: &MutableEntry,
        negative: Option<&NegativeAnswer>,
        reason: String,
    ) -> Result<Reply, Error> {
        if self.config.network_mode == NetworkMode::Strict {
            return Err(Error::Offline { resource: resource.clone(), reason });
        }
        if let Some(body) = self.computed(resource).await? {
            let status = CacheStatus { ttl_s: Some(self.ttl_s(entry)), ..CacheStatus::hit() };
            return Ok(Reply { content: Content::Bytes(body), status: status.with_detail("offline") });
        }
        if let Some(stored) = stored {
            let mut reply = self.stored_reply(stored, entry);
            reply.status = reply.status.with_detail("offline");
            return Ok(reply);
        }
        Err(self.absent_offline(resource, negative, reason).await)
    }

    /// Computes a list, an @latest or a query from the versions that are stored completely.
    async fn computed(&self, resource: &Resource) -> Result<Option<Bytes>, Error> {
        let Some(path) = resource.module_path().cloned() else { return Ok(None) };
        let (root, resource) = (self.store.root().to_owned(), resource.clone());
        let computed = store::blocking(move || {
            let compute = || {
                let stored = Stored::read(&root, &path)?;
                match &resource {
                    Resource::List(_) => stored.list(),
                    Resource::Latest(_) => stored.latest(),
                    Resource::Query(_, query) => stored.query(query),
                    Resource::Artifact(..)
                    | Resource::SumdbSupported(_)
                    | Resource::SumdbLatest(_)
                    | Resource::SumdbLookup(..)
                    | Resource::SumdbTile(..) => Ok(None),
                }
            };
            compute().map_err(|err| store::Error::at(path.as_str(), err))
        });
        Ok(computed.await?.map(Bytes::from))
    }
}
