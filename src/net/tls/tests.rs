//! Roots from files, and what errors are called. Handshakes with real servers are among the tests of the whole program.

use std::io::Write as _;

use rustls::pki_types::UnixTime;

use super::*;

/// An authority made for this test; nothing is signed by it.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBpzCCAU2gAwIBAgIUF65YFt9IOzBEILYXS+Gh4FiQzW8wCgYIKoZIzj0EAwIw
IDEeMBwGA1UEAwwVTGFyZGVyIHRlc3QgYXV0aG9yaXR5MCAXDTI2MTEyMTExMDUz
OVoYDzIxMjYxMDI4MTEwNTM5WjAgMR4wHAYDVQQDDBVMYXJkZXIgdGVzdCBhdXRo
b3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATj1nc8ZwxBghPhasByBajV
N9mHUXU7wCGXUFTd2yaq6mjV5etqlSF+v8Nnu0o5DdFwIchGbvVppWXmdmgZPXS6
o2MwYTAdBgNVHQ4EFgQUSPuB9HO6eGr4y0NStqwqQRqB1mowHwYDVR0jBBgwFoAU
SPuB9HO6eGr4y0NStqwqQRqB1mowDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8E
BAMCAgQwCgYIKoZIzj0EAwIDSAAwRQIgJYriPIf9wm6w1s1TAPVrDiffitpEgH5O
e9jKBWTz6t0CIQCb4mJ+mFhVmPvWoLtdy+bZo82vjwlsof97kA9QwPVeKQ==
-----END CERTIFICATE-----
";

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// Files of authorities are read in both forms; one that cannot be used is named with the reason.
#[test]
fn files_of_authorities() {
    let der = CertificateDer::from_pem_slice(AUTHORITY.as_bytes()).unwrap();
    let base = Trust::load(&[]).unwrap();
    let broken = AUTHORITY.replace("MII", "MIJ");
    // One that nobody can read does not take the others with it.
    let old = format!("{broken}\n{AUTHORITY}");
    let comment = format!("# ours\n{AUTHORITY}\n{AUTHORITY}");
    for (content, added) in [(AUTHORITY.as_bytes(), 1), (comment.as_bytes(), 2), (&der, 1), (old.as_bytes(), 1)] {
        let with = base.with(&[file(content).path().to_owned()]).unwrap();
        assert_eq!(with.roots().len(), base.roots().len() + added);
    }
    for (content, reason) in [
        ("", "no certificate in it"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n", "not PEM"),
        (broken.as_str(), "a certificate in it cannot be used"),
    ] {
        let file = file(content.as_bytes());
        let said = base.with(&[file.path().to_owned()]).unwrap_err();
        assert_eq!(said.path, file.path());
        assert!(said.reason.starts_with(reason), "{said}");
    }
    let said = Trust::load(&[PathBuf::from("/no/such.pem")]).unwrap_err().to_string();
    assert!(said.starts_with("/no/such.pem: No such file"), "{said}");
}

/// What rustls finds is told in words that say what to look at.
#[test]
fn errors_in_plain_words() {
    let day = |day: u64| UnixTime::since_unix_epoch(Duration::from_secs(day * 86_400));
    let certificate = |err| rustls::Error::InvalidCertificate(err);
    let names = |presented: &[&str]| {
        certificate(CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("c.example").unwrap(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        })
    };
    let other = |name: &str| {
        certificate(CertificateError::Other(rustls::OtherError(Arc::new(io::Error::other(name.to_owned())))))
    };
    for (err, expected) in [
        (
            certificate(CertificateError::ExpiredContext { time: day(20_778), not_after: day(19_844) }),
            "certificate expired on 2024-05-01 (this machine's clock shows 2026-11-21)",
        ),
        (
            certificate(CertificateError::NotValidYetContext { time: day(0), not_before: day(19_783) }),
            "certificate is not valid before 2024-03-01 (this machine's clock shows 1970-01-01)",
        ),
        (
            names(&["DnsName(\"a.example\")", "IpAddress(192.0.2.1)"]),
            "certificate is for a.example, 192.0.2.1, not for c.example",
        ),
        (names(&["a", "b", "c", "d", "e", "f"]), "certificate is for a, b, c, d and 2 more, not for c.example"),
        (names(&[]), "certificate is for no name at all, not for c.example"),
        (certificate(CertificateError::UnknownIssuer), "certificate of an unknown authority"),
        (other("CaUsedAsEndEntity"), "certificate is that of an authority, which must not be a server's own"),
        (rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), "the other side does not speak TLS"),
        (
            rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure),
            "the other side refused the handshake: HandshakeFailure",
        ),
        (rustls::Error::NoApplicationProtocol, "the other side speaks none of the protocols asked for"),
    ] {
        assert_eq!(explain(&io::Error::new(io::ErrorKind::InvalidData, err.clone())), expected);
        // However deep it lies.
        let deep = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, err));
        assert_eq!(explain(&deep), expected);
    }
    let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
    assert_eq!(explain(&closed), "the connection was closed during the handshake");
}
