//! Claims, the volumes behind them, and where those can be reached.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{Refusal, node};
use crate::{
    pod::PodInfo,
    resources::whole,
    snapshot::{NodeInfo, Snapshot},
};

/// The class that binds a claim only once its pod has a node.
const LATE: &str = "WaitForFirstConsumer";
/// Tells the binder and the provisioner which node was chosen.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The claims of one pod, sorted by what is left to do.
#[derive(Default)]
pub struct Claims {
    bound: Vec<Arc<PersistentVolume>>,
    /// Claims to be bound when the node is known.
    pub late: Vec<Arc<PersistentVolumeClaim>>,
    lost: bool,
    /// `ReadWriteOncePod` claims, by key.
    exclusive: Vec<String>,
}

impl Claims {
    /// Finds the claims; an error is the whole answer for every node.
    pub fn new(pod: &PodInfo, snapshot: &Snapshot) -> Result<Self, String> {
        let mut claims = Self::default();
        for name in claim_names(pod) {
            let key = format!("{}/{name}", pod.namespace());
            let Some(claim) = snapshot.claims.get(&key) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            let Some(spec) = &claim.spec else { continue };
            if spec.access_modes.iter().flatten().any(|m| m == "ReadWriteOncePod") {
                claims.exclusive.push(key);
            }
            if let Some(volume) = spec.volume_name.as_deref().filter(|v| !v.is_empty()) {
                match snapshot.volumes.get(volume) {
                    Some(volume) => claims.bound.push(Arc::clone(volume)),
                    None => claims.lost = true,
                }
                continue;
            }
            let class = spec.storage_class_name.as_deref().and_then(|c| snapshot.classes.get(c));
            if class.and_then(|c| c.volume_binding_mode.as_deref()) != Some(LATE) {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
            claims.late.push(Arc::clone(claim));
        }
        Ok(claims)
    }

    /// Whether the node reaches the pod's volumes, or can get them.
    #[must_use]
    pub fn filter(&self, node: &NodeInfo, snapshot: &Snapshot) -> Option<Refusal> {
        if self.lost {
            return Some(Refusal::final_(
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            ));
        }
        if !self.bound.iter().all(|volume| reaches(volume, node)) {
            return Some(Refusal::final_("node(s) didn't match PersistentVolume's node affinity"));
        }
        let in_use = |key: &String| {
            let uses = |p: &PodInfo| claim_names(p).iter().any(|n| *key == format!("{}/{n}", p.namespace()));
            snapshot.pods().any(|(_, p)| uses(p))
        };
        if self.exclusive.iter().any(in_use) {
            let reason = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
            return Some(Refusal::preemptible(reason));
        }
        if !self.late.iter().all(|claim| obtainable(claim, node, snapshot)) {
            return Some(Refusal::final_("node(s) didn't find available persistent volumes to bind"));
        }
        None
    }
}

/// Names of the claims that a pod uses, those of generic ephemeral volumes included.
#[must_use]
pub fn claim_names(pod: &PodInfo) -> Vec<String> {
    let name = pod.pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec().volumes.iter().flatten();
    volumes
        .filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{name}-{}", v.name)),
            _ => None,
        })
        .collect()
}

fn reaches(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    affinity.and_then(|a| a.required.as_ref()).is_none_or(|selector| node::matches_selector(selector, node))
}

/// A free volume that the node reaches, or a provisioner that may make one there.
fn obtainable(claim: &PersistentVolumeClaim, info: &NodeInfo, snapshot: &Snapshot) -> bool {
    if let Some(chosen) = claim.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE)) {
        return chosen == info.name();
    }
    let Some(spec) = &claim.spec else { return false };
    let class_name = spec.storage_class_name.as_deref().unwrap_or_default();
    let wanted = spec
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref())
        .and_then(|r| r.get("storage"))
        .map_or(0, whole);
    let free = |volume: &Arc<PersistentVolume>| {
        let Some(v) = &volume.spec else { return false };
        let size = v.capacity.as_ref().and_then(|c| c.get("storage")).map_or(0, whole);
        let modes = v.access_modes.as_deref().unwrap_or_default();
        v.storage_class_name.as_deref().unwrap_or_default() == class_name
            && v.claim_ref.is_none()
            && size >= wanted
            && spec.access_modes.iter().flatten().all(|m| modes.contains(m))
            && reaches(volume, info)
    };
    if snapshot.volumes.values().any(free) {
        return true;
    }
    let Some(class) = snapshot.classes.get(class_name) else { return false };
    if class.provisioner == NO_PROVISIONER {
        return false;
    }
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    topologies.is_empty()
        || topologies.iter().any(|t| {
            t.match_label_expressions
                .iter()
                .flatten()
                .all(|e| info.labels().get(&e.key).is_some_and(|v| e.values.contains(v)))
        })
}
