//! Changes to objects: JSON patch (RFC 6902), merge patch (RFC 7396), strategic merge patch.
//!
//! Codes and words of the errors are those of `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

mod strategic;

use serde_json::{Map, Value, json};

pub use strategic::strategic;

use crate::{decode, status::ApiError, structure::json_type};

/// More operations than this in one JSON patch are refused with 413.
const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations of one patch may copy together, in bytes of JSON.
const MAX_COPIED: usize = 3 << 20;

/// The 422 that hides what exactly went wrong, as upstream's does.
fn rejected() -> ApiError {
    let mut error =
        ApiError::other(422, "Invalid", "the server rejected our request due to an error in our request");
    error.details = Some(json!({}));
    error
}

fn bad_patch(why: &str) -> ApiError {
    ApiError::bad_request(format!("error decoding patch: {why}"))
}

/// Reads the bytes of a patch.
///
/// # Errors
/// 400 when they are no JSON; upstream does not say why.
pub fn read(patch: &[u8]) -> Result<Value, ApiError> {
    decode::json(patch).map(|decoded| decoded.value).map_err(|error| {
        // A number that Go's floats cannot hold is JSON all the same.
        let number = error.message.starts_with("json: ");
        ApiError::bad_request(if number { error.message } else { "invalid JSON patch".to_owned() })
    })
}

/// Applies a JSON patch.
///
/// # Errors
/// 400 when it is no list of operations, 413 when there are too many, 422 when one of them fails.
pub fn json(doc: Value, patch: &[u8]) -> Result<Value, ApiError> {
    let patch = read(patch)?;
    let operations = match patch {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        other => {
            let kind = json_type(&other);
            return Err(bad_patch(&format!(
                "json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
            )));
        }
    };
    if let Some(odd) = operations.iter().find(|o| !o.is_object() && !o.is_null()) {
        let kind = json_type(odd);
        return Err(bad_patch(&format!(
            "json: cannot unmarshal {kind} into Go value of type handlers.jsonPatchOp"
        )));
    }
    if operations.len() > MAX_OPERATIONS {
        let found = operations.len();
        return Err(ApiError::other(
            413,
            "RequestEntityTooLarge",
            format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {found}"
            ),
        ));
    }
    let mut doc = doc;
    let mut copied = 0;
    for operation in operations {
        step(&mut doc, operation, &mut copied).map_err(|_| rejected())?;
    }
    Ok(doc)
}

/// Applies operations one after the other. `None`: a `test` among them failed.
///
/// # Errors
/// There are too many, or one is none or cannot be applied.
pub fn operations(mut doc: Value, operations: Vec<Value>) -> Result<Option<Value>, String> {
    if operations.len() > MAX_OPERATIONS {
        let found = operations.len();
        return Err(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {found}"
        ));
    }
    let mut copied = 0;
    for operation in operations {
        match step(&mut doc, operation, &mut copied) {
            Ok(()) => {}
            Err(Failed::Test) => return Ok(None),
            Err(Failed::Other(why)) => return Err(why),
        }
    }
    Ok(Some(doc))
}

/// Why an operation was not applied.
enum Failed {
    /// It is a test, and what is there is something else.
    Test,
    Other(String),
}

/// What a test of a member that an object does not have comes to; `None` when this is no such test. Upstream's library
/// (evanphx/json-patch, `test`) takes such a member for null, and clients test so that there are no finalizers yet.
fn absent(doc: &Value, operation: &Value) -> Option<Result<(), Failed>> {
    let path = operation["path"].as_str().filter(|_| operation["op"] == "test")?;
    let (parent, _) = path.rsplit_once('/')?;
    if !doc.pointer(parent)?.is_object() || doc.pointer(path).is_some_and(|found| !found.is_null()) {
        return None;
    }
    let null = operation.get("value").is_none_or(Value::is_null);
    Some(if null { Ok(()) } else { Err(Failed::Test) })
}

/// Upstream's library lets `replace` make a member of a map that is there, other than RFC 6902 has it.
fn lenient(doc: &Value, operation: json_patch::PatchOperation) -> json_patch::PatchOperation {
    use json_patch::{AddOperation, PatchOperation};
    match operation {
        PatchOperation::Replace(replace)
            if replace
                .path
                .as_str()
                .rsplit_once('/')
                .and_then(|(parent, _)| doc.pointer(parent))
                .is_some_and(Value::is_object) =>
        {
            PatchOperation::Add(AddOperation { path: replace.path, value: replace.value })
        }
        other => other,
    }
}

/// Applies one operation. `copied` counts the bytes that were copied so far.
fn step(doc: &mut Value, operation: Value, copied: &mut usize) -> Result<(), Failed> {
    if let Some(tested) = absent(doc, &operation) {
        return tested;
    }
    let operation: json_patch::PatchOperation =
        serde_json::from_value(operation).map_err(|why| Failed::Other(why.to_string()))?;
    let operation = lenient(doc, operation);
    if let json_patch::PatchOperation::Copy(copy) = &operation {
        let missing = || Failed::Other(format!("copy operation does not apply: no {:?}", copy.from.as_str()));
        let source = doc.pointer(copy.from.as_str()).ok_or_else(missing)?;
        *copied += serde_json::to_vec(source).map_or(usize::MAX / 2, |text| text.len());
        if *copied > MAX_COPIED {
            return Err(Failed::Other("copy operations copy too much".to_owned()));
        }
    }
    json_patch::patch(doc, std::slice::from_ref(&operation)).map_err(|why| match why.kind {
        json_patch::PatchErrorKind::TestFailed => Failed::Test,
        _ => Failed::Other(why.to_string()),
    })
}

/// What strict decoding finds in a JSON patch itself: `json patch unknown field "[0].foo"`.
#[must_use]
pub fn json_strict(patch: &[u8]) -> Vec<String> {
    let Ok(decoded) = decode::json(patch) else { return Vec::new() };
    let mut found = decoded.duplicates;
    for (index, operation) in decoded.value.as_array().into_iter().flatten().enumerate() {
        for key in operation.as_object().into_iter().flatten().map(|(k, _)| k) {
            if !matches!(key.as_str(), "op" | "path" | "from" | "value") {
                found.push(format!("unknown field {:?}", format!("[{index}].{key}")));
            }
        }
    }
    found.into_iter().map(|text| format!("json patch {text}")).collect()
}

/// Applies a merge patch: null deletes, objects merge, everything else replaces.
///
/// # Errors
/// 400 when the patch is no object.
pub fn merge(doc: Value, patch: Value) -> Result<Value, ApiError> {
    match patch {
        Value::Object(patch) => Ok(merge_into(doc, patch)),
        Value::Null => Ok(doc),
        other => {
            let kind = json_type(&other);
            Err(bad_patch(&format!(
                "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
            )))
        }
    }
}

fn merge_into(doc: Value, patch: Map<String, Value>) -> Value {
    let Value::Object(mut doc) = doc else {
        let mut fresh = Value::Object(patch);
        drop_nulls(&mut fresh);
        return fresh;
    };
    for (key, change) in patch {
        match change {
            Value::Null => {
                doc.remove(&key);
            }
            Value::Object(change) => {
                let before = doc.remove(&key).unwrap_or(Value::Null);
                doc.insert(key, merge_into(before, change));
            }
            mut other => {
                drop_nulls(&mut other);
                doc.insert(key, other);
            }
        }
    }
    Value::Object(doc)
}

/// Drops the null fields of all objects inside; null items of lists stay.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_json_patch_acts_in_order() {
        let doc = json!({"a": {"b": [1, 2]}});
        let patch = br#"[{"op":"add","path":"/a/b/-","value":3},{"op":"test","path":"/a/b/2","value":3},
            {"op":"remove","path":"/a/b/0"},{"op":"copy","from":"/a/b","path":"/c"},{"op":"replace","path":"/a","value":null}]"#;
        assert_eq!(json(doc, patch), Ok(json!({"a": null, "c": [2, 3]})));
    }

    #[test]
    fn replacing_a_member_that_is_not_there_makes_it() {
        let patch = br#"[{"op":"replace","path":"/a/b","value":3}]"#;
        assert_eq!(json(json!({"a": {}}), patch), Ok(json!({"a": {"b": 3}})));
        assert!(json(json!({"a": []}), br#"[{"op":"replace","path":"/a/0","value":3}]"#).is_err());
        assert!(json(json!({}), patch).is_err());
    }

    #[test]
    fn a_failing_operation_is_a_422_without_the_reason() {
        for patch in [
            &br#"[{"op":"remove","path":"/x"}]"#[..],
            br#"[{"op":"test","path":"/a","value":2}]"#,
            br#"[{"op":"add","path":"/x/y","value":2}]"#,
            br#"[{"op":"jump","path":"/x"}]"#,
            br#"[{"path":"/x"}]"#,
        ] {
            let error = json(json!({"a": 1}), patch).expect_err("must fail");
            assert_eq!((error.code, error.reason), (422, "Invalid"));
            assert_eq!(error.message, "the server rejected our request due to an error in our request");
            assert_eq!(error.details, Some(json!({})));
        }
    }

    #[test]
    fn a_member_that_is_not_there_is_null_to_a_test() {
        let patched = |patch: &str| json(json!({"m": {"n": null}, "l": []}), patch.as_bytes());
        // As kube's runtime adds the first finalizer.
        let first = r#"[{"op":"test","path":"/m/finalizers","value":null},
            {"op":"add","path":"/m/finalizers","value":["f"]}]"#;
        assert_eq!(patched(first), Ok(json!({"m": {"n": null, "finalizers": ["f"]}, "l": []})));
        for holds in [r#"{"op":"test","path":"/x"}"#, r#"{"op":"test","path":"/m/n","value":null}"#] {
            assert!(patched(&format!("[{holds}]")).is_ok(), "{holds}");
        }
        for fails in [
            r#"{"op":"test","path":"/x","value":1}"#,
            r#"{"op":"test","path":"/m/n","value":1}"#,
            r#"{"op":"test","path":"/m","value":null}"#,
            r#"{"op":"test","path":"/x/y","value":null}"#,
            r#"{"op":"test","path":"/l/0","value":null}"#,
        ] {
            assert!(patched(&format!("[{fails}]")).is_err(), "{fails}");
        }
    }

    #[test]
    fn a_malformed_json_patch_is_a_400() {
        let error = json(json!({}), b"{}").expect_err("no list");
        assert_eq!(error.code, 400);
        assert_eq!(
            error.message,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        );
        assert_eq!(json(json!({}), b"[").expect_err("cut").message, "invalid JSON patch");
        let number = "json: cannot unmarshal number 1e999 into Go value of type float64";
        assert_eq!(read(br#"{"a":1e999}"#).expect_err("too large").message, number);
    }

    #[test]
    fn too_many_operations_and_copies_that_explode_are_refused() {
        let many = format!("[{}{{}}]", "{},".repeat(10_000));
        assert_eq!(json(json!({}), many.as_bytes()).expect_err("too many").code, 413);
        let mut operations = vec![r#"{"op":"add","path":"/a","value":"xxxxxxxxxxxxxxxx"}"#.to_owned()];
        for _ in 0..40 {
            operations.push(r#"{"op":"copy","from":"","path":"/b"}"#.to_owned());
            operations.push(r#"{"op":"copy","from":"/b","path":"/b/c"}"#.to_owned());
        }
        let bomb = format!("[{}]", operations.join(","));
        assert_eq!(json(json!({}), bomb.as_bytes()).expect_err("bomb").code, 422);
    }

    #[test]
    fn strict_decoding_looks_into_the_patch() {
        assert_eq!(
            json_strict(br#"[{"op":"add","op":"add","foo":1}]"#),
            [r#"json patch duplicate field "[0].op""#, r#"json patch unknown field "[0].foo""#]
        );
    }

    #[test]
    fn a_merge_patch_deletes_with_null_and_replaces_lists() {
        let doc = json!({"a": {"b": 1, "c": 2}, "l": [1]});
        let patch = json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [2, 3]});
        assert_eq!(merge(doc, patch), Ok(json!({"a": {"c": 2, "d": {"f": 1}}, "l": [2, 3]})));
        let error = merge(json!({}), json!([1])).expect_err("no object");
        assert_eq!(
            error.message,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..9i64).prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-c]", value(), 0..4)
            .prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_merge_patch_applied_twice_is_the_same_as_once(doc in object(), patch in object()) {
            let once = merge(doc, patch.clone()).expect("objects");
            prop_assert_eq!(merge(once.clone(), patch).expect("objects"), once);
        }

        #[test]
        fn a_difference_turns_one_document_into_the_other(from in value(), to in value()) {
            let patch = serde_json::to_vec(&json_patch::diff(&from, &to)).expect("a patch is JSON");
            prop_assert_eq!(json(from, &patch).expect("fits"), to);
        }
    }
}
