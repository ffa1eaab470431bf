//! What is served right now: built-in kinds and established CustomResourceDefinitions, found by group, version, plural.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use apimachinery::{ApiError, Object, Schema, structure};
use bytes::Bytes;
use kinds::{Resource, versions::Conversion};
use serde_json::json;
use store::Entry;
use tokio_util::sync::CancellationToken;

use crate::{custom::Versions, encoding, recent::Recent, selection, shape, sparse::Fields};

/// How the stored form of a resource differs from the form it is served in.
#[derive(Clone, Debug, Default)]
pub enum View {
    /// Not at all.
    #[default]
    Direct,
    /// A version of a built-in kind that is stored as another one.
    Converted(&'static Conversion),
    /// A custom resource: entries older than the schema are pruned and defaulted again, those of another version are
    /// converted.
    Custom {
        /// Entries of this version that were written after this revision obey the schema as they lie there.
        since: store::Revision,
        /// What there is besides this version.
        versions: Arc<Versions>,
    },
}

/// What a resource's watches share.
#[derive(Debug, Default)]
pub struct Watches {
    open: AtomicI64,
    begun: AtomicU64,
    events: AtomicU64,
    /// What they were told last.
    pub recent: Recent,
}

impl Watches {
    /// There was one.
    pub fn ever(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// Those that go on.
    pub fn open(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Events sent.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// One more event.
    pub fn told(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}

/// A watch that goes on, counted until it is dropped.
pub struct Watching(Arc<Served>);

impl Watching {
    /// One more watch of the resource.
    #[must_use]
    pub fn new(served: Arc<Served>) -> Self {
        served.watches.open.fetch_add(1, Ordering::Relaxed);
        served.watches.begun.fetch_add(1, Ordering::Relaxed);
        Self(served)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if self.0.watches.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.watches.recent.clear();
        }
    }
}
/// The revision of an entry that was converted in order to be shown. Its value has its real one.
pub const CONVERTED: store::Revision = store::Revision(u64::MAX);

/// One served resource.
#[derive(Debug)]
pub struct Served {
    /// What it is.
    pub resource: Arc<Resource>,
    /// `v1`, `apps/v1`
    pub api_version: String,
    /// `/registry/pods/`
    pub prefix: String,
    /// `{"kind":"Pod","apiVersion":"v1",`; a custom resource is stored with both, and its head is a brace.
    pub head: Bytes,
    /// See [`encoding::tail`].
    pub tail: Bytes,
    /// What selectors ask about.
    pub attribute_fields: Fields,
    /// See [`View`].
    pub view: View,
    /// For custom resources: served while its definition is being deleted, creates are refused.
    terminating: AtomicBool,
    /// A version that is only stored: requests do not find it.
    pub hidden: bool,
    /// The version that objects are stored in.
    pub storage_version: Arc<str>,
    /// Cancelled when the resource is served in another way or not at all; its watches end then.
    pub retired: CancellationToken,
    /// See [`Watches`].
    pub watches: Watches,
    /// The warning on every use of a deprecated version.
    pub deprecation: Option<String>,
    /// An object with nothing but what is always encoded: what owners of a new object's fields are found by.
    pub empty: Object,
    /// The other versions of the kind and their schemas: managers of fields may have written through them.
    pub others: Vec<(Arc<str>, Arc<Schema>)>,
}

/// Where the objects of a resource lie.
#[must_use]
pub fn prefix(group: &str, plural: &str) -> String {
    match (group, plural) {
        ("", _) => format!("/registry/{plural}/"),
        _ => format!("/registry/{group}/{plural}/"),
    }
}

impl Served {
    /// A resource that is stored as it is served.
    #[must_use]
    pub fn new(resource: Arc<Resource>) -> Self {
        let api_version = resource.api_version();
        let (head, tail) = if resource.builtin {
            (format!(r#"{{"kind":"{}","apiVersion":"{api_version}","#, resource.kind), Bytes::new())
        } else {
            ("{".to_owned(), encoding::tail(&api_version, &resource.kind))
        };
        let conversion = kinds::versions::conversion(&resource);
        let stored_group = conversion.map_or(&*resource.group, |c| c.stored_group);
        let storage_version: Arc<str> =
            conversion.map_or(resource.version.clone(), |c| c.stored_version.into());
        let mut empty = json!({"apiVersion": api_version, "kind": &*resource.kind});
        if resource.builtin {
            structure::always(&mut empty, &resource.schema);
        }
        let others = kinds::versions::siblings(&resource);
        let others = others.map(|r| (Arc::from(r.api_version()), r.schema.clone())).collect();
        Self {
            prefix: prefix(stored_group, &resource.plural),
            attribute_fields: selection::attribute_fields(&resource),
            head: head.into(),
            tail,
            view: conversion.map_or(View::Direct, View::Converted),
            terminating: AtomicBool::new(false),
            hidden: false,
            storage_version,
            retired: CancellationToken::new(),
            watches: Watches::default(),
            deprecation: resource.behaviour.deprecated.map(str::to_owned),
            empty,
            others,
            api_version,
            resource,
        }
    }

    /// Its definition is being deleted.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.terminating.load(Ordering::Relaxed)
    }

    /// From now on creates are refused.
    pub fn terminate(&self) {
        self.terminating.store(true, Ordering::Relaxed);
    }

    /// Where an object lies.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.resource.namespaced {
            format!("{}{namespace}/{name}", self.prefix)
        } else {
            format!("{}{name}", self.prefix)
        }
    }

    /// Where the objects of a namespace lie; all of them when it is empty.
    #[must_use]
    pub fn range(&self, namespace: &str) -> String {
        if self.resource.namespaced && !namespace.is_empty() {
            format!("{}{namespace}/", self.prefix)
        } else {
            self.prefix.clone()
        }
    }

    /// Namespace (may be empty) and name of a key.
    #[must_use]
    pub fn split_key<'a>(&self, key: &'a str) -> (&'a str, &'a str) {
        let rest = key.strip_prefix(&self.prefix).unwrap_or(key);
        rest.split_once('/').unwrap_or(("", rest))
    }

    /// Whether entries can be served as the bytes they are.
    #[must_use]
    pub fn is_direct(&self, entry: &Entry) -> bool {
        match &self.view {
            View::Direct => true,
            View::Converted(_) => false,
            View::Custom { since, .. } => {
                (entry.modified > *since || entry.modified == CONVERTED) && entry.value.ends_with(&self.tail)
            }
        }
    }

    /// Whether the entry has to be converted by somebody else before it can be served. [`Inner::view`] does it.
    ///
    /// [`Inner::view`]: crate::server::Inner::view
    #[must_use]
    pub fn is_foreign(&self, entry: &Entry) -> bool {
        match &self.view {
            View::Custom { versions, .. } => {
                versions.converter.is_some() && !entry.value.ends_with(&self.tail)
            }
            View::Direct | View::Converted(_) => false,
        }
    }

    /// The entry as it is served, still without kind and version: the stored bytes wherever that is possible.
    pub fn wire(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        if self.is_direct(entry) {
            return Ok(entry.value.clone());
        }
        let object = self.object(entry)?;
        Ok(encoding::with_revision(&self.encode(&object)?, encoding::revision(&entry.value)))
    }

    /// The entry, decoded, in this version, with its kind. An entry that [is foreign](Served::is_foreign) is an error.
    pub fn object(&self, entry: &Entry) -> Result<Object, ApiError> {
        if !self.is_direct(entry)
            && let View::Custom { versions, .. } = &self.view
        {
            let mut object = versions.read(entry, &self.resource.kind)?;
            if object["apiVersion"] != *self.api_version {
                if versions.converter.is_some() {
                    return Err(ApiError::internal(format!("{} is not converted", entry.key)));
                }
                object["apiVersion"] = self.api_version.as_str().into();
                shape::converted(&self.resource, &mut object);
            }
            return Ok(object);
        }
        let mut object = encoding::decode(&entry.value, &self.api_version, &self.resource.kind)?;
        if let View::Converted(conversion) = &self.view {
            (conversion.shown)(&mut object);
        }
        Ok(object)
    }

    /// The value of an object of this version, in this version.
    pub fn encode(&self, object: &Object) -> Result<Bytes, ApiError> {
        encoding::encode(object, &self.tail)
    }

    /// The bytes to store for an object of this version. Where somebody else converts, [`Inner::to_store`] does it.
    ///
    /// [`Inner::to_store`]: crate::server::Inner::to_store
    pub fn stored(&self, object: &Object) -> Result<Bytes, ApiError> {
        match &self.view {
            View::Direct => self.encode(object),
            View::Converted(conversion) => {
                let mut stored = object.clone();
                (conversion.stored)(&mut stored);
                if let Some(target) = conversion.target() {
                    shape::default(target, &mut stored);
                }
                self.encode(&stored)
            }
            View::Custom { versions, .. } if versions.storage == self.api_version => self.encode(object),
            View::Custom { versions, .. } => versions.write(object.clone()),
        }
    }

    /// Whether what [`Served::stored`] makes of an object is what [`Served::encode`] makes of it.
    #[must_use]
    pub fn stores_itself(&self) -> bool {
        match &self.view {
            View::Direct => true,
            View::Converted(_) => false,
            View::Custom { versions, .. } => versions.storage == self.api_version,
        }
    }

    /// 404 for an object of this resource.
    #[must_use]
    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, name)
    }

    /// 422 for an object of this resource.
    #[must_use]
    pub fn invalid(&self, name: &str, errors: &[apimachinery::FieldError]) -> ApiError {
        // Events of both groups are stored, and judged, as those of the core group.
        let group = if &*self.resource.group == "events.k8s.io" { "" } else { &*self.resource.group };
        ApiError::invalid(group, &self.resource.kind, name, errors)
    }
}

/// One version of a group.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// By plural.
    pub resources: BTreeMap<String, Arc<Served>>,
    /// Has a built-in kind; an unknown resource then is a 404 in JSON.
    pub builtin: bool,
}

/// One group: its versions, the preferred one first.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// In order of preference.
    pub versions: Vec<(String, Version)>,
}

/// Everything served. Replaced as a whole when a definition changes.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// By name; the core group is the empty one.
    pub groups: HashMap<String, Group>,
    /// By storage prefix (`/registry/pods/`), the storage version's view.
    pub by_prefix: HashMap<String, Arc<Served>>,
    /// Rises with each replacement; documents derived from the catalogue compare it.
    pub generation: u64,
}

/// Kubernetes' order of versions: `v2 > v1 > v1beta2 > v1alpha1 > foo`.
#[must_use]
pub fn version_rank(version: &str) -> (u8, u32, u32, std::cmp::Reverse<String>) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        if tail.is_empty() {
            return Some((3, major, 0));
        }
        let (level, number) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(n), _) => (2, n),
            (_, Some(n)) => (1, n),
            _ => return None,
        };
        Some((level, major, number.parse().ok()?))
    };
    let (level, major, minor) = parse().unwrap_or((0, 0, 0));
    let name = if level == 0 { version.to_owned() } else { String::new() };
    (level, major, minor, std::cmp::Reverse(name))
}

impl Catalogue {
    /// Everything in `list`.
    #[must_use]
    pub fn of(list: impl IntoIterator<Item = Arc<Served>>, generation: u64) -> Self {
        let mut all = Self { generation, ..Self::default() };
        for served in list {
            let resource = &served.resource;
            let stored = match &served.view {
                View::Direct => true,
                View::Converted(_) => false,
                View::Custom { versions, .. } => versions.storage == served.api_version,
            };
            if stored {
                all.by_prefix.insert(served.prefix.clone(), served.clone());
            }
            if served.hidden {
                continue;
            }
            let group = all.groups.entry(resource.group.to_string()).or_default();
            let index = group.versions.iter().position(|(name, _)| **name == *resource.version);
            let index = index.unwrap_or_else(|| {
                group.versions.push((resource.version.to_string(), Version::default()));
                group.versions.len() - 1
            });
            let version = &mut group.versions[index].1;
            version.builtin |= resource.builtin;
            version.resources.insert(resource.plural.to_string(), served.clone());
        }
        for group in all.groups.values_mut() {
            group.versions.sort_by_key(|(name, _)| std::cmp::Reverse(version_rank(name)));
        }
        all
    }

    /// Everything that requests can find.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.groups.values().flat_map(|g| &g.versions).flat_map(|(_, v)| v.resources.values())
    }

    /// Whether a group has built-in kinds: its unknown versions and resources are told in JSON.
    #[must_use]
    pub fn is_builtin(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|g| g.versions.iter().any(|(_, v)| v.builtin))
    }

    /// One version of a group.
    #[must_use]
    pub fn version(&self, group: &str, version: &str) -> Option<&Version> {
        self.groups.get(group)?.versions.iter().find(|(name, _)| name == version).map(|(_, v)| v)
    }

    /// One resource.
    #[must_use]
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.version(group, version)?.resources.get(plural)
    }

    /// A resource at the version its group prefers.
    #[must_use]
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        self.groups.get(group)?.versions.iter().find_map(|(_, v)| v.resources.get(plural))
    }

    /// The resource of a kind.
    #[must_use]
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Served>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.version(group, version)?.resources.values().find(|s| &*s.resource.kind == kind)
    }

    /// The resource that a key belongs to.
    #[must_use]
    pub fn of_key(&self, key: &str) -> Option<&Arc<Served>> {
        let rest = key.strip_prefix("/registry/")?;
        let first = rest.find('/')?;
        let end = "/registry/".len() + first + 1;
        self.by_prefix.get(&key[..end]).or_else(|| {
            let second = rest[first + 1..].find('/')?;
            self.by_prefix.get(&key[..end + second + 1])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = vec!["v1alpha1", "foo1", "v1", "v1beta2", "v2", "v10", "v1beta1", "bar"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "bar", "foo1"]);
    }
}
