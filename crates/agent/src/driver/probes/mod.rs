//! Asking containers how they are: by HTTP, TCP, gRPC or a command inside.

pub(super) mod dial;
mod grpc;
pub(super) mod http;

use std::time::Duration;

use k8s_cri::v1 as cri;
use k8s_openapi::{
    api::core::v1::{Container, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tonic::{Code, Request};

use super::{act::Job, events::Kind};
use crate::{environment, machine::ProbeKind, spec};

/// Attempts where no answer could be had at all.
const ATTEMPTS: usize = 3;
/// Bytes of a command's output that are shown.
const OUTPUT_LIMIT: usize = 10 << 10;

/// What a probe found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Success,
    /// As good as success, but somebody should know.
    Warning(String),
    Failure(String),
    /// It could not be asked: counts for nothing.
    Unknown(String),
}

/// Asks once; says so where the answer is not yes. `None` when it could not be asked.
pub(super) async fn run(job: &Job, container: &str, id: &str, kind: ProbeKind) -> Option<bool> {
    let spec = spec::spec(&job.pod);
    let part = spec::part(&spec, container)?;
    let probe = kind.of(&part.container)?;
    let mut answer = Answer::Unknown(String::new());
    for _ in 0..ATTEMPTS {
        answer = ask(job, &part.container, probe, id).await;
        if !matches!(answer, Answer::Unknown(_)) {
            break;
        }
    }
    let what = kind.as_str();
    let say = |reason, note| {
        job.cx.events.container(&job.pod, container, Kind::Warning, reason, "Probing", note);
    };
    match answer {
        Answer::Success => Some(true),
        Answer::Warning(output) => {
            say("ProbeWarning", format!("{what} probe warning: {output}"));
            Some(true)
        }
        Answer::Failure(output) => {
            say("Unhealthy", format!("{what} probe failed: {output}"));
            Some(false)
        }
        Answer::Unknown(why) => {
            say("Unhealthy", format!("{what} probe errored and resulted in unknown state: {why}"));
            None
        }
    }
}

async fn ask(job: &Job, container: &Container, probe: &Probe, id: &str) -> Answer {
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1));
    let host = job.ips.first().map(String::as_str).unwrap_or_default();
    let port_of = |port: &IntOrString| port_number(port, container);
    if let Some(exec) = &probe.exec {
        let command = static_command(container, exec.command.as_deref().unwrap_or_default());
        return exec_answer(command_in(job, id, command, timeout).await);
    }
    if let Some(get) = &probe.http_get {
        let request = match http::Get::of(get, container, host, "probe") {
            Ok(request) => request,
            Err(why) => return Answer::Unknown(why),
        };
        return http::answer(&job.cx.dialer, &request, timeout).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let port = match port_of(&tcp.port) {
            Ok(port) => port,
            Err(why) => return Answer::Unknown(why),
        };
        let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(host);
        return match job.cx.dialer.connect(host, port, timeout).await {
            Ok(_) => Answer::Success,
            Err(why) => Answer::Failure(why),
        };
    }
    if let Some(grpc) = &probe.grpc {
        let Ok(port) = u16::try_from(grpc.port) else {
            return Answer::Unknown(format!("invalid port number: {}", grpc.port));
        };
        let service = grpc.service.as_deref().unwrap_or_default();
        return grpc::answer(&job.cx.dialer, host, port, service, timeout).await;
    }
    Answer::Unknown(format!("missing probe handler for {}:{}", spec::long_name(&job.pod), container.name))
}

/// A port by number or by its name in the container.
pub(super) fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name}"),
    })
}

/// A command with the references filled in that the spec itself answers.
fn static_command(container: &Container, command: &[String]) -> Vec<String> {
    let value = |name: &str| {
        let found = container.env.iter().flatten().rfind(|e| e.name == name && e.value_from.is_none());
        found.map(|e| e.value.clone().unwrap_or_default())
    };
    command.iter().map(|word| environment::expand(word, value)).collect()
}

/// Runs a command in a container: exit code and output, or why it could not be run.
pub(super) async fn command_in(
    job: &Job,
    id: &str,
    command: Vec<String>,
    timeout: Duration,
) -> Result<(i32, String), tonic::Status> {
    let request = cri::ExecSyncRequest {
        container_id: id.to_owned(),
        cmd: command,
        timeout: i64::try_from(timeout.as_secs()).unwrap_or(0),
    };
    let asked = job.cx.config.runtime.exec_sync(Request::new(request));
    // the runtime keeps the time; this is for one that does not
    let limit = if timeout.is_zero() { Duration::MAX } else { timeout + Duration::from_secs(5) };
    let response = match tokio::time::timeout(limit, asked).await {
        Ok(response) => response?.into_inner(),
        Err(_) => return Err(tonic::Status::deadline_exceeded("command timed out")),
    };
    let mut output = response.stdout;
    output.extend(response.stderr);
    output.truncate(OUTPUT_LIMIT);
    Ok((response.exit_code, String::from_utf8_lossy(&output).into_owned()))
}

fn exec_answer(result: Result<(i32, String), tonic::Status>) -> Answer {
    match result {
        Ok((0, _)) => Answer::Success,
        Ok((_, output)) => Answer::Failure(output),
        Err(status) if status.code() == Code::DeadlineExceeded => {
            Answer::Failure(status.message().to_owned())
        }
        Err(status) => Answer::Unknown(super::act::words(&status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_named_port_is_looked_up_in_the_container() {
        let c: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .unwrap();
        assert_eq!(port_number(&IntOrString::String("web".into()), &c), Ok(8080));
        assert_eq!(port_number(&IntOrString::Int(80), &c), Ok(80));
        assert!(port_number(&IntOrString::String("x".into()), &c).is_err());
        assert!(port_number(&IntOrString::Int(70_000), &c).is_err());
    }

    #[test]
    fn commands_are_expanded_from_the_spec_alone() {
        let c: Container = serde_json::from_value(json!({"name": "c", "env": [{"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}))
        .unwrap();
        assert_eq!(static_command(&c, &["$(A)".into(), "$(B)".into()]), ["1", "$(B)"]);
    }
}
