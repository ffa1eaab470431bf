//! What a list of pods costs as protobuf, from stored JSON: CPU time of this thread, and bytes.
//!
//! `cargo run --release -p kinds --example protobuf_lists [PODS]`

use std::{env, fs, hint::black_box};

use kinds::protobuf::{ObjectWriter, list_head, list_tail};
use serde_json::{Value, json};

/// A pod as `conformance/cmd/load` makes them, with what the server adds.
fn pod(number: usize) -> Value {
    let amounts = json!({"cpu": "100m", "memory": "128Mi"});
    let tolerations: Vec<Value> = ["not-ready", "unreachable"]
        .iter()
        .map(|taint| {
            json!({"effect": "NoExecute", "key": format!("node.kubernetes.io/{taint}"), "operator": "Exists",
                   "tolerationSeconds": 300})
        })
        .collect();
    json!({
        "metadata": {
            "resourceVersion": (1000 + number).to_string(),
            "name": format!("load-{number:06}"), "namespace": "load", "generation": 1,
            "uid": format!("3f0c2f0e-5d1a-4a7b-9a39-{number:012}"),
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app": "load", "part": (number % 100).to_string()},
            "managedFields": [{
                "manager": "load", "operation": "Update", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:part": {}}},
                    "f:spec": {
                        "f:containers": {"k:{\"name\":\"main\"}": {
                            ".": {}, "f:env": {".": {}, "k:{\"name\":\"MODE\"}": {".": {}, "f:name": {}, "f:value": {}}},
                            "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                            "f:ports": {".": {}, "k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":
                                {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                            "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}, "f:memory": {}},
                                "f:requests": {".": {}, "f:cpu": {}, "f:memory": {}}},
                            "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
                        "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {},
                        "f:securityContext": {}, "f:terminationGracePeriodSeconds": {},
                    },
                },
            }],
        },
        "spec": {
            "containers": [{
                "name": "main", "image": "registry.example.com/team/service:1", "imagePullPolicy": "IfNotPresent",
                "env": [{"name": "MODE", "value": "production"}],
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"limits": amounts, "requests": amounts},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "volumeMounts": [{"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    "name": "kube-api-access-abcde", "readOnly": true}],
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0, "restartPolicy": "Always", "schedulerName": "nobody", "securityContext": {},
            "serviceAccount": "default", "serviceAccountName": "default", "terminationGracePeriodSeconds": 30,
            "tolerations": tolerations,
            "volumes": [{"name": "kube-api-access-abcde", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    "path": "namespace"}]}},
            ]}}],
        },
        "status": {"phase": "Pending", "qosClass": "Guaranteed"},
    })
}

/// CPU time of this process so far, in milliseconds: the first field of `schedstat` is nanoseconds.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e6
}

/// The least of ten rounds, after which nothing of the machine's noise is left but the best case.
fn measure(what: &str, mut list: impl FnMut() -> Vec<u8>) -> Vec<u8> {
    let mut made = list();
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        let before = cpu();
        made = black_box(list());
        least = least.min(cpu() - before);
    }
    println!("{what}: {least:.1} ms of CPU, {} bytes", made.len());
    made
}

fn main() {
    let pods = env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(10_000);
    let stored: Vec<String> = (0..pods).map(|number| pod(number).to_string()).collect();
    println!("{pods} pods of {} bytes of JSON", stored.first().map_or(0, String::len));
    let metadata = json!({"resourceVersion": "20000"});
    let Some(writer) = ObjectWriter::new("v1", "Pod") else { return };
    let whole = |items: Vec<u8>| {
        let head = list_head("v1", "PodList", &metadata, items.len()).unwrap_or_default();
        [head, items, list_tail()].concat()
    };
    let by_value = measure("read as values, then written", || {
        let values = stored.iter().filter_map(|json| serde_json::from_str(json).ok());
        whole(values.flat_map(|pod: Value| writer.write_value(&pod)).collect())
    });
    let streamed = measure("written as it is read", || {
        whole(stored.iter().filter_map(|json| writer.write(json.as_bytes()).ok()).flatten().collect())
    });
    println!("the same bytes: {}", by_value == streamed);
}
