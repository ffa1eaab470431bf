//! The driver and its loops as clients of the real API server, in this process. Kubelets are played by the test: pods
//! without a node go at once when they are deleted, so that nothing else is needed.

mod server;

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{Node, Pod, ReplicationController},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        wait::await_condition,
        watcher::{self, watcher},
    },
};
use serde_json::{Value, json};
use server::as_master;

struct Cluster {
    client: Client,
    _folder: tempfile::TempDir,
    _server: apiserver::Server,
    tasks: tokio::task::JoinSet<()>,
}

impl Cluster {
    async fn start() -> Self {
        let (server, folder) = server::start().await;
        let client = as_master(&server);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(play_kubelet(as_master(&server)));
        let loops = controllers::all(&controllers::Options::default());
        tasks.spawn(controllers::driver::run(as_master(&server), loops));
        Self { client, _folder: folder, _server: server, tasks }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }
}

/// Makes every pod run and be ready; those of Jobs succeed.
async fn play_kubelet(client: Client) {
    let events = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let mut pods = events.applied_objects().boxed();
    while let Some(Ok(pod)) = pods.next().await {
        if pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Pending") {
            continue;
        }
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let ends = pod.labels().contains_key("job-name");
        let phase = if ends { "Succeeded" } else { "Running" };
        let status = json!({"status": {"phase": phase,
            "conditions": [{"type": "Ready", "status": if ends { "False" } else { "True" }, "lastTransitionTime": now}]}});
        let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap());
        // A pod that is gone by now needs no status.
        let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
    }
}

fn web(replicas: i32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(value) => value,
        Err(_) => panic!("after {seconds} seconds it is not so that {what}"),
    }
}

fn rolled_out(deployment: Option<&Deployment>) -> bool {
    deployment.is_some_and(|d| {
        let Some(status) = &d.status else { return false };
        status.observed_generation == d.metadata.generation
            && status.updated_replicas == d.spec.replicas
            && status.available_replicas == d.spec.replicas
            && status.replicas == d.spec.replicas
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_rolled_out_scaled_and_told_of() {
    let mut cluster = Cluster::start().await;
    cluster.create::<Deployment>(web(5, "v1")).await;
    let done = await_condition(cluster.api::<Deployment>(), "web", rolled_out);
    within(60, "the first revision runs", done).await.unwrap();
    let patch = json!({"spec": {"replicas": 8, "template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    let patch = Patch::Strategic(patch);
    cluster.api::<Deployment>().patch("web", &PatchParams::default(), &patch).await.unwrap();
    let done = await_condition(cluster.api::<Deployment>(), "web", rolled_out);
    within(60, "the second revision runs", done).await.unwrap();
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap();
    let images: Vec<_> = pods.iter().map(|p| p.spec.as_ref().unwrap().containers[0].image.clone()).collect();
    assert_eq!(images, vec![Some("v2".to_owned()); 8]);
    let scaled = async {
        let mut events =
            watcher(cluster.api::<Event>(), watcher::Config::default()).applied_objects().boxed();
        while let Some(Ok(event)) = events.next().await {
            if event.reason.as_deref() == Some("ScalingReplicaSet") {
                return event;
            }
        }
        unreachable!("the watch never ends")
    };
    let event = within(20, "an event tells of it", scaled).await;
    assert_eq!(event.reporting_controller.as_deref(), Some("deployment-controller"));
    cluster.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_replaced() {
    let mut cluster = Cluster::start().await;
    cluster
        .create::<ReplicationController>(json!({"apiVersion": "v1", "kind": "ReplicationController",
            "metadata": {"name": "rc"}, "spec": {"replicas": 2, "selector": {"app": "rc"},
            "template": {"metadata": {"labels": {"app": "rc"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))
        .await;
    let ready = |rc: Option<&ReplicationController>| {
        rc.and_then(|rc| rc.status.as_ref())
            .is_some_and(|s| s.available_replicas == Some(2) && s.replicas == 2)
    };
    let done = await_condition(cluster.api::<ReplicationController>(), "rc", ready);
    within(60, "there are two pods", done).await.unwrap();
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap();
    let victim = pods.items[0].name_any();
    cluster.api::<Pod>().delete(&victim, &DeleteParams::default()).await.unwrap();
    let before: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    let replaced = async {
        let mut pods = watcher(cluster.api::<Pod>(), watcher::Config::default()).applied_objects().boxed();
        while let Some(Ok(pod)) = pods.next().await {
            if !before.contains(&pod.name_any()) {
                return;
            }
        }
    };
    within(20, "another pod has come", replaced).await;
    cluster.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_gets_its_claims_and_is_updated_in_order() {
    let mut cluster = Cluster::start().await;
    cluster
        .create::<StatefulSet>(json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
            "spec": {"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}}}}],
                "template": {"metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]}}}}))
        .await;
    let settled = |set: Option<&StatefulSet>| {
        set.is_some_and(|set| {
            let Some(status) = &set.status else { return false };
            status.observed_generation == set.metadata.generation
                && status.updated_replicas == Some(3)
                && status.available_replicas == Some(3)
                && status.current_revision == status.update_revision
        })
    };
    let done = await_condition(cluster.api::<StatefulSet>(), "db", settled);
    within(60, "three pods run", done).await.unwrap();
    let claims = cluster.api::<k8s_openapi::api::core::v1::PersistentVolumeClaim>();
    let mut names: Vec<String> =
        claims.list(&Default::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    names.sort();
    assert_eq!(names, ["data-db-0", "data-db-1", "data-db-2"]);
    let patch = Patch::Strategic(
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}),
    );
    cluster.api::<StatefulSet>().patch("db", &PatchParams::default(), &patch).await.unwrap();
    let done = await_condition(cluster.api::<StatefulSet>(), "db", settled);
    within(60, "all are updated", done).await.unwrap();
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap();
    let new = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v2");
    assert!(pods.items.len() == 3 && pods.iter().all(new));
    cluster.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_follows_the_nodes() {
    let mut cluster = Cluster::start().await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    for name in ["one", "two"] {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
    }
    cluster
        .create::<DaemonSet>(
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
            "spec": {"selector": {"matchLabels": {"app": "agent"}},
                "template": {"metadata": {"labels": {"app": "agent"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]}}}}),
        )
        .await;
    fn available(count: i32) -> impl Fn(Option<&DaemonSet>) -> bool {
        move |set| {
            let status = set.and_then(|s| s.status.as_ref());
            status.is_some_and(|s| s.number_available == Some(count) && s.desired_number_scheduled == count)
        }
    }
    let done = await_condition(cluster.api::<DaemonSet>(), "agent", available(2));
    within(60, "there is a pod on each node", done).await.unwrap();
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "three"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let done = await_condition(cluster.api::<DaemonSet>(), "agent", available(3));
    within(60, "the new node has one too", done).await.unwrap();
    cluster.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_counted_to_its_end() {
    let mut cluster = Cluster::start().await;
    cluster
        .create::<Job>(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sum"},
            "spec": {"completions": 20, "parallelism": 7, "completionMode": "Indexed",
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}))
        .await;
    let complete = |job: Option<&Job>| {
        let status = job.and_then(|job| job.status.as_ref());
        status.is_some_and(|s| {
            s.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True")
        })
    };
    let done = await_condition(cluster.api::<Job>(), "sum", complete);
    let job = within(60, "it is complete", done).await.unwrap().unwrap();
    let status = job.status.unwrap();
    assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(20), Some("0-19")));
    assert_eq!((status.active, status.ready, status.terminating), (None, Some(0), Some(0)));
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap();
    assert!(pods.iter().all(|pod| pod.finalizers().is_empty()));
    cluster.tasks.shutdown().await;
}
