//! What upstream documents of server-side apply, case by case.

use serde_json::json;

use super::*;
use crate::openapi::from_json_schema;

/// A Deployment in small: maps, granular and atomic, lists of each sort, a key with a default.
pub(super) fn schema() -> Schema {
    let text = || json!({"type": "string"});
    from_json_schema(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "image": text(),
            "labels": {"type": "object", "additionalProperties": text()},
            "selector": {
                "type": "object", "x-kubernetes-map-type": "atomic",
                "properties": {"matchLabels": {"type": "object", "additionalProperties": text()}},
            },
            "args": {"type": "array", "items": text()},
            "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "items": text()},
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "required": ["port"], "properties": {
                    "port": {"type": "integer"}, "name": text(),
                    "protocol": {"type": "string", "default": "TCP"},
                }},
            },
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }}))
    .map(|mut schema| {
        schema.properties.insert("metadata".into(), Arc::new(metadata()));
        schema
    })
    .expect("structural")
}

fn metadata() -> Schema {
    let text = || json!({"type": "string"});
    from_json_schema(&json!({"type": "object", "properties": {"m": {"type": "object", "properties": {
        "name": text(), "namespace": text(), "uid": text(), "resourceVersion": text(),
        "labels": {"type": "object", "additionalProperties": text()},
        "annotations": {"type": "object", "additionalProperties": text()},
        "managedFields": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
    }}}}))
    .expect("structural")
    .properties["m"]
        .as_ref()
        .clone()
}

const EXCEPT_STATUS: Reach = Reach::Except(&[&["status"]]);

/// A world with one object in it.
struct World {
    schema: Schema,
    empty: Value,
    live: Option<Value>,
    second: i64,
}

impl World {
    fn new() -> Self {
        let empty = json!({"apiVersion": "example.com/v1", "kind": "Thing"});
        Self { schema: schema(), empty, live: None, second: 0 }
    }

    fn write<'w>(&'w self, manager: &'w str) -> Write<'w> {
        Write {
            manager,
            api_version: "example.com/v1",
            subresource: "",
            schema: &self.schema,
            others: &[],
            empty: &self.empty,
            reach: EXCEPT_STATUS,
            now: DateTime::from_timestamp(1_700_000_000 + self.second, 0).expect("a time"),
        }
    }

    fn try_apply(&mut self, manager: &str, spec: Value, force: bool) -> Result<bool, ApiError> {
        self.second += 1;
        let config = object(spec);
        let applied = apply(self.live.as_ref(), &config, &self.write(manager), force)?;
        self.live = Some(applied.object);
        Ok(!applied.unchanged)
    }

    fn apply(&mut self, manager: &str, spec: Value) -> bool {
        self.try_apply(manager, spec, false).expect("no conflict")
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        self.second += 1;
        let mut new = self.live.clone().unwrap_or_else(|| object(json!({})));
        change(&mut new);
        update(self.live.as_ref(), &mut new, &self.write(manager));
        self.live = Some(new);
    }

    fn spec(&self) -> &Value {
        &self.live.as_ref().expect("made")["spec"]
    }

    fn owned(&self, manager: &str) -> String {
        let managed = Managed::read(self.live.as_ref().and_then(managed_fields)).expect("readable");
        let mut sets = managed.0.iter().filter(|e| e.manager.name == manager).map(|e| e.set.to_string());
        let set = sets.next().unwrap_or_default();
        set.replace('\n', " ").trim().to_owned()
    }

    fn managers(&self) -> Vec<String> {
        let managed = Managed::read(self.live.as_ref().and_then(managed_fields)).expect("readable");
        managed.0.iter().map(|e| format!("{} {}", e.manager.name, e.manager.operation.word())).collect()
    }
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x", "namespace": "ns"}, "spec": spec})
}

#[test]
fn who_creates_an_object_owns_all_of_it() {
    let mut world = World::new();
    world.update("a", |o| {
        o["spec"] = json!({"replicas": 1, "labels": {"k": "v"}, "ports": [{"port": 80, "protocol": "TCP"}]})
    });
    assert_eq!(
        world.owned("a"),
        ".spec .spec.labels .spec.labels.k .spec.ports .spec.ports[port=80,protocol=\"TCP\"] \
         .spec.ports[port=80,protocol=\"TCP\"].port .spec.ports[port=80,protocol=\"TCP\"].protocol .spec.replicas"
    );
    assert_eq!(world.managers(), ["a Update"]);
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut world = World::new();
    world.update("a", |o| o["spec"] = json!({"replicas": 1, "image": "x"}));
    world.update("b", |o| o["spec"]["replicas"] = json!(2));
    assert_eq!(world.owned("a"), ".spec .spec.image");
    assert_eq!(world.owned("b"), ".spec.replicas");
    world.update("b", |o| o["spec"]["replicas"] = Value::Null);
    // Null is a value, too.
    assert_eq!(world.owned("b"), ".spec.replicas");
}

#[test]
fn applying_twice_changes_nothing() {
    let mut world = World::new();
    let spec = json!({"replicas": 3, "labels": {"a": "b"}, "ports": [{"port": 1}], "args": ["x", "y"]});
    assert!(world.apply("a", spec.clone()));
    let before = world.live.clone();
    assert!(!world.apply("a", spec));
    assert_eq!(world.live, before);
}

#[test]
fn another_value_for_a_field_of_somebody_else_is_a_conflict() {
    let mut world = World::new();
    world.update("kubectl-create", |o| o["spec"] = json!({"replicas": 1, "image": "x"}));
    let error = world.try_apply("me", json!({"replicas": 2, "image": "x"}), false).expect_err("a conflict");
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using example.com/v1: .spec.replicas"
    );
    assert_eq!(
        error.details,
        Some(json!({"causes": [{
            "reason": "FieldManagerConflict", "field": ".spec.replicas",
            "message": "conflict with \"kubectl-create\" using example.com/v1",
        }]}))
    );
    assert!(world.try_apply("me", json!({"replicas": 2, "image": "x"}), true).expect("forced"));
    assert_eq!(world.owned("kubectl-create"), ".spec .spec.image");
    assert_eq!(world.owned("me"), ".spec.image .spec.replicas");
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let mut world = World::new();
    world.apply("z", json!({"replicas": 1}));
    world.apply("b", json!({"image": "x", "args": ["1"]}));
    let error = world
        .try_apply("me", json!({"replicas": 2, "image": "y", "args": []}), false)
        .expect_err("conflicts");
    assert_eq!(
        error.message,
        "Apply failed with 3 conflicts: conflicts with \"b\":\n- .spec.args\n- .spec.image\nconflicts with \"z\":\n- .spec.replicas"
    );
}

#[test]
fn the_same_value_is_shared_ownership() {
    let mut world = World::new();
    world.apply("a", json!({"image": "x"}));
    world.apply("b", json!({"image": "x"}));
    assert_eq!((world.owned("a"), world.owned("b")), (".spec.image".into(), ".spec.image".into()));
    // Who leaves it out only gives up its share.
    world.apply("a", json!({}));
    assert_eq!(world.spec()["image"], "x");
    world.apply("b", json!({}));
    assert!(world.spec().get("image").is_none());
}

#[test]
fn what_a_manager_applied_before_and_does_not_any_more_goes() {
    let mut world = World::new();
    world.apply(
        "a",
        json!({
            "replicas": 1, "labels": {"x": "1", "y": "2"}, "finalizers": ["f", "g"],
            "ports": [{"port": 80, "name": "web"}, {"port": 81}],
        }),
    );
    world.update("b", |o| {
        o["spec"]["labels"]["mine"] = json!("yes");
        o["spec"]["finalizers"].as_array_mut().expect("list").push(json!("h"));
    });
    world.apply("a", json!({"labels": {"x": "1"}, "ports": [{"port": 80}], "finalizers": ["g"]}));
    assert_eq!(
        world.spec(),
        &json!({"labels": {"mine": "yes", "x": "1"}, "finalizers": ["g", "h"], "ports": [{"port": 80}]})
    );
}

#[test]
fn an_item_goes_with_its_owner_even_if_somebody_else_added_to_it() {
    let mut world = World::new();
    world.apply("a", json!({"ports": [{"port": 80, "protocol": "TCP"}, {"port": 81}]}));
    world.update("b", |o| o["spec"]["ports"][0]["name"] = json!("web"));
    world.apply("a", json!({"ports": [{"port": 81}]}));
    assert_eq!(world.spec()["ports"], json!([{"port": 81}]), "b owns the name, not the item");
}

#[test]
fn atomic_lists_and_maps_are_owned_as_a_whole() {
    let mut world = World::new();
    world.apply("a", json!({"args": ["x"], "selector": {"matchLabels": {"a": "b"}}}));
    assert_eq!(world.owned("a"), ".spec.args .spec.selector");
    assert!(world.try_apply("b", json!({"args": ["x", "y"]}), false).is_err());
    assert!(world.try_apply("b", json!({"selector": {"matchLabels": {"a": "c"}}}), false).is_err());
    world.apply("a", json!({"args": ["z"]}));
    assert_eq!(world.spec(), &json!({"args": ["z"]}));
}

#[test]
fn a_key_that_has_a_default_may_be_left_out() {
    let mut world = World::new();
    world.apply("a", json!({"ports": [{"port": 80}]}));
    world.apply(
        "b",
        json!({"ports": [{"port": 80, "protocol": "UDP"}, {"port": 80, "protocol": "TCP", "name": "n"}]}),
    );
    assert_eq!(
        world.spec()["ports"],
        json!([{"port": 80, "protocol": "UDP"}, {"port": 80, "protocol": "TCP", "name": "n"}])
    );
}

#[test]
fn the_order_of_the_configuration_rules() {
    let mut world = World::new();
    world.update("b", |o| o["spec"] = json!({"finalizers": ["own", "x", "other", "y"]}));
    world.apply("a", json!({"finalizers": ["y", "new", "x"]}));
    assert_eq!(world.spec()["finalizers"], json!(["own", "other", "y", "new", "x"]));
}

#[test]
fn whatever_was_there_before_the_first_apply_belongs_to_somebody() {
    let mut world = World::new();
    let mut old = object(json!({"replicas": 1, "image": "x"}));
    old["metadata"]["uid"] = json!("1");
    world.live = Some(old);
    // Not tracked: an update leaves it so.
    world.update("b", |o| o["spec"]["image"] = json!("y"));
    assert!(world.managers().is_empty());
    let error = world.try_apply("a", json!({"replicas": 2}), false).expect_err("a conflict");
    assert!(error.message.contains("\"before-first-apply\" using example.com/v1: .spec.replicas"), "{error}");
    world.apply("a", json!({"replicas": 1}));
    assert_eq!(world.managers(), ["a Apply", "before-first-apply Update"]);
}

#[test]
fn a_client_can_forget_all_managers_and_cannot_forge_broken_ones() {
    let mut world = World::new();
    world.update("a", |o| o["spec"] = json!({"replicas": 1}));
    world.update("b", |o| {
        o["spec"]["replicas"] = json!(2);
        o["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Nonsense"}]);
    });
    assert_eq!(world.managers(), ["a Update", "b Update"]);
    world.update("b", |o| o["metadata"]["managedFields"] = json!([{}]));
    assert!(world.managers().is_empty());
}

#[test]
fn a_configuration_has_to_fit_the_schema() {
    let mut world = World::new();
    for (spec, why) in [
        (json!({"foo": 1}), ".spec.foo: field not declared in schema"),
        (
            json!({"ports": [{"port": 1}, {"port": 1}]}),
            ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
        ),
        (json!({"finalizers": ["a", "a"]}), ".spec.finalizers: duplicate entries for key [=\"a\"]"),
        (json!({"replicas": "x"}), ".spec.replicas: expected numeric (int or float), got string"),
        (json!({"labels": []}), ".spec.labels: expected map, got &{[]}"),
        (
            json!({"finalizers": [{}]}),
            ".spec.finalizers: element 0: associative list without keys has an element that's a map type",
        ),
    ] {
        let error = world.try_apply("a", spec, false).expect_err("does not fit");
        assert_eq!((error.code, error.reason), (500, ""));
        let prefix = "failed to create typed patch object (ns/x; example.com/v1, Kind=Thing): ";
        assert_eq!(error.message, format!("{prefix}{why}"));
    }
    let mut other = object(json!({}));
    other["kind"] = json!("Other");
    let error = apply(None, &other, &world.write("a"), false).expect_err("another kind");
    assert_eq!(
        (error.code, error.message.as_str()),
        (400, "invalid object type: example.com/v1, Kind=Other")
    );
}

#[test]
fn kubectl_may_change_what_it_applied_from_the_client_s_side() {
    let mut world = World::new();
    let last = object(json!({"replicas": 1, "image": "x"})).to_string();
    world.update("kubectl-client-side-apply", |o| {
        o["spec"] = json!({"replicas": 1, "image": "x"});
        o["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    });
    assert!(world.try_apply("me", json!({"replicas": 2}), false).is_err());
    world.apply("kubectl", json!({"replicas": 2, "image": "x"}));
    assert_eq!(world.spec(), &json!({"replicas": 2, "image": "x"}));
    let annotation = &world.live.as_ref().expect("made")["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(annotation.as_str().is_some_and(|t| t.contains("\"replicas\":2")), "{annotation}");
    // What somebody else changed meanwhile is theirs.
    world.update("hpa", |o| o["spec"]["replicas"] = json!(9));
    assert!(world.try_apply("kubectl", json!({"replicas": 3, "image": "x"}), false).is_err());
}

#[test]
fn a_place_that_has_become_atomic_is_owned_as_a_whole() {
    let mut world = World::new();
    world.apply("a", json!({"labels": {"x": "1"}, "ports": [{"port": 1}]}));
    let mut spec = (*world.schema.properties["spec"]).clone();
    for name in ["labels", "ports"] {
        let mut place = (*spec.properties[name]).clone();
        place.atomic_map = true;
        place.list_type = crate::schema::ListType::Atomic;
        spec.properties.insert(name.into(), Arc::new(place));
    }
    world.schema.properties.insert("spec".into(), Arc::new(spec));
    world.update("b", |o| o["spec"]["image"] = json!("x"));
    assert_eq!(world.owned("a"), ".spec.labels .spec.ports");
}

#[test]
fn the_status_is_nobody_s_through_the_object() {
    let mut world = World::new();
    world.update("a", |o| {
        o["spec"] = json!({"replicas": 1});
        o["status"] = json!({"replicas": 1});
    });
    assert_eq!(world.owned("a"), ".spec .spec.replicas");
    let mut new = world.live.clone().expect("made");
    new["status"] = json!({"replicas": 5});
    let write = Write { subresource: "status", reach: Reach::Except(&[&["spec"]]), ..world.write("kubelet") };
    update(world.live.as_ref(), &mut new, &write);
    let managed = new["metadata"]["managedFields"].as_array().expect("tracked").clone();
    assert_eq!(managed[1]["subresource"], "status");
    assert_eq!(managed[1]["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    assert_eq!(managed[1]["time"], "2023-11-14T22:13:21Z");
}

#[test]
fn the_oldest_updaters_are_joined() {
    let mut world = World::new();
    world.update("creator", |o| o["spec"] = json!({"labels": {}}));
    for n in 0..14 {
        world.update(&format!("m{n:02}"), |o| o["spec"]["labels"][format!("l{n:02}")] = json!("x"));
    }
    let managers = world.managers();
    assert_eq!(managers.len(), 10, "{managers:?}");
    assert!(managers.iter().any(|m| m == "ancient-changes Update"), "{managers:?}");
    assert!(world.owned("ancient-changes").contains(".spec.labels.l00"));
    assert_eq!(world.owned("m13"), ".spec.labels.l13");
}

#[test]
fn unknown_places_are_granular_maps_and_atomic_lists() {
    let mut world = World::new();
    world.apply("a", json!({"any": {"x": {"y": 1}, "list": [{"z": 1}]}}));
    assert_eq!(
        world.owned("a"),
        ".spec.any .spec.any.list .spec.any.x .spec.any.x.y".replace(".spec.any ", "")
    );
    world.apply("b", json!({"any": {"x": {"q": 1}}}));
    assert_eq!(world.spec()["any"]["x"], json!({"q": 1, "y": 1}));
}

#[test]
fn user_agents_name_managers() {
    assert_eq!(manager_of_agent("kubectl/v1.37.2 (linux/amd64)"), "kubectl");
    assert_eq!(manager_of_agent("a\u{1}b\tc"), "abc");
    assert_eq!(manager_of_agent(&"é".repeat(100)).len(), 128);
    assert_eq!(manager_of_agent(""), "");
}
