//! Cases of the kind of upstream's `horizontal_test.go` and `replica_calculator_test.go`.

use serde_json::{Value, json};

use super::*;
use crate::{
    Ask, Refusal,
    fixtures::{add, at, converse, key, noon, reasons, refusal, updated, world},
};

/// A Deployment `web` of three pods that request one CPU each, and an autoscaler that wants them at 50 %.
#[derive(Clone)]
struct Case {
    spec: Value,
    status: Value,
    current: i32,
    pods: Vec<Value>,
    /// CPU use in thousandths, by pod; no sample for what is `None`.
    cpu: Vec<Option<i64>>,
    /// Answers to paths that contain the text.
    more: Vec<(&'static str, Result<Value, Refusal>)>,
    others: Vec<Value>,
    memory: Value,
    seconds: i64,
}

fn pod(number: usize, request: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": format!("web-{number}"), "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": request}}}]},
        "status": {"phase": "Running", "startTime": at(-3600).to_string(), "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": at(-3500).to_string()}]}})
}

impl Case {
    fn new(cpu: &[i64]) -> Self {
        Self {
            spec: json!({"minReplicas": 1, "maxReplicas": 10,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]}),
            status: json!({"desiredReplicas": 0}),
            current: i32::try_from(cpu.len()).unwrap(),
            pods: (0..cpu.len()).map(|n| pod(n, "1")).collect(),
            cpu: cpu.iter().copied().map(Some).collect(),
            more: Vec::new(),
            others: Vec::new(),
            memory: Value::Null,
            seconds: 0,
        }
    }

    fn metric(mut self, metric: Value) -> Self {
        self.spec["metrics"] = json!([metric]);
        self
    }

    fn answering(mut self, path: &'static str, answer: Value) -> Self {
        self.more.push((path, Ok(answer)));
        self
    }

    fn answer(&self, ask: &Ask) -> Result<Value, Refusal> {
        if let Some((_, answer)) = self.more.iter().find(|(path, _)| ask.path.contains(path)) {
            return answer.clone();
        }
        if ask.path.ends_with("/scale") {
            return Ok(json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
                "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"},
                "spec": {"replicas": self.current},
                "status": {"replicas": self.current, "selector": "app=web"}}));
        }
        if ask.path == "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods?labelSelector=app%3Dweb" {
            let samples = self.cpu.iter().enumerate().filter_map(|(number, cpu)| {
                Some(json!({"metadata": {"name": format!("web-{number}")}, "window": "1m0s",
                    "timestamp": at(self.seconds).to_string(),
                    "containers": [{"name": "c", "usage": {"cpu": format!("{}m", (*cpu)?)}}]}))
            });
            return Ok(json!({"items": samples.collect::<Vec<_>>()}));
        }
        Err(refusal(404, "NotFound", "404 page not found"))
    }

    fn plan_after(&self, last: Outcome) -> Plan {
        let mut world = world(self.pods.clone());
        world.set_served(crate::testing::api::served());
        add(
            &mut world,
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"namespace": "shop", "name": "web", "generation": 3},
            "spec": self.spec, "status": self.status}),
        );
        for other in &self.others {
            add(&mut world, other.clone());
        }
        let now = at(self.seconds);
        converse(&Autoscaler, &world, &key("shop", "web"), last, now, |ask| self.answer(ask))
    }

    fn plan(&self) -> Plan {
        self.plan_after(Outcome { memory: self.memory.clone(), ..Outcome::default() })
    }

    fn result(&self) -> Found {
        Found::of(&self.plan())
    }
}

/// What a plan does.
struct Found {
    rescaled: Option<i64>,
    status: Value,
    reasons: Vec<String>,
}

impl Found {
    fn of(plan: &Plan) -> Self {
        let rescaled = plan.steps.iter().flatten().find_map(|write| match write {
            Write::Post { subresource: "scale", object, .. } => object["spec"]["replicas"].as_i64(),
            _ => None,
        });
        let status = updated(plan).first().map_or(Value::Null, |object| object["status"].clone());
        Self { rescaled, status, reasons: reasons(plan).into_iter().map(str::to_owned).collect() }
    }

    /// `True ValidMetricFound`
    fn condition(&self, kind: &str) -> String {
        let conditions = self.status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
        format!("{} {}", found["status"].as_str().unwrap_or(""), found["reason"].as_str().unwrap_or(""))
    }

    fn message(&self, kind: &str) -> String {
        let conditions = self.status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
        found["message"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn more_pods_are_made_when_they_use_more_than_the_target() {
    let found = Case::new(&[600, 900, 1200]).result();
    assert_eq!(found.rescaled, Some(6), "ceil(90/50 * 3)");
    assert_eq!(found.status["desiredReplicas"], 6);
    assert_eq!(found.status["currentReplicas"], 3);
    assert_eq!(found.status["observedGeneration"], 3);
    assert_eq!(found.status["lastScaleTime"], noon().to_string());
    let current = &found.status["currentMetrics"][0]["resource"]["current"];
    assert_eq!(*current, json!({"averageUtilization": 90, "averageValue": "900m"}));
    assert_eq!(found.condition("AbleToScale"), "True SucceededRescale");
    assert_eq!(found.condition("ScalingActive"), "True ValidMetricFound");
    assert_eq!(found.condition("ScalingLimited"), "False DesiredWithinRange");
    assert_eq!(found.condition("ScaledToZero"), "False NotScaledToZero");
}

#[test]
fn within_the_tolerance_nothing_is_done() {
    for (use_, expected) in [(559, None), (560, Some(4)), (450, None)] {
        assert_eq!(Case::new(&[use_; 3]).result().rescaled, expected, "{use_}");
    }
    let mut case = Case::new(&[560; 3]);
    case.spec["behavior"] = json!({
        "scaleUp": {"tolerance": "0.2", "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}});
    let found = case.result();
    assert_eq!(found.rescaled, None);
    assert_eq!(found.condition("AbleToScale"), "True ReadyForNewScale");
}

#[test]
fn fewer_pods_are_kept_after_five_minutes_only() {
    let mut case = Case::new(&[100; 5]);
    let plan = case.plan();
    let found = Found::of(&plan);
    assert_eq!(found.rescaled, None, "the size at the start is a recommendation too");
    assert_eq!(found.condition("AbleToScale"), "True ScaleDownStabilized");
    assert_eq!(plan.again, Some(at(15)));
    case.memory = plan.memory.unwrap();
    case.seconds = 301;
    assert_eq!(case.result().rescaled, Some(1));
}

#[test]
fn between_two_looks_it_waits_unless_the_spec_changed() {
    let mut case = Case::new(&[600; 3]);
    case.memory = case.plan().memory.unwrap();
    case.seconds = 5;
    let early = case.plan();
    assert_eq!((early.steps.len(), early.again), (0, Some(at(15))));
    case.memory["generation"] = json!(2);
    assert!(!case.plan().steps.is_empty());
}

#[test]
fn bounds_hold_without_metrics() {
    let mut case = Case::new(&[600; 3]);
    case.more.push(("metrics.k8s.io", Err(refusal(500, "", "must not be asked"))));
    case.spec["maxReplicas"] = json!(2);
    assert_eq!(case.result().rescaled, Some(2));
    case.spec["maxReplicas"] = json!(9);
    case.spec["minReplicas"] = json!(5);
    let plan = case.plan();
    assert_eq!(Found::of(&plan).rescaled, Some(5));
    assert!(plan.memory.unwrap()["attempt"]["reason"].as_str().unwrap().ends_with("below Spec.MinReplicas"));
}

#[test]
fn no_metrics_change_nothing_and_are_told() {
    let mut case = Case::new(&[]);
    case.pods = vec![pod(0, "1")];
    case.current = 1;
    let found = case.result();
    assert_eq!(found.rescaled, None);
    assert_eq!(found.condition("ScalingActive"), "False FailedGetResourceMetric");
    assert_eq!(found.reasons, ["FailedGetResourceMetric", "FailedComputeMetricsReplicas"]);
    let mut gone = Case::new(&[500]);
    gone.more.push(("metrics.k8s.io", Err(refusal(404, "", "404 page not found"))));
    assert_eq!(
        gone.result().message("ScalingActive"),
        "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource \
         cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get \
         pods.metrics.k8s.io)"
    );
}

#[test]
fn a_pod_that_requests_nothing_is_an_error() {
    let mut case = Case::new(&[500, 500]);
    case.pods[1] = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c"}]},
        "status": case.pods[0]["status"]});
    let message = case.result().message("ScalingActive");
    assert!(message.ends_with("missing request for cpu in container c of Pod web-1"), "{message}");
}

#[test]
fn pods_without_a_sample_are_taken_to_use_nothing_on_the_way_up_and_all_on_the_way_down() {
    // 3 pods measured at 90 %, one unknown: 270/400 = 67 % → ceil(67/50 * 4) = 6, not ceil(90/50 * 4) = 8
    let mut up = Case::new(&[900, 900, 900, 0]);
    up.cpu[3] = None;
    assert_eq!(up.result().rescaled, Some(6));
    // measured at 10 %, unknown taken as 100 %: (30 + 100)/400 = 32 % → ceil(0.64 * 4) = 3
    let mut down = Case::new(&[100, 100, 100, 0]);
    down.cpu[3] = None;
    down.seconds = 400;
    down.memory = json!({"uid": "uid-web", "recommendations": [{"number": 4, "milliseconds": 0}]});
    assert_eq!(down.result().rescaled, Some(3));
    // on the way up, but with nothing from two of four it would shrink: left as it is
    let mut flips = Case::new(&[600, 600, 0, 0]);
    (flips.cpu[2], flips.cpu[3]) = (None, None);
    assert_eq!(flips.result().rescaled, None);
}

#[test]
fn pods_that_are_starting_do_not_count_for_cpu() {
    let mut case = Case::new(&[900, 900, 900]);
    // it started a minute ago and has not been ready for one window
    case.pods[2]["status"]["startTime"] = json!(at(-60).to_string());
    case.pods[2]["status"]["conditions"][0]["lastTransitionTime"] = json!(at(-30).to_string());
    // (900 + 900 + 0)/3000 = 60 % → ceil(1.2 * 3) = 4
    assert_eq!(case.result().rescaled, Some(4));
    case.pods[2]["status"]["conditions"][0]["lastTransitionTime"] = json!(at(-61).to_string());
    assert_eq!(case.result().rescaled, Some(6));
    // it never was ready: its sample counts as nothing long after its start
    let mut never = Case::new(&[900, 900, 900]);
    never.pods[2]["status"]["conditions"][0] =
        json!({"type": "Ready", "status": "False", "lastTransitionTime": at(-3590).to_string()});
    assert_eq!(never.result().rescaled, Some(4));
    // pending and deleted pods
    let mut pending = Case::new(&[900, 900, 900]);
    pending.pods[2]["status"]["phase"] = json!("Pending");
    assert_eq!(pending.result().rescaled, Some(4));
    let mut deleted = Case::new(&[900, 900, 900]);
    deleted.pods[2]["metadata"]["deletionTimestamp"] = json!(noon().to_string());
    assert_eq!(deleted.result().rescaled, Some(4), "ceil(1.8 * 2)");
}

#[test]
fn one_container_alone_can_be_measured_and_values_instead_of_percents() {
    let container = json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let found = Case::new(&[900; 3]).metric(container).result();
    assert_eq!(found.rescaled, Some(6));
    assert_eq!(found.status["currentMetrics"][0]["containerResource"]["container"], "c");
    let value = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "AverageValue", "averageValue": "300m"}}});
    let found = Case::new(&[450; 3]).metric(value).result();
    assert_eq!(found.rescaled, Some(5), "ceil(1.5 * 3)");
    assert_eq!(found.status["currentMetrics"][0]["resource"]["current"], json!({"averageValue": "450m"}));
}

fn custom(versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions.iter().map(|v| json!({"version": v})).collect();
    json!({"kind": "APIGroup", "name": "custom.metrics.k8s.io", "versions": versions})
}

#[test]
fn pods_metrics_come_through_the_custom_metrics_api() {
    let metric = json!({"type": "Pods", "pods": {"metric": {"name": "qps"},
        "target": {"type": "AverageValue", "averageValue": "10"}}});
    let items: Vec<Value> =
        (0..3).map(|n| json!({"describedObject": {"name": format!("web-{n}")}, "value": "20"})).collect();
    let case = Case::new(&[0; 3])
        .metric(metric.clone())
        .answering("/v1beta2/namespaces/shop/pods/%2A/qps?labelSelector=app%3Dweb", json!({"items": items}));
    let unregistered = case.result();
    assert_eq!(unregistered.condition("ScalingActive"), "False FailedGetPodsMetric");
    let message = unregistered.message("ScalingActive");
    assert!(message.ends_with("no custom metrics API (custom.metrics.k8s.io) registered"), "{message}");
    let mut case = case;
    case.more[0].0 = "/v1beta2/namespaces/shop/pods/*/qps?labelSelector=app%3Dweb";
    let found = case.answering("/apis/custom.metrics.k8s.io", custom(&["v1beta1", "v1beta2"])).result();
    assert_eq!(found.rescaled, Some(6));
    assert_eq!(found.status["currentMetrics"][0]["pods"]["current"], json!({"averageValue": "20"}));
}

fn object_metric(target: Value) -> Value {
    json!({"type": "Object", "object": {"metric": {"name": "qps"}, "target": target,
        "describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}}})
}

fn object_case(value: &str, target: Value) -> Case {
    Case::new(&[0; 3])
        .metric(object_metric(target))
        .answering(
            "/namespaces/shop/ingresses.networking.k8s.io/main/qps",
            json!({"items": [{"value": value}]}),
        )
        .answering("/apis/custom.metrics.k8s.io", custom(&["v1beta2"]))
}

#[test]
fn an_objects_value_counts_against_the_ready_pods_or_is_shared_among_all() {
    let case = object_case("300", json!({"type": "Value", "value": "200"}));
    assert_eq!(case.result().rescaled, Some(5), "ceil(1.5 * 3)");
    let mut unready = case.clone();
    unready.pods[0]["status"]["conditions"][0]["status"] = json!("False");
    assert_eq!(unready.result().rescaled, None, "ceil(1.5 * 2) is what there is");
    let found = object_case("300", json!({"type": "AverageValue", "averageValue": "50"})).result();
    assert_eq!(found.rescaled, Some(6));
    assert_eq!(found.status["currentMetrics"][0]["object"]["current"], json!({"averageValue": "100"}));
}

fn external_case(values: &[&str], target: Value) -> Case {
    let items: Vec<Value> = values.iter().map(|value| json!({"value": value})).collect();
    Case::new(&[0; 3])
        .metric(json!({"type": "External", "external": {"metric": {"name": "queue",
            "selector": {"matchLabels": {"q": "a"}}}, "target": target}}))
        .answering(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue?labelSelector=q%3Da",
            json!({"items": items}),
        )
}

#[test]
fn all_series_of_an_external_metric_are_added() {
    let found =
        external_case(&["100", "200"], json!({"type": "AverageValue", "averageValue": "50"})).result();
    assert_eq!(found.rescaled, Some(6));
    let message = found.message("ScalingActive");
    assert!(
        message.ends_with(
            "external metric queue(&LabelSelector{MatchLabels:map[string]string{q: a,},MatchExpressions:[]LabelSelectorRequirement{},})"
        ),
        "{message}"
    );
    assert_eq!(external_case(&["300"], json!({"type": "Value", "value": "200"})).result().rescaled, Some(5));
}

#[test]
fn it_goes_to_zero_and_comes_back_only_if_it_went_there_itself() {
    let mut case = external_case(&["0"], json!({"type": "Value", "value": "200"}));
    case.spec["minReplicas"] = json!(0);
    case.memory = json!({"uid": "uid-web", "recommendations": [{"number": 0, "milliseconds": 0}]});
    let found = case.result();
    assert_eq!(found.rescaled, Some(0));
    assert_eq!(found.condition("ScaledToZero"), "True ScaledToZero");
    let mut back = external_case(&["500"], json!({"type": "Value", "value": "200"}));
    (back.current, back.pods) = (0, Vec::new());
    back.spec["minReplicas"] = json!(0);
    let by_hand = back.result();
    assert_eq!(by_hand.rescaled, None);
    assert_eq!(by_hand.condition("ScalingActive"), "False ScalingDisabled");
    back.status["conditions"] = json!([{"type": "ScaledToZero", "status": "True"}]);
    let found = back.result();
    assert_eq!(found.rescaled, Some(3), "ceil(2.5)");
    assert_eq!(found.condition("ScaledToZero"), "False NotScaledToZero");
}

#[test]
fn of_several_metrics_the_highest_counts_and_one_that_fails_keeps_it_from_shrinking() {
    let failing = json!({"type": "External", "external": {"metric": {"name": "queue"},
        "target": {"type": "Value", "value": "1"}}});
    let mut up = Case::new(&[900; 3]);
    let cpu = up.spec["metrics"][0].clone();
    up.spec["metrics"] = json!([failing, cpu]);
    let found = up.result();
    assert_eq!(found.rescaled, Some(6));
    assert_eq!(found.status["currentMetrics"][0], json!({"type": ""}));
    assert_eq!(found.reasons, ["FailedGetExternalMetric"]);
    let mut down = Case::new(&[100; 3]);
    down.spec["metrics"] = up.spec["metrics"].clone();
    down.memory = json!({"uid": "uid-web", "recommendations": [{"number": 3, "milliseconds": 0}]});
    let found = down.result();
    assert_eq!(found.rescaled, None);
    assert_eq!(found.condition("ScalingActive"), "False FailedGetExternalMetric");
}

#[test]
fn a_target_that_is_not_there_or_unknown_is_told() {
    let mut case = Case::new(&[900; 3]);
    case.more.push(("/scale", Err(refusal(404, "NotFound", "deployments.apps \"web\" not found"))));
    let found = case.result();
    assert_eq!(found.condition("AbleToScale"), "False FailedGetScale");
    let words = "the HPA controller was unable to get the target's current scale: ";
    assert_eq!(found.message("AbleToScale"), format!("{words}deployments.apps \"web\" not found"));
    assert_eq!(found.reasons, ["FailedGetScale"]);
    case.spec["scaleTargetRef"] = json!({"apiVersion": "x.io/v1", "kind": "Thing", "name": "t"});
    let message = case.result().message("AbleToScale");
    assert_eq!(message, format!("{words}no matches for kind \"Thing\" in group \"x.io\""));
}

#[test]
fn two_autoscalers_of_the_same_pods_do_nothing() {
    let mut case = Case::new(&[900; 3]);
    case.others = vec![json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"namespace": "shop", "name": "other"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web2"}}})];
    let found = case.result();
    assert_eq!(found.rescaled, None);
    assert_eq!(found.condition("ScalingActive"), "False AmbiguousSelector");
    assert_eq!(
        found.message("ScalingActive"),
        "pods by selector app=web are controlled by more than one HPA (e.g. [shop/web shop/other])"
    );
}

#[test]
fn a_scale_that_cannot_be_written_is_told_and_counts_for_no_rate() {
    let mut case = Case::new(&[900; 3]);
    case.spec["behavior"] = json!({"scaleUp": {"selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}});
    let first = case.plan();
    let write = first.steps[0][0].clone();
    let failed = |reason: &str, tries| Outcome {
        failures: vec![crate::Failure {
            write: write.clone(),
            code: 409,
            reason: reason.to_owned(),
            message: "it is so".to_owned(),
            causes: Vec::new(),
        }],
        tries,
        memory: first.memory.clone().unwrap(),
        ..Outcome::default()
    };
    let again = Found::of(&case.plan_after(failed("Conflict", 1)));
    assert_eq!(again.rescaled, Some(6), "read anew and tried again");
    for (reason, tries) in [("Forbidden", 1), ("Conflict", 6)] {
        let plan = case.plan_after(failed(reason, tries));
        let told = Found::of(&plan);
        assert_eq!(told.condition("AbleToScale"), "False FailedUpdateScale");
        assert_eq!(
            plan.notes[0].message,
            "New size: 6; reason: cpu resource utilization (percentage of request) above target; error: it is so"
        );
        assert_eq!(plan.memory.unwrap()["ups"], json!([]));
    }
    let succeeded = Outcome { memory: first.memory.clone().unwrap(), ..Outcome::default() };
    let plan = case.plan_after(succeeded);
    assert_eq!(plan.memory.as_ref().unwrap()["ups"][0]["number"], 3);
    assert_eq!(reasons(&plan), ["SuccessfulRescale"]);
}
