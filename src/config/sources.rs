//! Decides which source a setting's value comes from, by the one rule: default, file, environment, flag, each
//! stronger than the one before.
//!
//! Owns `Origin` and the collected `Report`. Called by `Config::load`; calls the settings table's parsers. Weaker
//! values that do not count are read all the same, and what is wrong with them is a warning.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::Config;
use super::file::Node;
use super::settings::{Setting, Variable};

/// Where the value of a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A key of the configuration file.
    File(PathBuf, &'static str),
    /// An environment variable.
    Environment(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, key) => write!(f, "{}: {key}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "-{name}"),
        }
    }
}

/// Mistakes and warnings found so far, all of them to be shown together.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) mistakes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Report {
    pub(super) fn mistake(&mut self, text: String) {
        self.mistakes.push(text);
    }

    /// Reports a mistake where there is then no value.
    pub(super) fn mistake_none<T>(&mut self, text: &str) -> Option<T> {
        self.mistake(text.to_owned());
        None
    }

    pub(super) fn warning(&mut self, text: String) {
        self.warnings.push(text);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Takes over what another report holds, saying before each text where it was found.
    pub(super) fn absorb(&mut self, other: Self, place: &str) {
        self.mistakes.extend(other.mistakes.into_iter().map(|text| format!("{place}{text}")));
        self.warnings.extend(other.warnings.into_iter().map(|text| format!("{place}{text}")));
    }
}

/// The three sources besides the defaults.
pub(super) struct Sources<'a> {
    /// Values by flag name.
    pub(super) flags: &'a BTreeMap<&'static str, String>,
    /// Values by variable name.
    pub(super) environment: &'a BTreeMap<String, OsString>,
    /// The file's path and its keys, if there is a file.
    pub(super) file: Option<(PathBuf, Vec<(String, Node)>)>,
}

/// One value that was given for a setting.
struct Candidate {
    origin: Origin,
    node: Node,
    /// Set for other programs as well: a mistake in it stops nobody.
    is_advisory: bool,
}

impl Sources<'_> {
    /// Returns all that was given for a setting, strongest first, the default last.
    fn candidates(&self, setting: &'static Setting, report: &mut Report) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        if let Some(name) = setting.flag
            && let Some(text) = self.flags.get(name)
        {
            let node = Node::Scalar(text.clone());
            candidates.push(Candidate { origin: Origin::Flag(name), node, is_advisory: false });
        }
        for Variable { name, is_advisory } in setting.variables {
            // An empty variable is an unset one, as in go-proxy.
            let Some(value) = self.environment.get(*name).filter(|value| !value.is_empty()) else {
                continue;
            };
            let origin = Origin::Environment(name);
            match value.to_str() {
                Some(text) => {
                    let node = Node::Scalar(text.to_owned());
                    candidates.push(Candidate { origin, node, is_advisory: *is_advisory });
                }
                None => report.mistake(format!("{origin}: not valid UTF-8")),
            }
        }
        if let Some(key) = setting.key
            && let Some((path, fields)) = &self.file
            && let Some((_, node)) = fields.iter().find(|(name, node)| name == key && !node.is_empty())
        {
            let origin = Origin::File(path.clone(), key);
            candidates.push(Candidate { origin, node: node.clone(), is_advisory: false });
        }
        let node = Node::Scalar(setting.default.to_owned());
        candidates.push(Candidate { origin: Origin::Default, node, is_advisory: false });
        candidates
    }

    /// Puts the value of a setting into `config` and returns where it came from: the one rule of precedence.
    pub(super) fn settle(&self, setting: &'static Setting, config: &mut Config, report: &mut Report) -> Origin {
        let mut settled: Option<Origin> = None;
        for candidate in self.candidates(setting, report) {
            let Candidate { origin, node, is_advisory } = candidate;
            let place = format!("{origin}: ");
            let mut found = Report::default();
            if let Some(stronger) = &settled {
                if origin != Origin::Default {
                    (setting.read)(&mut config.clone(), &node, &mut found);
                    for text in found.mistakes {
                        report.warning(format!("{place}{text} (not used, since {stronger} is set)"));
                    }
                }
                continue;
            }
            (setting.read)(config, &node, &mut found);
            if is_advisory && !found.is_clean() {
                for text in found.mistakes {
                    report.warning(format!("{place}{text} (ignored)"));
                }
                continue;
            }
            report.absorb(found, &place);
            settled = Some(origin);
        }
        settled.unwrap_or(Origin::Default)
    }
}
