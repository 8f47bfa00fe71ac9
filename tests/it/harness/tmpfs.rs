//! A small disk of a test's own.

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped.
pub(crate) struct Tmpfs {
    folder: tempfile::TempDir,
}

impl Tmpfs {
    /// Mounts one of `bytes`. Without the right to mount it prints so and returns `None`: the test is left out.
    pub(crate) fn mount(bytes: u64) -> Option<Self> {
        let folder = super::temp_dir();
        let options = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                println!("left out, it needs root: mount: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("left out, it needs the mount command: {error}");
                None
            }
        }
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes to `file` until there is no room for another byte.
    pub(crate) fn fill(&self, file: &Path) {
        assert!(file.starts_with(self.path()));
        let mut file = std::fs::File::create(file).unwrap();
        let chunk = [0; 4096];
        while file.write_all(&chunk).is_ok() {}
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, for a test that failed may have left a process in it that ends a moment later.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}
