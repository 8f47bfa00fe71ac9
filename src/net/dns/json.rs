//! The JSON form of DNS over HTTPS: `application/dns-json`, as the `/resolve` addresses of some providers speak it.
//!
//! Called by `https`; calls `reply`. There is no RFC; this is read:
//!
//! ```text
//! {"Status": 0, "TC": false,
//!  "Question": [{"name": "a.example.", "type": 1}],
//!  "Answer": [{"name": "a.example.", "type": 1, "TTL": 300, "data": "192.0.2.1"}],
//!  "Authority": [{"name": "example", "type": 6, "TTL": 900, "data": "ns. admin. 1 2 3 4 300"}]}
//! ```
//!
//! What providers do differently is taken as well: a question that is an object, absent or null lists, types and TTLs as
//! text, TTLs as fractions, names with or without the dot, data in quotes.
//!
//! Invariant: whatever the bytes are, the outcome is a reply with at most [`RECORDS_MAX`] records or an error; the caller
//! bounds the bytes, `serde_json` the depth. Source: developers.google.com/speed/public-dns/docs/doh/json.

use serde_json::Value;

use crate::net::dns::reply::{Data, Question, RECORDS_MAX, Record, Reply, sane_ttl};

const TYPE_A: u64 = 1;
const TYPE_NS: u64 = 2;
const TYPE_CNAME: u64 = 5;
const TYPE_SOA: u64 = 6;
const TYPE_AAAA: u64 = 28;

/// Reads the answer to `question`.
///
/// # Errors
/// It is not JSON of this form, or answers another question.
pub(super) fn read(body: &[u8], question: &Question) -> Result<Reply, String> {
    let value: Value = serde_json::from_slice(body).map_err(|_| "sent something that is not JSON".to_owned())?;
    // Without a status it is some other service's JSON: an error page, a login.
    let status = value.get("Status").and_then(number);
    let Some(code) = status.and_then(|status| u16::try_from(status).ok()) else {
        return Err("sent JSON that is not an answer of the DNS: it has no Status".to_owned());
    };
    let asked = match value.get("Question") {
        Some(Value::Array(list)) => list.first(),
        Some(one @ Value::Object(_)) => Some(one),
        _ => None,
    };
    if let Some(name) = asked.and_then(|asked| asked.get("name")).and_then(Value::as_str)
        && plain(name) != question.text
    {
        return Err("answered another question than the one asked".to_owned());
    }
    let mut reply = Reply { code, is_truncated: value.get("TC") == Some(&Value::Bool(true)), ..Reply::default() };
    for entry in list(&value, "Answer") {
        reply.records.extend(record(entry));
    }
    let mut has_name_servers = false;
    for entry in list(&value, "Authority") {
        match entry.get("type").and_then(kind) {
            Some(TYPE_SOA) => {
                let minimum = text(entry, "data").and_then(|data| data.split_ascii_whitespace().nth(6)?.parse().ok());
                let ttl_s = ttl(entry);
                reply.negative_ttl_s = Some(minimum.map_or(ttl_s, |minimum: u32| ttl_s.min(sane_ttl(minimum))));
            }
            Some(TYPE_NS) => has_name_servers = true,
            _ => {}
        }
    }
    reply.is_referral = has_name_servers && reply.records.is_empty() && reply.negative_ttl_s.is_none();
    Ok(reply)
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().take(RECORDS_MAX)
}

fn record(entry: &Value) -> Option<Record> {
    let owner = plain(text(entry, "name")?);
    let data = text(entry, "data")?.trim_matches('"');
    let data = match entry.get("type").and_then(kind)? {
        TYPE_A => Data::Address(data.parse::<std::net::Ipv4Addr>().ok()?.into()),
        TYPE_AAAA => Data::Address(data.parse::<std::net::Ipv6Addr>().ok()?.into()),
        TYPE_CNAME => Data::Alias(plain(data)),
        _ => return None,
    };
    Some(Record { owner, ttl_s: ttl(entry), data })
}

fn text<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    entry.get(key).and_then(Value::as_str)
}

/// A TTL that is absent or makes no sense counts as zero: the answer is used, not kept.
fn ttl(entry: &Value) -> u32 {
    let seconds = entry.get("TTL").or_else(|| entry.get("ttl")).and_then(number);
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).map_or(0, sane_ttl)
}

/// Returns a type, which is a number or, with some providers, its name.
fn kind(value: &Value) -> Option<u64> {
    match value.as_str() {
        Some(name) if name.eq_ignore_ascii_case("A") => Some(TYPE_A),
        Some(name) if name.eq_ignore_ascii_case("AAAA") => Some(TYPE_AAAA),
        Some(name) if name.eq_ignore_ascii_case("CNAME") => Some(TYPE_CNAME),
        Some(name) if name.eq_ignore_ascii_case("SOA") => Some(TYPE_SOA),
        Some(name) if name.eq_ignore_ascii_case("NS") => Some(TYPE_NS),
        _ => number(value),
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64().filter(|float| (0.0..=f64::from(u32::MAX)).contains(float))?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the line above bounds it")]
            Some(float as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dns::reply::{Family, Meaning};

    fn shown(body: &str) -> String {
        let question = Question::new("a.example", Family::V4).unwrap();
        match read(body.as_bytes(), &question).map(|reply| reply.meaning(&question)) {
            Ok(Meaning::Addresses(addresses, ttl_s)) => format!("{addresses:?} {ttl_s}"),
            Ok(Meaning::Absent { is_no_such_name, ttl_s }) => format!("absent {is_no_such_name} {ttl_s:?}"),
            Ok(Meaning::Alias(name, ttl_s)) => format!("alias {name} {ttl_s}"),
            Ok(Meaning::Failure(text)) => format!("failure {text}"),
            Err(text) => format!("error {text}"),
        }
    }

    /// Answers as providers write them, each in its own way.
    #[test]
    fn shapes() {
        for (body, expected) in [
            (
                r#"{"Status":0,"TC":false,"Question":[{"name":"a.example.","type":1}],
                    "Answer":[{"name":"a.example.","type":1,"TTL":300,"data":"192.0.2.1"}]}"#,
                "[192.0.2.1] 300",
            ),
            (
                r#"{"Status":0,"Question":{"name":"A.example"},"Answer":[{"name":"a.example","type":"A","TTL":"60","data":"\"192.0.2.1\""}]}"#,
                "[192.0.2.1] 60",
            ),
            (
                r#"{"Status":"0","Answer":[{"name":"a.example","type":1,"TTL":59.7,"data":"192.0.2.1"}]}"#,
                "[192.0.2.1] 59",
            ),
            (r#"{"Status":0,"Answer":[{"name":"a.example","type":1,"TTL":-1,"data":"192.0.2.1"}]}"#, "[192.0.2.1] 0"),
            (
                r#"{"Status":0,"Answer":[{"name":"a.example","type":1,"TTL":1e300,"data":"192.0.2.1"}]}"#,
                "[192.0.2.1] 0",
            ),
            (r#"{"Status":0,"Answer":[{"name":"a.example","type":1,"data":"192.0.2.1"}]}"#, "[192.0.2.1] 0"),
            (
                r#"{"Status":0,"Answer":[{"name":"a.example.","type":5,"TTL":20,"data":"B.example."},
                    {"name":"b.example.","type":1,"TTL":30,"data":"192.0.2.1"}]}"#,
                "[192.0.2.1] 20",
            ),
            (
                r#"{"Status":3,"Authority":[{"name":"example","type":6,"TTL":900,"data":"ns. a. 1 2 3 4 300"}]}"#,
                "absent true Some(300)",
            ),
            (r#"{"Status":0,"Answer":null,"Authority":[{"type":6,"TTL":900,"data":"odd"}]}"#, "absent false Some(900)"),
            (r#"{"Status":0}"#, "absent false None"),
            (
                r#"{"Status":0,"Answer":[1,null,[],{},{"name":7,"type":1,"data":{}},{"name":"a.example","type":1,"data":"1.2"}]}"#,
                "absent false None",
            ),
            (r#"{"Status":0,"Answer":{"name":"a.example"}}"#, "absent false None"),
            (r#"{"Status":2,"Comment":"x"}"#, "failure server failure (SERVFAIL)"),
            (r#"{"Status":70000}"#, "error sent JSON that is not an answer of the DNS: it has no Status"),
            (r#"{"error":"no key"}"#, "error sent JSON that is not an answer of the DNS: it has no Status"),
            ("[]", "error sent JSON that is not an answer of the DNS: it has no Status"),
            ("<html>", "error sent something that is not JSON"),
            ("", "error sent something that is not JSON"),
            (r#"{"Status":0,"Question":[{"name":"b.example"}]}"#, "error answered another question than the one asked"),
        ] {
            assert_eq!(shown(body), expected, "{body}");
        }
    }

    /// What means harm costs little: depth, number, and aliases without end.
    #[test]
    fn malice() {
        assert_eq!(shown(&"[".repeat(60_000)), "error sent something that is not JSON");
        let one = r#"{"name":"a.example","type":1,"TTL":1,"data":"192.0.2.1"}"#;
        let many = vec![one; 1000].join(",");
        let question = Question::new("a.example", Family::V4).unwrap();
        let reply = read(format!(r#"{{"Status":0,"Answer":[{many}]}}"#).as_bytes(), &question).unwrap();
        assert_eq!(reply.records.len(), RECORDS_MAX);
        let circle = r#"{"Status":0,"Answer":[{"name":"a.example","type":5,"data":"a.example"}]}"#;
        assert_eq!(shown(circle), "failure its aliases lead in a circle");
    }
}
