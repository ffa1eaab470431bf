//! persistentvolumeclaim-protection-controller and persistentvolume-protection-controller: a claim stays while pods use it,
//! a volume while it is bound.
//!
//! Source: `pkg/controller/volume/{pvcprotection,pvprotection}`.

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use serde_json::json;

use crate::{
    Change, Controller, Key, Kind, Outcome, Plan, World, Write, about::has_finalizer, ownership, pod_state,
};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

/// The loop for claims.
pub struct ClaimProtection;

/// The loop for volumes.
pub struct VolumeProtection;

/// Adds the finalizer to what lives, and takes it off what is being deleted and no longer used.
pub(crate) fn guard(kind: &Kind, meta: &ObjectMeta, finalizer: &str, used: impl FnOnce() -> bool) -> Plan {
    let mut plan = Plan::none();
    let has = has_finalizer(meta, finalizer);
    if meta.deletion_timestamp.is_none() {
        if !has {
            let mut finalizers = meta.finalizers.clone().unwrap_or_default();
            finalizers.push(finalizer.to_owned());
            plan.then(Write::patch_read(kind, meta, json!({"finalizers": finalizers})));
        }
    } else if has && !used() {
        plan.then(Write::without_finalizer(kind, meta, finalizer));
    }
    plan
}

/// The claims that a pod uses, those of its ephemeral volumes too.
fn claims_of(pod: &Pod) -> impl Iterator<Item = (String, bool)> + '_ {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(move |volume| match &volume.persistent_volume_claim {
        Some(claim) => Some((claim.claim_name.clone(), false)),
        None => volume.ephemeral.as_ref().map(|_| (format!("{name}-{}", volume.name), true)),
    })
}

/// Whether a pod uses a claim. The kubelet starts no pod on a claim that is being deleted, so one without a node does not
/// count, nor does an ephemeral volume of a pod that has ended.
#[must_use]
pub fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let ended = pod_state::is_terminal(pod);
    let owner = ownership::controller_of(&claim.metadata).map(|o| o.uid.as_str());
    let own = owner.is_some() && owner == pod.metadata.uid.as_deref();
    pod_state::node(pod).is_some()
        && claims_of(pod).any(|(name, ephemeral)| {
            Some(&name) == claim.metadata.name.as_ref() && (!ephemeral || (own && !ended))
        })
}

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<PersistentVolumeClaim>(), Kind::of::<Pod>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if change.kind == Kind::of::<PersistentVolumeClaim>() {
            return change.meta().map(Key::of).into_iter().collect();
        }
        // only pods that go, end or are replaced set a claim free
        let Some(before) = change.before::<Pod>() else { return Vec::new() };
        let namespace = before.metadata.namespace.clone().unwrap_or_default();
        let keys = claims_of(&before).map(|(name, _)| Key { namespace: namespace.clone(), name });
        let going = |key: &Key| {
            let claim = world.get::<PersistentVolumeClaim>(&key.namespace, &key.name);
            claim.is_some_and(|c| c.metadata.deletion_timestamp.is_some())
        };
        keys.filter(going).collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let Some(claim) = world.get::<PersistentVolumeClaim>(&key.namespace, &key.name) else {
            return Plan::none();
        };
        let used = || world.list::<Pod>(&key.namespace).iter().any(|pod| uses(pod, &claim));
        let mut plan = guard(&Kind::of::<PersistentVolumeClaim>(), &claim.metadata, CLAIM, used);
        if claim.metadata.deletion_timestamp.is_some() && !plan.steps.is_empty() {
            // the data goes with the claim: a watch of pods that lags must not decide that
            plan.steps.insert(0, vec![Write::RequireUnused { claim: Box::new((*claim).clone()) }]);
        }
        plan
    }
}

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<PersistentVolume>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        change.meta().map(Key::of).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let Some(volume) = world.get::<PersistentVolume>("", &key.name) else { return Plan::none() };
        let bound = || volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        guard(&Kind::of::<PersistentVolume>(), &volume.metadata, VOLUME, bound)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixtures::{add, key, noon, patched, plan, remove, world};

    fn claim(going: bool) -> Value {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": "shop", "name": "data", "finalizers": [CLAIM, "other"],
                "deletionTimestamp": going.then(|| noon().to_string())},
        })
    }

    fn pod(node: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "p"},
            "spec": {"nodeName": node, "containers": [],
                "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}})
    }

    #[test]
    fn a_claim_goes_when_the_last_pod_on_a_node_that_uses_it_is_gone() {
        let mut world = world([claim(true), pod("n")]);
        assert!(plan(&ClaimProtection, &world, "shop", "data").steps.is_empty());
        let change = remove::<Pod>(&mut world, "shop", "p");
        assert_eq!(ClaimProtection.keys(&change, &world), [key("shop", "data")]);
        let free = plan(&ClaimProtection, &world, "shop", "data");
        assert!(matches!(&free.steps[0][..], [Write::RequireUnused { .. }]));
        assert_eq!(patched(&free)[0].1["metadata"]["finalizers"], json!(["other"]));
        add(&mut world, pod(""));
        assert_eq!(plan(&ClaimProtection, &world, "shop", "data"), free, "no node, no use");
    }

    #[test]
    fn a_claim_without_its_finalizer_gets_it() {
        let mut bare = claim(false);
        bare["metadata"]["finalizers"] = json!(["other"]);
        let plan = plan(&ClaimProtection, &world([bare]), "shop", "data");
        assert_eq!(patched(&plan)[0].1["metadata"]["finalizers"], json!(["other", CLAIM]));
    }

    #[test]
    fn a_bound_volume_stays() {
        let volume = |phase: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "status": {"phase": phase},
                "metadata": {"name": "v", "finalizers": [VOLUME], "deletionTimestamp": noon().to_string()}})
        };
        assert!(plan(&VolumeProtection, &world([volume("Bound")]), "", "v").steps.is_empty());
        assert_eq!(plan(&VolumeProtection, &world([volume("Released")]), "", "v").steps.len(), 1);
    }
}
