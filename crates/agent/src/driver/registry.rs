//! What the driver shows of its pods: [`view::Pods`] over what each pod's worker last decided.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use crate::{
    config::Config,
    machine::{Instance, Observed, observed::SandboxState},
    spec,
    view::{ContainerView, Pods},
};

/// A pod as it is shown.
pub(crate) struct Shown {
    pod: Arc<Pod>,
    containers: BTreeMap<String, ContainerView>,
    sandbox: Option<String>,
}

impl Shown {
    pub(crate) fn new(config: &Config, pod: Arc<Pod>, seen: &Observed) -> Self {
        let (namespace, name, uid) = spec::identity(&pod);
        let logs = config.log_dir(namespace, name, uid);
        let containers = seen
            .containers
            .iter()
            .map(|(name, state)| {
                let log = |i: &Instance| logs.join(name).join(format!("{}.log", i.attempt));
                // a container waiting for its next start shows its last instance
                let (current, previous) = match (&state.current, &state.previous) {
                    (None, Some(last)) => (Some(last), None),
                    (current, previous) => (current.as_ref(), previous.as_ref()),
                };
                let view = ContainerView {
                    id: current.map(|i| i.id.clone()),
                    running: state.running(),
                    log: current.map(log),
                    previous_log: previous.map(log),
                    waiting: waiting(&pod, name),
                };
                (name.clone(), view)
            })
            .collect();
        let ready = seen.sandbox.state == SandboxState::Ready;
        Self { containers, sandbox: ready.then(|| seen.sandbox.id.clone()), pod }
    }
}

fn waiting(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let status = lists.into_iter().flatten().flatten().find(|s| s.name == container)?;
    status.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

/// The node's pods by UID.
#[derive(Default)]
pub(crate) struct Registry {
    pods: RwLock<HashMap<String, Shown>>,
}

impl Registry {
    pub(crate) fn show(&self, uid: &str, shown: Shown) {
        self.pods.write().insert(uid.to_owned(), shown);
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.pods.write().remove(uid);
    }

    fn find<T>(&self, namespace: &str, name: &str, pick: impl Fn(&Shown) -> Option<T>) -> Option<T> {
        let pods = self.pods.read();
        let mut named: Vec<&Shown> = pods
            .values()
            .filter(|s| {
                let (ns, n, _) = spec::identity(&s.pod);
                ns == namespace && n == name
            })
            .collect();
        // a pod of the same name may still be on its way out
        named.sort_by_key(|s| s.pod.metadata.creation_timestamp.as_ref().map(|t| t.0));
        named.last().and_then(|s| pick(s))
    }
}

impl Pods for Registry {
    fn list(&self) -> Vec<Arc<Pod>> {
        self.pods.read().values().map(|s| Arc::clone(&s.pod)).collect()
    }

    fn get(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>> {
        match uid {
            Some(uid) => {
                let pods = self.pods.read();
                let (ns, n, _) = spec::identity(&pods.get(uid)?.pod);
                (ns == namespace && n == name).then(|| Arc::clone(&pods[uid].pod))
            }
            None => self.find(namespace, name, |s| Some(Arc::clone(&s.pod))),
        }
    }

    fn container(&self, namespace: &str, pod: &str, container: &str) -> Option<ContainerView> {
        self.find(namespace, pod, |s| s.containers.get(container).cloned())
    }

    fn sandbox(&self, namespace: &str, pod: &str) -> Option<String> {
        self.find(namespace, pod, |s| s.sandbox.clone())
    }
}
