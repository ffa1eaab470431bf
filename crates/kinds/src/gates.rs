//! Fields of features that upstream's release has switched off: what a write says of them is dropped, unless the object
//! already has them.
//!
//! Source: the `dropDisabledFields` of the strategies in `k8s.io/kubernetes/pkg/registry`, and of pods in
//! `k8s.io/kubernetes/pkg/api/pod`.

use apimachinery::Object;
use serde_json::Value;

use crate::resource::Resource;

/// Group, plural, place.
const OFF: [(&str, &str, &str); 4] = [
    ("", "nodes", "status.config"),
    ("", "persistentvolumeclaims", "status.healthStatus"),
    ("", "pods", "status.volumeHealth"),
    ("batch", "jobs", "spec.scheduling"),
];

/// Where pods are described: group, plural, place.
const PODS: [(&str, &str, &str); 9] = [
    ("", "pods", "spec"),
    ("", "podtemplates", "template.spec"),
    ("", "replicationcontrollers", "spec.template.spec"),
    ("apps", "daemonsets", "spec.template.spec"),
    ("apps", "deployments", "spec.template.spec"),
    ("apps", "replicasets", "spec.template.spec"),
    ("apps", "statefulsets", "spec.template.spec"),
    ("batch", "jobs", "spec.template.spec"),
    ("batch", "cronjobs", "spec.jobTemplate.spec.template.spec"),
];

/// What is off in a description of pods, feature by feature. `*` is every item of a list, `+` each of the three lists of
/// containers.
const POD_OFF: [&[&str]; 7] = [
    &["schedulingGroup"],
    &["evictionResponders"],
    &["volumes.*.emptyDir.mode"],
    &["+.*.volumeMounts.*.bindMountOptions"],
    &["+.*.lifecycle.stopSignal"],
    &[
        "+.*.livenessProbe.httpGet.protocol",
        "+.*.readinessProbe.httpGet.protocol",
        "+.*.startupProbe.httpGet.protocol",
        "+.*.lifecycle.postStart.httpGet.protocol",
        "+.*.lifecycle.preStop.httpGet.protocol",
    ],
    &[
        "volumes.*.secret.defaultUser",
        "volumes.*.secret.items.*.user",
        "volumes.*.configMap.defaultUser",
        "volumes.*.configMap.items.*.user",
        "volumes.*.downwardAPI.defaultUser",
        "volumes.*.downwardAPI.items.*.user",
        "volumes.*.projected.defaultUser",
        "volumes.*.projected.sources.*.secret.items.*.user",
        "volumes.*.projected.sources.*.configMap.items.*.user",
        "volumes.*.projected.sources.*.downwardAPI.items.*.user",
        "volumes.*.projected.sources.*.serviceAccountToken.user",
        "volumes.*.projected.sources.*.clusterTrustBundle.user",
        "volumes.*.projected.sources.*.podCertificate.user",
    ],
];

/// Drops such fields from a new object, or from one that was `old`.
pub fn drop_disabled(resource: &Resource, new: &mut Object, old: Option<&Object>) {
    let here = |(group, plural, place): &(&str, &str, &'static str)| {
        ((*group, *plural) == (&*resource.group, &*resource.plural)).then_some(*place)
    };
    for place in OFF.iter().filter_map(here) {
        if !old.is_some_and(|old| any(old, place)) {
            drop_at(new, place);
        }
    }
    if resource.group.is_empty() && &*resource.plural == "persistentvolumeclaims" {
        drop_foreign_source(new, old);
    }
    let Some(place) = PODS.iter().find_map(here) else { return };
    for feature in POD_OFF {
        let in_use = |old: &Object| feature.iter().any(|field| any(old, &format!("{place}.{field}")));
        if !old.is_some_and(in_use) {
            for field in feature {
                drop_at(new, &format!("{place}.{field}"));
            }
        }
    }
}

/// A claim's source in another namespace.
fn drop_foreign_source(new: &mut Object, old: Option<&Object>) {
    let foreign = |claim: &Object| {
        claim["spec"]["dataSourceRef"]["namespace"].as_str().is_some_and(|namespace| !namespace.is_empty())
    };
    if foreign(new) && !old.is_some_and(foreign) {
        drop_at(new, "spec.dataSourceRef");
    }
}

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Whether a place has a value.
fn any(value: &Value, place: &str) -> bool {
    let Some((step, rest)) = place.split_once('.') else {
        return value.get(place).is_some_and(|found| !found.is_null());
    };
    match step {
        "*" => value.as_array().into_iter().flatten().any(|item| any(item, rest)),
        "+" => CONTAINERS.iter().filter_map(|list| value.get(list)).any(|list| any(list, rest)),
        _ => value.get(step).is_some_and(|inner| any(inner, rest)),
    }
}

fn drop_at(value: &mut Value, place: &str) {
    let Some((step, rest)) = place.split_once('.') else {
        if let Some(map) = value.as_object_mut() {
            map.remove(place);
        }
        return;
    };
    match step {
        "*" => value.as_array_mut().into_iter().flatten().for_each(|item| drop_at(item, rest)),
        "+" => {
            for list in CONTAINERS {
                if let Some(list) = value.get_mut(list) {
                    drop_at(list, rest);
                }
            }
        }
        _ => {
            let Some(inner) = value.get_mut(step) else { return };
            let had = any(inner, rest);
            drop_at(inner, rest);
            // Hooks of which nothing is left were none.
            if had && step == "lifecycle" && inner.as_object().is_some_and(serde_json::Map::is_empty) {
                drop_at(value, step);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_switched_off_goes_from_every_item() {
        let mut spec = json!({
            "containers": [{"lifecycle": {"stopSignal": "SIGTERM"}}, {"lifecycle": {"stopSignal": "x", "preStop": {}}}],
            "initContainers": [{"livenessProbe": {"httpGet": {"protocol": "HTTP1", "port": 1}}}],
        });
        assert!(any(&spec, "+.*.lifecycle.stopSignal"));
        drop_at(&mut spec, "+.*.lifecycle.stopSignal");
        drop_at(&mut spec, "+.*.livenessProbe.httpGet.protocol");
        assert_eq!(
            spec,
            json!({
                "containers": [{}, {"lifecycle": {"preStop": {}}}],
                "initContainers": [{"livenessProbe": {"httpGet": {"port": 1}}}],
            })
        );
    }
}
