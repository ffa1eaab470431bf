//! What a runtime already holds when an agent starts, brought into the form that the state machine knows.
//!
//! Nothing that ran is started again and nothing that ended well is repeated: the newest sandbox with its containers is
//! taken as it is, and what the API's status says of hooks and probes is believed.

use std::collections::{BTreeMap, HashMap};

use k8s_cri::v1 as cri;
use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use tonic::{Request, Status};

use super::act::sandbox::addresses;
use crate::{
    config::Config,
    cri::Runtime,
    machine::{
        Instance, Life, Observed, Seen,
        observed::{Hook, Sandbox, SandboxState},
    },
    spec,
    translate::labels,
};

/// What the runtime holds of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Namespace and name, from labels.
    pub namespace: String,
    pub name: String,
    sandboxes: Vec<cri::PodSandboxStatus>,
    containers: Vec<(cri::ContainerStatus, String)>,
}

/// Everything the runtime holds, by the UID of its pod. What carries no pod's UID is not ours.
pub(crate) async fn list(runtime: &Runtime) -> Result<HashMap<String, Held>, Status> {
    let mut found: HashMap<String, Held> = HashMap::new();
    let sandboxes = runtime.list_pod_sandbox(Request::new(cri::ListPodSandboxRequest::default())).await?;
    for item in sandboxes.into_inner().items {
        let Some(uid) = item.labels.get(labels::POD_UID).cloned() else { continue };
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: item.id.clone(), verbose: false };
        let status = match runtime.pod_sandbox_status(Request::new(request)).await {
            Ok(response) => response.into_inner().status,
            Err(status) if status.code() == tonic::Code::NotFound => None,
            Err(status) => return Err(status),
        };
        let held = found.entry(uid).or_default();
        let label = |key: &str| item.labels.get(key).cloned().unwrap_or_default();
        (held.namespace, held.name) = (label(labels::POD_NAMESPACE), label(labels::POD_NAME));
        held.sandboxes.extend(status);
    }
    let containers = runtime.list_containers(Request::new(cri::ListContainersRequest::default())).await?;
    for item in containers.into_inner().containers {
        let Some(held) = item.labels.get(labels::POD_UID).and_then(|uid| found.get_mut(uid)) else {
            continue;
        };
        let request = cri::ContainerStatusRequest { container_id: item.id.clone(), verbose: false };
        match runtime.container_status(Request::new(request)).await {
            Ok(response) => {
                held.containers
                    .extend(response.into_inner().status.map(|s| (s, item.pod_sandbox_id.clone())));
            }
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    Ok(found)
}

impl Held {
    /// What is known of `pod` from this; `read` makes an instance of a container's status.
    pub(crate) fn observed(
        &self,
        pod: &Pod,
        now: Timestamp,
        read: impl Fn(&cri::ContainerStatus) -> (String, Instance),
    ) -> Observed {
        let mut seen = Observed::default();
        seen.update(pod, now);
        let attempt = |s: &cri::PodSandboxStatus| s.metadata.as_ref().map_or(0, |m| m.attempt);
        let newest = self.sandboxes.iter().max_by_key(|s| (attempt(s), s.created_at));
        if let Some(newest) = newest {
            let ready = newest.state == cri::PodSandboxState::SandboxReady as i32;
            seen.sandbox = Sandbox {
                state: if ready { SandboxState::Ready } else { SandboxState::Dead },
                id: newest.id.clone(),
                attempt: attempt(newest),
                ips: addresses(newest),
            };
        }
        let mut instances: BTreeMap<String, Vec<(Instance, bool)>> = BTreeMap::new();
        for (status, sandbox) in &self.containers {
            let (name, instance) = read(status);
            instances.entry(name).or_default().push((instance, *sandbox == seen.sandbox.id));
        }
        for (name, mut list) in instances {
            list.sort_by_key(|(i, _)| i.attempt);
            let state = seen.containers.entry(name.clone()).or_default();
            let in_newest = list.last().is_some_and(|(_, here)| *here);
            if in_newest {
                state.current = list.pop().map(|(i, _)| i);
            }
            state.previous = list.pop().map(|(i, _)| i);
            remember(state, old_status(pod, &name).as_ref());
        }
        believe(pod, &mut seen, newest.is_some(), now);
        seen
    }

    /// A pod that the API server no longer has, as far as labels tell of it: enough to end it.
    pub(crate) fn orphan(&self, uid: &str) -> Pod {
        let mut names: Vec<String> =
            self.containers.iter().map(|(status, _)| super::instance::name(status)).collect();
        names.sort();
        names.dedup();
        let containers = names.into_iter().map(|name| Container { name, ..Container::default() }).collect();
        Pod {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                uid: Some(uid.to_owned()),
                deletion_grace_period_seconds: Some(1),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { containers, ..PodSpec::default() }),
            status: None,
        }
    }
}

fn old_status(pod: &Pod, name: &str) -> Option<ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|s| s.name == name).cloned()
}

/// Hooks and probes of an instance that ran before this agent: as its status had them.
fn remember(state: &mut Seen, old: Option<&ContainerStatus>) {
    let Some(current) = state.current.as_mut().filter(|i| i.running()) else { return };
    // a hook that was cut off by the end of the last agent is not run a second time
    state.post_start = Hook::Done;
    let same = |s: &&ContainerStatus| s.container_id.as_deref().is_some_and(|id| id.ends_with(&current.id));
    if let Some(old) = old.filter(same) {
        state.startup.verdict = (old.started == Some(true)).then_some(true);
        state.readiness.verdict = old.ready.then_some(true);
        // what it runs with may differ from what the spec now asks for
        if old.resources.is_some() {
            current.resources.clone_from(&old.resources);
        }
    }
}

/// Containers that the status tells of and the runtime no longer has: init containers that are through stay so while
/// their sandbox lives, the rest have ended unseen.
fn believe(pod: &Pod, seen: &mut Observed, has_sandbox: bool, now: Timestamp) {
    for part in spec::parts(&spec::spec(pod)) {
        let name = &part.container.name;
        let Some(old) = old_status(pod, name) else { continue };
        let Some(state) = seen.containers.get_mut(name) else { continue };
        let Some(id) = old.container_id.as_deref().and_then(|id| id.split_once("://")) else { continue };
        if state.current.is_some() || state.previous.is_some() {
            continue;
        }
        let ended = old.state.as_ref().and_then(|s| s.terminated.as_ref());
        let life = match ended {
            Some(t) => Life::Exited {
                finished: t.finished_at.as_ref().map_or(now, |t| t.0),
                exit_code: t.exit_code,
                reason: t.reason.clone().unwrap_or_default(),
                message: t.message.clone().unwrap_or_default(),
            },
            None => Life::lost(now),
        };
        let instance = Instance {
            id: id.1.to_owned(),
            attempt: u32::try_from(old.restart_count).unwrap_or(0),
            life,
            started: ended.and_then(|t| t.started_at.as_ref()).map(|t| t.0),
            image: old.image.clone(),
            image_id: old.image_id.clone(),
            user: old.user.clone(),
            hash: spec::container_hash(&part.container),
            resources: old.resources.clone(),
        };
        let through = part.role == spec::Role::Init && instance.exit_code() == Some(0);
        let over =
            matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
        if over || (through && has_sandbox) || (has_sandbox && ended.is_some()) {
            state.current = Some(instance);
        } else {
            state.previous = Some(instance);
        }
    }
}

/// Directories of pods, by UID, that lie under the agent's root.
pub(crate) fn directories(config: &Config) -> Vec<String> {
    let entries = std::fs::read_dir(config.root.join("pods")).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::instance;
    use serde_json::{Value, json};

    fn sandbox(attempt: u32, ready: bool) -> cri::PodSandboxStatus {
        cri::PodSandboxStatus {
            id: format!("s{attempt}"),
            metadata: Some(cri::PodSandboxMetadata { attempt, ..cri::PodSandboxMetadata::default() }),
            state: i32::from(!ready),
            network: Some(cri::PodSandboxNetworkStatus { ip: "10.0.0.1".into(), additional_ips: vec![] }),
            ..cri::PodSandboxStatus::default()
        }
    }

    fn container(
        name: &str,
        attempt: u32,
        state: cri::ContainerState,
        sandbox: u32,
    ) -> (cri::ContainerStatus, String) {
        let status = cri::ContainerStatus {
            id: format!("{name}{attempt}"),
            metadata: Some(cri::ContainerMetadata { name: name.into(), attempt }),
            state: state as i32,
            started_at: 1,
            finished_at: 2,
            ..cri::ContainerStatus::default()
        };
        (status, format!("s{sandbox}"))
    }

    fn pod(spec: Value, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec, "status": status}))
            .unwrap()
    }

    fn observed(held: &Held, pod: &Pod) -> Observed {
        held.observed(pod, Timestamp::UNIX_EPOCH, |s| {
            (instance::name(s), instance::instance(s, None, String::new()))
        })
    }

    use cri::ContainerState::{ContainerExited as Exited, ContainerRunning as Running};

    #[test]
    fn the_newest_sandbox_counts_and_older_containers_are_the_past() {
        let held = Held {
            sandboxes: vec![sandbox(1, true), sandbox(0, false)],
            containers: vec![
                container("a", 2, Running, 1),
                container("a", 0, Exited, 0),
                container("a", 1, Exited, 0),
                container("b", 3, Exited, 0),
            ],
            ..Held::default()
        };
        let seen = observed(&held, &pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}), json!({})));
        assert_eq!((seen.sandbox.state, seen.sandbox.id.as_str()), (SandboxState::Ready, "s1"));
        assert_eq!(seen.sandbox.ips, ["10.0.0.1"]);
        let ids = |name: &str| {
            let s = &seen.containers[name];
            [&s.current, &s.previous].map(|i| i.as_ref().map(|i| i.id.clone()).unwrap_or_default())
        };
        assert_eq!((ids("a"), ids("b")), (["a2".into(), "a1".into()], [String::new(), "b3".into()]));
        assert_eq!(seen.containers["b"].next_attempt(), 4, "restarts go on counting");
    }

    #[test]
    fn what_the_status_says_of_probes_of_the_same_instance_is_believed() {
        let held = Held {
            sandboxes: vec![sandbox(0, true)],
            containers: vec![container("a", 0, Running, 0), container("b", 0, Running, 0)],
            ..Held::default()
        };
        let status = |name: &str, id: &str| {
            json!({"name": name, "image": "", "imageID": "", "restartCount": 0, "ready": true, "started": true,
                "containerID": format!("plimsoll://{id}")})
        };
        let status = json!({"containerStatuses": [status("a", "a0"), status("b", "other")]});
        let seen = observed(&held, &pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}), status));
        let verdicts = |n: &str| (seen.containers[n].startup.verdict, seen.containers[n].readiness.verdict);
        assert_eq!((verdicts("a"), verdicts("b")), ((Some(true), Some(true)), (None, None)));
        assert_eq!(seen.containers["a"].post_start, Hook::Done);
    }

    #[test]
    fn a_finished_init_container_that_was_removed_is_not_run_again() {
        let held = Held { sandboxes: vec![sandbox(0, true)], ..Held::default() };
        let done = json!({"initContainerStatuses": [{"name": "i", "image": "", "imageID": "", "restartCount": 0,
            "ready": true, "containerID": "plimsoll://x",
            "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:00:00Z"}}}]});
        let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        let seen = observed(&held, &pod(spec.clone(), done.clone()));
        assert_eq!(seen.containers["i"].current.as_ref().and_then(Instance::exit_code), Some(0));
        let seen = observed(&Held::default(), &pod(spec, done));
        assert!(seen.containers["i"].current.is_none(), "a new sandbox needs its init containers");
    }

    #[test]
    fn a_container_that_vanished_has_ended_unseen_and_counts_as_a_restart() {
        let running = json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "", "restartCount": 4,
            "ready": true, "containerID": "plimsoll://x", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
        let seen = observed(&Held::default(), &pod(json!({"containers": [{"name": "a"}]}), running));
        let a = &seen.containers["a"];
        assert!(a.current.is_none());
        assert_eq!(a.previous.as_ref().and_then(Instance::exit_code), Some(137));
        assert_eq!(a.next_attempt(), 5);
    }
}
