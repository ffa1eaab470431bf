//! The task of one remote APIService: checks it, says so in its status, and learns what it serves.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use apimachinery::ApiError;
use kinds::apiextensions::names;
use store::{Entry, Watch, WatchItem};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    check::{self, AVAILABLE, Verdict},
    learned::Learned,
    table::Backend,
};
use crate::{catalogue::Served, custom, server::Inner};

/// A network that broke tells nobody: the check is made again after this time.
const RECHECK: Duration = Duration::from_secs(30);
/// After a check that failed the next comes sooner: after this time, doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// What a server serves is asked again after this time.
const REFRESH: Duration = Duration::from_secs(60);

/// See the module.
pub struct Keeper {
    pub services: Arc<Served>,
    pub backend: Arc<Backend>,
    pub learned: Arc<Learned>,
    pub wake: Arc<Notify>,
}

impl Keeper {
    /// Runs until the server is dropped.
    pub async fn run(self, inner: Weak<Inner>) {
        let mut retry = FIRST_RETRY;
        let mut refresh = Instant::now();
        loop {
            // Opened before the check, so that nothing that happens meanwhile is missed.
            let Some(watches) = inner.upgrade().map(|inner| self.watches(&inner)) else { return };
            let next = {
                let Some(inner) = inner.upgrade() else { return };
                let verdict = check::check(&inner, &self.backend).await;
                let told = self.tell(&inner, &verdict).await;
                if verdict.available && Instant::now() >= refresh {
                    let discovered = self.learned.discover(&inner, &self.backend).await;
                    if self.learned.describe(&inner, &self.backend).await {
                        inner.documents.forget();
                    }
                    if discovered {
                        refresh = Instant::now() + REFRESH;
                    }
                }
                if verdict.available && told {
                    retry = FIRST_RETRY;
                    Instant::now()
                        + RECHECK.min(refresh.saturating_duration_since(Instant::now()).max(FIRST_RETRY))
                } else {
                    if !verdict.available {
                        self.learned.doubt();
                        refresh = Instant::now();
                    }
                    let next = Instant::now() + retry;
                    retry = (retry * 2).min(RECHECK);
                    next
                }
            };
            tokio::select! {
                () = changed(watches, &self.backend.service) => {}
                () = self.wake.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Of the Service, and of the slices beside it.
    fn watches(&self, inner: &Inner) -> Vec<(String, Option<Box<dyn Watch>>)> {
        let now = inner.config.store.revision();
        let Backend { namespace, service, .. } = &*self.backend;
        let open = |served: Option<Arc<Served>>, key: &dyn Fn(&Served) -> String| {
            let key = served.map(|served| key(&served)).unwrap_or_default();
            let watch = inner.config.store.watch(&key, now).ok().filter(|_| !key.is_empty());
            (key, watch)
        };
        vec![
            open(inner.preferred("", "services"), &|s| s.key(namespace, service)),
            open(inner.preferred("discovery.k8s.io", "endpointslices"), &|s| s.range(namespace)),
        ]
    }

    /// Writes the condition if it says something else. Whether it says it now.
    async fn tell(&self, inner: &Arc<Inner>, verdict: &Verdict) -> bool {
        self.learned.conclude(verdict);
        match write(inner, &self.services, &self.backend.name, Some(&self.backend), verdict).await {
            Ok(()) => true,
            // It is gone, and this task will be.
            Err(error) if error.code == 404 => true,
            Err(error) => {
                tracing::warn!(%error, name = self.backend.name, "the status of an APIService was not written");
                false
            }
        }
    }
}

/// Whether the slice is one of the service's.
fn is_of(service: &str, entry: &Entry) -> bool {
    let mut labels = entry.attributes.labels.iter();
    labels.any(|(key, value)| &**key == "kubernetes.io/service-name" && **value == *service)
}

/// Resolves when one of the watches has something that matters: the named object, or a slice of the service.
async fn changed(watches: Vec<(String, Option<Box<dyn Watch>>)>, service: &str) {
    let waits = watches.into_iter().map(|(key, watch)| {
        Box::pin(async move {
            let Some(mut watch) = watch else { return std::future::pending().await };
            loop {
                match watch.next().await {
                    Ok(WatchItem::Progress(_)) => {}
                    Ok(WatchItem::Events(events)) => {
                        let matters = |e: &store::Event| {
                            let mut states = std::iter::once(&e.entry).chain(&e.previous);
                            *e.entry.key == *key || states.any(|state| is_of(service, state))
                        };
                        if events.iter().any(matters) {
                            return;
                        }
                    }
                    // Too slow: look again.
                    Err(_) => return,
                }
            }
        })
    });
    futures::future::select_all(waits).await;
}

/// Sets the condition of the APIService `name`, if it still stands for `backend` (`None`: for this server).
pub(super) async fn write(
    inner: &Inner,
    services: &Arc<Served>,
    name: &str,
    backend: Option<&Backend>,
    verdict: &Verdict,
) -> Result<(), ApiError> {
    let now = (inner.config.now)();
    custom::write_status(inner, services, name, |old| {
        let same = match (Backend::of(old, None), backend) {
            (Ok(None), None) => true,
            (Ok(Some(there)), Some(backend)) => there.mark == backend.mark,
            _ => false,
        };
        if !same || verdict.is_in(old) {
            return None;
        }
        let mut new = old.clone();
        names::set_condition(&mut new, AVAILABLE, verdict.available, verdict.reason, &verdict.message, now);
        Some(new)
    })
    .await
}
