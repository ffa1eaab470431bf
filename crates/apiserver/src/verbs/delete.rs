//! DELETE of one object or a collection: preconditions, grace, finalizers, propagation.
//!
//! Source: `k8s.io/apiserver/pkg/registry/rest/delete.go`, `…/generic/registry/store.go`.

use std::sync::Arc;

use apimachinery::{ApiError, Object, meta, time};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use kinds::{DeletedObject, Resource};
use serde_json::{Value, json};
use store::{Entry, Expect, Op, Revision};

use super::{Committed, commit, create::metadata_mut, list};
use crate::{
    Response, admit, body_kind,
    catalogue::Served,
    encoding, negotiate,
    negotiate::Offer,
    options::{Delete, List, Propagation},
    respond,
    server::{Call, Inner},
    special,
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What became of the object.
enum Outcome {
    /// It stays for now: finalizers or grace. Its bytes are still without kind.
    Stays(Bytes),
    /// It is gone; its last state.
    Gone(Bytes),
}

fn options(call: &Call, body: &Bytes) -> Result<Delete, ApiError> {
    if body.is_empty() {
        return Delete::parse(None, &call.query);
    }
    let encoding = negotiate::body(&call.headers)?;
    let value = body_kind::delete_options(body, encoding)?;
    call.note_sent(&value);
    Delete::parse(Some(&value), &call.query)
}

/// Jobs leave their pods behind unless they are told otherwise, which few expect.
fn warn_of_orphans(call: &mut Call, resource: &Resource, options: &Delete) {
    let silent = options.propagation.is_none() && !options.not_orphan;
    if silent && resource.behaviour.orphans_by_default && &*resource.kind == "Job" {
        let words = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
                     them or set propagationPolicy=Orphan to suppress this warning";
        call.warnings.push(words.to_owned());
    }
}

/// DELETE of one object.
pub(crate) async fn delete(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Object)?;
    let options = options(call, body)?;
    warn_of_orphans(call, &served.resource, &options);
    let (namespace, name) = (call.info.namespace.clone(), call.info.name.clone());
    let resource = &served.resource;
    match remove(inner, call, served, &namespace, &name, &options).await? {
        Outcome::Stays(wire) => {
            let code = if options.not_orphan { 202 } else { 200 };
            respond::object(code, media, served, &wire, &call.query)
        }
        Outcome::Gone(wire) if resource.behaviour.deleted == DeletedObject::Object => {
            respond::object(200, media, served, &wire, &call.query)
        }
        Outcome::Gone(wire) => {
            let object = encoding::decode(&wire, "", "")?;
            let status = respond::success(&resource.group, &resource.plural, &name, meta::uid(&object));
            call.note_status(&status);
            Ok(respond::document(
                200,
                negotiate::Media { transform: negotiate::Transform::None, ..media },
                &status,
            ))
        }
    }
}

/// DELETE of a collection.
pub(crate) async fn delete_collection(
    inner: &Inner,
    call: &mut Call,
    served: &Arc<Served>,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::List)?;
    let options = options(call, body)?;
    warn_of_orphans(call, &served.resource, &options);
    let namespace = call.info.namespace.clone();
    let found = list::find(inner, served, &namespace, List::parse(&call.query, false)?).await?;
    for entry in &found.entries {
        let (namespace, name) = served.split_key(&entry.key);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        match remove(inner, call, served, &namespace, &name, &options).await {
            Err(error) if error.code != 404 => return Err(error),
            _ => {}
        }
    }
    list::answer(inner, call, served, media, found)
}

async fn remove(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    namespace: &str,
    name: &str,
    options: &Delete,
) -> Result<Outcome, ApiError> {
    let mut admitted = false;
    loop {
        let entry = super::existing(inner, served, namespace, name)?;
        let old = served.object(&*inner.view_one(served, entry.clone()).await?)?;
        preconditions(&served.resource, name, &old, options)?;
        if !std::mem::replace(&mut admitted, true) {
            let mut write = admit::Write::new(call, served, "DELETE", admit::Options::Delete(options));
            namespace.clone_into(&mut write.attributes.namespace);
            if call.info.verb == "delete" {
                name.clone_into(&mut write.attributes.name);
            }
            let mut nothing = Value::Null;
            write.mutate(inner, call, &mut nothing, Some(&old)).await?;
            write.validate(inner, call, &mut nothing, Some(&old)).await?;
            write.charge(inner, call, &mut nothing, Some(&old)).await?;
        }
        if let Some(outcome) = attempt(inner, call.now, served, &entry, old, options).await? {
            return Ok(outcome);
        }
    }
}

fn preconditions(resource: &Resource, name: &str, old: &Object, options: &Delete) -> Result<(), ApiError> {
    let own = match &*resource.plural {
        "namespaces" if resource.group.is_empty() => Some("Precondition"),
        _ if special::is_definition(resource) => Some("precondition"),
        _ => None,
    };
    let differs = |what: &str, wanted: &str, found: &str| {
        let why =
            format!("{} failed: {what} in precondition: {wanted}, {what} in object meta: {found}", own?);
        Some(ApiError::conflict(&resource.group, &resource.plural, name, &why))
    };
    let refuse = |what: &str, wanted: &str, found: &str| {
        if let Some(error) = differs(what, wanted, found) {
            return error;
        }
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might \
             have been deleted and then recreated"
        );
        ApiError::conflict(&resource.group, &resource.kind, name, &why)
    };
    if let Some(uid) = options.uid.as_deref().filter(|u| *u != meta::uid(old)) {
        return Err(refuse("UID", uid, meta::uid(old)));
    }
    let current = meta::resource_version(old);
    if let Some(revision) = options.resource_version.as_deref().filter(|r| *r != current) {
        if let Some(error) = differs("ResourceVersion", revision, current) {
            return Err(error);
        }
        let why = format!(
            "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record \
             ({current}). The object might have been modified"
        );
        return Err(ApiError::conflict(&resource.group, &resource.kind, name, &why));
    }
    Ok(())
}

/// One try; `None` when somebody else was faster.
async fn attempt(
    inner: &Inner,
    now: DateTime<Utc>,
    served: &Served,
    entry: &Arc<Entry>,
    mut object: Object,
    options: &Delete,
) -> Result<Option<Outcome>, ApiError> {
    let resource = &*served.resource;
    let deleting = meta::deletion_timestamp(&object).is_some();
    if !deleting {
        if !special::is_definition(resource) {
            set_propagation(resource, &mut object, options);
        }
        special::hold_deleted(resource, &mut object);
    }
    let grace = grace(resource, &object, options);
    let held = meta::finalizers(&object).next().is_some() || special::waits_for_finalize(resource, &object);
    // A namespace is told to go first, whatever holds it.
    let told = deleting || !(resource.group.is_empty() && &*resource.plural == "namespaces");
    let stays = held || grace > 0 || !told;
    if stays {
        let pending = object["metadata"].get("deletionGracePeriodSeconds").and_then(Value::as_i64);
        if deleting {
            // A second request can only shorten the wait.
            if pending.is_none() && special::is_definition(resource) {
                metadata_mut(&mut object).insert("deletionGracePeriodSeconds".to_owned(), grace.into());
            }
            if pending.is_some_and(|p| grace < p) {
                let shorter = pending.unwrap_or_default() - grace;
                shift_deletion(&mut object, shorter);
                metadata_mut(&mut object).insert("deletionGracePeriodSeconds".to_owned(), grace.into());
            }
        } else {
            let at = time::format_time(now + TimeDelta::seconds(grace));
            let metadata = metadata_mut(&mut object);
            metadata.insert("deletionTimestamp".to_owned(), at.into());
            if special::tells_grace(resource) {
                metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
            }
            let generation = meta::generation(&object);
            if generation > 0 && !special::is_definition(resource) {
                metadata_mut(&mut object).insert("generation".to_owned(), (generation + 1).into());
            }
            special::mark_terminating(resource, &mut object, now);
        }
    } else if resource.behaviour.graceful && !deleting {
        // Its last state tells of the deletion, as if there had been a wait.
        let generation = meta::generation(&object);
        let metadata = metadata_mut(&mut object);
        metadata.insert("deletionTimestamp".to_owned(), time::format_time(now).into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
        if generation > 0 {
            metadata.insert("generation".to_owned(), (generation + 1).into());
        }
    }
    let value = inner.to_store(served, &object).await?;
    let current = encoding::revision(&entry.value).to_owned();
    let wire =
        |revision: &str| Ok::<_, ApiError>(encoding::with_revision(&served.encode(&object)?, revision));
    if options.dry_run || (stays && encoding::same_content(&entry.value, &value)) {
        let wire = wire(&current)?;
        return Ok(Some(if stays { Outcome::Stays(wire) } else { Outcome::Gone(wire) }));
    }
    let (key, expect) = (entry.key.clone(), Expect::At(entry.modified));
    let revision_at = Some(encoding::REVISION_AT);
    let op = if stays {
        Op::Put { key, value, revision_at, expect }
    } else {
        Op::Delete { key, last: value, revision_at, expect }
    };
    let mut ops = vec![op];
    if !stays {
        ops.extend(special::release(inner, served, &object)?);
    }
    match commit(inner, ops).await? {
        Committed::At(Revision(revision)) => {
            let wire = wire(&revision.to_string())?;
            Ok(Some(if stays { Outcome::Stays(wire) } else { Outcome::Gone(wire) }))
        }
        Committed::Conflict { .. } => Ok(None),
    }
}

/// The finalizers that the propagation policy stands for.
fn set_propagation(resource: &Resource, object: &mut Object, options: &Delete) {
    let had: Vec<&str> = meta::finalizers(object).collect();
    let events = &*resource.plural == "events";
    let namespaces = &*resource.plural == "namespaces" && resource.group.is_empty();
    // Who does not want dependents of a namespace to be orphaned, waits for them.
    let asked =
        if namespaces && options.not_orphan { Some(Propagation::Foreground) } else { options.propagation };
    let policy = asked.or_else(|| {
        if had.contains(&ORPHAN) {
            Some(Propagation::Orphan)
        } else if had.contains(&FOREGROUND) {
            Some(Propagation::Foreground)
        } else {
            resource.behaviour.orphans_by_default.then_some(Propagation::Orphan)
        }
    });
    let mut list: Vec<Value> =
        had.iter().filter(|f| !matches!(**f, ORPHAN | FOREGROUND)).map(|f| json!(f)).collect();
    match policy {
        // Nobody depends on an event.
        _ if events => {}
        Some(Propagation::Orphan) => list.push(ORPHAN.into()),
        Some(Propagation::Foreground) => list.push(FOREGROUND.into()),
        Some(Propagation::Background) | None => {}
    }
    let same = list.len() == had.len() && list.iter().all(|f| f.as_str().is_some_and(|f| had.contains(&f)));
    if same {
        return;
    }
    let metadata = metadata_mut(object);
    if list.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), list.into());
    }
}

/// Seconds until the object may go.
fn grace(resource: &Resource, object: &Object, options: &Delete) -> i64 {
    if !resource.behaviour.graceful {
        return 0;
    }
    let unscheduled = object["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unscheduled || ended {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    let seconds = options.grace.unwrap_or(own);
    if seconds < 0 { 1 } else { seconds }
}

fn shift_deletion(object: &mut Object, seconds: i64) {
    let at = meta::deletion_timestamp(object).and_then(|t| time::parse_rfc3339(t).ok());
    if let Some(at) = at {
        let text = time::format_time(at - TimeDelta::seconds(seconds));
        metadata_mut(object).insert("deletionTimestamp".to_owned(), text.into());
    }
}

/// The deletion behind an eviction, about which admission was asked.
pub(crate) async fn evicted(
    inner: &Inner,
    call: &Call,
    pods: &Served,
    options: &Delete,
) -> Result<(), ApiError> {
    let (namespace, name) = (call.info.namespace.clone(), call.info.name.clone());
    loop {
        let entry = super::existing(inner, pods, &namespace, &name)?;
        let pod = pods.object(&entry)?;
        preconditions(&pods.resource, &name, &pod, options)?;
        if attempt(inner, call.now, pods, &entry, pod, options).await?.is_some() {
            return Ok(());
        }
    }
}

/// Deletes an object without admission. Whether it stays for now.
pub(crate) async fn purge(inner: &Inner, served: &Served, entry: &Arc<Entry>) -> Result<bool, ApiError> {
    let mut entry = entry.clone();
    loop {
        let object = served.object(&*inner.view_one(served, entry.clone()).await?)?;
        let now = (inner.config.now)();
        match attempt(inner, now, served, &entry, object, &Delete::default()).await? {
            Some(outcome) => return Ok(matches!(outcome, Outcome::Stays(_))),
            None => match inner.config.store.get(&entry.key) {
                Some(newer) => entry = newer,
                None => return Ok(false),
            },
        }
    }
}

/// The end of an object whose lifetime is over: deleted without admission.
pub(crate) async fn expire(inner: &Inner, entry: &Entry) -> Result<(), ApiError> {
    let op = Op::Delete {
        key: entry.key.clone(),
        last: encoding::without_revision(&entry.value),
        revision_at: Some(encoding::REVISION_AT),
        expect: Expect::At(entry.modified),
    };
    commit(inner, vec![op]).await.map(|_| ())
}
