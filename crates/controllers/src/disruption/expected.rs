//! How many pods there should be, and how many of them healthy.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use apimachinery::intstr::IntOrString;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr},
};
use kube::Resource;

use crate::{World, ownership::controller_of, world::Seen};

/// What a budget expects.
#[derive(Debug, PartialEq)]
pub(super) struct Expected {
    /// So many pods.
    pub pods: i32,
    /// So many of them healthy.
    pub desired: i32,
    /// Pods without a controller, which are not counted.
    pub unmanaged: Vec<String>,
}

/// # Errors
/// A pod's controller is gone or cannot be scaled.
pub(super) fn expected(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    world: &World,
) -> Result<Expected, String> {
    let spec = budget.spec.as_ref();
    if let Some(most) = spec.and_then(|s| s.max_unavailable.as_ref()) {
        let (pods, unmanaged) = scale(pods, world)?;
        let unavailable = value(most).scaled(pods, true)?;
        return Ok(Expected { pods, desired: pods.saturating_sub(unavailable).max(0), unmanaged });
    }
    match spec.and_then(|s| s.min_available.as_ref()) {
        None => Ok(Expected { pods: 0, desired: 0, unmanaged: Vec::new() }),
        Some(intstr::IntOrString::Int(least)) => {
            let pods = i32::try_from(pods.len()).unwrap_or(i32::MAX);
            Ok(Expected { pods, desired: *least, unmanaged: Vec::new() })
        }
        Some(share) => {
            let (pods, unmanaged) = scale(pods, world)?;
            Ok(Expected { pods, desired: value(share).scaled(pods, true)?, unmanaged })
        }
    }
}

fn value(value: &intstr::IntOrString) -> IntOrString {
    match value {
        intstr::IntOrString::Int(number) => IntOrString::Int(*number),
        intstr::IntOrString::String(text) => IntOrString::Text(text.clone()),
    }
}

/// The sum over the pods' controllers of what they are scaled to, and the pods without one.
fn scale(pods: &[Arc<Pod>], world: &World) -> Result<(i32, Vec<String>), String> {
    let mut scales: BTreeMap<String, i32> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let mut unmanaged = Vec::new();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(controller) = controller_of(&pod.metadata) else {
            unmanaged.push(name);
            continue;
        };
        if known.insert(&controller.uid) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let (uid, replicas) = controller_scale(controller, namespace, world)?
                .ok_or_else(|| format!("found no controllers for pod {name:?}"))?;
            scales.insert(uid, replicas);
        }
    }
    Ok((scales.values().fold(0, |sum, n| sum.saturating_add(*n)), unmanaged))
}

/// The object of a reference, if it is still the same one.
fn same<K>(reference: &OwnerReference, namespace: &str, world: &World) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Any + Send + Sync,
{
    world.get::<K>(namespace, &reference.name).filter(|o| o.meta().uid.as_ref() == Some(&reference.uid))
}

/// The UID of what is scaled, and to what: the Deployment rather than its ReplicaSets.
fn controller_scale(
    reference: &OwnerReference,
    namespace: &str,
    world: &World,
) -> Result<Option<(String, i32)>, String> {
    let scaled = |uid: &Option<String>, replicas: Option<i32>| {
        Some((uid.clone().unwrap_or_default(), replicas.unwrap_or(1)))
    };
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    Ok(match (group, reference.kind.as_str()) {
        ("", "ReplicationController") => same::<ReplicationController>(reference, namespace, world)
            .and_then(|rc| scaled(&rc.metadata.uid, rc.spec.as_ref().and_then(|s| s.replicas))),
        ("apps", "StatefulSet") => same::<StatefulSet>(reference, namespace, world)
            .and_then(|s| scaled(&s.metadata.uid, s.spec.replicas)),
        ("apps", "ReplicaSet") => {
            let Some(set) = same::<ReplicaSet>(reference, namespace, world) else { return Ok(None) };
            let above = controller_of(&set.metadata).filter(|o| o.kind == "Deployment");
            match above {
                Some(above) => same::<Deployment>(above, namespace, world)
                    .and_then(|d| scaled(&d.metadata.uid, d.spec.replicas)),
                None => scaled(&set.metadata.uid, set.spec.replicas),
            }
        }
        (group, kind) => {
            let mut served = world.served().iter().map(|s| &s.kind);
            let name = served
                .find(|k| k.group == group && k.kind == kind)
                .map_or_else(|| kind.to_lowercase(), |k| k.plural.to_string());
            let dot = if group.is_empty() { "" } else { "." };
            return Err(format!("{name}{dot}{group} does not implement the scale subresource"));
        }
    })
}

/// What an object that can own pods is scaled to.
pub(super) fn replicas(object: Option<&Arc<dyn Seen>>) -> Option<Option<i32>> {
    fn typed<K: Any + Send + Sync>(object: &Arc<dyn Seen>) -> Option<Arc<K>> {
        object.clone().any().downcast().ok()
    }
    let object = object?;
    if let Some(o) = typed::<Deployment>(object) {
        return Some(o.spec.replicas);
    }
    if let Some(o) = typed::<ReplicaSet>(object) {
        return Some(o.spec.replicas);
    }
    if let Some(o) = typed::<StatefulSet>(object) {
        return Some(o.spec.replicas);
    }
    typed::<ReplicationController>(object).map(|o| o.spec.as_ref().and_then(|s| s.replicas))
}
