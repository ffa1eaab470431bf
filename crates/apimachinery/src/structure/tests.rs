use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::schema::{GoField, Type};

fn leaf(kind: Type, format: &str) -> Arc<Schema> {
    let format = (!format.is_empty()).then(|| Arc::from(format));
    Arc::new(Schema { kind: Some(kind), format, ..Schema::default() })
}

fn list(items: Arc<Schema>) -> Arc<Schema> {
    Arc::new(Schema { kind: Some(Type::Array), items: Some(items), ..Schema::default() })
}

fn map(values: Arc<Schema>) -> Arc<Schema> {
    Arc::new(Schema { kind: Some(Type::Object), additional: Some(values), ..Schema::default() })
}

fn object(name: &str, fields: Vec<(&str, Arc<Schema>)>) -> Arc<Schema> {
    Arc::new(Schema {
        name: Some(Arc::from(name)),
        kind: Some(Type::Object),
        properties: fields.into_iter().map(|(n, s)| (Arc::from(n), s)).collect(),
        ..Schema::default()
    })
}

fn pod() -> Arc<Schema> {
    let string = leaf(Type::String, "");
    let quantities = map(leaf(Type::String, "quantity"));
    let container = object(
        "io.k8s.api.core.v1.Container",
        vec![
            ("name", string.clone()),
            ("command", list(string.clone())),
            ("limits", quantities),
            ("port", leaf(Type::Integer, "int32")),
        ],
    );
    let meta = object(
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
        vec![
            ("name", string.clone()),
            ("labels", map(string.clone())),
            ("creationTimestamp", leaf(Type::String, "date-time")),
        ],
    );
    let status = Arc::new(Schema {
        always: Some(json!({})),
        ..(*object("io.k8s.api.core.v1.PodStatus", vec![])).clone()
    });
    let spec = object(
        "io.k8s.api.core.v1.PodSpec",
        vec![
            ("containers", list(container)),
            ("nodeName", Arc::new(Schema { omit_empty: true, ..(*string).clone() })),
        ],
    );
    object("io.k8s.api.core.v1.Pod", vec![("metadata", meta), ("spec", spec), ("status", status)])
}

#[test]
fn a_wrong_type_is_told_as_go_tells_it() {
    let text = |value: Value| check(&value, &pod()).expect_err("must be refused");
    assert_eq!(
        text(json!({"spec": {"containers": "x"}})),
        "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"
    );
    assert_eq!(
        text(json!({"spec": {"containers": [{"port": 3_000_000_000i64}]}})),
        "json: cannot unmarshal number 3000000000 into Go struct field Container.spec.containers.port of type int32"
    );
    assert_eq!(
        text(json!({"metadata": {"labels": {"a": 1}}})),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
    );
    assert_eq!(text(json!([])), "json: cannot unmarshal array into Go value of type v1.Pod");
    assert_eq!(
        text(json!({"metadata": {"creationTimestamp": 1}})),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string"
    );
    assert_eq!(check(&json!({"spec": null, "metadata": {"name": "x"}}), &pod()), Ok(()));
}

#[test]
fn errors_have_gos_names_of_types_and_of_embedded_structs() {
    let named = |kind: Option<&str>, within: Option<&str>, base: Arc<Schema>| {
        let go = GoField { kind: kind.map(Arc::from), within: within.map(Arc::from) };
        Arc::new(Schema { go: Some(Box::new(go)), ..(*base).clone() })
    };
    let string = leaf(Type::String, "");
    let policies = named(Some("[]v1.Policy"), Some("Inner.Source"), list(string.clone()));
    let schema =
        object("x.v1.Thing", vec![("policies", policies), ("uid", named(Some("types.UID"), None, string))]);
    let text = |value: Value| fit(&mut value.clone(), &schema).expect_err("must be refused");
    assert_eq!(
        text(json!({"uid": 1})),
        "json: cannot unmarshal number into Go struct field Thing.uid of type types.UID"
    );
    assert_eq!(
        text(json!({"policies": {}})),
        "json: cannot unmarshal object into Go struct field Thing.Inner.Source.policies of type []v1.Policy"
    );
    assert_eq!(
        text(json!({"policies": [true]})),
        "json: cannot unmarshal bool into Go struct field Thing.Inner.Source.policies of type v1.Policy"
    );
}

#[test]
fn a_type_inside_itself_is_read_to_any_depth() {
    const NAME: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let cut = |kind| {
        Arc::new(Schema {
            name: Some(NAME.into()),
            kind: Some(kind),
            preserve_unknown: true,
            ..Schema::default()
        })
    };
    let choice = |name: &str| {
        let go = GoField { kind: Some(name.into()), within: None };
        Arc::new(Schema { go: Some(Box::new(go)), preserve_unknown: true, ..Schema::default() })
    };
    let flag = Arc::new(Schema { omit_empty: true, ..(*leaf(Type::Boolean, "")).clone() });
    let schema = object(
        NAME,
        vec![
            ("nullable", flag),
            ("minimum", leaf(Type::Number, "")),
            ("not", cut(Type::Object)),
            ("properties", map(cut(Type::Object))),
            ("items", choice("v1.JSONSchemaPropsOrArray")),
            ("additionalProperties", choice("v1.JSONSchemaPropsOrBool")),
        ],
    );
    let mut deep = json!({"properties": {"a": {"not": {"nullable": false, "minimum": 1.0, "x": 1, "items": {"y": 1, "nullable": true}}}}});
    assert_eq!(fit(&mut deep, &schema), Ok(vec![r#"unknown field "properties.a.not.x""#.to_owned()]));
    assert_eq!(deep, json!({"properties": {"a": {"not": {"minimum": 1, "items": {"nullable": true}}}}}));
    let text = |value: Value| fit(&mut value.clone(), &schema).expect_err("must be refused");
    assert_eq!(text(json!({"not": {"additionalProperties": 1}})), "boolean or JSON schema expected");
    assert_eq!(
        text(json!({"not": {"items": {"not": {"nullable": 1}}}})),
        "json: cannot unmarshal number into Go struct field JSONSchemaProps.not.items.not.nullable of type bool"
    );
}

#[test]
fn unknown_fields_are_dropped_and_told_with_their_path() {
    let mut value = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"foo": 1, "name": "a"}], "bar": {}}});
    let told = prune(&mut value, &pod());
    assert_eq!(told, [r#"unknown field "spec.bar""#, r#"unknown field "spec.containers[0].foo""#]);
    assert_eq!(value, json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"name": "a"}]}}));
}

#[test]
fn what_is_preserved_is_kept_but_known_parts_of_it_are_pruned() {
    let inner = object("x.Y", vec![("a", leaf(Type::String, ""))]);
    let schema = Schema { preserve_unknown: true, ..(*object("x.Z", vec![("inner", inner)])).clone() };
    let mut value = json!({"inner": {"a": "", "b": ""}, "other": {"c": 1}});
    assert_eq!(prune(&mut value, &schema), [r#"unknown field "inner.b""#]);
    assert_eq!(value, json!({"inner": {"a": ""}, "other": {"c": 1}}));
}

#[test]
fn the_canonical_form_has_no_nulls_and_no_empty_lists() {
    let mut value = json!({
        "metadata": {"labels": {"a": null}, "creationTimestamp": "2026-01-01T01:00:00+01:00", "name": null},
        "spec": {"nodeName": "", "containers": [{"command": [], "limits": {"cpu": 1, "memory": "1024Mi", "x": "1000m"}}]}
    });
    canonicalize(&mut value, &pod()).expect("valid");
    let limits = json!({"cpu": "1", "memory": "1Gi", "x": "1"});
    assert_eq!(
        value,
        json!({
            "metadata": {"labels": {"a": ""}, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"limits": limits}]}
        })
    );
    always(&mut value, &pod());
    assert_eq!(value["status"], json!({}));
    let mut bad = json!({"spec": {"containers": [{"limits": {"cpu": true}}]}});
    assert!(canonicalize(&mut bad, &pod()).expect_err("bad").starts_with("quantities must match"));
}

#[test]
fn nulls_of_custom_resources_go_unless_they_are_allowed() {
    let nullable = Arc::new(Schema { nullable: true, ..(*leaf(Type::String, "")).clone() });
    let schema =
        object("", vec![("a", nullable), ("b", leaf(Type::String, "")), ("n", leaf(Type::Number, ""))]);
    let mut value = json!({"a": null, "b": null, "n": 1.0});
    drop_nulls(&mut value, &schema);
    assert_eq!(value, json!({"a": null, "n": 1}));
}

#[test]
fn one_walk_does_what_three_do() {
    let status = json!({"spec": {"nodeName": "n", "bar": [{"x": null}], "containers": [null, {"name": "a", "foo": {}, "command": [null, "x"],
        "limits": {"cpu": null, "memory": "1024Mi"}, "port": 80}]}});
    let bad_quantity = json!({"spec": {"containers": [{"limits": {"cpu": "x"}}]}});
    let mut both = bad_quantity.clone();
    both["status"] = json!([]);
    let cases = [
        status,
        bad_quantity,
        both,
        json!({"metadata": {"labels": {"a": null, "b": "c"}, "creationTimestamp": "yesterday"}}),
        json!({"metadata": {"labels": {"a": {"b": 1}}}}),
        json!({"apiVersion": "v1", "kind": "Pod", "x": {"y": 1}, "metadata": null, "spec": {"containers": [[]]}}),
        json!({"spec": {"containers": [{"limits": {"cpu": {"a": {"b": null}}}, "port": 1.5}]}}),
        json!({"spec": {"containers": {}}}),
        json!([{"a": 1}]),
        json!(null),
        json!("x"),
    ];
    for case in cases {
        let in_steps = || {
            let mut value = case.clone();
            check(&value, &pod())?;
            let unknown = prune(&mut value, &pod());
            canonicalize(&mut value, &pod())?;
            Ok::<_, String>((value, unknown))
        };
        let at_once = || {
            let mut value = case.clone();
            let unknown = fit(&mut value, &pod())?;
            Ok::<_, String>((value, unknown))
        };
        assert_eq!(at_once(), in_steps(), "{case}");
    }
}
