//! The container runtime as the agent holds it: CRI's two services as objects.
//!
//! A runtime in the same process implements the generated server traits and is held as it is; one behind a unix socket
//! (containerd, CRI-O) is reached through [`connect`], which puts the generated client behind the same traits.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use k8s_cri::v1 as cri;
use tonic::{Request, Response, Status, transport::Channel};

pub use cri::{image_service_server::ImageService, runtime_service_server::RuntimeService};

/// The stream of container events.
pub type EventStream = BoxStream<'static, Result<cri::ContainerEventResponse, Status>>;
/// CRI's runtime service.
pub type Runtime = Arc<dyn RuntimeService<GetContainerEventsStream = EventStream>>;
/// CRI's image service.
pub type Images = Arc<dyn ImageService>;

/// A runtime behind a unix socket.
#[derive(Clone)]
struct Remote {
    runtime: cri::runtime_service_client::RuntimeServiceClient<Channel>,
    images: cri::image_service_client::ImageServiceClient<Channel>,
}

/// Connects to a runtime's unix socket, at the first call and again whenever the connection is lost.
pub fn connect(socket: PathBuf) -> (Runtime, Images) {
    let channel = tonic::transport::Endpoint::from_static("http://runtime").connect_with_connector_lazy(
        tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        }),
    );
    // lists of a full node outgrow tonic's 4 MiB
    let limit = 16 << 20;
    let remote = Arc::new(Remote {
        runtime: cri::runtime_service_client::RuntimeServiceClient::new(channel.clone())
            .max_decoding_message_size(limit),
        images: cri::image_service_client::ImageServiceClient::new(channel).max_decoding_message_size(limit),
    });
    (remote.clone(), remote)
}

macro_rules! forward {
    ($trait:ident for $field:ident { $($method:ident: $request:ident => $response:ident,)* } $($rest:tt)*) => {
        #[async_trait]
        impl $trait for Remote {
            $(async fn $method(&self, request: Request<cri::$request>) -> Result<Response<cri::$response>, Status> {
                self.$field.clone().$method(request).await
            })*
            $($rest)*
        }
    };
}

forward! { RuntimeService for runtime {
    version: VersionRequest => VersionResponse,
    run_pod_sandbox: RunPodSandboxRequest => RunPodSandboxResponse,
    stop_pod_sandbox: StopPodSandboxRequest => StopPodSandboxResponse,
    remove_pod_sandbox: RemovePodSandboxRequest => RemovePodSandboxResponse,
    pod_sandbox_status: PodSandboxStatusRequest => PodSandboxStatusResponse,
    list_pod_sandbox: ListPodSandboxRequest => ListPodSandboxResponse,
    create_container: CreateContainerRequest => CreateContainerResponse,
    start_container: StartContainerRequest => StartContainerResponse,
    stop_container: StopContainerRequest => StopContainerResponse,
    remove_container: RemoveContainerRequest => RemoveContainerResponse,
    list_containers: ListContainersRequest => ListContainersResponse,
    container_status: ContainerStatusRequest => ContainerStatusResponse,
    update_container_resources: UpdateContainerResourcesRequest => UpdateContainerResourcesResponse,
    reopen_container_log: ReopenContainerLogRequest => ReopenContainerLogResponse,
    exec_sync: ExecSyncRequest => ExecSyncResponse,
    exec: ExecRequest => ExecResponse,
    attach: AttachRequest => AttachResponse,
    port_forward: PortForwardRequest => PortForwardResponse,
    container_stats: ContainerStatsRequest => ContainerStatsResponse,
    list_container_stats: ListContainerStatsRequest => ListContainerStatsResponse,
    pod_sandbox_stats: PodSandboxStatsRequest => PodSandboxStatsResponse,
    list_pod_sandbox_stats: ListPodSandboxStatsRequest => ListPodSandboxStatsResponse,
    update_runtime_config: UpdateRuntimeConfigRequest => UpdateRuntimeConfigResponse,
    status: StatusRequest => StatusResponse,
    checkpoint_container: CheckpointContainerRequest => CheckpointContainerResponse,
    list_metric_descriptors: ListMetricDescriptorsRequest => ListMetricDescriptorsResponse,
    list_pod_sandbox_metrics: ListPodSandboxMetricsRequest => ListPodSandboxMetricsResponse,
    runtime_config: RuntimeConfigRequest => RuntimeConfigResponse,
}
    type GetContainerEventsStream = EventStream;
    async fn get_container_events(
        &self,
        request: Request<cri::GetEventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let (mut runtime, mut other) = (self.runtime.clone(), self.runtime.clone());
        let mut call = Box::pin(async move { runtime.get_container_events(request).await });
        // A server in Go answers together with its first event, which may be long in coming. Another call, made after this
        // one on the same connection, tells that the server has been reached.
        let stream = tokio::select! {
            biased;
            answer = &mut call => stream::once(ready(Ok(answer?))).boxed(),
            reached = other.version(cri::VersionRequest::default()) => {
                reached?;
                stream::once(call).boxed()
            }
        };
        Ok(Response::new(stream.map_ok(Response::into_inner).try_flatten().boxed()))
    }
}

forward! { ImageService for images {
    list_images: ListImagesRequest => ListImagesResponse,
    image_status: ImageStatusRequest => ImageStatusResponse,
    pull_image: PullImageRequest => PullImageResponse,
    remove_image: RemoveImageRequest => RemoveImageResponse,
    image_fs_info: ImageFsInfoRequest => ImageFsInfoResponse,
} }
