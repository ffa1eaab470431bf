//! How the access room and the special resources see stored objects: decoded once per revision, shared.

use std::{collections::HashMap, sync::Arc};

use access::Reader;
use apimachinery::Object;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use store::{Entry, Key, Revision, Store};

use crate::catalogue::{Catalogue, Served};

/// At most so many decoded objects are kept; beyond it the cache begins anew.
const KEPT: usize = 20_000;

/// Every object of one collection, as of one revision.
type Collection = (Revision, Arc<[Arc<Object>]>);

struct Shared {
    store: Arc<dyn Store>,
    catalogue: ArcSwap<Catalogue>,
    objects: Mutex<HashMap<Key, (Revision, Arc<Object>)>>,
    lists: Mutex<HashMap<String, Collection>>,
}

/// Implements [`Reader`] over the store. Cheap to clone.
#[derive(Clone)]
pub struct StoreReader(Arc<Shared>);

impl StoreReader {
    /// A reader of `store` that knows the kinds of `catalogue`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, catalogue: Arc<Catalogue>) -> Self {
        Self(Arc::new(Shared {
            store,
            catalogue: ArcSwap::new(catalogue),
            objects: Mutex::default(),
            lists: Mutex::default(),
        }))
    }

    /// Follows a change of what is served.
    pub fn set_catalogue(&self, catalogue: Arc<Catalogue>) {
        self.0.catalogue.store(catalogue);
        self.0.objects.lock().clear();
        self.0.lists.lock().clear();
    }

    fn served(&self, group: &str, resource: &str) -> Option<Arc<Served>> {
        self.0.catalogue.load().preferred(group, resource).cloned()
    }

    fn decoded(&self, served: &Served, entry: &Entry) -> Option<Arc<Object>> {
        if let Some((revision, object)) = self.0.objects.lock().get(&entry.key)
            && *revision == entry.modified
        {
            return Some(object.clone());
        }
        let object = Arc::new(served.object(entry).ok()?);
        let mut objects = self.0.objects.lock();
        if objects.len() >= KEPT {
            objects.clear();
        }
        objects.insert(entry.key.clone(), (entry.modified, object.clone()));
        Some(object)
    }
}

impl Reader for StoreReader {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let served = self.served(group, resource)?;
        let entry = self.0.store.get(&served.key(namespace, name))?;
        self.decoded(&served, &entry)
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Object>> {
        let Some(served) = self.served(group, resource) else { return Vec::new() };
        let range = served.range(namespace);
        let changed = self.0.store.last_change(&served.prefix);
        if let Some((at, list)) = self.0.lists.lock().get(&range)
            && *at == changed
        {
            return list.to_vec();
        }
        let Ok(page) = self.0.store.list(&range, None, 0, None) else { return Vec::new() };
        let list: Vec<_> = page.entries.iter().filter_map(|e| self.decoded(&served, e)).collect();
        let mut lists = self.0.lists.lock();
        if lists.len() >= 256 {
            lists.clear();
        }
        lists.insert(range, (changed, list.clone().into()));
        list
    }

    fn changed(&self, group: &str, resource: &str) -> u64 {
        let prefix = self.served(group, resource).map(|s| s.prefix.clone());
        prefix.map_or(0, |p| self.0.store.last_change(&p).0)
    }
}
