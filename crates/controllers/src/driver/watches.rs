//! Watches that tell the driver what changes, one a kind, for all loops together.

use std::{
    collections::HashSet,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{
    Core,
    slim::{bare, seen},
};
use crate::world::{Bare, Key, Kind, Seen};

/// Changes of one kind that wait to be taken in.
const WAITING: usize = 256;

/// What a watch tells.
pub enum Told {
    /// An object as it is now.
    Is(Kind, Arc<dyn Seen>),
    /// An object's last state.
    Gone(Kind, Arc<dyn Seen>),
    /// A list has ended.
    Listed {
        /// Of which kind.
        kind: Kind,
        /// What was in it.
        present: HashSet<Key>,
        /// Everything written up to here is in it.
        revision: u64,
    },
}

/// How the watches are started, and what they have in common.
#[derive(Clone)]
pub struct Watches {
    client: Client,
    tell: mpsc::Sender<Told>,
    /// The newest resourceVersion that the driver has written.
    written: Arc<AtomicU64>,
}

/// The function that watches one kind for ever.
pub type Watch = fn(&Watches, Kind) -> BoxFuture<'static, ()>;

impl Watches {
    /// None yet, and where they tell.
    #[must_use]
    pub fn new(client: Client) -> (Self, mpsc::Receiver<Told>) {
        let (tell, told) = mpsc::channel(WAITING);
        (Self { client, tell, written: Arc::default() }, told)
    }

    /// Something was written at this resourceVersion: lists that begin from now on contain it.
    pub fn wrote(&self, revision: u64) {
        self.written.fetch_max(revision, Ordering::Relaxed);
    }

    /// Watches the objects of a type.
    pub fn typed<K>(&self, kind: Kind) -> BoxFuture<'static, ()>
    where
        K: Resource<DynamicType = ()> + Seen + Clone + DeserializeOwned + Debug,
    {
        let watches = self.clone();
        Box::pin(async move {
            let api = Api::<K>::all(watches.client.clone());
            watches.follow(api, kind, seen::<K>).await;
        })
    }

    /// Watches the metadata of the objects of any kind.
    pub fn bare(&self, kind: Kind) -> BoxFuture<'static, ()> {
        let watches = self.clone();
        Box::pin(async move {
            let resource = ApiResource {
                group: kind.group.clone().into_owned(),
                version: kind.version.clone().into_owned(),
                api_version: kind.api_version().into_owned(),
                kind: kind.kind.clone().into_owned(),
                plural: kind.plural.clone().into_owned(),
            };
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(watches.client.clone(), &resource);
            let wrap = |mut object: PartialObjectMeta<DynamicObject>| -> Arc<dyn Seen> {
                bare(&mut object);
                Arc::new(Bare { meta: object.metadata })
            };
            watches.follow(api, kind, wrap).await;
        })
    }

    async fn follow<K>(&self, api: Api<K>, kind: Kind, wrap: fn(K) -> Arc<dyn Seen>)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Clone,
    {
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut present = HashSet::new();
        let mut floor = 0;
        while let Some(event) = events.next().await {
            let told = match event {
                Ok(watcher::Event::Init) => {
                    present.clear();
                    floor = self.written.load(Ordering::Relaxed);
                    continue;
                }
                Ok(watcher::Event::InitApply(object)) => {
                    present.insert(Key::of(object.meta()));
                    Told::Is(kind.clone(), wrap(object))
                }
                Ok(watcher::Event::InitDone) => Told::Listed {
                    kind: kind.clone(),
                    present: std::mem::take(&mut present),
                    revision: floor,
                },
                Ok(watcher::Event::Apply(object)) => Told::Is(kind.clone(), wrap(object)),
                Ok(watcher::Event::Delete(object)) => Told::Gone(kind.clone(), wrap(object)),
                Err(error) => {
                    tracing::debug!(%error, kind = %kind.kind, "a watch of the control loops broke off");
                    continue;
                }
            };
            if self.tell.send(told).await.is_err() {
                return;
            }
        }
    }
}

impl Told {
    /// Takes it into a core.
    pub fn take_into(self, core: &mut Core, now: Timestamp) {
        match self {
            Self::Is(kind, object) => core.apply(&kind, object, false, now),
            Self::Gone(kind, object) => core.apply(&kind, object, true, now),
            Self::Listed { kind, present, revision } => {
                core.listed(&kind, |meta| present.contains(&Key::of(meta)), revision, now);
            }
        }
    }
}
