//! How an object lies in the store, so that reads never encode.
//!
//! The stored bytes are the object's JSON without `apiVersion` and `kind`, `metadata` first and `resourceVersion` first
//! in it: `{"metadata":{"resourceVersion":"12",…},"spec":…}`. So the revision always stands at byte [`REVISION_AT`], the
//! store splices it in, and an answer is the kind's head followed by the stored bytes without their first brace.
//!
//! A custom resource has several versions and may lie there in any of them, so its `apiVersion` and `kind` are stored
//! too, as the last fields ([`tail`]): the end of a value tells its version without reading it, and its head is a brace.

use apimachinery::{ApiError, Object};
use bytes::Bytes;
use serde_json::{Map, Value, value::RawValue};

const OPENING: &[u8] = br#"{"metadata":{"resourceVersion":""#;

/// Where the digits of the revision begin in every stored value.
pub const REVISION_AT: usize = OPENING.len();

/// The last fields of a stored custom resource: `,"apiVersion":"example.com/v1","kind":"Widget"}`.
#[must_use]
pub fn tail(api_version: &str, kind: &str) -> Bytes {
    format!(r#","apiVersion":{},"kind":{}}}"#, Value::from(api_version), Value::from(kind)).into()
}

/// The bytes to store, with an empty revision. `tail`: see [`tail`], empty for a built-in kind.
pub fn encode(object: &Object, tail: &[u8]) -> Result<Bytes, ApiError> {
    let empty = Map::new();
    let object = object.as_object().ok_or_else(|| ApiError::internal("an object must be a JSON object"))?;
    let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut out = Vec::with_capacity(2048);
    out.extend_from_slice(OPENING);
    out.push(b'"');
    fields(&mut out, metadata, &["resourceVersion"])?;
    out.push(b'}');
    fields(&mut out, object, &["apiVersion", "kind", "metadata"])?;
    out.extend_from_slice(if tail.is_empty() { b"}" } else { tail });
    Ok(out.into())
}

fn fields(out: &mut Vec<u8>, map: &Map<String, Value>, except: &[&str]) -> Result<(), ApiError> {
    for (key, value) in map {
        if !except.contains(&key.as_str()) {
            out.push(b',');
            serde_json::to_writer(&mut *out, key).map_err(ApiError::internal)?;
            out.push(b':');
            serde_json::to_writer(&mut *out, value).map_err(ApiError::internal)?;
        }
    }
    Ok(())
}

/// The digits that stand in a stored value; empty when it is not one of ours.
#[must_use]
pub fn revision(stored: &[u8]) -> &str {
    if !stored.starts_with(OPENING) {
        return "";
    }
    let digits = stored[REVISION_AT..].iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&stored[REVISION_AT..REVISION_AT + digits]).unwrap_or_default()
}

/// The same value with an empty revision, to be stored again.
#[must_use]
pub fn without_revision(stored: &Bytes) -> Bytes {
    let digits = revision(stored).len();
    if digits == 0 {
        return stored.clone();
    }
    let mut out = Vec::with_capacity(stored.len());
    out.extend_from_slice(&stored[..REVISION_AT]);
    out.extend_from_slice(&stored[REVISION_AT + digits..]);
    out.into()
}

/// The value as the store made it of [`encode`]'s bytes at `revision`.
#[must_use]
pub fn with_revision(encoded: &Bytes, revision: &str) -> Bytes {
    let mut out = Vec::with_capacity(encoded.len() + revision.len());
    out.extend_from_slice(&encoded[..REVISION_AT]);
    out.extend_from_slice(revision.as_bytes());
    out.extend_from_slice(&encoded[REVISION_AT..]);
    out.into()
}

/// The value of [`encode`] as an object that was never stored is served: without a revision.
#[must_use]
pub fn never_stored(encoded: &Bytes) -> Bytes {
    const MEMBER: usize = br#""resourceVersion":"","#.len();
    let begin = OPENING.len() - br#""resourceVersion":""#.len();
    // Metadata always holds a name.
    let mut out = encoded[..begin].to_vec();
    out.extend_from_slice(encoded.get(begin + MEMBER..).unwrap_or_default());
    out.into()
}

/// Whether two values are the same but for their revisions.
#[must_use]
pub fn same_content(stored: &[u8], encoded: &[u8]) -> bool {
    let digits = revision(stored).len();
    stored.len() == encoded.len() + digits
        && stored.starts_with(OPENING)
        && stored[REVISION_AT + digits..] == encoded[REVISION_AT..]
}

/// The object of a value that is all it is served as, with its kind.
pub fn decode(stored: &[u8], api_version: &str, kind: &str) -> Result<Object, ApiError> {
    let mut object: Value = serde_json::from_slice(stored).map_err(ApiError::internal)?;
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), api_version.into());
        map.insert("kind".to_owned(), kind.into());
    }
    Ok(object)
}

/// The `metadata` of a stored value, as it stands there.
pub fn metadata(stored: &[u8]) -> Result<&RawValue, ApiError> {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    serde_json::from_slice::<Head<'_>>(stored).map(|h| h.metadata).map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_always_stands_at_the_same_byte() {
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1", "data": {"resourceVersion": "", "metadata": "{\"a\":1}"},
            "metadata": {"name": "x", "resourceVersion": "7"},
        });
        let stored = with_revision(&encode(&object, b"").unwrap(), "42");
        assert_eq!(revision(&stored), "42");
        let back = decode(&stored, "v1", "ConfigMap").unwrap();
        assert_eq!(back["metadata"], json!({"name": "x", "resourceVersion": "42"}));
        assert_eq!(back["data"], object["data"]);
        assert_eq!(with_revision(&without_revision(&stored), "42"), stored);
        assert!(same_content(&stored, &encode(&object, b"").unwrap()));
        let plain = decode(&never_stored(&encode(&object, b"").unwrap()), "v1", "ConfigMap").unwrap();
        assert_eq!(plain["metadata"], json!({"name": "x"}));
    }

    #[test]
    fn the_end_of_a_custom_resource_is_its_version() {
        let object = json!({"spec": {"apiVersion": "a/v1", "kind": "K"}, "metadata": {}});
        let (one, two) = (tail("a/v1", "K"), tail("a/v2", "K"));
        assert!(!encode(&object, b"").unwrap().ends_with(&one), "fields inside are none of the object's own");
        let stored = encode(&object, &two).unwrap();
        assert!(stored.ends_with(&two) && !stored.ends_with(&one));
        let back: Value = serde_json::from_slice(&stored).unwrap();
        assert_eq!(back["apiVersion"], "a/v2");
    }
}
