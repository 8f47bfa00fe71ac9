//! Another wall clock for the binary under test: any time, changed while it runs.

use std::path::PathBuf;

use super::Start;

/// A clock that is set by writing a file; steady time is left alone.
pub(crate) struct FakeClock {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// Makes one. Without the package `faketime` it prints so and returns `None`: the test is left out.
    pub(crate) fn new() -> Option<Self> {
        let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let found = folders
            .chain([PathBuf::from("/usr/lib")])
            .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
            .find(|library| library.is_file());
        if found.is_none() {
            println!("left out: the package faketime is not installed");
        }
        Some(Self { folder: super::temp_dir(), library: found? })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// Sets it, to a time like `1970-01-01 00:01:00`, UTC; from then on it runs.
    pub(crate) fn set(&self, time: &str) {
        // In one step, for the process under test reads it whenever it asks for the time.
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("@{time}\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// Sets it to this many hours after the beginning of January 2027, at most a month.
    pub(crate) fn set_hour(&self, hour: u32) {
        self.set(&format!("2027-01-{:02} {:02}:00:00", 1 + hour / 24, hour % 24));
    }

    /// Lets a Larder be started below it.
    pub(crate) fn show_to(&self, start: Start) -> Start {
        self.environment().into_iter().fold(start, |start, (name, value)| start.env(name, &value))
    }

    /// Returns the variables that put a process below it.
    pub(crate) fn environment(&self) -> [(&'static str, String); 6] {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE", text(self.file())),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
            ("TZ", "UTC".to_owned()),
        ]
    }
}
