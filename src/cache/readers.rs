//! Which stored zips are being read at the moment, so that housekeeping leaves them alone.
//!
//! Owns [`Readers`]. Called by `cache` with every zip it hands out and by `housekeeping`; calls nothing. A reader is
//! known by the open file that its answer holds: once the answer has ended the file is closed, and nobody needs to sign
//! out. Small files are not entered: they are read at once.
//!
//! Bound: one entry for each answer under way, and as many again that have ended since the table was last cleared.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::module::ModuleVersion;

/// The table is cleared of what has ended when it has grown to this many entries, and to twice of what was left then.
const CLEARED_ABOVE: usize = 64;

/// The open files of zips that are being sent.
#[derive(Debug, Default)]
pub struct Readers {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    files: HashMap<ModuleVersion, Vec<Weak<File>>>,
    entries: usize,
    cleared_above: usize,
}

impl Readers {
    /// Notes that the zip of `version` is being read for as long as `file` stays open.
    pub fn enter(&self, version: &ModuleVersion, file: &Arc<File>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.files.entry(version.clone()).or_default().push(Arc::downgrade(file));
        table.entries += 1;
        if table.entries > table.cleared_above.max(CLEARED_ABOVE) {
            table.clear_ended();
        }
    }

    /// Returns whether the zip of `version` is being read.
    pub fn is_reading(&self, version: &ModuleVersion) -> bool {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.files.get(version).is_some_and(|files| files.iter().any(|file| file.strong_count() > 0))
    }
}

impl Table {
    fn clear_ended(&mut self) {
        self.files.retain(|_, files| {
            files.retain(|file| file.strong_count() > 0);
            !files.is_empty()
        });
        self.entries = self.files.values().map(Vec::len).sum();
        self.cleared_above = 2 * self.entries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zip counts as read while its file is open, and the table does not grow with what has been read before.
    #[test]
    fn readers_leave_by_closing() {
        let readers = Readers::default();
        let version = |number: usize| ModuleVersion::parse(&format!("example.com/m@v1.0.{number}")).unwrap();
        let open = || Arc::new(File::open("/dev/null").unwrap());
        let (first, second) = (open(), open());
        readers.enter(&version(0), &first);
        readers.enter(&version(0), &second);
        drop(first);
        assert!(readers.is_reading(&version(0)));
        for number in 1..1000 {
            readers.enter(&version(number), &open());
        }
        assert!(readers.table.lock().unwrap().entries <= CLEARED_ABOVE);
        assert!(readers.is_reading(&version(0)) && !readers.is_reading(&version(7)));
        drop(second);
        assert!(!readers.is_reading(&version(0)));
    }
}
