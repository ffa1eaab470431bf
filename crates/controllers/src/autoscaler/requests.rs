//! What pods request of a resource, in thousandths.

use std::{collections::BTreeMap, sync::Arc};

use apimachinery::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use super::replicas::lasting;

/// By the pods' names: of one container, or of the pod itself where it requests anything, or of its containers together.
///
/// # Errors
/// When a container that counts requests nothing of it.
pub fn of(
    pods: &[Arc<Pod>],
    container: Option<&str>,
    resource: &str,
) -> Result<BTreeMap<String, i64>, String> {
    let mut requests = BTreeMap::new();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let request = match container {
            Some(container) => one(pod, &name, container, resource)?,
            None if requests_itself(pod) => whole(pod, resource)
                .ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"))?,
            None => lasting(pod)
                .try_fold(0_i64, |sum, c| Ok::<_, String>(sum.saturating_add(needed(c, &name, resource)?)))?,
        };
        requests.insert(name, request);
    }
    Ok(requests)
}

fn milli(quantity: &Text) -> i64 {
    Quantity::parse(&quantity.0).map_or(0, |quantity| quantity.milli())
}

fn request(container: &Container, resource: &str) -> Option<i64> {
    container.resources.as_ref()?.requests.as_ref()?.get(resource).map(milli)
}

fn needed(container: &Container, pod: &str, resource: &str) -> Result<i64, String> {
    request(container, resource)
        .ok_or_else(|| format!("missing request for {resource} in container {} of Pod {pod}", container.name))
}

fn one(pod: &Pod, name: &str, container: &str, resource: &str) -> Result<i64, String> {
    let found = lasting(pod).find(|c| c.name == container);
    let found = found.ok_or_else(|| format!("container {container} not found in Pod {name}"))?;
    needed(found, name, resource)
}

fn own(pod: &Pod) -> Option<&BTreeMap<String, Text>> {
    pod.spec.as_ref()?.resources.as_ref()?.requests.as_ref()
}

/// Whether a resource can be requested for a pod as a whole.
fn is_pods(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-")
}

fn requests_itself(pod: &Pod) -> bool {
    own(pod).is_some_and(|requests| requests.keys().any(|resource| is_pods(resource)))
}

/// What the scheduler would count: the pod's own request before that of its containers, and its overhead.
fn whole(pod: &Pod, resource: &str) -> Option<i64> {
    let spec = pod.spec.as_ref()?;
    let own = own(pod).and_then(|requests| requests.get(resource)).filter(|_| is_pods(resource)).map(milli);
    let of_containers = || {
        let found: Vec<i64> = lasting(pod).filter_map(|c| request(c, resource)).collect();
        let largest = spec.init_containers.iter().flatten().filter_map(|c| request(c, resource)).max();
        if found.is_empty() { largest } else { Some(found.iter().sum::<i64>().max(largest.unwrap_or(0))) }
    };
    let overhead = spec.overhead.as_ref().and_then(|o| o.get(resource)).map(milli);
    match (own.or_else(of_containers), overhead) {
        (None, overhead) => overhead,
        (Some(request), overhead) => Some(request.saturating_add(overhead.unwrap_or(0))),
    }
}
