//! The pods behind a Service: which ones, with which addresses and ports. Endpoints and EndpointSlices agree on these.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};

use crate::{
    Change, Key, World,
    pod_state::{is_ready, is_terminal},
};

/// The label of what belongs to a headless service.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the change happened that an EndpointSlice or Endpoints shows.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The selector of a service that gets its endpoints from pods.
#[must_use]
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    spec.selector.as_ref().filter(|s| !s.is_empty())
}

/// The pods that a service selects, by name.
#[must_use]
pub fn selected(service: &Service, world: &World) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut pods = world.list::<Pod>(namespace);
    pods.retain(|pod| matches(selector, pod));
    pods
}

fn matches(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

/// The services that select a changed pod, or did before the change.
#[must_use]
pub fn services_of(change: &Change, world: &World) -> Vec<Key> {
    let (before, after) = (change.before::<Pod>(), change.after::<Pod>());
    let Some(pod) = after.as_ref().or(before.as_ref()) else { return Vec::new() };
    if let (Some(before), Some(after)) = (&before, &after)
        && same_to_a_service(before, after)
    {
        return Vec::new();
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let services = world.list::<Service>(namespace).into_iter().filter(|service| {
        selector(service).is_some_and(|s| [&before, &after].into_iter().flatten().any(|pod| matches(s, pod)))
    });
    services.map(|s| Key::of(&s.metadata)).collect()
}

/// Whether nothing changed in a pod that a service could see.
fn same_to_a_service(a: &Pod, b: &Pod) -> bool {
    let spec =
        |p: &Pod| p.spec.as_ref().map(|s| (s.node_name.clone(), s.hostname.clone(), s.subdomain.clone()));
    let addresses = |p: &Pod| p.status.as_ref().and_then(|s| s.pod_ips.clone());
    is_ready(a) == is_ready(b)
        && is_terminal(a) == is_terminal(b)
        && a.metadata.labels == b.metadata.labels
        && a.metadata.deletion_timestamp.is_some() == b.metadata.deletion_timestamp.is_some()
        && a.metadata.uid == b.metadata.uid
        && spec(a) == spec(b)
        && addresses(a) == addresses(b)
}

/// Whether a pod can be an endpoint at all: it has an address and has not ended.
#[must_use]
pub fn can_serve(pod: &Pod, terminating_too: bool) -> bool {
    !is_terminal(pod)
        && !addresses(pod).is_empty()
        && (terminating_too || pod.metadata.deletion_timestamp.is_none())
}

/// A pod's addresses in the order of its status.
#[must_use]
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let many = status.pod_ips.iter().flatten().map(|p| p.ip.as_str());
    let mut found: Vec<IpAddr> = many.filter_map(|ip| ip.parse().ok()).collect();
    if found.is_empty() {
        found.extend(status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    found
}

/// The hostname that DNS gives the pod under the service.
#[must_use]
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|h| !h.is_empty())?;
    let named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    (named && service.metadata.namespace == pod.metadata.namespace).then(|| hostname.clone())
}

/// The service has no address of its own.
#[must_use]
pub fn is_headless(service: &Service) -> bool {
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    ip.is_empty() || ip == "None"
}

/// Where a pod listens for a port of a service; none when the pod has no port of that name.
#[must_use]
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let find = |c: &Container| {
        let mut ports = c.ports.iter().flatten();
        let found = ports
            .find(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol);
        found.map(|p| p.container_port)
    };
    spec.containers.iter().chain(sidecars).find_map(find)
}

/// The newest of: the service was made, a pod of it became ready or unready.
#[must_use]
pub fn trigger_time(service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
    let ready = pods.iter().filter_map(|pod| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
        ready.last_transition_time.as_ref().map(|t| t.0)
    });
    let made = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
    ready.chain(made).max()
}
