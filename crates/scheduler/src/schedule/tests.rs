use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;

fn node(name: &str, cpu: &str, extra: Value) -> NodeInfo {
    let mut node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
    merge(&mut node, extra);
    NodeInfo::new(Arc::new(serde_json::from_value::<Node>(node).unwrap()))
}

fn pod(name: &str, extra: Value) -> Arc<PodInfo> {
    let mut pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"containers": [
        {"name": "c", "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}}}]}});
    merge(&mut pod, extra);
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value::<Pod>(pod).unwrap())))
}

fn merge(base: &mut Value, extra: Value) {
    match (base, extra) {
        (Value::Object(base), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, extra) if !extra.is_null() => *base = extra,
        _ => {}
    }
}

fn cluster(nodes: Vec<NodeInfo>) -> Snapshot {
    let nodes = nodes.into_iter().map(|n| (n.name().to_owned(), n)).collect();
    Snapshot { nodes, ..Snapshot::default() }
}

fn bound(decision: &Decision) -> &str {
    match decision {
        Decision::Bind { node, .. } => node,
        other => panic!("{other:?}"),
    }
}

fn message(decision: &Decision) -> &str {
    match decision {
        Decision::Unschedulable { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_goes_to_the_fuller_machine_that_still_fits_it() {
    let mut snapshot = cluster(vec![node("a", "4", json!({})), node("b", "4", json!({}))]);
    snapshot.add_pod(pod("first", json!({"spec": {"nodeName": "b"}})));
    assert_eq!(bound(&schedule(&snapshot, &pod("next", json!({})), Policy::Pack)), "b");
    assert_eq!(bound(&schedule(&snapshot, &pod("next", json!({})), Policy::Spread)), "a");
}

#[test]
fn replicas_of_one_owner_keep_apart_all_the_same() {
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]);
    let mut snapshot = cluster(vec![node("a", "4", json!({})), node("b", "4", json!({}))]);
    snapshot.add_pod(pod("r-1", json!({"metadata": {"ownerReferences": owner}, "spec": {"nodeName": "a"}})));
    let next = pod("r-2", json!({"metadata": {"ownerReferences": owner}}));
    assert_eq!(bound(&schedule(&snapshot, &next, Policy::Pack)), "b");
}

#[test]
fn every_reason_is_counted_in_one_sentence() {
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let snapshot =
        cluster(vec![node("a", "100m", json!({})), node("b", "4", taint), node("c", "200m", json!({}))]);
    let decision = schedule(&snapshot, &pod("p", json!({})), Policy::Pack);
    assert_eq!(
        message(&decision),
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
    );
}

#[test]
fn what_keeps_pods_away_is_named_with_what_helps() {
    for (key, wanted) in [
        ("gpu", "Add a toleration for the taint gpu, or remove it: `kubectl taint nodes a gpu-`."),
        ("node.kubernetes.io/disk-pressure", "The disk of node a is nearly full: make room on it."),
        ("node.kubernetes.io/not-ready", "Node a is not-ready: `kubectl describe node a` says why."),
    ] {
        let taint = json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}});
        let decision = schedule(&cluster(vec![node("a", "4", taint)]), &pod("p", json!({})), Policy::Pack);
        let Decision::Unschedulable { help, .. } = decision else { panic!("{decision:?}") };
        assert_eq!(help, wanted);
    }
}

#[test]
fn an_empty_cluster_says_so() {
    let decision = schedule(&cluster(Vec::new()), &pod("p", json!({})), Policy::Pack);
    assert_eq!(message(&decision), "no nodes available to schedule pods");
}

#[test]
fn a_toleration_opens_a_tainted_node() {
    let taint = json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}});
    let snapshot = cluster(vec![node("a", "4", taint)]);
    let tolerant = |operator: &str, value: &str| {
        pod("p", json!({"spec": {"tolerations": [{"key": "gpu", "operator": operator, "value": value}]}}))
    };
    assert_eq!(bound(&schedule(&snapshot, &tolerant("Equal", "yes"), Policy::Pack)), "a");
    assert_eq!(bound(&schedule(&snapshot, &tolerant("Exists", ""), Policy::Pack)), "a");
    assert!(matches!(
        schedule(&snapshot, &tolerant("Equal", "no"), Policy::Pack),
        Decision::Unschedulable { .. }
    ));
}

#[test]
fn required_anti_affinity_keeps_pods_on_different_nodes_in_both_directions() {
    let apart = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchLabels": {"app": "x"}},
        "topologyKey": "kubernetes.io/hostname"}]}}}});
    let mut snapshot = cluster(vec![node("a", "4", json!({})), node("b", "4", json!({}))]);
    let mut first = apart.clone();
    merge(&mut first, json!({"spec": {"nodeName": "a"}}));
    snapshot.add_pod(pod("one", first));
    assert_eq!(bound(&schedule(&snapshot, &pod("two", apart), Policy::Pack)), "b");
    let plain = pod("three", json!({"metadata": {"labels": {"app": "x"}}}));
    assert_eq!(bound(&schedule(&snapshot, &plain, Policy::Pack)), "b");
}

#[test]
fn the_first_pod_of_a_group_may_start_anywhere_and_the_rest_follow() {
    let together = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchLabels": {"app": "x"}},
        "topologyKey": "kubernetes.io/hostname"}]}}}});
    let mut snapshot = cluster(vec![node("a", "4", json!({})), node("b", "4", json!({}))]);
    let first = pod("one", together.clone());
    assert!(matches!(schedule(&snapshot, &first, Policy::Pack), Decision::Bind { .. }));
    let mut placed = together.clone();
    merge(&mut placed, json!({"spec": {"nodeName": "b"}}));
    snapshot.add_pod(pod("one", placed));
    assert_eq!(bound(&schedule(&snapshot, &pod("two", together), Policy::Spread)), "b");
}

#[test]
fn a_hard_spread_constraint_bounds_the_skew() {
    let zone = |z: &str| json!({"metadata": {"labels": {"zone": z}}});
    let spread = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}]}});
    let mut snapshot = cluster(vec![node("a", "4", zone("1")), node("b", "4", zone("2"))]);
    let mut first = spread.clone();
    merge(&mut first, json!({"spec": {"nodeName": "a"}}));
    snapshot.add_pod(pod("one", first));
    assert_eq!(bound(&schedule(&snapshot, &pod("two", spread.clone()), Policy::Pack)), "b");
    if let Some(b) = snapshot.nodes.get_mut("b") {
        b.allocatable.milli_cpu = 0;
    }
    let decision = schedule(&snapshot, &pod("two", spread), Policy::Pack);
    assert!(message(&decision).contains("1 node(s) didn't match pod topology spread constraints"));
}

#[test]
fn host_ports_conflict_unless_addresses_differ() {
    let with = |ip: &str| json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": ip}]}]}});
    let mut taken = with("127.0.0.1");
    merge(&mut taken, json!({"spec": {"nodeName": "a"}}));
    let mut snapshot = cluster(vec![node("a", "4", json!({}))]);
    snapshot.add_pod(pod("one", taken));
    assert!(matches!(
        schedule(&snapshot, &pod("two", with("127.0.0.2")), Policy::Pack),
        Decision::Bind { .. }
    ));
    let decision = schedule(&snapshot, &pod("two", with("")), Policy::Pack);
    assert!(message(&decision).contains("free ports"));
}

#[test]
fn a_more_important_pod_takes_the_room_of_the_least_important_one() {
    let mut snapshot = cluster(vec![node("a", "1", json!({})), node("b", "1", json!({}))]);
    let running = |name: &str, on: &str, priority: i32| {
        pod(
            name,
            json!({"spec": {"nodeName": on, "priority": priority, "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "900m"}}}]}}),
        )
    };
    snapshot.add_pod(running("low", "a", 1));
    snapshot.add_pod(running("middle", "b", 5));
    let decision = schedule(&snapshot, &pod("high", json!({"spec": {"priority": 10}})), Policy::Pack);
    let Decision::Preempt { victims, .. } = decision else { panic!("{decision:?}") };
    assert_eq!(victims.node, "a");
    assert_eq!(victims.pods.iter().map(|p| p.key.as_str()).collect::<Vec<_>>(), ["default/low"]);
}

#[test]
fn room_that_was_freed_for_a_pod_is_kept_from_lesser_ones() {
    let mut snapshot = cluster(vec![node("a", "1", json!({}))]);
    let high = pod(
        "high",
        json!({"spec": {"priority": 10, "containers": [
        {"name": "c", "resources": {"requests": {"cpu": "900m"}}}]}}),
    );
    snapshot.nominated.insert(high.key.clone(), ("a".to_owned(), Arc::clone(&high)));
    assert!(matches!(
        schedule(&snapshot, &pod("low", json!({})), Policy::Pack),
        Decision::Unschedulable { .. }
    ));
    assert_eq!(bound(&schedule(&snapshot, &high, Policy::Pack)), "a");
}

#[test]
fn a_pod_that_never_preempts_says_so() {
    let mut snapshot = cluster(vec![node("a", "500m", json!({}))]);
    snapshot.add_pod(pod("low", json!({"spec": {"nodeName": "a"}})));
    let polite = pod("high", json!({"spec": {"priority": 10, "preemptionPolicy": "Never"}}));
    let decision = schedule(&snapshot, &polite, Policy::Pack);
    assert!(message(&decision).ends_with("preemption: not eligible due to preemptionPolicy=Never."));
}

#[test]
fn a_claim_that_waits_for_its_consumer_does_not_hold_the_pod_back() {
    let mut snapshot = cluster(vec![node("a", "4", json!({}))]);
    let claim = json!({"metadata": {"name": "data", "namespace": "default"}, "spec": {"storageClassName": "local",
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    snapshot.claims.insert("default/data".to_owned(), Arc::new(serde_json::from_value(claim).unwrap()));
    let wants = pod(
        "p",
        json!({"spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}}),
    );
    assert!(message(&schedule(&snapshot, &wants, Policy::Pack)).contains("unbound immediate"));
    let class = json!({"metadata": {"name": "local"}, "provisioner": "plimsoll.dev/local-path",
        "volumeBindingMode": "WaitForFirstConsumer"});
    snapshot.classes.insert("local".to_owned(), Arc::new(serde_json::from_value(class).unwrap()));
    let Decision::Bind { claims, .. } = schedule(&snapshot, &wants, Policy::Pack) else { panic!() };
    assert_eq!(claims.len(), 1);
}
