//! `autoscaling/v2`: HorizontalPodAutoscaler, the form that is stored. `autoscaling/v1` is in its own file.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    autoscaling_rules as rules, autoscaling_v1,
    cells::{created, name},
    checks::{Checks, path},
    declare::Declarer,
    object::{at, at_mut, has, list, number, set, text},
    resource::Strategy,
};

pub fn declare(to: &mut Declarer<'_>) {
    let kind = "horizontalpodautoscalers";
    to.resource("autoscaling/v2", kind).tracks_spec().strategy(HorizontalPodAutoscaler);
    to.resource("autoscaling/v1", kind)
        .tracks_spec()
        .behaves(|b| b.annotated = Some("autoscaling.alpha.kubernetes.io/"))
        .strategy(autoscaling_v1::HorizontalPodAutoscaler);
}

/// `autoscaling/v2`
pub struct HorizontalPodAutoscaler;

/// How fast it goes up and down where nothing is said.
fn rules_of(direction: &str) -> Value {
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    if direction == "scaleUp" {
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]})
    } else {
        json!({"selectPolicy": "Max", "policies": [percent]})
    }
}

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Object) {
        if !has(object, "spec") {
            return;
        }
        if list(object, "spec.metrics").is_empty() {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            set(
                object,
                "spec.metrics",
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
            );
        }
        let Some(behavior) = at_mut(object, "spec.behavior") else { return };
        for direction in ["scaleUp", "scaleDown"] {
            let mut wanted = rules_of(direction);
            for field in ["selectPolicy", "stabilizationWindowSeconds", "policies", "tolerance"] {
                if let Some(given) = at(behavior, direction).get(field).filter(|given| !given.is_null()) {
                    wanted[field] = given.clone();
                }
            }
            set(behavior, direction, wanted);
        }
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"desiredReplicas": 0, "currentMetrics": null}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if subresource == "status" {
                let fields = ["currentReplicas", "desiredReplicas"];
                checks.nonnegative_fields(&path("status"), at(new, "status"), &fields);
            } else {
                rules::check_target_change(checks, new, old);
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let target = at(object, "spec.scaleTargetRef");
        let least = at(object, "spec.minReplicas").as_i64().map_or("<unset>".to_owned(), |n| n.to_string());
        Some(vec![
            name(object),
            format!("{}/{}", text(target, "kind"), text(target, "name")).into(),
            metrics(list(object, "spec.metrics"), list(object, "status.currentMetrics")).into(),
            least.into(),
            number(object, "spec.maxReplicas").into(),
            number(object, "status.currentReplicas").into(),
            created(object, now),
        ])
    }
}

/// `cpu: 12%/80%, 3/10 (avg) + 1 more...`
fn metrics(wanted: &[Value], seen: &[Value]) -> String {
    const MOST: usize = 2;
    if wanted.is_empty() {
        return "<none>".to_owned();
    }
    let all: Vec<String> = wanted
        .iter()
        .enumerate()
        .map(|(index, metric)| show(metric, seen.get(index).unwrap_or(&Value::Null)))
        .collect();
    if all.len() > MOST {
        return format!("{} + {} more...", all[..MOST].join(", "), all.len() - MOST);
    }
    all.join(", ")
}

fn show(metric: &Value, seen: &Value) -> String {
    let source = match text(metric, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (at(at(metric, source), "target"), at(at(seen, source), "current"));
    let shown = |value: &Value, unit: &str, none: &str| match value {
        Value::String(text) => format!("{text}{unit}"),
        Value::Number(number) => format!("{number}{unit}"),
        _ => none.to_owned(),
    };
    let pair = |field: &str, unit: &str, none: &str| {
        format!("{}/{}", shown(&current[field], unit, "<unknown>"), shown(&target[field], unit, none))
    };
    let averaged = has(target, "averageValue");
    match source {
        "pods" => pair("averageValue", "", ""),
        "external" | "object" if averaged => format!("{} (avg)", pair("averageValue", "", "")),
        "external" | "object" => pair("value", "", ""),
        _ => {
            let name = text(at(metric, source), "name");
            let amounts = if averaged {
                pair("averageValue", "", "")
            } else {
                pair("averageUtilization", "%", "<auto>")
            };
            format!("{name}: {amounts}")
        }
    }
}
