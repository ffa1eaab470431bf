//! The snapshot kept up to date from watch events, and with pods that were placed but are not yet seen bound.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    policy::v1::PodDisruptionBudget,
    storage::v1::StorageClass,
};
use kube::ResourceExt;

use crate::{
    pod::PodInfo,
    snapshot::{NodeInfo, Snapshot},
    tracked::{Delta, key},
};

/// What a pod event means for the queue.
#[derive(Debug)]
pub enum PodChange {
    /// It wants a node.
    Wants(Arc<PodInfo>),
    /// It takes no part any more (bound, finished, deleted, gated, not ours).
    Settled(String),
}

/// See the module. `snapshot` holds every pod that has a node, assumed ones included.
#[derive(Debug, Default)]
pub struct Cache {
    /// What the core is asked with.
    pub snapshot: Snapshot,
    placed: HashMap<String, Arc<PodInfo>>,
    /// Pods on nodes that are not known (yet).
    homeless: HashMap<String, Arc<PodInfo>>,
}

impl Cache {
    /// Takes a node event in.
    pub fn node(&mut self, delta: Delta<Node>) {
        match delta {
            Delta::Put(node) => {
                let name = node.name_any();
                let mut info = NodeInfo::new(Arc::new(node));
                if let Some(old) = self.snapshot.nodes.remove(&name) {
                    info.requested = old.requested;
                    info.pods = old.pods;
                } else {
                    let (here, away): (Vec<_>, Vec<_>) =
                        self.homeless.drain().partition(|(_, pod)| pod.node_name() == name);
                    self.homeless = away.into_iter().collect();
                    here.into_iter().for_each(|(_, pod)| info.add(pod));
                }
                self.snapshot.nodes.insert(name, info);
            }
            Delta::Gone(name) => {
                if let Some(info) = self.snapshot.nodes.remove(&name) {
                    self.homeless.extend(info.pods.into_iter().map(|p| (p.key.clone(), p)));
                }
            }
        }
    }

    /// Takes a pod event in. `ours`: the name of this scheduler.
    pub fn pod(&mut self, delta: Delta<Pod>, ours: &str) -> PodChange {
        let info = match delta {
            Delta::Put(pod) => Arc::new(PodInfo::alone(pod)),
            Delta::Gone(key) => {
                self.settle(&key);
                return PodChange::Settled(key);
            }
        };
        let key = info.key.clone();
        if info.finished() {
            self.settle(&key);
            return PodChange::Settled(key);
        }
        if !info.node_name().is_empty() {
            self.settle(&key);
            self.place(info);
            return PodChange::Settled(key);
        }
        if self.placed.contains_key(&key) {
            // Placed by us, the binding is on its way; the watch still shows the state before it.
            return PodChange::Settled(key);
        }
        let status = info.pod.status.as_ref();
        match status.and_then(|s| s.nominated_node_name.clone()).filter(|n| !n.is_empty()) {
            Some(node) => {
                self.snapshot.nominated.insert(key.clone(), (node, Arc::clone(&info)));
            }
            None => {
                self.snapshot.nominated.remove(&key);
            }
        }
        let gated = info.spec().scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        let mine = info.spec().scheduler_name.as_deref().unwrap_or(ours) == ours;
        if gated || !mine || info.deleting() {
            return PodChange::Settled(key);
        }
        PodChange::Wants(info)
    }

    /// Counts the pod on `node` from now on, before the API says so.
    pub fn assume(&mut self, pod: &PodInfo, node: &str) {
        self.snapshot.nominated.remove(&pod.key);
        self.place(Arc::new(pod.on(node)));
    }

    /// Takes an assumption back.
    pub fn forget(&mut self, key: &str) {
        self.remove(key);
    }

    fn settle(&mut self, key: &str) {
        self.remove(key);
        self.snapshot.nominated.remove(key);
    }

    fn place(&mut self, pod: Arc<PodInfo>) {
        self.placed.insert(pod.key.clone(), Arc::clone(&pod));
        match self.snapshot.nodes.get_mut(pod.node_name()) {
            Some(node) => node.add(pod),
            None => {
                self.homeless.insert(pod.key.clone(), pod);
            }
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(pod) = self.placed.remove(key) {
            self.homeless.remove(key);
            if let Some(node) = self.snapshot.nodes.get_mut(pod.node_name()) {
                node.remove(key);
            }
        }
    }

    /// Takes a namespace event in.
    pub fn namespace(&mut self, delta: Delta<Namespace>) {
        match delta {
            Delta::Put(n) => {
                self.snapshot.namespaces.insert(n.name_any(), n.metadata.labels.clone().unwrap_or_default());
            }
            Delta::Gone(name) => {
                self.snapshot.namespaces.remove(&name);
            }
        }
    }

    /// Takes a claim event in.
    pub fn claim(&mut self, delta: Delta<PersistentVolumeClaim>) {
        put(&mut self.snapshot.claims, delta);
    }

    /// Takes a volume event in.
    pub fn volume(&mut self, delta: Delta<PersistentVolume>) {
        put(&mut self.snapshot.volumes, delta);
    }

    /// Takes a storage class event in.
    pub fn class(&mut self, delta: Delta<StorageClass>) {
        put(&mut self.snapshot.classes, delta);
    }

    /// Takes a disruption budget event in.
    pub fn budget(&mut self, delta: Delta<PodDisruptionBudget>) {
        let (name, budget) = match delta {
            Delta::Put(budget) => (key(&budget), Some(Arc::new(budget))),
            Delta::Gone(name) => (name, None),
        };
        self.snapshot.budgets.retain(|b| key(&**b) != name);
        self.snapshot.budgets.extend(budget);
    }
}

fn put<K: kube::Resource>(map: &mut HashMap<String, Arc<K>>, delta: Delta<K>) {
    match delta {
        Delta::Put(object) => map.insert(key(&object), Arc::new(object)),
        Delta::Gone(key) => map.remove(&key),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str) -> Delta<Node> {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4", "pods": "10"}}});
        Delta::Put(serde_json::from_value(node).unwrap())
    }

    fn pod(name: &str, node: Option<&str>) -> Pod {
        let pod = json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"nodeName": node, "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        serde_json::from_value(pod).unwrap()
    }

    fn used(cache: &Cache) -> i64 {
        cache.snapshot.nodes["a"].requested.milli_cpu
    }

    #[test]
    fn an_assumed_pod_counts_once_when_it_is_seen_bound() {
        let mut cache = Cache::default();
        cache.node(node("a"));
        let PodChange::Wants(info) = cache.pod(Delta::Put(pod("p", None)), "s") else { panic!() };
        cache.assume(&info, "a");
        assert_eq!(used(&cache), 1000);
        assert!(matches!(cache.pod(Delta::Put(pod("p", None)), "s"), PodChange::Settled(_)));
        cache.pod(Delta::Put(pod("p", Some("a"))), "s");
        assert_eq!(used(&cache), 1000);
        cache.pod(Delta::Gone("d/p".to_owned()), "s");
        assert_eq!(used(&cache), 0);
    }

    #[test]
    fn a_forgotten_assumption_frees_its_room() {
        let mut cache = Cache::default();
        cache.node(node("a"));
        let PodChange::Wants(info) = cache.pod(Delta::Put(pod("p", None)), "s") else { panic!() };
        cache.assume(&info, "a");
        cache.forget("d/p");
        assert_eq!(used(&cache), 0);
    }

    #[test]
    fn pods_seen_before_their_node_count_once_it_appears() {
        let mut cache = Cache::default();
        cache.pod(Delta::Put(pod("p", Some("a"))), "s");
        cache.node(node("a"));
        assert_eq!(used(&cache), 1000);
        cache.node(node("a"));
        assert_eq!(used(&cache), 1000);
    }
}
