//! The address blocks configured on the box's own network interfaces.
//!
//! Called by `access`; asks the kernel over a netlink socket, as `getifaddrs(3)` does, which says exactly which prefix
//! belongs to which address; the files under `/proc/net` only show it mixed with routes. A sandbox must allow
//! `AF_NETLINK`. Source: rtnetlink(7).
//!
//! ```text
//! request  ┌ length u32 │ type u16 │ flags u16 │ sequence u32 │ port u32 ┐┌ family u8 │ 3 bytes │ index u32 ┐
//!          └──────────── message header, 16 bytes ─────────────────────┘└─── struct ifaddrmsg, 8 bytes ──┘
//! answer   the same header, then family u8 │ prefix length u8 │ flags u8 │ scope u8 │ index u32, then attributes:
//!          ┌ length u16 │ type u16 │ value …, padded to 4 ┐ …     IFA_ADDRESS (1) holds the address of the block
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
const HEADER_LENGTH: usize = 16;
const IFADDRMSG_LENGTH: usize = 8;

/// The kernel fills at most this much per answer unless asked with a larger buffer.
const ANSWER_BYTES_MAX: usize = 32 * 1024;
/// A box with more addresses than fit into this many answers is not one Larder is made for.
const ANSWERS_MAX: usize = 64;

/// Returns the address block of every address on every interface. Does not wait: the kernel answers at once.
pub(super) fn configured_blocks() -> io::Result<Vec<Cidr>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut request = Vec::with_capacity(HEADER_LENGTH + IFADDRMSG_LENGTH);
    request.extend_from_slice(&24_u32.to_ne_bytes());
    request.extend_from_slice(&RTM_GETADDR.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 4 + 4 + IFADDRMSG_LENGTH]);
    send(&socket, &request, SendFlags::empty())?;

    let mut blocks = Vec::new();
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    for _ in 0..ANSWERS_MAX {
        let (_, length) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
        let answer = answer.get(..length).ok_or_else(malformed)?;
        if read_answer(answer, &mut blocks)? == More::No {
            return Ok(blocks);
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

/// Adds the blocks of one answer, which holds several messages.
fn read_answer(mut rest: &[u8], blocks: &mut Vec<Cidr>) -> io::Result<More> {
    while !rest.is_empty() {
        let length = usize::try_from(read_u32(rest, 0).ok_or_else(malformed)?).map_err(|_| malformed())?;
        let message = rest.get(..length).filter(|_| length >= HEADER_LENGTH).ok_or_else(malformed)?;
        match read_u16(message, 4) {
            Some(NLMSG_DONE) => return Ok(More::No),
            Some(NLMSG_ERROR) => return Err(malformed()),
            Some(RTM_NEWADDR) => blocks.extend(read_block(&message[HEADER_LENGTH..])),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(More::Yes)
}

/// Reads one address message. A prefix of no bits at all would open Larder to everyone and is passed over.
fn read_block(message: &[u8]) -> Option<Cidr> {
    let prefix = *message.get(1)?;
    let mut attributes = message.get(IFADDRMSG_LENGTH..)?;
    while let Some(length) = read_u16(attributes, 0) {
        let length = usize::from(length);
        let attribute = attributes.get(..length)?;
        if read_u16(attribute, 2)? == IFA_ADDRESS {
            let value = attribute.get(4..)?;
            let addr = match value.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
                _ => return None,
            };
            return Cidr::new(addr, prefix).filter(|_| prefix > 0);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
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

    /// The loopback interface is always there, with its well-known block.
    #[test]
    fn finds_the_loopback_block() {
        let blocks = configured_blocks().unwrap();
        assert!(blocks.contains(&Cidr::parse("127.0.0.1/8").unwrap()), "{blocks:?}");
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
        let mut blocks = Vec::new();
        assert_eq!(read_answer(&answer, &mut blocks).unwrap(), More::Yes);
        assert_eq!(blocks, [Cidr::parse("192.0.2.7/24").unwrap()]);
        for garbage in [[0_u8; 64], [1; 64], [0xff; 64]] {
            let _ = read_answer(&garbage, &mut Vec::new());
        }
    }
}
