//! ResourceQuota: what a namespace may use altogether.
//!
//! The charge is part of the write: the quota's `status.used` is raised in the same commit that stores the object, so a
//! charge without an object, or an object without its charge, cannot be. The control loop lowers it again.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/resourcequota`.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{ApiError, Object, quantity::Quantity};
use async_trait::async_trait;
use kinds::quota::{
    scopes,
    usage::{Amounts, counts, usage},
};
use serde_json::{Value, json};

use super::forbidden;
use crate::{Admission, AdmissionRequest, Companion, Reader};

/// See the module.
pub struct ResourceQuota;

/// Every container has to name these where a quota limits them.
const NAMED_BY_CONTAINERS: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        if request.attributes.namespace.is_empty() || !concerns(request) {
            return Ok(());
        }
        let mut quotas = reader.list("", "resourcequotas", &request.attributes.namespace);
        quotas.sort_by(|a, b| a["metadata"]["name"].as_str().cmp(&b["metadata"]["name"].as_str()));
        let mut charges = Vec::new();
        for quota in quotas {
            charges.extend(charge(request, &quota)?);
        }
        request.companions.extend(charges);
        Ok(())
    }
}

/// The writes that can raise what is used.
fn concerns(request: &AdmissionRequest<'_>) -> bool {
    let at = request.attributes;
    let (resource, subresource) = (at.resource.as_str(), at.subresource.as_str());
    if resource == "events" {
        return false;
    }
    match (at.group.as_str(), resource, subresource, request.operation) {
        ("", "pods", "", "UPDATE") => {
            // A pod that gets or loses a deadline changes its scope.
            let deadline =
                |pod: &Object| pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0);
            request.old.is_some_and(|old| deadline(old) != deadline(request.object))
        }
        ("", "pods", "resize", "UPDATE") | ("", "services" | "persistentvolumeclaims", "", "UPDATE") => true,
        (_, _, "", "CREATE") => true,
        _ => false,
    }
}

fn read(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

fn listed<'k>(amounts: impl Iterator<Item = (&'k String, Quantity)>) -> String {
    amounts.map(|(key, amount)| format!("{key}={amount}")).collect::<Vec<_>>().join(",")
}

/// What the write costs one quota, if anything.
fn charge(request: &AdmissionRequest<'_>, quota: &Object) -> Result<Option<Companion>, ApiError> {
    let at = request.attributes;
    let (group, plural) = (at.group.as_str(), at.resource.as_str());
    let name = quota["metadata"]["name"].as_str().unwrap_or_default();
    let hard = read(&quota["status"]["hard"]);
    let keys: Vec<&String> = hard.keys().filter(|key| counts(group, plural, key)).collect();
    if keys.is_empty() || !scopes::matches(&quota["spec"], group, plural, request.object) {
        return Ok(None);
    }
    if plural == "pods" && group.is_empty() {
        named_by_containers(request, name, &keys)?;
    }
    let used = read(&quota["status"]["used"]);
    if keys.iter().any(|key| !used.contains_key(*key)) {
        let all: Vec<&str> = keys.iter().map(|k| k.as_str()).collect();
        let why = format!("status unknown for quota: {name}, resources: {}", all.join(","));
        return Err(forbidden(request, &why));
    }
    let now = request.now.timestamp();
    let wanted = usage(group, plural, request.object, now);
    let negative: Vec<&str> = wanted.iter().filter(|(_, q)| q.sign() < 0).map(|(k, _)| k.as_str()).collect();
    if !negative.is_empty() {
        let why = format!("quota usage is negative for resource(s): {}", negative.join(","));
        return Err(forbidden(request, &why));
    }
    let before = match request.old {
        Some(old) if scopes::matches(&quota["spec"], group, plural, old) => usage(group, plural, old, now),
        _ => Amounts::new(),
    };
    let more: BTreeMap<&String, Quantity> = wanted
        .iter()
        .filter(|(key, _)| hard.contains_key(*key))
        .map(|(key, amount)| (key, before.get(key).map_or(*amount, |b| amount.minus(b))))
        .filter(|(_, amount)| amount.sign() > 0)
        .collect();
    if more.is_empty() {
        return Ok(None);
    }
    let has = |key: &String| used.get(key).copied().unwrap_or(Quantity::ZERO);
    let over: Vec<&String> = more
        .iter()
        .filter(|(key, amount)| has(key).plus(amount) > hard[**key])
        .map(|(key, _)| *key)
        .collect();
    if !over.is_empty() {
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            listed(over.iter().map(|key| (*key, more[*key]))),
            listed(over.iter().map(|key| (*key, has(key)))),
            listed(over.iter().map(|key| (*key, hard[*key]))),
        );
        return Err(forbidden(request, &why));
    }
    let mut charged = quota.clone();
    if !charged["status"]["used"].is_object() {
        charged["status"]["used"] = json!({});
    }
    for (key, amount) in &more {
        charged["status"]["used"][key.as_str()] = has(key).plus(amount).to_string().into();
    }
    Ok(Some(Companion { group: "", resource: "resourcequotas", object: charged }))
}

/// Where CPU or memory is limited, every container has to say how much of it it wants, unless the pod says so as a whole.
fn named_by_containers(
    request: &AdmissionRequest<'_>,
    quota: &str,
    keys: &[&String],
) -> Result<(), ApiError> {
    let spec = &request.object["spec"];
    if ["requests", "limits"].iter().any(|w| spec["resources"][*w].as_object().is_some_and(|m| !m.is_empty()))
    {
        return Ok(());
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for key in keys.iter().filter(|key| NAMED_BY_CONTAINERS.contains(&key.as_str())) {
        let (which, resource) = match key.split_once('.') {
            Some((which, resource)) => (which, resource),
            None => ("requests", key.as_str()),
        };
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                if container["resources"][which].get(resource).is_none() {
                    missing.entry(key).or_default().insert(container["name"].as_str().unwrap_or_default());
                }
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let each: Vec<String> = missing
        .iter()
        .map(|(key, names)| format!("{key} for: {}", names.iter().copied().collect::<Vec<_>>().join(",")))
        .collect();
    Err(forbidden(request, &format!("failed quota: {quota}: must specify {}", each.join("; "))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Attributes, memory::Memory};

    fn quota(hard: Value, used: Value) -> Memory {
        let memory = Memory::default();
        let object = json!({
            "metadata": {"name": "q", "namespace": "ns", "resourceVersion": "7"}, "status": {"hard": hard, "used": used},
        });
        memory.put("", "resourcequotas", object);
        memory
    }

    async fn ask(
        memory: &Memory,
        resource: &str,
        object: Value,
        old: Option<&Value>,
    ) -> Result<Vec<Companion>, String> {
        let attributes = Attributes {
            group: String::new(),
            resource: resource.to_owned(),
            namespace: "ns".to_owned(),
            ..Attributes::default()
        };
        let kind = kinds::find("", "v1", resource).map(Arc::as_ref).expect("a kind");
        let (mut object, mut companions) = (object, Vec::new());
        let mut request = AdmissionRequest {
            attributes: &attributes,
            resource: kind,
            operation: if old.is_some() { "UPDATE" } else { "CREATE" },
            object: &mut object,
            old,
            dry_run: false,
            now: chrono::DateTime::default(),
            warnings: &mut Vec::new(),
            audit: None,
            companions: &mut companions,
        };
        ResourceQuota.validate(&mut request, memory).await.map_err(|e| e.message)?;
        Ok(companions)
    }

    fn pod(cpu: Option<&str>) -> Value {
        let resources = cpu.map_or_else(|| json!({}), |cpu| json!({"requests": {"cpu": cpu}}));
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[tokio::test]
    async fn a_new_object_is_charged_to_the_quota_as_it_was_read() {
        let memory = quota(json!({"pods": "5", "cpu": "1"}), json!({"pods": "2", "cpu": "250m"}));
        let charged = ask(&memory, "pods", pod(Some("500m")), None).await.expect("enough");
        assert_eq!(charged.len(), 1);
        assert_eq!(charged[0].object["status"]["used"], json!({"pods": "3", "cpu": "750m"}));
        assert_eq!(charged[0].object["metadata"]["resourceVersion"], "7");
    }

    #[tokio::test]
    async fn what_is_too_much_is_told_in_upstream_s_words() {
        let memory = quota(json!({"pods": "5", "cpu": "1"}), json!({"pods": "5", "cpu": "900m"}));
        assert_eq!(
            ask(&memory, "pods", pod(Some("500m")), None).await.expect_err("too much"),
            "pods \"p\" is forbidden: exceeded quota: q, requested: cpu=500m,pods=1, used: cpu=900m,pods=5, limited: cpu=1,pods=5"
        );
        assert_eq!(
            ask(&memory, "pods", pod(None), None).await.expect_err("not named"),
            "pods \"p\" is forbidden: failed quota: q: must specify cpu for: c"
        );
        let unknown = quota(json!({"pods": "5"}), json!({}));
        assert_eq!(
            ask(&unknown, "pods", pod(None), None).await.expect_err("not counted yet"),
            "pods \"p\" is forbidden: status unknown for quota: q, resources: pods"
        );
    }

    #[tokio::test]
    async fn a_change_is_charged_for_what_it_adds() {
        let memory = quota(json!({"services.nodeports": "2"}), json!({"services.nodeports": "1"}));
        let service =
            |kind: &str| json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": [{"port": 1}]}});
        let old = service("ClusterIP");
        let charged = ask(&memory, "services", service("NodePort"), Some(&old)).await.expect("enough");
        assert_eq!(charged[0].object["status"]["used"]["services.nodeports"], "2");
        assert!(ask(&memory, "services", old.clone(), Some(&old)).await.expect("nothing").is_empty());
        assert!(
            ask(&memory, "configmaps", json!({"metadata": {"name": "c"}}), None)
                .await
                .expect("nothing")
                .is_empty()
        );
    }
}
