//! What the loops see: the objects of every watched kind, as last told by the API server.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kube::{Resource, api::ObjectMeta};

/// A kind, by group, version, kind and plural.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// Empty for the core group.
    pub group: Arc<str>,
    /// `v1`
    pub version: Arc<str>,
    /// `Deployment`
    pub kind: Arc<str>,
    /// `deployments`
    pub plural: Arc<str>,
}

impl Kind {
    /// A built-in kind.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self {
            group: K::group(&()).into(),
            version: K::version(&()).into(),
            kind: K::kind(&()).into(),
            plural: K::plural(&()).into(),
        }
    }
}

/// What a loop works on: usually a namespace and a name; the loop says what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped things.
    pub namespace: String,
    /// A name, or whatever else tells keys apart.
    pub name: String,
}

/// An object of any watched kind.
pub trait Seen: Any + Send + Sync {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// For [`World::get`].
    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<K: Resource<DynamicType = ()> + Any + Send + Sync> Seen for K {
    fn meta(&self) -> &ObjectMeta {
        Resource::meta(self)
    }
    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// One change of one object.
#[derive(Clone)]
pub struct Change {
    /// Its kind.
    pub kind: Kind,
    /// What was there before.
    pub before: Option<Arc<dyn Seen>>,
    /// What is there now; gone if absent.
    pub after: Option<Arc<dyn Seen>>,
}

impl Change {
    /// The object after the change, or before its removal, if it is of type `K`.
    #[must_use]
    pub fn object<K: Any + Send + Sync>(&self) -> Option<Arc<K>> {
        self.after.clone().or(self.before.clone())?.any().downcast().ok()
    }

    /// The state before, if it is of type `K`.
    #[must_use]
    pub fn before<K: Any + Send + Sync>(&self) -> Option<Arc<K>> {
        self.before.clone()?.any().downcast().ok()
    }

    /// The state after, if it is of type `K`.
    #[must_use]
    pub fn after<K: Any + Send + Sync>(&self) -> Option<Arc<K>> {
        self.after.clone()?.any().downcast().ok()
    }
}

/// The objects of one kind, by namespace and name.
type Objects = BTreeMap<(String, String), Arc<dyn Seen>>;
/// Objects of several kinds: kind, namespace, name.
type Mixed = BTreeMap<(Kind, String, String), Arc<dyn Seen>>;

/// The objects of every watched kind. `uids` and `dependents` are indexes over `objects`: all change together, in
/// [`World::apply`].
#[derive(Default)]
pub struct World {
    objects: HashMap<Kind, Objects>,
    /// By their own UID.
    uids: HashMap<String, Mixed>,
    /// By the UIDs of their owners.
    dependents: HashMap<String, Mixed>,
    /// What the API server serves, where some loop needs to know.
    served: Vec<Served>,
}

/// A resource that the API server serves, in the group's preferred version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its kind.
    pub kind: Kind,
    /// Its objects live in namespaces.
    pub namespaced: bool,
    /// Its objects can be deleted by collection.
    pub collections: bool,
    /// Its objects are in the [`World`], or their metadata are.
    pub watched: bool,
}

/// What is kept of an object whose kind no loop reads as such.
pub struct Metadata(pub ObjectMeta);

impl Seen for Metadata {
    fn meta(&self) -> &ObjectMeta {
        &self.0
    }
    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl World {
    /// One object.
    #[must_use]
    pub fn get<K>(&self, namespace: &str, name: &str) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Any + Send + Sync,
    {
        let objects = self.objects.get(&Kind::of::<K>())?;
        objects.get(&(namespace.to_owned(), name.to_owned()))?.clone().any().downcast().ok()
    }

    /// The objects of a kind in the order of namespace and name; all namespaces when `namespace` is empty.
    pub fn list<K>(&self, namespace: &str) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Any + Send + Sync,
    {
        let Some(objects) = self.objects.get(&Kind::of::<K>()) else { return Vec::new() };
        let from = (namespace.to_owned(), String::new());
        objects
            .range(from..)
            .take_while(|((n, _), _)| namespace.is_empty() || n == namespace)
            .filter_map(|(_, o)| o.clone().any().downcast().ok())
            .collect()
    }

    /// The objects of a kind whose controller has this UID.
    pub fn owned<K>(&self, uid: &str) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Any + Send + Sync,
    {
        let kind = Kind::of::<K>();
        let Some(owned) = self.dependents.get(uid) else { return Vec::new() };
        owned
            .iter()
            .filter(|((k, _, _), o)| *k == kind && controller_uid(o.meta()) == Some(uid))
            .filter_map(|(_, o)| o.clone().any().downcast().ok())
            .collect()
    }

    /// One object of any kind, or its metadata.
    #[must_use]
    pub fn object(&self, kind: &Kind, namespace: &str, name: &str) -> Option<&Arc<dyn Seen>> {
        self.objects.get(kind)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The objects of any kind in a namespace, or their metadata; all namespaces when `namespace` is empty.
    pub fn objects<'a>(
        &'a self,
        kind: &Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<dyn Seen>> + 'a {
        let from = (namespace.to_owned(), String::new());
        let objects = self.objects.get(kind).into_iter().flat_map(move |o| o.range(from.clone()..));
        objects.take_while(move |((n, _), _)| namespace.is_empty() || n == namespace).map(|(_, o)| o)
    }

    /// The objects that have this UID: one, unless an object is served as several kinds.
    pub fn with_uid(&self, uid: &str) -> impl Iterator<Item = (&Kind, &Arc<dyn Seen>)> {
        self.uids.get(uid).into_iter().flatten().map(|((kind, _, _), o)| (kind, o))
    }

    /// The objects that name this UID as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = (&Kind, &Arc<dyn Seen>)> {
        self.dependents.get(uid).into_iter().flatten().map(|((kind, _, _), o)| (kind, o))
    }

    /// What the API server serves, as last told by [`World::serve`].
    #[must_use]
    pub fn served(&self) -> &[Served] {
        &self.served
    }

    /// Tells what the API server serves.
    pub fn serve(&mut self, served: Vec<Served>) {
        self.served = served;
    }

    /// Puts an object in (`Some`) or takes it out, and tells what changed.
    pub fn apply(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        object: Option<Arc<dyn Seen>>,
    ) -> Change {
        let place = (namespace.to_owned(), name.to_owned());
        let objects = self.objects.entry(kind.clone()).or_default();
        let before = match &object {
            Some(object) => objects.insert(place.clone(), object.clone()),
            None => objects.remove(&place),
        };
        let indexed = (kind.clone(), place.0, place.1);
        if let Some(before) = &before {
            let meta = before.meta();
            forget(&mut self.uids, meta.uid.as_deref(), &indexed);
            for owner in meta.owner_references.iter().flatten() {
                forget(&mut self.dependents, Some(&owner.uid), &indexed);
            }
        }
        if let Some(object) = &object {
            let meta = object.meta();
            for uid in meta.uid.iter() {
                self.uids.entry(uid.clone()).or_default().insert(indexed.clone(), object.clone());
            }
            for owner in meta.owner_references.iter().flatten() {
                let dependents = self.dependents.entry(owner.uid.clone()).or_default();
                dependents.insert(indexed.clone(), object.clone());
            }
        }
        Change { kind: kind.clone(), before, after: object }
    }
}

fn forget(index: &mut HashMap<String, Mixed>, uid: Option<&str>, place: &(Kind, String, String)) {
    let Some(uid) = uid else { return };
    if let Some(held) = index.get_mut(uid) {
        held.remove(place);
        if held.is_empty() {
            index.remove(uid);
        }
    }
}

/// The UID of the owner that is the controller.
#[must_use]
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_deref()?;
    owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}
