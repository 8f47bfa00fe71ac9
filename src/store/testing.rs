//! A cache directory for the tests of this folder.

use std::path::{Path, PathBuf};

use super::index::Index;
use super::{Error, Store, ZipSums};
use crate::module::ModuleVersion;
use crate::resource::{ArtifactKind, Resource};

/// A directory that is removed at the end of the test.
pub(super) struct Tree(tempfile::TempDir);

impl Tree {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    pub(super) fn has(&self, relative: &str) -> bool {
        std::fs::symlink_metadata(self.path(relative)).is_ok()
    }

    pub(super) fn put(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Puts all three files of a version, the zip with so many bytes of content.
    pub(super) fn put_version(&self, text: &str, content_bytes: usize) {
        let version = version(text);
        let path = |kind| Resource::Artifact(version.clone(), kind).path();
        self.put(&path(ArtifactKind::Info), info(version.version().as_str()));
        self.put(&path(ArtifactKind::Mod), format!("module {}\n\ngo 1.26\n", version.path()));
        self.put(&path(ArtifactKind::Zip), zip(&version, content_bytes));
    }

    /// Returns an open index of this directory.
    pub(super) fn index(&self) -> Index {
        let index = Index::opening(self.root());
        index.open();
        assert!(index.is_open());
        index
    }
}

pub(super) fn version(text: &str) -> ModuleVersion {
    ModuleVersion::parse(text).unwrap()
}

pub(super) fn info(version: &str) -> String {
    format!("{{\"Version\":\"{version}\",\"Time\":\"2026-01-02T03:04:05Z\"}}")
}

/// Stores a zip as a download does.
pub(super) fn try_commit_zip(store: &Store, resource: &Resource, content: &[u8], sums: ZipSums) -> Result<(), Error> {
    let partial = store.partial(resource)?;
    partial.writer()?.write_at(content, 0)?;
    partial.set_length(content.len() as u64)?;
    store.commit_partial(&partial, resource, sums).map(drop)
}

/// Returns a zip with one stored file of zeros. Its checksum is left out, which its structure does not show.
pub(super) fn zip(version: &ModuleVersion, content_bytes: usize) -> Vec<u8> {
    let name = format!("{version}/a.go");
    let (length, name_length) = (u32::try_from(content_bytes).unwrap(), u16::try_from(name.len()).unwrap());
    let common = [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &length.to_le_bytes(), &length.to_le_bytes()];
    let common = [common.concat(), name_length.to_le_bytes().to_vec(), vec![0, 0]].concat();
    let mut zip = [b"PK\x03\x04".to_vec(), common.clone(), name.clone().into_bytes(), vec![0; content_bytes]].concat();
    let offset = u32::try_from(zip.len()).unwrap();
    let entry = [&b"PK\x01\x02\x14\0"[..], &common, &[0; 14], name.as_bytes()].concat();
    let entry_length = u32::try_from(entry.len()).unwrap();
    zip.extend_from_slice(&entry);
    zip.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    zip.extend_from_slice(&entry_length.to_le_bytes());
    zip.extend_from_slice(&offset.to_le_bytes());
    zip.extend_from_slice(&[0, 0]);
    zip
}

/// Returns a zip of so many empty files, `1.go`, `2.go` and so on; the last one has the name given.
pub(super) fn many_entries(version: &str, entries: usize, last: &str) -> Vec<u8> {
    let (mut locals, mut directory) = (Vec::new(), Vec::new());
    for number in 1..=entries {
        let file = if number == entries { last.to_owned() } else { format!("{number}.go") };
        let name = format!("{version}/{file}");
        let offset = u32::try_from(locals.len()).unwrap();
        let name_bytes = u16::try_from(name.len()).unwrap().to_le_bytes();
        let common = [&[20, 0][..], &[0; 20], &name_bytes, &[0, 0]].concat();
        locals.extend_from_slice(b"PK\x03\x04");
        locals.extend_from_slice(&common);
        locals.extend_from_slice(name.as_bytes());
        directory.extend_from_slice(b"PK\x01\x02\x14\0");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let [offset, bytes] = [locals.len(), directory.len()].map(|n| u32::try_from(n).unwrap().to_le_bytes());
    // Only the number modulo 65,536 has room there, and only that counts.
    let count = u16::try_from(entries % 65_536).unwrap().to_le_bytes();
    let end = [&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &bytes, &offset, &[0, 0]].concat();
    [locals, directory, end].concat()
}
