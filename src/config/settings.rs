//! What one setting is: its flag, variables, file key, default, help, and how it is read and shown.
//!
//! Owns the row type of the table in `table.rs`. Called by that, `sources` and `cli`; calls nothing.

use super::Config;
use super::file::Node;
use super::sources::Report;

/// Reads a value into its field, or reports what is wrong with it.
pub(super) type Read = fn(&mut Config, &Node, &mut Report);

/// Prints a field, secrets masked.
pub(super) type Show = fn(&Config) -> String;

/// An environment variable that a setting is read from.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// It is commonly set for other programs: what is wrong with it only warns.
    pub is_advisory: bool,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag's name without its dash.
    pub flag: Option<&'static str>,
    /// The variables, the stronger first.
    pub variables: &'static [Variable],
    /// The key in the file.
    pub key: Option<&'static str>,
    /// Keys that mean this one but are no longer, or never were, its name.
    pub former_keys: &'static [&'static str],
    /// The default as it would be written; empty for none.
    pub default: &'static str,
    /// What the help text calls the value; empty for a switch.
    pub value_name: &'static str,
    /// What it does, for the help text.
    pub help: &'static str,
    /// Reads a value into its field.
    pub(super) read: Read,
    /// Prints the field, secrets masked.
    pub(super) show: Show,
}

impl Setting {
    /// Returns the name that people know it by: its file key, or its flag.
    pub fn name(&self) -> &'static str {
        self.key.or(self.flag).unwrap_or("")
    }

    /// Tells whether the flag stands alone, without a value.
    pub fn is_switch(&self) -> bool {
        self.value_name.is_empty()
    }

    pub(super) const fn new(
        flag: &'static str,
        key: &'static str,
        variables: &'static [Variable],
        (value_name, default): (&'static str, &'static str),
        help: &'static str,
        (read, show): (Read, Show),
    ) -> Self {
        let flag = if flag.is_empty() { None } else { Some(flag) };
        let key = if key.is_empty() { None } else { Some(key) };
        Self { flag, variables, key, former_keys: &[], default, value_name, help, read, show }
    }

    pub(super) const fn formerly(mut self, keys: &'static [&'static str]) -> Self {
        self.former_keys = keys;
        self
    }
}

pub(super) const fn own(name: &'static str) -> Variable {
    Variable { name, is_advisory: false }
}

pub(super) const fn shared(name: &'static str) -> Variable {
    Variable { name, is_advisory: true }
}
