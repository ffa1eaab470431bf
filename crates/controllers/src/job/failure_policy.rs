//! What the failure of a pod means for its Job, by the Job's own rules.

use k8s_openapi::api::{
    batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule},
    core::v1::{ContainerStatus, Pod, PodStatus},
};

/// What a failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It counts towards the limits.
    pub counts: bool,
    /// Its index fails at once.
    pub fails_index: bool,
    /// The Job fails at once; why.
    pub fails_job: Option<String>,
}

/// The verdict of the first rule that matches; without one, the failure counts.
pub fn of(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref());
    let rules = policy.map(|p| p.rules.as_slice()).unwrap_or_default();
    for (place, rule) in rules.iter().enumerate() {
        if let Some(what) = matched(rule, pod) {
            let message = || format!("{what} matching {} rule at index {place}", rule.action);
            return Verdict {
                counts: rule.action != "Ignore",
                fails_index: rule.action == "FailIndex",
                fails_job: (rule.action == "FailJob").then(message),
            };
        }
    }
    Verdict { counts: true, fails_index: false, fails_job: None }
}

/// What about the pod matches the rule, in words.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    let path = format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default());
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = exited(status, codes)?;
        return Some(format!("Container {container} for pod {path} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let condition = status.conditions.iter().flatten().find(|condition| {
        patterns.iter().any(|pattern| {
            pattern.type_ == condition.type_
                && pattern.status.as_deref().unwrap_or("True") == condition.status
        })
    })?;
    Some(format!("Pod {path} has condition {}", condition.type_))
}

/// The first container whose exit code matches; containers come before init containers, and 0 never matches.
fn exited<'a>(
    status: &'a PodStatus,
    codes: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let ended = all.filter_map(|c: &ContainerStatus| {
        Some((c.name.as_str(), c.state.as_ref()?.terminated.as_ref()?.exit_code))
    });
    let mut ended = ended.filter(|(name, code)| {
        *code != 0
            && codes.container_name.as_deref().is_none_or(|wanted| wanted == *name)
            && match codes.operator.as_str() {
                "In" => codes.values.contains(code),
                "NotIn" => !codes.values.contains(code),
                _ => false,
            }
    });
    ended.next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let job: Job = object(
            json!({"metadata": {"name": "j"}, "spec": {"template": {}, "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}},
            {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "NotIn", "values": [1]}}]}}}),
        );
        let pod = |code: i32, conditions: serde_json::Value| -> Pod {
            object(
                json!({"metadata": {"namespace": "n", "name": "p"}, "status": {"phase": "Failed", "conditions": conditions,
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code}}}]}}),
            )
        };
        let disrupted = json!([{"type": "DisruptionTarget", "status": "True"}]);
        assert!(!of(&job, &pod(9, disrupted)).counts);
        assert!(of(&job, &pod(7, json!([]))).fails_index);
        let text = "Container c for pod n/p failed with exit code 9 matching FailJob rule at index 2";
        assert_eq!(of(&job, &pod(9, json!([]))).fails_job.as_deref(), Some(text));
        assert_eq!(of(&job, &pod(1, json!([]))).fails_job, None);
        assert!(of(&job, &pod(0, json!([]))).counts, "exit code 0 never matches");
    }
}
