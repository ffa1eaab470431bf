//! ClusterTrustBundle: certificates that whoever mounts it trusts.

use std::collections::BTreeMap;

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{check_signer_name, pem, x509::Certificate};
use crate::{
    cells::name,
    checks::{Checks, path},
    object::{at, same, text},
    resource::Strategy,
};

/// Bytes.
const LARGEST: usize = 1024 * 1024;

pub(super) struct ClusterTrustBundle;

/// A bundle of a signer is named after it: `example.com:signer:anything`.
fn check_name(checks: &mut Checks, object: &Value) {
    let (name, signer) = (text(object, "metadata.name"), text(object, "spec.signerName"));
    let path = path("metadata").child("name");
    let rest = if signer.is_empty() {
        if name.contains(':') {
            let detail = "ClusterTrustBundle without signer name must not have \":\" in its name";
            return checks.invalid(&path, name, detail);
        }
        name
    } else {
        let prefix = format!("{}:", signer.replace('/', ":"));
        let Some(rest) = name.strip_prefix(&prefix) else {
            let detail =
                format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
            return checks.invalid(&path, name, &detail);
        };
        rest
    };
    checks.each(&path, name, names::subdomain_name(rest, false));
}

/// What is wrong with one block.
fn fault(block: &pem::Block) -> Option<String> {
    if block.label != "CERTIFICATE" {
        return Some(format!("has bad block type: {}", block.label));
    }
    if block.headers {
        return Some("has PEM block headers".to_owned());
    }
    match Certificate::from_der(&block.data) {
        Err(_) => Some("does not parse as X.509".to_owned()),
        Ok(certificate) if !certificate.is_ca => Some("does not have the CA bit set".to_owned()),
        Ok(_) => None,
    }
}

fn check_bundle(checks: &mut Checks, path: &FieldPath, bundle: &str) {
    const OMITTED: &str = "<value omitted>";
    if bundle.len() > LARGEST {
        checks.errors.push(FieldError::too_long(path, LARGEST));
        return;
    }
    let before = checks.errors.len();
    let mut anchors: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (index, block) in pem::blocks(bundle).enumerate() {
        match fault(&block) {
            Some(fault) => checks.invalid(path, OMITTED, &format!("entry {index} {fault}")),
            None => anchors.entry(block.data).or_default().push(index),
        }
    }
    // With a faulty block, what is missing or repeated would mislead.
    if checks.errors.len() > before {
        return;
    }
    if anchors.is_empty() {
        checks.invalid(path, OMITTED, "at least one trust anchor must be provided");
    }
    for indices in anchors.values().filter(|indices| indices.len() > 1) {
        let indices: Vec<String> = indices.iter().map(ToString::to_string).collect();
        let detail = format!("duplicate trust anchor (indices [{}])", indices.join(" "));
        checks.invalid(path, OMITTED, &detail);
    }
}

fn check(checks: &mut Checks, object: &Value, old: Option<&Value>) {
    if old.is_none() {
        check_name(checks, object);
    }
    let signer = text(object, "spec.signerName");
    if !signer.is_empty() {
        check_signer_name(checks, &path("spec").child("signerName"), signer);
    }
    let bundle = text(object, "spec.trustBundle");
    if old.is_none_or(|old| text(old, "spec.trustBundle") != bundle) {
        check_bundle(checks, &path("spec").child("trustBundle"), bundle);
    }
}

impl Strategy for ClusterTrustBundle {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        // A change is judged against what was there before.
        if !text(object, "metadata.resourceVersion").is_empty() {
            return Vec::new();
        }
        Checks::run(|checks| check(checks, object, None))
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            check_name(checks, new);
            check(checks, new, Some(old));
            if !same(at(new, "spec.signerName"), at(old, "spec.signerName")) {
                checks.immutable(new, old, "spec.signerName");
            }
        })
    }

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        let signer = match text(object, "spec.signerName") {
            "" => "<none>",
            signer => signer,
        };
        Some(vec![name(object), signer.into()])
    }
}
