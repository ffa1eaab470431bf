//! Which objects a ResourceQuota with scopes is about.

use serde_json::Value;

use super::pod;

/// Whether a quota (its `spec`) is about an object of a resource. A quota with scopes is about pods, or about claims if its
/// scope is `VolumeAttributesClass`; without, about everything.
#[must_use]
pub fn matches(spec: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let named = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut named = named.map(|scope| (scope, "Exists", &Value::Null));
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let mut selected = selected.map(|term| {
        let text = |field: &str| term[field].as_str().unwrap_or_default();
        (text("scopeName"), text("operator"), &term["values"])
    });
    let holds = |(scope, operator, values): (&str, &str, &Value)| match (group, plural) {
        ("", "pods") => pod_in(object, scope, operator, values),
        ("", "persistentvolumeclaims") if scope == "VolumeAttributesClass" => {
            let mut names = vec![&object["spec"]["volumeAttributesClassName"]];
            names.push(&object["status"]["currentVolumeAttributesClassName"]);
            names.push(&object["status"]["modifyVolumeStatus"]["targetVolumeAttributesClassName"]);
            let names: Vec<&str> =
                names.into_iter().filter_map(Value::as_str).filter(|n| !n.is_empty()).collect();
            match operator {
                "Exists" => !names.is_empty(),
                "DoesNotExist" => names.is_empty(),
                "In" => names.iter().any(|name| among(values, name)),
                "NotIn" => !names.iter().any(|name| among(values, name)),
                _ => false,
            }
        }
        _ => false,
    };
    named.all(holds) && selected.all(holds)
}

fn among(values: &Value, name: &str) -> bool {
    values.as_array().into_iter().flatten().any(|v| v == name)
}

fn pod_in(object: &Value, scope: &str, operator: &str, values: &Value) -> bool {
    match scope {
        "Terminating" => pod::is_terminating(object),
        "NotTerminating" => !pod::is_terminating(object),
        "BestEffort" => pod::is_best_effort(object),
        "NotBestEffort" => !pod::is_best_effort(object),
        "CrossNamespacePodAffinity" => pod::looks_elsewhere(object),
        "PriorityClass" => {
            let class = object["spec"]["priorityClassName"].as_str().unwrap_or_default();
            match operator {
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                "In" => !class.is_empty() && among(values, class),
                "NotIn" => !among(values, class),
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_tell_pods_apart() {
        let deadline = json!({"spec": {"activeDeadlineSeconds": 0, "containers": []}});
        let limited = json!({"spec": {"containers": [{"resources": {"limits": {"memory": "1Mi"}}}]}});
        let of = |scope: &str, pod: &Value| matches(&json!({"scopes": [scope]}), "", "pods", pod);
        assert!(of("Terminating", &deadline) && !of("NotTerminating", &deadline));
        assert!(of("BestEffort", &deadline) && !of("BestEffort", &limited));
        assert!(of("NotBestEffort", &limited) && of("NotTerminating", &limited));
        let elsewhere = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"namespaces": ["other"]}]}}}});
        assert!(of("CrossNamespacePodAffinity", &elsewhere) && !of("CrossNamespacePodAffinity", &limited));
    }

    #[test]
    fn priority_classes_are_selected_by_name() {
        let pod = |class: &str| json!({"spec": {"priorityClassName": class}});
        let of = |operator: &str, class: &str| {
            let term = json!({"scopeName": "PriorityClass", "operator": operator, "values": ["high"]});
            matches(&json!({"scopeSelector": {"matchExpressions": [term]}}), "", "pods", &pod(class))
        };
        assert!(of("In", "high") && !of("In", "low") && !of("In", ""));
        assert!(of("NotIn", "low") && of("NotIn", "") && !of("NotIn", "high"));
        assert!(of("Exists", "low") && of("DoesNotExist", ""));
    }

    #[test]
    fn a_quota_with_scopes_is_about_pods_only() {
        assert!(!matches(&json!({"scopes": ["BestEffort"]}), "", "services", &json!({})));
        assert!(matches(&json!({}), "", "services", &json!({})));
    }
}
