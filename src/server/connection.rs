//! One client's connection: hyper above, the socket below, and files sent by the kernel in between.
//!
//! Called by `server::serve`; calls hyper, `body` and `limits`. The socket given to hyper recognises the placeholder
//! slices of `body` by their address and sends the piece of file at the head of the connection's queue instead:
//!
//! ```text
//! handler ─ Body::File ─► Outgoing ── placeholder slices ──► hyper ── head, placeholders ──► Socket ─ sendfile ─► client
//!                            └────────── (file, offset, length) ──────── Link.queue ───────────┘
//! ```
//!
//! This needs hyper to queue body slices untouched, which it does for a socket that is vectored (`writev`); the tests
//! compare served bytes. A piece that is not in memory is first read by the blocking pool (`page_cache`), so that a slow
//! card never holds up a worker.
//!
//! Invariants: what is left in the queue when an answer has been sent ends the connection, so bytes of one answer can
//! never appear in another; a body that fails resets the connection, so it is never taken for complete.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::ConnectionInfo;
use super::body::{Body, Outgoing, is_placeholder};
use super::limits::{Activity, Permit, Phase};
use super::page_cache::{PageCache, Warming, became_shorter, length_in_memory};

/// A request head longer than this is refused with 431; go sends a few hundred bytes.
const REQUEST_HEAD_BYTES_MAX: usize = 64 * 1024;

/// After so many bytes of files a connection lets others have their turn.
const TURN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What is read at a time where the kernel cannot send the file itself.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Serves one connection until it ends.
///
/// # Cancel safety
/// Dropping it closes the connection.
pub(super) async fn serve_connection<H, F>(
    stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
    page_cache: PageCache,
    handler: H,
) where
    H: Fn(Request<Incoming>, ConnectionInfo) -> F,
    F: Future<Output = Response<Body>>,
{
    let link = Arc::new(Link::new(Arc::clone(&permit.activity), page_cache));
    let socket = Socket::new(stream, Arc::clone(&link));
    let info = ConnectionInfo { peer };
    let service = service_fn(|request| {
        link.activity.enter(Phase::Handling);
        let response = handler(request, info);
        let link = Arc::clone(&link);
        async move { Ok::<_, Infallible>(outgoing(response.await, link)) }
    });
    let served = http1::Builder::new()
        .writev(true)
        .half_close(false)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        log::debug!("connection ended early client={} reason={error}", peer.ip().to_canonical());
    }
}

fn outgoing(response: Response<Body>, link: Arc<Link>) -> Response<Outgoing> {
    let is_last = link.activity.is_draining();
    let mut response = response.map(|body| Outgoing::new(body, link));
    if is_last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A piece of a file that hyper knows as a placeholder of the same length.
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// What the bodies of a connection and its socket share.
pub(super) struct Link {
    pub(super) activity: Arc<Activity>,
    page_cache: PageCache,
    queue: Mutex<VecDeque<Segment>>,
    /// Set when hyper has taken the last of an answer; what it has taken may still have to be sent.
    is_response_ended: AtomicBool,
}

impl Link {
    fn new(activity: Arc<Activity>, page_cache: PageCache) -> Self {
        Self { activity, page_cache, queue: Mutex::default(), is_response_ended: AtomicBool::new(false) }
    }

    /// Queues a piece of a file; the same task gives hyper the placeholder.
    pub(super) fn push(&self, segment: Segment) {
        self.queue().push_back(segment);
    }

    /// Notes that hyper is done with the answer's body.
    pub(super) fn end_response(&self) {
        self.is_response_ended.store(true, Ordering::Relaxed);
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client's socket as hyper sees it.
struct Socket {
    stream: TcpStream,
    link: Arc<Link>,
    /// The segment being sent.
    segment: Option<Segment>,
    /// The blocking pool reads the segment's bytes into memory.
    warming: Option<Warming>,
    /// How many of the segment's next bytes have just been seen in memory or brought there.
    warm_length: usize,
    /// How many bytes of files have been sent since others had their turn.
    sent_in_turn: usize,
    /// Set while the client takes no more bytes.
    is_blocked: bool,
    /// Set when the kernel has refused to send from this kind of file.
    must_copy: bool,
}

impl Socket {
    fn new(stream: TcpStream, link: Arc<Link>) -> Self {
        Self {
            stream,
            link,
            segment: None,
            warming: None,
            warm_length: 0,
            sent_in_turn: 0,
            is_blocked: false,
            must_copy: false,
        }
    }

    /// Notes whether the client takes bytes, for the limit on those that do not.
    fn note<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() != self.is_blocked {
            self.is_blocked = polled.is_pending();
            self.link.activity.enter(if self.is_blocked { Phase::Writing } else { Phase::Handling });
        }
        polled
    }

    /// Waits until the client takes bytes, and notes it if it does not.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writable = self.stream.poll_write_ready(cx);
        if writable.is_pending() { self.note(writable) } else { writable }
    }

    /// Sends ordinary bytes that a piece of a file follows: the kernel waits with the last packet until it is full.
    fn poll_send_more(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_writable(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
                Ok(sendmsg(&self.stream, slices, &mut SendAncillaryBuffer::default(), flags)?)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return self.note(Poll::Ready(sent)),
            }
        }
    }

    /// Sends bytes of the segment that the placeholder at the head of hyper's buffers stands for.
    fn poll_send_segment(&mut self, cx: &mut Context<'_>, placeholder_length: usize) -> Poll<io::Result<usize>> {
        let mut segment = match self.segment.take().or_else(|| self.link.queue().pop_front()) {
            Some(segment) if segment.length == placeholder_length => segment,
            _ => return Poll::Ready(Err(self.out_of_step())),
        };
        let polled = self.poll_send_from(cx, &segment);
        if let Poll::Ready(Ok(sent)) = polled {
            segment.offset += u64::try_from(sent).unwrap_or(u64::MAX);
            segment.length -= sent;
        }
        if segment.length > 0 {
            self.segment = Some(segment);
        }
        polled
    }

    fn poll_send_from(&mut self, cx: &mut Context<'_>, segment: &Segment) -> Poll<io::Result<usize>> {
        if self.sent_in_turn >= TURN_BYTES_MAX {
            // Others go first now. Going on with a client that drains its socket at this very moment would also be
            // expensive: the two of us would hand each other small pieces.
            self.sent_in_turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            ready!(self.poll_writable(cx))?;
            let length = ready!(self.poll_warm(cx, segment))?;
            if self.must_copy {
                return self.poll_copy_from(cx, segment, length);
            }
            let mut offset = segment.offset;
            let sent = self
                .stream
                .try_io(Interest::WRITABLE, || Ok(sendfile(&self.stream, &segment.file, Some(&mut offset), length)?));
            match sent {
                Ok(0) => return Poll::Ready(Err(became_shorter())),
                // The bytes may leave memory again while the client makes us wait: they are looked for once more then.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.warm_length = 0;
                    self.sent_in_turn = 0;
                }
                Err(error) if cannot_send_files(&error) => self.must_copy = true,
                // A short count does not mean that the socket is full: a signal or the file system may have cut it
                // short. So the next call is made until the kernel says that it would block.
                sent => {
                    let bytes = sent.as_ref().copied().unwrap_or(length);
                    self.sent_in_turn += bytes;
                    self.warm_length = length - bytes;
                    return self.note(Poll::Ready(sent));
                }
            }
        }
    }

    /// Sends bytes of a file that the kernel does not send by itself. What the socket does not take is read again.
    fn poll_copy_from(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment,
        warm_length: usize,
    ) -> Poll<io::Result<usize>> {
        let mut bytes = vec![0; warm_length.min(COPY_BYTES_MAX)];
        let read = segment.file.read_at(&mut bytes, segment.offset)?;
        if read == 0 {
            return Poll::Ready(Err(became_shorter()));
        }
        self.warm_length = 0;
        let polled = Pin::new(&mut self.stream).poll_write(cx, &bytes[..read]);
        self.note(polled)
    }

    /// Waits until the segment's next bytes are in memory, so that sending them cannot wait for the card; returns how
    /// many are.
    fn poll_warm(&mut self, cx: &mut Context<'_>, segment: &Segment) -> Poll<io::Result<usize>> {
        if self.warm_length == 0 && self.warming.is_none() {
            self.warm_length = length_in_memory(segment);
        }
        if self.warm_length == 0 {
            let page_cache = &self.link.page_cache;
            let warming = self.warming.get_or_insert_with(|| page_cache.read_ahead(segment));
            let warmed = ready!(warming.as_mut().poll(cx));
            self.warming = None;
            self.warm_length = warmed?;
        }
        Poll::Ready(Ok(self.warm_length))
    }

    fn out_of_step(&self) -> io::Error {
        self.link.activity.reset_on_close();
        io::Error::other("the answer and the files it is made of do not agree")
    }
}

/// Tells whether the kernel does not send from this kind of file at all.
fn cannot_send_files(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before && self.link.activity.phase() == Phase::Idle {
            self.link.activity.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let ordinary = slices.iter().take_while(|slice| !is_placeholder(slice)).count();
        if ordinary == slices.len() {
            let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
            self.note(polled)
        } else if slices[..ordinary].iter().any(|slice| !slice.is_empty()) {
            self.poll_send_more(cx, &slices[..ordinary])
        } else {
            self.poll_send_segment(cx, slices[ordinary].len())
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Hyper calls this once all it had has been written, which after the end of an answer means: between requests.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.link.is_response_ended.load(Ordering::Relaxed) {
            self.link.is_response_ended.store(false, Ordering::Relaxed);
            if self.segment.is_some() || !self.link.queue().is_empty() {
                return Poll::Ready(Err(self.out_of_step()));
            }
            self.link.activity.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.link.activity.must_reset() {
            // A plain end could be taken for the end of an answer that has no length, and would leave the kernel
            // holding bytes for a client that does not take them.
            if let Err(error) = SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)) {
                log::debug!("cannot reset a connection: {error}");
            }
        }
    }
}
