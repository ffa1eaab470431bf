//! The cluster's Services, for the variables that containers get.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::RwLock;
use tokio::sync::watch;

type Key = (String, String);

/// Services by namespace and name.
pub(crate) struct Services {
    all: RwLock<BTreeMap<Key, Service>>,
    listed: watch::Sender<bool>,
}

impl Services {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { all: RwLock::default(), listed: watch::Sender::new(false) })
    }

    /// Turns true once they were listed: no container may start before.
    pub(crate) fn listed(&self) -> watch::Receiver<bool> {
        self.listed.subscribe()
    }

    /// Those of a namespace, and the API server's own.
    pub(crate) fn of(&self, namespace: &str) -> Vec<Service> {
        let all = self.all.read();
        let own =
            all.range((namespace.to_owned(), String::new())..).take_while(|((ns, _), _)| ns == namespace);
        let mut list: Vec<Service> = own.map(|(_, s)| s.clone()).collect();
        if namespace != "default" {
            list.extend(all.get(&("default".to_owned(), "kubernetes".to_owned())).cloned());
        }
        list
    }

    /// Follows the API server.
    pub(crate) async fn run(self: Arc<Self>, client: Client) {
        let events = watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff();
        pin_mut!(events);
        let mut listing = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(service)) => {
                    listing.extend(entry(service));
                }
                Ok(Event::InitDone) => {
                    *self.all.write() = std::mem::take(&mut listing);
                    self.listed.send_if_modified(|listed| !std::mem::replace(listed, true));
                }
                Ok(Event::Apply(service)) => self.all.write().extend(entry(service)),
                Ok(Event::Delete(service)) => {
                    if let Some((key, _)) = entry(service) {
                        self.all.write().remove(&key);
                    }
                }
                Err(error) => tracing::debug!(%error, "the watch of services broke off"),
            }
        }
    }
}

fn entry(mut service: Service) -> Option<(Key, Service)> {
    // names, addresses and ports are all that is used
    (service.metadata.managed_fields, service.metadata.annotations, service.status) = (None, None, None);
    let key = (service.metadata.namespace.clone()?, service.metadata.name.clone()?);
    Some((key, service))
}
