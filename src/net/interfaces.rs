//! The addresses configured on the box's own network interfaces, each with the block it belongs to.
//!
//! Called by `server::access` and `doctor`; asks the kernel over a netlink socket, as `getifaddrs(3)` does, which says exactly which prefix
//! belongs to which address; the files under `/proc/net` only show it mixed with routes. A sandbox must allow
//! `AF_NETLINK`. Source: rtnetlink(7).
//!
//! ```text
//! request  ┌ length u32 │ type u16 │ flags u16 │ sequence u32 │ port u32 ┐┌ family u8 │ 3 bytes │ index u32 ┐
//!          └──────────── message header, 16 bytes ─────────────────────┘└─── struct ifaddrmsg, 8 bytes ──┘
//! answer   the same header, then family u8 │ prefix length u8 │ flags u8 │ scope u8 │ index u32, then attributes:
//!          ┌ length u16 │ type u16 │ value …, padded to 4 ┐ …     IFA_ADDRESS (1) holds the address of the block,
//!                                              IFA_LOCAL (2) the box's own where the two differ, as on tunnels
//! ```
//! Numbers are in the byte order of the machine.

use std::io;
use std::net::IpAddr;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::net::cidr::Cidr;

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const HEADER_LENGTH: usize = 16;
const IFADDRMSG_LENGTH: usize = 8;

/// The kernel fills at most this much per answer unless asked with a larger buffer.
const ANSWER_BYTES_MAX: usize = 32 * 1024;
/// A box with more addresses than fit into this many answers is not one Larder is made for.
const ANSWERS_MAX: usize = 64;

/// An address of the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configured {
    /// The address.
    pub address: IpAddr,
    /// The block that is reached through its interface.
    pub block: Cidr,
}

/// Returns every address on every interface. Does not wait: the kernel answers at once.
///
/// # Errors
/// What the system says.
pub fn configured() -> io::Result<Vec<Configured>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut request = Vec::with_capacity(HEADER_LENGTH + IFADDRMSG_LENGTH);
    request.extend_from_slice(&24_u32.to_ne_bytes());
    request.extend_from_slice(&RTM_GETADDR.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 4 + 4 + IFADDRMSG_LENGTH]);
    send(&socket, &request, SendFlags::empty())?;

    let mut found = Vec::new();
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    for _ in 0..ANSWERS_MAX {
        let (_, length) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
        let answer = answer.get(..length).ok_or_else(malformed)?;
        if read_answer(answer, &mut found)? == More::No {
            return Ok(found);
        }
    }
    Err(malformed())
}

#[derive(PartialEq, Eq, Debug)]
enum More {
    Yes,
    No,
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected answer about the network interfaces")
}

/// Adds the addresses of one answer, which holds several messages.
fn read_answer(mut rest: &[u8], found: &mut Vec<Configured>) -> io::Result<More> {
    while !rest.is_empty() {
        let length = usize::try_from(read_u32(rest, 0).ok_or_else(malformed)?).map_err(|_| malformed())?;
        let message = rest.get(..length).filter(|_| length >= HEADER_LENGTH).ok_or_else(malformed)?;
        match read_u16(message, 4) {
            Some(NLMSG_DONE) => return Ok(More::No),
            Some(NLMSG_ERROR) => return Err(malformed()),
            Some(RTM_NEWADDR) => found.extend(read_address(&message[HEADER_LENGTH..])),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(More::Yes)
}

/// Reads one address message. A prefix of no bits at all would open Larder to everyone and is passed over.
fn read_address(message: &[u8]) -> Option<Configured> {
    let prefix = *message.get(1).filter(|prefix| **prefix > 0)?;
    let mut attributes = message.get(IFADDRMSG_LENGTH..)?;
    let (mut of_block, mut own) = (None, None);
    while let Some(length) = read_u16(attributes, 0) {
        let length = usize::from(length);
        let attribute = attributes.get(..length)?;
        match read_u16(attribute, 2)? {
            IFA_ADDRESS => of_block = read_ip(attribute.get(4..)?),
            IFA_LOCAL => own = read_ip(attribute.get(4..)?),
            _ => {}
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    let of_block = of_block?;
    Some(Configured { address: own.unwrap_or(of_block), block: Cidr::new(of_block, prefix)? })
}

fn read_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback interface is always there, with its well-known address and block.
    #[test]
    fn finds_the_loopback_address() {
        let found = configured().unwrap();
        let loopback = Configured { address: [127, 0, 0, 1].into(), block: Cidr::parse("127.0.0.1/8").unwrap() };
        assert!(found.contains(&loopback), "{found:?}");
    }

    /// Answers cut at any byte are an error or fewer blocks, never a panic or an endless loop.
    #[test]
    fn survives_cut_answers() {
        let mut answer = Vec::new();
        answer.extend_from_slice(&32_u32.to_ne_bytes());
        answer.extend_from_slice(&RTM_NEWADDR.to_ne_bytes());
        answer.extend_from_slice(&[0; 10]);
        answer.extend_from_slice(&[2, 24, 0, 0, 1, 0, 0, 0]);
        answer.extend_from_slice(&8_u16.to_ne_bytes());
        answer.extend_from_slice(&IFA_ADDRESS.to_ne_bytes());
        answer.extend_from_slice(&[192, 0, 2, 7]);
        for cut in 0..answer.len() {
            let _ = read_answer(&answer[..cut], &mut Vec::new());
        }
        let mut found = Vec::new();
        assert_eq!(read_answer(&answer, &mut found).unwrap(), More::Yes);
        let own = Configured { address: [192, 0, 2, 7].into(), block: Cidr::parse("192.0.2.0/24").unwrap() };
        assert_eq!(found, [own]);
        for garbage in [[0_u8; 64], [1; 64], [0xff; 64]] {
            let _ = read_answer(&garbage, &mut Vec::new());
        }
    }
}
