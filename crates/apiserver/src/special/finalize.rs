//! `namespaces/NAME/finalize`: the only way to take away a namespace's own finalizers.

use apimachinery::ApiError;
use bytes::Bytes;

use crate::{
    Response,
    catalogue::Served,
    fields, negotiate,
    negotiate::Offer,
    options, respond,
    server::{Call, Inner},
    shape,
    verbs::update,
};

/// PUT of `finalize`: takes `spec.finalizers` of the body, nothing else.
pub(crate) async fn finalize(
    inner: &Inner,
    call: &mut Call,
    served: &Served,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Object)?;
    let options = options::Write::parse(&call.query, "UpdateOptions", false)?;
    let encoding = negotiate::body(&call.headers)?;
    let object = shape::body(served, body, encoding, options.validation, call)?;
    let wanted = object["spec"]["finalizers"].clone();
    let asked = object["metadata"]["resourceVersion"].clone();
    let tracker = fields::Tracker::new(call, served, &options);
    let changed = update::change(inner, call, served, &options, |old, _| {
        let mut new = old.clone();
        new["metadata"]["resourceVersion"] = asked.clone();
        match new["spec"].as_object_mut() {
            Some(spec) if wanted.as_array().is_none_or(Vec::is_empty) => {
                spec.remove("finalizers");
            }
            _ => new["spec"]["finalizers"] = wanted.clone(),
        }
        tracker.update(Some(old), &mut new);
        Ok(new)
    })
    .await?;
    respond::written(200, media, served, &changed, &call.query)
}
