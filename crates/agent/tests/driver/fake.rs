//! A container runtime in memory: it "runs" containers that do what their command says.
//!
//! Commands: `exit N` ends at once with code N; `stubborn` ignores signals; anything else runs until it is told to stop,
//! and then ends with code 0.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use agent::cri::{EventStream, ImageService, RuntimeService};
use async_trait::async_trait;
use futures::StreamExt;
use k8s_cri::v1 as cri;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

struct Sandbox {
    config: cri::PodSandboxConfig,
    ready: bool,
    ip: String,
}

struct Container {
    config: cri::ContainerConfig,
    sandbox: String,
    state: cri::ContainerState,
    started: i64,
    finished: i64,
    exit_code: i32,
    reason: String,
    ended: Arc<Notify>,
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    images: BTreeSet<String>,
    exec: HashMap<String, i32>,
    log: Vec<String>,
    pod_cidr: String,
    start_failures: u32,
}

/// The runtime.
pub struct Fake {
    state: Mutex<State>,
    events: Mutex<broadcast::Sender<cri::ContainerEventResponse>>,
    /// Answers a request for events only with the first one, as servers in Go do.
    pub answers_late: AtomicBool,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

fn missing(what: &str) -> Status {
    Status::not_found(format!("{what} not found"))
}

impl Fake {
    pub fn new() -> Arc<Self> {
        let state = State { images: BTreeSet::from(["busybox".to_owned()]), ..State::default() };
        let events = Mutex::new(broadcast::channel(1024).0);
        Arc::new(Self { state: Mutex::new(state), events, answers_late: AtomicBool::new(false) })
    }

    /// What was asked of it, in order, since the last time this was called.
    pub fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().log)
    }

    /// Whether it was asked for this since [`Fake::told`] was called.
    pub fn asked(&self, what: &str) -> bool {
        self.state.lock().log.iter().any(|l| l == what)
    }

    /// What a command in a container answers from now on.
    pub fn answers(&self, command: &str, code: i32) {
        self.state.lock().exec.insert(command.to_owned(), code);
    }

    /// The next starts of containers fail.
    pub fn fail_starts(&self, count: u32) {
        self.state.lock().start_failures = count;
    }

    pub fn pod_cidr(&self) -> String {
        self.state.lock().pod_cidr.clone()
    }

    /// Ends the newest running container of this name.
    pub fn exit(&self, name: &str, code: i32) {
        let id = self.running(name).expect("a running container");
        self.end(&id, code, "");
    }

    pub fn running(&self, name: &str) -> Option<String> {
        let state = self.state.lock();
        let found = state.containers.iter().rev().find(|(_, c)| {
            c.state == cri::ContainerState::ContainerRunning
                && c.config.metadata.as_ref().is_some_and(|m| m.name == name)
        });
        found.map(|(id, _)| id.clone())
    }

    /// What a container was made with.
    pub fn config(&self, id: &str) -> cri::ContainerConfig {
        self.state.lock().containers[id].config.clone()
    }

    /// Breaks the event stream of everyone who listens.
    pub fn break_events(&self) {
        *self.events.lock() = broadcast::channel(1024).0;
    }

    /// Ends a container without telling anyone.
    pub fn exit_unseen(&self, name: &str, code: i32) {
        let id = self.running(name).expect("a running container");
        let ended = self.finish(&id, code, "");
        assert!(ended);
    }

    /// The sandbox of a pod dies, and its containers with it.
    pub fn kill_sandbox(&self, pod: &str) {
        let (id, containers) = {
            let mut state = self.state.lock();
            let found = state
                .sandboxes
                .iter_mut()
                .rev()
                .find(|(_, s)| s.ready && s.config.metadata.as_ref().is_some_and(|m| m.name == pod));
            let (id, sandbox) = found.expect("a sandbox");
            sandbox.ready = false;
            let id = id.clone();
            let containers: Vec<String> =
                state.containers.iter().filter(|(_, c)| c.sandbox == id).map(|(id, _)| id.clone()).collect();
            (id, containers)
        };
        for container in containers {
            self.end(&container, 137, "");
        }
        self.tell(&id, &id, cri::ContainerEventType::ContainerStoppedEvent);
    }

    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.sandboxes.len(), state.containers.len())
    }

    fn note(&self, text: String) {
        self.state.lock().log.push(text);
    }

    fn finish(&self, id: &str, code: i32, reason: &str) -> bool {
        let mut state = self.state.lock();
        let Some(c) = state.containers.get_mut(id) else { return false };
        if c.state == cri::ContainerState::ContainerExited {
            return false;
        }
        c.state = cri::ContainerState::ContainerExited;
        (c.finished, c.exit_code) = (now(), code);
        c.reason = match (reason, code) {
            ("", 0) => "Completed".into(),
            ("", _) => "Error".into(),
            (reason, _) => reason.into(),
        };
        c.ended.notify_waiters();
        true
    }

    fn end(&self, id: &str, code: i32, reason: &str) {
        if self.finish(id, code, reason) {
            let sandbox = self.state.lock().containers[id].sandbox.clone();
            self.tell(id, &sandbox, cri::ContainerEventType::ContainerStoppedEvent);
        }
    }

    fn tell(&self, id: &str, sandbox: &str, kind: cri::ContainerEventType) {
        let status = self.state.lock().sandboxes.get(sandbox).map(|s| sandbox_status(sandbox, s));
        let event = cri::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: now(),
            pod_sandbox_status: status,
            containers_statuses: vec![],
        };
        let _ = self.events.lock().send(event);
    }
}

fn sandbox_status(id: &str, s: &Sandbox) -> cri::PodSandboxStatus {
    cri::PodSandboxStatus {
        id: id.to_owned(),
        metadata: s.config.metadata.clone(),
        state: i32::from(!s.ready),
        created_at: 1,
        network: Some(cri::PodSandboxNetworkStatus { ip: s.ip.clone(), additional_ips: vec![] }),
        labels: s.config.labels.clone(),
        annotations: s.config.annotations.clone(),
        ..cri::PodSandboxStatus::default()
    }
}

/// The service: what it refuses, then what it does.
macro_rules! service {
    (refuse { $($method:ident: $request:ident => $response:ident,)* } $($rest:tt)*) => {
        #[async_trait]
        impl RuntimeService for Fake {
            $(async fn $method(&self, _: Request<cri::$request>) -> Answer<cri::$response> {
                Err(Status::unimplemented(stringify!($method)))
            })*
            $($rest)*
        }
    };
}

service! {
    refuse {
        reopen_container_log: ReopenContainerLogRequest => ReopenContainerLogResponse,
        exec: ExecRequest => ExecResponse,
        attach: AttachRequest => AttachResponse,
        port_forward: PortForwardRequest => PortForwardResponse,
        container_stats: ContainerStatsRequest => ContainerStatsResponse,
        list_container_stats: ListContainerStatsRequest => ListContainerStatsResponse,
        pod_sandbox_stats: PodSandboxStatsRequest => PodSandboxStatsResponse,
        list_pod_sandbox_stats: ListPodSandboxStatsRequest => ListPodSandboxStatsResponse,
        checkpoint_container: CheckpointContainerRequest => CheckpointContainerResponse,
        list_metric_descriptors: ListMetricDescriptorsRequest => ListMetricDescriptorsResponse,
        list_pod_sandbox_metrics: ListPodSandboxMetricsRequest => ListPodSandboxMetricsResponse,
        runtime_config: RuntimeConfigRequest => RuntimeConfigResponse,
    }

    type GetContainerEventsStream = EventStream;

    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        Ok(Response::new(cri::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let condition = |kind: &str| cri::RuntimeCondition {
            r#type: kind.into(),
            status: true,
            ..cri::RuntimeCondition::default()
        };
        let conditions = vec![condition("RuntimeReady"), condition("NetworkReady")];
        Ok(Response::new(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions }),
            ..cri::StatusResponse::default()
        }))
    }

    async fn get_container_events(&self, _: Request<cri::GetEventsRequest>) -> Answer<EventStream> {
        let receiver = self.events.lock().subscribe();
        let stream = tokio_stream::wrappers::BroadcastStream::new(receiver);
        let mut stream = stream.map(|e| e.map_err(|e| Status::data_loss(e.to_string())));
        if !self.answers_late.load(Ordering::Relaxed) {
            return Ok(Response::new(stream.boxed()));
        }
        let first = stream.next().await;
        Ok(Response::new(futures::stream::iter(first).chain(stream).boxed()))
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        let network = request.into_inner().runtime_config.and_then(|c| c.network_config);
        self.state.lock().pod_cidr = network.unwrap_or_default().pod_cidr;
        Ok(Response::new(cri::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        let config = request.into_inner().config.unwrap();
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("s{:04}", state.next);
        let meta = config.metadata.clone().unwrap();
        state.log.push(format!("sandbox {} {}", meta.name, meta.attempt));
        let ip = "127.0.0.1".to_owned();
        state.sandboxes.insert(id.clone(), Sandbox { config, ready: true, ip });
        Ok(Response::new(cri::RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let containers: Vec<String> = {
            let mut state = self.state.lock();
            state.sandboxes.get_mut(&id).ok_or_else(|| missing("sandbox"))?.ready = false;
            state.containers.iter().filter(|(_, c)| c.sandbox == id).map(|(id, _)| id.clone()).collect()
        };
        for container in containers {
            self.end(&container, 137, "");
        }
        Ok(Response::new(cri::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state.lock();
        state.sandboxes.remove(&id);
        state.containers.retain(|_, c| c.sandbox != id);
        Ok(Response::new(cri::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let state = self.state.lock();
        let sandbox = state.sandboxes.get(&id).ok_or_else(|| missing("sandbox"))?;
        Ok(Response::new(cri::PodSandboxStatusResponse {
            status: Some(sandbox_status(&id, sandbox)),
            ..cri::PodSandboxStatusResponse::default()
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let wanted = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let fits = |s: &Sandbox| wanted.iter().all(|(k, v)| s.config.labels.get(k) == Some(v));
        let items = state.sandboxes.iter().filter(|(_, s)| fits(s)).map(|(id, s)| cri::PodSandbox {
            id: id.clone(),
            metadata: s.config.metadata.clone(),
            state: i32::from(!s.ready),
            labels: s.config.labels.clone(),
            ..cri::PodSandbox::default()
        });
        Ok(Response::new(cri::ListPodSandboxResponse { items: items.collect() }))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap();
        let mut state = self.state.lock();
        if !state.sandboxes.get(&request.pod_sandbox_id).is_some_and(|s| s.ready) {
            return Err(missing("sandbox"));
        }
        state.next += 1;
        let id = format!("c{:04}", state.next);
        let container = Container {
            config,
            sandbox: request.pod_sandbox_id,
            state: cri::ContainerState::ContainerCreated,
            started: 0,
            finished: 0,
            exit_code: 0,
            reason: String::new(),
            ended: Arc::default(),
        };
        state.containers.insert(id.clone(), container);
        Ok(Response::new(cri::CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let id = request.into_inner().container_id;
        let command = {
            let mut state = self.state.lock();
            if state.start_failures > 0 {
                state.start_failures -= 1;
                return Err(Status::unknown("no such executable"));
            }
            let c = state.containers.get_mut(&id).ok_or_else(|| missing("container"))?;
            c.state = cri::ContainerState::ContainerRunning;
            c.started = now();
            let meta = c.config.metadata.clone().unwrap();
            let command = c.config.command.clone();
            state.log.push(format!("start {} {}", meta.name, meta.attempt));
            command
        };
        if let [exit, code] = command.as_slice()
            && exit == "exit"
        {
            self.end(&id, code.parse().unwrap(), "");
        }
        Ok(Response::new(cri::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        let request = request.into_inner();
        let (name, stubborn, ended) = {
            let state = self.state.lock();
            let c = state.containers.get(&request.container_id).ok_or_else(|| missing("container"))?;
            let name = c.config.metadata.clone().unwrap().name;
            (name, c.config.command.first().is_some_and(|c| c == "stubborn"), Arc::clone(&c.ended))
        };
        self.note(format!("stop {name} {}", request.timeout));
        if stubborn {
            let limit = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
            let _ = tokio::time::timeout(limit, ended.notified()).await;
            self.end(&request.container_id, 137, "");
        } else {
            self.end(&request.container_id, 0, "");
        }
        Ok(Response::new(cri::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        self.state.lock().containers.remove(&request.into_inner().container_id);
        Ok(Response::new(cri::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        _: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let state = self.state.lock();
        let containers = state.containers.iter().map(|(id, c)| cri::Container {
            id: id.clone(),
            pod_sandbox_id: c.sandbox.clone(),
            metadata: c.config.metadata.clone(),
            state: c.state as i32,
            labels: c.config.labels.clone(),
            annotations: c.config.annotations.clone(),
            image_id: c.config.image.clone().unwrap_or_default().image,
            ..cri::Container::default()
        });
        Ok(Response::new(cri::ListContainersResponse { containers: containers.collect() }))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let state = self.state.lock();
        let c = state.containers.get(&id).ok_or_else(|| missing("container"))?;
        let status = cri::ContainerStatus {
            id: id.clone(),
            metadata: c.config.metadata.clone(),
            state: c.state as i32,
            created_at: 1,
            started_at: c.started,
            finished_at: c.finished,
            exit_code: c.exit_code,
            image: c.config.image.clone(),
            image_ref: "busybox@sha256:1".into(),
            reason: c.reason.clone(),
            labels: c.config.labels.clone(),
            annotations: c.config.annotations.clone(),
            ..cri::ContainerStatus::default()
        };
        Ok(Response::new(cri::ContainerStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let linux = request.linux.unwrap();
        self.note(format!("resize {} {}", linux.cpu_shares, linux.memory_limit_in_bytes));
        Ok(Response::new(cri::UpdateContainerResourcesResponse {}))
    }

    async fn exec_sync(&self, request: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        let request = request.into_inner();
        let command = request.cmd.join(" ");
        self.note(format!("exec {command}"));
        let exit_code = self.state.lock().exec.get(&command).copied().unwrap_or(0);
        Ok(Response::new(cri::ExecSyncResponse { stdout: b"out".to_vec(), exit_code, ..Default::default() }))
    }
}

#[async_trait]
impl ImageService for Fake {
    async fn list_images(&self, _: Request<cri::ListImagesRequest>) -> Answer<cri::ListImagesResponse> {
        let images = self.state.lock().images.iter().map(|name| image(name)).collect();
        Ok(Response::new(cri::ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Answer<cri::ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let known = self.state.lock().images.contains(&name);
        Ok(Response::new(cri::ImageStatusResponse {
            image: known.then(|| image(&name)),
            ..Default::default()
        }))
    }

    async fn pull_image(&self, request: Request<cri::PullImageRequest>) -> Answer<cri::PullImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        self.note(format!("pull {name}"));
        if name.contains("missing") {
            return Err(Status::not_found("no such image"));
        }
        self.state.lock().images.insert(name.clone());
        Ok(Response::new(cri::PullImageResponse { image_ref: name }))
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Answer<cri::RemoveImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        self.state.lock().images.remove(&name);
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<cri::ImageFsInfoRequest>) -> Answer<cri::ImageFsInfoResponse> {
        Ok(Response::new(cri::ImageFsInfoResponse::default()))
    }
}

fn image(name: &str) -> cri::Image {
    cri::Image { id: name.to_owned(), repo_tags: vec![name.to_owned()], size: 1000, ..cri::Image::default() }
}
