//! resourcequota-controller: counts what a namespace uses.
//!
//! Admission charges an object before it is there; this loop counts anew what is there. An object that has just been
//! admitted may not be seen yet, so a creation may only raise the count; a deletion, a smaller object, a new limit and the
//! clock make it exact. Keys are quotas; the name of one that may only be raised ends in [`RAISE`].
//!
//! [`usage`] and [`scopes`] know nothing of this loop. Source: `pkg/controller/resourcequota`.

#[cfg(test)]
mod tests;

use std::{any::Any, collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service},
    apimachinery::pkg::api::resource,
    jiff::{SignedDuration, Timestamp},
};
use kinds::quota::{scopes, usage};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, Write, world::Seen};
use usage::Amounts;

/// What is missed is found after so long.
const RECOUNT: SignedDuration = SignedDuration::from_mins(5);
/// Many changes are counted once.
const SETTLE: SignedDuration = SignedDuration::from_millis(250);
const RAISE: &str = "/raise";

/// The loop. A key's memory is when it was last counted.
pub struct Quota;

impl Controller for Quota {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![
            Kind::of::<ResourceQuota>(),
            Kind::of::<Pod>(),
            Kind::of::<Service>(),
            Kind::of::<PersistentVolumeClaim>(),
        ]
    }

    fn watches_everything(&self) -> bool {
        true
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        let namespace = change.meta().and_then(|m| m.namespace.as_deref()).unwrap_or_default();
        if namespace.is_empty() {
            return Vec::new();
        }
        let mut keys = Vec::new();
        if let Some(quota) = change.after::<ResourceQuota>() {
            // not for every charge: what has just been admitted may not be seen yet
            let spec = |quota: &ResourceQuota| quota.spec.clone();
            let changed = change.before::<ResourceQuota>().is_none_or(|b| spec(&b) != spec(&quota));
            if changed || told(&quota) != hard(&quota) {
                keys.push(Key::of(&quota.metadata));
            }
        }
        let quotas = world.list::<ResourceQuota>(namespace);
        if quotas.is_empty() {
            return keys;
        }
        let kind = &change.kind;
        let raise = match (&change.before, &change.after) {
            (None, Some(_)) => true,
            (Some(_), None) => false,
            // only objects that are read whole can change what they use
            (Some(before), Some(after))
                if usage_of(kind, before, i64::MIN) != usage_of(kind, after, i64::MIN) =>
            {
                false
            }
            _ => return keys,
        };
        for quota in quotas.iter().filter(|quota| concerns(quota, kind)) {
            let mut key = Key::of(&quota.metadata);
            if raise {
                key.name.push_str(RAISE);
            }
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        let name = key.name.strip_suffix(RAISE).unwrap_or(&key.name);
        let only_raise = name.len() != key.name.len();
        let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
        let Some(quota) = world.get::<ResourceQuota>(&key.namespace, name) else { return plan };
        let counted: Option<Timestamp> = last.memory.as_str().and_then(|t| t.parse().ok());
        let settled = counted.and_then(|at| at.checked_add(SETTLE).ok());
        let new = told(&quota) != hard(&quota);
        if let Some(settled) = settled.filter(|at| *at > now && !new) {
            plan.memory = None;
            plan.wake(settled);
            return plan;
        }
        plan.memory = Some(json!(now.to_string()));
        if !only_raise {
            plan.wake(now.saturating_add(RECOUNT).unwrap_or(now));
        }
        let mut used = count(&quota, world, now.as_second());
        let old = quota.status.as_ref().and_then(|s| s.used.as_ref());
        let before: Amounts =
            old.into_iter().flatten().filter_map(|(k, q)| Some((k.clone(), parse(q)?))).collect();
        if only_raise {
            for (key, amount) in &mut used {
                *amount = before.get(key).map_or(*amount, |b| (*b).max(*amount));
            }
        }
        if new || used != before {
            let mut quota = (*quota).clone();
            let used = used.iter().map(|(key, amount)| (key.clone(), resource::Quantity(amount.to_string())));
            quota.status =
                Some(ResourceQuotaStatus { hard: hard(&quota).cloned(), used: Some(used.collect()) });
            plan.then(Write::status(&quota));
        }
        plan
    }
}

type Hard = BTreeMap<String, resource::Quantity>;

fn hard(quota: &ResourceQuota) -> Option<&Hard> {
    quota.spec.as_ref()?.hard.as_ref()
}

/// The limits as the status last told them.
fn told(quota: &ResourceQuota) -> Option<&Hard> {
    quota.status.as_ref()?.hard.as_ref()
}

fn parse(quantity: &resource::Quantity) -> Option<apimachinery::quantity::Quantity> {
    apimachinery::quantity::Quantity::parse(&quantity.0).ok()
}

/// Whether objects of a kind are counted by a quota.
fn concerns(quota: &ResourceQuota, kind: &Kind) -> bool {
    hard(quota).is_some_and(|hard| hard.keys().any(|key| usage::counts(&kind.group, &kind.plural, key)))
}

/// An object as JSON, as far as it matters for what it uses.
fn whole(object: &Arc<dyn Seen>) -> Option<Value> {
    fn typed<K: Any + Send + Sync + Serialize>(object: &Arc<dyn Seen>) -> Option<Value> {
        let object: Arc<K> = object.clone().any().downcast().ok()?;
        serde_json::to_value(&*object).ok()
    }
    typed::<Pod>(object)
        .or_else(|| typed::<Service>(object))
        .or_else(|| typed::<PersistentVolumeClaim>(object))
}

fn usage_of(kind: &Kind, object: &Arc<dyn Seen>, now: i64) -> Option<Amounts> {
    Some(usage::usage(&kind.group, &kind.plural, &whole(object)?, now))
}

/// What is used of a quota's keys.
fn count(quota: &ResourceQuota, world: &World, now: i64) -> Amounts {
    let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
    let spec = serde_json::to_value(&quota.spec).unwrap_or_default();
    let scoped =
        spec["scopes"].as_array().is_some_and(|s| !s.is_empty()) || spec["scopeSelector"].is_object();
    let mut used = Amounts::new();
    // kinds of which no object has been seen are served, too
    let mut kinds: Vec<&Kind> = world.served().iter().filter(|s| s.namespaced).map(|s| &s.kind).collect();
    kinds.extend(world.kinds());
    kinds.sort();
    kinds.dedup();
    for kind in kinds {
        let keys = hard(quota).into_iter().flat_map(BTreeMap::keys);
        let keys: Vec<&String> = keys.filter(|key| usage::counts(&kind.group, &kind.plural, key)).collect();
        if keys.is_empty() {
            continue;
        }
        let mut sum = Amounts::new();
        for object in world.each(kind, namespace) {
            let whole = whole(object).unwrap_or_default();
            if scoped && !scopes::matches(&spec, &kind.group, &kind.plural, &whole) {
                continue;
            }
            usage::add(&mut sum, &usage::usage(&kind.group, &kind.plural, &whole, now));
        }
        for key in keys {
            used.insert(key.clone(), sum.remove(key).unwrap_or_default());
        }
    }
    used
}
