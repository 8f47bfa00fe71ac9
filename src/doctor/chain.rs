//! The certificates a server shows, as people read them; also of a server whose certificates are refused.
//!
//! Owns [`Certificate`]. Called by `doctor::upstream`. Verifying is not done here but where the service does it, in
//! `net::tls`: what was accepted there is read off the connection, and for what was refused a second connection is made
//! that accepts anything, is looked at and closed.
//! Invariant: over a connection made here nothing is sent that is secret, and nothing it says is believed.
//! Source: RFC 5280, section 4.1 (fields), RFC 4519, section 2 (the parts of names).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use super::words::day;
use crate::clock::UnixSeconds;
use crate::net::stream::Stream;
use crate::net::target::Host;
use crate::net::tls;

/// The part of a name that people know a server or an authority by.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// The organisation that it belongs to.
const ORGANISATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
/// At most this many names of a certificate are shown; some have a hundred.
const NAMES_SHOWN_MAX: usize = 4;
/// An honest chain is shorter.
const ISSUERS_SHOWN_MAX: usize = 5;
/// A name is shown up to this many characters: whoever was refused may have written anything into it.
const NAME_LENGTH_MAX: usize = 100;

/// What one certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Whom it is for: the common name, or the whole of it if there is none.
    pub(super) subject: String,
    /// Who vouches for it.
    pub(super) issuer: String,
    /// The host names and addresses it is for.
    pub(super) names: Vec<String>,
    /// Until when it holds.
    pub(super) until: UnixSeconds,
}

impl Certificate {
    /// Reads a certificate; `None` if it is none.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let certificate = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
        let names = certificate.get::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0).unwrap_or_default();
        Some(Self {
            subject: printed(&certificate.subject),
            issuer: printed(&certificate.issuer),
            names: names.iter().filter_map(host_of).collect(),
            until: UnixSeconds(certificate.validity.not_after.to_unix_duration().as_secs()),
        })
    }

    /// Returns the names it is for, a few of them.
    pub(super) fn names_shown(&self) -> String {
        let shown = self.names.iter().take(NAMES_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.names.len().saturating_sub(NAMES_SHOWN_MAX) {
            _ if self.names.is_empty() => self.subject.clone(),
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    }
}

/// Returns what the chain of a connection says, the server's own certificate first; empty without TLS.
pub(super) fn of(stream: &Stream) -> Vec<Certificate> {
    match stream {
        Stream::Plain(_) => Vec::new(),
        Stream::Tls(stream) => {
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            shown.iter().filter_map(|certificate| Certificate::read(certificate)).collect()
        }
    }
}

/// Returns a chain in one line: from whom the server has its certificate, and who vouches for that one.
pub(super) fn line(chain: &[Certificate]) -> String {
    let Some(own) = chain.first() else { return "no certificate".to_owned() };
    // The last one may be the authority's own, which it has issued itself.
    let mut issuers: Vec<&str> = chain.iter().map(|certificate| certificate.issuer.as_str()).collect();
    issuers.dedup();
    issuers.truncate(ISSUERS_SHOWN_MAX);
    format!("for {} until {}, issued by {}", own.names_shown(), day(own.until), issuers.join(" < "))
}

/// Makes a TLS connection that accepts any certificate, to look at it.
///
/// # Errors
/// What kept the handshake from ending, in plain words.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(super) async fn regardless(host: &Host, stream: Stream, limit: Duration) -> Result<Stream, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AcceptsAnything(Arc::clone(&provider)));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| err.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    tls::handshake(&Arc::new(config), host, stream, limit).await
}

/// Prints a name as `CN (O)`, which is what people know authorities by; all of its parts if there is no `CN`.
///
/// The library prints names too, but with a table of everything that was ever registered, of 140 KB.
fn printed(name: &Name) -> String {
    let parts = || name.0.iter().flat_map(|part| part.0.iter());
    let text = |part: &AttributeTypeAndValue| String::from_utf8_lossy(part.value.value()).into_owned();
    let of = |oid| parts().rfind(|part| part.oid == oid).map(text);
    clipped(&match (of(COMMON_NAME), of(ORGANISATION)) {
        (Some(common), Some(organisation)) if !common.contains(&organisation) => format!("{common} ({organisation})"),
        (Some(common), _) => common,
        (None, _) if name.0.is_empty() => "nobody named".to_owned(),
        (None, _) => parts().map(text).collect::<Vec<_>>().join(", "),
    })
}

fn clipped(name: &str) -> String {
    match name.char_indices().nth(NAME_LENGTH_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

fn host_of(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(clipped(name.as_str())),
        GeneralName::IpAddress(bytes) => match bytes.as_bytes() {
            bytes if bytes.len() == 4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        // Certificates of people and of programs; no server is called by these.
        _ => None,
    }
}

#[derive(Debug)]
struct AcceptsAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptsAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Made by `openssl req -x509 -subj "/C=XX/O=Larder Test/CN=a.example" -addext "subjectAltName=DNS:a.example,
    /// DNS:*.a.example,IP:192.0.2.1,IP:2001:db8::1,DNS:b.example"`.
    const CERTIFICATE: &str = "\
        MIICAjCCAaigAwIBAgIBBzAKBggqhkjOPQQDAjA3MQswCQYDVQQGEwJYWDEUMBIGA1UECgwLTGFyZGVyIFRlc3QxEjAQBgNVBAMM\
        CWEuZXhhbXBsZTAeFw0yNjExMjExMDUzMTFaFw0zNjExMTgxMDUzMTFaMDcxCzAJBgNVBAYTAlhYMRQwEgYDVQQKDAtMYXJkZXIg\
        VGVzdDESMBAGA1UEAwwJYS5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEIZqJklBQHmSvFIR1fLO4eZ3bip6dXrur\
        3GeTjrKrCltRyHWk/Vfl/R6aXdsOALFgxghy7EBBJr0a+/lFKcccQaOBpDCBoTAdBgNVHQ4EFgQU48H6pJXVGxroXZBSrUn+RoI1\
        C6MwHwYDVR0jBBgwFoAU48H6pJXVGxroXZBSrUn+RoI1C6MwRAYDVR0RBD0wO4IJYS5leGFtcGxlggsqLmEuZXhhbXBsZYcEwAAC\
        AYcQIAENuAAAAAAAAAAAAAAAAYIJYi5leGFtcGxlMAsGA1UdDwQEAwIHgDAMBgNVHRMBAf8EAjAAMAoGCCqGSM49BAMCA0gAMEUC\
        IQDj0TOOxXimMVWo8APz4EaQAbwzsxhr50QbkROHs4KKyAIgMEjh848ciauB0ny/3owlej1xHygnRlO4PT9esEY4EVw=";

    /// A certificate is told by whom it is for, until when, and who vouches for it.
    #[test]
    fn read_and_printed() {
        let der = STANDARD.decode(CERTIFICATE).unwrap();
        let certificate = Certificate::read(&der).unwrap();
        assert_eq!(certificate.names, ["a.example", "*.a.example", "192.0.2.1", "2001:db8::1", "b.example"]);
        let expected = "for a.example, *.a.example, 192.0.2.1, 2001:db8::1 and 1 more until 2036-11-18, \
                        issued by a.example (Larder Test)";
        assert_eq!(line(&[certificate]), expected);
    }

    /// What is no certificate is none, wherever it was cut.
    #[test]
    fn cut_certificates() {
        let der = STANDARD.decode(CERTIFICATE).unwrap();
        for cut in 0..der.len() {
            assert_eq!(Certificate::read(&der[..cut]), None);
        }
    }
}
