//! What a definition of custom resources tells of a migration of them.

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, CustomResourceDefinitionCondition,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{Migration, SUCCEEDED};
use crate::{World, Write};

const MIGRATING: &str = "StorageMigrating";

fn definition(migration: &Migration<'_>, world: &World) -> Option<CustomResourceDefinition> {
    let name = format!("{}.{}", migration.resource.resource, migration.resource.group);
    world.get::<CustomResourceDefinition>("", &name).map(|found| CustomResourceDefinition::clone(&found))
}

/// Sets the condition, for the generation that is there.
fn set(
    definition: &mut CustomResourceDefinition,
    holds: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let generation = definition.metadata.generation;
    let conditions = definition.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != MIGRATING);
    conditions.push(CustomResourceDefinitionCondition {
        type_: MIGRATING.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Timestamp::from_second(now.as_second()).ok().map(Time),
        observed_generation: generation,
    });
}

/// It is being migrated.
pub fn running(migration: &Migration<'_>, world: &World, now: Timestamp) -> Option<Write> {
    let mut definition = definition(migration, world)?;
    let name = migration.found.metadata.name.as_deref().unwrap_or_default();
    set(&mut definition, true, "MigrationRunning", format!("Migration {name} is running"), now);
    Some(Write::status(&definition))
}

/// It has been migrated: only the storage version is stored now, if the definition is still the one that it began with.
pub fn ended(migration: &Migration<'_>, world: &World, now: Timestamp) -> Option<Write> {
    let mut definition = definition(migration, world)?;
    let status = definition.status.as_ref();
    let condition = status.and_then(|s| s.conditions.iter().flatten().find(|c| c.type_ == MIGRATING));
    let unchanged = condition.is_some_and(|c| c.observed_generation == definition.metadata.generation);
    let (reason, message) = match (migration.holds(SUCCEEDED), unchanged) {
        (true, true) => {
            ("MigrationSucceeded", "The migration has succeeded and the stored versions have been updated")
        }
        (true, false) => (
            "MigrationSucceeded",
            "The migration has succeeded but the stored versions have not been updated due to a generation mismatch",
        ),
        (false, _) => ("MigrationFailed", "The migration has failed"),
    };
    let stored = definition.spec.versions.iter().find(|v| v.storage).map(|v| v.name.clone());
    set(&mut definition, false, reason, message.to_owned(), now);
    if let (true, true, Some(stored)) = (migration.holds(SUCCEEDED), unchanged, stored) {
        definition.status.get_or_insert_default().stored_versions = Some(vec![stored]);
    }
    Some(Write::status(&definition))
}
