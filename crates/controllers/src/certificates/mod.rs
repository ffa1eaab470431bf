//! Certificates on request: who gets one without being asked about, who signs, and what is cleaned up.
//!
//! Reading order: [`request`] (what is asked for, and whether a signer may give it) → [`authority`] (the cluster's own, which
//! signs; [`der`] is how a certificate is put together) → [`approving`] → [`signing`] → [`cleaner`], [`trust_bundle`].

pub mod approving;
pub mod authority;
pub mod cleaner;
mod der;
pub mod request;
pub mod signing;
#[cfg(test)]
mod tests;
pub mod trust_bundle;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// Whether a condition of this type is True.
#[must_use]
pub fn holds(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
}

/// The certificate that was given, PEM.
#[must_use]
pub fn issued(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|pem| !pem.is_empty())
}
