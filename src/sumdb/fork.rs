//! The proof that a database has shown two histories, in a form that can be handed on.
//!
//! Called by `check` and by who keeps alarms; calls `head`, `proof`. Pure. Invariant: a [`Fork`] holds for anyone with the
//! database's key; [`Fork::parse`] gives back only what does. The text is the one the go command prints, so that tools made
//! for that can read this.
//!
//! ```text
//! SECURITY ERROR
//! go.sum database server misbehavior detected!
//!
//! old database:
//!         go.sum database tree              a whole signed note, each line behind a tab, and a tab alone at its end
//!         …
//! new database:
//!         go.sum database tree              another one, no shorter
//!         …
//! proof of misbehavior:
//!         T7i+H/8ER4nXOiw4Bj0koZOkGjkxoNvlI34GpvhHhQg=     the root the older log has within the newer one
//!         …                                                consistency of that root with the newer head, RFC 6962, 2.1.2
//! ```

use std::fmt;

use super::hash::Hash;
use super::head::{HeadError, SignedHead, TreeHead};
use super::key::VerifierKey;
use super::proof::is_prefix_proved;

/// Two signed tree heads that cannot both be of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    older: SignedHead,
    newer: SignedHead,
    root_within_newer: Hash,
    proof: Vec<Hash>,
}

/// Why a text is no evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Not of that form.
    #[error("malformed evidence of a fork")]
    Malformed,
    /// One of the heads is not the database's.
    #[error("evidence of a fork: {0}")]
    Head(#[from] HeadError),
    /// The two heads may well be of one log, for all that this shows.
    #[error("evidence of a fork that shows none")]
    ShowsNone,
}

impl Fork {
    /// Makes evidence of two heads and the proof that the newer log begins with one of `root_within_newer`. None if that
    /// shows nothing: the proof does not hold, or the older head states that very root.
    pub(super) fn new(older: SignedHead, newer: SignedHead, root_within_newer: Hash, proof: Vec<Hash>) -> Option<Self> {
        let within_newer = TreeHead { size: older.head().size, root: root_within_newer };
        let is_shown = older.head().root != root_within_newer && is_prefix_proved(&proof, newer.head(), &within_newer);
        is_shown.then_some(Self { older, newer, root_within_newer, proof })
    }

    /// Parses evidence, the inverse of `Display`, and checks it. A newline behind it does not matter.
    ///
    /// # Errors
    /// [`EvidenceError`] if it does not show that the owner of this key signed two histories.
    pub fn parse(text: &str, key: &VerifierKey) -> Result<Self, EvidenceError> {
        let [older, newer, proof] = sections(text).ok_or(EvidenceError::Malformed)?;
        let (older, newer) = (SignedHead::open(older.as_bytes(), key)?, SignedHead::open(newer.as_bytes(), key)?);
        let hashes: Result<Vec<Hash>, _> = proof.split('\n').map(str::parse).collect();
        let hashes = hashes.map_err(|_| EvidenceError::Malformed)?;
        let (root_within_newer, proof) = hashes.split_first().ok_or(EvidenceError::Malformed)?;
        Self::new(older, newer, *root_within_newer, proof.to_vec()).ok_or(EvidenceError::ShowsNone)
    }

    /// Returns the head of the smaller log, or of two equal ones the one that came later.
    pub fn older(&self) -> &SignedHead {
        &self.older
    }

    /// Returns the other head.
    pub fn newer(&self) -> &SignedHead {
        &self.newer
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (older, newer) = (indented(self.older.note()), indented(self.newer.note()));
        write!(f, "{OLD}{older}{NEW}{newer}{PROOF}{}", self.root_within_newer)?;
        self.proof.iter().try_for_each(|hash| write!(f, "\n\t{hash}"))
    }
}

const OLD: &str = "SECURITY ERROR\ngo.sum database server misbehavior detected!\n\nold database:\n\t";
const NEW: &str = "\nnew database:\n\t";
const PROOF: &str = "\nproof of misbehavior:\n\t";

fn indented(text: &str) -> String {
    text.replace('\n', "\n\t")
}

/// Splits evidence into its two notes and its hashes, and takes the tabs off; none if one is missing.
fn sections(text: &str) -> Option<[String; 3]> {
    let rest = text.strip_suffix('\n').unwrap_or(text).strip_prefix(OLD)?;
    let (older, rest) = rest.split_once(NEW)?;
    let (newer, proof) = rest.split_once(PROOF)?;
    let sections = [older, newer, proof].map(|section| section.replace("\n\t", "\n"));
    let is_indented = sections.iter().zip([older, newer, proof]).all(|(plain, section)| indented(plain) == section);
    is_indented.then_some(sections)
}
