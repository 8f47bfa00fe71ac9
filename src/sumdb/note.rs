//! Signed notes: a text, and below it lines of those who signed it.
//!
//! Called by `head`; calls `key`. Pure. Invariant: a [`Note`] exists only once its signature was found good. Source:
//! `golang.org/x/mod/sumdb/note`, C2SP signed-note.
//!
//! ```text
//! go.sum database tree                                ┐
//! 71769961                                            │ text: what is signed, with its last newline
//! O0jlIxwRb2vZYS1na726XLlaDCtCqKUVLld+AY32AGA=        ┘
//!                                                       the last blank line
//! — sum.golang.org Az3grufbQia/eVmOpUINcw1UBa6rB6i…     em dash, name, base64 of the key's hash (4 bytes) and the signature
//! ```

use super::hash::decode_base64;
use super::key::{VerifierKey, is_signer_name};

/// The most signature lines a note may have.
pub const SIGNATURES_MAX: usize = 100;

/// A text whose signature is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'n> {
    text: &'n str,
}

/// Why a note is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not UTF-8, or with a control character that is no newline.
    #[error("malformed note: not plain text at byte {at}")]
    NotText {
        /// Where, in bytes.
        at: usize,
    },
    /// Text without signatures below it.
    #[error("malformed note: no blank line with signatures below it")]
    NoSignatures,
    /// A line below the last blank line that is no signature.
    #[error("malformed note: not a signature: {}", crate::module::Shown(.line))]
    NotSignature {
        /// The offending line, or its beginning.
        line: String,
    },
    /// Longer than anyone wants to read.
    #[error("malformed note: more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// The key that should have signed did not.
    #[error("invalid signature for key {name}+{hash:08x}")]
    InvalidSignature {
        /// The signer's name.
        name: String,
        /// The key's hash.
        hash: u32,
    },
    /// Others signed, if anyone.
    #[error("note is not signed by {name}+{hash:08x}")]
    NotSigned {
        /// The name of the signer that is missing.
        name: String,
        /// The hash of its key.
        hash: u32,
    },
}

impl<'n> Note<'n> {
    /// Opens a note, that is, checks its form and the signature of this one key. Lines of other keys are passed over.
    ///
    /// # Errors
    /// [`NoteError`] with the first flaw.
    pub fn open(note: &'n [u8], key: &VerifierKey) -> Result<Self, NoteError> {
        let note = plain_text(note).map_err(|at| NoteError::NotText { at })?;
        let split = note.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
        let (text, signatures) = (&note[..=split], &note[split + 2..]);
        let signatures = signatures.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
        let mut is_signed = false;
        for (number, line) in signatures.split('\n').enumerate() {
            let malformed = || NoteError::NotSignature { line: line.chars().take(100).collect() };
            let (name, hash, signature) = signature_line(line).ok_or_else(malformed)?;
            if number == SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            // The first line of a key counts, a second one is passed over.
            if name != key.name() || hash != key.hash() || is_signed {
                continue;
            }
            if !key.verify(text.as_bytes(), &signature) {
                return Err(NoteError::InvalidSignature { name: name.to_owned(), hash });
            }
            is_signed = true;
        }
        if !is_signed {
            return Err(NoteError::NotSigned { name: key.name().to_owned(), hash: key.hash() });
        }
        Ok(Self { text })
    }

    /// Returns what was signed. It ends with a newline.
    pub fn text(&self) -> &'n str {
        self.text
    }
}

/// Returns bytes as text, if they are UTF-8 without control characters but newlines; else where they are not.
pub(super) fn plain_text(bytes: &[u8]) -> Result<&str, usize> {
    let text = std::str::from_utf8(bytes).map_err(|err| err.valid_up_to())?;
    match text.bytes().position(|b| b < b' ' && b != b'\n') {
        None => Ok(text),
        Some(at) => Err(at),
    }
}

/// Splits a signature line into name, hash of the key and signature.
fn signature_line(line: &str) -> Option<(&str, u32, Vec<u8>)> {
    let (name, base64) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let mut bytes = decode_base64(base64)?;
    if !is_signer_name(name) || bytes.len() < 5 {
        return None;
    }
    let signature = bytes.split_off(4);
    Some((name, u32::from_be_bytes(bytes.try_into().ok()?), signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::generate::vectors;
    use crate::sumdb::generate::Signer;
    use crate::sumdb::key::PUBLIC_KEY;

    fn public_key() -> VerifierKey {
        VerifierKey::parse(PUBLIC_KEY).unwrap()
    }

    /// The public database's newest head opens, and the eight notes Go's own tools refuse are refused.
    #[test]
    fn notes_agree_with_go() {
        let vectors = vectors("sumdb");
        let latest = &vectors["latest"];
        let note = Note::open(latest["note"].as_str().unwrap().as_bytes(), &public_key()).unwrap();
        assert_eq!(latest["signed_text"], note.text());
        for bad in vectors["bad_notes"].as_array().unwrap() {
            let opened = Note::open(bad["note"].as_str().unwrap().as_bytes(), &public_key());
            assert!(opened.is_err(), "{}", bad["why"]);
        }
    }

    /// No bit of a note can change: in its text, its names or its signature. Only the two bits of the last letter of the
    /// signature that carry nothing may, as for the go command.
    #[test]
    fn every_flipped_bit_is_found() {
        let vectors = vectors("sumdb");
        let note = vectors["latest"]["note"].as_str().unwrap().as_bytes();
        let mut accepted = Vec::new();
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut flipped = note.to_vec();
                flipped[at] ^= 1 << bit;
                if Note::open(&flipped, &public_key()).is_ok() {
                    accepted.push((at, flipped[at]));
                }
            }
            assert!(Note::open(&note[..at], &public_key()).is_err(), "cut to {at} bytes");
        }
        let last_letter = note.len() - 3;
        assert!(accepted.len() <= 3 && accepted.iter().all(|(at, _)| *at == last_letter), "{accepted:?}");
    }

    /// Each flaw has its name.
    #[test]
    fn flaws_are_named() {
        let signer = Signer::new("sum.example", 1);
        let (key, other) = (signer.key(), Signer::new("sum.example", 2));
        let open = |note: &[u8]| Note::open(note, &key).map(|note| note.text().to_owned());
        let good = signer.sign("a\n\nb\n");
        assert_eq!(open(good.as_bytes()).as_deref(), Ok("a\n\nb\n"));
        let not_text = |at| Err(NoteError::NotText { at });
        assert_eq!(open(b"a\n\xff"), not_text(2));
        assert_eq!(open(b"a\r\n"), not_text(1));
        for note in ["", "a\n", "a\n\n", "a\n\n\u{2014} x AAAAAAA="] {
            assert_eq!(open(note.as_bytes()), Err(NoteError::NoSignatures), "{note}");
        }
        for line in ["", "- x AAAAAAA=", "\u{2014} x", "\u{2014} x ", "\u{2014} x AAAAAA==", "\u{2014} x+ AAAAAAA="] {
            let note = format!("{good}{line}\n");
            let flaw =
                if line.is_empty() { NoteError::NoSignatures } else { NoteError::NotSignature { line: line.into() } };
            assert_eq!(open(note.as_bytes()), Err(flaw), "{line}");
        }
        let unknown = |count: usize| good.clone() + &"\u{2014} x AAAAAAA=\n".repeat(count);
        assert!(open(unknown(SIGNATURES_MAX - 1).as_bytes()).is_ok());
        assert_eq!(open(unknown(SIGNATURES_MAX).as_bytes()), Err(NoteError::TooManySignatures));
        let not_signed = NoteError::NotSigned { name: "sum.example".to_owned(), hash: key.hash() };
        assert_eq!(open(other.sign("a\n").as_bytes()), Err(not_signed));
        let (_, signature) = good.rsplit_once("\n\n").unwrap();
        let moved = format!("b\n\n{signature}");
        let invalid = NoteError::InvalidSignature { name: "sum.example".to_owned(), hash: key.hash() };
        assert_eq!(open(moved.as_bytes()), Err(invalid.clone()));
        // A second line of the same key is not looked at; a bad first one is not made good by a second.
        let (_, other_signature) =
            signer.sign("b\n").rsplit_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(open(format!("{good}{other_signature}").as_bytes()).is_ok());
        assert_eq!(open(good.replace(signature, &(other_signature + signature)).as_bytes()), Err(invalid));
    }
}
