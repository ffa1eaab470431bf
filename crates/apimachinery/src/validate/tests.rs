use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::schema::{CelRule, ListType, Rules, Type};

fn leaf(kind: Type, rules: Rules) -> Arc<Schema> {
    Arc::new(Schema { kind: Some(kind), rules: Some(Box::new(rules)), ..Schema::default() })
}

fn object(fields: Vec<(&str, Arc<Schema>)>) -> Schema {
    Schema {
        kind: Some(Type::Object),
        properties: fields.into_iter().map(|(n, s)| (Arc::from(n), s)).collect(),
        ..Schema::default()
    }
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn keywords_are_told_in_upstreams_words() {
    let number = Rules { maximum: Some(5.0), ..Rules::default() };
    let word = Rules { pattern: Some("^a".to_owned()), max_length: Some(3), ..Rules::default() };
    let choice = Rules { one_of_values: vec![json!("x"), json!("y")], ..Rules::default() };
    let mut schema = object(vec![
        ("c", leaf(Type::String, choice)),
        ("n", leaf(Type::Integer, number)),
        ("w", leaf(Type::String, word)),
    ]);
    schema.required = vec![Arc::from("r")];
    assert_eq!(
        texts(&create(&json!({"c": "z", "n": 6, "w": "bbbb"}), &schema)),
        [
            "r: Required value",
            "c: Unsupported value: \"z\": supported values: \"x\", \"y\"",
            "n: Invalid value: 6: n in body should be less than or equal to 5",
            "w: Invalid value: \"bbbb\": w in body should match '^a'",
            "w: Too long: may not be more than 3 bytes",
        ]
    );
    assert_eq!(
        texts(&create(&json!({"r": 1, "n": "x"}), &schema)),
        ["n: Invalid value: \"string\": n in body must be of type integer: \"string\""]
    );
}

#[test]
fn what_an_update_leaves_alone_is_not_held_against_it() {
    let number = Rules { maximum: Some(5.0), ..Rules::default() };
    let schema = object(vec![("a", leaf(Type::Integer, number.clone())), ("b", leaf(Type::Integer, number))]);
    let old = json!({"a": 9, "b": 1});
    assert!(update(&json!({"a": 9, "b": 2}), &old, &schema).is_empty());
    assert_eq!(update(&json!({"a": 8, "b": 2}), &old, &schema).len(), 1);
}

#[test]
fn items_of_sets_and_maps_occur_once() {
    let set = Arc::new(Schema { kind: Some(Type::Array), list_type: ListType::Set, ..Schema::default() });
    let map = Arc::new(Schema {
        kind: Some(Type::Array),
        list_type: ListType::Map,
        list_map_keys: vec![Arc::from("k")],
        ..Schema::default()
    });
    let schema = object(vec![("s", set), ("m", map)]);
    assert_eq!(
        texts(&create(&json!({"s": [1, 1], "m": [{"k": "a"}, {"k": "a", "x": 1}]}), &schema)),
        ["m[1]: Duplicate value: {\"k\":\"a\"}", "s[1]: Duplicate value: 1"]
    );
}

#[test]
fn cel_rules_see_the_new_and_the_old_value() {
    let rule = |text: &str, message: &str| CelRule {
        rule: text.to_owned(),
        message: Some(message.to_owned()).filter(|m| !m.is_empty()),
        ..CelRule::default()
    };
    let rules = Rules {
        cel: vec![rule("self.a <= self.b", ""), rule("self.a >= oldSelf.a", "must not shrink")],
        ..Rules::default()
    };
    let integer = leaf(Type::Integer, Rules::default());
    let mut schema = object(vec![("a", integer.clone()), ("b", integer)]);
    schema.rules = Some(Box::new(rules));
    assert!(create(&json!({"a": 1, "b": 2}), &schema).is_empty());
    assert_eq!(
        texts(&create(&json!({"a": 3, "b": 2}), &schema)),
        ["<nil>: Invalid value: failed rule: self.a <= self.b"]
    );
    assert_eq!(
        texts(&update(&json!({"a": 0, "b": 2}), &json!({"a": 1, "b": 2}), &schema)),
        ["<nil>: Invalid value: must not shrink"]
    );
    assert!(texts(&create(&json!({"a": "x", "b": 2}), &schema))[1].ends_with("to complete validation"));
}

#[test]
fn what_a_rule_costs_is_reckoned_from_the_lists_it_goes_over() {
    let rule = "self.few.all(x, self.few.all(y, x == y || x != y))";
    let list = || {
        let items = leaf(Type::Integer, Rules::default());
        Arc::new(Schema { kind: Some(Type::Array), items: Some(items), ..Schema::default() })
    };
    let mut schema = object(vec![("few", list()), ("many", list())]);
    let cel = vec![CelRule { rule: rule.to_owned(), ..CelRule::default() }];
    schema.rules = Some(Box::new(Rules { cel, ..Rules::default() }));
    let numbers = |count: usize| vec![1; count];
    assert!(create(&json!({"few": numbers(20), "many": numbers(5000)}), &schema).is_empty());
    let errors = texts(&create(&json!({"few": numbers(900), "many": numbers(1)}), &schema));
    assert!(errors.len() == 1 && errors[0].contains("call cost exceeds limit for rule"), "{errors:?}");
}

#[test]
fn long_lists_are_compared_with_their_old_state_by_their_keys() {
    let begun = std::time::Instant::now();
    let number = Rules { maximum: Some(5.0), ..Rules::default() };
    let item = Arc::new(object(vec![
        ("name", leaf(Type::String, Rules::default())),
        ("n", leaf(Type::Integer, number)),
    ]));
    let list = Schema {
        kind: Some(Type::Array),
        list_type: ListType::Map,
        list_map_keys: vec![Arc::from("name")],
        items: Some(item),
        ..Schema::default()
    };
    let schema = object(vec![("l", Arc::new(list))]);
    let of = |n: i64| {
        let items: Vec<_> = (0..30_000).map(|at| json!({"name": at.to_string(), "n": n})).collect();
        json!({ "l": items })
    };
    let (faulty, worse) = (of(6), of(7));
    let mut moved = faulty.clone();
    moved["l"].as_array_mut().unwrap().reverse();
    assert_eq!(update(&moved, &faulty, &schema), [], "what was faulty before may stay, wherever it stands");
    assert_eq!(update(&worse, &faulty, &schema).len(), FieldErrors::MOST + 1);
    // Looking for each among all takes minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}
