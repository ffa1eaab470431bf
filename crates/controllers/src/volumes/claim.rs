//! A claim: find it a volume, have one made, or see that the join holds.

use k8s_openapi::{
    api::{
        core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
        storage::v1::StorageClass,
    },
    jiff::Timestamp,
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONER, PROVISIONER_BETA, SELECTED_NODE, claim_ref, class_of,
    matching::{self, Choice},
    names, phase, volume,
};
use crate::{Note, Plan, World, Write, about::annotation, plan::PatchKind, pod_state};

/// The annotation that makes a class the default one.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";

pub(super) fn reconcile(claim: &PersistentVolumeClaim, world: &World, now: Timestamp) -> Plan {
    if annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        return bound(claim, world, now);
    }
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if wanted.is_empty() {
        return open(claim, world, now);
    }
    let Some(volume) = world.get::<PersistentVolume>("", wanted) else { return status(claim, "Pending") };
    if claim_ref(&volume).is_none() {
        if let Some(why) = matching::mismatch(&volume, claim, true) {
            let message = format!("Cannot bind to requested volume {wanted:?}: {why}");
            let mut plan = status(claim, "Pending");
            plan.notes.push(Note::warning(claim, "VolumeMismatch", message));
            return plan;
        }
        return bind(claim, &volume, now);
    }
    if names(&volume, claim) {
        return bind(claim, &volume, now);
    }
    // somebody else's volume: a person asked for it, who may free it
    status(claim, "Pending")
}

/// A claim that names no volume.
fn open(claim: &PersistentVolumeClaim, world: &World, now: Timestamp) -> Plan {
    if claim.metadata.deletion_timestamp.is_some() {
        return Plan::none();
    }
    if let Some(plan) = default_class(claim, world) {
        return plan;
    }
    let class = world.get::<StorageClass>("", class_of(claim));
    let waits = class
        .as_ref()
        .is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let selected = annotation(&claim.metadata, SELECTED_NODE).filter(|_| waits);
    let node = selected.and_then(|name| world.get::<Node>("", name));
    let choice = match (&node, waits) {
        (Some(node), _) => Choice::On(node),
        (None, true) => Choice::None,
        (None, false) => Choice::Any,
    };
    if let Some(volume) = matching::best(claim, world, &choice) {
        return bind(claim, &volume, now);
    }
    let mut plan = status(claim, "Pending");
    if waits && selected.is_none() {
        plan.notes.push(waiting(claim, world));
    } else if !class_of(claim).is_empty() {
        provision(claim, class.as_deref(), &mut plan);
    } else {
        let message = "no persistent volumes available for this claim and no storage class is set";
        plan.notes.push(Note::normal(claim, "FailedBinding", message));
    }
    plan
}

/// A claim without a class gets the default one, also when that came later.
fn default_class(claim: &PersistentVolumeClaim, world: &World) -> Option<Plan> {
    let spec = claim.spec.as_ref();
    if spec.is_some_and(|s| s.storage_class_name.is_some()) || !class_of(claim).is_empty() {
        return None;
    }
    let is_default = |class: &StorageClass| {
        let says = |key| annotation(&class.metadata, key) == Some("true");
        says(DEFAULT_CLASS) || says(DEFAULT_CLASS_BETA)
    };
    let mut classes = world.list::<StorageClass>("");
    classes.retain(|class| is_default(class));
    // the newest, then the first by name
    let class = classes.iter().rev().max_by_key(|c| c.metadata.creation_timestamp.as_ref().map(|t| t.0))?;
    let body = json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "spec": {"storageClassName": class.metadata.name},
    });
    let mut plan = Plan::none();
    plan.then(Write::patch(claim, PatchKind::Merge, body));
    Some(plan)
}

/// What a claim waits for whose volume follows its first pod.
fn waiting(claim: &PersistentVolumeClaim, world: &World) -> Note {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let uses = |pod: &Pod| {
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let mut claims = volumes.filter_map(|v| v.persistent_volume_claim.as_ref());
        pod_state::is_active(pod) && claims.any(|c| c.claim_name == name)
    };
    let pods = world.list::<Pod>(namespace);
    let pods: Vec<String> = pods.iter().filter(|pod| uses(pod)).map(|pod| pod.name_any()).collect();
    match pods.as_slice() {
        [] => Note::normal(
            claim,
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        [pod] => Note::normal(claim, "WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        many => Note::normal(
            claim,
            "WaitForPodScheduled",
            format!("waiting for pods {} to be scheduled", many.join(",")),
        ),
    }
}

/// Asks the class's provisioner for a volume.
fn provision(claim: &PersistentVolumeClaim, class: Option<&StorageClass>, plan: &mut Plan) {
    let Some(class) = class else {
        let message = format!("storageclass.storage.k8s.io {:?} not found", class_of(claim));
        plan.notes.push(Note::warning(claim, "ProvisioningFailed", message));
        return;
    };
    let provisioner = class.provisioner.as_str();
    if provisioner.starts_with("kubernetes.io/") {
        let message = format!("no volume plugin matched name: {provisioner}");
        plan.notes.push(Note::warning(claim, "ProvisioningFailed", message));
        return;
    }
    let told = [PROVISIONER, PROVISIONER_BETA];
    if told.iter().any(|key| annotation(&claim.metadata, key) != Some(provisioner)) {
        let body = json!({"metadata": {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": {PROVISIONER: provisioner, PROVISIONER_BETA: provisioner},
        }});
        plan.then(Write::patch(claim, PatchKind::Merge, body));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
         registered."
    );
    plan.notes.push(Note::normal(claim, "ExternalProvisioning", message));
}

/// A claim that was joined once: is its volume still there and its own?
fn bound(claim: &PersistentVolumeClaim, world: &World, now: Timestamp) -> Plan {
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    let lost = |reason: &str, message: &str| {
        let mut plan = status(claim, "Lost");
        if !plan.steps.is_empty() {
            plan.notes.push(Note::warning(claim, reason, message));
        }
        plan
    };
    if name.is_empty() {
        return lost(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        );
    }
    let Some(volume) = world.get::<PersistentVolume>("", name) else {
        let mut plan =
            lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
        if !plan.steps.is_empty() {
            plan.steps.insert(0, vec![Write::require_absent::<PersistentVolume>("", name, "")]);
        }
        return plan;
    };
    let mine = claim_ref(&volume).is_none_or(|r| r.uid == claim.metadata.uid && names(&volume, claim));
    if !mine {
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        return lost("ClaimMisbound", message);
    }
    bind(claim, &volume, now)
}

/// What of the join is still missing.
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume, now: Timestamp) -> Plan {
    let mut plan = Plan::none();
    if claim_ref(volume).is_none_or(|r| r.uid != claim.metadata.uid || !names(volume, claim)) {
        // a person who named the claim beforehand is not undone later
        let mut metadata = json!({"resourceVersion": volume.metadata.resource_version});
        if claim_ref(volume).is_none() {
            metadata["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
        }
        let reference = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace, "name": claim.metadata.name, "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
        });
        let body = json!({"metadata": metadata, "spec": {"claimRef": reference}});
        plan.then(Write::patch(volume, PatchKind::Merge, body));
    }
    if phase(volume) != "Bound" {
        plan.then(volume::phase_patch(volume, "Bound", None, now));
    }
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()) == Some(name);
    if !named || annotation(&claim.metadata, BIND_COMPLETED).is_none() {
        let mut annotations = json!({BIND_COMPLETED: "yes"});
        if !named {
            annotations[BOUND_BY_CONTROLLER] = json!("yes");
        }
        let body = json!({
            "metadata": {"resourceVersion": claim.metadata.resource_version, "annotations": annotations},
            "spec": {"volumeName": name},
        });
        plan.then(Write::patch(claim, PatchKind::Merge, body));
    }
    plan.steps.extend(bound_status(claim, volume).map(|write| vec![write]));
    plan
}

/// The status of a claim that has this volume, if it is not yet so.
fn bound_status(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Write> {
    let (has, spec) = (claim.status.as_ref(), volume.spec.as_ref());
    let modes = spec.and_then(|s| s.access_modes.clone());
    let capacity = spec.and_then(|s| s.capacity.clone());
    let vac = spec.and_then(|s| s.volume_attributes_class_name.clone());
    // later changes of the size are the resizer's to tell
    let same = has.is_some_and(|s| {
        s.phase.as_deref() == Some("Bound")
            && s.access_modes == modes
            && s.capacity.as_ref().is_some_and(|c| c.contains_key("storage"))
            && s.current_volume_attributes_class_name == vac
    });
    let body = json!({"status": {
        "phase": "Bound", "accessModes": modes, "capacity": capacity, "currentVolumeAttributesClassName": vac,
    }});
    (!same).then(|| Write::patch_status(claim, body))
}

/// The phase of a claim that has no volume.
fn status(claim: &PersistentVolumeClaim, phase: &str) -> Plan {
    let mut plan = Plan::none();
    let has = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    if has != Some(phase) {
        let body = json!({"status": {"phase": phase, "accessModes": null, "capacity": null}});
        plan.then(Write::patch_status(claim, body));
    }
    plan
}
