//! Which volume a claim gets. Source: `k8s.io/component-helpers/storage/volume/pv_helpers.go`.

use std::{cmp::Reverse, sync::Arc};

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, PersistentVolume, PersistentVolumeClaim, PodSpec,
};

use super::{claim_ref, class_of, names, phase, volume_class};
use crate::{World, node_fit, ownership};

/// What a claim asks for, or a volume has.
pub(super) fn storage(
    amounts: Option<
        &std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >,
) -> Quantity {
    let text = amounts.and_then(|a| a.get("storage")).map_or("0", |q| q.0.as_str());
    Quantity::parse(text).unwrap_or(Quantity::ZERO)
}

/// `Filesystem` unless it says otherwise.
fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Which volumes a claim may have that do not name it.
pub(super) enum Choice<'a> {
    /// None: the scheduler has not chosen a node yet.
    None,
    /// Those that this node reaches.
    On(&'a Node),
    /// All.
    Any,
}

/// Whether a node reaches a volume.
fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|a| a.required.clone()) else { return true };
    // as for a pod that asks for such a node
    let affinity = NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(required),
        ..NodeAffinity::default()
    };
    let affinity = Affinity { node_affinity: Some(affinity), ..Affinity::default() };
    node_fit::matches_node(&PodSpec { affinity: Some(affinity), ..PodSpec::default() }, node)
}

/// The smallest volume that fits, with the fewest access modes nobody asked for. One that names the claim comes first.
pub(super) fn best(
    claim: &PersistentVolumeClaim,
    world: &World,
    choice: &Choice<'_>,
) -> Option<Arc<PersistentVolume>> {
    let volumes = world.list::<PersistentVolume>("");
    let fits: Vec<&Arc<PersistentVolume>> = volumes
        .iter()
        .filter(|v| v.metadata.deletion_timestamp.is_none() && mismatch(v, claim, false).is_none())
        .collect();
    if let Some(named) = fits.iter().find(|v| names(v, claim)) {
        return Some(Arc::clone(named));
    }
    let allowed = |volume: &PersistentVolume| match choice {
        Choice::None => false,
        Choice::On(node) => reaches(volume, node),
        Choice::Any => true,
    };
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref()).map(ownership::selector);
    let free = fits.into_iter().filter(|volume| {
        claim_ref(volume).is_none()
            && phase(volume) == "Available"
            && allowed(volume)
            && volume_class(volume) == class_of(claim)
            && selector.as_ref().is_none_or(|s| ownership::matches(s, &volume.metadata))
    });
    let rank = |volume: &&Arc<PersistentVolume>| {
        let spec = volume.spec.as_ref();
        let modes = spec.and_then(|s| s.access_modes.as_ref()).map_or(0, Vec::len);
        (modes, storage(spec.and_then(|s| s.capacity.as_ref())), Reverse(volume.metadata.name.clone()))
    };
    free.min_by_key(rank).cloned()
}

/// Why a volume cannot serve a claim, in upstream's words. The class matters when the claim names the volume.
pub(super) fn mismatch(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    class_too: bool,
) -> Option<&'static str> {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return Some("it has no spec") };
    let requests = wants.resources.as_ref().and_then(|r| r.requests.as_ref());
    if storage(has.capacity.as_ref()) < storage(requests) {
        return Some("requested PV is too small");
    }
    if class_too && volume_class(volume) != class_of(claim) {
        return Some("storageClassName does not match");
    }
    let vac = |name: Option<&String>| name.cloned().unwrap_or_default();
    if vac(has.volume_attributes_class_name.as_ref()) != vac(wants.volume_attributes_class_name.as_ref()) {
        return Some("volumeAttributesClassName does not match");
    }
    if mode(has.volume_mode.as_ref()) != mode(wants.volume_mode.as_ref()) {
        return Some("incompatible volumeMode");
    }
    let offered = has.access_modes.as_deref().unwrap_or_default();
    let wanted = wants.access_modes.as_deref().unwrap_or_default();
    if !wanted.iter().all(|m| offered.contains(m)) {
        return Some("incompatible accessMode");
    }
    None
}
