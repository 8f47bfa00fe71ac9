//! Looks at `SSL_CERT_FILE` and `SSL_CERT_DIR`, which take the place of the machine's own root certificates.
//!
//! Called by `Config::load`; calls rustls-native-certs, by which `net::tls` reads the same files. What is in them is not
//! kept: this only finds out whether they are of use, since nothing else says so before an upstream is refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::sources::Report;

/// The variables, and whether they name a file rather than folders.
const VARIABLES: [(&str, bool); 2] = [("SSL_CERT_FILE", true), ("SSL_CERT_DIR", false)];

/// Returns the variables that are set, and warns of those that are of no use.
pub(super) fn look(environment: &BTreeMap<String, OsString>, report: &mut Report) -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for (name, is_file) in VARIABLES {
        let Some(value) = environment.get(name) else { continue };
        if is_file {
            look_at(name, Path::new(value), true, report);
        } else {
            std::env::split_paths(value).for_each(|folder| look_at(name, &folder, false, report));
        }
        found.push((name, PathBuf::from(value)));
    }
    found
}

fn look_at(name: &str, path: &Path, is_file: bool, report: &mut Report) {
    let (file, folder) = if is_file { (Some(path), None) } else { (None, Some(path)) };
    let held = rustls_native_certs::load_certs_from_paths(file, folder);
    if !held.certs.is_empty() {
        return;
    }
    let why = match (std::fs::metadata(path), held.errors.first()) {
        (Err(err), _) => err.to_string(),
        (Ok(_), Some(err)) => err.to_string(),
        (Ok(_), None) if is_file => "no certificate in it".to_owned(),
        (Ok(_), None) => "no certificate in it under the name of its hash (`openssl rehash`)".to_owned(),
    };
    report.warning(format!(
        "{name}: {}: {why}; of no use, and yet it takes the place of this machine's root certificates",
        path.display()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(name: &str, value: &Path) -> Vec<String> {
        let environment = BTreeMap::from([(name.to_owned(), value.as_os_str().to_owned())]);
        let mut report = Report::default();
        assert_eq!(
            look(&environment, &mut report),
            [(if name == "SSL_CERT_FILE" { VARIABLES[0].0 } else { VARIABLES[1].0 }, value.to_owned())]
        );
        report.warnings
    }

    /// What cannot be read or holds nothing is warned of, by the variable's name and with the reason.
    #[test]
    fn useless_roots() {
        let folder = tempfile::tempdir().unwrap();
        let text = tempfile::NamedTempFile::new().unwrap();
        for (name, path, said) in [
            ("SSL_CERT_FILE", Path::new("/nonexistent/ca.pem"), "No such file"),
            ("SSL_CERT_FILE", text.path(), "no certificate"),
            ("SSL_CERT_DIR", Path::new("/nonexistent"), "No such file"),
            ("SSL_CERT_DIR", folder.path(), "openssl rehash"),
        ] {
            let warnings = warnings(name, path).join("; ").to_lowercase();
            let start = format!("{name}: {}: ", path.display()).to_lowercase();
            assert!(
                warnings.starts_with(&start) && warnings.contains(&said.to_lowercase()),
                "{name} {said}: {warnings}"
            );
        }
        assert_eq!(look(&BTreeMap::new(), &mut Report::default()), []);
    }
}
