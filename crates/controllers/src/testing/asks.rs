//! Answers of the server that is not there: objects, lists and scales; what else there is to ask, a test answers itself.

use apimachinery::ApiError;
use serde_json::{Value, json};

use super::api::Api;
use crate::{
    ask::{Ask, Refusal},
    world::Kind,
};

pub(super) fn answer(api: &Api, ask: &Ask) -> Result<Value, Refusal> {
    let answer = match api.answered(ask) {
        Some(answer) => answer,
        None => read(api, ask),
    };
    answer.map_err(|error| Refusal {
        code: error.code,
        reason: error.reason.to_owned(),
        message: error.message,
    })
}

fn unknown() -> ApiError {
    ApiError::other(404, "NotFound", "the server could not find the requested resource")
}

/// The parts of `/apis/GROUP/VERSION/[namespaces/NAMESPACE/]PLURAL[/NAME[/SUBRESOURCE]]`.
fn read(api: &Api, ask: &Ask) -> Result<Value, ApiError> {
    let path = ask.path.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.split('/').skip(1).collect();
    if ask.body.is_some() || parts.len() < 3 {
        return Err(unknown());
    }
    let (group, version) = match parts.remove(0) {
        "api" => ("", parts.remove(0)),
        _ => (parts.remove(0), parts.remove(0)),
    };
    let namespace = if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.remove(0);
        parts.remove(0)
    } else {
        ""
    };
    let plural = parts.first().ok_or_else(unknown)?;
    let found = kinds::find(group, version, plural).ok_or_else(unknown)?;
    let kind = super::objects::kind_named(found);
    let Some(name) = parts.get(1) else {
        let items: Vec<Value> = api.list(&kind, namespace).iter().map(|o| Value::clone(o)).collect();
        return Ok(json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": api.revision().to_string()}, "items": items}));
    };
    let object = api.get(&kind, namespace, name).ok_or_else(|| ApiError::not_found(group, plural, name))?;
    match parts.get(2) {
        None => Ok(Value::clone(&object)),
        Some(&"scale") => Ok(scale(&object)),
        Some(_) => Err(unknown()),
    }
}

fn scale(object: &Value) -> Value {
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        metadata[field] = object["metadata"][field].clone();
    }
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector.join(",")}})
}

/// PUT of a scale.
pub(super) fn rescale(api: &Api, place: (&Kind, &str, &str), scale: &Value) -> Result<(), ApiError> {
    let body = json!({"metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]},
        "spec": {"replicas": scale["spec"]["replicas"]}});
    api.patch(place, crate::PatchKind::Merge, &body, "").map(|_| ())
}
