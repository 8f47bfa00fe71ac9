//! The command's side of the conversation, and the same work done alone where no service runs.
//!
//! Owns [`run`]. Called by `app` for every subcommand but serve; calls [`Desk`] when it is alone with the cache
//! directory, after taking its lock. What a desk is made of, `app` says.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::control::desk::Desk;
use crate::control::{ANSWER_BYTES_MAX, Answer, REQUEST_BYTES_MAX, Request, WORKING_INTERVAL, with_socket_path};
use crate::fill::Fills;
use crate::housekeeping::Housekeeper;
use crate::shutdown::Tasks;
use crate::store::adopt::{self, Adoption};
use crate::store::alarms::Alarms;
use crate::store::gc::Limits;
use crate::store::index::Index;
use crate::store::{self, Store};

/// A service that says nothing for this long is not answering.
const SILENCE_MAX: Duration = Duration::from_secs(4 * WORKING_INTERVAL.as_secs());
/// A service holds the lock for a moment before it listens, and after it has stopped listening.
const ATTEMPTS: u32 = 20;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(250);

/// Why a command could not be carried out at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no cache directory.
    #[error("{0}: there is no cache directory; say which one with -cache, as the service is told")]
    NoCache(PathBuf),
    /// The service's socket is not for this user.
    #[error("{0}: not allowed to talk to the service: be its user, or in its group")]
    Forbidden(PathBuf),
    /// Another process holds the lock and does not listen.
    #[error("{0} is in use by another larder that does not answer")]
    Deaf(PathBuf),
    /// The conversation broke.
    #[error("the service ended the conversation: {0}")]
    Broken(io::Error),
    /// There is more to do than a request has room for.
    #[error("too much at once: a request has room for {} MiB", REQUEST_BYTES_MAX >> 20)]
    TooLong,
    /// What the work takes cannot be made.
    #[error("{0}")]
    NoMachinery(String),
    /// The cache directory cannot be used.
    #[error("cannot use the cache directory: {0}")]
    Store(#[from] store::Error),
}

/// Carries out a command on the cache directory `root`, by its service or, if none runs, by itself, with what
/// `make_desk` makes of the cache directory. What is to be told goes to `say`, line by line, the exit code at the end.
///
/// # Errors
/// Why nobody could carry it out.
pub fn run(
    root: &Path,
    request: &Request,
    make_desk: impl FnOnce(&Arc<Store>) -> Result<Desk, Error>,
    say: &mut dyn FnMut(Answer),
) -> Result<(), Error> {
    let makes_root = matches!(request, Request::Pin(_));
    if !makes_root && !root.is_dir() {
        return Err(Error::NoCache(root.to_owned()));
    }
    let own_folder = root.join(".larder");
    for _ in 0..ATTEMPTS {
        match with_socket_path(&own_folder, |path| UnixStream::connect(path)) {
            Ok(stream) => return ask(stream, request, say),
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => return Err(Error::Forbidden(own_folder)),
            Err(_) => {}
        }
        match Store::open_root(root) {
            Ok(store) => {
                // Its lock is held until the work has ended.
                let store = Arc::new(store);
                let desk = make_desk(&store)?;
                return alone(&desk, request, say);
            }
            Err(store::Error::InUse { .. }) => std::thread::sleep(ATTEMPT_PAUSE),
            Err(err) => return Err(err.into()),
        }
    }
    Err(Error::Deaf(root.to_owned()))
}

fn ask(mut stream: UnixStream, request: &Request, say: &mut dyn FnMut(Answer)) -> Result<(), Error> {
    let mut line = serde_json::to_vec(request).map_err(|err| Error::Broken(err.into()))?;
    line.push(b'\n');
    if line.len() as u64 > REQUEST_BYTES_MAX {
        return Err(Error::TooLong);
    }
    stream.set_read_timeout(Some(SILENCE_MAX)).map_err(Error::Broken)?;
    stream.set_write_timeout(Some(SILENCE_MAX)).map_err(Error::Broken)?;
    stream.write_all(&line).map_err(Error::Broken)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        (&mut reader).take(ANSWER_BYTES_MAX).read_line(&mut line).map_err(Error::Broken)?;
        if line.is_empty() {
            return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let answer = serde_json::from_str(&line).map_err(|err| Error::Broken(err.into()))?;
        let is_end = matches!(answer, Answer::Exit { .. });
        say(answer);
        if is_end {
            return Ok(());
        }
    }
}

/// Does the work in this process, which owns the cache directory meanwhile.
fn alone(desk: &Desk, request: &Request, say: &mut dyn FnMut(Answer)) -> Result<(), Error> {
    let keeper = &desk.housekeeper;
    match request {
        Request::Status | Request::Verify { .. } | Request::VerifySums { .. } | Request::Audit { .. } => {
            keeper.index.open();
        }
        Request::Gc { .. } => {
            keeper.index.open();
            // What is not in the index cannot be judged by its last use.
            let adoption = Adoption::of(&keeper.root);
            if adopt::is_scan_due(&adoption, &keeper.index) {
                adopt::scan(&adoption, &keeper.index, &keeper.clock, &|| false)
                    .map_err(|err| store::Error::at("reading the tree", err))?;
            }
        }
        Request::Pin(_)
        | Request::Pins
        | Request::Unpin(_)
        | Request::Alarms
        | Request::ExportAlarm(_)
        | Request::ClearAlarms(_) => {}
    }
    desk.answer(request, say);
    keeper.index.close();
    Ok(())
}

/// Returns a desk for what takes no network, in a process that has just opened the cache directory.
///
/// # Errors
/// What keeps the alarms from being read.
pub fn plain_desk(store: &Store, limits: Limits) -> Result<Desk, Error> {
    let (clock, root) = (Clock::system(), store.root());
    let in_use = (Fills::new(Tasks::new()), Arc::default());
    let alarms = Arc::new(Alarms::load(root, clock.now())?);
    let (index, stop) = (Arc::new(Index::opening(root)), CancellationToken::new());
    let housekeeper = Arc::new(Housekeeper::new(root.to_owned(), index, in_use, limits, clock, stop));
    Ok(Desk { housekeeper, alarms, machinery: None, service: None })
}
