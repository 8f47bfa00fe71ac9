//! How an answer came about, in one value for the header, the log and whoever counts (RFC 9211).
//!
//! Made by `cache`, printed by `server/respond.rs`; calls nothing.

use std::borrow::Cow;
use std::fmt;

/// Why a request went forward to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Nothing was stored.
    UriMiss,
    /// What was stored was too old.
    Stale,
}

/// How one answer came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Why an upstream was asked; nothing if the answer was stored.
    pub forward: Option<Forward>,
    /// Whether there is no answer, neither stored nor from an upstream.
    pub is_unanswered: bool,
    /// Whether another request's fill served this one as well.
    pub is_collapsed: bool,
    /// For how many seconds more the answer counts as fresh; below zero it is stale. Nothing if it never changes.
    pub ttl_s: Option<i64>,
    /// What else a person may want to know.
    pub detail: Option<Cow<'static, str>>,
}

impl CacheStatus {
    /// Returns the status of a stored answer that never changes.
    pub fn hit() -> Self {
        Self::default()
    }

    /// Returns the status of an answer that an upstream was asked for.
    pub fn forwarded(forward: Forward, is_collapsed: bool) -> Self {
        Self { forward: Some(forward), is_collapsed, ..Self::default() }
    }

    /// Returns the status of an error that neither the cache nor an upstream has answered.
    pub fn unanswered(detail: &'static str) -> Self {
        Self { is_unanswered: true, ..Self::default() }.with_detail(detail)
    }

    /// Returns the same with a detail.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Returns the one word that logs use.
    pub fn word(&self) -> &'static str {
        match (self.forward, self.ttl_s) {
            (None, Some(ttl_s)) if ttl_s < 0 => "stale",
            (None, _) => "hit",
            (Some(Forward::UriMiss), _) => "miss",
            (Some(Forward::Stale), _) => "revalidated",
        }
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.forward {
            None if self.is_unanswered => "Larder",
            None => "Larder; hit",
            Some(Forward::UriMiss) => "Larder; fwd=uri-miss",
            Some(Forward::Stale) => "Larder; fwd=stale",
        })?;
        if let Some(ttl_s) = self.ttl_s {
            write!(f, "; ttl={ttl_s}")?;
        }
        if self.is_collapsed {
            f.write_str("; collapsed")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, "; detail={detail}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind of answer has its header, in the form of RFC 9211.
    #[test]
    fn header_forms() {
        assert_eq!(CacheStatus::hit().to_string(), "Larder; hit");
        let stale = CacheStatus { ttl_s: Some(-30), ..CacheStatus::default() }.with_detail("offline");
        assert_eq!(stale.to_string(), "Larder; hit; ttl=-30; detail=offline");
        assert_eq!(CacheStatus::forwarded(Forward::UriMiss, true).to_string(), "Larder; fwd=uri-miss; collapsed");
    }
}
