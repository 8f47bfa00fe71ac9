//! Which bytes of a download are there, which are under way, and who fetches what next. Pure.
//!
//! ```text
//! 0 ────────►pos     end│start ──►pos        end│start=pos            end
//! [ lead, being read    ][ a second connection   ][ nobody's yet          ]
//! ```
//!
//! Segments are in order and cover the file without gaps. They begin at block boundaries, so each block is one segment's
//! business and its checksum can run along.

use crate::store::partial::BLOCK_BYTES;

/// A segment is not split when its halves would be smaller than this, in bytes.
const SPLIT_BYTES_MIN: u64 = 2 * BLOCK_BYTES;

#[derive(Clone, Debug)]
struct Segment {
    start: u64,
    pos: u64,
    end: u64,
    is_claimed: bool,
    block_crc: crc32fast::Hasher,
}

/// The plan of one download.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    segments: Vec<Segment>,
}

/// A claimed piece of work: fetch from `pos` on.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Names the segment; segments keep their start when they are split.
    pub(super) start: u64,
    /// The first byte to fetch.
    pub(super) pos: u64,
    /// Where to stop, unless somebody takes over the rest.
    pub(super) end: u64,
}

impl Segments {
    /// Plans a download of `length` bytes of which nothing is there; `None` is a length not known yet.
    pub(super) fn new(length: Option<u64>) -> Self {
        let mut all = Self { segments: Vec::new() };
        all.push(0, 0, length.unwrap_or(u64::MAX));
        all
    }

    /// Plans the rest of a download of which some blocks are there.
    pub(super) fn resuming(length: u64, blocks: &[bool]) -> Self {
        let mut all = Self { segments: Vec::new() };
        let mut index = 0;
        while index < blocks.len() {
            let done = blocks.iter().skip(index).take_while(|done| **done).count();
            let missing = blocks.iter().skip(index + done).take_while(|done| !**done).count();
            let at = |block: usize| (block as u64 * BLOCK_BYTES).min(length);
            all.push(at(index), at(index + done), at(index + done + missing));
            index += done + missing;
        }
        if all.segments.is_empty() {
            all.push(0, 0, length);
        }
        all
    }

    fn push(&mut self, start: u64, pos: u64, end: u64) {
        self.segments.push(Segment { start, pos, end, is_claimed: false, block_crc: crc32fast::Hasher::new() });
    }

    /// Hands out the first unclaimed piece, or the second half of the largest one under way.
    pub(super) fn claim(&mut self) -> Option<Claim> {
        if let Some(free) = self.segments.iter_mut().find(|s| !s.is_claimed && s.pos < s.end) {
            free.is_claimed = true;
            return Some(Claim { start: free.start, pos: free.pos, end: free.end });
        }
        let index = (0..self.segments.len()).max_by_key(|at| self.segments.get(*at).map_or(0, |s| s.end - s.pos))?;
        let largest = self.segments.get_mut(index)?;
        let middle = (largest.pos + (largest.end - largest.pos) / 2).next_multiple_of(BLOCK_BYTES);
        if largest.end == u64::MAX || middle >= largest.end || largest.end - largest.pos < 2 * SPLIT_BYTES_MIN {
            return None;
        }
        let end = std::mem::replace(&mut largest.end, middle);
        let half = Segment { start: middle, pos: middle, end, is_claimed: true, block_crc: crc32fast::Hasher::new() };
        self.segments.insert(index + 1, half);
        Some(Claim { start: middle, pos: middle, end })
    }

    /// Gives a claimed segment back, with what has come of it.
    pub(super) fn release(&mut self, start: u64) {
        if let Some(segment) = self.find(start) {
            segment.is_claimed = false;
        }
    }

    /// Gives every segment back.
    pub(super) fn release_all(&mut self) {
        for segment in &mut self.segments {
            segment.is_claimed = false;
        }
    }

    /// Lets the owner of a segment that is done go on into the next one, if nobody has begun it.
    pub(super) fn extend(&mut self, start: u64) -> bool {
        let Some(index) = self.segments.iter().position(|s| s.start == start) else { return false };
        if !self.segments.get(index + 1).is_some_and(|next| !next.is_claimed && next.pos == next.start) {
            return false;
        }
        let next = self.segments.remove(index + 1);
        if let Some(segment) = self.segments.get_mut(index) {
            segment.end = next.end;
        }
        true
    }

    /// Returns how many bytes the owner of the segment may write next: up to the end of the block or of the segment.
    pub(super) fn room(&mut self, start: u64) -> u64 {
        self.find(start).map_or(0, |s| (s.end - s.pos).min(BLOCK_BYTES - s.pos % BLOCK_BYTES))
    }

    /// Returns where the segment's owner stands.
    pub(super) fn pos(&mut self, start: u64) -> u64 {
        self.find(start).map_or(0, |s| s.pos)
    }

    /// Notes bytes written at the segment's position; returns index and checksum of the block they complete.
    pub(super) fn advance(&mut self, start: u64, written: &[u8]) -> Option<(u64, u32)> {
        let segment = self.find(start)?;
        segment.block_crc.update(written);
        segment.pos += written.len() as u64;
        if segment.pos % BLOCK_BYTES != 0 && segment.pos != segment.end {
            return None;
        }
        let index = (segment.pos - 1) / BLOCK_BYTES;
        let crc = std::mem::replace(&mut segment.block_crc, crc32fast::Hasher::new()).finalize();
        Some((index, crc))
    }

    /// Ends a download of unknown length where it stands; returns the length.
    pub(super) fn end_here(&mut self) -> u64 {
        let Some(last) = self.segments.last_mut() else { return 0 };
        last.end = last.pos;
        last.end
    }

    /// Returns how many bytes from the start are there without a gap.
    pub(super) fn prefix(&self) -> u64 {
        let mut prefix = 0;
        for segment in &self.segments {
            prefix = segment.pos;
            if segment.pos < segment.end {
                break;
            }
        }
        prefix
    }

    /// Returns how many bytes are there in all.
    pub(super) fn done_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.pos - s.start).sum()
    }

    /// Returns whether every byte is there.
    pub(super) fn is_complete(&self) -> bool {
        self.segments.iter().all(|s| s.pos == s.end)
    }

    fn find(&mut self, start: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|s| s.start == start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four connections share a file in block-aligned parts that cover it exactly.
    #[test]
    fn four_claims_cover_the_file() {
        let length = 40 * BLOCK_BYTES + 17;
        let mut all = Segments::new(Some(length));
        let claims: Vec<Claim> = (0..4).filter_map(|_| all.claim()).collect();
        assert_eq!(claims.len(), 4);
        assert!(claims.iter().all(|claim| claim.start % BLOCK_BYTES == 0));
        let ends: u64 = all.segments.iter().map(|s| s.end - s.start).sum();
        assert_eq!(ends, length);
    }

    /// The readable prefix grows through finished segments and stops at the first gap.
    #[test]
    fn prefix_stops_at_the_first_gap() {
        let mut all = Segments::new(Some(8 * BLOCK_BYTES));
        let lead = all.claim().unwrap();
        let second = all.claim().unwrap();
        all.advance(second.start, &[0; 100]);
        assert_eq!(all.prefix(), 0);
        while all.room(lead.start) > 0 {
            let room = usize::try_from(all.room(lead.start)).unwrap();
            assert!(all.advance(lead.start, &vec![0; room]).is_some());
        }
        assert_eq!(all.prefix(), second.start + 100);
        assert!(!all.is_complete());
    }

    /// A stream that is open to the end takes over what another connection gave back untouched, and nothing else.
    #[test]
    fn extends_into_what_was_given_back() {
        let mut all = Segments::new(Some(8 * BLOCK_BYTES));
        let lead = all.claim().unwrap();
        let second = all.claim().unwrap();
        assert!(!all.extend(lead.start));
        all.release(second.start);
        assert!(all.extend(lead.start));
        assert!(!all.extend(lead.start));
        while all.room(lead.start) > 0 {
            let room = usize::try_from(all.room(lead.start)).unwrap();
            all.advance(lead.start, &vec![0; room]);
        }
        assert!(all.is_complete());
    }

    /// A resumed download asks only for the missing blocks.
    #[test]
    fn resume_skips_what_is_there() {
        let length = 3 * BLOCK_BYTES + 5;
        let mut all = Segments::resuming(length, &[true, false, true, true]);
        let claim = all.claim().unwrap();
        assert_eq!((claim.pos, claim.end), (BLOCK_BYTES, 2 * BLOCK_BYTES));
        assert_eq!(all.done_bytes(), length - BLOCK_BYTES);
        assert!(Segments::resuming(length, &[true; 4]).is_complete());
    }

    /// A block's checksum covers exactly its bytes, also when they came through two claims.
    #[test]
    fn checksum_survives_a_break_inside_a_block() {
        let mut all = Segments::new(Some(1000));
        let claim = all.claim().unwrap();
        assert_eq!(all.advance(claim.start, &[1; 400]), None);
        all.release(claim.start);
        let again = all.claim().unwrap();
        assert_eq!(again.pos, 400);
        let whole: Vec<u8> = [vec![1; 400], vec![2; 600]].concat();
        assert_eq!(all.advance(again.start, &[2; 600]), Some((0, crc32fast::hash(&whole))));
        assert!(all.is_complete());
    }
}
