//! RuntimeClass: a pod of a class has the overhead of the class and goes where the class can run.

use apimachinery::{ApiError, quantity::Quantity};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::forbidden;
use crate::{Admission, AdmissionRequest, Reader};

/// See the module.
pub struct RuntimeClass;

const DIFFERS: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn concerns(request: &AdmissionRequest<'_>) -> bool {
    let at = request.attributes;
    request.operation == "CREATE" && at.group.is_empty() && at.resource == "pods" && at.subresource.is_empty()
}

/// The class that the pod names; `None` if it names none.
fn class(
    request: &AdmissionRequest<'_>,
    reader: &dyn Reader,
) -> Result<Option<std::sync::Arc<Value>>, ApiError> {
    let Some(name) = request.object["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    match reader.get("node.k8s.io", "runtimeclasses", "", name) {
        Some(class) => Ok(Some(class)),
        None => Err(forbidden(request, &format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

/// The same amounts of the same resources.
fn same(a: &Value, b: &Value) -> bool {
    let none = Map::new();
    let (a, b) = (a.as_object().unwrap_or(&none), b.as_object().unwrap_or(&none));
    let amount = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok());
    a.len() == b.len()
        && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| amount(other) == amount(value)))
}

/// A toleration that tolerates all that the other one does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    let text = |toleration: &Value, field: &str| toleration[field].as_str().unwrap_or_default().to_owned();
    if wide == narrow {
        return true;
    }
    let same = |field: &str| text(wide, field) == text(narrow, field);
    let any_key = text(wide, "key").is_empty() && text(wide, "operator") == "Exists";
    if !same("key") && !any_key || !same("effect") && !text(wide, "effect").is_empty() {
        return false;
    }
    if text(wide, "effect") == "NoExecute"
        && let Some(limit) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"].as_i64().is_none_or(|other| other > limit)
    {
        return false;
    }
    match text(wide, "operator").as_str() {
        "Exists" => true,
        "" | "Equal" => text(narrow, "operator") == "Equal" && same("value"),
        _ => false,
    }
}

/// Both lists without those that another one covers.
fn merged(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut kept: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let before = kept.iter().any(|other| covers(other, toleration));
        let later = all[index + 1..].iter().any(|other| *other != *toleration && covers(other, toleration));
        if !before && !later {
            kept.push((*toleration).clone());
        }
    }
    kept
}

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, reader: &dyn Reader) -> Result<(), ApiError> {
        if !concerns(request) {
            return Ok(());
        }
        let Some(class) = class(request, reader)? else { return Ok(()) };
        let overhead = &class["overhead"];
        if !overhead.is_null() {
            let given = &request.object["spec"]["overhead"];
            let amounts = overhead.get("podFixed").cloned().unwrap_or_else(|| json!({}));
            if given.as_object().is_some_and(|given| !given.is_empty()) && !same(given, &amounts) {
                return Err(forbidden(request, DIFFERS));
            }
            request.object["spec"]["overhead"] = amounts;
        }
        let scheduling = &class["scheduling"];
        for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
            let given = &request.object["spec"]["nodeSelector"][key.as_str()];
            if !given.is_null() && given != value {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(given)
                );
                return Err(forbidden(request, &why));
            }
            if !request.object["spec"]["nodeSelector"].is_object() {
                request.object["spec"]["nodeSelector"] = json!({});
            }
            request.object["spec"]["nodeSelector"][key.as_str()] = value.clone();
        }
        if let Some(more) = scheduling["tolerations"].as_array().filter(|more| !more.is_empty()) {
            let own = request.object["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
            request.object["spec"]["tolerations"] = merged(&own, more).into();
        }
        Ok(())
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        if !concerns(request) {
            return Ok(());
        }
        let given = &request.object["spec"]["overhead"];
        let class = class(request, reader)?;
        match class.as_ref().map(|class| &class["overhead"]).filter(|overhead| !overhead.is_null()) {
            Some(overhead) if !same(given, &overhead["podFixed"]) => Err(forbidden(request, DIFFERS)),
            None if !given.is_null() => Err(forbidden(
                request,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attributes, memory::Memory};

    async fn admit(class: Value, spec: Value) -> Result<Value, String> {
        let memory = Memory::default();
        memory.put("node.k8s.io", "runtimeclasses", class);
        let attributes = Attributes { resource: "pods".to_owned(), ..Attributes::default() };
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let mut request = AdmissionRequest {
            attributes: &attributes,
            resource: kinds::find("", "v1", "pods").expect("a kind"),
            operation: "CREATE",
            object: &mut pod,
            old: None,
            dry_run: false,
            now: chrono::DateTime::default(),
            warnings: &mut Vec::new(),
            audit: None,
            companions: &mut Vec::new(),
        };
        RuntimeClass.mutate(&mut request, &memory).await.map_err(|e| e.message)?;
        RuntimeClass.validate(&mut request, &memory).await.map_err(|e| e.message)?;
        Ok(pod["spec"].clone())
    }

    fn sandboxed() -> Value {
        json!({
            "metadata": {"name": "sandboxed"}, "handler": "vm",
            "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {
                "nodeSelector": {"vm": "yes"},
                "tolerations": [{"key": "vm", "operator": "Exists", "effect": "NoSchedule"}],
            },
        })
    }

    #[tokio::test]
    async fn a_pod_gets_what_its_class_costs_and_goes_where_the_class_runs() {
        let own = json!([{"key": "vm", "operator": "Equal", "value": "x", "effect": "NoSchedule"}]);
        let spec = json!({
            "runtimeClassName": "sandboxed", "nodeSelector": {"zone": "a"}, "tolerations": own,
            "overhead": {"cpu": "0.25"},
        });
        let spec = admit(sandboxed(), spec).await.unwrap();
        assert_eq!(spec["overhead"], json!({"cpu": "250m"}));
        assert_eq!(spec["nodeSelector"], json!({"zone": "a", "vm": "yes"}));
        assert_eq!(spec["tolerations"].as_array().unwrap().len(), 1, "the wider one covers the other");
    }

    #[tokio::test]
    async fn a_pod_that_contradicts_its_class_is_refused() {
        let refused = [
            (json!({"runtimeClassName": "none"}), "RuntimeClass \"none\" not found"),
            (json!({"runtimeClassName": "sandboxed", "nodeSelector": {"vm": "no"}}), "conflict"),
            (json!({"runtimeClassName": "sandboxed", "overhead": {"cpu": "1"}}), "doesn't match"),
            (json!({"overhead": {"cpu": "1"}}), "without corresponding RuntimeClass"),
        ];
        for (spec, why) in refused {
            let error = admit(sandboxed(), spec).await.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
