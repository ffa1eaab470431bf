//! Strategic merge patch: a merge patch that knows from the schema which lists are merged, and by which key.
//!
//! Directives in a patch: `$patch: replace|merge|delete` in an object or list item, `$retainKeys`,
//! `$setElementOrder/FIELD`, `$deleteFromPrimitiveList/FIELD`.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use serde_json::{Map, Value, json};

use crate::{
    schema::{PatchStrategy, Schema},
    status::ApiError,
};

type Object = Map<String, Value>;

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder";
const DELETE: &str = "$deleteFromPrimitiveList";

/// Applies a strategic merge patch to a built-in object in its external form.
///
/// # Errors
/// 400 for malformed directives, 422 for lists of lists; like upstream, a code of 500 without a reason for the rest,
/// such as an item without its merge key.
pub fn strategic(doc: Value, patch: Value, schema: &Schema) -> Result<Value, ApiError> {
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Null => Object::new(),
        other => {
            let kind = super::json_type(&other);
            return Err(ApiError::bad_request(format!(
                "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
            )));
        }
    };
    let doc = match doc {
        Value::Object(doc) => doc,
        _ => Object::new(),
    };
    merge_object(doc, patch, Some(schema)).map(Value::Object).map_err(Wrong::told)
}

/// What can be wrong with a patch.
enum Wrong {
    Format(&'static str),
    ListOfLists,
    Other(String),
}

impl Wrong {
    fn told(self) -> ApiError {
        match self {
            Self::Format(what) => ApiError::bad_request(format!("invalid patch format of {what}")),
            Self::ListOfLists => super::rejected(),
            Self::Other(text) => ApiError::other(500, "", text),
        }
    }

    fn no_key(item: &Value, key: &str) -> Self {
        Self::Other(format!("map: {} does not contain declared merge key: {key}", go_print(item)))
    }

    /// A value that is no list: told by its type.
    fn no_list(found: &Value) -> Self {
        let found = match found {
            Value::Array(_) => "[]interface {}",
            Value::Object(_) => "map[string]interface {}",
            other => Self::kind(other),
        };
        Self::Other(format!("expected a []interface {{}}, but received a {found}"))
    }

    /// An item that is no object: told by its kind.
    fn no_map(found: &Value) -> Self {
        Self::Other(format!("expected a map, but received a {}", Self::kind(found)))
    }

    fn kind(value: &Value) -> &'static str {
        match value {
            Value::Null => "nil",
            Value::Bool(_) => "bool",
            Value::Number(n) if n.is_f64() => "float64",
            Value::Number(_) => "int64",
            Value::String(_) => "string",
            Value::Array(_) => "slice",
            Value::Object(_) => "map",
        }
    }
}

/// A value as Go's `%v` prints it.
fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut out = String::from("map[");
            for (index, (key, value)) in map.iter().enumerate() {
                let _ = write!(out, "{}{key}:{}", if index > 0 { " " } else { "" }, go_print(value));
            }
            out + "]"
        }
        other => other.to_string(),
    }
}

fn strategy(schema: Option<&Schema>) -> PatchStrategy {
    schema.map(|s| s.patch_strategy).unwrap_or_default()
}

fn merge_key(schema: Option<&Schema>) -> &str {
    schema.and_then(|s| s.patch_merge_key.as_deref()).unwrap_or_default()
}

fn field<'a>(schema: Option<&'a Schema>, name: &str) -> Option<&'a Schema> {
    schema.and_then(|s| s.field(name)).map(AsRef::as_ref)
}

fn bad_directive(directive: &Value, patch: Object) -> Wrong {
    let patch = go_print(&Value::Object(patch));
    Wrong::Other(format!("unknown patch type: {} in map: {patch}", go_print(directive)))
}

fn merge_object(mut doc: Object, mut patch: Object, schema: Option<&Schema>) -> Result<Object, Wrong> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(PATCH);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(bad_directive(&directive.clone(), patch)),
        };
    }
    retain_keys(&mut doc, &mut patch)?;
    set_orders(&mut doc, &mut patch, schema)?;
    for (key, change) in patch {
        if let Some(rest) = key.strip_prefix(DELETE) {
            let name = rest.strip_prefix('/').ok_or(Wrong::Format("primitive list"))?;
            delete_scalars(&mut doc, name, change, field(schema, name))?;
            continue;
        }
        if change.is_null() {
            doc.remove(&key);
            continue;
        }
        let below = field(schema, &key);
        let merged = match (doc.remove(&key), change) {
            (Some(Value::Object(_)), change @ Value::Object(_)) if strategy(below).replace => Some(change),
            (Some(Value::Object(before)), Value::Object(change)) => {
                Some(Value::Object(merge_object(before, change, below)?))
            }
            (Some(Value::Array(before)), Value::Array(change)) => {
                if strategy(below).merge {
                    Some(Value::Array(merge_list(before, change, below)?))
                } else {
                    Some(Value::Array(change))
                }
            }
            (_, change) => fresh(change),
        };
        if let Some(merged) = merged {
            doc.insert(key, merged);
        }
    }
    Ok(doc)
}

/// A value that meets nothing to merge with: without nulls and what has `$patch`. Other directives stay, as fields that
/// no kind has. `None`: it deletes itself.
fn fresh(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            if map.contains_key(PATCH) {
                return None;
            }
            let fields = map.into_iter().filter(|(_, v)| !v.is_null());
            Some(Value::Object(fields.filter_map(|(k, v)| Some((k, fresh(v)?))).collect()))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(fresh).collect())),
        leaf => Some(leaf),
    }
}

/// `$retainKeys`: drops the fields of `doc` that are not listed. All that the patch sets has to be listed.
fn retain_keys(doc: &mut Object, patch: &mut Object) -> Result<(), Wrong> {
    let Some(keys) = patch.remove(RETAIN) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(Wrong::Format("retainKeys")) };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let listed = |key: &str| keys.contains(key);
    for (key, change) in patch.iter() {
        if !change.is_null() && !key.starts_with(DELETE) && !key.starts_with(ORDER) && !listed(key) {
            return Err(Wrong::Format("retainKeys"));
        }
    }
    doc.retain(|key, _| listed(key));
    Ok(())
}

/// `$deleteFromPrimitiveList/FIELD`: as upstream, a patch of the field if the list holds no scalars or is none. What is of
/// another type than the field is not looked at.
fn delete_scalars(doc: &mut Object, name: &str, doomed: Value, schema: Option<&Schema>) -> Result<(), Wrong> {
    if doomed.is_null() {
        doc.remove(name);
        return Ok(());
    }
    let Some(before) = doc.remove(name) else { return Ok(()) };
    let after = match (before, doomed) {
        (Value::Array(mut list), Value::Array(doomed)) => {
            let both_empty = list.is_empty() && doomed.is_empty();
            if !both_empty && element_kind(list.iter().chain(&doomed))? {
                merge_list(list, doomed, schema)?.into()
            } else {
                let doomed: HashSet<String> = doomed.iter().map(Value::to_string).collect();
                list.retain(|item| !doomed.contains(&item.to_string()));
                list.into()
            }
        }
        (Value::Object(_), Value::Object(change)) if strategy(schema).replace => change.into(),
        (Value::Object(before), Value::Object(change)) => merge_object(before, change, schema)?.into(),
        (before, change) if Wrong::kind(&before) == Wrong::kind(&change) => change,
        (before, _) => before,
    };
    doc.insert(name.to_owned(), after);
    Ok(())
}

/// `$setElementOrder/FIELD`: merges the field at once and brings its items in order.
fn set_orders(doc: &mut Object, patch: &mut Object, schema: Option<&Schema>) -> Result<(), Wrong> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ORDER)).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        let Value::Array(order) = order else { return Err(Wrong::no_list(&order)) };
        let name = directive
            .strip_prefix(ORDER)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or(Wrong::Format("setElementOrder list"))?;
        let take = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(Wrong::no_list(&other)),
        };
        let before = take(doc.get(name).cloned())?;
        // A null in the patch deletes the field: leave it to the merge.
        if patch.get(name).is_some_and(Value::is_null) {
            continue;
        }
        let change = take(patch.get(name).cloned())?;
        let below = field(schema, name);
        let key = merge_key(below);
        check_order(change.as_deref().unwrap_or_default(), &order, key)?;
        let merged = match (before.clone(), change.clone()) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(change)) => match fresh(Value::Array(change)) {
                Some(Value::Array(list)) => list,
                _ => continue,
            },
            (Some(before), Some(change)) if strategy(below).merge => merge_list(before, change, below)?,
            (Some(_), Some(change)) => change,
        };
        let before = before.unwrap_or_default();
        let objects = element_kind(before.iter().chain(change.iter().flatten()))?;
        let key = if objects { key } else { "" };
        doc.insert(name.to_owned(), Value::Array(ordered(merged, &order, &before, key)?));
        patch.remove(name);
    }
    Ok(())
}

/// The items of a patch have to come in the order that it asks for.
fn check_order(change: &[Value], order: &[Value], key: &str) -> Result<(), Wrong> {
    if change.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    for item in change.iter().filter(|i| i.get(PATCH).is_none()) {
        let id = identity(item, key)?;
        let found =
            wanted.by_ref().map(|o| identity(o, key)).find(|o| !matches!(o, Ok(other) if *other != id));
        match found {
            Some(Ok(_)) => {}
            Some(Err(wrong)) => return Err(wrong),
            None => {
                return Err(Wrong::Other(format!(
                    "The order in patch list:\n{}\n doesn't match {ORDER} list:\n{}\n",
                    go_print(&json!(change)),
                    go_print(&json!(order))
                )));
            }
        }
    }
    Ok(())
}

/// What tells items of a list apart: their merge key, or themselves.
fn identity<'a>(item: &'a Value, key: &str) -> Result<&'a Value, Wrong> {
    if key.is_empty() {
        return Ok(item);
    }
    let map = item.as_object().ok_or_else(|| Wrong::no_map(item))?;
    map.get(key).ok_or_else(|| Wrong::no_key(item, key))
}

/// Whether the items are objects. All have to be of one type.
fn element_kind<'a>(items: impl Iterator<Item = &'a Value>) -> Result<bool, Wrong> {
    let mut first: Option<&Value> = None;
    for item in items {
        if item.is_array() {
            return Err(Wrong::ListOfLists);
        }
        match first {
            None => first = Some(item),
            Some(first) if super::json_type(first) != super::json_type(item) => {
                let list = go_print(&json!([first, item]));
                return Err(Wrong::Other(format!("list element types are not identical: {list}")));
            }
            Some(_) => {}
        }
    }
    Ok(first.is_some_and(Value::is_object))
}

fn merge_list(before: Vec<Value>, change: Vec<Value>, schema: Option<&Schema>) -> Result<Vec<Value>, Wrong> {
    if before.is_empty() && change.is_empty() {
        return Ok(before);
    }
    if !element_kind(before.iter().chain(&change))? {
        let mut seen = HashSet::new();
        let all = before.iter().chain(&change);
        let merged = all.filter(|item| seen.insert(item.to_string())).cloned().collect();
        return ordered(merged, &change, &before, "");
    }
    let key = merge_key(schema);
    if key.is_empty() {
        let name = schema.and_then(|s| s.items.as_ref()).and_then(|i| i.name.as_deref()).unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or_default();
        return Err(Wrong::Other(format!("cannot merge lists without merge key for {name}")));
    }
    let items = schema.and_then(|s| s.items.as_deref());
    let (mut merged, change) = special_items(before.clone(), change, key)?;
    let mut places = Places::of(&merged, key);
    for item in &change {
        let id = identity(item, key)?;
        match (places.get(id), item.clone()) {
            (Some(at), Value::Object(patch)) => {
                let doc = match std::mem::take(&mut merged[at]) {
                    Value::Object(doc) => doc,
                    _ => Object::new(),
                };
                merged[at] = Value::Object(merge_object(doc, patch, items)?);
            }
            // Nulls in it stay: the typed object drops them.
            (_, item) => {
                places.add(&item, key, merged.len());
                merged.push(item);
            }
        }
    }
    ordered(merged, &change, &before, key)
}

/// Where in a list each item stands first, by its identity: a patch may have as many items as fit into a request, so that
/// they are not looked for one by one.
struct Places(HashMap<String, usize>);

impl Places {
    fn of(list: &[Value], key: &str) -> Self {
        let mut places = Self(HashMap::with_capacity(list.len()));
        list.iter().enumerate().for_each(|(at, item)| places.add(item, key, at));
        places
    }

    fn add(&mut self, item: &Value, key: &str, at: usize) {
        let id = if key.is_empty() { Some(item) } else { item.get(key) };
        if let Some(id) = id {
            self.0.entry(id.to_string()).or_insert(at);
        }
    }

    fn get(&self, id: &Value) -> Option<usize> {
        self.0.get(&id.to_string()).copied()
    }
}

/// Carries out the items with `$patch`; returns what is left of both lists.
fn special_items(
    mut before: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Wrong> {
    let mut left = Vec::with_capacity(change.len());
    let mut doomed = HashSet::new();
    let mut replace = false;
    for item in change {
        let Some(directive) = item.get(PATCH) else {
            left.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                doomed.insert(identity(&item, key)?.to_string());
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(Wrong::Other("merging lists cannot yet be specified in the patch".to_owned()));
            }
            _ => {
                let directive = directive.clone();
                return Err(bad_directive(&directive, item.as_object().cloned().unwrap_or_default()));
            }
        }
    }
    if !doomed.is_empty() {
        before.retain(|item| item.get(key).is_none_or(|id| !doomed.contains(&id.to_string())));
    }
    Ok(if replace { (left, Vec::new()) } else { (before, left) })
}

/// Items named in `order` come in its order; the others keep their place relative to them as in `before`.
fn ordered(items: Vec<Value>, order: &[Value], before: &[Value], key: &str) -> Result<Vec<Value>, Wrong> {
    let (places, order) = (Places::of(before, key), Places::of(order, key));
    let mut named: Vec<(usize, Option<usize>, Value)> = Vec::new();
    let mut others: Vec<(usize, Value)> = Vec::new();
    for item in items {
        let id = identity(&item, key)?;
        let was = places.get(id);
        match order.get(id) {
            Some(at) => named.push((at, was, item)),
            None => others.push((was.unwrap_or(usize::MAX), item)),
        }
    }
    named.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(was, _)| *was);
    let mut merged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, was, item) in named {
        if let Some(was) = was {
            while let Some((_, other)) = others.next_if(|(other, _)| *other < was) {
                merged.push(other);
            }
        }
        merged.push(item);
    }
    merged.extend(others.map(|(_, item)| item));
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::schema::Type;

    fn schema() -> Schema {
        let merge = PatchStrategy { merge: true, ..PatchStrategy::default() };
        let item = Arc::new(Schema {
            kind: Some(Type::Object),
            properties: [(Arc::from("args"), scalars(merge))].into_iter().collect(),
            ..Schema::default()
        });
        let containers = Schema {
            kind: Some(Type::Array),
            items: Some(item),
            patch_strategy: merge,
            patch_merge_key: Some(Arc::from("name")),
            ..Schema::default()
        };
        Schema {
            kind: Some(Type::Object),
            properties: [
                (Arc::from("containers"), Arc::new(containers)),
                (Arc::from("finalizers"), scalars(merge)),
                (Arc::from("atomic"), scalars(PatchStrategy::default())),
            ]
            .into_iter()
            .collect(),
            ..Schema::default()
        }
    }

    fn scalars(patch_strategy: PatchStrategy) -> Arc<Schema> {
        Arc::new(Schema { kind: Some(Type::Array), patch_strategy, ..Schema::default() })
    }

    fn apply(doc: Value, patch: Value) -> Result<Value, (u16, String)> {
        strategic(doc, patch, &schema()).map_err(|e| (e.code, e.message))
    }

    #[test]
    fn lists_as_long_as_a_request_are_merged_in_good_time() {
        let begun = std::time::Instant::now();
        let many = 100_000;
        let names: Vec<Value> = (0..many).map(|n| json!({"name": n.to_string(), "args": ["a"]})).collect();
        let deleted: Vec<Value> =
            (0..many).map(|n| json!({"name": n.to_string(), "$patch": "delete"})).collect();
        let doc = json!({"containers": names});
        let merged = strategic(doc.clone(), doc.clone(), &schema()).unwrap();
        assert_eq!(merged, doc);
        let none = strategic(doc, json!({"containers": deleted}), &schema()).unwrap();
        assert_eq!(none, json!({"containers": []}));
        let args: Vec<Value> = (0..many).map(|n| json!(n.to_string())).collect();
        let long = json!({"containers": [{"name": "a", "args": args}]});
        assert_eq!(strategic(long.clone(), long.clone(), &schema()).unwrap(), long);
        // Looking for each among all would take minutes.
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
    }

    #[test]
    fn lists_with_a_merge_key_are_merged_by_it() {
        let doc = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]});
        let patch = json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "x": null}]});
        let merged = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "x": null}]});
        assert_eq!(apply(doc, patch), Ok(merged));
    }

    #[test]
    fn an_item_whose_key_is_null_is_another_item() {
        let doc = json!({"containers": [{"name": "a"}]});
        let patch = json!({"containers": [{"name": null, "image": "x"}]});
        assert_eq!(
            apply(doc, patch),
            Ok(json!({"containers": [{"name": null, "image": "x"}, {"name": "a"}]}))
        );
    }

    #[test]
    fn lists_without_a_strategy_are_replaced() {
        assert_eq!(apply(json!({"atomic": [1, 2]}), json!({"atomic": [3]})), Ok(json!({"atomic": [3]})));
    }

    #[test]
    fn items_and_objects_can_be_deleted_and_replaced() {
        let doc = json!({"containers": [{"name": "a"}, {"name": "b"}], "o": {"x": 1}});
        let patch =
            json!({"containers": [{"name": "a", "$patch": "delete"}], "o": {"$patch": "replace", "y": 2}});
        assert_eq!(apply(doc.clone(), patch), Ok(json!({"containers": [{"name": "b"}], "o": {"y": 2}})));
        let patch = json!({"containers": [{"name": "c"}, {"$patch": "replace"}], "o": {"$patch": "delete"}});
        assert_eq!(apply(doc, patch), Ok(json!({"containers": [{"name": "c"}], "o": {}})));
    }

    #[test]
    fn scalars_are_added_once_and_deleted_by_directive() {
        let doc = json!({"finalizers": ["a", "b", "c"]});
        assert_eq!(
            apply(doc.clone(), json!({"finalizers": ["d", "a"]})),
            Ok(json!({"finalizers": ["d", "a", "b", "c"]}))
        );
        assert_eq!(
            apply(doc, json!({"$deleteFromPrimitiveList/finalizers": ["b"]})),
            Ok(json!({"finalizers": ["a", "c"]}))
        );
    }

    #[test]
    fn a_deletion_of_scalars_that_is_no_list_or_meets_none_changes_nothing() {
        let doc = json!({"finalizers": ["a"], "o": {"x": 1}});
        for patch in [
            json!({"$deleteFromPrimitiveList/finalizers": "a"}),
            json!({"$deleteFromPrimitiveList/other": ["a"]}),
            json!({"$deleteFromPrimitiveList/o": ["x"]}),
        ] {
            assert_eq!(apply(doc.clone(), patch), Ok(doc.clone()));
        }
    }

    #[test]
    fn directives_that_meet_nothing_stay_as_fields_that_no_kind_has() {
        let patch = json!({"o": {"$retainKeys": [], "x": null}, "p": {"$patch": "replace"}});
        assert_eq!(apply(json!({}), patch), Ok(json!({"o": {"$retainKeys": []}})));
        let patch = json!({"$setElementOrder/o": "x"});
        let words = "expected a []interface {}, but received a string";
        assert_eq!(apply(json!({}), patch), Err((500, words.to_owned())));
    }

    #[test]
    fn an_order_is_kept_to_and_unlisted_items_keep_their_place() {
        let doc = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
        let patch = json!({
            "$setElementOrder/containers": [{"name": "c"}, {"name": "d"}, {"name": "a"}],
            "containers": [{"name": "d"}]
        });
        let names = |value: Value| -> Vec<String> {
            let list = value["containers"].as_array().cloned().unwrap_or_default();
            list.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(names(apply(doc, patch).expect("valid")), ["b", "c", "d", "a"]);
    }

    #[test]
    fn retained_keys_drop_the_others() {
        let doc = json!({"s": {"type": "A", "a": 1}});
        let patch = json!({"s": {"$retainKeys": ["type"], "type": "B"}});
        assert_eq!(apply(doc.clone(), patch), Ok(json!({"s": {"type": "B"}})));
        let patch = json!({"s": {"$retainKeys": ["type"], "b": 1}});
        assert_eq!(apply(doc, patch), Err((400, "invalid patch format of retainKeys".to_owned())));
    }

    #[test]
    fn malformed_patches_are_told_in_upstreams_words() {
        let doc = json!({"containers": [{"name": "a"}]});
        assert_eq!(
            apply(doc.clone(), json!({"containers": [{"image": "x"}]})),
            Err((500, "map: map[image:x] does not contain declared merge key: name".to_owned()))
        );
        assert_eq!(apply(doc.clone(), json!({"containers": [[1]]})).expect_err("list of lists").0, 422);
        let text = "unknown patch type: jump in map: map[$patch:jump]";
        assert_eq!(apply(doc, json!({"$patch": "jump"})), Err((500, text.to_owned())));
    }

    fn containers() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-f]", 0..9i64, 0..5).prop_map(|m| {
            json!({"containers": m.into_iter().map(|(n, i)| json!({"name": n, "image": i})).collect::<Vec<_>>()})
        })
    }

    proptest! {
        #[test]
        fn a_patch_applied_twice_is_the_same_as_once(doc in containers(), patch in containers()) {
            let once = apply(doc, patch.clone()).expect("valid");
            prop_assert_eq!(apply(once.clone(), patch).expect("valid"), once);
        }

        #[test]
        fn an_empty_patch_changes_nothing(doc in containers()) {
            prop_assert_eq!(apply(doc.clone(), json!({})).expect("valid"), doc);
        }

        #[test]
        fn every_patched_item_is_there_as_the_patch_says(doc in containers(), patch in containers()) {
            let merged = apply(doc, patch.clone()).expect("valid");
            for item in patch["containers"].as_array().into_iter().flatten() {
                prop_assert!(merged["containers"].as_array().is_some_and(|l| l.contains(item)));
            }
        }
    }
}
