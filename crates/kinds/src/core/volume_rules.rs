//! What is wrong with PersistentVolumes and claims.

use apimachinery::{FieldError, FieldPath};
use serde_json::Value;

use crate::{
    checks::{Checks, path, quantity},
    object::{at, entries, has, list, restore, same, text},
    podspec::{
        attached::{self, Owner, spare_name},
        quantity_value,
        volumes::{check_csi_driver, check_host_path, no_backsteps},
    },
};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

fn check_access_modes(checks: &mut Checks, modes: &[Value], path: &FieldPath) {
    let names: Vec<&str> = modes.iter().filter_map(Value::as_str).collect();
    for mode in &names {
        checks.one_of(path, mode, &MODES);
    }
    let once = names.contains(&"ReadWriteOncePod");
    if once && names.iter().any(|mode| *mode != "ReadWriteOncePod" && MODES.contains(mode)) {
        checks.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// A size that is there and more than nothing.
fn check_storage(checks: &mut Checks, value: &Value, path: &FieldPath) {
    match quantity(value) {
        None => checks.required(path, ""),
        Some(size) if size.sign() <= 0 => checks.invalid(path, size.to_string(), "must be greater than zero"),
        Some(_) => quantity_value(checks, "storage", value, path),
    }
}

/// The spec of a claim, also in templates.
pub fn check_claim_spec(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let modes = list(spec, "accessModes");
    if modes.is_empty() {
        checks.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    checks.label_selector(&path.child("selector"), at(spec, "selector"));
    check_access_modes(checks, modes, &path.child("accessModes"));
    check_storage(checks, at(spec, "resources.requests.storage"), &path.child("resources").key("storage"));
    let class = |checks: &mut Checks, field: &str| {
        let class = text(spec, field);
        if !class.is_empty() {
            checks.dns_subdomain(&path.child(field), class);
        }
    };
    class(checks, "storageClassName");
    if let Some(mode) = at(spec, "volumeMode").as_str() {
        checks.one_of(&path.child("volumeMode"), mode, &VOLUME_MODES);
    }
    for field in ["dataSource", "dataSourceRef"] {
        let source = at(spec, field);
        if !source.is_null() {
            check_source(checks, source, &path.child(field));
        }
    }
    let (source, reference) = (at(spec, "dataSource"), at(spec, "dataSourceRef"));
    if !source.is_null() && !reference.is_null() {
        let pointer = path.child("dataSource").to_string();
        if !text(reference, "namespace").is_empty() {
            checks.invalid(path, pointer, "may not be specified when dataSourceRef.namespace is specified");
        } else if ["apiGroup", "kind", "name"].iter().any(|field| at(source, field) != at(reference, field)) {
            checks.invalid(path, pointer, "must match dataSourceRef");
        }
    }
    class(checks, "volumeAttributesClassName");
}

fn check_source(checks: &mut Checks, source: &Value, path: &FieldPath) {
    for field in ["name", "kind"] {
        if text(source, field).is_empty() {
            checks.required(&path.child(field), "");
        }
    }
    let group = text(source, "apiGroup");
    if group.is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        checks.invalid(path, text(source, "kind"), detail);
    }
    if !group.is_empty() {
        checks.dns_subdomain(&path.child("apiGroup"), group);
    }
}

pub fn check_claim(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| check_claim_spec(checks, at(object, "spec"), &path("spec")))
}

/// A claim's spec stays, but for what a bound one may ask more of.
pub fn check_claim_update(new: &Value, old: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let mut wanted = new.clone();
        let storage = "spec.resources.requests.storage";
        if text(old, "spec.volumeName").is_empty() {
            restore(&mut wanted, old, "spec.volumeName");
        }
        // A claim without a class may be given the default one later.
        if !has(old, "spec.storageClassName") {
            restore(&mut wanted, old, "spec.storageClassName");
        }
        if text(new, "status.phase") == "Bound" {
            if has(new, "spec.resources.requests") {
                restore(&mut wanted, old, storage);
            }
            restore(&mut wanted, old, "spec.volumeAttributesClassName");
        }
        if !same(at(&wanted, "spec"), at(old, "spec")) {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName \
                          for bound claims\n";
            checks.forbidden(&path("spec"), detail);
        }
        let size = |object: &Value, place: &str| quantity(at(object, place));
        // An absent amount is none at all.
        let (new_size, old_size) = (size(new, storage), size(old, storage));
        let capacity = size(old, "status.capacity.storage").unwrap_or_default();
        if old_size.is_some_and(|old_size| new_size.unwrap_or_default() < old_size)
            && new_size.unwrap_or_default() <= capacity
        {
            let path = path("spec").child("resources").child("requests").child("storage");
            checks.forbidden(&path, "field can not be less than status.capacity");
        }
        if !same(at(new, "spec.volumeMode"), at(old, "spec.volumeMode")) {
            checks.invalid(&path("volumeMode"), at(new, "spec.volumeMode").clone(), "field is immutable");
        }
    })
}

/// Fields of a PersistentVolumeSpec that say where the storage is.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

pub fn check_volume(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let name = text(object, "metadata.name");
        let path = path("spec");
        let spec = at(object, "spec");
        let modes = list(spec, "accessModes");
        if modes.is_empty() {
            checks.required(&path.child("accessModes"), "");
        }
        check_access_modes(checks, modes, &path.child("accessModes"));
        let capacity = at(spec, "capacity");
        if entries(spec, "capacity").next().is_none() {
            checks.required(&path.child("capacity"), "");
        }
        if capacity.get("storage").is_none() || entries(spec, "capacity").count() > 1 {
            let error = FieldError::not_supported(&path.child("capacity"), capacity.clone(), &["storage"]);
            checks.errors.push(error);
        }
        for (name, value) in entries(spec, "capacity") {
            check_storage(checks, value, &path.child("capacity").key(name));
        }
        let policy = text(spec, "persistentVolumeReclaimPolicy");
        if !policy.is_empty() {
            let supported = ["Delete", "Recycle", "Retain"];
            checks.one_of(&path.child("persistentVolumeReclaimPolicy"), policy, &supported);
        }
        let affinity = at(spec, "nodeAffinity.required");
        if has(spec, "nodeAffinity") {
            let path = path.child("nodeAffinity").child("required");
            if affinity.is_null() {
                checks.required(&path, "must specify required node constraints");
            } else {
                crate::podspec::check_node_selector(checks, affinity, &path);
            }
        }
        check_volume_source(checks, spec, &path, name);
        let class = text(spec, "storageClassName");
        if !class.is_empty() {
            checks.dns_subdomain(&path.child("storageClassName"), class);
        }
        if let Some(mode) = at(spec, "volumeMode").as_str() {
            checks.one_of(&path.child("volumeMode"), mode, &VOLUME_MODES);
        }
        if let Some(class) = at(spec, "volumeAttributesClassName").as_str() {
            match class {
                "" => {
                    let path = path.child("volumeAttributesClassName");
                    checks.required(&path, "an empty string is disallowed");
                }
                class => checks.dns_subdomain(&path.child("volumeAttributesClassName"), class),
            }
            if !has(spec, "csi") {
                let detail = "has to be specified when using volumeAttributesClassName";
                checks.required(&path.child("csi"), detail);
            }
        }
    })
}

/// The spec of a volume that stands in a VolumeAttachment: a CSI volume that belongs to nobody.
pub fn check_inline_volume(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    const INLINE: &str = "in the context of inline volumes";
    if has(spec, "claimRef") {
        checks.forbidden(&path.child("claimRef"), &format!("may not be specified {INLINE}"));
    }
    if entries(spec, "capacity").next().is_some() {
        checks.forbidden(&path.child("capacity"), &format!("may not be specified {INLINE}"));
    }
    if !has(spec, "csi") {
        checks.required(&path.child("csi"), &format!("has to be specified {INLINE}"));
    }
    let modes = list(spec, "accessModes");
    if modes.is_empty() {
        checks.required(&path.child("accessModes"), "");
    }
    check_access_modes(checks, modes, &path.child("accessModes"));
    if !matches!(text(spec, "persistentVolumeReclaimPolicy"), "" | "Retain") {
        let detail = format!("may only be Retain {INLINE}");
        checks.forbidden(&path.child("persistentVolumeReclaimPolicy"), &detail);
    }
    if has(spec, "nodeAffinity") {
        checks.forbidden(&path.child("nodeAffinity"), &format!("may not be specified {INLINE}"));
    }
    check_volume_source(checks, spec, path, "");
    if !text(spec, "storageClassName").is_empty() {
        checks.forbidden(&path.child("storageClassName"), &format!("may not be specified {INLINE}"));
    }
    if !matches!(text(spec, "volumeMode"), "" | "Filesystem") {
        let detail = format!("may not specify volumeMode other than Filesystem {INLINE}");
        checks.forbidden(&path.child("volumeMode"), &detail);
    }
}

fn check_volume_source(checks: &mut Checks, spec: &Value, outer: &FieldPath, volume: &str) {
    let mut found = false;
    for name in SOURCES {
        let source = at(spec, name);
        if source.is_null() {
            continue;
        }
        let path = outer.child(name);
        // A second flexVolume is not minded.
        if found && name != "flexVolume" {
            checks.forbidden(&outer.child(spare_name(name)), "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        attached::check(checks, name, source, outer, Owner::Volume(volume));
        match name {
            "hostPath" => check_host_path(checks, source, &path),
            "local" => {
                match text(source, "path") {
                    "" => checks.required(&path.child("path"), ""),
                    target => no_backsteps(checks, target, &path.child("path")),
                }
                if !has(spec, "nodeAffinity") {
                    checks.required(&outer.child("nodeAffinity"), "Local volume requires node affinity");
                }
            }
            "csi" => {
                check_csi_driver(checks, text(source, "driver"), &path.child("driver"));
                if text(source, "volumeHandle").is_empty() {
                    checks.required(&path.child("volumeHandle"), "");
                }
                attached::check_csi_secrets(checks, source, &path);
            }
            _ => {}
        }
    }
    if !found {
        checks.required(outer, "must specify a volume type");
    }
    if text(spec, "hostPath.path") == "/" && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        checks.forbidden(&outer.child("persistentVolumeReclaimPolicy"), detail);
    }
}

/// Where a volume's storage is stays.
pub fn check_volume_update(new: &Value, old: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let source = |object: &Value, name: &str| -> Value { at(at(object, "spec"), name).clone() };
        if SOURCES.iter().any(|name| !same(&source(new, name), &source(old, name))) {
            let detail = "spec.persistentvolumesource is immutable after creation\n";
            checks.forbidden(&path("spec.persistentvolumesource"), detail);
        }
        if !same(at(new, "spec.volumeMode"), at(old, "spec.volumeMode")) {
            checks.invalid(&path("volumeMode"), at(new, "spec.volumeMode").clone(), "field is immutable");
        }
        if has(old, "spec.nodeAffinity") {
            checks.immutable(new, old, "spec.nodeAffinity");
        }
    })
}
