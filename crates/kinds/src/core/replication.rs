//! ReplicationController and PodTemplate.

use apimachinery::Object;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{self, created, labels, name},
    object::{at, number, set},
    podspec::default_template,
    resource::Strategy,
};

pub struct ReplicationController;

fn none(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty)
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

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        let [names, images] = cells::containers(at(object, "template.spec"));
        Some(vec![name(object), names, images, labels(at(object, "template.metadata.labels")).into()])
    }
}
