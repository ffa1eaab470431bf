//! `pods/NAME/eviction`: a deletion that disruption budgets may refuse.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go`.

use std::sync::Arc;

use access::Reader as _;
use apimachinery::{ApiError, Object, meta, selector::LabelSelector, time};
use bytes::Bytes;
use serde_json::{Value, json};

use super::binding::set_condition;
use crate::{
    Response, admit,
    catalogue::Served,
    negotiate,
    negotiate::Offer,
    options, respond,
    server::{Call, Inner},
    shape,
    verbs::{
        delete, existing,
        update::{self, Asked},
    },
};

/// POST of an Eviction.
pub(crate) async fn evict(
    inner: &Inner,
    call: &mut Call,
    pods: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Plain)?;
    let write = options::Write::parse(&call.query, "CreateOptions", false)?;
    let encoding = negotiate::body(&call.headers)?;
    let mut eviction =
        shape::foreign(pods, body, encoding, ("policy/v1", "Eviction"), write.validation, call)?;
    let asked = admit::Write::new(call, pods, "CREATE", admit::Options::Write(&write));
    asked.mutate(inner, call, &mut eviction, None).await?;
    if meta::name(&eviction) != call.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = match &eviction["deleteOptions"] {
        Value::Null => options::Delete::default(),
        given => options::Delete::parse(Some(given), &call.query)?,
    };
    let dry_run = write.dry_run || options.dry_run;
    let options = options::Delete { dry_run, ..options };
    let name = call.info.name.clone();
    let namespace = call.info.namespace.clone();
    asked.validate(inner, call, &mut eviction, None).await?;
    let pod = pods.object(&*existing(inner, pods, &namespace, &name)?)?;
    if needs_budget(&pod) {
        spend_budget(inner, call, &pod, dry_run).await?;
        if !dry_run {
            mark(inner, call, pods).await?;
        }
    }
    delete::evicted(inner, call, pods, &options).await?;
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    call.note_status(&status);
    Ok(respond::document(201, media, &status))
}

/// A pod that never ran, has ended or is going disrupts nobody.
fn needs_budget(pod: &Object) -> bool {
    !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        && meta::deletion_timestamp(pod).is_none()
}

fn budget_of(inner: &Inner, pod: &Object) -> Result<Option<Arc<Object>>, ApiError> {
    let budgets = inner.reader.list("policy", "poddisruptionbudgets", meta::namespace(pod));
    let mut matching = budgets.into_iter().filter(|budget| {
        let selector = &budget["spec"]["selector"];
        !selector.is_null() && LabelSelector::from_object(selector).is_ok_and(|s| s.matches_object(pod))
    });
    let first = matching.next();
    if matching.next().is_some() {
        return Err(ApiError::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    Ok(first)
}

fn ready(pod: &Object) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn too_many(why: &str) -> ApiError {
    ApiError::other(429, "TooManyRequests", why)
}

/// Takes one disruption from the pod's budget, or refuses with 429.
async fn spend_budget(inner: &Inner, call: &mut Call, pod: &Object, dry_run: bool) -> Result<(), ApiError> {
    let Some(budget) = budget_of(inner, pod)? else { return Ok(()) };
    let served = inner
        .preferred("policy", "poddisruptionbudgets")
        .ok_or_else(|| ApiError::internal("disruption budgets are not served"))?;
    let enough = budget["status"]["currentHealthy"].as_i64() >= budget["status"]["desiredHealthy"].as_i64()
        && budget["status"]["desiredHealthy"].as_i64() > Some(0);
    let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    if !ready(pod) && (always || enough) {
        return Ok(());
    }
    let now = time::format_time(call.now);
    let pod_name = meta::name(pod).to_owned();
    let saved = call.info.clone();
    "policy".clone_into(&mut call.info.group);
    "poddisruptionbudgets".clone_into(&mut call.info.resource);
    meta::name(&budget).clone_into(&mut call.info.name);
    "status".clone_into(&mut call.info.subresource);
    let options = options::Write { dry_run, ..options::Write::default() };
    let spent = update::change(inner, call, &served, &options, |old, _| {
        let name = meta::name(old);
        if meta::generation(old) > old["status"]["observedGeneration"].as_i64().unwrap_or_default() {
            let mut error = too_many("Cannot evict pod as it would violate the pod's disruption budget.");
            let why = format!("The disruption budget {name} is still being processed by the server.");
            error.details = Some(json!({"causes": [{"reason": "DisruptionBudget", "message": why}]}));
            return Err(error.retry_after(10));
        }
        let allowed = old["status"]["disruptionsAllowed"].as_i64().unwrap_or_default();
        if allowed <= 0 {
            let mut error = too_many("Cannot evict pod as it would violate the pod's disruption budget.");
            let why = format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                old["status"]["desiredHealthy"], old["status"]["currentHealthy"]
            );
            error.details = Some(json!({"causes": [{"reason": "DisruptionBudget", "message": why}]}));
            return Err(error);
        }
        let mut new = old.clone();
        new["status"]["disruptionsAllowed"] = (allowed - 1).into();
        if !new["status"]["disruptedPods"].is_object() {
            new["status"]["disruptedPods"] = json!({});
        }
        new["status"]["disruptedPods"][&pod_name] = now.as_str().into();
        Ok(new)
    })
    .await;
    call.info = saved;
    spent.map(|_| ())
}

/// Says on the pod why it goes.
async fn mark(inner: &Inner, call: &mut Call, pods: &Served) -> Result<(), ApiError> {
    let now = time::format_time(call.now);
    let saved = call.info.clone();
    "status".clone_into(&mut call.info.subresource);
    let options = options::Write::default();
    let marked = update::change_asking(inner, call, pods, &options, Asked::Nothing, |old, _| {
        let mut new = old.clone();
        set_condition(
            &mut new,
            &json!({
                "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now,
            }),
        );
        Ok(new)
    })
    .await;
    call.info = saved;
    marked.map(|_| ())
}
