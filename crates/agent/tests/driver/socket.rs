//! A container runtime behind a unix socket.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use agent::cri::{Runtime, connect};
use futures::StreamExt;
use k8s_cri::v1::{self as cri, runtime_service_server::RuntimeServiceServer};
use tokio::{net::UnixListener, time::timeout};
use tonic::Request;

use crate::fake::Fake;

const SOON: Duration = Duration::from_secs(10);

/// The fake behind a socket in a folder of its own.
fn served(fake: &Arc<Fake>) -> (Runtime, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cri.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let incoming = futures::stream::unfold(listener, async |listener| {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let service = RuntimeServiceServer::from_arc(Arc::clone(fake));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(async move { server.serve_with_incoming(incoming.boxed()).await });
    (connect(path).0, folder)
}

async fn events(runtime: &Runtime) -> agent::cri::EventStream {
    let asked = runtime.get_container_events(Request::new(cri::GetEventsRequest {}));
    timeout(SOON, asked).await.expect("a stream").unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_there_before_the_first_one_has_happened() {
    for late in [true, false] {
        let fake = Fake::new();
        fake.answers_late.store(late, Ordering::Relaxed);
        let (runtime, _folder) = served(&fake);
        let mut stream = events(&runtime).await;
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata { name: "web".into(), ..Default::default() }),
            ..Default::default()
        };
        let request = cri::RunPodSandboxRequest { config: Some(config), ..Default::default() };
        let id = runtime.run_pod_sandbox(Request::new(request)).await.unwrap().into_inner().pod_sandbox_id;
        fake.kill_sandbox("web");
        let event = timeout(SOON, stream.next()).await.expect("an event").unwrap().unwrap();
        assert_eq!(event.container_id, id, "late: {late}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_is_not_there_gives_no_stream() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, _) = connect(folder.path().join("none.sock"));
    assert!(runtime.get_container_events(Request::new(cri::GetEventsRequest {})).await.is_err());
}
