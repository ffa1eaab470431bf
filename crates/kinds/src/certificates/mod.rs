//! `certificates.k8s.io/v1`: CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest.
//!
//! Who may approve, sign and attest is a question of admission; what a certificate or a request says is read by
//! [`x509`].
//!
//! Source: `k8s.io/kubernetes/pkg/apis/certificates`, `pkg/registry/certificates`.

mod pem;
mod pod_request;
mod pod_request_status;
mod signing_request;
mod signing_request_rules;
mod trust_bundle;
pub mod x509;

use apimachinery::{FieldError, FieldPath, names};
use base64::Engine as _;
use serde_json::Value;

pub(crate) use pod_request::check_annotations as check_user_annotations;

use crate::{checks::Checks, declare::Declarer, resource::NameRule};

/// The group's name.
pub const GROUP: &str = "certificates.k8s.io";

/// The longest DNS name.
const LONGEST_DOMAIN: usize = 253;
/// A DNS label, a dot, a DNS name: what the path of a signer's name may be.
const LONGEST_PATH: usize = LONGEST_DOMAIN + 63 + 1;

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("certificates.k8s.io/v1", "certificatesigningrequests")
        .named(NameRule::PathSegment)
        .select("spec.signerName", "")
        .strategy(signing_request::CertificateSigningRequest);
    to.resource("certificates.k8s.io/v1", "clustertrustbundles")
        .needs_resource_version()
        .named(NameRule::PathSegment)
        .select("spec.signerName", "")
        .strategy(trust_bundle::ClusterTrustBundle);
    to.resource("certificates.k8s.io/v1", "podcertificaterequests")
        .needs_resource_version()
        .behaves(|b| b.status_keeps_metadata = true)
        .select("spec.signerName", "")
        .select("spec.podName", "")
        .select("spec.nodeName", "")
        .strategy(pod_request::PodCertificateRequest);
}

/// The bytes of a field; none where it holds no base64, which was told when the object was decoded.
pub fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}

/// The request inside a CertificateSigningRequest.
///
/// # Errors
/// In upstream's words where they are fixed.
pub fn request_of(signing_request: &Value) -> Result<x509::Request, String> {
    let pem = bytes(&signing_request["spec"]["request"]);
    x509::Request::from_pem(&String::from_utf8_lossy(&pem))
}

/// `example.com/signer`: a domain of at least two labels, one slash, a path of DNS names.
pub(crate) fn check_signer_name(checks: &mut Checks, path: &FieldPath, name: &str) {
    if name.is_empty() {
        return checks.required(path, "");
    }
    let segments: Vec<&str> = name.split('/').collect();
    let [domain, rest] = segments[..] else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return checks.invalid(path, name, detail);
    };
    if domain.len() > LONGEST_DOMAIN {
        checks.errors.push(FieldError::too_long(path, LONGEST_DOMAIN));
    }
    check_labels(checks, path, domain, names::is_dns1123_label);
    if !domain.contains('.') {
        checks.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    check_labels(checks, path, rest, names::is_dns1123_subdomain);
    let longest = LONGEST_DOMAIN + LONGEST_PATH + 1;
    if name.len() > longest {
        checks.errors.push(FieldError::too_long(path, longest));
    }
}

/// Tells what is wrong with the first faulty label.
fn check_labels(checks: &mut Checks, path: &FieldPath, labels: &str, check: fn(&str) -> Vec<String>) {
    let faults = labels.split('.').map(|label| (label, check(label))).find(|(_, faults)| !faults.is_empty());
    for (label, fault) in faults.iter().flat_map(|(label, faults)| faults.iter().map(move |f| (label, f))) {
        checks.invalid(path, labels, &format!("validating label {label:?}: {fault}"));
    }
}

/// A signer that belongs to Kubernetes itself.
pub(crate) fn is_kubernetes_signer(name: &str) -> bool {
    let domain = name.split('/').next().unwrap_or_default();
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}
