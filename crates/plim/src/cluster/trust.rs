//! Whose certificate a server that extends ours may show.
//!
//! A `caBundle` is made with Go's verification in mind (`crypto/x509`, `Certificate.Verify`): a server may show a
//! certificate that one of the bundle's authorities has issued, or one that lies in the bundle itself. The second is what
//! a generator of self-signed certificates makes, often marked as an authority; path validation alone refuses that
//! (RFC 5280 gives a trust anchor no part in the path it begins).

use std::sync::{Arc, LazyLock};

use anyhow::{Result, ensure};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// The authorities of the machine: reading them takes hundreds of files.
static MACHINE: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

/// Whom a connection believes.
#[derive(Debug)]
pub enum Trust {
    /// Anybody: `https:` targets of the pod and service proxy have certificates of their own, as upstream treats them.
    Anybody,
    /// What a bundle's authorities have issued, and the bundle's own certificates.
    Bundle(Bundle),
}

/// The certificates of a `caBundle`.
#[derive(Debug)]
pub struct Bundle {
    certificates: Vec<CertificateDer<'static>>,
    issued: Arc<WebPkiServerVerifier>,
}

impl Bundle {
    /// `pem`: certificates; none at all stands for those of the machine.
    ///
    /// # Errors
    /// When there is no certificate to begin with. One that cannot be read is passed over, as Go does.
    pub fn new(pem: &[u8]) -> Result<Self> {
        let certificates = if pem.is_empty() {
            MACHINE.clone()
        } else {
            CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        ensure!(!roots.is_empty(), "unable to load root certificates: no certificate in the bundle");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { certificates, issued })
    }
}

impl Bundle {
    fn verify(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.certificates.contains(shown) {
            return self.issued.verify_server_cert(shown, intermediates, name, ocsp, now);
        }
        serves_now(shown, now)?;
        // Refuses critical extensions that it does not know, too.
        verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Self::Anybody => Ok(ServerCertVerified::assertion()),
            Self::Bundle(bundle) => bundle.verify(shown, intermediates, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Whether a certificate is valid now, and may be a server's: it says so, says any purpose, or says nothing.
fn serves_now(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Err(CertificateError::BadEncoding);
    };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < certificate.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > certificate.validity().not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    match certificate.extended_key_usage() {
        Ok(Some(usage)) if !usage.value.any && !usage.value.server_auth => {
            Err(CertificateError::InvalidPurpose)
        }
        Ok(_) => Ok(()),
        Err(_) => Err(CertificateError::BadEncoding),
    }
}
