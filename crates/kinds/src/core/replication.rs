//! ReplicationController and PodTemplate.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    apps_rules as rules,
    cells::{self, created, labels, name},
    checks::{Checks, path},
    object::{at, has, number, set, text},
    podspec::{changed_template_warnings, check_template, default_template, name_warnings},
    resource::Strategy,
};

pub struct ReplicationController;

fn none(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty)
}

fn check_controller(checks: &mut Checks, object: &Value) {
    let spec = path("spec");
    checks.nonnegative_fields(&spec, at(object, "spec"), &["minReadySeconds"]);
    let selector = at(object, "spec.selector");
    if none(selector) {
        checks.required(&spec.child("selector"), "");
    }
    checks.nonnegative_fields(&spec, at(object, "spec"), &["replicas"]);
    let (template, path) = (at(object, "spec.template"), spec.child("template"));
    if template.is_null() {
        return checks.required(&path, "");
    }
    let labels = at(template, "metadata.labels");
    let mut wanted = selector.as_object().into_iter().flatten();
    if wanted.any(|(key, value)| labels.get(key) != Some(value)) {
        let path = path.child("metadata").child("labels");
        checks.invalid(&path, labels.clone(), "`selector` does not match template `labels`");
    }
    check_template(checks, template, &path);
    let path = path.child("spec");
    checks.one_of(&path.child("restartPolicy"), text(template, "spec.restartPolicy"), &["Always"]);
    if has(template, "spec.activeDeadlineSeconds") {
        let detail = "activeDeadlineSeconds in ReplicationController is not Supported";
        checks.forbidden(&path.child("activeDeadlineSeconds"), detail);
    }
}

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Object) {
        default_template(object, "spec.template.spec");
        let template_labels = at(object, "spec.template.metadata.labels").clone();
        if !template_labels.is_null() {
            for path in ["spec.selector", "metadata.labels"] {
                if none(at(object, path)) {
                    set(object, path, template_labels.clone());
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"replicas": 0}));
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut warnings = name_warnings(new, old);
        // Of a change upstream looks at the template as it was.
        warnings.extend(match old {
            Some(old) if number(new, "metadata.generation") == number(old, "metadata.generation") => {
                Vec::new()
            }
            _ => changed_template_warnings(old.unwrap_or(new), None, "spec.template"),
        });
        warnings
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check_controller(checks, object))
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if subresource == "status" {
                let found = rules::check_status(
                    new,
                    old,
                    &[
                        "replicas",
                        "fullyLabeledReplicas",
                        "readyReplicas",
                        "availableReplicas",
                        "observedGeneration",
                    ],
                    &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
                );
                checks.errors.extend(found);
            }
        })
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
            labels(at(object, "spec.selector")).into(),
        ])
    }
}

pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Object) {
        default_template(object, "template.spec");
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        // Upstream looks at those only whose generation has changed, which nobody counts.
        if old.is_some() { Vec::new() } else { changed_template_warnings(new, None, "template") }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check_template(checks, at(object, "template"), &path("template")))
    }

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        let [names, images] = cells::containers(at(object, "template.spec"));
        Some(vec![name(object), names, images, labels(at(object, "template.metadata.labels")).into()])
    }
}
