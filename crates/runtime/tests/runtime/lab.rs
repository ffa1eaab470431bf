//! A node for tests: a store with a busybox image, a runtime with a holder of its own, all removed again.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use k8s_cri::v1::{self as cri, runtime_service_server::RuntimeService};
use runtime::{PodNetwork, PodNetworkRequest, Runtime, RuntimeConfig};
use tonic::{Request, Status};

pub const IMAGE: &str = "plimsoll.test/busybox:1";

/// Why the tests of containers cannot run here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    if !Path::new("/bin/busybox").exists() {
        return Some("/bin/busybox is missing (package busybox-static)".into());
    }
    None
}

/// A network that gives nothing but `lo`.
pub struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn attach(&self, pod: PodNetworkRequest<'_>) -> std::io::Result<Vec<IpAddr>> {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", pod.netns.display()))
            .args(["/bin/busybox", "ip", "link", "set", "lo", "up"])
            .output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(vec!["10.9.8.7".parse().unwrap()])
    }
    async fn detach(&self, _: &str) -> std::io::Result<()> {
        Ok(())
    }
}

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub runtime: Option<Arc<Runtime>>,
    pub parent: String,
}

/// Makes the image, if the store lacks it. `prepare` may change the files before they become a layer.
pub fn make_image(images: &images::Images, tag: &str, user: &str, prepare: impl FnOnce(&Path)) {
    let work = images.work_dir().unwrap();
    let root = work.path().to_owned();
    for dir in ["bin", "tmp", "etc", "root", "proc"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "sleep", "cat", "echo", "true", "false", "id", "grep", "ls", "mount", "umount", "mknod",
        "touch", "head", "wc", "kill", "ps", "stat", "dd", "seq", "env", "pwd", "hostname", "nc", "tty",
        "stty", "chroot", "unshare", "mkdir", "readlink", "printf", "sync", "find", "cut", "tail", "dmesg",
        "date", "rm", "ln", "sort", "yes", "tr",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nlog:x:40:web\n").unwrap();
    prepare(&root);
    let lease = images.new_lease().unwrap();
    let layer = images.commit_layer(work, images::CommitOptions::default(), &lease).unwrap();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin", "FROM_IMAGE=1"], "Cmd": ["sh"], "User": user, "WorkingDir": "/tmp" },
    });
    images.create(images::NewImage { config, layers: vec![layer], tags: vec![tag.into()] }, &lease).unwrap();
}

impl Lab {
    /// A node, or nothing with a printed reason.
    pub async fn new() -> Option<Lab> {
        if let Some(reason) = missing() {
            println!("skipped: {reason}");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("plimsoll-runtime-").tempdir().unwrap();
        let images = images::Images::open(dir.path().join("images")).unwrap();
        make_image(&images, IMAGE, "", |_| {});
        let name = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        let mut lab = Lab { dir, runtime: None, parent: format!("/plimsoll-test/{name}") };
        lab.open().await;
        Some(lab)
    }

    pub fn config(&self) -> RuntimeConfig {
        let images = images::Images::open(self.dir.path().join("images")).unwrap();
        let command = vec![env!("CARGO_BIN_EXE_plim-holder").into()];
        let mut config =
            RuntimeConfig::new(self.dir.path().join("node"), images, Arc::new(NoNetwork), command);
        config.seccomp_dir = self.dir.path().join("seccomp");
        config
    }

    pub fn images(&self) -> images::Images {
        images::Images::open(self.dir.path().join("images")).unwrap()
    }

    pub async fn open(&mut self) {
        self.open_with(self.config()).await;
    }

    pub async fn open_with(&mut self, config: RuntimeConfig) {
        self.runtime = Some(Runtime::open(config).await.unwrap());
    }

    /// As the end of the program does: everything of the runtime goes, the holder stays.
    pub async fn close(&mut self) {
        let old = self.runtime.take().unwrap();
        let weak = Arc::downgrade(&old);
        drop(old);
        while weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }

    pub async fn restart(&mut self) {
        self.close().await;
        self.open().await;
    }

    /// Waits until a log has this line.
    pub async fn wait_for_output(&self, name: &str, line: &str) {
        let wait = async {
            while !self.output(name).lines().any(|l| l.trim_end() == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), wait).await.is_err() {
            panic!("no line {line:?} in {:?}", self.output(name));
        }
    }

    pub fn runtime(&self) -> &Arc<Runtime> {
        self.runtime.as_ref().unwrap()
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub fn sandbox_config(&self, name: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.logs().display().to_string(),
            dns_config: Some(cri::DnsConfig { servers: vec!["10.0.0.10".into()], ..Default::default() }),
            labels: HashMap::from([("app".into(), name.into())]),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pod-{name}", self.parent),
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
        }
    }

    pub async fn sandbox(&self, name: &str) -> String {
        self.sandbox_with(self.sandbox_config(name)).await.unwrap()
    }

    pub async fn sandbox_with(&self, config: cri::PodSandboxConfig) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        Ok(self.runtime().run_pod_sandbox(Request::new(request)).await?.into_inner().pod_sandbox_id)
    }

    pub fn container_config(&self, name: &str, command: &[&str]) -> cri::ContainerConfig {
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: command.iter().map(|c| (*c).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container as i32,
                        ..Default::default()
                    }),
                    masked_paths: [
                        "/proc/kcore",
                        "/proc/keys",
                        "/proc/timer_list",
                        "/sys/firmware",
                        "/proc/acpi",
                    ]
                    .map(String::from)
                    .into(),
                    readonly_paths: [
                        "/proc/bus",
                        "/proc/fs",
                        "/proc/irq",
                        "/proc/sys",
                        "/proc/sysrq-trigger",
                    ]
                    .map(String::from)
                    .into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub async fn create(&self, sandbox: &str, config: cri::ContainerConfig) -> Result<String, Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: None,
        };
        let answer = RuntimeService::create_container(&**self.runtime(), Request::new(request)).await?;
        Ok(answer.into_inner().container_id)
    }

    pub async fn start(&self, id: &str) -> Result<(), Status> {
        let request = cri::StartContainerRequest { container_id: id.into() };
        RuntimeService::start_container(&**self.runtime(), Request::new(request)).await.map(|_| ())
    }

    pub async fn run(&self, sandbox: &str, config: cri::ContainerConfig) -> String {
        let id = self.create(sandbox, config).await.unwrap();
        self.start(&id).await.unwrap();
        id
    }

    pub async fn status(&self, id: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.runtime().container_status(Request::new(request)).await.unwrap().into_inner().status.unwrap()
    }

    pub async fn pid(&self, id: &str) -> i32 {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: true };
        let info = self.runtime().container_status(Request::new(request)).await.unwrap().into_inner().info;
        serde_json::from_str::<serde_json::Value>(&info["info"]).unwrap()["pid"].as_i64().unwrap() as i32
    }

    /// Waits until it has ended, by its events.
    pub async fn ended(&self, id: &str) -> cri::ContainerStatus {
        use futures::StreamExt;
        let mut events = self
            .runtime()
            .get_container_events(Request::new(cri::GetEventsRequest {}))
            .await
            .unwrap()
            .into_inner();
        let wait = async {
            loop {
                let status = self.status(id).await;
                if status.state == cri::ContainerState::ContainerExited as i32 {
                    return status;
                }
                events.next().await.unwrap().unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it does not end")
    }

    /// Runs a script to its end: exit code and output.
    pub async fn script(&self, sandbox: &str, name: &str, script: &str) -> (i32, String) {
        let id = self.run(sandbox, self.container_config(name, &["sh", "-c", script])).await;
        let status = self.ended(&id).await;
        (status.exit_code, self.output(name))
    }

    /// A log without its stamps.
    pub fn output(&self, name: &str) -> String {
        let text = fs::read_to_string(self.logs().join(format!("{name}.log"))).unwrap_or_default();
        text.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).map(|l| format!("{l}\n")).collect()
    }

    pub async fn exec(
        &self,
        id: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<cri::ExecSyncResponse, Status> {
        let request = cri::ExecSyncRequest {
            container_id: id.into(),
            cmd: command.iter().map(|c| (*c).to_owned()).collect(),
            timeout,
        };
        RuntimeService::exec_sync(&**self.runtime(), Request::new(request)).await.map(|r| r.into_inner())
    }

    pub async fn stop(&self, id: &str, timeout: i64) {
        let request = cri::StopContainerRequest { container_id: id.into(), timeout };
        RuntimeService::stop_container(&**self.runtime(), Request::new(request)).await.unwrap();
    }

    pub async fn remove(&self, id: &str) {
        let request = cri::RemoveContainerRequest { container_id: id.into() };
        RuntimeService::remove_container(&**self.runtime(), Request::new(request)).await.unwrap();
    }

    pub async fn remove_sandbox(&self, id: &str) {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        self.runtime().remove_pod_sandbox(Request::new(request)).await.unwrap();
    }

    /// Removes everything and verifies that nothing is left.
    pub async fn end(mut self) {
        let list =
            self.runtime().list_pod_sandbox(Request::new(cri::ListPodSandboxRequest { filter: None })).await;
        for sandbox in list.unwrap().into_inner().items {
            self.remove_sandbox(&sandbox.id).await;
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let here = self.dir.path().display().to_string();
        assert!(!mounts.contains(&here), "something is left mounted:\n{mounts}");
        let node = self.dir.path().join("node");
        for part in ["containers", "sandboxes"] {
            assert_eq!(fs::read_dir(node.join(part)).unwrap().count(), 0, "something is left in {part}");
        }
        for controller in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let group = controller.unwrap().path().join(self.parent.trim_start_matches('/'));
            if let Ok(below) = fs::read_dir(&group) {
                let left: Vec<_> =
                    below.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()).collect();
                assert!(left.is_empty(), "cgroups are left: {left:?}");
            }
        }
        self.runtime().end().await.unwrap();
        self.runtime.take();
        self.clean_up();
    }

    fn clean_up(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let holder = runtime.holder_pid();
            // first, or it would start a new one
            drop(runtime);
            // SAFETY: numbers only; it is this lab's own holder.
            unsafe { libc::kill(holder, libc::SIGKILL) };
        }
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let group = controller.path().join(self.parent.trim_start_matches('/'));
            let _ = fs::remove_dir(&group);
            let _ = fs::remove_dir(group.parent().unwrap());
        }
    }
}

impl Drop for Lab {
    /// After a test that has failed: ends what it had started, so that nothing stays behind.
    fn drop(&mut self) {
        if self.runtime.is_none() {
            return;
        }
        self.clean_up();
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_group(&controller.path().join(self.parent.trim_start_matches('/')));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let here = self.dir.path().display().to_string();
        for at in mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| p.starts_with(&here)) {
            let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Ends what is in a cgroup, and removes it.
fn remove_group(dir: &Path) {
    for below in fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()) {
        remove_group(&below);
    }
    while dir.exists() && fs::remove_dir(dir).is_err() {
        let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|l| l.parse::<i32>().ok()) {
            // SAFETY: numbers only; what is in the test's own cgroup is the test's own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        std::thread::yield_now();
    }
}
