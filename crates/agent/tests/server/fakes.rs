//! A node with one pod, `web` in `shop`, with containers `app` (runs), `side` (crashes) and `late` (waits).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use agent::{
    Config,
    config::ServerConfig,
    cri::{EventStream, ImageService, RuntimeService},
    server::{self, Listening},
    view::{ContainerView, Pods},
};
use async_trait::async_trait;
use futures::StreamExt;
use http_body_util::BodyExt;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// A runtime that has what the tests put here.
pub struct Runtime {
    /// Where `Exec`, `Attach` and `PortForward` send.
    pub streaming: Mutex<Option<String>>,
    /// The last request for a stream.
    pub asked: Mutex<String>,
    pub events: broadcast::Sender<cri::ContainerEventResponse>,
    /// Processor time of the container, nanoseconds; rises with each look.
    pub cpu: Mutex<(i64, u64)>,
    pub running: Mutex<bool>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            streaming: Mutex::default(),
            asked: Mutex::default(),
            events: broadcast::channel(8).0,
            cpu: Mutex::new((1_700_000_000_000_000_000, 5_000_000_000)),
            running: Mutex::new(true),
        }
    }
}

impl Runtime {
    fn url(&self, asked: String) -> Result<String, Status> {
        *self.asked.lock().unwrap() = asked;
        let url = self.streaming.lock().unwrap().clone();
        url.ok_or_else(|| Status::resource_exhausted("maximum number of in-flight requests exceeded"))
    }
}

macro_rules! unimplemented_but {
    ($($method:ident: $request:ident => $response:ident,)* ; $($rest:tt)*) => {
        #[async_trait]
        impl RuntimeService for Runtime {
            $(async fn $method(&self, _: Request<cri::$request>) -> Result<Response<cri::$response>, Status> {
                Err(Status::unimplemented(stringify!($method)))
            })*
            $($rest)*
        }
    };
}

fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

unimplemented_but! {
    version: VersionRequest => VersionResponse,
    run_pod_sandbox: RunPodSandboxRequest => RunPodSandboxResponse,
    stop_pod_sandbox: StopPodSandboxRequest => StopPodSandboxResponse,
    remove_pod_sandbox: RemovePodSandboxRequest => RemovePodSandboxResponse,
    pod_sandbox_status: PodSandboxStatusRequest => PodSandboxStatusResponse,
    create_container: CreateContainerRequest => CreateContainerResponse,
    start_container: StartContainerRequest => StartContainerResponse,
    stop_container: StopContainerRequest => StopContainerResponse,
    remove_container: RemoveContainerRequest => RemoveContainerResponse,
    update_container_resources: UpdateContainerResourcesRequest => UpdateContainerResourcesResponse,
    reopen_container_log: ReopenContainerLogRequest => ReopenContainerLogResponse,
    container_stats: ContainerStatsRequest => ContainerStatsResponse,
    list_container_stats: ListContainerStatsRequest => ListContainerStatsResponse,
    pod_sandbox_stats: PodSandboxStatsRequest => PodSandboxStatsResponse,
    update_runtime_config: UpdateRuntimeConfigRequest => UpdateRuntimeConfigResponse,
    status: StatusRequest => StatusResponse,
    checkpoint_container: CheckpointContainerRequest => CheckpointContainerResponse,
    list_metric_descriptors: ListMetricDescriptorsRequest => ListMetricDescriptorsResponse,
    list_pod_sandbox_metrics: ListPodSandboxMetricsRequest => ListPodSandboxMetricsResponse,
    runtime_config: RuntimeConfigRequest => RuntimeConfigResponse,
    ;

    async fn list_pod_sandbox(
        &self,
        _: Request<cri::ListPodSandboxRequest>,
    ) -> Result<Response<cri::ListPodSandboxResponse>, Status> {
        let metadata = cri::PodSandboxMetadata {
            name: "web".into(), namespace: "shop".into(), uid: "u-1".into(), attempt: 0,
        };
        let sandbox = cri::PodSandbox { id: "sandbox-1".into(), metadata: Some(metadata), ..Default::default() };
        Ok(Response::new(cri::ListPodSandboxResponse { items: vec![sandbox] }))
    }

    async fn list_containers(
        &self,
        _: Request<cri::ListContainersRequest>,
    ) -> Result<Response<cri::ListContainersResponse>, Status> {
        let container = cri::Container {
            id: "app-1".into(),
            pod_sandbox_id: "sandbox-1".into(),
            metadata: Some(cri::ContainerMetadata { name: "app".into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: "app:1".into(), ..Default::default() }),
            ..Default::default()
        };
        Ok(Response::new(cri::ListContainersResponse { containers: vec![container] }))
    }

    async fn container_status(
        &self,
        _: Request<cri::ContainerStatusRequest>,
    ) -> Result<Response<cri::ContainerStatusResponse>, Status> {
        let state = match *self.running.lock().unwrap() {
            true => cri::ContainerState::ContainerRunning,
            false => cri::ContainerState::ContainerExited,
        };
        let status = cri::ContainerStatus { state: state.into(), ..Default::default() };
        Ok(Response::new(cri::ContainerStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn exec_sync(
        &self,
        request: Request<cri::ExecSyncRequest>,
    ) -> Result<Response<cri::ExecSyncResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.container_id, "app-1");
        let exit_code = i32::from(request.cmd[0] == "false");
        let (stdout, stderr) = (request.cmd.join("|").into_bytes(), b" and stderr".to_vec());
        Ok(Response::new(cri::ExecSyncResponse { stdout, stderr, exit_code }))
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Result<Response<cri::ExecResponse>, Status> {
        let url = self.url(format!("{:?}", request.into_inner()))?;
        Ok(Response::new(cri::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Result<Response<cri::AttachResponse>, Status> {
        let url = self.url(format!("{:?}", request.into_inner()))?;
        Ok(Response::new(cri::AttachResponse { url }))
    }

    async fn port_forward(
        &self,
        request: Request<cri::PortForwardRequest>,
    ) -> Result<Response<cri::PortForwardResponse>, Status> {
        let url = self.url(format!("{:?}", request.into_inner()))?;
        Ok(Response::new(cri::PortForwardResponse { url }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        _: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Result<Response<cri::ListPodSandboxStatsResponse>, Status> {
        let mut clock = self.cpu.lock().unwrap();
        // half a processor's time in each two seconds
        clock.0 += 2_000_000_000;
        clock.1 += 1_000_000_000;
        let (timestamp, nanos) = *clock;
        let cpu = cri::CpuUsage { timestamp, usage_core_nano_seconds: value(nanos), usage_nano_cores: None };
        let memory = cri::MemoryUsage {
            timestamp, working_set_bytes: value(1 << 20), usage_bytes: value(2 << 20), ..Default::default()
        };
        let attributes = |id: &str| cri::ContainerAttributes {
            id: id.into(),
            metadata: Some(cri::ContainerMetadata { name: "app".into(), attempt: 1 }),
            ..Default::default()
        };
        let container = |id: &str| cri::ContainerStats {
            attributes: Some(attributes(id)),
            cpu: Some(cpu),
            memory: Some(memory),
            writable_layer: Some(cri::FilesystemUsage { used_bytes: value(4096), ..Default::default() }),
            ..Default::default()
        };
        let network = cri::NetworkUsage {
            timestamp,
            default_interface: Some(cri::NetworkInterfaceUsage {
                name: "eth0".into(), rx_bytes: value(10), tx_bytes: value(20), ..Default::default()
            }),
            interfaces: vec![],
        };
        let linux = cri::LinuxPodSandboxStats {
            cpu: Some(cpu),
            memory: Some(memory),
            network: Some(network),
            process: Some(cri::ProcessUsage { timestamp, process_count: value(3) }),
            containers: vec![container("app-0"), container("app-1")],
        };
        let metadata = cri::PodSandboxMetadata {
            name: "web".into(), namespace: "shop".into(), uid: "u-1".into(), attempt: 0,
        };
        let attributes = cri::PodSandboxAttributes { id: "sandbox-1".into(), metadata: Some(metadata), ..Default::default() };
        let stats = cri::PodSandboxStats { attributes: Some(attributes), linux: Some(linux), windows: None };
        Ok(Response::new(cri::ListPodSandboxStatsResponse { stats: vec![stats] }))
    }

    type GetContainerEventsStream = EventStream;
    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let events = BroadcastStream::new(self.events.subscribe());
        Ok(Response::new(events.map(|e| e.map_err(|_| Status::data_loss("lagged"))).boxed()))
    }
}

/// Images on the root file system.
struct NoImages;

#[async_trait]
impl ImageService for NoImages {
    async fn list_images(
        &self,
        _: Request<cri::ListImagesRequest>,
    ) -> Result<Response<cri::ListImagesResponse>, Status> {
        Err(Status::unimplemented("list_images"))
    }
    async fn image_status(
        &self,
        _: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        Err(Status::unimplemented("image_status"))
    }
    async fn pull_image(
        &self,
        _: Request<cri::PullImageRequest>,
    ) -> Result<Response<cri::PullImageResponse>, Status> {
        Err(Status::unimplemented("pull_image"))
    }
    async fn remove_image(
        &self,
        _: Request<cri::RemoveImageRequest>,
    ) -> Result<Response<cri::RemoveImageResponse>, Status> {
        Err(Status::unimplemented("remove_image"))
    }
    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Result<Response<cri::ImageFsInfoResponse>, Status> {
        let fs = cri::FilesystemUsage {
            fs_id: Some(cri::FilesystemIdentifier { mountpoint: "/".into() }),
            used_bytes: value(12345),
            ..Default::default()
        };
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: vec![fs.clone()],
            container_filesystems: vec![fs],
        }))
    }
}

struct View {
    logs: PathBuf,
}

impl Pods for View {
    fn list(&self) -> Vec<Arc<Pod>> {
        vec![self.get("shop", "web", None).unwrap()]
    }

    fn get(&self, namespace: &str, name: &str, _: Option<&str>) -> Option<Arc<Pod>> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-1"},
            "spec": {
                "containers": [
                    {"name": "app", "image": "app:1", "tty": true}, {"name": "side"}, {"name": "late"}, {"name": "new"},
                ],
                "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "config", "configMap": {"name": "c"}}],
            },
            "status": {
                "startTime": "2026-01-01T00:00:00Z",
                "containerStatuses": [{
                    "name": "app", "image": "docker.io/library/app:1", "imageID": "", "ready": true, "restartCount": 1,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}},
                }],
            },
        });
        ((namespace, name) == ("shop", "web")).then(|| Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn container(&self, namespace: &str, pod: &str, container: &str) -> Option<ContainerView> {
        assert_eq!((namespace, pod), ("shop", "web"));
        let log = |name: &str| Some(self.logs.join(name));
        let (id, running, log, previous_log, waiting) = match container {
            "app" => (Some("app-1"), true, log("app/1.log"), log("app/0.log"), None),
            "side" => (Some("side-3"), false, log("side/3.log"), None, Some("CrashLoopBackOff")),
            "late" => (None, false, None, None, Some("ImagePullBackOff")),
            _ => return None,
        };
        Some(ContainerView {
            id: id.map(str::to_owned),
            running,
            log,
            previous_log,
            waiting: waiting.map(str::to_owned),
        })
    }

    fn sandbox(&self, namespace: &str, pod: &str) -> Option<String> {
        ((namespace, pod) == ("shop", "web")).then(|| "sandbox-1".to_owned())
    }
}

/// An API server that reviews: tokens name their user, and `jane` may look at statistics.
#[derive(Default)]
pub struct Api {
    /// The reviews that were asked for.
    pub reviews: Mutex<Vec<Value>>,
}

impl Api {
    fn client(self: &Arc<Self>) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                api.reviews.lock().unwrap().push(review.clone());
                review["status"] = match review["kind"].as_str().unwrap() {
                    "TokenReview" => {
                        match review["spec"]["token"].as_str().unwrap().strip_prefix("token-of-") {
                            Some(user) => {
                                json!({"authenticated": true, "user": {"username": user, "groups": ["dev"]}})
                            }
                            None => json!({"authenticated": false, "error": "no such token"}),
                        }
                    }
                    _ => {
                        let wish = &review["spec"]["resourceAttributes"];
                        let allowed = review["spec"]["user"] == "jane"
                            && wish["verb"] == "get"
                            && ["stats", "metrics", "proxy"].contains(&wish["subresource"].as_str().unwrap());
                        json!({"allowed": allowed})
                    }
                };
                Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(
                    serde_json::to_vec(&review).unwrap(),
                )))
            }
        });
        kube::Client::new(service, "default")
    }
}

/// Certificates of one authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub fn identity(&self, user: &str, group: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    pub fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }
}

/// A kubelet that serves.
pub struct Node {
    pub address: SocketAddr,
    pub authority: Authority,
    pub runtime: Arc<Runtime>,
    pub api: Arc<Api>,
    pub dir: TempDir,
    pub listening: Option<Listening>,
    pub shutdown: CancellationToken,
}

impl Node {
    pub async fn start() -> Self {
        let authority = Authority::new();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(authority.roots(), provider.clone())
                .allow_unauthenticated()
                .build()
                .unwrap();
        let (chain, key) = authority.identity("system:node:n1", "system:nodes");
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        let (runtime, api, dir) =
            (Arc::new(Runtime::default()), Arc::new(Api::default()), tempfile::tempdir().unwrap());
        let log_root = dir.path().join("logs");
        let config = Config {
            node_name: "n1".into(),
            client: api.client(),
            runtime: runtime.clone(),
            images: Arc::new(NoImages),
            root: dir.path().to_owned(),
            log_root: log_root.clone(),
            cgroup_parent: "/none".into(),
            addresses: vec![],
            cluster_dns: vec!["10.0.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            labels: BTreeMap::new(),
            taints: vec![],
            capacity: BTreeMap::new(),
            reserved: BTreeMap::new(),
            pod_cidr: None,
            max_pods: 110,
            policy: Default::default(),
            server: Some(ServerConfig {
                listener: Arc::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap()),
                tls: Arc::new(tls),
            }),
        };
        let logs = config.log_dir("shop", "web", "u-1");
        for folder in ["app", "side"] {
            std::fs::create_dir_all(logs.join(folder)).unwrap();
        }
        std::fs::create_dir_all(dir.path().join("pods/u-1/volumes/scratch")).unwrap();
        std::fs::write(dir.path().join("pods/u-1/volumes/scratch/file"), vec![1; 50_000]).unwrap();
        let shutdown = CancellationToken::new();
        let listening = server::run(config, Arc::new(View { logs }), shutdown.clone()).await.unwrap();
        Self {
            address: listening.address,
            authority,
            runtime,
            api,
            dir,
            listening: Some(listening),
            shutdown,
        }
    }

    /// Where the pod's logs are.
    pub fn logs(&self) -> PathBuf {
        self.dir.path().join("logs/shop_web_u-1")
    }
}
