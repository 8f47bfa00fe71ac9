//! Records: what a database answers to a lookup, what of it counts, and how data tiles hold them.
//!
//! Called by `check`; calls `hash`, `name`. Pure. Invariant: go.sum lines are taken out of a record's text alone, and that
//! text is what its leaf hash covers; neither the number before it nor the note behind it ever is. Source:
//! `golang.org/x/mod/sumdb/tlog`, note.go; `cmd/go/internal/modfetch`, `checkSumDB`.
//!
//! ```text
//! 942                                                                         number          ┐
//! rsc.io/quote v1.5.2 h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=         ┐ text          │
//! rsc.io/quote v1.5.2/go.mod h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=  ┘               │ answer to a lookup
//!                                                                             first blank line│
//! go.sum database tree                                                        signed head     │
//! …                                                                                           ┘
//! ```
//!
//! A data tile holds the texts of up to 256 records, each with a blank line behind it.

use super::hash::Hash;
use super::head::decimal;
use super::name::LookupTarget;
use super::note::plain_text;
use crate::module::zip::hash::H1;

/// An answer to a lookup, taken apart. Nothing of it is proved yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupAnswer<'a> {
    /// The record's number, counted from 0.
    pub number: u64,
    /// The record's text: lines of go.sum.
    pub text: &'a str,
    /// The signed tree head, as it came.
    pub note: &'a [u8],
}

/// What a record says of one module version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoSum {
    /// The hash of the zip. A record without one says nothing good of a zip: the go command refuses it.
    pub zip: Option<H1>,
    /// The hash of the go.mod file.
    pub go_mod: Option<H1>,
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No number in the first line. A sign and leading zeros, which the go command would read, are none either.
    #[error("malformed record data: no record number")]
    NoNumber,
    /// No blank line behind the record.
    #[error("malformed record data: it does not end")]
    NoEnd,
    /// Not UTF-8, a control character, or a blank line within.
    #[error("malformed record data: not plain text")]
    NotText,
    /// A line for the module asked for, with a hash that is none.
    #[error("record of {target}: malformed hash {}", crate::module::Shown(.hash))]
    Hash {
        /// What was asked for.
        target: LookupTarget,
        /// What stands in place of the hash.
        hash: String,
    },
    /// A record, of another module or version.
    #[error("record of something else where {target} was asked for")]
    OfAnother {
        /// What was asked for.
        target: LookupTarget,
    },
}

impl<'a> LookupAnswer<'a> {
    /// Takes an answer apart.
    ///
    /// # Errors
    /// [`RecordError`] for what has not the form.
    pub fn parse(answer: &'a [u8]) -> Result<Self, RecordError> {
        let line = answer.iter().position(|b| *b == b'\n').ok_or(RecordError::NoNumber)?;
        let number = std::str::from_utf8(&answer[..line]).ok().and_then(decimal).ok_or(RecordError::NoNumber)?;
        let rest = &answer[line + 1..];
        let end = rest.windows(2).position(|pair| pair == b"\n\n").ok_or(RecordError::NoEnd)?;
        let text = record_text(&rest[..=end]).ok_or(RecordError::NotText)?;
        Ok(Self { number, text, note: &rest[end + 2..] })
    }
}

impl GoSum {
    /// Finds the lines for one module version in a record's text. Of several the first `h1:` counts, as for the go
    /// command; hashes of other kinds and lines for others are passed over.
    ///
    /// # Errors
    /// [`RecordError::OfAnother`] if there is no line for it, golang/go#79070. [`RecordError::Hash`] for a malformed hash.
    pub fn find(text: &str, target: &LookupTarget) -> Result<Self, RecordError> {
        let (path, version) = (target.path().as_str(), target.version());
        let find = |suffix: &str| {
            let prefix = format!("{path} {version}{suffix} ");
            let mut hashes = text.lines().filter_map(|line| line.strip_prefix(prefix.as_str()));
            let hash = hashes.find(|hash| hash.starts_with("h1:"));
            let malformed = |hash: &str| RecordError::Hash { target: target.clone(), hash: hash.to_owned() };
            hash.map(|hash| H1::parse(hash).ok_or_else(|| malformed(hash))).transpose()
        };
        let found = Self { zip: find("")?, go_mod: find("/go.mod")? };
        if found.zip.is_none() && found.go_mod.is_none() {
            return Err(RecordError::OfAnother { target: target.clone() });
        }
        Ok(found)
    }
}

/// Splits a data tile into the texts of its records; none if it does not consist of such.
pub fn data_tile_records(data: &[u8]) -> Option<Vec<&str>> {
    let mut records = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\n\n")?;
        records.push(record_text(&rest[..=end])?);
        rest = &rest[end + 2..];
    }
    Some(records)
}

/// Cuts the first `width` records out of a data tile that holds at least as many.
pub fn cut_data_tile(data: &[u8], width: u16) -> Option<&[u8]> {
    let mut end = 0;
    for _ in 0..width {
        end += data.get(end..)?.windows(2).position(|pair| pair == b"\n\n")? + 2;
    }
    data.get(..end)
}

/// Says whether the leaf hashes of these records are the ones given, one for one.
pub(super) fn are_records_of(records: &[&str], hashes: &[u8]) -> bool {
    hashes.len() == records.len() * 32
        && records.iter().zip(hashes.chunks_exact(32)).all(|(text, hash)| {
            let leaf = Hash::of_record(text.as_bytes());
            leaf.as_bytes() == hash
        })
}

/// Returns a record's text, if it is one: plain, no blank line, a newline at its end.
fn record_text(bytes: &[u8]) -> Option<&str> {
    let text = plain_text(bytes).ok()?;
    // A text that begins with a newline has no blank line by the go command's rule; it is read as that command reads it.
    (text.ends_with('\n') && !text.contains("\n\n")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::ModulePath;
    use crate::module::generate::vectors;

    fn target(path: &str, version: &str) -> LookupTarget {
        LookupTarget::new(ModulePath::parse(path).unwrap(), version).unwrap()
    }

    /// The record of every recorded lookup is found, hashed and read.
    #[test]
    fn records_agree_with_go() {
        for lookup in vectors("sumdb")["lookups"].as_array().unwrap() {
            let text = lookup["text"].as_str().unwrap();
            assert_eq!(lookup["leaf_hash"], Hash::of_record(text.as_bytes()).to_string());
            let answer = format!("{}\n{text}\nnote", lookup["id"]);
            let answer = LookupAnswer::parse(answer.as_bytes()).unwrap();
            assert_eq!((answer.text, answer.note), (text, &b"note"[..]));
            assert_eq!(lookup["id"], answer.number);
            let (path, version) = text.lines().next().unwrap().rsplit_once(' ').unwrap().0.split_once(' ').unwrap();
            let found = GoSum::find(text, &target(path, version)).unwrap();
            let lines =
                format!("{path} {version} {}\n{path} {version}/go.mod {}\n", found.zip.unwrap(), found.go_mod.unwrap());
            assert_eq!(lines, text);
        }
    }

    /// What has not the form is no answer.
    #[test]
    fn flaws_are_named() {
        let parse = |answer: &[u8]| LookupAnswer::parse(answer).map(|answer| answer.number);
        assert_eq!(parse(b"9223372036854775807\na\n\n"), Ok(9_223_372_036_854_775_807));
        for answer in [
            &b""[..],
            b"1",
            b"\na\n\n",
            b"-1\na\n\n",
            b"+1\na\n\n",
            b"01\na\n\n",
            b"1 \na\n\n",
            b"9223372036854775808\na\n\n",
        ] {
            assert_eq!(parse(answer), Err(RecordError::NoNumber), "{answer:?}");
        }
        assert_eq!((parse(b"1\na\n"), parse(b"1\n")), (Err(RecordError::NoEnd), Err(RecordError::NoEnd)));
        for answer in [&b"1\na\tb\n\n"[..], b"1\na\r\n\n", b"1\na\xffb\n\n"] {
            assert_eq!(parse(answer), Err(RecordError::NotText), "{answer:?}");
        }
    }

    const H1_A: &str = "h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=";
    const H1_B: &str = "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=";

    /// golang/go#79070: a record of another module, of another version or of a longer name says nothing of the one asked
    /// for.
    #[test]
    fn issue_79070_a_record_of_another_module_does_not_count() {
        let quote = target("rsc.io/quote", "v1.5.2");
        let another = Err(RecordError::OfAnother { target: quote.clone() });
        for text in [
            format!("rsc.io/sampler v1.5.2 {H1_A}\n"),
            format!("rsc.io/quote v1.5.3 {H1_A}\nrsc.io/quote v1.5.3/go.mod {H1_A}\n"),
            format!("rsc.io/quote v1.5.20 {H1_A}\n"),
            format!("x/rsc.io/quote v1.5.2 {H1_A}\n"),
            format!("rsc.io/Quote v1.5.2 {H1_A}\n"),
            format!("rsc.io/quote v1.5.2/x {H1_A}\n"),
            "rsc.io/quote v1.5.2 h2:AAAA\n".to_owned(),
            "rsc.io/quote v1.5.2\n".to_owned(),
        ] {
            assert_eq!(GoSum::find(&text, &quote), another, "{text}");
        }
    }

    /// The first h1 of a module version counts; other kinds are passed over; a malformed one is an error.
    #[test]
    fn the_first_h1_counts() {
        let quote = target("rsc.io/quote", "v1.5.2");
        let [a, b] = [H1_A, H1_B].map(H1::parse);
        let find = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| format!("rsc.io/quote {line}\n")).collect();
            GoSum::find(&lines.concat(), &quote)
        };
        let line = |version: &str, hash: &str| format!("{version} {hash}");
        let (zip_a, zip_b, mod_b) = (line("v1.5.2", H1_A), line("v1.5.2", H1_B), line("v1.5.2/go.mod", H1_B));
        assert_eq!(find(&[&zip_a]), Ok(GoSum { zip: a, go_mod: None }));
        assert_eq!(find(&[&mod_b]), Ok(GoSum { zip: None, go_mod: b }));
        assert_eq!(find(&["v1.5.2 h2:x", &zip_b, &zip_a, &mod_b]), Ok(GoSum { zip: b, go_mod: b }));
        for hash in ["h1:", "h1:uppercase!=", &(H1_A.to_owned() + " "), &(H1_A.to_owned() + "=")] {
            assert_eq!(
                find(&[&line("v1.5.2", hash)]),
                Err(RecordError::Hash { target: quote.clone(), hash: hash.to_owned() })
            );
        }
    }

    /// A data tile comes apart into its records, and nothing else is one.
    #[test]
    fn data_tiles_come_apart() {
        assert_eq!(data_tile_records(b"a 1\nb\n\nc\n\n"), Some(vec!["a 1\nb\n", "c\n"]));
        assert_eq!(data_tile_records(b""), Some(Vec::new()));
        for data in [&b"a"[..], b"a\n", b"a\n\nb\n", b"a\t\n\n"] {
            assert_eq!(data_tile_records(data), None);
        }
        let hashes = [Hash::of_record(b"a\n"), Hash::of_record(b"b\n")].map(|hash| *hash.as_bytes()).concat();
        assert!(are_records_of(&["a\n", "b\n"], &hashes));
        assert!(!are_records_of(&["b\n", "a\n"], &hashes));
        assert!(!are_records_of(&["a\n"], &hashes) && !are_records_of(&["a\n", "b\n"], &hashes[..63]));
    }
}
