//! What upstream's strategies say of faulty and odd objects, new and changed, replayed: the same causes and warnings.
//! The cases are written by `conformance/cmd/answercases`.

use std::collections::BTreeSet;

use apimachinery::structure;
use chrono::DateTime;
use kinds::Resource;
use serde_json::Value;

/// The time at which the cases are asked, Unix seconds.
const NOW: i64 = 1_700_000_000;

/// The object as the server has it once it is read.
fn read(case: &Value, field: &str, resource: &Resource) -> Value {
    let mut object = case[field].clone();
    object["metadata"]["uid"] = "3c1b".into();
    structure::canonicalize(&mut object, &resource.schema).unwrap();
    structure::always(&mut object, &resource.schema);
    apimachinery::defaults::apply(&mut object, &resource.schema);
    resource.strategy.default(&mut object);
    object
}

/// Upstream prints structures as their internal Go types, whose fields we do not have, and differences over lines.
fn plain(cause: &str) -> String {
    let line = cause.lines().next().unwrap_or_default();
    match (line.find(['{', '[']), line.rfind(['}', ']'])) {
        (Some(from), Some(to)) if line.contains(" value: {") || line.contains(" value: [{") => {
            format!("{}…{}", &line[..from], &line[to + 1..])
        }
        _ => line.to_owned(),
    }
}

fn texts(case: &Value, field: &str) -> BTreeSet<String> {
    case[field].as_array().unwrap().iter().map(|text| plain(text.as_str().unwrap())).collect()
}

/// `field[7]: what` without the index.
fn without_index(cause: &str, field: &str) -> String {
    let rest = cause.strip_prefix(field).and_then(|rest| rest.strip_prefix('['));
    match rest.and_then(|rest| rest.split_once(']')) {
        Some((_, what)) => format!("{field}{what}"),
        None => cause.to_owned(),
    }
}

#[test]
fn objects_and_changes_are_judged_as_upstream_judges_them() {
    let mut wrong = Vec::new();
    let files = [include_str!("data/upstream_rules.jsonl"), include_str!("data/upstream_extensions.jsonl")];
    let now = DateTime::from_timestamp(NOW, 0).unwrap();
    for line in files.into_iter().flat_map(str::lines) {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| case[field].as_str().unwrap_or_default();
        let api_version = case["object"]["apiVersion"].as_str().unwrap();
        let version = api_version.rsplit('/').next().unwrap();
        let resource = kinds::find(text("group"), version, text("plural")).unwrap();
        let (strategy, subresource) = (&resource.strategy, text("subresource"));
        let mut object = read(&case, "object", resource);
        let old = case.get("old").map(|_| read(&case, "old", resource));
        let mut errors = Vec::new();
        if let Some(old) = &old {
            object["metadata"]["resourceVersion"] = "7".into();
            if subresource.is_empty() && resource.subresource("status").is_some() {
                object["status"] = old["status"].clone();
            }
            strategy.prepare_update_at(&mut object, old, subresource, now);
            errors.extend(strategy.validate_update_at(&object, old, subresource, now));
        } else {
            strategy.prepare_create(&mut object, now);
        }
        if subresource.is_empty() {
            errors.extend(strategy.validate(&object));
        }
        let mut causes: BTreeSet<String> = errors.iter().map(|error| plain(&error.to_string())).collect();
        if text("plural") == "namespaces" {
            // The server's generated rules name the finalizer; its strategy, which was recorded, does not.
            causes = causes.iter().map(|cause| without_index(cause, "spec.finalizers")).collect();
        }
        let mut warnings = BTreeSet::new();
        if errors.is_empty() && subresource.is_empty() {
            warnings.extend(strategy.warnings(&object, old.as_ref()).iter().map(|text| plain(text)));
        }
        for (kind, ours, theirs) in
            [("cause", causes, texts(&case, "causes")), ("warning", warnings, texts(&case, "warnings"))]
        {
            let place = format!("{} {subresource} {}", text("plural"), case["object"]["metadata"]);
            wrong.extend(theirs.difference(&ours).map(|text| format!("{place}: missing {kind}: {text}")));
            wrong.extend(ours.difference(&theirs).map(|text| format!("{place}: no such {kind}: {text}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
