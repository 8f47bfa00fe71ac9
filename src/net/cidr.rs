//! Reads networks such as `192.168.0.0/16` and tells whether an address lies in one.
//!
//! Owns `Cidr`. Called by the configuration (`-allow`) and by the access rule of the server; calls nothing. Bits
//! behind the prefix are always zero, so two ways of writing one network are equal.
//! Source: RFC 4632 (IPv4), RFC 4291 section 2.3 (IPv6).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Makes a network of an address in it and the number of leading bits that count.
    ///
    /// Returns `None` if the address has fewer bits than that. An IPv4 address in IPv6 form stays what it is.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if prefix <= 32 => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask_v4(prefix))),
            IpAddr::V6(v6) if prefix <= 128 => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask_v6(prefix))),
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Self { address, prefix })
    }

    /// Reads `ADDRESS/BITS`, or an address alone, which is a network of one. The inverse of `Display`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                // `parse` alone would let a sign through.
                let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
                (address, Some(prefix.parse::<u8>().ok().filter(|_| digits)?))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self::new(address, prefix.unwrap_or(bits))
    }

    /// Tells whether the address lies in this network. An IPv4 client of an IPv6 socket counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same_family = |address| Self::new(address, self.prefix).is_some_and(|network| network == *self);
        same_family(address.to_canonical()) || same_family(address)
    }

    /// Returns the first address of the network.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns how many leading bits count.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network holds the addresses that share its leading bits, and no others.
    #[test]
    fn contains_by_prefix() {
        let cases = [
            ("192.168.0.0/16", "192.168.255.1", true),
            ("192.168.0.0/16", "192.169.0.1", false),
            ("192.168.7.9/16", "192.168.0.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.7", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("0.0.0.0/0", "::ffff:203.0.113.7", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.7", false),
            ("::ffff:0:0/96", "::ffff:10.1.2.3", true),
            ("fc00::/7", "fd12:3456::1", true),
            ("fc00::/7", "fe80::1", false),
            ("2001:db8::5/128", "2001:db8::5", true),
        ];
        for (network, address, expected) in cases {
            let network = Cidr::parse(network).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{network} {address}");
        }
    }

    /// What is printed reads back as the same network; what is not a network is refused.
    #[test]
    fn parse_and_print() {
        let cases =
            [("192.168.7.9/16", "192.168.0.0/16"), ("10.0.0.1", "10.0.0.1/32"), ("2001:db8::1/32", "2001:db8::/32")];
        for (text, printed) in cases {
            let network = Cidr::parse(text).unwrap();
            assert_eq!(network.to_string(), printed);
            assert_eq!(Cidr::parse(printed), Some(network));
        }
        for text in ["", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0/8", "eth0", " 10.0.0.1"] {
            assert_eq!(Cidr::parse(text), None, "{text:?}");
        }
    }
}
