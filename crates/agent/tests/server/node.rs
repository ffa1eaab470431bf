//! Pods, statistics and metrics.

use serde_json::{Value, json};

use crate::{client::get, fakes::Node};

async fn json_of(node: &Node, path: &str) -> Value {
    let (status, text) = get(node, path).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn pods_are_listed_as_they_are_meant_and_as_they_run() {
    let node = Node::start().await;
    let all = json_of(&node, "/pods").await;
    assert_eq!((&all["kind"], &all["apiVersion"]), (&json!("PodList"), &json!("v1")));
    assert_eq!(all["items"][0]["metadata"]["name"], "web");
    assert_eq!(all["items"][0]["status"]["containerStatuses"][0]["name"], "app");
    assert!(all["items"][0].get("kind").is_none());
    let running = json_of(&node, "/runningpods/").await;
    assert_eq!(running["items"][0]["metadata"], json!({"name": "web", "namespace": "shop", "uid": "u-1"}));
    assert_eq!(running["items"][0]["spec"]["containers"][0]["image"], "app:1");
}

#[tokio::test]
async fn the_summary_has_node_pods_and_containers() {
    let node = Node::start().await;
    let first = json_of(&node, "/stats/summary").await;
    assert!(first["pods"][0]["cpu"].get("usageNanoCores").is_none(), "one look tells no rate");
    let summary = json_of(&node, "/stats/summary").await;
    let (host, pod) = (&summary["node"], &summary["pods"][0]);
    assert_eq!(host["nodeName"], "n1");
    for pointer in [
        "/cpu/usageCoreNanoSeconds",
        "/memory/workingSetBytes",
        "/memory/availableBytes",
        "/fs/capacityBytes",
    ] {
        assert!(host.pointer(pointer).and_then(Value::as_u64).unwrap() > 0, "{pointer}: {host}");
    }
    assert_eq!(host["runtime"]["imageFs"]["usedBytes"], 12345);
    assert_eq!(pod["podRef"], json!({"name": "web", "namespace": "shop", "uid": "u-1"}));
    assert_eq!(pod["startTime"], "2026-01-01T00:00:00Z");
    // half a processor, of two looks two seconds apart
    assert_eq!(pod["cpu"]["usageNanoCores"], 500_000_000);
    assert_eq!(pod["network"]["name"], "eth0");
    assert_eq!(pod["network"]["interfaces"][0]["txBytes"], 20);
    assert_eq!(pod["process_stats"]["process_count"], 3);
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1, "only the current instance");
    let container = &pod["containers"][0];
    assert_eq!(
        (&container["name"], &container["startTime"]),
        (&json!("app"), &json!("2026-01-01T00:00:01Z"))
    );
    assert_eq!(container["cpu"]["usageNanoCores"], 500_000_000);
    assert_eq!(container["memory"]["workingSetBytes"], 1 << 20);
    assert_eq!(container["rootfs"]["usedBytes"], 4096);
    assert_eq!(pod["volume"].as_array().unwrap().len(), 1);
    assert_eq!(pod["volume"][0]["name"], "scratch");
    assert!(pod["volume"][0]["usedBytes"].as_u64().unwrap() >= 50_000);
    assert!(pod["ephemeral-storage"]["usedBytes"].as_u64().unwrap() >= 54_096);
    let brief = json_of(&node, "/stats/summary?only_cpu_and_memory=true").await;
    assert!(brief["pods"][0].get("volume").is_none() && brief["node"].get("fs").is_none());
}

#[tokio::test]
async fn metrics_have_the_names_that_autoscalers_and_dashboards_read() {
    let node = Node::start().await;
    let (_, resource) = get(&node, "/metrics/resource").await;
    for line in [
        "container_cpu_usage_seconds_total{container=\"app\",namespace=\"shop\",pod=\"web\"} 6 1700000002000",
        "container_memory_working_set_bytes{container=\"app\",namespace=\"shop\",pod=\"web\"} 1048576 1700000002000",
        "container_start_time_seconds{container=\"app\",namespace=\"shop\",pod=\"web\"} 1767225601",
        "pod_cpu_usage_seconds_total{namespace=\"shop\",pod=\"web\"} 6 1700000002000",
        "pod_memory_working_set_bytes{namespace=\"shop\",pod=\"web\"} 1048576 1700000002000",
        "resource_scrape_error 0",
    ] {
        assert!(resource.lines().any(|l| l == line), "{line}\n{resource}");
    }
    assert!(
        resource.contains("\nnode_cpu_usage_seconds_total ")
            && resource.contains("\nnode_memory_working_set_bytes ")
    );
    let (_, cadvisor) = get(&node, "/metrics/cadvisor").await;
    let app = "id=\"/kubepods/podu-1/app-1\",image=\"docker.io/library/app:1\",name=\"app-1\",namespace=\"shop\",pod=\"web\"";
    let pod = "id=\"/kubepods/podu-1\",image=\"\",interface=\"eth0\",name=\"\"";
    for line in [
        format!("container_cpu_usage_seconds_total{{container=\"app\",cpu=\"total\",{app}}} 7 1700000004000"),
        format!("container_memory_working_set_bytes{{container=\"app\",{app}}} 1048576 1700000004000"),
        format!("container_fs_usage_bytes{{container=\"app\",{app}}} 4096"),
        format!(
            "container_network_receive_bytes_total{{container=\"\",{pod},namespace=\"shop\",pod=\"web\"}} 10"
        ),
    ] {
        assert!(cadvisor.lines().any(|l| l == line), "{line}\n{cadvisor}");
    }
    assert!(cadvisor.contains("\nmachine_cpu_cores ") && cadvisor.contains("id=\"/\""));
    let (_, own) = get(&node, "/metrics").await;
    for line in [
        "kubelet_node_name{node=\"n1\"} 1",
        "kubelet_running_pods 1",
        "kubelet_running_containers{container_state=\"running\"} 1",
        "kubelet_http_requests_total{method=\"GET\",path=\"metrics\"} 3",
    ] {
        assert!(own.lines().any(|l| l == line), "{line}\n{own}");
    }
    assert!(own.contains("\nprocess_resident_memory_bytes "));
}

#[tokio::test]
async fn settings_are_shown_in_upstreams_words() {
    let node = Node::start().await;
    let settings = json_of(&node, "/configz").await;
    assert_eq!(settings["kubeletconfig"]["maxPods"], 110);
    assert_eq!(settings["kubeletconfig"]["clusterDNS"], json!(["10.0.0.10"]));
}
