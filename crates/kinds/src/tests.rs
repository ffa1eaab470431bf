//! What must hold for every kind.

use std::collections::HashSet;

use apimachinery::schema::{ListType, Type};
use chrono::DateTime;
use serde_json::json;

use crate::{all, find, resource::Generation};

#[test]
fn every_kind_of_a_working_cluster_is_served_once() {
    let mut seen = HashSet::new();
    for resource in all() {
        let id = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        assert!(seen.insert(id), "{resource:?} twice");
    }
    for (group, plural) in [
        ("", "pods"),
        ("", "services"),
        ("apps", "deployments"),
        ("batch", "cronjobs"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("authentication.k8s.io", "tokenreviews"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        ("events.k8s.io", "events"),
    ] {
        assert!(find(group, "v1", plural).is_some(), "{group}/{plural}");
    }
}

#[test]
fn a_row_has_a_cell_for_each_column() {
    for resource in all() {
        if let Some(row) = resource.strategy.row(&json!({"metadata": {"name": "a"}}), DateTime::UNIX_EPOCH) {
            assert_eq!(row.len(), resource.columns.len(), "{resource:?}");
        } else {
            assert!(
                !resource.verbs.iter().any(|verb| &**verb == "list"),
                "{resource:?} is listed without columns"
            );
        }
    }
}

#[test]
fn strategies_survive_an_object_without_anything_in_it() {
    for resource in all() {
        for mut object in
            [json!({}), json!({"metadata": {}, "spec": {}, "status": {}}), json!({"spec": [], "metadata": 1})]
        {
            resource.strategy.default(&mut object);
            resource.strategy.prepare_create(&mut object, DateTime::UNIX_EPOCH);
            for subresource in ["", "status", "scale", "resize", "ephemeralcontainers", "finalize"] {
                let old = object.clone();
                resource.strategy.prepare_update(&mut object, &old, subresource);
                resource.strategy.validate_update(&object, &old, subresource);
            }
            resource.strategy.validate(&object);
            resource.strategy.row(&object, DateTime::UNIX_EPOCH);
        }
    }
}

#[test]
fn the_schema_of_a_pod_knows_types_keys_and_defaults() {
    let pods = find("", "v1", "pods").unwrap();
    let spec = pods.schema.field("spec").unwrap();
    let containers = spec.field("containers").unwrap();
    assert_eq!((containers.kind, containers.list_type), (Some(Type::Array), ListType::Map));
    assert_eq!(containers.always, Some(json!(null)));
    let container = containers.items.as_ref().unwrap();
    assert_eq!(container.field("name").unwrap().always, Some(json!("")));
    assert_eq!(spec.field("restartPolicy").unwrap().default, Some(json!("Always")));
    assert!(spec.field("hostNetwork").unwrap().omit_empty);
    assert!(!spec.field("automountServiceAccountToken").unwrap().omit_empty);
    assert_eq!(pods.behaviour.generation, Generation::Spec);
}

#[test]
fn a_schema_inside_itself_is_cut() {
    let crds = find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    let version =
        crds.schema.field("spec").unwrap().field("versions").unwrap().items.as_ref().unwrap().clone();
    let schema = version.field("schema").unwrap().field("openAPIV3Schema").unwrap();
    let inner = schema.field("properties").unwrap().additional.as_ref().unwrap();
    assert!(inner.preserve_unknown && inner.properties.is_empty());
}

#[test]
fn bodies_of_subresources_have_schemas_too() {
    for (api_version, kind) in [("autoscaling/v1", "Scale"), ("policy/v1", "Eviction"), ("v1", "Binding")] {
        assert!(crate::schema_of(api_version, kind).is_some(), "{kind}");
    }
}
