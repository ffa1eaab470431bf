//! A pod that was marked to be disrupted and was not: the mark is taken back.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::json;

use super::PATIENCE;
use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, Write, pod_state};

/// The loop; its keys are pods.
pub struct StaleDisruption;

impl Controller for StaleDisruption {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Pod>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        let pod = change.after::<Pod>().filter(|pod| marked_until(pod).is_some());
        pod.map(|pod| Key::of(&pod.metadata)).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return plan };
        let Some(until) = marked_until(&pod) else { return plan };
        if until > now {
            plan.wake(until);
            return plan;
        }
        let body = json!({
            "metadata": {"resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "False", "reason": null, "message": null,
                "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "observedGeneration": pod.metadata.generation,
            }]},
        });
        plan.then(Write::patch_status(&*pod, body));
        plan
    }
}

/// Until when a mark on a pod that lives on is believed. The kubelet's own marks are its business.
fn marked_until(pod: &Pod) -> Option<Timestamp> {
    let mark = pod_state::condition(pod, "DisruptionTarget").filter(|c| c.status == "True")?;
    if !pod_state::is_active(pod) || mark.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    mark.last_transition_time.as_ref()?.0.checked_add(PATIENCE).ok()
}
