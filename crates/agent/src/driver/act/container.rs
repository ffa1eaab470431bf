//! Containers: making, starting, stopping, looking at them.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use k8s_cri::v1 as cri;
use k8s_openapi::{
    api::core::v1::{Container, ResourceRequirements},
    jiff::Timestamp,
};
use tonic::{Code, Request};

use super::{Job, image, sandbox, words};
use crate::{
    driver::{cgroup, events::Kind, instance, retry::Waits},
    environment,
    machine::{Happening, Instance, StopReason},
    resources, spec,
    translate::{self, Making},
};

/// What a container is started with beside its spec.
pub(in crate::driver) struct Start {
    pub container: String,
    pub attempt: u32,
    pub image: String,
    /// For an ephemeral container: the runtime's id of the container whose processes it sees.
    pub target: Option<String>,
    /// An instance that is now too old to be kept: the runtime's id and its number.
    pub outdated: Option<(String, u32)>,
}

/// Why a container does not run: (reason, message) as its status shows them.
type Failed = (String, String);

fn failed(reason: &str, why: impl Into<String>) -> Failed {
    (reason.to_owned(), why.into())
}

/// Makes and starts a container.
pub(in crate::driver) async fn start(job: &Job, start: &Start) -> Result<Instance, Failed> {
    let made = create_and_run(job, start).await;
    if let Err((_, why)) = &made {
        let note = format!("Error: {why}");
        job.cx.events.container(&job.pod, &start.container, Kind::Warning, "Failed", "Starting", note);
    }
    if let (Ok(_), Some((id, attempt))) = (&made, &start.outdated) {
        forget(job, &start.container, id, *attempt).await;
    }
    made
}

async fn create_and_run(job: &Job, start: &Start) -> Result<Instance, Failed> {
    let (cx, pod) = (&job.cx, &job.pod);
    let spec = spec::spec(pod);
    let part = spec::part(&spec, &start.container);
    let part =
        part.ok_or_else(|| failed("CreateContainerError", "the container is not in the pod any more"))?;
    let container = part.container.as_ref();
    let config = configuration(job, container, start).await?;
    let sandbox_config = translate::sandbox(&cx.config, pod, job.sandbox.1, &cx.host_dns());
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: job.sandbox.0.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let runtime = &cx.config.runtime;
    let made = runtime.create_container(Request::new(request)).await;
    let id = made.map_err(|e| failed("CreateContainerError", e.message()))?.into_inner().container_id;
    let say = |reason, note: &str| {
        cx.events.container(pod, &start.container, Kind::Normal, reason, "Starting", note.to_owned());
    };
    say("Created", "Container created");
    let request = cri::StartContainerRequest { container_id: id.clone() };
    if let Err(error) = runtime.start_container(Request::new(request)).await {
        // a container that cannot start is of no use; the next attempt makes another one
        let request = cri::RemoveContainerRequest { container_id: id };
        let _ = runtime.remove_container(Request::new(request)).await;
        return Err(failed("RunContainerError", error.message()));
    }
    say("Started", "Container started");
    match look(job, &id).await {
        Ok(Some((_, instance))) => Ok(instance),
        Ok(None) => Err(failed("RunContainerError", "the container has gone")),
        Err(error) => Err(failed("RunContainerError", words(&error))),
    }
}

async fn configuration(
    job: &Job,
    container: &Container,
    start: &Start,
) -> Result<cri::ContainerConfig, Failed> {
    let wrong = |why: String| failed("CreateContainerConfigError", why);
    let (cx, pod) = (&job.cx, &job.pod);
    let (namespace, _, uid) = spec::identity(pod);
    let (maps, secrets) = environment::references(container);
    let (maps, secrets) =
        (job.inputs.maps(&maps).await.map_err(wrong)?, job.inputs.secrets(&secrets).await.map_err(wrong)?);
    let (host_ip, allocatable) = (cx.config.host_ip(), cx.allocatable.read().clone());
    let sources = environment::Sources {
        config_maps: &maps,
        secrets: &secrets,
        services: &cx.services.of(namespace),
        facts: cx.facts(&host_ip, &job.ips, &allocatable),
    };
    let env = environment::environment(pod, container, &sources).map_err(|e| wrong(e.to_string()))?;
    let message_file = message_file(&cx.config.pod_dir(uid), &container.name, start.attempt)
        .map_err(|e| wrong(e.to_string()))?;
    let hosts = Some(cx.config.pod_dir(uid).join("etc-hosts")).filter(|_| !job.ips.is_empty());
    let making = Making {
        config: &cx.config,
        memory: cx.memory,
        attempt: start.attempt,
        image: &start.image,
        env,
        places: &job.places,
        hosts,
        message_file,
        target: start.target.as_deref(),
        image_user: image_user(job, container, &start.image).await.map_err(wrong)?,
    };
    translate::container(pod, container, &making).map_err(|e| wrong(e.to_string()))
}

/// Who the image runs as, where the container must not run as root.
async fn image_user(
    job: &Job,
    container: &Container,
    reference: &str,
) -> Result<Option<(Option<i64>, String)>, String> {
    let all = spec::spec(&job.pod).security_context.as_ref().and_then(|s| s.run_as_non_root);
    let own = container.security_context.as_ref().and_then(|s| s.run_as_non_root);
    if own.or(all) != Some(true) {
        return Ok(None);
    }
    let found = image::present(job, reference).await?;
    Ok(found.map(|i| (i.uid.map(|u| u.value), i.username)))
}

/// An empty file that anyone in the container may write its last words to.
fn message_file(pod_dir: &Path, container: &str, attempt: u32) -> std::io::Result<PathBuf> {
    let dir = pod_dir.join("containers").join(container);
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(attempt.to_string());
    let file = std::fs::File::create(&path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

/// Removes an old instance with its log.
async fn forget(job: &Job, container: &str, id: &str, attempt: u32) {
    let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
    let removed = job.cx.config.runtime.remove_container(Request::new(request)).await.map(drop);
    if let Err(error) = sandbox::gone(removed) {
        tracing::debug!(id, %error, "an old container was not removed");
    }
    let (namespace, name, uid) = spec::identity(&job.pod);
    let logs = job.cx.config.log_dir(namespace, name, uid).join(container);
    let ours = format!("{attempt}.log");
    for entry in std::fs::read_dir(&logs).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&ours) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    let _ = std::fs::remove_file(
        job.cx.config.pod_dir(uid).join("containers").join(container).join(attempt.to_string()),
    );
}

/// The runtime's view of a container: its name and instance; `None` if it has none of this id.
pub(in crate::driver) async fn look(
    job: &Job,
    id: &str,
) -> Result<Option<(String, Instance)>, tonic::Status> {
    let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    match job.cx.config.runtime.container_status(Request::new(request)).await {
        Ok(response) => Ok(response.into_inner().status.map(|s| read(job, &s))),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// A container's status with its termination message.
pub(in crate::driver) fn read(job: &Job, status: &cri::ContainerStatus) -> (String, Instance) {
    let name = instance::name(status);
    let (namespace, pod, uid) = spec::identity(&job.pod);
    let spec = spec::spec(&job.pod);
    let part = spec::part(&spec, &name);
    let container = part.as_ref().map(|p| p.container.as_ref());
    let attempt = status.metadata.as_ref().map_or(0, |m| m.attempt);
    let log = job.cx.config.log_dir(namespace, pod, uid).join(&name).join(format!("{attempt}.log"));
    let message = instance::message(status, container, &log);
    (name, instance::instance(status, container, message))
}

/// What is said when a container is told to stop.
pub(in crate::driver) fn killing(container: &str, reason: &StopReason, again: bool) -> String {
    let why = match reason {
        StopReason::PodEnds | StopReason::SandboxDied => return format!("Stopping container {container}"),
        StopReason::PostStart => return "FailedPostStartHook".to_owned(),
        StopReason::Changed => format!("Container {container} definition changed"),
        StopReason::Resized => return format!("Container {container} resize requires restart"),
        StopReason::Probe(kind) => {
            format!("Container {container} failed {} probe", kind.as_str().to_lowercase())
        }
    };
    if again { format!("{why}, will be restarted") } else { why }
}

/// Stops a container until it has ended or `until`, then kills it.
pub(in crate::driver) async fn kill(job: &Job, container: &str, id: &str, until: Timestamp) -> Happening {
    let left = until.duration_since(Timestamp::now()).as_secs_f64().ceil().max(0.0);
    let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout: left as i64 };
    let stopped = job.cx.config.runtime.stop_container(Request::new(request)).await.map(drop);
    match sandbox::gone(stopped) {
        Ok(()) => ended(job, container, id).await,
        Err(error) => {
            tracing::warn!(container, id, %error, "a container was not stopped, trying again");
            Waits::new().pause().await;
            Happening::StopFailed(container.to_owned())
        }
    }
}

/// What became of a container that should have ended.
async fn ended(job: &Job, container: &str, id: &str) -> Happening {
    match look(job, id).await {
        Ok(Some((name, instance))) => Happening::Instance(name, Box::new(instance)),
        Ok(None) => Happening::Lost(container.to_owned(), id.to_owned()),
        Err(_) => Happening::StopFailed(container.to_owned()),
    }
}

/// What has become of a container; `name` is the one it had when it was last seen.
pub(in crate::driver) async fn seen(job: &Job, id: &str, name: Option<&str>) -> Option<Happening> {
    match look(job, id).await {
        Ok(Some((name, instance))) => Some(Happening::Instance(name, Box::new(instance))),
        Ok(None) => name.map(|name| Happening::Lost(name.to_owned(), id.to_owned())),
        Err(error) => {
            tracing::debug!(id, %error, "a container could not be looked at");
            None
        }
    }
}

/// Gives a running container, and its pod, the resources that the spec asks for. `running` are those that the pod's
/// containers have now.
pub(in crate::driver) async fn resize(
    job: &Job,
    container: &str,
    id: &str,
    running: &BTreeMap<String, ResourceRequirements>,
) -> Result<Option<ResourceRequirements>, String> {
    let spec = spec::spec(&job.pod);
    let part = spec::part(&spec, container).ok_or("the container is not in the pod any more")?;
    // the pod's cgroup has to hold the larger of before and after while its containers change
    cgroup::widen(&job.cx.config, &job.pod, running);
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(resources::linux(&spec, &part.container, job.cx.memory)),
        ..cri::UpdateContainerResourcesRequest::default()
    };
    let changed = job.cx.config.runtime.update_container_resources(Request::new(request)).await;
    changed.map_err(|e| words(&e))?;
    Ok(part.container.resources.clone())
}
