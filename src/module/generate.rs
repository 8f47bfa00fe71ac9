//! Makes up names for the tests of this crate's pure parts: valid ones, and valid ones with a flaw.
//!
//! Called by tests only. Every generator starts from a fixed seed, so a failure comes back.

use super::{ModulePath, ModuleVersion, Version};
use crate::sumdb::tile::{Tile, TileLevel};

/// A source of names, the same ones for the same seed.
pub(crate) struct Generator(fastrand::Rng);

const HOSTS: [&str; 5] = ["github.com", "gopkg.in", "rsc.io", "x-1.example.co", "0.io"];
const PATH_CHARS: &[u8] = b"abcxyzABCXYZ0189-._~";
const VERSION_CHARS: &[u8] = b"abcxyzABCXYZ0189#$%&()+,-.=@[]^_{}~ ";
/// What mutations put in: everything that means something to some layer.
const HOSTILE: [&str; 22] = [
    "/", "//", "..", ".", "@", "!", "%", "%2f", "%00", "\\", "\0", "A", "é", "é", "~1", ":", "?", "#", "+", " ", "x",
    "0",
];

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    fn text(&mut self, chars: &[u8], bytes_max: usize) -> String {
        let bytes = self.0.usize(1..=bytes_max);
        (0..bytes).map(|_| char::from(chars[self.0.usize(..chars.len())])).collect()
    }

    /// A module path; now and then with a major suffix, as long as a file name can be, or of one element.
    pub(crate) fn module_path(&mut self) -> ModulePath {
        loop {
            let mut path = HOSTS[self.below(HOSTS.len())].to_owned();
            for _ in 0..self.below(4) {
                let bytes_max = if self.below(50) == 0 { 120 } else { 9 };
                path = path + "/" + &self.text(PATH_CHARS, bytes_max);
            }
            path = match self.below(6) {
                0 => format!("{path}/v{}", self.below(30)),
                1 => format!("{path}.v{}", self.below(4)),
                _ => path,
            };
            if let Ok(path) = ModulePath::parse(&path) {
                return path;
            }
        }
    }

    /// Any text that may be asked for as a version, canonical ones among them.
    pub(crate) fn version_text(&mut self) -> String {
        loop {
            let text = if self.below(2) == 0 { self.semantic() } else { self.text(VERSION_CHARS, 12) };
            if super::version::check_text(&text).is_ok() {
                return text;
            }
        }
    }

    /// A canonical version of a path that admits it.
    pub(crate) fn module_version(&mut self) -> ModuleVersion {
        loop {
            let path = self.module_path();
            if let Ok(version) = Version::parse(&self.semantic())
                && let Ok(module) = ModuleVersion::new(path, version)
            {
                return module;
            }
        }
    }

    /// A semantic version, mostly canonical.
    pub(crate) fn semantic(&mut self) -> String {
        let number = |generator: &mut Self| match generator.below(4) {
            0 => 0,
            1 => 1,
            2 => generator.below(12),
            _ => generator.below(100_000_000),
        };
        let (major, minor, patch) = (self.below(4), number(self), number(self));
        let suffix = match self.below(9) {
            0 => "-rc.1".to_owned(),
            1 => format!("-RC.{}", self.below(20)),
            2 => "-20191010083416-a7dc8b61c822".to_owned(),
            3 => "-0.20191010083416-a7dc8b61c822".to_owned(),
            4 => "+incompatible".to_owned(),
            5 => format!("-{}", self.text(b"aB01-.", 8)),
            6 => "+meta.1".to_owned(),
            _ => String::new(),
        };
        format!("v{major}.{minor}.{patch}{suffix}")
    }

    pub(crate) fn tile(&mut self) -> Tile {
        let level = if self.below(9) == 0 { TileLevel::Data } else { TileLevel::Hashes(self.0.u8(..9)) };
        let index = self.0.u64(..) >> self.0.u32(1..64);
        Tile::new(level, index, self.0.u16(1..=256)).unwrap()
    }

    /// The same text with something put in, taken out, doubled or changed in case.
    pub(crate) fn mutated(&mut self, text: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=self.below(3) {
            let at = self.below(chars.len() + 1);
            match self.below(6) {
                0 | 1 => {
                    let piece = HOSTILE[self.below(HOSTILE.len())];
                    chars.splice(at..at, piece.chars());
                }
                2 if at < chars.len() => {
                    chars.remove(at);
                }
                3 if at < chars.len() => {
                    let is_upper = chars[at].is_ascii_uppercase();
                    chars[at] = if is_upper { chars[at].to_ascii_lowercase() } else { chars[at].to_ascii_uppercase() };
                }
                4 if at < chars.len() => chars.insert(at, chars[at]),
                _ => chars.truncate(at.max(4)),
            }
        }
        chars.into_iter().collect()
    }
}

/// The vectors that Go's own tools made.
pub(crate) fn vectors(part: &str) -> serde_json::Value {
    let all: serde_json::Value = serde_json::from_str(include_str!("../../tests/fixtures/vectors.json")).unwrap();
    all[part].clone()
}
