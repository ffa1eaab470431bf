//! local-path: volumes that are directories on the node of their first pod.
//!
//! A volume is a directory `ROOT/PV-NAME` of one node and a PersistentVolume of type `local` with node affinity, so that the
//! scheduler keeps its pods there; `local` refuses a directory that is missing, where `hostPath` would show an empty one.
//! The directory is made before the volume is told of, and a finalizer on the volume keeps it known until the data is gone.
//! Making and removing are effects of the driver (`Write::MakeDirectory`, `Write::RemoveDirectory`), so this loop runs where
//! the nodes' disks are: in the one process of a single machine for all of its nodes, else once a node, for that node.

mod directories;
#[cfg(test)]
mod tests;

pub use directories::{Directories, OnThisMachine, perform};

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use k8s_openapi::{
    api::{
        core::v1::{
            LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
            ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
            VolumeNodeAffinity,
        },
        storage::v1::StorageClass,
    },
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use serde_json::json;

use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write,
    about::{annotation, has_finalizer, label},
    plan::PatchKind,
    volumes::{BIND_COMPLETED, PROVISIONED_BY, PROVISIONER, SELECTED_NODE, class_of},
};

/// The provisioner's name, in StorageClasses.
pub const NAME: &str = "plimsoll.dev/local-path";
/// Keeps a volume known until its data is gone.
const FINALIZER: &str = NAME;
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The loop. Keys with a namespace are claims, those without are volumes.
pub struct LocalPath {
    /// Where the directories are, on every node.
    pub root: PathBuf,
    /// The nodes whose disks this process reaches; all of them if absent.
    pub nodes: Option<BTreeSet<String>>,
}

/// The class `standard`, the default one: volumes on the node of the first pod, gone with their claim.
#[must_use]
pub fn storage_class() -> StorageClass {
    StorageClass {
        metadata: ObjectMeta {
            name: Some("standard".to_owned()),
            annotations: Some(BTreeMap::from([(
                "storageclass.kubernetes.io/is-default-class".to_owned(),
                "true".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        provisioner: NAME.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    }
}

impl Controller for LocalPath {
    fn name(&self) -> &'static str {
        "local-path-provisioner"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![
            Kind::of::<PersistentVolumeClaim>(),
            Kind::of::<PersistentVolume>(),
            Kind::of::<StorageClass>(),
            Kind::of::<Node>(),
        ]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(class) = change.object::<StorageClass>() {
            let name = class.metadata.name.as_deref();
            let claims = world.list::<PersistentVolumeClaim>("");
            let of_class = claims.iter().filter(|claim| Some(class_of(claim)) == name);
            return of_class.map(|claim| Key::of(&claim.metadata)).collect();
        }
        if change.kind == Kind::of::<Node>() {
            // somebody may wait for a node to appear
            let claims = world.list::<PersistentVolumeClaim>("");
            let waits = |claim: &PersistentVolumeClaim| {
                annotation(&claim.metadata, PROVISIONER) == Some(NAME)
                    && annotation(&claim.metadata, BIND_COMPLETED).is_none()
            };
            let came = change.before.is_none() != change.after.is_none();
            return claims.iter().filter(|c| came && waits(c)).map(|c| Key::of(&c.metadata)).collect();
        }
        change.meta().map(Key::of).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, _now: Timestamp) -> Plan {
        if key.namespace.is_empty() {
            let volume = world.get::<PersistentVolume>("", &key.name);
            return volume.map_or_else(Plan::none, |volume| self.remove(&volume, world, last));
        }
        let claim = world.get::<PersistentVolumeClaim>(&key.namespace, &key.name);
        claim.map_or_else(Plan::none, |claim| self.provision(&claim, world))
    }
}

impl LocalPath {
    fn answers_for(&self, node: &str) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }

    /// Makes the volume of a claim that asks this provisioner for one.
    fn provision(&self, claim: &PersistentVolumeClaim, world: &World) -> Plan {
        let spec = claim.spec.clone().unwrap_or_default();
        let asked = annotation(&claim.metadata, PROVISIONER) == Some(NAME)
            && spec.volume_name.as_deref().unwrap_or_default().is_empty()
            && claim.metadata.deletion_timestamp.is_none();
        let class = world.get::<StorageClass>("", class_of(claim)).filter(|c| c.provisioner == NAME);
        let (true, Some(class)) = (asked, class) else { return Plan::none() };
        let mut plan = Plan::none();
        let refuse = |mut plan: Plan, why: &str| {
            plan.notes.push(Note::warning(claim, "ProvisioningFailed", why));
            plan
        };
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        let selected = annotation(&claim.metadata, SELECTED_NODE);
        let Some(node) = selected.map(str::to_owned).or_else(|| (!waits).then(|| any_node(world)).flatten())
        else {
            return plan;
        };
        if !self.answers_for(&node) {
            return plan;
        }
        if spec.volume_mode.as_deref() == Some("Block") {
            return refuse(plan, "a directory cannot be a block device: use volumeMode Filesystem");
        }
        if spec.data_source.is_some() || spec.data_source_ref.is_some() {
            return refuse(plan, "volumes cannot be made from a data source here");
        }
        let Some(node) = world.get::<Node>("", &node) else {
            // the scheduler chooses again
            let body = json!({"metadata": {
                "resourceVersion": claim.metadata.resource_version, "annotations": {SELECTED_NODE: null},
            }});
            plan.then(Write::patch(claim, PatchKind::Merge, body));
            return refuse(plan, &format!("node {node:?} is gone"));
        };
        let volume = self.volume(claim, &class, &node);
        let name = volume.metadata.name.clone().unwrap_or_default();
        if world.get::<PersistentVolume>("", &name).is_some() {
            return plan;
        }
        let success =
            Note::normal(claim, "ProvisioningSucceeded", format!("Successfully provisioned volume {name}"));
        plan.then(Write::MakeDirectory {
            node: node.metadata.name.clone().unwrap_or_default(),
            path: self.root.join(&name),
        });
        plan.then(Write::create(&volume).noted(Some(success), None));
        plan
    }

    fn volume(&self, claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node) -> PersistentVolume {
        let spec = claim.spec.clone().unwrap_or_default();
        let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
        let node_name = node.metadata.name.clone().unwrap_or_default();
        let hostname = label(&node.metadata, HOSTNAME).map_or(node_name, str::to_owned);
        let on_node = NodeSelectorTerm {
            match_expressions: Some(vec![NodeSelectorRequirement {
                key: HOSTNAME.to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![hostname]),
            }]),
            match_fields: None,
        };
        let requests = spec.resources.and_then(|r| r.requests).unwrap_or_default();
        let path = self.root.join(&name);
        PersistentVolume {
            metadata: ObjectMeta {
                name: Some(name),
                annotations: Some(BTreeMap::from([(PROVISIONED_BY.to_owned(), NAME.to_owned())])),
                finalizers: Some(vec![FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeSpec {
                access_modes: spec.access_modes,
                capacity: Some(requests.into_iter().filter(|(key, _)| key == "storage").collect()),
                claim_ref: Some(ObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("PersistentVolumeClaim".to_owned()),
                    namespace: claim.metadata.namespace.clone(),
                    name: claim.metadata.name.clone(),
                    uid: claim.metadata.uid.clone(),
                    ..ObjectReference::default()
                }),
                local: Some(LocalVolumeSource { fs_type: None, path: path.display().to_string() }),
                mount_options: class.mount_options.clone(),
                node_affinity: Some(VolumeNodeAffinity {
                    required: Some(NodeSelector { node_selector_terms: vec![on_node] }),
                }),
                persistent_volume_reclaim_policy: Some(
                    class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned()),
                ),
                storage_class_name: class.metadata.name.clone(),
                volume_attributes_class_name: spec.volume_attributes_class_name,
                volume_mode: Some("Filesystem".to_owned()),
                ..PersistentVolumeSpec::default()
            }),
            status: None,
        }
    }

    /// The directory of a volume that this loop has made; nothing else is ever removed.
    fn directory(&self, volume: &PersistentVolume) -> Option<PathBuf> {
        let name = volume.metadata.name.as_deref()?;
        let path = volume.spec.as_ref()?.local.as_ref()?.path.as_str();
        let own = self.root.join(name);
        (Path::new(path) == own && !name.contains('/') && name.starts_with("pvc-")).then_some(own)
    }

    /// Deletes a volume whose claim is gone, and its data before the last trace of it goes.
    fn remove(&self, volume: &PersistentVolume, world: &World, last: &Outcome) -> Plan {
        let meta = &volume.metadata;
        let kind = Kind::of::<PersistentVolume>();
        let mut plan = Plan::none();
        if annotation(meta, PROVISIONED_BY) != Some(NAME) || !has_finalizer(meta, FINALIZER) {
            return plan;
        }
        let node = hostname_of(volume).map(|hostname| node_called(&hostname, world).unwrap_or(hostname));
        let node = node.unwrap_or_default();
        if !self.answers_for(&node) {
            return plan;
        }
        let spec = volume.spec.as_ref();
        let deletes = spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) == Some("Delete");
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if meta.deletion_timestamp.is_none() {
            if phase == "Released" && deletes {
                plan.then(Write::delete(volume));
            }
            return plan;
        }
        if phase == "Bound" {
            return plan;
        }
        let done = Write::without_finalizer(&kind, meta, FINALIZER);
        let Some(path) = self.directory(volume).filter(|_| deletes) else {
            plan.then(done);
            return plan;
        };
        let failed = last.failures.iter().find(|f| matches!(f.write, Write::RemoveDirectory { .. }));
        if let Some(failure) = failed {
            plan.notes.push(Note::warning(volume, "VolumeFailedDelete", failure.message.clone()));
            if world.get::<Node>("", &node).is_none() {
                // the disk went with its machine
                plan.then(done);
                return plan;
            }
        }
        plan.then(Write::RemoveDirectory { node, path });
        plan.then(done);
        plan
    }
}

/// A node for a volume that does not wait for its pod: ready, schedulable, with the fewest volumes of ours.
fn any_node(world: &World) -> Option<String> {
    let usable = |node: &Node| {
        let spec = node.spec.as_ref();
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        spec.and_then(|s| s.unschedulable) != Some(true)
            && conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True")
    };
    let mut loads: BTreeMap<String, usize> = BTreeMap::new();
    for volume in world.list::<PersistentVolume>("") {
        if annotation(&volume.metadata, PROVISIONED_BY) == Some(NAME) {
            *loads.entry(hostname_of(&volume).unwrap_or_default()).or_default() += 1;
        }
    }
    let nodes = world.list::<Node>("");
    let load = |node: &Node| {
        let name = label(&node.metadata, HOSTNAME).or(node.metadata.name.as_deref()).unwrap_or_default();
        loads.get(name).copied().unwrap_or(0)
    };
    let best = nodes.iter().filter(|node| usable(node)).min_by_key(|node| load(node))?;
    best.metadata.name.clone()
}

/// The host name in the node affinity that this loop has written.
fn hostname_of(volume: &PersistentVolume) -> Option<String> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let expression = required.node_selector_terms.first()?.match_expressions.as_ref()?.first()?;
    expression.values.as_ref().filter(|_| expression.key == HOSTNAME)?.first().cloned()
}

/// The node with a host name.
fn node_called(hostname: &str, world: &World) -> Option<String> {
    let nodes = world.list::<Node>("");
    let found = nodes.iter().find(|node| label(&node.metadata, HOSTNAME) == Some(hostname))?;
    found.metadata.name.clone()
}
