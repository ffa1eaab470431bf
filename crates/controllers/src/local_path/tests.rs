use serde_json::Value;

use super::*;
use crate::{
    Failure,
    fixtures::{add, created, key, node, noon, patched, plan, reasons, remove, world, writes},
};

fn local_path() -> LocalPath {
    LocalPath { root: "/data/volumes".into(), nodes: None }
}

fn claim(node: Option<&str>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": "shop", "name": "data", "uid": "1234", "annotations": {
            PROVISIONER: NAME, SELECTED_NODE: node,
        }},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

fn class() -> Value {
    let mut class = serde_json::to_value(storage_class()).unwrap();
    class["kind"] = json!("StorageClass");
    class
}

/// The volume that is made for [`claim`].
fn made() -> Value {
    let mut claim = claim(None);
    claim["metadata"]["annotations"] = json!({PROVISIONER: NAME, SELECTED_NODE: "n1"});
    let plan = plan(&local_path(), &world([claim, class(), node("n1", "z")]), "shop", "data");
    created(&plan)[0].clone()
}

fn leaving(phase: &str) -> Value {
    let mut volume = made();
    volume["metadata"]["deletionTimestamp"] = json!(noon().to_string());
    volume["status"] = json!({"phase": phase});
    volume
}

#[test]
fn a_claim_gets_a_directory_on_its_node_and_then_a_volume_bound_to_it() {
    let mut waiting = claim(None);
    waiting["metadata"]["annotations"] = json!({PROVISIONER: NAME});
    let mut world = world([waiting, class(), node("n1", "z")]);
    assert!(plan(&local_path(), &world, "shop", "data").steps.is_empty(), "no node chosen yet");
    add(&mut world, claim(Some("n1")));
    let plan = plan(&local_path(), &world, "shop", "data");
    let path = PathBuf::from("/data/volumes/pvc-1234");
    assert_eq!(plan.steps[0], [Write::MakeDirectory { node: "n1".to_owned(), path }]);
    let spec = &created(&plan)[0]["spec"];
    assert_eq!(spec["local"]["path"], "/data/volumes/pvc-1234");
    assert_eq!(spec["claimRef"]["uid"], "1234");
    assert_eq!(spec["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(
        spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"],
        json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}])
    );
    add(&mut world, created(&plan)[0].clone());
    assert_eq!(crate::fixtures::plan(&local_path(), &world, "shop", "data"), Plan::none());
}

#[test]
fn a_node_that_is_gone_is_chosen_again_and_other_nodes_are_left_to_their_own_process() {
    let gone = world([claim(Some("n9")), class()]);
    let again = plan(&local_path(), &gone, "shop", "data");
    assert!(patched(&again)[0].1["metadata"]["annotations"][SELECTED_NODE].is_null());
    assert_eq!(reasons(&again), ["ProvisioningFailed"]);
    let here = LocalPath { nodes: Some(BTreeSet::from(["n2".to_owned()])), ..local_path() };
    assert_eq!(plan(&here, &gone, "shop", "data"), Plan::none());
}

#[test]
fn a_class_that_does_not_wait_takes_the_node_with_the_fewest_volumes() {
    let mut at_once = class();
    at_once["volumeBindingMode"] = json!("Immediate");
    let mut open = claim(None);
    open["metadata"]["annotations"] = json!({PROVISIONER: NAME});
    open["metadata"]["uid"] = json!("5678");
    let mut cordoned = node("n0", "z");
    cordoned["spec"]["unschedulable"] = json!(true);
    let world = world([open, at_once, cordoned, node("n1", "z"), node("n2", "z"), made()]);
    let plan = plan(&local_path(), &world, "shop", "data");
    assert!(matches!(&plan.steps[0][..], [Write::MakeDirectory { node, .. }] if node == "n2"));
}

#[test]
fn a_block_device_is_refused() {
    let mut block = claim(Some("n1"));
    block["spec"]["volumeMode"] = json!("Block");
    let plan = plan(&local_path(), &world([block, class(), node("n1", "z")]), "shop", "data");
    assert!(plan.steps.is_empty());
    assert_eq!(reasons(&plan), ["ProvisioningFailed"]);
}

#[test]
fn data_goes_with_the_claim_and_before_the_volume() {
    let mut bound = made();
    bound["status"] = json!({"phase": "Bound"});
    let name = "pvc-1234";
    let mut world = world([bound.clone(), node("n1", "z")]);
    assert_eq!(plan(&local_path(), &world, "", name), Plan::none());
    bound["status"]["phase"] = json!("Released");
    let change = add(&mut world, bound);
    assert_eq!(local_path().keys(&change, &world), [key("", name)]);
    assert!(matches!(writes(&plan(&local_path(), &world, "", name))[..], [Write::Delete { .. }]));
    add(&mut world, leaving("Released"));
    let last = plan(&local_path(), &world, "", name);
    let path = PathBuf::from("/data/volumes/pvc-1234");
    assert_eq!(last.steps[0], [Write::RemoveDirectory { node: "n1".to_owned(), path }]);
    assert_eq!(patched(&last)[0].1["metadata"]["finalizers"], json!([]));
}

#[test]
fn kept_and_foreign_data_is_never_removed() {
    let mut kept = leaving("Released");
    kept["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
    let mut foreign = leaving("Released");
    foreign["spec"]["local"]["path"] = json!("/etc");
    for volume in [kept, foreign, leaving("Bound")] {
        let plan = plan(&local_path(), &world([volume, node("n1", "z")]), "", "pvc-1234");
        assert!(!writes(&plan).iter().any(|w| matches!(w, Write::RemoveDirectory { .. })), "{plan:?}");
    }
}

#[test]
fn a_disk_that_went_with_its_machine_does_not_hold_the_volume() {
    let mut world = world([leaving("Released"), node("n1", "z")]);
    let write = Write::RemoveDirectory { node: "n1".to_owned(), path: "/data/volumes/pvc-1234".into() };
    let failure =
        Failure { write, code: 0, reason: String::new(), message: "no route".to_owned(), causes: Vec::new() };
    let last = Outcome { failures: vec![failure], tries: 1, ..Outcome::default() };
    let look = |world: &World| local_path().reconcile(&key("", "pvc-1234"), world, &last, noon());
    assert_eq!(look(&world).steps.len(), 2, "tries again");
    remove::<Node>(&mut world, "", "n1");
    assert_eq!(look(&world).steps.len(), 1);
    assert_eq!(reasons(&look(&world)), ["VolumeFailedDelete"]);
}

#[test]
fn directories_are_made_and_removed_only_directly_under_the_root() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("volumes");
    let disk = OnThisMachine { root: root.clone() };
    let inside = root.join("pvc-1");
    disk.make("n", &inside).unwrap();
    disk.make("n", &inside).unwrap();
    std::fs::write(inside.join("file"), "data").unwrap();
    let outside = temporary.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "data").unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
    for path in
        [outside.clone(), root.join("../outside"), root.join("pvc-1/deeper"), root.clone(), root.join("..")]
    {
        assert!(disk.remove("n", &path).is_err(), "{}", path.display());
        assert!(disk.make("n", &path).is_err(), "{}", path.display());
    }
    disk.remove("n", &inside).unwrap();
    disk.remove("n", &inside).unwrap();
    assert!(!inside.exists() && outside.join("kept").exists());
}
