//! The steps of a write, one after the other, each with the time it takes.

use std::{fs, hint::black_box};

use apimachinery::{apply, decode, defaults, patch, structure};
use chrono::DateTime;
use kinds::{Resource, protobuf};
use serde_json::{Value, json};

/// CPU time of this thread so far, in milliseconds: the first field of `schedstat` is nanoseconds.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e6
}

/// What has been measured so far: the steps in order, in milliseconds.
#[derive(Default)]
struct Watch(Vec<(&'static str, f64)>);

impl Watch {
    fn time<T>(&mut self, step: &'static str, run: impl FnOnce() -> T) -> T {
        let before = cpu();
        let made = black_box(run());
        self.0.push((step, cpu() - before));
        made
    }
}

/// Every step of a create, an update, a patch and an apply of the object that is no admission and no store, in
/// milliseconds of CPU.
pub fn times(resource: &Resource, sent: &Value) -> Vec<(&'static str, f64)> {
    let mut watch = Watch::default();
    let schema = &*resource.schema;
    let strategy = &resource.strategy;
    let now = DateTime::UNIX_EPOCH;
    let body = sent.to_string();
    let mut object =
        watch.time("decode", || decode::json(body.as_bytes()).map_or(Value::Null, |decoded| decoded.value));
    let _ = watch.time("check", || structure::check(&object, schema));
    let _ = watch.time("prune", || structure::prune(&mut object, schema));
    let _ = watch.time("canonicalize", || structure::canonicalize(&mut object, schema));
    watch.time("defaults", || {
        structure::always(&mut object, schema);
        defaults::apply(&mut object, schema);
    });
    watch.time("own defaults", || strategy.default(&mut object));
    let api_version = resource.api_version();
    let empty = json!({});
    let write = apply::Write {
        manager: "growth",
        api_version: &api_version,
        subresource: "",
        schema,
        others: &[],
        empty: &empty,
        reach: apply::Reach::All,
        now,
    };
    watch.time("ownership", || apply::update(None, &mut object, &write));
    watch.time("prepare", || strategy.prepare_create(&mut object, now));
    let _ = watch.time("metadata", || {
        apimachinery::meta::validate_create(&object, resource.namespaced, apimachinery::names::subdomain_name)
    });
    let _ = watch.time("validate", || strategy.validate(&object));
    let _ = watch.time("warnings", || strategy.warnings(&object, None));
    let _ = watch.time("row", || strategy.row(&object, now));
    let encoded = watch.time("to protobuf", || protobuf::encode(&object, &api_version, &resource.kind));
    if let Some(encoded) = encoded {
        let _ = watch.time("from protobuf", || protobuf::decode(&encoded));
    }

    let old = object.clone();
    for subresource in ["", "status"] {
        let mut new = object.clone();
        new["metadata"]["labels"] = json!({"changed": "x"});
        watch.time("prepare update", || strategy.prepare_update_at(&mut new, &old, subresource, now));
        let _ = watch.time("validate update", || strategy.validate_update_at(&new, &old, subresource, now));
        watch.time("ownership of an update", || apply::update(Some(&old), &mut new, &write));
    }
    let _ = watch.time("strategic patch", || patch::strategic(old.clone(), sent.clone(), schema));
    let _ = watch.time("merge patch", || patch::merge(old.clone(), sent.clone()));
    let applier = apply::Write { manager: "applier", ..write };
    if let Ok(applied) = watch.time("apply", || apply::apply(None, sent, &applier, true)) {
        let _ = watch.time("apply again", || apply::apply(Some(&applied.object), sent, &applier, true));
        let other = apply::Write { manager: "other", ..write };
        let _ = watch.time("conflicts", || apply::apply(Some(&applied.object), sent, &other, false));
    }
    watch.0
}
