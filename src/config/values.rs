//! Reads the values of settings: one text, an optional one, a list; numbers, times, paths, networks, truth values.
//!
//! Called by the rows of the settings table; calls the parsers of single formats. A mistake's text says what would
//! have been right and never repeats what stood there.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::duration;
use super::file::Node;
use super::sources::Report;
use crate::net::cidr::Cidr;

/// Returns a node's text, a list's entries joined by commas.
pub(super) fn flat(node: &Node, report: &mut Report) -> Option<String> {
    match node {
        Node::Null => Some(String::new()),
        Node::Scalar(text) => Some(text.clone()),
        Node::List(items) => {
            let mut texts = Vec::new();
            for (index, item) in items.iter().enumerate() {
                match item {
                    Node::Scalar(text) => texts.push(text.as_str()),
                    Node::Null | Node::List(_) | Node::Map(_) => {
                        report.mistake(format!("entry {}: not a text", index + 1));
                    }
                }
            }
            Some(texts.join(","))
        }
        Node::Map(_) => report.mistake_none("not a text or a list of texts"),
    }
}

/// Reads a value that is one text.
pub(super) fn one<T>(field: &mut T, node: &Node, report: &mut Report, parse: impl Fn(&str) -> Result<T, String>) {
    let text = match node {
        Node::Null => "",
        Node::Scalar(text) => text.trim(),
        Node::List(_) | Node::Map(_) => return report.mistake("one value, not a list or a map".to_owned()),
    };
    match parse(text) {
        Ok(value) => *field = value,
        Err(text) => report.mistake(text),
    }
}

/// Reads a value that may be left empty.
pub(super) fn optional<T>(
    field: &mut Option<T>,
    node: &Node,
    report: &mut Report,
    parse: impl Fn(&str) -> Result<T, String>,
) {
    one(field, node, report, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) });
}

/// Reads a list, in one text separated by commas or as a list of the file.
pub(super) fn many<T>(field: &mut Vec<T>, node: &Node, report: &mut Report, parse: impl Fn(&str) -> Result<T, String>) {
    let Some(text) = flat(node, report) else { return };
    field.clear();
    for (index, entry) in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate() {
        match parse(entry) {
            Ok(value) => field.push(value),
            Err(text) => report.mistake(format!("entry {}: {text}", index + 1)),
        }
    }
}

pub(super) fn joined<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn print_paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",")
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    number(text, 0, u32::from(u16::MAX)).and_then(|port| u16::try_from(port).map_err(|error| error.to_string()))
}

pub(super) fn number(text: &str, min: u32, max: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("not a whole number from {min} to {max}"))
}

pub(super) fn time(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if time < min {
        return Err(format!("at least {}", duration::print(min)));
    }
    if time > max {
        return Err(format!("at most {}", duration::print(max)));
    }
    Ok(time)
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') { Err("not a path".to_owned()) } else { Ok(PathBuf::from(text)) }
}

pub(super) fn cidr(text: &str) -> Result<Cidr, String> {
    Cidr::parse(text).ok_or_else(|| "not a network, such as 192.168.0.0/16, 2001:db8::/32 or 10.1.2.3".to_owned())
}

pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "yes" | "on" => Ok(true),
        "0" | "f" | "false" | "no" | "off" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    let is_level = |word: &str| word.parse::<log::LevelFilter>().is_ok();
    let is_good = |entry: &str| entry.split_once('=').map_or_else(|| is_level(entry), |(_, level)| is_level(level));
    if !text.is_empty() && text.split(',').all(|entry| is_good(entry.trim())) {
        Ok(text.to_owned())
    } else {
        Err("must be off, error, warn, info, debug or trace, also per module as in larder::store=debug".to_owned())
    }
}
