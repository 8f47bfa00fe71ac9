//! The commands that look after a cache: status, gc, pin, pins, unpin, alarms, verify, audit.
//!
//! Owns the conversation between such a command and the service. One process owns the cache directory: if a service
//! runs, the command asks it over a Unix socket in the directory; if none runs, the command takes the lock and does the
//! same work itself ([`desk`], either way). Called by `app`; calls `housekeeping` and, for the state of a running
//! service and for what is verified, `cache` and `verify`.
//!
//! ```text
//! ROOT/.larder/control.sock      mode 0660: who may write to it may remove modules
//!
//! command ─► {"gc":{"dry_run":true}}                      one request, one line of JSON, at most 8 MiB
//!         ◄─ {"line":"would remove …"}                    for stdout, any number
//!         ◄─ {"progress":{"done":1,"total":9,"text":"…"}}    for a bar, at most every 200 ms; a total of 0 is unknown
//!         ◄─ {"bytes":"bm90ZQo="}                         for stdout as they are, in base64
//!         ◄─ "working"                                    at least every 5 s until the end
//!         ◄─ {"exit":{"code":0,"error":null}}             the end
//! ```

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::gc::Limits;

mod alarms;
mod audit;
pub mod client;
pub mod desk;
mod gosum;
pub mod server;
pub mod teller;
pub(crate) mod text;
mod verify;

#[cfg(test)]
mod tests;

/// The socket's name in Larder's own folder.
const SOCKET: &str = "control.sock";
/// The longest request, in bytes: a go.sum file of some sixty thousand lines, or more pins than anybody types.
pub const REQUEST_BYTES_MAX: u64 = 8 << 20;
/// The longest line of an answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// While there is nothing to tell, the service says so this often.
const WORKING_INTERVAL: Duration = Duration::from_secs(5);
/// The longest path that a socket's address has room for, with the zero at its end (`sun_path` in `unix(7)`).
const SUN_PATH_BYTES: usize = 108;

/// What a command wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Tell how the service is doing.
    Status,
    /// Remove modules by the rules of age and space.
    Gc {
        /// Only tell what would go.
        dry_run: bool,
        /// Rules of this one run.
        #[serde(default)]
        rules: Rules,
    },
    /// Keep modules.
    Pin(Vec<String>),
    /// List what is kept.
    Pins,
    /// Keep them no longer.
    Unpin(Vec<String>),
    /// List the alarms.
    Alarms,
    /// Hand out the evidence of an alarm.
    ExportAlarm(u64),
    /// Clear these alarms; none named are all.
    ClearAlarms(Vec<u64>),
    /// Judge all that is stored.
    Verify {
        /// Fetch again what does not pass.
        repair: bool,
    },
    /// Compare a go.sum file with the checksum database.
    VerifySums {
        /// The file's name, for the answer.
        name: String,
        /// What is in it.
        text: String,
    },
    /// Read the log of the checksum database.
    Audit {
        /// All of it, not only what has come since the last time.
        from_start: bool,
    },
}

impl Request {
    /// Says whether it takes more than the files of the cache directory: the way out, and the runtime for it.
    pub fn needs_machinery(&self) -> bool {
        match self {
            Self::Verify { .. } | Self::VerifySums { .. } | Self::Audit { .. } => true,
            Self::Status
            | Self::Gc { .. }
            | Self::Pin(_)
            | Self::Pins
            | Self::Unpin(_)
            | Self::Alarms
            | Self::ExportAlarm(_)
            | Self::ClearAlarms(_) => false,
        }
    }
}

/// Rules given with the command itself; what is `None` is as the service is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Seconds since the last use after which a module goes; 0 is never.
    pub age_max_s: Option<u64>,
    /// Bytes that may be stored; 0 is no limit.
    pub cache_bytes_max: Option<u64>,
    /// Bytes to keep free.
    pub free_bytes_min: Option<u64>,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A line for stdout.
    Line(String),
    /// A piece of a file for stdout, as it is; in base64.
    Bytes(String),
    /// How far the work has come, in whatever unit.
    Progress {
        /// What is done.
        done: u64,
        /// All there is to do; 0 if that is not known.
        total: u64,
        /// What is being worked on.
        text: String,
    },
    /// There will be more.
    Working,
    /// The end.
    Exit {
        /// The command's exit code.
        code: u8,
        /// What went wrong, for stderr.
        error: Option<String>,
    },
}

impl Rules {
    /// Returns `configured` with these rules in place of it.
    fn over(self, configured: Limits) -> Limits {
        let or = |given: Option<u64>, configured: Option<u64>| match given {
            Some(0) => None,
            Some(given) => Some(given),
            None => configured,
        };
        Limits {
            age_max: match self.age_max_s {
                Some(0) => None,
                Some(age_s) => Some(Duration::from_secs(age_s)),
                None => configured.age_max,
            },
            cache_bytes_max: or(self.cache_bytes_max, configured.cache_bytes_max),
            free_bytes_min: self.free_bytes_min.unwrap_or(configured.free_bytes_min),
        }
    }
}

/// Calls `work` with a path of the socket in `own_folder` that a socket's address has room for.
///
/// A path that is too long is replaced by one through the open folder, which is always short.
fn with_socket_path<T>(own_folder: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = own_folder.join(SOCKET);
    if path.as_os_str().len() < SUN_PATH_BYTES {
        return work(&path);
    }
    let folder = File::open(own_folder)?;
    work(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(SOCKET))
}
