//! The content of one entry of a finished zip: inflated, checked and hashed as Go's `archive/zip` reads it.
//!
//! Called by `hash`; calls `directory` and the inflate crate. Invariants: memory is two buffers and the inflate window; no
//! more is inflated than the directory says, and than Go would accept. Source: Go 1.26, archive/zip/reader.go, `Open` and
//! `checksumReader`.

use ring::digest::{Context, SHA256};
use zlib_rs::{Inflate, InflateFlush, Status};

use super::directory::{Entry, LOCAL_BYTES, LOCAL_SIGNATURE, u16_at, u32_at};
use super::hash::{digest_of, finish};
use super::lines::ContentHash;
use super::{ReadAt, ZipError};

/// Why an entry has no content that `go` would read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentFlaw {
    /// Its data does not begin where the directory says.
    #[error("no local header where the directory says")]
    NoLocalHeader,
    /// Neither stored nor deflated.
    #[error("unsupported compression method {0}")]
    Method(u16),
    /// A folder that is said to have content.
    #[error("folder with content")]
    FolderWithContent,
    /// The compressed data is damaged or ends too early.
    #[error("damaged data")]
    Damaged,
    /// There is more or less of it than the directory says.
    #[error("unpacked size differs from the directory's")]
    Size,
    /// The CRC of the content is another one.
    #[error("checksum error")]
    Checksum,
    /// One of those above, in a run that does not keep which.
    #[error("content cannot be read")]
    Unreadable,
}

pub(super) const OUTPUT_BYTES: usize = 64 << 10;
const INPUT_BYTES: usize = 64 << 10;
pub(super) const WINDOW_BITS: u8 = 15;
pub(super) const DESCRIPTOR_SIGNATURE: &[u8; 4] = b"PK\x07\x08";

/// Reads contents, one after another, with the same buffers.
pub(super) struct Contents {
    inflate: Inflate,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Contents {
    pub(super) fn new() -> Self {
        Self { inflate: Inflate::new(false, WINDOW_BITS), input: vec![0; INPUT_BYTES], output: vec![0; OUTPUT_BYTES] }
    }

    /// Returns the SHA-256 hash of an entry's content, or what is wrong with it.
    ///
    /// # Errors
    /// [`ZipError::Io`] if the zip cannot be read.
    pub(super) fn hash<S: ReadAt + ?Sized>(
        &mut self,
        source: &S,
        zip_bytes: u64,
        entry: &Entry,
    ) -> Result<Result<ContentHash, ContentFlaw>, ZipError> {
        let Some(body) = find_body(source, zip_bytes, entry)? else {
            return Ok(Err(ContentFlaw::NoLocalHeader));
        };
        if entry.is_folder() {
            let is_empty = entry.unpacked_bytes == 0;
            return Ok(if is_empty { Ok(digest_of(b"")) } else { Err(ContentFlaw::FolderWithContent) });
        }
        // Go reads to the end of the file if the compressed size leads beyond it.
        let end = body.saturating_add(entry.compressed_bytes).min(zip_bytes);
        let mut sum = Sum::new();
        let mut section = Section { source, next: body.min(end), end };
        let flaw = match entry.method {
            0 => self.copy_stored(&mut section, &mut sum, entry.unpacked_bytes)?,
            8 => self.copy_deflated(&mut section, &mut sum, entry.unpacked_bytes)?,
            method => Some(ContentFlaw::Method(method)),
        };
        if let Some(flaw) = flaw {
            return Ok(Err(flaw));
        }
        let crc = sum.crc.finalize();
        // Without a descriptor Go takes a CRC of zero for none.
        let is_right = if entry.has_descriptor {
            // As signed numbers that run over, since that is how Go finds the descriptor.
            let at = body.cast_signed().wrapping_add(entry.compressed_bytes.cast_signed());
            crc == entry.crc && descriptor_crc(source, zip_bytes, at)? == Some(crc)
        } else {
            entry.crc == 0 || crc == entry.crc
        };
        let flaw = if sum.bytes == entry.unpacked_bytes { ContentFlaw::Checksum } else { ContentFlaw::Size };
        let is_whole = is_right && sum.bytes == entry.unpacked_bytes;
        Ok(if is_whole { Ok(finish(sum.context.finish().as_ref())) } else { Err(flaw) })
    }

    fn copy_stored<S: ReadAt + ?Sized>(
        &mut self,
        section: &mut Section<'_, S>,
        sum: &mut Sum,
        bytes: u64,
    ) -> Result<Option<ContentFlaw>, ZipError> {
        if section.end - section.next != bytes {
            return Ok(Some(ContentFlaw::Size));
        }
        loop {
            match section.read(&mut self.input)? {
                [] => return Ok(None),
                piece => sum.add(piece),
            }
        }
    }

    fn copy_deflated<S: ReadAt + ?Sized>(
        &mut self,
        section: &mut Section<'_, S>,
        sum: &mut Sum,
        bytes_max: u64,
    ) -> Result<Option<ContentFlaw>, ZipError> {
        self.inflate.reset(false);
        loop {
            let mut input = section.read(&mut self.input)?;
            if input.is_empty() {
                return Ok(Some(ContentFlaw::Damaged));
            }
            loop {
                let piece = inflate(&mut self.inflate, input, &mut self.output);
                sum.add(&self.output[..piece.written]);
                if sum.bytes > bytes_max {
                    return Ok(Some(ContentFlaw::Size));
                }
                input = &input[piece.read..];
                match piece.next {
                    Next::Input => break,
                    Next::Again => {}
                    Next::End => return Ok(None),
                    Next::Damaged => return Ok(Some(ContentFlaw::Damaged)),
                }
            }
        }
    }
}

/// The part of a zip where an entry's data is.
struct Section<'a, S: ReadAt + ?Sized> {
    source: &'a S,
    next: u64,
    end: u64,
}

impl<S: ReadAt + ?Sized> Section<'_, S> {
    /// Reads as much as the buffer takes; nothing at the end.
    fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Result<&'b [u8], ZipError> {
        let bytes = usize::try_from(self.end - self.next).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..bytes];
        self.source.read_exact_at(piece, self.next)?;
        self.next += bytes as u64;
        Ok(piece)
    }
}

/// What one call of the inflate crate did.
pub(super) struct Piece {
    pub(super) read: usize,
    pub(super) written: usize,
    pub(super) next: Next,
}

/// What has to come next.
pub(super) enum Next {
    /// More input: all there was is used.
    Input,
    /// The rest of the input, after what was written is used.
    Again,
    /// Nothing: the data has ended.
    End,
    /// Nothing: this is no deflated data.
    Damaged,
}

/// Inflates as much of `input` as fits `output`.
pub(super) fn inflate(inflate: &mut Inflate, input: &[u8], output: &mut [u8]) -> Piece {
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, output, InflateFlush::NoFlush);
    let [read, written] = [inflate.total_in() - read, inflate.total_out() - written]
        .map(|bytes| usize::try_from(bytes).unwrap_or_default());
    let next = match status {
        Ok(Status::StreamEnd) => Next::End,
        Ok(Status::Ok | Status::BufError) if written == output.len() => Next::Again,
        Ok(Status::Ok | Status::BufError) if read == input.len() => Next::Input,
        Ok(Status::Ok | Status::BufError) | Err(_) => Next::Damaged,
    };
    Piece { read, written, next }
}

/// What is known of the content so far.
pub(super) struct Sum {
    pub(super) context: Context,
    pub(super) crc: crc32fast::Hasher,
    pub(super) bytes: u64,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self { context: Context::new(&SHA256), crc: crc32fast::Hasher::new(), bytes: 0 }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

/// Returns where an entry's data begins; nothing if there is no local header.
fn find_body<S: ReadAt + ?Sized>(source: &S, zip_bytes: u64, entry: &Entry) -> Result<Option<u64>, ZipError> {
    let Ok(start) = u64::try_from(entry.start) else { return Ok(None) };
    if start.checked_add(LOCAL_BYTES as u64).is_none_or(|after| after > zip_bytes) {
        return Ok(None);
    }
    let mut header = [0; LOCAL_BYTES];
    source.read_exact_at(&mut header, start)?;
    let body = start + (LOCAL_BYTES + usize::from(u16_at(&header, 26)) + usize::from(u16_at(&header, 28))) as u64;
    Ok(header.starts_with(LOCAL_SIGNATURE).then_some(body))
}

/// Returns the CRC that the data descriptor there has; its signature may be missing.
fn descriptor_crc<S: ReadAt + ?Sized>(source: &S, zip_bytes: u64, at: i64) -> Result<Option<u32>, ZipError> {
    let Ok(at) = u64::try_from(at) else { return Ok(None) };
    let mut section = Section { source, next: at.min(zip_bytes), end: zip_bytes };
    let mut buffer = [0; 16];
    let descriptor = section.read(&mut buffer)?;
    let has_signature = descriptor.starts_with(DESCRIPTOR_SIGNATURE);
    let (crc_at, whole) = if has_signature { (4, 16) } else { (0, 12) };
    Ok((descriptor.len() >= whole).then(|| u32_at(descriptor, crc_at)))
}
