//! pod-garbage-collector-controller: pods that nobody else will delete.
//!
//! Pods of nodes that are gone, pods that were deleted before they had a node, pods that wait on a node that is out of
//! service, and, beyond a number, pods that have ended. Source: `pkg/controller/podgc`.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Map, Value, json};

use crate::{
    Change, Controller, Key, Kind, Outcome, Plan, Target, World, Write, pod_state,
    taint_eviction::disruption_target,
};

/// A node is missing for so long before its pods go: it may be registering again.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The loop. A key is a node, for its pods; the key with an empty name is for pods that have ended, and the key
/// `/NAMESPACE/POD` for a pod without a node.
pub struct PodGc {
    /// So many pods that have ended may stay; 12500 upstream.
    pub ended: usize,
}

impl Default for PodGc {
    fn default() -> Self {
        Self { ended: 12_500 }
    }
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Pod>(), Kind::of::<Node>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        let named = |name: String| Key { namespace: String::new(), name };
        if change.kind == Kind::of::<Node>() {
            return change.meta().map(Key::of).into_iter().collect();
        }
        let Some(pod) = change.after::<Pod>() else { return Vec::new() };
        let mut keys = Vec::new();
        if pod_state::is_terminal(&pod) {
            keys.push(Key::default());
        }
        match pod_state::node(&pod) {
            None if pod.metadata.deletion_timestamp.is_some() => keys.push(Key::of(&pod.metadata)),
            Some(node) => {
                let waits = pod.metadata.deletion_timestamp.is_some()
                    && world.get::<Node>("", node).is_some_and(|n| out_of_service(&n));
                if waits || world.get::<Node>("", node).is_none() {
                    keys.push(named(node.to_owned()));
                }
            }
            None => {}
        }
        keys
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        if !key.namespace.is_empty() {
            return unscheduled(key, world);
        }
        if key.name.is_empty() {
            return self.surplus(world, now);
        }
        match world.get::<Node>("", &key.name) {
            None => orphans(&key.name, world, last, now),
            Some(node) => waiting(&node, world, now),
        }
    }
}

/// Says that the pod has failed, if it has not ended, then deletes it without grace.
fn collect(pod: &Pod, reason: Option<(&str, &str)>, now: Timestamp) -> [Vec<Write>; 2] {
    let mut before = Vec::new();
    if !pod_state::is_terminal(pod) {
        let body = json!({"status": {"phase": "Failed", "observedGeneration": pod.metadata.generation}});
        before.push(match reason {
            Some((reason, message)) => merged(disruption_target(pod, reason, message, now), &body),
            None => Write::patch_status(pod, body),
        });
    }
    let delete = Write::Delete {
        target: Target::of(pod),
        resource_version: None,
        grace: Some(0),
        propagation: None,
        on_success: None,
        on_failure: None,
    };
    [before, vec![delete]]
}

/// A status patch with more fields in it.
fn merged(write: Write, more: &Value) -> Write {
    let Write::Patch { target, patch, mut body, subresource } = write else { return write };
    let fields = more["status"].as_object().cloned().unwrap_or_else(Map::new);
    for (field, value) in fields {
        body["status"][field] = value;
    }
    Write::Patch { target, patch, body, subresource }
}

fn plan_of(pods: &[Arc<Pod>], reason: Option<(&str, &str)>, now: Timestamp, plan: &mut Plan) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for pod in pods {
        let [before, delete] = collect(pod, reason, now);
        first.extend(before);
        second.extend(delete);
    }
    plan.all(first);
    plan.all(second);
}

/// The pods of a node that is not there. The memory is since when.
fn orphans(node: &str, world: &World, last: &Outcome, now: Timestamp) -> Plan {
    let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
    let pods = world.pods_on(node);
    if pods.is_empty() {
        return plan;
    }
    let since: Timestamp = last.memory.as_str().and_then(|t| t.parse().ok()).unwrap_or(now);
    plan.memory = Some(json!(since.to_string()));
    let at = since.saturating_add(QUARANTINE).unwrap_or(now);
    if at > now {
        plan.wake(at);
        return plan;
    }
    plan.then(Write::require_absent::<Node>("", node, ""));
    plan_of(&pods, Some(("DeletionByPodGC", "PodGC: node no longer exists")), now, &mut plan);
    plan
}

fn out_of_service(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True");
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    !ready && taints.into_iter().any(|t| t.key == OUT_OF_SERVICE)
}

/// Pods that are being deleted on a node of which an administrator says that it is out of service.
fn waiting(node: &Node, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
    if out_of_service(node) {
        let mut pods = world.pods_on(node.metadata.name.as_deref().unwrap_or_default());
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_some());
        plan_of(&pods, None, now, &mut plan);
    }
    plan
}

/// A pod that was deleted before it had a node.
fn unscheduled(key: &Key, world: &World) -> Plan {
    let mut plan = Plan::none();
    let pod = world.get::<Pod>(&key.namespace, &key.name);
    let pod = pod.filter(|p| p.metadata.deletion_timestamp.is_some() && pod_state::node(p).is_none());
    if let Some(pod) = pod {
        let [_, delete] = collect(&pod, None, Timestamp::UNIX_EPOCH);
        plan.all(delete);
    }
    plan
}

impl PodGc {
    /// Pods that have ended, beyond the number that may stay: evicted ones first, then the oldest.
    fn surplus(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let mut pods = world.list::<Pod>("");
        pods.retain(|pod| pod_state::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none());
        let Some(surplus) = pods.len().checked_sub(self.ended).filter(|n| *n > 0) else { return plan };
        let evicted = |pod: &Pod| pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted");
        pods.sort_by_key(|pod| {
            (
                Reverse(evicted(pod)),
                pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
                pod.metadata.name.clone(),
            )
        });
        pods.truncate(surplus);
        plan_of(&pods, None, now, &mut plan);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{add, at, deleted, key, node, noon, patched, plan, pod, remove, world, writes};

    fn look(world: &World, name: &str, memory: Option<Value>, now: i64) -> Plan {
        let last = Outcome { memory: memory.unwrap_or_default(), ..Outcome::default() };
        PodGc::default().reconcile(&key("", name), world, &last, at(now))
    }

    #[test]
    fn pods_of_a_node_that_stays_away_fail_and_go_after_a_live_look() {
        let mut world = world([node("n", "z"), pod("shop", "p", "web", "n", "10.1.0.1")]);
        let change = remove::<Node>(&mut world, "", "n");
        assert_eq!(PodGc::default().keys(&change, &world), [key("", "n")]);
        let first = look(&world, "n", None, 0);
        assert_eq!((first.steps.len(), first.again), (0, Some(at(40))));
        let second = look(&world, "n", first.memory, 40);
        assert!(matches!(&second.steps[0][..], [Write::RequireAbsent { target }] if target.name == "n"));
        let status = &patched(&second)[0].1["status"];
        assert_eq!(
            (&status["phase"], &status["conditions"][0]["reason"]),
            (&json!("Failed"), &json!("DeletionByPodGC"))
        );
        assert_eq!(deleted(&second), ["p"]);
    }

    #[test]
    fn a_node_that_comes_back_in_time_keeps_its_pods() {
        let mut world = world([pod("shop", "p", "web", "n", "10.1.0.1")]);
        let first = look(&world, "n", None, 0);
        add(&mut world, node("n", "z"));
        let second = look(&world, "n", first.memory, 40);
        assert!(second.steps.is_empty());
        remove::<Node>(&mut world, "", "n");
        assert_eq!(look(&world, "n", second.memory, 50).again, Some(at(90)), "the clock starts again");
    }

    #[test]
    fn a_deleted_pod_without_a_node_goes_at_once() {
        let mut leaving = pod("shop", "p", "web", "", "10.1.0.1");
        leaving["metadata"]["deletionTimestamp"] = json!(noon().to_string());
        let mut world = world([]);
        let change = add(&mut world, leaving);
        assert_eq!(PodGc::default().keys(&change, &world), [key("shop", "p")]);
        let plan = plan(&PodGc::default(), &world, "shop", "p");
        assert!(matches!(writes(&plan)[..], [Write::Delete { grace: Some(0), .. }]));
    }

    #[test]
    fn leaving_pods_of_a_node_that_is_out_of_service_go() {
        let mut out = node("n", "z");
        out["spec"]["taints"] = json!([{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]);
        let mut leaving = pod("shop", "p", "web", "n", "10.1.0.1");
        leaving["metadata"]["deletionTimestamp"] = json!(noon().to_string());
        let staying = pod("shop", "q", "web", "n", "10.1.0.2");
        let mut world = world([out.clone(), leaving, staying]);
        assert!(look(&world, "n", None, 0).steps.is_empty(), "it is ready");
        out["status"]["conditions"][0]["status"] = json!("Unknown");
        add(&mut world, out);
        assert_eq!(deleted(&look(&world, "n", None, 0)), ["p"]);
    }

    #[test]
    fn of_too_many_ended_pods_the_evicted_and_the_oldest_go() {
        let ended = |name: &str, reason: Option<&str>, second: i64| {
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
                "metadata": {"namespace": "shop", "name": name, "creationTimestamp": at(second).to_string()},
                "status": {"phase": "Failed", "reason": reason}})
        };
        let world =
            world([ended("new", None, 9), ended("old", None, 1), ended("evicted", Some("Evicted"), 5)]);
        let gc = PodGc { ended: 1 };
        assert_eq!(deleted(&plan(&gc, &world, "", "")), ["evicted", "old"]);
        assert_eq!(plan(&PodGc { ended: 3 }, &world, "", ""), Plan::none());
    }
}
