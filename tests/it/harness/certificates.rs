//! An authority of a test's own and the certificates it signs, made by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What openssl is told: `ca` is the one command of it (3.0) that signs with dates of any kind.
const CONFIG: &str = "\
[req]
distinguished_name = dn
prompt = no
[dn]
CN = placeholder
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[ca]
default_ca = larder
[larder]
database = $ENV::FOLDER/index
new_certs_dir = $ENV::FOLDER
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
";

/// An authority; its files are removed when it is dropped.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
}

/// A certificate with its key, in PEM files.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Makes one called `name`. Without openssl it prints so and returns `None`: the test is left out.
    pub(crate) fn new(name: &str) -> Option<Self> {
        if let Err(error) = Command::new("openssl").arg("version").output() {
            println!("left out, it needs openssl: {error}");
            return None;
        }
        let authority = Self { folder: crate::harness::temp_dir() };
        std::fs::write(authority.path("config"), CONFIG).unwrap();
        std::fs::write(authority.path("index"), "").unwrap();
        let subject = format!("/CN={name}");
        let (key, file) = (authority.path("ca.key"), authority.file());
        authority.openssl(
            &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"],
            &["-extensions", "authority", "-subj", &subject, "-keyout", text(&key), "-out", text(&file)],
        );
        Some(authority)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns its own certificate, what `-ca` and `-dns-ca` take.
    pub(crate) fn file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Signs a certificate for these names and addresses, valid from 2024 to 2049.
    pub(crate) fn sign(&self, hosts: &[impl AsRef<str>]) -> Certificate {
        self.sign_until(hosts, "20500101000000Z")
    }

    /// Signs a certificate that ended on 1 May 2024.
    pub(crate) fn sign_expired(&self, hosts: &[impl AsRef<str>]) -> Certificate {
        self.sign_until(hosts, "20240501000000Z")
    }

    fn sign_until(&self, hosts: &[impl AsRef<str>], until: &str) -> Certificate {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = |extension: &str| self.path(&format!("{number}.{extension}"));
        let (certificate, key, request, extensions) = (file("pem"), file("key.pem"), file("csr"), file("ext"));
        let names: Vec<_> = hosts
            .iter()
            .map(AsRef::as_ref)
            .map(|host: &str| match host.parse::<std::net::IpAddr>() {
                Ok(address) => format!("IP:{address}"),
                Err(_) => format!("DNS:{host}"),
            })
            .collect();
        let usage = "extendedKeyUsage = serverAuth\nbasicConstraints = critical, CA:FALSE\n";
        std::fs::write(&extensions, format!("subjectAltName = {}\n{usage}", names.join(","))).unwrap();
        let subject = format!("/CN={}", hosts[0].as_ref());
        self.openssl(
            &["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", &subject],
            &["-keyout", text(&key), "-out", text(&request)],
        );
        let (ca, ca_key) = (self.file(), self.path("ca.key"));
        self.openssl(
            &["ca", "-batch", "-notext", "-cert", text(&ca), "-keyfile", text(&ca_key), "-in", text(&request)],
            &[
                "-startdate",
                "20240101000000Z",
                "-enddate",
                until,
                "-extfile",
                text(&extensions),
                "-out",
                text(&certificate),
            ],
        );
        Certificate { certificate, key }
    }

    fn openssl(&self, first: &[&str], more: &[&str]) {
        let mut command = Command::new("openssl");
        command.arg(first[0]).arg("-config").arg(self.path("config")).args(&first[1..]).args(more);
        let output = command.env("FOLDER", self.folder.path()).output().unwrap();
        assert!(output.status.success(), "openssl {}: {}", first[0], String::from_utf8_lossy(&output.stderr));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
