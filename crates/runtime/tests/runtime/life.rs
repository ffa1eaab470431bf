//! From creation to removal.

use std::time::Instant;

use futures::StreamExt;
use k8s_cri::v1::{self as cri, runtime_service_server::RuntimeService};
use tonic::{Code, Request};

use crate::lab::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_and_its_output_and_exit_code_are_kept() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let script = "echo hello; echo $FROM_IMAGE $HOSTNAME; pwd; echo bad >&2; exit 7";
    let (code, output) = lab.script(&pod, "hello", script).await;
    assert_eq!(output, "hello\n1 web\n/tmp\nbad\n");
    assert_eq!(code, 7);
    let log = std::fs::read_to_string(lab.logs().join("hello.log")).unwrap();
    assert!(log.lines().any(|l| l.contains("Z stdout F hello")), "{log}");
    assert!(log.lines().any(|l| l.contains("Z stderr F bad")), "{log}");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_an_exit_code_above_128() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("sleep", &["sleep", "1000"])).await;
    assert_eq!(lab.status(&id).await.state, cri::ContainerState::ContainerRunning as i32);
    lab.stop(&id, 0).await;
    let status = lab.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    lab.stop(&id, 0).await;
    lab.remove(&id).await;
    lab.remove(&id).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_asks_first_and_kills_when_the_grace_is_over() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let polite = "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 1000 & wait; done";
    let id = lab.run(&pod, lab.container_config("polite", &["sh", "-c", polite])).await;
    lab.wait_for_output("polite", "ready").await;
    lab.stop(&id, 60).await;
    let status = lab.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert_eq!(lab.output("polite"), "ready\nbye\n");

    let deaf = "trap '' TERM; echo ready; while true; do sleep 1000; done";
    let id = lab.run(&pod, lab.container_config("deaf", &["sh", "-c", deaf])).await;
    lab.wait_for_output("deaf", "ready").await;
    let before = Instant::now();
    lab.stop(&id, 1).await;
    assert!(before.elapsed().as_secs() >= 1);
    assert_eq!(lab.status(&id).await.exit_code, 137);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_a_start_error() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.create(&pod, lab.container_config("none", &["nothing-like-that"])).await.unwrap();
    let error = lab.start(&id).await.unwrap_err();
    assert!(
        error.message().contains(r#"exec: "nothing-like-that": executable file not found in $PATH"#),
        "{error}"
    );
    let status = lab.status(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    assert!(status.message.contains("executable file not found"), "{}", status.message);
    assert_eq!(lab.start(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_sees_the_container_and_gives_back_what_it_wrote() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("sleep", &["sleep", "1000"])).await;
    let got = lab.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 5"], 10).await.unwrap();
    assert_eq!(
        (got.exit_code, got.stdout.as_slice(), got.stderr.as_slice()),
        (5, &b"out\n"[..], &b"err\n"[..])
    );
    let got = lab.exec(&id, &["sh", "-c", "cat /proc/1/cmdline; hostname; pwd"], 10).await.unwrap();
    assert_eq!(got.stdout, b"sleep\x001000\x00web\n/tmp\n");
    // more than is kept is read and dropped
    let got = lab.exec(&id, &["dd", "if=/dev/zero", "bs=1M", "count=20"], 60).await.unwrap();
    assert_eq!((got.exit_code, got.stdout.len()), (0, 16 << 20));

    let error = lab.exec(&id, &["sleep", "1000"], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let error = lab.exec(&id, &["nothing-like-that"], 1).await.unwrap_err();
    assert!(error.message().contains("executable file not found in $PATH"), "{error}");
    // a descendant that keeps the pipes does not keep the answer
    let got = lab.exec(&id, &["sh", "-c", "sleep 1000 & echo done"], 10).await.unwrap();
    assert_eq!(got.stdout, b"done\n");
    lab.stop(&id, 0).await;
    assert_eq!(lab.exec(&id, &["true"], 1).await.unwrap_err().code(), Code::FailedPrecondition);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_the_whole_life_with_the_states() {
    let Some(lab) = Lab::new().await else { return };
    let events = lab.runtime().get_container_events(Request::new(cri::GetEventsRequest {})).await.unwrap();
    let mut events = events.into_inner();
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("true", &["true"])).await;
    lab.ended(&id).await;
    lab.remove(&id).await;
    let mut seen = Vec::new();
    while !seen.ends_with(&[3]) {
        let event = events.next().await.unwrap().unwrap();
        if event.container_id == id {
            seen.push(event.container_event_type);
            let sandbox = event.pod_sandbox_status.unwrap();
            assert_eq!(sandbox.network.unwrap().ip, "10.9.8.7");
            let own = event.containers_statuses.iter().find(|c| c.id == id).unwrap();
            if event.container_event_type == cri::ContainerEventType::ContainerStoppedEvent as i32 {
                assert_eq!(own.reason, "Completed");
                assert!(own.finished_at >= own.started_at && own.started_at >= own.created_at);
            }
        }
    }
    assert_eq!(seen, [0, 1, 2, 3]);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_names_are_taken_once() {
    let Some(lab) = Lab::new().await else { return };
    let (pod, other) = (lab.sandbox("web").await, lab.sandbox("db").await);
    assert_eq!(lab.sandbox_with(lab.sandbox_config("web")).await.unwrap_err().code(), Code::AlreadyExists);
    let id = lab.create(&pod, lab.container_config("a", &["true"])).await.unwrap();
    lab.create(&other, lab.container_config("a", &["true"])).await.unwrap();
    let error = lab.create(&pod, lab.container_config("a", &["true"])).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    let filter = cri::ContainerFilter { pod_sandbox_id: pod.clone(), ..Default::default() };
    let list =
        lab.runtime().list_containers(Request::new(cri::ListContainersRequest { filter: Some(filter) }));
    let list = list.await.unwrap().into_inner().containers;
    assert_eq!(list.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    // a beginning of an id is enough
    assert_eq!(lab.status(&id[..12]).await.id, id);
    let filter = cri::PodSandboxFilter {
        label_selector: std::collections::HashMap::from([("app".into(), "db".into())]),
        ..Default::default()
    };
    let list =
        lab.runtime().list_pod_sandbox(Request::new(cri::ListPodSandboxRequest { filter: Some(filter) }));
    let list = list.await.unwrap().into_inner().items;
    assert_eq!(list.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), [other.as_str()]);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_shares_its_network_ipc_and_if_asked_its_processes() {
    let Some(lab) = Lab::new().await else { return };
    let mut config = lab.sandbox_config("web");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod as i32;
    let pod = lab.sandbox_with(config).await.unwrap();
    let shared = |name: &str, script: &str| {
        let mut c = lab.container_config(name, &["sh", "-c", script]);
        let security = c.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod as i32;
        c
    };
    let one = lab.run(&pod, shared("one", "touch /dev/shm/from-one; echo ready; sleep 1000")).await;
    lab.wait_for_output("one", "ready").await;
    let two = lab.run(&pod, shared("two", "ls /dev/shm; ps | grep -c '[s]leep 1000'")).await;
    assert_eq!(lab.ended(&two).await.exit_code, 0);
    assert_eq!(lab.output("two"), "from-one\n1\n");
    let got =
        lab.exec(&one, &["sh", "-c", "cat /proc/1/comm; readlink /proc/self/ns/net"], 10).await.unwrap();
    let text = String::from_utf8(got.stdout).unwrap();
    assert!(text.starts_with("pod-init\n"), "{text}");
    // the whole tree of a container ends with it, though its PID namespace stays
    lab.stop(&one, 0).await;
    let three = lab.run(&pod, shared("three", "ps | grep -c '[s]leep 1000'")).await;
    lab.ended(&three).await;
    assert_eq!(lab.output("three"), "0\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debugging_container_sees_the_processes_of_its_target() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("app", &["sleep", "1000"])).await;
    let mut config = lab.container_config("debug", &["sh", "-c", "cat /proc/1/cmdline; ls /proc/1/root/tmp"]);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    let options = security.namespace_options.as_mut().unwrap();
    (options.pid, options.target_id) = (cri::NamespaceMode::Target as i32, id.clone());
    let debug = lab.run(&pod, config).await;
    assert_eq!(lab.ended(&debug).await.exit_code, 0);
    assert_eq!(lab.output("debug"), "sleep\x001000\x00\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_container_can_have_the_host_s_namespaces_and_devices() {
    let Some(lab) = Lab::new().await else { return };
    let mut config = lab.sandbox_config("node");
    let node = cri::NamespaceMode::Node as i32;
    let all = cri::NamespaceOption { network: node, pid: node, ipc: node, ..Default::default() };
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(all.clone());
    let pod = lab.sandbox_with(config).await.unwrap();
    let script = "for n in net pid ipc; do readlink /proc/self/ns/$n; done; mount -t tmpfs x /mnt && echo mounted
        ls /dev/kmsg; head -c 3 /dev/zero | wc -c; mkdir /sys/fs/cgroup/x-test 2>/dev/null; rmdir /sys/fs/cgroup/x-test; sleep 1000 & true";
    let mut config = lab.container_config("node", &["sh", "-c", &format!("mkdir /mnt; {script}")]);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    (security.privileged, security.namespace_options) = (true, Some(all));
    (security.masked_paths, security.readonly_paths) = (vec![], vec![]);
    let id = lab.run(&pod, config).await;
    lab.ended(&id).await;
    let own: Vec<String> = ["net", "pid", "ipc"]
        .iter()
        .map(|n| std::fs::read_link(format!("/proc/self/ns/{n}")).unwrap().display().to_string())
        .collect();
    let output = lab.output("node");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..3], own[..], "{output}");
    assert_eq!(lines[3..6], ["mounted", "/dev/kmsg", "3"], "{output}");
    // lab.end() shows that the process left in the background has ended too: its cgroup could be removed
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_sandbox_is_not_ready_and_its_containers_have_ended() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("sleep", &["sleep", "1000"])).await;
    for _ in 0..2 {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
        lab.runtime().stop_pod_sandbox(Request::new(request)).await.unwrap();
    }
    assert_eq!(lab.status(&id).await.state, cri::ContainerState::ContainerExited as i32);
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let status = lab.runtime().pod_sandbox_status(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(status.status.unwrap().state, cri::PodSandboxState::SandboxNotready as i32);
    let error = lab.create(&pod, lab.container_config("late", &["true"])).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_gives_up_leaves_nothing_half_done() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    for n in 0..20 {
        let config = lab.container_config(&format!("c{n}"), &["sleep", "1000"]);
        let id = lab.create(&pod, config).await.unwrap();
        let start = lab.start(&id);
        tokio::pin!(start);
        // as many steps of it as the round's number, then no more
        for _ in 0..=n {
            if futures::poll!(start.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    for n in 0..5 {
        let run = lab.sandbox_with(lab.sandbox_config(&format!("given-up-{n}")));
        tokio::pin!(run);
        let _ = futures::poll!(run.as_mut());
    }
    // whatever came of them can be stopped and removed
    lab.remove_sandbox(&pod).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outsiders_are_served_on_a_socket_that_only_root_can_use() {
    use std::os::unix::fs::PermissionsExt;
    let Some(lab) = Lab::new().await else { return };
    let socket = lab.dir.path().join("cri.sock");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (runtime, path) = (lab.runtime().clone(), socket.clone());
    let served = tokio::spawn(async move {
        let until = async { drop(stopped.await) };
        runtime.serve_on(&path, None::<NoImages>, until).await
    });
    let channel = tonic::transport::Endpoint::from_static("http://runtime").connect_with_connector_lazy(
        tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        }),
    );
    let mut client = cri::runtime_service_client::RuntimeServiceClient::new(channel);
    let version = loop {
        match client.version(cri::VersionRequest::default()).await {
            Ok(version) => break version.into_inner(),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("plimsoll", "v1"));
    let mode = std::fs::metadata(lab.dir.path().join("cri.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(client);
    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
    lab.end().await;
}

/// An image service that is not there.
struct NoImages;

#[async_trait::async_trait]
impl cri::image_service_server::ImageService for NoImages {
    async fn list_images(
        &self,
        _: Request<cri::ListImagesRequest>,
    ) -> Result<tonic::Response<cri::ListImagesResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("no images"))
    }
    async fn image_status(
        &self,
        _: Request<cri::ImageStatusRequest>,
    ) -> Result<tonic::Response<cri::ImageStatusResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("no images"))
    }
    async fn pull_image(
        &self,
        _: Request<cri::PullImageRequest>,
    ) -> Result<tonic::Response<cri::PullImageResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("no images"))
    }
    async fn remove_image(
        &self,
        _: Request<cri::RemoveImageRequest>,
    ) -> Result<tonic::Response<cri::RemoveImageResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("no images"))
    }
    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Result<tonic::Response<cri::ImageFsInfoResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("no images"))
    }
}
