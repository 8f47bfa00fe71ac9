//! Files that did not hold: out of the tree, where nothing serves them, and kept as evidence.
//!
//! Called by [`super::adopt`] for files of other programs, and through [`Store::quarantine`] for stored files whose bytes
//! have changed or whose hash turned out not to be the world's; calls `durable`. Invariants: at most [`FILES_MAX`] files; the
//! oldest goes for a new one, since a file that turns out wrong late is the evidence somebody will ask for; no two arrivals
//! have one name. Their order is that of their numbers, not of a clock that may be wrong. What other programs put in the
//! folder counts as older than everything.
//!
//! ```text
//! .larder/quarantine/000017@example.com@m@@v@v1.0.0.zip    number, then the path with `@` for each slash; a long one is cut
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::{OWN, Store, durable};
use crate::resource::{ArtifactKind, Resource};

/// How many files are kept aside.
pub const FILES_MAX: usize = 32;

/// How much of a path is in the name, in bytes from its end; a file name has room for 255.
const NAME_BYTES_MAX: usize = 200;

impl Store {
    /// Moves the file of `resource` out of the tree, durably; it is never served again. The `.ziphash` that spoke for a zip
    /// is removed. Files of a checksum database are only removed: they can be fetched again, and would push evidence out that
    /// cannot. Returns where the file lies now; nothing if there was none, or if it could only be removed, which is
    /// logged. The index is the caller's business. For the blocking pool.
    ///
    /// # Errors
    /// The file can neither be moved nor removed.
    pub fn quarantine(&self, resource: &Resource) -> io::Result<Option<PathBuf>> {
        if is_kept(resource) {
            return set_aside(self.root(), resource);
        }
        let path = self.root().join(resource.path());
        if durable::remove_file(&path)? {
            durable::sync_folder(path.parent().unwrap_or(self.root()))?;
        }
        Ok(None)
    }

    /// Moves a file that went to the quarantine back to its place, unless something is there by now. For the blocking pool.
    ///
    /// # Errors
    /// What the system says; it stays in the quarantine then.
    pub fn take_back(&self, kept: &Path, resource: &Resource) -> io::Result<()> {
        let path = self.root().join(resource.path());
        let folder = path.parent().unwrap_or(self.root());
        durable::make_folders(folder)?;
        if !path.try_exists()? {
            durable::rename(kept, &path)?;
        }
        durable::sync_folder(folder)
    }
}

/// Moves the file of `resource` to the quarantine of the tree at `root`, whatever it is, as [`Store::quarantine`] says.
pub(super) fn set_aside(root: &Path, resource: &Resource) -> io::Result<Option<PathBuf>> {
    let relative = resource.path();
    let path = root.join(&relative);
    let folder = root.join(OWN).join("quarantine");
    let moved = move_into(&folder, &path, &relative).or_else(|err| {
        log::warn!("{relative}: cannot be moved out of the way, removed instead: {err}");
        durable::remove_file(&path).map(|_| None)
    })?;
    if matches!(resource, Resource::Artifact(_, ArtifactKind::Zip)) {
        durable::remove_file(&path.with_extension("ziphash"))?;
    }
    match path.parent().map(durable::sync_folder) {
        Some(Err(err)) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        Some(Ok(()) | Err(_)) | None => {}
    }
    Ok(moved)
}

/// Says whether a file that does not hold says anything that cannot be had again.
fn is_kept(resource: &Resource) -> bool {
    match resource {
        Resource::Artifact(..) | Resource::List(_) | Resource::Latest(_) | Resource::Query(..) => true,
        Resource::SumdbSupported(_)
        | Resource::SumdbLatest(_)
        | Resource::SumdbLookup(..)
        | Resource::SumdbTile(..) => false,
    }
}

fn move_into(folder: &Path, path: &Path, relative: &str) -> io::Result<Option<PathBuf>> {
    durable::make_folders(folder)?;
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        kept.push((number_of(&name.to_string_lossy()), name));
    }
    kept.sort();
    let number = kept.last().map_or(0, |(number, _)| *number).saturating_add(1);
    let name = relative.replace('/', "@");
    let target = folder.join(format!("{number:06}@{}", end_of(&name)));
    match durable::rename(path, &target) {
        Ok(()) => {}
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(err) => return Err(err),
    }
    // Only now, so that nothing is given up for a file that did not come.
    let surplus = (kept.len() + 1).saturating_sub(FILES_MAX);
    for (_, name) in kept.into_iter().take(surplus) {
        durable::remove_file(&folder.join(name))?;
    }
    durable::sync_folder(folder)?;
    if let Some(own) = folder.parent() {
        durable::sync_folder(own)?;
    }
    Ok(Some(target))
}

/// Returns when a file came, counted in arrivals. No path begins with a number and a slash.
fn number_of(name: &str) -> u64 {
    name.split_once('@').and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

fn end_of(name: &str) -> &str {
    let mut from = name.len().saturating_sub(NAME_BYTES_MAX);
    while !name.is_char_boundary(from) {
        from += 1;
    }
    &name[from..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Tree;

    fn kept(tree: &Tree) -> Vec<String> {
        let entries = std::fs::read_dir(tree.path(".larder/quarantine")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The number of files is bounded, and the newest stay, whatever their times say; one that lies there without a number
    /// goes first.
    #[test]
    fn the_oldest_goes() {
        let tree = Tree::new();
        let store = Store::open_root(tree.root()).unwrap();
        tree.put(".larder/quarantine/example.com@old@@v@v1.0.0.zip", "x");
        for number in 0..FILES_MAX + 8 {
            let path = format!("example.com/m/@v/v1.0.{number}.mod");
            tree.put(&path, number.to_string());
            let file = std::fs::File::options().write(true).open(tree.path(&path)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 - number as u64)).unwrap();
            let moved = store.quarantine(&Resource::parse(&path).unwrap()).unwrap().unwrap();
            assert_eq!(std::fs::read_to_string(&moved).unwrap(), number.to_string());
            assert!(!tree.has(&path));
        }
        let names = kept(&tree);
        assert_eq!(names.len(), FILES_MAX);
        assert_eq!(names[0], "000009@example.com@m@@v@v1.0.8.mod");
        assert_eq!(names[FILES_MAX - 1], "000040@example.com@m@@v@v1.0.39.mod");
    }

    /// A file that comes a second time does not take the first one's place; what is not there is no error; a hash that
    /// spoke for a zip goes, and for another file stays.
    #[test]
    fn nothing_is_overwritten() {
        let tree = Tree::new();
        let store = Store::open_root(tree.root()).unwrap();
        let zip = Resource::parse("example.com/m/@v/v1.0.0.zip").unwrap();
        let info = Resource::parse("example.com/m/@v/v1.0.0.info").unwrap();
        assert_eq!(store.quarantine(&zip).unwrap(), None);
        for text in ["one", "two"] {
            tree.put("example.com/m/@v/v1.0.0.info", text);
            tree.put("example.com/m/@v/v1.0.0.zip", text);
            tree.put("example.com/m/@v/v1.0.0.ziphash", text);
            store.quarantine(&info).unwrap().unwrap();
            assert!(tree.has("example.com/m/@v/v1.0.0.ziphash"));
            store.quarantine(&zip).unwrap().unwrap();
            assert!(!tree.has("example.com/m/@v/v1.0.0.ziphash"));
        }
        let contents: Vec<String> = kept(&tree)
            .iter()
            .map(|name| std::fs::read_to_string(tree.path(&format!(".larder/quarantine/{name}"))).unwrap())
            .collect();
        assert_eq!(contents, ["one", "one", "two", "two"]);
        let long = Resource::parse(&format!("example.com/{}/@v/v1.0.0.mod", ["abc"; 200].join("/"))).unwrap();
        tree.put(&long.path(), "x");
        let moved = store.quarantine(&long).unwrap().unwrap();
        assert!(moved.to_str().unwrap().ends_with("@abc@@v@v1.0.0.mod"));
    }

    /// What a checksum database says again at any time takes nothing else's place.
    #[test]
    fn files_of_databases_are_removed() {
        let tree = Tree::new();
        let store = Store::open_root(tree.root()).unwrap();
        for path in ["latest", "supported", "lookup/example.com/m@v1.0.0", "tile/8/0/000", "tile/8/0/001.p/7"] {
            let path = format!("sumdb/sumdb.larder.test/{path}");
            let resource = Resource::parse(&path).unwrap();
            assert_eq!(store.quarantine(&resource).unwrap(), None);
            tree.put(&path, "x");
            assert_eq!(store.quarantine(&resource).unwrap(), None);
            assert!(!tree.has(&path), "{path}");
        }
        assert!(!tree.has(".larder/quarantine"));
    }

    /// Where nothing can be kept, the file is removed all the same.
    #[test]
    fn it_goes_in_any_case() {
        let tree = Tree::new();
        let store = Store::open_root(tree.root()).unwrap();
        tree.put(".larder/quarantine", "a file");
        tree.put("example.com/m/@v/v1.0.0.mod", "x");
        let resource = Resource::parse("example.com/m/@v/v1.0.0.mod").unwrap();
        assert_eq!(store.quarantine(&resource).unwrap(), None);
        assert!(!tree.has("example.com/m/@v/v1.0.0.mod"));
    }
}
