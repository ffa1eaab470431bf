//! PATCH with `application/apply-patch+yaml`: server-side apply. Makes what is missing.

use apimachinery::{ApiError, Object, decode, meta};
use bytes::Bytes;

use super::{
    create,
    patch::{Made, keep_revision, same_place},
    update,
};
use crate::{
    catalogue::Served,
    fields::Tracker,
    options::{self, FieldValidation},
    server::{Call, Inner},
    shape,
};

/// How often the object may come and go between a look and the write.
const TRIES: usize = 5;

/// Applies the body to the object that `call` names.
pub(crate) async fn apply(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    options: &options::Write,
    body: &Bytes,
) -> Result<Made, ApiError> {
    let config = configuration(call, options, body)?;
    let key = served.key(&call.info.namespace, &call.info.name);
    let mut tries = 0;
    loop {
        tries += 1;
        let missing = inner.config.store.get(&key).is_none();
        if missing && call.info.subresource.is_empty() {
            match make(inner, call, served, options, &config).await {
                Err(error) if error.reason == "AlreadyExists" && tries < TRIES => {}
                made => return made.map(|changed| Made { code: 201, changed }),
            }
        } else {
            match change(inner, call, served, options, &config).await {
                Err(error) if error.code == 404 && call.info.subresource.is_empty() && tries < TRIES => {}
                made => return made.map(|changed| Made { code: 200, changed }),
            }
        }
    }
}

/// The body as an object, with what strict decoding says of it.
pub(crate) fn configuration(
    call: &mut Call,
    options: &options::Write,
    body: &Bytes,
) -> Result<Object, ApiError> {
    // JSON is YAML, but read faster and to a greater depth.
    let json = body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let decoded = if json { decode::json(body) } else { decode::yaml(body) };
    let decoded =
        decoded.map_err(|error| ApiError::bad_request(format!("error decoding patch: {}", error.message)))?;
    if !decoded.value.is_object() {
        return Err(ApiError::bad_request("error decoding patch: the patch is not an object"));
    }
    match options.validation {
        FieldValidation::Strict if !decoded.duplicates.is_empty() => Err(ApiError::bad_request(format!(
            "error strict decoding patch: {}",
            decoded.duplicates.join(", ")
        ))),
        validation => {
            if validation == FieldValidation::Warn {
                call.warnings.extend(decoded.duplicates);
            }
            Ok(decoded.value)
        }
    }
}

/// Reads what applying `config` has led to as an object of the kind. Values that its types do not take are a 500 for
/// built-in kinds, as they are upstream.
fn decode(served: &Served, config: &Object, object: &mut Object) -> Result<(), ApiError> {
    let Err(error) = shape::applied(&served.resource, object) else { return Ok(()) };
    let Some((_, why)) =
        error.message.split_once(" cannot be handled as a ").filter(|_| served.resource.builtin)
    else {
        return Err(error);
    };
    let why = why.split_once(": ").map_or(why, |(_, why)| why);
    let Some(why) = converted(why) else { return Err(error) };
    let kind = format!("{}, Kind={}", place_of(&served.api_version), served.resource.kind);
    let (namespace, name) = (meta::namespace(config), meta::name(config));
    let message = format!(
        "failed to convert new object ({namespace}/{name}; {kind}) to proper version: unable to convert unstructured \
         object to {kind}: {why}"
    );
    Err(ApiError::other(500, "", message))
}

/// What upstream, which has typed the fields before, says of a value that its field cannot hold; `None` for what it takes.
fn converted(why: &str) -> Option<String> {
    if why.starts_with("illegal base64 data") {
        return Some(format!("error decoding from json: {why}"));
    }
    let Some(what) = why.strip_prefix("json: cannot unmarshal ") else { return Some(why.to_owned()) };
    let kind = what.rsplit(' ').next().unwrap_or_default();
    let number = what.strip_prefix("number ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    match kind {
        "int32" | "int64" if number.contains(['.', 'e', 'E']) => {
            Some(format!("cannot convert float64 to {kind}"))
        }
        "string" => {
            let found = what.split(' ').next().unwrap_or_default();
            Some(format!("json: cannot unmarshal {found} into Go value of type string"))
        }
        _ => None,
    }
}

/// `apps/v1`, `/v1`
fn place_of(api_version: &str) -> String {
    if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") }
}

async fn make(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    options: &options::Write,
    config: &Object,
) -> Result<update::Changed, ApiError> {
    let resource = &served.resource;
    let mut object = Tracker::new(call, served, options).apply(None, config, options.force)?.object;
    let uid = meta::uid(&object);
    let name = call.info.name.clone();
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(ApiError::conflict(&resource.group, &resource.plural, &name, &why));
    }
    create::place(&mut object, resource, &call.info.namespace)?;
    let given = meta::name(&object);
    if given.is_empty() {
        return Err(update::nameless(&name));
    }
    if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    decode(served, config, &mut object)?;
    update::revision(&object)?;
    let attributes = access::Attributes { verb: "create".to_owned(), ..call.attributes() };
    inner.authorize(&attributes)?;
    create::insert(inner, call, served, object, options, &name).await
}

async fn change(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    options: &options::Write,
    config: &Object,
) -> Result<update::Changed, ApiError> {
    let tracker = Tracker::new(call, served, options);
    update::change(inner, call, served, options, |old, _| {
        let mut new = tracker.apply(Some(old), config, options.force)?.object;
        same_place(served, &new, old)?;
        decode(served, config, &mut new)?;
        keep_revision(&mut new, old);
        Ok(new)
    })
    .await
}
