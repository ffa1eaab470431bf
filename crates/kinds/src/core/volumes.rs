//! PersistentVolume and PersistentVolumeClaim.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::volume_rules as rules;
use crate::{
    cells::{created, name},
    checks::path,
    object::{at, entries, has, list, remove, restore, same, set, text},
    resource::Strategy,
    warnings,
};

/// `RWO,ROX,RWX,RWOP`, in that order, each once.
fn access_modes(modes: &[Value]) -> String {
    [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .iter()
    .filter(|(mode, _)| modes.iter().any(|m| m == mode))
    .map(|(_, short)| *short)
    .collect::<Vec<_>>()
    .join(",")
}

/// The annotation that came before the field.
fn class(object: &Object) -> Value {
    let annotation = entries(object, "metadata.annotations")
        .find(|(key, _)| *key == "volume.beta.kubernetes.io/storage-class");
    match annotation {
        Some((_, class)) => class.clone(),
        None => text(object, "spec.storageClassName").into(),
    }
}

fn or_unset(object: &Object, path: &str) -> Value {
    at(object, path).as_str().unwrap_or("<unset>").into()
}

fn phase(object: &Object) -> Value {
    if has(object, "metadata.deletionTimestamp") {
        "Terminating".into()
    } else {
        text(object, "status.phase").into()
    }
}

fn timestamp(now: DateTime<Utc>) -> String {
    now.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn prepare_create(&self, object: &mut Object, now: DateTime<Utc>) {
        set(object, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": timestamp(now)}));
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, subresource: &str) {
        // A client that changes the phase sets the time with it; one that does not know the field must not lose it.
        if subresource == "status"
            && at(new, "status.phase") == at(old, "status.phase")
            && !has(new, "status.lastPhaseTransitionTime")
        {
            restore(new, old, "status.lastPhaseTransitionTime");
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_volume(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        if subresource.is_empty() { rules::check_volume_update(new, old) } else { Vec::new() }
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        let annotations = path("metadata").child("annotations");
        for (key, words) in [
            (
                "volume.beta.kubernetes.io/storage-class",
                r#"deprecated since v1.8; use "storageClassName" attribute instead"#,
            ),
            (
                "volume.beta.kubernetes.io/mount-options",
                r#"deprecated since v1.31; use "mountOptions" attribute instead"#,
            ),
        ] {
            if at(new, "metadata.annotations").get(key).is_some() {
                found.push(format!("{}: {words}", annotations.key(key)));
            }
        }
        if text(new, "spec.persistentVolumeReclaimPolicy") == "Recycle" {
            found.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the \
                 recommended approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        let terms = "spec.nodeAffinity.required.nodeSelectorTerms";
        for (index, term) in list(new, terms).iter().enumerate() {
            warnings::node_selector_term(&mut found, term, false, &path(terms).index(index));
        }
        for (field, shown, words) in [
            ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
            ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
            ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if has(at(new, "spec"), field) {
                found.push(format!("spec.{shown}: {words}"));
            }
        }
        found
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let claim = at(object, "spec.claimRef");
        let claim = if claim.is_null() {
            String::new()
        } else {
            format!("{}/{}", text(claim, "namespace"), text(claim, "name"))
        };
        let capacity = at(object, "spec.capacity.storage").as_str().unwrap_or("0");
        Some(vec![
            name(object),
            capacity.into(),
            access_modes(list(object, "spec.accessModes")).into(),
            text(object, "spec.persistentVolumeReclaimPolicy").into(),
            phase(object),
            claim.into(),
            class(object),
            or_unset(object, "spec.volumeAttributesClassName"),
            text(object, "status.reason").into(),
            created(object, now),
            or_unset(object, "spec.volumeMode"),
        ])
    }
}

pub struct PersistentVolumeClaim;

/// `dataSource` and `dataSourceRef` say the same; a source that `dataSource` may not name is dropped from it.
fn normalize_sources(object: &mut Object, old: Option<&Object>) {
    let source = at(object, "spec.dataSource").clone();
    let reference = at(object, "spec.dataSourceRef").clone();
    let allowed = |source: &Value| match text(source, "kind") {
        "PersistentVolumeClaim" => text(source, "apiGroup").is_empty(),
        "VolumeSnapshot" => text(source, "apiGroup") == "snapshot.storage.k8s.io",
        _ => false,
    };
    let kept = old.is_some_and(|old| same(at(old, "spec.dataSource"), &source));
    if !source.is_null() && reference.is_null() && !allowed(&source) && !kept {
        remove(object, "spec.dataSource");
        return;
    }
    if !source.is_null() && reference.is_null() {
        set(object, "spec.dataSourceRef", source);
    } else if source.is_null() && !reference.is_null() && text(&reference, "namespace").is_empty() {
        set(object, "spec.dataSource", reference);
    }
}

impl Strategy for PersistentVolumeClaim {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"phase": "Pending"}));
        normalize_sources(object, None);
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, subresource: &str) {
        if subresource.is_empty() {
            normalize_sources(new, Some(old));
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_claim(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        if subresource.is_empty() { rules::check_claim_update(new, old) } else { Vec::new() }
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
        let mut found = Vec::new();
        if at(new, "metadata.annotations").get(CLASS).is_some() {
            let path = path("metadata").child("annotations").key(CLASS);
            found.push(format!(r#"{path}: deprecated since v1.8; use "storageClassName" attribute instead"#));
        }
        warnings::claim(&mut found, at(new, "spec"), &path("spec"));
        found
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let volume = text(object, "spec.volumeName");
        let (capacity, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            let capacity = at(object, "status.capacity.storage").as_str().unwrap_or("0").to_owned();
            (capacity, access_modes(list(object, "status.accessModes")))
        };
        Some(vec![
            name(object),
            phase(object),
            volume.into(),
            capacity.into(),
            modes.into(),
            class(object),
            or_unset(object, "spec.volumeAttributesClassName"),
            created(object, now),
            or_unset(object, "spec.volumeMode"),
        ])
    }
}
