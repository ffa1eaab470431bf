//! ClusterTrustBundles: all of them are watched from the first pod on that projects one, until the node ends.

use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::objects::PATIENCE;
use crate::volumes::trust::Bundles;

/// What is known: nothing yet, or all of them.
type Known = Option<Arc<Bundles>>;

/// See the module.
pub(crate) struct TrustBundles {
    client: Client,
    running: Mutex<Option<(watch::Receiver<Known>, tokio::task::AbortHandle)>>,
}

impl TrustBundles {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, running: Mutex::default() }
    }

    /// Begins to watch, if nobody has.
    pub(crate) fn follow(&self) -> watch::Receiver<Known> {
        let mut running = self.running.lock();
        let (known, _) = running.get_or_insert_with(|| {
            let (sender, known) = watch::channel(None);
            let api = Api::<ClusterTrustBundle>::all(self.client.clone());
            (known, tokio::spawn(follow(api, sender)).abort_handle())
        });
        known.clone()
    }

    /// All of them. Waits for the first answer of the API server.
    pub(crate) async fn all(&self) -> Result<Arc<Bundles>, String> {
        let mut known = self.follow();
        match tokio::time::timeout(PATIENCE, known.wait_for(Option::is_some)).await {
            Ok(Ok(known)) => Ok(known.clone().unwrap_or_default()),
            Ok(Err(_)) | Err(_) => {
                Err("failed to sync clustertrustbundle cache: timed out waiting for the condition".to_owned())
            }
        }
    }
}

impl Drop for TrustBundles {
    fn drop(&mut self) {
        if let Some((_, task)) = self.running.get_mut() {
            task.abort();
        }
    }
}

async fn follow(api: Api<ClusterTrustBundle>, known: watch::Sender<Known>) {
    let events = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut bundles = Bundles::new();
    let mut complete = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                bundles.clear();
                complete = false;
            }
            Ok(Event::InitDone) => complete = true,
            Ok(Event::InitApply(bundle) | Event::Apply(bundle)) => {
                bundles.insert(bundle.name_any(), bundle);
            }
            Ok(Event::Delete(bundle)) => {
                bundles.remove(&bundle.name_any());
            }
            Err(error) => tracing::debug!(%error, "the watch of trust bundles broke off"),
        }
        if complete {
            known.send_replace(Some(Arc::new(bundles.clone())));
        }
    }
}
