use super::*;
use crate::Write;
use crate::fixtures::{add, key, noon, patched, plan, reasons, remove, world};

fn claim(name: &str, spec: Value) -> Value {
    let mut value = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"phase": "Pending"},
    });
    merge(&mut value["spec"], spec);
    value
}

fn volume(name: &str, size: &str, spec: Value) -> Value {
    let mut value = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "hostPath": {"path": "/x"},
            "persistentVolumeReclaimPolicy": "Retain",
        },
        "status": {"phase": "Available"},
    });
    merge(&mut value["spec"], spec);
    value
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": mode})
}

fn merge(into: &mut Value, from: Value) {
    for (field, value) in from.as_object().unwrap() {
        into[field] = value.clone();
    }
}

/// Applies the patches of a plan to the world.
fn carry_out(world: &mut World, plan: &Plan) {
    for (target, body) in patched(plan) {
        let mut value = if target.namespace.is_empty() {
            serde_json::to_value(&*world.get::<PersistentVolume>("", &target.name).unwrap()).unwrap()
        } else {
            serde_json::to_value(&*world.get::<PersistentVolumeClaim>("shop", &target.name).unwrap()).unwrap()
        };
        value = apimachinery::patch::merge(value, body.clone()).unwrap();
        add(world, value);
    }
}

fn look(world: &World, name: &str) -> Plan {
    plan(&VolumeBinder, world, "shop", name)
}

fn reclaim(uid: &str) -> Value {
    json!({"namespace": "shop", "name": "data", "uid": uid})
}

#[test]
fn a_claim_gets_the_smallest_volume_that_fits_and_both_sides_know() {
    let mut world = world([
        claim("data", json!({})),
        volume("big", "9Gi", json!({})),
        volume("fit", "2Gi", json!({})),
        volume("small", "1Mi", json!({})),
    ]);
    let join = look(&world, "data");
    let order: Vec<&str> = patched(&join).iter().map(|(t, _)| t.name.as_str()).collect();
    assert_eq!(order, ["fit", "fit", "data", "data"]);
    carry_out(&mut world, &join);
    let volume = world.get::<PersistentVolume>("", "fit").unwrap();
    assert_eq!(claim_ref(&volume).unwrap().uid.as_deref(), Some("uid-data"));
    assert_eq!(annotation(&volume.metadata, BOUND_BY_CONTROLLER), Some("yes"));
    let claim = world.get::<PersistentVolumeClaim>("shop", "data").unwrap();
    let status = serde_json::to_value(claim.status.clone()).unwrap();
    assert_eq!(
        status,
        json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}})
    );
    assert_eq!(annotation(&claim.metadata, BIND_COMPLETED), Some("yes"));
    assert!(look(&world, "data").steps.is_empty());
    assert!(plan(&VolumeBinder, &world, "", "fit").steps.is_empty());
}

#[test]
fn a_join_that_was_cut_short_is_finished() {
    let whole = world([claim("data", json!({})), volume("v", "2Gi", json!({}))]);
    let join = look(&whole, "data");
    for done in 1..4 {
        let mut world = world([claim("data", json!({})), volume("v", "2Gi", json!({}))]);
        let first = Plan { steps: join.steps[..done].to_vec(), ..Plan::none() };
        carry_out(&mut world, &first);
        let rest = look(&world, "data");
        assert_eq!(rest.steps.len(), 4 - done, "after {done} of 4");
        carry_out(&mut world, &rest);
        assert!(look(&world, "data").steps.is_empty());
    }
}

#[test]
fn fewer_access_modes_come_before_less_room() {
    let modes = json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]});
    let world =
        world([claim("data", json!({})), volume("many", "1Gi", modes), volume("one", "5Gi", json!({}))]);
    assert_eq!(patched(&look(&world, "data"))[0].0.name, "one");
}

#[test]
fn class_mode_selector_and_claims_of_others_are_respected() {
    let other = json!({"claimRef": {"namespace": "shop", "name": "other"}});
    let mut labelled = volume("labelled", "1Gi", json!({}));
    labelled["metadata"]["labels"] = json!({"disk": "ssd"});
    let world = world([
        claim("data", json!({"selector": {"matchLabels": {"disk": "ssd"}}})),
        volume("classy", "1Gi", json!({"storageClassName": "fast"})),
        volume("block", "1Gi", json!({"volumeMode": "Block"})),
        volume("taken", "1Gi", other),
        volume("plain", "1Gi", json!({})),
        labelled,
    ]);
    assert_eq!(patched(&look(&world, "data"))[0].0.name, "labelled");
}

#[test]
fn a_volume_that_names_the_claim_is_taken_and_stays_named_by_its_author() {
    let mine = json!({"claimRef": {"namespace": "shop", "name": "data"}});
    let world =
        world([claim("data", json!({})), volume("free", "1Gi", json!({})), volume("mine", "5Gi", mine)]);
    let join = look(&world, "data");
    assert_eq!(patched(&join)[0].0.name, "mine");
    assert!(patched(&join)[0].1["metadata"]["annotations"].is_null());
}

#[test]
fn a_claim_that_names_an_unfit_volume_waits_and_says_why() {
    let world = world([claim("data", json!({"volumeName": "v"})), volume("v", "1Mi", json!({}))]);
    let plan = look(&world, "data");
    assert!(plan.steps.is_empty());
    assert_eq!(plan.notes[0].message, "Cannot bind to requested volume \"v\": requested PV is too small");
}

#[test]
fn a_claim_without_a_class_gets_the_default_one_even_later() {
    let mut classless = claim("data", json!({}));
    classless["spec"]["storageClassName"] = Value::Null;
    let mut world = world([classless]);
    assert_eq!(reasons(&look(&world, "data")), ["FailedBinding"]);
    let mut standard = class("standard", "plimsoll.dev/local-path", "WaitForFirstConsumer");
    standard["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let change = add(&mut world, standard);
    assert_eq!(VolumeBinder.keys(&change, &world), [key("shop", "data")]);
    assert_eq!(patched(&look(&world, "data"))[0].1["spec"]["storageClassName"], "standard");
}

#[test]
fn a_claim_whose_class_waits_is_provisioned_once_the_scheduler_has_chosen_a_node() {
    let free = volume("free", "5Gi", json!({"storageClassName": "standard"}));
    let mut waiting = claim("data", json!({"storageClassName": "standard"}));
    let mut world =
        world([class("standard", "plimsoll.dev/local-path", "WaitForFirstConsumer"), waiting.clone(), free]);
    let first = look(&world, "data");
    assert!(first.steps.is_empty(), "the scheduler has the choice");
    assert_eq!(reasons(&first), ["WaitForFirstConsumer"]);
    let told = Outcome { memory: first.memory.clone().unwrap(), ..Outcome::default() };
    assert!(VolumeBinder.reconcile(&key("shop", "data"), &world, &told, noon()).notes.is_empty());

    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "p"},
        "spec": {"containers": [], "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}});
    add(&mut world, pod);
    assert_eq!(look(&world, "data").notes[0].message, "waiting for pod p to be scheduled");

    waiting["metadata"]["annotations"] = json!({SELECTED_NODE: "n1"});
    add(&mut world, waiting);
    let second = look(&world, "data");
    assert_eq!(reasons(&second), ["ExternalProvisioning"]);
    assert_eq!(patched(&second)[0].1["metadata"]["annotations"][PROVISIONER], "plimsoll.dev/local-path");
}

#[test]
fn a_class_that_is_missing_or_makes_nothing_is_told() {
    let missing = world([claim("data", json!({"storageClassName": "fast"}))]);
    assert_eq!(look(&missing, "data").notes[0].message, "storageclass.storage.k8s.io \"fast\" not found");
    let manual = world([
        claim("data", json!({"storageClassName": "m"})),
        class("m", "kubernetes.io/no-provisioner", "Immediate"),
    ]);
    assert_eq!(reasons(&look(&manual, "data")), ["ProvisioningFailed"]);
}

#[test]
fn a_claim_whose_volume_is_gone_or_anothers_is_lost() {
    let mut bound = claim("data", json!({"volumeName": "v"}));
    bound["metadata"]["annotations"] = json!({BIND_COMPLETED: "yes"});
    bound["status"]["phase"] = json!("Bound");
    let mut world = world([bound]);
    let gone = look(&world, "data");
    assert_eq!(patched(&gone)[0].1["status"]["phase"], "Lost");
    assert_eq!(reasons(&gone), ["ClaimLost"]);
    add(&mut world, volume("v", "1Gi", json!({"claimRef": reclaim("another")})));
    assert_eq!(reasons(&look(&world, "data")), ["ClaimMisbound"]);
}

#[test]
fn a_volume_whose_claim_is_gone_is_released_and_keeps_its_reference() {
    let mut held = volume("v", "1Gi", json!({"claimRef": reclaim("uid-data")}));
    held["status"]["phase"] = json!("Bound");
    let mut world = world([held, claim("data", json!({"volumeName": "v"}))]);
    assert!(plan(&VolumeBinder, &world, "", "v").steps.is_empty());
    let change = remove::<PersistentVolumeClaim>(&mut world, "shop", "data");
    assert!(VolumeBinder.keys(&change, &world).contains(&key("", "v")));
    let released = plan(&VolumeBinder, &world, "", "v");
    assert!(matches!(&released.steps[0][..], [Write::RequireAbsent { target }] if target.uid == "uid-data"));
    let patches = patched(&released);
    assert_eq!(patches.len(), 1);
    assert_eq!(patches[0].1["status"]["phase"], "Released");
    let mut again = claim("data", json!({}));
    again["metadata"]["uid"] = json!("new");
    add(&mut world, again);
    assert_eq!(
        patched(&plan(&VolumeBinder, &world, "", "v")).len(),
        1,
        "another claim of that name is not its own"
    );
}

#[test]
fn a_volume_whose_claim_found_another_is_free_again() {
    let taken = |annotations: Value| {
        let mut held = volume("v", "1Gi", json!({"claimRef": reclaim("uid-data")}));
        held["metadata"]["annotations"] = annotations;
        world([held, claim("data", json!({"volumeName": "w"}))])
    };
    let ours = plan(&VolumeBinder, &taken(json!({BOUND_BY_CONTROLLER: "yes"})), "", "v");
    assert!(patched(&ours)[0].1["spec"]["claimRef"].is_null());
    let theirs = plan(&VolumeBinder, &taken(json!({})), "", "v");
    assert_eq!(patched(&theirs)[0].1["spec"]["claimRef"], json!({"uid": null, "resourceVersion": null}));
}

#[test]
fn a_volume_that_comes_wakes_the_claims_that_could_take_it() {
    let mut world = world([claim("data", json!({})), claim("classy", json!({"storageClassName": "fast"}))]);
    let change = add(&mut world, volume("v", "1Gi", json!({})));
    assert_eq!(VolumeBinder.keys(&change, &world), [key("", "v"), key("shop", "data")]);
}

#[test]
fn once_a_node_is_chosen_a_volume_that_it_reaches_is_taken() {
    let on = |node: &str| {
        let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
        json!({"storageClassName": "local", "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}})
    };
    let mut chosen = claim("data", json!({"storageClassName": "local"}));
    chosen["metadata"]["annotations"] = json!({SELECTED_NODE: "n2"});
    let world = world([
        class("local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        chosen,
        volume("a", "1Gi", on("n1")),
        volume("b", "2Gi", on("n2")),
        crate::fixtures::node("n1", "z"),
        crate::fixtures::node("n2", "z"),
    ]);
    assert_eq!(patched(&look(&world, "data"))[0].0.name, "b");
}
