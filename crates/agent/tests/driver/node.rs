//! The Node object, the lease, admission.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NODE};

async fn node(cluster: &Cluster) -> Value {
    cluster.get(&format!("/api/v1/nodes/{NODE}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_what_it_is_and_keeps_its_lease() {
    let cluster = Cluster::start().await;
    let node = node(&cluster).await;
    let labels = &node["metadata"]["labels"];
    assert_eq!((&labels["kubernetes.io/hostname"], &labels["disk"]), (&json!(NODE), &json!("ssd")));
    let status = &node["status"];
    assert_eq!(status["capacity"]["cpu"], "4");
    assert_eq!(status["capacity"]["pods"], "110");
    assert_eq!(status["addresses"], json!([{"type": "InternalIP", "address": "192.0.2.7"}]));
    assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], "fake://1");
    let kinds: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|c| c["type"].clone()).collect();
    assert_eq!(kinds, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);
    cluster
        .eventually("a lease", async || {
            let leases = cluster.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases").await;
            let lease = &leases["items"][0];
            lease["spec"]["holderIdentity"] == NODE
                && lease["spec"]["leaseDurationSeconds"] == 40
                && lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_leaves_what_others_put_on_the_node() {
    let mut cluster = Cluster::start().await;
    cluster.stop_agent().await;
    let path = format!("/api/v1/nodes/{NODE}");
    let status = json!({"status": {"capacity": {"example.com/fpga": "2"}, "allocatable": {"example.com/fpga": "2"},
        "conditions": [{"type": "NetworkUnavailable", "status": "False"}]}});
    cluster
        .request("PATCH", &format!("{path}/status"), "application/strategic-merge-patch+json", status)
        .await;
    cluster
        .patch(&path, json!({"metadata": {"labels": {"team": "a"}}, "spec": {"podCIDR": "10.1.0.0/24"}}))
        .await;
    cluster.run_agent().await;
    cluster.eventually("the addresses of pods", async || cluster.fake.pod_cidr() == "10.1.0.0/24").await;
    let node = node(&cluster).await;
    assert_eq!(node["status"]["capacity"]["example.com/fpga"], "2");
    assert_eq!(node["metadata"]["labels"]["team"], "a");
    let conditions = node["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "NetworkUnavailable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_do_not_fit_fail_with_upstreams_reasons_and_start_nothing() {
    let cluster = Cluster::start().await;
    let cpu = |n: &str| json!({"containers": [{"name": "a", "image": "busybox", "resources": {"requests": {"cpu": n}}}]});
    cluster.pod("fits", cpu("3")).await;
    cluster.until_ready("fits").await;
    cluster.fake.told();
    cluster.pod("big", cpu("2")).await;
    let selector =
        json!({"nodeSelector": {"disk": "hdd"}, "containers": [{"name": "a", "image": "busybox"}]});
    cluster.pod("picky", selector).await;
    let reason = |p: &Pod| {
        let status = p.status.as_ref().unwrap();
        (status.reason.clone().unwrap_or_default(), status.message.clone().unwrap_or_default())
    };
    let big = cluster.until_phase("big", "Failed").await;
    let why = "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000";
    assert_eq!(reason(&big), ("OutOfcpu".into(), why.into()));
    let picky = cluster.until_phase("picky", "Failed").await;
    assert_eq!(reason(&picky).0, "NodeAffinity");
    assert_eq!(cluster.fake.told(), Vec::<String>::new());
    cluster.until_event("big", "Warning OutOfcpu Node didn't have enough resource").await;
    // a pod that has gone makes room
    let fits = cluster.pods().get("fits").await.unwrap();
    cluster.pods().delete("fits", &Default::default()).await.unwrap();
    cluster.until_gone(&fits).await;
    cluster
        .eventually("no longer counted", async || {
            !cluster.view.as_ref().unwrap().list().iter().any(|p| p.metadata.name.as_deref() == Some("fits"))
        })
        .await;
    cluster.pod("next", cpu("2")).await;
    cluster.until_ready("next").await;
}

/// The directory of a cgroup in a controller's hierarchy, or in the only one of version 2.
fn cgroup(cgroup: &str, controller: &str) -> std::path::PathBuf {
    let root = std::path::Path::new("/sys/fs/cgroup");
    let unified = root.join("cgroup.controllers").exists();
    root.join(if unified { "" } else { controller }).join(cgroup.trim_start_matches('/'))
}

/// The first of these files of a cgroup that is there.
fn limit(dir: &std::path::Path, names: [&str; 2]) -> String {
    let found = names.iter().find_map(|n| std::fs::read_to_string(dir.join(n)).ok());
    found.unwrap_or_else(|| panic!("{dir:?} has none of {names:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_its_cgroup_while_it_lives_and_classes_go_with_the_last_pod() {
    let parent = format!("/plimsoll-test-{}", std::process::id());
    if std::fs::create_dir_all(cgroup(&parent, "memory")).is_err() {
        println!("skipped: no right to make cgroups");
        return;
    }
    let mut cluster = Cluster::without_agent().await;
    cluster.cgroup_parent = parent.clone();
    cluster.run_agent().await;
    let resources =
        json!({"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}});
    let spec = json!({"containers": [{"name": "a", "image": "busybox", "resources": resources}]});
    let pod = cluster.pod("web", spec).await;
    cluster.until_ready("web").await;
    let uid = pod.metadata.uid.clone().unwrap();
    let own = format!("{parent}/kubepods/burstable/pod{uid}");
    let memory = limit(&cgroup(&own, "memory"), ["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(memory.trim(), (128 << 20).to_string());
    let quota = limit(&cgroup(&own, "cpu"), ["cpu.cfs_quota_us", "cpu.max"]);
    assert!(quota.starts_with("100000"), "{quota}");
    cluster.pods().delete("web", &Default::default()).await.unwrap();
    cluster.until_gone(&pod).await;
    assert!(!cgroup(&own, "memory").exists());
    cluster.stop_agent().await;
    assert!(!cgroup(&format!("{parent}/kubepods"), "memory").exists());
    for controller in ["cpu", "memory", "pids"] {
        let _ = std::fs::remove_dir(cgroup(&parent, controller));
    }
}
