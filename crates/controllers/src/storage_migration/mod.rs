//! storage-version-migrator-controller: writes every object of a resource anew, so that it is stored as the server stores it now.
//!
//! One migration of a resource runs at a time, the oldest first. It notes the resourceVersion at which it begins, then goes
//! through a live list, page by page, and patches all that is not newer with nothing: the server stores it again.
//! Upstream has three controllers for this, the names of whose conditions and reasons are kept.
//!
//! Source: `pkg/controller/storageversionmigrator`.

mod definition;
mod pages;
#[cfg(test)]
mod tests;

use k8s_openapi::{
    api::storagemigration::v1::StorageVersionMigration,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::GroupResource,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::Value;

use crate::{
    Ask, Backoff, Change, Controller, Key, Kind, Outcome, Plan, World, Write, ask, conditions, world::Served,
};

/// How long a resource may be unknown, in case it is just being defined.
const UNKNOWN: SignedDuration = SignedDuration::from_mins(1);
/// How often it is looked for meanwhile.
const LOOK: SignedDuration = SignedDuration::from_secs(5);
/// What a resource has to be able to do.
const VERBS: [&str; 3] = ["update", "patch", "list"];
/// A namespace that cannot be: its list is empty and tells the newest resourceVersion.
const NOWHERE: &str = "@fake:svm_ns!";

const RUNNING: &str = "Running";
const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";

/// The loop; its keys are migrations.
pub struct StorageMigration;

/// A migration and what it is about.
struct Migration<'a> {
    found: &'a StorageVersionMigration,
    resource: GroupResource,
}

impl Migration<'_> {
    fn holds(&self, kind: &str) -> bool {
        conditions::holds(self.found.status.as_ref().and_then(|s| s.conditions.as_ref()), kind)
    }

    fn is_over(&self) -> bool {
        self.holds(SUCCEEDED) || self.holds(FAILED)
    }

    /// The list that it began with.
    fn revision(&self) -> Option<&str> {
        self.found.status.as_ref()?.resource_version.as_deref().filter(|r| !r.is_empty())
    }

    /// When its resource has been unknown for too long.
    fn patience(&self) -> Timestamp {
        let made = self.found.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |t| t.0);
        made.saturating_add(UNKNOWN).unwrap_or(Timestamp::MAX)
    }

    /// Writes its status with these conditions set.
    fn telling(&self, set: &[(&str, bool, &str, String)], revision: Option<String>, now: Timestamp) -> Write {
        let mut new = self.found.clone();
        let status = new.status.get_or_insert_default();
        for (kind, holds, reason, message) in set {
            let list = status.conditions.get_or_insert_default();
            let mut condition = conditions::new(kind, *holds, reason, message.clone(), now);
            condition.observed_generation = self.found.metadata.generation;
            conditions::set(list, condition);
        }
        if revision.is_some() {
            status.resource_version = revision;
        }
        Write::status(&new)
    }

    fn fail(&self, message: String, now: Timestamp) -> Write {
        self.telling(&[(FAILED, true, "StorageVersionMigrationFailed", message)], None, now)
    }
}

fn of(found: &StorageVersionMigration) -> Migration<'_> {
    let resource = found.spec.as_ref().map(|s| s.resource.clone()).unwrap_or_default();
    Migration { found, resource }
}

impl Controller for StorageMigration {
    fn name(&self) -> &'static str {
        "storage-version-migrator-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<StorageVersionMigration>(), Kind::of::<CustomResourceDefinition>()]
    }

    /// For the kinds that there are.
    fn watches_everything(&self) -> bool {
        true
    }

    /// The one that changed, and those of its resource that wait for it to end.
    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        let Some(changed) = change.object::<StorageVersionMigration>() else { return Vec::new() };
        let resource = of(&changed).resource;
        let all = world.list::<StorageVersionMigration>("");
        let same = all.iter().filter(|other| of(other).resource == resource);
        let mut keys: Vec<Key> = same.map(|other| Key::of(&other.metadata)).collect();
        keys.push(Key::of(&changed.metadata));
        keys
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        let Some(found) = world.get::<StorageVersionMigration>("", &key.name) else {
            return Plan { memory: Some(Value::Null), ..Plan::none() };
        };
        let migration = of(&found);
        if migration.is_over() {
            return end(&migration, world, now);
        }
        if !migration.holds(RUNNING) {
            return begin(&migration, world, now);
        }
        let served = match served(&migration, world) {
            Some(served) => served,
            None if now < migration.patience() => {
                let mut plan = Plan::none();
                plan.wake(now.saturating_add(LOOK).unwrap_or(Timestamp::MAX));
                return plan;
            }
            None => {
                let message = match migration.revision() {
                    None => "resource does not exist in discovery",
                    Some(_) => "migration encountered unhandled error: unable to obtain GVR from discovery",
                };
                return Plan { steps: vec![vec![migration.fail(message.to_owned(), now)]], ..Plan::none() };
            }
        };
        match migration.revision() {
            None => first_revision(&migration, served, last, now),
            Some(revision) => pages::go_on(&migration, served, revision, last, now),
        }
    }

    /// A page of which some objects failed is tried again soon, but not at once.
    fn backoff(&self) -> Backoff {
        Backoff { first: SignedDuration::from_millis(50), most: SignedDuration::from_mins(1) }
    }
}

fn served<'a>(migration: &Migration<'_>, world: &'a World) -> Option<&'a Served> {
    let GroupResource { group, resource } = &migration.resource;
    world.served().iter().find(|s| s.kind.group == **group && s.kind.plural == **resource)
}

/// Starts it, unless another one of its resource runs or is older.
fn begin(migration: &Migration<'_>, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::none();
    let age = |m: &StorageVersionMigration| {
        (m.metadata.creation_timestamp.clone().map(|t| t.0), m.metadata.name.clone())
    };
    let all = world.list::<StorageVersionMigration>("");
    let before = all.iter().any(|other| {
        let theirs = of(other);
        theirs.resource == migration.resource
            && !theirs.is_over()
            && (theirs.holds(RUNNING) || age(other) < age(migration.found))
    });
    if before {
        return plan;
    }
    plan.all(definition::running(migration, world, now).into_iter().collect());
    plan.then(migration.telling(
        &[(RUNNING, true, "MigrationRunning", "The migration is running".to_owned())],
        None,
        now,
    ));
    plan
}

/// Says that it no longer runs.
fn end(migration: &Migration<'_>, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
    if migration.holds(RUNNING) {
        plan.all(definition::ended(migration, world, now).into_iter().collect());
        let completed = "Migration completed".to_owned();
        plan.then(migration.telling(&[(RUNNING, false, "MigrationCompleted", completed)], None, now));
    }
    plan
}

/// Notes the newest resourceVersion: what is written after it is stored as it should be.
fn first_revision(migration: &Migration<'_>, served: &Served, last: &Outcome, now: Timestamp) -> Plan {
    let mut plan = Plan::none();
    if !VERBS.iter().all(|verb| served.can(verb)) {
        let kind = &served.kind;
        let message = format!(
            "resource \"{}, Resource={}\" does not support discovery operations: [{}]",
            kind.api_version(),
            kind.plural,
            VERBS.join(" ")
        );
        plan.then(migration.fail(message, now));
        return plan;
    }
    let namespace = if served.namespaced { NOWHERE } else { "" };
    let ask = Ask::get(format!("{}?limit=1", ask::collection(&served.kind, namespace)));
    match last.answer(&ask) {
        None => return Plan::asking(vec![ask]),
        Some(Ok(list)) => {
            let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            plan.then(match revision.parse::<u64>() {
                Ok(_) => migration.telling(&[], Some(revision.to_owned()), now),
                Err(error) => migration.fail(
                    format!("latest resourceVersion for {} is not valid: {error}", served.kind.plural),
                    now,
                ),
            });
        }
        Some(Err(refusal)) => {
            tracing::debug!(message = refusal.message, "the newest resourceVersion was not told");
            plan.wake(now.saturating_add(LOOK).unwrap_or(Timestamp::MAX));
        }
    }
    plan
}
