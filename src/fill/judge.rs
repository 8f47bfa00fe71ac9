//! Whether what an upstream sent can be what was asked for. Pure but for the zip, which is read from the disk.
//!
//! Called by `fill::small` and `fill::transfer` before anything gets its final name. These are checks of form; whether
//! the content is the one the whole world has is for the checksum database to say.

use std::fs::File;

use serde::Deserialize;

use crate::module::version::Version;
use crate::module::{ModuleVersion, Shown, zip};
use crate::resource::{ArtifactKind, Resource};

/// The largest zip the go command reads, in bytes.
pub const ZIP_BYTES_MAX: u64 = 500 * 1024 * 1024;
/// The largest go.mod file the go command accepts in a zip, in bytes.
const MOD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest of everything else, in bytes: generous, the largest known lists have some 100 KB.
const OTHER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The part of an .info that counts here.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "Version")]
    version: String,
}

/// Returns how many bytes the body of a small resource may have.
pub fn bytes_max(resource: &Resource) -> usize {
    match resource {
        Resource::Artifact(_, ArtifactKind::Mod) => MOD_BYTES_MAX,
        Resource::Artifact(_, ArtifactKind::Info | ArtifactKind::Zip)
        | Resource::List(_)
        | Resource::Latest(_)
        | Resource::Query(..)
        | Resource::SumdbSupported(_)
        | Resource::SumdbLatest(_)
        | Resource::SumdbLookup(..)
        | Resource::SumdbTile(..) => OTHER_BYTES_MAX,
    }
}

/// Checks the body of a small resource.
///
/// # Errors
/// The rule that is broken, for the person who reads it in a terminal.
pub fn check_small(resource: &Resource, body: &[u8]) -> Result<(), String> {
    match resource {
        Resource::Artifact(module, ArtifactKind::Info) => {
            let version = info_version(body)?;
            if version != module.version().as_str() {
                return Err(format!("the .info is for version {}", printable(&version)));
            }
            Ok(())
        }
        Resource::Latest(_) | Resource::Query(..) => {
            let version = info_version(body)?;
            Version::parse(&version)
                .map(|_| ())
                .map_err(|_| format!("the answer names no version: {}", printable(&version)))
        }
        Resource::Artifact(_, ArtifactKind::Mod) => check_mod(body),
        Resource::SumdbLookup(..) => check_lookup(body),
        Resource::List(_) | Resource::SumdbLatest(_) => check_text(body),
        Resource::SumdbTile(_, tile) => match tile.bytes() {
            Some(expected) if expected != body.len() as u64 => {
                Err(format!("the tile has {} bytes instead of {expected}", body.len()))
            }
            Some(_) | None => Ok(()),
        },
        Resource::Artifact(_, ArtifactKind::Zip) | Resource::SumdbSupported(_) => Ok(()),
    }
}

/// Checks a complete zip on disk.
///
/// # Errors
/// The rule that is broken.
pub fn check_zip(file: &File, length: u64, module: &ModuleVersion) -> Result<(), String> {
    zip::check_structure(file, length, module).map_err(|err| err.to_string())?;
    let facts = zip::rules::check_rules(file, length, module).map_err(|err| err.to_string())?;
    if let Some(link) = facts.symlink {
        log::warn!("{module}: the zip has a symbolic link, which go makes a plain file of: {}", Shown(&link));
    }
    Ok(())
}

/// Returns the version that an .info names.
///
/// # Errors
/// That it is not an .info.
pub fn info_version(body: &[u8]) -> Result<String, String> {
    serde_json::from_slice::<Info>(body)
        .map(|info| info.version)
        .map_err(|_| "the .info is not JSON with a Version".to_owned())
}

/// A captive portal answers everything with a page: nothing the protocol sends as text begins like one.
fn check_text(body: &[u8]) -> Result<(), String> {
    match body.trim_ascii_start().first() {
        Some(b'<') => Err("the answer is a web page".to_owned()),
        Some(_) | None => Ok(()),
    }
}

/// Every go.mod file has a module directive; what a portal or a broken connection sends instead has none.
fn check_mod(body: &[u8]) -> Result<(), String> {
    let has_directive = body.split(|byte| *byte == b'\n').any(|line| {
        let rest = line.trim_ascii_start().strip_prefix(b"module");
        rest.and_then(<[u8]>::first).is_some_and(|next| b" \t\"`(".contains(next))
    });
    if has_directive { Ok(()) } else { Err("the .mod has no module directive".to_owned()) }
}

/// A lookup is a record's number, the record, a blank line and a signed tree head, whose last line is a signature.
fn check_lookup(body: &[u8]) -> Result<(), String> {
    let has_form = || {
        let (number, rest) = std::str::from_utf8(body).ok()?.split_once('\n')?;
        number.parse::<u64>().ok()?;
        let signature = rest.strip_suffix('\n')?.rsplit_once("\n\n")?.1;
        signature.lines().last()?.strip_prefix("\u{2014} ")
    };
    has_form().map(drop).ok_or_else(|| "the lookup is no record with a signed tree head".to_owned())
}

/// Shortens foreign text and drops what a terminal would act on.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(path: &str, body: &str) -> Result<(), String> {
        check_small(&Resource::parse(path).unwrap(), body.as_bytes())
    }

    /// What has the form of its kind passes; a page, an empty answer or one that was cut does not.
    #[test]
    fn forms() {
        let lookup = "942\nrsc.io/quote v1.5.2 h1:a=\n\ngo.sum database tree\n1\nAA=\n\n\u{2014} name AAAA\n";
        for (path, good) in [
            ("rsc.io/quote/@v/v1.5.2.info", r#"{"Version":"v1.5.2","More":1}"#),
            ("rsc.io/quote/@v/main.info", r#"{"Version":"v0.0.0-20180214005840-23179ee8a569"}"#),
            ("rsc.io/quote/@v/v1.5.2.mod", "// a word first\n\nmodule \"rsc.io/quote\"\n"),
            ("rsc.io/quote/@v/list", ""),
            ("sumdb/sum.example/lookup/rsc.io/quote@v1.5.2", lookup),
        ] {
            assert_eq!(verdict(path, good), Ok(()), "{path}");
        }
        for (path, bad) in [
            ("rsc.io/quote/@v/v1.5.2.info", r#"{"Version":"v1.5.1"}"#),
            ("rsc.io/quote/@v/main.info", r#"{"Version":"main"}"#),
            ("rsc.io/quote/@v/v1.5.2.mod", ""),
            ("rsc.io/quote/@v/v1.5.2.mod", "please log in to this network\n"),
            ("rsc.io/quote/@v/list", "<html>"),
            ("sumdb/sum.example/lookup/rsc.io/quote@v1.5.2", &lookup[..lookup.len() - 1]),
            ("sumdb/sum.example/lookup/rsc.io/quote@v1.5.2", "please log in to this network\n"),
        ] {
            assert!(verdict(path, bad).is_err(), "{path}: {bad}");
        }
    }
}
