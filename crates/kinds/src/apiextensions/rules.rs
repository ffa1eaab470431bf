//! What is wrong with a definition, in upstream's order and words.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`. What all versions say alike is reported
//! where upstream keeps it then: `spec.validation`, `spec.subresources`, `spec.additionalPrinterColumns`.

use std::collections::HashSet;

use apimachinery::{FieldPath, Object, meta, names as dns, openapi};
use serde_json::Value;

use super::{conversion, names};
use crate::{
    checks::{Checks, path},
    object::{at, flag, has, list, text},
};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MOST_SELECTABLE: usize = 8;

/// A definition on its own. On create there is no resourceVersion yet.
pub fn definition(object: &Object) -> Checks {
    let mut checks = Checks::default();
    let is_new = meta::resource_version(object).is_empty();
    if is_new {
        let name = meta::name(object);
        let mut wrong = dns::subdomain_name(name, false);
        if name != format!("{}.{}", text(object, "spec.names.plural"), text(object, "spec.group")) {
            wrong.push("must be spec.names.plural+\".\"+spec.group".to_owned());
        }
        checks.each(&path("metadata.name"), name, wrong);
    }
    spec(&mut checks, &object["spec"]);
    stored_versions(&mut checks, object);
    if is_new {
        approved(&mut checks, object);
    }
    if flag(object, "spec.preserveUnknownFields") {
        let words = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        checks.invalid(&path("spec.preserveUnknownFields"), true, words);
    }
    checks
}

/// A change of a definition.
pub fn change(new: &Object, old: &Object, subresource: &str) -> Checks {
    let mut checks = Checks::default();
    if subresource == "status" {
        accepted_names(&mut checks, &new["status"]["acceptedNames"], &path("status.acceptedNames"));
        stored_versions(&mut checks, new);
        return checks;
    }
    if names::is_true(old, "Established") {
        checks.immutable(new, old, "spec.scope");
        checks.immutable(new, old, "spec.names.kind");
    }
    if names::is_true(old, "Established") && !names::has_bad_bundle(old) && names::has_bad_bundle(new) {
        let at = path("spec.conversion.webhookClientConfig.caBundle");
        let bundle = text(new, "spec.conversion.webhook.clientConfig.caBundle");
        checks.invalid(&at, bundle, "unable to load root certificates: unable to parse bytes as PEM block");
    }
    checks.immutable(new, old, "spec.group");
    checks.immutable(new, old, "spec.names.plural");
    if names::approval(new).0 != names::approval(old).0 {
        approved(&mut checks, new);
    }
    checks
}

fn approved(checks: &mut Checks, object: &Object) {
    if !names::is_protected(text(object, "spec.group")) {
        return;
    }
    let (reason, _, words) = names::approval(object);
    let at = path("metadata.annotations").key(names::APPROVED);
    match reason {
        "MissingAnnotation" => checks.required(&at, &words),
        "InvalidAnnotation" => {
            checks.invalid(&at, meta::annotation(object, names::APPROVED).unwrap_or_default(), &words);
        }
        _ => {}
    }
}

fn joined(messages: &[String]) -> String {
    messages.join(",")
}

/// Whether all versions say the same under a key.
fn shared(versions: &[Value], key: &str) -> bool {
    versions.windows(2).all(|pair| pair[0][key] == pair[1][key])
}

fn spec(checks: &mut Checks, spec: &Value) {
    let here = path("spec");
    let group = text(spec, "group");
    if group.is_empty() {
        checks.required(&here.child("group"), "");
    } else if let wrong @ [_, ..] = dns::is_dns1123_subdomain(group).as_slice() {
        checks.invalid(&here.child("group"), group, &joined(wrong));
    } else if !group.contains('.') {
        checks.invalid(&here.child("group"), group, "should be a domain with at least one dot");
    }
    checks.required_one_of(&here.child("scope"), text(spec, "scope"), &["Cluster", "Namespaced"]);
    let all = list(spec, "versions");
    let one_schema = shared(all, "schema");
    for (index, version) in all.iter().enumerate() {
        if !has(version, "schema.openAPIV3Schema") {
            let at = here.child("versions").index(index).child("schema").child("openAPIV3Schema");
            checks.required(&at, "");
        }
    }
    if flag(spec, "preserveUnknownFields") && all.iter().any(|v| has_default(&v["schema"]["openAPIV3Schema"]))
    {
        let words = "must be false in order to use defaults in the schema";
        checks.invalid(&here.child("preserveUnknownFields"), true, words);
    }
    versions(checks, spec, all, &here, one_schema);
    required_names(checks, spec, &here);
    accepted_names(checks, &spec["names"], &here.child("names"));
    if let Some(first) = all.first() {
        let any_status = all.iter().any(|v| has(v, "subresources.status"));
        if one_schema {
            schema(checks, first, any_status, &here.child("validation").child("openAPIV3Schema"));
        }
        if shared(all, "subresources") {
            subresources(checks, first, &here.child("subresources"));
        }
        if shared(all, "additionalPrinterColumns") {
            columns(checks, first, &here.child("additionalPrinterColumns"));
        }
        if shared(all, "selectableFields") {
            selectable(checks, first, &here.child("selectableFields"));
        }
    }
    conversion::check(checks, &spec["conversion"], &here.child("conversion"));
}

fn versions(checks: &mut Checks, spec: &Value, all: &[Value], here: &FieldPath, one_schema: bool) {
    let at_all = here.child("versions");
    for (index, version) in all.iter().enumerate() {
        let at = at_all.index(index);
        let name = text(version, "name");
        if let wrong @ [_, ..] = dns::is_dns1035_label(name).as_slice() {
            checks.invalid(&at.child("name"), name, &joined(wrong));
        }
        deprecation(checks, version, &at.child("deprecationWarning"));
        if !one_schema {
            let status = has(version, "subresources.status");
            schema(checks, version, status, &at.child("schema").child("openAPIV3Schema"));
        }
        if !shared(all, "subresources") {
            subresources(checks, version, &at.child("subresources"));
        }
        if !shared(all, "additionalPrinterColumns") {
            columns(checks, version, &at.child("additionalPrinterColumns"));
        }
        if !shared(all, "selectableFields") {
            selectable(checks, version, &at.child("selectableFields"));
        }
    }
    let mut known: Vec<&str> = all.iter().map(|v| text(v, "name")).collect();
    known.sort_unstable();
    known.dedup();
    if known.len() != all.len() {
        checks.invalid(&at_all, spec["versions"].clone(), "must contain unique version names");
    }
    if all.iter().filter(|v| flag(v, "storage")).count() != 1 {
        let words = "must have exactly one version marked as storage version";
        checks.invalid(&at_all, spec["versions"].clone(), words);
    }
    // Upstream's own form has the first version's name once more.
    let first = all.first().map(|version| text(version, "name")).unwrap_or_default();
    if let (false, wrong @ [_, ..]) = (first.is_empty(), dns::is_dns1035_label(first).as_slice()) {
        checks.invalid(&here.child("version"), first, &joined(wrong));
    }
}

/// Whether a schema has a default anywhere.
fn has_default(schema: &Value) -> bool {
    let Some(map) = schema.as_object() else { return false };
    let inside = |key: &str| match &schema[key] {
        Value::Array(list) => list.iter().any(has_default),
        part => has_default(part),
    };
    let below =
        |key: &str| schema[key].as_object().into_iter().flatten().any(|(_, child)| has_default(child));
    map.get("default").is_some_and(|default| !default.is_null())
        || ["items", "additionalProperties", "allOf", "anyOf", "oneOf", "not"].into_iter().any(inside)
        || below("properties")
}

fn deprecation(checks: &mut Checks, version: &Value, at: &FieldPath) {
    let Some(words) = version["deprecationWarning"].as_str() else { return };
    if !flag(version, "deprecated") {
        return checks.invalid(at, words, "can only be set for deprecated versions");
    }
    if words.len() > 256 {
        checks.invalid(at, words, "must be <= 256 characters long");
    }
    if words.is_empty() {
        checks.invalid(at, words, "must not be an empty string");
    }
    if let Some((index, _)) = words.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        );
        checks.invalid(at, words, &why);
    }
}

fn schema(checks: &mut Checks, version: &Value, status: bool, at: &FieldPath) {
    let json = &version["schema"]["openAPIV3Schema"];
    if json.is_null() {
        return;
    }
    if let Err(errors) = openapi::define(json, at, status) {
        checks.errors.extend(errors);
    }
}

fn required_names(checks: &mut Checks, spec: &Value, here: &FieldPath) {
    for name in ["plural", "singular", "kind", "listKind"] {
        if text(&spec["names"], name).is_empty() {
            checks.required(&here.child("names").child(name), "");
        }
    }
}

fn accepted_names(checks: &mut Checks, names: &Value, here: &FieldPath) {
    for name in ["plural", "singular"] {
        let word = text(names, name);
        if let (false, wrong @ [_, ..]) = (word.is_empty(), dns::is_dns1035_label(word).as_slice()) {
            checks.invalid(&here.child(name), word, &joined(wrong));
        }
    }
    for name in ["kind", "listKind"] {
        let word = text(names, name);
        let wrong = dns::is_dns1035_label(&word.to_lowercase());
        if let (false, wrong @ [_, ..]) = (word.is_empty(), wrong.as_slice()) {
            let words = format!("may have mixed case, but should otherwise match: {}", joined(wrong));
            checks.invalid(&here.child(name), word, &words);
        }
    }
    let mut each = |name: &str| {
        for (index, word) in list(names, name).iter().enumerate() {
            let word = word.as_str().unwrap_or_default();
            if let wrong @ [_, ..] = dns::is_dns1035_label(word).as_slice() {
                checks.invalid(&here.child(name).index(index), word, &joined(wrong));
            }
        }
    };
    each("shortNames");
    each("categories");
    let kind = text(names, "kind");
    if !kind.is_empty() && kind == text(names, "listKind") {
        checks.invalid(&here.child("listKind"), kind, "kind and listKind may not be the same");
    }
}

fn stored_versions(checks: &mut Checks, object: &Object) {
    let here = path("status.storedVersions");
    let stored = list(object, "status.storedVersions");
    if stored.is_empty() {
        return checks.invalid(
            &here,
            at(object, "status.storedVersions").clone(),
            "must have at least one stored version",
        );
    }
    let all = list(object, "spec.versions");
    let known: HashSet<&str> = stored.iter().filter_map(Value::as_str).collect();
    let names: HashSet<&str> = all.iter().map(|version| text(version, "name")).collect();
    for version in all.iter().filter(|v| flag(v, "storage")) {
        if !known.contains(text(version, "name")) && !checks.is_full() {
            let words = format!("must have the storage version {}", text(version, "name"));
            checks.invalid(&here, stored.to_vec(), &words);
        }
    }
    for (index, name) in stored.iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        if !names.contains(name) {
            let words = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            checks.invalid(&here.index(index), name, &words);
        }
    }
}

fn simple_path(checks: &mut Checks, value: &str, at: &FieldPath) -> bool {
    if value.starts_with('.') {
        return true;
    }
    checks.invalid(at, value, "must be a simple json path starting with .");
    false
}

fn subresources(checks: &mut Checks, version: &Value, here: &FieldPath) {
    let scale = at(version, "subresources.scale");
    if scale.is_null() {
        return;
    }
    for (name, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let at = here.child("scale").child(name);
        let value = text(scale, name);
        if value.is_empty() {
            checks.required(&at, "");
        } else if simple_path(checks, value, &at) && !value.starts_with(root) {
            let words = format!("should be a json path under {}", root.trim_end_matches('.'));
            checks.invalid(&at, value, &words);
        }
    }
    let at = here.child("scale").child("labelSelectorPath");
    let value = text(scale, "labelSelectorPath");
    if !value.is_empty()
        && simple_path(checks, value, &at)
        && !value.starts_with(".spec.")
        && !value.starts_with(".status.")
    {
        checks.invalid(&at, value, "should be a json path under either .spec or .status");
    }
}

fn columns(checks: &mut Checks, version: &Value, here: &FieldPath) {
    for (index, column) in list(version, "additionalPrinterColumns").iter().enumerate() {
        let at = here.index(index);
        if text(column, "name").is_empty() {
            checks.required(&at.child("name"), "");
        }
        let known = format!("must be one of {}", COLUMN_TYPES.join(","));
        match text(column, "type") {
            "" => checks.required(&at.child("type"), &known),
            kind if !COLUMN_TYPES.contains(&kind) => checks.invalid(&at.child("type"), kind, &known),
            _ => {}
        }
        let format = text(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let known = format!("must be one of {}", COLUMN_FORMATS.join(","));
            checks.invalid(&at.child("format"), format, &known);
        }
        let value = text(column, "jsonPath");
        if value.is_empty() {
            checks.required(&at.child("JSONPath"), "");
        } else {
            simple_path(checks, value, &at.child("JSONPath"));
        }
    }
}

fn selectable(checks: &mut Checks, version: &Value, here: &FieldPath) {
    let fields = list(version, "selectableFields");
    if !fields.is_empty() && !has(version, "schema") {
        return checks.invalid(here, "", "may only be set when validations.schema is included");
    }
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut seen = HashSet::new();
    for (index, field) in fields.iter().enumerate() {
        let at = here.index(index).child("jsonPath");
        let value = text(field, "jsonPath");
        if value.is_empty() {
            checks.required(&at, "");
            continue;
        }
        let Some(found) = openapi::field_at(schema, value) else {
            checks.invalid(&at, value, "is an invalid path: does not refer to a valid field");
            continue;
        };
        if value.starts_with(".metadata") {
            checks.invalid(&at, value, "must not point to fields in metadata");
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let words = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            checks.invalid(&at, value, words);
        }
        if !seen.insert(value) {
            checks.duplicate(&at, value);
        }
    }
    if seen.len() > MOST_SELECTABLE {
        checks.errors.push(apimachinery::FieldError::too_many(here, seen.len(), MOST_SELECTABLE));
    }
}
