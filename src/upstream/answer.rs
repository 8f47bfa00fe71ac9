//! One upstream's good answer, and the question it belongs to.
//!
//! Made by `request`, read by `fill`; calls `net::egress` for bodies from the network and `store` for reading a
//! folder's. Source: RFC 9110, sections 8.8 (validators) and 14 (ranges).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;

use crate::net::egress::{self, ResponseBody};
use crate::store;

/// How much of a folder upstream's file is read at a time, in bytes.
const FILE_CHUNK_BYTES: u64 = 128 * 1024;

/// What to ask for beyond the name.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// First and, where it is not the end, last-plus-one byte wanted.
    pub range: Option<(u64, Option<u64>)>,
    /// The validator the range must belong to.
    pub if_range: Option<String>,
    /// The entity tag of what we have, for a revalidation.
    pub if_none_match: Option<String>,
    /// The date of what we have, for a revalidation.
    pub if_modified_since: Option<String>,
}

/// A 200, 206 or 304.
#[derive(Debug)]
pub struct Answer {
    /// What the upstream chose to send.
    pub part: Part,
    /// The whole file's length in bytes, where the upstream tells it.
    pub length: Option<u64>,
    /// The `ETag`, as sent.
    pub etag: Option<String>,
    /// The `Last-Modified`, as sent.
    pub last_modified: Option<String>,
    /// What proves that two answers are pieces of one file: a strong `ETag`, or a `Last-Modified` that lies far enough
    /// before the answer's `Date` (RFC 9110, section 8.8.2.2).
    pub validator: Option<String>,
    /// Whether the upstream says that it serves ranges.
    pub has_ranges: bool,
    /// The bytes.
    pub body: Body,
}

/// Which part of the file an answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The bytes from here on, as asked for.
    From(u64),
    /// Nothing: what we have is still right.
    NotModified,
}

/// The bytes of an answer, as they come.
#[derive(Debug)]
pub enum Body {
    /// From the network.
    Network(ResponseBody),
    /// From a folder upstream.
    File {
        /// The file.
        file: Arc<File>,
        /// The next byte to read.
        offset: u64,
        /// Where to stop.
        end: u64,
    },
}

impl Body {
    /// Returns the next piece, or `None` at the end.
    ///
    /// # Errors
    /// As [`ResponseBody::chunk`]; a folder's file that cannot be read counts as ended.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, egress::Error> {
        match self {
            Self::Network(body) => body.chunk().await,
            Self::File { file, offset, end } => {
                let size = FILE_CHUNK_BYTES.min(end.saturating_sub(*offset));
                if size == 0 {
                    return Ok(None);
                }
                let (file, at) = (Arc::clone(file), *offset);
                let content = store::blocking(move || {
                    let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
                    let read = file.read_exact_at(&mut content, at);
                    read.map(|()| Bytes::from(content))
                        .map_err(|source| store::Error::Io { path: "upstream file".to_owned(), source })
                });
                let content = content.await.map_err(|err| egress::Error::Ended(err.to_string()))?;
                *offset += size;
                Ok(Some(content))
            }
        }
    }

    /// Returns the next piece if it has already arrived.
    ///
    /// # Errors
    /// As [`Body::chunk`].
    pub fn chunk_if_ready(&mut self) -> Result<Option<Bytes>, egress::Error> {
        match self {
            Self::Network(body) => body.chunk_if_ready(),
            Self::File { .. } => Ok(None),
        }
    }

    /// Reads the whole body if it has at most `limit` bytes; `None` says that it has more.
    ///
    /// # Errors
    /// As [`Body::chunk`].
    ///
    /// # Cancel safety
    /// What was read is lost when the future is dropped.
    pub async fn read_at_most(&mut self, limit: usize) -> Result<Option<Vec<u8>>, egress::Error> {
        let mut content = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if content.len() + chunk.len() > limit {
                return Ok(None);
            }
            content.extend_from_slice(&chunk);
        }
        Ok(Some(content))
    }
}
