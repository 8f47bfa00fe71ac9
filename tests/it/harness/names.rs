//! A DNS server of our own on a loopback port, over UDP: every name has the address 127.0.0.1, but not every time,
//! and [`ABSENT`] does not exist.
//!
//! Called by the tests of the way out that need no network of their own. Format: RFC 1035, section 4; what a question
//! has behind its first name (EDNS) is not answered.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The one name that it does not know.
pub(crate) const ABSENT: &str = "absent.test";

/// The type of an IPv4 address, and the codes of a server that failed and of a name that does not exist.
const A: [u8; 2] = [0, 1];
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// A running server; it ends when dropped.
pub(crate) struct Names {
    address: SocketAddr,
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// Starts one whose answers last `ttl_s` seconds; one question in `fails_one_in` gets SERVFAIL, and one in
    /// `silent_one_in` nothing.
    pub(crate) fn start(ttl_s: u32, fails_one_in: u64, silent_one_in: u64) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let address = socket.local_addr().unwrap();
        let (asked, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                if number % silent_one_in != 0
                    && let Some(answer) = answer(&packet[..length], ttl_s, number % fails_one_in == 0)
                {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, asked, stop, thread: Some(thread) }
    }

    /// Returns it in the notation of `-dns`.
    pub(crate) fn server(&self) -> String {
        format!("udp://{}", self.address)
    }

    /// Returns how many questions came.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(question: &[u8], ttl_s: u32, is_failure: bool) -> Option<Vec<u8>> {
    // Twelve bytes of header, then labels up to the empty one, then type and class.
    let mut end = 12;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    let kind = question.get(end + 1..end + 3)?;
    let is_absent = question.get(12..end)? == b"\x06absent\x04test";
    let code = if is_failure { SERVFAIL } else { u8::from(is_absent) * NXDOMAIN };
    let has_answer = kind == A && code == 0;
    let mut bytes = question.get(..2)?.to_vec();
    // A response, recursion wanted and given; one question, perhaps one answer.
    bytes.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(has_answer), 0, 0, 0, 0]);
    bytes.extend(question.get(12..end + 5)?);
    if has_answer {
        // The name of the question, by its place.
        bytes.extend([0xc0, 12]);
        bytes.extend(A);
        bytes.extend([0, 1]);
        bytes.extend(ttl_s.to_be_bytes());
        bytes.extend([0, 4, 127, 0, 0, 1]);
    }
    Some(bytes)
}
