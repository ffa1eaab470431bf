//! `batch/v1`: Job and CronJob.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    batch_rules as rules,
    cells::{self, age, created, human, name, selector},
    declare::Declarer,
    object::{at, fill, flag, has, list, map_mut, number, set, text},
    podspec::{default_template, job_warnings},
    resource::Strategy,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("batch/v1", "cronjobs").tracks_spec().strategy(CronJob);
    to.resource("batch/v1", "jobs")
        .tracks_spec()
        .behaves(|b| b.orphans_by_default = true)
        .select_at("status.successful", "status.succeeded", "0")
        .strategy(Job);
}

/// What a Job has by itself; a CronJob's template gets it only when it becomes a Job.
fn default_job(object: &mut Value) {
    if map_mut(object, "spec").is_none() {
        return;
    }
    let spec = &mut object["spec"];
    if !has(spec, "completions") && !has(spec, "parallelism") {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let backoff = if has(spec, "backoffLimitPerIndex") { i32::MAX } else { 6 };
    fill(spec, "backoffLimit", backoff);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    let replacement = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replacement);
    fill(spec, "manualSelector", false);
    default_labels(object);
}

/// A job without labels has those of its pods.
fn default_labels(object: &mut Value) {
    let template_labels = at(object, "spec.template.metadata.labels").clone();
    let unlabelled = at(object, "metadata.labels").as_object().is_none_or(serde_json::Map::is_empty);
    if unlabelled && !template_labels.is_null() {
        set(object, "metadata.labels", template_labels);
    }
}

struct Job;

/// Labels of a job's pods; the two without a domain are older names for the same.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

impl Strategy for Job {
    fn default(&self, object: &mut Object) {
        default_template(object, "spec.template.spec");
        default_job(object);
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
        if flag(object, "spec.manualSelector") {
            return;
        }
        let (uid, job) = (text(object, "metadata.uid").to_owned(), text(object, "metadata.name").to_owned());
        if let Some(labels) = map_mut(object, "spec.template.metadata.labels") {
            for (keys, value) in [(NAME_LABELS, &job), (UID_LABELS, &uid)] {
                for key in keys {
                    labels.entry(key).or_insert_with(|| value.as_str().into());
                }
            }
        }
        if let Some(selected) = map_mut(object, "spec.selector.matchLabels") {
            selected.entry(UID_LABELS[1]).or_insert_with(|| uid.into());
        }
        // What was generated is the default of the job's own labels.
        default_labels(object);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_job(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        if subresource.is_empty() { rules::check_job_update(new, old) } else { Vec::new() }
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        job_warnings(new, old, "spec")
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let succeeded = number(object, "status.succeeded");
        let parallelism = number(object, "spec.parallelism");
        let completions = match at(object, "spec.completions").as_i64() {
            Some(wanted) => format!("{succeeded}/{wanted}"),
            None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            None => format!("{succeeded}/1"),
        };
        let duration = cells::parse(at(object, "status.startTime")).map_or(String::new(), |start| {
            let end = cells::parse(at(object, "status.completionTime")).unwrap_or(now);
            human((end - start).num_seconds())
        });
        let condition = |kind: &str| {
            list(object, "status.conditions")
                .iter()
                .find(|c| c["type"] == kind)
                .is_some_and(|c| c["status"] == "True")
        };
        let status = if condition("Complete") {
            "Complete"
        } else if condition("Failed") {
            "Failed"
        } else if has(object, "metadata.deletionTimestamp") {
            "Terminating"
        } else if condition("Suspended") {
            "Suspended"
        } else if condition("FailureTarget") {
            "FailureTarget"
        } else if condition("SuccessCriteriaMet") {
            "SuccessCriteriaMet"
        } else {
            "Running"
        };
        let [names, images] = cells::containers(at(object, "spec.template.spec"));
        Some(vec![
            name(object),
            status.into(),
            completions.into(),
            duration.into(),
            created(object, now),
            names,
            images,
            selector(at(object, "spec.selector")).into(),
        ])
    }
}

struct CronJob;

impl Strategy for CronJob {
    fn default(&self, object: &mut Object) {
        default_template(object, "spec.jobTemplate.spec.template.spec");
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = rules::check_cron_job(object);
        // An object that is there already has a uid and a resourceVersion; its name may stay.
        if text(object, "metadata.resourceVersion").is_empty() {
            errors.extend(rules::check_cron_name(object));
        }
        errors
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        job_warnings(new, old, "spec.jobTemplate.spec")
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let last = at(object, "status.lastScheduleTime");
        let last = if last.is_null() { "<none>".to_owned() } else { age(last, now) };
        let zone = at(object, "spec.timeZone").as_str().unwrap_or("<none>");
        let suspended = match at(object, "spec.suspend").as_bool() {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let [names, images] = cells::containers(at(object, "spec.jobTemplate.spec.template.spec"));
        Some(vec![
            name(object),
            text(object, "spec.schedule").into(),
            zone.into(),
            suspended.into(),
            list(object, "status.active").len().into(),
            last.into(),
            created(object, now),
            names,
            images,
            selector(at(object, "spec.jobTemplate.spec.selector")).into(),
        ])
    }
}
