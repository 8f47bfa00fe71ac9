//! A DNS server of our own on a loopback port, over UDP: every name has the address 127.0.0.1, but not every time.
//!
//! Called by the tests of the way out that need no network of their own. Format: RFC 1035, section 4; what a question
//! has behind its first name (EDNS) is not answered.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The type of an IPv4 address, and the code of a server that failed.
const A: [u8; 2] = [0, 1];
const SERVFAIL: u8 = 2;

/// A running server; it ends when dropped.
pub(crate) struct Names {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// Starts one that always answers, for `ttl_s` seconds.
    pub(crate) fn start(ttl_s: u32) -> Self {
        Self::failing(ttl_s, usize::MAX, usize::MAX)
    }

    /// Starts one that gives SERVFAIL to one question in `fails_one_in`, and nothing to one in `silent_one_in`.
    pub(crate) fn failing(ttl_s: u32, fails_one_in: usize, silent_one_in: usize) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let address = socket.local_addr().unwrap();
        let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
                let Some(name) = name(&packet[..length]) else { continue };
                let number = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(name);
                    kept.len()
                };
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

    /// Returns the names it was asked for, in order; most are asked for twice, for one family of addresses each.
    pub(crate) fn names(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
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

/// Returns the name that is asked for.
fn name(question: &[u8]) -> Option<String> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        if length == 0 {
            return Some(labels.join("."));
        }
        labels.push(String::from_utf8_lossy(question.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
}

fn answer(question: &[u8], ttl_s: u32, is_failure: bool) -> Option<Vec<u8>> {
    // Twelve bytes of header, then labels up to the empty one, then type and class.
    let mut end = 12;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    let kind = question.get(end + 1..end + 3)?;
    let code = if is_failure { SERVFAIL } else { 0 };
    let has_answer = kind == A && !is_failure;
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
