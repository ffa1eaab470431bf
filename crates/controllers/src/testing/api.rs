//! An API server in memory: the semantics of writes that loops rely on, with the built-in kinds' own defaults and rules.
//!
//! What it leaves out: authentication, admission (but for a hook), server-side apply, watches from a past revision.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use apimachinery::{ApiError, meta, names, patch};
use chrono::TimeDelta;
use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    jiff::Timestamp,
};
use kinds::{Generation, Resource};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

pub use super::objects::served;
use super::objects::{
    confine, grace, inherit, is_held, kind_of, propagate, remove, resource, shape, text_of, utc,
};
use crate::{
    ask::Ask,
    plan::PatchKind,
    world::{Key, Kind},
};

/// Kind, namespace and name.
type Place = (Kind, String, String);
/// Says what is wrong with a write (`create`, `update`, `delete`) of an object.
pub type Admission = Arc<dyn Fn(&str, &Kind, &Value) -> Result<(), ApiError> + Send + Sync>;

/// Answers what a loop asks, if it knows.
pub type Answers = Arc<dyn Fn(&Ask) -> Option<Result<Value, ApiError>> + Send + Sync>;

/// A change as a watch tells it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The object, or its last state.
    pub object: Arc<Value>,
    /// It is gone.
    pub gone: bool,
    /// At which resourceVersion.
    pub revision: u64,
}

/// What a deletion asks for.
#[derive(Clone, Debug, Default)]
pub struct Deletion<'a> {
    /// Only if it has this UID.
    pub uid: Option<&'a str>,
    /// Only if it has this resourceVersion.
    pub resource_version: Option<&'a str>,
    /// Seconds of grace.
    pub grace: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<&'a str>,
}

struct State {
    objects: BTreeMap<Place, Arc<Value>>,
    history: BTreeMap<Kind, Vec<Event>>,
    revision: u64,
    now: Timestamp,
    random: StdRng,
    admission: Option<Admission>,
    answers: Option<Answers>,
}

/// The server.
pub struct Api {
    state: Mutex<State>,
    directories: Mutex<BTreeSet<(String, PathBuf)>>,
}

impl Api {
    /// An empty one. All that is random in it (names, UIDs) follows from the seed.
    #[must_use]
    pub fn new(now: Timestamp, seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                objects: BTreeMap::new(),
                history: BTreeMap::new(),
                revision: 0,
                now,
                random: StdRng::seed_from_u64(seed),
                admission: None,
                answers: None,
            }),
            directories: Mutex::default(),
        }
    }

    /// The directories that loops have made, with the nodes that they are on.
    pub fn directories(&self) -> MutexGuard<'_, BTreeSet<(String, PathBuf)>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the clock.
    pub fn set_now(&self, now: Timestamp) {
        self.state().now = now;
    }

    /// Refuses what `admission` refuses.
    pub fn admit(&self, admission: Option<Admission>) {
        self.state().admission = admission;
    }

    /// Answers first what `answers` answers.
    pub fn answer(&self, answers: Option<Answers>) {
        self.state().answers = answers;
    }

    pub(super) fn answered(&self, ask: &Ask) -> Option<Result<Value, ApiError>> {
        let answers = self.state().answers.clone()?;
        answers(ask)
    }

    /// The newest resourceVersion.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.state().revision
    }

    /// The changes of a kind after the first `seen`.
    #[must_use]
    pub fn changes(&self, kind: &Kind, seen: usize) -> Vec<Event> {
        self.state().history.get(kind).and_then(|h| h.get(seen..)).map(<[Event]>::to_vec).unwrap_or_default()
    }

    /// How many changes of a kind there were.
    #[must_use]
    pub fn count(&self, kind: &Kind) -> usize {
        self.state().history.get(kind).map_or(0, Vec::len)
    }

    /// One object.
    #[must_use]
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.state().objects.get(&(kind.clone(), namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The objects of a kind; of all namespaces when `namespace` is empty.
    #[must_use]
    pub fn list(&self, kind: &Kind, namespace: &str) -> Vec<Arc<Value>> {
        let state = self.state();
        state
            .objects
            .range((kind.clone(), namespace.to_owned(), String::new())..)
            .take_while(|((k, n, _), _)| k == kind && (namespace.is_empty() || n == namespace))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// POST.
    ///
    /// # Errors
    /// As the API server's.
    pub fn create(&self, object: Value) -> Result<Arc<Value>, ApiError> {
        self.state().create(object)
    }

    /// PUT, also of a subresource.
    ///
    /// # Errors
    /// As the API server's.
    pub fn update(&self, object: &Value, subresource: &str) -> Result<Arc<Value>, ApiError> {
        let kind = kind_of(object)?;
        let place = (kind, meta::namespace(object).to_owned(), meta::name(object).to_owned());
        self.state().change(&place, subresource, |_| Ok(object.clone()))
    }

    /// PATCH, also of a subresource.
    ///
    /// # Errors
    /// As the API server's.
    pub fn patch(
        &self,
        (kind, namespace, name): (&Kind, &str, &str),
        sort: PatchKind,
        body: &Value,
        subresource: &str,
    ) -> Result<Arc<Value>, ApiError> {
        let place = (kind.clone(), namespace.to_owned(), name.to_owned());
        let schema = resource(kind)?.schema.clone();
        self.state().change(&place, subresource, |old| match sort {
            PatchKind::Merge => patch::merge(old.clone(), body.clone()),
            PatchKind::Strategic => patch::strategic(old.clone(), body.clone(), &schema),
            PatchKind::Json => patch::json(old.clone(), body.to_string().as_bytes()),
            PatchKind::Apply => {
                Err(ApiError::other(415, "UnsupportedMediaType", "no server-side apply here"))
            }
        })
    }

    /// PUT of a namespace's `finalize`: takes over `spec.finalizers` and nothing else.
    ///
    /// # Errors
    /// As the API server's.
    pub fn finalize(&self, name: &str, object: &Value) -> Result<Arc<Value>, ApiError> {
        let place = (Kind::of::<Namespace>(), String::new(), name.to_owned());
        self.state().change(&place, "finalize", |old| {
            let mut new = old.clone();
            new["spec"]["finalizers"] = object["spec"]["finalizers"].clone();
            new["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
            Ok(new)
        })
    }

    /// Gives a pod its node, as the binding subresource does; a pod that is gone or has one already is left alone.
    pub fn bind(&self, key: &Key, uid: &str, node: &str) {
        let mut state = self.state();
        let place = (Kind::of::<Pod>(), key.namespace.clone(), key.name.clone());
        let Some(pod) = state.objects.get(&place).filter(|pod| meta::uid(pod) == uid) else { return };
        if pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
            let mut pod = Value::clone(pod);
            pod["spec"]["nodeName"] = node.into();
            state.commit(place, pod);
        }
    }

    /// DELETE. The object as it is now if it stays for a while; else nothing.
    ///
    /// # Errors
    /// As the API server's.
    pub fn delete(
        &self,
        (kind, namespace, name): (&Kind, &str, &str),
        deletion: &Deletion<'_>,
    ) -> Result<Option<Arc<Value>>, ApiError> {
        let place = (kind.clone(), namespace.to_owned(), name.to_owned());
        self.state().delete(&place, deletion)
    }
}

impl State {
    fn admitted(&self, verb: &str, kind: &Kind, object: &Value) -> Result<(), ApiError> {
        self.admission.as_ref().map_or(Ok(()), |admission| admission(verb, kind, object))
    }

    /// Nothing is made in a namespace that is being deleted.
    fn open(&self, resource: &Resource, object: &Value) -> Result<(), ApiError> {
        let namespace = meta::namespace(object);
        let place = (Kind::of::<Namespace>(), String::new(), namespace.to_owned());
        if self.objects.get(&place).is_none_or(|n| meta::deletion_timestamp(n).is_none()) {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = ApiError::forbidden(&resource.group, &resource.plural, meta::name(object), &why);
        let mut details = error.details.take().unwrap_or_default();
        details["causes"] = json!([{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]);
        error.details = Some(details);
        Err(error)
    }

    fn create(&mut self, mut object: Value) -> Result<Arc<Value>, ApiError> {
        let kind = kind_of(&object)?;
        let resource = resource(&kind)?;
        if !meta::resource_version(&object).is_empty() {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(ApiError::other(500, "", why));
        }
        shape(resource, &mut object)?;
        let metadata = &mut object["metadata"];
        metadata["creationTimestamp"] = text_of(self.now);
        metadata["uid"] = self.uid().into();
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
            remove(metadata, field);
        }
        if meta::name(&object).is_empty() {
            let random = &mut self.random;
            let name = meta::generate_name(meta::generate_name_of(&object), |n| random.random_range(0..n));
            object["metadata"]["name"] = name.into();
        }
        resource.strategy.prepare_create(&mut object, utc(self.now));
        if resource.behaviour.generation != Generation::Untracked {
            object["metadata"]["generation"] = 1.into();
        }
        let mut errors = resource.strategy.validate(&object);
        if errors.is_empty() {
            errors = meta::validate_create(&object, resource.namespaced, names::path_segment_name);
        }
        let name = meta::name(&object).to_owned();
        if !errors.is_empty() {
            return Err(ApiError::invalid(&resource.group, &resource.kind, &name, &errors));
        }
        self.open(resource, &object)?;
        self.admitted("create", &kind, &object)?;
        let place = (kind, meta::namespace(&object).to_owned(), name);
        if self.objects.contains_key(&place) {
            return Err(ApiError::already_exists(&resource.group, &resource.plural, &place.2));
        }
        Ok(self.commit(place, object))
    }

    fn change(
        &mut self,
        place: &Place,
        subresource: &str,
        make: impl FnOnce(&Value) -> Result<Value, ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        let resource = resource(&place.0)?;
        let not_found = || ApiError::not_found(&resource.group, &resource.plural, &place.2);
        let old = self.objects.get(place).cloned().ok_or_else(not_found)?;
        let mut new = make(&old)?;
        shape(resource, &mut new)?;
        let asked = meta::resource_version(&new);
        if !asked.is_empty() && asked != meta::resource_version(&old) {
            return Err(ApiError::modified(&resource.group, &resource.plural, &place.2));
        }
        inherit(&mut new, &old);
        confine(resource, &mut new, &old, subresource);
        resource.strategy.prepare_update_at(&mut new, &old, subresource, utc(self.now));
        if resource.behaviour.generation != Generation::Untracked && old.get("spec") != new.get("spec") {
            new["metadata"]["generation"] = (meta::generation(&old) + 1).into();
        }
        let mut errors = meta::validate_update(&new, &old);
        errors.extend(resource.strategy.validate_update_at(&new, &old, subresource, utc(self.now)));
        if subresource.is_empty() {
            errors.extend(resource.strategy.validate(&new));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(&resource.group, &resource.kind, &place.2, &errors));
        }
        self.admitted("update", &place.0, &new)?;
        if new == *old {
            return Ok(old);
        }
        let grace = new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        let leaves = meta::deletion_timestamp(&new).is_some() && grace == 0;
        if leaves && !is_held(&place.0, &new) {
            return Ok(self.erase(place, new));
        }
        Ok(self.commit(place.clone(), new))
    }

    fn delete(&mut self, place: &Place, deletion: &Deletion<'_>) -> Result<Option<Arc<Value>>, ApiError> {
        let resource = resource(&place.0)?;
        let not_found = || ApiError::not_found(&resource.group, &resource.plural, &place.2);
        let old = self.objects.get(place).cloned().ok_or_else(not_found)?;
        let differs = |asked: Option<&str>, is: &str| asked.is_some_and(|asked| asked != is);
        if differs(deletion.uid, meta::uid(&old))
            || differs(deletion.resource_version, meta::resource_version(&old))
        {
            let why = "the precondition does not match the record";
            return Err(ApiError::conflict(&resource.group, &resource.plural, &place.2, why));
        }
        self.admitted("delete", &place.0, &old)?;
        let mut new = Value::clone(&old);
        let leaving = meta::deletion_timestamp(&old).is_some();
        if !leaving {
            propagate(resource, &mut new, deletion.propagation);
        }
        let grace = grace(resource, &new, deletion.grace);
        if grace == 0 && !is_held(&place.0, &new) {
            self.erase(place, new);
            return Ok(None);
        }
        if place.0.plural == "namespaces" {
            new["status"]["phase"] = "Terminating".into();
        }
        let metadata = &mut new["metadata"];
        let shorter = metadata["deletionGracePeriodSeconds"].as_i64().is_some_and(|before| grace < before);
        if !leaving || shorter {
            let at = utc(self.now) + TimeDelta::seconds(grace);
            metadata["deletionTimestamp"] = apimachinery::time::format_time(at).into();
            metadata["deletionGracePeriodSeconds"] = grace.into();
            if !leaving && let Some(generation) = metadata["generation"].as_i64() {
                metadata["generation"] = (generation + 1).into();
            }
        }
        if new == *old {
            return Ok(Some(old));
        }
        Ok(Some(self.commit(place.clone(), new)))
    }

    fn uid(&mut self) -> String {
        let (a, b): (u64, u64) = (self.random.random(), self.random.random());
        uuid::Builder::from_random_bytes((u128::from(a) << 64 | u128::from(b)).to_be_bytes())
            .into_uuid()
            .to_string()
    }

    fn tell(&mut self, kind: &Kind, object: &Arc<Value>, gone: bool) {
        let event = Event { object: object.clone(), gone, revision: self.revision };
        self.history.entry(kind.clone()).or_default().push(event);
    }

    fn commit(&mut self, place: Place, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(object);
        self.tell(&place.0, &object, false);
        self.objects.insert(place, object.clone());
        object
    }

    fn erase(&mut self, place: &Place, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.objects.remove(place);
        let object = Arc::new(object);
        self.tell(&place.0, &object, true);
        object
    }
}
