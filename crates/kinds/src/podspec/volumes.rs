//! Volumes and their mounts.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::FieldPath;
use serde_json::Value;

use super::{
    attached::{self, Owner, spare_name},
    projected,
    rules::Place,
};
use crate::{
    checks::{Checks, quantity},
    object::{at, flag, has, list, text},
};

/// The volumes that are right, by name.
pub type Named<'s> = BTreeMap<&'s str, &'s Value>;

const MODE_DETAIL: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const EMPTY_DIR_MODE_DETAIL: &str = "must be a number between 0 and 01777 (octal), both inclusive";

/// Sources in the order in which upstream looks for them; only one may be there.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// All volumes of a spec.
pub fn check<'s>(checks: &mut Checks, volumes: &'s [Value], path: &FieldPath, place: Place<'_>) -> Named<'s> {
    let mut named = Named::new();
    let created: BTreeSet<String> = volumes
        .iter()
        .filter(|volume| !place.pod_name.is_empty() && has(volume, "ephemeral"))
        .map(|volume| format!("{}-{}", place.pod_name, text(volume, "name")))
        .collect();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let before = checks.errors.len();
        let name = text(volume, "name");
        check_source(checks, volume, &path, place);
        match name {
            "" => checks.required(&path.child("name"), ""),
            name => checks.dns_label(&path.child("name"), name),
        }
        if named.contains_key(name) {
            checks.duplicate(&path.child("name"), name);
        }
        if checks.errors.len() == before {
            named.insert(name, volume);
        }
        let claim = text(volume, "persistentVolumeClaim.claimName");
        if created.contains(claim) {
            checks.invalid(
                &path.child("persistentVolumeClaim").child("claimName"),
                claim,
                "must not reference a PVC that gets created for an ephemeral volume",
            );
        }
    }
    named
}

fn check_source(checks: &mut Checks, volume: &Value, outer: &FieldPath, place: Place<'_>) {
    let mut found = false;
    for name in SOURCES {
        let source = at(volume, name);
        if source.is_null() {
            continue;
        }
        let path = outer.child(name);
        if found {
            checks.forbidden(&outer.child(spare_name(name)), "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        attached::check(checks, name, source, outer, Owner::Pod);
        match name {
            "emptyDir" => check_empty_dir(checks, source, &path),
            "hostPath" => check_host_path(checks, source, &path),
            "secret" => check_keys(checks, source, "secretName", &path),
            "configMap" => check_keys(checks, source, "name", &path),
            "persistentVolumeClaim" if text(source, "claimName").is_empty() => {
                checks.required(&path.child("claimName"), "");
            }
            "downwardAPI" => projected::check_downward(checks, source, &path),
            "projected" => projected::check(checks, source, &path),
            "csi" => check_csi(checks, source, &path),
            "ephemeral" => check_ephemeral(checks, volume, &path, place),
            "image" if place.is_pod && text(source, "reference").is_empty() => {
                checks.required(&path.child("reference"), "");
            }
            "image" => checks.required_one_of(
                &path.child("pullPolicy"),
                text(source, "pullPolicy"),
                &["Always", "IfNotPresent", "Never"],
            ),
            _ => {}
        }
    }
    if !found {
        checks.required(outer, "must specify a volume type");
    }
}

fn check_empty_dir(checks: &mut Checks, source: &Value, path: &FieldPath) {
    if quantity(at(source, "sizeLimit")).is_some_and(|limit| limit.sign() < 0) {
        checks.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
    if let Some(mode) = at(source, "mode").as_i64()
        && !(0..=0o1777).contains(&mode)
    {
        checks.invalid(&path.child("mode"), mode, EMPTY_DIR_MODE_DETAIL);
    }
}

/// A folder or file of the node.
pub fn check_host_path(checks: &mut Checks, source: &Value, path: &FieldPath) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    match text(source, "path") {
        "" => checks.required(&path.child("path"), ""),
        host => {
            no_backsteps(checks, host, &path.child("path"));
            if let Some(kind) = at(source, "type").as_str() {
                checks.one_of(&path.child("type"), kind, &TYPES);
            }
        }
    }
}

fn check_csi(checks: &mut Checks, source: &Value, path: &FieldPath) {
    check_csi_driver(checks, text(source, "driver"), &path.child("driver"));
}

/// The name of a CSI driver.
pub fn check_csi_driver(checks: &mut Checks, driver: &str, path: &FieldPath) {
    if driver.is_empty() {
        return checks.required(path, "");
    }
    if driver.len() > 63 {
        checks.errors.push(apimachinery::FieldError::too_long(path, 63));
    }
    checks.each(path, driver, apimachinery::names::is_dns1123_subdomain(&driver.to_lowercase()));
}

fn check_ephemeral(checks: &mut Checks, volume: &Value, path: &FieldPath, place: Place<'_>) {
    let template = at(volume, "ephemeral.volumeClaimTemplate");
    let path = path.child("volumeClaimTemplate");
    if template.is_null() {
        return checks.required(&path, "");
    }
    checks.annotations(&path.child("metadata").child("annotations"), at(template, "metadata.annotations"));
    checks.labels(&path.child("metadata").child("labels"), at(template, "metadata.labels"));
    crate::core::check_claim_spec(checks, at(template, "spec"), &path.child("spec"));
    if !place.pod_name.is_empty() && !text(volume, "name").is_empty() {
        let name = format!("{}-{}", place.pod_name, text(volume, "name"));
        for message in apimachinery::names::is_dns1123_subdomain(&name) {
            checks.invalid(&path, text(volume, "name"), &format!("PVC name {name:?}: {message}"));
        }
    }
}

/// A Secret or ConfigMap as a volume.
fn check_keys(checks: &mut Checks, source: &Value, name_field: &str, path: &FieldPath) {
    if text(source, name_field).is_empty() {
        checks.required(&path.child(name_field), "");
    }
    check_mode(checks, source, "defaultMode", path);
    check_items(checks, source, path);
}

/// `items`: which key goes to which file.
pub fn check_items(checks: &mut Checks, source: &Value, path: &FieldPath) {
    for (index, item) in list(source, "items").iter().enumerate() {
        let path = path.child("items").index(index);
        for field in ["key", "path"] {
            if text(item, field).is_empty() {
                checks.required(&path.child(field), "");
            }
        }
        inside(checks, text(item, "path"), &path.child("path"));
        check_mode(checks, item, "mode", &path);
    }
}

/// File permissions.
pub fn check_mode(checks: &mut Checks, value: &Value, field: &str, path: &FieldPath) {
    if let Some(mode) = at(value, field).as_i64()
        && !(0..=0o777).contains(&mode)
    {
        checks.invalid(&path.child(field), mode, MODE_DETAIL);
    }
}

/// No element is `..`.
pub fn no_backsteps(checks: &mut Checks, value: &str, path: &FieldPath) {
    if value.split('/').any(|element| element == "..") {
        checks.invalid(path, value, "must not contain '..'");
    }
}

/// A relative path that stays below.
pub fn below(checks: &mut Checks, value: &str, path: &FieldPath) {
    if value.starts_with('/') {
        checks.invalid(path, value, "must be a relative path");
    }
    no_backsteps(checks, value, path);
}

/// A relative path that stays below and does not look like the kubelet's own (`..data`).
pub fn inside(checks: &mut Checks, value: &str, path: &FieldPath) {
    below(checks, value, path);
    if value.starts_with("..") && !value.starts_with("../") {
        checks.invalid(path, value, "must not start with '..'");
    }
}

/// What a text field is in some item.
fn words<'v>(items: &'v [Value], field: &str) -> BTreeSet<&'v str> {
    items.iter().map(|item| text(item, field)).collect()
}

/// `volumeMounts` and `volumeDevices` of one container.
pub fn check_mounts(checks: &mut Checks, container: &Value, volumes: &Named<'_>, path: &FieldPath) {
    let (mounts, devices) = (list(container, "volumeMounts"), list(container, "volumeDevices"));
    let mut seen = BTreeSet::new();
    let (device_names, device_paths) = (words(devices, "name"), words(devices, "devicePath"));
    let mounts_path = path.child("volumeMounts");
    for (index, mount) in mounts.iter().enumerate() {
        let path = mounts_path.index(index);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            checks.required(&path.child("name"), "");
        }
        if !volumes.contains_key(name) {
            checks.not_found(&path.child("name"), name);
        }
        if target.is_empty() {
            checks.required(&path.child("mountPath"), "");
        }
        if !seen.insert(target) {
            checks.invalid(&path.child("mountPath"), target, "must be unique");
        }
        if device_names.contains(name) {
            checks.invalid(&path.child("name"), name, "must not already exist in volumeDevices");
        }
        if device_paths.contains(target) {
            let detail = "must not already exist as a path in volumeDevices";
            checks.invalid(&path.child("mountPath"), target, detail);
        }
        check_mount_options(checks, mount, container, &path, &mounts_path);
    }
    check_devices(checks, devices, mounts, volumes, &path.child("volumeDevices"));
}

/// `list_path`: upstream reports some of these at the list.
fn check_mount_options(
    checks: &mut Checks,
    mount: &Value,
    container: &Value,
    path: &FieldPath,
    list_path: &FieldPath,
) {
    let (sub_path, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !sub_path.is_empty() {
        below(checks, sub_path, &list_path.child("subPath"));
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            checks.invalid(&path.child("subPathExpr"), expression, detail);
        }
        below(checks, expression, &list_path.child("subPathExpr"));
    }
    let propagation = at(mount, "mountPropagation").as_str();
    if let Some(mode) = propagation {
        let path = list_path.child("mountPropagation");
        checks.one_of(&path, mode, &["Bidirectional", "HostToContainer", "None"]);
        if mode == "Bidirectional" && !flag(container, "securityContext.privileged") {
            checks.forbidden(
                &path,
                "Bidirectional mount propagation is available only to privileged containers",
            );
        }
    }
    if let Some(mode) = at(mount, "recursiveReadOnly").as_str() {
        let path = list_path.child("recursiveReadOnly");
        checks.one_of(&path, mode, &["Disabled", "Enabled", "IfPossible"]);
        if matches!(mode, "Enabled" | "IfPossible") {
            if !flag(mount, "readOnly") {
                checks.forbidden(&path, "may only be specified when readOnly is true");
            }
            if propagation.is_some_and(|mode| mode != "None") {
                checks
                    .forbidden(&path, "may only be specified when mountPropagation is None or not specified");
            }
        }
    }
}

fn check_devices(
    checks: &mut Checks,
    devices: &[Value],
    mounts: &[Value],
    volumes: &Named<'_>,
    path: &FieldPath,
) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let (mount_names, mount_paths) = (words(mounts, "name"), words(mounts, "mountPath"));
    for (index, device) in devices.iter().enumerate() {
        let path = path.index(index);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        if name.is_empty() {
            checks.required(&path.child("name"), "");
        }
        if names.contains(name) {
            checks.invalid(&path.child("name"), name, "must be unique");
        }
        match volumes.get(name) {
            None => checks.not_found(&path.child("name"), name),
            Some(volume) if has(volume, "persistentVolumeClaim") || has(volume, "ephemeral") => {}
            Some(_) => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                checks.invalid(&path.child("name"), name, detail);
            }
        }
        if target.is_empty() {
            checks.required(&path.child("devicePath"), "");
        }
        if paths.contains(target) {
            checks.invalid(&path.child("devicePath"), target, "must be unique");
        }
        if target.split('/').any(|element| element == "..") {
            checks.invalid(&path.child("devicePath"), target, "can not contain backsteps ('..')");
        } else {
            paths.insert(target);
        }
        if mount_names.contains(name) {
            checks.invalid(&path.child("name"), name, "must not already exist in volumeMounts");
        }
        if mount_paths.contains(target) {
            checks.invalid(
                &path.child("devicePath"),
                target,
                "must not already exist as a path in volumeMounts",
            );
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}
