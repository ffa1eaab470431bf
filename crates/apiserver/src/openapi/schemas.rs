//! The types of a document, each once, by name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use apimachinery::{Schema, openapi::to_json};
use kinds::Subresource;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::operations;
use crate::catalogue::Served;

/// `io.k8s.api.apps.v1.Deployment`; a custom group is turned round: `com.example.v1.Widget`.
pub fn name_of(served: &Served) -> String {
    let r = &served.resource;
    if r.builtin
        && let Some(name) = &r.schema.name
    {
        return name.to_string();
    }
    let reversed: Vec<&str> = r.group.split('.').rev().collect();
    format!("{}.{}.{}", reversed.join("."), r.version, r.kind)
}

/// The type of its lists: `io.k8s.api.apps.v1.DeploymentList`.
pub fn list_name_of(served: &Served) -> String {
    let name = name_of(served);
    let r = &served.resource;
    match name.rsplit_once('.') {
        Some((before, _)) if !r.builtin => format!("{before}.{}", r.list_kind),
        _ => format!("{name}List"),
    }
}

/// `{"group": …, "version": …, "kind": …}`
pub fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// Adds a served kind, its list, and every type that they name. `version`: of OpenAPI, 2 or 3.
pub fn add(into: &mut Map<String, Value>, served: &Served, version: u8) {
    let r = &served.resource;
    let name = name_of(served);
    if version == 2 && !r.builtin && r.schema.preserve_unknown {
        // kubectl takes any field it reads here for all there may be.
        into.insert(name.clone(), json!({"type": "object"}));
    } else {
        named(into, &r.schema, &name, version);
    }
    let selectable: Vec<Value> =
        r.selectable.iter().map(|field| json!({"fieldPath": &*field.path})).collect();
    let select = |schema: &mut Value| {
        if !r.builtin && !selectable.is_empty() {
            schema["x-kubernetes-selectable-fields"] = selectable.clone().into();
        }
    };
    if let Some(schema) = into.get_mut(&name) {
        let own = gvk(&r.group, &r.version, &r.kind);
        match &mut schema["x-kubernetes-group-version-kind"] {
            Value::Array(kinds) if kinds.contains(&own) => {}
            Value::Array(kinds) => kinds.push(own),
            none => *none = json!([own]),
        }
        select(schema);
    }
    for sub in &r.subresources {
        if let Some(schema) = foreign(sub) {
            named(into, &schema, schema.name.as_deref().unwrap_or_default(), version);
        }
    }
    if r.verbs.iter().any(|verb| &**verb == "list") {
        let mut metadata = list_metadata(into, version);
        if version == 3 && r.builtin {
            metadata = json!({"allOf": [metadata], "default": {}});
        }
        let mut list = json!({
            "type": "object", "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": metadata,
                "items": {"type": "array", "items": reference(&name, version)},
            },
            "x-kubernetes-group-version-kind": [gvk(&r.group, &r.version, &r.list_kind)],
        });
        select(&mut list);
        into.insert(list_name_of(served), list);
    }
}

/// The type of what a subresource takes, where it is another kind than the one that it belongs to.
fn foreign(sub: &Subresource) -> Option<Arc<Schema>> {
    type Made = BTreeMap<(String, String), Option<Arc<Schema>>>;
    static MADE: LazyLock<Mutex<Made>> = LazyLock::new(Mutex::default);
    let version =
        if sub.group.is_empty() { sub.version.to_string() } else { format!("{}/{}", sub.group, sub.version) };
    if !matches!(&*sub.kind, "Binding" | "Eviction" | "Scale" | "TokenRequest") {
        return None;
    }
    let mut made = MADE.lock();
    let made = made.entry((version, sub.kind.to_string()));
    made.or_insert_with_key(|(version, kind)| kinds::schema_of(version, kind)).clone()
}

/// The name of that type.
pub fn type_of_subresource(sub: &Subresource) -> String {
    foreign(sub).and_then(|schema| schema.name.as_deref().map(str::to_owned)).unwrap_or_default()
}

/// The kinds that built-in types are, by the types' names.
static KINDS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
    let mut all = HashMap::new();
    for r in kinds::all() {
        if let Some(name) = &r.schema.name {
            all.insert(name.to_string(), gvk(&r.group, &r.version, &r.kind));
        }
        for sub in &r.subresources {
            if let Some(name) = foreign(sub).and_then(|schema| schema.name.clone()) {
                all.insert(name.to_string(), gvk(&sub.group, &sub.version, &sub.kind));
            }
        }
    }
    all
});

/// The types that belong to no group, of which operations speak.
static META: LazyLock<Vec<(String, Arc<Schema>)>> = LazyLock::new(|| {
    ["APIResourceList", "DeleteOptions", "Status", "WatchEvent"]
        .into_iter()
        .filter_map(|kind| Some((kind.to_owned(), kinds::schema_of("v1", kind)?)))
        .collect()
});

/// Adds to a v3 document what its operations and types name, and is not its own: types of no group, and types that
/// write themselves.
pub fn add_meta(into: &mut Map<String, Value>, paths: &Map<String, Value>, group: &str, version: &str) {
    let mut text = serde_json::to_string(paths).unwrap_or_default();
    for (kind, schema) in META.iter() {
        let name = operations::meta(kind);
        if !text.contains(&format!("/{name}\"")) {
            continue;
        }
        named(into, schema, &name, 3);
        let mut kinds = vec![gvk("", "v1", kind)];
        if matches!(&**kind, "DeleteOptions" | "WatchEvent") && !group.is_empty() {
            kinds.push(gvk(group, version, kind));
        }
        if let Some(schema) = into.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = kinds.into();
        }
    }
    text.push_str(&serde_json::to_string(into).unwrap_or_default());
    for (name, schema) in apimachinery::openapi::SCALARS {
        if text.contains(&format!("/{name}\""))
            && let Ok(schema) = serde_json::from_str(schema)
        {
            into.insert(name.to_owned(), schema);
        }
    }
}

/// Adds the metadata of lists and refers to it.
fn list_metadata(into: &mut Map<String, Value>, version: u8) -> Value {
    static SCHEMA: LazyLock<Option<Arc<Schema>>> = LazyLock::new(|| kinds::schema_of("v1", "ListMeta"));
    let Some((schema, name)) = SCHEMA.as_ref().and_then(|schema| Some((schema, schema.name.as_ref()?)))
    else {
        return json!({"type": "object"});
    };
    named(into, schema, name, version);
    reference(name, version)
}

/// Where a type of this name is found in a document.
pub fn reference(name: &str, version: u8) -> Value {
    let place = if version == 2 { "#/definitions/" } else { "#/components/schemas/" };
    json!({"$ref": format!("{place}{name}")})
}

fn named(into: &mut Map<String, Value>, schema: &Schema, name: &str, version: u8) {
    if into.contains_key(name) {
        return;
    }
    let mut json = to_json(schema, version);
    if let Some(kind) = KINDS.get(name) {
        json["x-kubernetes-group-version-kind"] = json!([kind]);
    }
    into.insert(name.to_owned(), json);
    children(into, schema, version);
}

fn children(into: &mut Map<String, Value>, schema: &Schema, version: u8) {
    let inner = schema.properties.values().chain(&schema.additional).chain(&schema.items);
    for child in inner {
        match &child.name {
            Some(name) => named(into, child, name, version),
            None => children(into, child, version),
        }
    }
}
