//! A program running on a host of a test's own network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal};

use crate::harness::wait_for;

/// A running, or ended, program; it is ended, with what it has started, when dropped.
pub(crate) struct Process {
    child: Option<Child>,
    /// `HOST/PROGRAM`, for messages.
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a command; its log is kept in `folder`.
    #[track_caller]
    pub(crate) fn spawn(host: &str, program: &str, mut command: Command, folder: &Path) -> Self {
        use std::os::unix::process::CommandExt;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program = Path::new(program).file_name().unwrap().to_string_lossy();
        let log = folder.join(format!("{program}-{}.log", COUNT.fetch_add(1, Ordering::Relaxed)));
        let file = std::fs::File::create(&log).unwrap();
        // A group of its own: daemons that start more processes are ended with them.
        command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        Self { child: Some(child), name: format!("{host}/{program}"), log }
    }

    /// Returns what it has printed.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `ready` answers `Some`; an end of the program fails the test with what it printed.
    #[track_caller]
    pub(crate) fn wait_until<T>(&mut self, what: &str, mut ready: impl FnMut(&Self) -> Option<T>) -> T {
        wait_for(&format!("{}: {what}", self.name), || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "{} ended, {ended:?}: {}", self.name, self.log());
            ready(self)
        })
    }

    /// Ends it as a power cut would, and all it has started.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let group = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            println!("--- the end of {}'s log:\n{}", self.name, lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }
}
