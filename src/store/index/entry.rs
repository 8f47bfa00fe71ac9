//! What the index knows of one thing, and its bytes.
//!
//! Owns the three kinds of records and their encoding. Called by [`super`], `gc`, `adopt` and `cache`; pure. Numbers are
//! little endian, `varint` and `bytes` as in [`super::bucket`]. The format's number is kept once for the whole database
//! ([`super::database::FORMAT`]), not in each record.
//!
//! ```text
//! version   flags: 1   bit 0 .info, 1 .mod, 2 .zip are stored; 3 h1 known; 4 fetched known; 5 upstream known
//!           verdict: 1 0 unverifiable (not judged), 1 verified, 2 exempt, 3 mismatch
//!           last used: 4, seconds since 1970
//!           size: varint for each stored file, in the order above
//!           [fetched: 4]  [upstream: varint, its number]  [h1: 32]
//! mutable   flags: 1   bit 0 etag, 1 last-modified, 2 upstream
//!           fetched: 4   size: varint   [etag: bytes]  [last-modified: bytes]  [upstream: varint]
//! negative  fetched: 4   status: varint   body: bytes
//! ```
//!
//! Decoding garbage gives an error, never a panic.

use std::time::Duration;

use super::bucket::{Garbled, Reader, put_bytes, put_varint};
use crate::clock::UnixSeconds;
use crate::resource::ArtifactKind;

/// The SHA-256 of a zip's list of files: `h1:` of go.sum without its base64.
pub type H1 = [u8; 32];

/// The judgement of a module version's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody has judged it, or the checksum database could not be asked.
    #[default]
    Unverifiable,
    /// The checksum database vouches for it.
    Verified,
    /// The configuration exempts it.
    Exempt,
    /// The checksum database says otherwise.
    Mismatch,
}

/// What is known of one module version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionEntry {
    /// Size of the `.info` in bytes, if it is stored.
    pub info_bytes: Option<u64>,
    /// Size of the `.mod` in bytes, if it is stored.
    pub mod_bytes: Option<u64>,
    /// Size of the `.zip` in bytes, if it is stored.
    pub zip_bytes: Option<u64>,
    /// When the newest of its files was fetched; nothing for files that were adopted.
    pub fetched: Option<UnixSeconds>,
    /// When one of its files was last asked for, to the hour.
    pub last_used: UnixSeconds,
    /// The zip's hash.
    pub h1: Option<H1>,
    /// The judgement of its files.
    pub verdict: Verdict,
    /// Which upstream it came from, by its number in the index ([`super::Index::upstream_name`]).
    pub upstream: Option<u16>,
}

/// What is known of a stored answer that may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MutableEntry {
    /// When an upstream last said this.
    pub fetched: UnixSeconds,
    /// Its size in bytes.
    pub bytes: u64,
    /// The upstream's validator.
    pub etag: Option<String>,
    /// The upstream's date, as it sent it.
    pub last_modified: Option<String>,
    /// Which upstream it came from, by its number in the index ([`super::Index::upstream_name`]).
    pub upstream: Option<u16>,
}

/// A remembered answer that there is no such thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegativeAnswer {
    /// When the upstreams said so.
    pub fetched: UnixSeconds,
    /// 404 or 410.
    pub status: u16,
    /// The upstream's text, cut to [`NEGATIVE_BODY_BYTES_MAX`].
    pub body: Vec<u8>,
}

/// How much of a negative answer's text is kept; more than the 648 bytes `go` shows.
pub const NEGATIVE_BODY_BYTES_MAX: usize = 1024;

/// Validators beyond this are not kept; the answer is then fetched whole again.
const VALIDATOR_BYTES_MAX: usize = 256;

impl VersionEntry {
    /// Returns the size in bytes of one of the files, if it is stored.
    pub fn size(&self, kind: ArtifactKind) -> Option<u64> {
        match kind {
            ArtifactKind::Info => self.info_bytes,
            ArtifactKind::Mod => self.mod_bytes,
            ArtifactKind::Zip => self.zip_bytes,
        }
    }

    /// Returns the bytes of all stored files together.
    pub fn total_bytes(&self) -> u64 {
        self.sizes().into_iter().flatten().sum()
    }

    /// Returns how many of the three files are stored.
    pub fn file_count(&self) -> u64 {
        self.sizes().into_iter().flatten().count() as u64
    }

    pub(super) fn size_mut(&mut self, kind: ArtifactKind) -> &mut Option<u64> {
        match kind {
            ArtifactKind::Info => &mut self.info_bytes,
            ArtifactKind::Mod => &mut self.mod_bytes,
            ArtifactKind::Zip => &mut self.zip_bytes,
        }
    }

    fn sizes(&self) -> [Option<u64>; 3] {
        [self.info_bytes, self.mod_bytes, self.zip_bytes]
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut flags = 0_u8;
        for (bit, size) in self.sizes().iter().enumerate() {
            flags |= u8::from(size.is_some()) << bit;
        }
        flags |= u8::from(self.h1.is_some()) << 3;
        flags |= u8::from(self.fetched.is_some()) << 4;
        flags |= u8::from(self.upstream.is_some()) << 5;
        let mut bytes = vec![flags, self.verdict.to_byte()];
        put_time(&mut bytes, self.last_used);
        for size in self.sizes().into_iter().flatten() {
            put_varint(&mut bytes, size);
        }
        if let Some(fetched) = self.fetched {
            put_time(&mut bytes, fetched);
        }
        if let Some(upstream) = self.upstream {
            put_varint(&mut bytes, upstream.into());
        }
        if let Some(h1) = &self.h1 {
            bytes.extend_from_slice(h1);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader(bytes);
        let flags = reader.byte()?;
        let has = |bit: u8| flags & (1 << bit) != 0;
        let verdict = Verdict::from_byte(reader.byte()?)?;
        let last_used = take_time(&mut reader)?;
        let entry = Self {
            info_bytes: has(0).then(|| reader.varint()).transpose()?,
            mod_bytes: has(1).then(|| reader.varint()).transpose()?,
            zip_bytes: has(2).then(|| reader.varint()).transpose()?,
            fetched: has(4).then(|| take_time(&mut reader)).transpose()?,
            last_used,
            upstream: has(5).then(|| take_upstream(&mut reader)).transpose()?,
            verdict,
            h1: has(3).then(|| reader.take(32)?.try_into().map_err(|_| Garbled)).transpose()?,
        };
        if flags >= 1 << 6 || !reader.0.is_empty() { Err(Garbled) } else { Ok(entry) }
    }
}

impl Verdict {
    fn to_byte(self) -> u8 {
        match self {
            Self::Unverifiable => 0,
            Self::Verified => 1,
            Self::Exempt => 2,
            Self::Mismatch => 3,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, Garbled> {
        match byte {
            0 => Ok(Self::Unverifiable),
            1 => Ok(Self::Verified),
            2 => Ok(Self::Exempt),
            3 => Ok(Self::Mismatch),
            4.. => Err(Garbled),
        }
    }
}

impl MutableEntry {
    /// Says whether it may be served without asking again. A time that lies ahead was stamped by a wrong clock: stale.
    pub fn is_fresh(&self, now: UnixSeconds, fresh_for: Duration) -> bool {
        is_fresh(self.fetched, now, fresh_for)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let etag = self.etag.as_ref().filter(|etag| etag.len() <= VALIDATOR_BYTES_MAX);
        let last_modified = self.last_modified.as_ref().filter(|date| date.len() <= VALIDATOR_BYTES_MAX);
        let mut bytes = vec![
            u8::from(etag.is_some()) | u8::from(last_modified.is_some()) << 1 | u8::from(self.upstream.is_some()) << 2,
        ];
        put_time(&mut bytes, self.fetched);
        put_varint(&mut bytes, self.bytes);
        for text in [etag, last_modified].into_iter().flatten() {
            put_bytes(&mut bytes, text.as_bytes());
        }
        if let Some(upstream) = self.upstream {
            put_varint(&mut bytes, upstream.into());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader(bytes);
        let flags = reader.byte()?;
        let has = |bit: u8| flags & (1 << bit) != 0;
        let entry = Self {
            fetched: take_time(&mut reader)?,
            bytes: reader.varint()?,
            etag: has(0).then(|| reader.text().map(str::to_owned)).transpose()?,
            last_modified: has(1).then(|| reader.text().map(str::to_owned)).transpose()?,
            upstream: has(2).then(|| take_upstream(&mut reader)).transpose()?,
        };
        if flags >= 1 << 3 || !reader.0.is_empty() { Err(Garbled) } else { Ok(entry) }
    }
}

impl NegativeAnswer {
    /// Says whether it counts without asking again. A time that lies ahead was stamped by a wrong clock: stale.
    pub fn is_fresh(&self, now: UnixSeconds, fresh_for: Duration) -> bool {
        is_fresh(self.fetched, now, fresh_for)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_time(&mut bytes, self.fetched);
        put_varint(&mut bytes, self.status.into());
        put_bytes(&mut bytes, self.body.get(..NEGATIVE_BODY_BYTES_MAX).unwrap_or(&self.body));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader(bytes);
        let fetched = take_time(&mut reader)?;
        let status = reader.varint().and_then(|status| u16::try_from(status).map_err(|_| Garbled))?;
        let answer = Self { fetched, status, body: reader.bytes()?.to_vec() };
        if matches!(status, 404 | 410) && reader.0.is_empty() { Ok(answer) } else { Err(Garbled) }
    }

    /// Returns when an encoded answer was fetched, without taking all of it apart.
    pub(super) fn fetched_of(bytes: &[u8]) -> u32 {
        Reader(bytes).u32().unwrap_or(0)
    }
}

fn is_fresh(fetched: UnixSeconds, now: UnixSeconds, fresh_for: Duration) -> bool {
    fetched <= now && now.since(fetched) < fresh_for
}

/// Four bytes last until the year 2106; later times stay there.
fn put_time(to: &mut Vec<u8>, time: UnixSeconds) {
    to.extend_from_slice(&u32::try_from(time.0).unwrap_or(u32::MAX).to_le_bytes());
}

fn take_time(reader: &mut Reader<'_>) -> Result<UnixSeconds, Garbled> {
    Ok(UnixSeconds(reader.u32()?.into()))
}

fn take_upstream(reader: &mut Reader<'_>) -> Result<u16, Garbled> {
    u16::try_from(reader.varint()?).map_err(|_| Garbled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_entries() -> Vec<VersionEntry> {
        let full = VersionEntry {
            info_bytes: Some(60),
            mod_bytes: Some(0),
            zip_bytes: Some(524_288_000),
            fetched: Some(UnixSeconds(1_800_000_000)),
            last_used: UnixSeconds(1_800_003_600),
            h1: Some([0xa5; 32]),
            verdict: Verdict::Verified,
            upstream: Some(300),
        };
        let adopted = VersionEntry { fetched: None, h1: None, upstream: None, ..full };
        let refused = VersionEntry { verdict: Verdict::Mismatch, info_bytes: None, ..full };
        let exempt = VersionEntry { verdict: Verdict::Exempt, zip_bytes: None, ..full };
        vec![VersionEntry::default(), full, adopted, refused, exempt]
    }

    /// Every entry comes back from its bytes as it was.
    #[test]
    fn entries_round_trip() {
        for entry in version_entries() {
            assert_eq!(VersionEntry::decode(&entry.encode()), Ok(entry));
        }
        let plain = MutableEntry { fetched: UnixSeconds(5), bytes: 70_000, ..MutableEntry::default() };
        let etag = MutableEntry { etag: Some("\"x\"".into()), upstream: Some(2), ..plain.clone() };
        let dated = MutableEntry { last_modified: Some("Sat, 21 Nov 2026".into()), ..plain.clone() };
        for entry in [plain, etag, dated] {
            assert_eq!(MutableEntry::decode(&entry.encode()), Ok(entry));
        }
        for status in [404, 410] {
            let answer = NegativeAnswer { fetched: UnixSeconds(9), status, body: b"not found\n".to_vec() };
            assert_eq!(NegativeAnswer::fetched_of(&answer.encode()), 9);
            assert_eq!(NegativeAnswer::decode(&answer.encode()), Ok(answer));
        }
    }

    /// Bounds hold: a body is cut, a validator that is too long is left out, a late time stays at the end of time.
    #[test]
    fn bounds_are_kept() {
        let answer = NegativeAnswer { fetched: UnixSeconds(u64::MAX), status: 404, body: vec![b'x'; 5000] };
        let kept = NegativeAnswer::decode(&answer.encode()).unwrap();
        assert_eq!((kept.body.len(), kept.fetched), (NEGATIVE_BODY_BYTES_MAX, UnixSeconds(u32::MAX.into())));
        let entry = MutableEntry { etag: Some("x".repeat(5000)), ..MutableEntry::default() };
        assert_eq!(MutableEntry::decode(&entry.encode()).unwrap().etag, None);
    }

    /// Freshness ends after its time, and a time ahead of now has none.
    #[test]
    fn freshness_ends() {
        let entry = MutableEntry { fetched: UnixSeconds(1000), ..MutableEntry::default() };
        let answer = NegativeAnswer { fetched: UnixSeconds(1000), status: 404, body: Vec::new() };
        for (now, expected) in [(999, false), (1000, true), (1059, true), (1060, false)] {
            let (now, minute) = (UnixSeconds(now), Duration::from_secs(60));
            assert_eq!((entry.is_fresh(now, minute), answer.is_fresh(now, minute)), (expected, expected));
        }
    }

    /// A cut entry is an error; garbage never panics.
    #[test]
    fn garbage_is_an_error() {
        for entry in version_entries() {
            let bytes = entry.encode();
            for cut in 0..bytes.len() {
                assert_eq!(VersionEntry::decode(&bytes[..cut]), Err(Garbled));
            }
        }
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(..80)).map(|_| random.u8(..)).collect();
            let _ = (VersionEntry::decode(&bytes), MutableEntry::decode(&bytes), NegativeAnswer::decode(&bytes));
        }
    }
}
