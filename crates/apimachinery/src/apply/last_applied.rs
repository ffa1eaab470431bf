//! The way from client-side to server-side apply: kubectl's annotation says what kubectl owned.
//!
//! Only the manager `kubectl` gets this.

use serde_json::Value;

use super::{Write, check, compare, conflict::Conflict, fields_of};
use crate::{decode, meta};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together.
const MOST: usize = 256 * 1024;

/// The conflicts that are left when what kubectl applied last from the client's side, and is still so, counts as its own.
pub(super) fn forgiven(conflicts: Vec<Conflict>, live: &Value, write: &Write<'_>) -> Vec<Conflict> {
    if write.manager != "kubectl" {
        return conflicts;
    }
    let Some(last) = last_config(live, write) else { return conflicts };
    let change = compare(&last, live, write.schema);
    let allowed = fields_of(&last, write.schema)
        .difference(&change.modified)
        .difference(&change.added)
        .difference(&change.removed);
    conflicts.into_iter().filter(|c| !allowed.has(&c.steps)).collect()
}

fn last_config(live: &Value, write: &Write<'_>) -> Option<Value> {
    let text = meta::annotation(live, ANNOTATION).filter(|t| !t.is_empty())?;
    let last = decode::json(text.as_bytes()).ok()?.value;
    let same_version = last.get("apiVersion").and_then(Value::as_str) == Some(write.api_version);
    (same_version && check(&last, write.schema).is_ok()).then_some(last)
}

/// Keeps the annotation up to date where there is one, so that client-side apply can go on afterwards.
pub(super) fn keep_up(object: &mut Value, config: &Value, write: &Write<'_>) {
    if write.manager != "kubectl" || meta::annotation(object, ANNOTATION).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
        if annotations.is_empty()
            && let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("annotations");
        }
    }
    let text = format!("{config}\n");
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.insert(ANNOTATION.to_owned(), text.into());
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > MOST {
        annotations.remove(ANNOTATION);
    }
}
