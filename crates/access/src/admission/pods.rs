//! Small plugins for pods and nodes: Priority, DefaultTolerationSeconds, TaintNodesByCondition.

use apimachinery::ApiError;
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{Admission, AdmissionRequest, Reader};

fn creates(request: &AdmissionRequest<'_>, group: &str, resource: &str) -> bool {
    let at = request.attributes;
    request.operation == "CREATE" && at.group == group && at.resource == resource && at.subresource.is_empty()
}

/// Turns `priorityClassName` into `priority` and `preemptionPolicy`.
pub struct Priority;

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, reader: &dyn Reader) -> Result<(), ApiError> {
        if !creates(request, "", "pods") {
            return Ok(());
        }
        let name = request.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let spec = &mut request.object["spec"];
        let asked = spec["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = if asked.is_empty() {
            let classes = reader.list("scheduling.k8s.io", "priorityclasses", "");
            // Several global defaults may exist for a moment: the lowest value counts.
            classes.into_iter().filter(|c| c["globalDefault"] == true).min_by_key(|c| c["value"].as_i64())
        } else {
            let class = reader.get("scheduling.k8s.io", "priorityclasses", "", &asked);
            if class.is_none() {
                let why = format!("no PriorityClass with name {asked} was found");
                return Err(ApiError::forbidden("", "pods", &name, &why));
            }
            class
        };
        let (value, policy) = match &class {
            Some(class) => {
                spec["priorityClassName"] = class["metadata"]["name"].clone();
                (
                    class["value"].as_i64().unwrap_or(0),
                    class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority"),
                )
            }
            None => (0, "PreemptLowerPriority"),
        };
        if spec["priority"].as_i64().is_some_and(|given| given != value) {
            let why = format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
                spec["priority"]
            );
            return Err(ApiError::forbidden("", "pods", &name, &why));
        }
        if spec["preemptionPolicy"].as_str().is_some_and(|given| given != policy) {
            let why = format!(
                "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name",
                spec["preemptionPolicy"].as_str().unwrap_or_default()
            );
            return Err(ApiError::forbidden("", "pods", &name, &why));
        }
        spec["priority"] = json!(value);
        spec["preemptionPolicy"] = json!(policy);
        Ok(())
    }
}

/// Pods stay five minutes on a node that is not ready or cannot be reached.
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, _reader: &dyn Reader) -> Result<(), ApiError> {
        let at = request.attributes;
        let writes = matches!(request.operation, "CREATE" | "UPDATE");
        if !(writes && at.group.is_empty() && at.resource == "pods" && at.subresource.is_empty()) {
            return Ok(());
        }
        let tolerations = &mut request.object["spec"]["tolerations"];
        if !tolerations.is_array() {
            *tolerations = json!([]);
        }
        let Some(list) = tolerations.as_array_mut() else { return Ok(()) };
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            if !list.iter().any(|t| tolerates_no_execute(t, key)) {
                list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
            }
        }
        Ok(())
    }
}

fn tolerates_no_execute(toleration: &Value, key: &str) -> bool {
    let given = toleration["key"].as_str().unwrap_or_default();
    let effect = toleration["effect"].as_str().unwrap_or_default();
    (given.is_empty() || given == key) && (effect.is_empty() || effect == "NoExecute")
}

/// A new node takes no pods until it is found ready.
pub struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, _reader: &dyn Reader) -> Result<(), ApiError> {
        if !creates(request, "", "nodes") {
            return Ok(());
        }
        let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        let taints = &mut request.object["spec"]["taints"];
        if !taints.is_array() {
            *taints = json!([]);
        }
        if let Some(list) = taints.as_array_mut()
            && !list.iter().any(|t| t["key"] == taint["key"] && t["effect"] == taint["effect"])
        {
            list.push(taint);
        }
        Ok(())
    }
}
