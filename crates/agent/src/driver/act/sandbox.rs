//! Sandboxes: making, stopping, and taking everything of a pod away.

use std::{collections::HashMap, path::Path};

use k8s_cri::v1 as cri;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use tonic::{Code, Request, Status};

use super::{Job, words};
use crate::{
    driver::{events::Kind, retry::persist},
    machine::Happening,
    names, spec,
    translate::{self, labels},
    volumes,
};

/// Makes the pod's sandbox: its id and addresses.
pub(in crate::driver) async fn run(job: &Job, attempt: u32) -> Result<(String, Vec<String>), String> {
    match start(job, attempt).await {
        Ok(made) => Ok(made),
        Err(why) => {
            let note = format!("Failed to create pod sandbox: {why}");
            job.cx.events.pod(&job.pod, Kind::Warning, "FailedCreatePodSandBox", "Starting", note.clone());
            Err(why)
        }
    }
}

async fn start(job: &Job, attempt: u32) -> Result<(String, Vec<String>), String> {
    let (cx, pod) = (&job.cx, &job.pod);
    let (namespace, name, uid) = spec::identity(pod);
    let logs = cx.config.log_dir(namespace, name, uid);
    std::fs::create_dir_all(&logs).map_err(|e| format!("cannot make the log directory {logs:?}: {e}"))?;
    crate::driver::cgroup::prepare(&cx.config, pod);
    let config = translate::sandbox(&cx.config, pod, attempt, &cx.host_dns());
    let handler = handler(job).await?;
    let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
    let made = cx.config.runtime.run_pod_sandbox(Request::new(request)).await.map_err(|e| words(&e))?;
    let id = made.into_inner().pod_sandbox_id;
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false };
    let status = cx.config.runtime.pod_sandbox_status(Request::new(request)).await.map_err(|e| words(&e))?;
    let ips = match status.into_inner().status {
        Some(status) => addresses(&status),
        None => vec![],
    };
    let ips = if spec::spec(pod).host_network == Some(true) { cx.host_ips() } else { ips };
    write_hosts(job, &ips).map_err(|e| format!("cannot write the hosts file: {e}"))?;
    Ok((id, ips))
}

/// Addresses of a sandbox, primary first.
pub(in crate::driver) fn addresses(status: &cri::PodSandboxStatus) -> Vec<String> {
    let Some(network) = &status.network else { return vec![] };
    let all = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|a| &a.ip));
    all.filter(|ip| !ip.is_empty()).cloned().collect()
}

/// The runtime's handler that the pod's RuntimeClass names.
async fn handler(job: &Job) -> Result<String, String> {
    let spec = spec::spec(&job.pod);
    let Some(class) = spec.runtime_class_name.as_deref().filter(|c| !c.is_empty()) else {
        return Ok(String::new());
    };
    let api = Api::<RuntimeClass>::all(job.cx.config.client.clone());
    match api.get_opt(class).await {
        Ok(Some(found)) => Ok(found.handler),
        Ok(None) => Err(format!("failed to get sandbox runtime: RuntimeClass {class:?} not found")),
        Err(error) => Err(format!("failed to get sandbox runtime: {error}")),
    }
}

fn write_hosts(job: &Job, ips: &[String]) -> std::io::Result<()> {
    let spec = spec::spec(&job.pod);
    let own = (spec.host_network == Some(true)).then(|| std::fs::read_to_string("/etc/hosts")).transpose();
    let own = own.unwrap_or_default();
    let text = names::hosts_file(&job.pod, ips, &job.cx.config.cluster_domain, own.as_deref());
    let dir = job.cx.config.pod_dir(spec::identity(&job.pod).2);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("etc-hosts"), text)
}

/// Stops a sandbox, however often that takes; removes it if another one shall take its place.
pub(in crate::driver) async fn stop(job: &Job, id: &str, remove: bool) {
    if remove {
        let note = "Pod sandbox changed, it will be killed and re-created.".to_owned();
        job.cx.events.pod(&job.pod, Kind::Normal, "SandboxChanged", "Restarting", note);
    }
    persist("a sandbox was not stopped", || async {
        let runtime = &job.cx.config.runtime;
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone(runtime.stop_pod_sandbox(Request::new(request)).await.map(drop))?;
        if remove {
            let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
            gone(runtime.remove_pod_sandbox(Request::new(request)).await.map(drop))?;
        }
        Ok::<(), Status>(())
    })
    .await;
}

/// What is not there needs no taking away.
pub(in crate::driver) fn gone(result: Result<(), Status>) -> Result<(), Status> {
    result.or_else(|status| if status.code() == Code::NotFound { Ok(()) } else { Err(status) })
}

/// Takes away everything a pod has on this node: sandboxes with their containers, mounts, files, logs, cgroup.
pub(in crate::driver) async fn clean(job: &Job) {
    let (namespace, name, uid) = spec::identity(&job.pod);
    let (pod_dir, log_dir) = (job.cx.config.pod_dir(uid), job.cx.config.log_dir(namespace, name, uid));
    job.kept.close().await;
    persist("a pod was not taken away", || async {
        remove_sandboxes(job, uid).await.map_err(|e| words(&e))?;
        let (pod_dir, log_dir) = (pod_dir.clone(), log_dir.clone());
        let removed = tokio::task::spawn_blocking(move || {
            volumes::remove(&pod_dir)?;
            remove_dir(&log_dir)
        });
        removed.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        crate::driver::cgroup::remove(&job.cx.config, &job.pod).await.map_err(|e| e.to_string())
    })
    .await;
}

fn remove_dir(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

async fn remove_sandboxes(job: &Job, uid: &str) -> Result<(), Status> {
    let runtime = &job.cx.config.runtime;
    let filter = cri::PodSandboxFilter {
        label_selector: HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]),
        ..cri::PodSandboxFilter::default()
    };
    let request = cri::ListPodSandboxRequest { filter: Some(filter) };
    let sandboxes = runtime.list_pod_sandbox(Request::new(request)).await?.into_inner().items;
    for sandbox in sandboxes {
        let id = sandbox.id;
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.clone() };
        gone(runtime.stop_pod_sandbox(Request::new(request)).await.map(drop))?;
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id };
        gone(runtime.remove_pod_sandbox(Request::new(request)).await.map(drop))?;
    }
    Ok(())
}

/// What has become of a sandbox that may have died.
pub(in crate::driver) async fn died(job: &Job, id: &str) -> Option<Happening> {
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let ready = match job.cx.config.runtime.pod_sandbox_status(Request::new(request)).await {
        Ok(response) => {
            let state = response.into_inner().status.map(|s| s.state);
            state == Some(cri::PodSandboxState::SandboxReady as i32)
        }
        Err(status) => status.code() != Code::NotFound,
    };
    (!ready).then(|| Happening::SandboxDied(id.to_owned()))
}
