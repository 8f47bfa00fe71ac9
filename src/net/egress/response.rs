//! An answer on its way in: the head that is there, and the body as it comes.
//!
//! Owns [`Response`] and [`ResponseBody`]. Made by `egress`; read by `upstream` and `fill`. Invariant: waiting for the
//! next piece has a limit.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::net::egress::Error;
use crate::net::egress::error::innermost;

/// An answer whose head has arrived.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The rest, still on its way.
    pub body: ResponseBody,
}

/// A body on its way in.
#[derive(Debug)]
pub struct ResponseBody {
    pub(super) incoming: Incoming,
    pub(super) stall_timeout: Duration,
}

impl ResponseBody {
    /// Returns the next piece, or `None` at the declared end.
    ///
    /// # Errors
    /// `Stalled` when nothing came for too long, `Ended` when the connection broke before the declared end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(self.stall_timeout, self.incoming.frame())
                .await
                .map_err(|_| Error::Stalled(self.stall_timeout))?;
            match frame {
                None => return Ok(None),
                Some(Err(err)) => return Err(Error::Ended(innermost(&err))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Returns the next piece if it has already arrived.
    ///
    /// # Errors
    /// As [`ResponseBody::chunk`].
    pub fn chunk_if_ready(&mut self) -> Result<Option<Bytes>, Error> {
        use futures_util::FutureExt as _;
        match self.incoming.frame().now_or_never() {
            None | Some(None) => Ok(None),
            Some(Some(Err(err))) => Err(Error::Ended(innermost(&err))),
            Some(Some(Ok(frame))) => Ok(frame.into_data().ok()),
        }
    }
}
