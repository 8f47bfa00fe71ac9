//! Connects to DNS servers over QUIC, and keeps hold of why a certificate was refused.
//!
//! Owns [`Quic`]. Called by `server`; calls hickory's QUIC client and `dial`. QUIC passes on only the words of an error of
//! TLS, which are not for people; so the one who checks certificates is listened to.
//!
//! Invariant: certificates are checked as everywhere else; listening changes no verdict. Source: RFC 9250.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::time::timeout;
use trust_dns_resolver::net::quic::QuicClientStream;

use crate::net::dns::exchange::{ADDRESSES_MAX, NO_ADDRESS, plain_words};
use crate::net::target::Host;
use crate::net::tls::Trust;
use crate::net::{dial, tls};

/// How long connecting may take, the handshake included.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// How connections over QUIC are made.
pub(super) struct Quic {
    config: Arc<ClientConfig>,
    /// None if nobody is trusted, in which case the handshake fails before anything is checked.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl Quic {
    pub(super) fn new(trust: &Trust) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(trust.roots()), provider).build().ok();
        Self { config: trust.client(&[b"doq"]), verifier }
    }

    /// Connects to the first of `addresses` that answers.
    ///
    /// # Errors
    /// What the last one said, in plain words, or that there was no answer in time.
    pub(super) async fn connect(
        &self,
        addresses: &[IpAddr],
        port: u16,
        host: &Host,
    ) -> Result<QuicClientStream, String> {
        let name: Arc<str> = match host {
            Host::Name(name) => name.as_str().into(),
            Host::Address(address) => address.to_string().into(),
        };
        let refusal = Arc::new(Mutex::new(None));
        let mut config = ClientConfig::clone(&self.config);
        if let Some(verifier) = &self.verifier {
            let listener = Listener { verifier: Arc::clone(verifier), refusal: Arc::clone(&refusal) };
            config.dangerous().set_certificate_verifier(Arc::new(listener));
        }
        let connected = dial::first(addresses.iter().take(ADDRESSES_MAX), |address| {
            let builder = QuicClientStream::builder().crypto_config(config.clone());
            builder.build(SocketAddr::new(*address, port), Arc::clone(&name))
        });
        let failure = match timeout(CONNECT_LIMIT, connected).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(failure)) => failure,
            Err(_) => return Err(format!("no handshake within {} s", CONNECT_LIMIT.as_secs())),
        };
        let refusal = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(match (refusal, failure) {
            (Some(refusal), _) => tls::explain(&io::Error::other(refusal)),
            (None, Some(failure)) => plain_words(&failure),
            (None, None) => NO_ADDRESS.to_owned(),
        })
    }
}

/// Checks certificates as `verifier` does, and notes what it says.
struct Listener {
    verifier: Arc<WebPkiServerVerifier>,
    refusal: Arc<Mutex<Option<Error>>>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verifier.fmt(f)
    }
}

impl ServerCertVerifier for Listener {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if let Err(err) = &verdict {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(err.clone());
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
