//! disruption-controller: how many pods of a PodDisruptionBudget may be evicted right now.
//!
//! The eviction subresource spends what `status.disruptionsAllowed` says and notes the pod in `status.disruptedPods`; this
//! loop counts anew from what is there. [`expected`] knows how many pods there should be, [`stale`] takes back the mark on a
//! pod that was not deleted after all. Source: `pkg/controller/disruption`.

mod expected;
mod stale;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::{SignedDuration, Timestamp},
};
pub use stale::StaleDisruption;

use crate::{Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write, ownership, pod_state};

/// An eviction that was allowed counts for so long, unless the pod is deleted before.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// The loop; its keys are budgets.
pub struct Disruption;

impl Controller for Disruption {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![
            Kind::of::<PodDisruptionBudget>(),
            Kind::of::<Pod>(),
            Kind::of::<ReplicationController>(),
            Kind::of::<ReplicaSet>(),
            Kind::of::<Deployment>(),
            Kind::of::<StatefulSet>(),
        ]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        let Some(meta) = change.meta() else { return Vec::new() };
        if change.kind == Kind::of::<PodDisruptionBudget>() {
            return vec![Key::of(meta)];
        }
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let budgets = world.list::<PodDisruptionBudget>(namespace);
        if change.kind == Kind::of::<Pod>() {
            let pods: Vec<Arc<Pod>> =
                change.before::<Pod>().into_iter().chain(change.after::<Pod>()).collect();
            let concerned = budgets.iter().filter(|b| pods.iter().any(|pod| selects(b, pod)));
            return concerned.map(|b| Key::of(&b.metadata)).collect();
        }
        if expected::replicas(change.before.as_ref()) == expected::replicas(change.after.as_ref()) {
            return Vec::new();
        }
        budgets.iter().map(|b| Key::of(&b.metadata)).collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, now: Timestamp) -> Plan {
        let budget = world.get::<PodDisruptionBudget>(&key.namespace, &key.name);
        let Some(budget) = budget.filter(|b| b.metadata.deletion_timestamp.is_none()) else {
            return Plan::none();
        };
        let mut pods = world.list::<Pod>(&key.namespace);
        pods.retain(|pod| selects(&budget, pod));
        let mut plan = Plan::none();
        let status = match expected::expected(&budget, &pods, world) {
            Ok(expected) => {
                let disrupted = disrupted(&budget, &pods, now, &mut plan);
                let status = status(&budget, &pods, &expected, disrupted, now);
                if status.is_some() {
                    plan.notes.extend(remarks(&budget, &pods, &expected));
                }
                status
            }
            Err(why) => {
                let status = fail_safe(&budget, &why, now);
                if status.is_some() {
                    let message = format!("Failed to calculate the number of expected pods: {why}");
                    plan.notes.push(Note::warning(&*budget, "CalculateExpectedPodCountFailed", message));
                }
                status
            }
        };
        if let Some(status) = status {
            let mut budget = (*budget).clone();
            budget.status = Some(status);
            plan.then(Write::status(&budget));
        }
        plan
    }
}

/// A budget without a selector selects nothing, one with an empty selector everything.
fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|s| ownership::matches(&ownership::selector(s), &pod.metadata))
}

/// What people should know about a budget.
fn remarks(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], expected: &expected::Expected) -> Vec<Note> {
    let mut notes = Vec::new();
    if pods.is_empty() {
        notes.push(Note::normal(budget, "NoPods", "No matching pods found"));
    }
    if !expected.unmanaged.is_empty() {
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref()).map(ownership::selector);
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of \
             the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods \
             please set \".spec.minAvailable\" field of the PDB to an integer value.",
            selector.map(|s| s.to_string()).unwrap_or_default()
        );
        notes.push(Note::warning(budget, "UnmanagedPods", message));
    }
    notes
}

/// The evictions that still count. Those that came to nothing are told.
fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let noted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    let mut still = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(since) = noted.and_then(|n| n.get(name)) else { continue };
        let until = since.0.saturating_add(PATIENCE).unwrap_or(Timestamp::MAX);
        if until < now {
            let message = format!(
                "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                budget.metadata.namespace.as_deref().unwrap_or_default(),
                budget.metadata.name.as_deref().unwrap_or_default()
            );
            plan.notes.push(Note::warning(&**pod, "NotDeleted", message));
        } else {
            still.insert(name.to_owned(), since.clone());
            plan.wake(until.saturating_add(SignedDuration::from_secs(1)).unwrap_or(until));
        }
    }
    still
}

/// The new status, if it differs.
fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: &expected::Expected,
    disrupted: BTreeMap<String, Time>,
    now: Timestamp,
) -> Option<PodDisruptionBudgetStatus> {
    let healthy = pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && !disrupted.contains_key(pod.metadata.name.as_deref().unwrap_or_default())
            && pod_state::is_ready(pod)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = healthy.saturating_sub(expected.desired);
    // a budget without pods allows nothing: its first pods must not be evicted before they are counted
    let allowed = if expected.pods <= 0 { 0 } else { allowed.max(0) };
    let old = budget.status.clone().unwrap_or_default();
    let mut new = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.desired),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions.clone(),
    };
    let (value, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut new, value, reason, "", now);
    (new != normal(old)).then_some(new)
}

/// Nothing may be evicted while it is not known how many pods there should be.
fn fail_safe(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> Option<PodDisruptionBudgetStatus> {
    let old = budget.status.clone().unwrap_or_default();
    let mut new = normal(old.clone());
    new.disruptions_allowed = Some(0);
    new.observed_generation = budget.metadata.generation;
    set_condition(&mut new, "False", "SyncFailed", why, now);
    (new != normal(old)).then_some(new)
}

/// An empty map is no map.
fn normal(mut status: PodDisruptionBudgetStatus) -> PodDisruptionBudgetStatus {
    status.disrupted_pods = status.disrupted_pods.filter(|d| !d.is_empty());
    status
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let observed_generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let wanted = Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == wanted.type_) {
        Some(old) => {
            let since =
                if old.status == wanted.status { old.last_transition_time.clone() } else { Time(now) };
            *old = Condition { last_transition_time: since, ..wanted };
        }
        None => conditions.push(wanted),
    }
}
