//! ConfigMaps and Secrets that pods use: each watched alone, while somebody holds it.
//!
//! A node may not list all of them; it may watch those that its pods name.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{StreamExt, pin_mut};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::bundles::TrustBundles;
use crate::{environment, spec, volumes};

/// How long a first answer is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of an object: nothing yet, that it does not exist, or what it is.
type Known<K> = Option<Option<Arc<K>>>;
type Key = (String, String);

/// An object that can be watched so.
pub(crate) trait Watched:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + DeserializeOwned
    + Debug
    + Send
    + Sync
    + 'static
{
}
impl<K> Watched for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static
{
}

struct Entry<K> {
    value: watch::Receiver<Known<K>>,
    holders: usize,
    task: tokio::task::AbortHandle,
}

/// Objects of one kind.
pub(crate) struct Cache<K> {
    client: Client,
    entries: Mutex<HashMap<Key, Entry<K>>>,
}

impl<K: Watched> Cache<K> {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, entries: Mutex::default() })
    }

    /// Holds an object: it is watched from now on until the last holder lets go.
    pub(crate) fn hold(self: &Arc<Self>, namespace: &str, name: &str) -> Held<K> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| {
            let (sender, value) = watch::channel(None);
            let api = Api::<K>::namespaced(self.client.clone(), namespace);
            let task = tokio::spawn(follow(api, name.to_owned(), sender)).abort_handle();
            Entry { value, holders: 0, task }
        });
        entry.holders += 1;
        Held { value: entry.value.clone(), cache: Arc::downgrade(self), key }
    }
}

async fn follow<K: Watched>(api: Api<K>, name: String, known: watch::Sender<Known<K>>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(api, config).default_backoff();
    pin_mut!(events);
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(object)) => listed = Some(Arc::new(object)),
            Ok(Event::InitDone) => drop(known.send_replace(Some(listed.take()))),
            Ok(Event::Apply(object)) => drop(known.send_replace(Some(Some(Arc::new(object))))),
            Ok(Event::Delete(_)) => drop(known.send_replace(Some(None))),
            Err(error) => tracing::debug!(name, %error, "the watch of an object broke off"),
        }
    }
}

/// A held object.
pub(crate) struct Held<K> {
    value: watch::Receiver<Known<K>>,
    cache: Weak<Cache<K>>,
    key: Key,
}

impl<K: Watched> Held<K> {
    /// The object, `None` if it does not exist. Waits for the first answer of the API server.
    async fn get(&self) -> Result<Option<Arc<K>>, String> {
        let mut value = self.value.clone();
        let known = tokio::time::timeout(PATIENCE, value.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(known)) => Ok(known.clone().flatten()),
            Ok(Err(_)) | Err(_) => {
                let kind = K::kind(&()).to_lowercase();
                Err(format!("failed to sync {kind} cache: timed out waiting for the condition"))
            }
        }
    }
}

impl<K> Drop for Held<K> {
    fn drop(&mut self) {
        let Some(cache) = self.cache.upgrade() else { return };
        let mut entries = cache.entries.lock();
        if let Some(entry) = entries.get_mut(&self.key) {
            entry.holders -= 1;
            if entry.holders == 0 {
                entry.task.abort();
                entries.remove(&self.key);
            }
        }
    }
}

/// The objects that one pod uses.
#[derive(Default)]
pub(crate) struct Inputs {
    maps: BTreeMap<String, Held<ConfigMap>>,
    secrets: BTreeMap<String, Held<Secret>>,
    followers: tokio::task::JoinSet<()>,
}

/// Objects by name, `None` for those that do not exist.
pub(crate) type Found<K> = BTreeMap<String, Option<K>>;

impl Inputs {
    /// Holds everything that volumes, environment and pulls of the pod name; `changed` is called at every change.
    pub(crate) fn of(
        pod: &Pod,
        maps: &Arc<Cache<ConfigMap>>,
        secrets: &Arc<Cache<Secret>>,
        bundles: &TrustBundles,
        changed: impl Fn() + Clone + Send + 'static,
    ) -> Self {
        let namespace = spec::identity(pod).0;
        let (map_names, secret_names) = names(pod);
        let mut inputs = Self::default();
        for name in map_names {
            let held = maps.hold(namespace, &name);
            inputs.followers.spawn(tell(held.value.clone(), changed.clone()));
            inputs.maps.insert(name, held);
        }
        for name in secret_names {
            let held = secrets.hold(namespace, &name);
            inputs.followers.spawn(tell(held.value.clone(), changed.clone()));
            inputs.secrets.insert(name, held);
        }
        if volumes::needs(pod).trust {
            inputs.followers.spawn(tell(bundles.follow(), changed));
        }
        inputs
    }

    /// ConfigMaps of these names.
    pub(crate) async fn maps(&self, names: &[String]) -> Result<Found<ConfigMap>, String> {
        found(&self.maps, names).await
    }

    /// Secrets of these names.
    pub(crate) async fn secrets(&self, names: &[String]) -> Result<Found<Secret>, String> {
        found(&self.secrets, names).await
    }
}

async fn found<K: Watched>(held: &BTreeMap<String, Held<K>>, names: &[String]) -> Result<Found<K>, String> {
    let mut found = Found::new();
    for name in names {
        if let Some(held) = held.get(name) {
            found.insert(name.clone(), held.get().await?.map(|k| (*k).clone()));
        }
    }
    Ok(found)
}

async fn tell<T: Send + Sync>(mut value: watch::Receiver<Option<T>>, changed: impl Fn()) {
    // the first answer is waited for by those who need it
    if value.wait_for(Option::is_some).await.is_err() {
        return;
    }
    while value.changed().await.is_ok() {
        changed();
    }
}

/// Names of the ConfigMaps and Secrets that a pod uses.
pub(crate) fn names(pod: &Pod) -> (std::collections::BTreeSet<String>, std::collections::BTreeSet<String>) {
    let spec = spec::spec(pod);
    let needs = volumes::needs(pod);
    let mut maps: std::collections::BTreeSet<String> = needs.config_maps.into_iter().collect();
    let mut secrets: std::collections::BTreeSet<String> = needs.secrets.into_iter().collect();
    for part in spec::parts(&spec) {
        let (m, s) = environment::references(&part.container);
        maps.extend(m);
        secrets.extend(s);
    }
    secrets.extend(spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()));
    maps.remove("");
    secrets.remove("");
    (maps, secrets)
}
