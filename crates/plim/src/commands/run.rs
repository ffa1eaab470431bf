//! `plim run`: one container from an image, for those who know Docker.

use std::pin::pin;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, DeleteParams, LogParams, PostParams},
    runtime::{
        wait::{Condition, await_condition},
        watcher::watch_object,
    },
};
use serde_json::{Value, json};

use crate::{client, commands::exec::converse, data::Data};

/// Shown by `plim run --help`.
pub const EXAMPLES: &str = "Examples:\n  plim run --rm busybox:1 -- echo hello\n  plim run -it --rm debian:bookworm-slim -- bash\n  plim run -d --name web -p 8080:80 nginx:1.27";

/// Run a container.
#[derive(Args, Debug)]
pub struct Run {
    /// The image.
    image: String,
    /// The command instead of the image's own.
    #[arg(last = true)]
    command: Vec<String>,
    /// Name of the pod.
    #[arg(long)]
    name: Option<String>,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// An environment variable.
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A port of the machine that leads to one of the container's.
    #[arg(short, long = "publish", value_name = "HOST:CONTAINER")]
    ports: Vec<String>,
    /// Do not wait for its end.
    #[arg(short, long, conflicts_with_all = ["stdin", "tty", "rm"])]
    detach: bool,
    /// Remove the pod when it has ended.
    #[arg(long)]
    rm: bool,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// With a terminal.
    #[arg(short, long)]
    tty: bool,
}

impl Run {
    /// Runs it; the exit code is the container's.
    pub fn run(self, data: &Data) -> Result<u8> {
        let pod = self.pod()?;
        client::with(data, async |client| {
            let api = Api::<Pod>::namespaced(client, &self.namespace);
            let created =
                api.create(&PostParams::default(), &pod).await.map_err(|e| client::explain(e, data))?;
            let name = created.metadata.name.context("the server gave the pod no name")?;
            if self.detach {
                println!("{name}");
                return Ok(0);
            }
            let result = self.accompany(&api, &name).await;
            if self.rm {
                api.delete(&name, &DeleteParams::default().grace_period(0)).await?;
            }
            result
        })
    }

    fn pod(&self) -> Result<Pod> {
        let env = self.env.iter().map(|pair| {
            let (name, value) =
                pair.split_once('=').with_context(|| format!("--env {pair}: write it as NAME=VALUE"))?;
            Ok(json!({ "name": name, "value": value }))
        });
        let ports = self.ports.iter().map(|pair| {
            let parse = || {
                let (host, container) = pair.split_once(':')?;
                Some(json!({ "hostPort": host.parse::<u16>().ok()?, "containerPort": container.parse::<u16>().ok()? }))
            };
            parse().with_context(|| format!("--publish {pair}: write it as HOST:CONTAINER, two port numbers"))
        });
        let mut container = json!({
            "name": "main",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "env": env.collect::<Result<Vec<Value>>>()?,
            "ports": ports.collect::<Result<Vec<Value>>>()?,
        });
        if !self.command.is_empty() {
            container["args"] = json!(self.command);
        }
        if self.stdin || self.tty {
            container["stdin"] = json!(self.stdin);
            container["stdinOnce"] = json!(self.stdin);
            container["tty"] = json!(self.tty);
        }
        let mut metadata = json!({ "labels": { "app.kubernetes.io/managed-by": "plim-run" } });
        match &self.name {
            Some(name) => metadata["name"] = json!(name),
            None => metadata["generateName"] = json!(format!("{}-", short_name(&self.image))),
        }
        let restart = if self.detach { "Always" } else { "Never" };
        Ok(serde_json::from_value(
            json!({ "metadata": metadata, "spec": { "restartPolicy": restart, "containers": [container] } }),
        )?)
    }

    /// Waits for the start, passes its output on until it ends; gives its exit code.
    async fn accompany(&self, api: &Api<Pod>, name: &str) -> Result<u8> {
        let started = started(api, name).await?;
        if let Some(why) = started.as_ref().and_then(cannot_start) {
            bail!("{name} does not start: {why} (`plim why {name}` says more)");
        }
        if self.stdin || self.tty {
            let params =
                AttachParams::default().stdin(self.stdin).tty(self.tty).stdout(true).stderr(!self.tty);
            // A container that has ended already has nothing to attach to: its log has it all.
            if let Ok(process) = api.attach(name, &params).await {
                converse(process, self.tty).await?;
            }
        } else {
            let params = LogParams { follow: true, ..LogParams::default() };
            let mut lines = api.log_stream(name, &params).await?.lines();
            while let Some(line) = lines.try_next().await? {
                println!("{line}");
            }
        }
        let ended = await_condition(api.clone(), name, Ended).await?;
        let code = ended.as_ref().and_then(exit_code).unwrap_or(1);
        Ok(u8::try_from(code).unwrap_or(1))
    }
}

/// The last part of an image's name, as it may stand in a pod's name.
fn short_name(image: &str) -> String {
    let last = image.split('@').next().and_then(|i| i.rsplit('/').next()).unwrap_or_default();
    let name: String = last
        .split(':')
        .next()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "run".to_owned() } else { name.to_owned() }
}

/// Waits until the pod has started, cannot start, or is gone; says why it waits while no node takes it.
async fn started(api: &Api<Pod>, name: &str) -> Result<Option<Pod>> {
    let mut versions = pin!(watch_object(api.clone(), name));
    let mut told = None;
    while let Some(pod) = versions.try_next().await? {
        if pod.as_ref().is_none_or(decided) {
            return Ok(pod);
        }
        let reason = pod.as_ref().and_then(unplaced);
        if reason.is_some() && reason != told {
            eprintln!(
                "{name} waits: {} (`plim why {name}` says more)",
                reason.as_deref().unwrap_or_default()
            );
            told = reason;
        }
    }
    bail!("the server no longer tells of {name}")
}

/// Whether it is known that the pod starts, or that it does not.
fn decided(pod: &Pod) -> bool {
    phase(pod) != "Pending" || cannot_start(pod).is_some()
}

/// Why no node takes the pod.
fn unplaced(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    scheduled.message.clone()
}

struct Ended;

impl Condition<Pod> for Ended {
    fn matches_object(&self, pod: Option<&Pod>) -> bool {
        pod.is_none_or(|p| matches!(phase(p), "Succeeded" | "Failed"))
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Why the container will not start without somebody doing something.
fn cannot_start(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let hopeless = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    ];
    hopeless
        .contains(&reason)
        .then(|| format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default()))
}

fn exit_code(pod: &Pod) -> Option<i32> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_after_its_image() {
        assert_eq!(short_name("docker.io/library/busybox:1.36"), "busybox");
        assert_eq!(short_name("team/My_App@sha256:00"), "my-app");
        assert_eq!(short_name(":"), "run");
    }

    #[test]
    fn a_missing_image_is_told_at_once() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {},
            "status": { "phase": "Pending", "containerStatuses": [{
                "name": "main", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": "ErrImagePull", "message": "not there" } } }] }
        }))
        .unwrap();
        assert!(decided(&pod));
        assert_eq!(cannot_start(&pod).unwrap(), "ErrImagePull: not there");
    }

    #[test]
    fn a_pod_that_no_node_takes_says_so() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {},
            "status": { "phase": "Pending", "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient cpu." }] }
        }))
        .unwrap();
        assert!(!decided(&pod));
        assert_eq!(unplaced(&pod).unwrap(), "0/1 nodes are available: 1 Insufficient cpu.");
    }
}
