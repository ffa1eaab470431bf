//! A cluster that is not there: for tests of loops, alone and together, and for simulations.

pub mod api;
mod asks;
pub mod cluster;
pub mod nodes;
mod objects;
mod requests;

use std::{any::Any, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::world::{Change, Key, Kind, World};

/// An object, from JSON that fits its type; nulls are absent.
///
/// # Panics
/// When it does not fit.
#[must_use]
#[allow(clippy::panic)]
pub fn object<K: DeserializeOwned>(json: Value) -> K {
    match serde_json::from_value(json) {
        Ok(object) => object,
        Err(error) => panic!("no such object: {error}"),
    }
}

/// So many seconds after the epoch.
#[must_use]
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or_default()
}

/// Puts an object into a world.
pub fn put<K>(world: &mut World, object: K) -> Change
where
    K: Resource<DynamicType = ()> + Any + Send + Sync,
{
    let key = Key::of(object.meta());
    world.apply(&Kind::of::<K>(), &key.namespace, &key.name, Some(Arc::new(object)))
}
