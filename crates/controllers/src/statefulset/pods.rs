//! The pods of a set: their ordinals, their identity, new ones.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
};
use serde_json::json;

use super::claims;
use crate::{Note, PatchKind, Write, ownership, pod_template};

/// The label with the name of a pod's revision.
pub const REVISION: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name, if it is the name of a pod of this set.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i64> {
    let (parent, digits) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (Some(parent) == set.metadata.name.as_deref() && ordinal.to_string() == digits).then_some(ordinal.into())
}

/// The pod has a name that a pod of this set has.
pub fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    ordinal(set, pod).is_some()
}

/// The first ordinal.
pub fn start(set: &StatefulSet) -> i64 {
    set.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0).into()
}

/// Wanted pods.
pub fn replicas(set: &StatefulSet) -> i64 {
    set.spec.replicas.unwrap_or(1).into()
}

/// The ordinal is one of those that shall exist.
pub fn in_range(set: &StatefulSet, ordinal: i64) -> bool {
    ordinal >= start(set) && ordinal < start(set) + replicas(set)
}

/// The name of a pod's revision; empty when it has none.
pub fn revision(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|l| l.get(REVISION)).map(String::as_str).unwrap_or_default()
}

/// A pod to be made.
pub fn new(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i64) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pod_template::pod(template, namespace, ownership::controller_reference(set));
    let name = name(set, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(REVISION.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.service_name.clone().filter(|s| !s.is_empty());
    let templates = set.spec.volume_claim_templates.as_deref().unwrap_or_default();
    let mut volumes: Vec<Volume> = templates
        .iter()
        .map(|template| Volume {
            name: template.metadata.name.clone().unwrap_or_default(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claims::name(set, template, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    // A volume of the same name in the template gives way to the claim.
    let claimed = volumes.len();
    for volume in spec.volumes.take().unwrap_or_default() {
        if !volumes.iter().take(claimed).any(|v| v.name == volume.name) {
            volumes.push(volume);
        }
    }
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    pod.metadata.name = Some(name);
    pod
}

/// The name of the pod with this ordinal.
pub fn name(set: &StatefulSet, ordinal: i64) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The patch that gives a pod its identity back, if its labels have lost it.
pub fn identified(set: &StatefulSet, pod: &Pod) -> Option<Write> {
    let ordinal = ordinal(set, pod)?;
    let has = pod.metadata.labels.as_ref().and_then(|l| l.get(POD_NAME));
    let labels = json!({POD_NAME: pod.metadata.name, POD_INDEX: ordinal.to_string()});
    (has != pod.metadata.name.as_ref())
        .then(|| Write::patch(pod, PatchKind::Merge, json!({"metadata": {"labels": labels}})))
}

/// Makes a pod.
pub fn create(set: &StatefulSet, pod: &Pod) -> Write {
    let (success, failure) = notes(set, pod, "Create");
    Write::create(pod).noted(Some(success), Some(failure))
}

/// Deletes a pod.
pub fn delete(set: &StatefulSet, pod: &Pod) -> Write {
    let (success, failure) = notes(set, pod, "Delete");
    Write::delete(pod).noted(Some(success), Some(failure))
}

fn notes(set: &StatefulSet, pod: &Pod, verb: &str) -> (Note, Note) {
    let (pod, name) = (pod.metadata.name.as_deref(), set.metadata.name.as_deref());
    let what = format!("{verb} Pod {} in StatefulSet {}", pod.unwrap_or_default(), name.unwrap_or_default());
    (
        Note::normal(set, &format!("Successful{verb}"), format!("{what} successful")),
        Note::warning(set, &format!("Failed{verb}"), format!("{what} failed error: {{}}")),
    )
}
