//! Loops that ask the real API server before they plan: scales, reviews, lists.

mod server;

use std::time::Duration;

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler,
        certificates::v1::CertificateSigningRequest, core::v1::ConfigMap,
        storagemigration::v1::StorageVersionMigration,
    },
};
use kube::{Api, Client, api::PostParams, runtime::wait::await_condition};
use serde_json::{Value, json};
use server::as_master;

struct Cluster {
    client: Client,
    _folder: tempfile::TempDir,
    _server: apiserver::Server,
    _tasks: tokio::task::JoinSet<()>,
}

impl Cluster {
    async fn start(loops: Vec<Box<dyn controllers::Controller>>) -> Self {
        let (server, folder) = server::start().await;
        let client = as_master(&server);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(controllers::driver::run(as_master(&server), loops));
        Self { client, _folder: folder, _server: server, _tasks: tasks }
    }
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(120), future).await {
        Ok(value) => value,
        Err(_) => panic!("it is not so that {what}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_reads_and_writes_the_scale_of_its_target() {
    let cluster = Cluster::start(vec![Box::new(controllers::autoscaler::Autoscaler)]).await;
    let deployments = Api::<Deployment>::namespaced(cluster.client.clone(), "default");
    create(
        &deployments,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    )
    .await;
    let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(cluster.client.clone(), "default");
    create(
        &autoscalers,
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {"minReplicas": 3, "maxReplicas": 5,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
    )
    .await;
    let scaled = |d: Option<&Deployment>| d.is_some_and(|d| d.spec.replicas == Some(3));
    within("it has three replicas", await_condition(deployments, "web", scaled)).await.unwrap();
    let told = |a: Option<&HorizontalPodAutoscaler>| {
        let status = a.and_then(|a| a.status.as_ref());
        let mut conditions = status.into_iter().flat_map(|s| s.conditions.iter().flatten());
        let able = conditions.any(|c| c.reason.as_deref() == Some("SucceededRescale"));
        able && status.is_some_and(|s| s.desired_replicas == 3 && s.observed_generation == Some(1))
    };
    within("it says so", await_condition(autoscalers, "web", told)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_gets_its_client_certificate() {
    use controllers::certificates::{approving::Approving, authority::Authority, signing::Signing};
    use rcgen::{CertificateParams, DnType, KeyPair};

    let root_key = KeyPair::generate().unwrap();
    let root = CertificateParams::default().self_signed(&root_key).unwrap();
    let authority = Authority::from_pem(&root.pem(), &root_key.serialize_pem()).unwrap();
    let cluster = Cluster::start(vec![Box::new(Approving), Box::new(Signing { authority })]).await;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "system:node:n");
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let requests = Api::<CertificateSigningRequest>::all(cluster.client.clone());
    create(
        &requests,
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "n"},
            "spec": {"request": ByteString(request.into_bytes()),
                "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                "username": "test", "groups": ["system:masters"],
                "usages": ["digital signature", "client auth"]}}),
    )
    .await;
    let issued = |r: Option<&CertificateSigningRequest>| {
        let status = r.and_then(|r| r.status.as_ref());
        status
            .and_then(|s| s.certificate.as_ref())
            .is_some_and(|c| c.0.starts_with(b"-----BEGIN CERTIFICATE"))
    };
    within("it is signed", await_condition(requests, "n", issued)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_migration_goes_through_and_ends() {
    let cluster = Cluster::start(vec![Box::new(controllers::storage_migration::StorageMigration)]).await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), "default");
    for name in ["a", "b"] {
        create(&maps, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})).await;
    }
    let migrations = Api::<StorageVersionMigration>::all(cluster.client.clone());
    create(
        &migrations,
        json!({"apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
            "metadata": {"name": "m"}, "spec": {"resource": {"group": "", "resource": "configmaps"}}}),
    )
    .await;
    let holds = |m: &StorageVersionMigration, kind: &str, status: &str| {
        let conditions = m.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.type_ == kind && c.status == status)
    };
    let ended = move |m: Option<&StorageVersionMigration>| {
        m.is_some_and(|m| holds(m, "Succeeded", "True") && holds(m, "Running", "False"))
    };
    within("it has succeeded", await_condition(migrations, "m", ended)).await.unwrap();
}
