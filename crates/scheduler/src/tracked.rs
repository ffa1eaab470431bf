//! A watched kind as puts and removals, across re-lists.

use std::{collections::HashMap, sync::Arc};

use kube::{Resource, ResourceExt, runtime::watcher::Event};

/// What a watch event means for a cache.
#[derive(Debug)]
pub enum Delta<K> {
    /// New or changed.
    Put(Arc<K>),
    /// Gone; its last known state.
    Gone(Arc<K>),
}

/// The objects of one kind as last seen. A list that starts anew after an interruption yields removals for what has
/// vanished meanwhile.
#[derive(Debug)]
pub struct Tracked<K> {
    objects: HashMap<String, Arc<K>>,
    relist: Option<HashMap<String, Arc<K>>>,
    synced: bool,
}

impl<K> Default for Tracked<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), relist: None, synced: false }
    }
}

impl<K: Resource> Tracked<K> {
    /// The first list is complete.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// What the event changes.
    pub fn apply(&mut self, event: Event<K>) -> Vec<Delta<K>> {
        match event {
            Event::Init => {
                self.relist = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let object = Arc::new(object);
                if let Some(relist) = &mut self.relist {
                    relist.insert(key(&*object), Arc::clone(&object));
                }
                vec![Delta::Put(object)]
            }
            Event::InitDone => {
                self.synced = true;
                let now = self.relist.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.objects, now);
                before
                    .into_iter()
                    .filter(|(k, _)| !self.objects.contains_key(k))
                    .map(|(_, o)| Delta::Gone(o))
                    .collect()
            }
            Event::Apply(object) => {
                let object = Arc::new(object);
                self.objects.insert(key(&*object), Arc::clone(&object));
                vec![Delta::Put(object)]
            }
            Event::Delete(object) => {
                self.objects.remove(&key(&object));
                vec![Delta::Gone(Arc::new(object))]
            }
        }
    }
}

/// `namespace/name`, or `name` for cluster-scoped kinds.
pub fn key<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;

    fn namespace(name: &str) -> Namespace {
        let mut n = Namespace::default();
        n.metadata.name = Some(name.to_owned());
        n
    }

    #[test]
    fn what_vanished_during_an_interruption_is_removed_at_the_end_of_the_new_list() {
        let mut tracked = Tracked::default();
        for event in
            [Event::Init, Event::InitApply(namespace("a")), Event::InitApply(namespace("b")), Event::InitDone]
        {
            tracked.apply(event);
        }
        assert!(tracked.synced());
        tracked.apply(Event::Init);
        tracked.apply(Event::InitApply(namespace("b")));
        let deltas = tracked.apply(Event::InitDone);
        assert!(matches!(&deltas[..], [Delta::Gone(n)] if n.name_any() == "a"));
    }
}
