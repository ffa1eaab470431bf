//! Callers whom another server speaks for: a client certificate of the front proxy's authority, and who it is in headers.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/request/headerrequest`.

use std::sync::Arc;

use access::{Authenticator, UserInfo};
use apimachinery::ApiError;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity;

/// The common names that may speak for others, as kubeadm sets them up.
pub const NAMES: [&str; 1] = ["front-proxy-client"];

/// Reads the headers of connections that a front proxy made. It comes before all other authenticators: a certificate of
/// its authority is good for nothing else.
pub(crate) struct FrontProxy {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl FrontProxy {
    /// `authorities`: PEM.
    pub fn new(authorities: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self { verifier: verifier.build().map_err(|e| e.to_string())? })
    }

    /// Whether the chain is of the front proxy's authority, at `now`.
    fn is_of_authority(&self, chain: &[Vec<u8>], now: DateTime<Utc>) -> bool {
        let certificates: Vec<CertificateDer<'_>> =
            chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let Some((leaf, between)) = certificates.split_first() else { return false };
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        self.verifier.verify_client_cert(leaf, between, now).is_ok()
    }
}

#[async_trait]
impl Authenticator for FrontProxy {
    async fn authenticate(
        &self,
        headers: &http::HeaderMap,
        certificates: &[Vec<u8>],
        now: DateTime<Utc>,
    ) -> Result<Option<UserInfo>, ApiError> {
        if certificates.is_empty() || !self.is_of_authority(certificates, now) {
            return Ok(None);
        }
        let allowed = X509Certificate::from_der(&certificates[0]).is_ok_and(|(_, certificate)| {
            let mut names = certificate.subject().iter_common_name().filter_map(|n| n.as_str().ok());
            names.any(|name| NAMES.contains(&name))
        });
        let user = identity::read(headers).filter(|_| allowed);
        let mut user = user.ok_or_else(ApiError::unauthorized)?;
        let both = [access::AUTHENTICATED, access::UNAUTHENTICATED];
        if !user.groups.iter().any(|g| both.contains(&g.as_str())) {
            user.groups.push(access::AUTHENTICATED.to_owned());
        }
        Ok(Some(user))
    }
}
