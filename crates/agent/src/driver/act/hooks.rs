//! Lifecycle hooks: postStart and preStop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::{Job, words};
use crate::{
    driver::{
        events::Kind,
        probes::{command_in, http, port_number},
    },
    spec,
};

/// How long the request of a hook may take.
const REQUEST_TIME: Duration = Duration::from_secs(30 * 60);

/// Runs the postStart hook of a container.
pub(in crate::driver) async fn post_start(job: &Job, container: &str, id: &str) -> Result<(), String> {
    let result = match handler(job, container, |l| l.post_start.as_ref()) {
        Some((container, hook)) => run(job, &container, &hook, id).await,
        None => Ok(()),
    };
    if result.is_err() {
        // what the hook said is not told: it may hold secrets
        say(job, container, "FailedPostStartHook", "PostStartHook failed");
    }
    result
}

/// Runs the preStop hook of a container, for at most `limit`.
pub(in crate::driver) async fn pre_stop(
    job: &Job,
    container: &str,
    id: &str,
    limit: Duration,
) -> Result<(), String> {
    let result = match handler(job, container, |l| l.pre_stop.as_ref()) {
        Some((container, hook)) => match tokio::time::timeout(limit, run(job, &container, &hook, id)).await {
            Ok(result) => result,
            Err(_) => Err("the hook took longer than the grace period".to_owned()),
        },
        None => Ok(()),
    };
    if result.is_err() {
        say(job, container, "FailedPreStopHook", "PreStopHook failed");
    }
    result
}

fn say(job: &Job, container: &str, reason: &str, note: &str) {
    job.cx.events.container(&job.pod, container, Kind::Warning, reason, "Running", note.to_owned());
}

fn handler(
    job: &Job,
    container: &str,
    pick: impl Fn(&k8s_openapi::api::core::v1::Lifecycle) -> Option<&LifecycleHandler>,
) -> Option<(Container, LifecycleHandler)> {
    let spec = spec::spec(&job.pod);
    let part = spec::part(&spec, container)?;
    let hook = pick(part.container.lifecycle.as_ref()?)?.clone();
    Some((part.container.into_owned(), hook))
}

async fn run(job: &Job, container: &Container, hook: &LifecycleHandler, id: &str) -> Result<(), String> {
    let host = job.ips.first().map(String::as_str).unwrap_or_default();
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match command_in(job, id, command, Duration::ZERO).await {
            Ok((0, _)) => Ok(()),
            Ok((code, output)) => Err(format!("command exited with {code}: {output}")),
            Err(status) => Err(words(&status)),
        };
    }
    if let Some(get) = &hook.http_get {
        let request = http::Get::of(get, container, host, "lifecycle")?;
        return http::hook(&job.cx.dialer, request, REQUEST_TIME).await;
    }
    if let Some(tcp) = &hook.tcp_socket {
        let port = port_number(&tcp.port, container)?;
        let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(host);
        return job.cx.dialer.connect(host, port, REQUEST_TIME).await.map(drop);
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("Invalid handler: nothing to run".to_owned())
}
