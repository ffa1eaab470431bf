//! A [`Reader`] over a map, for tests.

use std::{collections::BTreeMap, sync::Arc};

use apimachinery::Object;
use parking_lot::RwLock;

use crate::Reader;

type Place = (String, String, String, String);

#[derive(Default)]
pub(crate) struct Memory {
    objects: RwLock<(u64, BTreeMap<Place, Arc<Object>>)>,
}

impl Memory {
    pub(crate) fn put(&self, group: &str, resource: &str, object: Object) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let place = (group.to_owned(), resource.to_owned(), text("namespace"), text("name"));
        let mut objects = self.objects.write();
        objects.0 += 1;
        objects.1.insert(place, Arc::new(object));
    }
}

impl Reader for Memory {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let place = (group.to_owned(), resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.objects.read().1.get(&place).cloned()
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Object>> {
        let objects = self.objects.read();
        let mine = objects.1.iter().filter(|((g, r, n, _), _)| {
            g == group && r == resource && (namespace.is_empty() || n == namespace)
        });
        mine.map(|(_, object)| Arc::clone(object)).collect()
    }

    fn changed(&self, _group: &str, _resource: &str) -> u64 {
        self.objects.read().0
    }
}
