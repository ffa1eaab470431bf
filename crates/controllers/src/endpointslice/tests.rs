use serde_json::{Value, json};

use super::*;
use crate::fixtures::{add, created, deleted, key, node, plan, pod, remove, updated, world};

fn service(name: &str, spec: Value) -> Value {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name, "labels": {"team": "a"}},
        "spec": {
            "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    });
    for (field, of) in spec.as_object().unwrap() {
        value["spec"][field] = of.clone();
    }
    value
}

/// Makes what a plan creates, with names, and what it updates, in the world.
fn carry_out(world: &mut World, plan: &Plan) {
    for (n, object) in created(plan).into_iter().enumerate() {
        let mut object = object.clone();
        object["metadata"]["name"] = format!("slice-{n}-{}", world.list::<EndpointSlice>("").len()).into();
        add(world, object);
    }
    for object in updated(plan) {
        add(world, object.clone());
    }
    for name in deleted(plan) {
        remove::<EndpointSlice>(world, "shop", name);
    }
}

fn many(count: usize) -> Vec<Value> {
    (0..count)
        .map(|n| pod("shop", &format!("p{n:03}"), "web", "n1", &format!("10.1.{}.{}", n / 200, n % 200 + 1)))
        .collect()
}

#[test]
fn a_service_without_pods_has_one_slice_without_ports() {
    let mut world = world([service("web", json!({}))]);
    let first = plan(&EndpointSlices, &world, "shop", "web");
    let slice = created(&first)[0];
    assert_eq!(slice["metadata"]["generateName"], "web-");
    assert_eq!(slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], MANAGER);
    assert_eq!(slice["metadata"]["labels"]["team"], "a");
    assert_eq!(slice["metadata"]["ownerReferences"][0]["controller"], true);
    assert_eq!(slice["endpoints"], json!([]));
    assert_eq!(slice["ports"], json!([]));
    carry_out(&mut world, &first);
    assert_eq!(plan(&EndpointSlices, &world, "shop", "web").steps, Plan::none().steps);
}

#[test]
fn the_placeholder_becomes_the_first_slice_when_a_pod_is_there() {
    let mut world = world([service("web", json!({})), node("n1", "z1")]);
    let first = plan(&EndpointSlices, &world, "shop", "web");
    carry_out(&mut world, &first);
    add(&mut world, pod("shop", "p", "web", "n1", "10.1.0.1"));
    let second = plan(&EndpointSlices, &world, "shop", "web");
    assert!(created(&second).is_empty() && deleted(&second).is_empty());
    let slice = updated(&second)[0];
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    let endpoint = &slice["endpoints"][0];
    assert_eq!(endpoint["addresses"], json!(["10.1.0.1"]));
    assert_eq!(endpoint["conditions"], json!({"ready": true, "serving": true, "terminating": false}));
    assert_eq!(endpoint["zone"], "z1");
    assert_eq!(endpoint["targetRef"]["name"], "p");
    carry_out(&mut world, &second);
    assert_eq!(plan(&EndpointSlices, &world, "shop", "web").steps, Plan::none().steps);
}

#[test]
fn a_terminating_pod_still_serves_but_is_not_ready() {
    let mut leaving = pod("shop", "p", "web", "n1", "10.1.0.1");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-11-25T12:00:00Z");
    let world = world([service("web", json!({})), node("n1", "z1"), leaving]);
    let plan = plan(&EndpointSlices, &world, "shop", "web");
    let conditions = &created(&plan)[0]["endpoints"][0]["conditions"];
    assert_eq!(*conditions, json!({"ready": false, "serving": true, "terminating": true}));
}

#[test]
fn a_slice_takes_a_hundred_endpoints_and_later_ones_fill_up() {
    let mut world = world([service("web", json!({})), node("n1", "z1")]);
    for pod in many(150) {
        add(&mut world, pod);
    }
    let first = plan(&EndpointSlices, &world, "shop", "web");
    let sizes: Vec<usize> =
        created(&first).iter().map(|s| s["endpoints"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [100, 50]);
    carry_out(&mut world, &first);
    for pod in many(170) {
        add(&mut world, pod);
    }
    let second = plan(&EndpointSlices, &world, "shop", "web");
    assert!(created(&second).is_empty());
    assert_eq!(updated(&second).len(), 1);
    assert_eq!(updated(&second)[0]["endpoints"].as_array().unwrap().len(), 70);
}

#[test]
fn a_named_port_that_differs_makes_two_slices() {
    let mut other = pod("shop", "q", "web", "n1", "10.1.0.2");
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090);
    let ports = json!({"ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    let world =
        world([service("web", ports), node("n1", "z1"), pod("shop", "p", "web", "n1", "10.1.0.1"), other]);
    let plan = plan(&EndpointSlices, &world, "shop", "web");
    let ports: Vec<&Value> = created(&plan).iter().map(|s| &s["ports"][0]["port"]).collect();
    assert_eq!(ports, [8080, 9090]);
}

#[test]
fn a_named_port_of_a_sidecar_is_found() {
    let mut with = pod("shop", "p", "web", "n1", "10.1.0.1");
    with["spec"]["initContainers"] = json!([{"name": "s", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9100}]}]);
    let ports = json!({"ports": [{"name": "m", "port": 80, "targetPort": "metrics"}]});
    let world = world([service("web", ports), node("n1", "z1"), with]);
    assert_eq!(created(&plan(&EndpointSlices, &world, "shop", "web"))[0]["ports"][0]["port"], 9100);
}

#[test]
fn both_families_have_slices_of_their_own() {
    let mut dual = pod("shop", "p", "web", "n1", "10.1.0.1");
    dual["status"]["podIPs"] = json!([{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]);
    let spec = json!({"ipFamilies": ["IPv4", "IPv6"], "clusterIP": "None"});
    let world = world([service("web", spec), node("n1", "z1"), dual]);
    let plan = plan(&EndpointSlices, &world, "shop", "web");
    let slices = created(&plan);
    assert_eq!(slices[0]["addressType"], "IPv4");
    assert_eq!(slices[1]["endpoints"][0]["addresses"], json!(["fd00::1"]));
    assert_eq!(slices[0]["metadata"]["labels"]["service.kubernetes.io/headless"], "");
}

#[test]
fn a_pod_on_an_unknown_node_is_left_out_unless_unready_ones_are_published() {
    let lost = || pod("shop", "p", "web", "gone", "10.1.0.1");
    let world_without = world([service("web", json!({})), lost()]);
    let hidden = plan(&EndpointSlices, &world_without, "shop", "web");
    assert_eq!(created(&hidden)[0]["endpoints"], json!([]));
    let published = json!({"publishNotReadyAddresses": true});
    let world = world([service("web", published), lost()]);
    let shown = plan(&EndpointSlices, &world, "shop", "web");
    assert_eq!(created(&shown)[0]["endpoints"][0]["conditions"]["ready"], true);
}

#[test]
fn traffic_distribution_gives_hints_to_ready_endpoints() {
    let mut unready = pod("shop", "q", "web", "n1", "10.1.0.2");
    unready["status"]["conditions"][0]["status"] = json!("False");
    let spec = json!({"trafficDistribution": "PreferSameNode"});
    let world =
        world([service("web", spec), node("n1", "z1"), pod("shop", "p", "web", "n1", "10.1.0.1"), unready]);
    let plan = plan(&EndpointSlices, &world, "shop", "web");
    let endpoints = &created(&plan)[0]["endpoints"];
    assert_eq!(endpoints[0]["hints"], json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]}));
    assert!(endpoints[1]["hints"].is_null());
}

#[test]
fn a_service_without_a_selector_is_left_alone() {
    let world = world([service("web", json!({"selector": {}})), node("n1", "z1")]);
    assert_eq!(plan(&EndpointSlices, &world, "shop", "web"), Plan::none());
}

#[test]
fn a_service_that_is_going_gets_no_new_slices() {
    let mut going = service("web", json!({}));
    going["metadata"]["deletionTimestamp"] = json!("2026-11-25T12:00:00Z");
    let world = world([going]);
    assert_eq!(plan(&EndpointSlices, &world, "shop", "web").steps, Plan::none().steps);
}

#[test]
fn a_deleted_slice_a_changed_pod_and_a_new_node_wake_the_service() {
    let mut world = world([service("web", json!({})), node("n1", "z1")]);
    let change = add(&mut world, pod("shop", "p", "web", "n1", "10.1.0.1"));
    assert_eq!(EndpointSlices.keys(&change, &world), [key("shop", "web")]);
    let mut moved = pod("shop", "p", "other", "n1", "10.1.0.1");
    moved["metadata"]["labels"]["app"] = json!("other");
    let change = add(&mut world, moved);
    assert_eq!(EndpointSlices.keys(&change, &world), [key("shop", "web")]);
    let first = plan(&EndpointSlices, &world, "shop", "web");
    carry_out(&mut world, &first);
    let name = world.list::<EndpointSlice>("shop")[0].metadata.name.clone().unwrap();
    let change = remove::<EndpointSlice>(&mut world, "shop", &name);
    assert_eq!(EndpointSlices.keys(&change, &world), [key("shop", "web")]);
    add(&mut world, pod("shop", "q", "web", "n2", "10.1.0.2"));
    let change = add(&mut world, node("n2", "z1"));
    assert_eq!(EndpointSlices.keys(&change, &world), [key("shop", "web")]);
}
