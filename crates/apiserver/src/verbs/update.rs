//! Changing a stored object: the loop that PUT, every PATCH and the special subresources share.

use access::Companion;
use apimachinery::{ApiError, FieldError, Object, meta, names, structure};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use kinds::Resource;
use serde_json::Value;
use store::{Entry, Expect, Op};

use super::{
    Committed, commit_object,
    create::{self, metadata_mut},
};
use crate::{
    Response, admit,
    catalogue::Served,
    companions, encoding, fields, negotiate,
    negotiate::Offer,
    options, owners, respond,
    server::{Call, Inner},
    shape, special,
};

/// PUT of an object or its status.
pub(crate) async fn update(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Object)?;
    let options = options::Write::parse(&call.query, "UpdateOptions", false)?;
    let encoding = negotiate::body(&call.headers)?;
    let mut object = shape::body(served, body, encoding, options.validation, call)?;
    let resource = &served.resource;
    create::place(&mut object, resource, &call.info.namespace)?;
    let name = meta::name(&object);
    if name.is_empty() {
        return Err(nameless(&call.info.name));
    }
    if name != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    call.warnings.extend(owners::without_duplicates(&mut object, owners::When::Sent));
    let tracker = fields::Tracker::new(call, served, &options);
    let missing = inner.config.store.get(&served.key(&call.info.namespace, &call.info.name)).is_none();
    if missing && resource.behaviour.create_on_update && call.info.subresource.is_empty() {
        let attributes = access::Attributes { verb: "create".to_owned(), ..call.attributes() };
        inner.authorize(&attributes)?;
        revision(&object)?;
        metadata_mut(&mut object).remove("resourceVersion");
        tracker.update(None, &mut object);
        let name = call.info.name.clone();
        let made = create::insert(inner, call, served, object, &options, &name).await?;
        return respond::written(201, media, served, &made, &call.query);
    }
    let blind = meta::resource_version(&object).is_empty() && !resource.behaviour.unconditional_update;
    let changed = change(inner, call, served, &options, |old, _| {
        if blind && ["", meta::uid(old)].contains(&meta::uid(&object)) {
            let path = apimachinery::FieldPath::root().child("metadata").child("resourceVersion");
            let error = FieldError::invalid(&path, 0, "must be specified for an update");
            // It is storage that says so, which knows resources.
            return Err(ApiError::invalid(&resource.group, &resource.plural, meta::name(&object), &[error]));
        }
        let mut new = object.clone();
        tracker.update(Some(old), &mut new);
        Ok(new)
    })
    .await?;
    respond::written(200, media, served, &changed, &call.query)
}

/// An object without a name, sent to the URL of one.
pub(super) fn nameless(name: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the name of the object ({name} based on URL) was undeterminable: name must be provided"
    ))
}

/// The key that upstream stores the object under: its errors name it.
///
/// Source: `k8s.io/kubernetes/pkg/kubeapiserver/default_storage_factory_builder.go`.
fn upstream_key(resource: &Resource, namespace: &str, name: &str) -> String {
    let kinds = match (&*resource.group, &*resource.plural) {
        ("", "replicationcontrollers") => "controllers".to_owned(),
        ("", "endpoints") => "services/endpoints".to_owned(),
        ("", "nodes") => "minions".to_owned(),
        ("", "services") => "services/specs".to_owned(),
        ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
        (group @ ("apiextensions.k8s.io" | "apiregistration.k8s.io"), plural) => format!("{group}/{plural}"),
        (group, plural) if !resource.builtin => format!("{group}/{plural}"),
        (_, plural) => plural.to_owned(),
    };
    let namespace = if resource.namespaced { format!("{namespace}/") } else { String::new() };
    format!("/registry/{kinds}/{namespace}{name}")
}

/// The 409 for an object that has another uid than the one that was asked for.
pub(crate) fn other_uid(
    resource: &Resource,
    namespace: &str,
    name: &str,
    asked: &str,
    found: &str,
) -> ApiError {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
         UID in precondition: {asked}, UID in object meta: {found}",
        upstream_key(resource, namespace, name),
    );
    ApiError::conflict(&resource.group, &resource.plural, name, &why)
}

/// The revision that an object names; 0 for none.
pub(super) fn revision(object: &Object) -> Result<u64, ApiError> {
    let asked = meta::resource_version(object);
    if asked.is_empty() {
        return Ok(0);
    }
    asked.parse().map_err(|_| {
        let digits = asked.bytes().all(|b| b.is_ascii_digit());
        let why = if digits { "value out of range" } else { "invalid syntax" };
        let why = format!("strconv.ParseUint: parsing {}: {why}", apimachinery::go::quoted(asked));
        ApiError::other(500, "", why)
    })
}

/// What [`change`] or [`create::insert`] did.
pub(crate) struct Changed {
    /// The new state.
    pub object: Object,
    /// Its revision; empty if nothing was stored.
    pub revision: String,
    /// What was given to the store, where objects are served as they are stored.
    pub value: Option<Bytes>,
}

/// What admission is asked about a change.
#[derive(Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// The object.
    Object,
    /// What a subresource shows of it.
    View(&'a dyn View),
    /// Nothing: it was asked about the request that leads to the change.
    Nothing,
}

/// A subresource that shows an object in another form.
pub(crate) trait View: Send + Sync {
    /// The form that is shown.
    fn of(&self, object: &Object) -> Result<Object, ApiError>;
    /// Puts a changed form back into the object.
    fn put(&self, object: &mut Object, view: &Object) -> Result<(), ApiError>;
}

/// Changes the object that `call` names. `make` gives the wanted state from the present one; it is asked again when
/// somebody else was faster and the request does not insist on a revision.
pub(crate) async fn change(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    options: &options::Write,
    make: impl Fn(&Object, &Entry) -> Result<Object, ApiError> + Send + Sync,
) -> Result<Changed, ApiError> {
    change_asking(inner, call, served, options, Asked::Object, make).await
}

/// The same; admission is asked about something else than the object.
pub(crate) async fn change_asking(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    options: &options::Write,
    about: Asked<'_>,
    make: impl Fn(&Object, &Entry) -> Result<Object, ApiError> + Send + Sync,
) -> Result<Changed, ApiError> {
    let resource = &*served.resource;
    let (namespace, name) = (call.info.namespace.clone(), call.info.name.clone());
    let subresource = call.info.subresource.clone();
    let write = admit::Write::new(call, served, "UPDATE", admit::Options::Write(options));
    let mut warned = false;
    let mut slow = 0;
    let mut turn = None;
    loop {
        let entry = super::existing(inner, served, &namespace, &name)?;
        let old = served.object(&*inner.view_one(served, entry.clone()).await?)?;
        let current = encoding::revision(&entry.value);
        let mut new = make(&old, &entry)?;
        let uid = meta::uid(&new);
        if !uid.is_empty() && uid != meta::uid(&old) && call.info.verb == "update" {
            return Err(other_uid(resource, &namespace, &name, uid, meta::uid(&old)));
        }
        let asked = revision(&new)?;
        let insists = asked != 0;
        if insists && current.parse() != Ok(asked) {
            return Err(ApiError::modified(&resource.group, &resource.plural, &name));
        }
        create::place(&mut new, resource, &namespace)?;
        inherit(&mut new, &old, current);
        mutate(about, &write, inner, call, &mut new, &old).await?;
        inherit(&mut new, &old, current);
        confine(resource, &mut new, &old, &subresource);
        // Definitions are stored in JSON, which tells an empty list from none.
        if resource.builtin && !special::is_definition(resource) {
            structure::forget_empty_lists(&mut new, &resource.schema);
        }
        resource.strategy.prepare_update_at(&mut new, &old, &subresource, call.now);
        kinds::drop_disabled(resource, &mut new, Some(&old));
        create::set_generation(resource, &mut new, Some(&old), &subresource);
        let reserved = special::reserve(inner, served, &mut new, Some(&old), options.dry_run)?;
        let errors = check_change(resource, &new, &old, &subresource, call.now);
        if !errors.is_empty() {
            return Err(served.invalid(&name, &errors));
        }
        if subresource.is_empty() && !std::mem::replace(&mut warned, true) {
            call.warnings.extend(resource.strategy.warnings(&new, Some(&old)));
        }
        let companions = validate(about, &write, inner, call, &mut new, &old).await?;
        fields::settle_times(&mut new, &old);
        let value = inner.to_store(served, &new).await?;
        if options.dry_run || encoding::same_content(&entry.value, &value) {
            let value = served.stores_itself().then_some(value);
            return Ok(Changed { object: new, revision: current.to_owned(), value });
        }
        let finished = is_finished(resource, &new);
        let put = |value| {
            let (key, revision_at) = (entry.key.clone(), Some(encoding::REVISION_AT));
            let expect = Expect::At(entry.modified);
            if finished {
                Op::Delete { key, last: value, revision_at, expect }
            } else {
                Op::Put { key, value, revision_at, expect }
            }
        };
        let mut with = companions::ops(inner, &companions)?;
        with.extend(if finished {
            special::release(inner, served, &old)?
        } else {
            special::steps(&reserved)
        });
        let (committed, value) = commit_object(inner, served, &mut new, value, with, put).await?;
        drop(turn.take());
        drop(reserved);
        match committed {
            Committed::At(revision) => {
                let object = inner.stored_as(served, new, &entry.key, &value, revision).await?;
                let value = served.stores_itself().then_some(value);
                return Ok(Changed { object, revision: revision.to_string(), value });
            }
            Committed::Conflict { key, .. } if key != entry.key => {
                slow += 1;
                if slow >= companions::TRIES {
                    return Err(companions::contended());
                }
                turn = Some(inner.turns.take(key).await);
            }
            Committed::Conflict { now: None, .. } => return Err(served.not_found(&name)),
            Committed::Conflict { .. } if call.info.verb == "update" && insists => {
                return Err(ApiError::modified(&resource.group, &resource.plural, &name));
            }
            Committed::Conflict { .. } => {}
        }
    }
}

async fn mutate(
    about: Asked<'_>,
    write: &admit::Write<'_>,
    inner: &Inner,
    call: &mut Call,
    new: &mut Object,
    old: &Object,
) -> Result<(), ApiError> {
    match about {
        Asked::Nothing => Ok(()),
        Asked::Object => write.mutate(inner, call, new, Some(old)).await,
        Asked::View(view) => {
            let mut shown = view.of(new)?;
            write.mutate(inner, call, &mut shown, Some(&view.of(old)?)).await?;
            view.put(new, &shown)
        }
    }
}

/// What has to be committed together with the change comes back.
async fn validate(
    about: Asked<'_>,
    write: &admit::Write<'_>,
    inner: &Inner,
    call: &mut Call,
    new: &mut Object,
    old: &Object,
) -> Result<Vec<Companion>, ApiError> {
    let (mut shown, before);
    let (new, old) = match about {
        Asked::Nothing => return Ok(Vec::new()),
        Asked::Object => (new, old),
        Asked::View(view) => {
            (shown, before) = (view.of(new)?, view.of(old)?);
            (&mut shown, &before)
        }
    };
    write.validate(inner, call, new, Some(old)).await?;
    write.charge(inner, call, new, Some(old)).await
}

/// What a client may leave out and never change.
fn inherit(new: &mut Object, old: &Object, revision: &str) {
    let before = &old["metadata"];
    let metadata = metadata_mut(new);
    if metadata.get("uid").is_none_or(|v| v.is_null() || v == "")
        && let Some(value) = before.get("uid")
    {
        metadata.insert("uid".to_owned(), value.clone());
    }
    // What is said of the time is not looked at.
    if let Some(value) = before.get("creationTimestamp") {
        metadata.insert("creationTimestamp".to_owned(), value.clone());
    }
    for field in ["generation", "selfLink"] {
        match before.get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    if before.get("deletionTimestamp").is_some_and(|v| !v.is_null()) {
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            if let Some(value) = before.get(field) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
    }
    metadata.insert("resourceVersion".to_owned(), revision.into());
}

fn copy(new: &mut Object, old: &Object, field: &str) {
    match old.get(field) {
        Some(value) => new[field] = value.clone(),
        None => create::remove(new, field),
    }
}

/// A write of the object leaves the status, a write of the status leaves the rest.
fn confine(resource: &Resource, new: &mut Object, old: &Object, subresource: &str) {
    match subresource {
        "" if resource.subresource("status").is_some() => copy(new, old, "status"),
        "status" => {
            let top: Vec<String> = new.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
            let before: Vec<String> = old.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
            for field in top.iter().chain(&before) {
                if !matches!(field.as_str(), "metadata" | "status" | "apiVersion" | "kind") {
                    copy(new, old, field);
                }
            }
            if !resource.builtin {
                // All metadata stays, but the write is noted.
                let managed = new["metadata"].get("managedFields").cloned();
                copy(new, old, "metadata");
                if let Some(managed) = managed {
                    metadata_mut(new).insert("managedFields".to_owned(), managed);
                }
            } else if resource.behaviour.status_keeps_metadata {
                let metadata = metadata_mut(new);
                for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                    match old["metadata"].get(field) {
                        Some(value) => metadata.insert(field.to_owned(), value.clone()),
                        None => metadata.remove(field),
                    };
                }
            }
        }
        _ => {}
    }
}

/// The last finalizer is gone from an object under deletion.
fn is_finished(resource: &Resource, object: &Object) -> bool {
    let grace = object["metadata"].get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    meta::deletion_timestamp(object).is_some()
        && grace == 0
        && meta::finalizers(object).next().is_none()
        && !special::waits_for_finalize(resource, object)
}

/// Kinds whose changed objects have to have a name and a base of names by the rule for new ones.
///
/// Source: the functions `Validate…Update` in `k8s.io/kubernetes/pkg/apis/*/validation`, and of each strategy.
fn judged_as_new(resource: &Resource) -> bool {
    let exempt = matches!(
        (&*resource.group, &*resource.plural),
        ("", "pods" | "podtemplates" | "replicationcontrollers" | "resourcequotas" | "events" | "services")
            | (
                "events.k8s.io"
                    | "policy"
                    | "autoscaling"
                    | "coordination.k8s.io"
                    | "scheduling.k8s.io"
                    | "batch",
                _
            )
            | ("apps", "statefulsets" | "daemonsets" | "deployments" | "replicasets")
            | ("networking.k8s.io", "networkpolicies" | "ingresses" | "servicecidrs")
            | ("storage.k8s.io", "csidrivers" | "volumeattributesclasses")
            | ("apiextensions.k8s.io", _)
    );
    resource.builtin && !exempt
}

fn check_change(
    resource: &Resource,
    new: &Object,
    old: &Object,
    subresource: &str,
    now: DateTime<Utc>,
) -> Vec<FieldError> {
    let mut errors = meta::validate_create(new, resource.namespaced, names::path_segment_name);
    errors.extend(meta::validate_update(new, old));
    errors.extend(create::standard_finalizers(resource, new));
    if judged_as_new(resource) && subresource.is_empty() {
        errors.extend(meta::validate_names(new, create::name_check(resource.behaviour.name)));
    }
    if resource.builtin {
        // Most kinds look at the new object first, some at what may not change.
        let late = resource.group.is_empty() && matches!(&*resource.plural, "configmaps" | "secrets")
            || matches!(&*resource.plural, "ingressclasses" | "daemonsets");
        let own = if subresource.is_empty() { resource.strategy.validate(new) } else { Vec::new() };
        if !late {
            errors.extend(own.iter().cloned());
        }
        errors.extend(resource.strategy.validate_update_at(new, old, subresource, now));
        for path in &resource.behaviour.immutable {
            let pointer = format!("/{}", path.replace('.', "/"));
            let (before, after) = (old.pointer(&pointer), new.pointer(&pointer));
            if before.is_some() && before != after {
                let nothing = if before.is_some_and(Value::is_string) { "".into() } else { Value::Null };
                let value = after.cloned().unwrap_or(nothing);
                let field = apimachinery::FieldPath::from(*path);
                errors.push(FieldError::invalid(&field, value, "field is immutable"));
            }
        }
        if late {
            errors.extend(own);
        }
    } else {
        errors.extend(create::custom_errors(resource, new, Some(old)));
    }
    errors
}
