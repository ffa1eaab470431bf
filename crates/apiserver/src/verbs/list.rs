//! LIST: pages of stored bytes, concatenated, never encoded again.

use std::sync::Arc;

use apimachinery::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use kinds::protobuf::{ObjectWriter, list_head, list_tail};
use serde_json::{Value, json};
use store::{Entry, ReadError, Revision};

use crate::{
    Response,
    body::Body,
    catalogue::Served,
    encoding,
    negotiate::{Form, Media, Offer, PROTOBUF, Transform},
    options::{At, Continue, List},
    respond,
    selection::Selection,
    server::{Call, Inner},
    table,
};

/// What a list found.
pub(crate) struct Found {
    pub entries: Vec<Arc<Entry>>,
    pub revision: Revision,
    /// The token of the next page.
    pub next: Option<String>,
    pub remaining: Option<usize>,
}

/// LIST.
pub(crate) async fn list(inner: &Inner, call: &Call, served: &Arc<Served>) -> Result<Response, ApiError> {
    let media = call.media(Offer::List)?;
    let options = List::parse(&call.query, false)?;
    let found = find(inner, served, &call.info.namespace, options).await?;
    answer(inner, call, served, media, found)
}

/// The entries of a collection that the options ask for.
pub(crate) async fn find(
    inner: &Inner,
    served: &Arc<Served>,
    namespace: &str,
    options: List,
) -> Result<Found, ApiError> {
    let store = &inner.config.store;
    let List { labels, fields, limit, token, at, .. } = options;
    let selection = Selection::new(labels, fields, &served.resource)?;
    let range = served.range(namespace);
    let (at, after) = match &token {
        Some(token) => (token.revision, Some(format!("{range}{}", token.after))),
        None => match at {
            At::Newest | At::Any => (None, None),
            At::NotOlderThan(revision) => {
                super::reached(inner, revision).await?;
                (None, None)
            }
            At::Exact(revision) => {
                super::reached(inner, revision).await?;
                (Some(revision), None)
            }
        },
    };
    let expired = |error: ReadError| match (error, &token) {
        (ReadError::Compacted { .. }, Some(token)) => {
            let next = Continue { revision: None, after: token.after.clone() };
            let mut error = ApiError::other(
                410,
                "Expired",
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter, or use the continue token in this response to retrieve the \
                 remainder of the results. Continuing with the provided token results in an inconsistent list - \
                 objects that were created, modified, or deleted between the time the first chunk was returned and \
                 now may show up in the list.",
            );
            error.continue_token = Some(next.encode());
            error
        }
        (ReadError::Compacted { .. }, None) => {
            ApiError::other(410, "Expired", "The resourceVersion for the provided list is too old.")
        }
        (error, _) => super::read_error(error),
    };
    // A pinned name is one key, not a scan.
    if let (Some(name), false, None) = (
        selection.name(),
        served.resource.namespaced && namespace.is_empty(),
        at.or(token.as_ref().map(|_| Revision(0))),
    ) {
        let revision = store.revision();
        let entry = store.get(&served.key(namespace, &name)).into_iter().collect();
        let mut entries = inner.view(served, entry).await?;
        entries.retain(|e| selection.matches(served, e));
        return Ok(Found { entries, revision, next: None, remaining: None });
    }
    if selection.is_everything() {
        let page = store.list(&range, after.as_deref(), limit, at).map_err(expired)?;
        let remaining = (limit > 0 && page.remaining > 0).then_some(page.remaining);
        let next =
            remaining.and_then(|_| page.entries.last()).map(|last| token_behind(last, &range, page.revision));
        let entries = inner.view(served, page.entries).await?;
        return Ok(Found { entries, revision: page.revision, next, remaining });
    }
    let page = store.list(&range, after.as_deref(), 0, at).map_err(expired)?;
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    let mut more = false;
    for entry in inner.view(served, page.entries).await? {
        if selection.matches(served, &entry) {
            if limit > 0 && entries.len() == limit {
                more = true;
                break;
            }
            entries.push(entry);
        }
    }
    let next = entries.last().filter(|_| more).map(|last| token_behind(last, &range, page.revision));
    Ok(Found { entries, revision: page.revision, next, remaining: None })
}

fn token_behind(last: &Entry, range: &str, revision: Revision) -> String {
    let after = last.key.strip_prefix(range).unwrap_or(&last.key).to_owned();
    Continue { revision: Some(revision), after }.encode()
}

fn list_metadata(found: &Found) -> Value {
    let mut metadata = json!({"resourceVersion": found.revision.to_string()});
    if let Some(token) = &found.next {
        metadata["continue"] = token.as_str().into();
    }
    if let Some(remaining) = found.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// A piece of a streamed list: large enough that pieces cost nothing, small enough that a list is never held twice.
const PIECE: usize = 256 * 1024;

/// The answer in the asked form.
pub(crate) fn answer(
    inner: &Inner,
    call: &Call,
    served: &Arc<Served>,
    media: Media,
    found: Found,
) -> Result<Response, ApiError> {
    let resource = &served.resource;
    media.fits(resource, true)?;
    if media.form == Form::Protobuf {
        return protobuf(inner, served, media, &found);
    }
    match media.transform {
        Transform::Table => {
            let include = table::Include::parse(call.query.text("includeObject"))?;
            let mut table = table::head(resource);
            table["metadata"] = list_metadata(&found);
            let rows: Result<Vec<Value>, ApiError> = found
                .entries
                .iter()
                .map(|e| Ok(table::row(resource, &served.object(e)?, include, call.now)))
                .collect();
            let rows = rows?;
            let none = rows.is_empty() && table::is_plain(resource);
            table["rows"] = if none { Value::Null } else { Value::Array(rows) };
            Ok(respond::document(200, media, &table))
        }
        Transform::Partial | Transform::PartialList => {
            let head = format!(
                r#"{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{},"items":"#,
                list_metadata(&found)
            );
            // The one list whose items are `null` when there are none.
            if found.entries.is_empty() {
                return whole(media, Bytes::from(head + "null}\n"));
            }
            let head = head + "[";
            let mut out = BytesMut::from(head.as_bytes());
            for (index, entry) in found.entries.iter().enumerate() {
                if index > 0 {
                    out.put_u8(b',');
                }
                if resource.behaviour.annotated.is_some() {
                    out.put_slice(respond::partial(served, &served.wire(entry)?)?.to_string().as_bytes());
                    continue;
                }
                out.put_slice(
                    br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#,
                );
                out.put_slice(encoding::metadata(&entry.value)?.get().as_bytes());
                out.put_u8(b'}');
            }
            out.put_slice(b"]}\n");
            whole(media, out.freeze())
        }
        Transform::None => {
            let (kind, version) = (&resource.list_kind, &served.api_version);
            let mut metadata = list_metadata(&found);
            if !resource.builtin && found.next.is_none() {
                metadata["continue"] = "".into();
            }
            let head = if resource.builtin {
                format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":["#)
            } else {
                format!(r#"{{"apiVersion":"{version}","kind":"{kind}","metadata":{metadata},"items":["#)
            };
            let pieces = pieces(served.clone(), head, found.entries);
            if media.form == Form::Yaml || media.pretty {
                let mut all = BytesMut::new();
                for piece in pieces {
                    all.put_slice(&piece?);
                }
                return whole(media, all.freeze());
            }
            streamed("application/json", pieces)
        }
    }
}

/// Pieces as they are taken; one alone is a body of known length.
fn streamed(
    content_type: &'static str,
    pieces: impl Iterator<Item = Result<Bytes, ApiError>> + Send + 'static,
) -> Result<Response, ApiError> {
    let mut pieces = pieces.peekable();
    let first = pieces.next().transpose()?.unwrap_or_default();
    if pieces.peek().is_none() {
        return Ok(respond::plain(200, content_type, Body::from(first)));
    }
    let rest = pieces.map(|piece| piece.map_err(|e| Box::new(e) as crate::body::BoxError));
    let stream = futures::stream::iter(std::iter::once(Ok(first)).chain(rest));
    Ok(respond::plain(200, content_type, Body::Stream(Box::pin(stream))))
}

/// The list as protobuf, whose length stands before it: so all objects are written first. Those that are stored as they
/// are served keep what was written.
fn protobuf(inner: &Inner, served: &Served, media: Media, found: &Found) -> Result<Response, ApiError> {
    let partial = media.transform != Transform::None;
    let (api_version, kind, list_kind) = if partial {
        ("meta.k8s.io/v1", "PartialObjectMetadata", "PartialObjectMetadataList")
    } else {
        (&*served.api_version, &*served.resource.kind, &*served.resource.list_kind)
    };
    let formless = || ApiError::internal(format!("{kind} has no protobuf form"));
    let writer = ObjectWriter::new(api_version, kind).ok_or_else(formless)?;
    let written = |entry: &Arc<Entry>| {
        let write = || {
            let object = writer.write(&entry.value).map_err(ApiError::internal)?;
            Ok(Bytes::from(object.into_boxed_slice()))
        };
        if partial {
            write()
        } else if served.is_direct(entry) {
            entry.derived.get(&inner.protobuf, write)
        } else {
            Ok(writer.write_value(&served.object(entry)?).into())
        }
    };
    let items = found.entries.iter().map(written).collect::<Result<Vec<Bytes>, ApiError>>()?;
    let size = items.iter().map(Bytes::len).sum();
    let head = list_head(api_version, list_kind, &list_metadata(found), size).ok_or_else(formless)?;
    let ends = |end: Vec<u8>| std::iter::once(Bytes::from(end));
    let mut parts = ends(head).chain(items).chain(ends(list_tail()));
    let mut left = size;
    let pieces = std::iter::from_fn(move || {
        let first = parts.next()?;
        let mut out = BytesMut::with_capacity(PIECE.min(first.len() + left) + 4096);
        out.put_slice(&first);
        while out.len() < PIECE
            && let Some(part) = parts.next()
        {
            out.put_slice(&part);
        }
        left = left.saturating_sub(out.len());
        Some(Ok(out.freeze()))
    });
    streamed(PROTOBUF, pieces)
}

fn whole(media: Media, bytes: Bytes) -> Result<Response, ApiError> {
    if media.form == Form::Yaml || media.pretty || media.beta {
        let value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
        return Ok(respond::document(200, media, &value));
    }
    Ok(respond::plain(200, "application/json", Body::from(bytes)))
}

/// The list's bytes, in pieces made one after the other as the connection takes them.
fn pieces(
    served: Arc<Served>,
    head: String,
    entries: Vec<Arc<Entry>>,
) -> impl Iterator<Item = Result<Bytes, ApiError>> + Send {
    let mut entries = entries.into_iter();
    let mut head = Some(head);
    let mut first = true;
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let mut out = BytesMut::with_capacity(PIECE.min(4096 + entries.len() * 1024));
        if let Some(head) = head.take() {
            out.put_slice(head.as_bytes());
        }
        while out.len() < PIECE {
            let Some(entry) = entries.next() else {
                out.put_slice(b"]}\n");
                done = true;
                break;
            };
            let wire = match served.wire(&entry) {
                Ok(wire) => wire,
                Err(error) => {
                    done = true;
                    return Some(Err(error));
                }
            };
            if !std::mem::take(&mut first) {
                out.put_u8(b',');
            }
            // Items of custom resources have a version and a kind, those of built-in kinds have none.
            out.put_slice(&wire);
        }
        Some(Ok(out.freeze()))
    })
}
