//! The key a checksum database signs with, and the one key that is built in.
//!
//! Called by `note` and by who reads the configuration; calls `hash`. Pure. Invariant: a key's hash fits its name and its
//! bytes. Source: `golang.org/x/mod/sumdb/note`.
//!
//! ```text
//! NAME+HASH+BASE64      sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8
//!
//! BASE64  an algorithm (1: Ed25519) and the 32 bytes of the public key
//! HASH    eight hex digits: the first four bytes of SHA-256(NAME, newline, those 33 bytes)
//! ```

use std::fmt;
use std::sync::Arc;

use ring::signature::{ED25519, UnparsedPublicKey};

use super::hash::{Hash, decode_base64, encode_base64};
use super::name::{SumdbName, SumdbNameError};

/// The public checksum database's key, the same the go command has built in.
pub const PUBLIC_KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";

/// The one algorithm there is.
const ED25519_ALGORITHM: u8 = 1;

/// A checksum database's name and public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: Arc<str>,
    hash: u32,
    key: [u8; 32],
}

/// Why a text is not a verifier key. None of them repeats the text: it may be something else pasted by mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not of the form NAME+HASH+BASE64.
    #[error("malformed verifier key: not of the form NAME+HASH+BASE64")]
    Malformed,
    /// Name, hash and key do not belong together.
    #[error("verifier key of {name}: its hash is {actual:08x}, not {stated:08x}")]
    WrongHash {
        /// The name it has.
        name: String,
        /// The hash it states.
        stated: u32,
        /// The hash it should state.
        actual: u32,
    },
    /// Signatures of another kind.
    #[error("verifier key of {name}: unknown algorithm {algorithm}")]
    UnknownAlgorithm {
        /// The name it has.
        name: String,
        /// The number of the algorithm.
        algorithm: u8,
    },
}

impl VerifierKey {
    /// Parses a key, the inverse of `Display`.
    ///
    /// # Errors
    /// [`KeyError`]. The go command would skip line breaks within the base64; here they are an error.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, rest) = text.split_once('+').ok_or(KeyError::Malformed)?;
        let (hex, base64) = rest.split_once('+').ok_or(KeyError::Malformed)?;
        let is_hex = hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let stated = u32::from_str_radix(hex, 16).ok().filter(|_| is_hex).ok_or(KeyError::Malformed)?;
        let bytes = decode_base64(base64).ok_or(KeyError::Malformed)?;
        let (algorithm, key) = bytes.split_first().ok_or(KeyError::Malformed)?;
        if !is_signer_name(name) {
            return Err(KeyError::Malformed);
        }
        let actual = key_hash(name, &bytes);
        if stated != actual {
            return Err(KeyError::WrongHash { name: name.to_owned(), stated, actual });
        }
        if *algorithm != ED25519_ALGORITHM {
            return Err(KeyError::UnknownAlgorithm { name: name.to_owned(), algorithm: *algorithm });
        }
        let key = key.try_into().map_err(|_| KeyError::Malformed)?;
        Ok(Self { name: Arc::from(name), hash: actual, key })
    }

    /// Returns the key of a database known by its name alone, or parses a key, as the go command reads `GOSUMDB`.
    ///
    /// # Errors
    /// [`KeyError`] if it is neither.
    pub fn known_or_parse(text: &str) -> Result<Self, KeyError> {
        let is_public = PUBLIC_KEY.split_once('+').is_some_and(|(name, _)| name == text);
        Self::parse(if is_public { PUBLIC_KEY } else { text })
    }

    /// Returns the signer's name, as it stands in signatures.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name as a database's, that is, host and perhaps path.
    ///
    /// # Errors
    /// [`SumdbNameError`]: a signer may be called what no database can be.
    pub fn sumdb_name(&self) -> Result<SumdbName, SumdbNameError> {
        SumdbName::parse(&self.name)
    }

    /// Returns the key's hash, which tells it from others of that name.
    pub fn hash(&self) -> u32 {
        self.hash
    }

    /// Says whether this key signed the text.
    pub fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(text, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[ED25519_ALGORITHM], &self.key[..]].concat();
        write!(f, "{}+{:08x}+{}", self.name, self.hash, encode_base64(&bytes))
    }
}

/// Says whether a signer can be called that: not empty, no white space, no plus.
pub(super) fn is_signer_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

fn key_hash(name: &str, key: &[u8]) -> u32 {
    let hash = Hash::of(&[name.as_bytes(), b"\n", key]);
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::generate::vectors;

    /// The key that is built in is the go command's, and is found by its name.
    #[test]
    fn the_public_key_is_built_in() {
        let vectors = vectors("sumdb");
        assert_eq!(vectors["verifier_key"], PUBLIC_KEY);
        let key = VerifierKey::parse(PUBLIC_KEY).unwrap();
        assert_eq!(VerifierKey::known_or_parse("sum.golang.org"), Ok(key.clone()));
        assert_eq!(VerifierKey::known_or_parse(PUBLIC_KEY), Ok(key.clone()));
        assert_eq!(VerifierKey::known_or_parse("sum.example"), Err(KeyError::Malformed));
        assert_eq!(vectors["name"], key.name());
        assert_eq!(vectors["key_hash_hex"], format!("{:08x}", key.hash()));
        assert_eq!(key.to_string(), PUBLIC_KEY);
        assert_eq!(key.sumdb_name().unwrap().as_str(), "sum.golang.org");
    }

    /// A changed key is refused, with what is wrong with it.
    #[test]
    fn flaws_are_named() {
        let parse = |text: &str| VerifierKey::parse(text).unwrap_err();
        for text in [
            "",
            "sum.golang.org",
            "sum.golang.org+033de0ae",
            "+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum.golang.org+33de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum.golang.org+0033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum.golang.org++33de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum.golang.org+033de0ae+",
            "sum.golang.org+033de0ae+?",
        ] {
            assert_eq!(parse(text), KeyError::Malformed, "{text}");
        }
        let other = PUBLIC_KEY.replace("sum.golang.org", "sum.golang.orG");
        assert!(
            matches!(parse(&other), KeyError::WrongHash { name, stated: 0x033d_e0ae, .. } if name == "sum.golang.orG")
        );
        let with = |algorithm: u8, bytes: usize| {
            let key = [&[algorithm][..], &vec![7; bytes]].concat();
            format!("x+{:08x}+{}", key_hash("x", &key), encode_base64(&key))
        };
        assert!(VerifierKey::parse(&with(1, 32)).is_ok());
        assert_eq!((parse(&with(1, 31)), parse(&with(1, 33))), (KeyError::Malformed, KeyError::Malformed));
        assert_eq!(parse(&with(2, 32)), KeyError::UnknownAlgorithm { name: "x".to_owned(), algorithm: 2 });
        // A signer may be called what no database can be.
        let key = [&[1][..], &[7; 32]].concat();
        let signer = format!("a/../b+{:08x}+{}", key_hash("a/../b", &key), encode_base64(&key));
        assert!(VerifierKey::parse(&signer).unwrap().sumdb_name().is_err());
    }
}
