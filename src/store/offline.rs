//! Answers from what is stored, for the time when no upstream can be asked.
//!
//! Owns the rule "offline lists tell what can be had": while offline, list, @latest and queries are computed from the
//! versions whose `.info`, `.mod` and `.zip` are all stored, within the remembered answer where there is one; if that
//! leaves nothing, the remembered answer stands. The files on disk stay the upstream's. Called by `cache`; reads the tree
//! only. All functions wait for the device.
//!
//! Which version is the latest, and which a query means, follows cmd/go/internal/modload/query.go: releases before
//! pre-releases before pseudo-versions; versions marked `+incompatible` not at all if the newest of the others has a
//! go.mod file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::module::{ModulePath, ModuleVersion, Query, Version};
use crate::resource::{ArtifactKind, Resource};

/// The longest list, `.info` or remembered answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How many `.info` files are opened to find the one a branch or commit means.
const INFOS_READ_MAX: usize = 10_000;

/// The stored knowledge of one module.
#[derive(Debug)]
pub struct Stored<'a> {
    root: &'a Path,
    path: &'a ModulePath,
    /// The versions of which all three files are stored, ascending.
    pub versions: Vec<Version>,
    /// Whether anything of the module is stored: a file of any version, a list, a query's answer.
    pub is_known: bool,
}

/// What an `.info` says.
#[derive(serde::Deserialize)]
struct Info {
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "Origin")]
    origin: Option<Origin>,
}

/// Where a version comes from.
#[derive(serde::Deserialize)]
struct Origin {
    #[serde(rename = "Hash", default)]
    hash: String,
    #[serde(rename = "Ref", default)]
    reference: String,
}

/// Says whether anything of the module is stored. If not, and offline, the answer is that there is no such module.
///
/// # Errors
/// What the system says, other than that there is nothing.
pub fn knows_anything_of(root: &Path, path: &ModulePath) -> io::Result<bool> {
    Ok(Stored::read(root, path)?.is_known)
}

/// Returns the versions of which `.info`, `.mod` and `.zip` are all stored, ascending.
///
/// # Errors
/// What the system says, other than that there is nothing.
pub fn stored_versions(root: &Path, path: &ModulePath) -> io::Result<Vec<Version>> {
    Ok(Stored::read(root, path)?.versions)
}

impl<'a> Stored<'a> {
    /// Reads the folder of a module's versions.
    ///
    /// # Errors
    /// What the system says, other than that there is nothing.
    pub fn read(root: &'a Path, path: &'a ModulePath) -> io::Result<Self> {
        let mut stored = Self { root, path, versions: Vec::new(), is_known: false };
        let latest = root.join(Resource::Latest(path.clone()).path());
        stored.is_known = std::fs::metadata(latest).is_ok_and(|metadata| metadata.is_file());
        let folder = stored.version_folder();
        let entries = match std::fs::read_dir(&folder) {
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(stored);
            }
            other => other?,
        };
        let mut kinds: BTreeMap<Version, u8> = BTreeMap::new();
        let prefix = format!("{}/@v/", path.escaped().as_str());
        for entry in entries {
            let name = entry?.file_name();
            match name.to_str().map(|name| Resource::parse(&format!("{prefix}{name}"))) {
                Some(Ok(Resource::Artifact(version, kind))) => {
                    *kinds.entry(version.version().clone()).or_default() |= 1 << kind as u8;
                    stored.is_known = true;
                }
                Some(Ok(_)) => stored.is_known = true,
                // Locks and hashes of the go command.
                Some(Err(_)) | None => {}
            }
        }
        stored.versions = kinds.into_iter().filter(|(_, kinds)| *kinds == 0b111).map(|(version, _)| version).collect();
        Ok(stored)
    }

    /// Returns the list to answer with: the stored tagged versions that the remembered list has, one a line; without a
    /// remembered list all stored ones; the remembered list if that leaves none of it. `None` if nothing is known of the
    /// module.
    ///
    /// # Errors
    /// What the system says about the remembered list.
    pub fn list(&self) -> io::Result<Option<Vec<u8>>> {
        let remembered = self.read_file(&Resource::List(self.path.clone()))?;
        let tagged = self.tagged_versions(remembered.as_deref());
        if tagged.is_empty()
            && let Some(remembered) = remembered
        {
            return Ok(Some(remembered));
        }
        let lines = tagged.iter().flat_map(|version| [version.as_str(), "\n"]);
        Ok(self.is_known.then(|| lines.collect::<String>().into_bytes()))
    }

    /// Returns the `.info` of the version that counts as the latest of what can be had, else the remembered answer.
    ///
    /// # Errors
    /// What the system says about the files.
    pub fn latest(&self) -> io::Result<Option<Vec<u8>>> {
        let list = self.read_file(&Resource::List(self.path.clone()))?;
        let tagged = self.tagged_versions(list.as_deref());
        if let Some(version) = self.highest(&tagged)? {
            return self.info_of(version);
        }
        let remembered = self.read_file(&Resource::Latest(self.path.clone()))?;
        let named = remembered.as_deref().and_then(parse_info).and_then(|info| Version::parse(&info.version).ok());
        if named.is_some_and(|version| self.versions.contains(&version)) {
            return Ok(remembered);
        }
        // Pseudo-versions of one module may have different bases: the newest is the one with the latest time.
        match self.versions.iter().filter(|version| version.is_pseudo()).max_by_key(|version| pseudo_time(version)) {
            Some(version) => self.info_of(version),
            None => Ok(remembered),
        }
    }

    /// Returns the `.info` of the stored version that a branch, a tag, a commit or the beginning of a version means, else
    /// the remembered answer.
    ///
    /// # Errors
    /// What the system says about the files.
    pub fn query(&self, query: &Query) -> io::Result<Option<Vec<u8>>> {
        let text = query.as_str();
        let remembered = self.read_file(&Resource::Query(self.path.clone(), query.clone()))?;
        let named = remembered.as_deref().and_then(parse_info).and_then(|info| Version::parse(&info.version).ok());
        if named.is_some_and(|version| self.versions.contains(&version)) {
            return Ok(remembered);
        }
        if !is_version_prefix(text)
            && let Some(version) = Version::canonical_of(text)
            && self.versions.contains(&version)
        {
            return self.info_of(&version);
        }
        if is_version_prefix(text) {
            let prefix = format!("{text}.");
            let tagged: Vec<Version> = self.tagged_versions(None);
            let matching: Vec<Version> = tagged.into_iter().filter(|v| v.as_str().starts_with(&prefix)).collect();
            if let Some(version) = self.highest(&matching)? {
                return self.info_of(version);
            }
        }
        if is_commit(text)
            && let Some(version) = self.versions.iter().rev().find(|version| has_revision(version, text))
        {
            return self.info_of(version);
        }
        Ok(self.of_origin(text)?.or(remembered))
    }

    /// Returns the newest stored `.info` whose origin is the commit, branch or tag `text`.
    fn of_origin(&self, text: &str) -> io::Result<Option<Vec<u8>>> {
        let mut best: Option<(String, Vec<u8>)> = None;
        for version in self.versions.iter().rev().take(INFOS_READ_MAX) {
            let Some(content) = self.info_of(version)? else {
                continue;
            };
            let Some(origin) = parse_info(&content).and_then(|info| info.origin) else {
                continue;
            };
            let is_meant = (is_commit(text) && origin.hash.starts_with(text))
                || ["refs/heads/", "refs/tags/"]
                    .iter()
                    .any(|prefix| origin.reference.strip_prefix(prefix) == Some(text));
            let time = pseudo_time(version).to_owned();
            // Of versions that are no pseudo-versions the first one met is the highest.
            if is_meant && best.as_ref().is_none_or(|(best, _)| time > *best) {
                best = Some((time, content));
            }
        }
        Ok(best.map(|(_, content)| content))
    }

    /// Returns the stored versions that are no pseudo-versions, within `list` if there is one.
    fn tagged_versions(&self, list: Option<&[u8]>) -> Vec<Version> {
        let list = list.map(|list| String::from_utf8_lossy(list).into_owned());
        let mut listed: Option<Vec<&str>> =
            list.as_ref().map(|list| list.lines().filter_map(|line| line.split_whitespace().next()).collect());
        if let Some(listed) = &mut listed {
            listed.sort_unstable();
        }
        let is_listed =
            |version: &Version| listed.as_ref().is_none_or(|listed| listed.binary_search(&version.as_str()).is_ok());
        self.versions.iter().filter(|version| !version.is_pseudo() && is_listed(version)).cloned().collect()
    }

    /// Returns what `go` takes for the latest of some versions, which are in ascending order.
    fn highest<'v>(&self, versions: &'v [Version]) -> io::Result<Option<&'v Version>> {
        let newest_compatible = versions.iter().rev().find(|version| !version.is_incompatible());
        let has_go_mod = match newest_compatible {
            Some(version) => self.has_go_mod(version)?,
            None => false,
        };
        let allowed = || versions.iter().rev().filter(|version| !(has_go_mod && version.is_incompatible()));
        Ok(allowed().find(|version| !version.is_prerelease()).or_else(|| allowed().next()))
    }

    /// Says whether a version has a go.mod file of its own; for one without it, the `.mod` is this one line.
    fn has_go_mod(&self, version: &Version) -> io::Result<bool> {
        let made_up = format!("module {}\n", self.path);
        Ok(self.artifact(version, ArtifactKind::Mod)?.is_some_and(|content| content != made_up.as_bytes()))
    }

    fn info_of(&self, version: &Version) -> io::Result<Option<Vec<u8>>> {
        self.artifact(version, ArtifactKind::Info)
    }

    fn artifact(&self, version: &Version, kind: ArtifactKind) -> io::Result<Option<Vec<u8>>> {
        match ModuleVersion::new(self.path.clone(), version.clone()) {
            Ok(version) => self.read_file(&Resource::Artifact(version, kind)),
            Err(_) => Ok(None),
        }
    }

    fn read_file(&self, resource: &Resource) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.root.join(resource.path())) {
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            other => other?,
        };
        let mut content = Vec::new();
        file.take(ANSWER_BYTES_MAX).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn version_folder(&self) -> PathBuf {
        self.root.join(self.path.escaped().as_str()).join("@v")
    }
}

fn parse_info(content: &[u8]) -> Option<Info> {
    serde_json::from_slice(content).ok()
}

/// Returns the time and revision of a pseudo-version, else nothing: `20060102150405` and `abcdefabcdef`.
fn pseudo_parts(version: &Version) -> Option<(&str, &str)> {
    let text = version.as_str();
    let text = text.strip_suffix("+incompatible").unwrap_or(text);
    let (head, revision) = text.rsplit_once('-').filter(|_| version.is_pseudo())?;
    Some((head.get(head.len().checked_sub(14)?..)?, revision))
}

fn pseudo_time(version: &Version) -> &str {
    pseudo_parts(version).map_or("", |(time, _)| time)
}

/// Says whether a pseudo-version was made for this commit. It holds the first twelve digits.
fn has_revision(version: &Version, commit: &str) -> bool {
    pseudo_parts(version).is_some_and(|(_, revision)| {
        let common = revision.len().min(commit.len());
        revision.get(..common) == commit.get(..common)
    })
}

/// A commit hash of seven digits or more; shorter ones are too likely to mean several.
fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `v1` or `v1.2`.
fn is_version_prefix(text: &str) -> bool {
    let Some(numbers) = text.strip_prefix('v') else {
        return false;
    };
    numbers.split('.').count() <= 2
        && numbers.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
mod tests;
