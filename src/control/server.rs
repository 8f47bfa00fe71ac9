//! The service's side of the conversation: a Unix socket in the cache directory.
//!
//! Owns the socket while the service runs. Called by `app` as a root task; hands requests to [`Desk`] on the blocking
//! pool. Bounds: so many conversations, a time limit for the request and for each line of the answer to be taken, and a
//! queue of lines between the two. A command that goes away does not end what it has begun.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::control::desk::Desk;
use crate::control::{Answer, REQUEST_BYTES_MAX, Request, SOCKET, WORKING_INTERVAL, with_socket_path};
use crate::shutdown::Tasks;
use crate::store::{self, Store};

/// Conversations at a time; more wait to be accepted.
const CONVERSATIONS_MAX: usize = 8;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;
/// A request has to be there within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A line of the answer has to be taken within this time.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines between the work and the socket.
const QUEUE_LINES: usize = 64;
/// The work looks this often whether there is room for a line.
const QUEUE_PAUSE: Duration = Duration::from_millis(2);
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Makes the socket, in place of one that an earlier run has left behind: the caller owns the cache directory.
///
/// # Errors
/// What the system says.
pub fn bind(store: &Store) -> io::Result<UnixListener> {
    store.remove_own(SOCKET).map_err(io::Error::other)?;
    with_socket_path(&store.own_folder(), |path| {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Before it listens, so that nobody gets in under the mode that the umask has given it.
        restrict(path)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())
    })
}

fn restrict(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP)?)
}

/// Answers commands until `tasks` are asked to stop, then removes the socket.
///
/// # Cancel safety
/// The socket stays behind when the future is dropped; the next run replaces it.
pub async fn serve(listener: UnixListener, desk: Arc<Desk>, store: Arc<Store>, tasks: Tasks) {
    let token = tasks.token().clone();
    let permits = Arc::new(Semaphore::new(CONVERSATIONS_MAX));
    let accept_all = async {
        let mut pause = ACCEPT_PAUSE_MIN;
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    let (desk, token) = (Arc::clone(&desk), token.clone());
                    tasks.spawn("command", async move {
                        tokio::select! {
                            () = token.cancelled() => {}
                            result = converse(stream, desk) => {
                                if let Err(err) = result {
                                    log::debug!("a command has gone away: {err}");
                                }
                            }
                        }
                        drop(permit);
                    });
                }
                Err(err) => {
                    log::warn!("cannot accept a command: {err}");
                    sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
    };
    tokio::select! {
        () = token.cancelled() => {}
        () = accept_all => {}
    }
    drop(listener);
    let removed = store::blocking(move || store.remove_own(SOCKET)).await;
    if let Err(err) = removed {
        log::warn!("the control socket stays behind: {err}");
    }
}

async fn converse(stream: UnixStream, desk: Arc<Desk>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(REQUEST_BYTES_MAX));
    timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(err) => {
            let error = Some(format!("the service does not know this request; is it of another version? {err}"));
            return say(&mut writer, &Answer::Exit { code: 1, error }).await;
        }
    };
    let (sender, mut answers) = mpsc::channel(QUEUE_LINES);
    let work = store::blocking(move || {
        desk.answer(&request, &mut |answer| queue(&sender, answer));
        Ok(())
    });
    // Owns its end of the queue: once it has returned, nothing keeps the work waiting.
    let tell = async move {
        loop {
            match timeout(WORKING_INTERVAL, answers.recv()).await {
                Ok(Some(answer)) => say(&mut writer, &answer).await?,
                Ok(None) => return Ok(()),
                Err(_) => say(&mut writer, &Answer::Working).await?,
            }
        }
    };
    let (told, worked) = tokio::join!(tell, work);
    worked.map_err(io::Error::other)?;
    told
}

/// Waits until there is room for a line of the answer. When nobody listens any more the work goes on, and what it has to
/// say is dropped.
///
/// The channel's own way to wait panics within `block_on`, where what takes the network speaks from.
fn queue(sender: &mpsc::Sender<Answer>, mut answer: Answer) {
    while let Err(TrySendError::Full(unsent)) = sender.try_send(answer) {
        answer = unsent;
        std::thread::sleep(QUEUE_PAUSE);
    }
}

async fn say(writer: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    timeout(TAKE_TIMEOUT, writer.write_all(&line)).await?
}
