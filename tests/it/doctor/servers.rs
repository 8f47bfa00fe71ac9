//! Servers on loopback that do one thing wrong: they say nothing, answer lies, or show a certificate of our choice.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::harness::{Certificate, temp_dir};

/// Takes connections into its backlog and says nothing.
pub(super) struct Silent {
    pub(super) address: SocketAddr,
    #[expect(dead_code, reason = "holds the port")]
    listener: TcpListener,
}

impl Silent {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }
}

/// Returns a port of loopback that nobody listens on.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a DNS server says to everything.
#[derive(Clone, Copy)]
pub(super) enum Says {
    /// A response code and no answer.
    Code(u8),
    /// This address, to questions for IPv4.
    Address([u8; 4]),
    /// Nothing.
    Nothing,
}

/// A DNS server over UDP that always says the same; it ends when dropped.
pub(super) struct Dns {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    pub(super) fn start(says: Says) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let mut question = [0; 1500];
                while let Ok((length, from)) = socket.recv_from(&mut question) {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Some(answer) = answer(&question[..length], says) {
                        socket.send_to(&answer, from).unwrap();
                    }
                }
            }
        });
        Self { address, is_over, thread: Some(thread) }
    }

    pub(super) fn name(&self) -> String {
        format!("udp://{}", self.address)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[0], self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

/// The header of 12 bytes, the question as it came, and perhaps one address for a minute.
fn answer(question: &[u8], says: Says) -> Option<Vec<u8>> {
    let name_end = 12 + question[12..].iter().position(|byte| *byte == 0)? + 1;
    let kind = question[name_end + 1];
    let (code, address) = match says {
        Says::Code(code) => (code, None),
        Says::Address(address) => (0, Some(address).filter(|_| kind == 1)),
        Says::Nothing => return None,
    };
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend(&question[12..name_end + 4]);
    if let Some(address) = address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address);
    }
    Some(answer)
}

/// A module proxy of one list behind a certificate of our choice; openssl serves it.
pub(super) struct Tls {
    child: Child,
    port: u16,
    #[expect(dead_code, reason = "what is served")]
    folder: tempfile::TempDir,
}

impl Tls {
    pub(super) fn start(certificate: &Certificate) -> Self {
        let folder = temp_dir();
        let list = folder.path().join("golang.org/x/text/@v");
        std::fs::create_dir_all(&list).unwrap();
        std::fs::write(list.join("list"), "v0.1.0\n").unwrap();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-WWW", "-cert"]).arg(&certificate.certificate);
        command.arg("-key").arg(&certificate.key).current_dir(folder.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                break address.rsplit(':').next().unwrap().parse().unwrap();
            }
        };
        // What it writes later has nobody to read it and must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port, folder }
    }

    /// Returns its address under this name.
    pub(super) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
