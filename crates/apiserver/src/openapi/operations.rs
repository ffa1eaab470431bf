//! What each path takes, in a form that both versions of OpenAPI are written from.

use kinds::Subresource;

use super::schemas::list_name_of;
use crate::catalogue::Served;

/// One method of one path.
pub struct Operation {
    /// `get`, `put`, `post`, `delete`, `patch`
    pub method: &'static str,
    /// `x-kubernetes-action`
    pub action: &'static str,
    /// `listAppsV1NamespacedDeployment`
    pub id: String,
    /// Group, version and kind of what it is about.
    pub gvk: (String, String, String),
    /// Query parameters, all of them texts.
    pub query: &'static [&'static str],
    /// The type of the body, if it takes one.
    pub body: Option<String>,
    /// The type of the answer, if it is one of the document's.
    pub answer: Option<String>,
    /// The kinds of patches that it takes. kubectl merges by what is named here.
    pub patches: &'static [&'static str],
}

/// A path and its methods.
pub struct Path {
    /// `/apis/apps/v1/namespaces/{namespace}/deployments/{name}`
    pub path: String,
    /// In the path: `namespace`, `name`.
    pub parameters: Vec<&'static str>,
    /// In upstream's order.
    pub operations: Vec<Operation>,
}

const LIST: [&str; 10] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const PATCH: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: [&str; 4] = ["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];

/// The paths of a served kind below `api/v1` or `apis/GROUP/VERSION`.
pub fn of(base: &str, served: &Served, name: &str) -> Vec<Path> {
    let r = &served.resource;
    let place = if r.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{base}{place}/{}", r.plural);
    let outer: Vec<&'static str> = if r.namespaced { vec!["namespace"] } else { Vec::new() };
    let inner = [&["name"][..], &outer].concat();
    let list = list_name_of(served);
    let has = |verb: &str| r.verbs.iter().any(|v| &**v == verb);
    let scope = if r.namespaced { "Namespaced" } else { "" };
    let make = |verb: &'static str, about: String, query: &'static [&'static str], answer: &str| {
        let (method, action, word) = words(verb);
        Operation {
            method,
            action,
            id: id(word, &r.group, &r.version, &about),
            gvk: (r.group.to_string(), r.version.to_string(), r.kind.to_string()),
            query,
            body: matches!(verb, "create" | "update").then(|| name.to_owned()),
            answer: (!answer.is_empty()).then(|| answer.to_owned()),
            patches: patches(verb, r.builtin),
        }
    };
    let about = format!("{scope}{}", r.kind);
    let mut many = Vec::new();
    if has("list") {
        many.push(make("list", about.clone(), &LIST, &list));
    }
    if has("create") {
        many.push(make("create", about.clone(), &WRITE, name));
    }
    if has("deletecollection") {
        many.push(make("deletecollection", format!("Collection{about}"), &DELETE, ""));
    }
    let mut one = Vec::new();
    for (verb, query) in [("get", &[][..]), ("update", &WRITE), ("delete", &DELETE), ("patch", &PATCH)] {
        if has(verb) {
            one.push(make(verb, about.clone(), query, if verb == "delete" { "" } else { name }));
        }
    }
    let mut paths = Vec::new();
    if r.namespaced && has("list") {
        let all = make("list", format!("{}ForAllNamespaces", r.kind), &LIST, &list);
        let path = format!("/{base}/{}", r.plural);
        paths.push(Path { path, parameters: Vec::new(), operations: vec![all] });
    }
    paths.push(Path { path: collection.clone(), parameters: outer, operations: many });
    let single = format!("{collection}/{{name}}");
    for sub in &r.subresources {
        let operations = subresource(served, name, scope, sub);
        paths.push(Path { path: format!("{single}/{}", sub.name), parameters: inner.clone(), operations });
    }
    paths.push(Path { path: single, parameters: inner, operations: one });
    paths.retain(|path| !path.operations.is_empty());
    paths
}

fn subresource(served: &Served, name: &str, scope: &str, sub: &Subresource) -> Vec<Operation> {
    let r = &served.resource;
    let own = sub.kind == r.kind && sub.group == r.group;
    let mut operations = Vec::new();
    for (verb, query) in [("get", &[][..]), ("update", &WRITE), ("create", &WRITE), ("patch", &PATCH)] {
        if !sub.verbs.iter().any(|known| &**known == verb) {
            continue;
        }
        let (method, action, word) = words(verb);
        let about = format!("{scope}{}{}", r.kind, capital(&sub.name));
        let typed = own.then(|| name.to_owned());
        operations.push(Operation {
            method,
            action,
            id: id(word, &r.group, &r.version, &about),
            gvk: (sub.group.to_string(), sub.version.to_string(), sub.kind.to_string()),
            query,
            body: typed.clone().filter(|_| matches!(verb, "create" | "update")),
            answer: typed,
            patches: patches(verb, r.builtin),
        });
    }
    operations
}

fn patches(verb: &str, builtin: bool) -> &'static [&'static str] {
    const ALL: [&str; 4] = [
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ];
    match (verb, builtin) {
        ("patch", true) => &ALL,
        ("patch", false) => &ALL[..3],
        _ => &[],
    }
}

/// Method, action, and how the operation is called.
fn words(verb: &str) -> (&'static str, &'static str, &'static str) {
    match verb {
        "list" => ("get", "list", "list"),
        "create" => ("post", "post", "create"),
        "update" => ("put", "put", "replace"),
        "patch" => ("patch", "patch", "patch"),
        "delete" => ("delete", "delete", "delete"),
        "deletecollection" => ("delete", "deletecollection", "delete"),
        _ => ("get", "get", "read"),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `createAppsV1NamespacedDeployment`, `readCoreV1Node`
fn id(word: &str, group: &str, version: &str, about: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    let group: String = group.split('.').map(capital).collect();
    format!("{word}{group}{}{about}", capital(version))
}
