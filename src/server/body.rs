//! What an answer carries: nothing, bytes, a stored file, or a file that is still growing.
//!
//! [`Body`] is what the handler returns. Called by `connection`, which turns it into an `Outgoing`, the body hyper
//! polls; calls `fill` for growing files and reads files only where that cannot wait.
//!
//! A file's bytes do not pass through here. `Outgoing` hands hyper slices of `PLACEHOLDER`, as long as the piece of
//! file they stand for, and notes the piece in the connection's queue; the connection's socket recognises the slices by
//! their address and has the kernel send the piece instead (DESIGN: "sendfile under hyper"). A file small enough is
//! read instead, so that its head and body leave in one system call.
//!
//! Invariants: one queue entry per placeholder slice, in the same order, of the same length; a failed or vanished
//! source is an error, never the end of the body.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use thiserror::Error;
use tokio::task::JoinHandle;

use super::connection::{Link, Segment};
use super::page_cache::{read_at_once, read_waiting};
use crate::fill::FillReader;

/// The longest piece of a file sent by one system call. A longer one would keep a worker from other connections; a
/// quarter of it made a 1 MB zip cost up to three times the CPU, because the client was woken for each part.
const PIECE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Stands for bytes of a file on their way through hyper. Never read, so it takes no memory.
static PLACEHOLDER: [u8; PIECE_BYTES_MAX] = [0; PIECE_BYTES_MAX];

/// Up to here reading a file and sending it together with the head costs less than two system calls that avoid the copy.
const READ_BYTES_MAX: u64 = 8 * 1024;

/// Tells whether `slice` stands for bytes of a file.
pub(super) fn is_placeholder(slice: &[u8]) -> bool {
    PLACEHOLDER.as_ptr_range().contains(&slice.as_ptr())
}

/// What an answer carries.
pub enum Body {
    /// Nothing.
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// The bytes of `file` from offset `start` up to, not including, `end`.
    File {
        /// A file of the store.
        file: Arc<File>,
        /// Offset of the first byte.
        start: u64,
        /// Offset after the last byte; the file must be at least this long.
        end: u64,
    },
    /// The bytes of a file being downloaded from offset `start` on, as they come; a failed download ends in an error.
    Growing {
        /// Follows the download.
        reader: FillReader,
        /// Offset of the first byte.
        start: u64,
    },
}

impl Body {
    /// Returns the length in bytes where it is known; the answer then has a `Content-Length`.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => u64::try_from(bytes.len()).ok(),
            Self::File { start, end, .. } => Some(end.saturating_sub(*start)),
            Self::Growing { reader, start } => reader.length().map(|length| length.saturating_sub(*start)),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// Why a body ended before its end.
#[derive(Debug, Error)]
pub(super) enum BodyError {
    /// The file cannot be read.
    #[error("cannot read the stored file: {0}")]
    Read(#[from] io::Error),
    /// The download has failed.
    #[error("the download failed: {0}")]
    Fill(Arc<str>),
    /// The download has ended at another length than it had announced.
    #[error("the download ended at byte {ended_at} of {length}")]
    Length {
        /// Where it ended.
        ended_at: u64,
        /// What it had announced.
        length: u64,
    },
}

/// A [`Body`] on its way out through one connection.
pub(super) struct Outgoing {
    link: Arc<Link>,
    source: Source,
}

enum Source {
    Ended,
    Bytes(Bytes),
    File {
        file: Arc<File>,
        offset: u64,
        end: u64,
    },
    /// A small file, or the rest of one, that was not in memory: read by the blocking pool.
    Reading {
        task: JoinHandle<io::Result<Bytes>>,
        length: u64,
    },
    Growing {
        reader: FillReader,
        offset: u64,
        end: Option<u64>,
    },
}

impl Outgoing {
    pub(super) fn new(body: Body, link: Arc<Link>) -> Self {
        let end = body.length();
        let source = match body {
            Body::Bytes(bytes) if !bytes.is_empty() => Source::Bytes(bytes),
            Body::File { file, start, end } if start < end => Source::File { file, offset: start, end },
            Body::Growing { reader, start } if end != Some(0) => {
                Source::Growing { reader, offset: start, end: end.map(|length| start + length) }
            }
            Body::Empty | Body::Bytes(_) | Body::File { .. } | Body::Growing { .. } => Source::Ended,
        };
        Self { link, source }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let bytes = match &mut self.source {
            Source::Ended => return Poll::Ready(None),
            Source::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Ended;
                bytes
            }
            Source::File { file, offset, end } => {
                let Some(piece) = next_piece(&self.link, file, *offset, *end) else {
                    let (file, offset, length) = (Arc::clone(file), *offset, *end - *offset);
                    let task = tokio::task::spawn_blocking(move || read_waiting(&file, offset, length));
                    self.source = Source::Reading { task, length };
                    return self.poll_bytes(cx);
                };
                *offset += length_of(&piece);
                if *offset >= *end {
                    self.source = Source::Ended;
                }
                piece
            }
            Source::Reading { task, .. } => {
                let read = ready!(Pin::new(task).poll(cx)).unwrap_or_else(|error| Err(error.into()));
                self.source = Source::Ended;
                read?
            }
            Source::Growing { reader, offset, end } => {
                let readable = ready!(reader.poll_readable(cx, *offset)).map_err(BodyError::Fill)?;
                if readable <= *offset {
                    let (ended_at, expected) = (*offset, *end);
                    self.source = Source::Ended;
                    return match expected {
                        Some(length) if length != ended_at => {
                            Poll::Ready(Some(Err(BodyError::Length { ended_at, length })))
                        }
                        _ => Poll::Ready(None),
                    };
                }
                let readable = end.map_or(readable, |end| readable.min(end));
                let piece = next_piece(&self.link, reader.file(), *offset, readable)
                    .unwrap_or_else(|| placeholder_for(&self.link, reader.file(), *offset, readable));
                *offset += length_of(&piece);
                if Some(*offset) == *end {
                    self.source = Source::Ended;
                }
                piece
            }
        };
        Poll::Ready(Some(Ok(bytes)))
    }
}

/// Returns the next bytes of a file: read, where few are left, else a placeholder; none where reading them would wait.
fn next_piece(link: &Link, file: &Arc<File>, offset: u64, end: u64) -> Option<Bytes> {
    let length = end - offset;
    if length <= READ_BYTES_MAX {
        return read_at_once(file, offset, length);
    }
    Some(placeholder_for(link, file, offset, end))
}

/// Queues the next piece of a file and returns the placeholder that stands for it.
fn placeholder_for(link: &Link, file: &Arc<File>, offset: u64, end: u64) -> Bytes {
    let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
    link.push(Segment { file: Arc::clone(file), offset, length });
    Bytes::from_static(&PLACEHOLDER[..length])
}

fn length_of(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(self.poll_bytes(cx));
        if let Some(Err(_)) = &polled {
            self.source = Source::Ended;
            self.link.activity.reset_on_close();
        }
        Poll::Ready(polled.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        let exact = match &self.source {
            Source::Ended => Some(0),
            Source::Bytes(bytes) => Some(length_of(bytes)),
            Source::File { offset, end, .. } | Source::Growing { offset, end: Some(end), .. } => Some(end - offset),
            Source::Reading { length, .. } => Some(*length),
            Source::Growing { end: None, .. } => None,
        };
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.link.end_response();
    }
}
