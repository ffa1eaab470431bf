//! Which entries a list or watch shows: label and field selectors over the attributes the store keeps, and over the
//! decoded object only where those do not suffice.

use std::{borrow::Cow, sync::Arc};

use apimachinery::{
    ApiError,
    field::steps,
    selector::{FieldSelector, LabelSelector},
};
use kinds::Resource;
use serde_json::Value;
use store::{Attributes, Entry};

use crate::{
    catalogue::{Catalogue, Served, View},
    sparse::Fields,
};

/// Kinds with fields of their own to select by word it in another way than the rest.
fn unknown_field(resource: &Resource, name: &str) -> ApiError {
    ApiError::bad_request(match &*resource.plural {
        _ if !resource.builtin => format!("field label not supported: {name}"),
        "jobs" => format!("field label {name:?} not supported for Job"),
        "resourceslices" => {
            format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {name}")
        }
        "pods"
        | "nodes"
        | "namespaces"
        | "secrets"
        | "services"
        | "events"
        | "replicationcontrollers"
        | "certificatesigningrequests"
        | "clustertrustbundles"
        | "podcertificaterequests" => {
            format!("field label not supported: {name}")
        }
        _ => {
            format!("{name:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
    })
}

/// Whether the kind's objects are told apart by namespace. Some kinds that are in none know no such field, and one that is
/// in one.
fn has_namespace(resource: &Resource) -> bool {
    let without =
        ["nodes", "namespaces", "certificatesigningrequests", "clustertrustbundles", "resourceslices"];
    let plural = &*resource.plural;
    !resource.builtin || !(without.contains(&plural) || plural == "podcertificaterequests")
}

/// A checked pair of selectors.
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Fails with 400 when a field is named that the resource cannot select by.
    pub fn new(labels: LabelSelector, fields: FieldSelector, resource: &Resource) -> Result<Self, ApiError> {
        for term in &fields.terms {
            let name = term.field.as_str();
            let known = name == "metadata.name"
                || name == "metadata.namespace" && has_namespace(resource)
                || resource.selectable.iter().any(|f| &*f.name == name);
            if !known {
                return Err(unknown_field(resource, name));
            }
        }
        Ok(Self { labels, fields })
    }

    /// Everything matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether an object with this name, without labels and in no namespace, is shown.
    #[must_use]
    pub fn matches_name(&self, name: &str) -> bool {
        self.labels.matches(|_| None)
            && self.fields.terms.iter().all(|term| {
                let value = if term.field == "metadata.name" { name } else { "" };
                (value == term.value) == term.equal
            })
    }

    /// The only name that can match.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        crate::request::exact_name(&self.fields)
    }

    /// Whether the entry is shown.
    #[must_use]
    pub fn matches(&self, served: &Served, entry: &Entry) -> bool {
        if !self.labels.is_everything() && !self.labels.matches(|key| label(&entry.attributes, key)) {
            return false;
        }
        if self.fields.is_everything() {
            return true;
        }
        let (namespace, name) = served.split_key(&entry.key);
        let mut decoded: Option<Value> = None;
        self.fields.terms.iter().all(|term| {
            let value: Cow<'_, str> = match term.field.as_str() {
                "metadata.name" => name.into(),
                "metadata.namespace" => namespace.into(),
                field => match stored_field(served, entry, field) {
                    Some(value) => value.into(),
                    None => {
                        let object =
                            decoded.get_or_insert_with(|| served.object(entry).unwrap_or(Value::Null));
                        let declared = served.resource.selectable.iter().find(|f| &*f.name == field);
                        declared.map_or(String::new(), |f| at_path(object, &f.path, &f.absent)).into()
                    }
                },
            };
            (value == term.value) == term.equal
        })
    }
}

fn label<'a>(attributes: &'a Attributes, key: &str) -> Option<&'a str> {
    let index = attributes.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
    Some(&attributes.labels[index].1)
}

/// The attribute of a built-in; a custom resource's fields can change after it was stored.
fn stored_field<'a>(served: &Served, entry: &'a Entry, field: &str) -> Option<&'a str> {
    if !matches!(served.view, View::Direct) {
        return None;
    }
    entry.attributes.fields.iter().find(|(name, _)| &**name == field).map(|(_, value)| &**value)
}

/// The text at a dotted path, or at the first of several that is not empty; `absent` when there is nothing.
#[must_use]
pub fn at_path(object: &Value, path: &str, absent: &str) -> String {
    let at = |path: &str| steps(path.trim_start_matches('.')).try_fold(object, |node, name| node.get(name));
    let mut paths = path.split('|').map(at);
    let filled = paths.clone().flatten().find(|found| !matches!(found, Value::Null) && *found != "");
    let found = filled.or_else(|| paths.next().flatten());
    match found {
        None | Some(Value::Null) => absent.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The labels of a value.
#[must_use]
pub fn labels(value: &[u8]) -> Attributes {
    let read = Fields::at([LABELS]).read(value).unwrap_or_default();
    Attributes { labels: labels_of(read), fields: Box::default() }
}

const LABELS: &str = "metadata.labels";

/// Of a value, sorted as maps are. Labels that are not all texts are none.
fn labels_of(mut value: Value) -> Box<[(Arc<str>, Arc<str>)]> {
    let labels = value.pointer_mut("/metadata/labels").map(Value::take);
    let Some(Value::Object(map)) = labels else { return Box::default() };
    let text = |(key, value): (String, Value)| match value {
        Value::String(text) => Some((key.into(), text.into())),
        _ => None,
    };
    map.into_iter().map(text).collect::<Option<_>>().unwrap_or_default()
}

/// What [`attributes`] reads of the values of a resource.
#[must_use]
pub fn attribute_fields(resource: &Resource) -> Fields {
    let selectable = resource.selectable.iter().filter(|_| resource.builtin);
    Fields::at(std::iter::once(LABELS).chain(selectable.flat_map(|field| field.path.split('|'))))
}

/// Takes labels and selectable fields out of a value that is about to be stored.
#[must_use]
pub fn attributes(catalogue: &Catalogue, key: &str, value: &[u8]) -> Attributes {
    let Some(served) = catalogue.of_key(key) else { return labels(value) };
    let Ok(read) = served.attribute_fields.read(value) else { return Attributes::default() };
    let selectable = served.resource.selectable.iter().filter(|_| served.resource.builtin);
    let fields = selectable.map(|f| (f.name.clone(), at_path(&read, &f.path, &f.absent).into())).collect();
    Attributes { fields, labels: labels_of(read) }
}
