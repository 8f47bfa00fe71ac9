//! Trees for the stand-in upstream: the fixture, and made-up modules with zips of any size.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::root;

/// Returns the fixture tree. It is read-only: a test that changes a tree makes its own.
pub(crate) fn fixture() -> PathBuf {
    root().join("tests/fixtures/tree")
}

/// A tree of a test's own.
pub(crate) struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    /// Makes an empty tree.
    pub(crate) fn new() -> Self {
        Self { folder: super::temp_dir() }
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes one file, by the path it is asked for.
    pub(crate) fn put(&self, path: &str, content: &[u8]) {
        let file = self.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }

    /// Returns one file's content, by the path it is asked for.
    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.path().join(path.trim_start_matches('/'))).unwrap()
    }

    /// Copies files of the fixture tree, by the paths they are asked for.
    pub(crate) fn copy<const N: usize>(self, paths: [&str; N]) -> Self {
        for path in paths {
            let content = std::fs::read(fixture().join(path.trim_start_matches('/'))).unwrap();
            self.put(path, &content);
        }
        self
    }

    /// Adds a version of a made-up module (its path in lower case) whose zip holds `bytes` of noise, and adds it to
    /// the list.
    pub(crate) fn module(self, path: &str, version: &str, bytes: usize) -> Self {
        self.put(&format!("{path}/@v/{version}.info"), info(version).as_bytes());
        self.put(&format!("{path}/@v/{version}.mod"), format!("module {path}\n\ngo 1.21\n").as_bytes());
        self.put(&format!("{path}/@v/{version}.zip"), &module_zip(path, version, bytes));
        let list = self.path().join(path).join("@v/list");
        let known = std::fs::read_to_string(&list).unwrap_or_default();
        std::fs::write(list, format!("{known}{version}\n")).unwrap();
        self
    }
}

/// Returns an `.info` answer.
pub(crate) fn info(version: &str) -> String {
    format!("{{\"Version\":\"{version}\",\"Time\":\"2020-01-01T00:00:00Z\"}}")
}

/// Returns a module zip with a go.mod, one Go file and `bytes` of noise.
pub(crate) fn module_zip(path: &str, version: &str, bytes: usize) -> Vec<u8> {
    let prefix = format!("{path}@{version}/");
    let seed = prefix.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    zip_of(&[
        (format!("{prefix}go.mod"), format!("module {path}\n\ngo 1.21\n").into_bytes()),
        (format!("{prefix}made.go"), b"// Package made is made up.\npackage made\n".to_vec()),
        (format!("{prefix}testdata/noise.bin"), noise(seed, bytes)),
    ])
}

/// Returns bytes that do not compress, the same ones for the same seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut content);
    content
}

/// Returns a zip of stored (uncompressed) entries.
///
/// Layout: for each entry a local header and its content, then the central directory, then the end record.
pub(crate) fn zip_of(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let offset = length(&zip);
        // Version 2.0, no flags, stored, 2020-01-01 00:00, checksum, sizes, length of the name, no extra field.
        let mut fields = Vec::new();
        for value in [20_u16, 0, 0, 0, 0x5021] {
            fields.extend(value.to_le_bytes());
        }
        for value in [crc32(content), length(content), length(content)] {
            fields.extend(value.to_le_bytes());
        }
        fields.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        fields.extend([0; 2]);
        zip.extend(b"PK\x03\x04");
        zip.extend(&fields);
        zip.extend(name.as_bytes());
        zip.extend(content);
        // The same again with the maker's version before, and comment, disk, attributes and offset behind.
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let offset = length(&zip);
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\x00\x00\x00\x00");
    zip.extend(count);
    zip.extend(count);
    zip.extend(length(&directory).to_le_bytes());
    zip.extend(offset.to_le_bytes());
    zip.extend([0; 2]);
    zip
}

fn length(content: &[u8]) -> u32 {
    content.len().try_into().unwrap()
}

static CRC_TABLE: LazyLock<[u32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|index| {
        let index = u32::try_from(index).unwrap();
        (0..8).fold(index, |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
});

/// Returns the checksum that zip files use (CRC-32, polynomial 0xedb88320 reflected).
fn crc32(content: &[u8]) -> u32 {
    !content.iter().fold(!0, |crc, &byte| (crc >> 8) ^ CRC_TABLE[((crc ^ u32::from(byte)) & 0xff) as usize])
}
