//! How what was found out is shown: for a person at a terminal, for a file, for a script.
//!
//! Owns [`Printer`]. Called by `app` with each check as it comes; calls nothing. Pure: the text goes to whatever can be
//! written to.
//!
//! ```text
//! ✓ dns            tls://192.0.2.1:853: proxy.example is 198.51.100.7, in 12 ms        on a terminal, in colour
//! FAIL dns         tls://192.0.2.1:853: certificate expired on 2024-05-01              elsewhere
//!                  hint: the server's operator has to renew it
//! ```

use std::io::{self, Write};

use serde_json::json;

use crate::check::{Check, Outcome};

/// The form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Marks in colour.
    Marks,
    /// Plain words.
    Words,
    /// One JSON object at the end: `{"ok": …, "checks": […]}`.
    Json,
}

/// Wide enough for `checksum database`, the longest step.
const STEP_WIDTH: usize = 17;

/// Shows checks as they come.
#[derive(Debug)]
pub struct Printer<W> {
    out: W,
    form: Form,
    seen: Vec<Check>,
}

impl<W: Write> Printer<W> {
    /// Makes a printer that writes to `out`.
    pub fn new(out: W, form: Form) -> Self {
        Self { out, form, seen: Vec::new() }
    }

    /// Shows one check.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn show(&mut self, check: Check) -> io::Result<()> {
        let indent = match self.form {
            Form::Marks => 2,
            Form::Words => 5,
            Form::Json => {
                self.seen.push(check);
                return Ok(());
            }
        };
        let mark = mark(check.outcome, self.form);
        let subject = if check.subject.is_empty() { String::new() } else { format!("{}: ", check.subject) };
        let took = check.took.map(|took| format!(", in {} ms", took.as_millis().max(1))).unwrap_or_default();
        writeln!(self.out, "{mark} {:STEP_WIDTH$} {}", check.step, clean(&format!("{subject}{}{took}", check.text)))?;
        if let Some(hint) = &check.hint {
            writeln!(self.out, "{:indent$}{:STEP_WIDTH$} hint: {}", "", "", clean(hint))?;
        }
        self.seen.push(check);
        self.out.flush()
    }

    /// Ends the report, and returns whether nothing has failed.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn finish(mut self) -> io::Result<bool> {
        let count = |outcome| self.seen.iter().filter(|check| check.outcome == outcome).count();
        let (failed, warned) = (count(Outcome::Fail), count(Outcome::Warn));
        if self.form == Form::Json {
            writeln!(self.out, "{:#}", json!({ "ok": failed == 0, "checks": self.seen }))?;
            return Ok(failed == 0);
        }
        let mut steps: Vec<&str> =
            self.seen.iter().filter(|check| check.outcome == Outcome::Fail).map(|check| check.step).collect();
        steps.dedup();
        match (failed, warned) {
            (0, 0) => writeln!(self.out, "all is well")?,
            (0, _) => writeln!(self.out, "it works; look at the warnings ({warned})")?,
            (_, _) => writeln!(self.out, "{failed} of {} failed: {}", self.seen.len(), steps.join(", "))?,
        }
        Ok(failed == 0)
    }
}

fn mark(outcome: Outcome, form: Form) -> &'static str {
    match (form, outcome) {
        (Form::Marks, Outcome::Pass) => "\x1b[32m✓\x1b[0m",
        (Form::Marks, Outcome::Warn) => "\x1b[33m!\x1b[0m",
        (Form::Marks, Outcome::Fail) => "\x1b[31m✗\x1b[0m",
        (Form::Marks, Outcome::Skip) => "\x1b[2m–\x1b[0m",
        (Form::Words | Form::Json, Outcome::Pass) => "ok  ",
        (Form::Words | Form::Json, Outcome::Warn) => "warn",
        (Form::Words | Form::Json, Outcome::Fail) => "FAIL",
        (Form::Words | Form::Json, Outcome::Skip) => "skip",
    }
}

/// Leaves out what a terminal would act on: names and texts come from other machines.
fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '·' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown(form: Form, checks: Vec<Check>) -> (String, bool) {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, form);
        for check in checks {
            printer.show(check).unwrap();
        }
        let ok = printer.finish().unwrap();
        (String::from_utf8(out).unwrap(), ok)
    }

    fn some() -> Vec<Check> {
        vec![
            Check::new("clock", "", Outcome::Pass, "2026-11-21"),
            Check::new("dns", "udp://192.0.2.1:53", Outcome::Warn, "slow").took(Duration::from_millis(1500)),
            Check::new("proxy", "", Outcome::Skip, "none"),
            Check::new("disk", "/srv", Outcome::Fail, "bad \x1b[31m name").hint("mend it"),
        ]
    }

    /// A terminal gets coloured marks; nothing from outside can colour it.
    #[test]
    fn on_a_terminal() {
        let (text, ok) = shown(Form::Marks, some());
        let expected = "\x1b[32m✓\x1b[0m clock             2026-11-21\n\
                        \x1b[33m!\x1b[0m dns               udp://192.0.2.1:53: slow, in 1500 ms\n\
                        \x1b[2m–\x1b[0m proxy             none\n\
                        \x1b[31m✗\x1b[0m disk              /srv: bad ·[31m name\n\
                        \x20                   hint: mend it\n\
                        1 of 4 failed: disk\n";
        assert_eq!((text.as_str(), ok), (expected, false));
    }

    /// Elsewhere there are words in their place, and no escape sequences.
    #[test]
    fn elsewhere() {
        let (text, _) = shown(Form::Words, some());
        assert!(text.starts_with("ok   clock             2026-11-21\nwarn dns "), "{text}");
        assert!(text.contains("\nFAIL disk ") && text.contains("\nskip proxy ") && !text.contains('\x1b'), "{text}");
        let (text, ok) = shown(Form::Words, some().into_iter().take(2).collect());
        assert!(ok && text.ends_with("it works; look at the warnings (1)\n"), "{text}");
        let (text, ok) = shown(Form::Words, some().into_iter().take(1).collect());
        assert!(ok && text.ends_with("all is well\n"), "{text}");
    }

    /// A script gets one object with every check, and whether all is well.
    #[test]
    fn as_json() {
        let (text, _) = shown(Form::Json, some());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["checks"].as_array().unwrap().len(), 4);
        assert_eq!(
            value["checks"][3],
            json!({"step": "disk", "subject": "/srv", "outcome": "fail",
                   "text": "bad \u{1b}[31m name", "hint": "mend it"})
        );
    }
}
