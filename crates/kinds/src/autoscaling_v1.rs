//! `autoscaling/v1`: HorizontalPodAutoscaler with one number, the CPU to be used. It is stored as v2; what v1 has no
//! field for is shown in annotations.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/autoscaling/v1/conversion.go`, `annotations.go`.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::{
    autoscaling as v2,
    object::{at, at_mut, has, list, map_mut, remove, set, text},
    resource::Strategy,
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// All annotations that only carry fields from one version to the other.
const CARRIERS: [&str; 6] = [
    METRICS,
    CURRENT,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// Where the two versions keep the parts of a source of a metric: v1's field, v2's path.
struct Fields {
    source: &'static str,
    wanted: &'static [(&'static str, &'static str)],
    seen: &'static [(&'static str, &'static str)],
}

const SOURCES: [Fields; 5] = [
    Fields {
        source: "object",
        wanted: &[
            ("target", "describedObject"),
            ("metricName", "metric.name"),
            ("targetValue", "target.value"),
            ("selector", "metric.selector"),
            ("averageValue", "target.averageValue"),
        ],
        seen: &[
            ("target", "describedObject"),
            ("metricName", "metric.name"),
            ("currentValue", "current.value"),
            ("selector", "metric.selector"),
            ("averageValue", "current.averageValue"),
        ],
    },
    Fields {
        source: "pods",
        wanted: &[
            ("metricName", "metric.name"),
            ("targetAverageValue", "target.averageValue"),
            ("selector", "metric.selector"),
        ],
        seen: &[
            ("metricName", "metric.name"),
            ("currentAverageValue", "current.averageValue"),
            ("selector", "metric.selector"),
        ],
    },
    Fields {
        source: "resource",
        wanted: &[
            ("name", "name"),
            ("targetAverageUtilization", "target.averageUtilization"),
            ("targetAverageValue", "target.averageValue"),
        ],
        seen: &[
            ("name", "name"),
            ("currentAverageUtilization", "current.averageUtilization"),
            ("currentAverageValue", "current.averageValue"),
        ],
    },
    Fields {
        source: "containerResource",
        wanted: &[
            ("name", "name"),
            ("targetAverageUtilization", "target.averageUtilization"),
            ("targetAverageValue", "target.averageValue"),
            ("container", "container"),
        ],
        seen: &[
            ("name", "name"),
            ("currentAverageUtilization", "current.averageUtilization"),
            ("currentAverageValue", "current.averageValue"),
            ("container", "container"),
        ],
    },
    Fields {
        source: "external",
        wanted: &[
            ("metricName", "metric.name"),
            ("metricSelector", "metric.selector"),
            ("targetValue", "target.value"),
            ("targetAverageValue", "target.averageValue"),
        ],
        seen: &[
            ("metricName", "metric.name"),
            ("metricSelector", "metric.selector"),
            ("currentValue", "current.value"),
            ("currentAverageValue", "current.averageValue"),
        ],
    },
];

/// Fields of v1 that are quantities and never absent, by source and whether it is a status.
fn always(source: &str, seen: bool) -> &'static [&'static str] {
    match (source, seen) {
        ("object", false) => &["targetValue"],
        ("pods", false) => &["targetAverageValue"],
        ("object" | "external", true) => &["currentValue"],
        ("pods" | "resource" | "containerResource", true) => &["currentAverageValue"],
        _ => &[],
    }
}

/// A metric of v2, in v1's form.
fn metric_to_v1(metric: &Value, seen: bool) -> Value {
    let mut out = json!({"type": text(metric, "type")});
    for fields in SOURCES.iter().filter(|fields| has(metric, fields.source)) {
        let from = at(metric, fields.source);
        let mut source = Map::new();
        for (ours, theirs) in if seen { fields.seen } else { fields.wanted } {
            let value = at(from, theirs);
            if !value.is_null() {
                source.insert((*ours).to_owned(), value.clone());
            }
        }
        for field in always(fields.source, seen) {
            source.entry(*field).or_insert_with(|| "0".into());
        }
        out[fields.source] = Value::Object(source);
    }
    out
}

/// A metric of v1, in v2's form.
fn metric_to_v2(metric: &Value, seen: bool) -> Value {
    let mut out = json!({"type": text(metric, "type")});
    for fields in SOURCES.iter().filter(|fields| has(metric, fields.source)) {
        let from = at(metric, fields.source);
        let mut source = json!({});
        for (ours, theirs) in if seen { fields.seen } else { fields.wanted } {
            let value = at(from, ours);
            if !value.is_null() {
                set(&mut source, theirs, value.clone());
            }
        }
        if !seen {
            let target = match fields.source {
                "object" if has(from, "averageValue") => {
                    // v1 cannot leave this one out, and zero is no target.
                    if matches!(text(from, "targetValue"), "" | "0") {
                        remove(&mut source, "target.value");
                    }
                    "AverageValue"
                }
                "pods" => "AverageValue",
                "external" if !has(from, "targetValue") => "AverageValue",
                "object" | "external" => "Value",
                _ if has(from, "targetAverageUtilization") => "Utilization",
                _ => "AverageValue",
            };
            set(&mut source, "target.type", target);
        }
        out[fields.source] = source;
    }
    out
}

/// The target of CPU use that v1 has a field for.
fn is_cpu(metric: &Value) -> bool {
    text(metric, "type") == "Resource"
        && text(metric, "resource.name") == "cpu"
        && has(metric, "resource.target.averageUtilization")
}

fn cpu(percent: impl Into<Value>) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent.into()});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// Behaviour as Go writes its internal form: names with capitals, all of them.
fn capitals(value: &Value) -> Value {
    let pick = |from: &Value, names: &[(&str, &str)]| -> Value {
        names
            .iter()
            .map(|(ours, theirs)| ((*ours).to_owned(), at(from, theirs).clone()))
            .collect::<Map<_, _>>()
            .into()
    };
    let policy = [("Type", "type"), ("Value", "value"), ("PeriodSeconds", "periodSeconds")];
    let rules = |rules: &Value| {
        if rules.is_null() {
            return Value::Null;
        }
        let mut out = pick(
            rules,
            &[("StabilizationWindowSeconds", "stabilizationWindowSeconds"), ("SelectPolicy", "selectPolicy")],
        );
        out["Policies"] = list(rules, "policies").iter().map(|p| pick(p, &policy)).collect();
        out["Tolerance"] = at(rules, "tolerance").clone();
        out
    };
    json!({"ScaleUp": rules(at(value, "scaleUp")), "ScaleDown": rules(at(value, "scaleDown"))})
}

/// The same, read: Go does not look at the case of names. Nulls are gone.
fn small(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| {
                let mut letters = name.chars();
                let first = letters.next().map(|first| first.to_ascii_lowercase());
                (first.into_iter().chain(letters).collect::<String>(), small(value))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(small).collect(),
        other => other.clone(),
    }
}

/// What an annotation carries; `None` where there is none or it cannot be read.
fn carried(object: &Value, annotation: &str) -> Option<Value> {
    let text = at(object, "metadata.annotations").get(annotation)?.as_str()?;
    serde_json::from_str(text).ok()
}

fn drop_carriers(object: &mut Value) {
    let Some(annotations) = at_mut(object, "metadata.annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.retain(|name, _| !CARRIERS.contains(&name.as_str()));
    if annotations.is_empty() {
        remove(object, "metadata.annotations");
    }
}

fn carry(object: &mut Value, annotation: &str, value: &Value) {
    if let Some(annotations) = map_mut(object, "metadata.annotations") {
        annotations.insert(annotation.to_owned(), value.to_string().into());
    }
}

/// The stored form, as v1 shows it.
pub fn shown(object: &mut Object) {
    drop_if_object(object);
    let metrics = list(object, "spec.metrics").to_vec();
    let current = list(object, "status.currentMetrics").to_vec();
    let behavior = at(object, "spec.behavior").clone();
    let conditions = at(object, "status.conditions").clone();
    for field in ["spec.metrics", "spec.behavior", "status.currentMetrics", "status.conditions"] {
        remove(object, field);
    }
    let percent = metrics.iter().find(|metric| is_cpu(metric));
    if let Some(percent) = percent.map(|metric| at(metric, "resource.target.averageUtilization").clone()) {
        set(object, "spec.targetCPUUtilizationPercentage", percent);
    }
    let used = current.iter().rev().find(|metric| {
        let resource = text(metric, "type") == "Resource" && text(metric, "resource.name") == "cpu";
        resource && has(metric, "resource.current.averageUtilization")
    });
    if let Some(used) = used.map(|metric| at(metric, "resource.current.averageUtilization").clone()) {
        set(object, "status.currentCPUUtilizationPercentage", used);
    }
    let others: Vec<Value> =
        metrics.iter().filter(|metric| !is_cpu(metric)).map(|metric| metric_to_v1(metric, false)).collect();
    if !others.is_empty() {
        carry(object, METRICS, &others.into());
    }
    if !current.is_empty() {
        carry(object, CURRENT, &current.iter().map(|metric| metric_to_v1(metric, true)).collect());
    }
    if !behavior.is_null() {
        carry(object, BEHAVIOR, &capitals(&behavior));
    }
    if conditions.as_array().is_some_and(|conditions| !conditions.is_empty()) {
        carry(object, CONDITIONS, &conditions);
    }
    retype(object, "autoscaling/v1");
}

fn drop_if_object(object: &mut Object) {
    if object.get("metadata").is_some_and(Value::is_object) {
        drop_carriers(object);
    }
}

fn retype(object: &mut Object, version: &str) {
    if object.get("apiVersion").is_some() {
        set(object, "apiVersion", version);
    }
}

/// v1's form, as it is stored.
pub fn stored(object: &mut Object) {
    if !object.is_object() {
        return;
    }
    let percent = at(object, "spec.targetCPUUtilizationPercentage").clone();
    let mut metrics =
        carried(object, METRICS).and_then(|carried| Some(carried.as_array()?.clone())).unwrap_or_default();
    metrics = metrics.iter().map(|metric| metric_to_v2(metric, false)).collect();
    if !percent.is_null() {
        metrics.push(cpu(percent));
    } else if metrics.is_empty() {
        metrics.push(cpu(80));
    }
    if let Some(behavior) = carried(object, BEHAVIOR).map(|behavior| small(&behavior))
        && behavior.as_object().is_some_and(|behavior| !behavior.is_empty())
    {
        set(object, "spec.behavior", behavior);
    }
    let used = at(object, "status.currentCPUUtilizationPercentage").clone();
    if let Some(Value::Array(current)) = carried(object, CURRENT) {
        let current: Value = current.iter().map(|metric| metric_to_v2(metric, true)).collect();
        set(object, "status.currentMetrics", current);
    } else if !used.is_null() {
        let current = json!({"averageUtilization": used});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": current}});
        set(object, "status.currentMetrics", json!([metric]));
    } else if object["status"].is_object() {
        set(object, "status.currentMetrics", Value::Null);
    }
    if let Some(conditions @ Value::Array(_)) = carried(object, CONDITIONS) {
        set(object, "status.conditions", conditions);
    }
    remove(object, "spec.targetCPUUtilizationPercentage");
    remove(object, "status.currentCPUUtilizationPercentage");
    if object["spec"].is_object() {
        set(object, "spec.metrics", metrics);
    }
    drop_if_object(object);
    retype(object, "autoscaling/v2");
}

fn as_v2(object: &Object) -> Object {
    let mut object = object.clone();
    stored(&mut object);
    object
}

/// `autoscaling/v1`: judged by the rules of v2.
pub struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"currentReplicas": 0, "desiredReplicas": 0}));
        for annotation in [CURRENT, CONDITIONS] {
            if let Some(annotations) = at_mut(object, "metadata.annotations").and_then(Value::as_object_mut) {
                annotations.remove(annotation);
            }
        }
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, subresource: &str) {
        // The annotations carry parts of the spec and of the status: each write leaves the other's.
        let kept: &[&str] =
            if subresource == "status" { &[METRICS, BEHAVIOR] } else { &[CURRENT, CONDITIONS] };
        for annotation in kept {
            let before = at(old, "metadata.annotations").get(*annotation).cloned();
            match before {
                Some(value) => {
                    if let Some(annotations) = map_mut(new, "metadata.annotations") {
                        annotations.insert((*annotation).to_owned(), value);
                    }
                }
                None => {
                    if let Some(annotations) = map_mut(new, "metadata.annotations") {
                        annotations.remove(*annotation);
                    }
                }
            }
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        v2::HorizontalPodAutoscaler.validate(&as_v2(object))
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        v2::HorizontalPodAutoscaler.validate_update(&as_v2(new), &as_v2(old), subresource)
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        v2::HorizontalPodAutoscaler.row(&as_v2(object), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {"kept": "yes"}},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
                "minReplicas": 1, "maxReplicas": 3,
                "metrics": [
                    {"type": "Object", "object": {
                        "describedObject": {"kind": "Service", "name": "s"},
                        "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
                    {"type": "Pods", "pods": {
                        "metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                    cpu(60),
                ],
                "behavior": {"scaleDown": {
                    "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}},
            },
            "status": {
                "desiredReplicas": 2, "currentReplicas": 2,
                "currentMetrics": [{"type": "Resource", "resource": {
                    "name": "cpu", "current": {"averageUtilization": 40, "averageValue": "200m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True", "lastTransitionTime": null}],
            },
        })
    }

    #[test]
    fn nothing_is_lost_on_the_way_through_v1() {
        let before = full();
        let mut object = before.clone();
        shown(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 60);
        assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 40);
        let behavior = object["metadata"]["annotations"][BEHAVIOR].as_str().unwrap();
        assert!(
            behavior.contains(r#""ScaleUp":null"#) && behavior.contains(r#""PeriodSeconds":15"#),
            "{behavior}"
        );
        stored(&mut object);
        assert_eq!(object, before);
    }

    #[test]
    fn a_v1_object_without_a_target_wants_the_usual_cpu() {
        let mut object = json!({"apiVersion": "autoscaling/v1", "metadata": {}, "spec": {"maxReplicas": 3}});
        stored(&mut object);
        assert_eq!(object["spec"]["metrics"], json!([cpu(80)]));
    }
}
