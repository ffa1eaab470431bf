//! A volume: its phase, and what becomes of it when its claim is gone.

use k8s_openapi::{
    api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim},
    jiff::Timestamp,
};
use serde_json::{Value, json};

use super::{BOUND_BY_CONTROLLER, PROVISIONED_BY, claim_ref, phase};
use crate::{Note, Plan, World, Write, about::annotation, plan::PatchKind};

pub(super) fn reconcile(volume: &PersistentVolume, world: &World, now: Timestamp) -> Plan {
    let Some(reference) = claim_ref(volume) else { return to_phase(volume, "Available", now) };
    let uid = reference.uid.as_deref().unwrap_or_default();
    if uid.is_empty() {
        return to_phase(volume, "Available", now);
    }
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    let claim = world.get::<PersistentVolumeClaim>(namespace, reference.name.as_deref().unwrap_or_default());
    let Some(claim) = claim.filter(|c| c.metadata.uid.as_deref() == Some(uid)) else {
        return claim_gone(volume, reference, now);
    };
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if named.is_empty() {
        // the claim's own look finishes the join
        return Plan::none();
    }
    if Some(named) == volume.metadata.name.as_deref() {
        return to_phase(volume, "Bound", now);
    }
    if annotation(&volume.metadata, PROVISIONED_BY).is_some() && policy(volume) == "Delete" {
        // made for a claim that has found another one
        return released(volume, now);
    }
    unbind(volume, now)
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

fn to_phase(volume: &PersistentVolume, wanted: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::none();
    if phase(volume) != wanted {
        plan.then(phase_patch(volume, wanted, None, now));
    }
    plan
}

/// Sets the phase.
pub(super) fn phase_patch(
    volume: &PersistentVolume,
    phase: &str,
    message: Option<&str>,
    now: Timestamp,
) -> Write {
    let body = json!({"status": {
        "phase": phase, "message": message, "reason": Value::Null, "lastPhaseTransitionTime": now.to_string(),
    }});
    Write::patch_status(volume, body)
}

/// The claim is gone, if the server says so, too: a watch that lags must not cost data. `Retain` keeps everything for a
/// person to look at; `Delete` is done by whoever made the volume.
fn claim_gone(volume: &PersistentVolume, reference: &ObjectReference, now: Timestamp) -> Plan {
    let mut plan = released(volume, now);
    if !plan.steps.is_empty() {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (text(&reference.namespace), text(&reference.name));
        let gone = Write::require_absent::<PersistentVolumeClaim>(&namespace, &name, &text(&reference.uid));
        plan.steps.insert(0, vec![gone]);
    }
    plan
}

/// Nobody has a right to the volume any more.
fn released(volume: &PersistentVolume, now: Timestamp) -> Plan {
    match phase(volume) {
        "Failed" => Plan::none(),
        _ if policy(volume) == "Recycle" => {
            let message = "recycling is deprecated and not supported: use dynamic provisioning instead";
            let mut plan = Plan::none();
            plan.notes.push(Note::warning(volume, "VolumeFailedRecycle", message));
            plan.then(phase_patch(volume, "Failed", Some(message), now));
            plan
        }
        _ => to_phase(volume, "Released", now),
    }
}

/// The claim has another volume: this one is free again. What a person wrote beforehand stays, without the UID.
fn unbind(volume: &PersistentVolume, now: Timestamp) -> Plan {
    let version = &volume.metadata.resource_version;
    let body = if annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
        json!({
            "metadata": {"resourceVersion": version, "annotations": {BOUND_BY_CONTROLLER: null}},
            "spec": {"claimRef": null},
        })
    } else {
        json!({"metadata": {"resourceVersion": version}, "spec": {"claimRef": {"uid": null, "resourceVersion": null}}})
    };
    let mut plan = Plan::none();
    plan.then(Write::patch(volume, PatchKind::Merge, body));
    if phase(volume) != "Available" {
        plan.then(phase_patch(volume, "Available", None, now));
    }
    plan
}
