//! What holds for any configuration.

use proptest::prelude::*;
use serde_json::json;

use super::{tests::schema, *};

fn text() -> impl Strategy<Value = Value> {
    "[abc]".prop_map(Value::from)
}

fn spec() -> impl Strategy<Value = Value> {
    let port = (0..3i64, prop_oneof![Just("TCP"), Just("UDP")], prop::option::of(text())).prop_map(
        |(port, protocol, name)| {
            let mut item = json!({"port": port, "protocol": protocol});
            if let Some(name) = name {
                item["name"] = name;
            }
            item
        },
    );
    let unique = |list: Vec<Value>| {
        let mut seen = std::collections::BTreeSet::new();
        let key =
            |v: &Value| v.get("port").map_or_else(|| v.to_string(), |p| format!("{p}{}", v["protocol"]));
        Value::Array(list.into_iter().filter(|v| seen.insert(key(v))).collect())
    };
    let fields: Vec<(&str, BoxedStrategy<Value>)> = vec![
        ("replicas", (0..3i64).prop_map(Value::from).boxed()),
        ("image", text().boxed()),
        ("labels", prop::collection::btree_map("[abc]", text(), 0..3).prop_map(|m| json!(m)).boxed()),
        ("args", prop::collection::vec(text(), 0..3).prop_map(Value::from).boxed()),
        ("finalizers", prop::collection::vec(text(), 0..4).prop_map(unique).boxed()),
        ("ports", prop::collection::vec(port, 0..4).prop_map(unique).boxed()),
    ];
    let some: Vec<_> = fields
        .into_iter()
        .map(|(name, values)| prop::option::of(values).prop_map(move |v| v.map(|v| (name.to_owned(), v))))
        .collect();
    some.prop_map(|list| Value::Object(list.into_iter().flatten().collect()))
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec})
}

struct Fixed {
    schema: Schema,
    empty: Value,
}

impl Fixed {
    fn new() -> Self {
        Self { schema: schema(), empty: json!({"apiVersion": "example.com/v1", "kind": "Thing"}) }
    }

    fn write<'w>(&'w self, manager: &'w str) -> Write<'w> {
        Write {
            manager,
            api_version: "example.com/v1",
            subresource: "",
            schema: &self.schema,
            others: &[],
            empty: &self.empty,
            reach: Reach::All,
            now: DateTime::from_timestamp(1_700_000_000, 0).expect("a time"),
        }
    }
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(first in spec(), other in spec(), config in spec()) {
        let fixed = Fixed::new();
        let live = apply(None, &object(first), &fixed.write("a"), false).expect("new").object;
        let live = apply(Some(&live), &object(other), &fixed.write("b"), true).expect("forced").object;
        let once = apply(Some(&live), &object(config.clone()), &fixed.write("c"), true).expect("forced").object;
        let twice = apply(Some(&once), &object(config), &fixed.write("c"), false).expect("its own");
        prop_assert!(twice.unchanged);
        prop_assert_eq!(twice.object, once);
    }

    #[test]
    fn conflicts_are_the_same_from_both_sides(a in spec(), b in spec()) {
        let fixed = Fixed::new();
        let first = |x: &Value, y: &Value| {
            let live = apply(None, &object(x.clone()), &fixed.write("one"), false).expect("new").object;
            let outcome = apply(Some(&live), &object(y.clone()), &fixed.write("two"), false);
            outcome.err().and_then(|e| e.details).map_or(0, |d| d["causes"].as_array().map_or(0, Vec::len))
        };
        // Lists and maps that one of both leaves empty are only told from that side.
        let empty = |v: &Value| v.as_object().into_iter().flatten().any(|(_, v)| *v == json!([]) || *v == json!({}));
        prop_assume!(!empty(&a) && !empty(&b));
        prop_assert_eq!(first(&a, &b), first(&b, &a));
    }

    #[test]
    fn managed_fields_can_always_be_read_back(specs in prop::collection::vec((spec(), any::<bool>()), 1..6)) {
        let fixed = Fixed::new();
        let mut live: Option<Value> = None;
        for (index, (spec, applies)) in specs.into_iter().enumerate() {
            let manager = format!("m{}", index % 3);
            let write = fixed.write(&manager);
            let mut new = object(spec);
            if applies {
                new = apply(live.as_ref(), &new, &write, true).expect("forced").object;
            } else {
                update(live.as_ref(), &mut new, &write);
            }
            new["metadata"]["uid"] = json!("1");
            let managed = Managed::read(managed_fields(&new)).expect("readable");
            let written = managed.write();
            prop_assert_eq!(written.as_ref(), managed_fields(&new));
            for entry in &managed.0 {
                let fields = encode(&entry.set);
                prop_assert_eq!(&decode(&fields).expect("readable"), &entry.set);
            }
            live = Some(new);
        }
    }

    #[test]
    fn sets_obey_the_laws_of_sets(a in spec(), b in spec()) {
        let schema = schema();
        let (a, b) = (object(a), object(b));
        let (a, b) = (fields_of(&a, &schema), fields_of(&b, &schema));
        let both = a.clone().union(b.clone());
        prop_assert_eq!(&both, &b.clone().union(a.clone()));
        prop_assert_eq!(both.len(), a.len() + b.len() - a.intersection(&b).len());
        prop_assert_eq!(both.clone().difference(&b).union(a.intersection(&b)), a.clone());
        prop_assert_eq!(a.intersects(&b), !a.intersection(&b).is_empty());
    }

    #[test]
    fn a_comparison_is_turned_round_with_its_sides(a in spec(), b in spec()) {
        let schema = schema();
        let (a, b) = (object(a), object(b));
        let (there, back) = (compare(&a, &b, &schema), compare(&b, &a, &schema));
        prop_assert_eq!(there.added, back.removed);
        prop_assert_eq!(there.removed, back.added);
        prop_assert_eq!(there.modified, back.modified);
        prop_assert!(compare(&a, &a, &schema).is_same());
    }

    #[test]
    fn no_fields_make_the_reader_panic(keys in prop::collection::vec("[fkvix.]:?[a-z\\[\\]{}\":0-9,]{0,12}", 0..6)) {
        let mut fields = json!({});
        for key in keys.iter().rev() {
            fields = json!({ key.as_str(): fields });
        }
        let _ = decode(&fields).map(|set| encode(&set));
    }
}
