//! What the evidence means, stage by stage: workload → scheduling → image → start → run → readiness → service.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerStatus, Event, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;
use serde::Serialize;

/// What is known about a name.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The name asked about.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The Deployment of that name.
    pub deployment: Option<Deployment>,
    /// The Service of that name.
    pub service: Option<Service>,
    /// Its endpoints.
    pub slices: Vec<EndpointSlice>,
    /// The pods behind it.
    pub pods: Vec<Pod>,
    /// Events about any of them.
    pub events: Vec<Event>,
    /// Pod, container, last lines of its log.
    pub logs: Vec<(String, String, Vec<String>)>,
}

/// One stage of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which stage.
    pub stage: &'static str,
    /// Whether it is as it should be.
    pub good: bool,
    /// In a sentence.
    pub what: String,
    /// More of it: messages, log lines.
    pub details: Vec<String>,
    /// What to do next.
    pub next: Option<String>,
}

impl Finding {
    fn good(stage: &'static str, what: String) -> Self {
        Self { stage, good: true, what, details: Vec::new(), next: None }
    }

    fn bad(stage: &'static str, what: String, details: Vec<String>, next: String) -> Self {
        Self { stage, good: false, what, details, next: Some(next) }
    }
}

/// Says what is wrong, or that nothing is.
pub fn diagnose(evidence: &Evidence) -> Vec<Finding> {
    let mut findings: Vec<Finding> = evidence.deployment.iter().map(|d| workload(evidence, d)).collect();
    let mut pods: Vec<Finding> = evidence.pods.iter().filter_map(|p| pod(evidence, p)).collect();
    // A hundred replicas fail for one reason: it is told once.
    pods.dedup_by(|a, b| a.stage == b.stage && a.details == b.details);
    if pods.is_empty() && !evidence.pods.is_empty() {
        findings.push(Finding::good("pods", format!("{} ready", evidence.pods.len())));
    }
    findings.extend(pods);
    findings.extend(evidence.service.as_ref().map(|s| service(evidence, s)));
    findings
}

fn workload(evidence: &Evidence, deployment: &Deployment) -> Finding {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let available = status.available_replicas.unwrap_or(0);
    let name = &evidence.name;
    let conditions = status.conditions.unwrap_or_default();
    let failure = conditions
        .iter()
        .find(|c| c.type_.as_deref() == Some("ReplicaFailure") && c.status.as_deref() == Some("True"));
    if let Some(failure) = failure {
        let message = failure.message.clone().unwrap_or_default();
        let next = format!("kubectl describe deployment {name} -n {}", evidence.namespace);
        return Finding::bad("workload", "pods cannot be created".to_owned(), vec![message], next);
    }
    if available >= wanted {
        return Finding::good("workload", format!("{available} of {wanted} replicas available"));
    }
    let stuck = conditions.iter().any(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    let next = if stuck {
        format!("kubectl rollout undo deployment/{name} -n {}", evidence.namespace)
    } else {
        format!("kubectl rollout status deployment/{name} -n {}", evidence.namespace)
    };
    let details =
        if stuck { vec!["the rollout has made no progress for its deadline".to_owned()] } else { Vec::new() };
    Finding::bad("workload", format!("{available} of {wanted} replicas available"), details, next)
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a k8s_openapi::api::core::v1::PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// What keeps a pod from being ready; `None` if nothing does.
fn pod(evidence: &Evidence, pod: &Pod) -> Option<Finding> {
    let name = pod.name_any();
    let (namespace, subject) = (&evidence.namespace, &evidence.name);
    let status = pod.status.clone().unwrap_or_default();
    if status.phase.as_deref() == Some("Succeeded")
        || condition(pod, "Ready").is_some_and(|c| c.status == "True")
    {
        return None;
    }
    if let Some(scheduled) = condition(pod, "PodScheduled").filter(|c| c.status == "False") {
        let message = scheduled.message.clone().unwrap_or_default();
        let next = scheduling_next(&message, namespace, &name);
        return Some(Finding::bad("scheduling", format!("{name} has no node"), sentences(&message), next));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        let next = format!("kubectl get pod {name} -n {namespace} -o jsonpath='{{.metadata.finalizers}}'");
        return Some(Finding::bad("ending", format!("{name} is being ended"), Vec::new(), next));
    }
    let all =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    if let Some(finding) = all.filter(|s| !s.ready).find_map(|s| container(evidence, &name, s)) {
        return Some(finding);
    }
    if status.phase.as_deref() == Some("Failed") {
        let message = status.message.or(status.reason).unwrap_or_default();
        let next = format!("kubectl describe pod {name} -n {namespace}");
        return Some(Finding::bad("node", format!("{name} was ended by its node"), vec![message], next));
    }
    let events = warnings(evidence, &name);
    let running = status
        .container_statuses
        .iter()
        .flatten()
        .any(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()));
    if running {
        let mut details: Vec<String> = events.into_iter().filter(|e| e.contains("robe")).collect();
        details.extend(log_lines(evidence, &name));
        let next = format!("plim logs {subject} -n {namespace} -f");
        return Some(Finding::bad("readiness", format!("{name} runs, but is not ready"), details, next));
    }
    let next = format!("kubectl describe pod {name} -n {namespace}");
    Some(Finding::bad("start", format!("{name} is being started"), events, next))
}

fn container(evidence: &Evidence, pod: &str, status: &ContainerStatus) -> Option<Finding> {
    let namespace = &evidence.namespace;
    let state = status.state.clone().unwrap_or_default();
    let waiting = state.waiting.unwrap_or_default();
    let reason = waiting.reason.clone().unwrap_or_default();
    let message = waiting.message.clone().unwrap_or_default();
    let named = format!("{pod}, container {}", status.name);
    match reason.as_str() {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            let next = format!("plim image pull {0}, or plim build -t {0} .", status.image);
            Some(Finding::bad(
                "image",
                format!("{named}: {} cannot be had", status.image),
                vec![message],
                next,
            ))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            let next = format!("kubectl get pod {pod} -n {namespace} -o yaml");
            Some(Finding::bad("start", format!("{named} cannot be started: {reason}"), vec![message], next))
        }
        _ => {
            let last = status.last_state.clone().unwrap_or_default().terminated;
            let ended = state.terminated.or(last)?;
            let how = match ended.reason.as_deref() {
                Some("OOMKilled") => "was killed: it used more memory than its limit".to_owned(),
                _ => format!("ended with exit code {}", ended.exit_code),
            };
            let times = match status.restart_count {
                0 => String::new(),
                n => format!(", restarted {n} times"),
            };
            let mut details: Vec<String> =
                ended.message.iter().flat_map(|m| m.lines()).map(str::to_owned).collect();
            details.extend(log_lines(evidence, pod));
            let next = if ended.reason.as_deref() == Some("OOMKilled") {
                format!("raise resources.limits.memory of container {}", status.name)
            } else {
                format!("plim logs {pod} -n {namespace} --previous")
            };
            Some(Finding::bad("run", format!("{named} {how}{times}"), details, next))
        }
    }
}

fn service(evidence: &Evidence, service: &Service) -> Finding {
    let endpoints = || evidence.slices.iter().flat_map(|s| s.endpoints.iter().flatten());
    let ready = endpoints().filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)).count();
    let all = endpoints().count();
    if ready > 0 {
        return Finding::good("service", format!("{ready} endpoint(s) ready"));
    }
    let spec = service.spec.clone().unwrap_or_default();
    let selector = spec.selector.unwrap_or_default();
    let (name, namespace) = (&evidence.name, &evidence.namespace);
    if all > 0 {
        let what = format!("no endpoint is ready ({all} are not): connections are refused");
        let next = format!("kubectl get pods -n {namespace} -o wide");
        return Finding::bad("service", what, Vec::new(), next);
    }
    let labels: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let what = format!("no pod matches its selector {}", labels.join(","));
    let next =
        format!("kubectl get pods -n {namespace} --show-labels, then mend the selector of service {name}");
    Finding::bad("service", what, Vec::new(), next)
}

fn log_lines(evidence: &Evidence, pod: &str) -> Vec<String> {
    let mine = evidence.logs.iter().filter(|(p, _, _)| p == pod);
    mine.flat_map(|(_, _, lines)| lines).map(|l| format!("| {l}")).collect()
}

fn warnings(evidence: &Evidence, pod: &str) -> Vec<String> {
    let mine = evidence
        .events
        .iter()
        .filter(|e| e.type_.as_deref() == Some("Warning") && e.involved_object.name.as_deref() == Some(pod));
    let mut lines: Vec<String> = mine
        .map(|e| {
            format!(
                "{}: {}",
                e.reason.as_deref().unwrap_or_default(),
                e.message.as_deref().unwrap_or_default()
            )
        })
        .collect();
    lines.dedup();
    lines.split_off(lines.len().saturating_sub(4))
}

fn sentences(message: &str) -> Vec<String> {
    message.split(". ").filter(|s| !s.is_empty()).map(|s| s.trim_end_matches('.').to_owned()).collect()
}

fn scheduling_next(message: &str, namespace: &str, pod: &str) -> String {
    if message.contains("Insufficient") {
        format!("plim top shows who asked for it; lower the requests of {pod}, or add a node")
    } else if message.contains("taint") {
        "kubectl describe nodes | grep Taints".to_owned()
    } else if message.contains("PersistentVolumeClaim") || message.contains("persistentvolumeclaim") {
        format!("kubectl get pvc -n {namespace}")
    } else {
        format!("kubectl describe pod {pod} -n {namespace}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn evidence(status: Value) -> Evidence {
        let pod = json!({ "metadata": { "name": "web-1" }, "spec": { "containers": [] }, "status": status });
        Evidence {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            pods: vec![serde_json::from_value(pod).unwrap()],
            ..Evidence::default()
        }
    }

    fn container(state: Value, more: Value) -> Value {
        let mut status = json!({ "name": "c", "image": "shop/web:1", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        for (key, value) in more.as_object().unwrap() {
            status[key] = value.clone();
        }
        json!({ "phase": "Running", "containerStatuses": [status] })
    }

    #[test]
    fn a_pod_that_fits_nowhere_is_told_with_who_takes_the_room() {
        let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: none.";
        let findings = diagnose(&evidence(json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message }] })));
        assert_eq!(findings[0].stage, "scheduling");
        assert_eq!(findings[0].details[0], "0/1 nodes are available: 1 Insufficient cpu");
        assert!(findings[0].next.as_ref().unwrap().contains("plim top"));
    }

    #[test]
    fn a_missing_image_names_the_command_that_brings_it() {
        let state = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such host" } });
        let findings = diagnose(&evidence(container(state, json!({}))));
        assert_eq!((findings[0].stage, findings[0].good), ("image", false));
        assert!(findings[0].next.as_ref().unwrap().contains("plim build -t shop/web:1"));
    }

    #[test]
    fn a_crash_is_told_with_its_last_lines() {
        let state = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let last = json!({ "restartCount": 3, "lastState": { "terminated": { "exitCode": 2 } } });
        let mut evidence = evidence(container(state, last));
        evidence.logs.push(("web-1".to_owned(), "c".to_owned(), vec!["no database".to_owned()]));
        let findings = diagnose(&evidence);
        assert_eq!(findings[0].what, "web-1, container c ended with exit code 2, restarted 3 times");
        assert_eq!(findings[0].details, ["| no database"]);
    }

    #[test]
    fn too_little_memory_is_called_so() {
        let state = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        let findings = diagnose(&evidence(container(state, json!({}))));
        assert!(findings[0].what.contains("more memory than its limit"));
    }

    #[test]
    fn a_service_that_selects_nothing_is_told_with_its_selector() {
        let service = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "wbe" } } });
        let evidence =
            Evidence { service: Some(serde_json::from_value(service).unwrap()), ..Evidence::default() };
        let findings = diagnose(&evidence);
        assert_eq!(findings[0].what, "no pod matches its selector app=wbe");
    }

    #[test]
    fn nothing_is_wrong_with_what_is_ready() {
        let ready = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        let findings = diagnose(&evidence(ready));
        assert!(findings.iter().all(|f| f.good) && !findings.is_empty());
    }
}
