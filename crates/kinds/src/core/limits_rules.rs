//! What is wrong with a LimitRange or a ResourceQuota.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{FieldPath, names, quantity::Quantity};
use serde_json::Value;

use crate::{
    checks::{Checks, path, quantity},
    object::{at, entries, list, same, text},
    podspec::{check_container_name, check_name, is_overcommitted, quantity_value},
};

pub fn check_limits(checks: &mut Checks, object: &Value) {
    let mut seen = BTreeSet::new();
    for (index, limit) in list(object, "spec.limits").iter().enumerate() {
        let path = path("spec").child("limits").index(index);
        let kind = text(limit, "type");
        check_limit_type(checks, kind, &path.child("type"));
        if !seen.insert(kind) {
            checks.duplicate(&path.child("type"), kind);
        }
        check_limit(checks, limit, kind, &path);
    }
}

fn check_limit_type(checks: &mut Checks, kind: &str, path: &FieldPath) {
    let messages = names::is_qualified_name(kind);
    if !messages.is_empty() {
        checks.each(path, kind, messages);
    } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
        checks.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
}

fn check_limit(checks: &mut Checks, limit: &Value, kind: &str, path: &FieldPath) {
    const DEFAULTS: [&str; 2] = ["default", "defaultRequest"];
    let mut resources = BTreeSet::new();
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        if kind == "Pod" && DEFAULTS.contains(&field) {
            if entries(limit, field).next().is_some() {
                checks.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (resource, _) in entries(limit, field) {
            let path = path.child(field).key(resource);
            if matches!(kind, "Pod" | "Container") {
                check_container_name(checks, resource, &path);
            } else {
                check_name(checks, resource, &path);
            }
            resources.insert(resource.as_str());
        }
    }
    if kind == "PersistentVolumeClaim"
        && ["min", "max"].iter().all(|field| at(limit, field).get("storage").is_none())
    {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        checks.required(&path.child("limits"), detail);
    }
    for resource in resources {
        check_order(checks, limit, kind, resource, path);
    }
}

/// The numbers of one resource against each other.
fn check_order(checks: &mut Checks, limit: &Value, kind: &str, resource: &str, path: &FieldPath) {
    let of = |field: &str| at(limit, field).get(resource).and_then(quantity);
    let (min, max, ratio) = (of("min"), of("max"), of("maxLimitRequestRatio"));
    let (default, request) = if kind == "Pod" { (None, None) } else { (of("default"), of("defaultRequest")) };
    let mut greater =
        |low: &Option<Quantity>, high: &Option<Quantity>, field: &str, shown: usize, words: [&str; 2]| {
            if let (Some(low), Some(high)) = (low, high)
                && low > high
            {
                let detail = format!("{} value {low} is greater than {} value {high}", words[0], words[1]);
                let value = [low, high][shown].to_string();
                checks.invalid(&path.child(field).key(resource), value, &detail);
            }
        };
    greater(&min, &max, "min", 0, ["min", "max"]);
    greater(&min, &request, "defaultRequest", 1, ["min", "default request"]);
    greater(&request, &max, "defaultRequest", 0, ["default request", "max"]);
    greater(&request, &default, "defaultRequest", 0, ["default request", "default limit"]);
    greater(&min, &default, "default", 0, ["min", "default"]);
    // Upstream shows the maximum here, not the default.
    if let (Some(default), Some(max)) = (&default, &max)
        && default > max
    {
        let detail = format!("default value {default} is greater than max value {max}");
        checks.invalid(&path.child("default").key(resource), max.to_string(), &detail);
    }
    if let Some(ratio) = &ratio {
        let path = path.child("maxLimitRequestRatio").key(resource);
        if ratio.to_f64() < 1.0 {
            checks.invalid(&path, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            let most = max.to_f64() / min.to_f64();
            if ratio.to_f64() > most {
                let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
                checks.invalid(&path, ratio.to_string(), &detail);
            }
        }
    }
    if let (Some(default), Some(request)) = (&default, &request)
        && !is_overcommitted(resource)
        && default != request
    {
        let detail =
            format!("default value {default} must equal to defaultRequest value {request} in {resource}");
        checks.invalid(&path.child("defaultRequest").key(resource), request.to_string(), &detail);
    }
}

/// Names that a quota may limit, besides huge pages and what has a domain.
const QUOTA: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_quota_name(name: &str) -> bool {
    QUOTA.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// A map of quota resources: `spec.hard`, `status.hard`, `status.used`.
fn check_amounts(checks: &mut Checks, object: &Value, field: &str) {
    for (name, value) in entries(object, field) {
        let path = path(field).key(name);
        check_name(checks, name, &path);
        if !name.contains('/') && !is_quota_name(name) {
            checks.invalid(&path, name.as_str(), "must be a standard resource for quota");
        }
        quantity_value(checks, name, value, &path);
    }
}

pub fn check_quota(checks: &mut Checks, object: &Value) {
    check_amounts(checks, object, "spec.hard");
    check_scopes(checks, object);
    check_scope_selector(checks, object);
}

pub fn check_quota_status(checks: &mut Checks, object: &Value) {
    check_amounts(checks, object, "status.hard");
    check_amounts(checks, object, "status.used");
}

/// The scopes of a quota stay what they are.
pub fn check_quota_update(checks: &mut Checks, new: &Value, old: &Value) {
    let set = |object: &Value| -> BTreeSet<String> {
        list(object, "spec.scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if set(new) != set(old) && !same(at(new, "spec.scopes"), at(old, "spec.scopes")) {
        checks.invalid(&path("spec.scopes"), at(new, "spec.scopes").clone(), "field is immutable");
    }
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

/// A scope narrows only resources of the things that can be in it.
fn scope_fits(scope: &str, resource: &str) -> bool {
    let counted = resource == "pods";
    let computed = matches!(
        resource,
        "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory"
    );
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => counted || computed,
        "BestEffort" => counted,
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

/// How many resources of a quota each scope cannot be applied to.
struct Unfit<'q> {
    resources: Vec<&'q str>,
    /// By scope, for the scopes that were asked for.
    known: BTreeMap<&'q str, usize>,
}

impl<'q> Unfit<'q> {
    fn of(object: &'q Value) -> Self {
        let names = entries(object, "spec.hard").map(|(resource, _)| resource.as_str());
        Self { resources: names.filter(|name| is_quota_name(name)).collect(), known: BTreeMap::new() }
    }

    /// One scope; `shown` is what upstream prints.
    fn check(&mut self, checks: &mut Checks, scope: &'q str, path: &FieldPath, shown: &Value) {
        let count = || self.resources.iter().filter(|resource| !scope_fits(scope, resource)).count();
        for _ in 0..*self.known.entry(scope).or_insert_with(count) {
            if checks.is_full() {
                return;
            }
            checks.invalid(path, shown.clone(), "unsupported scope applied to resource");
        }
    }
}

fn check_opposites(checks: &mut Checks, scopes: &[&str], path: &FieldPath, shown: &Value) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            checks.invalid(path, shown.clone(), "conflicting scopes");
        }
    }
}

fn check_scopes(checks: &mut Checks, object: &Value) {
    let (shown, path) = (at(object, "spec.scopes"), path("spec").child("scopes"));
    let scopes: Vec<&str> = list(object, "spec.scopes").iter().filter_map(Value::as_str).collect();
    let mut unfit = Unfit::of(object);
    for scope in &scopes {
        if checks.is_full() {
            return;
        }
        if !SCOPES.contains(scope) {
            checks.invalid(&path, shown.clone(), "unsupported scope");
        }
        unfit.check(checks, scope, &path, shown);
    }
    check_opposites(checks, &scopes, &path, shown);
}

fn check_scope_selector(checks: &mut Checks, object: &Value) {
    let selector = at(object, "spec.scopeSelector");
    let path = path("spec").child("scopeSelector").child("matchExpressions");
    let (mut scopes, mut unfit) = (Vec::new(), Unfit::of(object));
    for requirement in list(selector, "matchExpressions") {
        let (scope, operator) = (text(requirement, "scopeName"), text(requirement, "operator"));
        if !SCOPES.contains(&scope) {
            checks.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        unfit.check(checks, scope, &path, selector);
        let by_itself = matches!(
            scope,
            "BestEffort" | "NotBestEffort" | "Terminating" | "NotTerminating" | "CrossNamespacePodAffinity"
        );
        if by_itself && operator != "Exists" {
            checks.invalid(
                &path.child("operator"),
                operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                 ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        let values = list(requirement, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => checks.required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => checks.invalid(
                &path.child("values"),
                values.to_vec(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => checks.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
        scopes.push(scope);
    }
    check_opposites(checks, &scopes, &path, at(object, "spec.scopes"));
}

/// What a quota is warned for: requests above the limits of the same resource, in upstream's words.
pub fn quota_warnings(object: &Value) -> Vec<String> {
    let hard = at(object, "spec.hard");
    let of = |name: &str| hard.get(name).and_then(quantity);
    let mut warnings = Vec::new();
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        let mut name = format!("requests.{resource}");
        let mut request = of(&name);
        if request.is_none() && resource != "ephemeral-storage" {
            name = resource.to_owned();
            request = of(&name);
        }
        let limit_name = format!("limits.{resource}");
        if let (Some(request), Some(limit)) = (request, of(&limit_name))
            && request > limit
        {
            warnings
                .push(format!("ResourceQuota {name} ({request}) should be less than {limit_name} ({limit})"));
        }
    }
    warnings
}
