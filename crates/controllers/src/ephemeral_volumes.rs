//! ephemeral-volume-controller: a claim for every generic ephemeral volume of a pod, owned by the pod.

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, Volume},
    jiff::Timestamp,
};
use kube::api::ObjectMeta;

use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write, ownership, plan::BLANK, pod_state,
};

/// The loop; its keys are pods.
pub struct EphemeralVolumes;

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Pod>(), Kind::of::<PersistentVolumeClaim>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        if let Some(pod) = change.after::<Pod>() {
            return if ephemeral(&pod).next().is_some() { vec![Key::of(&pod.metadata)] } else { Vec::new() };
        }
        // a claim that was deleted under a living pod
        let gone = change.before::<PersistentVolumeClaim>().filter(|_| change.after.is_none());
        let owner = gone.as_ref().and_then(|claim| {
            let owner = ownership::controller_of(&claim.metadata).filter(|o| o.kind == "Pod")?;
            Some(Key { namespace: claim.metadata.namespace.clone()?, name: owner.name.clone() })
        });
        owner.into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return plan };
        if pod.metadata.deletion_timestamp.is_some() || pod_state::is_terminal(&pod) {
            return plan;
        }
        let mut writes = Vec::new();
        for volume in ephemeral(&pod) {
            let name = format!("{}-{}", key.name, volume.name);
            match world.get::<PersistentVolumeClaim>(&key.namespace, &name) {
                None => writes.extend(claim(&pod, volume, name)),
                Some(found) => {
                    let owner = ownership::controller_of(&found.metadata);
                    if owner.is_none_or(|o| Some(&o.uid) != pod.metadata.uid.as_ref()) {
                        let message = format!(
                            "ephemeral volume {}: PVC {}/{name} was not created for pod {}/{} (pod is not owner)",
                            volume.name, key.namespace, key.namespace, key.name
                        );
                        plan.notes.push(Note::warning(&*pod, "FailedBinding", message));
                    }
                }
            }
        }
        plan.all(writes);
        plan
    }
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| v.ephemeral.is_some())
}

fn claim(pod: &Pod, volume: &Volume, name: String) -> Option<Write> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let meta = template.metadata.clone().unwrap_or_default();
    let claim = PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![ownership::controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    };
    let message = format!("ephemeral volume {}: create PVC: {BLANK}", volume.name);
    Some(Write::create(&claim).noted(None, Some(Note::warning(pod, "FailedBinding", message))))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{add, created, key, plan, reasons, remove, world};

    fn pod() -> Value {
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "p"},
            "spec": {"containers": [], "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]}})
    }

    #[test]
    fn a_pod_gets_a_claim_of_its_own_and_again_when_it_is_deleted() {
        let mut world = world([pod()]);
        let first = plan(&EphemeralVolumes, &world, "shop", "p");
        let claim = created(&first)[0].clone();
        assert_eq!(claim["metadata"]["name"], "p-scratch");
        assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "uid-p");
        add(&mut world, claim);
        assert_eq!(plan(&EphemeralVolumes, &world, "shop", "p"), Plan::none());
        let change = remove::<PersistentVolumeClaim>(&mut world, "shop", "p-scratch");
        assert_eq!(EphemeralVolumes.keys(&change, &world), [key("shop", "p")]);
    }

    #[test]
    fn a_claim_of_that_name_that_is_somebody_elses_is_not_touched() {
        let foreign = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": "p-scratch"}});
        let plan = plan(&EphemeralVolumes, &world([pod(), foreign]), "shop", "p");
        assert!(plan.steps.is_empty());
        assert_eq!(reasons(&plan), ["FailedBinding"]);
    }
}
