//! What is never removed: modules and versions a person has pinned.
//!
//! Owns the file `ROOT/.larder/pins`, which is the truth (invariant 3): one `MODULE` or `MODULE@VERSION` a line, sorted,
//! unescaped. Called by `gc` and the commands pin, pins and unpin; calls [`super::durable`]. A file that cannot be
//! understood ends the call: whoever removes by it must not take a typing error for the absence of a pin.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::durable;
use crate::module::{ModuleError, ModulePath, ModuleVersion};

/// How many pins there may be.
pub const PINS_MAX: usize = 100_000;

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// All versions of a module.
    Module(ModulePath),
    /// One version of it.
    Version(ModuleVersion),
}

/// Why the pins could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// A line of the file, or what was given, is neither a module nor a version of one.
    #[error(transparent)]
    Malformed(#[from] ModuleError),
    /// The file has a line that is no pin.
    #[error("{path}, line {line}: {source}")]
    Line {
        /// The file.
        path: String,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        source: ModuleError,
    },
    /// There are [`PINS_MAX`] pins already.
    #[error("there are {PINS_MAX} pins already")]
    TooMany,
    /// The disk did not do what was asked.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The pins of one cache directory.
#[derive(Debug)]
pub struct Pins {
    own_folder: PathBuf,
    pins: Mutex<BTreeSet<Pin>>,
}

impl Pin {
    /// Parses `MODULE` or `MODULE@VERSION`, the inverse of `Display`.
    ///
    /// # Errors
    /// What is wrong with the module or the version.
    pub fn parse(text: &str) -> Result<Self, ModuleError> {
        if text.contains('@') {
            ModuleVersion::parse(text).map(Self::Version)
        } else {
            ModulePath::parse(text).map(Self::Module)
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(path) => path.fmt(f),
            Self::Version(version) => version.fmt(f),
        }
    }
}

impl Pins {
    /// Reads the pins of the cache directory `root`; no file means no pins.
    ///
    /// # Errors
    /// [`PinError::Line`] or [`PinError::Io`]: nothing may be removed then.
    pub fn load(root: &Path) -> Result<Self, PinError> {
        let own_folder = root.join(".larder");
        let path = own_folder.join("pins");
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(|source| PinError::Io { path: shown.clone(), source })?,
        };
        let lines = text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty());
        let pins = lines.map(|(number, text)| {
            Pin::parse(text.trim()).map_err(|source| PinError::Line { path: shown.clone(), line: number + 1, source })
        });
        Ok(Self { own_folder, pins: Mutex::new(pins.collect::<Result<_, _>>()?) })
    }

    /// Adds a pin, durably. Returns whether it is new.
    ///
    /// # Errors
    /// [`PinError::TooMany`] or [`PinError::Io`]; the pins are as they were then.
    pub fn add(&self, pin: &Pin) -> Result<bool, PinError> {
        let mut pins = self.lock();
        if pins.contains(pin) {
            return Ok(false);
        }
        if pins.len() >= PINS_MAX {
            return Err(PinError::TooMany);
        }
        pins.insert(pin.clone());
        self.write(&pins).inspect_err(|_| {
            pins.remove(pin);
        })?;
        Ok(true)
    }

    /// Removes a pin, durably. Returns whether it was there.
    ///
    /// # Errors
    /// [`PinError::Io`]; the pins are as they were then.
    pub fn remove(&self, pin: &Pin) -> Result<bool, PinError> {
        let mut pins = self.lock();
        if !pins.remove(pin) {
            return Ok(false);
        }
        self.write(&pins).inspect_err(|_| {
            pins.insert(pin.clone());
        })?;
        Ok(true)
    }

    /// Returns all pins, sorted: modules first, then versions.
    pub fn list(&self) -> Vec<Pin> {
        self.lock().iter().cloned().collect()
    }

    /// Says whether `version` is pinned, by itself or with its module.
    pub fn matches(&self, version: &ModuleVersion) -> bool {
        let pins = self.lock();
        !pins.is_empty()
            && (pins.contains(&Pin::Module(version.path().clone())) || pins.contains(&Pin::Version(version.clone())))
    }

    /// Says whether the whole module or any version of it is pinned, so that its lists stay too.
    pub fn concerns(&self, path: &ModulePath) -> bool {
        let pins = self.lock();
        pins.contains(&Pin::Module(path.clone()))
            || pins.iter().any(|pin| matches!(pin, Pin::Version(version) if version.path() == path))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Pin>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, pins: &BTreeSet<Pin>) -> Result<(), PinError> {
        let path = self.own_folder.join("pins");
        let mut lines: Vec<String> = pins.iter().map(|pin| format!("{pin}\n")).collect();
        lines.sort_unstable();
        durable::replace_file(&self.own_folder, &path, lines.concat().as_bytes())
            .map_err(|source| PinError::Io { path: path.display().to_string(), source })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod tests {
    use super::*;

    fn version(text: &str) -> ModuleVersion {
        ModuleVersion::parse(text).unwrap()
    }

    /// Pins outlive the process, match by module and by version, and the file is sorted text.
    #[test]
    fn pins_are_a_file() {
        let root = tempfile::tempdir().unwrap();
        let pins = Pins::load(root.path()).unwrap();
        assert!(pins.add(&Pin::parse("example.com/B@v1.2.3").unwrap()).unwrap());
        assert!(pins.add(&Pin::parse("example.com/a").unwrap()).unwrap());
        assert!(!pins.add(&Pin::parse("example.com/a").unwrap()).unwrap());
        let text = std::fs::read_to_string(root.path().join(".larder/pins")).unwrap();
        assert_eq!(text, "example.com/B@v1.2.3\nexample.com/a\n");

        let pins = Pins::load(root.path()).unwrap();
        assert_eq!(pins.list().len(), 2);
        assert!(pins.matches(&version("example.com/a@v0.1.0")));
        assert!(pins.matches(&version("example.com/B@v1.2.3")));
        assert!(!pins.matches(&version("example.com/B@v1.2.4")));
        assert!(pins.concerns(version("example.com/B@v1.2.4").path()));
        assert!(!pins.concerns(version("example.com/b@v1.2.4").path()));

        assert!(pins.remove(&Pin::parse("example.com/a").unwrap()).unwrap());
        assert!(!pins.remove(&Pin::parse("example.com/a").unwrap()).unwrap());
        assert!(!Pins::load(root.path()).unwrap().matches(&version("example.com/a@v0.1.0")));
    }

    /// A file with a line that is no pin is refused, with the line's number.
    #[test]
    fn a_bad_line_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(".larder")).unwrap();
        std::fs::write(root.path().join(".larder/pins"), "example.com/a\n\n../x\n").unwrap();
        let err = Pins::load(root.path()).unwrap_err();
        assert!(matches!(err, PinError::Line { line: 3, .. }), "{err}");
    }

    /// A pin that cannot be written is not pretended to be there.
    #[test]
    fn a_failed_write_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let pins = Pins::load(root.path()).unwrap();
        std::fs::create_dir_all(root.path().join(".larder/pins/taken")).unwrap();
        assert!(matches!(pins.add(&Pin::parse("example.com/a").unwrap()), Err(PinError::Io { .. })));
        assert_eq!(pins.list(), []);
        assert!(matches!(Pin::parse("not a module").map_err(PinError::from), Err(PinError::Malformed(_))));
    }
}
