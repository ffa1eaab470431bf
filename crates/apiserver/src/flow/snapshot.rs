//! All schemas and levels of one moment.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use access::UserInfo;
use apimachinery::{Object, meta};
use serde_json::json;

use super::{
    Flow,
    borrowing::Bounds,
    level::{Level, Spec},
    schema::Schema,
};
use crate::request::RequestInfo;

const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
/// The shares of the level for what nothing else takes.
const CATCH_ALL_SHARES: u32 = 5;

/// See the module.
#[derive(Default)]
pub struct Snapshot {
    /// In the order in which they are asked.
    schemas: Vec<Schema>,
    /// By name.
    levels: HashMap<String, Arc<Level>>,
}

/// A schema that takes everything of some group.
fn mandatory(name: &str, precedence: i64, group: &str) -> Object {
    json!({
        "metadata": {"name": name},
        "spec": {
            "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": name},
            "distinguisherMethod": {"type": if name == CATCH_ALL { "ByUser" } else { "" }},
            "rules": [{
                "subjects": [{"kind": "Group", "group": {"name": group}}],
                "resourceRules": [{
                    "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
                }],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }],
        },
    })
}

impl Snapshot {
    /// What the objects say; what has to be there and is missing is added. A level that stays what it was in `old` keeps
    /// its seats and queues. `seats`: of the whole server. [`Flow::rearranged`] puts their limits in force.
    pub fn new(schemas: &[Object], levels: &[Object], seats: u32, flow: &Flow, old: Option<&Self>) -> Self {
        let mut specs: BTreeMap<String, Spec> =
            levels.iter().map(Spec::of).map(|spec| (spec.name.clone(), spec)).collect();
        specs.entry(EXEMPT.to_owned()).or_insert_with(|| Spec::mandatory(EXEMPT, true, 0));
        specs
            .entry(CATCH_ALL.to_owned())
            .or_insert_with(|| Spec::mandatory(CATCH_ALL, false, CATCH_ALL_SHARES));
        let sum: f64 = specs.values().map(|spec| f64::from(spec.shares)).sum();
        let mut snapshot = Self::default();
        for (name, spec) in specs {
            let part = if sum > 0.0 { f64::from(spec.shares) / sum } else { 0.0 };
            let nominal = (f64::from(seats) * part).ceil() as u32;
            let bounds = Bounds::new(nominal, spec.lends, spec.borrows, seats);
            let kept = old.and_then(|old| old.levels.get(&name)).filter(|level| level.spec == spec);
            let new = || Arc::new(Level::new(spec, bounds, flow.alarm.clone()));
            let level = kept.cloned().unwrap_or_else(new);
            level.set_bounds(bounds);
            snapshot.levels.insert(name, level);
        }
        let mut missing = Vec::new();
        for (name, precedence, group) in [(EXEMPT, 1, "system:masters"), (CATCH_ALL, 10_000, "*")] {
            if !schemas.iter().any(|schema| meta::name(schema) == name) {
                missing.push(mandatory(name, precedence, group));
            }
        }
        for object in schemas.iter().chain(&missing) {
            // A schema without a level takes nothing: its requests are for the next one.
            let Some(level) = snapshot.levels.get(level_of(object)).cloned() else { continue };
            let stats = flow.stats_of(&level.spec.name, meta::name(object));
            snapshot.schemas.push(Schema::new(object, level, stats));
        }
        snapshot.schemas.sort_by(|a, b| a.place().cmp(&b.place()));
        snapshot
    }

    /// The first schema that takes the request.
    pub fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Option<&Schema> {
        self.schemas.iter().find(|schema| schema.takes(user, info))
    }

    pub fn levels(&self) -> impl Iterator<Item = &Arc<Level>> {
        self.levels.values()
    }
}

/// The level that a schema names.
pub fn level_of(schema: &Object) -> &str {
    schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default()
}
