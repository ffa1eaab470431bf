//! CREATE: body → mutating admission → name, system fields, strategy → validation → validating admission → commit.

use apimachinery::{ApiError, FieldError, Object, meta, names, structure, time};
use bytes::Bytes;
use kinds::{Generation, NameRule, Resource};
use rand::Rng as _;
use serde_json::{Map, Value, json};
use store::{Expect, Key, Op, Revision};

use super::{Committed, commit_object, update::Changed};
use crate::{
    Response, admit,
    catalogue::Served,
    companions, encoding, fields, negotiate,
    negotiate::Offer,
    options, owners, respond,
    server::{Call, Inner},
    shape, special,
};

/// How often another name is tried when a generated one is taken.
const NAME_TRIES: usize = 8;

/// POST to a collection.
pub(crate) async fn create(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Object)?;
    let encoding = negotiate::body(&call.headers)?;
    let options = options::Write::parse(&call.query, "CreateOptions", false)?;
    let mut object = shape::body(served, body, encoding, options.validation, call)?;
    // Nobody owns what the server alone may set.
    wipe(&mut object);
    call.warnings.extend(owners::without_duplicates(&mut object, owners::When::Sent));
    fields::Tracker::new(call, served, &options).update(None, &mut object);
    let made = insert(inner, call, served, object, &options, "").await?;
    respond::written(201, media, served, &made, &call.query)
}

/// Makes a new object. `wanted` is the name the URL gives (PUT, apply), else empty.
pub(crate) async fn insert(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    mut object: Object,
    options: &options::Write,
    wanted: &str,
) -> Result<Changed, ApiError> {
    let resource = &*served.resource;
    if served.is_terminating() {
        let why = "create not allowed while custom resource definition is terminating";
        let name = if wanted.is_empty() { meta::name(&object) } else { wanted };
        return Err(ApiError::forbidden(&resource.group, &resource.plural, name, why));
    }
    place(&mut object, resource, &call.info.namespace)?;
    let name = if wanted.is_empty() { meta::name(&object).to_owned() } else { wanted.to_owned() };
    let mut write = admit::Write::new(call, served, "CREATE", admit::Options::Write(options));
    write.attributes.name.clone_from(&name);
    if &*resource.plural == "namespaces" && resource.group.is_empty() {
        write.attributes.namespace.clone_from(&name);
    }
    write.mutate(inner, call, &mut object, None).await?;

    place(&mut object, resource, &call.info.namespace)?;
    // Definitions are stored in JSON, which tells an empty list from none.
    if resource.builtin && !special::is_definition(resource) {
        structure::forget_empty_lists(&mut object, &resource.schema);
    }
    if !resource.builtin && resource.subresource("status").is_some() {
        remove(&mut object, "status");
    }
    system_fields(&mut object, call);
    let generated = meta::name(&object).is_empty() && !meta::generate_name_of(&object).is_empty();
    let base = generated.then(|| meta::generate_name_of(&object).to_owned());
    let template = generated.then(|| object.clone());
    for attempt in 0.. {
        if let (Some(base), Some(template)) = (&base, &template) {
            if attempt > 0 {
                object = template.clone();
            }
            let name = meta::generate_name(base, |n| rand::rng().random_range(0..n));
            write.attributes.name.clone_from(&name);
            object["metadata"]["name"] = name.into();
        }
        resource.strategy.prepare_create(&mut object, call.now);
        kinds::drop_disabled(resource, &mut object, None);
        special::note_requester(resource, &mut object, &call.user);
        if resource.group.is_empty() && &*resource.kind == "LimitRange" && meta::name(&object).is_empty() {
            // The only kind that upstream names by itself.
            object["metadata"]["name"] = uuid::Uuid::new_v4().to_string().into();
        }
        set_generation(resource, &mut object, None, "");
        let wanted = special::reserves(resource).then(|| object.clone());
        // Held until the commit is visible, given back on every way out.
        let reserved = special::reserve(inner, served, &mut object, None, options.dry_run)?;
        let errors = check_new(resource, &object);
        if !errors.is_empty() {
            return Err(served.invalid(meta::name(&object), &errors));
        }
        if attempt == 0 {
            call.warnings.extend(resource.strategy.warnings(&object, None));
        }
        // Storage says so, and what is no number is none to it.
        if !options.dry_run
            && meta::resource_version(&object).parse::<u64>().is_ok_and(|revision| revision != 0)
        {
            return Err(ApiError::other(
                500,
                "",
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let steps = special::steps(&reserved);
        let committed = put(inner, call, served, &write, &mut object, steps).await?;
        drop(reserved);
        match committed {
            // What was sent is shown: only storage would have refused it, or taken it away.
            None => {
                let sent = Value::from(meta::resource_version(&object)).to_string();
                let revision = sent.trim_matches('"').to_owned();
                return Ok(Changed { object, revision, value: None });
            }
            Some((Committed::At(Revision(revision)), value)) => {
                let value = served.stores_itself().then_some(value);
                return Ok(Changed { object, revision: revision.to_string(), value });
            }
            // An address was taken from outside meanwhile: another one, or the error, is found now.
            Some((Committed::Conflict { key, .. }, _)) if !key.starts_with(&served.prefix) => {
                if attempt + 1 >= NAME_TRIES {
                    return Err(companions::contended());
                }
                object = wanted.unwrap_or(object);
            }
            Some((Committed::Conflict { .. }, _)) if generated && attempt + 1 < NAME_TRIES => {}
            Some((Committed::Conflict { now, .. }, _)) => {
                let error = exists(served, &object, now.as_deref().map(|e| &*e.value));
                return Err(if generated { error.retry_after(1) } else { error });
            }
        }
    }
    Err(ApiError::internal("no name could be generated"))
}

/// Asks the plugins that may refuse the object and commits it with what they want to go with it, and with `steps`.
/// The value that was stored comes back. `None`: a dry run.
async fn put(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    write: &admit::Write<'_>,
    object: &mut Object,
    steps: Vec<Op>,
) -> Result<Option<(Committed, Bytes)>, ApiError> {
    let key: Key = served.key(meta::namespace(object), meta::name(object)).into();
    write.validate(inner, call, object, None).await?;
    let mut turn = None;
    for _ in 0..companions::TRIES {
        let companions = write.charge(inner, call, object, None).await?;
        if write.dry_run {
            let there = inner.config.store.get(&key);
            return Ok(there.map(|entry| (Committed::Conflict { key, now: Some(entry) }, Bytes::new())));
        }
        let value = inner.to_store(served, object).await?;
        let mut with = companions::ops(inner, &companions)?;
        with.extend(steps.iter().cloned());
        let op = |value| {
            let revision_at = Some(encoding::REVISION_AT);
            Op::Put { key: key.clone(), value, revision_at, expect: Expect::Absent }
        };
        let (committed, value) = commit_object(inner, served, object, value, with, op).await?;
        drop(turn);
        match committed {
            Committed::Conflict { key: other, .. }
                if other != key && steps.iter().all(|step| *special::key_of(step) != other) =>
            {
                turn = Some(inner.turns.take(other).await);
            }
            Committed::At(revision) => {
                let made = std::mem::take(object);
                *object = inner.stored_as(served, made, &key, &value, revision).await?;
                return Ok(Some((Committed::At(revision), value)));
            }
            conflict @ Committed::Conflict { .. } => return Ok(Some((conflict, value))),
        }
    }
    Err(companions::contended())
}

fn exists(served: &Served, object: &Object, stored: Option<&[u8]>) -> ApiError {
    let resource = &served.resource;
    let mut error = ApiError::already_exists(&resource.group, &resource.plural, meta::name(object));
    let deleting = stored
        .and_then(|s| serde_json::from_slice::<Value>(s).ok())
        .is_some_and(|o| meta::deletion_timestamp(&o).is_some());
    if deleting {
        error.message = format!("object is being deleted: {}", error.message);
    }
    error
}

/// Gives the object the namespace of the request, or refuses another one.
pub(crate) fn place(object: &mut Object, resource: &Resource, namespace: &str) -> Result<(), ApiError> {
    let metadata = metadata_mut(object);
    let has = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !resource.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    if has.is_empty() {
        metadata.insert("namespace".to_owned(), namespace.into());
    } else if has != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// `metadata` as a map, made when it is missing.
pub(crate) fn metadata_mut(object: &mut Object) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(map) => map,
        _ => unreachable!("metadata was just made an object"),
    }
}

/// Removes a top-level field.
pub(crate) fn remove(object: &mut Object, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// Takes away what a client cannot give a new object.
fn wipe(object: &mut Object) {
    let metadata = metadata_mut(object);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
}

/// What only the server sets.
fn system_fields(object: &mut Object, call: &Call) {
    let now = time::format_time(call.now);
    wipe(object);
    let metadata = metadata_mut(object);
    metadata.insert("creationTimestamp".to_owned(), now.into());
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    if metadata.get("name").is_some_and(|n| n == "") {
        metadata.remove("name");
    }
}

/// Sets the generation of a new object, or of a changed one from its old state.
pub(crate) fn set_generation(resource: &Resource, new: &mut Object, old: Option<&Object>, subresource: &str) {
    let generation = match (resource.behaviour.generation, old) {
        // Nobody counts, and what was sent stands.
        (Generation::Untracked, None) => return,
        (Generation::SpecChanges, None) => {
            metadata_mut(new).remove("generation");
            return;
        }
        (_, None) => 1,
        (rule, Some(old)) => {
            let changed = match rule {
                // Who runs a pod is no part of what was asked for.
                _ if subresource == "binding" => false,
                Generation::Untracked => false,
                // Where a pod runs is not what was asked for.
                Generation::Spec | Generation::SpecChanges => {
                    subresource != "binding" && old.get("spec") != new.get("spec")
                }
                Generation::SpecOrAnnotations => {
                    let annotations = |o: &Object| o["metadata"].get("annotations").cloned();
                    old.get("spec") != new.get("spec")
                        || (subresource != "status" && annotations(old) != annotations(new))
                }
                Generation::Content | Generation::ContentOrLabels => {
                    let status = resource.subresource("status").is_some();
                    let content = |o: &Object| -> Map<String, Value> {
                        let skip = |k: &str| k == "metadata" || (status && k == "status");
                        let all = o.as_object().into_iter().flatten();
                        all.filter(|(k, _)| !skip(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
                    };
                    let labels = |o: &Object| o["metadata"].get("labels").cloned();
                    content(old) != content(new)
                        || (rule == Generation::ContentOrLabels && labels(old) != labels(new))
                }
            };
            let before = meta::generation(old);
            if before == 0 && !changed {
                metadata_mut(new).remove("generation");
                return;
            }
            before + i64::from(changed)
        }
    };
    metadata_mut(new).insert("generation".to_owned(), generation.into());
}

pub(super) fn name_check(rule: NameRule) -> names::NameCheck {
    match rule {
        NameRule::Subdomain => names::subdomain_name,
        NameRule::Label => names::label_name,
        NameRule::Label1035 => names::label1035_name,
        NameRule::PathSegment => names::path_segment_name,
        NameRule::Address => names::address_name,
    }
}

/// Finalizers of built-in kinds have a domain, or are of the standard ones.
///
/// Source: `k8s.io/kubernetes/pkg/apis/core/validation`; the groups named here validate metadata without it.
pub(super) fn standard_finalizers(resource: &Resource, object: &Object) -> Vec<FieldError> {
    let exempt = matches!(
        &*resource.group,
        "admissionregistration.k8s.io"
            | "apiextensions.k8s.io"
            | "apiregistration.k8s.io"
            | "coordination.k8s.io"
            | "node.k8s.io"
            | "policy"
    );
    if exempt || !resource.builtin || &*resource.kind == "Event" {
        return Vec::new();
    }
    let path = apimachinery::FieldPath::root().child("metadata").child("finalizers");
    let known =
        |name: &str| name.contains('/') || matches!(name, "kubernetes" | "orphan" | "foregroundDeletion");
    let odd = meta::finalizers(object).enumerate().filter(|(_, name)| !known(name));
    let words = "name is neither a standard finalizer name nor is it fully qualified";
    odd.map(|(index, name)| FieldError::invalid(&path.index(index), name, words)).collect()
}

/// What is wrong with a new object: its metadata first. Two kinds look at theirs only when all else is well.
fn check_new(resource: &Resource, object: &Object) -> Vec<FieldError> {
    let metadata = || meta::validate_create(object, resource.namespaced, name_check(resource.behaviour.name));
    if resource.builtin {
        let own = resource.strategy.validate(object);
        let late = &*resource.group == "policy" || &*resource.kind == "Event";
        if late && !own.is_empty() {
            return own;
        }
        let mut errors = metadata();
        errors.extend(standard_finalizers(resource, object));
        errors.extend(own);
        return errors;
    }
    let mut errors = metadata();
    errors.extend(custom_errors(resource, object, None));
    errors
}

/// A custom resource's own rules.
pub(crate) fn custom_errors(resource: &Resource, new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    apimachinery::validate::object(new, old, &resource.schema, special::scale::custom_errors(resource, new))
}
