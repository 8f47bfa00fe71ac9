//! What asking an upstream can come to, other than a good answer.
//!
//! The variants are what the caller can do about it: go on to the next upstream, try again, relay, or give up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::net::egress;
use crate::store;
use crate::upstream::Upstream;

/// An upstream's word that there is no such thing: 404 or 410, relayed as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// 404 or 410.
    pub status: u16,
    /// The body, at most [`TEXT_BYTES_MAX`] bytes.
    pub body: Bytes,
    /// Who said so.
    pub upstream: Arc<str>,
}

/// A verdict that is missing where one is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Unjudged {
    /// Why, with module and version.
    pub text: Arc<str>,
    /// Whose trouble it is.
    pub why: Why,
}

/// Why there is no verdict, or no answer of a checksum database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The checksum database cannot be reached.
    Unreachable,
    /// Its log has no such record.
    NotInLog,
    /// Its answer does not verify.
    Lie,
    /// It has shown two histories, and nobody has looked at that yet.
    Alarm,
}

/// Error bodies are kept up to this length, in bytes: more than the go command ever shows.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Why an upstream did not give what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// It says that there is no such thing.
    #[error("{}: status {}", .0.upstream, .0.status)]
    NotFound(NotFound),
    /// It will not give it: 401, 403 or another status that trying again does not change.
    #[error("{upstream}: status {status}")]
    Refused {
        /// Who refused.
        upstream: Arc<str>,
        /// The status, to be relayed.
        status: u16,
        /// The body, to be relayed; at most [`TEXT_BYTES_MAX`] bytes.
        body: Bytes,
    },
    /// It has trouble of its own: 429 or 5xx.
    #[error("{upstream}: status {status}")]
    Unavailable {
        /// Who has trouble.
        upstream: Arc<str>,
        /// Its status.
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It could not be reached, or the connection broke.
    #[error("{upstream}: {error}")]
    Network {
        /// Who was asked.
        upstream: Arc<str>,
        /// The step that failed.
        error: egress::Error,
    },
    /// It was not asked, since it is known to be out of reach or switched off.
    #[error("{upstream}: offline: {reason}")]
    Offline {
        /// Who would have been asked.
        upstream: Arc<str>,
        /// What was found when it was last asked.
        reason: String,
    },
    /// What it sent cannot be right.
    #[error("{upstream}: {reason}")]
    Rejected {
        /// Who sent it.
        upstream: Arc<str>,
        /// The rule that was broken.
        reason: String,
    },
    /// It now sends another file than the one clients have already got the beginning of.
    #[error("{upstream}: the file changed during the download")]
    Changed {
        /// Who sent it.
        upstream: Arc<str>,
    },
    /// What it sent is not what the checksum database vouches for.
    #[error("{text}")]
    Mismatch {
        /// Who sent it.
        upstream: Arc<str>,
        /// Module, version, and both hashes.
        text: Arc<str>,
    },
    /// It cannot be told whether what came is right, and so nobody gets it.
    #[error(transparent)]
    Unjudged(Unjudged),
    /// Our own disk failed.
    #[error("{0}")]
    Store(Arc<store::Error>),
    /// Larder is stopping.
    #[error("larder is shutting down")]
    Stopped,
}

impl Failure {
    /// Makes the failure of an attempt that took longer than `limit`.
    pub fn too_slow(upstream: &Upstream, limit: Duration) -> Self {
        Self::Network { upstream: Arc::clone(&upstream.name), error: egress::Error::TooSlow(limit) }
    }

    /// Returns whether the same question may get another answer soon.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Network { .. } | Self::Offline { .. } => true,
            Self::NotFound(_)
            | Self::Refused { .. }
            | Self::Rejected { .. }
            | Self::Changed { .. }
            | Self::Mismatch { .. }
            | Self::Unjudged(_)
            | Self::Store(_)
            | Self::Stopped => false,
        }
    }

    /// Returns whether the way to the upstream, not the upstream, is to blame.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Network { error, .. } => error.is_unreachable(),
            Self::Offline { .. } => true,
            Self::NotFound(_)
            | Self::Refused { .. }
            | Self::Unavailable { .. }
            | Self::Rejected { .. }
            | Self::Changed { .. }
            | Self::Mismatch { .. }
            | Self::Unjudged(_)
            | Self::Store(_)
            | Self::Stopped => false,
        }
    }

    /// Returns the error's token of RFC 9209, for headers, logs and metrics.
    pub fn token(&self) -> &'static str {
        match self {
            Self::NotFound(_) | Self::Refused { .. } | Self::Unavailable { .. } => "http_request_denied",
            Self::Network { error, .. } => error.token(),
            Self::Offline { .. } => "destination_unavailable",
            Self::Rejected { .. } | Self::Changed { .. } | Self::Mismatch { .. } | Self::Unjudged(_) => {
                "http_protocol_error"
            }
            Self::Store(_) | Self::Stopped => "proxy_internal_error",
        }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}
