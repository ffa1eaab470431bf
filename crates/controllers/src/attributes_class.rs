//! volumeattributesclass-protection-controller: a VolumeAttributesClass stays while a volume or a claim has it.
//!
//! Source: `pkg/controller/volume/vacprotection`.

use k8s_openapi::{
    api::{
        core::v1::{PersistentVolume, PersistentVolumeClaim},
        storage::v1::VolumeAttributesClass,
    },
    jiff::Timestamp,
};

use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, protection::guard};

const FINALIZER: &str = "kubernetes.io/vac-protection";

/// The loop; its keys are classes.
pub struct ClassProtection;

/// The classes that a claim has, had until now, or is to get.
fn of_claim(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|s| s.modify_volume_status.as_ref());
    let target = target.and_then(|m| m.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref().filter(|name| !name.is_empty())
}

impl Controller for ClassProtection {
    fn name(&self) -> &'static str {
        "volumeattributesclass-protection-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![
            Kind::of::<VolumeAttributesClass>(),
            Kind::of::<PersistentVolume>(),
            Kind::of::<PersistentVolumeClaim>(),
        ]
    }

    /// The class itself, or those that a volume or a claim may have given up.
    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        if change.kind == Kind::of::<VolumeAttributesClass>() {
            return change.meta().map(Key::of).into_iter().collect();
        }
        let (claim, volume) = (change.before::<PersistentVolumeClaim>(), change.before::<PersistentVolume>());
        let mut names: Vec<&str> = claim.as_deref().map(of_claim).unwrap_or_default();
        names.extend(volume.as_deref().and_then(of_volume));
        names.into_iter().map(|name| Key { namespace: String::new(), name: name.to_owned() }).collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let Some(class) = world.get::<VolumeAttributesClass>("", &key.name) else { return Plan::none() };
        let used = || {
            world.list::<PersistentVolume>("").iter().any(|v| of_volume(v) == Some(&key.name))
                || world.list::<PersistentVolumeClaim>("").iter().any(|c| of_claim(c).contains(&&*key.name))
        };
        guard(&Kind::of::<VolumeAttributesClass>(), &class.metadata, FINALIZER, used)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{key, noon, patched, plan, remove, world};

    fn class(going: bool) -> Value {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "driverName": "d",
            "metadata": {"name": "gold", "finalizers": [FINALIZER],
                "deletionTimestamp": going.then(|| noon().to_string())}})
    }

    fn claim(spec: Value, status: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "d", "name": "c"},
            "spec": spec, "status": status})
    }

    #[test]
    fn a_class_stays_while_a_claim_or_a_volume_has_it() {
        let stays =
            |other: Value| plan(&ClassProtection, &world([class(true), other]), "", "gold").steps.is_empty();
        assert!(stays(claim(json!({"volumeAttributesClassName": "gold"}), json!({}))));
        assert!(stays(claim(json!({}), json!({"currentVolumeAttributesClassName": "gold"}))));
        let target =
            json!({"modifyVolumeStatus": {"status": "Pending", "targetVolumeAttributesClassName": "gold"}});
        assert!(stays(claim(json!({}), target)));
        assert!(stays(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {"volumeAttributesClassName": "gold"}})));
        assert!(!stays(claim(json!({"volumeAttributesClassName": "silver"}), json!({}))));
    }

    #[test]
    fn the_last_claim_that_goes_sets_it_free() {
        let used = claim(json!({"volumeAttributesClassName": "gold"}), json!({}));
        let mut world = world([class(true), used]);
        let change = remove::<PersistentVolumeClaim>(&mut world, "d", "c");
        assert_eq!(ClassProtection.keys(&change, &world), [key("", "gold")]);
        let free = plan(&ClassProtection, &world, "", "gold");
        assert_eq!(patched(&free)[0].1["metadata"]["finalizers"], json!([]));
    }
}
