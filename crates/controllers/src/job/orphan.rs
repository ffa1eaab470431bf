//! Finalizers of pods that no Job will count any more: the Job is gone or finished. They get keys of their own.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

use super::{
    is_finished, is_ours,
    pods::{is_tracked, untrack},
};
use crate::{Key, Kind, Plan, Target, World, Write, ownership};

/// No Job has such a name.
const PREFIX: &str = "pod/";

/// The pod that a key is about, if it is about a pod.
pub fn pod_of(key: &Key) -> Option<&str> {
    key.name.strip_prefix(PREFIX)
}

fn key_of(pod: &Pod) -> Key {
    let key = Key::of(&pod.metadata);
    Key { name: format!("{PREFIX}{}", key.name), ..key }
}

/// Who will take the finalizer off.
enum Owner {
    /// A Job that is being looked after.
    Job,
    /// Not we.
    Other,
    /// A Job that may be gone.
    Gone(Target),
    /// Nobody, or a Job that is finished.
    Nobody,
}

fn owner(pod: &Pod, world: &World) -> Owner {
    let Some(owner) = ownership::controller_of(&pod.metadata) else {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let adopted = world.list::<Job>(namespace).iter().any(|job| will_adopt(job, pod));
        return if adopted { Owner::Job } else { Owner::Nobody };
    };
    if owner.kind != "Job" || owner.api_version != "batch/v1" {
        return Owner::Other;
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    match world.get::<Job>(&namespace, &owner.name) {
        Some(job) if job.metadata.uid.as_ref() != Some(&owner.uid) => Owner::Nobody,
        Some(job) if !is_ours(&job) => Owner::Other,
        Some(job) if is_finished(&job) => Owner::Nobody,
        Some(_) => Owner::Job,
        None => Owner::Gone(Target {
            kind: Kind::of::<Job>(),
            namespace,
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        }),
    }
}

/// The Job looks after pods and the pod has its labels.
fn will_adopt(job: &Job, pod: &Pod) -> bool {
    let alive = is_ours(job) && !is_finished(job) && !ownership::deleting(&job.metadata);
    alive && !ownership::deleting(&pod.metadata) && selects(job, pod)
}

fn selects(job: &Job, pod: &Pod) -> bool {
    let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref()).map(ownership::selector);
    selector.is_some_and(|selector| ownership::matches(&selector, &pod.metadata))
}

/// The key of a pod whose finalizer nobody would take off.
pub fn key(pod: &Pod, world: &World) -> Option<Key> {
    let forgotten = is_tracked(pod) && matches!(owner(pod, world), Owner::Nobody | Owner::Gone(_));
    forgotten.then(|| key_of(pod))
}

/// The keys of the pods that a Job leaves behind.
pub fn of_job(job: &Job, world: &World) -> Vec<Key> {
    let mut pods = world.owned::<Pod>(job.metadata.uid.as_deref().unwrap_or_default());
    let orphans = world.orphans::<Pod>(job.metadata.namespace.as_deref().unwrap_or_default());
    pods.extend(orphans.into_iter().filter(|pod| selects(job, pod)));
    pods.iter().filter(|pod| is_tracked(pod)).map(|pod| key_of(pod)).collect()
}

/// Takes the finalizer off, if that is still so; of a Job that is not there, after asking whether it really is not.
pub fn reconcile(namespace: &str, name: &str, world: &World) -> Plan {
    let mut plan = Plan::none();
    let Some(pod) = world.get::<Pod>(namespace, name).filter(|pod| is_tracked(pod)) else { return plan };
    match owner(&pod, world) {
        Owner::Job | Owner::Other => return plan,
        Owner::Gone(target) => {
            plan.then(Write::RequireAbsent { target });
        }
        Owner::Nobody => {}
    }
    // Only of the pod as it was seen: a Job that adopts it in the meantime counts on the finalizer.
    let mut untrack = untrack(&pod);
    if let Write::Patch { body, .. } = &mut untrack {
        body["metadata"]["resourceVersion"] = pod.metadata.resource_version.clone().into();
    }
    plan.then(untrack);
    plan
}
