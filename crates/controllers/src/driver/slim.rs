//! What of an object is kept: loops look at few fields of a pod, and there are far more pods than anything else.

use std::{any::Any, sync::Arc};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Volume};
use kube::Resource;

use crate::world::Seen;

/// The object as loops see it, without what none of them reads.
pub fn seen<K: Resource<DynamicType = ()> + Seen>(mut object: K) -> Arc<dyn Seen> {
    bare(&mut object);
    if let Some(pod) = (&mut object as &mut dyn Any).downcast_mut::<Pod>() {
        slim(pod);
    }
    Arc::new(object)
}

/// Takes away what every object has much of and no loop reads.
pub fn bare<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Loops ask a container for its name, ports, resources and restart policy, and all of a pod for the Secrets and claims
/// that it names.
fn slim(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let all = std::mem::take(container);
        *container = Container {
            name: all.name,
            ports: all.ports,
            resources: all.resources,
            restart_policy: all.restart_policy,
            env: kept(all.env, names_secret),
            env_from: kept(all.env_from, |source| source.secret_ref.is_some()),
            ..Container::default()
        };
    }
    spec.volumes = kept(spec.volumes.take(), may_name_object);
}

/// The items that are wanted, in no more memory than they need.
fn kept<T>(list: Option<Vec<T>>, wanted: impl Fn(&T) -> bool) -> Option<Vec<T>> {
    let mut list = list?;
    list.retain(wanted);
    list.shrink_to_fit();
    (!list.is_empty()).then_some(list)
}

fn names_secret(variable: &EnvVar) -> bool {
    variable.value_from.as_ref().is_some_and(|from| from.secret_key_ref.is_some())
}

/// A volume that names neither a Secret nor a claim: every pod has one with the token of its account.
fn may_name_object(volume: &Volume) -> bool {
    let plain = volume.config_map.is_some()
        || volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.downward_api.is_some()
        || volume.projected.as_ref().is_some_and(|projected| {
            projected.sources.iter().flatten().all(|source| source.secret.is_none())
        });
    !plain
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slimmed(spec: Value) -> Value {
        let mut pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        slim(&mut pod);
        serde_json::to_value(pod.spec).unwrap()
    }

    #[test]
    fn what_names_a_secret_or_a_claim_is_kept() {
        let token =
            json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
        let secret = json!({"name": "s", "projected": {"sources": [{"secret": {"name": "x"}}]}});
        let claim = json!({"name": "c", "persistentVolumeClaim": {"claimName": "y"}});
        let of_secret = json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "z", "key": "k"}}});
        let container = json!({"name": "m", "image": "i", "command": ["c"], "env": [{"name": "B", "value": "1"}, of_secret],
            "ports": [{"containerPort": 80}], "resources": {"requests": {"cpu": "1"}}});
        assert_eq!(
            slimmed(
                json!({"containers": [container], "volumes": [token, secret, claim, {"name": "e", "emptyDir": {}}]})
            ),
            json!({"containers": [{"name": "m", "env": [of_secret], "ports": [{"containerPort": 80}],
                "resources": {"requests": {"cpu": "1"}}}], "volumes": [secret, claim]})
        );
    }

    #[test]
    fn a_pod_without_such_names_has_no_lists_for_them() {
        let spec = json!({"containers": [{"name": "m", "env": [{"name": "B", "value": "1"}]}],
            "volumes": [{"name": "e", "emptyDir": {}}]});
        assert_eq!(slimmed(spec), json!({"containers": [{"name": "m"}]}));
    }
}
