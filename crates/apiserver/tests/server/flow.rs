//! Priority and fairness: a flood of one does not keep others from their work.

use std::{collections::VecDeque, time::Duration};

use access::UserInfo;
use apiserver::Response;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::Service as _;

use crate::cluster::Cluster;

/// No body.
static NOTHING: Value = Value::Null;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";

fn user(name: &str, group: &str) -> UserInfo {
    let groups = vec![group.to_owned(), access::AUTHENTICATED.to_owned()];
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}

async fn ask(cluster: &Cluster, user: UserInfo, method: &str, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = http::Request::builder().method(method).uri(path).body(Full::new(body)).unwrap();
    cluster.server.service_as(user).call(request).await.unwrap()
}

fn level(name: &str, shares: u32, response: &Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name},
        // Neither lent nor borrowed: its seats are always the same.
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": 0, "borrowingLimitPercent": 0,
        }},
    })
}

fn schema(name: &str, level: &str, group: &str, precedence: u32) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "spec": {
            "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "Group", "group": {"name": group}}],
                "resourceRules": [{
                    "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
                }],
            }],
        },
    })
}

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

/// Few seats beside those of the levels that are always there: some for the level `tenants`, some for `nodes`. Tenants may read config maps, nodes renew leases. Also the
/// seats of the tenants, each of whom may have six more requests waiting.
async fn shared() -> (Cluster, usize) {
    let cluster = Cluster::with(|config| config.seats = 240).await;
    let queue = |queues: u32, length: u32| json!({"type": "Queue", "queuing": {"queues": queues, "handSize": 2, "queueLengthLimit": length}});
    cluster.create(LEVELS, &level("tenants", 5, &queue(64, 3))).await.ok();
    cluster.create(LEVELS, &level("nodes", 10, &queue(64, 50))).await.ok();
    cluster.create(SCHEMAS, &schema("tenants", "tenants", "tenants", 900)).await.ok();
    cluster.create(SCHEMAS, &schema("nodes", "nodes", "system:nodes", 500)).await.ok();
    for (group, api, resource, verbs) in [
        ("tenants", "", "configmaps", vec!["get", "list", "watch"]),
        ("system:nodes", "coordination.k8s.io", "leases", vec!["get", "update"]),
    ] {
        let name = json!({"name": format!("{resource}-users")});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": name,
            "rules": [{"apiGroups": [api], "resources": [resource], "verbs": verbs}],
        });
        cluster.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.ok();
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": name,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name["name"]},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
        });
        cluster.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.ok();
    }
    // Large enough that a list of them is streamed, and holds its seat until it was read.
    for n in 0..6 {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{n}")}, "data": {"x": "y".repeat(100_000)},
        });
        cluster.create(CONFIG_MAPS, &object).await.ok();
    }
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"},
    });
    cluster.create(LEASE.trim_end_matches("/n1"), &lease).await.ok();
    let in_force = |page: &crate::cluster::Answer| {
        let text = String::from_utf8_lossy(&page.body).into_owned();
        text.contains("schema=\"nodes\"") && text.contains("schema=\"tenants\"")
    };
    let page = cluster.until("/metrics", in_force).await;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let (_, seats) = text.split_once("nominal_limit_seats{priority_level=\"tenants\"} ").unwrap();
    let seats = seats.lines().next().unwrap().parse().unwrap();
    (cluster, seats)
}

/// Lists that nobody reads: `count` at once by one tenant. Yields the answers as they come.
fn flood(cluster: &Cluster, count: usize) -> mpsc::UnboundedReceiver<Response> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for _ in 0..count {
        let mut service = cluster.server.service_as(user("greedy", "tenants"));
        let sender = sender.clone();
        tokio::spawn(async move {
            let request = http::Request::get(CONFIG_MAPS).body(Full::new(Bytes::new())).unwrap();
            let _ = sender.send(service.call(request).await.unwrap());
        });
    }
    receiver
}

#[tokio::test]
async fn leases_of_nodes_are_renewed_and_others_have_their_turn_under_a_flood_of_lists() {
    let (cluster, seats) = shared().await;
    let mut answers = flood(&cluster, seats + 6 + 29);
    // Some have seats, six wait in the two queues of the flow's hand, the rest is turned away.
    let (mut begun, mut refused) = (VecDeque::new(), 0);
    while begun.len() + refused < seats + 29 {
        let answer = answers.recv().await.unwrap();
        match answer.status().as_u16() {
            200 => begun.push_back(answer),
            429 => {
                refused += 1;
                let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                assert!(seconds >= 1);
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((begun.len(), refused), (seats, 29));

    let node = || user("system:node:n1", "system:nodes");
    let mut lease = cluster.get(LEASE).await.ok();
    for n in 0..20 {
        lease["spec"]["leaseTransitions"] = n.into();
        let renewed = ask(&cluster, node(), "PUT", LEASE, &lease);
        let renewed =
            tokio::time::timeout(Duration::from_secs(5), renewed).await.expect("it waits behind the flood");
        assert_eq!(renewed.status(), 200);
        let body = renewed.into_body().collect().await.unwrap().to_bytes();
        lease = serde_json::from_slice(&body).unwrap();
    }

    // Another tenant waits, but not behind all that the first one wants.
    let mut modest = Box::pin(ask(&cluster, user("modest", "tenants"), "GET", CONFIG_MAPS, &NOTHING));
    assert!(futures::poll!(&mut modest).is_pending(), "all seats of the level are taken");
    drop(begun.pop_front());
    let answer = tokio::time::timeout(Duration::from_secs(5), modest).await.expect("it has no turn");
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.len() > 600_000);

    // When the lists are read, or nobody wants them any more, whoever waits goes on; at last all seats are free.
    for _ in 0..6 {
        drop(begun.pop_front());
        let next =
            tokio::time::timeout(Duration::from_secs(5), answers.recv()).await.expect("it waits for ever");
        begun.push_back(next.unwrap());
    }
    begun.clear();
    let free = "current_executing_requests{flow_schema=\"tenants\",priority_level=\"tenants\"} 0\n";
    let page = cluster.until("/metrics", |page| String::from_utf8_lossy(&page.body).contains(free)).await;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let full = "rejected_requests_total{flow_schema=\"tenants\",priority_level=\"tenants\",reason=\"queue-full\"} 29\n";
    assert!(text.contains(full), "{text}");
}

#[tokio::test]
async fn who_waits_too_long_is_turned_away_and_who_goes_leaves_no_seat_behind() {
    let (cluster, seats) = shared().await;
    let mut answers = flood(&cluster, seats);
    let mut begun = Vec::new();
    for _ in 0..seats {
        begun.push(answers.recv().await.unwrap());
    }
    let path = format!("{CONFIG_MAPS}?timeout=200ms");
    let answer = ask(&cluster, user("modest", "tenants"), "GET", &path, &NOTHING).await;
    assert_eq!(answer.status(), 429);
    {
        let mut gone = Box::pin(ask(&cluster, user("gone", "tenants"), "GET", CONFIG_MAPS, &NOTHING));
        assert!(futures::poll!(&mut gone).is_pending());
    }
    drop(begun);
    let text = cluster.get("/metrics").await;
    let text = String::from_utf8_lossy(&text.body).into_owned();
    assert!(text.contains("reason=\"time-out\"} 1\n"), "{text}");
    assert!(
        text.contains("current_inqueue_requests{flow_schema=\"tenants\",priority_level=\"tenants\"} 0\n"),
        "{text}"
    );
    let answer = ask(&cluster, user("modest", "tenants"), "GET", CONFIG_MAPS, &NOTHING).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn answers_tell_their_schema_and_level_and_a_watch_holds_nothing() {
    let (cluster, seats) = shared().await;
    let uid = |object: Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let schema = uid(cluster.get(&format!("{SCHEMAS}/tenants")).await.ok());
    let level = uid(cluster.get(&format!("{LEVELS}/tenants")).await.ok());
    let marks = |answer: &Response| {
        let text = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        (text("x-kubernetes-pf-flowschema-uid"), text("x-kubernetes-pf-prioritylevel-uid"))
    };
    let tenant = || user("modest", "tenants");
    let found = ask(&cluster, tenant(), "GET", &format!("{CONFIG_MAPS}/c1"), &NOTHING).await;
    assert_eq!((found.status().as_u16(), marks(&found)), (200, (schema.clone(), level.clone())));
    let forbidden = ask(&cluster, tenant(), "GET", "/api/v1/secrets", &NOTHING).await;
    assert_eq!((forbidden.status().as_u16(), marks(&forbidden)), (403, (schema, level)));

    let mut watches = Vec::new();
    for _ in 0..2 * seats {
        let path = format!("{CONFIG_MAPS}?watch=1");
        let mut watch = ask(&cluster, tenant(), "GET", &path, &NOTHING).await;
        assert_eq!(watch.status(), 200);
        watch.body_mut().frame().await.unwrap().unwrap();
        watches.push(watch);
    }
    let found = ask(&cluster, tenant(), "GET", &format!("{CONFIG_MAPS}/c1"), &NOTHING).await;
    assert_eq!(found.status(), 200);
}

#[tokio::test]
async fn a_schema_without_its_level_says_so_and_is_passed_over() {
    let cluster = Cluster::with(|config| config.seats = 20).await;
    cluster.create(SCHEMAS, &schema("a", "late", "tenants", 100)).await.ok();
    let dangling = |status: &'static str, reason: &'static str| {
        move |answer: &crate::cluster::Answer| {
            let json = answer.json();
            let condition = &json["status"]["conditions"][0];
            (condition["type"] == "Dangling")
                && condition["status"] == status
                && condition["reason"] == reason
        }
    };
    let path = format!("{SCHEMAS}/a");
    let schema = cluster.until(&path, dangling("True", "NotFound")).await.ok();
    let message = "This FlowSchema references the PriorityLevelConfiguration object named \"late\" but there is no such object";
    assert_eq!(schema["status"]["conditions"][0]["message"], message);
    let answer = ask(&cluster, user("x", "tenants"), "GET", "/api/v1/secrets", &NOTHING).await;
    let uid = schema["metadata"]["uid"].as_str().unwrap();
    assert_ne!(answer.headers()["x-kubernetes-pf-flowschema-uid"], uid);
    cluster.create(LEVELS, &level("late", 1, &json!({"type": "Reject"}))).await.ok();
    cluster.until(&path, dangling("False", "Found")).await;
    let answer = ask(&cluster, user("x", "tenants"), "GET", "/api/v1/secrets", &NOTHING).await;
    assert_eq!(answer.headers()["x-kubernetes-pf-flowschema-uid"], uid);
}

#[tokio::test]
async fn levels_tell_what_they_lend_and_borrow() {
    let cluster = Cluster::with(|config| config.seats = 240).await;
    let mut lender = level("lender", 30, &json!({"type": "Reject"}));
    lender["spec"]["limited"]["lendablePercent"] = 40.into();
    lender["spec"]["limited"]["borrowingLimitPercent"] = 10.into();
    cluster.create(LEVELS, &lender).await.ok();
    let text = |answer: &crate::cluster::Answer| String::from_utf8_lossy(&answer.body).into_owned();
    let page = cluster.until("/metrics", |answer| text(answer).contains("\"lender\"")).await;
    let page = text(&page);
    let value = |name: &str| -> f64 {
        let name = format!("apiserver_flowcontrol_{name}{{priority_level=\"lender\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name}: {page}")).parse().unwrap()
    };
    let nominal = value("nominal_limit_seats");
    assert!(nominal > 0.0);
    assert_eq!(value("lower_limit_seats"), nominal - (nominal * 0.4).round());
    assert_eq!(value("upper_limit_seats"), nominal + (nominal * 0.1).round());
    let current = value("current_limit_seats");
    assert!((value("lower_limit_seats")..=value("upper_limit_seats")).contains(&current));
    for name in ["high_watermark", "average", "stdev", "smoothed"] {
        assert_eq!(value(&format!("demand_seats_{name}")), 0.0, "nobody has asked for it: {name}");
    }
    assert_eq!(value("target_seats"), value("lower_limit_seats"));
    assert!(page.contains("\napiserver_flowcontrol_seat_fair_frac "), "{page}");
}
