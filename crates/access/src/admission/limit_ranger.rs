//! LimitRanger: what containers, pods and claims may ask for in a namespace, and what containers get that do not ask.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/limitranger`.

use std::{collections::BTreeMap, sync::Arc};

use apimachinery::{ApiError, Object, quantity::Quantity};
use async_trait::async_trait;
use kinds::quota::{declared, usage::Amounts};
use serde_json::{Map, Value, json};

use super::forbidden;
use crate::{Admission, AdmissionRequest, Reader};

/// Says what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// See the module.
pub struct LimitRanger;

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, reader: &dyn Reader) -> Result<(), ApiError> {
        if concerns(request) && request.attributes.resource == "pods" {
            for range in ranges(request, reader) {
                fill_in(request.object, &range);
            }
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
        for range in ranges(request, reader) {
            let wrong = match request.attributes.resource.as_str() {
                "pods" => check_pod(request.object, &range),
                _ => check_claim(request.object, &range),
            };
            match wrong.as_slice() {
                [] => {}
                [one] => return Err(forbidden(request, one)),
                many => return Err(forbidden(request, &format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

/// New pods and resized ones, and claims; nothing that is being deleted.
fn concerns(request: &AdmissionRequest<'_>) -> bool {
    let at = request.attributes;
    let leaves = request.old.is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null());
    at.group.is_empty()
        && !leaves
        && matches!(
            (at.resource.as_str(), at.subresource.as_str(), request.operation),
            ("pods", "", "CREATE")
                | ("pods", "resize", "UPDATE")
                | ("persistentvolumeclaims", "", "CREATE" | "UPDATE")
        )
}

fn ranges(request: &AdmissionRequest<'_>, reader: &dyn Reader) -> Vec<Arc<Object>> {
    reader.list("", "limitranges", &request.attributes.namespace)
}

fn limits<'v>(range: &'v Value, kind: &'v str) -> impl Iterator<Item = &'v Value> {
    let all = range["spec"]["limits"].as_array().into_iter().flatten();
    all.filter(move |limit| limit["type"] == *kind)
}

fn containers<'v>(pod: &'v Value, list: &str) -> &'v [Value] {
    pod["spec"][list].as_array().map_or(&[], Vec::as_slice)
}

/// Gives containers the default requests and limits that they do not name themselves.
fn fill_in(pod: &mut Object, range: &Value) {
    let mut defaults: [(&str, &str, Map<String, Value>); 2] =
        [("requests", "request", Map::new()), ("limits", "limit", Map::new())];
    for limit in limits(range, "Container") {
        for (from, (_, _, into)) in ["defaultRequest", "default"].into_iter().zip(&mut defaults) {
            into.extend(limit[from].as_object().cloned().unwrap_or_default());
        }
    }
    let mut said = Vec::new();
    for (list, words) in [("containers", "container"), ("initContainers", "init container")] {
        // Indexing would make a `null` of what is absent.
        let found = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in found.into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, word, amounts) in &defaults {
                let set = fill(container, field, amounts);
                if !set.is_empty() {
                    said.push(format!("{} {word} for {words} {name}", set.join(", ")));
                }
            }
        }
    }
    if !said.is_empty() {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = json!({});
        }
        pod["metadata"]["annotations"][ANNOTATION] =
            format!("LimitRanger plugin set: {}", said.join("; ")).into();
    }
}

/// The resources that were filled in.
fn fill(container: &mut Value, field: &str, amounts: &Map<String, Value>) -> Vec<String> {
    let has = |name: &String| container["resources"][field].get(name).is_some();
    let missing: Vec<String> = amounts.keys().filter(|name| !has(name)).cloned().collect();
    if missing.is_empty() {
        return missing;
    }
    if !container["resources"].is_object() {
        container["resources"] = json!({});
    }
    if !container["resources"][field].is_object() {
        container["resources"][field] = json!({});
    }
    for name in &missing {
        container["resources"][field][name] = amounts[name].clone();
    }
    missing
}

fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

fn check_pod(pod: &Value, range: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let all = range["spec"]["limits"].as_array().into_iter().flatten();
    for limit in all {
        match limit["type"].as_str() {
            Some("Container") => {
                for container in containers(pod, "containers").iter().chain(containers(pod, "initContainers"))
                {
                    let asked = |field: &str| amounts(&container["resources"][field]);
                    check("Container", limit, &asked("requests"), &asked("limits"), &mut wrong);
                }
            }
            Some("Pod") => {
                check("Pod", limit, &declared(pod, "requests"), &declared(pod, "limits"), &mut wrong);
            }
            _ => {}
        }
    }
    wrong
}

fn check_claim(claim: &Value, range: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let mut wrong = Vec::new();
    let asked = amounts(&claim["spec"]["resources"]["requests"]);
    for limit in limits(range, KIND) {
        for (name, least) in amounts(&limit["min"]) {
            minimum(KIND, &name, least, &asked, &BTreeMap::new(), &mut wrong);
        }
        for (name, most) in amounts(&limit["max"]) {
            match asked.get(&name) {
                None => {
                    wrong.push(format!("maximum {name} usage per {KIND} is {most}.  No request is specified"))
                }
                Some(request) if *request > most => {
                    wrong
                        .push(format!("maximum {name} usage per {KIND} is {most}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
    wrong
}

fn check(kind: &str, limit: &Value, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    for (name, least) in amounts(&limit["min"]) {
        minimum(kind, &name, least, requests, limits, wrong);
    }
    for (name, most) in amounts(&limit["max"]) {
        let words = format!("maximum {name} usage per {kind} is {most}");
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => wrong.push(format!("{words}.  No limit is specified")),
            (Some(limit), _) if *limit > most => wrong.push(format!("{words}, but limit is {limit}")),
            (_, Some(request)) if *request > most => wrong.push(format!("{words}, but request is {request}")),
            _ => {}
        }
    }
    for (name, most) in amounts(&limit["maxLimitRequestRatio"]) {
        let words = format!("{name} max limit to request ratio per {kind} is {most}");
        let there = |list: &Amounts| list.get(&name).copied().filter(|q| !q.is_zero());
        match (there(requests), there(limits)) {
            (None, _) => wrong.push(format!("{words}, but no request is specified or request is 0")),
            (_, None) => wrong.push(format!("{words}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.to_f64() / request.to_f64();
                if ratio > most.to_f64() {
                    wrong.push(format!("{words}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

fn minimum(
    kind: &str,
    name: &str,
    least: Quantity,
    requests: &Amounts,
    limits: &Amounts,
    wrong: &mut Vec<String>,
) {
    let words = format!("minimum {name} usage per {kind} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => wrong.push(format!("{words}.  No request is specified")),
        (Some(request), _) if *request < least => wrong.push(format!("{words}, but request is {request}")),
        (_, Some(limit)) if *limit < least => wrong.push(format!("{words}, but limit is {limit}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limit: Value) -> Value {
        json!({"spec": {"limits": [limit]}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn containers_get_what_they_do_not_ask_for() {
        let mut object = pod(json!({"limits": {"cpu": "1"}}));
        let limit = json!({"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}});
        fill_in(&mut object, &range(limit));
        let resources = &object["spec"]["containers"][0]["resources"];
        assert_eq!(resources, &json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}));
        assert_eq!(
            object["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; memory limit for container c"
        );
    }

    #[test]
    fn too_much_and_too_little_are_told_in_upstream_s_words() {
        let limit = json!({"type": "Container", "max": {"cpu": "500m"}, "min": {"memory": "64Mi"}, "maxLimitRequestRatio": {"cpu": "2"}});
        let wrong = |resources: Value| check_pod(&pod(resources), &range(limit.clone()));
        assert_eq!(
            wrong(json!({"limits": {"cpu": "600m"}, "requests": {"cpu": "200m", "memory": "32Mi"}})),
            [
                "minimum memory usage per Container is 64Mi, but request is 32Mi",
                "maximum cpu usage per Container is 500m, but limit is 600m",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ]
        );
        assert_eq!(
            wrong(json!({})),
            [
                "minimum memory usage per Container is 64Mi.  No request is specified",
                "maximum cpu usage per Container is 500m.  No limit is specified",
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ]
        );
    }

    #[test]
    fn a_pod_is_measured_as_a_whole_and_a_claim_by_its_request() {
        let limit = json!({"type": "Pod", "max": {"memory": "1Gi"}});
        let both = json!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"memory": "600Mi"}}}, {"name": "b", "resources": {"limits": {"memory": "600Mi"}}},
        ]}});
        assert_eq!(
            check_pod(&both, &range(limit)),
            ["maximum memory usage per Pod is 1Gi, but limit is 1200Mi"]
        );
        let claim = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
        let limit =
            json!({"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}, "min": {"storage": "1Gi"}});
        assert_eq!(
            check_claim(&claim, &range(limit)),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
    }
}
