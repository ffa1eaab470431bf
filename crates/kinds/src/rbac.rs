//! `rbac.authorization.k8s.io/v1`.

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name, stamped},
    checks::{Checks, path},
    declare::Declarer,
    object::{at, fill, items_mut, list, same, text},
    resource::{NameRule, Strategy},
};

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn declare(to: &mut Declarer<'_>) {
    for (plural, namespaced) in [("clusterrolebindings", false), ("rolebindings", true)] {
        to.resource("rbac.authorization.k8s.io/v1", plural)
            .created_by_update()
            .named(NameRule::PathSegment)
            .strategy(Binding { namespaced });
    }
    for (plural, namespaced) in [("clusterroles", false), ("roles", true)] {
        to.resource("rbac.authorization.k8s.io/v1", plural)
            .created_by_update()
            .named(NameRule::PathSegment)
            .strategy(Role { namespaced });
    }
}

struct Role {
    namespaced: bool,
}

fn check_rule(checks: &mut Checks, rule: &Value, namespaced: bool, path: &FieldPath) {
    if list(rule, "verbs").is_empty() {
        checks.declared(|checks| checks.required(&path.child("verbs"), ""));
    }
    let filled = |field: &str| !list(rule, field).is_empty();
    if filled("nonResourceURLs") {
        let (path, urls) = (path.child("nonResourceURLs"), at(rule, "nonResourceURLs"));
        if namespaced {
            checks.invalid(&path, urls.clone(), "namespaced rules cannot apply to non-resource URLs");
        }
        if filled("apiGroups") || filled("resources") || filled("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            checks.invalid(&path, urls.clone(), detail);
        }
        return;
    }
    if !filled("apiGroups") {
        checks.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if !filled("resources") {
        checks.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

fn check_aggregation(checks: &mut Checks, rule: &Value) {
    let path = path("aggregationRule").child("clusterRoleSelectors");
    let selectors = list(rule, "clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        checks.required(&path, detail);
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index);
        checks.label_selector(&path, selector);
        if apimachinery::selector::LabelSelector::from_object(selector).is_err() {
            checks.invalid(&path, Value::Null, "invalid label selector.");
        }
    }
}

impl Strategy for Role {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            for (index, rule) in list(object, "rules").iter().enumerate() {
                check_rule(checks, rule, self.namespaced, &path("rules").index(index));
            }
            let aggregation = at(object, "aggregationRule");
            if !aggregation.is_null() {
                check_aggregation(checks, aggregation);
            }
        })
    }

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(stamped(object))
    }
}

struct Binding {
    namespaced: bool,
}

impl Binding {
    fn check(&self, checks: &mut Checks, object: &Value) {
        let role = path("roleRef");
        checks.one_of(&role.child("apiGroup"), text(object, "roleRef.apiGroup"), &[GROUP]);
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        checks.one_of(&role.child("kind"), text(object, "roleRef.kind"), kinds);
        match text(object, "roleRef.name") {
            "" => checks.declared(|checks| checks.required(&role.child("name"), "")),
            name => checks.each(&role.child("name"), name, names::is_path_segment(name)),
        }
        for (index, subject) in list(object, "subjects").iter().enumerate() {
            self.check_subject(checks, subject, &path("subjects").index(index));
        }
    }

    fn check_subject(&self, checks: &mut Checks, subject: &Value, path: &FieldPath) {
        let [kind, name, group] = ["kind", "name", "apiGroup"].map(|field| text(subject, field));
        if name.is_empty() {
            checks.declared(|checks| checks.required(&path.child("name"), ""));
        }
        match kind {
            "ServiceAccount" => {
                if !name.is_empty() {
                    checks.dns_subdomain(&path.child("name"), name);
                }
                if !group.is_empty() {
                    checks.one_of(&path.child("apiGroup"), group, &[""]);
                }
                if !self.namespaced && text(subject, "namespace").is_empty() {
                    checks.required(&path.child("namespace"), "");
                }
            }
            "User" | "Group" => checks.one_of(&path.child("apiGroup"), group, &[GROUP]),
            _ => checks.one_of(&path.child("kind"), kind, &["ServiceAccount", "User", "Group"]),
        }
    }
}

impl Strategy for Binding {
    fn default(&self, object: &mut Object) {
        if let Some(role) = object.get_mut("roleRef") {
            fill(role, "apiGroup", GROUP);
        }
        for subject in items_mut(object, "subjects") {
            if matches!(text(subject, "kind"), "User" | "Group") {
                fill(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if !same(at(new, "roleRef"), at(old, "roleRef")) {
                checks.invalid(&path("roleRef"), at(new, "roleRef").clone(), "field is immutable");
            }
        })
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| self.check(checks, object))
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let of = |kind: &str| -> Value {
            let named = list(object, "subjects").iter().filter(|subject| subject["kind"] == kind);
            let names = named.map(|subject| match text(subject, "namespace") {
                namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
                    format!("{namespace}/{}", text(subject, "name"))
                }
                _ => text(subject, "name").to_owned(),
            });
            names.collect::<Vec<_>>().join(", ").into()
        };
        let role = format!("{}/{}", text(object, "roleRef.kind"), text(object, "roleRef.name"));
        let [users, groups, accounts] = ["User", "Group", "ServiceAccount"].map(of);
        Some(vec![name(object), role.into(), created(object, now), users, groups, accounts])
    }
}
