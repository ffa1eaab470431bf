//! taint-eviction-controller: deletes pods that do not tolerate a `NoExecute` taint of their node, or no longer do.
//!
//! Source: `pkg/controller/tainteviction`.

use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use crate::{Change, Controller, Key, Kind, Note, Outcome, Plan, Target, World, Write, node_fit, pod_state};

/// The loop; its keys are pods. A key's memory is when its eviction was first scheduled.
pub struct TaintEviction;

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Node>(), Kind::of::<Pod>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(pod) = change.object::<Pod>() {
            let before = change.before::<Pod>();
            let node = pod_state::node(&pod).and_then(|name| world.get::<Node>("", name));
            let tainted = node.is_some_and(|node| !taints(&node).is_empty());
            let concerns = |pod: &Pod| {
                let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.clone());
                (pod_state::node(pod).map(str::to_owned), tolerations, pod.metadata.uid.clone())
            };
            let changed = change.after.is_none() || before.as_deref().map(concerns) != Some(concerns(&pod));
            return if tainted && changed { vec![Key::of(&pod.metadata)] } else { Vec::new() };
        }
        let (before, after) = (change.before::<Node>(), change.after::<Node>());
        let of = |node: Option<&Node>| node.map(|n| taints(n).into_iter().cloned().collect::<Vec<Taint>>());
        let (before, now) =
            (of(before.as_deref()).unwrap_or_default(), of(after.as_deref()).unwrap_or_default());
        if before == now {
            return Vec::new();
        }
        let name = change.meta().and_then(|m| m.name.as_deref()).unwrap_or_default();
        world.pods_on(name).iter().map(|pod| Key::of(&pod.metadata)).collect()
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
        let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return plan };
        let Some(node) = pod_state::node(&pod).and_then(|n| world.get::<Node>("", n)) else { return plan };
        if pod.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let scheduled = last.memory["uid"] == uid;
        let since = last.memory["since"].as_str().filter(|_| scheduled).and_then(|t| t.parse().ok());
        let since: Timestamp = since.unwrap_or(now);
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        match wait(&taints(&node), tolerations) {
            Wait::Forever => {
                if scheduled {
                    let message = format!("Cancelling deletion of Pod {}/{}", key.namespace, key.name);
                    plan.notes.push(Note::normal(&*pod, "TaintManagerEviction", message));
                }
            }
            Wait::For(time) => {
                let at = since.saturating_add(time).unwrap_or(Timestamp::MAX);
                if at <= now {
                    evict(&pod, key, now, &mut plan);
                } else {
                    plan.wake(at);
                }
                plan.memory = Some(json!({"uid": uid, "since": since.to_string()}));
            }
        }
        plan
    }
}

/// A node's taints that drive pods away.
fn taints(node: &Node) -> Vec<&Taint> {
    let all = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    all.filter(|t| t.effect == "NoExecute").collect()
}

/// How long a pod may stay.
#[derive(Debug, PartialEq)]
enum Wait {
    For(SignedDuration),
    Forever,
}

/// The shortest `tolerationSeconds` of the tolerations that are used; not at all if a taint is not tolerated.
fn wait(taints: &[&Taint], tolerations: &[Toleration]) -> Wait {
    let mut shortest = Wait::Forever;
    for taint in taints {
        let Some(used) = tolerations.iter().find(|t| node_fit::tolerates(t, taint)) else {
            return Wait::For(SignedDuration::ZERO);
        };
        if let Some(seconds) = used.toleration_seconds {
            let time = SignedDuration::from_secs(seconds.max(0));
            shortest = match shortest {
                Wait::For(before) => Wait::For(before.min(time)),
                Wait::Forever => Wait::For(time),
            };
        }
    }
    shortest
}

/// Says why, then deletes.
fn evict(pod: &Pod, key: &Key, now: Timestamp, plan: &mut Plan) {
    let message = format!("Marking for deletion Pod {}/{}", key.namespace, key.name);
    plan.notes.push(Note::normal(pod, "TaintManagerEviction", message));
    plan.then(disruption_target(
        pod,
        "DeletionByTaintManager",
        "Taint manager: deleting due to NoExecute taint",
        now,
    ));
    plan.then(Write::delete(pod));
}

/// The condition that tells why a pod is about to be deleted.
pub(crate) fn disruption_target(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Write {
    let body = json!({"status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "observedGeneration": pod.metadata.generation,
    }]}});
    Write::Patch {
        target: Target::of(pod),
        patch: crate::PatchKind::Strategic,
        body,
        subresource: Some("status"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{add, at, deleted, key, node, patched, plan, pod, reasons, world};

    fn tainted(keys: &[&str]) -> Value {
        let mut node = node("n", "z");
        let taints: Vec<Value> = keys.iter().map(|key| json!({"key": key, "effect": "NoExecute"})).collect();
        node["spec"]["taints"] = json!(taints);
        node
    }

    fn tolerant(tolerations: Value) -> Value {
        let mut pod = pod("shop", "p", "web", "n", "10.1.0.1");
        pod["spec"]["tolerations"] = tolerations;
        pod
    }

    fn look(world: &World, memory: Option<Value>, now: i64) -> Plan {
        let last = Outcome { memory: memory.unwrap_or_default(), ..Outcome::default() };
        TaintEviction.reconcile(&key("shop", "p"), world, &last, at(now))
    }

    #[test]
    fn a_pod_that_does_not_tolerate_is_marked_and_then_deleted() {
        let plan = look(&world([tainted(&["bad"]), tolerant(json!([]))]), None, 0);
        assert_eq!(patched(&plan)[0].1["status"]["conditions"][0]["reason"], "DeletionByTaintManager");
        assert_eq!(deleted(&plan), ["p"]);
        assert_eq!(plan.steps.len(), 2);
        assert_eq!(plan.notes[0].message, "Marking for deletion Pod shop/p");
    }

    #[test]
    fn the_shortest_toleration_that_is_used_counts_from_when_it_was_first_seen() {
        let tolerations = json!([
            {"key": "a", "operator": "Exists", "tolerationSeconds": 300},
            {"key": "b", "operator": "Exists", "tolerationSeconds": 10},
            {"key": "unused", "operator": "Exists", "tolerationSeconds": 1},
        ]);
        let world = world([tainted(&["a", "b"]), tolerant(tolerations)]);
        let first = look(&world, None, 0);
        assert_eq!((first.steps.len(), first.again), (0, Some(at(10))));
        let second = look(&world, first.memory, 7);
        assert_eq!(second.again, Some(at(10)));
        assert_eq!(deleted(&look(&world, second.memory, 10)), ["p"]);
    }

    #[test]
    fn taking_the_taint_away_in_time_cancels_the_eviction() {
        let tolerations = json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 60}]);
        let mut world = world([tainted(&["a"]), tolerant(tolerations)]);
        let first = look(&world, None, 0);
        let change = add(&mut world, node("n", "z"));
        assert_eq!(TaintEviction.keys(&change, &world), [key("shop", "p")]);
        let second = look(&world, first.memory, 30);
        assert!(second.steps.is_empty());
        assert_eq!(second.notes[0].message, "Cancelling deletion of Pod shop/p");
        assert_eq!(second.memory, Some(Value::Null));
    }

    #[test]
    fn a_pod_that_tolerates_for_ever_or_is_leaving_stays() {
        let forever = world([tainted(&["a"]), tolerant(json!([{"operator": "Exists"}]))]);
        assert!(plan(&TaintEviction, &forever, "shop", "p").steps.is_empty());
        let mut leaving = tolerant(json!([]));
        leaving["metadata"]["deletionTimestamp"] = json!(at(0).to_string());
        assert!(plan(&TaintEviction, &world([tainted(&["a"]), leaving]), "shop", "p").steps.is_empty());
    }

    #[test]
    fn a_pod_that_comes_to_a_tainted_node_is_looked_at() {
        let mut world = world([tainted(&["a"])]);
        let change = add(&mut world, tolerant(json!([])));
        assert_eq!(TaintEviction.keys(&change, &world), [key("shop", "p")]);
        let change = add(&mut world, tolerant(json!([])));
        assert_eq!(TaintEviction.keys(&change, &world), [], "nothing changed that matters");
        assert!(reasons(&plan(&TaintEviction, &world, "shop", "p")).contains(&"TaintManagerEviction"));
    }
}
