//! `apps/v1`: Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    apps_rules as rules,
    cells::{self, created, labels, name, selector},
    checks::{Checks, path},
    declare::Declarer,
    object::{at, at_mut, fill, has, items_mut, list, number, remove, restore, same, set, text},
    podspec::{changed_template_warnings, default_template, name_warnings},
    resource::{Generation, NameRule, Strategy},
    warnings::claim,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("apps/v1", "controllerrevisions").strategy(ControllerRevision);
    to.resource("apps/v1", "daemonsets").tracks_spec().strategy(DaemonSet);
    to.resource("apps/v1", "deployments")
        .behaves(|b| b.generation = Generation::SpecOrAnnotations)
        .scales_by("spec.selector")
        .strategy(Deployment);
    to.resource("apps/v1", "replicasets")
        .tracks_spec()
        .scales_by("spec.selector")
        .select("status.replicas", "0")
        .strategy(ReplicaSet);
    to.resource("apps/v1", "statefulsets")
        .named(NameRule::Label)
        .tracks_spec()
        .scales_by("spec.selector")
        .strategy(StatefulSet);
}

/// Numbers in the statuses of workloads, none of which may be negative.
const COUNTERS: [&str; 14] = [
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "currentReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "fullyLabeledReplicas",
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "terminatingReplicas",
    "collisionCount",
];

/// `2/3`
fn ready_of(object: &Value) -> Value {
    format!("{}/{}", number(object, "status.readyReplicas"), number(object, "spec.replicas")).into()
}

struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Object) {
        default_template(object, "spec.template.spec");
        let Some(strategy) = at_mut(object, "spec.strategy") else { return };
        if text(strategy, "type") == "RollingUpdate" {
            if !has(strategy, "rollingUpdate") {
                set(strategy, "rollingUpdate", json!({}));
            }
            if let Some(rolling) = at_mut(strategy, "rollingUpdate") {
                for field in ["maxUnavailable", "maxSurge"] {
                    fill(rolling, field, "25%");
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, subresource: &str) {
        if subresource == "status" {
            restore(new, old, "metadata.labels");
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_deployment(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        match subresource {
            "status" => rules::check_status(
                new,
                old,
                &COUNTERS,
                &["updatedReplicas", "readyReplicas", "availableReplicas"],
            ),
            "" => Checks::run(|checks| checks.immutable(new, old, "spec.selector")),
            _ => Vec::new(),
        }
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut warnings = name_warnings(new, old);
        warnings.extend(changed_template_warnings(new, old, "spec.template"));
        warnings
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let [names, images] = cells::containers(at(object, "spec.template.spec"));
        Some(vec![
            name(object),
            ready_of(object),
            number(object, "status.updatedReplicas").into(),
            number(object, "status.availableReplicas").into(),
            created(object, now),
            names,
            images,
            // Unlike in the other kinds, a selector that selects all is an empty text here.
            cells::requirements(at(object, "spec.selector")).into(),
        ])
    }
}

struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Object) {
        default_template(object, "spec.template.spec");
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"replicas": 0}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_replica_set(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        match subresource {
            "status" => rules::check_status(
                new,
                old,
                &COUNTERS,
                &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            ),
            "" => Checks::run(|checks| checks.immutable(new, old, "spec.selector")),
            _ => Vec::new(),
        }
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut warnings = name_warnings(new, old);
        warnings.extend(changed_template_warnings(new, old, "spec.template"));
        warnings
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let [names, images] = cells::containers(at(object, "spec.template.spec"));
        Some(vec![
            name(object),
            number(object, "spec.replicas").into(),
            number(object, "status.replicas").into(),
            number(object, "status.readyReplicas").into(),
            created(object, now),
            names,
            images,
            selector(at(object, "spec.selector")).into(),
        ])
    }
}

struct StatefulSet;

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Object) {
        default_template(object, "spec.template.spec");
        for claim in items_mut(object, "spec.volumeClaimTemplates") {
            fill(claim, "apiVersion", "v1");
            fill(claim, "kind", "PersistentVolumeClaim");
        }
        let Some(spec) = at_mut(object, "spec") else { return };
        if text(spec, "updateStrategy.type").is_empty() {
            set(spec, "updateStrategy.type", "RollingUpdate");
            if !has(spec, "updateStrategy.rollingUpdate") {
                set(spec, "updateStrategy.rollingUpdate", json!({}));
            }
        }
        if text(spec, "updateStrategy.type") == "RollingUpdate"
            && let Some(rolling) = at_mut(spec, "updateStrategy.rollingUpdate")
        {
            fill(rolling, "partition", 0);
            fill(rolling, "maxUnavailable", 1);
        }
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_stateful_set(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        match subresource {
            "status" => rules::check_status(
                new,
                old,
                &COUNTERS,
                &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
            ),
            "" => Checks::run(|checks| {
                for field in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
                    checks.immutable(new, old, &format!("spec.{field}"));
                }
            }),
            _ => Vec::new(),
        }
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut warnings = changed_template_warnings(new, old, "spec.template");
        let path = path("spec").child("volumeClaimTemplates");
        for (index, template) in list(new, "spec.volumeClaimTemplates").iter().enumerate() {
            claim(&mut warnings, at(template, "spec"), &path.index(index));
        }
        if number(new, "spec.revisionHistoryLimit") < 0 {
            warnings.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                 recommended"
                    .to_owned(),
            );
        }
        warnings
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let [names, images] = cells::containers(at(object, "spec.template.spec"));
        Some(vec![name(object), ready_of(object), created(object, now), names, images])
    }
}

struct DaemonSet;

/// Where `apps/v1` shows what older versions had as `spec.templateGeneration`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &Value) -> i64 {
    at(object, "metadata.annotations")[TEMPLATE_GENERATION]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    if let Some(annotations) = crate::object::map_mut(object, "metadata.annotations") {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Object) {
        default_template(object, "spec.template.spec");
        // Every decoded object has the annotation, so writers own it.
        let generation = template_generation(object);
        set_template_generation(object, generation);
        let Some(strategy) = at_mut(object, "spec.updateStrategy") else { return };
        if text(strategy, "type") == "RollingUpdate" && !has(strategy, "rollingUpdate") {
            set(strategy, "rollingUpdate", json!({"maxUnavailable": 1, "maxSurge": 0}));
        }
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        let status = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0,
            "numberReady": 0});
        set(object, "status", status);
        let generation = template_generation(object).max(1);
        set_template_generation(object, generation);
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, subresource: &str) {
        if subresource.is_empty() {
            let changed = !same(at(new, "spec.template"), at(old, "spec.template"));
            set_template_generation(new, template_generation(old) + i64::from(changed));
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_daemon_set(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        match subresource {
            "status" => rules::check_status(new, old, &COUNTERS, &[]),
            "" => Checks::run(|checks| checks.immutable(new, old, "spec.selector")),
            _ => Vec::new(),
        }
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        changed_template_warnings(new, old, "spec.template")
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let [names, images] = cells::containers(at(object, "spec.template.spec"));
        Some(vec![
            name(object),
            number(object, "status.desiredNumberScheduled").into(),
            number(object, "status.currentNumberScheduled").into(),
            number(object, "status.numberReady").into(),
            number(object, "status.updatedNumberScheduled").into(),
            number(object, "status.numberAvailable").into(),
            labels(at(object, "spec.template.spec.nodeSelector")).into(),
            created(object, now),
            names,
            images,
            selector(at(object, "spec.selector")).into(),
        ])
    }
}

struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_controller_revision(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| checks.immutable(new, old, "data"))
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let owner = list(object, "metadata.ownerReferences").iter().find(|owner| owner["controller"] == true);
        let owner = owner.map_or("<none>".to_owned(), |owner| {
            let kind = text(owner, "kind");
            let kind = match text(owner, "apiVersion").split_once('/') {
                Some((group, _)) => format!("{kind}.{group}"),
                None => kind.to_owned(),
            };
            format!("{}/{}", kind.to_lowercase(), text(owner, "name"))
        });
        Some(vec![name(object), owner.into(), number(object, "revision").into(), created(object, now)])
    }

    fn prepare_update(&self, new: &mut Object, _old: &Object, _subresource: &str) {
        // Null is how Go shows it when it is not there; keep one form.
        if at(new, "data").is_null() {
            remove(new, "data");
        }
    }
}
