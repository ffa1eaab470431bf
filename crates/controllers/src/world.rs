//! What the loops see: the objects of every watched kind, as last told by the API server.

use std::{
    any::Any,
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, api::ObjectMeta};

/// A kind, by group, version, kind and plural.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    /// `v1`
    pub version: Cow<'static, str>,
    /// `Deployment`
    pub kind: Cow<'static, str>,
    /// `deployments`
    pub plural: Cow<'static, str>,
}

impl Kind {
    /// A built-in kind.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self { group: K::group(&()), version: K::version(&()), kind: K::kind(&()), plural: K::plural(&()) }
    }

    /// `v1` or `apps/v1`
    #[must_use]
    pub fn api_version(&self) -> Cow<'static, str> {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version).into()
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

impl Key {
    /// The key of an object: its namespace and name.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
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

/// An object of which only the metadata is watched: kinds that no loop reads, for the garbage collector.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bare {
    /// Its metadata.
    pub meta: ObjectMeta,
}

impl Seen for Bare {
    fn meta(&self) -> &ObjectMeta {
        &self.meta
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

    /// The metadata after the change, or before the removal.
    #[must_use]
    pub fn meta(&self) -> Option<&ObjectMeta> {
        self.after.as_deref().or(self.before.as_deref()).map(Seen::meta)
    }
}

/// A resource as discovery tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which kind.
    pub kind: Kind,
    /// It lives in namespaces.
    pub namespaced: bool,
    /// `create`, `delete`, `deletecollection`, …
    pub verbs: Vec<String>,
}

impl Served {
    /// Whether it has this verb.
    #[must_use]
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// Namespace and name.
type Place = (Arc<str>, Arc<str>);
/// Objects of several kinds, by the number of their table and their place.
type Mixed = BTreeMap<(usize, Place), Arc<dyn Seen>>;

/// The objects of one kind.
struct Table {
    kind: Kind,
    objects: BTreeMap<Place, Arc<dyn Seen>>,
    /// Those without a controller.
    orphans: BTreeMap<Place, Arc<dyn Seen>>,
    /// The newest resourceVersion that was seen.
    revision: u64,
}

/// The objects of every watched kind. The indices change together with the tables, in [`World::apply`] only.
#[derive(Default)]
pub struct World {
    numbers: HashMap<Kind, usize>,
    tables: Vec<Table>,
    /// By the UID of each owner.
    dependents: HashMap<String, Mixed>,
    /// Where the object of a UID is.
    by_uid: HashMap<String, (usize, Place)>,
    /// By `spec.nodeName`.
    on_node: HashMap<String, BTreeMap<Place, Arc<Pod>>>,
    served: Vec<Served>,
}

fn place(namespace: &str, name: &str) -> Place {
    (namespace.into(), name.into())
}

fn typed<K: Any + Send + Sync>(object: &Arc<dyn Seen>) -> Option<Arc<K>> {
    object.clone().any().downcast().ok()
}

/// Those of a namespace, or all when it is empty.
fn range<'a>(
    objects: &'a BTreeMap<Place, Arc<dyn Seen>>,
    namespace: &'a str,
) -> impl Iterator<Item = &'a Arc<dyn Seen>> + 'a {
    objects
        .range(place(namespace, "")..)
        .take_while(move |((n, _), _)| namespace.is_empty() || &**n == namespace)
        .map(|(_, object)| object)
}

impl World {
    /// One object.
    #[must_use]
    pub fn get<K>(&self, namespace: &str, name: &str) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Any + Send + Sync,
    {
        typed(self.find(&Kind::of::<K>(), namespace, name)?)
    }

    /// One object of any kind.
    #[must_use]
    pub fn find(&self, kind: &Kind, namespace: &str, name: &str) -> Option<&Arc<dyn Seen>> {
        self.table(kind)?.objects.get(&place(namespace, name))
    }

    /// The objects of a kind in the order of namespace and name; all namespaces when `namespace` is empty.
    pub fn list<K>(&self, namespace: &str) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Any + Send + Sync,
    {
        self.each(&Kind::of::<K>(), namespace).filter_map(typed).collect()
    }

    /// The objects of any kind, as [`World::list`].
    pub fn each<'a>(
        &'a self,
        kind: &Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<dyn Seen>> + 'a {
        self.table(kind).into_iter().flat_map(move |table| range(&table.objects, namespace))
    }

    /// The objects of a kind that no controller owns, as [`World::list`].
    pub fn orphans<K>(&self, namespace: &str) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Any + Send + Sync,
    {
        let Some(table) = self.table(&Kind::of::<K>()) else { return Vec::new() };
        range(&table.orphans, namespace).filter_map(typed).collect()
    }

    /// The objects of a kind whose controller has this UID.
    pub fn owned<K>(&self, uid: &str) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Any + Send + Sync,
    {
        let Some(&number) = self.numbers.get(&Kind::of::<K>()) else { return Vec::new() };
        let Some(dependents) = self.dependents.get(uid) else { return Vec::new() };
        dependents
            .iter()
            .filter(|((n, _), o)| *n == number && controller_uid(o.meta()) == Some(uid))
            .filter_map(|(_, o)| typed(o))
            .collect()
    }

    /// The objects of any kind that name this UID among their owners, as controller or not.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = (&'a Kind, &'a Arc<dyn Seen>)> + 'a {
        let dependents = self.dependents.get(uid).into_iter().flatten();
        dependents.filter_map(|((number, _), object)| Some((&self.tables.get(*number)?.kind, object)))
    }

    /// The object of this UID.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<(&Kind, &Arc<dyn Seen>)> {
        let (number, place) = self.by_uid.get(uid)?;
        let table = self.tables.get(*number)?;
        Some((&table.kind, table.objects.get(place)?))
    }

    /// The pods of a node, in the order of namespace and name.
    #[must_use]
    pub fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        self.on_node.get(node).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// The kinds of which there are objects, or were.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.tables.iter().map(|table| &table.kind)
    }

    /// What discovery tells; empty unless a loop asks for everything ([`crate::Controller::watches_everything`]).
    #[must_use]
    pub fn served(&self) -> &[Served] {
        &self.served
    }

    /// Puts in what discovery tells.
    pub fn set_served(&mut self, served: Vec<Served>) {
        self.served = served;
    }

    /// The newest resourceVersion seen of a kind; 0 before the first.
    #[must_use]
    pub fn revision(&self, kind: &Kind) -> u64 {
        self.table(kind).map_or(0, |table| table.revision)
    }

    /// Notes that a kind is known up to this resourceVersion.
    pub fn saw(&mut self, kind: &Kind, revision: u64) {
        let table = self.table_mut(kind).1;
        table.revision = table.revision.max(revision);
    }

    fn table(&self, kind: &Kind) -> Option<&Table> {
        self.tables.get(*self.numbers.get(kind)?)
    }

    fn table_mut(&mut self, kind: &Kind) -> (usize, &mut Table) {
        let number = match self.numbers.get(kind) {
            Some(&number) => number,
            None => {
                let number = self.tables.len();
                self.numbers.insert(kind.clone(), number);
                self.tables.push(Table {
                    kind: kind.clone(),
                    objects: BTreeMap::new(),
                    orphans: BTreeMap::new(),
                    revision: 0,
                });
                number
            }
        };
        (number, &mut self.tables[number])
    }

    /// Puts an object in (`Some`) or takes it out, and tells what changed.
    pub fn apply(
        &mut self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        object: Option<Arc<dyn Seen>>,
    ) -> Change {
        let place = place(namespace, name);
        let (number, table) = self.table_mut(kind);
        let before = match &object {
            Some(object) => table.objects.insert(place.clone(), object.clone()),
            None => table.objects.remove(&place),
        };
        table.orphans.remove(&place);
        if let Some(object) = &object {
            table.revision = table.revision.max(revision_of(object.meta()));
            if controller_uid(object.meta()).is_none() {
                table.orphans.insert(place.clone(), object.clone());
            }
        }
        if let Some(before) = &before {
            self.unindex(number, &place, before);
        }
        if let Some(object) = &object {
            self.index(number, place, object);
        }
        Change { kind: kind.clone(), before, after: object }
    }

    fn index(&mut self, number: usize, place: Place, object: &Arc<dyn Seen>) {
        let meta = object.meta();
        for owner in meta.owner_references.iter().flatten() {
            let dependents = self.dependents.entry(owner.uid.clone()).or_default();
            dependents.insert((number, place.clone()), object.clone());
        }
        if let Some(uid) = &meta.uid {
            self.by_uid.insert(uid.clone(), (number, place.clone()));
        }
        if let Some(pod) = typed::<Pod>(object)
            && let Some(node) = node_of(&pod)
        {
            self.on_node.entry(node.to_owned()).or_default().insert(place, pod);
        }
    }

    fn unindex(&mut self, number: usize, place: &Place, object: &Arc<dyn Seen>) {
        let meta = object.meta();
        for owner in meta.owner_references.iter().flatten() {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&(number, place.clone()));
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        if let Some(uid) = &meta.uid
            && self.by_uid.get(uid).is_some_and(|(n, p)| *n == number && p == place)
        {
            self.by_uid.remove(uid);
        }
        if let Some(pod) = typed::<Pod>(object)
            && let Some(node) = node_of(&pod)
            && let Some(pods) = self.on_node.get_mut(node)
        {
            pods.remove(place);
            if pods.is_empty() {
                self.on_node.remove(node);
            }
        }
    }
}

/// The UID of the owner that is the controller.
#[must_use]
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_deref()?;
    owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}

/// An object's resourceVersion as a number; 0 when it has none.
#[must_use]
pub fn revision_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|r| r.parse().ok()).unwrap_or(0)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
