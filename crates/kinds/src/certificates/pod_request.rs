//! PodCertificateRequest: a node asks for a certificate that one of its pods will mount. Its spec never changes, and
//! its status changes once: when it is issued, denied or failed.

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    bytes, check_signer_name, is_kubernetes_signer, pod_request_status,
    x509::{KeyKind, Request},
};
use crate::{
    cells::name,
    checks::{Checks, path},
    object::{at, list, set, text},
    resource::Strategy,
};

/// An hour, a day and 91 days, in seconds: the shortest life of a certificate, the longest of Kubernetes' own signers,
/// the longest of any other.
const SHORTEST: i64 = 3600;
const LONGEST_OWN: i64 = 24 * 3600;
const LONGEST: i64 = 91 * 24 * 3600;

/// Bytes.
const LARGEST_STUB: usize = 10 * 1024;
const LONGEST_UID: usize = 128;

pub(super) struct PodCertificateRequest;

fn check(checks: &mut Checks, object: &Value) {
    let (spec, path) = (at(object, "spec"), path("spec"));
    let signer = text(spec, "signerName");
    check_signer_name(checks, &path.child("signerName"), signer);
    check_annotations(
        checks,
        &path.child("unverifiedUserAnnotations"),
        at(spec, "unverifiedUserAnnotations"),
    );
    for owner in ["pod", "serviceAccount", "node"] {
        let (field, value) = (format!("{owner}Name"), text(spec, &format!("{owner}Name")));
        checks.each(&path.child(&field), value, names::subdomain_name(value, false));
        let (field, value) = (format!("{owner}UID"), text(spec, &format!("{owner}UID")));
        if value.is_empty() {
            checks.invalid(&path.child(&field), value, "must not be empty");
        }
        if value.len() > LONGEST_UID {
            checks.errors.push(FieldError::too_long(&path.child(&field), LONGEST_UID));
        }
    }
    let life = path.child("maxExpirationSeconds");
    let Some(seconds) = at(spec, "maxExpirationSeconds").as_i64() else {
        return checks.required(&life, "must be set");
    };
    let longest = if is_kubernetes_signer(signer) { LONGEST_OWN } else { LONGEST };
    if !(SHORTEST..=longest).contains(&seconds) {
        checks.invalid(&life, seconds, &format!("must be in the range [{SHORTEST}, {longest}]"));
    }
    let stub = bytes(at(spec, "stubPKCS10Request"));
    if stub.is_empty() {
        let detail = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        return checks.omitted(&path, detail);
    }
    check_stub(checks, &path.child("stubPKCS10Request"), &stub);
}

/// What a pod's author tells the signer: keys with a domain, in all no larger than annotations may be.
pub(crate) fn check_annotations(checks: &mut Checks, path: &FieldPath, annotations: &Value) {
    const LARGEST: usize = 256 * 1024;
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        check_domain_key(checks, path, &key.to_lowercase());
    }
    if size > LARGEST {
        checks.errors.push(FieldError::too_long(path, LARGEST));
    }
}

/// `example.com/key`
fn check_domain_key(checks: &mut Checks, path: &FieldPath, key: &str) {
    if key.is_empty() {
        return checks.required(path, "");
    }
    let faults = names::is_qualified_name(key);
    if !faults.is_empty() {
        return checks.each(path, key, faults);
    }
    if key.split('/').count() != 2 {
        checks.invalid(path, key, "must be a domain-prefixed key (such as \"acme.io/foo\")");
    }
}

/// A request that carries nothing but a key and proves that whoever made it holds it.
fn check_stub(checks: &mut Checks, path: &FieldPath, der: &[u8]) {
    if der.len() > LARGEST_STUB {
        return checks.errors.push(FieldError::too_long(path, LARGEST_STUB));
    }
    let Ok(request) = Request::from_der(der) else {
        return checks.omitted(path, "must be a valid PKCS#10 CSR");
    };
    match &request.key.kind {
        KeyKind::Ed25519 => {}
        KeyKind::Elliptic(curve) if ["P-256", "P-384", "P-521"].contains(&curve.as_str()) => {}
        KeyKind::Elliptic(curve) => {
            let detail = "elliptic public keys must use curve P256, P384, or P521";
            return checks.invalid(path, format!("curve {curve}"), detail);
        }
        KeyKind::Rsa(3072 | 4096) => {}
        KeyKind::Rsa(bits) => {
            let detail = "RSA keys must have modulus size 3072 or 4096";
            return checks.invalid(path, format!("{bits}-bit modulus"), detail);
        }
        KeyKind::Other => {
            let detail = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
            return checks.omitted(path, detail);
        }
    }
    if request.signature.is_err() {
        checks.omitted(path, "invalid signature");
    }
}

impl Strategy for PodCertificateRequest {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        // The spec does not change.
        if !text(object, "metadata.resourceVersion").is_empty() {
            return Vec::new();
        }
        Checks::run(|checks| check(checks, object))
    }

    fn validate_update_at(
        &self,
        new: &Object,
        old: &Object,
        subresource: &str,
        now: DateTime<Utc>,
    ) -> Vec<FieldError> {
        Checks::run(|checks| match subresource {
            "status" => pod_request_status::check(checks, new, old, now),
            _ => checks.immutable(new, old, "spec"),
        })
    }

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        let known = |condition: &Value| ["Issued", "Denied", "Failed"].contains(&text(condition, "type"));
        let state = list(object, "status.conditions").iter().rfind(|condition| known(condition));
        let spec = at(object, "spec");
        let mut row = vec![name(object)];
        row.extend(["podName", "serviceAccountName", "nodeName", "signerName"].map(|f| text(spec, f).into()));
        row.push(state.map_or("Pending", |condition| text(condition, "type")).into());
        row.push(crate::cells::labels(at(spec, "unverifiedUserAnnotations")).into());
        Some(row)
    }
}
