//! PATCH: JSON patch, merge patch, strategic merge patch. Each is one more way to make the wanted state in
//! [`update::change`]; so is an apply, which has its own file.

use apimachinery::{ApiError, FieldError, FieldPath, Object, patch};
use bytes::Bytes;
use http::HeaderMap;

use super::{apply, create::metadata_mut, update};
use crate::{
    Response,
    catalogue::Served,
    fields,
    negotiate::{self, Offer},
    options, owners, respond,
    server::{Call, Inner},
    shape,
};

/// The sorts of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Sort {
    /// From `Content-Type`; 415 for one that the kind does not take.
    pub fn of(headers: &HeaderMap, builtin: bool) -> Result<Self, ApiError> {
        match negotiate::media_type(headers).as_str() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if builtin => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            // Upstream's router says so before its handlers would.
            _ if builtin => {
                let message = "415: Unsupported Media Type";
                let mut error = ApiError::other(415, "UnsupportedMediaType", message);
                error.details = Some(serde_json::json!({}));
                Err(error)
            }
            _ => Err(negotiate::unsupported(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }

    /// Notes for the audit log that this patch was sent.
    pub fn note(self, call: &Call, body: &Bytes) {
        if let Some(trail) = call.trail() {
            trail.patched(body, self == Self::Apply);
        }
    }

    /// The patched document. An apply is no patch of a document: see [`super::apply`].
    pub fn apply(
        self,
        document: &Object,
        bytes: &Bytes,
        schema: &apimachinery::Schema,
    ) -> Result<Object, ApiError> {
        match self {
            Self::Json => patch::json(document.clone(), bytes),
            Self::Merge => patch::merge(document.clone(), patch::read(bytes)?),
            Self::Strategic => patch::strategic(document.clone(), patch::read(bytes)?, schema),
            Self::Apply => Err(ApiError::internal("an apply needs an owner")),
        }
    }
}

/// PATCH of an object or of its status.
pub(crate) async fn patch(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Object)?;
    let sort = Sort::of(&call.headers, served.resource.builtin)?;
    let options = options::Write::parse(&call.query, "PatchOptions", sort == Sort::Apply)?;
    sort.note(call, body);
    let made = if sort == Sort::Apply {
        apply::apply(inner, call, served, &options, body).await?
    } else {
        Made { code: 200, changed: changed(inner, call, served, &options, sort, body).await? }
    };
    respond::written(made.code, media, served, &made.changed, &call.query)
}

/// What a patch did: 201 where it made the object.
pub(crate) struct Made {
    pub code: u16,
    pub changed: update::Changed,
}

async fn changed(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    options: &options::Write,
    sort: Sort,
    body: &Bytes,
) -> Result<update::Changed, ApiError> {
    let warnings = parking_lot::Mutex::new(Vec::new());
    let tracker = fields::Tracker::new(call, served, options);
    let made = update::change(inner, call, served, options, |old, _| {
        let mut new = sort.apply(old, body, &served.resource.schema)?;
        if !new.is_object() {
            return Err(ApiError::bad_request("the patched object is not an object"));
        }
        if !served.resource.builtin {
            same_place(served, &new, old)?;
        }
        // The result is decoded before anything is asked of it.
        let unknown = shape::apply(&served.resource, &mut new).map_err(|error| not_decodable(&error))?;
        let mut found = Vec::new();
        let all = duplicates(sort, body).into_iter().chain(unknown);
        shape::strict(options.validation, all, &mut found, |why| {
            let path = FieldPath::root().child("patch");
            ApiError::invalid("", "", "", &[FieldError::invalid(&path, new.to_string(), why)])
        })?;
        if served.resource.builtin {
            same_kind(sort, &mut new, old)?;
            same_place(served, &new, old)?;
        }
        *warnings.lock() = found;
        keep_revision(&mut new, old);
        warnings.lock().extend(owners::without_duplicates(&mut new, owners::When::Patched));
        tracker.update(Some(old), &mut new);
        Ok(new)
    })
    .await;
    // Whoever is refused is told, too, what was wrong with the patch before.
    call.warnings.extend(warnings.into_inner());
    made
}

/// The revision is a precondition only when the patch names another one than the object has.
pub(super) fn keep_revision(new: &mut Object, old: &Object) {
    if old["metadata"]["resourceVersion"] == new["metadata"]["resourceVersion"] {
        metadata_mut(new).remove("resourceVersion");
    }
}

fn duplicates(sort: Sort, body: &Bytes) -> Vec<String> {
    match sort {
        Sort::Json | Sort::Apply => Vec::new(),
        Sort::Merge | Sort::Strategic => {
            apimachinery::decode::json(body).map(|d| d.duplicates).unwrap_or_default()
        }
    }
}

/// What a patch says of the kind: a strategic merge patch has no say in it, other results are decoded by what they say.
fn same_kind(sort: Sort, new: &mut Object, old: &Object) -> Result<(), ApiError> {
    let said = |name: &str| new[name].as_str().filter(|text| !text.is_empty() && old[name] != **text);
    if sort != Sort::Strategic && (said("apiVersion").is_some() || said("kind").is_some()) {
        let (version, kind) = (new["apiVersion"].as_str(), new["kind"].as_str());
        let (version, kind) = (version.unwrap_or_default(), kind.unwrap_or_default());
        let why = format!("no kind {kind:?} is registered for version {version:?}");
        let path = FieldPath::root().child("patch");
        return Err(ApiError::invalid("", "", "", &[FieldError::invalid(&path, new.to_string(), why)]));
    }
    for name in ["apiVersion", "kind"] {
        new[name] = old[name].clone();
    }
    Ok(())
}

pub(super) fn same_place(served: &Served, new: &Object, old: &Object) -> Result<(), ApiError> {
    let (name, before) = (apimachinery::meta::name(new), apimachinery::meta::name(old));
    if name.is_empty() {
        return Err(update::nameless(before));
    }
    if name != before {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({before})"
        )));
    }
    let namespace = apimachinery::meta::namespace(new);
    if served.resource.namespaced && !["", apimachinery::meta::namespace(old)].contains(&namespace) {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    for field in ["apiVersion", "kind"] {
        if new.get(field) != old.get(field) {
            return Err(ApiError::bad_request(format!(
                "the {field} of the patched object does not match the {field} of the resource"
            )));
        }
    }
    Ok(())
}

/// A patch whose result is no object of the kind: 422 on the field `patch`.
fn not_decodable(error: &ApiError) -> ApiError {
    let why = error.message.split_once(": ").map_or(error.message.as_str(), |(_, why)| why);
    let path = FieldPath::root().child("patch");
    ApiError::invalid("", "", "", &[FieldError::invalid(&path, "", why)])
}
