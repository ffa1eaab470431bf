//! `pods/NAME/binding` (and `bindings`): a pod gets its node, once.

use apimachinery::{ApiError, Object, meta, time};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Response, admit,
    catalogue::Served,
    negotiate,
    negotiate::Offer,
    options, respond,
    server::{Call, Inner},
    shape,
    verbs::update::{self, Asked},
};

/// POST of a Binding. `pods` is the pod resource, whatever the path was.
pub(crate) async fn bind(
    inner: &Inner,
    call: &mut Call,
    pods: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Plain)?;
    let options = options::Write::parse(&call.query, "CreateOptions", false)?;
    let encoding = negotiate::body(&call.headers)?;
    let mut binding = shape::foreign(pods, body, encoding, ("v1", "Binding"), options.validation, call)?;
    let mut write = admit::Write::new(call, pods, "CREATE", admit::Options::Write(&options));
    write.kind = admit::Kind::of(&pods.resource, "binding");
    if write.attributes.name.is_empty() {
        meta::name(&binding).clone_into(&mut write.attributes.name);
    }
    write.mutate(inner, call, &mut binding, None).await?;
    let name = meta::name(&binding).to_owned();
    if call.info.name.is_empty() {
        // Made in a collection, it is a new object, to which nobody gives a uid.
        binding["metadata"]["uid"] = Value::Null;
        call.info.name.clone_from(&name);
    } else if !name.is_empty() && name != call.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let target = &binding["target"];
    let kind = target["kind"].as_str().unwrap_or_default();
    let node = target["name"].as_str().unwrap_or_default().to_owned();
    let refuse = |field: &str,
                  error: fn(&apimachinery::FieldPath, Value) -> apimachinery::FieldError,
                  value: Value| {
        let path = apimachinery::FieldPath::root().child("target").child(field);
        // Upstream gives the field's error as it is, without a status.
        Err(ApiError::other(500, "", error(&path, value).to_string()))
    };
    if !matches!(kind, "" | "Node") {
        return refuse(
            "kind",
            |p, v| apimachinery::FieldError::not_supported(p, v, &["Node", "<empty>"]),
            kind.into(),
        );
    }
    if node.is_empty() {
        return refuse("name", |p, _| apimachinery::FieldError::required(p, ""), Value::Null);
    }
    write.validate(inner, call, &mut binding, None).await?;
    let now = time::format_time(call.now);
    call.info.subresource = "binding".to_owned();
    let pod = call.info.name.clone();
    let conflict = |why: &str| ApiError::conflict("", "pods/binding", &pod, why);
    update::change_asking(inner, call, pods, &options, Asked::Nothing, |old, _| {
        let (uid, revision) = (meta::uid(&binding), meta::resource_version(&binding));
        if !uid.is_empty() && uid != meta::uid(old) {
            return Err(update::other_uid(&pods.resource, meta::namespace(old), &pod, uid, meta::uid(old)));
        }
        if meta::deletion_timestamp(old).is_some() {
            return Err(conflict(&format!("pod {pod} is being deleted, cannot be assigned to a host")));
        }
        let bound = old["spec"]["nodeName"].as_str().unwrap_or_default();
        if !bound.is_empty() {
            return Err(conflict(&format!("pod {pod} is already assigned to node {bound:?}")));
        }
        if old["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
            return Err(conflict(&format!("pod {pod} has non-empty .spec.schedulingGates")));
        }
        let mut new = old.clone();
        new["metadata"]["resourceVersion"] = revision.into();
        new["spec"]["nodeName"] = node.as_str().into();
        for (key, value) in meta::annotations(&binding) {
            if !new["metadata"]["annotations"].is_object() {
                new["metadata"]["annotations"] = json!({});
            }
            new["metadata"]["annotations"][key] = value.into();
        }
        set_condition(
            &mut new,
            &json!({
                "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
            }),
        );
        Ok(new)
    })
    .await?;
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    call.note_status(&status);
    Ok(respond::document(201, media, &status))
}

/// Puts a condition in place of the one of its type.
pub(crate) fn set_condition(object: &mut Object, condition: &Value) {
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    let status = &mut object["status"];
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(list) = status["conditions"].as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(found) => *found = condition.clone(),
        None => list.push(condition.clone()),
    }
}
