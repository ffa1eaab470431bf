//! Every built-in kind, declared.
//!
//! A built-in kind is the same thing as a CustomResourceDefinition: a [`Resource`] with a schema, columns,
//! subresources and flags, plus a [`Strategy`] of a few functions where a kind truly behaves. What is mechanical comes
//! from the checked-in facts table (`cargo xtask facts`); the files of this crate, one per API group, add what a person
//! has to know. Pure: no I/O, no async, no clock.
//!
//! Reading order: [`resource`] (what a kind is) → [`facts`] (the table) → [`shape`] (schemas from it) → [`defaults`] →
//! `declare` (how a group's file says what it adds) → the groups, `apps` first → [`versions`] (kinds that are stored in
//! another form).
//!
//! The schemas of built-in kinds carry no value rules: what is wrong with an object is found by its [`Strategy`], in
//! upstream's order and words. `required` is there to be published. An engine decodes a built-in as: check the
//! structure, make it canonical, add what is always encoded, apply the schema's defaults, then [`Strategy::default`].

mod cells;
mod checks;
mod declare;
pub mod defaults;
pub mod facts;
mod object;
mod podspec;
pub mod protobuf;
pub mod quota;
pub mod resource;
pub mod shape;
pub mod versions;

pub mod admissionregistration;
pub mod apiextensions;
mod apiregistration;
mod apps;
mod apps_rules;
mod authentication;
mod authorization;
mod autoscaling;
mod autoscaling_rules;
mod autoscaling_v1;
mod batch;
mod batch_rules;
pub mod certificates;
mod coordination;
mod core;
mod devices;
mod discovery;
mod events;
pub mod flowcontrol;
mod gates;
mod identifiers;
mod networking;
mod node;
mod policy;
mod rbac;
mod scheduling;
mod storage;
mod storage_csi;
mod storagemigration;
mod warnings;
mod webhook_client;

use std::sync::{Arc, OnceLock};

pub use core::service_addresses;
pub use declare::schema_of;
pub use gates::drop_disabled;
pub use resource::{
    Behaviour, Column, DeletedObject, Generation, NameRule, Plain, Resource, ScalePaths, SelectableField,
    Strategy, Subresource,
};

/// Every built-in resource, in upstream's order of groups. Made at the first call.
pub fn all() -> &'static [Arc<Resource>] {
    static ALL: OnceLock<Vec<Arc<Resource>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let table = facts::Table::parse(facts::TABLE);
        let mut to = declare::Declarer::new(&table);
        core::declare(&mut to);
        apiregistration::declare(&mut to);
        events::declare(&mut to);
        authentication::declare(&mut to);
        authorization::declare(&mut to);
        autoscaling::declare(&mut to);
        apps::declare(&mut to);
        batch::declare(&mut to);
        certificates::declare(&mut to);
        networking::declare(&mut to);
        policy::declare(&mut to);
        rbac::declare(&mut to);
        storage::declare(&mut to);
        storage_csi::declare(&mut to);
        admissionregistration::declare(&mut to);
        apiextensions::declare(&mut to);
        scheduling::declare(&mut to);
        coordination::declare(&mut to);
        node::declare(&mut to);
        discovery::declare(&mut to);
        devices::declare(&mut to);
        flowcontrol::declare(&mut to);
        storagemigration::declare(&mut to);
        to.finish()
    })
}

/// The resource `deployments` of group `apps` at `v1`.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    all().iter().find(|r| &*r.plural == plural && &*r.group == group && &*r.version == version)
}

#[cfg(test)]
mod tests;
