//! Lists as long as a request are judged in good time, and what is said of them has an end.

use std::time::{Duration, Instant};

use apimachinery::{ApiError, FieldErrors};
use kinds::Resource;
use serde_json::{Value, json};

const MANY: usize = 15_000;
/// Looking for each item among all others takes minutes.
const GOOD_TIME: Duration = Duration::from_secs(60);

fn kind(group: &str, plural: &str) -> &'static Resource {
    kinds::find(group, "v1", plural).unwrap()
}

fn many(item: impl Fn(usize) -> Value) -> Vec<Value> {
    (0..MANY).map(item).collect()
}

/// A pod whose lists are of things that are compared with each other.
fn pod() -> Value {
    let names = |prefix: &'static str| many(move |n| json!({ "name": format!("{prefix}{n}") }));
    let keys = || many(|n| json!(format!("k{n}")));
    json!({
        "metadata": {"name": "a", "namespace": "a"},
        "spec": {
            "containers": [{
                "name": "a", "image": "a",
                "volumeMounts": many(|n| json!({"name": format!("v{n}"), "mountPath": format!("/m{n}")})),
                "volumeDevices": many(|n| json!({"name": format!("d{n}"), "devicePath": format!("/d{n}")})),
                "resources": {"claims": names("c")},
            }],
            "resourceClaims": names("c"),
            "schedulingGates": names("g"),
            "tolerations": many(|n| json!({"key": format!("k{n}"), "operator": "Exists"})),
            "ephemeralContainers": names("e"),
            "topologySpreadConstraints": many(|n| json!({
                "topologyKey": format!("k{n}"), "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1,
            })),
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                "topologyKey": "a", "matchLabelKeys": keys(), "mismatchLabelKeys": keys(),
                "labelSelector": {"matchExpressions": many(|n| json!({"key": format!("k{n}"), "operator": "Exists"}))},
            }]}},
        },
    })
}

#[test]
fn what_is_compared_with_each_other_in_a_pod_is_looked_up() {
    let begun = Instant::now();
    let (pod, strategy) = (pod(), &kind("", "pods").strategy);
    assert!(!strategy.validate(&pod).is_empty());
    let mut new = pod.clone();
    new["spec"]["schedulingGates"] = json!([]);
    for subresource in ["", "ephemeralcontainers", "resize"] {
        strategy.validate_update(&new, &pod, subresource);
    }
    assert!(begun.elapsed() < GOOD_TIME, "{:?}", begun.elapsed());
}

#[test]
fn an_object_full_of_faults_has_an_answer_of_bounded_size() {
    let begun = Instant::now();
    let mut pod = pod();
    pod["spec"]["containers"] = json!(many(|_| json!({})));
    let errors = kind("", "pods").strategy.validate(&pod);
    assert_eq!(errors.len(), FieldErrors::MOST + 1, "one more than is told");
    let answer = ApiError::invalid("", "Pod", "a", &errors).to_status();
    let causes = answer["details"]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), FieldErrors::MOST + 1);
    assert_eq!(causes.last().unwrap()["message"], "Too many: there are more errors than are listed here");
    assert!(answer.to_string().len() < 1 << 20);
    assert!(begun.elapsed() < GOOD_TIME, "{:?}", begun.elapsed());
}

#[test]
fn faults_that_show_the_whole_list_are_few() {
    let begun = Instant::now();
    let scopes = many(|_| json!("BestEffort"));
    let hard: serde_json::Map<_, _> =
        (0..MANY).map(|n| (format!("requests.hugepages-{n}Ki"), json!("1"))).collect();
    let quota =
        json!({"metadata": {"name": "a", "namespace": "a"}, "spec": {"scopes": scopes, "hard": hard}});
    let errors = kind("", "resourcequotas").strategy.validate(&quota);
    let answer = ApiError::invalid("", "ResourceQuota", "a", &errors).to_status();
    assert!(answer.to_string().len() < 8 * FieldErrors::LARGEST, "twice each, in message and cause");
    assert!(begun.elapsed() < GOOD_TIME, "{:?}", begun.elapsed());
}
