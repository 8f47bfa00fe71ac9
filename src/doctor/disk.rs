//! Whether the cache directory can be used: there, writable, with room.
//!
//! Called by `doctor`; calls `store` for the one file it writes, which it removes again, and for the free space. Takes
//! no lock: a service may be at work in the directory.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use indicatif::DecimalBytes;
use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::check::{Check, Outcome};
use crate::clock::Clock;
use crate::store::{durable, gc};

const STEP: &str = "disk";
/// Below this not even a small module fits, in bytes.
const FREE_BYTES_MIN: u64 = 16_000_000;
/// A disk that takes longer to write a few bytes slows every fill down, in milliseconds.
const WRITE_SLOW_MS: u128 = 1000;

/// Looks at the cache directory `root`, which should keep `free_bytes_wanted` bytes free. Blocks.
pub(super) fn look(root: &Path, free_bytes_wanted: u64, clock: &Clock) -> Vec<Check> {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let check = |outcome, text: String| Check::new(STEP, root.display().to_string(), outcome, text);
    let metadata = match root.metadata() {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return vec![check(Outcome::Fail, "is not a folder".to_owned()).hint("give another one with -cache")],
        Err(err) if err.kind() == io::ErrorKind::NotFound => return vec![missing(&root)],
        Err(err) => {
            let hint = "see to the folders above it, or give another one with -cache";
            return vec![check(Outcome::Fail, format!("cannot be looked at: {err}")).hint(hint)];
        }
    };
    let began = clock.steady();
    let written = durable::try_out(&root);
    let took = clock.steady().duration_since(began);
    let mut checks = vec![match written {
        Ok(()) if took.as_millis() > WRITE_SLOW_MS => check(Outcome::Warn, "writable, but very slow".to_owned())
            .hint("a worn card or a disk over the network; another folder can be given with -cache")
            .took(took),
        Ok(()) => check(Outcome::Pass, format!("can be written to{}", as_whom(&metadata))).took(took),
        Err(err) => check(Outcome::Fail, format!("cannot be written to: {err}")).hint(why_not(&err, &metadata)),
    }];
    checks.push(room_in(&root, free_bytes_wanted));
    checks
}

/// Looks at the free space alone, which changes nothing. Blocks.
pub(super) fn room_in(root: &Path, free_bytes_wanted: u64) -> Check {
    match gc::free_bytes(root) {
        Ok(free) => room(root, free, free_bytes_wanted),
        Err(err) => {
            let text = format!("the free space cannot be found out: {err}");
            Check::new(STEP, root.display().to_string(), Outcome::Warn, text)
        }
    }
}

/// A folder that is not there is made by the service, if that may make it.
fn missing(root: &Path) -> Check {
    let above = root.ancestors().skip(1).find(|folder| folder.is_dir()).map_or_else(PathBuf::new, Path::to_owned);
    let check = |outcome, text| Check::new(STEP, root.display().to_string(), outcome, text);
    match access(&above, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => check(Outcome::Pass, "is not there yet; the first start makes it".to_owned()),
        Err(err) => check(
            Outcome::Fail,
            format!("is not there and cannot be made in {}: {}", above.display(), io::Error::from(err)),
        )
        .hint("make it and give it to the user Larder runs as, or give another one with -cache"),
    }
}

/// What root may do says little about the user the service runs as.
fn as_whom(metadata: &Metadata) -> String {
    match metadata.uid() {
        owner if geteuid().is_root() && owner != 0 => {
            format!(" by root; it belongs to user {owner}, as whom the service has to run")
        }
        _ => String::new(),
    }
}

fn why_not(err: &io::Error, metadata: &Metadata) -> String {
    match err.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "it belongs to user {}, and this is user {}: run as that one, or change the folder's owner",
            metadata.uid(),
            geteuid().as_raw()
        ),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only: remount it, or look into the \
                                              system's log for the error that made it so"
            .to_owned(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on that disk; `larder gc` removes modules".to_owned()
        }
        _ => "give another folder with -cache".to_owned(),
    }
}

fn room(root: &Path, free: u64, wanted: u64) -> Check {
    let check = |outcome, text| Check::new(STEP, root.display().to_string(), outcome, text);
    let shown = DecimalBytes(free);
    if free < FREE_BYTES_MIN {
        return check(Outcome::Fail, format!("only {shown} free")).hint("make room on that disk");
    }
    if free < wanted {
        let text = format!("{shown} free, less than the {} of -min-free-space", DecimalBytes(wanted));
        return check(Outcome::Warn, text).hint("modules unused longest are removed until there is room");
    }
    check(Outcome::Pass, format!("{shown} free"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(root: &Path) -> Vec<(Outcome, String)> {
        let checks = look(root, 0, &Clock::system());
        checks.into_iter().map(|check| (check.outcome, check.text)).collect()
    }

    /// A folder that can be used passes and is left as it was; one to be made passes too and is not made.
    #[test]
    fn usable_folders_pass_and_stay_as_they_are() {
        let root = tempfile::tempdir().unwrap();
        assert!(outcomes(root.path()).iter().all(|(outcome, _)| *outcome == Outcome::Pass));
        let to_come = root.path().join("a/b");
        let [(outcome, text)] = outcomes(&to_come).try_into().unwrap();
        assert!(outcome == Outcome::Pass && text.contains("not there yet"), "{text}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    /// What is no folder, or lies below none, fails.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests make the trees they need")]
    fn files_fail() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(outcomes(&file), [(Outcome::Fail, "is not a folder".to_owned())]);
        assert_eq!(outcomes(&file.join("below"))[0].0, Outcome::Fail);
    }

    /// Too little room is told at both limits.
    #[test]
    fn room_is_compared_with_what_is_wanted() {
        let outcome = |free, wanted| room(Path::new("/srv"), free, wanted).outcome;
        assert_eq!(outcome(1_000_000_000, 500_000_000), Outcome::Pass);
        assert_eq!(outcome(100_000_000, 500_000_000), Outcome::Warn);
        assert_eq!(outcome(1_000_000, 0), Outcome::Fail);
    }
}
