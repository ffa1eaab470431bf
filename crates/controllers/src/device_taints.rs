//! device-taint-eviction-controller: deletes pods whose devices have a `NoExecute` taint that their claims do not tolerate, or
//! no longer do.
//!
//! Taints come from the driver's ResourceSlices and from DeviceTaintRules. What a rule has brought about so far is not told in
//! its status.
//!
//! Source: `pkg/controller/devicetainteviction`.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        core::v1::Pod,
        resource::v1::{
            DeviceRequestAllocationResult, DeviceTaint, DeviceTaintRule, DeviceToleration, ResourceClaim,
            ResourceSlice,
        },
    },
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write, ownership, pod_state,
    resource_claims::used_by, taint_eviction::disruption_target,
};

const EVICTS: &str = "NoExecute";
const EVENT: &str = "DeviceTaintManagerEviction";

/// The loop; its keys are pods. A key's memory is the UID of a pod that is to be evicted.
pub struct DeviceTaints;

impl Controller for DeviceTaints {
    fn name(&self) -> &'static str {
        "device-taint-eviction-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![
            Kind::of::<Pod>(),
            Kind::of::<ResourceClaim>(),
            Kind::of::<ResourceSlice>(),
            Kind::of::<DeviceTaintRule>(),
        ]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(pod) = change.object::<Pod>() {
            let uses = used_by(&pod).next().is_some();
            return if uses { vec![Key::of(&pod.metadata)] } else { Vec::new() };
        }
        if let Some(claim) = change.object::<ResourceClaim>() {
            return consumers(&claim);
        }
        let slice = change.object::<ResourceSlice>();
        let concerns = |device: &DeviceRequestAllocationResult| {
            slice.as_ref().is_none_or(|s| s.spec.driver == device.driver && s.spec.pool.name == device.pool)
        };
        let claims = world.list::<ResourceClaim>("");
        claims
            .iter()
            .filter(|claim| devices(claim).any(concerns))
            .flat_map(|claim| consumers(claim))
            .collect()
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
        let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return plan };
        if pod.metadata.deletion_timestamp.is_some() || pod_state::node(&pod).is_none() {
            return plan;
        }
        let uid = json!(pod.metadata.uid);
        let claims = used_by(&pod).filter_map(|(name, own)| held(&pod, name, own, world));
        let Some(end) = claims.filter_map(|claim| end(&claim, world)).min() else {
            if last.memory == uid {
                plan.notes.push(Note::normal(&*pod, EVENT, "Cancelling deletion"));
            }
            return plan;
        };
        plan.memory = Some(uid);
        if end > now {
            plan.wake(end);
            return plan;
        }
        plan.notes.push(Note::normal(&*pod, EVENT, "Marking for deletion"));
        let words = "Device Taint manager: deleting due to NoExecute taint";
        plan.then(disruption_target(&pod, "DeletionByDeviceTaintManager", words, now));
        plan.then(Write::delete(&*pod));
        plan
    }
}

/// The pods that a claim is reserved for.
fn consumers(claim: &ResourceClaim) -> Vec<Key> {
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    let consumers = claim.status.iter().flat_map(|s| s.reserved_for.iter().flatten());
    let pods = consumers.filter(|c| c.resource == "pods");
    pods.map(|pod| Key { namespace: namespace.clone(), name: pod.name.clone() }).collect()
}

fn devices(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref());
    let devices = allocation.and_then(|a| a.devices.as_ref());
    devices.into_iter().flat_map(|d| d.results.iter().flatten())
}

/// A claim that this very pod has; `own` if it has to have been made for it.
fn held(pod: &Pod, name: &str, own: bool, world: &World) -> Option<Arc<ResourceClaim>> {
    let uid = pod.metadata.uid.as_ref()?;
    let claim = world.get::<ResourceClaim>(pod.metadata.namespace.as_deref().unwrap_or_default(), name)?;
    let mut consumers = claim.status.iter().flat_map(|s| s.reserved_for.iter().flatten());
    let reserved = consumers.any(|consumer| consumer.uid == *uid);
    let made = ownership::controller_of(&claim.metadata).is_some_and(|owner| owner.uid == *uid);
    (reserved && (made || !own)).then_some(claim)
}

/// When the first taint of a claim's devices is tolerated no longer.
fn end(claim: &ResourceClaim, world: &World) -> Option<Timestamp> {
    let ends = devices(claim).flat_map(|device| {
        let tolerations = device.tolerations.as_deref().unwrap_or_default();
        taints(device, world).into_iter().filter_map(|taint| end_of(&taint, tolerations))
    });
    ends.min()
}

/// The taints of a device that evict: its driver's, in the newest generation of its pool, and those of rules.
fn taints(device: &DeviceRequestAllocationResult, world: &World) -> Vec<DeviceTaint> {
    let slices = world.list::<ResourceSlice>("");
    let of_pool = |slice: &&Arc<ResourceSlice>| {
        slice.spec.driver == device.driver && slice.spec.pool.name == device.pool
    };
    let newest = slices.iter().filter(of_pool).map(|slice| slice.spec.pool.generation).max();
    let current = slices.iter().filter(of_pool).filter(|s| Some(s.spec.pool.generation) == newest);
    let published = current.flat_map(|slice| slice.spec.devices.iter().flatten());
    let same = published.into_iter().find(|published| published.name == device.device);
    let mut taints: Vec<DeviceTaint> = same.and_then(|d| d.taints.clone()).unwrap_or_default();
    let rules = world.list::<DeviceTaintRule>("");
    taints.extend(rules.iter().filter(|rule| selects(rule, device)).map(|rule| rule.spec.taint.clone()));
    taints.retain(|taint| taint.effect == EVICTS);
    taints
}

fn selects(rule: &DeviceTaintRule, device: &DeviceRequestAllocationResult) -> bool {
    let Some(selector) = &rule.spec.device_selector else { return false };
    let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    fits(&selector.driver, &device.driver)
        && fits(&selector.pool, &device.pool)
        && fits(&selector.device, &device.device)
}

fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    let same_value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        Some("Equal") | None => value(&toleration.value) == value(&taint.value),
        Some(_) => false,
    };
    let key = toleration.key.as_deref().unwrap_or_default();
    toleration.effect.as_deref() == Some(EVICTS) && (key.is_empty() || key == taint.key) && same_value
}

/// When a taint is tolerated no longer, counted from when it was put; never if it is tolerated for ever.
fn end_of(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> Option<Timestamp> {
    let since = taint.time_added.as_ref()?.0;
    let mut shortest: Option<i64> = None;
    for toleration in tolerations.iter().filter(|t| tolerates(t, taint)) {
        let seconds = toleration.toleration_seconds?.max(0);
        shortest = Some(shortest.map_or(seconds, |before| before.min(seconds)));
    }
    let wait = SignedDuration::from_secs(shortest.unwrap_or(0));
    Some(since.saturating_add(wait).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{add, at, deleted, key, patched, reasons, remove, world};

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "p"},
            "spec": {"nodeName": "n", "containers": [], "resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]}})
    }

    fn claim(tolerations: Value) -> Value {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"namespace": "shop", "name": "c"}, "spec": {},
            "status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": "uid-p"}],
                "allocation": {"devices": {"results": [{"request": "r", "driver": "d.io", "pool": "n",
                    "device": "gpu-0", "tolerations": tolerations}]}}}})
    }

    fn slice(name: &str, generation: i64, taints: Value) -> Value {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name},
            "spec": {"driver": "d.io", "nodeName": "n",
                "pool": {"name": "n", "generation": generation, "resourceSliceCount": 1},
                "devices": [{"name": "gpu-0", "taints": taints}]}})
    }

    fn taint() -> Value {
        json!({"key": "bad", "effect": EVICTS, "timeAdded": at(0).to_string()})
    }

    fn rule(selector: Value) -> Value {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceTaintRule", "metadata": {"name": "r"},
            "spec": {"deviceSelector": selector, "taint": taint()}})
    }

    fn look(world: &World, memory: Option<Value>, seconds: i64) -> Plan {
        let last = Outcome { memory: memory.unwrap_or_default(), ..Outcome::default() };
        DeviceTaints.reconcile(&key("shop", "p"), world, &last, at(seconds))
    }

    #[test]
    fn a_pod_on_a_tainted_device_is_marked_and_deleted() {
        let plan = look(&world([pod(), claim(json!([])), slice("s", 1, json!([taint()]))]), None, 1);
        assert_eq!(patched(&plan)[0].1["status"]["conditions"][0]["reason"], "DeletionByDeviceTaintManager");
        assert_eq!(deleted(&plan), ["p"]);
        assert_eq!(reasons(&plan), [EVENT]);
        let outdated = [pod(), claim(json!([])), slice("s", 1, json!([taint()])), slice("t", 2, json!([]))];
        assert_eq!(look(&world(outdated), None, 1).steps.len(), 0, "the newest generation of a pool counts");
    }

    #[test]
    fn a_toleration_holds_from_when_the_taint_was_put() {
        let toleration = |seconds: Value| json!([{"key": "bad", "operator": "Exists", "effect": EVICTS, "tolerationSeconds": seconds}]);
        let with = |tolerations: Value| world([pod(), claim(tolerations), slice("s", 1, json!([taint()]))]);
        assert_eq!(look(&with(toleration(json!(60))), None, 1).again, Some(at(60)));
        assert_eq!(deleted(&look(&with(toleration(json!(60))), None, 60)), ["p"]);
        let forever = look(&with(toleration(Value::Null)), None, 1);
        assert_eq!((forever.steps.len(), forever.again), (0, None));
    }

    #[test]
    fn rules_taint_what_they_select_and_taking_one_away_cancels() {
        let toleration = json!([{"operator": "Exists", "effect": EVICTS, "tolerationSeconds": 60}]);
        let mut world = world([pod(), claim(toleration), slice("s", 1, json!([]))]);
        add(&mut world, rule(json!({"driver": "other"})));
        assert_eq!(look(&world, None, 1).again, None);
        let change = add(&mut world, rule(json!({"driver": "d.io", "device": "gpu-0"})));
        assert_eq!(DeviceTaints.keys(&change, &world), [key("shop", "p")]);
        let scheduled = look(&world, None, 1);
        assert_eq!(scheduled.again, Some(at(60)));
        remove::<DeviceTaintRule>(&mut world, "", "r");
        let cancelled = look(&world, scheduled.memory, 2);
        assert_eq!(cancelled.notes[0].message, "Cancelling deletion");
    }

    #[test]
    fn a_claim_that_is_not_reserved_for_this_very_pod_does_not_count() {
        let mut other = claim(json!([]));
        other["status"]["reservedFor"][0]["uid"] = json!("another");
        assert_eq!(look(&world([pod(), other, slice("s", 1, json!([taint()]))]), None, 1).steps.len(), 0);
    }
}
