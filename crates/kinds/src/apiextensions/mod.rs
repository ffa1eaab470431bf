//! `apiextensions.k8s.io/v1`: CustomResourceDefinition, and the resources that definitions stand for.

mod conversion;
mod define;
mod described;
pub mod names;
mod rules;

use std::collections::BTreeSet;

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::name,
    declare::Declarer,
    object::{at_mut, fill, flag, has, list, set, text},
    resource::Strategy,
};

pub use define::{Version, define, object_metadata};

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("apiextensions.k8s.io/v1", "customresourcedefinitions")
        .tracks_spec()
        .needs_resource_version()
        .strategy(CustomResourceDefinition);
}

struct CustomResourceDefinition;

/// Every version that ever was the stored one is remembered in the status.
fn remember_storage(object: &mut Object) {
    let storage = list(object, "spec.versions").iter().find(|version| flag(version, "storage"));
    let Some(storage) = storage.map(|version| text(version, "name").to_owned()) else { return };
    let mut stored = list(object, "status.storedVersions").to_vec();
    if !stored.iter().any(|version| *version == storage) {
        stored.push(storage.into());
        set(object, "status.storedVersions", stored);
    }
}

/// Lists that are declared as sets of things that no set can hold.
fn odd_sets(definition: &Object, found: &mut BTreeSet<String>) {
    fn walk(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(map) => {
                let items = text(schema, "items.type");
                if text(schema, "x-kubernetes-list-type") == "set" && matches!(items, "object" | "array") {
                    found.insert(format!(
                        "x-kubernetes-list-type: set for items of type {items:?} is not supported by server-side apply or CEL validation rules"
                    ));
                }
                map.values().for_each(|child| walk(child, found));
            }
            Value::Array(list) => list.iter().for_each(|child| walk(child, found)),
            _ => {}
        }
    }
    for version in list(definition, "spec.versions") {
        walk(&version["schema"], found);
    }
}

/// Formats that say nothing of values of their type.
///
/// Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/validation/formats.go`.
fn odd_formats(definition: &Object) -> Vec<&str> {
    const OF_STRINGS: [&str; 26] = [
        "bsonobjectid",
        "uri",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "cidr",
        "mac",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
        "isbn",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "byte",
        "password",
        "date",
        "duration",
        "datetime",
        "k8sshortname",
        "k8slongname",
    ];
    fn walk<'d>(schema: &'d Value, found: &mut Vec<&'d str>) {
        if !schema.is_object() {
            return;
        }
        let format = text(schema, "format");
        let known = match text(schema, "type") {
            "" | "string" => OF_STRINGS.contains(&format.replace('-', "").as_str()),
            "integer" => matches!(format, "int32" | "int64"),
            "number" => matches!(format, "float" | "double"),
            _ => false,
        };
        if !format.is_empty() && !known {
            found.push(format);
        }
        for key in ["items", "not", "additionalProperties", "additionalItems"] {
            walk(&schema[key], found);
        }
        for key in ["allOf", "oneOf", "anyOf", "items"] {
            list(schema, key).iter().for_each(|child| walk(child, found));
        }
        for key in ["properties", "patternProperties", "definitions", "dependencies"] {
            schema[key].as_object().into_iter().flatten().for_each(|(_, child)| walk(child, found));
        }
    }
    let mut found = Vec::new();
    for version in list(definition, "spec.versions") {
        walk(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    found
}

impl Strategy for CustomResourceDefinition {
    fn default(&self, object: &mut Object) {
        if let Some(spec) = at_mut(object, "spec") {
            let kind = text(spec, "names.kind").to_owned();
            if let Some(names) = at_mut(spec, "names") {
                fill(names, "singular", kind.to_lowercase());
                if !kind.is_empty() {
                    fill(names, "listKind", format!("{kind}List"));
                }
            }
            if !has(spec, "conversion") {
                set(spec, "conversion", json!({"strategy": "None"}));
            }
            if let Some(service) = at_mut(spec, "conversion.webhook.clientConfig.service") {
                fill(service, "port", 443);
            }
        }
        if list(object, "status.storedVersions").is_empty() {
            remember_storage(object);
        }
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}}));
        remember_storage(object);
    }

    fn prepare_update(&self, new: &mut Object, _old: &Object, subresource: &str) {
        if subresource.is_empty() {
            remember_storage(new);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::definition(object).errors.into_vec()
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        rules::change(new, old, subresource).errors.into_vec()
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut known = BTreeSet::new();
        if let Some(old) = old {
            odd_sets(old, &mut known);
        }
        let mut found = BTreeSet::new();
        odd_sets(new, &mut found);
        let before: Vec<&str> = old.map(odd_formats).unwrap_or_default();
        let formats = odd_formats(new).into_iter().filter(|format| !before.contains(format));
        let formats =
            formats.map(|format| format!("unrecognized format {}", apimachinery::go::quoted(format)));
        formats.chain(found.difference(&known).cloned()).collect()
    }

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        let mut versions: Vec<String> = list(object, "spec.versions")
            .iter()
            .filter(|version| flag(version, "served"))
            .map(|version| {
                let mark = if flag(version, "storage") { "(storage)" } else { "" };
                format!("{}{mark}", text(version, "name"))
            })
            .collect();
        versions.sort_unstable();
        let short: Vec<&str> =
            list(object, "spec.names.shortNames").iter().filter_map(Value::as_str).collect();
        let established = list(object, "status.conditions")
            .iter()
            .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
        Some(vec![
            name(object),
            text(object, "spec.scope").into(),
            versions.join(",").into(),
            text(object, "metadata.creationTimestamp").into(),
            text(object, "spec.group").into(),
            text(object, "spec.names.kind").into(),
            short.join(",").into(),
            established.into(),
        ])
    }
}
