//! What each path takes, in a form that both versions of OpenAPI are written from.

use std::sync::LazyLock;

use kinds::{
    Resource, Subresource,
    facts::{FieldFacts, TABLE, Table},
};

use super::schemas::{list_name_of, type_of_subresource};
use crate::catalogue::Served;

/// A parameter of a request beside its body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parameter {
    /// `fieldManager`
    pub name: &'static str,
    /// `path`, `query`
    pub place: &'static str,
    /// `string`, `boolean`, `integer`
    pub kind: &'static str,
}

/// What an operation answers.
pub enum Answer {
    /// An object of this type of the document.
    Object(String),
    /// Text.
    Text,
    /// Whatever somebody behind this server answers.
    Anything,
}

impl Answer {
    /// The type of an object.
    pub fn object(&self) -> Option<&str> {
        match self {
            Self::Object(name) => Some(name),
            Self::Text | Self::Anything => None,
        }
    }
}

/// One method of one path.
pub struct Operation {
    /// `get`, `put`, `post`, `delete`, `patch`, `head`, `options`
    pub method: &'static str,
    /// `x-kubernetes-action`
    pub action: &'static str,
    /// `listAppsV1NamespacedDeployment`
    pub id: String,
    /// Group, version and kind of what it is about.
    pub gvk: (String, String, String),
    /// Query parameters.
    pub query: Vec<Parameter>,
    /// The type of the body, if it takes one; deletes do without.
    pub body: Option<String>,
    /// What it answers.
    pub answer: Answer,
    /// The kinds of patches that it takes. kubectl merges by what is named here.
    pub patches: &'static [&'static str],
}

/// A path and its methods.
pub struct Path {
    /// `/apis/apps/v1/namespaces/{namespace}/deployments/{name}`
    pub path: String,
    /// In the path: `namespace`, `name`, `path`.
    pub parameters: Vec<&'static str>,
    /// In upstream's order.
    pub operations: Vec<Operation>,
}

/// A parameter in the path.
pub fn in_path(name: &'static str) -> Parameter {
    Parameter { name, place: "path", kind: "string" }
}

/// A query parameter that many operations take.
pub fn in_query(name: &'static str) -> Parameter {
    let kind = match name {
        "allowWatchBookmarks"
        | "force"
        | "ignoreStoreReadErrorWithClusterBreakingPotential"
        | "orphanDependents"
        | "sendInitialEvents"
        | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        _ => "string",
    };
    Parameter { name, place: "query", kind }
}

fn queries(names: &[&'static str]) -> Vec<Parameter> {
    names.iter().map(|name| in_query(name)).collect()
}

/// The fields of an options type of the core group as query parameters: plain ones, and lists of these.
fn options(kind: &str) -> Vec<Parameter> {
    static FACTS: LazyLock<Table<'static>> = LazyLock::new(|| Table::parse(TABLE));
    let of = |field: &FieldFacts<'static>| {
        let kind = match field.kind.trim_start_matches("[]") {
            "string" => "string",
            "bool" => "boolean",
            "int32" | "int64" => "integer",
            _ => return None,
        };
        let meta = matches!(field.name, "kind" | "apiVersion");
        (!meta).then_some(Parameter { name: field.name, place: "query", kind })
    };
    let facts = FACTS.type_of(&format!("core.v1.{kind}"));
    facts.into_iter().flat_map(|facts| &facts.fields).filter_map(of).collect()
}

/// The name of a type that belongs to no group.
pub fn meta(kind: &str) -> String {
    format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")
}

const LIST: [&str; 11] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const PATCH: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: [&str; 5] = [
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
const DELETE_MANY: [&str; 14] = [
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
];

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
            query: queries(query),
            body: match verb {
                "create" | "update" => Some(name.to_owned()),
                "delete" | "deletecollection" => Some(meta("DeleteOptions")),
                _ => None,
            },
            answer: Answer::Object(answer.to_owned()),
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
        many.push(make("deletecollection", format!("Collection{about}"), &DELETE_MANY, &meta("Status")));
    }
    let mut one = Vec::new();
    for (verb, query) in [("get", &[][..]), ("update", &WRITE), ("delete", &DELETE), ("patch", &PATCH)] {
        if has(verb) {
            let status = meta("Status");
            // Namespaces are answered with, too, but upstream does not tell.
            let whole = r.behaviour.deleted == kinds::DeletedObject::Object && &*r.plural != "namespaces";
            let answer = if verb == "delete" && !whole { &status } else { name };
            one.push(make(verb, about.clone(), query, answer));
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
        let path = format!("{single}/{}", sub.name);
        if is_connection(sub) {
            paths.extend(connection(r, &path, &inner, scope, sub));
            continue;
        }
        let operations = subresource(served, name, scope, sub);
        paths.push(Path { path, parameters: inner.clone(), operations });
    }
    paths.push(Path { path: single, parameters: inner, operations: one });
    paths.retain(|path| !path.operations.is_empty());
    paths
}

/// The old paths that watch a built-in kind without `watch=true`.
pub fn watches(base: &str, served: &Served) -> Vec<Path> {
    let r = &served.resource;
    if !r.builtin || !r.verbs.iter().any(|verb| &**verb == "watch") {
        return Vec::new();
    }
    let path = |place: &str, parameters: Vec<&'static str>, action: &'static str, about: String| Path {
        path: format!("/{base}/watch/{place}"),
        parameters,
        operations: vec![Operation {
            method: "get",
            action,
            id: id("watch", &r.group, &r.version, &about),
            gvk: (r.group.to_string(), r.version.to_string(), r.kind.to_string()),
            query: queries(&LIST),
            body: None,
            answer: Answer::Object(meta("WatchEvent")),
            patches: &[],
        }],
    };
    let (kind, plural) = (&r.kind, &r.plural);
    if !r.namespaced {
        return vec![
            path(plural, Vec::new(), "watchlist", format!("{kind}List")),
            path(&format!("{plural}/{{name}}"), vec!["name"], "watch", kind.to_string()),
        ];
    }
    let within = format!("namespaces/{{namespace}}/{plural}");
    let one = format!("{within}/{{name}}");
    vec![
        path(plural, Vec::new(), "watchlist", format!("{kind}ListForAllNamespaces")),
        path(&within, vec!["namespace"], "watchlist", format!("Namespaced{kind}List")),
        path(&one, vec!["name", "namespace"], "watch", format!("Namespaced{kind}")),
    ]
}

/// Whether requests to it are passed on to somebody else.
fn is_connection(sub: &Subresource) -> bool {
    sub.kind.ends_with("Options")
}

/// The paths of a subresource that is connected to: all methods go the same way.
fn connection(
    r: &Resource,
    path: &str,
    parameters: &[&'static str],
    scope: &str,
    sub: &Subresource,
) -> Vec<Path> {
    let proxies = &*sub.name == "proxy";
    let methods: &[&'static str] = if proxies {
        &["get", "put", "post", "delete", "options", "head", "patch"]
    } else {
        &["get", "post"]
    };
    let operations = |more: &str| {
        let of = |method: &&'static str| Operation {
            method,
            action: "connect",
            id: id(
                "connect",
                &r.group,
                &r.version,
                &format!("{}{scope}{}{}{more}", capital(method), r.kind, capital(&sub.name)),
            ),
            gvk: (sub.group.to_string(), sub.version.to_string(), sub.kind.to_string()),
            query: options(&sub.kind),
            body: None,
            answer: Answer::Anything,
            patches: &[],
        };
        methods.iter().map(of).collect()
    };
    let mut paths =
        vec![Path { path: path.to_owned(), parameters: parameters.to_vec(), operations: operations("") }];
    if proxies {
        let parameters = [parameters, &["path"]].concat();
        paths.push(Path { path: format!("{path}/{{path}}"), parameters, operations: operations("WithPath") });
    }
    paths
}

fn subresource(served: &Served, name: &str, scope: &str, sub: &Subresource) -> Vec<Operation> {
    let r = &served.resource;
    let own = sub.kind == r.kind && sub.group == r.group;
    let name = if own { name.to_owned() } else { type_of_subresource(sub) };
    let log = &*sub.name == "log";
    let mut operations = Vec::new();
    for (verb, query) in [("get", &[][..]), ("update", &WRITE), ("create", &WRITE), ("patch", &PATCH)] {
        if !sub.verbs.iter().any(|known| &**known == verb) {
            continue;
        }
        let (method, action, word) = words(verb);
        let about = format!("{scope}{}{}", r.kind, capital(&sub.name));
        operations.push(Operation {
            method,
            action,
            id: id(word, &r.group, &r.version, &about),
            gvk: (sub.group.to_string(), sub.version.to_string(), sub.kind.to_string()),
            query: if log { options("PodLogOptions") } else { queries(query) },
            body: matches!(verb, "create" | "update").then(|| name.clone()),
            answer: if log { Answer::Text } else { Answer::Object(name.clone()) },
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
    format!("{word}{}{}{about}", words_of(group), capital(version))
}

/// `RbacAuthorization` of `rbac.authorization.k8s.io`
fn words_of(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    group.split('.').map(capital).collect()
}

/// The tag of a document's operations: `rbacAuthorization_v1`.
pub fn tag(group: &str, version: &str) -> String {
    let words = words_of(group);
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    format!("{}_{version}", first.into_iter().chain(letters).collect::<String>())
}

/// How the operation is called that lists what a version serves: `getAppsV1APIResources`.
pub fn discovery(group: &str, version: &str) -> String {
    id("get", group, version, "APIResources")
}
