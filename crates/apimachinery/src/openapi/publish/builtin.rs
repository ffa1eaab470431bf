//! Built-in types in OpenAPI v3, as upstream's generator writes them: what a field says stands around the reference to
//! its type, types that write themselves have names, and every list says how it is merged.
//!
//! Source: `k8s.io/kube-openapi/pkg/generators`, `k8s.io/kubernetes/api/openapi-spec/v3`.

use serde_json::{Map, Value, json};

use super::{kind_name, list_type, strategy};
use crate::schema::{Schema, Type};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Types that write themselves: their names, and what they are (JSON).
pub const SCALARS: [(&str, &str); 7] = [
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", r#"{"type":"string","format":"date-time"}"#),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", r#"{"type":"string","format":"date-time"}"#),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", r#"{"type":"object"}"#),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", r#"{"type":"object"}"#),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", r#"{"type":"object"}"#),
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", r#"{"oneOf":[{"type":"string"},{"type":"number"}]}"#),
    (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        r#"{"format":"int-or-string","oneOf":[{"type":"integer"},{"type":"string"}]}"#,
    ),
];

/// The name of a type: its own, or that of a type that writes itself.
fn type_name(schema: &Schema, field: &str) -> Option<String> {
    if let Some(name) = &schema.name {
        return Some(name.to_string());
    }
    let known = match schema.format.as_deref() {
        Some("date-time") => format!("{META}Time"),
        Some("micro-time") => format!("{META}MicroTime"),
        Some("quantity") => "io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned(),
        Some("int-or-string") => "io.k8s.apimachinery.pkg.util.intstr.IntOrString".to_owned(),
        None if schema.kind == Some(Type::Object) && schema.preserve_unknown => match field {
            "fieldsV1" => format!("{META}FieldsV1"),
            _ => "io.k8s.apimachinery.pkg.runtime.RawExtension".to_owned(),
        },
        _ => return None,
    };
    Some(known)
}

fn describe(schema: &Schema, out: &mut Map<String, Value>) {
    if let Some(text) = &schema.description {
        out.insert("description".to_owned(), json!(text));
    }
}

/// A named type, written out.
pub(super) fn definition(schema: &Schema) -> Value {
    let mut out = Map::new();
    describe(schema, &mut out);
    if let Some(kind) = schema.kind {
        out.insert("type".to_owned(), json!(kind_name(kind)));
    }
    if !schema.properties.is_empty() {
        // Of all lists upstream has left out how this one is merged.
        let bare = |field: &str| {
            field == "verbs" && schema.name.as_deref().is_some_and(|n| n.ends_with(".v1.APIResource"))
        };
        let fields = schema.properties.iter();
        let fields = fields.map(|(name, field)| (name.to_string(), property(field, name, bare(name))));
        out.insert("properties".to_owned(), Value::Object(fields.collect()));
    }
    if !schema.required.is_empty() {
        out.insert("required".to_owned(), json!(schema.required));
    }
    let published = schema.published.as_deref();
    // Here as the type of a field that says otherwise.
    if schema.atomic_map || published.is_some_and(|published| published.granular) {
        out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    if let Some(unions) = published.map(|published| &published.unions).filter(|unions| !unions.is_empty()) {
        out.insert("x-kubernetes-unions".to_owned(), json!(unions));
    }
    Value::Object(out)
}

fn property(schema: &Schema, field: &str, bare: bool) -> Value {
    let mut out = Map::new();
    describe(schema, &mut out);
    let named = type_name(schema, field);
    let published = schema.published.as_deref();
    match &named {
        Some(name) if published.is_some_and(|published| published.bare) => return reference(name),
        Some(name) => {
            out.insert("allOf".to_owned(), json!([reference(name)]));
        }
        None => plain(schema, &mut out),
    }
    if let Some(default) = published.and_then(|p| p.default.as_ref()) {
        // What a struct holds has its defaults at its own type.
        out.insert("default".to_owned(), if named.is_some() { json!({}) } else { default.clone() });
    }
    if let Some(values) = published.map(|p| &p.values).filter(|values| !values.is_empty()) {
        let at = ["items", "additionalProperties"].into_iter().find(|key| out.contains_key(*key));
        let holder = match at {
            Some(key) => out.get_mut(key).and_then(Value::as_object_mut),
            None => Some(&mut out),
        };
        if let Some(holder) = holder {
            holder.insert("enum".to_owned(), json!(values));
        }
    }
    // The type of such a field has said so itself.
    if schema.atomic_map && named.is_none() {
        out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    } else if published.is_some_and(|published| published.granular) {
        out.insert("x-kubernetes-map-type".to_owned(), json!("granular"));
    }
    if schema.kind == Some(Type::Array) || published.is_some_and(|published| published.atomic_list) {
        list_type(schema, !bare, &mut out);
    }
    strategy(schema, &mut out);
    Value::Object(out)
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// What is in a list or a map.
fn inside(schema: &Schema) -> Value {
    if let Some(name) = type_name(schema, "") {
        return reference(&name);
    }
    let mut out = Map::new();
    plain(schema, &mut out);
    Value::Object(out)
}

fn plain(schema: &Schema, out: &mut Map<String, Value>) {
    if let Some(kind) = schema.kind {
        out.insert("type".to_owned(), json!(kind_name(kind)));
    }
    if let Some(format) = &schema.format {
        out.insert("format".to_owned(), json!(format));
    }
    for (key, child) in [("items", &schema.items), ("additionalProperties", &schema.additional)] {
        if let Some(child) = child {
            out.insert(key.to_owned(), inside(child));
        }
    }
}
