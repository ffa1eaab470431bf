//! What several targets share: how an input is cut into parts, and the way of a body into a built-in kind.
//!
//! Every target takes bytes as a client could send them. It fails when it panics, or goes beyond the memory or the time
//! that `fuzz/run` allows for one input.

use std::sync::Arc;

use apimachinery::{Object, decode, defaults, structure};
use kinds::Resource;
use serde_json::Value;

/// The parts of an input, which NUL divides: bytes that no text of the API holds. Missing ones are empty.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut split = input.splitn(N, |byte| *byte == 0);
    [(); N].map(|()| split.next().unwrap_or_default())
}

/// The part as a JSON value.
pub fn json(part: &[u8]) -> Option<Value> {
    decode::json(part).ok().map(|decoded| decoded.value)
}

/// The built-in kind that an object says it is.
pub fn kind_of(object: &Value) -> Option<&'static Arc<Resource>> {
    let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    kinds::all().iter().find(|known| *known.kind == *kind && known.api_version() == version)
}

/// Brings an object into the shape of its built-in kind, as a create does before it is validated.
pub fn shaped(resource: &Resource, mut object: Object) -> Option<Object> {
    structure::check(&object, &resource.schema).ok()?;
    structure::prune(&mut object, &resource.schema);
    structure::canonicalize(&mut object, &resource.schema).ok()?;
    structure::always(&mut object, &resource.schema);
    defaults::apply(&mut object, &resource.schema);
    resource.strategy.default(&mut object);
    Some(object)
}
