//! Claims made from templates, reserved for pods, and let go.

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use serde_json::{Value, json};

use super::*;
use crate::{
    Controller, Outcome, Plan, World, Write,
    fixtures::{add, created, deleted, key, noon, patched, plan, reasons, remove, updated, world},
};

fn pod(claims: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "p"},
        "spec": {"containers": [], "resourceClaims": claims}})
}

fn templated() -> Value {
    pod(json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]))
}

fn template() -> Value {
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": {"namespace": "shop", "name": "t"},
        "spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}})
}

fn claim(name: &str, status: Value) -> Value {
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"namespace": "shop", "name": name, "finalizers": [FINALIZER]},
        "spec": {}, "status": status})
}

fn made(name: &str) -> Value {
    let mut claim = claim(name, json!({}));
    claim["metadata"]["annotations"] = json!({ANNOTATION: "gpu"});
    claim["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p", "controller": true}]);
    claim
}

fn consumer(name: &str) -> Value {
    json!({"resource": "pods", "name": name, "uid": format!("uid-{name}")})
}

#[test]
fn a_claim_is_made_from_the_template_and_told_in_the_pods_status() {
    let mut world = world([templated(), template()]);
    let first = plan(&PodClaims, &world, "shop", "p");
    let claim = created(&first)[0];
    assert_eq!(claim["metadata"]["generateName"], "p-gpu-");
    assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(claim["metadata"]["annotations"], json!({ANNOTATION: "gpu"}));
    assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "uid-p");
    assert_eq!(claim["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"], "gpu");
    let change = add(&mut world, made("p-gpu-x"));
    assert_eq!(PodClaims.keys(&change, &world), [key("shop", "p")]);
    let second = plan(&PodClaims, &world, "shop", "p");
    let statuses = json!([{"name": "gpu", "resourceClaimName": "p-gpu-x"}]);
    assert_eq!(patched(&second)[0].1["status"]["resourceClaimStatuses"], statuses);
    let mut told = templated();
    told["status"]["resourceClaimStatuses"] = statuses;
    add(&mut world, told);
    assert_eq!(plan(&PodClaims, &world, "shop", "p"), Plan::none());
    remove::<ResourceClaim>(&mut world, "shop", "p-gpu-x");
    assert_eq!(created(&plan(&PodClaims, &world, "shop", "p")).len(), 1, "made again");
}

#[test]
fn a_template_that_is_missing_is_told_and_waited_for() {
    let mut world = world([templated()]);
    let missing = plan(&PodClaims, &world, "shop", "p");
    assert_eq!(reasons(&missing), ["FailedResourceClaimCreation"]);
    assert_eq!(
        missing.notes[0].message,
        "PodResourceClaim gpu: resource claim template \"t\": resourceclaimtemplate.resource.k8s.io \"t\" not found"
    );
    let change = add(&mut world, template());
    assert!(change.object::<ResourceClaimTemplate>().is_some());
    assert_eq!(PodClaims.keys(&change, &world), [key("shop", "p")]);
}

#[test]
fn long_names_are_cut_by_their_shares() {
    let mut long = templated();
    long["metadata"]["name"] = json!("p".repeat(80));
    long["spec"]["resourceClaims"][0]["name"] = json!("c".repeat(40));
    let plan = plan(&PodClaims, &world([long, template()]), "shop", &"p".repeat(80));
    let name = created(&plan)[0]["metadata"]["generateName"].clone();
    assert_eq!(name, format!("{}-{}", "p".repeat(80 * 57 / 122), "c".repeat(40 * 57 / 122)));
}

#[test]
fn what_is_allocated_is_reserved_for_a_pod_that_has_a_node() {
    let mut placed = pod(json!([{"name": "gpu", "resourceClaimName": "c"}]));
    let allocated = claim("c", json!({"allocation": {}}));
    assert_eq!(plan(&PodClaims, &world([placed.clone(), allocated.clone()]), "shop", "p"), Plan::none());
    placed["spec"]["nodeName"] = json!("n");
    let reserved = plan(&PodClaims, &world([placed.clone(), allocated]), "shop", "p");
    assert_eq!(updated(&reserved)[0]["status"]["reservedFor"], json!([consumer("p")]));
    let already = claim("c", json!({"allocation": {}, "reservedFor": [consumer("p")]}));
    assert_eq!(plan(&PodClaims, &world([placed.clone(), already]), "shop", "p"), Plan::none());
    let free = claim("c", json!({}));
    assert_eq!(plan(&PodClaims, &world([placed, free]), "shop", "p"), Plan::none());
}

fn look(world: &World, memory: Option<Value>) -> Plan {
    let last = Outcome { memory: memory.unwrap_or_default(), ..Outcome::default() };
    Consumers.reconcile(&key("shop", "c"), world, &last, noon())
}

#[test]
fn the_last_consumer_that_goes_sets_a_claim_free() {
    let mut ended = pod(json!([{"name": "gpu", "resourceClaimName": "c"}]));
    ended["status"]["phase"] = json!("Succeeded");
    let other = json!({"resource": "things", "apiGroup": "x.io", "name": "t", "uid": "u"});
    let status = |consumers: Value| json!({"allocation": {}, "reservedFor": consumers});
    let kept = look(&world([ended.clone(), claim("c", status(json!([consumer("p"), other])))]), None);
    let told = &updated(&kept)[0]["status"];
    assert_eq!(told["reservedFor"][0]["resource"], "things");
    assert!(!told["allocation"].is_null());
    let mut world = world([ended, claim("c", status(json!([consumer("p")])))]);
    let free = look(&world, None);
    let told = &updated(&free)[0]["status"];
    assert!(told["allocation"].is_null() && told["reservedFor"].is_null());
    add(&mut world, claim("c", json!({})));
    assert!(look(&world, None).steps.is_empty(), "the scheduler may be about to allocate it");
    assert_eq!(patched(&look(&world, free.memory))[0].1["metadata"]["finalizers"], json!([]));
}

#[test]
fn a_consumer_that_is_not_in_sight_is_looked_for_first() {
    let plan = look(&world([claim("c", json!({"reservedFor": [consumer("p")]}))]), None);
    assert!(matches!(&plan.steps[0][0], Write::RequireAbsent { target } if target.uid == "uid-p"));
    assert!(updated(&plan)[0]["status"]["reservedFor"].is_null());
}

#[test]
fn a_claim_that_is_deleted_loses_its_allocation_and_then_its_finalizer() {
    let mut going = claim("c", json!({"allocation": {}}));
    going["metadata"]["deletionTimestamp"] = json!(noon().to_string());
    assert!(updated(&look(&world([going.clone()]), None))[0]["status"]["allocation"].is_null());
    going["status"] = json!({});
    assert_eq!(patched(&look(&world([going]), None))[0].1["metadata"]["finalizers"], json!([]));
}

#[test]
fn what_was_made_for_a_pod_goes_when_it_has_ended() {
    let mut ended = templated();
    let mut world = world([ended.clone(), made("c")]);
    assert!(deleted(&look(&world, None)).is_empty());
    ended["status"] = json!({"phase": "Failed",
        "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "c"}]});
    let change = add(&mut world, ended);
    assert!(Consumers.keys(&change, &world).contains(&key("shop", "c")));
    assert_eq!(deleted(&look(&world, None)), ["c"]);
}
