//! `rbac.authorization.k8s.io/v1`.

use apimachinery::{FieldError, Object};
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
    for plural in ["clusterrolebindings", "rolebindings"] {
        to.resource("rbac.authorization.k8s.io/v1", plural)
            .created_by_update()
            .named(NameRule::PathSegment)
            .strategy(Binding);
    }
    for plural in ["clusterroles", "roles"] {
        to.resource("rbac.authorization.k8s.io/v1", plural)
            .created_by_update()
            .named(NameRule::PathSegment)
            .strategy(Role);
    }
}

struct Role;

impl Strategy for Role {
    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(stamped(object))
    }
}

struct Binding;

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
                checks.invalid(&path("roleRef"), at(new, "roleRef").clone(), "cannot change roleRef");
            }
        })
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
