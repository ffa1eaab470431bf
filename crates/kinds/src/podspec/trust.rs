//! Sources of projected volumes that say whom to trust and who the pod is: ClusterTrustBundles and certificates.

use std::collections::BTreeSet;

use apimachinery::{FieldPath, names};
use serde_json::Value;

use super::volumes::inside;
use crate::{
    certificates::{check_signer_name, check_user_annotations, is_kubernetes_signer},
    checks::Checks,
    object::{at, has, text},
};

/// Seconds that a certificate may be asked for.
const SHORTEST: i64 = 3600;
const LONGEST: i64 = 91 * 86_400;
/// The same, of signers that belong to Kubernetes.
const LONGEST_OWN: i64 = 86_400;
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// A `clusterTrustBundle` at `path`; collisions of files are reported at the `volume`.
pub fn check_bundle<'v>(
    checks: &mut Checks,
    source: &'v Value,
    path: &FieldPath,
    volume: &FieldPath,
    seen: &mut BTreeSet<&'v str>,
) {
    let (name, signer) = (text(source, "name"), text(source, "signerName"));
    match (has(source, "name"), has(source, "signerName")) {
        (true, true) => checks.omitted(path, "only one of name and signerName may be used"),
        (true, false) => {
            if name.is_empty() {
                checks.required(&path.child("name"), "must be a valid object name");
            }
            let rest = match name.split(':').collect::<Vec<_>>()[..] {
                [_, _, rest] => rest,
                _ => name,
            };
            for fault in names::subdomain_name(rest, false) {
                let detail = format!("not a valid clustertrustbundlename: {fault}");
                checks.invalid(&path.child("name"), name, &detail);
            }
            if has(source, "labelSelector") {
                let detail = "labelSelector must be unset if name is specified";
                checks.omitted(&path.child("labelSelector"), detail);
            }
        }
        (false, true) => {
            if signer.is_empty() {
                checks.required(&path.child("signerName"), "must be a valid signer name");
            }
            check_signer_name(checks, &path.child("signerName"), signer);
            checks.label_selector(&path.child("labelSelector"), at(source, "labelSelector"));
        }
        (false, false) => checks.required(path, "either name or signerName must be specified"),
    }
    let file = text(source, "path");
    if file.is_empty() {
        checks.required(&path.child("path"), "");
    }
    check_file(checks, file, &path.child("path"), volume, seen);
}

/// A `podCertificate` at `path`; collisions of files are reported at the `volume`.
pub fn check_certificate<'v>(
    checks: &mut Checks,
    source: &'v Value,
    path: &FieldPath,
    volume: &FieldPath,
    seen: &mut BTreeSet<&'v str>,
) {
    let signer = text(source, "signerName");
    check_signer_name(checks, &path.child("signerName"), signer);
    check_user_annotations(checks, &path.child("userAnnotations"), at(source, "userAnnotations"));
    checks.required_one_of(&path.child("keyType"), text(source, "keyType"), &KEY_TYPES);
    if let Some(seconds) = at(source, "maxExpirationSeconds").as_i64() {
        let path = path.child("maxExpirationSeconds");
        if seconds < SHORTEST {
            checks.invalid(&path, seconds, "if provided, maxExpirationSeconds must be >= 3600");
        }
        let longest = if is_kubernetes_signer(signer) { LONGEST_OWN } else { LONGEST };
        if seconds > longest {
            let detail = format!("if provided, maxExpirationSeconds must be <= {longest}");
            checks.invalid(&path, seconds, &detail);
        }
    }
    let fields = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    let mut files = 0;
    for field in fields {
        let file = text(source, field);
        if !file.is_empty() {
            files += 1;
            check_file(checks, file, &path.child(field), volume, seen);
        }
    }
    if files == 0 {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        checks.required(path, detail);
    }
}

fn check_file<'v>(
    checks: &mut Checks,
    file: &'v str,
    path: &FieldPath,
    volume: &FieldPath,
    seen: &mut BTreeSet<&'v str>,
) {
    inside(checks, file, path);
    if !seen.insert(file) {
        checks.invalid(volume, file, "conflicting duplicate paths");
    }
}
