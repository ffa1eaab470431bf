//! PodResizeValidator: a running pod does not grow beyond its node.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/podresize`.

use apimachinery::{ApiError, quantity::Quantity};
use async_trait::async_trait;
use kinds::quota::declared;
use serde_json::{Value, json};

use super::forbidden;
use crate::{Admission, AdmissionRequest, Reader};

/// See the module.
pub struct PodResizeValidator;

fn amount(value: &Value) -> Quantity {
    value.as_str().and_then(|text| Quantity::parse(text).ok()).unwrap_or(Quantity::ZERO)
}

/// What the pod asks for beyond what the node has, in upstream's words: CPU in thousandths, memory in bytes.
fn beyond(pod: &Value, allocatable: &Value) -> Vec<String> {
    let requests = declared(pod, "requests");
    let mut found = Vec::new();
    for name in ["cpu", "memory"] {
        let own = requests.get(name).copied().unwrap_or(Quantity::ZERO);
        let (asked, there) = (own.plus(&amount(&pod["spec"]["overhead"][name])), amount(&allocatable[name]));
        if asked > there {
            let shown = |amount: Quantity| if name == "cpu" { amount.milli() } else { amount.units() };
            found.push(format!("{name}, requested: {}, allocatable: {}", shown(asked), shown(there)));
        }
    }
    found
}

fn refuse(request: &AdmissionRequest<'_>, why: &str, reason: &str) -> ApiError {
    let mut error = forbidden(request, why);
    if let Some(details) = error.details.as_mut() {
        details["causes"] = json!([{"reason": reason}]);
    }
    error
}

#[async_trait]
impl Admission for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        let at = request.attributes;
        let resize = at.group.is_empty() && at.resource == "pods" && at.subresource == "resize";
        let Some(old) = request.old.filter(|_| resize && request.operation == "UPDATE") else {
            return Ok(());
        };
        let name = request.object["spec"]["nodeName"].as_str().unwrap_or_default();
        if name.is_empty() || old["metadata"]["generation"] == request.object["metadata"]["generation"] {
            return Ok(());
        }
        let Some(node) = reader.get("", "nodes", "", name) else {
            return Err(forbidden(request, &format!("node {name:?} not found")));
        };
        if let Some(system) =
            node["metadata"]["labels"]["kubernetes.io/os"].as_str().filter(|os| *os != "linux")
        {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return Err(refuse(request, &why, "UnsupportedPlatform"));
        }
        let found = beyond(request.object, &node["status"]["allocatable"]);
        if found.is_empty() {
            return Ok(());
        }
        let why = format!("node didn't have enough allocatable resources: {}", found.join("; "));
        Err(refuse(request, &why, "NodeCapacity"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_the_node_is_told_in_its_units() {
        let pod = json!({"spec": {
            "overhead": {"cpu": "100m"},
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
        }});
        assert_eq!(
            beyond(&pod, &json!({"cpu": "1", "memory": "1Gi"})),
            ["cpu, requested: 1100, allocatable: 1000"]
        );
        assert!(beyond(&pod, &json!({"cpu": "2", "memory": "2Gi"})).is_empty());
    }
}
