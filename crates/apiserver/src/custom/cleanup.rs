//! The end of a definition: its objects go first, then its finalizer, then it.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/finalizer`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use apimachinery::{ApiError, Object, meta};
use kinds::apiextensions::{CLEANUP, names};
use tokio::task::JoinHandle;

use crate::{
    catalogue::{Served, prefix},
    server::Inner,
    verbs::delete,
};

/// The cleanups that go on, by the uid of their definition.
#[derive(Default)]
pub(super) struct Running(HashMap<String, JoinHandle<()>>);

impl Running {
    /// Begins a cleanup for every definition that is going and has none.
    pub fn follow(&mut self, inner: &Arc<Inner>, definitions: &Arc<Served>, all: &BTreeMap<String, Object>) {
        self.0.retain(|_, task| !task.is_finished());
        for definition in all.values() {
            let held = meta::finalizers(definition).any(|f| f == CLEANUP);
            if !held
                || meta::deletion_timestamp(definition).is_none()
                || self.0.contains_key(meta::uid(definition))
            {
                continue;
            }
            let work = run(Arc::downgrade(inner), definitions.clone(), definition.clone());
            self.0.insert(meta::uid(definition).to_owned(), tokio::spawn(work));
        }
    }
}

async fn run(inner: Weak<Inner>, definitions: Arc<Served>, definition: Object) {
    let name = meta::name(&definition).to_owned();
    if let Err(error) = clean(&inner, &definitions, &definition).await
        && error.code != 404
    {
        tracing::warn!(%error, name, "the objects of a definition could not be deleted");
        let Some(inner) = inner.upgrade() else { return };
        let message = format!("could not issue all deletes: {error}");
        let _ = say(&inner, &definitions, &definition, true, "InstanceDeletionFailed", &message, false).await;
    }
}

async fn clean(inner: &Weak<Inner>, definitions: &Arc<Served>, definition: &Object) -> Result<(), ApiError> {
    let text = |path: &str| definition.pointer(path).and_then(|v| v.as_str()).unwrap_or_default();
    let (group, plural) = (text("/spec/group"), text("/status/acceptedNames/plural"));
    let (reason, message) = {
        let Some(inner) = inner.upgrade() else { return Ok(()) };
        let words = "CustomResource deletion is in progress";
        say(&inner, definitions, definition, true, "InstanceDeletionInProgress", words, false).await?;
        if names::is_true(definition, "Established") && !plural.is_empty() {
            ("InstanceDeletionCompleted", "removed all instances")
        } else {
            ("NeverEstablished", "resource was never established")
        }
    };
    if reason == "InstanceDeletionCompleted" {
        empty(inner, &prefix(group, plural)).await?;
    }
    let Some(inner) = inner.upgrade() else { return Ok(()) };
    say(&inner, definitions, definition, false, reason, message, true).await
}

/// Deletes all that lies below a prefix, and waits for what has finalizers.
async fn empty(inner: &Weak<Inner>, prefix: &str) -> Result<(), ApiError> {
    loop {
        let mut watch = {
            let Some(inner) = inner.upgrade() else { return Ok(()) };
            let page = inner.config.store.list(prefix, None, 0, None).map_err(ApiError::internal)?;
            if page.entries.is_empty() {
                return Ok(());
            }
            let Some(served) = inner.catalogue.load().by_prefix.get(prefix).cloned() else {
                return Err(ApiError::internal("the resource is not served any more"));
            };
            let mut left = false;
            for entry in &page.entries {
                left |= delete::purge(&inner, &served, entry).await?;
            }
            if !left {
                continue;
            }
            inner.config.store.watch(prefix, page.revision).map_err(ApiError::internal)?
        };
        // Something changes below the prefix before it can be empty.
        if watch.next().await.is_err() {
            continue;
        }
    }
}

/// Says in the definition how far it is; `done` takes the finalizer away.
async fn say(
    inner: &Inner,
    definitions: &Arc<Served>,
    definition: &Object,
    status: bool,
    reason: &str,
    message: &str,
    done: bool,
) -> Result<(), ApiError> {
    let (uid, now) = (meta::uid(definition), (inner.config.now)());
    super::write_status(inner, definitions, meta::name(definition), |old| {
        if meta::uid(old) != uid {
            return None;
        }
        let mut new = old.clone();
        names::set_condition(&mut new, "Terminating", status, reason, message, now);
        if done && let Some(list) = new["metadata"]["finalizers"].as_array_mut() {
            list.retain(|f| f != CLEANUP);
        }
        Some(new)
    })
    .await
}
