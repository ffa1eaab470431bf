//! The generic verbs: one implementation for built-in kinds and custom resources.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::{Arc, atomic::Ordering};

use apimachinery::{ApiError, Object, names};
use bytes::Bytes;
use store::{CommitError, Entry, Key, Op, ReadError, Revision};

use crate::{
    Response,
    catalogue::Served,
    fields,
    negotiate::Offer,
    options, respond,
    server::{Call, Inner},
};

/// GET of one object.
pub(crate) async fn get(inner: &Inner, call: &Call, served: &Served) -> Result<Response, ApiError> {
    let media = call.media(Offer::Object)?;
    let asked = call.query.text("resourceVersion");
    // Upstream's storage finds the bad number; nothing between says that the client is to blame.
    let asked = options::revision(asked)
        .map_err(|error| ApiError::other(500, "", format!("resourceVersion: {}", error.message)))?;
    if let Some(revision) = asked {
        reached(inner, revision).await?;
    }
    let entry = existing(inner, served, &call.info.namespace, &call.info.name)?;
    let entry = inner.view_one(served, entry).await?;
    respond::entry(200, media, served, &entry, &call.query)
}

/// The stored object, or 404. It may lie there in another version: see [`Inner::view_one`].
pub(crate) fn existing(
    inner: &Inner,
    served: &Served,
    namespace: &str,
    name: &str,
) -> Result<Arc<Entry>, ApiError> {
    inner.config.store.get(&served.key(namespace, name)).ok_or_else(|| {
        match names::path_segment_name(name, false) {
            wrong if wrong.is_empty() => served.not_found(name),
            wrong => ApiError::bad_request(format!("Name parameter invalid: {name:?}: {}", wrong.join(";"))),
        }
    })
}

/// How long a read waits for a revision that has not happened yet.
const FRESH: std::time::Duration = std::time::Duration::from_secs(3);

/// Waits for a revision that another server may have told the client.
pub(crate) async fn reached(inner: &Inner, revision: Revision) -> Result<(), ApiError> {
    let store = &inner.config.store;
    if store.revision() >= revision || tokio::time::timeout(FRESH, store.reached(revision)).await.is_ok() {
        return Ok(());
    }
    Err(too_large(revision, store.revision()))
}

fn too_large(asked: Revision, current: Revision) -> ApiError {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    let mut error = ApiError::other(504, "Timeout", message);
    error.details = Some(serde_json::json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
    }));
    error.retry_after(1)
}

/// The error of a list or watch whose history is gone.
pub(crate) fn read_error(error: ReadError) -> ApiError {
    match error {
        ReadError::Compacted { asked, oldest } => {
            ApiError::other(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
        }
        ReadError::Future { asked, current } => too_large(asked, current),
    }
}

/// A commit that failed for a reason other than its expectation.
pub(crate) fn commit_error(error: &CommitError) -> ApiError {
    match error {
        CommitError::TooLarge { .. } => ApiError::other(500, "", "etcdserver: request is too large"),
        other => ApiError::internal(other),
    }
}

/// What became of a commit.
pub(crate) enum Committed {
    /// It is durable at this revision.
    At(Revision),
    /// An expectation did not hold: that of `key`, where `now` lies.
    Conflict { key: Key, now: Option<Arc<Entry>> },
}

/// Commits the object, encoded as `value`, by `op` and whatever goes with it. If it is too large for the store, once more
/// without `managedFields`, which can be large and are only notes. Gives back the value that was tried last.
pub(crate) async fn commit_object(
    inner: &Inner,
    served: &Served,
    object: &mut Object,
    value: Bytes,
    with: Vec<Op>,
    op: impl Fn(Bytes) -> Op,
) -> Result<(Committed, Bytes), ApiError> {
    let ops = |value: &Bytes| std::iter::once(op(value.clone())).chain(with.iter().cloned()).collect();
    match inner.config.store.commit(ops(&value)).await {
        Err(CommitError::TooLarge { .. }) if fields::shed(object) => {
            let value = inner.to_store(served, object).await?;
            Ok((commit(inner, ops(&value)).await?, value))
        }
        outcome => Ok((committed(inner, outcome)?, value)),
    }
}

fn committed(inner: &Inner, outcome: Result<Revision, CommitError>) -> Result<Committed, ApiError> {
    match &outcome {
        Ok(Revision(at)) => {
            // A commit from before the failure may be heard of late.
            let since = inner.store_failed.load(Ordering::Relaxed);
            if since != 0 && *at >= since {
                inner.store_failed.store(0, Ordering::Relaxed);
            }
        }
        Err(CommitError::Io(_) | CommitError::Closed) => {
            inner.store_failed.store(inner.config.store.revision().0 + 1, Ordering::Relaxed);
        }
        // These say nothing of the store.
        Err(_) => {}
    }
    match outcome {
        Ok(revision) => Ok(Committed::At(revision)),
        Err(CommitError::Conflict { key, now }) => Ok(Committed::Conflict { key, now }),
        Err(error) => Err(commit_error(&error)),
    }
}

/// Commits, telling a lost race from an error.
pub(crate) async fn commit(inner: &Inner, ops: Vec<Op>) -> Result<Committed, ApiError> {
    committed(inner, inner.config.store.commit(ops).await)
}
