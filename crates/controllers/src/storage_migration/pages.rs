//! Going through a live list, page by page.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{LOOK, Migration, RUNNING, SUCCEEDED};
use crate::{
    Ask, Failure, Outcome, PatchKind, Plan, Target, Write,
    ask::{collection, encode},
    world::Served,
};

/// Objects of a page.
const PAGE: usize = 250;

/// How far it has come, in the process's memory: after a restart it begins anew and finds done what is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// Of which migration.
    uid: String,
    /// Which page is being written: the token of its list; empty for the first.
    here: String,
    /// The next one; nothing when this is the last.
    next: Option<String>,
    /// A page has been planned.
    begun: bool,
    /// Objects that are done, before this page.
    done: usize,
    /// Objects of this page.
    size: usize,
    /// Objects that there are.
    total: usize,
}

impl Progress {
    fn left(&self) -> usize {
        self.total.saturating_sub(self.done)
    }
}

fn message(left: usize, total: usize, error: Option<&str>) -> String {
    let mut message = "The migration is running".to_owned();
    if total > 0 && left > 0 {
        message.push_str(&format!(", {left}/{total} objects not yet migrated"));
    } else if total > 0 {
        message.push_str(&format!(", {total} objects verified migrated"));
    }
    if let Some(error) = error {
        message.push_str(&format!("; transient error: {error}"));
    }
    message
}

/// Somebody else has written or deleted it in between: it is done.
fn is_done(failure: &Failure) -> bool {
    failure.code == 404 || failure.reason == "Conflict"
}

/// The server or the way to it failed, not the object.
fn is_passing(failure: &Failure) -> bool {
    matches!(failure.code, 0 | 429 | 500 | 502 | 503 | 504)
}

/// The next page, or the end.
pub fn go_on(
    migration: &Migration<'_>,
    served: &Served,
    revision: &str,
    last: &Outcome,
    now: Timestamp,
) -> Plan {
    let uid = migration.found.metadata.uid.clone().unwrap_or_default();
    let remembered: Option<Progress> = serde_json::from_value(last.memory.clone()).ok();
    let fresh = || Progress { uid: uid.clone(), ..Progress::default() };
    let mut progress = remembered.filter(|p| p.uid == uid).unwrap_or_else(fresh);
    if last.answers.is_empty() && progress.begun {
        progress.begun = false;
        let patches = last.failures.iter().filter(|f| matches!(f.write, Write::Patch { .. }));
        if let Some(failure) = patches.clone().find(|f| !is_done(f) && !is_passing(f)) {
            return failed(migration, &progress, &failure.message, now);
        }
        if let Some(failure) = patches.into_iter().find(|f| is_passing(f)) {
            return held_up(migration, &progress, &failure.message, now);
        }
        progress.done = progress.done.saturating_add(progress.size);
        match progress.next.take() {
            None => return succeeded(migration, &progress, now),
            Some(next) => progress.here = next,
        }
    }
    let mut path = format!("{}?limit={PAGE}", collection(&served.kind, ""));
    if !progress.here.is_empty() {
        path = format!("{path}&continue={}", encode(&progress.here));
    }
    let ask = Ask::get(path);
    match last.answer(&ask) {
        None => Plan { memory: Some(json!(progress)), ..Plan::asking(vec![ask]) },
        Some(Ok(list)) => page(served, revision, list, progress, now),
        // The list is too old to be continued: from the start, past what is done.
        Some(Err(refusal)) if refusal.code == 410 && !progress.here.is_empty() => {
            let mut plan = Plan { memory: Some(json!(fresh())), ..Plan::none() };
            plan.wake(now);
            plan
        }
        Some(Err(refusal)) => held_up(migration, &progress, &refusal.message, now),
    }
}

/// Writes the objects of a page that are not newer than the list it began with.
fn page(served: &Served, revision: &str, list: &Value, mut progress: Progress, now: Timestamp) -> Plan {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let metadata = &list["metadata"];
    let next = metadata["continue"].as_str().filter(|token| !token.is_empty());
    let more = metadata["remainingItemCount"].as_u64().and_then(|n| usize::try_from(n).ok());
    progress.begun = true;
    progress.next = next.map(str::to_owned);
    progress.size = items.len();
    let known = progress.done.saturating_add(items.len());
    progress.total = progress.total.max(known.saturating_add(more.unwrap_or(0)));
    let limit: u64 = revision.parse().unwrap_or(u64::MAX);
    let old = |object: &&Value| {
        let revision = object["metadata"]["resourceVersion"].as_str();
        revision.and_then(|r| r.parse::<u64>().ok()).is_none_or(|r| r <= limit)
    };
    let mut plan = Plan::none();
    plan.all(items.iter().filter(old).map(|object| rewritten(served, object)).collect());
    plan.memory = Some(json!(progress));
    plan.wake(now);
    plan
}

/// A patch of nothing, on the version that was read.
fn rewritten(served: &Served, object: &Value) -> Write {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    Write::Patch {
        target: Target {
            kind: served.kind.clone(),
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
        },
        patch: PatchKind::Merge,
        body: json!({"apiVersion": served.kind.api_version(), "kind": served.kind.kind,
            "metadata": {"resourceVersion": text("resourceVersion")}}),
        subresource: None,
    }
}

fn succeeded(migration: &Migration<'_>, progress: &Progress, now: Timestamp) -> Plan {
    let completed = "Migration completed".to_owned();
    let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
    plan.then(migration.telling(
        &[
            (RUNNING, true, "MigrationRunning", message(0, progress.total, None)),
            (SUCCEEDED, true, "StorageVersionMigrationSucceeded", completed),
        ],
        None,
        now,
    ));
    plan
}

fn failed(migration: &Migration<'_>, progress: &Progress, error: &str, now: Timestamp) -> Plan {
    let (left, total) = (progress.left(), progress.total);
    let told = format!("{left}/{total} not yet migrated. migration encountered unhandled error: {error}");
    let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
    plan.then(migration.telling(
        &[
            (RUNNING, true, "MigrationRunning", message(left, total, None)),
            (super::FAILED, true, "StorageVersionMigrationFailed", told),
        ],
        None,
        now,
    ));
    plan
}

/// Tells of an error that may pass, and tries the page again.
fn held_up(migration: &Migration<'_>, progress: &Progress, error: &str, now: Timestamp) -> Plan {
    let told = message(progress.left(), progress.total, Some(error));
    let mut plan = Plan { memory: Some(json!(progress)), ..Plan::none() };
    let status = migration.found.status.as_ref();
    let before = crate::conditions::find(status.and_then(|s| s.conditions.as_ref()), RUNNING);
    if before.is_none_or(|condition| condition.message != told) {
        plan.then(migration.telling(&[(RUNNING, true, "MigrationRunning", told)], None, now));
    }
    plan.wake(now.saturating_add(LOOK).unwrap_or(Timestamp::MAX));
    plan
}
