//! TLS on the way out: whom we trust, the handshake, and what went wrong in words that help.
//!
//! Owns [`Trust`]. Called by `proxy`, `resolver` and `egress`; calls `stream` and `target`. The roots are the platform's
//! (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured by rustls-native-certs) and those of the files given.
//!
//! Invariant: nothing here ever turns the check of a certificate off. Source: RFC 8446; RFC 9525 for the names.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, InvalidMessage, RootCertStore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::net::stream::Stream;
use crate::net::target::Host;

/// A file with more certificates than fit into this is not what was meant, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// TLS sessions remembered for each use, so that a second handshake is shorter.
const SESSIONS_MAX: usize = 64;
/// Names of a certificate that are shown when the right one is not among them.
const NAMES_SHOWN_MAX: usize = 4;

/// A file of root certificates that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The certificates that other ones are traced back to. Clones share them.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    config: Arc<rustls::ClientConfig>,
}

impl Trust {
    /// Reads the platform's roots and those of the files `extra`, in PEM or DER.
    ///
    /// Reads files, so that it is for the start. A platform without roots is only warned about: every upstream may be
    /// plain http, or vouched for by `extra`.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(extra: &[PathBuf]) -> Result<Self, Error> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            for err in &found.errors {
                log::warn!("reading the root certificates: {err}");
            }
            if extra.is_empty() {
                log::warn!("no root certificates found: https upstreams cannot be trusted; install ca-certificates");
            }
        }
        Self::of(roots, extra)
    }

    /// Returns the same trust with the roots of the files `extra` besides.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn with(&self, extra: &[PathBuf]) -> Result<Self, Error> {
        if extra.is_empty() {
            return Ok(self.clone());
        }
        Self::of(RootCertStore::clone(&self.roots), extra)
    }

    fn of(mut roots: RootCertStore, extra: &[PathBuf]) -> Result<Self, Error> {
        for path in extra {
            let failed = |reason: String| Error { path: path.clone(), reason };
            let certificates = read_certificates(path).map_err(failed)?;
            let (mut added, mut unreadable) = (0_usize, Vec::new());
            for certificate in certificates {
                match roots.add(certificate) {
                    Ok(()) => added += 1,
                    Err(err) => unreadable.push(err.to_string()),
                }
            }
            // Bundles of old roots have some that nobody reads any more.
            match unreadable.first() {
                Some(err) if added == 0 => return Err(failed(format!("a certificate in it cannot be used: {err}"))),
                Some(err) => {
                    let (path, left_out) = (path.display(), unreadable.len());
                    log::warn!(
                        "certificates left out since they cannot be read file={path} count={left_out} reason={err}"
                    );
                }
                None => {}
            }
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            // Only a provider without any cipher suite of these versions fails here.
            .map_err(|err| Error { path: PathBuf::from("TLS"), reason: err.to_string() })?
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        Ok(Self { roots, config: Arc::new(config) })
    }

    /// Returns the settings for a client that offers the protocols `alpn`, with a memory of TLS sessions of its own.
    pub fn client(&self, alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut config = rustls::ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Arc::new(config)
    }

    /// Returns the certificates that others are traced back to.
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }
}

/// Reads the certificates of a file, in PEM (any number) or DER (one). At least one comes out.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let file = File::open(path).map_err(|err| err.to_string())?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(|err| err.to_string())?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {} MB", FILE_BYTES_MAX >> 20));
    }
    // DER is an ASN.1 sequence; PEM is text.
    if content.first() == Some(&0x30) {
        return Ok(vec![CertificateDer::from(content)]);
    }
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&content) {
        certificates.push(certificate.map_err(|err| format!("not PEM: {err}"))?);
    }
    if certificates.is_empty() {
        return Err("no certificate in it: `-----BEGIN CERTIFICATE-----` is missing".to_owned());
    }
    Ok(certificates)
}

/// Speaks TLS over `stream` with `host`, whose certificate must be for that name or address.
///
/// # Errors
/// What went wrong, in words for people.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn handshake(
    tls: &Arc<rustls::ClientConfig>,
    host: &Host,
    stream: Stream,
    limit: Duration,
) -> Result<Stream, String> {
    match handshake_io(tls, host, stream, limit).await {
        Ok(stream) => Ok(stream),
        Err(err) => Err(explain(&err)),
    }
}

/// Does as [`handshake`], with the error as it came.
pub(super) async fn handshake_io(
    tls: &Arc<rustls::ClientConfig>,
    host: &Host,
    stream: Stream,
    limit: Duration,
) -> io::Result<Stream> {
    let name = match host {
        Host::Address(address) => ServerName::from(*address),
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a name of a host")))?,
    };
    match timeout(limit, TlsConnector::from(Arc::clone(tls)).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err(err)) => Err(err),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no handshake within {} s", limit.as_secs()))),
    }
}

/// Returns what an error of a TLS connection means, in words for people.
pub fn explain(err: &io::Error) -> String {
    if let Some(tls) = rustls_error(err) {
        return explain_tls(tls);
    }
    match err.kind() {
        io::ErrorKind::UnexpectedEof => "the connection was closed during the handshake".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the connection was reset during the handshake".to_owned()
        }
        _ => err.to_string(),
    }
}

/// Tells whether the error says that the other side does not speak TLS at all.
pub(super) fn is_not_tls(err: &io::Error) -> bool {
    matches!(rustls_error(err), Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)))
}

/// Tells whether the other side ended the connection, or said nothing at all.
pub(super) fn is_closed(err: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    rustls_error(err).is_none()
        && matches!(err.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof)
}

/// Returns the error of rustls inside an error of the system's kind.
fn rustls_error(err: &io::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = err.get_ref().map(|inner| inner as _);
    while let Some(inner) = cause {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        // An io::Error hides itself from `source` when it wraps another one.
        cause = match inner.downcast_ref::<io::Error>() {
            Some(nested) => nested.get_ref().map(|inner| inner as _),
            None => inner.source(),
        };
    }
    None
}

fn explain_tls(err: &rustls::Error) -> String {
    match err {
        rustls::Error::InvalidCertificate(err) => explain_certificate(err),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the other side does not speak TLS".to_owned()
        }
        rustls::Error::InvalidMessage(err) => format!("broken TLS message: {err:?}"),
        rustls::Error::AlertReceived(alert) => format!("the other side refused the handshake: {alert:?}"),
        rustls::Error::PeerIncompatible(why) => {
            format!("the other side speaks no version of TLS that is safe today: {why:?}")
        }
        rustls::Error::NoCertificatesPresented => "the other side has no certificate".to_owned(),
        rustls::Error::NoApplicationProtocol => "the other side speaks none of the protocols asked for".to_owned(),
        other => other.to_string(),
    }
}

fn explain_certificate(err: &CertificateError) -> String {
    match err {
        CertificateError::ExpiredContext { time, not_after } => {
            let (expired, now) = (date(not_after.as_secs()), date(time.as_secs()));
            format!("certificate expired on {expired} (this machine's clock shows {now})")
        }
        CertificateError::Expired => "certificate expired".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            let (begins, now) = (date(not_before.as_secs()), date(time.as_secs()));
            format!("certificate is not valid before {begins} (this machine's clock shows {now})")
        }
        CertificateError::NotValidYet => "certificate is not valid yet".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = match presented.as_slice() {
                [] => "no name at all".to_owned(),
                names => {
                    let shown = names.iter().take(NAMES_SHOWN_MAX).map(|name| plain_name(name)).collect::<Vec<_>>();
                    let rest = names.len().saturating_sub(NAMES_SHOWN_MAX);
                    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
                    format!("{}{rest}", shown.join(", "))
                }
            };
            format!("certificate is for {names}, not for {}", expected.to_str())
        }
        CertificateError::NotValidForName => "certificate is for another name".to_owned(),
        CertificateError::UnknownIssuer => "certificate of an unknown authority".to_owned(),
        CertificateError::BadEncoding => "certificate cannot be read".to_owned(),
        CertificateError::BadSignature => "certificate with a wrong signature".to_owned(),
        CertificateError::Revoked => "certificate was revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate is not for servers".to_owned()
        }
        other => {
            let text = other.to_string();
            if text.contains("CaUsedAsEndEntity") {
                return "certificate is that of an authority, which must not be a server's own".to_owned();
            }
            if text.contains("UnsupportedCertVersion") {
                return "certificate is of an old version: make one of version 3".to_owned();
            }
            format!("certificate: {text}")
        }
    }
}

/// Returns a name as webpki prints it, `DnsName("a.example")`, without what is Rust's.
fn plain_name(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').to_owned()
}

/// Returns the day, as `2024-05-01`, of a time in seconds since 1970.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn date(unix_seconds: u64) -> String {
    let days = unix_seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests;
