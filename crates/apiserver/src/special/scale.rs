//! `scale`: the replicas of any resource, as `autoscaling/v1 Scale`.

use apimachinery::{ApiError, FieldError, FieldPath, Object, go, meta, selector::LabelSelector, structure};
use bytes::Bytes;
use kinds::{Resource, ScalePaths};
use serde_json::{Value, json};

use crate::{
    Response,
    catalogue::Served,
    encoding, fields, negotiate,
    negotiate::Offer,
    options, respond,
    server::{Call, Inner},
    shape,
    verbs::{
        apply, existing,
        patch::Sort,
        update::{self, Asked, View},
    },
};

fn at<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    path.trim_start_matches('.')
        .split('.')
        .try_fold(object, |node, name| node.get(name))
        .filter(|v| !v.is_null())
}

fn set(object: &mut Object, path: &str, value: Value) {
    let mut node = object;
    for name in path.trim_start_matches('.').split('.') {
        if !node.is_object() {
            *node = json!({});
        }
        node = &mut node[name];
    }
    *node = value;
}

fn paths(served: &Served) -> Result<&ScalePaths, ApiError> {
    let scale = served.resource.subresource("scale").and_then(|s| s.scale.as_ref());
    scale.ok_or_else(|| ApiError::internal("the resource has no scale"))
}

/// The Scale of an object.
fn scale_of(served: &Served, object: &Object) -> Result<Object, ApiError> {
    let paths = paths(served)?;
    let replicas = at(object, &paths.spec_replicas);
    if replicas.is_none() && !served.resource.builtin {
        return Err(ApiError::internal(format!(
            "the spec replicas field {:?} does not exist",
            format!(".{}", paths.spec_replicas.trim_start_matches('.'))
        )));
    }
    let mut status =
        json!({"replicas": at(object, &paths.status_replicas).cloned().unwrap_or_else(|| 0.into())});
    if let Some(selector) = paths.selector.as_deref().and_then(|p| at(object, p)) {
        let text = match selector {
            Value::String(text) => text.clone(),
            other if other.get("matchLabels").is_some() || other.get("matchExpressions").is_some() => {
                LabelSelector::from_object(other).map_err(ApiError::internal)?.to_string()
            }
            other => LabelSelector::from_map(other).to_string(),
        };
        if !text.is_empty() {
            status["selector"] = text.into();
        }
    }
    let mut metadata = json!({
        "name": meta::name(object), "uid": meta::uid(object),
        "resourceVersion": meta::resource_version(object), "creationTimestamp": meta::creation_timestamp(object),
    });
    if served.resource.namespaced {
        metadata["namespace"] = meta::namespace(object).into();
    }
    let mut spec = json!({});
    if let Some(replicas) = replicas.filter(|r| **r != 0) {
        spec["replicas"] = replicas.clone();
    }
    Ok(
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}),
    )
}

/// GET
pub(crate) async fn get(inner: &Inner, call: &Call, served: &Served) -> Result<Response, ApiError> {
    let media = call.media(Offer::Plain)?;
    let entry = existing(inner, served, &call.info.namespace, &call.info.name)?;
    let entry = inner.view_one(served, entry).await?;
    Ok(respond::document(200, media, &scale_of(served, &served.object(&entry)?)?))
}

/// Admission is asked about the Scale, not about what it belongs to.
struct AsScale<'a>(&'a Served);

impl View for AsScale<'_> {
    fn of(&self, object: &Object) -> Result<Object, ApiError> {
        scale_of(self.0, object)
    }

    fn put(&self, object: &mut Object, view: &Object) -> Result<(), ApiError> {
        let path = &paths(self.0)?.spec_replicas;
        let replicas = wanted(self.0, view)?;
        if at(object, path).and_then(Value::as_i64).unwrap_or_default() != replicas {
            set(object, path, replicas.into());
        }
        Ok(())
    }
}

/// How Go names a value that does not fit a number.
fn unmarshalled(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("number {number}"),
        other => structure::json_type(other).to_owned(),
    }
}

fn wanted(served: &Served, scale: &Object) -> Result<i64, ApiError> {
    let path = FieldPath::root().child("spec").child("replicas");
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        value => value.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal {} into Go struct field ScaleSpec.spec.replicas of type int32",
                unmarshalled(value)
            ))
        })?,
    };
    // Custom resources are asked themselves: see [`custom_errors`].
    if replicas < 0 && served.resource.builtin {
        let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(ApiError::invalid("autoscaling", "Scale", meta::name(scale), &[error]));
    }
    Ok(replicas)
}

/// What is wrong with the numbers of replicas in a custom resource that can be scaled.
///
/// Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresource/validator.go`.
pub(crate) fn custom_errors(resource: &Resource, object: &Object) -> Vec<FieldError> {
    let Some(paths) = resource.subresource("scale").and_then(|s| s.scale.as_ref()) else { return Vec::new() };
    let check = |path: &str| {
        let full = format!(".{}", path.trim_start_matches('.'));
        if let Some(odd) = no_map_on_the_way(object, path) {
            let (shown, kind) = (go::print(odd), go_kind(odd)?);
            let why = format!(
                "{full} accessor error: {shown} is of the type {kind}, expected map[string]interface{{}}"
            );
            return Some(FieldError::invalid(&FieldPath::from(&*full), 0, why));
        }
        let value = at(object, path)?;
        let (number, why) = match value.as_i64() {
            Some(number) if number < 0 => (number, "should be a non-negative integer".to_owned()),
            Some(number) if number > i64::from(i32::MAX) => {
                (number, format!("should be less than or equal to {}", i32::MAX))
            }
            Some(_) => return None,
            None => {
                let kind = go_kind(value)?;
                let shown = go::print(value);
                (0, format!("{full} accessor error: {shown} is of the type {kind}, expected int64"))
            }
        };
        Some(FieldError::invalid(&FieldPath::from(&*full), number, why))
    };
    [&paths.spec_replicas, &paths.status_replicas].into_iter().filter_map(|path| check(path)).collect()
}

/// What a path goes through that has no fields.
fn no_map_on_the_way<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    let mut node = object;
    for name in path.trim_start_matches('.').split('.') {
        if !node.is_object() {
            return Some(node);
        }
        node = node.get(name)?;
    }
    None
}

/// Go's name of the type that a value was decoded into; `None` for null.
fn go_kind(value: &Value) -> Option<&'static str> {
    Some(match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Null => return None,
    })
}

/// An applied Scale as a configuration of the object itself: its number of replicas and nothing else.
fn configuration(
    served: &Served,
    call: &mut Call,
    options: &options::Write,
    body: &Bytes,
) -> Result<Object, ApiError> {
    let scale = apply::configuration(call, options, body)?;
    if scale["kind"] != "Scale" || scale["apiVersion"] != "autoscaling/v1" {
        let text = |name: &str| scale[name].as_str().unwrap_or_default().to_owned();
        return Err(ApiError::bad_request(format!(
            "invalid object type: {}, Kind={}",
            text("apiVersion"),
            text("kind")
        )));
    }
    let mut config = json!({
        "apiVersion": served.api_version, "kind": &*served.resource.kind, "metadata": {"name": meta::name(&scale)},
    });
    for name in ["resourceVersion", "uid"] {
        if let Some(value) = scale["metadata"].get(name) {
            config["metadata"][name] = value.clone();
        }
    }
    if scale["spec"].get("replicas").is_some() {
        set(&mut config, &paths(served)?.spec_replicas, wanted(served, &scale)?.into());
    }
    Ok(config)
}

/// Who scales is noted without a time; and 0 replicas, which a Scale does not tell from none, belong to nobody.
///
/// Source: `k8s.io/apimachinery/pkg/util/managedfields/scalehandler.go`.
fn note_scaling(new: &mut Object, old: &Object, path: &str) {
    let count = |object: &Object| at(object, path).and_then(Value::as_i64).unwrap_or_default();
    let emptied = count(new) == 0 && count(old) != 0;
    let Some(entries) = new["metadata"].get_mut("managedFields").and_then(Value::as_array_mut) else {
        return;
    };
    entries.retain(|entry| !(emptied && entry["subresource"] == "scale"));
    for entry in entries.iter_mut().filter(|entry| entry["subresource"] == "scale") {
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("time");
        }
    }
}

/// PUT and PATCH
pub(crate) async fn write(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Plain)?;
    let patching = call.info.verb == "patch";
    let kind = if patching { "PatchOptions" } else { "UpdateOptions" };
    let sort = if patching { Some(Sort::of(&call.headers, true)?) } else { None };
    let options = options::Write::parse(&call.query, kind, sort == Some(Sort::Apply))?;
    if let Some(sort) = sort {
        sort.note(call, body);
    }
    let config = match sort {
        Some(Sort::Apply) => Some(configuration(served, call, &options, body)?),
        _ => None,
    };
    let put = match sort {
        Some(_) => None,
        None => {
            let encoding = negotiate::body(&call.headers)?;
            let kind = ("autoscaling/v1", "Scale");
            Some(shape::foreign(served, body, encoding, kind, options.validation, call)?)
        }
    };
    if let Some(put) = &put
        && !meta::name(put).is_empty()
        && meta::name(put) != call.info.name
    {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::name(put),
            call.info.name
        )));
    }
    let paths = paths(served)?.clone();
    let tracker = fields::Tracker::new(call, served, &options);
    let asked = Asked::View(&AsScale(served));
    let changed = update::change_asking(inner, call, served, &options, asked, |old, entry| {
        if let Some(config) = &config {
            let mut new = tracker.apply(Some(old), config, options.force)?.object;
            note_scaling(&mut new, old, &paths.spec_replicas);
            if meta::resource_version(&new) == encoding::revision(&entry.value) {
                new["metadata"]["resourceVersion"] = "".into();
            }
            return Ok(new);
        }
        let now = scale_of(served, old)?;
        let scale = match (sort, &put) {
            (Some(sort), _) => {
                let mut patched = sort.apply(&now, body, &apimachinery::Schema::any())?;
                // Unchanged by the patch: not a precondition.
                if meta::resource_version(&patched) == encoding::revision(&entry.value) {
                    patched["metadata"]["resourceVersion"] = "".into();
                }
                patched
            }
            (None, Some(put)) => put.clone(),
            (None, None) => return Err(ApiError::internal("no scale was sent")),
        };
        let mut new = old.clone();
        set(&mut new, &paths.spec_replicas, wanted(served, &scale)?.into());
        tracker.update(Some(old), &mut new);
        note_scaling(&mut new, old, &paths.spec_replicas);
        new["metadata"]["resourceVersion"] = meta::resource_version(&scale).into();
        Ok(new)
    })
    .await?;
    let mut object = changed.object;
    object["metadata"]["resourceVersion"] = changed.revision.into();
    Ok(respond::document(200, media, &scale_of(served, &object)?))
}
