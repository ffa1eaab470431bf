//! Projected volumes, the downward API and references to fields.

use std::collections::BTreeSet;

use apimachinery::FieldPath;
use serde_json::Value;

use super::{
    trust,
    volumes::{check_items, check_mode, inside},
};
use crate::{
    checks::Checks,
    object::{at, has, list, text},
};

/// What an environment variable may show of its pod.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What a file may show of its pod.
const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Labels that the conversion of the downward API knows.
const KNOWN_FIELDS: [&str; 11] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "spec.host",
];

fn is_known(field: &str) -> bool {
    KNOWN_FIELDS.contains(&field) || ENV_FIELDS.contains(&field)
}

/// A `fieldRef` of an environment variable, else of a file.
pub fn check_field_ref(checks: &mut Checks, reference: &Value, in_env: bool, path: &FieldPath) {
    for field in ["apiVersion", "fieldPath"] {
        if text(reference, field).is_empty() {
            return checks.required(&path.child(field), "");
        }
    }
    let field = text(reference, "fieldPath");
    if let Some((map, key)) = field.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        match map {
            "metadata.annotations" => checks.qualified_name(path, &key.to_lowercase()),
            "metadata.labels" => checks.qualified_name(path, key),
            _ if is_known(map) => checks.invalid(path, map, "does not support subscript"),
            _ => unknown_field(checks, field, path),
        }
        return;
    }
    if !is_known(field) {
        return unknown_field(checks, field, path);
    }
    let allowed: &[&str] = if in_env { &ENV_FIELDS } else { &FILE_FIELDS };
    checks.one_of(&path.child("fieldPath"), field, allowed);
}

fn unknown_field(checks: &mut Checks, field: &str, path: &FieldPath) {
    let detail = format!("error converting fieldPath: field label not supported: {field}");
    checks.invalid(&path.child("fieldPath"), field, &detail);
}

/// A `resourceFieldRef`; in a file it names its container.
pub fn check_resource_ref(checks: &mut Checks, reference: &Value, in_file: bool, path: &FieldPath) {
    let resource = text(reference, "resource");
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix));
    if in_file && text(reference, "containerName").is_empty() {
        checks.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        checks.required(&path.child("resource"), "");
    } else if !huge {
        checks.one_of(&path.child("resource"), resource, &RESOURCES);
    }
    let divisor = match at(reference, "divisor") {
        Value::String(text) if text != "0" => text.as_str(),
        _ => return,
    };
    const SIZES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    let is_size = SIZES.split(", ").any(|size| size == divisor);
    let detail = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" if !matches!(divisor, "1m" | "1") => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        "memory" if !is_size => {
            format!("only divisor's values {SIZES} are supported with the memory resource")
        }
        "ephemeral-storage" if !is_size => {
            format!("only divisor's values {SIZES} are supported with the local ephemeral storage resource")
        }
        _ if huge && !is_size => {
            format!("only divisor's values {SIZES} are supported with the hugepages resource")
        }
        _ => return,
    };
    checks.invalid(&path.child("divisor"), resource, &detail);
}

fn check_file(checks: &mut Checks, file: &Value, path: &FieldPath) {
    if text(file, "path").is_empty() {
        checks.required(&path.child("path"), "");
    }
    inside(checks, text(file, "path"), &path.child("path"));
    match (has(file, "fieldRef"), has(file, "resourceFieldRef")) {
        (true, both) => {
            check_field_ref(checks, at(file, "fieldRef"), false, &path.child("fieldRef"));
            if both {
                checks.invalid(
                    path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
        (false, true) => {
            check_resource_ref(checks, at(file, "resourceFieldRef"), true, &path.child("resourceFieldRef"));
        }
        (false, false) => checks.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    check_mode(checks, file, "mode", path);
}

/// A downward API volume. Upstream reports its files at the volume itself.
pub fn check_downward(checks: &mut Checks, source: &Value, path: &FieldPath) {
    check_mode(checks, source, "defaultMode", path);
    for file in list(source, "items") {
        check_file(checks, file, path);
    }
}

/// A projected volume.
pub fn check(checks: &mut Checks, volume: &Value, path: &FieldPath) {
    check_mode(checks, volume, "defaultMode", path);
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (index, source) in list(volume, "sources").iter().enumerate() {
        let source_path = path.child("sources").index(index);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let keys = at(source, kind);
            if keys.is_null() {
                continue;
            }
            count += 1;
            let path_here = source_path.child(kind);
            if text(keys, "name").is_empty() {
                checks.required(&path_here.child("name"), "");
            }
            check_items(checks, keys, &path_here);
            for item in list(keys, "items") {
                let target = text(item, "path");
                if !target.is_empty() && !seen.insert(target) {
                    checks.invalid(path, text(keys, "name"), "conflicting duplicate paths");
                }
            }
        }
        if has(source, "downwardAPI") {
            count += 1;
            for file in list(source, "downwardAPI.items") {
                check_file(checks, file, &source_path.child("downwardAPI"));
                let target = text(file, "path");
                if !target.is_empty() && !seen.insert(target) {
                    checks.invalid(path, target, "conflicting duplicate paths");
                }
            }
        }
        if has(source, "serviceAccountToken") {
            count += 1;
            check_token(
                checks,
                at(source, "serviceAccountToken"),
                &source_path.child("serviceAccountToken"),
                path,
            );
        }
        if has(source, "clusterTrustBundle") {
            count += 1;
            let here = source_path.child("clusterTrustBundle");
            trust::check_bundle(checks, at(source, "clusterTrustBundle"), &here, path, &mut seen);
        }
        if has(source, "podCertificate") {
            count += 1;
            let here = source_path.child("podCertificate");
            trust::check_certificate(checks, at(source, "podCertificate"), &here, path, &mut seen);
        }
        if count > 1 {
            checks.forbidden(&source_path, "may not specify more than 1 volume type per source");
        }
    }
}

/// Upstream reports the token's path at the volume.
fn check_token(checks: &mut Checks, token: &Value, path: &FieldPath, volume: &FieldPath) {
    let path = path.child("expirationSeconds");
    match at(token, "expirationSeconds").as_i64() {
        None => checks.required(&path, ""),
        Some(seconds) if seconds < 600 => {
            checks.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
        }
        Some(seconds) if seconds > 1 << 32 => {
            checks.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
        Some(_) => {}
    }
    match text(token, "path") {
        "" => checks.required(&volume.child("path"), ""),
        target => inside(checks, target, &volume.child("path")),
    }
}
