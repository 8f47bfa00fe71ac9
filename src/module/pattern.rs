//! Lists of module path patterns, as in `GOPRIVATE`: `*.corp.example.com,rsc.io/private`.
//!
//! Called by whoever treats some modules apart; calls nothing. A glob with k slashes is held against the first k+1
//! elements of a path, so it names a module and everything below it. Invariant: matching decides as `go` does for the
//! same list, or a name would leave the house by one of the two. Source: `go help private`; the documentation of Go's
//! `path.Match`; the order of trial (a star takes as little as it can and is never revised) is theirs too.
//!
//! ```text
//! *  any run without a slash     ?  one character but a slash     [a-z] [^a-z]  one of a class     \x  x itself
//! ```

use std::fmt;

use super::path::ModulePath;

/// Patterns of module paths. Cheap to match, made once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternList {
    text: String,
    globs: Vec<Glob>,
    malformed: Vec<String>,
}

impl PatternList {
    /// Reads a comma-separated list. Empty parts are skipped, spaces are not trimmed and a malformed glob never
    /// matches, all of it as `go` has it; see [`Self::malformed`].
    pub fn parse(text: &str) -> Self {
        let mut list = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        for part in text.split(',') {
            let part = part.strip_suffix('/').unwrap_or(part);
            if part.is_empty() {
                continue;
            }
            match Glob::compile(part) {
                Some(glob) => list.globs.push(glob),
                None => list.malformed.push(part.to_owned()),
            }
        }
        list
    }

    /// Says whether a pattern of the list names this module, or one above it.
    pub fn matches(&self, path: &ModulePath) -> bool {
        self.globs.iter().any(|glob| glob.matches(path.as_str()))
    }

    /// Says whether no path can match.
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// Returns the parts of the list that are no patterns, for a warning.
    pub fn malformed(&self) -> &[String] {
        &self.malformed
    }
}

impl fmt::Display for PatternList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One pattern: runs of single-character items, each run perhaps behind a star.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob {
    /// How many slashes the text has; so many elements and one more of a path are looked at.
    slashes: usize,
    runs: Vec<Run>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Run {
    is_starred: bool,
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Literal(char),
    Any,
    Class {
        is_negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Returns nothing if the text is malformed.
    fn compile(text: &str) -> Option<Self> {
        let mut runs = Vec::new();
        let mut run = Run::default();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '*' => {
                    // Stars side by side are one star.
                    if !run.items.is_empty() {
                        runs.push(std::mem::take(&mut run));
                    }
                    run.is_starred = true;
                }
                '?' => run.items.push(Item::Any),
                '\\' => run.items.push(Item::Literal(rest.next()?)),
                '[' => run.items.push(class(&mut rest)?),
                literal => run.items.push(Item::Literal(literal)),
            }
        }
        if run.is_starred || !run.items.is_empty() {
            runs.push(run);
        }
        Some(Self {
            slashes: text.matches('/').count(),
            runs,
        })
    }

    fn matches(&self, path: &str) -> bool {
        let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let Some(end) = ends.nth(self.slashes) else {
            return false;
        };
        let mut rest = &path[..end];
        for (number, run) in self.runs.iter().enumerate() {
            let is_last = number + 1 == self.runs.len();
            match run.find(rest, is_last) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl Run {
    /// Returns what is left of the name behind the first place where this run fits.
    fn find<'a>(&self, name: &'a str, is_last: bool) -> Option<&'a str> {
        if self.is_starred && self.items.is_empty() {
            // Only the last run can be a bare star.
            return (!name.contains('/')).then_some("");
        }
        let fits = |text: &'a str| self.fit(text).filter(|after| !is_last || after.is_empty());
        if !self.is_starred {
            return fits(name);
        }
        let skips_max = name.find('/').unwrap_or(name.len());
        (0..=skips_max).find_map(|skipped| name.get(skipped..).and_then(fits))
    }

    fn fit<'a>(&self, name: &'a str) -> Option<&'a str> {
        let mut chars = name.chars();
        for item in &self.items {
            let c = chars.next()?;
            let is_fitting = match item {
                Item::Literal(literal) => c == *literal,
                Item::Any => c != '/',
                Item::Class { is_negated, ranges } => {
                    ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *is_negated
                }
            };
            if !is_fitting {
                return None;
            }
        }
        Some(chars.as_str())
    }
}

/// Reads a character class behind its opening bracket.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Item> {
    let is_negated = rest.as_str().starts_with('^');
    if is_negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        if rest.as_str().starts_with(']') && !ranges.is_empty() {
            rest.next();
            return Some(Item::Class { is_negated, ranges });
        }
        let low = class_char(rest)?;
        let mut high = low;
        if rest.as_str().starts_with('-') {
            rest.next();
            high = class_char(rest)?;
        }
        ranges.push((low, high));
    }
}

/// Reads one character of a class. A bare `-` or `]` is none.
fn class_char(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}
