//! What a host says and hears on port 53, as tcpdump saw it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::{Host, Process};
use crate::harness::wait_for;

/// A running watch.
pub(crate) struct Watch {
    host: Host,
    process: Process,
}

/// One packet of port 53.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// What tcpdump made of it.
    pub(crate) text: String,
}

impl Watch {
    pub(super) fn start(host: &Host) -> Option<Self> {
        if let Err(error) = std::process::Command::new("tcpdump").arg("--version").output() {
            println!("left out, it needs tcpdump: {error}");
            return None;
        }
        let args = ["-i", "any", "-nn", "-l", "-t", "--immediate-mode", "-Z", "root", "port", "53"];
        let mut process = host.spawn("tcpdump", &args);
        process.wait_until("it listens", |tcpdump| tcpdump.log().contains("listening on").then_some(()));
        Some(Self { host: host.clone(), process })
    }

    /// Returns every packet up to now.
    ///
    /// A packet that the watch sends itself marks the end: what came before it has been written once it has.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        let sender = self.host.inside(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let marker = sender.local_addr().unwrap();
        sender.send_to(b"end", (Ipv4Addr::LOCALHOST, 53)).unwrap();
        let log = wait_for("tcpdump sees the marker", || {
            let log = self.process.log();
            log.lines().filter_map(parse).any(|packet| packet.from == marker).then_some(log)
        });
        let of_a_marker =
            |packet: &Packet| packet.from.ip() == marker.ip() && packet.text.starts_with("domain [length 3 ");
        log.lines().filter_map(parse).take_while(|packet| packet.from != marker).filter(|p| !of_a_marker(p)).collect()
    }

    /// Returns the addresses whose port 53 was spoken to or from, other than the host's own.
    pub(crate) fn others(&self) -> Vec<IpAddr> {
        let own = self.host.addresses();
        let mut others: Vec<_> = self
            .packets()
            .iter()
            .flat_map(|packet| [packet.from, packet.to])
            .filter(|side| side.port() == 53 && !own.contains(&side.ip()))
            .map(|side| side.ip())
            .collect();
        others.sort();
        others.dedup();
        others
    }
}

/// Reads `eth1 Out IP 192.0.2.10.40000 > 198.51.100.53.53: 1234+ A? mirror.test. (29)`.
fn parse(line: &str) -> Option<Packet> {
    let (before, after) = line.split_once(" > ")?;
    let (to, text) = after.split_once(": ")?;
    let side = |text: &str| {
        let (address, port) = text.rsplit_once('.')?;
        Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
    };
    Some(Packet { from: side(before.rsplit(' ').next()?)?, to: side(to)?, text: text.to_owned() })
}
