//! What can go wrong on the way out, by the step that failed.
//!
//! Owns [`Error`]. Made by `egress` and its connector, of what `proxy` says among others; read by `upstream`, which draws
//! from it what to do next. Source of the tokens: RFC 9209.

use std::time::Duration;

use crate::net::proxy;

/// What went wrong on the way out, by the step that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The name could not be resolved.
    #[error("dns: {reason}")]
    Dns {
        /// The name asked for.
        host: String,
        /// Who was asked, and what they said.
        reason: String,
    },
    /// The proxy is out of order, or does not let us in.
    #[error("proxy: {proxy}: {reason}")]
    Proxy {
        /// Its name, without anything secret.
        proxy: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An HTTP proxy that works did not do what one request for plain http asks: it may not, or could not.
    #[error("proxy: {proxy}: {said}")]
    Denied {
        /// Its name, without anything secret.
        proxy: String,
        /// The status of its answer.
        status: u16,
        /// That status, with its own words.
        said: String,
    },
    /// No connection to any address.
    #[error("connect: {host}: {reason}")]
    Connect {
        /// Host and port.
        host: String,
        /// The system's words.
        reason: String,
    },
    /// The TLS handshake failed.
    #[error("tls: {host}: {reason}")]
    Tls {
        /// Host and port.
        host: String,
        /// What rustls said.
        reason: String,
    },
    /// The answer's head did not come in time.
    #[error("no answer within {} s", .0.as_secs())]
    HeaderTimeout(Duration),
    /// The body stopped coming.
    #[error("no byte for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The body kept coming, but not fast enough to end.
    #[error("not done after {} s", .0.as_secs())]
    TooSlow(Duration),
    /// The connection broke.
    #[error("connection ended early: {0}")]
    Ended(String),
    /// The host that a redirect led to did not answer well.
    #[error("redirected to {host}: {reason}")]
    Elsewhere {
        /// That host.
        host: String,
        /// The step that failed there.
        reason: String,
    },
    /// A redirect that cannot be followed.
    #[error("redirect: {0}")]
    Redirect(String),
}

impl Error {
    /// Returns whether the network, not one answer, is to blame: the sign of an uplink that is gone.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Dns { .. }
            | Self::Proxy { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::HeaderTimeout(_) => true,
            // What a proxy says of one request says nothing of the others.
            Self::Denied { .. }
            | Self::Stalled(_)
            | Self::TooSlow(_)
            | Self::Ended(_)
            | Self::Elsewhere { .. }
            | Self::Redirect(_) => false,
        }
    }

    /// Returns whether a new connection could not be made, so that trying another one soon is of no use.
    pub fn is_of_a_fresh_connection(&self) -> bool {
        match self {
            Self::Dns { .. } | Self::Proxy { .. } | Self::Connect { .. } | Self::Tls { .. } => true,
            Self::Denied { .. }
            | Self::HeaderTimeout(_)
            | Self::Stalled(_)
            | Self::TooSlow(_)
            | Self::Ended(_)
            | Self::Elsewhere { .. }
            | Self::Redirect(_) => false,
        }
    }

    /// Returns the error's token of RFC 9209.
    pub fn token(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns_error",
            // The next hop is then the proxy.
            Self::Proxy { .. } | Self::Connect { .. } | Self::Elsewhere { .. } => "destination_unavailable",
            Self::Denied { .. } => "http_request_denied",
            Self::Tls { .. } => "tls_protocol_error",
            Self::HeaderTimeout(_) => "http_response_timeout",
            Self::Stalled(_) | Self::TooSlow(_) => "connection_read_timeout",
            Self::Ended(_) => "http_response_incomplete",
            Self::Redirect(_) => "http_protocol_error",
        }
    }
}

impl From<proxy::Error> for Error {
    fn from(error: proxy::Error) -> Self {
        match error {
            proxy::Error::Dns { host, reason } => Self::Dns { host, reason },
            proxy::Error::Connect { to, reason, is_refused: _ } => Self::Connect { host: to.to_string(), reason },
            proxy::Error::Tls { to, reason } => Self::Tls { host: to.to_string(), reason },
            proxy::Error::Proxy { proxy, reason } => Self::Proxy { proxy, reason },
        }
    }
}

/// Returns the text of the deepest cause, which is the one that says what happened.
pub(super) fn innermost(err: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = err;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    // hyper tells this apart from an answer it cannot read, but not by a function.
    if deepest.to_string() == "received unexpected message from connection" {
        return "it sends something before it is asked: that is not HTTP".to_owned();
    }
    let text = deepest.to_string();
    // rustls adds where to read more.
    text.split(": https://").next().unwrap_or_default().to_owned()
}
