//! What was found out about one step of the way out: by `larder doctor`, and by the running service for `/health`.
//!
//! Owns [`Check`], a plain value. Made by `net`, `doctor` and `server::admin`; calls nothing. Texts hold no secrets:
//! whoever makes a check names servers by their redacted names.

use std::time::Duration;

use serde::Serialize;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did what it should.
    Pass,
    /// It works, but somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
    /// It was not tried, and need not be.
    Skip,
}

/// One step of the way out, as it was when somebody last looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which step: `configuration`, `clock`, `dns`, `proxy`, `tls`, `upstream`, `checksum database`, `disk`, `lan`.
    pub step: &'static str,
    /// Whom it is about: a server, an upstream, a folder; empty where there is only one.
    pub subject: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What happened, without a period.
    pub text: String,
    /// What to change, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(rename = "ms", skip_serializing_if = "Option::is_none", serialize_with = "milliseconds")]
    pub took: Option<Duration>,
    /// How long ago that was, in seconds; absent for what was looked at just now.
    #[serde(rename = "age_s", skip_serializing_if = "Option::is_none", serialize_with = "seconds")]
    pub age: Option<Duration>,
}

impl Check {
    /// Makes a check of `step`, to which a hint and a time can be added.
    pub fn new(step: &'static str, subject: impl Into<String>, outcome: Outcome, text: impl Into<String>) -> Self {
        Self { step, subject: subject.into(), outcome, text: text.into(), hint: None, took: None, age: None }
    }

    /// Adds what to change.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds how long it took.
    #[must_use]
    pub fn took(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn milliseconds<S: serde::Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    // Tenths are as fine as anybody can use.
    took.map(|took| (took.as_secs_f64() * 10_000.0).round() / 10.0).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn seconds<S: serde::Serializer>(age: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    age.map(|age| age.as_secs()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check's JSON has times in the units their names say, and nothing for what is not known.
    #[test]
    fn as_json() {
        let check = Check::new("dns", "udp://192.0.2.1:53", Outcome::Fail, "no answer").hint("try another");
        let expected = r#"{"step":"dns","subject":"udp://192.0.2.1:53","outcome":"fail","text":"no answer","hint":"try another","ms":1.5}"#;
        assert_eq!(serde_json::to_string(&check.took(Duration::from_micros(1500))).unwrap(), expected);
    }
}
