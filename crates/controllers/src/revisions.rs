//! ControllerRevisions: the history of a pod template, each as the patch that brings it back.
//!
//! Source: `pkg/controller/history`.

use std::{collections::BTreeMap, sync::Arc};

use apimachinery::{defaults, structure};
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::Resource;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    PatchKind, Plan, World, Write,
    ownership::{self, controller_reference},
    pod_template::safe,
    world::controller_uid,
};

/// How much of the owner's name stays in a revision's.
const PREFIX_LIMIT: usize = 223;

/// What a revision holds: the patch that puts this template in place of another.
#[must_use]
pub fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision holds.
#[must_use]
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// JSON with the keys of every object in order, whatever order they are kept in.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> = map.iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(ordered.into_iter().map(|(k, v)| (k.clone(), v)).collect::<Map<_, _>>())
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// A short name for a patch: FNV-1 over its text and how often a name was taken.
#[must_use]
pub fn hash(data: &Value, collisions: i32) -> String {
    let text = format!("{}{collisions}", sorted(data));
    let fnv_1 = |hash: u32, byte: u8| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte);
    safe(&text.bytes().fold(0x811c_9dc5, fnv_1).to_string())
}

/// The name of a revision.
#[must_use]
pub fn name(owner: &str, hash: &str) -> String {
    let mut end = owner.len().min(PREFIX_LIMIT);
    while !owner.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &owner[..end])
}

/// A revision of `owner`, to be made.
pub fn new<O: Resource<DynamicType = ()>>(
    owner: &O,
    name: String,
    labels: BTreeMap<String, String>,
    data: Value,
    number: i64,
) -> ControllerRevision {
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data),
        revision: Some(number),
    }
}

/// The number of a revision.
#[must_use]
pub fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// The number after the last of `sorted` revisions.
#[must_use]
pub fn next_number(sorted: &[Arc<ControllerRevision>]) -> i64 {
    sorted.last().map_or(0, |last| number(last)).saturating_add(1)
}

/// Gives a revision another number.
#[must_use]
pub fn renumber(revision: &ControllerRevision, number: i64) -> Write {
    Write::patch(revision, PatchKind::Merge, json!({"revision": number}))
}

/// The revisions that an owner has and those that it may adopt, oldest first.
pub struct History {
    /// Its own.
    pub owned: Vec<Arc<ControllerRevision>>,
    /// Matching ones that nobody owns.
    pub orphans: Vec<Arc<ControllerRevision>>,
}

impl History {
    /// Of an owner whose selector is `selector`.
    pub fn of<O: Resource<DynamicType = ()>>(
        owner: &O,
        world: &World,
        selector: &apimachinery::selector::LabelSelector,
    ) -> Self {
        let mut all = ownership::candidates::<ControllerRevision>(world, owner.meta());
        all.retain(|revision| ownership::matches(selector, &revision.metadata));
        all.sort_by(|a, b| age(a).cmp(&age(b)));
        let (orphans, owned) = all.into_iter().partition(|r| controller_uid(&r.metadata).is_none());
        Self { owned, orphans }
    }

    /// The plan that adopts, if there is anything to adopt.
    pub fn adoption<O: Resource<DynamicType = ()>>(&self, owner: &O) -> Option<Plan> {
        if self.orphans.is_empty() {
            return None;
        }
        let mut plan = Plan::none();
        plan.then(Write::require_alive(owner));
        plan.all(self.orphans.iter().map(|revision| ownership::adopt(&**revision, owner, &[])).collect());
        Some(plan)
    }

    /// Those that hold this patch, the newest last.
    pub fn equal_to(&self, data: &Value) -> Vec<&Arc<ControllerRevision>> {
        self.owned.iter().filter(|revision| revision.data.0 == *data).collect()
    }
}

type Age<'a> = (i64, Option<k8s_openapi::jiff::Timestamp>, Option<&'a str>);

fn age(revision: &ControllerRevision) -> Age<'_> {
    let created = revision.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (number(revision), created, revision.metadata.name.as_deref())
}

/// Whether `owner` would be as it is now if it went back to `revision` and today's defaults were filled in: then nothing has
/// changed but the defaults, and pods need not be replaced.
pub fn is_the_same_by_default<O>(owner: &O, revision: &ControllerRevision) -> bool
where
    O: Resource<DynamicType = ()> + Serialize,
{
    let (group, version, plural) = (O::group(&()), O::version(&()), O::plural(&()));
    let Some(resource) = kinds::find(&group, &version, &plural) else { return false };
    let (Ok(now), Some(template)) = (serde_json::to_value(owner), template(revision)) else { return false };
    let mut back = now.clone();
    back["spec"]["template"] = serde_json::to_value(template).unwrap_or_default();
    let complete = |mut object: Value| {
        structure::always(&mut object, &resource.schema);
        defaults::apply(&mut object, &resource.schema);
        resource.strategy.default(&mut object);
        object
    };
    complete(back)["spec"]["template"] == complete(now)["spec"]["template"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    fn template_of(image: &str) -> PodTemplateSpec {
        object(
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}),
        )
    }

    #[test]
    fn a_revision_gives_back_the_template_it_was_made_of() {
        let data = data(&template_of("i"));
        assert_eq!(data["spec"]["template"]["$patch"], "replace");
        let revision = ControllerRevision { data: RawExtension(data), ..ControllerRevision::default() };
        assert_eq!(template(&revision), Some(template_of("i")));
    }

    #[test]
    fn a_hash_is_of_the_sorted_text_and_the_collisions() {
        let (a, b) = (json!({"x": 1, "y": {"p": 1, "q": 2}}), json!({"y": {"q": 2, "p": 1}, "x": 1}));
        assert_eq!(hash(&a, 0), hash(&b, 0));
        assert_ne!(hash(&a, 0), hash(&a, 1));
        let by_hand =
            b"{}0".iter().fold(2_166_136_261_u32, |h, b| h.wrapping_mul(16_777_619) ^ u32::from(*b));
        assert_eq!(hash(&json!({}), 0), safe(&by_hand.to_string()));
    }

    #[test]
    fn a_long_owner_is_cut() {
        assert_eq!(name(&"x".repeat(300), "abc").len(), 227);
    }

    #[test]
    fn what_differs_by_defaults_only_is_the_same() {
        use k8s_openapi::api::apps::v1::StatefulSet;
        let bare = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let mut full = bare.clone();
        full["spec"]["restartPolicy"] = "Always".into();
        full["spec"]["dnsPolicy"] = "ClusterFirst".into();
        let set = |template: &Value| -> StatefulSet {
            object(json!({"metadata": {"name": "s"}, "spec": {"serviceName": "s", "template": template,
                "selector": {"matchLabels": {"a": "b"}}}}))
        };
        let revision = |template: &Value| ControllerRevision {
            data: RawExtension(data(&object(template.clone()))),
            ..ControllerRevision::default()
        };
        assert!(is_the_same_by_default(&set(&full), &revision(&bare)));
        full["spec"]["hostNetwork"] = true.into();
        assert!(!is_the_same_by_default(&set(&full), &revision(&bare)));
    }
}
