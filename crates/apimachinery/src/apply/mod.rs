//! Server-side apply: who owns which field, what a configuration makes of an object, and who objects.
//!
//! [`update`] is for every write but apply: whoever changes a field owns it from then on. [`apply`] lays a configuration
//! over the object, takes away what its manager applied before and does not any more, and fails where another manager
//! owns a field with another value. Both walk the objects once beside their schema.
//!
//! Reading order: [`element`] (one step of a path) → [`set`] → [`fields_v1`] (how sets are written) → [`shape`] (a schema
//! as merging sees it) → [`check`], [`walk`], [`merge`], [`reconcile`] → [`managed`] → this file, which joins them.
//!
//! Source of the rules: KEP-555, `sigs.k8s.io/structured-merge-diff/v6`, `k8s.io/apimachinery/pkg/util/managedfields`.

mod atomic;
mod check;
mod conflict;
mod element;
mod fields_v1;
mod last_applied;
mod managed;
mod merge;
mod reconcile;
mod set;
mod shape;
mod walk;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;

pub use atomic::atomic;
pub use check::check;
pub use element::Element;
pub use fields_v1::{decode, encode};
pub use managed::{Entry, Managed, Manager, Operation, is_reset, manager_of_agent};
pub use merge::merge;
pub use set::FieldSet;
pub use shape::TypeErrors;
pub use walk::{Comparison, compare, fields_of};

use crate::{schema::Schema, status::ApiError};

/// What a write may not touch, so that nobody owns it through that write.
#[derive(Clone, Copy, Debug, Default)]
pub enum Reach {
    /// Everything.
    #[default]
    All,
    /// Everything but these paths and what is below them: the status, for writes of the object.
    Except(&'static [&'static [&'static str]]),
    /// Only what is below these paths; `*` is any step.
    Only(&'static [&'static [&'static str]]),
}

impl Reach {
    fn cut<'v>(self, set: FieldSet<'v>) -> FieldSet<'v> {
        match self {
            _ if set.is_empty() => set,
            Self::All => set,
            Self::Except(paths) => set.recursive_difference(&FieldSet::of_fields(paths)),
            Self::Only(paths) => set.only(paths),
        }
    }
}

/// One write, as field ownership sees it.
#[derive(Clone, Copy)]
pub struct Write<'w> {
    /// The name of the manager; empty counts as `unknown`.
    pub manager: &'w str,
    /// `apps/v1`: the version of the request, and so of both objects.
    pub api_version: &'w str,
    /// Empty for the object itself.
    pub subresource: &'w str,
    /// The schema of that version.
    pub schema: &'w Schema,
    /// The other served versions of the kind. Entries of managers at any other version are dropped.
    pub others: &'w [(Arc<str>, Arc<Schema>)],
    /// An object of the kind with nothing but what is always encoded: what a new object is compared with.
    pub empty: &'w Value,
    /// What the write can reach.
    pub reach: Reach,
    /// When.
    pub now: DateTime<Utc>,
}

impl<'w> Write<'w> {
    fn schema_of(&self, api_version: &str) -> Option<&'w Schema> {
        if api_version == self.api_version {
            return Some(self.schema);
        }
        self.others.iter().find(|(name, _)| **name == *api_version).map(|(_, schema)| &**schema)
    }

    fn identity(&self, operation: Operation) -> Manager<'w> {
        let name = if self.manager.is_empty() { "unknown" } else { self.manager };
        Manager {
            name: name.into(),
            operation,
            api_version: self.api_version.into(),
            subresource: self.subresource.into(),
        }
    }

    fn compare<'v>(&self, old: &'v Value, new: &'v Value, schema: &'v Schema) -> Comparison<'v> {
        let reach = self.reach;
        compare(old, new, schema).map(|set| reach.cut(set))
    }

    /// Drops entries of vanished versions, and makes the others fit the schema of today.
    fn reconcile(&self, managed: &mut Managed<'_>) {
        managed.0.retain_mut(|entry| {
            let Some(schema) = self.schema_of(&entry.manager.api_version) else { return false };
            if let Some(set) = reconcile::reconcile(&entry.set, schema) {
                entry.set_fields(set);
            }
            true
        });
    }
}

/// What nobody owns: the identity of an object and what only the server sets.
const OWNED_BY_NOBODY: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

fn ownable<'v>(set: FieldSet<'v>) -> FieldSet<'v> {
    set.difference(&FieldSet::of_fields(OWNED_BY_NOBODY))
}

fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields").filter(|m| !m.is_null())
}

fn set_managed_fields(object: &mut Value, managed: Option<Value>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match managed {
        Some(list) => metadata.insert("managedFields".to_owned(), list),
        None => metadata.remove("managedFields"),
    };
}

/// Notes in `new` who owns what after a create (`live: None`), an update or a patch that made `new` of `live`.
///
/// Entries that the client sends replace the stored ones, unless they cannot be read or the write is one of a
/// subresource; `[]` and `[{}]` forget all of them. An object without entries stays without until it is applied.
pub fn update(live: Option<&Value>, new: &mut Value, write: &Write<'_>) {
    if !new.get("metadata").is_some_and(Value::is_object) {
        return;
    }
    let managed = updated(live, new, write);
    set_managed_fields(new, managed);
}

fn updated(live: Option<&Value>, new: &Value, write: &Write<'_>) -> Option<Value> {
    let sent = managed_fields(new).filter(|_| write.subresource.is_empty());
    let stored = live.and_then(managed_fields);
    let managed = match sent {
        Some(list) if is_reset(sent) => {
            if live.is_some() {
                return None;
            }
            debug_assert!(list.is_array());
            Managed::default()
        }
        // What was read and comes back as it was needs no second look.
        Some(list) if stored == Some(list) => Managed::read(stored).unwrap_or_default(),
        _ => match Managed::read(sent) {
            Ok(managed) if !managed.0.is_empty() => managed,
            _ => Managed::read(stored).unwrap_or_default(),
        },
    };
    if managed.0.is_empty() && live.is_some() {
        return None;
    }
    tracked(live.unwrap_or(write.empty), new, managed, write).write()
}

/// The managers after `new` was made of `live` by an update.
fn tracked<'v>(live: &'v Value, new: &'v Value, mut managed: Managed<'v>, write: &Write<'v>) -> Managed<'v> {
    write.reconcile(&mut managed);
    let change = write.compare(live, new, write.schema);
    if change.is_same() || change.untold {
        managed.sweep();
        return managed;
    }
    take_from_others(&mut managed, None, &change, live, new, write);
    let gained = ownable(change.modified.union(change.added));
    if !gained.is_empty() {
        let manager = write.identity(Operation::Update);
        let time = managed::stamp(write.now);
        match managed.find(&manager) {
            Some(index) => {
                let entry = &mut managed.0[index];
                let set = std::mem::take(&mut entry.set).union(gained);
                entry.set_fields(set);
                entry.time = Some(time.into());
            }
            None => managed.0.push(Entry::new(manager, Some(time.into()), gained)),
        }
    }
    managed.sweep();
    managed.cap();
    managed
}

/// Whoever owned what was changed or removed owns it no longer, `except` the manager at that place.
fn take_from_others<'v>(
    managed: &mut Managed<'v>,
    except: Option<usize>,
    change: &Comparison<'v>,
    live: &'v Value,
    new: &'v Value,
    write: &Write<'v>,
) {
    for index in 0..managed.0.len() {
        if Some(index) == except {
            continue;
        }
        let version = managed.0[index].manager.api_version.clone();
        let own;
        let change = if *version == *write.api_version {
            change
        } else {
            let Some(schema) = write.schema_of(&version) else { continue };
            own = write.compare(live, new, schema);
            &own
        };
        let entry = &mut managed.0[index];
        entry.release(&change.modified);
        entry.release(&change.added);
        entry.release(&change.removed);
    }
}

/// What [`apply`] makes.
#[derive(Debug)]
pub struct Applied {
    /// The object with the configuration in it and its managers noted. Defaults are still to be applied.
    pub object: Value,
    /// Nothing but ownership can have changed.
    pub unchanged: bool,
}

/// Applies `config` to `live` (`None`: there is no such object yet). `force` takes fields from other managers.
///
/// # Errors
/// 400 for another version or kind or for `managedFields` in the configuration, 409 with a cause a field for conflicts,
/// a plain 500 for a configuration that does not fit the schema.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    write: &Write<'_>,
    force: bool,
) -> Result<Applied, ApiError> {
    conflict::same_kind(config, write)?;
    let base = live.unwrap_or(write.empty);
    let managed = Managed::read(managed_fields(base))
        .map_err(|why| plain(format!("failed to decode managed fields: {why}")))?;
    let managed = if managed.0.is_empty() && live.is_some() {
        // Whatever was there before anybody applied belongs to somebody whose name is not known any more.
        let before = Write { manager: "before-first-apply", ..*write };
        tracked(write.empty, base, managed, &before)
    } else {
        managed
    };
    if managed_fields(config).is_some() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    check(config, write.schema).map_err(|why| {
        plain(format!("failed to create typed patch object ({}): {why}", conflict::place(config)))
    })?;
    let first = joined(base, config, managed.clone(), write, force)?;
    let done = match first {
        Ok(done) => done,
        Err(conflicts) => match last_applied::forgiven(conflicts, base, write) {
            // What kubectl applied from the client's side is kubectl's own.
            conflicts if conflicts.is_empty() => match joined(base, config, managed, write, true)? {
                Ok(done) => done,
                Err(conflicts) => return Err(conflict::error(&conflicts)),
            },
            conflicts => return Err(conflict::error(&conflicts)),
        },
    };
    let mut done = done;
    last_applied::keep_up(&mut done.object, config, write);
    Ok(done)
}

/// An error without a code of its own, as upstream has where it did not expect one.
fn plain(message: String) -> ApiError {
    ApiError::other(500, "", message)
}

/// Merge, prune, and see who objects.
fn joined<'v>(
    live: &'v Value,
    config: &'v Value,
    mut managed: Managed<'v>,
    write: &Write<'v>,
    force: bool,
) -> Result<Result<Applied, Vec<conflict::Conflict>>, ApiError> {
    write.reconcile(&mut managed);
    let merged =
        merge(live, config, write.schema).map_err(|why| plain(format!("failed to merge config: {why}")))?;
    let claimed = write.reach.cut(fields_of(config, write.schema));
    let manager = write.identity(Operation::Apply);
    let mine = managed.find(&manager);
    let last = mine.map(|index| std::mem::take(&mut managed.0[index].set)).unwrap_or_default();
    let own = match mine {
        Some(index) => {
            managed.0[index].manager = manager;
            managed.0[index].set_fields(claimed);
            index
        }
        None => {
            managed.0.push(Entry::new(manager, None, claimed));
            managed.0.len() - 1
        }
    };
    let object = prune(merged, &managed, own, &last, write);
    let change = write.compare(live, &object, write.schema);
    if !force {
        let conflicts = conflict::find(&managed, own, &change, live, &object, write);
        if !conflicts.is_empty() {
            return Ok(Err(conflicts));
        }
    }
    let unchanged = element::same(live, &object);
    let list = {
        let mut managed = managed;
        take_from_others(&mut managed, Some(own), &change, live, &object, write);
        let entry = &mut managed.0[own];
        let set = ownable(std::mem::take(&mut entry.set));
        entry.set_fields(set);
        if !unchanged {
            entry.time = Some(managed::stamp(write.now).into());
        }
        managed.sweep();
        managed.write()
    };
    let mut object = object;
    set_managed_fields(&mut object, list);
    Ok(Ok(Applied { object, unchanged }))
}

/// Takes away what the manager applied before (`last`), does not any more, and nobody else owns.
fn prune(merged: Value, managed: &Managed<'_>, own: usize, last: &FieldSet<'_>, write: &Write<'_>) -> Value {
    if last.clone().difference(&managed.0[own].set).is_empty() {
        return merged;
    }
    let schema = write.schema;
    let last = merge::with_parents(last, schema);
    let pruned = merge::remove(&merged, &last, schema);
    let all = merge::with_parents(&fields_of(&merged, schema), schema);
    let mut kept = merge::with_parents(&fields_of(&pruned, schema), schema);
    for entry in &managed.0 {
        kept = kept.union(merge::with_parents(&entry.set, schema));
    }
    let pruned = merge::remove(&merged, &all.clone().difference(&kept), schema);
    let left = merge::with_parents(&fields_of(&pruned, schema), schema);
    // What went along although this manager never owned it comes back.
    merge::remove(&merged, &all.difference(&left).intersection(&last), schema)
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
