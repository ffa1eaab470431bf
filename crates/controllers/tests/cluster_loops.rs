//! The loops of the cluster together, on a server and nodes that are not there, under a virtual clock.

use controllers::{
    Kind, Options,
    cluster_loops::Settings,
    local_path,
    node_ipam::Range,
    testing::cluster::{Chaos, Cluster},
    volumes::SELECTED_NODE,
};
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    coordination::v1::Lease,
    core::v1::{
        ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota,
        Service, ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use serde_json::{Value, json};

const LEASES: &str = "kube-node-lease";
const CALM: Option<Chaos> = None;
const STORM: Option<Chaos> = Some(Chaos { lost: 5, turns: 3 });

/// The certificate of an authority.
fn authority() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn cluster(nodes: usize, seed: u64, chaos: Option<Chaos>) -> Cluster {
    let settings = Settings {
        ca: authority(),
        authority: None,
        sign: None,
        pod_networks: vec![Range::new("10.42.0.0/16".parse().unwrap(), 24).unwrap()],
        volumes: Some("/volumes".into()),
        disks: None,
    };
    let options = Options { cluster: Some(settings) };
    let make = move || controllers::all(&options);
    let mut cluster = Cluster::new(nodes, seed, chaos, make);
    for name in ["default", LEASES, "shop"] {
        cluster.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    }
    for node in 0..nodes {
        cluster.create(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": LEASES, "name": format!("node-{node}")}, "spec": {}}));
    }
    cluster
}

/// Runs for so long, while these nodes say every ten seconds that they live.
fn run(cluster: &mut Cluster, seconds: i64, alive: &[usize]) {
    for _ in 0..seconds / 10 {
        for node in alive {
            let now = cluster.now.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
            cluster.patch::<Lease>(LEASES, &format!("node-{node}"), &json!({"spec": {"renewTime": now}}));
        }
        cluster.run(10);
    }
}

fn replicas(name: &str, count: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "replicas": count, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
        "spec": {"selector": {"app": name}, "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"], "ports": [{"port": 80}]},
    })
}

fn names<K: kube::Resource>(objects: &[K]) -> Vec<String> {
    objects.iter().filter_map(|o| o.meta().name.clone()).collect()
}

#[test]
fn a_new_namespace_has_an_account_and_the_certificate() {
    let mut cluster = cluster(1, 1, CALM);
    run(&mut cluster, 10, &[0]);
    assert!(cluster.get::<ServiceAccount>("shop", "default").is_some());
    let map = cluster.get::<ConfigMap>("shop", "kube-root-ca.crt").unwrap();
    assert!(map.data.unwrap()["ca.crt"].starts_with("-----BEGIN CERTIFICATE-----"));
    cluster.delete::<ConfigMap>("shop", "kube-root-ca.crt");
    cluster.delete::<ServiceAccount>("shop", "default");
    run(&mut cluster, 10, &[0]);
    assert!(cluster.get::<ConfigMap>("shop", "kube-root-ca.crt").is_some());
    assert!(cluster.get::<ServiceAccount>("shop", "default").is_some());
}

#[test]
fn nodes_get_networks_and_services_their_endpoints() {
    let mut cluster = cluster(3, 2, CALM);
    cluster.create(replicas("web", 5));
    cluster.create(service("web"));
    run(&mut cluster, 20, &[0, 1, 2]);
    let mut parts: Vec<String> =
        cluster.list_of::<Node>("").into_iter().filter_map(|n| n.spec?.pod_cidr).collect();
    parts.sort();
    parts.dedup();
    assert_eq!(parts.len(), 3);
    // the kubelets of this cluster give no addresses: give them here
    for (number, pod) in cluster.list_of::<Pod>("shop").iter().enumerate() {
        let ip = format!("10.42.0.{}", number + 2);
        let name = pod.metadata.name.as_deref().unwrap();
        cluster.patch_status::<Pod>("shop", name, &json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}}));
    }
    run(&mut cluster, 20, &[0, 1, 2]);
    let slices = cluster.list_of::<EndpointSlice>("shop");
    assert_eq!(slices.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>(), 5);
    let endpoints = cluster.get::<Endpoints>("shop", "web").unwrap();
    assert_eq!(endpoints.subsets.unwrap()[0].addresses.as_ref().unwrap().len(), 5);
    cluster.delete::<Service>("shop", "web");
    run(&mut cluster, 20, &[0, 1, 2]);
    assert!(cluster.list_of::<EndpointSlice>("shop").is_empty(), "collected with their service");
    assert!(cluster.get::<Endpoints>("shop", "web").is_none());
}

fn a_namespace_goes(seed: u64, chaos: Option<Chaos>) {
    let mut cluster = cluster(2, seed, chaos);
    cluster.create(replicas("web", 4));
    cluster.create(service("web"));
    cluster.create(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "held",
        "finalizers": ["example.com/hold"]}}),
    );
    run(&mut cluster, 60, &[0, 1]);
    cluster.delete::<Namespace>("", "shop");
    run(&mut cluster, 120, &[0, 1]);
    let namespace = cluster.get::<Namespace>("", "shop").expect("something holds it");
    let conditions = namespace.status.unwrap().conditions.unwrap();
    let held = conditions.iter().find(|c| c.type_ == "NamespaceFinalizersRemaining").unwrap();
    assert_eq!(held.status, "True", "seed {seed}");
    assert!(held.message.as_ref().unwrap().contains("example.com/hold in 1 resource instances"));
    assert!(cluster.list_of::<Pod>("shop").is_empty(), "seed {seed}");
    cluster.patch::<ConfigMap>("shop", "held", &json!({"metadata": {"finalizers": null}}));
    run(&mut cluster, 120, &[0, 1]);
    assert!(cluster.get::<Namespace>("", "shop").is_none(), "seed {seed}");
    for served in controllers::testing::api::served().iter().filter(|s| s.namespaced) {
        assert!(cluster.api.list(&served.kind, "shop").is_empty(), "seed {seed}: {}", served.kind.plural);
    }
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it() {
    a_namespace_goes(3, CALM);
}

#[test]
fn a_namespace_goes_though_answers_get_lost_and_watches_lag() {
    for seed in 0..20 {
        a_namespace_goes(seed, STORM);
    }
}

#[test]
fn dependents_follow_their_owner_as_the_deletion_says() {
    use controllers::testing::api::Deletion;
    for (policy, pods) in [("Background", 0), ("Foreground", 0), ("Orphan", 3)] {
        for seed in 0..10 {
            let mut cluster = cluster(2, seed, STORM);
            cluster.create(replicas("web", 3));
            run(&mut cluster, 60, &[0, 1]);
            let deletion = Deletion { propagation: Some(policy), ..Deletion::default() };
            let kind = Kind::of::<ReplicaSet>();
            cluster.api.delete((&kind, "shop", "web"), &deletion).unwrap();
            run(&mut cluster, 120, &[0, 1]);
            assert!(cluster.get::<ReplicaSet>("shop", "web").is_none(), "{policy} {seed}");
            let left = cluster.list_of::<Pod>("shop");
            assert_eq!(left.len(), pods, "{policy} {seed}");
            assert!(left.iter().all(|p| p.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)));
        }
    }
}

#[test]
fn pods_of_a_silent_node_are_evicted_and_made_again_elsewhere() {
    let mut cluster = cluster(4, 4, CALM);
    cluster.create(replicas("web", 8));
    run(&mut cluster, 60, &[0, 1, 2, 3]);
    let on = |cluster: &Cluster, node: &str| {
        let pods = cluster.list_of::<Pod>("shop");
        pods.iter().filter(|p| p.spec.as_ref().unwrap().node_name.as_deref() == Some(node)).count()
    };
    assert_eq!(on(&cluster, "node-3"), 2);
    run(&mut cluster, 40, &[0, 1, 2]);
    assert_eq!(on(&cluster, "node-3"), 2, "not yet");
    run(&mut cluster, 60, &[0, 1, 2]);
    let node = cluster.get::<Node>("", "node-3").unwrap();
    let taints = node.spec.unwrap().taints.unwrap();
    let mut effects: Vec<&str> = taints.iter().map(|t| t.effect.as_str()).collect();
    effects.sort_unstable();
    assert_eq!(effects, ["NoExecute", "NoSchedule"]);
    assert_eq!(on(&cluster, "node-3"), 0);
    assert_eq!(cluster.list_of::<Pod>("shop").len(), 8);
    run(&mut cluster, 20, &[0, 1, 2, 3]);
    cluster.patch_status::<Node>(
        "",
        "node-3",
        &json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    run(&mut cluster, 20, &[0, 1, 2, 3]);
    assert!(cluster.get::<Node>("", "node-3").unwrap().spec.unwrap().taints.is_none_or(|t| t.is_empty()));
}

#[test]
fn when_every_node_falls_silent_no_pod_is_evicted() {
    let mut cluster = cluster(3, 5, CALM);
    cluster.create(replicas("web", 6));
    run(&mut cluster, 60, &[0, 1, 2]);
    let before = names(&cluster.list_of::<Pod>("shop"));
    run(&mut cluster, 600, &[]);
    assert_eq!(names(&cluster.list_of::<Pod>("shop")), before);
}

#[test]
fn pods_of_a_node_that_is_gone_are_collected() {
    let mut cluster = cluster(2, 6, CALM);
    cluster.create(replicas("web", 4));
    run(&mut cluster, 60, &[0, 1]);
    cluster.nodes.collects = false;
    cluster.lose_node("node-1");
    run(&mut cluster, 60, &[0]);
    let pods = cluster.list_of::<Pod>("shop");
    assert_eq!(pods.len(), 4);
    assert!(pods.iter().all(|p| p.spec.as_ref().unwrap().node_name.as_deref() == Some("node-0")));
}

/// With `restarts`, the driver is stopped in the middle of things and starts again.
fn a_claim_lives_and_goes(seed: u64, chaos: Option<Chaos>, restarts: bool) {
    let mut cluster = cluster(2, seed, chaos);
    let mut class = serde_json::to_value(local_path::storage_class()).unwrap();
    class["kind"] = json!("StorageClass");
    cluster.create(class);
    cluster.create(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": "shop", "name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}));
    run(&mut cluster, 60, &[0, 1]);
    assert!(cluster.api.directories().is_empty(), "no pod yet");
    // what the scheduler does for the first pod
    cluster.patch::<PersistentVolumeClaim>(
        "shop",
        "data",
        &json!({"metadata": {"annotations": {SELECTED_NODE: "node-1"}}}),
    );
    if restarts {
        cluster.until(30, "the directory is there", |c| !c.api.directories().is_empty());
        cluster.restart();
    }
    run(&mut cluster, 60, &[0, 1]);
    let claim = cluster.get::<PersistentVolumeClaim>("shop", "data").unwrap();
    assert_eq!(claim.status.unwrap().phase.as_deref(), Some("Bound"), "seed {seed}");
    let volumes = cluster.list_of::<PersistentVolume>("");
    assert_eq!(volumes.len(), 1, "seed {seed}");
    assert_eq!(volumes[0].status.as_ref().unwrap().phase.as_deref(), Some("Bound"), "seed {seed}");
    let directories: Vec<String> = cluster.api.directories().iter().map(|(node, _)| node.clone()).collect();
    assert_eq!(directories, ["node-1"]);
    cluster.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "p"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}}));
    run(&mut cluster, 30, &[0, 1]);
    cluster.delete::<PersistentVolumeClaim>("shop", "data");
    run(&mut cluster, 60, &[0, 1]);
    assert!(cluster.get::<PersistentVolumeClaim>("shop", "data").is_some(), "the pod uses it");
    cluster.delete::<Pod>("shop", "p");
    if restarts {
        let released = |v: &PersistentVolume| v.status.as_ref().unwrap().phase.as_deref() == Some("Released");
        cluster
            .until(60, "the volume is released", |c| c.list_of::<PersistentVolume>("").iter().all(released));
        cluster.restart();
    }
    run(&mut cluster, 200, &[0, 1]);
    assert!(cluster.get::<PersistentVolumeClaim>("shop", "data").is_none(), "seed {seed}");
    assert!(cluster.list_of::<PersistentVolume>("").is_empty(), "seed {seed}");
    assert!(cluster.api.directories().is_empty(), "seed {seed}");
}

#[test]
fn a_claim_gets_its_directory_and_the_data_goes_with_it() {
    a_claim_lives_and_goes(7, CALM, false);
}

#[test]
fn a_claim_gets_its_directory_though_answers_get_lost_and_watches_lag() {
    for seed in 0..20 {
        a_claim_lives_and_goes(seed, STORM, seed % 2 == 1);
    }
}

#[test]
fn budgets_and_quotas_follow_what_is_there() {
    let mut cluster = cluster(2, 8, CALM);
    cluster.create(replicas("web", 4));
    cluster.create(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"namespace": "shop", "name": "b"},
        "spec": {"maxUnavailable": "25%", "selector": {"matchLabels": {"app": "web"}}}}));
    cluster.create(
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "shop", "name": "q"},
        "spec": {"hard": {"pods": "10", "count/replicasets.apps": "5", "configmaps": "5"}}}),
    );
    run(&mut cluster, 60, &[0, 1]);
    let status = cluster.get::<PodDisruptionBudget>("shop", "b").unwrap().status.unwrap();
    assert_eq!(
        (status.expected_pods, status.desired_healthy, status.disruptions_allowed),
        (Some(4), Some(3), Some(1))
    );
    let used = |cluster: &Cluster| {
        let used = cluster.get::<ResourceQuota>("shop", "q").unwrap().status.unwrap().used.unwrap();
        ["pods", "count/replicasets.apps", "configmaps"].map(|key| used[key].0.clone())
    };
    assert_eq!(used(&cluster), ["4", "1", "1"]);
    cluster.patch::<ReplicaSet>("shop", "web", &json!({"spec": {"replicas": 1}}));
    run(&mut cluster, 120, &[0, 1]);
    assert_eq!(used(&cluster), ["1", "1", "1"]);
}

#[test]
fn a_cluster_at_rest_does_nothing() {
    let mut cluster = cluster(2, 9, CALM);
    cluster.create(replicas("web", 4));
    cluster.create(service("web"));
    run(&mut cluster, 120, &[0, 1]);
    let (plans, revision) = (cluster.plans, cluster.api.revision());
    // renewals of the leases are written by the test
    run(&mut cluster, 120, &[0, 1]);
    assert_eq!(cluster.api.revision() - revision, 24);
    assert_eq!(cluster.plans, plans);
}
