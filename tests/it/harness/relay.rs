//! A proxy of our own that misbehaves on order: SOCKS5 and HTTP (CONNECT and absolute URIs) on one loopback port.
//!
//! Called by the tests of the way out. It takes what an honest proxy takes, counts it, and fails in the ways no daemon
//! can be made to fail in time. SOCKS5 is RFC 1928 with RFC 1929 for the password, CONNECT is RFC 9110, 9.3.6.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a relay does wrong, from the next connection on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It accepts and never says a word.
    Silent,
    /// It reads what it is asked, and never answers that.
    Mute,
    /// It closes every connection at once.
    Closes,
    /// It closes one connection in this many at once.
    ClosesOneIn(u64),
    /// It answers this SOCKS5 reply code to every request.
    Reply(u8),
    /// It gives this answer, a status line, to every HTTP request.
    Status(&'static str),
    /// It says this as soon as somebody connects, as servers of other kinds do.
    Greets(&'static str),
    /// It takes no name and no password for the right one.
    WrongPassword,
    /// It is gone once it has passed on this many bytes to its clients: every connection breaks, no new one is taken.
    DiesAfter(u64),
    /// It is silent, in what is open and in what comes, once it has passed on this many bytes to its clients.
    HangsAfter(u64),
}

struct State {
    fault: Mutex<Fault>,
    connections: AtomicU64,
    passwords: AtomicU64,
    passed_on: AtomicU64,
    kept: AtomicU64,
    targets: Mutex<Vec<String>>,
    open: Mutex<HashMap<u64, TcpStream>>,
    is_over: Mutex<bool>,
}

/// A connection that can be cut.
struct Kept<'a> {
    state: &'a State,
    number: u64,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.state.open.lock().unwrap().remove(&self.number);
    }
}

/// How copying to the client went on.
enum After {
    End,
    Silence,
}

/// A running relay; it ends when dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts an honest one.
    pub(crate) fn start() -> Self {
        Self::with(Fault::None)
    }

    /// Starts one with a fault.
    pub(crate) fn with(fault: Fault) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            fault: Mutex::new(fault),
            connections: AtomicU64::new(0),
            passwords: AtomicU64::new(0),
            passed_on: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            targets: Mutex::default(),
            open: Mutex::default(),
            is_over: Mutex::new(false),
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if *shared.is_over.lock().unwrap() {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let _ = state.serve(stream, address);
                });
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    /// Returns its URL: `socks5`, `socks5h` or `http` in front of its address.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// Returns its URL with a user and a password as they are written in URLs.
    pub(crate) fn url_with(&self, scheme: &str, credentials: &str) -> String {
        format!("{scheme}://{credentials}@{}", self.address)
    }

    /// Returns its address and port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what it does wrong with the connections that come.
    pub(crate) fn fault(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// Returns how many connections it was offered.
    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Returns how many times it was told a name and a password.
    pub(crate) fn passwords(&self) -> u64 {
        self.state.passwords.load(Ordering::Relaxed)
    }

    /// Returns where it was asked to lead to, `host:port` each, in order.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.state.targets.lock().unwrap().clone()
    }

    /// Breaks every connection; new ones are taken.
    pub(crate) fn cut(&self) {
        self.state.cut();
    }

    /// Breaks every connection and takes no new one.
    pub(crate) fn end(&self) {
        self.state.end(self.address);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn cut(&self) {
        for stream in self.open.lock().unwrap().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn end(&self, address: SocketAddr) {
        *self.is_over.lock().unwrap() = true;
        self.cut();
        // A last connection wakes the accept loop.
        let _ = TcpStream::connect(address);
    }

    /// Lets a connection be cut from now on, until the answer is dropped.
    fn keep(&self, stream: &TcpStream) -> std::io::Result<Kept<'_>> {
        let copy = stream.try_clone()?;
        let mut open = self.open.lock().unwrap();
        if *self.is_over.lock().unwrap() {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let number = self.kept.fetch_add(1, Ordering::Relaxed);
        open.insert(number, copy);
        Ok(Kept { state: self, number })
    }

    fn serve(&self, mut client: TcpStream, own: SocketAddr) -> std::io::Result<()> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Closes => return Ok(()),
            Fault::ClosesOneIn(count) if number.is_multiple_of(count) => return Ok(()),
            Fault::Silent | Fault::Greets(_) => {
                let _kept = self.keep(&client)?;
                if let Fault::Greets(words) = fault {
                    client.write_all(words.as_bytes())?;
                }
                return drain(&client);
            }
            Fault::None
            | Fault::Mute
            | Fault::ClosesOneIn(_)
            | Fault::Reply(_)
            | Fault::Status(_)
            | Fault::WrongPassword
            | Fault::DiesAfter(_)
            | Fault::HangsAfter(_) => {}
        }
        let _kept = self.keep(&client)?;
        let served = self.lead(&mut client, fault, own);
        let _ = client.shutdown(Shutdown::Both);
        served
    }

    fn lead(&self, client: &mut TcpStream, fault: Fault, own: SocketAddr) -> std::io::Result<()> {
        client.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut first = [0];
        client.read_exact(&mut first)?;
        let (target, forward) =
            if first[0] == 5 { (self.socks(client, fault)?, Vec::new()) } else { self.http(client, first[0], fault)? };
        let server = match TcpStream::connect(&target) {
            Ok(server) => server,
            Err(_) if first[0] == 5 => return client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]),
            Err(_) => return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
        };
        let _kept = self.keep(&server)?;
        if first[0] == 5 {
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        } else if forward.is_empty() {
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        }
        (&server).write_all(&forward)?;
        client.set_read_timeout(None)?;
        let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
        let upwards = std::thread::spawn(move || {
            let _ = std::io::copy(&mut &from_client, &mut &to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let downwards = self.pass_on(&server, client, own);
        if !matches!(downwards, Ok(After::Silence)) {
            let _ = server.shutdown(Shutdown::Both);
            let _ = client.shutdown(Shutdown::Both);
        }
        // In silence the client sees neither a byte nor an end: it has to give up, which ends the thread.
        let _ = upwards.join();
        downwards.map(|_| ())
    }

    /// Copies the server's bytes to the client, up to the one with which the relay dies or falls silent.
    fn pass_on(&self, mut server: &TcpStream, client: &mut TcpStream, own: SocketAddr) -> std::io::Result<After> {
        let mut chunk = [0; 16 << 10];
        loop {
            let count = server.read(&mut chunk)?;
            if count == 0 {
                return Ok(After::End);
            }
            client.write_all(&chunk[..count])?;
            let passed_on = self.passed_on.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
            let fault = *self.fault.lock().unwrap();
            match fault {
                Fault::DiesAfter(bytes) if passed_on >= bytes => {
                    self.end(own);
                    return Ok(After::End);
                }
                Fault::HangsAfter(bytes) if passed_on >= bytes => {
                    *self.fault.lock().unwrap() = Fault::Silent;
                    return Ok(After::Silence);
                }
                _ => {}
            }
        }
    }

    /// Speaks SOCKS5 up to the target; the method byte is read already.
    fn socks(&self, client: &mut TcpStream, fault: Fault) -> std::io::Result<String> {
        let methods = read_counted(client)?;
        let method = if methods.contains(&2) { 2 } else { 0 };
        client.write_all(&[5, method])?;
        if method == 2 {
            let mut version = [0];
            client.read_exact(&mut version)?;
            let (_user, _password) = (read_counted(client)?, read_counted(client)?);
            self.passwords.fetch_add(1, Ordering::Relaxed);
            client.write_all(&[1, u8::from(fault == Fault::WrongPassword)])?;
        }
        let mut head = [0; 4];
        client.read_exact(&mut head)?;
        let host = match head[3] {
            1 => Ipv4Addr::from(read_array::<4>(client)?).to_string(),
            3 => String::from_utf8_lossy(&read_counted(client)?).into_owned(),
            4 => format!("[{}]", Ipv6Addr::from(read_array::<16>(client)?)),
            _ => return Err(ErrorKind::InvalidData.into()),
        };
        let port = u16::from_be_bytes(read_array(client)?);
        let target = format!("{host}:{port}");
        self.targets.lock().unwrap().push(target.clone());
        if let Fault::Reply(code) = fault {
            client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0])?;
            return Err(ErrorKind::ConnectionRefused.into());
        }
        mute(client, fault)?;
        Ok(target)
    }

    /// Reads an HTTP request's head; returns its target, and what is to be sent on to it before anything else.
    fn http(&self, client: &mut TcpStream, first: u8, fault: Fault) -> std::io::Result<(String, Vec<u8>)> {
        let (mut head, mut byte) = (vec![first], [0]);
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.to_ascii_lowercase().contains("\r\nproxy-authorization:") {
            self.passwords.fetch_add(1, Ordering::Relaxed);
        }
        let mut words = head.split(' ');
        let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let target = match uri.strip_prefix("http://") {
            Some(rest) => rest.split('/').next().unwrap_or_default().to_owned(),
            None => uri.to_owned(),
        };
        self.targets.lock().unwrap().push(target.clone());
        let answer = match fault {
            Fault::Status(line) => Some(line),
            Fault::WrongPassword => Some("407 Proxy Authentication Required"),
            _ => None,
        };
        if let Some(line) = answer {
            write!(client, "HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            return Err(ErrorKind::ConnectionRefused.into());
        }
        mute(client, fault)?;
        if method == "CONNECT" {
            return Ok((target, Vec::new()));
        }
        // One request a connection, so that nobody has to find the end of the answer.
        let rest: String = head.split_inclusive("\r\n").skip(1).filter(|line| !is_hop_by_hop(line)).collect();
        let path = uri.splitn(4, '/').nth(3).unwrap_or_default();
        Ok((target, format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n{rest}").into_bytes()))
    }
}

/// Never answers what was read, if that is the fault.
fn mute(client: &TcpStream, fault: Fault) -> std::io::Result<()> {
    if fault != Fault::Mute {
        return Ok(());
    }
    drain(client)?;
    Err(ErrorKind::UnexpectedEof.into())
}

/// Reads and forgets until the client closes or the connection is cut.
fn drain(mut client: &TcpStream) -> std::io::Result<()> {
    let mut sink = [0; 4096];
    while client.read(&mut sink)? > 0 {}
    Ok(())
}

fn is_hop_by_hop(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    ["connection", "proxy-connection", "proxy-authorization"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn read_array<const N: usize>(stream: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a length byte and that many bytes.
fn read_counted(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let [length] = read_array(stream)?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
