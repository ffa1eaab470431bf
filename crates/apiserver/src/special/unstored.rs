//! Objects that are made when they are asked for and stored nowhere: metrics, the states of components.

use apimachinery::{ApiError, Object};
use serde_json::{Value, json};

use crate::{
    Response,
    catalogue::Served,
    negotiate::{Media, Transform},
    respond,
    server::Call,
    table,
};

/// The answer to a GET of one of them, which is the first of `items`, or of all.
pub fn answer(call: &Call, served: &Served, media: Media, items: Vec<Object>) -> Result<Response, ApiError> {
    let one = call.info.named_by_path;
    media.fits(&served.resource, !one)?;
    if one && items.is_empty() {
        return Err(served.not_found(&call.info.name));
    }
    if media.transform == Transform::Table {
        let include = table::Include::parse(call.query.text("includeObject"))?;
        let mut shown = table::head(&served.resource);
        let rows = items.iter().map(|item| table::row(&served.resource, item, include, call.now));
        shown["rows"] = rows.collect::<Vec<_>>().into();
        return Ok(respond::document(200, media, &shown));
    }
    let partial = media.transform != Transform::None;
    let bare = |mut item: Object| {
        if partial {
            return json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"],
            });
        }
        // Items of built-in kinds do not say what they are.
        if let Some(fields) = item.as_object_mut().filter(|_| !one && served.resource.builtin) {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        item
    };
    let mut items: Vec<Value> = items.into_iter().map(bare).collect();
    if one {
        return Ok(respond::document(200, media, &items.remove(0)));
    }
    let (kind, version) = if partial {
        ("PartialObjectMetadataList", "meta.k8s.io/v1")
    } else {
        (&*served.resource.list_kind, &*served.api_version)
    };
    let list = json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": items});
    Ok(respond::document(200, media, &list))
}
