//! namespace-controller: empties a namespace that is being deleted, pods first, and then lets it go.
//!
//! Source: `pkg/controller/namespace/deletion`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use serde_json::Value;

use crate::{Change, Controller, Failure, Key, Kind, Outcome, Plan, Target, World, Write, world::Served};

/// The finalizer in `spec` that this loop answers for.
const FINALIZER: &str = "kubernetes";

/// The loop; its keys are namespaces. What a namespace can contain is told by [`World::served`].
pub struct Namespaces;

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Namespace>(), Kind::of::<Pod>()]
    }

    fn watches_everything(&self) -> bool {
        true
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        let Some(meta) = change.meta() else { return Vec::new() };
        let of_namespace = change.kind == Kind::of::<Namespace>();
        let name = if of_namespace { meta.name.as_ref() } else { meta.namespace.as_ref() };
        let going = name.filter(|name| {
            world.get::<Namespace>("", name).is_some_and(|n| n.metadata.deletion_timestamp.is_some())
        });
        going.map(|name| Key { namespace: String::new(), name: name.clone() }).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        let Some(namespace) = world.get::<Namespace>("", &key.name) else {
            return Plan { memory: Some(Value::Null), ..Plan::none() };
        };
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || finalizers.is_empty() {
            return Plan::none();
        }
        let deletable = |s: &&Served| s.namespaced && s.can("list") && s.can("delete");
        let mut kinds: Vec<&Kind> = world.served().iter().filter(deletable).map(|s| &s.kind).collect();
        if kinds.is_empty() {
            return Plan::none();
        }
        let pods = Kind::of::<Pod>();
        kinds.sort_by_key(|kind| **kind != pods);
        let content = Content::of(world, &kinds, &key.name, last);
        if content.counts.is_empty() {
            return leave(&namespace, &kinds, last);
        }
        let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
        if let Some(status) = status(&namespace, &content, now) {
            plan.then(status);
        }
        let left = kinds.iter().filter(|kind| content.to_delete.contains(*kind));
        if content.counts.contains_key("pods.") || content.to_delete.contains(&&pods) {
            plan.all(left.filter(|kind| ***kind == pods).map(|kind| delete_all(kind, &key.name)).collect());
            return plan;
        }
        let rest: Vec<Write> = left.map(|kind| delete_all(kind, &key.name)).collect();
        if !rest.is_empty() {
            plan.then(none_left(&pods, &key.name));
            plan.all(rest);
        }
        plan
    }
}

/// Nothing is seen in the namespace any more. The server has the last word, kind by kind: what it still has is deleted, and
/// when it has nothing, the namespace may go. Nothing can be made in it, so a kind is asked about only until it was empty
/// once; the memory is those that have not been.
fn leave(namespace: &Namespace, kinds: &[&Kind], last: &Outcome) -> Plan {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let id = |kind: &Kind| format!("{}.{}", kind.plural, kind.group);
    let known: Option<Vec<String>> = serde_json::from_value(last.memory.clone()).ok();
    let failed = |kind: &Kind| last.failures.iter().any(|f| concerns(f, kind));
    let refused = last.failures.iter().any(|f| matches!(f.write, Write::RequireNone { .. }));
    let mut open: Vec<&Kind> = kinds.to_vec();
    match known {
        // those of the step that failed; after the step about pods nothing else was asked
        Some(_) if refused && !failed(&Kind::of::<Pod>()) => open.retain(|kind| failed(kind)),
        Some(known) => open.retain(|kind| known.contains(&id(kind))),
        None => {}
    }
    let mut plan = Plan {
        memory: serde_json::to_value(open.iter().map(|k| id(k)).collect::<Vec<_>>()).ok(),
        ..Plan::none()
    };
    // pods first
    let (pods, rest): (Vec<&Kind>, Vec<&Kind>) = open.iter().partition(|kind| is_pods(kind));
    for part in [pods, rest] {
        plan.all(part.iter().filter(|kind| failed(kind)).map(|kind| delete_all(kind, name)).collect());
        plan.all(part.iter().map(|kind| none_left(kind, name)).collect());
    }
    plan.then(finalize(namespace));
    plan
}

fn is_pods(kind: &Kind) -> bool {
    *kind == Kind::of::<Pod>()
}

fn delete_all(kind: &Kind, namespace: &str) -> Write {
    Write::DeleteCollection { kind: kind.clone(), namespace: namespace.to_owned() }
}

fn none_left(kind: &Kind, namespace: &str) -> Write {
    Write::RequireNone { kind: kind.clone(), namespace: namespace.to_owned() }
}

/// Takes this loop's finalizer away.
fn finalize(namespace: &Namespace) -> Write {
    let mut object = namespace.clone();
    if let Some(finalizers) = object.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|f| f != FINALIZER);
    }
    let json = serde_json::to_value(&object).unwrap_or_default();
    Write::Post { target: Target::of(namespace), subresource: "finalize", object: Box::new(json) }
}

/// What is still in a namespace.
#[derive(Default)]
struct Content<'a> {
    /// How many objects there are of each kind that has some.
    counts: BTreeMap<String, usize>,
    /// Objects by the finalizer that holds them.
    finalizers: BTreeMap<String, usize>,
    /// Kinds with objects that nobody has deleted yet.
    to_delete: Vec<&'a Kind>,
    /// What could not be deleted, and why.
    failures: Vec<&'a str>,
}

impl<'a> Content<'a> {
    fn of(world: &World, kinds: &[&'a Kind], namespace: &str, last: &'a Outcome) -> Self {
        let mut content = Self::default();
        for kind in kinds {
            let mut count = 0;
            let mut untouched = false;
            for object in world.each(kind, namespace) {
                count += 1;
                untouched |= object.meta().deletion_timestamp.is_none();
                for finalizer in object.meta().finalizers.iter().flatten() {
                    *content.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
            }
            // the server saw more than we do: a kind that is not watched, or an object that is very new
            let failed = last.failures.iter().any(|f| concerns(f, kind));
            if count > 0 {
                content.counts.insert(format!("{}.{}", kind.plural, kind.group), count);
            }
            if untouched || failed {
                content.to_delete.push(kind);
            }
        }
        let failures = last.failures.iter().filter(|f| matches!(f.write, Write::DeleteCollection { .. }));
        content.failures = failures.map(|f| f.message.as_str()).collect();
        content
    }
}

fn concerns(failure: &Failure, wanted: &Kind) -> bool {
    match &failure.write {
        Write::DeleteCollection { kind, .. } | Write::RequireNone { kind, .. } => kind == wanted,
        _ => false,
    }
}

/// The five conditions, in upstream's order: type, whether it is so, reason, message.
fn conditions(content: &Content<'_>) -> [(&'static str, bool, &'static str, String); 5] {
    let counted = |counts: &BTreeMap<String, usize>, words: &str| {
        let texts: Vec<String> =
            counts.iter().map(|(what, n)| format!("{what} {words} {n} resource instances")).collect();
        texts.join(", ")
    };
    let failed = !content.failures.is_empty();
    let held = !content.finalizers.is_empty();
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        if failed {
            let message = format!(
                "Failed to delete all resource types, {} remaining: {}",
                content.failures.len(),
                content.failures.join(", ")
            );
            ("NamespaceDeletionContentFailure", true, "ContentDeletionFailed", message)
        } else {
            let message = "All content successfully deleted, may be waiting on finalization".to_owned();
            ("NamespaceDeletionContentFailure", false, "ContentDeleted", message)
        },
        (
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", counted(&content.counts, "has")),
        ),
        if held {
            let message = format!(
                "Some content in the namespace has finalizers remaining: {}",
                counted(&content.finalizers, "in")
            );
            ("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message)
        } else {
            let message = "All content-preserving finalizers finished".to_owned();
            ("NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers", message)
        },
    ]
}

/// The write of the status, if it has to change. Conditions of others stay.
fn status(namespace: &Namespace, content: &Content<'_>, now: Timestamp) -> Option<Write> {
    let mut object = namespace.clone();
    let status = object.status.get_or_insert_with(NamespaceStatus::default);
    let mut changed = status.phase.as_deref() != Some("Terminating");
    status.phase = Some("Terminating".to_owned());
    let held = status.conditions.get_or_insert_default();
    for (kind, so, reason, message) in conditions(content) {
        let wanted = NamespaceCondition {
            type_: kind.to_owned(),
            status: if so { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        match held.iter_mut().find(|c| c.type_ == kind) {
            Some(old)
                if (&old.status, &old.reason, &old.message)
                    == (&wanted.status, &wanted.reason, &wanted.message) => {}
            Some(old) => {
                *old = wanted;
                changed = true;
            }
            None => {
                held.push(wanted);
                changed = true;
            }
        }
    }
    changed.then(|| Write::status(&object))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{add, key, noon, plan, pod, remove, updated, world, writes};

    fn served() -> Vec<Served> {
        let verbs: Vec<String> = ["list", "watch", "delete", "deletecollection"].map(str::to_owned).into();
        let config_map = Kind::of::<k8s_openapi::api::core::v1::ConfigMap>();
        let kinds = [config_map, Kind::of::<Pod>()];
        kinds.map(|kind| Served { kind, namespaced: true, verbs: verbs.clone() }).into()
    }

    fn going() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "deletionTimestamp": noon().to_string()},
            "spec": {"finalizers": ["kubernetes", "other"]},
            "status": {"phase": "Terminating", "conditions": [{"type": "Mine", "status": "True"}]},
        })
    }

    fn map() -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "m"}})
    }

    fn collections(plan: &Plan) -> Vec<&str> {
        let kinds = writes(plan).into_iter().filter_map(|w| match w {
            Write::DeleteCollection { kind, .. } => Some(&*kind.plural),
            _ => None,
        });
        kinds.collect()
    }

    #[test]
    fn pods_go_first_then_the_rest_and_then_the_namespace() {
        let mut world = world([going(), map(), pod("shop", "p", "web", "n", "10.1.0.1")]);
        world.set_served(served());
        let first = plan(&Namespaces, &world, "", "shop");
        assert_eq!(collections(&first), ["pods"]);
        let conditions = &updated(&first)[0]["status"]["conditions"];
        let types: Vec<&str> =
            conditions.as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
        assert_eq!(types[0], "Mine");
        assert_eq!(types[3], "NamespaceDeletionContentFailure");
        assert_eq!(
            conditions[4]["message"],
            "Some resources are remaining: configmaps. has 1 resource instances, pods. has 1 resource instances"
        );
        add(&mut world, updated(&first)[0].clone());

        let mut leaving = pod("shop", "p", "web", "n", "10.1.0.1");
        leaving["metadata"]["deletionTimestamp"] = json!(noon().to_string());
        let change = add(&mut world, leaving);
        assert_eq!(Namespaces.keys(&change, &world), [key("", "shop")]);
        assert!(plan(&Namespaces, &world, "", "shop").steps.is_empty(), "waits for the pod");

        remove::<Pod>(&mut world, "shop", "p");
        assert_eq!(collections(&plan(&Namespaces, &world, "", "shop")), ["configmaps"]);

        remove::<k8s_openapi::api::core::v1::ConfigMap>(&mut world, "shop", "m");
        let last = plan(&Namespaces, &world, "", "shop");
        let found = writes(&last);
        assert!(matches!(found[0], Write::RequireNone { kind, .. } if kind.kind == "Pod"));
        let Some(Write::Post { subresource, object, .. }) = found.last() else { panic!("no finalize") };
        assert_eq!(*subresource, "finalize");
        assert_eq!(object["spec"]["finalizers"], json!(["other"]));
    }

    #[test]
    fn what_only_the_server_sees_is_deleted_too() {
        let mut world = world([going()]);
        world.set_served(served());
        let kind = Kind::of::<k8s_openapi::api::core::v1::ConfigMap>();
        let failure = Failure {
            write: none_left(&kind, "shop"),
            code: 409,
            reason: "Conflict".to_owned(),
            message: "there are some".to_owned(),
            causes: Vec::new(),
        };
        let last = Outcome { failures: vec![failure], tries: 1, ..Outcome::default() };
        let plan = Namespaces.reconcile(&key("", "shop"), &world, &last, noon());
        assert_eq!(collections(&plan), ["configmaps"]);
    }

    #[test]
    fn a_kind_that_was_empty_once_is_not_asked_about_again() {
        let mut world = world([going()]);
        world.set_served(served());
        let asked = |plan: &Plan| -> Vec<String> {
            let kinds = writes(plan).into_iter().filter_map(|w| match w {
                Write::RequireNone { kind, .. } => Some(kind.plural.to_string()),
                _ => None,
            });
            kinds.collect()
        };
        let first = plan(&Namespaces, &world, "", "shop");
        assert_eq!(asked(&first), ["pods", "configmaps"]);
        let after = |write: &Write| {
            let failure = Failure {
                write: write.clone(),
                code: 0,
                reason: String::new(),
                message: String::new(),
                causes: Vec::new(),
            };
            let memory = first.memory.clone().unwrap();
            let last = Outcome { failures: vec![failure], tries: 1, memory, ..Outcome::default() };
            asked(&Namespaces.reconcile(&key("", "shop"), &world, &last, noon()))
        };
        assert_eq!(after(&first.steps[1][0]), ["configmaps"]);
        assert_eq!(after(&first.steps[0][0]), ["pods", "configmaps"], "nothing but pods was asked about");
    }

    #[test]
    fn objects_held_by_a_finalizer_are_counted() {
        let mut held = map();
        held["metadata"]["finalizers"] = json!(["a/b"]);
        held["metadata"]["deletionTimestamp"] = json!(noon().to_string());
        let mut world = world([going(), held]);
        world.set_served(served());
        let plan = plan(&Namespaces, &world, "", "shop");
        assert!(collections(&plan).is_empty(), "it is being deleted already");
        assert_eq!(
            updated(&plan)[0]["status"]["conditions"][5]["message"],
            "Some content in the namespace has finalizers remaining: a/b in 1 resource instances"
        );
    }

    #[test]
    fn a_namespace_that_nobody_deleted_is_left_alone() {
        let mut staying = going();
        staying["metadata"]["deletionTimestamp"] = Value::Null;
        let mut world = world([staying, map()]);
        world.set_served(served());
        assert_eq!(plan(&Namespaces, &world, "", "shop"), Plan::none());
    }
}
