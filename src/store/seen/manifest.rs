//! The manifest of a set of seen module versions: the one file that says what is true.
//!
//! Called by [`super`]; calls [`durable`]. Invariant: a manifest that is read is one that was written, byte for byte.
//!
//! ```text
//! larder seen 1 CRC32              of all that follows, eight hex digits
//! salt HEX                         32 digits
//! reach 16384                      records below this number are in the runs
//! next 17                          the id of the next run
//! repetitions 3                    said again with equal hashes, so far as merging has found it
//! settled 16384 4                  a reach at which all runs were compared, and how many repetitions there were
//! conflict 17 94                   two records of one module version with different hashes; a line each
//! run ID LEVEL ENTRIES CRC32       a line each, in hex but for the level and the number of entries
//! state                            all that follows is the caller's own text
//! …
//! ```

use std::fmt::Write as _;
use std::path::Path;

use super::run::Run;
use super::{Conflict, Findings, SALT_BYTES, SeenError, step};
use crate::store::durable;

const FIRST_LINE: &str = "larder seen 1 ";

/// The name of the file.
pub(super) const FILE: &str = "manifest";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) reach: u64,
    pub(super) next: u64,
    /// What merging has found. Repetitions between runs that are not merged yet are not in it.
    pub(super) findings: Findings,
    /// The reach at which all runs were compared, and the repetitions there were.
    pub(super) settled: Option<(u64, u64)>,
    pub(super) runs: Vec<Run>,
    pub(super) state: String,
}

impl Manifest {
    /// Reads the file; none if there is none.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, SeenError> {
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) if err.kind() == std::io::ErrorKind::InvalidData => return Err(SeenError::damaged(&path)),
            Err(err) => return Err(SeenError::at(&path, err)),
        };
        parse(&text).map(Some).ok_or_else(|| SeenError::damaged(&path))
    }

    /// Makes this what is true.
    pub(super) fn write(&self, own_folder: &Path, folder: &Path) -> Result<(), SeenError> {
        let path = folder.join(FILE);
        let body = self.text();
        let text = format!("{FIRST_LINE}{:08x}\n{body}", crc32fast::hash(body.as_bytes()));
        let written = step().and_then(|()| durable::replace_file(own_folder, &path, text.as_bytes()));
        written.and_then(|()| step()).map_err(|err| SeenError::at(&path, err))
    }

    fn text(&self) -> String {
        let salt = u128::from_be_bytes(self.salt);
        let mut text = format!("salt {salt:032x}\nreach {}\nnext {}\n", self.reach, self.next);
        // Writing to a string does not fail.
        let _ = writeln!(text, "repetitions {}", self.findings.repetitions);
        if let Some((reach, repetitions)) = self.settled {
            let _ = writeln!(text, "settled {reach} {repetitions}");
        }
        for Conflict { first, second } in &self.findings.conflicts {
            let _ = writeln!(text, "conflict {first} {second}");
        }
        for Run { id, level, entries, crc } in &self.runs {
            let _ = writeln!(text, "run {id:x} {level} {entries} {crc:08x}");
        }
        text + "state\n" + &self.state
    }
}

fn parse(text: &str) -> Option<Manifest> {
    let (crc, body) = text.strip_prefix(FIRST_LINE)?.split_once('\n')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(body.as_bytes()) {
        return None;
    }
    let (lines, state) = body.split_once("\nstate\n")?;
    let mut manifest = Manifest { state: state.to_owned(), ..Manifest::default() };
    for line in lines.lines() {
        let (key, rest) = line.split_once(' ')?;
        let words: Vec<&str> = rest.split(' ').collect();
        let number = |place: usize| words.get(place)?.parse::<u64>().ok();
        match key {
            "salt" => manifest.salt = u128::from_str_radix(rest, 16).ok()?.to_be_bytes(),
            "reach" => manifest.reach = number(0)?,
            "next" => manifest.next = number(0)?,
            "repetitions" => manifest.findings.repetitions = number(0)?,
            "settled" => manifest.settled = Some((number(0)?, number(1)?)),
            "conflict" => manifest.findings.conflict(number(0)?, number(1)?),
            "run" => manifest.runs.push(Run {
                id: u64::from_str_radix(words.first()?, 16).ok()?,
                level: words.get(1)?.parse().ok()?,
                entries: number(2)?,
                crc: u32::from_str_radix(words.get(3)?, 16).ok()?,
            }),
            _ => return None,
        }
    }
    Some(manifest)
}
