//! Who objects to an apply, in upstream's words.

use serde_json::{Value, json};

use super::{Element, Managed, Write, walk::Comparison};
use crate::status::ApiError;

/// A field that an apply wants another value for and somebody else owns.
#[derive(Clone, Debug)]
pub(super) struct Conflict {
    /// Whose field it is: `"kubectl" using apps/v1`.
    pub manager: String,
    /// `.spec.replicas`
    pub path: String,
    /// The same, step by step.
    pub steps: Vec<Element<'static>>,
}

/// The fields of others that the change touches, by manager.
pub(super) fn find<'v>(
    managed: &Managed<'v>,
    own: usize,
    change: &Comparison<'v>,
    live: &'v Value,
    new: &'v Value,
    write: &Write<'v>,
) -> Vec<Conflict> {
    let mut others: Vec<_> =
        managed.0.iter().enumerate().filter(|(index, _)| *index != own).map(|(_, e)| e).collect();
    others.sort_by(|a, b| a.manager.order(&b.manager));
    let mut found = Vec::new();
    for entry in others {
        let version = &*entry.manager.api_version;
        let own;
        let change = if version == write.api_version {
            change
        } else {
            let Some(schema) = write.schema_of(version) else { continue };
            own = write.compare(live, new, schema);
            &own
        };
        let touched = entry.set.intersection(&change.modified).union(entry.set.intersection(&change.added));
        touched.walk_by_level(&mut |path| {
            found.push(Conflict {
                manager: entry.manager.to_string(),
                path: path.iter().map(ToString::to_string).collect(),
                steps: path.iter().map(|e| owned(e)).collect(),
            });
        });
    }
    found
}

fn owned(element: &Element<'_>) -> Element<'static> {
    use std::borrow::Cow;
    match element {
        Element::Field(name) => Element::Field(Cow::Owned(name.to_string())),
        Element::Key(fields) => Element::Key(
            fields
                .iter()
                .map(|(k, v)| (Cow::Owned(k.to_string()), Cow::Owned(v.clone().into_owned())))
                .collect(),
        ),
        Element::Value(value) => Element::Value(Cow::Owned(value.clone().into_owned())),
        Element::Index(index) => Element::Index(*index),
    }
}

/// 409 with a cause a field.
pub(super) fn error(conflicts: &[Conflict]) -> ApiError {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|c| {
            json!({
                "reason": "FieldManagerConflict", "message": format!("conflict with {}", c.manager), "field": c.path,
            })
        })
        .collect();
    let message = if let [only] = conflicts {
        format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path)
    } else {
        let mut lines: Vec<String> = Vec::new();
        let mut last = None;
        for conflict in conflicts {
            if last != Some(&conflict.manager) {
                lines.push(format!("conflicts with {}:", conflict.manager));
                last = Some(&conflict.manager);
            }
            lines.push(format!("- {}", conflict.path));
        }
        format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
    };
    let mut error = ApiError::other(409, "Conflict", message);
    error.details = Some(json!({"causes": causes}));
    error
}

/// `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`
fn kind_text(object: &Value) -> String {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", text("kind"))
}

/// `ns/name; apps/v1, Kind=Deployment`
pub(super) fn place(object: &Value) -> String {
    let (namespace, name) = (crate::meta::namespace(object), crate::meta::name(object));
    format!("{namespace}/{name}; {}", kind_text(object))
}

/// A configuration has to be of the kind and version that it is sent to.
pub(super) fn same_kind(config: &Value, write: &Write<'_>) -> Result<(), ApiError> {
    let same = |name: &str| config.get(name) == write.empty.get(name);
    if same("apiVersion") && same("kind") {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("invalid object type: {}", kind_text(config))))
}
