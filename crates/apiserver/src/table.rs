//! Tables: what `kubectl get` shows.

use apimachinery::{ApiError, Object, columns};
use chrono::{DateTime, Utc};
use kinds::Resource;
use serde_json::{Value, json};

/// What a row carries of its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads `?includeObject=`.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }
}

fn has_name_column(resource: &Resource) -> bool {
    // Events have it last.
    resource.columns.iter().any(|c| &*c.format == "name")
}

/// Whether the table of no objects has `null` for rows: of kinds without printer of their own upstream collects rows one
/// by one.
#[must_use]
pub fn is_plain(resource: &Resource) -> bool {
    resource.builtin && resource.columns.iter().any(|column| &*column.name == "Created At")
}

/// A table without rows.
#[must_use]
pub fn head(resource: &Resource) -> Value {
    let mut definitions = Vec::with_capacity(resource.columns.len() + 2);
    if !has_name_column(resource) {
        definitions.push(json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name must be unique within a namespace.",
        }));
    }
    for column in &resource.columns {
        definitions.push(json!({
            "name": &*column.name, "type": &*column.kind, "format": &*column.format,
            "description": &*column.description, "priority": column.priority,
        }));
    }
    if resource.columns.is_empty() {
        definitions.push(json!({
            "name": "Age", "type": "date", "format": "", "priority": 0,
            "description": "CreationTimestamp is a timestamp representing the server time when this object was created.",
        }));
    }
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": definitions, "rows": [],
    })
}

fn cells(resource: &Resource, object: &Object, now: DateTime<Utc>) -> Vec<Value> {
    if let Some(cells) = resource.strategy.row(object, now) {
        return cells;
    }
    let mut cells = Vec::with_capacity(resource.columns.len() + 2);
    if !has_name_column(resource) {
        cells.push(object["metadata"]["name"].clone());
    }
    for column in &resource.columns {
        cells.push(cell(object, &column.json_path, &column.kind, now));
    }
    if resource.columns.is_empty() {
        cells.push(cell(object, ".metadata.creationTimestamp", "date", now));
    }
    cells
}

fn cell(object: &Object, path: &str, kind: &str, now: DateTime<Utc>) -> Value {
    let value = columns::cell(object, path, kind);
    match (kind, &value) {
        ("date", Value::String(time)) => columns::age(time, now).into(),
        ("date", Value::Null) => "<unknown>".into(),
        _ => value,
    }
}

/// Metadata without their object.
pub fn metadata_alone(resource: &Resource, mut metadata: Value) -> Value {
    if let Some(prefix) = resource.behaviour.annotated
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.retain(|name, _| !name.starts_with(prefix));
        if annotations.is_empty()
            && let Some(fields) = metadata.as_object_mut()
        {
            fields.remove("annotations");
        }
    }
    metadata
}

/// One row.
#[must_use]
pub fn row(resource: &Resource, object: &Object, include: Include, now: DateTime<Utc>) -> Value {
    let mut row = json!({"cells": cells(resource, object, now)});
    if &*resource.kind == "Pod"
        && let Some(phase @ ("Succeeded" | "Failed")) = object["status"]["phase"].as_str()
    {
        let message =
            if phase == "Succeeded" { "The pod has completed successfully." } else { "The pod failed." };
        row["conditions"] =
            json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]);
    }
    row["object"] = match include {
        Include::None => Value::Null,
        Include::Object => object.clone(),
        Include::Metadata => {
            let metadata = metadata_alone(resource, object["metadata"].clone());
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
        }
    };
    row
}
