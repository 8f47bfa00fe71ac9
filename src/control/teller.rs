//! Tells a command how the work goes: lines, bytes, and how far it has come.
//!
//! Owns [`Teller`]. Called by everything that answers a request; hands on to the socket, or straight to the command if
//! that is alone. Invariant: progress comes at most every 200 ms, so that it costs the work nothing.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock::Clock;
use crate::control::Answer;

/// Progress is told this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes in one answer, well below what a line of the answer may have.
const PIECE_BYTES: usize = 32 * 1024;

/// Takes the answer to one request. It may be used within `Handle::block_on`.
pub struct Teller<'a> {
    say: &'a mut dyn FnMut(Answer),
    clock: &'a Clock,
    last_progress: Option<Instant>,
}

impl<'a> Teller<'a> {
    /// Makes one that hands on to `say`.
    pub fn new(say: &'a mut dyn FnMut(Answer), clock: &'a Clock) -> Self {
        Self { say, clock, last_progress: None }
    }

    /// Tells a line for stdout.
    pub fn line(&mut self, text: String) {
        (self.say)(Answer::Line(text));
    }

    /// Tells how far the work has come, unless that was told a moment ago. A `total` of 0 is one that is not known.
    pub fn progress(&mut self, done: u64, total: u64, text: &str) {
        let now = self.clock.steady();
        let is_due = self.last_progress.is_none_or(|last| now.saturating_duration_since(last) >= PROGRESS_INTERVAL);
        if is_due {
            self.last_progress = Some(now);
            (self.say)(Answer::Progress { done, total, text: text.to_owned() });
        }
    }

    /// Tells what is to stand on stdout as it is.
    pub fn bytes(&mut self, content: &[u8]) {
        for piece in content.chunks(PIECE_BYTES) {
            (self.say)(Answer::Bytes(STANDARD.encode(piece)));
        }
    }
}

/// Returns the bytes of [`Answer::Bytes`], the inverse of [`Teller::bytes`]; none if they are not base64.
pub fn decode(piece: &str) -> Option<Vec<u8>> {
    STANDARD.decode(piece).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Progress is told at once, then five times a second; lines always.
    #[test]
    fn progress_is_rare() {
        let (clock, mut answers) = (Clock::system(), Vec::new());
        let mut say = |answer| answers.push(answer);
        let mut teller = Teller::new(&mut say, &clock);
        teller.progress(1, 9, "one");
        teller.progress(2, 9, "two");
        teller.line("a line".to_owned());
        clock.advance(Duration::from_secs(1));
        teller.progress(3, 9, "three");
        let progress = |done, text: &str| Answer::Progress { done, total: 9, text: text.to_owned() };
        assert_eq!(answers, [progress(1, "one"), Answer::Line("a line".to_owned()), progress(3, "three")]);
    }

    /// Bytes come out as they went in, in pieces that fit.
    #[test]
    fn bytes_are_not_changed() {
        let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let (clock, mut received) = (Clock::system(), Vec::new());
        let mut say = |answer| match answer {
            Answer::Bytes(piece) => received.extend(decode(&piece).unwrap()),
            other => panic!("{other:?}"),
        };
        Teller::new(&mut say, &clock).bytes(&content);
        assert_eq!(received, content);
        assert_eq!(decode("no base64"), None);
    }
}
