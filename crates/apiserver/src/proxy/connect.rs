//! Admission of CONNECT: its object is what the request asks for, as `PodExecOptions`, `PodProxyOptions` and the like.

use apimachinery::{ApiError, Object};
use serde_json::{Value, json};

use crate::{
    admit::{Options, Write},
    catalogue::Served,
    request::Query,
    server::{Call, Inner},
};

/// Asks admission. What it changes of the options of a stream counts; the path of a proxied request stays.
pub(super) async fn admit(inner: &Inner, call: &mut Call, served: &Served) -> Result<(), ApiError> {
    let write = Write::new(call, served, "CONNECT", Options::None);
    let mut object = options(call, &write);
    let before = object.clone();
    write.mutate(inner, call, &mut object, None).await?;
    write.validate(inner, call, &mut object, None).await?;
    if object != before && call.info.subresource != "proxy" {
        call.query = query(&object);
    }
    Ok(())
}

fn options(call: &Call, write: &Write<'_>) -> Object {
    let info = &call.info;
    let mut object = json!({"kind": &*write.kind.kind, "apiVersion": &*write.kind.version});
    if info.subresource == "proxy" {
        // A path ends with a slash where the request's does.
        let slashed = info.path.ends_with('/');
        match info.rest.as_str() {
            "" if slashed => object["path"] = "/".into(),
            "" => {}
            rest => object["path"] = format!("/{rest}{}", if slashed { "/" } else { "" }).into(),
        }
        return object;
    }
    if info.subresource == "portforward" {
        let ports: Vec<i32> = call.query.all("ports").filter_map(|p| p.parse().ok()).collect();
        if !ports.is_empty() {
            object["ports"] = json!(ports);
        }
        return object;
    }
    for stream in ["stdin", "stdout", "stderr", "tty"] {
        if super::kubelet::flag(&call.query, stream) {
            object[stream] = true.into();
        }
    }
    let container = call.query.text("container");
    if !container.is_empty() {
        object["container"] = container.into();
    }
    if info.subresource == "exec" {
        let words: Vec<&str> = call.query.all("command").collect();
        object["command"] = if words.is_empty() { Value::Null } else { json!(words) };
    }
    object
}

/// Options as the parameters of a request.
fn query(options: &Object) -> Query {
    let mut text = form_urlencoded::Serializer::new(String::new());
    for (name, value) in options.as_object().into_iter().flatten() {
        let mut add = |value: &Value| {
            match value {
                Value::String(value) => text.append_pair(name, value),
                Value::Bool(_) | Value::Number(_) => text.append_pair(name, &value.to_string()),
                _ => &mut text,
            };
        };
        match value {
            _ if matches!(name.as_str(), "kind" | "apiVersion") => {}
            Value::Array(list) => list.iter().for_each(add),
            value => add(value),
        }
    }
    Query::parse(&text.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parameters_again() {
        let changed = json!({"kind": "PodExecOptions", "command": ["sh", "-c", "a & b"], "stdin": true, "container": "c"});
        let query = query(&changed);
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "a & b"]);
        assert_eq!((query.text("stdin"), query.text("container"), query.get("kind")), ("true", "c", None));
    }
}
