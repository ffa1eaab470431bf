//! The generated trait of CRI's runtime service, method by method.

use std::{path::Path, pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use k8s_cri::v1::{self as cri, runtime_service_server::RuntimeService};
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::{Request, Response, Status};

use super::{Runtime, StreamUrls, now, stats::matches};
use crate::holder::wire::Request as Ask;

/// The name it goes by.
const NAME: &str = "plimsoll";

type Answer<T> = Result<Response<T>, Status>;

fn ok<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

/// Does something to its end even if the caller gives up waiting: nothing may be left half done.
macro_rules! to_its_end {
    ($runtime:ident, $me:ident => $work:expr) => {{
        let $me = $runtime.me.upgrade().ok_or_else(|| Status::unavailable("the runtime is ending"))?;
        tokio::spawn(async move { $work.await }).await.map_err(|e| Status::internal(e.to_string()))??
    }};
}

impl Runtime {
    fn urls(&self) -> Result<&Arc<dyn StreamUrls>, Status> {
        self.urls.get().ok_or_else(|| Status::unavailable("this runtime has no streaming server"))
    }

    fn require_running(&self, id: &str) -> Result<String, Status> {
        let (record, _) = self.find_container(id)?;
        if record.phase != super::record::Phase::Running {
            return Err(Status::failed_precondition(format!("the container {} is not running", record.id)));
        }
        Ok(record.id)
    }

    /// Serves CRI on a unix socket, for tools outside of this process, until `until` resolves. An image service is
    /// served beside it if there is one.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn serve_on<I: cri::image_service_server::ImageService>(
        self: &Arc<Self>,
        socket: &Path,
        images: Option<I>,
        until: impl Future<Output = ()> + Send,
    ) -> std::io::Result<()> {
        match std::fs::remove_file(socket) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // bound in a folder only root can enter, then moved: at no time can anyone else connect (CVE-2020-15257)
        let private = self.config.dir.join("cri");
        std::fs::create_dir_all(&private)?;
        std::os::unix::fs::chown(&private, Some(0), Some(0))?;
        rustix::fs::chmod(&private, rustix::fs::Mode::from_raw_mode(0o700))?;
        let first = private.join("cri.sock");
        let _ = std::fs::remove_file(&first);
        let listener = tokio::net::UnixListener::bind(&first)?;
        rustix::fs::chmod(&first, rustix::fs::Mode::from_raw_mode(0o600))?;
        std::fs::rename(&first, socket)?;
        tonic::transport::Server::builder()
            .add_service(cri::runtime_service_server::RuntimeServiceServer::from_arc(self.clone()))
            .add_optional_service(images.map(cri::image_service_server::ImageServiceServer::new))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), until)
            .await
            .map_err(std::io::Error::other)
    }
}

#[async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        ok(cri::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(
        &self,
        r: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        let pod_sandbox_id = to_its_end!(self, me => me.run_sandbox(r.into_inner()));
        ok(cri::RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(
        &self,
        r: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        to_its_end!(self, me => me.stop_sandbox(&r.into_inner().pod_sandbox_id));
        ok(cri::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        r: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        to_its_end!(self, me => me.remove_sandbox(&r.into_inner().pod_sandbox_id));
        ok(cri::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        r: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let (record, _) = self.find_sandbox(&r.into_inner().pod_sandbox_id)?;
        let tables = self.tables.lock();
        let of = tables.containers.values().filter(|c| c.record.sandbox == record.id);
        ok(cri::PodSandboxStatusResponse {
            status: Some(record.status()),
            info: Default::default(),
            containers_statuses: of.map(|c| c.record.status()).collect(),
            timestamp: now(),
        })
    }

    async fn list_pod_sandbox(
        &self,
        r: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let filter = r.into_inner().filter.unwrap_or_default();
        let tables = self.tables.lock();
        let items = tables.sandboxes.values().map(|s| &s.record).filter(|r| {
            r.id.starts_with(&filter.id)
                && filter.state.as_ref().is_none_or(|s| s.state == r.state() as i32)
                && matches(&r.config.labels, &filter.label_selector)
        });
        ok(cri::ListPodSandboxResponse { items: items.map(|r| r.item()).collect() })
    }

    async fn create_container(
        &self,
        r: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let container_id = to_its_end!(self, me => Runtime::create_container(&me, r.into_inner()));
        ok(cri::CreateContainerResponse { container_id })
    }

    async fn start_container(
        &self,
        r: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        to_its_end!(self, me => Runtime::start_container(&me, &r.into_inner().container_id));
        ok(cri::StartContainerResponse {})
    }

    async fn stop_container(
        &self,
        r: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        let r = r.into_inner();
        to_its_end!(self, me => Runtime::stop_container(&me, &r.container_id, r.timeout));
        ok(cri::StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        r: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        to_its_end!(self, me => Runtime::remove_container(&me, &r.into_inner().container_id));
        ok(cri::RemoveContainerResponse {})
    }

    async fn list_containers(
        &self,
        r: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let filter = r.into_inner().filter.unwrap_or_default();
        let tables = self.tables.lock();
        let found = tables.containers.values().map(|c| &c.record).filter(|r| {
            r.id.starts_with(&filter.id)
                && r.sandbox.starts_with(&filter.pod_sandbox_id)
                && filter.state.as_ref().is_none_or(|s| s.state == r.state() as i32)
                && matches(&r.config.labels, &filter.label_selector)
        });
        ok(cri::ListContainersResponse { containers: found.map(|r| r.item()).collect() })
    }

    async fn container_status(
        &self,
        r: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let r = r.into_inner();
        let (record, _) = self.find_container(&r.container_id)?;
        let mut info = std::collections::HashMap::new();
        if r.verbose {
            let details = serde_json::json!({ "pid": record.pid, "sandboxID": record.sandbox, "cgroup": record.cgroup });
            info.insert("info".to_owned(), details.to_string());
        }
        ok(cri::ContainerStatusResponse { status: Some(record.status()), info })
    }

    async fn update_container_resources(
        &self,
        r: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        to_its_end!(self, me => me.update_resources(r.into_inner()));
        ok(cri::UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        r: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        let id = self.require_running(&r.into_inner().container_id)?;
        self.link().tell(Ask::Reopen { id }).await.map_err(super::internal("reopen the log"))?;
        ok(cri::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, r: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        ok(Runtime::exec_sync(self, r.into_inner()).await?)
    }

    async fn exec(&self, r: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        let mut r = r.into_inner();
        r.container_id = self.require_running(&r.container_id)?;
        if r.cmd.is_empty() || !(r.stdin || r.stdout || r.stderr) {
            return Err(Status::invalid_argument("an exec needs a command and at least one stream"));
        }
        ok(cri::ExecResponse { url: self.urls()?.exec(&r)? })
    }

    async fn attach(&self, r: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        let mut r = r.into_inner();
        r.container_id = self.require_running(&r.container_id)?;
        ok(cri::AttachResponse { url: self.urls()?.attach(&r)? })
    }

    async fn port_forward(&self, r: Request<cri::PortForwardRequest>) -> Answer<cri::PortForwardResponse> {
        let mut r = r.into_inner();
        let (record, _) = self.find_sandbox(&r.pod_sandbox_id)?;
        if !record.ready {
            return Err(Status::failed_precondition(format!("the sandbox {} is not ready", record.id)));
        }
        r.pod_sandbox_id = record.id;
        ok(cri::PortForwardResponse { url: self.urls()?.port_forward(&r)? })
    }

    async fn container_stats(
        &self,
        r: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let (record, _) = self.find_container(&r.into_inner().container_id)?;
        let stats = self.blocking(move |me| me.container_stats_of(&record)).await?;
        ok(cri::ContainerStatsResponse { stats: Some(stats) })
    }

    async fn list_container_stats(
        &self,
        r: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let stats = self.list_stats(r.into_inner().filter.unwrap_or_default()).await?;
        ok(cri::ListContainerStatsResponse { stats })
    }

    async fn pod_sandbox_stats(
        &self,
        r: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let (record, _) = self.find_sandbox(&r.into_inner().pod_sandbox_id)?;
        let stats = self.blocking(move |me| me.sandbox_stats_of(&record)).await?;
        ok(cri::PodSandboxStatsResponse { stats: Some(stats) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        r: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let filter = r.into_inner().filter.unwrap_or_default();
        let records: Vec<_> = {
            let tables = self.tables.lock();
            let all = tables.sandboxes.values().map(|s| &s.record).filter(|r| {
                r.ready && r.id.starts_with(&filter.id) && matches(&r.config.labels, &filter.label_selector)
            });
            all.cloned().collect()
        };
        let stats = self.blocking(move |me| records.iter().map(|r| me.sandbox_stats_of(r)).collect()).await?;
        ok(cri::ListPodSandboxStatsResponse { stats })
    }

    async fn update_runtime_config(
        &self,
        _: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        // The network room knows the node's range of pod addresses already.
        ok(cri::UpdateRuntimeConfigResponse {})
    }

    async fn status(&self, _: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let alive = self.link().is_alive();
        let condition = |name: &str, status: bool, reason: &str, message: &str| cri::RuntimeCondition {
            r#type: name.into(),
            status,
            reason: if status { String::new() } else { reason.into() },
            message: if status { String::new() } else { message.into() },
        };
        ok(cri::StatusResponse {
            status: Some(cri::RuntimeStatus {
                conditions: vec![
                    condition(
                        "RuntimeReady",
                        alive,
                        "HolderLost",
                        "the process that holds the containers is lost",
                    ),
                    condition("NetworkReady", true, "", ""),
                ],
            }),
            info: Default::default(),
            runtime_handlers: vec![cri::RuntimeHandler {
                name: String::new(),
                features: Some(cri::RuntimeHandlerFeatures {
                    recursive_read_only_mounts: true,
                    user_namespaces: false,
                }),
            }],
            features: Some(cri::RuntimeFeatures { supplemental_groups_policy: true }),
        })
    }

    async fn checkpoint_container(
        &self,
        _: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoints are not supported by this runtime"))
    }

    type GetContainerEventsStream = BoxStream<'static, Result<cri::ContainerEventResponse, Status>>;

    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let events = BroadcastStream::new(self.events.subscribe()).map(|event| {
            // whoever is too slow has missed some: it has to list again
            event.map_err(|e| Status::data_loss(e.to_string()))
        });
        let stream: Pin<Box<dyn futures::Stream<Item = _> + Send>> = Box::pin(events);
        ok(stream)
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        ok(cri::ListMetricDescriptorsResponse { descriptors: Vec::new() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        ok(cri::ListPodSandboxMetricsResponse { pod_metrics: Vec::new() })
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        ok(cri::RuntimeConfigResponse {
            linux: Some(cri::LinuxRuntimeConfiguration { cgroup_driver: cri::CgroupDriver::Cgroupfs as i32 }),
        })
    }
}
