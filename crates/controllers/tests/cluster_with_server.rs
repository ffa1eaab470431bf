//! The loops of the cluster as clients of the real API server with its real admission, in this process. A kubelet is played
//! by the test.

use std::{path::Path, sync::Arc, time::Duration};

use controllers::{
    Options,
    cluster_loops::Settings,
    driver,
    local_path::{self, OnThisMachine},
    node_ipam::Range,
    volumes::SELECTED_NODE,
};
use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::ReplicaSet,
        core::v1::{
            ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Service,
            ServiceAccount,
        },
        discovery::v1::EndpointSlice,
        policy::v1::PodDisruptionBudget,
        rbac::v1::Role,
        storage::v1::StorageClass,
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

struct Cluster {
    client: Client,
    folder: tempfile::TempDir,
    _server: apiserver::Server,
    _tasks: tokio::task::JoinSet<()>,
}

fn as_master(server: &apiserver::Server) -> Client {
    let user = access::UserInfo {
        name: "test".to_owned(),
        groups: vec!["system:masters".to_owned(), access::AUTHENTICATED.to_owned()],
        ..access::UserInfo::default()
    };
    Client::new(server.service_as(user), "shop")
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let resources: Vec<_> = kinds::all().to_vec();
        let extract = apiserver::extract(&resources);
        let store =
            store::Embedded::open(&folder.path().join("store"), store::Options::default(), extract).unwrap();
        let mut config = apiserver::Config::new(store, resources);
        let reader: Arc<dyn access::Reader> = Arc::new(config.reader.clone());
        let rbac = Arc::new(access::rbac::Rbac::new(reader));
        config.authorizers = vec![Arc::new(access::rbac::Masters)];
        let authorizer: Arc<dyn access::Authorizer> = Arc::new(access::Union(config.authorizers.clone()));
        config.admission = access::admission::chain(rbac.clone(), &authorizer);
        config.bootstrap = access::bootstrap::rbac_objects().into_iter().map(|(_, object)| object).collect();
        config.rbac = Some(rbac);
        let server = apiserver::Server::new(config);
        server.start().await.unwrap();
        let root = folder.path().join("volumes");
        let options = Options {
            cluster: Some(Settings {
                ca: "PEM".to_owned(),
                authority: None,
                sign: None,
                pod_networks: vec![Range::new("10.42.0.0/16".parse().unwrap(), 24).unwrap()],
                volumes: Some(root.clone()),
                disks: None,
            }),
        };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(play_kubelet(as_master(&server)));
        let disks = Arc::new(OnThisMachine { root });
        tasks.spawn(driver::run_with_disks(as_master(&server), controllers::all(&options), Some(disks)));
        let cluster = Self { client: as_master(&server), folder, _server: server, _tasks: tasks };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        create(&Api::<Namespace>::all(cluster.client.clone()), namespace).await;
        cluster
            .until("the namespace has its account", || async {
                cluster.api::<ServiceAccount>().get_opt("default").await.unwrap().is_some()
            })
            .await;
        cluster
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "shop")
    }

    fn whole<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    fn volumes(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("volumes")).map_or(0, Iterator::count)
    }

    /// Asks again and again, for half a minute at most.
    async fn until<F: Future<Output = bool>>(&self, what: &str, check: impl Fn() -> F) {
        for _ in 0..600 {
            if check().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("after 30 seconds it is not so that {what}");
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + DeserializeOwned + Serialize + Clone + std::fmt::Debug,
    K::DynamicType: Default,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

/// Makes every pod run with an address, and lets it go when it is deleted.
async fn play_kubelet(client: Client) {
    let events = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let mut pods = events.applied_objects().boxed();
    let mut next = 2;
    while let Some(Ok(pod)) = pods.next().await {
        let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap());
        // A pod that is gone by now needs nothing.
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
        } else if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending") {
            let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let ip = format!("10.42.0.{next}");
            next += 1;
            let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]}});
            let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
        }
    }
}

fn web(replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]}}}})
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

async fn running(cluster: &Cluster, count: usize) {
    cluster
        .until("the pods run", || async {
            let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap();
            pods.iter().filter(|p| p.status.as_ref().unwrap().phase.as_deref() == Some("Running")).count()
                == count
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_a_budget_and_a_quota_follow_their_pods() {
    let cluster = Cluster::start().await;
    create(&cluster.whole::<Node>(), node("node-1")).await;
    create(&cluster.api::<ReplicaSet>(), web(3)).await;
    create(
        &cluster.api::<Service>(),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
    )
    .await;
    create(&cluster.api::<PodDisruptionBudget>(), json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}})).await;
    create(
        &cluster.api::<ResourceQuota>(),
        json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "q"}, "spec": {"hard": {"pods": "9", "count/replicasets.apps": "9"}}}),
    )
    .await;
    running(&cluster, 3).await;
    cluster
        .until("all three are ready endpoints of a slice", || async {
            let slices = cluster.api::<EndpointSlice>().list(&Default::default()).await.unwrap();
            let ready = |s: &EndpointSlice| {
                let endpoints = s.endpoints.iter().flatten();
                endpoints.filter(|e| e.conditions.as_ref().unwrap().ready == Some(true)).count()
            };
            slices.iter().map(ready).sum::<usize>() == 3
        })
        .await;
    cluster
        .until("one of three may be evicted", || async {
            let status =
                cluster.api::<PodDisruptionBudget>().get("b").await.unwrap().status.unwrap_or_default();
            (status.expected_pods, status.disruptions_allowed) == (Some(3), Some(1))
        })
        .await;
    cluster
        .until("the quota counts them", || async {
            let used = cluster.api::<ResourceQuota>().get("q").await.unwrap().status.and_then(|s| s.used);
            used.is_some_and(|used| used["pods"].0 == "3" && used["count/replicasets.apps"].0 == "1")
        })
        .await;
    cluster
        .until("the node has its network", || async {
            let node = cluster.whole::<Node>().get("node-1").await.unwrap();
            node.spec.and_then(|s| s.pod_cidr).as_deref() == Some("10.42.0.0/24")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_go_in_the_background_in_the_foreground_and_without_their_dependents() {
    let cluster = Cluster::start().await;
    create(&cluster.whole::<Node>(), node("node-1")).await;
    for (policy, left) in [
        (PropagationPolicy::Background, 0),
        (PropagationPolicy::Foreground, 0),
        (PropagationPolicy::Orphan, 2),
    ] {
        create(&cluster.api::<ReplicaSet>(), web(2)).await;
        running(&cluster, 2).await;
        let how = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        cluster.api::<ReplicaSet>().delete("web", &how).await.unwrap();
        cluster
            .until("the owner is gone and its pods are as the deletion said", || async {
                let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap();
                let free = |pod: &Pod| pod.metadata.owner_references.as_ref().is_none_or(Vec::is_empty);
                cluster.api::<ReplicaSet>().get_opt("web").await.unwrap().is_none()
                    && pods.items.len() == left
                    && pods.iter().all(free)
            })
            .await;
    }
}

fn owned_by(name: &str, owner: &ConfigMap) -> Value {
    json!({"name": name, "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(),
        "uid": owner.uid(), "blockOwnerDeletion": true}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_no_loop_reads_are_collected_and_go_with_their_namespace() {
    let cluster = Cluster::start().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
    let owner = create(&cluster.api::<ConfigMap>(), map).await;
    let role = |metadata: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata});
    create(&cluster.api::<Role>(), role(owned_by("dependent", &owner))).await;
    create(&cluster.api::<Role>(), role(json!({"name": "stranger"}))).await;
    cluster.api::<ConfigMap>().delete("owner", &DeleteParams::background()).await.unwrap();
    cluster
        .until("the dependent is collected", || async {
            cluster.api::<Role>().get_opt("dependent").await.unwrap().is_none()
        })
        .await;
    assert!(cluster.api::<Role>().get_opt("stranger").await.unwrap().is_some());
    cluster.whole::<Namespace>().delete("shop", &DeleteParams::default()).await.unwrap();
    cluster
        .until("the namespace is gone", || async {
            cluster.whole::<Namespace>().get_opt("shop").await.unwrap().is_none()
        })
        .await;
    assert!(cluster.api::<Role>().list(&Default::default()).await.unwrap().items.is_empty());
    assert!(cluster.api::<ConfigMap>().list(&Default::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_in_a_circle_do_not_wait_for_each_other_for_ever() {
    let cluster = Cluster::start().await;
    let api = cluster.api::<ConfigMap>();
    let map = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    let a = create(&api, map(json!({"name": "a"}))).await;
    let b = create(&api, map(owned_by("b", &a))).await;
    let c = create(&api, map(owned_by("c", &b))).await;
    let close = Patch::Merge(json!({"metadata": owned_by("a", &c)}));
    api.patch("a", &PatchParams::default(), &close).await.unwrap();
    api.delete("a", &DeleteParams::foreground()).await.unwrap();
    cluster
        .until("all of them are gone", || async {
            let names: Vec<String> =
                api.list(&Default::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
            names == ["kube-root-ca.crt"]
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_waits_for_what_is_held_and_says_so() {
    let cluster = Cluster::start().await;
    create(
        &cluster.api::<Pod>(),
        json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "held", "finalizers": ["example.com/hold"]},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .await;
    create(
        &cluster.api::<ConfigMap>(),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}),
    )
    .await;
    cluster.whole::<Namespace>().delete("shop", &DeleteParams::default()).await.unwrap();
    cluster
        .until("the namespace says what it waits for", || async {
            let status = cluster.whole::<Namespace>().get("shop").await.unwrap().status.unwrap();
            let conditions = status.conditions.unwrap_or_default();
            let held = conditions.iter().find(|c| c.type_ == "NamespaceFinalizersRemaining");
            conditions.iter().any(|c| c.type_ == "NamespaceDeletionContentFailure")
                && held.is_some_and(|c| c.status == "True")
        })
        .await;
    assert!(cluster.api::<ConfigMap>().get_opt("m").await.unwrap().is_some(), "pods go first");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster.api::<Pod>().patch("held", &PatchParams::default(), &free).await.unwrap();
    cluster
        .until("the namespace is gone", || async {
            cluster.whole::<Namespace>().get_opt("shop").await.unwrap().is_none()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_gets_a_real_directory_and_its_data_goes_with_it() {
    let cluster = Cluster::start().await;
    create(&cluster.whole::<Node>(), node("node-1")).await;
    let class = serde_json::to_value(local_path::storage_class()).unwrap();
    create(&cluster.whole::<StorageClass>(), class).await;
    create(
        &cluster.api::<PersistentVolumeClaim>(),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    )
    .await;
    let chosen = Patch::Merge(json!({"metadata": {"annotations": {SELECTED_NODE: "node-1"}}}));
    cluster.api::<PersistentVolumeClaim>().patch("data", &PatchParams::default(), &chosen).await.unwrap();
    cluster
        .until("the claim is bound", || async {
            let claim = cluster.api::<PersistentVolumeClaim>().get("data").await.unwrap();
            claim.status.and_then(|s| s.phase).as_deref() == Some("Bound")
        })
        .await;
    let volumes = cluster.whole::<PersistentVolume>().list(&Default::default()).await.unwrap();
    let path = volumes.items[0].spec.as_ref().unwrap().local.as_ref().unwrap().path.clone();
    std::fs::write(Path::new(&path).join("file"), "data").unwrap();
    cluster.api::<PersistentVolumeClaim>().delete("data", &DeleteParams::default()).await.unwrap();
    cluster
        .until("claim, volume and data are gone", || async {
            let volumes = cluster.whole::<PersistentVolume>().list(&Default::default()).await.unwrap();
            volumes.items.is_empty() && cluster.volumes() == 0
        })
        .await;
    assert!(cluster.api::<PersistentVolumeClaim>().get_opt("data").await.unwrap().is_none());
}
