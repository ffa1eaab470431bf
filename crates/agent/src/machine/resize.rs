//! Resources that change under a running container (KEP-1287).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
    jiff::Timestamp,
};

use super::{
    Action, Step,
    observed::{Observed, Seen, StopReason},
    run, stop,
};
use crate::{
    quantity,
    spec::{self, Part, Role},
};

/// The resources that can be changed under a running container.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Which resources differ between two requirements, counted as the node counts them.
pub(crate) fn differing(
    one: Option<&ResourceRequirements>,
    other: Option<&ResourceRequirements>,
) -> Vec<&'static str> {
    let amounts = |r: Option<&ResourceRequirements>, name: &str| {
        let of = |list: Option<&BTreeMap<String, Quantity>>| quantity::of(list, name);
        (of(r.and_then(|r| r.requests.as_ref())), of(r.and_then(|r| r.limits.as_ref())))
    };
    RESIZABLE.into_iter().filter(|name| amounts(one, name) != amounts(other, name)).collect()
}

/// Whether a change of one of these resources restarts the container.
fn restarts(container: &Container, changed: &[&str]) -> bool {
    let policies = container.resize_policy.iter().flatten();
    policies
        .filter(|p| changed.contains(&p.resource_name.as_str()))
        .any(|p| p.restart_policy == "RestartContainer")
}

/// What a running container's resources need; true if it is being ended for it.
pub(super) fn plan(
    part: &Part<'_>,
    state: &Seen,
    seen: &Observed,
    grace: i64,
    now: Timestamp,
    out: &mut Step,
) -> bool {
    let Some(instance) = state.current.as_ref().filter(|_| part.role != Role::Ephemeral) else {
        return false;
    };
    let changed = differing(instance.resources.as_ref(), part.container.resources.as_ref());
    if changed.is_empty() {
        return false;
    }
    if restarts(&part.container, &changed) {
        stop::end(part, seen, now, (grace, now, StopReason::Resized), true, out);
        return true;
    }
    if !state.resizing && run::due(state.resize_failure.as_ref().map(|f| f.retry_at), now, out) {
        out.actions.push(Action::Resize { container: part.container.name.clone(), id: instance.id.clone() });
    }
    false
}

/// Whether a running container does not yet have the resources it shall have, and why that failed last.
pub(super) fn in_progress(spec: &PodSpec, seen: &Observed) -> Option<Option<String>> {
    let pending = spec::parts(spec).into_iter().filter_map(|part| {
        let state = seen.seen(&part.container.name)?;
        let instance = state.current.as_ref().filter(|i| i.running() && part.role != Role::Ephemeral)?;
        let changed = differing(instance.resources.as_ref(), part.container.resources.as_ref());
        (!changed.is_empty()).then(|| state.resize_failure.as_ref().map(|f| f.message.clone()))
    });
    let all: Vec<Option<String>> = pending.collect();
    (!all.is_empty()).then(|| all.into_iter().flatten().next())
}

/// `pod` with the CPU and memory of `allocated`'s containers: what it has been given, where it asks for something else.
pub(crate) fn with_resources_of(pod: &mut Pod, allocated: &PodSpec) {
    let Some(spec) = pod.spec.as_mut() else { return };
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if let Some(part) = spec::part(allocated, &container.name) {
            container.resources.clone_from(&part.container.resources);
        }
    }
}

/// Whether the containers of two specs have the same CPU and memory.
pub(crate) fn same_resources(one: &PodSpec, other: &PodSpec) -> bool {
    spec::parts(one).iter().all(|part| match spec::part(other, &part.container.name) {
        Some(twin) => {
            differing(part.container.resources.as_ref(), twin.container.resources.as_ref()).is_empty()
        }
        None => true,
    })
}
