//! A go.sum file: its lines, and how each stands to a record of the log. Pure.
//!
//! Called by the command verify. Source: `cmd/go/internal/modfetch/fetch.go`, readGoSum and checkModSum of Go 1.26.

use crate::module::ModulePath;
use crate::module::zip::hash::H1;
use crate::sumdb::check::ProvedRecord;
use crate::sumdb::name::LookupTarget;

/// Old go commands wrote this for modules without a go.mod file: the hash of an empty one. `go` drops such lines.
const EMPTY_GO_MOD: &str = "h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY=";
/// What the version has at its end in the line of a go.mod file.
const GO_MOD: &str = "/go.mod";

/// A line that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A hash to be compared.
    Sum(Sum),
    /// One that `go` takes no notice of.
    Ignored {
        /// Module and version as they stand there.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// One that `go` would not read, by its number.
    Malformed(usize, String),
}

/// The hash of a module's files, or of its go.mod file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    /// The module version.
    pub(super) target: LookupTarget,
    /// Whether the hash is of the go.mod file alone.
    pub(super) is_go_mod: bool,
    /// The hash.
    pub(super) h1: H1,
}

/// Parses all lines.
pub(super) fn parse(text: &str) -> Vec<Line> {
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    numbered.map(|(index, line)| parse_line(line).unwrap_or_else(|why| Line::Malformed(index + 1, why))).collect()
}

fn parse_line(line: &str) -> Result<Line, String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [module, version, hash] = fields[..] else {
        return Err(format!("it has {} fields instead of 3", fields.len()));
    };
    let ignored = |why| Ok(Line::Ignored { name: format!("{module} {version}"), why });
    if hash == EMPTY_GO_MOD {
        return ignored("the hash of an empty go.mod file, from an old go command");
    }
    if !hash.starts_with("h1:") {
        return ignored("only h1: hashes count");
    }
    let h1 = H1::parse(hash).ok_or_else(|| format!("{hash} is not an h1 hash"))?;
    let (version, is_go_mod) = version.strip_suffix(GO_MOD).map_or((version, false), |version| (version, true));
    let target = ModulePath::parse(module).and_then(|path| LookupTarget::new(path, version));
    Ok(Line::Sum(Sum { target: target.map_err(|err| err.to_string())?, is_go_mod, h1 }))
}

impl Sum {
    /// Returns module and version as they stand in the file.
    pub(super) fn name(&self) -> String {
        let suffix = if self.is_go_mod { GO_MOD } else { "" };
        format!("{} {}{suffix}", self.target.path(), self.target.version())
    }

    /// Compares the hash with what the log says.
    ///
    /// # Errors
    /// What it says instead.
    pub(super) fn compare(&self, record: &ProvedRecord) -> Result<(), String> {
        let said = if self.is_go_mod { record.go_mod() } else { record.zip() };
        match said {
            Some(said) if said == self.h1 => Ok(()),
            Some(said) => Err(format!("the log says {said}, record {}; the file has {}", record.number, self.h1)),
            None => Err(format!("the log has no such hash, record {}", record.number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "h1:pvIkHQfUhp3rdp3Dg3zLh2k6Vt+mJqpx5bPZ2tXdEvA=";

    /// Lines come out as `go` reads them.
    #[test]
    fn lines_are_parsed() {
        let text = format!(
            "rsc.io/quote v1.5.2 {HASH}\r\n\n \nrsc.io/quote v1.5.2/go.mod {HASH}\nrsc.io/old v1.0.0/go.mod {EMPTY_GO_MOD}\n\
             rsc.io/new v1.0.0 h9:abc\nrsc.io/quote v1.5.2\nrsc.io/quote v1.5.2 h1:abc\n../x v1.0.0 {HASH}\na b c d\n"
        );
        let lines = parse(&text);
        let sums: Vec<String> = lines
            .iter()
            .map(|line| match line {
                Line::Sum(sum) => sum.name(),
                Line::Ignored { name, why } => format!("{name}: {why}"),
                Line::Malformed(number, why) => format!("{number}: {why}"),
            })
            .collect();
        assert_eq!(
            sums[..6],
            [
                "rsc.io/quote v1.5.2",
                "rsc.io/quote v1.5.2/go.mod",
                "rsc.io/old v1.0.0/go.mod: the hash of an empty go.mod file, from an old go command",
                "rsc.io/new v1.0.0: only h1: hashes count",
                "7: it has 2 fields instead of 3",
                "8: h1:abc is not an h1 hash",
            ]
        );
        assert!(sums[6].starts_with("9: ") && sums[7] == "10: it has 4 fields instead of 3", "{sums:?}");
        assert_eq!(sums.len(), 8);
        assert_eq!(parse(""), []);
    }
}
