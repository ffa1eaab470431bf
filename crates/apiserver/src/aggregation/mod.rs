//! Other API servers behind this one: an APIService says which Service serves a group and version.
//!
//! What this server itself serves has an APIService too, made and kept by [`local`]. One task follows the APIServices and
//! replaces the routing [`table`] as a whole; a request whose path another server answers is passed on by [`forward`]. A
//! task a remote APIService ([`keeper`]) checks whether the service answers, and learns what it serves for the documents
//! of discovery and OpenAPI. The task wakes when the APIService, its Service or its endpoints change, and at upstream's
//! recheck interval, because a dead network tells nobody.
//!
//! Reading order: `table` → `forward`, `identity` (a request's way out) → `local`, `keeper`, `check` (conditions) →
//! `learned`, `legacy`, `swagger` (documents) → `front_proxy`, `trust` (whom servers believe).
//!
//! Source: `k8s.io/kube-aggregator/pkg`.

mod check;
mod fetch;
mod forward;
mod front_proxy;
mod identity;
mod keeper;
mod learned;
mod legacy;
mod local;
mod priorities;
mod swagger;
mod table;
pub(crate) mod trust;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use apimachinery::{ApiError, Object, meta};
use arc_swap::ArcSwap;
use store::Revision;
use tokio::sync::Notify;

pub(crate) use forward::{document, forward};
pub(crate) use front_proxy::FrontProxy;
pub(crate) use swagger::merge as merge_swagger;
pub(crate) use table::{Remote, Table};

use crate::{catalogue::Served, server::Inner};

/// The group that APIServices are in. It is served by this server alone and comes first.
pub(crate) const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";

/// What all requests share of the aggregation.
#[derive(Default)]
pub(crate) struct Aggregation {
    /// Who serves what.
    pub table: ArcSwap<Table>,
    /// The local APIServices are there.
    pub registered: std::sync::atomic::AtomicBool,
}

/// Makes the local APIServices, begins to follow all of them. Resolves when the first is done; the rest ends with the
/// server.
pub(crate) async fn start(inner: &Arc<Inner>) -> Result<(), ApiError> {
    let registered = || inner.aggregation.registered.store(true, std::sync::atomic::Ordering::Release);
    let Some(services) = inner.preferred(GROUP, PLURAL) else {
        registered();
        return Ok(());
    };
    let definitions = inner.preferred("apiextensions.k8s.io", "customresourcedefinitions");
    let mut follower = Follower { services, definitions, keepers: HashMap::new() };
    local::at_start(inner, &follower).await?;
    let since = follower.settle(inner).await?;
    registered();
    tokio::spawn(follower.run(Arc::downgrade(inner), since));
    Ok(())
}

/// Follows APIServices, and CustomResourceDefinitions, whose groups get one.
struct Follower {
    services: Arc<Served>,
    definitions: Option<Arc<Served>>,
    /// The remote ones, by name.
    keepers: HashMap<String, Kept>,
}

/// A remote APIService that is looked after.
struct Kept {
    backend: Arc<table::Backend>,
    learned: Arc<learned::Learned>,
    wake: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    async fn run(mut self, inner: Weak<Inner>, mut since: Revision) {
        loop {
            if let Err(error) = self.follow(&inner, since).await {
                tracing::warn!(%error, "APIServices could not be brought up to date");
            }
            let Some(inner) = inner.upgrade() else { return };
            // History that is gone does not matter: the present is read again.
            since = match self.settle(&inner).await {
                Ok(at) => at,
                Err(error) => {
                    tracing::warn!(%error, "APIServices could not be brought up to date");
                    inner.config.store.revision()
                }
            };
        }
    }

    /// Settles after each change, until a watch ends.
    async fn follow(&mut self, inner: &Weak<Inner>, since: Revision) -> Result<(), ApiError> {
        let open = |prefix: &str| match inner.upgrade() {
            None => Err(ApiError::internal("the server is gone")),
            Some(inner) => inner.config.store.watch(prefix, since).map_err(ApiError::internal),
        };
        let mut services = open(&self.services.prefix)?;
        let mut definitions = match &self.definitions {
            Some(served) => Some(open(&served.prefix)?),
            None => None,
        };
        loop {
            let changed = match &mut definitions {
                None => services.changed().await,
                Some(definitions) => tokio::select! {
                    changed = services.changed() => changed,
                    changed = definitions.changed() => changed,
                },
            };
            changed.map_err(ApiError::internal)?;
            let Some(inner) = inner.upgrade() else { return Ok(()) };
            self.settle(&inner).await?;
        }
    }

    /// All objects of a collection, and when they were so.
    fn list(inner: &Inner, served: &Served) -> Result<(Vec<Object>, Revision), ApiError> {
        let page = inner.config.store.list(&served.prefix, None, 0, None).map_err(ApiError::internal)?;
        let objects: Result<Vec<Object>, ApiError> = page.entries.iter().map(|e| served.object(e)).collect();
        Ok((objects?, page.revision))
    }

    /// Brings local APIServices, keepers and the table to what the objects say. Returns the revision that was looked at.
    async fn settle(&mut self, inner: &Arc<Inner>) -> Result<Revision, ApiError> {
        let (objects, at) = Self::list(inner, &self.services)?;
        let definitions = match &self.definitions {
            Some(served) => Self::list(inner, served)?.0,
            None => Vec::new(),
        };
        self.route(inner, &objects);
        local::follow(inner, &self.services, &objects, &definitions).await;
        Ok(at)
    }

    /// Replaces the table and the keepers.
    fn route(&mut self, inner: &Arc<Inner>, objects: &[Object]) {
        let mut table = Table::default();
        let mut kept = HashMap::new();
        for object in objects {
            table.note(object);
            let backend = match table::Backend::of(object, inner.config.front_proxy.clone()) {
                Ok(Some(backend)) => Arc::new(backend),
                Ok(None) => continue,
                Err(why) => {
                    tracing::warn!(why, name = meta::name(object), "an APIService cannot be used");
                    continue;
                }
            };
            let keeper = match self.keepers.remove(&backend.name) {
                Some(old) if old.backend.mark == backend.mark => old,
                old => self.keep(inner, backend, old.as_ref()),
            };
            if !keeper.learned.said(object) {
                keeper.wake.notify_one();
            }
            table.remote(Remote {
                backend: keeper.backend.clone(),
                learned: keeper.learned.clone(),
                available: kinds::apiextensions::names::is_true(object, check::AVAILABLE),
            });
            kept.insert(keeper.backend.name.clone(), keeper);
        }
        let gone = self.keepers.keys().any(|name| !kept.contains_key(name));
        self.keepers = kept;
        inner.aggregation.table.store(Arc::new(table));
        if gone {
            inner.documents.forget();
        }
    }

    fn keep(&self, inner: &Arc<Inner>, backend: Arc<table::Backend>, old: Option<&Kept>) -> Kept {
        // Another certificate or port of the same service serves the same: its documents stay until they are read anew.
        let same = old.filter(|old| {
            (&old.backend.namespace, &old.backend.service) == (&backend.namespace, &backend.service)
        });
        let learned = same.map_or_else(Arc::default, |old| old.learned.clone());
        let wake = Arc::new(Notify::new());
        let keeper = keeper::Keeper {
            services: self.services.clone(),
            backend: backend.clone(),
            learned: learned.clone(),
            wake: wake.clone(),
        };
        let task = tokio::spawn(keeper.run(Arc::downgrade(inner)));
        Kept { backend, learned, wake, task }
    }
}
