//! Tree heads: how many records a log has, and the one hash that stands for all of them.
//!
//! Called by `check`, `fork`; calls `note`. Pure. Invariant: a [`SignedHead`] exists only once its signature was found good.
//! Source: `golang.org/x/mod/sumdb/tlog`, note.go.
//!
//! ```text
//! go.sum database tree
//! 71769961                                           size in decimal
//! O0jlIxwRb2vZYS1na726XLlaDCtCqKUVLld+AY32AGA=       root hash
//!                                                    more lines may follow and mean nothing
//! ```

use std::fmt;
use std::sync::Arc;

use super::hash::Hash;
use super::key::VerifierKey;
use super::note::{Note, NoteError};

/// The longest text of a tree head in bytes.
pub const HEAD_BYTES_MAX: usize = 1_000_000;

/// The size of a log and the hash of it. No size has more than 63 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeHead {
    /// How many records there are.
    pub size: u64,
    /// The hash over all of them.
    pub root: Hash,
}

/// A tree head with the note it was signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    head: TreeHead,
    note: Arc<str>,
}

/// Why a tree head is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The note is malformed, or not signed by the database.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Signed, but not the text of a tree head.
    #[error("malformed tree head {}", crate::module::Shown(.text))]
    Malformed {
        /// The offending text, or its beginning.
        text: String,
    },
    /// A log of no records with the hash of some.
    #[error("tree head of size 0 with root {root}")]
    NotEmpty {
        /// The root it states.
        root: Hash,
    },
}

impl TreeHead {
    /// Parses the text of a note. What is not signed is not a head: see [`SignedHead::open`].
    ///
    /// # Errors
    /// [`HeadError::Malformed`].
    pub(super) fn parse(text: &str) -> Result<Self, HeadError> {
        let malformed = || HeadError::Malformed { text: text.chars().take(100).collect() };
        parse(text).ok_or_else(malformed)
    }
}

impl fmt::Display for TreeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FIRST_LINE}\n{}\n{}\n", self.size, self.root)
    }
}

impl SignedHead {
    /// Opens a note and reads the head in it.
    ///
    /// # Errors
    /// [`HeadError`]: of the note, or of the head.
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<Self, HeadError> {
        let opened = Note::open(note, key)?;
        let head = TreeHead::parse(opened.text())?;
        if head.size == 0 && head.root != Hash::of_empty_tree() {
            return Err(HeadError::NotEmpty { root: head.root });
        }
        // A note that opened is UTF-8, so nothing is replaced here.
        Ok(Self { head, note: Arc::from(String::from_utf8_lossy(note)) })
    }

    /// Returns the head.
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Returns the whole note, to be stored or shown as evidence.
    pub fn note(&self) -> &str {
        &self.note
    }
}

const FIRST_LINE: &str = "go.sum database tree";

fn parse(text: &str) -> Option<TreeHead> {
    if text.len() > HEAD_BYTES_MAX {
        return None;
    }
    let rest = text.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?;
    let (size, rest) = rest.split_once('\n')?;
    let (root, _) = rest.split_once('\n')?;
    Some(TreeHead { size: decimal(size)?, root: root.parse().ok()? })
}

/// Reads a number of at most 63 bits without sign or leading zeros.
pub(super) fn decimal(text: &str) -> Option<u64> {
    super::tile::decimal(text).filter(|number| i64::try_from(*number).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::generate::vectors;
    use crate::sumdb::generate::Signer;

    /// A head is read from its note and printed as it stands there.
    #[test]
    fn heads_round_trip() {
        let vectors = vectors("sumdb");
        let key = VerifierKey::known_or_parse("sum.golang.org").unwrap();
        let note = vectors["latest"]["note"].as_str().unwrap();
        let head = SignedHead::open(note.as_bytes(), &key).unwrap();
        assert_eq!(head.note(), note);
        assert_eq!(vectors["latest"]["size"], head.head().size);
        assert_eq!(vectors["latest"]["root"], head.head().root.to_string());
        assert_eq!(vectors["latest"]["signed_text"], head.head().to_string());
    }

    /// Only the one form is read; lines behind it mean nothing.
    #[test]
    fn flaws_are_named() {
        let root = Hash::of_record(b"x").to_string();
        let parse = TreeHead::parse;
        let good = format!("go.sum database tree\n9223372036854775807\n{root}\n");
        assert_eq!(parse(&good).unwrap().to_string(), good);
        assert_eq!(parse(&(good.clone() + "and more\n")), parse(&good));
        assert!(parse(&format!("{good}{}\n", "x".repeat(HEAD_BYTES_MAX))).is_err());
        for wrong in [
            "",
            "go.sum database tree\n",
            &good.replace("tree", "tree v2"),
            &good.replace("5807\n", "5808\n"),
            &good.replace("9223372036854775807", "-1"),
            &good.replace("9223372036854775807", "+1"),
            &good.replace("9223372036854775807", "01"),
            &good.replace("9223372036854775807", ""),
            &good.replace("=\n", "=="),
            good.trim_end(),
            &good.replace(&root, "AAAA"),
        ] {
            assert!(matches!(parse(wrong), Err(HeadError::Malformed { .. })), "{wrong}");
        }
        let signer = Signer::new("sum.example", 1);
        let open = |text: &str| SignedHead::open(signer.sign(text).as_bytes(), &signer.key());
        assert!(matches!(open("something else\n"), Err(HeadError::Malformed { .. })));
        assert!(matches!(open(&format!("go.sum database tree\n0\n{root}\n")), Err(HeadError::NotEmpty { .. })));
        let empty = TreeHead { size: 0, root: Hash::of_empty_tree() };
        assert_eq!(open(&empty.to_string()).unwrap().head(), &empty);
        let unsigned = SignedHead::open(empty.to_string().as_bytes(), &signer.key());
        assert_eq!(unsigned, Err(HeadError::Note(NoteError::NoSignatures)));
    }
}
