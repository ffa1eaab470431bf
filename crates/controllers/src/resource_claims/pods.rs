//! Claims for pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Pod, PodResourceClaim},
        resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate},
    },
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use serde_json::json;

use super::{ANNOTATION, NAME, Named, claims, is_done, is_for, named, used_by};
use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write, about::annotation, ownership,
    plan::BLANK, pod_state,
};

/// The most that a claim can be reserved for.
const MOST_CONSUMERS: usize = 256;
/// A name has 63 characters at the most, of which a hyphen and five are generated.
const MOST_BASE: usize = 57;

/// The loop; its keys are pods.
pub struct PodClaims;

impl Controller for PodClaims {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Pod>(), Kind::of::<ResourceClaim>(), Kind::of::<ResourceClaimTemplate>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if change.kind == Kind::of::<Pod>() {
            let pod = change.after::<Pod>().filter(|pod| !claims(pod).is_empty());
            return pod.map(|pod| Key::of(&pod.metadata)).into_iter().collect();
        }
        let Some(meta) = change.meta() else { return Vec::new() };
        let name = meta.name.as_deref().unwrap_or_default();
        let concerns = |pod: &Pod| match change.object::<ResourceClaim>() {
            Some(claim) => is_for(&claim, pod) || used_by(pod).any(|(used, _)| used == name),
            None => claims(pod).iter().any(|c| c.resource_claim_template_name.as_deref() == Some(name)),
        };
        let pods = world.list::<Pod>(meta.namespace.as_deref().unwrap_or_default());
        pods.iter().filter(|pod| concerns(pod)).map(|pod| Key::of(&pod.metadata)).collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return plan };
        if pod.metadata.deletion_timestamp.is_some() || is_done(&pod) {
            return plan;
        }
        let mut found = BTreeMap::new();
        let mut made = Vec::new();
        for claim in claims(&pod) {
            match needed(&pod, claim, world) {
                Need::Nothing => {}
                Need::Told(name) => {
                    found.insert(claim.name.clone(), name);
                }
                Need::Made(write) => made.push(*write),
                Need::Failed(error) => {
                    let message = format!("PodResourceClaim {}: {error}", claim.name);
                    plan.notes.push(Note::warning(&*pod, "FailedResourceClaimCreation", message));
                    break;
                }
            }
        }
        if !found.is_empty() {
            let statuses: Vec<_> = found
                .into_iter()
                .map(|(name, claim)| json!({"name": name, "resourceClaimName": claim}))
                .collect();
            plan.then(Write::patch_status(&*pod, json!({"status": {"resourceClaimStatuses": statuses}})));
        }
        let complete = made.is_empty();
        plan.all(made);
        if complete && pod_state::node(&pod).is_some() {
            plan.all(reservations(&pod, world));
        }
        plan
    }
}

enum Need {
    Nothing,
    /// The pod's status has to tell that this is the claim.
    Told(String),
    /// It has to be made.
    Made(Box<Write>),
    Failed(String),
}

fn needed(pod: &Pod, claim: &PodResourceClaim, world: &World) -> Need {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match named(pod, claim) {
        Named::Given(_) | Named::Needless => return Need::Nothing,
        Named::Made(name) => {
            let there = world.get::<ResourceClaim>(namespace, name);
            if there.is_some_and(|there| is_for(&there, pod)) {
                return Need::Nothing;
            }
        }
        Named::Unmade => {}
    }
    let Some(template) = claim.resource_claim_template_name.as_deref() else { return Need::Nothing };
    let owned = world.owned::<ResourceClaim>(pod.metadata.uid.as_deref().unwrap_or_default());
    let this = |c: &ResourceClaim| annotation(&c.metadata, ANNOTATION) == Some(&claim.name);
    if let Some(there) = owned.iter().find(|c| this(c)) {
        return Need::Told(there.metadata.name.clone().unwrap_or_default());
    }
    match world.get::<ResourceClaimTemplate>(namespace, template) {
        Some(template) => Need::Made(Box::new(create(pod, claim, &template))),
        None => Need::Failed(format!(
            "resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io {template:?} not found"
        )),
    }
}

fn create(pod: &Pod, claim: &PodResourceClaim, template: &ResourceClaimTemplate) -> Write {
    let spec = template.spec.clone().unwrap_or_default();
    let meta = spec.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(ANNOTATION.to_owned(), claim.name.clone());
    let new = ResourceClaim {
        metadata: ObjectMeta {
            namespace: pod.metadata.namespace.clone(),
            generate_name: Some(base(pod.metadata.name.as_deref().unwrap_or_default(), &claim.name)),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![ownership::controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: spec.spec,
        status: None,
    };
    let message = format!("PodResourceClaim {}: create ResourceClaim : {BLANK}", claim.name);
    let failed = Note::warning(pod, "FailedResourceClaimCreation", message);
    Write::create(&new).noted(None, Some(failed))
}

/// `POD-CLAIM-`; of what is too long, both are cut, each by its share.
fn base(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= MOST_BASE {
        return whole;
    }
    // names are ASCII
    let cut =
        |text: &str, length: usize| text.get(..text.len() * MOST_BASE / length).unwrap_or(text).to_owned();
    let pod = cut(pod, whole.len());
    format!("{pod}-{}", cut(claim, whole.len()))
}

/// Reserves what is allocated for a pod that the scheduler did not place.
fn reservations(pod: &Pod, world: &World) -> Vec<Write> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut writes = Vec::new();
    for (name, own) in used_by(pod) {
        let Some(claim) = world.get::<ResourceClaim>(namespace, name) else { continue };
        let Some(status) = claim.status.as_ref().filter(|s| s.allocation.is_some()) else { continue };
        let consumers = status.reserved_for.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if (own && !is_for(&claim, pod))
            || consumers.iter().any(|consumer| consumer.uid == uid)
            || consumers.len() >= MOST_CONSUMERS
        {
            continue;
        }
        let mut new = ResourceClaim::clone(&claim);
        let consumers = new.status.get_or_insert_default().reserved_for.get_or_insert_default();
        consumers.push(ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".to_owned(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid,
        });
        writes.push(Write::status(&new));
    }
    writes
}
