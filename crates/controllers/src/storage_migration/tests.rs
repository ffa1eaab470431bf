//! Migrations of a resource, with answers that are lost.

use k8s_openapi::api::{core::v1::ConfigMap, storagemigration::v1::StorageVersionMigration};
use serde_json::{Value, json};

use super::*;
use crate::{
    fixtures::{at, converse, key, noon, plan, refusal, updated, world},
    testing::cluster::{Chaos, Cluster},
};

fn migration(name: &str, resource: &str) -> Value {
    json!({"apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
        "metadata": {"name": name}, "spec": {"resource": {"group": "", "resource": resource}}})
}

fn condition(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or("").to_owned();
    format!("{} {} {}", text("status"), text("reason"), text("message"))
}

fn cluster(maps: usize, chaos: Option<Chaos>) -> Cluster {
    let mut cluster = Cluster::new(0, 7, chaos, || vec![Box::new(StorageMigration)]);
    for number in 0..maps {
        cluster.create(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "default", "name": format!("m{number}")}}));
    }
    cluster
}

fn told(cluster: &Cluster, name: &str, kind: &str) -> String {
    let found = cluster.get::<StorageVersionMigration>("", name);
    condition(&serde_json::to_value(found).unwrap(), kind)
}

#[test]
fn every_object_is_written_and_then_it_says_so() {
    let mut cluster = cluster(3, None);
    cluster.create(migration("m", "configmaps"));
    cluster.run(60);
    assert_eq!(told(&cluster, "m", "Succeeded"), "True StorageVersionMigrationSucceeded Migration completed");
    assert_eq!(told(&cluster, "m", "Running"), "False MigrationCompleted Migration completed");
    let found: StorageVersionMigration = cluster.get("", "m").unwrap();
    let revision: u64 = found.status.unwrap().resource_version.unwrap().parse().unwrap();
    assert!(revision >= 3, "after the maps were made");
}

#[test]
fn it_ends_though_answers_are_lost() {
    // a page is tried again as a whole, so that with many more it would take very long
    for lost in [5, 15] {
        let mut cluster = cluster(5, Some(Chaos { lost, turns: 2 }));
        cluster.create(migration("m", "configmaps"));
        cluster.run(600);
        assert!(told(&cluster, "m", "Succeeded").starts_with("True"), "{lost}");
        assert!(told(&cluster, "m", "Running").starts_with("False"), "{lost}");
        assert_eq!(cluster.list_of::<ConfigMap>("default").len(), 5);
    }
}

#[test]
fn one_of_a_resource_runs_at_a_time() {
    let mut running = migration("b", "configmaps");
    running["status"] = json!({"conditions": [{"type": "Running", "status": "True", "reason": "MigrationRunning",
        "message": "", "lastTransitionTime": noon().to_string()}]});
    let world_of = |objects: Vec<Value>| {
        let mut world = world(objects);
        world.set_served(crate::testing::api::served());
        world
    };
    let waiting = world_of(vec![migration("a", "configmaps"), running.clone(), migration("c", "secrets")]);
    assert_eq!(plan(&StorageMigration, &waiting, "", "a"), Plan::none());
    assert!(!plan(&StorageMigration, &waiting, "", "c").steps.is_empty(), "another resource");
    let two = world_of(vec![migration("a", "configmaps"), migration("b", "configmaps")]);
    assert!(!plan(&StorageMigration, &two, "", "a").steps.is_empty());
    assert_eq!(plan(&StorageMigration, &two, "", "b"), Plan::none(), "made at the same time: by name");
}

#[test]
fn an_unknown_resource_fails_after_a_minute() {
    let mut cluster = cluster(0, None);
    cluster.create(migration("m", "things"));
    cluster.run(50);
    assert!(told(&cluster, "m", "Running").starts_with("True"));
    cluster.run(20);
    assert_eq!(
        told(&cluster, "m", "Failed"),
        "True StorageVersionMigrationFailed resource does not exist in discovery"
    );
    assert!(told(&cluster, "m", "Running").starts_with("False"));
}

/// A migration of maps that has begun at 100.
fn begun() -> World {
    let mut object = migration("m", "configmaps");
    object["status"] = json!({"resourceVersion": "100", "conditions": [{"type": "Running", "status": "True",
        "reason": "MigrationRunning", "message": "", "lastTransitionTime": noon().to_string()}]});
    let mut world = world([object]);
    world.set_served(crate::testing::api::served());
    world
}

fn list(revisions: &[u64], more: Option<&str>) -> Value {
    let items = revisions.iter().map(|revision| {
        json!({"metadata": {"namespace": "d", "name": format!("m{revision}"), "uid": "u",
            "resourceVersion": revision.to_string()}})
    });
    json!({"metadata": {"continue": more, "remainingItemCount": more.map(|_| 2)},
        "items": items.collect::<Vec<_>>()})
}

fn look(world: &World, last: Outcome) -> Plan {
    converse(&StorageMigration, world, &key("", "m"), last, at(0), |ask| {
        match ask.path.split_once("&continue=") {
            None => Ok(list(&[90, 100, 101], Some("t/1"))),
            Some((_, "t%2F1")) => Ok(list(&[80, 85], None)),
            Some(_) => Err(refusal(410, "Expired", "too old")),
        }
    })
}

fn names(plan: &Plan) -> Vec<String> {
    let patches = plan.steps.iter().flatten().filter_map(|write| match write {
        Write::Patch { target, .. } => Some(target.name.clone()),
        _ => None,
    });
    patches.collect()
}

#[test]
fn what_is_newer_is_passed_over_and_pages_follow_each_other() {
    let world = begun();
    let first = look(&world, Outcome::default());
    assert_eq!(names(&first), ["m90", "m100"]);
    let second = look(&world, Outcome { memory: first.memory.unwrap(), ..Outcome::default() });
    assert_eq!(names(&second), ["m80", "m85"]);
    let third = look(&world, Outcome { memory: second.memory.unwrap(), ..Outcome::default() });
    assert!(condition(updated(&third)[0], "Running").ends_with("5 objects verified migrated"));
}

#[test]
fn a_conflict_is_done_an_outage_is_waited_out_and_a_refusal_ends_it() {
    let world = begun();
    let first = look(&world, Outcome::default());
    let after = |code, reason: &str| {
        let failure = crate::Failure {
            write: first.steps[0][0].clone(),
            code,
            reason: reason.to_owned(),
            message: "so it is".to_owned(),
            causes: Vec::new(),
        };
        let memory = first.memory.clone().unwrap();
        look(&world, Outcome { failures: vec![failure], tries: 1, memory, ..Outcome::default() })
    };
    assert_eq!(names(&after(409, "Conflict")), ["m80", "m85"]);
    let held = after(503, "ServiceUnavailable");
    assert_eq!(
        condition(updated(&held)[0], "Running"),
        "True MigrationRunning The migration is running, 5/5 objects not yet migrated; transient error: so it is"
    );
    assert_eq!(held.again, Some(at(5)));
    let again = look(&world, Outcome { memory: held.memory.unwrap(), ..Outcome::default() });
    assert_eq!(names(&again), ["m90", "m100"], "the same page");
    let failed = after(422, "Invalid");
    assert_eq!(
        condition(updated(&failed)[0], "Failed"),
        "True StorageVersionMigrationFailed 5/5 not yet migrated. migration encountered unhandled error: so it is"
    );
}
