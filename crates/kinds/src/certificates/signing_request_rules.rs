//! What is wrong with a CertificateSigningRequest. What an object had wrong before it was changed is tolerated.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/certificates/validation`.

use std::collections::HashSet;

use apimachinery::FieldError;
use serde_json::Value;

use super::{bytes, check_signer_name, pem, request_of, x509::Certificate};
use crate::{
    checks::{Checks, path},
    object::{at, list, same, text},
};

/// Sorted, as they are told.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The signer of requests made before signers had names.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// Seconds.
const SHORTEST_LIFE: i64 = 600;

/// Conditions that cannot be anything but true.
const ALWAYS_TRUE: [&str; 3] = ["Approved", "Denied", "Failed"];
const APPROVALS: [&str; 2] = ["Approved", "Denied"];

/// Faults that are tolerated because they were there before.
#[derive(Default)]
struct Tolerated {
    legacy_signer: bool,
    repeated_conditions: bool,
    untyped_conditions: bool,
    any_certificate: bool,
    repeated_usages: bool,
    unknown_usages: bool,
}

impl Tolerated {
    fn of(new: &Value, old: &Value) -> Self {
        let conditions = || list(old, "status.conditions").iter().map(|c| text(c, "type"));
        let usages = || list(old, "spec.usages").iter().filter_map(Value::as_str);
        let certificate = at(old, "status.certificate");
        Self {
            legacy_signer: text(old, "spec.signerName") == LEGACY_SIGNER,
            repeated_conditions: repeats(conditions()),
            untyped_conditions: conditions().any(str::is_empty),
            any_certificate: same(at(new, "status.certificate"), certificate)
                || check_certificate(certificate).is_err(),
            repeated_usages: repeats(usages()),
            unknown_usages: usages().any(|usage| !USAGES.contains(&usage)),
        }
    }
}

fn repeats<'t>(mut words: impl Iterator<Item = &'t str>) -> bool {
    let mut seen = HashSet::new();
    words.any(|word| !seen.insert(word))
}

/// A new object.
pub fn check_new(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| check(checks, object, &Tolerated::default()))
}

/// A change through the object itself, `status` or `approval`.
pub fn check_change(new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
    Checks::run(|checks| {
        check(checks, new, &Tolerated::of(new, old));
        check_kept_conditions(checks, new, old, subresource == "approval");
        let (after, before) = (at(new, "status.certificate"), at(old, "status.certificate"));
        if !same(after, before) {
            let path = path("status").child("certificate");
            if subresource != "status" {
                checks.forbidden(&path, "updates may not set certificate content");
            } else if before.as_str().is_some_and(|text| !text.is_empty()) {
                checks.forbidden(&path, "updates may not modify existing certificate content");
            }
        }
        check_decision(checks, new, old);
    })
}

fn check(checks: &mut Checks, object: &Value, tolerated: &Tolerated) {
    let spec = path("spec");
    if let Err(why) = request_of(object).and_then(|request| request.signature) {
        checks.invalid(&spec.child("request"), at(object, "spec.request").clone(), &why);
    }
    check_usages(checks, object, tolerated);
    let signer = text(object, "spec.signerName");
    if signer == LEGACY_SIGNER && !tolerated.legacy_signer {
        let detail = "the legacy signerName is not allowed via this API version";
        checks.invalid(&spec.child("signerName"), signer, detail);
    } else {
        check_signer_name(checks, &spec.child("signerName"), signer);
    }
    if let Some(seconds) = at(object, "spec.expirationSeconds").as_i64().filter(|s| *s < SHORTEST_LIFE) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        checks.invalid(&spec.child("expirationSeconds"), seconds, detail);
    }
    check_conditions(checks, object, tolerated);
    if !tolerated.any_certificate
        && let Err(why) = check_certificate(at(object, "status.certificate"))
    {
        checks.invalid(&path("status").child("certificate"), "<certificate data>", &why);
    }
}

fn check_usages(checks: &mut Checks, object: &Value, tolerated: &Tolerated) {
    let (usages, path) = (list(object, "spec.usages"), path("spec").child("usages"));
    if usages.is_empty() {
        checks.required(&path, "");
    }
    if !tolerated.unknown_usages {
        for (index, usage) in usages.iter().enumerate() {
            checks.one_of(&path.index(index), usage.as_str().unwrap_or_default(), &USAGES);
        }
    }
    if !tolerated.repeated_usages {
        let mut seen = HashSet::new();
        for (index, usage) in usages.iter().enumerate() {
            if !seen.insert(usage.as_str()) {
                checks.duplicate(&path.index(index), usage.clone());
            }
        }
    }
}

fn check_conditions(checks: &mut Checks, object: &Value, tolerated: &Tolerated) {
    let (conditions, path) = (list(object, "status.conditions"), path("status").child("conditions"));
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let kind = text(condition, "type");
        if kind.is_empty() && !tolerated.untyped_conditions {
            checks.required(&path.child("type"), "");
        }
        let statuses: &[&str] =
            if ALWAYS_TRUE.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        checks.required_one_of(&path.child("status"), text(condition, "status"), statuses);
        if !seen.insert(kind) && !tolerated.repeated_conditions {
            checks.duplicate(&path.child("type"), kind);
        }
    }
}

/// Conditions of approval are added, never taken away; only through `approval`.
fn check_kept_conditions(checks: &mut Checks, new: &Value, old: &Value, approving: bool) {
    let path = path("status").child("conditions");
    let of = |object: &Value, kind: &str| -> Value {
        let conditions = list(object, "status.conditions").iter();
        conditions.filter(|c| text(c, "type") == kind).cloned().collect()
    };
    let count = |conditions: &Value| conditions.as_array().map_or(0, Vec::len);
    for kind in ALWAYS_TRUE {
        if count(&of(new, kind)) < count(&of(old, kind)) {
            checks.forbidden(&path, &format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    for kind in APPROVALS.into_iter().filter(|_| !approving) {
        let (after, before) = (of(new, kind), of(old, kind));
        if count(&after) > count(&before) {
            checks.forbidden(&path, &format!("updates may not add a condition of type {kind:?}"));
        } else if count(&after) == count(&before) && !same(&after, &before) {
            checks.forbidden(&path, &format!("updates may not modify a condition of type {kind:?}"));
        }
    }
}

/// A request is approved or denied, not both; one that was both before stays it.
fn check_decision(checks: &mut Checks, new: &Value, old: &Value) {
    let both = |object: &Value| {
        let is = |kind: &str| list(object, "status.conditions").iter().any(|c| text(c, "type") == kind);
        APPROVALS.into_iter().all(is)
    };
    if both(new) && !both(old) {
        let members = APPROVALS.map(|kind| format!("conditions[{{\"type\": {kind:?}}}]"));
        let detail = format!("must specify at most one of: `{}`", members.join("`, `"));
        let members = members.join(", ");
        checks.invalid(&path("status").child("conditions"), format!("{{{members}}}"), &detail);
    }
}

/// Nothing, or PEM blocks of certificates.
fn check_certificate(value: &Value) -> Result<(), String> {
    let data = bytes(value);
    if data.is_empty() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&data);
    let mut blocks = 0;
    for block in pem::blocks(&text) {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        if block.data.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        Certificate::from_der(&block.data)?;
        blocks += 1;
    }
    if blocks == 0 { Err("must contain at least one CERTIFICATE PEM block".to_owned()) } else { Ok(()) }
}
