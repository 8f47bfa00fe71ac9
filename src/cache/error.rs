//! Why a request has no good answer, and what the person in front of the terminal is told.
//!
//! Owns [`Error`]. Made by everything in `cache`; `server/respond.rs` is the only place that turns it into HTTP. The
//! statuses follow invariant 6: 404 and 410 send the go command on to its next proxy, so they are used only where that
//! is right. Source of the bounds on texts: cmd/go/internal/web/api.go of Go 1.26.

use bytes::Bytes;

use crate::resource::Resource;
use crate::store;
use crate::upstream::{Failure, Why};

/// The go command shows this many bytes of an error's text, and 8 lines.
const CLIENT_TEXT_BYTES_MAX: usize = 640;

/// Why a request has no good answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The upstreams say, or have said, that there is no such thing.
    #[error("not found")]
    NotFound {
        /// 404 or 410, as they said.
        status: u16,
        /// Their words.
        body: Bytes,
        /// Whether the answer is remembered.
        is_remembered: bool,
    },
    /// The client wants only what is stored, and this is not.
    #[error("not found: {0} is not stored here, and the request asks not to fetch it")]
    NotStored(Resource),
    /// There is no way out, and nothing of this module was ever seen.
    #[error("not found: {resource}: nothing of this module is stored, and the upstream is out of reach: {reason}")]
    UnknownOffline {
        /// What was asked for.
        resource: Resource,
        /// What keeps us from asking.
        reason: String,
    },
    /// There is no way out, and this is not stored.
    #[error("{resource} is not stored, and the upstream is out of reach: {reason}")]
    Offline {
        /// What was asked for.
        resource: Resource,
        /// What keeps us from asking.
        reason: String,
    },
    /// A checksum database that clients have to ask themselves.
    #[error("not found: {0}: this checksum database is not proxied here")]
    NotProxied(Resource),
    /// A private module's name must not go to a public checksum database.
    #[error("{0}: this module is private: its name is not sent to a checksum database")]
    PrivateLookup(Resource),
    /// The upstreams did not give it.
    #[error("{}{failure}", prefix(.resource, .failure))]
    Upstream {
        /// What was asked for.
        resource: Resource,
        /// What they did instead.
        failure: Failure,
    },
    /// Too many downloads are running.
    #[error("too many downloads are running, try again")]
    Busy,
    /// Our own disk failed.
    #[error("cannot read the cache: {0}")]
    Store(std::sync::Arc<store::Error>),
}

impl Error {
    /// Returns the HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound { status, .. } => *status,
            Self::NotStored(_) | Self::NotProxied(_) | Self::UnknownOffline { .. } => 404,
            Self::Offline { .. } => 504,
            Self::PrivateLookup(_) => 403,
            Self::Upstream { failure, .. } => match failure {
                Failure::NotFound(not_found) => not_found.status,
                Failure::Refused { status, .. } => *status,
                Failure::Unavailable { .. }
                | Failure::Network { .. }
                | Failure::Rejected { .. }
                | Failure::Changed { .. }
                | Failure::Mismatch { .. } => 502,
                Failure::Unjudged(unjudged) => match unjudged.why {
                    Why::Lie => 502,
                    // 404 would have the go command ask where nobody verifies.
                    Why::NotInLog => 403,
                    Why::Alarm => 503,
                    Why::Unreachable => 504,
                },
                Failure::Offline { .. } => 504,
                Failure::Store(err) => store_status(err),
                Failure::Stopped => 503,
            },
            Self::Busy => 503,
            Self::Store(err) => store_status(err),
        }
    }

    /// Returns the text for the person at the terminal: short, and with a hint where there is something to do.
    pub fn client_text(&self) -> Bytes {
        match self {
            Self::NotFound { body, .. } => body.clone(),
            Self::Upstream { failure: Failure::NotFound(not_found), .. } => not_found.body.clone(),
            Self::Upstream { failure: Failure::Refused { body, .. }, .. } if !body.is_empty() => body.clone(),
            Self::NotStored(_)
            | Self::UnknownOffline { .. }
            | Self::Offline { .. }
            | Self::NotProxied(_)
            | Self::PrivateLookup(_)
            | Self::Upstream { .. }
            | Self::Busy
            | Self::Store(_) => {
                let hint = self.hint();
                let room = CLIENT_TEXT_BYTES_MAX - hint.map_or(0, |hint| hint.len() + "\nhint: ".len());
                let mut text = String::new();
                for c in self.to_string().chars().filter(|c| !c.is_control()) {
                    if text.len() + c.len_utf8() > room {
                        break;
                    }
                    text.push(c);
                }
                if let Some(hint) = hint {
                    text.push_str("\nhint: ");
                    text.push_str(hint);
                }
                text.push('\n');
                Bytes::from(text)
            }
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Offline { .. } => Some("go list -m -versions MODULE shows the versions that can be had now"),
            Self::PrivateLookup(_) => Some(
                "set GONOSUMDB for it; GOPRIVATE would also take the module past this cache, unless GONOPROXY=none",
            ),
            Self::Upstream { failure, .. } => match failure {
                Failure::Store(err) => store_hint(err),
                Failure::Refused { .. } => {
                    Some("the upstream refuses it; its credentials are set in Larder's configuration")
                }
                Failure::Network { error, .. } if error.is_unreachable() => {
                    Some("larder doctor, run where Larder runs, says what to change")
                }
                Failure::Mismatch { .. } => {
                    Some("nothing of it was stored; larder alarms, run where Larder runs, has the evidence")
                }
                Failure::Unjudged(unjudged) => match unjudged.why {
                    Why::Lie => {
                        Some("somebody on the way to the checksum database changes its answers, or it lies itself")
                    }
                    Why::Alarm => Some("larder alarms, run where Larder runs, has the evidence"),
                    Why::NotInLog => Some("-sumdb-mode is strict; -gonosumdb exempts modules that no log can hold"),
                    Why::Unreachable => {
                        Some("-sumdb-mode is strict; larder doctor, run where Larder runs, says what to change")
                    }
                },
                Failure::NotFound(_)
                | Failure::Unavailable { .. }
                | Failure::Network { .. }
                | Failure::Offline { .. }
                | Failure::Rejected { .. }
                | Failure::Changed { .. }
                | Failure::Stopped => None,
            },
            Self::Store(err) => store_hint(err),
            Self::NotFound { .. }
            | Self::NotStored(_)
            | Self::NotProxied(_)
            | Self::UnknownOffline { .. }
            | Self::Busy => None,
        }
    }

    /// Returns whether the same request may succeed soon.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Upstream { failure, .. } => failure.is_transient() || matches!(failure, Failure::Stopped),
            Self::Offline { .. } | Self::Busy => true,
            Self::NotFound { .. }
            | Self::NotStored(_)
            | Self::NotProxied(_)
            | Self::UnknownOffline { .. }
            | Self::PrivateLookup(_)
            | Self::Store(_) => false,
        }
    }

    /// Returns the error's token of RFC 9209, where the way to the upstream is to blame.
    pub fn token(&self) -> Option<&'static str> {
        match self {
            Self::Upstream { failure, .. } => Some(failure.token()),
            Self::Offline { .. } | Self::UnknownOffline { .. } => Some("destination_unavailable"),
            Self::NotFound { .. }
            | Self::NotStored(_)
            | Self::NotProxied(_)
            | Self::PrivateLookup(_)
            | Self::Busy
            | Self::Store(_) => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(std::sync::Arc::new(error))
    }
}

/// What the checksum database says names module and version itself.
fn prefix(resource: &Resource, failure: &Failure) -> String {
    match failure {
        Failure::Mismatch { .. } | Failure::Unjudged(_) => String::new(),
        Failure::NotFound(_)
        | Failure::Refused { .. }
        | Failure::Unavailable { .. }
        | Failure::Network { .. }
        | Failure::Offline { .. }
        | Failure::Rejected { .. }
        | Failure::Changed { .. }
        | Failure::Store(_)
        | Failure::Stopped => format!("{resource}: "),
    }
}

fn store_status(err: &store::Error) -> u16 {
    match err {
        store::Error::Full { .. } => 507,
        store::Error::InUse { .. } | store::Error::Io { .. } => 500,
    }
}

fn store_hint(err: &store::Error) -> Option<&'static str> {
    match err {
        store::Error::Full { .. } => Some("free space on the cache's disk, or set -max-cache-size"),
        store::Error::InUse { .. } | store::Error::Io { .. } => None,
    }
}
