//! One zip on its way in: which pieces are asked of whom, where their bytes go, and what readers may see.
//!
//! Called by `fill::download`, which says what is promised. The order of this file is that of a download: the walk
//! along the upstreams, one attempt, its streams, one stream's bytes, publishing; `ending` has the verdict and the end.
//!
//! Invariants: bytes are written only where a segment was claimed for them; what readers have been shown is never
//! overwritten by something else; the end stays hidden until the zip has been judged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::fill::download::Downloader;
use crate::fill::hashing::{Hashes, Hashing};
use crate::fill::judge::ZIP_BYTES_MAX;
use crate::fill::publisher::{Publisher, Shown};
use crate::fill::segments::{Claim, Segments};
use crate::fill::{Head, HeadWriter};
use crate::module::ModuleVersion;
use crate::net::egress;
use crate::resource::Resource;
use crate::store;
use crate::store::partial::{Identity, Partial, PartialWriter};
use crate::upstream::answer::{Body, Part};
use crate::upstream::{Answer, Ask, Failure, Upstream};
use crate::verify::Verdict;

mod ending;

/// Zips up to this size come over one connection, in bytes.
const PARALLEL_BYTES_MIN: u64 = 512 * 1024;
/// One attempt may take so long in all; a download that has come forward goes on with the next one.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Writes of one download at a time; more than it has connections.
const WRITES_MAX: u32 = 1024;
/// What one stream holds in memory before it writes, in bytes; also the room made for it at once.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// How far a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// To the end of its segment as it was when it was asked for.
    Piece,
    /// To the end of the file.
    ToTheEnd,
}

/// One download under way.
pub(super) struct Transfer<'a> {
    with: &'a Downloader,
    module: &'a ModuleVersion,
    resource: Resource,
    partial: Partial,
    segments: Mutex<Segments>,
    publisher: Publisher,
    /// Held by each write until it has ended, also when nobody waits for it any more.
    writes: Arc<Semaphore>,
    /// Whether an upstream has sent something else than what readers were shown.
    differs: AtomicBool,
    head: &'a HeadWriter,
    hashing: Hashing,
    /// Told when there is more without a gap.
    has_grown: Notify,
    /// What was found out of the complete zip.
    judged: Option<(Hashes, Verdict)>,
    /// The most bytes that were ever there; only more than that is progress.
    done_bytes_max: u64,
    upstream: Arc<str>,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        with: &'a Downloader,
        module: &'a ModuleVersion,
        resource: Resource,
        partial: Partial,
        head: &'a HeadWriter,
    ) -> Self {
        let segments = match &partial.identity {
            Some(Identity { length: Some(length), .. }) => Segments::resuming(*length, &partial.blocks),
            Some(_) | None => Segments::new(None),
        };
        let upstream = Arc::from("");
        Self {
            with,
            module,
            resource,
            done_bytes_max: segments.done_bytes(),
            segments: Mutex::new(segments),
            partial,
            publisher: Publisher::new(),
            writes: Arc::new(Semaphore::new(usize::try_from(WRITES_MAX).unwrap_or_default())),
            differs: AtomicBool::new(false),
            head,
            hashing: Hashing::new(module, with.verifier.database().is_some()),
            has_grown: Notify::new(),
            judged: None,
            upstream,
        }
    }

    /// Walks the upstreams until one has given the whole zip and it is judged good.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let mut walk = self.with.upstreams.route(&self.resource);
        let mut mismatch = None;
        while let Some(upstream) = walk.next_upstream() {
            let failure = match self.with.verifier.distrusted(&upstream.name, &self.resource) {
                Some(failure) => failure,
                None => match self.fetch_from(&upstream).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                },
            };
            match failure {
                Failure::Mismatch { .. } => mismatch = mismatch.or_else(|| Some(failure.clone())),
                // Whoever has been shown the wrong file cannot be given the right one; the next request gets it.
                Failure::Changed { .. } if mismatch.is_some() => return mismatch.map_or(Ok(()), Err),
                Failure::NotFound(_)
                | Failure::Refused { .. }
                | Failure::Unavailable { .. }
                | Failure::Network { .. }
                | Failure::Offline { .. }
                | Failure::Rejected { .. }
                | Failure::Changed { .. }
                | Failure::Unjudged(_)
                | Failure::Store(_)
                | Failure::Stopped => {}
            }
            walk.failed(failure)?;
        }
        Err(walk.end())
    }

    async fn fetch_from(&mut self, upstream: &Arc<Upstream>) -> Result<(), Failure> {
        let mut retry = self.with.upstreams.retry();
        loop {
            let failure = match timeout(ATTEMPT_TIMEOUT, self.attempt(upstream)).await {
                Ok(Ok(())) => return self.judge(upstream).await,
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Network {
                    upstream: Arc::clone(&upstream.name),
                    error: egress::Error::TooSlow(ATTEMPT_TIMEOUT),
                },
            };
            // Streams that were dropped with the attempt have not given their segments back, and what they were writing must
            // have reached the file before anything else is written there.
            let _ = self.writes.acquire_many(WRITES_MAX).await;
            self.lock().release_all();
            let done_bytes = self.lock().done_bytes();
            if done_bytes > self.done_bytes_max {
                self.done_bytes_max = done_bytes;
                retry.progressed();
            }
            // Another validator may mean another file, or nothing: begun again from zero, the bytes that readers have
            // been shown decide.
            let may_begin_again = matches!(failure, Failure::Changed { .. }) && !self.differs.load(Ordering::Relaxed);
            if may_begin_again {
                self.forget_blocks();
            }
            if !self.with.upstreams.try_again(&mut retry, &failure, upstream, may_begin_again).await {
                return Err(failure);
            }
            log::info!("resuming download {} reason={failure} bytes={done_bytes}", self.module);
        }
    }

    /// Fetches what is missing over one or more connections.
    async fn attempt(&mut self, upstream: &Arc<Upstream>) -> Result<(), Failure> {
        let mut claim = None;
        let mut ask = Ask::default();
        if let Some(Identity { upstream: from, validator: Some(validator), .. }) = &self.partial.identity
            && **from == *upstream.name
        {
            let mut segments = self.lock();
            if segments.is_complete() {
                return Ok(());
            }
            if segments.done_bytes() > 0 {
                claim = segments.claim();
                ask.range = claim.as_ref().map(|claim| (claim.pos, Some(claim.end)));
                ask.if_range = Some(validator.clone());
            }
        }
        let answer = match self.with.upstreams.get(upstream, &self.resource, &ask).await {
            Ok(answer) => answer,
            Err(failure) => {
                self.release(claim.as_ref());
                return Err(failure);
            }
        };
        let (claim, extent) = match answer.part {
            Part::From(_) => (self.continued(upstream, &answer, claim)?, Extent::Piece),
            Part::Whole | Part::NotModified => (self.begun(upstream, &answer)?, Extent::ToTheEnd),
        };
        self.upstream = Arc::clone(&upstream.name);
        let helpers = if can_share(&answer) { self.with.connections - 1 } else { 0 };
        let this = &*self;
        let mut streams = FuturesUnordered::new();
        streams.push(this.stream(upstream, Some((claim, answer.body, extent))));
        for _ in 0..helpers {
            streams.push(this.stream(upstream, None));
        }
        let all_streams = async {
            let mut first_failure = None;
            while let Some(result) = streams.next().await {
                match result {
                    Ok(()) => {}
                    Err(failure @ (Failure::Changed { .. } | Failure::Store(_))) => return Err(failure),
                    Err(failure) => {
                        first_failure.get_or_insert(failure);
                    }
                }
            }
            Ok(first_failure)
        };
        let first_failure = tokio::select! {
            ended = all_streams => ended?,
            broken = this.hashing.follow(&this.partial.file, || this.lock().prefix(), &this.has_grown) => match broken? {},
        };
        if this.lock().is_complete() {
            return Ok(());
        }
        // Without a failure, what is missing could not be asked for: the upstream names another file now.
        Err(first_failure.unwrap_or_else(|| Failure::Changed { upstream: Arc::clone(&upstream.name) }))
    }

    /// Takes up an answer that carries on where we are, if it is a piece of the same file.
    fn continued(&mut self, upstream: &Arc<Upstream>, answer: &Answer, claim: Option<Claim>) -> Result<Claim, Failure> {
        let is_same = self.partial.identity.as_ref().is_some_and(|identity| is_piece_of(identity, answer));
        match claim {
            Some(claim) if is_same => {
                self.publisher.announce(answer.length);
                Ok(claim)
            }
            claim => {
                self.release(claim.as_ref());
                Err(Failure::Changed { upstream: Arc::clone(&upstream.name) })
            }
        }
    }

    /// Takes up an answer that begins at zero: the first one, one of another file, or one that ignored the range.
    fn begun(&mut self, upstream: &Arc<Upstream>, answer: &Answer) -> Result<Claim, Failure> {
        let rejected = |reason: String| Failure::Rejected { upstream: Arc::clone(&upstream.name), reason };
        if answer.length.is_some_and(|length| length > ZIP_BYTES_MAX) {
            return Err(rejected(format!("the zip has more than {ZIP_BYTES_MAX} bytes")));
        }
        // Readers have announced the length they were told: a file of another length is another file.
        if self.publisher.shown_bytes() > 0 && self.publisher.announced_length() != answer.length {
            self.differs.store(true, Ordering::Relaxed);
            return Err(Failure::Changed { upstream: Arc::clone(&upstream.name) });
        }
        let identity = Identity {
            upstream: upstream.name.to_string(),
            validator: answer.validator.clone(),
            length: answer.length,
        };
        let mut segments = Segments::new(answer.length);
        let claim = segments.claim().ok_or_else(|| rejected("the zip is empty".to_owned()))?;
        self.partial.begin(&identity, self.publisher.shown_bytes())?;
        *self.lock() = segments;
        self.hashing.restart();
        self.publisher.announce(answer.length);
        Ok(claim)
    }

    /// One connection's work: its first piece, then whatever is left to take over.
    async fn stream(&self, upstream: &Arc<Upstream>, first: Option<(Claim, Body, Extent)>) -> Result<(), Failure> {
        let writer = self.partial.writer()?;
        let mut work = match first {
            Some(work) => work,
            None => match self.next_piece(upstream).await? {
                Some(work) => work,
                None => return Ok(()),
            },
        };
        loop {
            let (claim, body, extent) = work;
            let copied = self.copy(upstream, &writer, &claim, body, extent).await;
            self.release(Some(&claim));
            copied?;
            work = match self.next_piece(upstream).await? {
                Some(work) => work,
                None => return Ok(()),
            };
        }
    }

    /// Claims a piece and asks for it. `None` if there is nothing left, or the upstream does not give a piece of this
    /// file.
    async fn next_piece(&self, upstream: &Arc<Upstream>) -> Result<Option<(Claim, Body, Extent)>, Failure> {
        let Some(identity) = &self.partial.identity else { return Ok(None) };
        let Some(claim) = self.lock().claim() else { return Ok(None) };
        let ask =
            Ask { range: Some((claim.pos, Some(claim.end))), if_range: identity.validator.clone(), ..Ask::default() };
        let answer = match self.with.upstreams.get(upstream, &self.resource, &ask).await {
            Ok(answer) => answer,
            Err(failure) => {
                self.release(Some(&claim));
                return Err(failure);
            }
        };
        if is_piece_of(identity, &answer) && matches!(answer.part, Part::From(_)) {
            return Ok(Some((claim, answer.body, Extent::Piece)));
        }
        self.release(Some(&claim));
        Ok(None)
    }

    /// Writes a body into its segment until the segment ends, which may come earlier than the body's own end.
    async fn copy(
        &self,
        upstream: &Arc<Upstream>,
        writer: &PartialWriter,
        claim: &Claim,
        mut body: Body,
        extent: Extent,
    ) -> Result<(), Failure> {
        let network = |error| Failure::Network { upstream: Arc::clone(&upstream.name), error };
        let mut pending = Bytes::new();
        loop {
            let room = self.lock().room(claim.start);
            if room == 0 {
                if extent == Extent::ToTheEnd && self.lock().extend(claim.start) {
                    continue;
                }
                return Ok(());
            }
            if pending.is_empty() {
                match body.chunk().await.map_err(network)? {
                    Some(chunk) => pending = chunk,
                    None => return self.ended(upstream, claim),
                }
            }
            // Whatever has arrived meanwhile is written together; nothing waits for more to come.
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(BUFFER_BYTES_MAX);
            let mut buffer = Vec::with_capacity(room.min(pending.len().max(16 * 1024)));
            let mut broken = None;
            while buffer.len() < room {
                let size = pending.len().min(room - buffer.len());
                buffer.extend_from_slice(&pending[..size]);
                pending.advance(size);
                if !pending.is_empty() || buffer.len() == room {
                    break;
                }
                match body.chunk_if_ready() {
                    Ok(Some(chunk)) => pending = chunk,
                    Ok(None) => break,
                    Err(error) => {
                        broken = Some(network(error));
                        break;
                    }
                }
            }
            self.write(upstream, writer, claim, buffer).await?;
            if let Some(failure) = broken {
                return Err(failure);
            }
        }
    }

    /// What the end of a body means: the end of the file only if nobody knew its length.
    fn ended(&self, upstream: &Arc<Upstream>, claim: &Claim) -> Result<(), Failure> {
        if claim.end == u64::MAX {
            self.lock().end_here();
            return Ok(());
        }
        let error = egress::Error::Ended("the answer ended before its length".to_owned());
        Err(Failure::Network { upstream: Arc::clone(&upstream.name), error })
    }

    async fn write(
        &self,
        upstream: &Arc<Upstream>,
        writer: &PartialWriter,
        claim: &Claim,
        buffer: Vec<u8>,
    ) -> Result<(), Failure> {
        let pos = self.lock().pos(claim.start);
        if pos + buffer.len() as u64 > ZIP_BYTES_MAX {
            let reason = format!("the zip has more than {ZIP_BYTES_MAX} bytes");
            return Err(Failure::Rejected { upstream: Arc::clone(&upstream.name), reason });
        }
        let seen =
            usize::try_from(self.publisher.shown_bytes().saturating_sub(pos)).unwrap_or(usize::MAX).min(buffer.len());
        let own = writer.clone();
        let writing = Arc::clone(&self.writes).acquire_owned().await.map_err(|_| Failure::Stopped)?;
        let (is_same, buffer) = store::blocking(move || {
            let _writing = writing;
            let (again, new) = buffer.split_at(seen);
            let is_same = again.is_empty() || own.is_same_at(again, pos)?;
            if is_same {
                own.write_at(new, pos + seen as u64)?;
            }
            Ok((is_same, buffer))
        })
        .await?;
        if !is_same {
            self.differs.store(true, Ordering::Relaxed);
            return Err(Failure::Changed { upstream: Arc::clone(&upstream.name) });
        }
        let finished = self.lock().advance(claim.start, &buffer);
        if let Some((index, crc)) = finished {
            let writer = writer.clone();
            store::blocking(move || writer.note_block(index, crc)).await?;
        }
        self.publish();
        Ok(())
    }

    /// Lets readers see what is there without a gap; the first bytes let followers begin their answers.
    fn publish(&self) {
        let (prefix, done_bytes) = {
            let segments = self.lock();
            (segments.prefix(), segments.done_bytes())
        };
        self.publisher.received(done_bytes);
        self.has_grown.notify_one();
        if self.publisher.show(prefix) == Shown::First {
            self.show_head();
        }
    }

    fn show_head(&self) {
        self.head.publish(Head::Growing(self.publisher.growing(&self.partial.file, &self.upstream)));
    }

    fn forget_blocks(&mut self) {
        self.partial.identity = None;
        *self.lock() = Segments::new(None);
    }

    fn release(&self, claim: Option<&Claim>) {
        if let Some(claim) = claim {
            self.lock().release(claim.start);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether an answer is a piece of, or is, the file we have the beginning of.
fn is_piece_of(identity: &Identity, answer: &Answer) -> bool {
    identity.validator.is_some() && identity.validator == answer.validator && identity.length == answer.length
}

/// Returns whether several connections may fetch pieces of this file.
fn can_share(answer: &Answer) -> bool {
    answer.has_ranges && answer.validator.is_some() && answer.length.is_some_and(|length| length > PARALLEL_BYTES_MIN)
}
