//! The types in the expressions of ValidatingAdmissionPolicies: whoever wrote one is told in its status what cannot be
//! right for the kinds that it is for. Nothing is refused because of it.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`. Upstream a controller does this over
//! the published documents; here it is a task of the server, which has the schemas.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};

use apimachinery::{
    Object,
    cel::{self, Declared, Ty, admission},
    meta,
};
use serde_json::{Value, json};
use store::Revision;

use super::{kept::GROUP, policy::list};
use crate::{
    catalogue::{Catalogue, Served},
    custom,
    server::Inner,
};

const PLURAL: &str = "validatingadmissionpolicies";
/// So many kinds are looked at for a rule.
const MAX_KINDS: usize = 10;

/// Begins to follow the policies; ends with the server.
pub(crate) fn start(inner: &Arc<Inner>) {
    if let Some(policies) = inner.preferred(GROUP, PLURAL) {
        tokio::spawn(run(Arc::downgrade(inner), policies));
    }
}

async fn run(inner: Weak<Inner>, policies: Arc<Served>) {
    loop {
        let opened = match inner.upgrade() {
            None => return,
            Some(inner) => {
                let since = all(&inner, &policies).await;
                inner.config.store.watch(&policies.prefix, since)
            }
        };
        // History that is gone does not matter: the present is read again anyway.
        let Ok(mut watch) = opened else { continue };
        while watch.changed().await.is_ok() {
            let Some(inner) = inner.upgrade() else { return };
            all(&inner, &policies).await;
        }
    }
}

/// Checks the policies that have changed since they were checked. Returns the revision that was looked at.
async fn all(inner: &Inner, policies: &Served) -> Revision {
    let page = match inner.config.store.list(&policies.prefix, None, 0, None) {
        Ok(page) => page,
        Err(error) => {
            tracing::warn!(%error, "policies could not be read to check them");
            return inner.config.store.revision();
        }
    };
    for entry in &page.entries {
        let Ok(policy) = policies.object(entry) else { continue };
        if is_checked(&policy) {
            continue;
        }
        let warnings = check(&inner.catalogue.load(), &policy);
        let told = custom::write_status(inner, policies, meta::name(&policy), |old| {
            // Somebody who was faster is heard of by the next event.
            if meta::uid(old) != meta::uid(&policy) || meta::generation(old) != meta::generation(&policy) {
                return None;
            }
            let mut new = old.clone();
            new["status"]["observedGeneration"] = meta::generation(&policy).into();
            new["status"]["typeChecking"] =
                if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
            Some(new)
        })
        .await;
        if let Err(error) = told
            && !matches!(error.code, 404 | 409)
        {
            tracing::warn!(%error, name = meta::name(&policy), "the status of a policy was not written");
        }
    }
    page.revision
}

fn is_checked(policy: &Object) -> bool {
    policy["status"]["observedGeneration"].as_i64().unwrap_or(0) >= meta::generation(policy)
}

/// A kind that a policy is for.
struct Kind {
    /// `apps/v1, Kind=Deployment`
    shown: String,
    ty: Ty,
}

/// The warnings for a policy: `{fieldRef, warning}`.
fn check(catalogue: &Catalogue, policy: &Object) -> Vec<Value> {
    let spec = &policy["spec"];
    let kinds = kinds(catalogue, spec);
    let params = spec["paramKind"].is_object();
    let param_ty = catalogue
        .of_kind(
            spec["paramKind"]["apiVersion"].as_str().unwrap_or_default(),
            spec["paramKind"]["kind"].as_str().unwrap_or_default(),
        )
        .map_or(Ty::Dyn, |served| Ty::of_kind(&served.resource.schema, &served.resource.kind));
    let scopes: Vec<(String, Declared)> = kinds
        .into_iter()
        .map(|kind| {
            let names = admission::Names { params, authorizer: true, patches: false };
            let declared = admission::declared(names, kind.ty, param_ty.clone());
            (kind.shown, with_variables(declared, &spec["variables"]))
        })
        .collect();
    let mut warnings = Vec::new();
    for (index, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(source) = validation[field].as_str().filter(|source| !source.is_empty()) else {
                continue;
            };
            let wrong: Vec<String> = scopes
                .iter()
                .filter_map(|(kind, declared)| {
                    cel::check(source, declared).err().map(|issues| format!("{kind}: {issues}\n"))
                })
                .collect();
            if !wrong.is_empty() {
                let place = format!("spec.validations[{index}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": wrong.join("\n")}));
            }
        }
    }
    warnings
}

/// Adds the variables of a policy, each with the type that its expression has.
fn with_variables(declared: Declared, variables: &Value) -> Declared {
    let mut known: Vec<(String, Ty)> = Vec::new();
    for variable in variables.as_array().into_iter().flatten() {
        let text = |field: &str| variable[field].as_str().unwrap_or_default();
        let scope = admission::with_variables(declared.clone(), &known);
        // One that is wrong itself is told where it is used, if at all.
        let ty = cel::check(text("expression"), &scope).unwrap_or(Ty::Dyn);
        known.push((text("name").to_owned(), ty));
    }
    admission::with_variables(declared, &known)
}

/// The kinds that the rules of a policy name without wildcards, in order.
fn kinds(catalogue: &Catalogue, spec: &Value) -> Vec<Kind> {
    let texts = |value: &Value| {
        let mut texts = list(value, |text| text.as_str().unwrap_or_default().to_owned());
        texts.sort();
        texts
    };
    let mut found: BTreeSet<(String, String, String)> = BTreeSet::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let (groups, versions) = (texts(&rule["apiGroups"]), texts(&rule["apiVersions"]));
        if groups.iter().chain(&versions).any(|text| text.contains('*')) {
            continue;
        }
        let resources = texts(&rule["resources"]);
        let named = groups.iter().flat_map(|group| {
            let resources = &resources;
            versions.iter().flat_map(move |version| {
                let plain = resources.iter().filter(|resource| !resource.contains(['*', '/']));
                plain.map(move |resource| (group, version, resource))
            })
        });
        let served = named.filter_map(|(group, version, resource)| catalogue.find(group, version, resource));
        found.extend(served.take(MAX_KINDS).map(|served| {
            let resource = &served.resource;
            (resource.group.to_string(), resource.version.to_string(), resource.plural.to_string())
        }));
    }
    let mut kinds: Vec<_> = found
        .iter()
        .filter_map(|(group, version, plural)| catalogue.find(group, version, plural))
        .map(|served| &served.resource)
        .collect();
    kinds.sort_by(|a, b| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
    kinds
        .into_iter()
        .map(|resource| Kind {
            shown: format!("{}/{}, Kind={}", resource.group, resource.version, resource.kind),
            ty: Ty::of_kind(&resource.schema, &resource.kind),
        })
        .collect()
}
