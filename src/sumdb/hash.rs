//! Hashes of a transparent log.
//!
//! Called by everything in `sumdb`; calls nothing. Pure. Sources: RFC 6962, section 2.1; `golang.org/x/mod/sumdb/tlog`.
//!
//! ```text
//! leaf   SHA-256(0x00, record's text)        empty tree   SHA-256()
//! node   SHA-256(0x01, left, right)          as text      base64, padded
//! ```
//!
//! The first byte keeps a record from passing for a node. A tree of n records splits at the largest power of two below n.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use ring::digest::{Context, SHA256};

/// Base64 as the go command reads it in notes: padded, the unused bits of the last letter of any value.
const LIKE_GO: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// A hash of a record, of a node or of a whole tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

/// Not 32 bytes in base64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed hash {}", crate::module::Shown(.text))]
pub struct HashError {
    /// The offending text.
    pub text: String,
}

impl Hash {
    /// Returns the hash of these bytes alone, with nothing before them.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }

    /// Returns the hash of a tree without records.
    pub fn of_empty_tree() -> Self {
        Self::of(&[])
    }

    /// Returns the hash of a record's text.
    pub fn of_record(text: &[u8]) -> Self {
        Self::of(&[&[0], text])
    }

    /// Returns the hash of the node over two others.
    pub fn of_node(left: &Self, right: &Self) -> Self {
        Self::of(&[&[1], &left.0, &right.0])
    }

    /// Takes the 32 bytes of a hash; none if they are more or less.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Hash {
    type Err = HashError;

    /// Parses base64, the inverse of `Display`.
    fn from_str(text: &str) -> Result<Self, HashError> {
        let bytes = decode_base64(text);
        bytes.and_then(|bytes| Self::from_bytes(&bytes)).ok_or_else(|| HashError { text: text.to_owned() })
    }
}

/// Decodes base64 as the go command does in notes and keys.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    LIKE_GO.decode(text).ok()
}

/// Encodes base64, padded.
pub(super) fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash comes back from its text, and other texts are none.
    #[test]
    fn hashes_round_trip() {
        let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(Hash::of_empty_tree().to_string(), empty);
        assert_eq!(empty.parse(), Ok(Hash::of_empty_tree()));
        // The last letter carries two bits that nobody reads.
        assert_eq!("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=".parse(), Ok(Hash::of_empty_tree()));
        for wrong in ["", "AA==", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", "é"] {
            assert_eq!(wrong.parse::<Hash>().unwrap_err().text, wrong);
        }
        assert_eq!((Hash::from_bytes(&[0; 31]), Hash::from_bytes(&[0; 33])), (None, None));
    }
}
