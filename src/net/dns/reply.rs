//! What a DNS server says to one question, whichever way it was asked, and what that means for a name.
//!
//! Owns [`Question`] and [`Reply`]. Called by `exchange`, `https` and `json`, which make replies, and by `server`, which
//! follows them; calls hickory's reading and writing of messages.
//!
//! Invariants: only records along the chain of aliases that begins at the question's name count, whatever else the
//! answer holds; records, aliases and addresses looked at are bounded. Sources: RFC 1035, section 4; RFC 2181, section 8
//! (TTL); RFC 2308 (negative answers).

use std::net::IpAddr;

use trust_dns_resolver::proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query};
use trust_dns_resolver::proto::rr::{DNSClass, Name, RData, RecordType};

/// Records of one answer that are looked at.
pub(super) const RECORDS_MAX: usize = 256;
/// Addresses of one family that are kept.
const ADDRESSES_MAX: usize = 16;
/// Aliases of one answer that are followed.
const ALIASES_MAX: usize = 16;
/// Bytes of an answer over UDP that we announce to take, so that it is not fragmented (dnsflagday.net/2020).
pub(super) const DATAGRAM_BYTES_MAX: u16 = 1232;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4: A.
    V4,
    /// IPv6: AAAA.
    V6,
}

impl Family {
    pub(super) fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

/// Whether a question carries an EDNS record (RFC 6891), which servers of the nineties do not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dress {
    /// With EDNS.
    Edns,
    /// As in 1987.
    Plain,
}

/// A question for the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// In lower case, without the root's dot.
    pub(super) text: String,
    /// The same for messages.
    pub(super) name: Name,
    /// Which addresses.
    pub(super) family: Family,
}

impl Question {
    /// Makes a question. Fails for what cannot be a name in the DNS.
    pub(super) fn new(name: &str, family: Family) -> Result<Self, String> {
        let bare = name.strip_suffix('.').unwrap_or(name);
        // Whatever would be read as an escape, or is no ASCII, was no host in a URL either.
        let is_plain = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'"');
        let parsed = if is_plain { Name::from_ascii(bare).ok() } else { None };
        let Some(mut parsed) = parsed else {
            return Err(format!("{} is not a name that can be looked up", bare.escape_default()));
        };
        parsed.set_fqdn(true);
        Ok(Self { text: bare.to_ascii_lowercase(), name: parsed, family })
    }

    /// Returns the message that asks it.
    pub(super) fn message(&self, id: u16, dress: Dress) -> Message {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.queries.push(Query::query(self.name.clone(), self.family.record_type()));
        if dress == Dress::Edns {
            message.edns.get_or_insert_with(Edns::new).set_max_payload(DATAGRAM_BYTES_MAX);
        }
        message
    }
}

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// An address.
    Address(IpAddr),
    /// Another name, in lower case without the root's dot, where to go on.
    Alias(String),
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Whose it is; in lower case without the root's dot.
    pub(super) owner: String,
    /// For how many seconds it holds.
    pub(super) ttl_s: u32,
    /// What it says.
    pub(super) data: Data,
}

/// What a server said to one question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// The response code.
    pub(super) code: u16,
    /// Whether more would not fit.
    pub(super) is_truncated: bool,
    /// Addresses and aliases.
    pub(super) records: Vec<Record>,
    /// For how many seconds it holds that there is nothing, if the server said so.
    pub(super) negative_ttl_s: Option<u32>,
    /// Whether the server only names others to ask.
    pub(super) is_referral: bool,
}

/// What a reply means for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It has addresses, which hold for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// It is another name, whose addresses are not in the reply; that holds for so many seconds.
    Alias(String, u32),
    /// There are none.
    Absent {
        /// Whether the name itself does not exist.
        is_no_such_name: bool,
        /// For how many seconds that holds, if the server said so.
        ttl_s: Option<u32>,
    },
    /// The server could not say.
    Failure(String),
}

impl Reply {
    /// Reads a message that should answer `question`.
    ///
    /// # Errors
    /// It is no answer, or one to another question.
    pub(super) fn of_message(message: &Message, question: &Question) -> Result<Self, String> {
        let Metadata { message_type, op_code, truncation, response_code, .. } = message.metadata;
        if message_type != MessageType::Response || op_code != OpCode::Query {
            return Err("sent something else than an answer".to_owned());
        }
        // Some servers leave the question out of errors.
        let is_error = !matches!(u16::from(response_code), 0 | 3);
        let is_ours = |query: &Query| {
            query.name == question.name
                && query.query_type == question.family.record_type()
                && query.query_class == DNSClass::IN
        };
        let is_asked = match message.queries.as_slice() {
            [] => is_error,
            [query] => is_ours(query),
            _ => false,
        };
        if !is_asked {
            return Err("answered another question than the one asked".to_owned());
        }
        let mut reply = Self { code: response_code.into(), is_truncated: truncation, ..Self::default() };
        for record in message.answers.iter().take(RECORDS_MAX).filter(|record| record.dns_class == DNSClass::IN) {
            let data = match &record.data {
                RData::A(address) => Data::Address(IpAddr::V4(address.0)),
                RData::AAAA(address) => Data::Address(IpAddr::V6(address.0)),
                RData::CNAME(target) => Data::Alias(plain(target)),
                _ => continue,
            };
            reply.records.push(Record { owner: plain(&record.name), ttl_s: sane_ttl(record.ttl), data });
        }
        let mut has_name_servers = false;
        for record in message.authorities.iter().take(RECORDS_MAX) {
            match &record.data {
                RData::SOA(soa) => reply.negative_ttl_s = Some(sane_ttl(record.ttl).min(sane_ttl(soa.minimum))),
                RData::NS(_) => has_name_servers = true,
                _ => {}
            }
        }
        reply.is_referral = has_name_servers && message.answers.is_empty() && reply.negative_ttl_s.is_none();
        Ok(reply)
    }

    /// Tells what this means for the name that was asked.
    pub(super) fn meaning(&self, question: &Question) -> Meaning {
        if !matches!(self.code, 0 | 3) {
            return Meaning::Failure(failure_text(self.code));
        }
        let (mut current, mut ttl_s, mut hops) = (question.text.as_str(), u32::MAX, 0);
        loop {
            let mut addresses = Vec::new();
            let mut useless = None;
            for record in self.records.iter().filter(|record| record.owner == current) {
                let Data::Address(address) = record.data else { continue };
                if address.is_ipv4() != (question.family == Family::V4) || addresses.len() == ADDRESSES_MAX {
                    continue;
                }
                if leads_nowhere(address) {
                    useless = Some(address);
                } else if !addresses.contains(&address) {
                    addresses.push(address);
                    ttl_s = ttl_s.min(record.ttl_s);
                }
            }
            if !addresses.is_empty() {
                return Meaning::Addresses(addresses, ttl_s);
            }
            if let Some(address) = useless {
                return Meaning::Failure(format!("answers {address}, which leads nowhere: it blocks this name"));
            }
            let alias = self.records.iter().find_map(|record| match &record.data {
                Data::Alias(target) if record.owner == current => Some((target, record.ttl_s)),
                Data::Alias(_) | Data::Address(_) => None,
            });
            let Some((target, alias_ttl_s)) = alias else { break };
            hops += 1;
            if hops > ALIASES_MAX || *target == question.text {
                return Meaning::Failure("its aliases lead in a circle".to_owned());
            }
            (current, ttl_s) = (target, ttl_s.min(alias_ttl_s));
        }
        if self.code == 3 {
            return Meaning::Absent { is_no_such_name: true, ttl_s: self.negative_ttl_s };
        }
        if hops > 0 && self.negative_ttl_s.is_none() {
            return Meaning::Alias(current.to_owned(), ttl_s);
        }
        if self.is_referral {
            return Meaning::Failure(
                "names other servers instead of answering: it does not look names up for us".into(),
            );
        }
        Meaning::Absent { is_no_such_name: false, ttl_s: self.negative_ttl_s }
    }
}

/// A TTL with the highest bit set counts as zero (RFC 2181, section 8).
pub(super) fn sane_ttl(ttl_s: u32) -> u32 {
    if ttl_s > u32::MAX >> 1 { 0 } else { ttl_s }
}

fn plain(name: &Name) -> String {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

/// Nobody's server has such an address; connecting to some of them would end at this very machine.
fn leads_nowhere(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    address.is_unspecified() || address.is_multicast() || is_broadcast
}

fn failure_text(code: u16) -> String {
    match code {
        1 => "does not understand the question (FORMERR)".to_owned(),
        2 => "server failure (SERVFAIL)".to_owned(),
        4 => "does not do look-ups (NOTIMP)".to_owned(),
        5 => "refuses to answer us (REFUSED)".to_owned(),
        9 => "is not responsible (NOTAUTH)".to_owned(),
        other => format!("answers with response code {other}"),
    }
}

#[cfg(test)]
mod tests {
    use trust_dns_resolver::proto::op::ResponseCode;

    use super::*;
    use crate::net::dns::testing::{code, records, reply, with_ns, with_soa};

    fn meaning(family: Family, answer: impl Fn(&Message) -> Message) -> Result<String, String> {
        let question = Question::new("A.Example.", family).unwrap();
        // Over the wire and back, as servers do.
        let bytes = answer(&question.message(7, Dress::Edns)).to_vec().unwrap();
        let reply = Reply::of_message(&Message::from_vec(&bytes).unwrap(), &question)?;
        Ok(match reply.meaning(&question) {
            Meaning::Addresses(addresses, ttl_s) => format!("{addresses:?} {ttl_s}"),
            Meaning::Alias(name, ttl_s) => format!("alias {name} {ttl_s}"),
            Meaning::Absent { is_no_such_name, ttl_s } => format!("absent {is_no_such_name} {ttl_s:?}"),
            Meaning::Failure(text) => format!("failure {text}"),
        })
    }

    fn of(answer: impl Fn(&Message) -> Message) -> String {
        meaning(Family::V4, answer).unwrap_or_else(|text| format!("error {text}"))
    }

    /// Only what is on the way from the name that was asked counts, with the shortest time on that way.
    #[test]
    fn chains() {
        for (answer, expected) in [
            (&["a.example 60 192.0.2.1", "a.example 30 192.0.2.2"][..], "[192.0.2.1, 192.0.2.2] 30"),
            (&["A.EXAMPLE 60 192.0.2.1", "a.example 60 192.0.2.1"], "[192.0.2.1] 60"),
            (&["other.example 60 192.0.2.1"], "absent false None"),
            (&["b.example 50 192.0.2.1", "a.example 40 B.example", "c.example 1 192.0.2.9"], "[192.0.2.1] 40"),
            (&["a.example 40 b.example", "b.example 90 c.example"], "alias c.example 40"),
            (&["a.example 40 b.example", "b.example 90 a.example"], "failure its aliases lead in a circle"),
            (&["a.example 40 b.example", "b.example 9 b.example"], "failure its aliases lead in a circle"),
            (&["a.example 4294967295 192.0.2.1"], "[192.0.2.1] 0"),
            (&["a.example 60 0.0.0.0"], "failure answers 0.0.0.0, which leads nowhere: it blocks this name"),
            (&["a.example 60 0.0.0.0", "a.example 60 192.0.2.1"], "[192.0.2.1] 60"),
        ] {
            assert_eq!(of(|query| records(query, answer)), expected, "{answer:?}");
        }
        let long = (0..20).map(|n| format!("{}.example 60 {}.example", char::from(b'a' + n), char::from(b'b' + n)));
        let long = long.collect::<Vec<_>>();
        let long = long.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of(|query| records(query, &long)), "failure its aliases lead in a circle");
        let six = meaning(Family::V6, |query| records(query, &["a.example 60 192.0.2.1", "a.example 60 2001:db8::1"]));
        assert_eq!(six.unwrap(), "[2001:db8::1] 60");
    }

    /// Absence is told from failure, and dated by the SOA record.
    #[test]
    fn absence_and_failure() {
        assert_eq!(of(|query| with_soa(code(query, ResponseCode::NXDomain), 900, 300)), "absent true Some(300)");
        assert_eq!(of(|query| code(query, ResponseCode::NXDomain)), "absent true None");
        assert_eq!(of(|query| with_soa(reply(query), 30, 300)), "absent false Some(30)");
        assert_eq!(of(reply), "absent false None");
        assert_eq!(of(|query| with_soa(records(query, &["a.example 9 b.example"]), 30, 300)), "absent false Some(30)");
        let mut gone = String::new();
        for kind in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr, ResponseCode::YXDomain] {
            gone = of(|query| code(query, kind));
            assert!(gone.starts_with("failure "), "{gone}");
        }
        assert_eq!(gone, "failure answers with response code 6");
        assert!(of(|query| with_ns(reply(query))).starts_with("failure names other servers"));
    }

    /// What is no answer, or one to another question, is none.
    #[test]
    fn other_questions() {
        let other = |query: &Message| {
            let mut answer = records(query, &["a.example 60 192.0.2.1"]);
            answer.queries[0].name = Name::from_ascii("b.example.").unwrap();
            answer
        };
        assert_eq!(of(other), "error answered another question than the one asked");
        let none = |query: &Message| {
            let mut answer = reply(query);
            answer.queries.clear();
            answer
        };
        assert_eq!(of(none), "error answered another question than the one asked");
        assert_eq!(of(Message::clone), "error sent something else than an answer");
        let bare_error = |query: &Message| {
            let mut answer = code(query, ResponseCode::ServFail);
            answer.queries.clear();
            answer
        };
        assert_eq!(of(bare_error), "failure server failure (SERVFAIL)");
    }

    /// An answer with thousands of addresses gives no more than can be used.
    #[test]
    fn huge_answers() {
        let many = (0..4000).map(|n| format!("a.example 60 192.0.{}.{}", n / 250, n % 250)).collect::<Vec<_>>();
        let many = many.iter().map(String::as_str).collect::<Vec<_>>();
        let shown = of(|query| records(query, &many));
        assert_eq!(shown.matches("192.0.").count(), ADDRESSES_MAX);
    }

    /// What cannot be a name in the DNS is not asked.
    #[test]
    fn no_names() {
        for name in ["", ".", "a b", "a\\046b", "a..b", "ü.example", &"a".repeat(64), &"abcdefg.".repeat(40)] {
            assert!(Question::new(name, Family::V4).is_err(), "{name}");
        }
        for name in ["localhost", "a_b.example", "xn--bcher-kva.example", "a.example."] {
            assert!(Question::new(name, Family::V4).is_ok(), "{name}");
        }
    }
}
