//! `metadata.managedFields`: who owns which fields, and since when.
//!
//! Source: `k8s.io/apimachinery/pkg/util/managedfields/internal`.

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BTreeMap, btree_map as map},
};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::{fields_v1, set::FieldSet};
use crate::time;

/// How a manager came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who owns fields. Appliers are the same whatever version they applied with.
#[derive(Clone, Debug)]
pub struct Manager<'a> {
    /// The name the client gave, or the head of its user agent.
    pub name: Cow<'a, str>,
    /// How.
    pub operation: Operation,
    /// `apps/v1`: the version that the fields are named in.
    pub api_version: Cow<'a, str>,
    /// Empty for the object itself.
    pub subresource: Cow<'a, str>,
}

impl<'a> Manager<'a> {
    /// Whether entries of both are one.
    #[must_use]
    pub fn is(&self, other: &Manager<'_>) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// What entries are found by: managers that are one have the same.
    fn identity(&self) -> (Cow<'a, str>, Operation, Cow<'a, str>, Cow<'a, str>) {
        let api_version = match self.operation {
            Operation::Apply => Cow::Borrowed(""),
            Operation::Update => self.api_version.clone(),
        };
        (self.name.clone(), self.operation, self.subresource.clone(), api_version)
    }

    /// The order in which conflicts name managers.
    pub(super) fn order(&self, other: &Manager<'_>) -> Ordering {
        self.name
            .cmp(&other.name)
            .then_with(|| self.operation.cmp(&other.operation))
            .then_with(|| self.api_version.cmp(&other.api_version))
            .then_with(|| self.subresource.cmp(&other.subresource))
    }
}

/// `"kubectl" with subresource "scale" using apps/v1`
impl std::fmt::Display for Manager<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// One manager's fields.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Whose.
    pub manager: Manager<'a>,
    /// When it last got new ones. Absent where an apply changed nothing but ownership.
    pub time: Option<Cow<'a, str>>,
    /// Which.
    pub set: FieldSet<'a>,
    /// The entry as it was read, as long as nothing in it changed: it is written back as it is.
    raw: Option<&'a Value>,
}

impl<'a> Entry<'a> {
    /// A new entry.
    #[must_use]
    pub fn new(manager: Manager<'a>, time: Option<Cow<'a, str>>, set: FieldSet<'a>) -> Self {
        Self { manager, time, set, raw: None }
    }

    /// Replaces the fields.
    pub fn set_fields(&mut self, set: FieldSet<'a>) {
        self.set = set;
        self.raw = None;
    }

    /// Adds the fields of all sets. Like is joined with like, so that each field is moved few times.
    fn gain(&mut self, mut sets: Vec<FieldSet<'a>>) {
        sets.push(std::mem::take(&mut self.set));
        while sets.len() > 1 {
            let mut pairs = std::mem::take(&mut sets).into_iter();
            while let Some(first) = pairs.next() {
                sets.push(first.union(pairs.next().unwrap_or_default()));
            }
        }
        self.set_fields(sets.pop().unwrap_or_default());
    }

    /// Takes fields away.
    pub fn release(&mut self, set: &FieldSet<'_>) {
        if !set.is_empty() && self.set.intersects(set) {
            let rest = std::mem::take(&mut self.set).difference(set);
            self.set_fields(rest);
        }
    }

    fn read(value: &'a Value, index: usize) -> Result<Self, String> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
        }
        let set = match value.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::new(),
            Some(fields) => fields_v1::decode(fields)
                .map_err(|why| format!("error decoding versioned set: error decoding set: {why}"))?,
        };
        let manager = Manager {
            name: text("manager").into(),
            operation,
            api_version: text("apiVersion").into(),
            subresource: text("subresource").into(),
        };
        Ok(Self {
            manager,
            time: value.get("time").and_then(Value::as_str).map(Cow::Borrowed),
            set,
            raw: Some(value),
        })
    }

    fn write(&self) -> Value {
        if let Some(raw) = self.raw {
            return raw.clone();
        }
        let mut map = Map::new();
        let mut put = |name: &str, text: &str| {
            if !text.is_empty() {
                map.insert(name.to_owned(), Value::String(text.to_owned()));
            }
        };
        put("manager", &self.manager.name);
        put("operation", self.manager.operation.word());
        put("apiVersion", &self.manager.api_version);
        put("time", self.time.as_deref().unwrap_or_default());
        put("fieldsType", "FieldsV1");
        put("subresource", &self.manager.subresource);
        map.insert("fieldsV1".to_owned(), fields_v1::encode(&self.set));
        Value::Object(map)
    }

    fn seconds(&self) -> i64 {
        self.time.as_deref().and_then(|t| time::parse_rfc3339(t).ok()).map_or(0, |t| t.timestamp())
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub struct Managed<'a>(pub Vec<Entry<'a>>);

/// More entries of updates than this are merged, the oldest first.
const MOST_UPDATERS: usize = 10;
/// Who the merged entries belong to.
const ANCIENT: &str = "ancient-changes";

impl<'a> Managed<'a> {
    /// Reads `metadata.managedFields`; absent is none.
    ///
    /// # Errors
    /// Why an entry cannot be understood.
    pub fn read(list: Option<&'a Value>) -> Result<Self, String> {
        let mut all = Self::default();
        let mut places: BTreeMap<_, usize> = BTreeMap::new();
        for (index, value) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let entry = Entry::read(value, index)?;
            match places.entry(entry.manager.identity()) {
                map::Entry::Occupied(place) => all.0[*place.get()] = entry,
                map::Entry::Vacant(place) => {
                    place.insert(all.0.len());
                    all.0.push(entry);
                }
            }
        }
        Ok(all)
    }

    /// Where a manager's entry is.
    #[must_use]
    pub fn find(&self, manager: &Manager<'_>) -> Option<usize> {
        self.0.iter().position(|e| e.manager.is(manager))
    }

    /// Drops entries that own nothing any more.
    pub fn sweep(&mut self) {
        self.0.retain(|e| !e.set.is_empty());
    }

    /// Keeps the number of updaters bounded, so that an object does not grow with the number of its writers.
    pub fn cap(&mut self) {
        let updaters = self.0.iter().filter(|e| e.manager.operation == Operation::Update).count();
        let Some(mut over) = updaters.checked_sub(MOST_UPDATERS).filter(|n| *n > 0) else { return };
        self.0.sort_by(|a, b| {
            (b.manager.operation.cmp(&a.manager.operation))
                .then_with(|| a.seconds().cmp(&b.seconds()))
                .then_with(|| a.manager.order(&b.manager))
        });
        // The first of each version becomes the bucket that the next ones go into.
        let mut kept: Vec<Entry<'a>> = Vec::with_capacity(self.0.len());
        let mut buckets: BTreeMap<Cow<'a, str>, usize> = BTreeMap::new();
        let mut sets: BTreeMap<usize, Vec<FieldSet<'a>>> = BTreeMap::new();
        for entry in std::mem::take(&mut self.0) {
            if over > 0 && entry.manager.operation == Operation::Update {
                if let Some(bucket) = buckets.get(&entry.manager.api_version) {
                    let into = &mut kept[*bucket];
                    sets.entry(*bucket).or_default().push(entry.set);
                    into.time = entry.time;
                    into.manager.name = ANCIENT.into();
                    into.manager.subresource = "".into();
                    over -= 1;
                    continue;
                }
                buckets.insert(entry.manager.api_version.clone(), kept.len());
            }
            kept.push(entry);
        }
        for (bucket, sets) in sets {
            kept[bucket].gain(sets);
        }
        // An older bucket of the same version may have been there already.
        let mut places: BTreeMap<_, usize> = BTreeMap::new();
        for entry in kept {
            match places.entry(entry.manager.identity()) {
                map::Entry::Occupied(place) => self.0[*place.get()].gain(vec![entry.set]),
                map::Entry::Vacant(place) => {
                    place.insert(self.0.len());
                    self.0.push(entry);
                }
            }
        }
    }

    /// The list to store, in upstream's order; `None` if there is nobody.
    #[must_use]
    pub fn write(&self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        let mut order: Vec<(&Entry<'_>, i64)> = self.0.iter().map(|e| (e, e.seconds())).collect();
        order.sort_by(|(a, at), (b, bt)| {
            let (p, q) = (&a.manager, &b.manager);
            (p.operation.cmp(&q.operation))
                .then_with(|| at.cmp(bt))
                .then_with(|| p.name.cmp(&q.name))
                .then_with(|| p.api_version.cmp(&q.api_version))
                .then_with(|| p.subresource.cmp(&q.subresource))
        });
        Some(Value::Array(order.into_iter().map(|(e, _)| e.write()).collect()))
    }
}

/// `managedFields` as a client resets it: `[]` or `[{}]`.
#[must_use]
pub fn is_reset(list: Option<&Value>) -> bool {
    match list.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => {
            one.as_object().is_some_and(|map| map.values().all(|v| v.is_null() || v == &json!("")))
        }
        _ => false,
    }
}

/// The time of an entry: whole seconds.
#[must_use]
pub fn stamp(now: DateTime<Utc>) -> String {
    time::format_time(now)
}

/// What a write is called by whose client did not say: the head of its user agent.
#[must_use]
pub fn manager_of_agent(agent: &str) -> String {
    const MOST: usize = 128;
    let head = agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for c in head.chars().filter(|c| !c.is_control() && (*c == ' ' || !c.is_whitespace())) {
        if name.len() + c.len_utf8() > MOST {
            break;
        }
        name.push(c);
    }
    name
}
