//! A watched kind as puts and removals, across re-lists.

use std::collections::HashSet;

use kube::{Resource, ResourceExt, runtime::watcher::Event};

/// What a watch event means for a cache.
#[derive(Debug)]
pub enum Delta<K> {
    /// New or changed.
    Put(K),
    /// Gone: its [`key`].
    Gone(String),
}

/// Which objects of one kind were last seen; the objects themselves are kept by whoever needs them. A list that starts
/// anew after an interruption yields removals for what has vanished meanwhile.
#[derive(Debug, Default)]
pub struct Tracked {
    present: HashSet<String>,
    relist: Option<HashSet<String>>,
    synced: bool,
}

impl Tracked {
    /// The first list is complete.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// What the event changes.
    pub fn apply<K: Resource>(&mut self, event: Event<K>) -> Vec<Delta<K>> {
        match event {
            Event::Init => {
                self.relist = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(relist) = &mut self.relist {
                    relist.insert(key(&object));
                }
                vec![Delta::Put(object)]
            }
            Event::InitDone => {
                self.synced = true;
                let now = self.relist.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.present, now);
                before.into_iter().filter(|key| !self.present.contains(key)).map(Delta::Gone).collect()
            }
            Event::Apply(object) => {
                self.present.insert(key(&object));
                vec![Delta::Put(object)]
            }
            Event::Delete(object) => {
                let key = key(&object);
                self.present.remove(&key);
                vec![Delta::Gone(key)]
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
        tracked.apply(Event::<Namespace>::Init);
        tracked.apply(Event::InitApply(namespace("b")));
        let deltas = tracked.apply(Event::<Namespace>::InitDone);
        assert!(matches!(&deltas[..], [Delta::Gone(name)] if name == "a"));
    }
}
