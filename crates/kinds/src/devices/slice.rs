//! ResourceSlice: devices of one driver, on one node or on several.

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    capacity,
    parts::{check_binding, check_taint, stamp_taint, unique},
};
use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, entries, flag, has, items_mut, list, number, remove, same, text},
    podspec::check_node_selector,
    resource::Strategy,
};

/// How many devices a slice may have; half as many if any has taints or shares counters.
const MOST_DEVICES: usize = 128;
const MOST_COUNTER_SETS: usize = 8;
const MOST_COUNTERS: usize = 32;
/// Counter sets that one device may draw from.
const MOST_CONSUMED: usize = 2;
/// Attributes and capacities of one device together, and the values of its attributes.
const MOST_PROPERTIES: usize = 32;
const MOST_VALUES: usize = 48;
const MOST_TAINTS: usize = 16;
/// Bytes of a string or a version.
const LONGEST_VALUE: usize = 64;

pub struct ResourceSlice;

/// Takes away what belongs to features that are off.
fn drop_disabled(object: &mut Object) {
    for field in ["spec.partitionTypeAttribute", "spec.skipNodeOperations"] {
        remove(object, field);
    }
    for device in items_mut(object, "spec.devices") {
        remove(device, "nodeAllocatableResources");
        for counters in items_mut(device, "consumesCounters") {
            remove(counters, "compatibilityGroups");
        }
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for (_, attribute) in attributes.into_iter().flatten() {
            for field in ["ints", "bools", "strings", "versions"] {
                remove(attribute, field);
            }
        }
    }
}

fn check(checks: &mut Checks, spec: &Value, old: Option<&Value>, path: &FieldPath) {
    checks.driver_name(&path.child("driver"), text(spec, "driver"));
    let pool = path.child("pool");
    checks.pool_name(&pool.child("name"), text(spec, "pool.name"));
    let count = number(spec, "pool.resourceSliceCount");
    if count <= 0 {
        checks.invalid(&pool.child("resourceSliceCount"), count, "must be greater than zero");
    }
    let generation = number(spec, "pool.generation");
    if generation < 0 {
        let detail = "must be greater than or equal to zero";
        checks.invalid(&pool.child("generation"), generation, detail);
    }
    if let Some(old) = old {
        for field in ["pool.name", "driver", "nodeName"] {
            if !same(at(spec, field), at(old, field)) {
                let path = FieldPath::from(format!("{path}.{field}").as_str());
                checks.invalid(&path, at(spec, field).clone(), "field is immutable");
            }
        }
    }
    check_place(checks, spec, path);
    if has(spec, "sharedCounters") && has(spec, "devices") {
        checks.invalid(path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    check_devices(checks, spec, old, &path.child("devices"));
    let (sets, sets_path) = (list(spec, "sharedCounters"), path.child("sharedCounters"));
    if !checks.too_many(&sets_path, sets.len(), MOST_COUNTER_SETS) {
        for (index, set) in sets.iter().enumerate() {
            check_counters(checks, set, "name", &sets_path.index(index));
        }
        unique(checks, sets, &sets_path, |set| text(set, "name"));
    }
}

/// A flag that says something only when it is true.
fn check_true(checks: &mut Checks, object: &Value, field: &str, path: &FieldPath) {
    if at(object, field) == false {
        checks.invalid(&path.child(field), false, "must be either unset or set to true");
    }
}

/// Where the devices are: said in exactly one way.
fn check_place(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let mut ways = Vec::new();
    match at(spec, "nodeName").as_str() {
        Some("") => {
            let detail = "must be either unset or set to a non-empty string";
            checks.invalid(&path.child("nodeName"), "", detail);
        }
        Some(node) => {
            ways.push("`nodeName`");
            checks.dns_subdomain(&path.child("nodeName"), node);
        }
        None => {}
    }
    if has(spec, "nodeSelector") {
        ways.push("`nodeSelector`");
        let path = path.child("nodeSelector");
        check_node_selector(checks, at(spec, "nodeSelector"), &path);
        let terms = list(spec, "nodeSelector.nodeSelectorTerms");
        if terms.len() != 1 {
            let detail = "must have exactly one node selector term";
            checks.invalid(&path.child("nodeSelectorTerms"), terms.to_vec(), detail);
        }
    }
    for (field, way) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        check_true(checks, spec, field, path);
        if flag(spec, field) {
            ways.push(way);
        }
    }
    let detail =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match ways.len() {
        0 => checks.required(path, detail),
        1 => {}
        _ => {
            let value = format!("{{{}}}", ways.join(", "));
            checks.invalid(path, value, &format!("{detail}, but multiple fields are set"));
        }
    }
}

fn check_devices(checks: &mut Checks, spec: &Value, old: Option<&Value>, path: &FieldPath) {
    let devices = list(spec, "devices");
    let large =
        |device: &Value| !list(device, "taints").is_empty() || !list(device, "consumesCounters").is_empty();
    let most = if devices.iter().any(large) { MOST_DEVICES / 2 } else { MOST_DEVICES };
    if checks.too_many(path, devices.len(), most) {
        return;
    }
    for (index, device) in devices.iter().enumerate() {
        let before = old.and_then(|old| {
            list(old, "devices").iter().find(|before| text(before, "name") == text(device, "name"))
        });
        let path = path.index(index);
        check_device(checks, device, before, &path);
        check_device_place(checks, device, flag(spec, "perDeviceNodeSelection"), &path);
        check_binding(checks, device, &path);
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, device) in devices.iter().enumerate() {
        if !seen.insert(text(device, "name")) {
            checks.duplicate(&path.index(index), text(device, "name"));
        }
    }
}

fn check_device(checks: &mut Checks, device: &Value, before: Option<&Value>, path: &FieldPath) {
    checks.dns_label(&path.child("name"), text(device, "name"));
    let (attributes, capacities) = (entries(device, "attributes"), entries(device, "capacity"));
    let values = attributes.count();
    let properties = values + capacities.count();
    for (count, most, what) in [
        (properties, MOST_PROPERTIES, "attributes and capacities"),
        (values, MOST_VALUES, "attribute values"),
    ] {
        if count > most {
            let detail = format!("the total number of {what} must not exceed {most}");
            checks.invalid(path, count, &detail);
        }
    }
    let attributes = path.child("attributes");
    for (name, attribute) in entries(device, "attributes") {
        checks.device_name(&attributes, name);
        check_attribute(checks, attribute, &attributes.key(name));
    }
    let kept = |field: &str| before.is_some_and(|before| same(at(before, field), at(device, field)));
    if !kept("capacity") {
        let path = path.child("capacity");
        for (name, value) in entries(device, "capacity") {
            checks.device_name(&path, name);
            capacity::check(checks, value, flag(device, "allowMultipleAllocations"), &path.key(name));
        }
    }
    let (taints, taints_path) = (list(device, "taints"), path.child("taints"));
    if !kept("taints") && !checks.too_many(&taints_path, taints.len(), MOST_TAINTS) {
        for (index, taint) in taints.iter().enumerate() {
            check_taint(checks, taint, None, &taints_path.index(index));
        }
    }
    let (consumed, consumed_path) = (list(device, "consumesCounters"), path.child("consumesCounters"));
    if !checks.too_many(&consumed_path, consumed.len(), MOST_CONSUMED) {
        for (index, counters) in consumed.iter().enumerate() {
            check_counters(checks, counters, "counterSet", &consumed_path.index(index));
        }
        unique(checks, consumed, &consumed_path, |counters| text(counters, "counterSet"));
    }
}

/// A set of counters, or what a device takes from one. `name` is the field with the set's name.
fn check_counters(checks: &mut Checks, set: &Value, name: &str, path: &FieldPath) {
    match text(set, name) {
        "" => checks.required(&path.child(name), ""),
        value => checks.dns_label(&path.child(name), value),
    }
    let path = path.child("counters");
    let counters = entries(set, "counters").count();
    if counters == 0 {
        return checks.required(&path, "");
    }
    if !checks.too_many(&path, counters, MOST_COUNTERS) {
        entries(set, "counters").for_each(|(name, _)| checks.dns_label(&path, name));
    }
}

/// One value of one type.
fn check_attribute(checks: &mut Checks, attribute: &Value, path: &FieldPath) {
    const TYPES: [&str; 4] = ["int", "bool", "string", "version"];
    if let Some(value) = at(attribute, "string").as_str() {
        checks.longest(&path.child("string"), value, LONGEST_VALUE);
    }
    if let Some(value) = at(attribute, "version").as_str() {
        let path = path.child("version");
        if !names::is_semantic_version(value) {
            let detail = "must be a string compatible with semver.org spec 2.0.0";
            checks.invalid(&path, value, detail);
        }
        checks.longest(&path, value, LONGEST_VALUE);
    }
    let given: Vec<String> =
        TYPES.into_iter().filter(|kind| has(attribute, kind)).map(|kind| format!("`{kind}`")).collect();
    let all = "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`";
    match given.len() {
        0 => checks.invalid(path, "", &format!("must specify one of: {all}")),
        1 => {}
        _ => {
            let value = format!("{{{}}}", given.join(", "));
            checks.invalid(path, value, &format!("must specify exactly one of: {all}"));
        }
    }
}

/// Where one device is, if each is in a place of its own.
fn check_device_place(checks: &mut Checks, device: &Value, own: bool, path: &FieldPath) {
    const PLACES: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];
    if !own {
        if PLACES.iter().any(|field| has(device, field)) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is \
                          set to true in the ResourceSlice spec";
            checks.invalid(path, Value::Null, detail);
        }
        return;
    }
    let mut ways = Vec::new();
    match at(device, "nodeName").as_str() {
        Some("") => checks.invalid(&path.child("nodeName"), "", "must not be empty"),
        Some(node) => {
            ways.push("`nodeName`");
            checks.dns_subdomain(&path.child("nodeName"), node);
        }
        None => {}
    }
    if has(device, "nodeSelector") {
        ways.push("`nodeSelector`");
        check_node_selector(checks, at(device, "nodeSelector"), &path.child("nodeSelector"));
    }
    check_true(checks, device, "allNodes", path);
    if flag(device, "allNodes") {
        ways.push("`allNodes`");
    }
    let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                  `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match ways.len() {
        0 => checks.required(path, detail),
        1 => {}
        _ => checks.invalid(path, format!("{{{}}}", ways.join(", ")), detail),
    }
}

impl Strategy for ResourceSlice {
    fn prepare_create(&self, object: &mut Object, now: DateTime<Utc>) {
        drop_disabled(object);
        for device in items_mut(object, "spec.devices") {
            items_mut(device, "taints").for_each(|taint| stamp_taint(taint, now));
        }
    }

    fn prepare_update_at(&self, new: &mut Object, _old: &Object, _subresource: &str, now: DateTime<Utc>) {
        self.prepare_create(new, now);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            if text(object, "metadata.resourceVersion").is_empty() {
                check(checks, at(object, "spec"), None, &path("spec"));
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, at(new, "spec"), Some(at(old, "spec")), &path("spec")))
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let driver = text(new, "spec.driver");
        if driver == driver.to_lowercase() {
            return Vec::new();
        }
        vec![format!(
            "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
        )]
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let [node, driver, pool] =
            ["spec.nodeName", "spec.driver", "spec.pool.name"].map(|field| json!(text(object, field)));
        Some(vec![name(object), node, driver, pool, created(object, now)])
    }
}
