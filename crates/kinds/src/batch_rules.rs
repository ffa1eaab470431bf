//! What is wrong with the kinds of `batch/v1`.

use std::collections::BTreeSet;

use apimachinery::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{
    checks::{Checks, path, selects},
    object::{at, flag, has, list, number, same, text},
    podspec::check_template,
};

const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;
const MOST_PARALLEL: i64 = 100_000;
/// What the controller appends to a CronJob's name, `-` and minutes, must leave room in 63.
const LONGEST_CRON_NAME: usize = 52;

/// A Job. `labels` are the ones that the generated selector asks for.
pub fn check_job(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        check_generated_selector(checks, object);
        let spec = path("spec");
        check_spec(checks, at(object, "spec"), &spec);
        let selector = at(object, "spec.selector");
        if selector.is_null() {
            checks.required(&spec.child("selector"), "");
        }
        checks.label_selector(&spec.child("selector"), selector);
        let labels = at(object, "spec.template.metadata.labels");
        if !selects(selector, labels) {
            let path = spec.child("template").child("metadata").child("labels");
            checks.invalid(&path, labels.clone(), "`selector` does not match template `labels`");
        }
        check_host_names(checks, object);
    })
}

fn check_generated_selector(checks: &mut Checks, object: &Value) {
    if flag(object, "spec.manualSelector") || !has(object, "spec.selector") {
        return;
    }
    let (uid, name) = (text(object, "metadata.uid"), text(object, "metadata.name"));
    if uid.is_empty() {
        checks.required(&path("metadata").child("uid"), "");
    }
    let labels = at(object, "spec.template.metadata.labels");
    let labels_path = path("spec").child("template").child("metadata").child("labels");
    let expected = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    for (key, value) in expected {
        match labels.get(key).and_then(Value::as_str) {
            None => checks.required(&labels_path.key(key), &format!("must be '{value}'")),
            Some(found) if found != value => {
                checks.invalid(&labels_path.key(key), labels.clone(), &format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    let generated =
        Value::Object(expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect());
    let selector = at(object, "spec.selector");
    if !selects(selector, &generated) {
        checks.invalid(&path("spec").child("selector"), selector.clone(), "`selector` not auto-generated");
    }
}

/// Pods of an indexed job are named by their index.
fn check_host_names(checks: &mut Checks, object: &Value) {
    let completions = number(object, "spec.completions");
    if text(object, "spec.completionMode") == "Indexed" && completions > 0 {
        let name = text(object, "metadata.name");
        let last = format!("{name}-{}", completions - 1);
        if !names::is_dns1123_label(&last).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {last}");
            checks.invalid(&path("metadata").child("name"), name, &detail);
        }
    }
}

fn check_spec(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let fields = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    checks.nonnegative_fields(path, spec, &fields);
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        checks.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    let mode = at(spec, "completionMode").as_str().unwrap_or("NonIndexed");
    checks.one_of(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    let failed = at(spec, "maxFailedIndexes").as_i64();
    match mode {
        "Indexed" => check_indexed(checks, spec, failed, path),
        "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = at(spec, field).as_i64() {
                    checks.invalid(&path.child(field), value, "requires indexed completion mode");
                }
            }
        }
        _ => {}
    }
    check_failure_policy(checks, spec, &path.child("podFailurePolicy"));
    if has(spec, "successPolicy") {
        if mode == "Indexed" {
            check_success_policy(checks, spec, &path.child("successPolicy"));
        } else {
            let policy = at(spec, "successPolicy").clone();
            checks.invalid(&path.child("successPolicy"), policy, "requires indexed completion mode");
        }
    }
    if let Some(policy) = at(spec, "podReplacementPolicy").as_str() {
        let supported: &[&str] =
            if has(spec, "podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        checks.one_of(&path.child("podReplacementPolicy"), policy, supported);
    }
    check_template(checks, at(spec, "template"), &path.child("template"));
    let restart_path = path.child("template").child("spec").child("restartPolicy");
    match text(spec, "template.spec.restartPolicy") {
        "" | "Always" => checks.required(&restart_path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if has(spec, "podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            checks.invalid(&restart_path, "OnFailure", detail);
        }
        other => checks.one_of(&restart_path, other, &["OnFailure", "Never"]),
    }
}

fn check_indexed(checks: &mut Checks, spec: &Value, failed: Option<i64>, path: &FieldPath) {
    const MANY_COMPLETIONS: i64 = 100_000;
    const FEW: i64 = 10_000;
    let completions = at(spec, "completions").as_i64();
    let parallelism = number(spec, "parallelism");
    if completions.is_none() {
        checks.required(&path.child("completions"), "when completion mode is Indexed");
    }
    if parallelism > MOST_PARALLEL {
        let detail = format!("must be less than or equal to {MOST_PARALLEL} when completion mode is Indexed");
        checks.invalid(&path.child("parallelism"), parallelism, &detail);
    }
    if let (Some(completions), Some(failed)) = (completions, failed)
        && failed > completions
    {
        checks.invalid(&path.child("maxFailedIndexes"), failed, "must be less than or equal to completions");
    }
    if let Some(failed) = failed.filter(|failed| *failed > MOST_PARALLEL) {
        let detail = format!("must be less than or equal to {MOST_PARALLEL}");
        checks.invalid(&path.child("maxFailedIndexes"), failed, &detail);
    }
    if completions.is_some_and(|completions| completions > MANY_COMPLETIONS)
        && has(spec, "backoffLimitPerIndex")
    {
        if failed.is_none() {
            let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            checks.required(&path.child("maxFailedIndexes"), &detail);
        }
        for (field, value) in [("parallelism", Some(parallelism)), ("maxFailedIndexes", failed)] {
            if let Some(value) = value.filter(|value| *value > FEW) {
                let detail = format!(
                    "must be less than or equal to {FEW} when completions are above {MANY_COMPLETIONS} and used with \
                     backoff limit per index"
                );
                checks.invalid(&path.child(field), value, &detail);
            }
        }
    }
}

fn check_failure_policy(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let rules = list(spec, "podFailurePolicy.rules");
    let path = path.child("rules");
    if rules.len() > MOST_RULES {
        checks.errors.push(FieldError::too_many(&path, rules.len(), MOST_RULES));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        match text(rule, "action") {
            "" => checks.required(&path.child("action"), &format!("valid values: {}", quoted(&ACTIONS))),
            "FailIndex" if !has(spec, "backoffLimitPerIndex") => {
                checks.invalid(
                    &path.child("action"),
                    "FailIndex",
                    "requires the backoffLimitPerIndex to be set",
                );
            }
            action => checks.one_of(&path.child("action"), action, &ACTIONS),
        }
        let (codes, conditions) = (at(rule, "onExitCodes"), list(rule, "onPodConditions"));
        if !codes.is_null() {
            check_exit_codes(checks, codes, spec, &path.child("onExitCodes"));
        }
        check_pod_conditions(checks, conditions, &path.child("onPodConditions"));
        let detail = match (codes.is_null(), conditions.is_empty()) {
            (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        let mut error = FieldError::invalid(&path, Value::Null, detail);
        error.value = None;
        checks.errors.push(error);
    }
}

/// `["a" "b"]`, as Go prints a list of strings.
fn quoted(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn check_pod_conditions(checks: &mut Checks, conditions: &[Value], path: &FieldPath) {
    if conditions.len() > MOST_RULES {
        checks.errors.push(FieldError::too_many(path, conditions.len(), MOST_RULES));
    }
    for (index, pattern) in conditions.iter().enumerate() {
        let path = path.index(index);
        checks.qualified_name(&path.child("type"), text(pattern, "type"));
        checks.one_of(&path.child("status"), text(pattern, "status"), &["False", "True", "Unknown"]);
    }
}

fn check_exit_codes(checks: &mut Checks, codes: &Value, spec: &Value, path: &FieldPath) {
    let operator = text(codes, "operator");
    if operator.is_empty() {
        checks.required(&path.child("operator"), &format!("valid values: {}", quoted(&["In", "NotIn"])));
    } else {
        checks.one_of(&path.child("operator"), operator, &["In", "NotIn"]);
    }
    if let Some(name) = at(codes, "containerName").as_str() {
        let known = ["template.spec.containers", "template.spec.initContainers"]
            .iter()
            .flat_map(|group| list(spec, group))
            .any(|container| text(container, "name") == name);
        if !known {
            let detail = "must be one of the container or initContainer names in the pod template";
            checks.invalid(&path.child("containerName"), name, detail);
        }
    }
    let values: Vec<i64> = list(codes, "values").iter().filter_map(Value::as_i64).collect();
    let path = path.child("values");
    if values.is_empty() {
        checks.invalid(&path, Vec::<i64>::new(), "at least one value is required");
    } else if values.len() > MOST_CODES {
        checks.errors.push(FieldError::too_many(&path, values.len(), MOST_CODES));
    }
    let mut seen = BTreeSet::new();
    for (index, code) in values.iter().enumerate() {
        if operator == "In" && *code == 0 {
            checks.invalid(&path.index(index), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            checks.duplicate(&path.index(index), *code);
        }
    }
    if !values.is_sorted() {
        checks.invalid(&path, values, "must be ordered");
    }
}

fn check_success_policy(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let rules = list(spec, "successPolicy.rules");
    let path = path.child("rules");
    if rules.is_empty() {
        checks.required(&path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > MOST_RULES {
        checks.errors.push(FieldError::too_many(&path, rules.len(), MOST_RULES));
    }
    let completions = number(spec, "completions");
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let count = at(rule, "succeededCount").as_i64();
        if count.is_none() && !has(rule, "succeededIndexes") {
            checks.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        if let Some(count) = count {
            let path = path.child("succeededCount");
            checks.nonnegative(&path, count);
            if count > completions {
                let detail = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                checks.invalid(&path, count, &detail);
            }
        }
    }
}

/// A change of a Job's spec.
pub fn check_job_update(new: &Value, old: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        if text(new, "spec.completionMode") != "Indexed" {
            checks.immutable(new, old, "spec.completions");
        } else if !same(at(new, "spec.completions"), at(old, "spec.completions"))
            && number(new, "spec.completions") != number(new, "spec.parallelism")
        {
            let detail = "can only be modified in tandem with spec.parallelism";
            checks.invalid(&path("spec.completions"), at(new, "spec.completions").clone(), detail);
        }
        checks.immutable(new, old, "spec.selector");
        check_template_update(checks, new, old);
        let fields =
            ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
        for field in fields {
            checks.immutable(new, old, &format!("spec.{field}"));
        }
    })
}

/// A suspended job that has no pods may still be sent elsewhere and sized anew.
fn check_template_update(checks: &mut Checks, new: &Value, old: &Value) {
    let suspended_now = list(old, "status.conditions")
        .iter()
        .any(|condition| condition["type"] == "Suspended" && condition["status"] == "True");
    let idle = number(old, "status.active") == 0 && (suspended_now || !has(old, "status.startTime"));
    let mut allowed = old.clone();
    if flag(old, "spec.suspend") && idle {
        for field in [
            "metadata.annotations",
            "metadata.labels",
            "spec.nodeSelector",
            "spec.tolerations",
            "spec.schedulingGates",
            "spec.affinity.nodeAffinity",
        ] {
            let path = format!("spec.template.{field}");
            if !same(at(&allowed, &path), at(new, &path)) {
                crate::object::restore(&mut allowed, new, &path);
            }
        }
        for group in ["containers", "initContainers"] {
            let path = format!("spec.template.spec.{group}");
            let wanted = list(new, &path).to_vec();
            for (container, new) in crate::object::items_mut(&mut allowed, &path).zip(&wanted) {
                crate::object::restore(container, new, "resources");
            }
        }
    }
    checks.immutable(new, &allowed, "spec.template");
}

/// A CronJob. `old` is there on update.
pub fn check_cron_job(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let spec = path("spec");
        // A new one is looked at from the outside in, a changed one from its template on.
        let is_new = text(object, "metadata.resourceVersion").is_empty();
        if is_new {
            check_timing(checks, object, &spec);
        }
        let template = spec.child("jobTemplate").child("spec");
        let job = at(object, "spec.jobTemplate.spec");
        check_spec(checks, job, &template);
        if has(job, "selector") {
            checks.invalid(
                &template.child("selector"),
                job["selector"].clone(),
                "`selector` will be auto-generated",
            );
        }
        if flag(job, "manualSelector") {
            let path = template.child("manualSelector");
            checks.errors.push(FieldError::not_supported(&path, true, &["nil", "false"]));
        }
        if !is_new {
            check_timing(checks, object, &spec);
        }
        let fields = ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
        checks.nonnegative_fields(&spec, at(object, "spec"), &fields);
    })
}

/// When jobs are made.
fn check_timing(checks: &mut Checks, object: &Value, spec: &FieldPath) {
    match text(object, "spec.schedule") {
        "" => checks.required(&spec.child("schedule"), ""),
        schedule => check_schedule(checks, schedule, &spec.child("schedule")),
    }
    checks.nonnegative_fields(spec, at(object, "spec"), &["startingDeadlineSeconds"]);
    if let Some(zone) = at(object, "spec.timeZone").as_str() {
        check_zone(checks, zone, &spec.child("timeZone"));
    }
    let policy = text(object, "spec.concurrencyPolicy");
    checks.required_one_of(&spec.child("concurrencyPolicy"), policy, &["Allow", "Forbid", "Replace"]);
}

/// Only on create: older names may be longer.
pub fn check_cron_name(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let name = text(object, "metadata.name");
        if name.len() > LONGEST_CRON_NAME {
            checks.invalid(&path("metadata").child("name"), name, "must be no more than 52 characters");
        }
    })
}

fn check_zone(checks: &mut Checks, zone: &str, path: &FieldPath) {
    let readable = zone.split('/').all(|part| {
        !matches!(part, "" | "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
    });
    if zone.is_empty() {
        checks.invalid(path, zone, "timeZone must be nil or non-empty string");
    } else if !readable || zone.parse::<chrono_tz::Tz>().is_err() {
        if zone.eq_ignore_ascii_case("Local") {
            let detail =
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            checks.invalid(path, zone, detail);
        }
        checks.invalid(path, zone, &format!("unknown time zone {zone}"));
    }
}

/// Five fields, or one of the names that begin with `@`.
fn check_schedule(checks: &mut Checks, schedule: &str, path: &FieldPath) {
    if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        return checks.invalid(path, schedule, detail);
    }
    if let Err(detail) = read_schedule(schedule) {
        checks.invalid(path, schedule, &detail);
    }
}

/// Name of the field, least and greatest value, words for values.
const CRON_FIELDS: [(i64, i64, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

fn read_schedule(schedule: &str) -> Result<(), String> {
    if let Some(name) = schedule.strip_prefix('@') {
        return match name {
            "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly" => Ok(()),
            _ if name.starts_with("every ") && name.len() > "every ".len() => Ok(()),
            _ => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != CRON_FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, (least, most, words)) in fields.iter().zip(CRON_FIELDS) {
        for part in field.split(',') {
            read_range(part, least, most, words)?;
        }
    }
    Ok(())
}

fn read_range(part: &str, least: i64, most: i64, words: &[&str]) -> Result<(), String> {
    let number = |text: &str| -> Result<i64, String> {
        if let Some(index) = words.iter().position(|word| text.eq_ignore_ascii_case(word)) {
            return Ok(least + i64::try_from(index).unwrap_or_default());
        }
        text.parse::<i64>()
            .map_err(|_| {
                format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
            })
            .and_then(|value| {
                if value < 0 {
                    Err(format!("negative number ({value}) not allowed: {text}"))
                } else {
                    Ok(value)
                }
            })
    };
    let (range, step) = match part.split_once('/') {
        Some((range, step)) if !step.contains('/') => (range, Some(step)),
        Some(_) => return Err(format!("too many slashes: {part}")),
        None => (part, None),
    };
    let (start, end) = match range.split_once('-') {
        _ if matches!(range, "*" | "?") => (least, most),
        Some((_, end)) if end.contains('-') => return Err(format!("too many hyphens: {part}")),
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(range)?, if step.is_some() { most } else { number(range)? }),
    };
    if let Some(step) = step
        && number(step)? == 0
    {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {part}"));
    }
    if end > most {
        return Err(format!("end of range ({end}) above maximum ({most}): {part}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for schedule in ["* * * * *", "*/5 0-12/2 1,15 jan-MAR Mon", "@hourly", "@every 5m", "0 0 ? * *"] {
            assert_eq!(read_schedule(schedule), Ok(()), "{schedule}");
        }
        for (schedule, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ] {
            assert_eq!(read_schedule(schedule), Err(why.to_owned()));
        }
    }
}
