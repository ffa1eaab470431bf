//! From a definition to the resources that it stands for: the same [`Resource`] that a built-in kind is.

use std::sync::{Arc, OnceLock};

use apimachinery::{FieldError, FieldPath, Object, Schema, openapi};
use serde_json::Value;

use super::described::{self, described};
use crate::{
    declare,
    object::{flag, has, list, number, text},
    resource::{
        Behaviour, Column, DeletedObject, Generation, NameRule, Plain, Resource, ScalePaths, SelectableField,
        Subresource,
    },
};

/// One version of a custom resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// What is served, if it is.
    pub resource: Arc<Resource>,
    /// Requests may use it.
    pub served: bool,
    /// Objects are stored in it.
    pub storage: bool,
    /// What users of a deprecated version are told.
    pub warning: Option<String>,
}

/// The schema of `metadata`, the same for all kinds.
#[must_use]
pub fn object_metadata() -> Arc<Schema> {
    static METADATA: OnceLock<Arc<Schema>> = OnceLock::new();
    let read = || declare::schema_of("v1", "ObjectMeta").map(|schema| Arc::new(described::metadata(&schema)));
    Arc::clone(METADATA.get_or_init(|| read().unwrap_or_default()))
}

/// The resources of a definition, under the names that were accepted.
///
/// # Errors
/// What is wrong with its schemas; a definition that was accepted has none of it.
pub fn define(definition: &Object) -> Result<Vec<Version>, Vec<FieldError>> {
    let spec = &definition["spec"];
    list(spec, "versions")
        .iter()
        .enumerate()
        .map(|(index, version)| {
            let path = FieldPath::from("spec.versions").index(index).child("schema").child("openAPIV3Schema");
            let schema = schema(version, &path)?;
            Ok(Version {
                served: flag(version, "served"),
                storage: flag(version, "storage"),
                warning: warning(spec, version),
                resource: Arc::new(resource(definition, version, schema)),
            })
        })
        .collect()
}

/// The schema of a version, with the metadata that every object has.
fn schema(version: &Value, path: &FieldPath) -> Result<Schema, Vec<FieldError>> {
    let mut schema = openapi::from_json_schema_at(&version["schema"]["openAPIV3Schema"], path)?;
    embedded(&mut schema);
    whole(&mut schema);
    Ok(schema)
}

/// Gives a whole object the metadata that every object has. A definition may restrict some of its fields; which ones at
/// the root, was checked when it was accepted.
fn whole(schema: &mut Schema) {
    let common = object_metadata();
    let metadata = match schema.properties.get("metadata") {
        Some(own) if !own.properties.is_empty() || own.rules.is_some() || !own.required.is_empty() => {
            let mut metadata = Schema::clone(&common);
            metadata.rules.clone_from(&own.rules);
            metadata.required.clone_from(&own.required);
            for (name, own) in &own.properties {
                if let Some(known) = metadata.properties.get(name) {
                    let description = own.description.clone().or_else(|| known.description.clone());
                    let own = Schema { description, ..Schema::clone(own) };
                    metadata.properties.insert(Arc::clone(name), Arc::new(own));
                }
            }
            Arc::new(metadata)
        }
        _ => common,
    };
    schema.properties.insert("metadata".into(), metadata);
    for (name, words) in [("apiVersion", described::API_VERSION), ("kind", described::KIND)] {
        if let Some(field) = schema.properties.get_mut(name) {
            *field = described(field, words);
        }
    }
}

/// The same for all whole objects inside.
fn embedded(schema: &mut Schema) {
    if !has_embedded(schema) {
        return;
    }
    let inner = schema.properties.values_mut().chain(&mut schema.additional).chain(&mut schema.items);
    for child in inner {
        let child = Arc::make_mut(child);
        embedded(child);
        if child.embedded_resource {
            whole(child);
        }
    }
}

fn has_embedded(schema: &Schema) -> bool {
    let mut inner = schema.properties.values().chain(&schema.additional).chain(&schema.items);
    inner.any(|child| child.embedded_resource || has_embedded(child))
}

/// `example.com/v1 Widget is deprecated`, or the definition's own words.
fn warning(spec: &Value, version: &Value) -> Option<String> {
    if !flag(version, "deprecated") {
        return None;
    }
    Some(match version["deprecationWarning"].as_str() {
        Some(words) => words.to_owned(),
        None => format!(
            "{}/{} {} is deprecated",
            text(spec, "group"),
            text(version, "name"),
            text(spec, "names.kind")
        ),
    })
}

fn words(value: &Value, path: &str) -> Vec<Arc<str>> {
    list(value, path).iter().filter_map(Value::as_str).map(Arc::from).collect()
}

fn resource(definition: &Object, version: &Value, schema: Schema) -> Resource {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let name = |path: &str| Arc::from(text(names, path));
    // In the order in which discovery shows them.
    let verbs = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    Resource {
        group: Arc::from(text(spec, "group")),
        version: Arc::from(text(version, "name")),
        kind: name("kind"),
        list_kind: name("listKind"),
        plural: name("plural"),
        singular: name("singular"),
        short_names: words(names, "shortNames"),
        categories: words(names, "categories"),
        namespaced: text(spec, "scope") == "Namespaced",
        verbs: verbs.into_iter().map(Arc::from).collect(),
        schema: Arc::new(schema),
        subresources: subresources(spec, version, &name("kind")),
        columns: list(version, "additionalPrinterColumns").iter().map(column).collect(),
        selectable: list(version, "selectableFields").iter().map(selectable).collect(),
        behaviour: Behaviour {
            generation: Generation::Content,
            unconditional_update: false,
            deleted: DeletedObject::Status,
            name: NameRule::Subdomain,
            ..Behaviour::default()
        },
        strategy: Arc::new(Plain),
        builtin: false,
    }
}

fn subresources(spec: &Value, version: &Value, kind: &Arc<str>) -> Vec<Subresource> {
    let verbs: Vec<Arc<str>> = ["get", "patch", "update"].into_iter().map(Arc::from).collect();
    let mut made = Vec::new();
    if has(version, "subresources.status") {
        made.push(Subresource {
            name: "status".into(),
            group: Arc::from(text(spec, "group")),
            version: Arc::from(text(version, "name")),
            kind: Arc::clone(kind),
            verbs: verbs.clone(),
            scale: None,
        });
    }
    if has(version, "subresources.scale") {
        let scale = &version["subresources"]["scale"];
        let path = |name: &str| Arc::from(text(scale, name).trim_start_matches('.'));
        let selector = Some(path("labelSelectorPath")).filter(|p: &Arc<str>| !p.is_empty());
        made.push(Subresource {
            name: "scale".into(),
            group: "autoscaling".into(),
            version: "v1".into(),
            kind: "Scale".into(),
            verbs,
            scale: Some(ScalePaths {
                spec_replicas: path("specReplicasPath"),
                status_replicas: path("statusReplicasPath"),
                selector,
            }),
        });
    }
    made
}

fn column(column: &Value) -> Column {
    let word = |name: &str| Arc::from(text(column, name));
    let description = match text(column, "description") {
        "" => format!("Custom resource definition column (in JSONPath format): {}", text(column, "jsonPath")),
        words => words.to_owned(),
    };
    Column {
        name: word("name"),
        kind: word("type"),
        format: word("format"),
        description: description.into(),
        priority: i32::try_from(number(column, "priority")).unwrap_or_default(),
        json_path: word("jsonPath"),
    }
}

/// A selector names a field without the leading dot of its path.
fn selectable(field: &Value) -> SelectableField {
    let path: Arc<str> = Arc::from(text(field, "jsonPath").trim_start_matches('.'));
    SelectableField { name: Arc::clone(&path), path, absent: "".into() }
}
