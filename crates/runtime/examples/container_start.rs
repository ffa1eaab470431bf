//! How long a container takes: `cargo run --release -p runtime --example container_start -- [ROUNDS] [ROOTFS [ARG…]]`.
//!
//! Prints milliseconds (median and 99th percentile) for: one process in a root of its own from start to exit, as
//! `crun run` does it on a bundle with the same ROOTFS; a container in a ready pod, created, started, ended and removed
//! through CRI; a pod with one container, and its removal. ROOTFS defaults to a folder with busybox.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_cri::v1::{self as cri, runtime_service_server::RuntimeService};
use runtime::{
    PodNetwork, PodNetworkRequest, Runtime, RuntimeConfig,
    oneshot::{Holder, Oneshot},
};
use tokio_util::sync::CancellationToken;
use tonic::Request;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

struct NoNetwork;

#[async_trait::async_trait]
impl PodNetwork for NoNetwork {
    async fn attach(&self, _: PodNetworkRequest<'_>) -> std::io::Result<Vec<IpAddr>> {
        Ok(Vec::new())
    }
    async fn detach(&self, _: &str) -> std::io::Result<()> {
        Ok(())
    }
}

fn main() -> Result {
    // the holder is this program, executed anew
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|a| a == "__holder").is_some() {
        let dir = runtime::holder::dir_of_arguments(args).ok_or("no folder")?;
        runtime::holder::main(&dir);
        return Ok(());
    }
    let rounds = args.next().and_then(|a| a.to_str()?.parse().ok()).unwrap_or(200);
    let rootfs = args.next().map(PathBuf::from);
    let command: Vec<String> = args.filter_map(|a| a.into_string().ok()).collect();
    let command = if command.is_empty() { vec!["/bin/true".into()] } else { command };
    tokio::runtime::Runtime::new()?.block_on(measure(rounds, rootfs, &command))
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!("{what:<52} median {:6.2} ms   p99 {:6.2} ms   ({} rounds)", at(0.5), at(0.99), times.len());
}

async fn measure(rounds: usize, rootfs: Option<PathBuf>, command: &[String]) -> Result {
    let dir = tempfile::Builder::new().prefix("plimsoll-start-").tempdir()?;
    let images = images::Images::open(dir.path().join("images"))?;
    let layer = image(&images, rootfs.as_deref())?;
    let holder_command = vec![std::env::current_exe()?.into(), "__holder".into()];

    let build = dir.path().join("build");
    fs::create_dir(&build)?;
    let holder = Holder::private(&holder_command, &build).await?;
    let step = Oneshot {
        root: rootfs.unwrap_or(layer),
        args: command.iter().map(Into::into).collect(),
        cwd: "/".into(),
        hostname: "bench".into(),
        // a network namespace of its own, as the peers' bundles have
        offline: true,
        ..Oneshot::default()
    };
    let mut times = Vec::new();
    for _ in 0..rounds {
        let before = Instant::now();
        let code = holder.run(&step, &mut |_| {}, &CancellationToken::new()).await?;
        times.push(before.elapsed());
        assert_eq!(code, 0, "the program has failed");
    }
    report("one process, start to exit", times);
    drop(holder);

    let config = RuntimeConfig::new(dir.path().join("node"), images, Arc::new(NoNetwork), holder_command);
    let runtime = Runtime::open(config).await?;
    let pod = sandbox(&runtime, "bench").await?;
    let (mut times, mut starts) = (Vec::new(), Vec::new());
    for n in 0..rounds {
        let before = Instant::now();
        starts.push(container(&runtime, &pod, n as u32, command).await?);
        times.push(before.elapsed());
    }
    report("container in a ready pod: StartContainer to exit", starts);
    report("container in a ready pod: create to removal", times);
    let mut times = Vec::new();
    for n in 0..rounds {
        let before = Instant::now();
        let pod = sandbox(&runtime, &format!("pod-{n}")).await?;
        container(&runtime, &pod, 0, command).await?;
        remove_sandbox(&runtime, pod).await?;
        times.push(before.elapsed());
    }
    report("pod with a container: create to removal", times);
    remove_sandbox(&runtime, pod).await?;
    runtime.end().await?;
    for hierarchy in fs::read_dir("/sys/fs/cgroup")? {
        // only where this program had one, and nothing is left in it
        let _ = fs::remove_dir(hierarchy?.path().join("plimsoll-bench"));
    }
    Ok(())
}

/// Makes the image and returns the folder of its layer.
fn image(images: &images::Images, rootfs: Option<&Path>) -> Result<PathBuf> {
    let work = images.work_dir()?;
    match rootfs {
        Some(rootfs) => {
            let copied = std::process::Command::new("cp")
                .args(["-a", "--", &format!("{}/.", rootfs.display())])
                .arg(work.path())
                .status()?;
            assert!(copied.success(), "the root filesystem cannot be copied");
        }
        None => {
            fs::create_dir(work.path().join("bin"))?;
            fs::copy("/bin/busybox", work.path().join("bin/busybox"))?;
            symlink("busybox", work.path().join("bin/true"))?;
        }
    }
    let lease = images.new_lease()?;
    let layer = images.commit_layer(work, images::CommitOptions::default(), &lease)?;
    let path = layer.path.clone();
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "config": {} });
    images.create(images::NewImage { config, layers: vec![layer], tags: vec!["bench:1".into()] }, &lease)?;
    Ok(path)
}

async fn sandbox(runtime: &Runtime, name: &str) -> Result<String> {
    let config = cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: name.into(),
            namespace: "bench".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        dns_config: Some(cri::DnsConfig::default()),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: format!("/plimsoll-bench/{name}"),
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(cri::NamespaceOption {
                    pid: cri::NamespaceMode::Container as i32,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    Ok(runtime.run_pod_sandbox(Request::new(request)).await?.into_inner().pod_sandbox_id)
}

async fn remove_sandbox(runtime: &Runtime, pod_sandbox_id: String) -> Result {
    let request = cri::RemovePodSandboxRequest { pod_sandbox_id };
    runtime.remove_pod_sandbox(Request::new(request)).await?;
    Ok(())
}

/// The whole life of a container; returns the time from the request to start it to the news of its end.
async fn container(runtime: &Runtime, pod: &str, attempt: u32, command: &[String]) -> Result<Duration> {
    let paths = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect();
    let security = cri::LinuxContainerSecurityContext {
        namespace_options: Some(cri::NamespaceOption {
            pid: cri::NamespaceMode::Container as i32,
            ..Default::default()
        }),
        masked_paths: paths(&[
            "/proc/asound",
            "/proc/acpi",
            "/proc/interrupts",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
        ]),
        readonly_paths: paths(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..Default::default()
    };
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "c".into(), attempt }),
        image: Some(cri::ImageSpec { image: "bench:1".into(), ..Default::default() }),
        command: command.to_vec(),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources {
                cpu_shares: 256,
                memory_limit_in_bytes: 64 << 20,
                ..Default::default()
            }),
            security_context: Some(security),
        }),
        ..Default::default()
    };
    let mut events = runtime.get_container_events(Request::new(cri::GetEventsRequest {})).await?.into_inner();
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: pod.into(),
        config: Some(config),
        sandbox_config: None,
    };
    let id =
        RuntimeService::create_container(runtime, Request::new(request)).await?.into_inner().container_id;
    let before = Instant::now();
    let request = cri::StartContainerRequest { container_id: id.clone() };
    RuntimeService::start_container(runtime, Request::new(request)).await?;
    loop {
        let event = events.next().await.ok_or("no events")??;
        if event.container_id == id
            && event.container_event_type == cri::ContainerEventType::ContainerStoppedEvent as i32
        {
            break;
        }
    }
    let took = before.elapsed();
    let request = cri::RemoveContainerRequest { container_id: id };
    RuntimeService::remove_container(runtime, Request::new(request)).await?;
    Ok(took)
}
